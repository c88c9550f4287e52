"""Embedding: rows of a table, and their gradients."""

import numpy as np
import pytest
from rnncore.layers.embedding import Embedding, add_rows

from tests.support.compare import near
from tests.support.gradients import check_layer

EXACT = 1e-12


@pytest.mark.parametrize("shape", [(), (1,), (7,), (4, 3), (2, 3, 2)])
def test_embedding_gradients(shape, rng):
    check_layer(Embedding(4, 3, dtype="float64", seed=1), rng.integers(0, 4, shape))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint64", "int64"])
def test_embedding_takes_rows(dtype, rng):
    layer = Embedding(100, 3, seed=1)
    x = rng.integers(0, 100, (5, 2)).astype(dtype)
    y, pullback = layer.vjp(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, layer.params["weight"][x.astype(int)])
    np.testing.assert_array_equal(layer(x.tolist()), y)
    assert pullback(np.ones_like(y)) is None
    counts = np.bincount(x.ravel().astype(int), minlength=100)
    np.testing.assert_array_equal(layer.grads["weight"], np.tile(counts[:, None], 3))


def test_embedding_starts_standard_normal():
    weight = Embedding(200, 300, seed=0).params["weight"]
    assert abs(weight.mean()) < 0.01
    assert abs(weight.std() - 1) < 0.01


@pytest.mark.parametrize("x", [[], np.zeros((0, 4), int), np.zeros((3, 0), int)])
def test_embedding_of_nothing(x):
    layer = Embedding(4, 3)
    y, pullback = layer.vjp(x)
    assert y.shape == (*np.shape(x), 3)
    pullback(y)
    assert not layer.grads["weight"].any()


def test_embedding_refuses():
    layer = Embedding(4, 3)
    with pytest.raises(ValueError, match=r"x must be in 0\.\.3, got 4"):
        layer([1, 4])
    with pytest.raises(ValueError, match=r"x must be in 0\.\.3, got -1"):
        layer.vjp([-1, 2])
    for wrong in (1.0, np.zeros(0), np.array([True]), ["a"]):
        with pytest.raises(TypeError, match="x must be integers, got"):
            layer(wrong)
    with pytest.raises(ValueError, match="num_embeddings must be at least 1"):
        Embedding(0, 3)
    with pytest.raises(ValueError, match="embedding_dim must be at least 1"):
        Embedding(3, 0)


@pytest.mark.parametrize("size", [1, 2, 65, 70_000])
@pytest.mark.parametrize("count", [0, 1, 5, 3000])
@pytest.mark.parametrize("width", [1, 130])
def test_add_rows_is_add_at(size, count, width, rng):
    index, rows = rng.integers(0, size, count), rng.standard_normal((count, width))
    table = rng.standard_normal((size, width))
    expected = table.copy()
    np.add.at(expected, index, rows)
    add_rows(table, index, rows)
    near(table, expected, EXACT)


def test_add_rows_keeps_nan_to_its_row():
    table = np.zeros((3, 2))
    add_rows(table, np.array([2, 0, 2]), np.array([[1.0, 1], [np.nan, 1], [2, 2]]))
    np.testing.assert_array_equal(table, [[np.nan, 1], [0, 0], [3, 3]])
