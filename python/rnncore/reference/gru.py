"""Gated recurrent units, one time step of each, in the letters of `cells`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from .activations import SIGMOID, TANH, Activation
from .cells import OneState, Params, Saved, State, product, product_back


@dataclass(frozen=True)
class GRUResetAfter(OneState):
    """Gated recurrent unit that resets after the recurrent product, as cuDNN and PyTorch have it.

        r, z = sigma(W_i x + b_i + W_h h + b_h)
        n  = tau(W_i x + b_i + r * (W_h h + b_h))
        h' = (1 - z) * n + z * h

    Each gate has its own H rows of the weights, in the order r, z, n.
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h) -> h'."""
        (h,) = state
        x_r, x_z, x_n = np.split(product(x, params, "ih"), 3, axis=1)
        h_r, h_z, h_n = np.split(product(h, params, "hh"), 3, axis=1)
        r, z = self.sigma(x_r + h_r), self.sigma(x_z + h_z)
        n = self.tau(x_n + r * h_n)
        h_new = (1 - z) * n + z * h
        return (h_new,), (x, h, r, z, n, h_n)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh' -> dx, dh."""
        x, h, r, z, n, h_n = saved
        (dh_new,) = dstate
        dz, dn, dh = dh_new * (h - n), dh_new * (1 - z), dh_new * z
        dx_n = dn * self.tau.slope(n)
        dr, dh_n = dx_n * h_n, dx_n * r
        da_r, da_z = dr * self.sigma.slope(r), dz * self.sigma.slope(z)
        dx = product_back(np.concatenate([da_r, da_z, dx_n], axis=1), x, params, grads, "ih")
        dh = dh + product_back(np.concatenate([da_r, da_z, dh_n], axis=1), h, params, grads, "hh")
        return dx, (dh,)


@dataclass(frozen=True)
class GRUResetBefore(OneState):
    """Gated recurrent unit that resets before the recurrent product (Cho et al. 2014, eq. 5 to 8).

        r, z = sigma(W_i x + b_i + W_h h + b_h)
        n  = tau(W_i x + b_i + W_h (r * h) + b_h)
        h' = (1 - z) * n + z * h

    Each gate has its own H rows of the weights, in the order r, z, n.
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h) -> h'."""
        (h,) = state
        rz_rows, n_rows = self._rows(h)
        x_r, x_z, x_n = np.split(product(x, params, "ih"), 3, axis=1)
        h_r, h_z = np.split(product(h, params, "hh", rz_rows), 2, axis=1)
        r, z = self.sigma(x_r + h_r), self.sigma(x_z + h_z)
        n = self.tau(x_n + product(r * h, params, "hh", n_rows))
        h_new = (1 - z) * n + z * h
        return (h_new,), (x, h, r, z, n)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh' -> dx, dh."""
        x, h, r, z, n = saved
        (dh_new,) = dstate
        rz_rows, n_rows = self._rows(h)
        dz, dn, dh = dh_new * (h - n), dh_new * (1 - z), dh_new * z
        da_n = dn * self.tau.slope(n)
        drh = product_back(da_n, r * h, params, grads, "hh", n_rows)
        dr, dh = drh * h, dh + drh * r
        da_rz = np.concatenate([dr * self.sigma.slope(r), dz * self.sigma.slope(z)], axis=1)
        dx = product_back(np.concatenate([da_rz, da_n], axis=1), x, params, grads, "ih")
        dh = dh + product_back(da_rz, h, params, grads, "hh", rz_rows)
        return dx, (dh,)

    @staticmethod
    def _rows(h: Array) -> tuple[slice, slice]:
        """The rows of the weights that belong to (r and z), and to n."""
        hidden_size = h.shape[1]
        return slice(0, 2 * hidden_size), slice(2 * hidden_size, 3 * hidden_size)


@dataclass(frozen=True)
class MGU(OneState):
    """Minimal gated unit: one gate forgets and updates (Zhou et al. 2016).

        f  = sigma(W_i x + b_i + W_h h + b_h)
        n  = tau(W_i x + b_i + W_h (f * h) + b_h)
        h' = (1 - f) * h + f * n

    Each gate has its own H rows of the weights, in the order f, n.
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h) -> h'."""
        (h,) = state
        f_rows, n_rows = self._rows(h)
        x_f, x_n = np.split(product(x, params, "ih"), 2, axis=1)
        f = self.sigma(x_f + product(h, params, "hh", f_rows))
        n = self.tau(x_n + product(f * h, params, "hh", n_rows))
        h_new = (1 - f) * h + f * n
        return (h_new,), (x, h, f, n)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh' -> dx, dh."""
        x, h, f, n = saved
        (dh_new,) = dstate
        f_rows, n_rows = self._rows(h)
        df, dn, dh = dh_new * (n - h), dh_new * f, dh_new * (1 - f)
        da_n = dn * self.tau.slope(n)
        dfh = product_back(da_n, f * h, params, grads, "hh", n_rows)
        df, dh = df + dfh * h, dh + dfh * f
        da_f = df * self.sigma.slope(f)
        dx = product_back(np.concatenate([da_f, da_n], axis=1), x, params, grads, "ih")
        dh = dh + product_back(da_f, h, params, grads, "hh", f_rows)
        return dx, (dh,)

    @staticmethod
    def _rows(h: Array) -> tuple[slice, slice]:
        """The rows of the weights that belong to f, and to n."""
        hidden_size = h.shape[1]
        return slice(0, hidden_size), slice(hidden_size, 2 * hidden_size)
