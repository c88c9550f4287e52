"""Networks without gates, one time step of each, in the letters of `cells`."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays import Array
from .activations import RELU, TANH, Activation
from .cells import OneState, Params, Saved, State, product, product_back


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
