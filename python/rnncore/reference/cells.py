"""One instant of each cell: `forward`, and next to it the `backward` that undoes it.

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

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np

from ..arrays import Array

State: TypeAlias = tuple[Array, ...]
Saved: TypeAlias = tuple[Array, ...]
Params: TypeAlias = dict[str, Array]


class Activation(NamedTuple):
    """An elementwise function, and its derivative told from the function's own value."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]

    def __call__(self, a: Array) -> Array:
        """Apply the function."""
        return self.value(a)


# The logistic function 1 / (1 + exp(-a)), written so that nothing overflows.
SIGMOID = Activation(lambda a: 0.5 * np.tanh(0.5 * a) + 0.5, lambda y: y * (1 - y))
TANH = Activation(np.tanh, lambda y: 1 - y * y)
RELU = Activation(lambda a: np.maximum(a, 0), lambda y: (y > 0).astype(y.dtype))
IDENTITY = Activation(lambda a: a, np.ones_like)


class Cell(Protocol):
    """What the walk over time asks of a cell. A state is a tuple that starts with the output h."""

    #: How many arrays (B, H) make a state: 1 is (h,), 2 is (h, c).
    states: ClassVar[int]

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """Compute the next state, and what `backward` has to remember."""

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """Turn the next state's gradient into dx and this state's; add the weights' to `grads`."""


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
class Vanilla:
    """The simple recurrent network (Elman 1990, "Finding structure in time").

        h' = phi(W_i x + b_i + W_h h + b_h)

    where phi is tanh, relu or the identity.
    """

    phi: Activation = TANH
    states: ClassVar[int] = 1

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
class LSTM:
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with a forget gate (Gers et al. 2000).

        i, f, o = sigma(W_i x + b_i + W_h h + b_h)
        g  = tau(W_i x + b_i + W_h h + b_h)
        c' = f * c + i * g
        h' = o * tau(c')

    Each gate has its own H rows of the weights, in the order i, f, g, o.
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH
    states: ClassVar[int] = 2

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h, c) -> h', c'."""
        h, c = state
        a = product(x, params, "ih") + product(h, params, "hh")
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        i, f, g, o = self.sigma(a_i), self.sigma(a_f), self.tau(a_g), self.sigma(a_o)
        c_new = f * c + i * g
        tau_c = self.tau(c_new)
        h_new = o * tau_c
        return (h_new, c_new), (x, h, c, i, f, g, o, tau_c)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh', dc' -> dx, dh, dc."""
        x, h, c, i, f, g, o, tau_c = saved
        dh_new, dc_new = dstate
        do = dh_new * tau_c
        dc_new = dc_new + dh_new * o * self.tau.slope(tau_c)
        di, df, dg, dc = dc_new * g, dc_new * c, dc_new * i, dc_new * f
        da = np.concatenate(
            [
                di * self.sigma.slope(i),
                df * self.sigma.slope(f),
                dg * self.tau.slope(g),
                do * self.sigma.slope(o),
            ],
            axis=1,
        )
        dx = product_back(da, x, params, grads, "ih")
        dh = product_back(da, h, params, grads, "hh")
        return dx, (dh, dc)


@dataclass(frozen=True)
class GRUResetAfter:
    """Gated recurrent unit that resets after the recurrent product, as cuDNN and PyTorch have it.

        r, z = sigma(W_i x + b_i + W_h h + b_h)
        n  = tau(W_i x + b_i + r * (W_h h + b_h))
        h' = (1 - z) * n + z * h

    Each gate has its own H rows of the weights, in the order r, z, n.
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH
    states: ClassVar[int] = 1

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
class GRUResetBefore:
    """Gated recurrent unit that resets before the recurrent product (Cho et al. 2014, eq. 5 to 8).

        r, z = sigma(W_i x + b_i + W_h h + b_h)
        n  = tau(W_i x + b_i + W_h (r * h) + b_h)
        h' = (1 - z) * n + z * h

    Each gate has its own H rows of the weights, in the order r, z, n.
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH
    states: ClassVar[int] = 1

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


CELLS: dict[str, Cell] = {
    "rnn_tanh": Vanilla(TANH),
    "rnn_relu": Vanilla(RELU),
    "lstm": LSTM(),
    "gru": GRUResetAfter(),
    "gru_reset_before": GRUResetBefore(),
}
