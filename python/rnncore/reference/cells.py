"""One instant of a cell: `forward`, and next to it the `backward` that undoes it.

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

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ..arrays import Array
from .activations import RELU, TANH, Activation

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


@dataclass(frozen=True)
class Vanilla(OneState):
    """The simple recurrent network (Elman 1990, "Finding structure in time").

    h' = phi(W_i x + b_i + W_h h + b_h)
    """

    phi: Activation = TANH

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h) -> h'."""
        (h,) = state
        h_new = self.phi(product(x, params, "ih") + product(h, params, "hh"))
        return (h_new,), (x, h, h_new)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh' -> dx, dh."""
        x, h, h_new = saved
        (dh_new,) = dstate
        da = dh_new * self.phi.slope(h_new)
        dx = product_back(da, x, params, grads, "ih")
        dh = product_back(da, h, params, grads, "hh")
        return dx, (dh,)


@dataclass(frozen=True)
class IndRNN(OneState):
    """Units that see of the state only themselves (Li et al. 2018, eq. 2).

        h' = phi(W_i x + b_i + u * h)

    u (1, H) is params["weight_hh"].
    """

    phi: Activation = RELU

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h) -> h'."""
        (h,) = state
        h_new = self.phi(product(x, params, "ih") + params["weight_hh"] * h)
        return (h_new,), (x, h, h_new)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh' -> dx, dh."""
        x, h, h_new = saved
        (dh_new,) = dstate
        da = dh_new * self.phi.slope(h_new)
        grads["weight_hh"] += (da * h).sum(axis=0)
        dx = product_back(da, x, params, grads, "ih")
        return dx, (da * params["weight_hh"],)
