"""Every cell of the shelf beside the equations of its paper, written out once more in NumPy.

Here is no symbol and no graph: each function walks over time with one sequence's numbers, from a
layer's parameters, and returns h at every step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from rnncore.cells import shelf

from tests.support.compare import near
from tests.support.shelf import SHELF

Array = np.ndarray
Params = dict[str, Array]


def sigma(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def rows(params: Params, kind: str, count: int) -> list[Array]:
    """The weights of each gate."""
    return np.split(params[f"{kind}_l0"], count)


def affine(params: Params, x: Array, count: int) -> list[Array]:
    """W x + b for each gate."""
    weights, biases = rows(params, "weight_ih", count), rows(params, "bias_ih", count)
    return [w @ x + b for w, b in zip(weights, biases, strict=True)]


def gates(params: Params, x: Array, h: Array, count: int) -> list[Array]:
    """W x + b + R h + b' for each gate."""
    weights, biases = rows(params, "weight_hh", count), rows(params, "bias_hh", count)
    from_h = [r @ h + b for r, b in zip(weights, biases, strict=True)]
    return [a + b for a, b in zip(affine(params, x, count), from_h, strict=True)]


def slstm(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Beck et al. 2024, eq. 8 to 14, f = exp, without the stabiliser of eq. 15 to 17."""
    h, c, n, m = states
    c, n = c * np.exp(m), n * np.exp(m)  # as they are unstabilised
    found = []
    for x_t in x:
        z, i, f, o = gates(params, x_t, h, 4)
        c = np.exp(f) * c + np.exp(i) * np.tanh(z)
        n = np.exp(f) * n + np.exp(i)
        h = sigma(o) * (c / n)
        found.append(h)
    return found


def slstm_sigmoid(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """The same with f = sigma."""
    h, c, n, m = states
    c, n = c * np.exp(m), n * np.exp(m)
    found = []
    for x_t in x:
        z, i, f, o = gates(params, x_t, h, 4)
        c = sigma(f) * c + np.exp(i) * np.tanh(z)
        n = sigma(f) * n + np.exp(i)
        h = sigma(o) * (c / n)
        found.append(h)
    return found


def sru(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Lei et al. 2018, eq. 1 to 4, with W_p x in the place of x in the highway."""
    c, found = states[1], []
    v_f, v_r = params["weight_hh_l0"]
    for x_t in x:
        u, f, r, p = affine(params, x_t, 4)
        forget, reset = sigma(f + v_f * c), sigma(r + v_r * c)
        c = forget * c + (1 - forget) * u
        found.append(reset * c + (1 - reset) * p)
    return found


def qrnn(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Bradbury et al. 2017, eq. 4."""
    c, found = states[1], []
    for x_t in x:
        z, f, o = affine(params, x_t, 3)
        c = sigma(f) * c + (1 - sigma(f)) * np.tanh(z)
        found.append(sigma(o) * c)
    return found


def lru(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Orvieto et al. 2023, eq. 5 and section 3.4, in complex numbers."""
    nu, theta = params["weight_hh_l0"]
    eigenvalue = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    gamma = np.sqrt(1 - np.abs(eigenvalue) ** 2)
    state, found = states[0] + 1j * states[1], []
    for x_t in x:
        re, im = affine(params, x_t, 2)
        state = eigenvalue * state + gamma * (re + 1j * im)
        found.append(state.real)
    return found


def li_gru(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Ravanelli et al. 2018, eq. 6, without the normalisation over the batch."""
    (h,), found = states, []
    for x_t in x:
        z, n = gates(params, x_t, h, 2)
        h = sigma(z) * h + (1 - sigma(z)) * np.maximum(n, 0)
        found.append(h)
    return found


def gru_d(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Che et al. 2018, eq. 8 to 14, the reset gate behind the product."""
    (h,), found = states, []
    for x_t in x:
        features, decay = x_t[:3], x_t[3:]
        h = decay * h
        from_x = affine(params, features, 3)
        weights, biases = rows(params, "weight_hh", 3), rows(params, "bias_hh", 3)
        from_h = [w @ h + b for w, b in zip(weights, biases, strict=True)]
        r, z = sigma(from_x[0] + from_h[0]), sigma(from_x[1] + from_h[1])
        h = (1 - z) * h + z * np.tanh(from_x[2] + r * from_h[2])
        found.append(h)
    return found


def cornn(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Rusch and Mishra 2021, eq. 3, explicit in z."""
    (y, z), dt, gamma, epsilon = states, 0.3, 1.2, 0.7
    found = []
    for x_t in x:
        (a,) = gates(params, x_t, y, 1)
        z = z + dt * np.tanh(a) - dt * gamma * y - dt * epsilon * z
        y = y + dt * z
        found.append(y)
    return found


def antisymmetric(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Chang et al. 2019, eq. 10: the product with A - gamma I."""
    (h,), epsilon, gamma = states, 0.2, 0.3
    a = params["weight_hh_l0"] - gamma * np.eye(len(h))
    found = []
    for x_t in x:
        (v,) = affine(params, x_t, 1)
        h = h + epsilon * np.tanh(a @ h + params["bias_hh_l0"] + v)
        found.append(h)
    return found


def gated_antisymmetric(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Chang et al. 2019, eq. 11 and 12."""
    (h,), epsilon, gamma = states, 0.2, 0.3
    a = params["weight_hh_l0"] - gamma * np.eye(len(h))
    found = []
    for x_t in x:
        v, v_z = affine(params, x_t, 2)
        common = a @ h + params["bias_hh_l0"]
        h = h + epsilon * sigma(common + v_z) * np.tanh(common + v)
        found.append(h)
    return found


def ugrnn(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Collins et al. 2017, section 2.1."""
    (h,), found = states, []
    for x_t in x:
        g, c = gates(params, x_t, h, 2)
        h = sigma(g) * h + (1 - sigma(g)) * np.tanh(c)
        found.append(h)
    return found


def brc(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Vecoven et al. 2021, eq. 4 to 6."""
    (h,), found = states, []
    w_a, w_c = params["weight_hh_l0"]
    for x_t in x:
        u_a, u_c, u = affine(params, x_t, 3)
        a, c = 1 + np.tanh(u_a + w_a * h), sigma(u_c + w_c * h)
        h = c * h + (1 - c) * np.tanh(u + a * h)
        found.append(h)
    return found


def nbrc(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Vecoven et al. 2021, eq. 8."""
    (h,), found = states, []
    for x_t in x:
        u_a, u_c, u = affine(params, x_t, 3)
        r_a, r_c = (
            w @ h + b
            for w, b in zip(rows(params, "weight_hh", 2), rows(params, "bias_hh", 2), strict=True)
        )
        a, c = 1 + np.tanh(u_a + r_a), sigma(u_c + r_c)
        h = c * h + (1 - c) * np.tanh(u + a * h)
        found.append(h)
    return found


def ltc(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Hasani et al. 2021, algorithm 1 with one step of the fused solver."""
    (h,), found = states, []
    leak, reversal = params["weight_ch_l0"]
    tau = 1 / np.log(1 + np.exp(leak))
    for x_t in x:
        delta = x_t[-1]
        (a,) = gates(params, x_t[:-1], h, 1)
        h = (h + delta * sigma(a) * reversal) / (1 + delta * (1 / tau + sigma(a)))
        found.append(h)
    return found


def cfc(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Hasani et al. 2022, eq. 10."""
    (h,), found = states, []
    for x_t in x:
        f, g, k = gates(params, x_t[:-1], h, 3)
        t = x_t[-1]
        h = sigma(-f * t) * np.tanh(g) + (1 - sigma(-f * t)) * np.tanh(k)
        found.append(h)
    return found


def phased_lstm(params: Params, x: Array, states: list[Array]) -> list[Array]:
    """Neil et al. 2016, eq. 6 to 11, s = -shift tau; the leak is 0.01, r_on 0.4."""
    h, c = states
    log_tau, shift = params["weight_ch_l0"]
    tau, alpha, r_on = np.exp(log_tau), 0.01, 0.4
    s, found = -shift * tau, []
    for x_t in x:
        phi = np.mod(x_t[-1] - s, tau) / tau
        k = np.where(
            phi < r_on / 2, 2 * phi / r_on, np.where(phi < r_on, 2 - 2 * phi / r_on, alpha * phi)
        )
        i, f, g, o = gates(params, x_t[:-1], h, 4)
        c_new = sigma(f) * c + sigma(i) * np.tanh(g)
        h_new = np.tanh(c_new) * sigma(o)
        c, h = k * c_new + (1 - k) * c, k * h_new + (1 - k) * h
        found.append(h)
    return found


ORACLES: dict[str, Callable[[Params, Array, list[Array]], list[Array]]] = {
    name: function for name, function in globals().copy().items() if name in SHELF
}


def test_all_of_the_shelf_is_here() -> None:
    assert ORACLES.keys() == SHELF.keys()
    made = {name for name in vars(shelf) if not name.startswith("_")}
    assert {cell.name for cell in SHELF.values()} <= made


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", SHELF)
def test_it_computes_the_equations_of_its_paper(name: str, dtype: str) -> None:
    cell, rng = SHELF[name], np.random.default_rng(3)
    layer = cell(3, 7, dtype=dtype, seed=0)
    x = rng.standard_normal((12, 4, layer.columns)).astype(dtype)
    x[..., 3:] = rng.uniform(0.1, 2, x[..., 3:].shape)
    if name == "phased_lstm":  # times go on; in float32 long ones have no place in a period
        x[..., 3] = np.cumsum(x[..., 3] * (20 if dtype == "float64" else 1), axis=0)
    state = tuple(rng.uniform(0.1, 1, (1, 4, 7)).astype(dtype) for _ in cell.states)
    y, _ = layer(x, state if len(state) > 1 else state[0])
    params = {name: array.astype(np.float64) for name, array in layer.params.items()}
    for b in range(4):
        first = [a[0, b].astype(np.float64) for a in state]
        want = ORACLES[name](params, x[:, b].astype(np.float64), first)
        near(y[:, b], np.array(want), 1e-12 if dtype == "float64" else 2e-5)


def test_the_stabiliser_keeps_exponential_gates_finite() -> None:
    layer = shelf.slstm(1, 4, seed=0)
    layer.params["weight_ih_l0"][...] = 300
    (y, _), pullback = layer.vjp(np.ones((50, 2, 1), np.float32))
    assert np.isfinite(y).all()
    assert np.isfinite(pullback(np.ones_like(y))[0]).all()


def test_antisymmetric_weights_stay_so() -> None:
    layer = shelf.antisymmetric()(3, 5, 2, bidirectional=True, seed=0)
    shelf.make_antisymmetric(layer)
    for name, weight in layer.params.items():
        if name.startswith("weight_hh"):
            np.testing.assert_array_equal(weight, -weight.T)
    with pytest.raises(TypeError, match="layer must be a Recurrent"):
        shelf.make_antisymmetric("layer")  # type: ignore[arg-type]


@pytest.mark.parametrize("a", [0.0, 0.25, 1.0, 1.5, 17.75, 4095.5, 8191.0])
def test_the_fraction_of_a_number(a: float) -> None:
    from rnncore import cells
    from rnncore.cells.shelf.phased_lstm import fraction

    @cells.define(gates=[cells.Gate("n", recurrent=False)], inputs="e")
    def cell(n, e):
        return fraction(e) + 0 * n

    layer = cell(1, 2, dtype="float64")
    y, _ = layer(layer.join(np.zeros((1, 1, 1)), e=np.full((1, 1), a)))
    np.testing.assert_array_equal(y, a % 1)
