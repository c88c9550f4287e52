"""One time step of a cell: `forward`, and next to it the `backward` that undoes it.

Letters and shapes, the same in every cell:

    x (B, I)       input
    h (B, H)       hidden state, which is the output; h' is the next
    c (B, H)       cell state (LSTM)
    W_i (G*H, I)   params["weight_ih"], the rows of G gates one after the other
    W_h (G*H, H)   params["weight_hh"]
    b_i (G*H,)     params["bias_ih"], or absent
    b_h (G*H,)     params["bias_hh"], or absent
    a              what goes into an activation
    d...           the gradient of the loss with respect to ...
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from ..arrays import Array

State: TypeAlias = tuple[Array, ...]
Saved: TypeAlias = tuple[Any, ...]
Params: TypeAlias = dict[str, Array]


class Cell(Protocol):
    """What the walk over time asks of a cell. A state is a tuple that starts with the output h."""

    def widths(self, params: Params) -> tuple[int, ...]:
        """Of the arrays that make a state: (H,) is h alone, (H, H) is h and c."""

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """Compute the next state, and what `backward` has to remember."""

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """Turn the next state's gradient into dx and this state's; add the weights' to `grads`."""


class OneState:
    """A cell whose state is h alone."""

    def widths(self, params: Params) -> tuple[int, ...]:
        """(H,)."""
        return (params["weight_hh"].shape[1],)


ALL = slice(None)


def product(x: Array, params: Params, side: str, rows: slice = ALL) -> Array:
    """x W^T + b, with the given rows of the weights on this side, "ih" or "hh"."""
    a = x @ params[f"weight_{side}"][rows].T
    return a + params[f"bias_{side}"][rows] if f"bias_{side}" in params else a


def product_back(
    da: Array, x: Array, params: Params, grads: Params, side: str, rows: slice = ALL
) -> Array:
    """Undo `a = product(x, ...)`: add dW = da^T x and db = sum(da) to `grads`, return dx = da W."""
    grads[f"weight_{side}"][rows] += da.T @ x
    if f"bias_{side}" in params:
        grads[f"bias_{side}"][rows] += da.sum(axis=0)
    return da @ params[f"weight_{side}"][rows]
