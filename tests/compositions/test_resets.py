"""Compositions hand on where sequences start anew: as separate calls would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    MGU,
    RNN,
    BatchNorm,
    Bidirectional,
    Chain,
    Conv1d,
    DeepRNN,
    Graph,
    LayerNorm,
    Linear,
    Masked,
    Merge,
    Module,
    Parallel,
    Readout,
    Residual,
    ReturnState,
    Reversed,
)

from tests.support.compare import assert_same, near
from tests.support.gradients import check_recurrent, leaves

STEPS, BATCH, WIDTH = 7, 4, 3

#: Those with an output for each step.
STEPWISE: dict[str, Any] = {
    "chain": lambda **o: Chain(
        Linear(WIDTH, 4, seed=1, dtype=o["dtype"]),
        LSTM(4, 5, 2, bidirectional=True, seed=2, **o),
        Chain(LayerNorm(10, dtype=o["dtype"]), GRU(10, 4, seed=3, **o)),
    ),
    "bidirectional": lambda **o: Bidirectional(LSTM(WIDTH, 5, **o), GRU(WIDTH, 4, seed=1, **o)),
    "reversed": lambda **o: Reversed(LSTM(WIDTH, 5, 2, bidirectional=True, seed=1, **o)),
    "deep": lambda **o: DeepRNN(
        WIDTH, 5, num_layers=2, transition_depth=2, input_depth=2, output_depth=2, **o
    ),
    "skip": lambda **o: DeepRNN(WIDTH, 5, cell="lstm", num_layers=2, skip=True, **o),
    "residual": lambda **o: Residual(GRU(WIDTH, WIDTH, 2, seed=1, **o)),
    "parallel": lambda **o: Parallel(
        MGU(WIDTH, 4, seed=1, **o), Linear(WIDTH, 2, seed=2, dtype=o["dtype"]), LSTM(WIDTH, 3, **o)
    ),
    "graph": lambda **o: Graph(
        ["x"],
        [
            ("lstm", LSTM(WIDTH, 4, seed=1, **o), "x"),
            ("both", Merge("concat"), "x", "lstm"),
            ("gru", GRU(4 + WIDTH, 4, seed=1, **o), "both"),
        ],
        ["gru"],
    ),
    "masked": lambda **o: Masked(Chain(RNN(WIDTH, 4, seed=1, **o)), 99),
}
each = pytest.mark.parametrize("make", STEPWISE.values(), ids=STEPWISE)


def made(make: Any, dtype: str = "float32", **options: Any) -> Any:
    """The composition, with first states that are not zero if they are learnt."""
    module, rng = make(dtype=dtype, **options), np.random.default_rng(3)
    for name, array in module.params.items():
        if "initial_" in name:
            array[...] = rng.standard_normal(array.shape)
    return module


@pytest.fixture
def resets(rng: np.random.Generator) -> np.ndarray:
    where = rng.random((STEPS, BATCH)) < 0.3
    where[3] = True
    return where


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((STEPS, BATCH, WIDTH))


@each
@pytest.mark.parametrize("learns", [False, True], ids=["zero", "learned"])
@pytest.mark.parametrize("ragged", [False, True])
def test_each_run_of_steps_is_a_call(
    make: Any, learns: bool, ragged: bool, x: np.ndarray, resets: np.ndarray
) -> None:
    module, x = made(make, learned_state=learns), x.astype("float32")
    lengths = np.array([7, 2, 5, 4]) if ragged else np.full(BATCH, STEPS)
    if isinstance(module, Masked):
        x[np.arange(STEPS)[:, None] >= lengths] = 99
    given = {"lengths": lengths, "resets": resets}
    y, _ = module(x, **given)
    (again, _), _ = module.vjp(x, **given)
    assert_same({"y": y}, {"y": np.asarray(again)})
    for b, length in enumerate(lengths):
        cuts = np.split(np.arange(length), np.flatnonzero(resets[1:length, b]) + 1)
        for steps in cuts:
            alone, _ = module(x[steps, b : b + 1])
            assert_same({"y": np.asarray(y[steps, b : b + 1])}, {"y": np.asarray(alone)})
        if length < STEPS and not isinstance(module, Residual):
            assert not y[length:, b].any()


@each
def test_gradients(make: Any, x: np.ndarray, resets: np.ndarray) -> None:
    module = made(make, "float64", learned_state=True)
    check_recurrent(module, x, resets=resets)


@each
def test_batch_first_and_a_single_sequence(make: Any, x: np.ndarray, resets: np.ndarray) -> None:
    plain, turned = made(make), made(make, batch_first=True)
    turned.load_state_dict(plain.params)
    x = x.astype("float32")
    y, _ = plain(x, resets=resets)
    (other, _), pullback = turned.vjp(x.swapaxes(0, 1), resets=resets.T)
    assert_same({"y": np.asarray(y)}, {"y": np.asarray(other).swapaxes(0, 1).copy()})
    pullback(np.ones_like(other))
    if not isinstance(plain, Masked):
        alone, _ = plain(x[:, 1], resets=resets[:, 1])
        assert_same({"y": np.asarray(y[:, 1])}, {"y": np.asarray(alone)})


def test_both_directions_are_those_of_the_layer(x: np.ndarray, resets: np.ndarray) -> None:
    x = x.astype("float32")
    layer = LSTM(WIDTH, 5, bidirectional=True, seed=1)
    ahead, back = LSTM(WIDTH, 5), LSTM(WIDTH, 5)
    for part, end in ((ahead, ""), (back, "_reverse")):
        part.load_state_dict({n: layer.params[n + end] for n in part.params})
    lengths = [7, 2, 5, 1]
    want, state = layer(x, lengths=lengths, resets=resets)
    y, states = Bidirectional(ahead, back)(x, lengths=lengths, resets=resets)
    assert_same({"y": np.asarray(y)}, {"y": want})
    for n in range(2):
        assert_same({"s": np.concatenate([s[n] for s in states])}, {"s": state[n]})


@pytest.mark.parametrize("reading", ["last", "last_step", "mean"])
def test_readouts(reading: str, x: np.ndarray, resets: np.ndarray) -> None:
    layer = LSTM(WIDTH, 5, dtype="float64", seed=1)
    module = Chain(Readout(layer, reading), Linear(5, 2, dtype="float64", seed=2))
    y, _ = module(x, resets=resets)
    steps, _ = layer(x, resets=resets)
    near(y, module[1](steps.mean(axis=0) if reading == "mean" else steps[-1]), 1e-15)
    some, _ = module(x, lengths=[7, 0, 5, 0], resets=resets)
    near(some[0], y[0], 1e-15)
    check_recurrent(module, x, lengths=[7, 0, 5, 1], resets=resets)


def test_states_as_outputs(x: np.ndarray, resets: np.ndarray) -> None:
    layer = LSTM(WIDTH, 5, dtype="float64", seed=1)
    y, (h, c) = layer(x, resets=resets)
    found = ReturnState(layer)(x, resets=resets)
    assert_same(dict(zip("yhc", found, strict=True)), {"y": y, "h": h[0], "c": c[0]})
    (again, *_), pullback = ReturnState(layer).vjp(x, resets=resets)
    assert_same({"y": again}, {"y": y})
    assert pullback(np.ones_like(y)).shape == x.shape


def test_what_sees_single_frames_does_not_care(x: np.ndarray, resets: np.ndarray) -> None:
    module = Chain(BatchNorm(WIDTH, dtype="float64"), GRU(WIDTH, 2, dtype="float64", seed=1))
    y, _ = module(x, resets=resets)
    near(y[3:], module(x[3:], resets=resets[3:])[0], 0)


_WINDOWED = rnncore.Windowed(GRU(WIDTH, 4), LSTM(WIDTH, 4), 2, 1)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (_WINDOWED, "Windowed"),
        (rnncore.RowConvolution(WIDTH, 2), "RowConvolution"),
        (rnncore.LatencyControlled([(GRU(WIDTH, 4), GRU(WIDTH, 4))], 3, 2), "LatencyControlled"),
        (Chain(Conv1d(WIDTH, 4, 3), GRU(4, 4)), "Conv1d"),
        (Residual(Chain(GRU(WIDTH, WIDTH), Conv1d(WIDTH, WIDTH, 3, padding=1))), "Conv1d"),
        (Parallel(_WINDOWED, GRU(WIDTH, 4)), "Windowed"),
        (Readout(_WINDOWED, "mean"), "Windowed"),
        (Masked(_WINDOWED, 99), "Windowed"),
    ],
)
def test_what_sees_across_resets_refuses_them(module: Any, name: str) -> None:
    x, resets = np.zeros((STEPS, BATCH, WIDTH), "float32"), np.ones((STEPS, BATCH), bool)
    for call in (module, module.vjp):
        with pytest.raises(ValueError, match=f"a {name} takes no resets"):
            call(x, resets=resets)


def test_what_has_no_state_takes_none() -> None:
    x, resets = np.zeros((STEPS, BATCH, WIDTH), "float32"), np.ones((STEPS, BATCH), bool)
    for module in (Chain(Linear(WIDTH, 4)), Parallel(Linear(WIDTH, 4))):
        with pytest.raises(TypeError, match="resets"):
            module(x, resets=resets)
    with pytest.raises(ValueError, match="resets must be for the steps of one input"):
        Graph(["x"], [("y", Linear(WIDTH, 4), "x")], ["y"])(x, resets=resets)


def test_shapes_are_named(x: np.ndarray) -> None:
    module = Bidirectional(*(GRU(WIDTH, 4, dtype="float64", batch_first=True) for _ in range(2)))
    with pytest.raises(ValueError, match=r"resets must have shape \(4, 7\), got \(7, 4\)"):
        module(x.swapaxes(0, 1), resets=np.ones((STEPS, BATCH), bool))


class Own(Module):
    """A recurrent module of somebody's own, which knows nothing of resets."""

    recurrent = True

    def __call__(self, x: Any, state: Any = None, *, lengths: Any = None) -> Any:
        return x, state


def test_modules_of_ones_own(x: np.ndarray, resets: np.ndarray) -> None:
    module = Chain(Own())
    assert not leaves(module(x)[1])
    with pytest.raises(ValueError, match="a Own takes no resets"):
        module(x, resets=resets)
