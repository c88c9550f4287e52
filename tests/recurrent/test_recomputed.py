"""A pullback that computes the gates again has the same bits and a shorter tape."""

from dataclasses import replace

import numpy as np
import pytest
from rnncore import LSTM

from tests.support import cases
from tests.support.cases import FULL, Case, each
from tests.support.compare import assert_same

LONG = [replace(case, steps=300) for case in FULL]
FEW = [Case(cell, steps=40, batch=2) for cell in cases.VARIED]


@pytest.mark.parametrize("checkpoint", [True, 1, 100])
@each(LONG + FEW)
def test_the_same_bits(case: Case, checkpoint: bool | int) -> None:
    numbers = case.draw()
    outputs, gradients = cases.layer_results(case, numbers)
    again, gradients_again = cases.layer_results(case, numbers, checkpoint=checkpoint)
    assert_same(again, outputs)
    assert_same(gradients_again, gradients)


def tape_bytes(steps: int, checkpoint: bool | int) -> int:
    layer = LSTM(8, 64, checkpoint=checkpoint)
    x = np.zeros((steps, 4, 8), np.float32)
    record = layer._remembered_steps(x)
    return int(layer.kernels[0].forward(x, None, None, None, record, False, None)[-1].nbytes)


def test_the_tape_is_short() -> None:
    gates = 4 * 4 * 64 * 4  # bytes of a step
    whole, short = tape_bytes(10_000, False), tape_bytes(10_000, True)
    assert whole - short > 0.95 * 10_000 * gates


def test_refuses() -> None:
    with pytest.raises(ValueError, match="checkpoint must be at least 1, got -1"):
        LSTM(3, 4, checkpoint=-1)
