"""A sequence alone has a loop of its own in the core; the bits are those of a row of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, quantize

#: Of hidden units: around vectors, groups of panels, and the most that the loop is for.
SIZES = [1, 7, 16, 17, 33, 48, 64, 65, 100, 127, 128, 129]
CELLS = [LSTM, GRU]


def layers(cell: Any, hidden: int) -> list[Any]:
    """A layer, and its copies with weights of fewer bits."""
    layer = cell(3, hidden, seed=hidden)
    return [layer, *(quantize(layer, bits) for bits in ("int8", "bfloat16", "bfloat16_dot"))]


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_one_row_is_that_of_a_batch(cell: Any, hidden: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 4, 3)).astype("f4")
    for layer in layers(cell, hidden):
        y, state = layer(x)
        for row in range(4):
            alone, last = layer(x[:, row : row + 1])
            np.testing.assert_array_equal(alone[:, 0], y[:, row])
            both = (last, state) if cell is LSTM else ((last,), (state,))
            for one, many in zip(*both, strict=True):
                np.testing.assert_array_equal(one[:, 0], many[:, row])


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_steps_and_chunks_are_those_of_a_call(
    cell: Any, hidden: int, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((9, 1, 3)).astype("f4")
    for layer in layers(cell, hidden):
        y, _ = layer(x)
        stream = layer.stream()
        found = [stream.run(x[:4]), *(stream.step(frame)[None] for frame in x[4:7])]
        np.testing.assert_array_equal(np.concatenate([*found, stream.run(x[7:])]), y)


@pytest.mark.parametrize("hidden", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_training_has_the_same_outputs_and_gradients(
    cell: Any, hidden: int, rng: np.random.Generator
) -> None:
    """Gates that backward reads are stored as well: beside a batch of the row twice."""
    layer = cell(3, hidden, seed=1)
    x = rng.standard_normal((6, 1, 3)).astype("f4")
    dy = rng.standard_normal((6, 1, hidden)).astype("f4")
    (y, _), pullback = layer.vjp(x)
    np.testing.assert_array_equal(y, layer(x)[0])
    dx, _ = pullback(dy)
    (_, _), pullback = layer.vjp(np.concatenate([x, x], axis=1))
    both, _ = pullback(np.concatenate([dy, dy], axis=1))
    np.testing.assert_array_equal(both[:, :1], dx)


def test_what_is_not_a_number_stays(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 1, 3)).astype("f4")
    x[2] = np.nan
    for cell in CELLS:
        for layer in layers(cell, 40):
            y, _ = layer(x)
            assert np.isfinite(y[:2]).all()
            assert np.isnan(y[2:]).all()
