"""The compiled layer over packed steps, as rnncore.torch calls it: the padded batch, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN
from rnncore.compiled import Layer

INPUT, HIDDEN = 5, 9
LENGTHS = {
    "falling": [7, 4, 4, 1],
    "equal": [3, 3, 3],
    "of one step": [1, 1],
    "one sequence": [6],
    "many": sorted(np.random.default_rng(0).integers(1, 30, 50).tolist(), reverse=True),
}


def padded_and_packed(lengths: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (T, B, I), the same packed (rows, I), and how many sequences have each step."""
    there = np.arange(lengths[0])[:, None] < lengths
    x = np.random.default_rng(1).standard_normal((*there.shape, INPUT)).astype(np.float32)
    return x, x[there], there.sum(1)


def forward(layer: Layer, x: np.ndarray, state: Any, **options: Any) -> Any:
    given = {"lengths": None, "record": 0, "cell_states": False, "masks": None} | options
    return layer.forward(x, *state, **given)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_packed_steps(kind: Any, both: bool, lengths: list[int]) -> None:
    module = kind(INPUT, HIDDEN, bidirectional=both, seed=0)
    (layer,), (targets,) = module.kernels, module.gradients()
    x, packed, sizes = padded_and_packed(lengths)
    there = np.arange(len(x))[:, None] < lengths
    h = np.random.default_rng(2).standard_normal((1 + both, len(lengths), HIDDEN))
    h = h.astype(np.float32)
    state = (h, h + 1) if kind is LSTM else (h, None)

    found = []
    for rows, options in (
        (x, {"lengths": np.array(lengths)}),
        (packed, {"batch_sizes": sizes}),
    ):
        module.zero_grad()
        y, *final, _, tape = forward(layer, rows, state, **options)
        dy = np.cos(y) if y.ndim == 2 else np.cos(y) * there[..., None].astype(np.float32)
        dx, *initial = layer.backward(tape, dy, h, None, targets, True)
        if y.ndim == 3:
            y, dx = y[there], dx[there]
        found.append([y, dx, *final, *initial, *map(np.copy, module.grads.values())])
    for got, want in zip(*found, strict=True):
        assert (got is None) == (want is None)
        assert got is None or got.tobytes() == want.tobytes()


def test_outputs_go_where_they_are_wanted() -> None:
    layer = GRU(INPUT, HIDDEN, seed=0).kernels[0]
    x, packed, sizes = padded_and_packed([3, 2])
    for rows, options in ((x, {}), (packed, {"batch_sizes": sizes})):
        want = forward(layer, rows, (None, None), **options)[0]
        out = np.empty_like(want)
        y = forward(layer, rows, (None, None), out=out, **options)[0]
        assert y is out
        assert out.flags.writeable
        assert not want.flags.writeable
        np.testing.assert_array_equal(out, want)
        for wrong in (np.empty((1, 2), np.float32), out.astype(np.float64), out[..., ::-1]):
            with pytest.raises(ValueError, match="out must be a contiguous array"):
                forward(layer, rows, (None, None), out=wrong, **options)


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_gradients_of_weights_that_nobody_wants(kind: Any) -> None:
    module = kind(INPUT, HIDDEN, seed=0)
    (layer,), (targets,) = module.kernels, module.gradients()
    x = padded_and_packed([4, 4])[0]
    found = []
    for wanted in (targets, None):
        y, *_, tape = forward(layer, x, (None, None))
        found.append(layer.backward(tape, np.cos(y), None, None, wanted, True)[:2])
    for got, want in zip(*found, strict=True):
        assert got.tobytes() == want.tobytes()
    once = {name: gradient.copy() for name, gradient in module.grads.items()}
    arrays = [np.zeros_like(gradient) for gradient in once.values()]
    fresh = layer.targets_in(module._groups(module._params)[0], arrays)
    y, *_, tape = forward(layer, x, (None, None))
    layer.backward(tape, np.cos(y), None, None, fresh, True)
    for got, want in zip(arrays, once.values(), strict=True):
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("sizes", [[4, 4], [1, 2, 3], [6, 0], [], [[6]], [7, -1]])
def test_batch_sizes_that_cannot_be(sizes: list[int]) -> None:
    layer, packed = RNN(INPUT, HIDDEN, seed=0).kernels[0], np.zeros((6, INPUT), np.float32)
    with pytest.raises(ValueError, match="batch_sizes must be positive, never grow, and add up"):
        forward(layer, packed, (None, None), batch_sizes=np.array(sizes, np.int64))
