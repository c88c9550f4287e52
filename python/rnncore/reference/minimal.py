"""Cells whose gates do not see the state, in the letters of `cells`.

Feng et al. 2024, "Were RNNs all we needed?". They have no W_h and no b_h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from .activations import IDENTITY, LOGISTIC, SIGMOID, Activation
from .cells import Params, Saved, State, product, product_back


@dataclass(frozen=True)
class MinGRU:
    """The minimal GRU.

        z  = sigma(W_i x + b_i)
        n  = tau(W_i x + b_i)
        h' = (1 - z) * h + z * n

    Each gate has its own H rows of the weights, in the order z, n.
    """

    sigma: Activation = SIGMOID
    tau: Activation = IDENTITY

    def widths(self, params: Params) -> tuple[int, ...]:
        """(H,)."""
        return (len(params["weight_ih"]) // 2,)

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h) -> h'."""
        (h,) = state
        a_z, a_n = np.split(product(x, params, "ih"), 2, axis=1)
        z, n = self.sigma(a_z), self.tau(a_n)
        h_new = (1 - z) * h + z * n
        return (h_new,), (x, h, z, n)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh' -> dx, dh."""
        x, h, z, n = saved
        (dh_new,) = dstate
        dz, dn, dh = dh_new * (n - h), dh_new * z, dh_new * (1 - z)
        da = np.concatenate([dz * self.sigma.slope(z), dn * self.tau.slope(n)], axis=1)
        return product_back(da, x, params, grads, "ih"), (dh,)


@dataclass(frozen=True)
class MinLSTM:
    """The minimal LSTM, its two gates normalised so that they add up to one; no cell state.

        f, i = sigma(W_i x + b_i)
        n  = tau(W_i x + b_i)
        h' = (f * h + i * n) / (f + i)

    Each gate has its own H rows of the weights, in the order f, i, n.
    """

    sigma: Activation = LOGISTIC
    tau: Activation = IDENTITY

    def widths(self, params: Params) -> tuple[int, ...]:
        """(H,)."""
        return (len(params["weight_ih"]) // 3,)

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h) -> h'."""
        (h,) = state
        a_f, a_i, a_n = np.split(product(x, params, "ih"), 3, axis=1)
        f, i, n = self.sigma(a_f), self.sigma(a_i), self.tau(a_n)
        h_new = (f * h + i * n) / (f + i)
        return (h_new,), (x, h, f, i, n, h_new)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh' -> dx, dh."""
        x, h, f, i, n, h_new = saved
        (dh_new,) = dstate
        dsum = dh_new / (f + i)
        df, di, dn, dh = dsum * (h - h_new), dsum * (n - h_new), dsum * i, dsum * f
        da = np.concatenate(
            [df * self.sigma.slope(f), di * self.sigma.slope(i), dn * self.tau.slope(n)], axis=1
        )
        return product_back(da, x, params, grads, "ih"), (dh,)
