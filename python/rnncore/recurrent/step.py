"""One step of one layer, as torch's cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy.typing as npt

from ..arrays import Array, as_array, check_size
from ..hinting import refuses_others, unknown_keyword
from ..module import once
from ..states import State
from .base import Initial, Pair, RecurrentBase
from .cell import Cell


class Step(RecurrentBase):
    """One step of one layer: `state = cell(x, state)`."""

    def __init__(
        self, cell: Cell, input_size: int, hidden_size: int, bias: bool, initial: Initial
    ) -> None:
        self.input_size = check_size("input_size", input_size)
        hidden_size = check_size("hidden_size", hidden_size)
        super().__init__(cell, {("",): input_size}, hidden_size, bias, False, initial)

    @refuses_others
    def __call__(self, x: npt.ArrayLike, state: State = None, **others: NoReturn) -> State:
        """Return the state after x.

        x: `(B, input_size)` or `(input_size,)`; state: `(B, H)` or `(H,)`; None: zero, or what is
        learnt.
        """
        if others:
            raise unknown_keyword(self, others)
        x, shape = self._input(x)
        h0, c0 = self.started(self._rows(self.checked_state("state", state, shape)), x.shape[1])
        _, h, c, _, _ = self.kernels[0].forward(x, h0, c0, None, None, False, None)
        return self._result(h, c, shape)

    def vjp(
        self, x: npt.ArrayLike, state: State = None
    ) -> tuple[State, Callable[..., tuple[Array, State]]]:
        """Return `(state, pullback)`; `pullback(dstate) -> (dx, dstate)` adds to `grads`."""
        self._check_trains()
        x, shape = self._input(x)
        given = self._rows(self.checked_state("state", state, shape))
        h0, c0 = self.started(given, x.shape[1])
        _, h, c, _, tape = self.kernels[0].forward(x, h0, c0, None, 0, False, None)

        def pullback(dstate: State) -> tuple[Array, State]:
            dh, dc = self._rows(self.checked_state("dstate", dstate, shape))
            (groups,) = self.gradients()
            dx, dh0, dc0 = self.kernels[0].backward(tape, None, dh, dc, groups, True)
            dfirst = self._result(dh0, dc0, shape)
            self.add_first(given, dfirst)
            return dx.reshape(*shape[:-1], self.input_size), dfirst

        return self._result(h, c, shape), once(pullback)

    def _input(self, x: npt.ArrayLike) -> tuple[Array, tuple[int, ...]]:
        """Return x as one step `(1, B, I)`, and the shape of its states."""
        x = as_array("x", x, self.dtype)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"x must have shape (B, {self.input_size}) or ({self.input_size},), got {x.shape}"
            )
        shape = (*x.shape[:-1], self.output_size)
        return x.reshape(1, -1 if x.size else x.shape[0], self.input_size), shape

    def _rows(self, parts: Pair) -> Pair:
        h, c = (
            None if part is None else part.reshape(1, *(part.shape if part.ndim == 2 else (1, -1)))
            for part in parts
        )
        return h, c

    def _result(self, h: Array, c: Array | None, shape: tuple[int, ...]) -> State:
        wide = (*shape[:-1], self.hidden_size)
        return self.join_state(h.reshape(shape), None if c is None else c.reshape(wide))
