"""Own cells whose sequences start anew within a call: as separate calls, every state of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cells.test_layer import ALL, inputs_of, layers_of
from tests.support.compare import assert_same
from tests.support.gradients import check_recurrent

every = pytest.mark.parametrize("name", ALL)

STEPS, BATCH = 7, 3


def where(seed: int = 3) -> np.ndarray:
    resets = np.random.default_rng(seed).random((STEPS, BATCH)) < 0.3
    resets[4, 0] = True
    return resets


@every
@pytest.mark.parametrize("both", [False, True])
def test_each_run_of_steps_is_a_call(name: str, both: bool) -> None:
    layer = ALL[name](3, 17, layers_of(ALL[name]), bidirectional=both, seed=1)
    (x, _), resets = inputs_of(layer, STEPS, BATCH), where()
    y, _ = layer(x, resets=resets)
    (recorded, _), pullback = layer.vjp(x, resets=resets)
    dy = np.cos(y)
    dx, _ = pullback(dy)
    assert_same({"y": recorded}, {"y": y})
    for b in range(BATCH):
        for steps in np.split(np.arange(STEPS), np.flatnonzero(resets[1:, b]) + 1):
            (alone, _), back = layer.vjp(x[steps, b : b + 1])
            d, _ = back(dy[steps, b : b + 1])
            assert_same({"y": y[steps, b : b + 1]}, {"y": alone})
            assert_same({"x": dx[steps, b : b + 1]}, {"x": d})


@every
def test_streams(name: str) -> None:
    layer = ALL[name](3, 9, layers_of(ALL[name]), learned_state=True, seed=1)
    for n, array in enumerate(layer.params.values()):
        if list(layer.params)[n].startswith("initial_"):
            array[...] = np.random.default_rng(n).uniform(0.1, 1, array.shape)
    (x, _), resets = inputs_of(layer, STEPS, BATCH), where()
    y, _ = layer(x, resets=resets)
    stream = layer.stream(BATCH)
    steps = [stream.step(frame, resets=now) for frame, now in zip(x, resets, strict=True)]
    assert_same({"y": np.stack(steps)}, {"y": y})
    assert_same({"y": layer.stream(BATCH).run(x, resets)}, {"y": y})


@pytest.mark.parametrize("name", ["slstm", "lstm", "gru_reset_before", "lru", "phased_lstm"])
def test_gradients_of_learnt_states(name: str) -> None:
    layer = ALL[name](2, 3, learned_state=True, bidirectional=True, dtype="float64", seed=1)
    rng = np.random.default_rng(5)
    for key, array in layer.params.items():
        if key.startswith("initial_"):
            array[...] = rng.uniform(0.1, 1, array.shape)
    x, state = inputs_of(layer, STEPS, BATCH, seed=2)
    check_recurrent(layer, x, state, lengths=[7, 5, 2], resets=where())
