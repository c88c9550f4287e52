"""Any cell walked over time: layers, both directions, ragged lengths; forward and backward.

Arrays are time-major: T steps, B sequences, I inputs, H hidden units, D directions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from .cells import Cell, Params, Saved, State

#: h, or (h, c) where the cell has both; each of shape (layers * D, B, its width).
LayerState: TypeAlias = Array | tuple[Array, ...]


@dataclass
class Tape:
    """What `forward` remembers for `backward`."""

    cell: Cell
    params: Params
    num_layers: int
    directions: int
    #: For each step the mask (B, 1) of the sequences that reach it, or None if all do.
    alive: Sequence[Array | None]
    #: Of the arrays that make a state: (layers * D, B, width).
    shapes: list[tuple[int, int, int]]
    #: For each layer and direction what every step saved, in the order walked.
    walks: list[list[Saved]] = field(default_factory=list)
    #: How wide the inputs of each of these were.
    inputs: list[int] = field(default_factory=list)

    def order(self, direction: int) -> range:
        """The steps as this direction takes them."""
        steps = len(self.alive)
        return range(steps - 1, -1, -1) if direction else range(steps)


def forward(
    cell: Cell,
    params: Params,
    x: Array,
    state: LayerState | None = None,
    lengths: npt.ArrayLike | None = None,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> tuple[Array, LayerState, Tape]:
    """Run stacked layers of `cell` over `x` (T, B, I) from `state` (zeros if not given).

    `params` holds weight_ih_l0 (G*H, I), weight_hh_l0 (G*H, H), and bias_ih_l0 and bias_hh_l0
    (G*H,) or neither, or what else the cell has; then _l1 and so on; each also with _reverse if
    `bidirectional`. Everything is computed in their dtype. `lengths` (B,) says where each sequence
    ends: a reversed walk starts there, outputs past it are zero, and what the padding holds does
    not matter.

    Returns y (T, B, D*H), each sequence's own last state, and the tape for `backward`.
    """
    directions = 2 if bidirectional else 1
    x = np.asarray(x, dtype=params["weight_ih_l0"].dtype)
    steps, batch, _ = x.shape
    widths = cell.widths(_own(params, 0, 0))
    shapes = [(num_layers * directions, batch, width) for width in widths]
    tape = Tape(cell, params, num_layers, directions, _alive(steps, lengths), shapes)

    first = _as_tuple(state, tape)
    last = tuple(np.empty_like(component) for component in first)
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            y, end = _walk(tape, layer, direction, x, tuple(component[k] for component in first))
            outputs.append(y)
            for component, value in zip(last, end, strict=True):
                component[k] = value
        x = np.concatenate(outputs, axis=2)
    return x, _joined(last), tape


def backward(
    tape: Tape, dy: Array | None = None, dstate: LayerState | None = None
) -> tuple[Array, LayerState, Params]:
    """Back-propagate through time the gradients of the outputs and of the last states.

    `dy` has the shape of y and `dstate` that of the state; None is zero. Returns dx, the gradient
    of the initial state, and those of the parameters under their names.
    """
    grads = {name: np.zeros_like(param) for name, param in tape.params.items()}
    if dy is None:
        _, batch, width = tape.shapes[0]
        dy = np.zeros((len(tape.alive), batch, tape.directions * width), _dtype(tape))

    dlast = _as_tuple(dstate, tape)
    dfirst = tuple(np.empty_like(component) for component in dlast)
    for layer in reversed(range(tape.num_layers)):
        dxs = []
        for direction, dy_own in enumerate(np.split(dy, tape.directions, axis=2)):
            k = layer * tape.directions + direction
            dend = tuple(component[k] for component in dlast)
            dx, dstart = _walk_back(tape, layer, direction, dy_own, dend, grads)
            dxs.append(dx)
            for component, value in zip(dfirst, dstart, strict=True):
                component[k] = value
        dy = dxs[0] if len(dxs) == 1 else dxs[0] + dxs[1]
    return dy, _joined(dfirst), grads


def _walk(tape: Tape, layer: int, direction: int, x: Array, state: State) -> tuple[Array, State]:
    """One layer in one direction. A sequence that does not reach step t keeps its state there."""
    params = _own(tape.params, layer, direction)
    y = np.zeros((*x.shape[:2], state[0].shape[1]), x.dtype)
    walk = []
    for t in tape.order(direction):
        alive = tape.alive[t]
        new, saved = tape.cell.forward(_where(alive, x[t]), state, params)
        y[t] = _where(alive, new[0])
        state = tuple(_where(alive, n, kept) for n, kept in zip(new, state, strict=True))
        walk.append(saved)
    tape.walks.append(walk)
    tape.inputs.append(x.shape[2])
    return y, state


def _walk_back(
    tape: Tape, layer: int, direction: int, dy: Array, dstate: State, grads: Params
) -> tuple[Array, State]:
    """Undo `_walk`, last step first: dx and the gradient of the first state; add to `grads`."""
    params, own_grads = _own(tape.params, layer, direction), _own(grads, layer, direction)
    k = layer * tape.directions + direction
    walk = tape.walks[k]
    dx = np.zeros((*dy.shape[:2], tape.inputs[k]), dy.dtype)
    for t, saved in zip(reversed(tape.order(direction)), reversed(walk), strict=True):
        alive = tape.alive[t]
        dh, *others = dstate
        dnew = tuple(_where(alive, d) for d in (dh + dy[t], *others))
        dx[t], dold = tape.cell.backward(dnew, saved, params, own_grads)
        dstate = tuple(_where(alive, d, kept) for d, kept in zip(dold, dstate, strict=True))
    return dx, dstate


def _where(alive: Array | None, new: Array, kept: Array | int = 0) -> Array:
    """`new` for the sequences that reach this step, `kept` for the others."""
    return new if alive is None else np.where(alive, new, kept)


def _alive(steps: int, lengths: npt.ArrayLike | None) -> list[Array | None]:
    if lengths is None:
        return [None] * steps
    return [(t < np.asarray(lengths))[:, np.newaxis] for t in range(steps)]


def _own(arrays: Params, layer: int, direction: int) -> Params:
    """The arrays of one layer and direction, under the names that a cell knows."""
    own = re.compile(rf"(\w+)_l{layer}(_t\d+)?" + ("_reverse" if direction else ""))
    matches = {name: own.fullmatch(name) for name in arrays}
    return {m[1] + (m[2] or ""): arrays[name] for name, m in matches.items() if m}


def _dtype(tape: Tape) -> npt.DTypeLike:
    return tape.params["weight_ih_l0"].dtype


def _as_tuple(state: LayerState | None, tape: Tape) -> State:
    """The state as a tuple, whatever the cell; zeros where none is given."""
    if state is None:
        return tuple(np.zeros(shape, _dtype(tape)) for shape in tape.shapes)
    return state if isinstance(state, tuple) else (state,)


def _joined(state: State) -> LayerState:
    return state if len(state) > 1 else state[0]
