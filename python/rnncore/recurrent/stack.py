"""Stacked recurrent layers of any cell: checked arrays to the compiled kernels, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import (
    Array,
    as_array,
    as_lengths,
    as_resets,
    as_shape,
    check_count,
    check_flag,
    check_size,
    warn_ignored,
)
from ..compiled import Layer, Targets
from ..hinting import refuses_others, unknown_keyword
from ..module import taken
from ..states import State
from ..stream.stages import AnyStage, Stage, Stages
from ..widths import check_width
from .base import Initial, Pair, RecurrentBase
from .cell import Cell
from .regularisers import Masks, Regularisers, bernoulli, inverted, rate

Pullback: TypeAlias = Callable[..., tuple[Array, State]]
#: Where sequences start anew, and the h and c of one layer that they do so from.
_Restarts: TypeAlias = tuple[Array, Array | None, Array | None]
#: Where the gradients of a call go if not to `grads`, and what to do once they are there.
_Gradients: TypeAlias = Callable[[], tuple[list[Targets], Callable[[], None]]]


@dataclass(frozen=True)
class Options:
    """Sizes and options that stacked layers share with torch's."""

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool


class Stacked(RecurrentBase):
    """Stacked layers, each in one direction or two."""

    _built = RecurrentBase._built | {"_expected", "_masked", "_single"}
    takes_resets = True

    def __init__(
        self,
        cell: Cell,
        regularisers: Regularisers,
        options: Options,
        initial: Initial,
        checkpoint: bool | int,
    ) -> None:
        self.input_size = check_size("input_size", options.input_size)
        self.num_layers = check_size("num_layers", options.num_layers)
        hidden_size = check_size("hidden_size", options.hidden_size)
        self.dropout = rate("dropout", options.dropout)
        self.bidirectional = check_flag("bidirectional", options.bidirectional)
        self.directions = 2 if self.bidirectional else 1
        if self.dropout and self.num_layers == 1:
            warn_ignored("dropout", "several layers: it is applied between them (num_layers=1)", 4)
        self.checkpoint = (
            checkpoint if isinstance(checkpoint, bool) else check_count("checkpoint", checkpoint)
        )
        self.regularisers = regularisers
        self.rng = np.random.default_rng(initial.seed)  # of the masks, after the parameters
        suffixes = [(f"_l{n}", f"_l{n}_reverse")[: self.directions] for n in range(self.num_layers)]
        sizes = dict.fromkeys(suffixes, self.input_size)
        initial = replace(initial, seed=self.rng)
        super().__init__(cell, sizes, hidden_size, options.bias, options.batch_first, initial)

    @property
    def columns(self) -> int:
        """How wide x is."""
        return self.input_size

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.columns)
        return self.directions * self.output_size

    @refuses_others
    def __call__(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
        **others: NoReturn,
    ) -> tuple[Array, State]:
        """Run over whole sequences; nothing is recorded.

        x: `(T, B, input_size)`, `(B, T, input_size)` with `batch_first`, or `(T, input_size)` for
        one sequence. state: the initial state, `(num_layers * D, B, H)` (without B for one
        sequence); None: zero, or what is learnt (`learned_state`). D is the number of directions.
        lengths: `(B,)` whole numbers in 1..T; padding is not computed, outputs there are zero.
        resets: booleans `(T, B)`, in x's order of axes, true where a sequence starts anew: there it
        continues zero, or what is learnt, and `state` only precedes the first step. Backward in
        time a sequence starts anew at the last step before.

        Returns y `(T, B, D * H)`, in x's order of axes, and the state after each sequence's own
        last step.
        """
        if others:
            raise unknown_keyword(self, others)
        if lengths is None and self._single is not None:
            found = self._single(x, state, self._expected, resets)  # for the sake of single steps
            if found is not None:
                return found
        y, state, _ = self._infer(x, state, lengths, False, resets)
        return y, state

    def _infer(
        self,
        x: npt.ArrayLike,
        state: State,
        lengths: npt.ArrayLike | None,
        cell_states: bool,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[Array, State, Array | None]:
        x, batched = self._input(x)
        if lengths is not None:
            lengths = self._lengths(lengths, x)
        given = self._parts("state", state, x.shape, batched)
        h0, c0 = self.started(given, self._batch(x))
        masks, beside = self._expected, self._beside(x)
        restarts = self._restarts(resets, x, batched)
        finals = []
        for n, layer in enumerate(self.kernels):
            x = _side_by_side(x, beside) if n else x
            wanted = cell_states and n == self.num_layers - 1
            h, c = self._of_layer(h0, n), self._of_layer(c0, n)
            x, h, c, cells, _ = layer.forward(
                x, h, c, lengths, None, wanted, masks, None, None, restarts[n]
            )
            finals.append((h, c))
        y, state = self._outputs(x, finals, batched)
        return y, state, cells

    @refuses_others
    def vjp(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
        **others: NoReturn,
    ) -> tuple[tuple[Array, State], Pullback]:
        """As a call, with dropout, and with its pullback: `((y, state), pullback)`.

        `pullback(dy, dstate=None) -> (dx, dstate)` takes gradients of the outputs (None: zero) and
        of the final states, returns those of x and of the initial state, and adds those of the
        parameters to `grads`. y is shared with the pullback and read-only; x must stay unchanged
        until the pullback has run. Gradients do not pass a step where a sequence starts anew.
        """
        if others:
            raise unknown_keyword(self, others)
        self._check_trains()
        x, batched = self._input(x)
        if lengths is not None:
            lengths = self._lengths(lengths, x)
        given = self._parts("state", state, x.shape, batched)
        h0, c0 = self.started(given, self._batch(x))
        layers, gradients = self._for_one_call()
        record = self._remembered_steps(x) if self.checkpoint else 0
        restarts = self._restarts(resets, x, batched)
        beside = self._beside(x)
        finals, calls = [], []
        for n, layer in enumerate(layers):
            drop = inverted(self.rng, x.shape, self.dropout, self.dtype) if n else None
            x = x if drop is None else x * drop
            x = _side_by_side(x, beside) if n else x
            masks = self._masks(x) if self._masked else None
            h, c = self._of_layer(h0, n), self._of_layer(c0, n)
            x, h, c, _, tape = layer.forward(
                x, h, c, lengths, record, False, masks, None, None, restarts[n]
            )
            finals.append((h, c))
            calls.append((layer, tape, drop))
        y, final = self._outputs(x, finals, batched)
        shape, held, batch = y.shape, [calls], self._batch(x)
        width = 0 if beside is None else beside.shape[-1]
        learns_anew = self.learned_state and restarts[0] is not None
        del restarts, x, h, c, tape, calls, beside  # the pullback's alone

        def pullback(dy: npt.ArrayLike | None = None, dstate: State = None) -> tuple[Array, State]:
            d = None if dy is None else as_shape("dy", dy, self.dtype, shape)
            d = d if d is None else self._batched(d, batched)
            dh, dc = self._parts("dstate", dstate, shape, batched)
            calls = taken(held)
            grads, add = gradients() if gradients else (self.gradients(), None)
            d_anew = self._zeros(batch) if learns_anew else None
            initial, dbeside = [], None
            for n in range(self.num_layers - 1, -1, -1):
                layer, tape, drop = calls[n]
                own = tuple(self._of_layer(part, n) for part in d_anew) if d_anew else None
                d, dh0, dc0 = layer.backward(
                    tape, d, self._of_layer(dh, n), self._of_layer(dc, n), grads[n], True, own
                )
                if width:
                    dbeside = _add_up(d, width, dbeside)
                    d = np.ascontiguousarray(d[..., :-width]) if n else d
                if drop is not None:
                    d *= drop
                initial.append((dh0, dc0))
            if add:
                add()
            dx, dfirst = self._outputs(d, initial[::-1], batched)
            self.add_first(given, dfirst)
            if d_anew:
                self.add_first((None, None), self.join_state(*d_anew))
            return dx, dfirst

        return (y, final), pullback

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled layers, and the first state, which they work on."""
        if self.bidirectional:
            name = type(self).__name__
            raise ValueError(
                f"a bidirectional {name} cannot run as a stream: it reads from the end"
            )
        if self.columns > self.input_size and self.num_layers > 1:
            name = type(self).__name__
            raise ValueError(
                f"a {name} with inputs beside x cannot run as a stream of several layers"
            )
        h, c = self.start_pair((None, None), batch)
        stages: list[AnyStage] = [
            Stage(layer, h[n], c[n] if self.has_cell_state else None, self._expected)
            for n, layer in enumerate(self.kernels)
        ]
        return Stages(self.columns, self.join_state(h, c), stages)

    def _build(self) -> None:
        super()._build()
        self._expected = self.regularisers.expected(self.dtype, self.directions * self.hidden_size)
        self._masked = self.regularisers.masks
        alone = self.num_layers == 1 and not self.learned_state
        self._single = self.kernels[0].infer if alone else None

    def _restarts(
        self, resets: npt.ArrayLike | None, x: Array, batched: bool
    ) -> Sequence[_Restarts | None]:
        """Where sequences start anew, and from what, for each layer."""
        if resets is None:
            return (None,) * self.num_layers
        shape = x.shape[:2]
        where = as_resets(resets, shape if batched else (math.prod(shape),)).reshape(shape)
        h, c = self.starting_anew()
        return [(where, self._of_layer(h, n), self._of_layer(c, n)) for n in range(self.num_layers)]

    def _remembered_steps(self, x: Array) -> int:
        """After how many steps a tape is cut, 0 for never."""
        steps = x.shape[1 if self.batch_first else 0]
        return max(1, math.isqrt(steps)) if self.checkpoint is True else int(self.checkpoint)

    def _masks(self, x: Array) -> Masks | None:
        """Masks of one layer for a call with inputs like x."""
        rows = (*x.shape[:2], self.directions * self.hidden_size)
        state = (self.directions, self._batch(x), self.output_size)
        return self.regularisers.draw(self.rng, self.dtype, state, rows)

    def _for_one_call(self) -> tuple[list[Layer], _Gradients | None]:
        """The compiled layers, and where their gradients go: weight-drop has its own each time."""
        rate = self.regularisers.weight_drop
        if not rate:
            return self.kernels, None
        params = self.params
        masks: dict[str, Array] = {
            name: bernoulli(self.rng, value.shape, 1 - rate, self.dtype) / self.dtype.type(1 - rate)
            for name, value in params.items()
            if name.startswith("weight_hh")
        }

        def gradients() -> tuple[list[Targets], Callable[[], None]]:
            own = {name: np.zeros_like(mask) for name, mask in masks.items()}

            def add() -> None:
                for name, mask in masks.items():
                    self.grads[name] += own[name] * mask

            return self._targets_of({**self.grads, **own}), add

        dropped = {name: params[name] * mask for name, mask in masks.items()}
        return self._compiled({**params, **dropped}), gradients

    def _input(self, x: npt.ArrayLike) -> tuple[Array, bool]:
        x = as_array("x", x, self.dtype)
        if not 2 <= x.ndim <= 3 or x.shape[-1] != self.columns:
            axes, width = "B, T" if self.batch_first else "T, B", self.columns
            raise ValueError(f"x must have shape ({axes}, {width}) or (T, {width}), got {x.shape}")
        return (x, True) if x.ndim == 3 else (self._batched(x, False), False)

    def _beside(self, x: Array) -> Array | None:
        """The last columns of x, which each layer reads beside the outputs of the one below."""
        if self.num_layers == 1 or self.columns == self.input_size:
            return None
        return x[..., self.input_size :]

    def _batched(self, x: Array, batched: bool) -> Array:
        return x if batched else np.expand_dims(x, 0 if self.batch_first else 1)

    def _batch(self, x: Array) -> int:
        return int(x.shape[0 if self.batch_first else 1])

    def _lengths(self, lengths: npt.ArrayLike | None, x: Array) -> Array | None:
        return as_lengths(lengths, *x.shape[:2][:: -1 if self.batch_first else 1])

    def _state_shape(self, shape: tuple[int, ...], batched: bool) -> tuple[int, ...]:
        """The shape of h for sequences of this shape."""
        layers = self.num_layers * self.directions
        batch = (shape[0 if self.batch_first else 1],) if batched else ()
        return (layers, *batch, self.output_size)

    def _parts(self, name: str, state: State, shape: tuple[int, ...], batched: bool) -> Pair:
        """h and c of a state, or of the gradient of one, of sequences of this shape."""
        if state is None:
            return None, None
        parts = self.checked_state(name, state, self._state_shape(shape, batched))
        if batched:
            return parts
        h, c = (None if part is None else part[:, None] for part in parts)
        return h, c

    def _of_layer(self, part: Array | None, n: int) -> Array | None:
        if part is None or self.num_layers == 1:
            return part
        return part[n * self.directions : (n + 1) * self.directions]

    def _outputs(
        self, y: Any, parts: list[tuple[Array, Array | None]], batched: bool
    ) -> tuple[Array, State]:
        """Join the layers' states, and drop the batch axis that the caller's arrays do not have."""
        state = parts[0]
        if self.num_layers > 1:
            h, c = zip(*parts, strict=True)
            state = np.concatenate(h), np.concatenate(c) if self.has_cell_state else None
        if not batched:
            y = y[0] if self.batch_first else y[:, 0]
            state = state[0][:, 0], None if state[1] is None else state[1][:, 0]
        return y, self.join_state(*state)


def _side_by_side(y: Array, beside: Array | None) -> Array:
    return y if beside is None else np.concatenate((y, beside), axis=-1)


def _add_up(d: Array, width: int, above: Array | None) -> Array:
    """Add gradients of the last columns of x, from the layers above, to those of one layer."""
    if above is not None:
        d[..., -width:] += above
    return np.array(d[..., -width:])
