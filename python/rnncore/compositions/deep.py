"""Depth in four places (Pascanu et al. 2014): input, transition, output, and layers on layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import (
    Array,
    as_array,
    as_shape,
    check_flag,
    check_size,
    warn_ignored,
)
from ..layers.activations import Elementwise
from ..layers.dropout import Dropout
from ..layers.linear import Linear
from ..module import Module, once
from ..nonlinearities import Activation, as_activation
from ..recurrent.registry import LayerMaker, layer_maker
from ..recurrent.stack import Pullback
from ..states import State
from ..stream.stages import Stack, Stage, Stages
from ..widths import check_width
from .chain import Chain
from .ragged import inside


def feed_forward(
    sizes: list[int],
    activation: Activation,
    dropout: float,
    dtype: npt.DTypeLike,
    rng: np.random.Generator,
) -> Chain:
    """Linear, activation and, where wanted, dropout for each pair of neighbouring sizes."""
    phi = as_activation("activation", activation)
    layers: list[Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [Linear(inputs, outputs, dtype=dtype, seed=rng), Elementwise(phi)]
        layers += [Dropout(dropout, seed=rng)] if dropout else []
    return Chain(*layers)


def _side_by_side(*parts: Array) -> Array:
    return np.concatenate(parts, axis=-1)


class Wiring(NamedTuple):
    """What layers on layers read and hand on beyond the outputs of the one below.

    residual: each but the first adds its input to its output; skip: each sees the first one's input
    as well, and the outputs of all go on.
    """

    residual: bool
    skip: bool

    def through(
        self,
        count: int,
        layer: Callable[[int, Any], Any],
        x: Any,
        between: Callable[[Any], Any] | None = None,
        add: Callable[[Any, Any], Any] = operator.add,
        join: Callable[..., Any] = _side_by_side,
    ) -> Any:
        """Return what goes on of x through `layer(n, what it reads)` for n in 0..count-1.

        between: applied to what passes from layer to layer; add, join: of two outputs, of several.
        """
        y, outputs = x, []
        for n in range(count):
            y = between(y) if n and between else y
            h = layer(n, join(y, x) if n and self.skip else y)
            y = add(h, y) if n and self.residual else h
            outputs.append(y)
        return join(*outputs) if self.skip else y


class DeepRNN(Module):
    """A recurrent network that is deep in any of four places (Pascanu et al. 2014).

    num_layers: recurrent layers one on the other; input_depth: layers from the input to the hidden
    state, of which all but the last are feed-forward; transition_depth: from one hidden state to
    the next (DT-RNN; with shortcut=True, DT(S)-RNN); output_depth: from the hidden state to y, all
    but the first feed-forward on each h (DO). A depth of one is the plain layer, to the bit.

    cell: a name of `rnncore.recurrent.registry.LAYERS` or a cell of one's own (`rnncore.cells`);
    `options` go to it.
    residual=True adds the input of every recurrent layer but the first to its output; skip=True
    gives the network's input to every layer and the outputs of all to y, side by side (Graves
    2013). width: of the feed-forward layers, hidden_size if None; activation: theirs; dropout:
    after each of them and between the recurrent layers, in `vjp` only.

    x `(T, B, input_size)` to y `(T, B, output_size)`, and a state as that of the stacked layers,
    `(num_layers * D, B, H)`. Parameters: `input.0.weight`, `recurrent.0.weight_ih_l0`, ...
    """

    recurrent = True
    takes_resets = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        cell: str | LayerMaker = "rnn",
        num_layers: int = 1,
        input_depth: int = 1,
        transition_depth: int = 1,
        output_depth: int = 1,
        shortcut: bool = False,
        residual: bool = False,
        skip: bool = False,
        width: int | None = None,
        activation: Activation = "tanh",
        dropout: float = 0.0,
        batch_first: bool = False,
        bidirectional: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: int | np.random.Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        maker = layer_maker("cell", cell)
        self.input_size = check_size("input_size", input_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.batch_first = check_flag("batch_first", batch_first)
        self.residual, self.skip = check_flag("residual", residual), check_flag("skip", skip)
        self.wiring = Wiring(self.residual, self.skip)
        depths = check_size("input_depth", input_depth), check_size("output_depth", output_depth)
        rng = np.random.default_rng(seed)
        wide = hidden_size if width is None else check_size("width", width)
        sizes = [input_size] + [wide] * (depths[0] - 1)
        self.input = feed_forward(sizes, activation, dropout, dtype, rng)
        if transition_depth != 1 or shortcut:  # not every cell has them
            options |= {"transition_depth": transition_depth, "shortcut": shortcut}
        common = {"bidirectional": bidirectional, "batch_first": batch_first}
        if depths == (1, 1) and width is not None:
            warn_ignored("width", "feed-forward layers (input_depth or output_depth above 1)")
        if depths == (1, 1) and dropout and num_layers == 1:
            warn_ignored("dropout", "several layers or feed-forward ones")
        between = dropout if num_layers > 1 else 0.0
        common |= {"dtype": dtype, "seed": rng, "dropout": between} | options
        self.layers = self._stack(maker, sizes[-1], hidden_size, common)
        self.directions = 2 if bidirectional else 1
        self.hidden_size, self.dtype = hidden_size, self.layers[0].dtype
        y_size = self.directions * self.layers[0].output_size
        outputs = [y_size * (num_layers if skip else 1)] + [wide] * (depths[1] - 1)
        self.output = feed_forward(outputs, activation, dropout, dtype, rng)
        self.output_size: int = outputs[-1]
        self.between = Dropout(dropout, seed=rng)

    def _stack(
        self, cell: Callable[..., Any], input_size: int, hidden_size: int, common: dict[str, Any]
    ) -> list[Any]:
        """Recurrent layers: one object for all, or one for each where more than y passes on."""
        if not (self.residual or self.skip):
            return [cell(input_size, hidden_size, self.num_layers, **common)]
        layers = [cell(input_size, hidden_size, **common | {"dropout": 0.0})]
        wide = layers[0].directions * layers[0].output_size
        for _ in range(1, self.num_layers):
            size = wide + self.skip * input_size
            layers.append(cell(size, hidden_size, **common | {"dropout": 0.0}))
        return layers

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the feed-forward nets and the recurrent layers."""
        for name, part in super().children():
            if part is not self.between:
                yield name.replace("layers", "recurrent"), part

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.input_size)
        return self.output_size

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled layers, and the first state, which they work on."""
        parts = [layer.stages(batch, dtype) for layer in self.layers]
        state: State = parts[0].state
        layers: list[Any] = [stage for part in parts for stage in part.stages]
        if len(parts) > 1:  # each has one, which works on its part of the state of all
            state, layers = self._on_one_state(layers, batch)
        if self.residual or self.skip:
            layers = [Stack(layers, *self.wiring)]
        first, last = (net.stages(batch, dtype).stages for net in (self.input, self.output))
        return Stages(self.input_size, state, [*first, *layers, *last])

    def _on_one_state(self, stages: list[Stage], batch: int) -> tuple[State, list[Stage]]:
        """The state of all layers, and the stage of each on its part of it."""
        pairs = [layer.start_pair((None, None), batch) for layer in self.layers]
        h, c = map(np.concatenate, zip(*pairs, strict=True))
        return self.layers[0].join_state(h, c), [
            stage._replace(h=h[n], c=None if stage.c is None else c[n])
            for n, stage in enumerate(stages)
        ]

    def __call__(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[Array, State]:
        """Run over whole sequences, as a recurrent layer does; nothing is recorded."""
        x = inside(self._checked(x), lengths, self.batch_first)
        finals: list[State] = []

        def layer(n: int, x: Array) -> Array:
            y: Array
            y, final = self.layers[n](x, before[n], lengths=lengths, resets=resets)
            finals.append(final)
            return y

        x, before = self.input(x), self._split(state)
        y = self.output(self.wiring.through(len(self.layers), layer, x))
        return inside(y, lengths, self.batch_first), self._joined(finals)

    def vjp(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[tuple[Array, State], Pullback]:
        """As a call, with dropout and the pullback: `pullback(dy, dstate=None) -> (dx, dstate)`."""
        x = inside(self._checked(x), lengths, self.batch_first)
        finals: list[State] = []
        backs: list[Any] = []
        drop_backs: list[Any] = [None]

        def layer(n: int, x: Array) -> Array:
            y: Array
            (y, final), back = self.layers[n].vjp(x, before[n], lengths=lengths, resets=resets)
            finals.append(final)
            backs.append(back)
            return y

        def drop(y: Array) -> Array:
            y, back = self.between.vjp(y)
            drop_backs.append(back)
            return y

        (x, input_back), before = self.input.vjp(x), self._split(state)
        y, output_back = self.output.vjp(self.wiring.through(len(self.layers), layer, x, drop))
        y = inside(y, lengths, self.batch_first)
        layer_backs = list(zip(backs, drop_backs, strict=True))

        def pullback(dy: npt.ArrayLike | None = None, dstate: State = None) -> tuple[Array, State]:
            dy = np.zeros_like(y) if dy is None else as_shape("dy", dy, self.dtype, y.shape)
            dy = inside(dy, lengths, self.batch_first)
            dseen, dfirst = self._back(output_back(dy), dstate, layer_backs)
            return input_back(dseen), dfirst

        return (y, self._joined(finals)), once(pullback)

    def _back(self, d: Array, dstate: State, backs: list[Any]) -> tuple[Array, State]:
        """Backward through the recurrent layers: to what the first one saw, and the states."""
        width = d.shape[-1] // len(backs)
        parts = (
            [d[..., n * width : (n + 1) * width] for n in range(len(backs))] if self.skip else None
        )
        dseen, dfirst = None, []
        if parts:
            d = parts[-1]
        for n, dfinal in reversed(list(enumerate(self._split(dstate)))):
            back, drop_back = backs[n]
            dx, dbefore = back(d, dfinal)
            dfirst.append(dbefore)
            if n == 0:
                d = dx
                break
            if self.skip:
                own, shared = dx[..., :width], dx[..., width:]
                dseen = shared if dseen is None else dseen + shared
                dx = own
            d = drop_back(dx + d if self.residual else np.ascontiguousarray(dx))
            d = d + parts[n - 1] if parts else d
        return d if dseen is None else d + dseen, self._joined(dfirst[::-1])

    def _checked(self, x: npt.ArrayLike) -> Array:
        x = as_array("x", x, self.dtype)
        if not 2 <= x.ndim <= 3 or x.shape[-1] != self.input_size:
            axes = "B, T" if self.batch_first else "T, B"
            expected = f"({axes}, {self.input_size}) or (T, {self.input_size})"
            raise ValueError(f"x must have shape {expected}, got {x.shape}")
        return x

    def _split(self, state: State) -> list[State]:
        """The state of each recurrent layer."""
        if state is None or len(self.layers) == 1:
            return [state] * len(self.layers)
        parts = state if isinstance(state, (tuple, list)) else (state,)
        rows = self.num_layers * self.directions
        for part in parts:
            if part is not None and (np.ndim(part) < 2 or len(part) != rows):
                raise ValueError(f"state must have {rows} rows, one for each layer and direction")
        split = [
            tuple(
                None if part is None else part[n * self.directions : (n + 1) * self.directions]
                for part in parts
            )
            for n in range(self.num_layers)
        ]
        return list(split) if isinstance(state, (tuple, list)) else [part for (part,) in split]

    def _joined(self, states: list[State]) -> State:
        if len(states) == 1:
            return states[0]
        if isinstance(states[0], tuple):
            return tuple(np.concatenate(parts) for parts in zip(*states, strict=True))
        return np.concatenate(states)
