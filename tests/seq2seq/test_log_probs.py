"""What searches ask of logits and of attention, beside NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from rnncore.compiled import core
from rnncore.seq2seq.hypotheses import likeliest_tokens, log_softmax

from tests.support.compare import near

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@each_dtype
@pytest.mark.parametrize("width", [1, 2, 7, 64, 1003])
def test_log_softmax(width: int, dtype: str) -> None:
    rng = np.random.default_rng(width)
    x = (rng.standard_normal((5, width)) * [[1], [0], [10], [1e3], [1e-3]]).astype(dtype)
    x[2] += 1e4
    exact = x.astype(np.longdouble)
    exact -= exact.max(axis=1, keepdims=True)
    want = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    got = log_softmax(x)
    assert got.dtype == x.dtype
    near(got, want, 1e-6 if dtype == "float32" else 1e-14)
    assert log_softmax(np.asfortranarray(x)).tobytes() == got.tobytes()


@each_dtype
def test_what_is_no_number(dtype: str) -> None:
    inf, nan = np.inf, np.nan
    rows = [[0, -inf, 0], [0, nan, 1], [nan, 0, 1], [inf, 0, 0], [-inf] * 3, [inf, inf, 0]]
    x = np.array(rows, dtype)
    got = log_softmax(x)
    np.testing.assert_allclose(got[0], [-np.log(2), -inf, -np.log(2)], rtol=1e-6)
    assert np.isnan(got[1:]).all()


@each_dtype
def test_the_likeliest(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-5, 5, (9, 40)).astype(dtype)  # many are equal
    x[3] = -np.inf
    for k in (1, 2, 7, 39, 40):
        want = np.sort(np.argsort(-x, axis=1, kind="stable")[:, :k], axis=1)
        np.testing.assert_array_equal(likeliest_tokens(x, k), want)


@each_dtype
def test_coverage(dtype: str) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(6), (4, 3)).astype(dtype)
    weights[1, :, 2] = 0
    weights[2, 1, 0] = np.nan
    lengths, tiny = np.array([6, 6, 2, 1]), np.finfo(dtype).tiny
    sums = weights.astype(np.float64).sum(axis=1)
    sums[2, 0] = 0
    there = np.arange(6) < lengths[:, None]
    want = (np.log(np.clip(sums, tiny, 1)) * there).sum(axis=1)
    got = core(np.dtype(dtype)).coverage(weights, lengths)
    np.testing.assert_allclose(got, want, rtol=1e-12)
