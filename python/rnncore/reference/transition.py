"""Any cell made deep: several transitions between two time steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from .cells import Cell, Params, Saved, State


@dataclass(frozen=True)
class DeepTransition:
    """A deep transition of the state (Pascanu et al. 2014; gated: Miceli Barone et al. 2017).

        s_1 = cell(x, s)             s is (h,) or (h, c)
        s_t = cell(nothing, s_(t-1)) for t = 2 to depth, with W_h and b_h of its own
        s'  = s_depth

    A transition without input is the cell with an input of no entries. With `shortcut` the last
    one has h for its input, and a W_i. params has the weights of transition t as weight_hh_t2 and
    so on; `cell` sees them without the suffix.
    """

    cell: Cell
    depth: int
    shortcut: bool = False

    def widths(self, params: Params) -> tuple[int, ...]:
        """Those of the cell."""
        return self.cell.widths(params)

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, s) -> s'."""
        h, nothing = state[0], x[:, :0]
        state, saved = self.cell.forward(x, state, params)
        tape = [saved]
        for t in range(2, self.depth + 1):
            seen = h if self._sees_h(t) else nothing
            state, saved = self.cell.forward(seen, state, self._own(params, t))
            tape.append(saved)
        return state, tuple(tape)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """ds' -> dx, ds."""
        dh_seen: Array | int = 0
        for t in range(self.depth, 1, -1):
            own, own_grads = self._own(params, t), self._own(grads, t)
            dseen, dstate = self.cell.backward(dstate, saved[t - 1], own, own_grads)
            if self._sees_h(t):
                dh_seen = dseen
        dx, (dh, *others) = self.cell.backward(dstate, saved[0], params, grads)
        return dx, (dh + dh_seen, *others)

    def _sees_h(self, t: int) -> bool:
        return self.shortcut and t == self.depth

    def _own(self, arrays: Params, t: int) -> Params:
        """The arrays of transition t under the names that the cell knows."""
        suffix = f"_t{t}"
        own = {n.removesuffix(suffix): array for n, array in arrays.items() if n.endswith(suffix)}
        weight = own["weight_hh"]
        return {"weight_ih": np.zeros((len(weight), 0), weight.dtype)} | own
