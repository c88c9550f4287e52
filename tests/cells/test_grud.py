"""GRU-D: missing values and irregular times, beside the paper's equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore.cells import GRUD, InputDecay, since_observed

from tests.support.compare import near
from tests.support.gradients import check_layer, check_recurrent


def sigma(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def model(seed: int = 0, **options: Any) -> GRUD:
    made = GRUD(3, 5, **{"dtype": "float64", "seed": seed, **options})
    made.input_decay.buffers["mean"][...] = [0.3, -0.2, 0.1]
    made.input_decay.params["bias"][...] = [0.1, -0.05, 0.2]
    return made


def sequences(T: int = 7, B: int = 4, share: float = 0.5) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((T, B, 3))
    return x, rng.random((T, B, 3)) < share, rng.uniform(0.1, 2, (T, B))


def walked(made: GRUD, x: Any, observed: Any, times: Any, h: Any) -> list[np.ndarray]:
    """One sequence by the paper's equations, in its own letters."""
    p = {name: a.astype(np.float64) for name, a in made.stored.items()}
    last, seen_at, found = p["input_decay.mean"].copy(), np.zeros(3), []
    for t in range(len(x)):
        m = observed[t].astype(float)
        delta = times[t] - seen_at if t else np.zeros(3)
        g_x = np.exp(-np.maximum(0, p["input_decay.weight"] * delta + p["input_decay.bias"]))
        g_h = np.exp(-np.maximum(0, p["hidden_decay.weight"] @ delta + p["hidden_decay.bias"]))
        x_t = np.where(observed[t], x[t], g_x * last + (1 - g_x) * p["input_decay.mean"])
        last = np.where(observed[t], x[t], last)
        # As eq. 3 counts: from the step of an observation on, else from the first step.
        seen_at = np.where(observed[t], times[t], times[0] if t == 0 else seen_at)
        h = g_h * h
        a = p["rnn.weight_ih_l0"] @ np.concatenate([x_t, m]) + p["rnn.bias_ih_l0"]
        b = p["rnn.weight_hh_l0"] @ h + p["rnn.bias_hh_l0"]
        (a_r, a_z, a_n), (b_r, b_z, b_n) = np.split(a, 3), np.split(b, 3)
        z = sigma(a_z + b_z)
        h = (1 - z) * h + z * np.tanh(a_n + sigma(a_r + b_r) * b_n)
        found.append(h)
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_it_computes_the_equations_of_the_paper(dtype: str) -> None:
    made = model(dtype=dtype)
    x, observed, deltas = (a.astype(dtype) if a.dtype != bool else a for a in sequences())
    state = np.random.default_rng(2).standard_normal((1, 4, 5)).astype(dtype)
    y, _ = made(x, state, deltas=deltas, observed=observed)
    times = np.cumsum(deltas.astype(np.float64), axis=0)
    for b in range(4):
        own = (
            a[:, b].astype(np.float64) if a.dtype != bool else a[:, b] for a in (x, observed, times)
        )
        want = walked(made, *own, state[0, b].astype(np.float64))
        near(y[:, b], np.array(want), 1e-12 if dtype == "float64" else 2e-5)


def test_nan_is_what_was_not_observed() -> None:
    made = model()
    x, observed, deltas = sequences()
    holes = np.where(observed, x, np.nan)
    want, _ = made(x, deltas=deltas, observed=observed)
    np.testing.assert_array_equal(made(holes, deltas=deltas)[0], want)
    (y, _), pullback = made.vjp(holes, deltas=deltas)
    dx, _ = pullback(np.ones_like(y))
    assert np.isfinite(dx).all()
    assert not dx[~observed].any()


def test_gradients() -> None:
    made = model(seed=1)  # no sum is near zero, where the decay has a kink
    x, observed, deltas = sequences()
    state = np.random.default_rng(2).standard_normal((1, 4, 5))
    given = {"deltas": deltas, "observed": observed, "lengths": [7, 3, 1, 6]}
    check_recurrent(made, x, state, **given)
    check_layer(
        InputDecay(3, dtype="float64", seed=3),
        x,
        observed=observed,
        since=since_observed(observed, deltas),
    )


def test_batch_first_is_the_same() -> None:
    x, observed, deltas = sequences()
    y, state = model()(x, deltas=deltas, observed=observed)
    turned = (a.swapaxes(0, 1) for a in (x, deltas, observed))
    x, deltas, observed = turned
    other = model(batch_first=True)
    found, after = other(x, deltas=deltas, observed=observed)
    np.testing.assert_array_equal(found.swapaxes(0, 1), y)
    np.testing.assert_array_equal(after, state)
    check_recurrent(other, x, deltas=deltas, observed=observed)


def test_since_observed() -> None:
    observed = np.array([[1, 0], [0, 0], [0, 1], [1, 1]], bool)[:, None]
    found = since_observed(observed, np.array([[9.0], [1], [2], [4]]))
    np.testing.assert_array_equal(found[:, 0], [[0, 0], [1, 1], [3, 3], [7, 4]])
    with pytest.raises(ValueError, match="observed must have shape"):
        since_observed(observed, np.ones(4))


def test_it_is_stored_with_its_means(tmp_path: Path) -> None:
    made = model()
    x, observed, deltas = sequences()
    made.save(tmp_path / "a")
    again = rnncore.load(tmp_path / "a")
    assert "input_decay.mean" in again.buffers
    want, _ = made(x, deltas=deltas, observed=observed)
    np.testing.assert_array_equal(again(x, deltas=deltas, observed=observed)[0], want)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": np.zeros((7, 4, 2))}, "x must have shape"),
        ({"observed": np.zeros((7, 4, 3))}, "observed must hold booleans"),
        ({"observed": np.zeros((7, 4, 2), bool)}, "observed must hold booleans like x"),
        ({"deltas": np.zeros((7, 3))}, "deltas must be"),
        ({"deltas": -np.ones((7, 4))}, "at least 0"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], said: str) -> None:
    x = given.pop("x", np.zeros((7, 4, 3)))
    with pytest.raises(ValueError, match=said):
        model()(x, **given)


def test_it_has_no_stream() -> None:
    with pytest.raises(TypeError, match="what was seen last, and when, is no part of its state"):
        model().stream()
    with pytest.raises(TypeError, match="what was seen last, and when"):
        rnncore.Chain(model(), rnncore.Linear(5, 2, dtype="float64")).stream()
