"""Recursive layers, a node at a time: each continues the nodes of its own list, in their places.

Arrays have a row for each node. `before[n]` lists for node n the row of the predecessor in each
place, or None; `order` lists the nodes so that each comes after those it continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from ..arrays import Array
from .activations import SIGMOID, TANH, Activation
from .cells import Params
from .lstm import normalised, normalised_back

Saved: TypeAlias = tuple[Array, ...]
#: For each place the row of the predecessor, or None.
Places: TypeAlias = Sequence[int | None]

#: The gates of a child-sum Tree-LSTM that see its children's sum.
SUMMED = [0, 2, 3]


class TreeCell(Protocol):
    """One node: its predecessors' states are stacked, (arity, H), zero where there is none.

    Cells that take any number of predecessors get a row for each of them.
    """

    def forward(self, x: Array, h: Array, c: Array, params: Params) -> tuple[Array, Array, Saved]:
        """Compute h and c, and what `backward` has to remember."""

    def backward(
        self, dh: Array, dc: Array, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, Array, Array]:
        """Turn the gradients of h and c into those of x and of the predecessors' h and c."""


def _sums(x: Array, h: Array, params: Params, rows: Sequence[int]) -> Array:
    """W x + b + sum_k U_k h_k, W and b with a block of rows for each entry of `rows`."""
    size = len(params["weight_ih"]) // (max(rows) + 1)
    blocks = [slice(row * size, (row + 1) * size) for row in rows]
    w = np.concatenate([params["weight_ih"][block] for block in blocks])
    bias = params.get("bias_ih", np.zeros(len(params["weight_ih"])))
    b = np.concatenate([bias[block] for block in blocks])
    u = params["weight_hh"].reshape(len(h), -1, h.shape[1])
    return np.asarray(w @ x + b + np.einsum("kgh,kh->g", u, h))


def _sums_back(
    da: Array, x: Array, h: Array, params: Params, grads: Params, rows: Sequence[int]
) -> tuple[Array, Array]:
    """Undo `_sums`: add the parameters' gradients, return those of x and h."""
    size = len(params["weight_ih"]) // (max(rows) + 1)
    dx = np.zeros_like(x)
    for at, row in enumerate(rows):
        block, d = slice(row * size, (row + 1) * size), da[at * size : (at + 1) * size]
        grads["weight_ih"][block] += np.outer(d, x)
        if "bias_ih" in grads:
            grads["bias_ih"][block] += d
        dx += params["weight_ih"][block].T @ d
    u = params["weight_hh"].reshape(len(h), -1, h.shape[1])
    grads["weight_hh"] += np.einsum("g,kh->kgh", da, h).reshape(params["weight_hh"].shape)
    return dx, np.einsum("kgh,g->kh", u, da)


@dataclass(frozen=True)
class RecursiveNet:
    """p = phi(W x + b + sum_k U_k h_k) (Socher et al. 2011)."""

    phi: Activation = TANH

    def forward(self, x: Array, h: Array, c: Array, params: Params) -> tuple[Array, Array, Saved]:
        """(x, h) -> p; c is left alone."""
        p = self.phi(_sums(x, h, params, [0]))
        return p, np.zeros_like(p), (x, h, p)

    def backward(
        self, dh: Array, dc: Array, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, Array, Array]:
        """dp -> dx, dh."""
        x, h, p = saved
        dx, dbefore = _sums_back(dh * self.phi.slope(p), x, h, params, grads, [0])
        return dx, dbefore, np.zeros_like(dbefore)


@dataclass(frozen=True)
class TreeLSTM:
    """The N-ary Tree-LSTM (Tai et al. 2015, eq. 9 to 14).

    i, o, f_k = sigma(a)    g = tau(a)    c = i g + sum_k f_k c_k    h = o tau(c)
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH

    def forward(self, x: Array, h: Array, c: Array, params: Params) -> tuple[Array, Array, Saved]:
        """(x, h, c) -> h', c'."""
        a = _sums(x, h, params, self._rows(h)).reshape(-1, h.shape[1])
        i, f, g, o = self.sigma(a[0]), self.sigma(a[1:-2]), self.tau(a[-2]), self.sigma(a[-1])
        c_new = i * g + (f * c).sum(axis=0)
        tau_c = self.tau(c_new)
        return o * tau_c, c_new, (x, h, c, i, f, g, o, tau_c)

    def backward(
        self, dh: Array, dc: Array, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, Array, Array]:
        """dh', dc' -> dx, dh, dc."""
        x, h, c, i, f, g, o, tau_c = saved
        dc = dc + dh * o * self.tau.slope(tau_c)
        da = np.concatenate(
            [
                dc * g * self.sigma.slope(i),
                (dc * c * self.sigma.slope(f)).ravel(),
                dc * i * self.tau.slope(g),
                dh * tau_c * self.sigma.slope(o),
            ]
        )
        dx, dbefore = _sums_back(da, x, h, params, grads, self._rows(h))
        return dx, dbefore, dc * f

    @staticmethod
    def _rows(h: Array) -> list[int]:
        """The gate of each block of sums: i, then f for every predecessor, g, o."""
        return [0, *[1] * len(h), 2, 3]


@dataclass(frozen=True)
class NormalisedTreeLSTM:
    """The same with layer normalisation (Ba et al. 2016, eq. 20 to 22).

        i, o, f_k = sigma(v LN(W x) + w LN(sum_l U_l h_l) + b)    g = tau(the same)
        c = i g + sum_k f_k c_k    h = o tau(v_c LN(c) + b_c)

    params["norm"] (13 + arity, H) has the rows v for i, f, g, o, w for i, f_1, f_2, ..., g, o, b
    for i, f, g, o, then v_c and b_c. LN goes over all rows of a product, or over those of a gate.
    """

    each_gate: bool = False
    sigma: Activation = SIGMOID
    tau: Activation = TANH

    def forward(self, x: Array, h: Array, c: Array, params: Params) -> tuple[Array, Array, Saved]:
        """(x, h, c) -> h', c'."""
        v, w, b, (v_c, b_c) = _gains(params)
        u = params["weight_hh"].reshape(len(h), -1, h.shape[1])
        x_hat, x_scale = _normalised(params["weight_ih"] @ x, 4, self.each_gate)
        h_hat, h_scale = _normalised(np.einsum("kgh,kh->g", u, h), len(w), self.each_gate)
        rows = TreeLSTM._rows(h)
        a = (v * x_hat + b)[rows] + w * h_hat
        i, f, g, o = self.sigma(a[0]), self.sigma(a[1:-2]), self.tau(a[-2]), self.sigma(a[-1])
        c_new = i * g + (f * c).sum(axis=0)
        c_hat, c_scale = normalised(c_new[None])
        m = self.tau(v_c * c_hat[0] + b_c)
        hats = x_hat, x_scale, h_hat, h_scale, c_hat, c_scale
        return o * m, c_new, (x, h, c, i, f, g, o, m, *hats)

    def backward(
        self, dh: Array, dc: Array, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, Array, Array]:
        """dh', dc' -> dx, dh, dc."""
        x, h, c, i, f, g, o, m, x_hat, x_scale, h_hat, h_scale, c_hat, c_scale = saved
        v, w, _, (v_c, _) = _gains(params)
        dv, dw, db, d_c = _gains(grads)
        d_m = dh * o * self.tau.slope(m)
        d_c += [d_m * c_hat[0], d_m]
        dc = dc + normalised_back((d_m * v_c)[None], c_hat, c_scale)[0]
        d_i, d_o = dc * g * self.sigma.slope(i), dh * m * self.sigma.slope(o)
        d_f, d_g = dc * c * self.sigma.slope(f), dc * i * self.tau.slope(g)
        da = np.array([d_i, *d_f, d_g, d_o])
        da_x = np.array([d_i, d_f.sum(axis=0), d_g, d_o])
        dv += da_x * x_hat
        db += da_x
        dw += da * h_hat
        dx_sum = normalised_back((da_x * v).reshape(1, -1), x_hat.reshape(1, -1), x_scale)[0]
        dh_sum = normalised_back((da * w).reshape(1, -1), h_hat.reshape(1, -1), h_scale)[0]
        u = params["weight_hh"].reshape(len(h), -1, h.shape[1])
        grads["weight_ih"] += np.outer(dx_sum, x)
        grads["weight_hh"] += np.einsum("g,kh->kgh", dh_sum, h).reshape(grads["weight_hh"].shape)
        return params["weight_ih"].T @ dx_sum, np.einsum("kgh,g->kh", u, dh_sum), dc * f


@dataclass(frozen=True)
class RecursiveTensorNet:
    """p = phi(W x + b + U a + a^T V a), a = [h_1; h_2; ...] (Socher et al. 2013)."""

    phi: Activation = TANH

    def forward(self, x: Array, h: Array, c: Array, params: Params) -> tuple[Array, Array, Saved]:
        """(x, h) -> p; c is left alone."""
        p = self.phi(_sums(x, self._fed(h), params, [0]))
        return p, np.zeros_like(p), (x, h, p)

    def backward(
        self, dh: Array, dc: Array, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, Array, Array]:
        """dp -> dx, dh."""
        x, h, p = saved
        da = dh * self.phi.slope(p)
        dx, (d_fed,) = _sums_back(da, x, self._fed(h), params, grads, [0])
        a = h.ravel()
        d_pairs = d_fed[a.size :].reshape(a.size, a.size)
        d_a = d_fed[: a.size] + (d_pairs + d_pairs.T) @ a
        return dx, d_a.reshape(h.shape), np.zeros_like(h)

    @staticmethod
    def _fed(h: Array) -> Array:
        """[a, a a^T], a row."""
        a = h.ravel()
        return np.concatenate([a, np.outer(a, a).ravel()])[None]


@dataclass(frozen=True)
class ChildSumTreeLSTM:
    """The child-sum Tree-LSTM (Tai et al. 2015, eq. 2 to 8).

    i, o, f_k = sigma(a)    g = tau(a)    c = i g + sum_k f_k c_k    h = o tau(c)
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH

    def forward(self, x: Array, h: Array, c: Array, params: Params) -> tuple[Array, Array, Saved]:
        """(x, h, c) -> h', c'."""
        a_i, a_f, a_g, a_o = _terms(x, h.sum(axis=0), params, skip=1)
        _, u_f, _, _ = np.split(params["weight_hh"], 4)
        i, f, g, o = self.sigma(a_i), self.sigma(a_f + h @ u_f.T), self.tau(a_g), self.sigma(a_o)
        c_new = i * g + (f * c).sum(axis=0)
        tau_c = self.tau(c_new)
        return o * tau_c, c_new, (x, h, c, i, f, g, o, tau_c)

    def backward(
        self, dh: Array, dc: Array, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, Array, Array]:
        """dh', dc' -> dx, dh, dc."""
        x, h, c, i, f, g, o, tau_c = saved
        dc = dc + dh * o * self.tau.slope(tau_c)
        d_f = dc * c * self.sigma.slope(f)
        da = [
            dc * g * self.sigma.slope(i),
            d_f.sum(axis=0),
            dc * i * self.tau.slope(g),
            dh * tau_c * self.sigma.slope(o),
        ]
        dx, d_sum = _terms_back(da, x, h.sum(axis=0), params, grads, skip=1)
        _, u_f, _, _ = np.split(params["weight_hh"], 4)
        np.split(grads["weight_hh"], 4)[1][...] += d_f.T @ h
        return dx, d_sum + d_f @ u_f, dc * f


@dataclass(frozen=True)
class NormalisedChildSumTreeLSTM:
    """The same with layer normalisation (Ba et al. 2016, eq. 20 to 22).

        i, o = sigma(v LN(W x) + w LN(U sum_k h_k) + b)    g = tau(the same)
        f_k = sigma(v LN(W x) + w LN(U h_k) + b)
        c = i g + sum_k f_k c_k    h = o tau(v_c LN(c) + b_c)

    params["norm"] (14, H) has the rows v, w and b, each for i, f, g, o, then v_c and b_c. LN goes
    over the rows of W x, over i, g and o of U sum_k h_k, over U_f h_k; or over each gate by itself.
    """

    each_gate: bool = False
    sigma: Activation = SIGMOID
    tau: Activation = TANH

    def forward(self, x: Array, h: Array, c: Array, params: Params) -> tuple[Array, Array, Saved]:
        """(x, h, c) -> h', c'."""
        v, w, b, (v_c, b_c) = _gains(params)
        u_i, u_f, u_g, u_o = np.split(params["weight_hh"], 4)
        u = np.concatenate([u_i, u_g, u_o])
        x_hat, x_scale = _normalised(params["weight_ih"] @ x, 4, self.each_gate)
        s_hat, s_scale = _normalised(u @ h.sum(axis=0), 3, self.each_gate)
        f_hat, f_scale = normalised(h @ u_f.T)
        a, a_s = v * x_hat + b, w[SUMMED] * s_hat
        i, g, o = self.sigma(a[0] + a_s[0]), self.tau(a[2] + a_s[1]), self.sigma(a[3] + a_s[2])
        f = self.sigma(a[1] + w[1] * f_hat)
        c_new = i * g + (f * c).sum(axis=0)
        c_hat, c_scale = normalised(c_new[None])
        m = self.tau(v_c * c_hat[0] + b_c)
        hats = x_hat, x_scale, s_hat, s_scale, f_hat, f_scale, c_hat, c_scale
        return o * m, c_new, (x, h, c, i, f, g, o, m, *hats)

    def backward(
        self, dh: Array, dc: Array, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, Array, Array]:
        """dh', dc' -> dx, dh, dc."""
        x, h, c, i, f, g, o, m, *hats = saved
        x_hat, x_scale, s_hat, s_scale, f_hat, f_scale, c_hat, c_scale = hats
        v, w, _, (v_c, _) = _gains(params)
        dv, dw, db, d_c = _gains(grads)
        d_m = dh * o * self.tau.slope(m)
        d_c += [d_m * c_hat[0], d_m]
        dc = dc + normalised_back((d_m * v_c)[None], c_hat, c_scale)[0]
        d_f = dc * c * self.sigma.slope(f)
        d_i, d_g = dc * g * self.sigma.slope(i), dc * i * self.tau.slope(g)
        da = np.array([d_i, d_f.sum(axis=0), d_g, dh * m * self.sigma.slope(o)])
        dv += da * x_hat
        db += da
        dw[SUMMED] += da[SUMMED] * s_hat
        dw[1] += (d_f * f_hat).sum(axis=0)
        d_x = normalised_back((da * v).reshape(1, -1), x_hat.reshape(1, -1), x_scale)[0]
        d_s = (da * w)[SUMMED].reshape(1, -1)
        d_s = normalised_back(d_s, s_hat.reshape(1, -1), s_scale).reshape(3, -1)
        d_offers = normalised_back(d_f * w[1], f_hat, f_scale)
        u, d_u = (p["weight_hh"].reshape(4, len(v_c), -1) for p in (params, grads))
        d_u[SUMMED] += np.einsum("gi,j->gij", d_s, h.sum(axis=0))
        d_u[1] += d_offers.T @ h
        grads["weight_ih"] += np.outer(d_x, x)
        d_sum = np.einsum("gij,gi->j", u[SUMMED], d_s)
        return params["weight_ih"].T @ d_x, d_sum + d_offers @ u[1], dc * f


@dataclass(frozen=True)
class TreeGRU:
    """The child-sum Tree-GRU (Zhou et al. 2016, eq. 9 to 13), s = sum_k h_k.

    z, r_k = sigma(a)    n = tau(W x + b + U sum_k r_k h_k)    h = (1 - z) n + z s
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH

    def forward(self, x: Array, h: Array, c: Array, params: Params) -> tuple[Array, Array, Saved]:
        """(x, h) -> h'; c is left alone."""
        u_r, u_z, u_n = np.split(params["weight_hh"], 3)
        a_r, a_z, a_n = np.split(_inputs(x, params), 3)
        s = h.sum(axis=0)
        r, z = self.sigma(a_r + h @ u_r.T), self.sigma(a_z + u_z @ s)
        n = self.tau(a_n + u_n @ (r * h).sum(axis=0))
        h_new = (1 - z) * n + z * s
        return h_new, np.zeros_like(h_new), (x, h, r, z, n)

    def backward(
        self, dh: Array, dc: Array, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, Array, Array]:
        """dh' -> dx, dh."""
        x, h, r, z, n = saved
        u_r, u_z, u_n = np.split(params["weight_hh"], 3)
        g_r, g_z, g_n = np.split(grads["weight_hh"], 3)
        s = h.sum(axis=0)
        d_n = dh * (1 - z) * self.tau.slope(n)
        d_z = dh * (s - n) * self.sigma.slope(z)
        d_kept = u_n.T @ d_n
        d_r = d_kept * h * self.sigma.slope(r)
        g_n += np.outer(d_n, (r * h).sum(axis=0))
        g_z += np.outer(d_z, s)
        g_r += d_r.T @ h
        dx = _inputs_back(np.concatenate([d_r.sum(axis=0), d_z, d_n]), x, params, grads)
        return dx, dh * z + u_z.T @ d_z + d_kept * r + d_r @ u_r, np.zeros_like(h)


def _gains(arrays: Params) -> tuple[Array, Array, Array, Array]:
    """Of a normalised cell v (4, H), w (rows of U, H), b (4, H), and v_c with b_c (2, H)."""
    norm = arrays["norm"]
    return norm[:4], norm[4:-6], norm[-6:-2], norm[-2:]


def _normalised(a: Array, gates: int, each_gate: bool) -> tuple[Array, Array]:
    """LN(a), a row for each gate, and what was divided by."""
    y, scale = normalised(a[None], gates if each_gate else 1)
    return y.reshape(gates, -1), scale


def _inputs(x: Array, params: Params) -> Array:
    """W x + b."""
    return np.asarray(params["weight_ih"] @ x + params.get("bias_ih", 0))


def _inputs_back(da: Array, x: Array, params: Params, grads: Params) -> Array:
    """Undo `_inputs`."""
    grads["weight_ih"] += np.outer(da, x)
    if "bias_ih" in grads:
        grads["bias_ih"] += da
    return np.asarray(params["weight_ih"].T @ da)


def _terms(x: Array, s: Array, params: Params, skip: int) -> list[Array]:
    """W x + b + U s of each of four gates; without U s that of gate `skip`."""
    terms = np.split(_inputs(x, params), 4)
    recurrent = np.split(params["weight_hh"], 4)
    return [a if at == skip else a + recurrent[at] @ s for at, a in enumerate(terms)]


def _terms_back(
    da: Sequence[Array], x: Array, s: Array, params: Params, grads: Params, skip: int
) -> tuple[Array, Array]:
    """Undo `_terms`: return the gradients of x and s."""
    ds = np.zeros_like(s)
    for at, d in enumerate(da):
        if at != skip:
            np.split(grads["weight_hh"], 4)[at][...] += np.outer(d, s)
            ds += np.split(params["weight_hh"], 4)[at].T @ d
    return _inputs_back(np.concatenate(da), x, params, grads), ds


def forward(
    cell: TreeCell, params: Params, x: Array, before: Sequence[Places], order: Sequence[int]
) -> tuple[Array, Array, list[Saved]]:
    """Return h and c of every node, and what each saved, by node."""
    gates = {RecursiveNet: 1, RecursiveTensorNet: 1, TreeGRU: 3}.get(type(cell), 4)
    size = len(params["weight_ih"]) // gates
    h, c = np.zeros((2, len(x), size), x.dtype)
    saved: list[Saved] = [()] * len(x)
    for n in order:
        places = before[n]
        states = [np.array([_at(s, place) for place in places]).reshape(-1, size) for s in (h, c)]
        h[n], c[n], saved[n] = cell.forward(x[n], states[0], states[1], params)
    return h, c, saved


def backward(
    cell: TreeCell,
    params: Params,
    saved: Sequence[Saved],
    before: Sequence[Places],
    order: Sequence[int],
    dh: Array,
    dc: Array,
) -> tuple[Array, Params]:
    """Return the gradients of x and of the parameters from those of every node's h and c."""
    grads = {name: np.zeros_like(param) for name, param in params.items()}
    dh, dc = dh.copy(), dc.copy()
    dx = np.zeros((len(dh), params["weight_ih"].shape[1]), dh.dtype)
    for n in reversed(order):
        dx[n], dh_before, dc_before = cell.backward(dh[n], dc[n], saved[n], params, grads)
        for k, place in enumerate(before[n]):
            if place is not None:
                dh[place] += dh_before[k]
                dc[place] += dc_before[k]
    return dx, grads


def _at(states: Array, place: int | None) -> Array:
    return np.zeros_like(states[0]) if place is None else states[place]
