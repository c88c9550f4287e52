"""Streams whose rows start anew: the calls' bits, however time is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, Chain, Conv1d, Linear, RowConvolution

from tests.support.streams import DELAYED, PROMPT, frames, learned, same

STEPS, BATCH = 9, 3


def where(share: float = 0.3) -> np.ndarray:
    return np.random.default_rng(7).random((STEPS, BATCH)) < share


each = pytest.mark.parametrize("name", PROMPT)


@each
def test_a_stream_is_a_call(name: str) -> None:
    module, resets = PROMPT[name], where()
    x = frames(module, STEPS, BATCH)
    model = module.chain if name == "text" else module
    want = model(x, resets=resets)[0] if module.recurrent else module(x)
    same(module.stream(BATCH).run(x, resets), want)
    for chunk in (1, 2, 4):
        stream = module.stream(BATCH)
        cuts = [slice(at, at + chunk) for at in range(0, STEPS, chunk)]
        same(np.concatenate([stream.run(x[cut], resets[cut]) for cut in cuts]), want)
    stream = module.stream(BATCH)
    steps = zip(x, resets, strict=True)
    same(np.stack([stream.step(frame, resets=now) for frame, now in steps]), want)


@each
def test_a_reset_before_the_step_is_the_same(name: str) -> None:
    module, resets = PROMPT[name], where()
    x = frames(module, STEPS, BATCH)
    one, other = module.stream(BATCH), module.stream(BATCH)
    for frame, now in zip(x, resets, strict=True):
        other.reset(now)
        same(one.step(frame, resets=now), other.step(frame))


def test_what_slides_lets_go_of_earlier_frames() -> None:
    module = Chain(Conv1d(3, 4, 3, padding=(2, 0), seed=1), GRU(4, 5, seed=2))
    x, resets = frames(module, STEPS, BATCH), where()
    stream = module.stream(BATCH)
    y = stream.run(x, resets)
    for b in range(BATCH):
        cuts = np.split(np.arange(STEPS), np.flatnonzero(resets[1:, b]) + 1)
        for steps in cuts:
            same(y[steps, b : b + 1], module(x[steps, b : b + 1])[0])


def test_the_weights_and_first_states_are_those_of_the_stream() -> None:
    module = learned(Chain(LSTM(3, 5, learned_state=True, seed=1), Linear(5, 2, seed=2)))
    x, now = frames(module, 1, 2)[0], np.array([True, False])
    stream = module.stream(2)
    want = stream.step(x, resets=now)
    for name, array in module.params.items():
        array[...] = 0.25 if "initial_" in name else array
    same(stream.step(x, resets=[True, True])[0], want[0])
    stream.join()
    same(stream.step(x[[0, 1, 0]], resets=[False, False, True])[2], want[0])
    stream.refresh()
    same(stream.step(x[[0, 1, 0]], resets=[True] * 3)[:2], module(x[None])[0][0])


def test_layouts(rng: np.random.Generator) -> None:
    module = LSTM(3, 5, batch_first=True, seed=1)
    x, resets = rng.standard_normal((BATCH, STEPS, 3), np.float32), where().T
    same(module.stream(BATCH).run(x, resets), module(x, resets=resets)[0])
    same(module.stream().run(x[0], resets[0]), module(x[0], resets=resets[0])[0])
    stream = module.stream()
    alone = [stream.step(frame, resets=[now]) for frame, now in zip(x[0], resets[0], strict=True)]
    same(np.stack(alone), module(x[0], resets=resets[0])[0])


@pytest.mark.parametrize("name", ["chain", "skips in a chain", "tanh", "learned beside"])
def test_refusals(name: str) -> None:
    stream = PROMPT[name].stream(BATCH)
    x = frames(PROMPT[name], STEPS, BATCH)
    with pytest.raises(TypeError, match=r"resets must be booleans, got .*float64"):
        stream.step(x[0], resets=np.zeros(BATCH))
    with pytest.raises(ValueError, match=r"resets must have shape \(3,\), got \(1, 3\)"):
        stream.step(x[0], resets=np.zeros((1, BATCH), bool))
    with pytest.raises(ValueError, match=r"resets must have shape \(9, 3\), got \(3, 9\)"):
        stream.run(x, np.zeros((BATCH, STEPS), bool))


@pytest.mark.parametrize("name", DELAYED)
def test_rows_that_wait_for_the_same_frames(name: str) -> None:
    module: Any = DELAYED[name]
    stream = module.stream(BATCH)
    with pytest.raises(ValueError, match="the rows of a stream that looks ahead go together"):
        stream.run(frames(module, STEPS, BATCH), where())
    if isinstance(module, RowConvolution):
        with pytest.raises(TypeError, match="use run and finish"):
            stream.step(frames(module, 1, BATCH)[0], resets=where()[0])
