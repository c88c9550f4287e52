"""The variants in the reference: for some weights each is the cell it varies; others by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rnncore import reference
from rnncore.reference import LSTM, GRUResetAfter, activation

from tests.support import cases
from tests.support.cases import Case, Named, Numbers
from tests.support.compare import assert_close

H = 5


def drawn(cell: str, **options: Any) -> tuple[Case, Numbers]:
    case = Case(cell, num_layers=2, bidirectional=True, ragged=True, hidden_size=H, **options)
    return case, case.draw()


def outputs(cell: reference.Cell, numbers: Numbers, params: Named) -> Named:
    """What another cell makes of the same inputs."""
    y, state, _ = reference.forward(
        cell, params, numbers.x, numbers.state, numbers.lengths, num_layers=2, bidirectional=True
    )
    return {"y": y} | cases.named_state(state, "_n")


def of_gates(named: Named, chosen: list[tuple[int, float]]) -> Named:
    """Weights and biases made of these gates' rows, each with a factor."""
    made = {}
    for name, array in named.items():
        gates = array.reshape(-1, H, *array.shape[1:])
        made[name] = np.concatenate([factor * gates[gate] for gate, factor in chosen])
    return made


def test_an_indrnn_is_a_vanilla_network_with_a_diagonal() -> None:
    case, numbers = drawn("indrnn_tanh")
    u = {n: np.diag(a[0]) for n, a in numbers.params.items() if n.startswith("weight_hh")}
    got = cases.reference_outputs(case, numbers)
    assert_close(got, outputs(reference.Vanilla(), numbers, numbers.params | u), 1e-15)


def test_a_coupled_gate_is_a_forget_gate_of_the_opposite_sum() -> None:
    case, numbers = drawn("lstm_coupled")
    params = of_gates(numbers.params, [(0, 1), (0, -1), (1, 1), (2, 1)])
    assert_close(cases.reference_outputs(case, numbers), outputs(LSTM(), numbers, params), 1e-14)


@pytest.mark.parametrize(("missing", "gate"), [("input", 0), ("forget", 1), ("output", 3)])
def test_a_missing_gate_is_one_held_open(missing: str, gate: int) -> None:
    case, numbers = drawn(f"lstm_no_{missing}_gate")
    rows = [(0, 1.0), (1, 1.0), (2, 1.0)]
    params = of_gates(numbers.params, [*rows[:gate], (0, 0.0), *rows[gate:]])
    for name, array in params.items():
        if name.startswith("bias_ih"):
            array[gate * H : (gate + 1) * H] = 100
    assert_close(cases.reference_outputs(case, numbers), outputs(LSTM(), numbers, params), 1e-14)


def test_without_peepholes_projection_or_clip_it_is_the_lstm() -> None:
    case, numbers = drawn("lstm")
    stems = [name.removeprefix("bias_ih") for name in numbers.params if name.startswith("bias_ih")]
    shut = {f"weight_ch{stem}": np.zeros((3, H)) for stem in stems}
    same = {f"weight_hr{stem}": np.eye(H) for stem in stems}
    got = outputs(LSTM(clip=1e6), numbers, numbers.params | shut | same)
    assert_close(got, cases.reference_outputs(case, numbers), 1e-15)


def test_peepholes_of_an_lstm_step_by_hand() -> None:
    """Sums of zero: i = sigma(p_i c), f = sigma(p_f c), g = 0, o = sigma(p_o c')."""
    params = {"weight_ih": np.zeros((4, 1)), "weight_hh": np.zeros((4, 1))}
    params["weight_ch"] = np.array([[7.0], [0.5], [-2.0]])
    x = h = np.ones((1, 1))
    (h_new, c_new), _ = LSTM().forward(x, (h, np.full((1, 1), 3.0)), params)
    c = 3 / (1 + math.exp(-1.5))
    assert c_new.item() == pytest.approx(c, rel=1e-15)
    assert h_new.item() == pytest.approx(math.tanh(c) / (1 + math.exp(2 * c)), rel=1e-15)


def test_a_minimal_gated_unit_is_a_gru_whose_gates_are_one() -> None:
    case, numbers = drawn("mgu")
    params = of_gates(numbers.params, [(0, 1), (0, -1), (1, 1)])
    want = outputs(reference.GRUResetBefore(), numbers, params)
    assert_close(cases.reference_outputs(case, numbers), want, 1e-14)


def test_a_mingru_is_a_gru_whose_gates_see_no_state() -> None:
    case, numbers = drawn("mingru")
    params = of_gates(numbers.params, [(0, 1), (0, -1), (1, 1)])
    blind = {n.replace("_ih", "_hh"): np.zeros((3 * H, H)) for n in params if n[0] == "w"}
    want = outputs(GRUResetAfter(tau=reference.IDENTITY), numbers, params | blind)
    assert_close(cases.reference_outputs(case, numbers), want, 1e-14)


def test_a_minlstm_of_equal_gates_takes_the_mean() -> None:
    case, numbers = drawn("minlstm")
    numbers = replace(
        numbers, inputs=numbers.inputs | of_gates(numbers.params, [(0, 1), (0, 1), (2, 1)])
    )
    half = activation(("affine", 0.0, 0.5))
    want = outputs(
        reference.MinGRU(sigma=half), numbers, of_gates(numbers.params, [(0, 1), (2, 1)])
    )
    assert_close(cases.reference_outputs(case, numbers), want, 1e-14)


@pytest.mark.parametrize("each_gate", [False, True])
def test_a_normalised_lstm_step_by_hand(each_gate: bool, rng: np.random.Generator) -> None:
    params = {name: rng.standard_normal((4 * H, H)) for name in ("weight_ih", "weight_hh")}
    norm = params["norm"] = rng.standard_normal((14, H))
    x, h, c = rng.standard_normal((3, 2, H))

    def normal(a: np.ndarray) -> np.ndarray:
        return (a - a.mean()) / np.sqrt(a.var() + 1e-5)

    def sums(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
        a = (weight @ x).reshape(4, H)
        return np.array([normal(gate) for gate in a]) if each_gate else normal(a)

    state, _ = reference.NormalisedLSTM(each_gate=each_gate).forward(x, (h, c), params)
    for b in range(2):
        from_x, from_h = sums(params["weight_ih"], x[b]), sums(params["weight_hh"], h[b])
        a = norm[0:4] * from_x + norm[4:8] * from_h + norm[8:12]
        i, f, o = 1 / (1 + np.exp(-a[[0, 1, 3]]))
        c_new = f * c[b] + i * np.tanh(a[2])
        h_new = o * np.tanh(norm[12] * normal(c_new) + norm[13])
        assert_close({"h": state[0][b], "c": state[1][b]}, {"h": h_new, "c": c_new}, 1e-13)


def test_a_deep_transition_of_a_vanilla_network_by_hand(rng: np.random.Generator) -> None:
    """Pascanu et al. 2014: z1 = phi(W1 h + U x + b1), zl = phi(Wl z(l-1) + bl [+ Ws h])."""
    case = Case("rnn_tanh_depth3_shortcut", steps=1, batch=1)
    numbers = case.draw()
    p = {name.replace("_l0", ""): array for name, array in numbers.params.items()}
    h = numbers.state[0, 0]
    z = p["weight_ih"] @ numbers.x[0, 0] + p["bias_ih"] + p["weight_hh"] @ h + p["bias_hh"]
    z = np.tanh(p["weight_hh_t2"] @ np.tanh(z) + p["bias_hh_t2"])
    z = np.tanh(p["weight_hh_t3"] @ z + p["bias_hh_t3"] + p["weight_ih_t3"] @ h)
    got = cases.reference_outputs(case, numbers)
    assert_close({"y": got["y"][0, 0]}, {"y": z}, 1e-14)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru", "gru_reset_before", "mgu"])
def test_a_shortcut_of_zeros_is_none(cell: str) -> None:
    case, numbers = drawn(f"{cell}_depth2_shortcut")
    plain = replace(case, cell=f"{cell}_depth2")
    shut = {n: a for n, a in numbers.params.items() if "_t2" in n and n.startswith("weight_ih")}
    assert len(shut) == 4
    for array in shut.values():
        array.fill(0)
    kept = {n: a for n, a in numbers.inputs.items() if n not in shut}
    want = cases.reference_outputs(plain, replace(numbers, inputs=kept))
    assert_close(cases.reference_outputs(case, numbers), want, 0)


def _leaky(a: float) -> float:
    return a if a > 0 else 0.1 * a


def _selu(a: float) -> float:
    return 1.0507009873554805 * (a if a > 0 else 1.6732632423543772 * (math.exp(a) - 1))


#: As ONNX's operator page writes them, one number at a time.
FORMULAS: dict[str, tuple[tuple[float, ...], Any]] = {
    "sigmoid": ((), lambda a: 1 / (1 + math.exp(-a))),
    "tanh": ((), math.tanh),
    "relu": ((), lambda a: max(0.0, a)),
    "identity": ((), lambda a: a),
    "affine": ((0.7, -0.2), lambda a: 0.7 * a - 0.2),
    "leaky_relu": ((0.1,), _leaky),
    "thresholded_relu": ((0.3,), lambda a: a if a > 0.3 else 0.0),
    "scaled_tanh": ((1.7, 0.6), lambda a: 1.7 * math.tanh(0.6 * a)),
    "hard_sigmoid": ((0.3, 0.4), lambda a: min(max(0.3 * a + 0.4, 0.0), 1.0)),
    "elu": ((0.6,), lambda a: a if a > 0 else 0.6 * (math.exp(a) - 1)),
    "selu": ((), _selu),
    "softsign": ((), lambda a: a / (1 + abs(a))),
    "softplus": ((), lambda a: math.log(1 + math.exp(a))),
    "exponential": ((), math.exp),
}


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
def test_activations(name: str) -> None:
    constants, formula = FORMULAS[name]
    a = np.concatenate([np.linspace(-4.03, 4.07, 50), [-30.1, 30.2]])
    phi, eps = activation((name, *constants)), 1e-5
    values, slopes = phi(a), phi.slope(phi(a))
    for got, slope, at in zip(values, slopes, a.tolist(), strict=True):
        assert got == pytest.approx(formula(at), rel=1e-13, abs=1e-13)
        steep = (formula(at + eps) - formula(at - eps)) / (2 * eps)
        assert slope == pytest.approx(steep, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("affine", (1, 0)),
        ("leaky_relu", (0.01,)),
        ("thresholded_relu", (1,)),
        ("scaled_tanh", (1, 1)),
        ("hard_sigmoid", (0.2, 0.5)),
        ("elu", (1,)),
    ],
)
def test_activations_have_the_constants_of_onnx(name: str, constants: tuple[float, ...]) -> None:
    a = np.linspace(-4, 4, 50)
    assert_close({"y": activation(name)(a)}, {"y": activation((name, *constants))(a)}, 0)
