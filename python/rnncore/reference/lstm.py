"""Long short-term memory and its variants, one time step of each, in the letters of `cells`.

p_i, p_f, p_o   rows of params["weight_ch"] (gates with peepholes, H), or absent
W_r (P, H)      params["weight_hr"], or absent: then h is as wide as c
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Array
from .activations import SIGMOID, TANH, Activation
from .cells import Params, Saved, State, product, product_back


@dataclass(frozen=True)
class LSTM:
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with a forget gate (Gers et al. 2000).

        i, f = sigma(W_i x + b_i + W_h h + b_h + p * c)
        g  = tau(W_i x + b_i + W_h h + b_h)
        c' = f * c + i * g
        o  = sigma(W_i x + b_i + W_h h + b_h + p_o * c')
        h' = W_r (o * upsilon(c'))

    Without peepholes (Gers et al. 2002) the p are zero; without a projection (Sak et al. 2014) W_r
    is the identity. Each gate has its own H rows of the weights, in the order of `gates`; a gate
    that is missing there is one (Greff et al. 2017).
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH
    upsilon: Activation = TANH
    gates: str = "ifgo"
    #: Whether f is 1 - i, the gates being "igo".
    coupled: bool = False
    #: The largest magnitude that c' may have; past it, it has no gradient.
    clip: float = np.inf

    def widths(self, params: Params) -> tuple[int, ...]:
        """(P, H)."""
        return params["weight_hh"].shape[1], len(params["weight_hh"]) // len(self.gates)

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h, c) -> h', c'."""
        h, c = state
        a = product(x, params, "ih") + product(h, params, "hh")
        a_of = dict(zip(self.gates, np.split(a, len(self.gates), axis=1), strict=True))
        p = self._peepholes(params)

        def gate(name: str, c: Array) -> Array:
            if name not in self.gates:
                return np.ones_like(c)
            return self.sigma(a_of[name] + p[name] * c if p else a_of[name])

        i, g = gate("i", c), self.tau(a_of["g"])
        f = 1 - i if self.coupled else gate("f", c)
        c_sum = f * c + i * g
        c_new = _clipped(c_sum, self.clip)
        o = gate("o", c_new)
        u = self.upsilon(c_new)
        m = o * u
        h_new = m @ params["weight_hr"].T if "weight_hr" in params else m
        return (h_new, c_new), (x, h, c, i, f, g, c_sum, c_new, o, u, m)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh', dc' -> dx, dh, dc."""
        x, h, c, i, f, g, c_sum, c_new, o, u, m = saved
        dm, dc_new = dstate
        if "weight_hr" in params:
            grads["weight_hr"] += dm.T @ m
            dm = dm @ params["weight_hr"]
        p, da = self._peepholes(params), {}
        da["o"] = dm * u * self.sigma.slope(o)
        dc_new = dc_new + dm * o * self.upsilon.slope(u)
        if p:
            dc_new = dc_new + da["o"] * p["o"]
        dc_sum = np.where(np.abs(c_sum) > self.clip, 0, dc_new)
        di, df, dg, dc = dc_sum * g, dc_sum * c, dc_sum * i, dc_sum * f
        if self.coupled:
            di = di - df
        da["i"], da["f"] = di * self.sigma.slope(i), df * self.sigma.slope(f)
        da["g"] = dg * self.tau.slope(g)
        for row, name in enumerate(p):
            grads["weight_ch"][row] += (da[name] * (c_new if name == "o" else c)).sum(axis=0)
            dc = dc if name == "o" else dc + da[name] * p[name]
        da_all = np.concatenate([da[name] for name in self.gates], axis=1)
        dx = product_back(da_all, x, params, grads, "ih")
        dh = product_back(da_all, h, params, grads, "hh")
        return dx, (dh, dc)

    def _peepholes(self, params: Params) -> Params:
        """The weights of the peepholes by the gates that have them."""
        names = self.gates.replace("g", "")
        return dict(zip(names, params["weight_ch"], strict=True)) if "weight_ch" in params else {}


@dataclass(frozen=True)
class NormalisedLSTM:
    """LSTM with layer normalisation (Ba et al. 2016, eq. 20 to 22).

        i, f, o = sigma(v * LN(W_i x) + w * LN(W_h h) + b)
        g  = tau(v * LN(W_i x) + w * LN(W_h h) + b)
        c' = f * c + i * g
        h' = o * upsilon(v_c * LN(c') + b_c)

    params["norm"] (14, H) has the rows v, w and b, each for the gates i, f, g, o, then v_c and b_c.
    LN goes over all the 4 H sums of W_i x together, or over the H of each gate.
    """

    sigma: Activation = SIGMOID
    tau: Activation = TANH
    upsilon: Activation = TANH
    each_gate: bool = False
    clip: float = np.inf

    def widths(self, params: Params) -> tuple[int, ...]:
        """(H, H)."""
        hidden_size = params["weight_hh"].shape[1]
        return hidden_size, hidden_size

    def forward(self, x: Array, state: State, params: Params) -> tuple[State, Saved]:
        """(x, h, c) -> h', c'."""
        h, c = state
        v, w, b, (v_c, b_c) = self._norm(params)
        groups = 4 if self.each_gate else 1
        from_x = normalised(product(x, params, "ih"), groups)
        from_h = normalised(product(h, params, "hh"), groups)
        a_i, a_f, a_g, a_o = np.split(v * from_x[0] + w * from_h[0] + b, 4, axis=1)
        i, f, g, o = self.sigma(a_i), self.sigma(a_f), self.tau(a_g), self.sigma(a_o)
        c_sum = f * c + i * g
        c_new = _clipped(c_sum, self.clip)
        from_c = normalised(c_new)
        u = self.upsilon(v_c * from_c[0] + b_c)
        return (o * u, c_new), (x, h, c, from_x, from_h, i, f, g, c_sum, from_c, o, u)

    def backward(
        self, dstate: State, saved: Saved, params: Params, grads: Params
    ) -> tuple[Array, State]:
        """dh', dc' -> dx, dh, dc."""
        x, h, c, from_x, from_h, i, f, g, c_sum, from_c, o, u = saved
        dh_new, dc_new = dstate
        v, w, _, (v_c, _) = self._norm(params)
        dv, dw, db, (dv_c, db_c) = self._norm(grads)
        do, da_c = dh_new * u, dh_new * o * self.upsilon.slope(u)
        dv_c += (da_c * from_c[0]).sum(axis=0)
        db_c += da_c.sum(axis=0)
        dc_new = dc_new + normalised_back(da_c * v_c, *from_c)
        dc_sum = np.where(np.abs(c_sum) > self.clip, 0, dc_new)
        di, df, dg, dc = dc_sum * g, dc_sum * c, dc_sum * i, dc_sum * f
        da = np.concatenate(
            [
                di * self.sigma.slope(i),
                df * self.sigma.slope(f),
                dg * self.tau.slope(g),
                do * self.sigma.slope(o),
            ],
            axis=1,
        )
        dv += (da * from_x[0]).sum(axis=0)
        dw += (da * from_h[0]).sum(axis=0)
        db += da.sum(axis=0)
        dx = product_back(normalised_back(da * v, *from_x), x, params, grads, "ih")
        dh = product_back(normalised_back(da * w, *from_h), h, params, grads, "hh")
        return dx, (dh, dc)

    @staticmethod
    def _norm(arrays: Params) -> tuple[Array, Array, Array, Array]:
        """v, w and b (4 H,) as views, and v_c with b_c (2, H)."""
        v, w, b = arrays["norm"][:12].reshape(3, -1)
        return v, w, b, arrays["norm"][12:]


EPSILON = 1e-5


def normalised(a: Array, groups: int = 1) -> tuple[Array, Array]:
    """LN(a) = (a - mean) / s, s = sqrt(variance + epsilon), over each group of columns; and s."""
    grouped = a.reshape(len(a), groups, a.shape[1] // groups)
    centred = grouped - grouped.mean(axis=2, keepdims=True)
    s = np.sqrt((centred**2).mean(axis=2, keepdims=True) + EPSILON)
    return (centred / s).reshape(a.shape), s


def normalised_back(dy: Array, y: Array, s: Array) -> Array:
    """Undo `y, s = normalised(a)`: da = (dy - mean(dy) - y * mean(dy * y)) / s."""
    y_grouped = y.reshape(len(y), s.shape[1], y.shape[1] // s.shape[1])
    dy_grouped = dy.reshape(y_grouped.shape)
    along = (dy_grouped * y_grouped).mean(axis=2, keepdims=True)
    da: Array = (dy_grouped - dy_grouped.mean(axis=2, keepdims=True) - y_grouped * along) / s
    return da.reshape(y.shape)


def _clipped(c: Array, clip: float) -> Array:
    return np.clip(c, -clip, clip) if clip < np.inf else c
