"""GLU: its formula, gradients, widths and streams; `test_sliding_golden` has torch's numbers."""

import numpy as np
import pytest
from rnncore import GLU, GRU, Chain, Conv1d, Linear

from tests.support.compare import near
from tests.support.gradients import check_layer


@pytest.mark.parametrize("shape", [(2,), (3, 4), (3, 2, 6), (2, 1, 3, 2), (0, 4), (3, 0)])
def test_formula(shape, rng):
    x = 3 * rng.standard_normal(shape)
    a, b = np.split(x, 2, axis=-1)
    near(GLU()(x), a / (1 + np.exp(-b)), 1e-12)
    np.testing.assert_array_equal(GLU().vjp(x)[0], GLU()(x))
    check_layer(GLU(), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_stays(dtype):
    y, pullback = GLU().vjp(np.ones((3, 4), dtype))
    assert y.dtype == pullback(y).dtype == dtype
    assert GLU()([[1.0, 2.0]]).dtype == np.float32


def test_limits():
    inf, nan = np.inf, np.nan
    x = np.array([[2.0, -inf], [2.0, inf], [0.0, inf], [inf, 0.0], [nan, 0.0], [1.0, nan]])
    np.testing.assert_array_equal(GLU()(x)[:, 0], [0, 2, 0, inf, nan, nan])


def test_memory_order_does_not_matter(rng):
    whole = rng.standard_normal((4, 5, 6))
    for x in (whole.T, whole.T[::-1], np.asfortranarray(whole.T)[:, ::2]):
        y, pullback = GLU().vjp(x)
        same, back = GLU().vjp(x.copy())
        np.testing.assert_array_equal(y, same)
        np.testing.assert_array_equal(pullback(np.asfortranarray(y)), back(y))


def test_widths():
    for shape in ((3, 5), (1,), ()):
        with pytest.raises(ValueError, match="x must have an even number of features, got shape"):
            GLU()(np.zeros(shape))
    with pytest.raises(ValueError, match="one gives 5 features, the next takes an even number"):
        Chain(Linear(3, 5), GLU())
    with pytest.raises(ValueError, match="one gives 3 features, the next takes 4"):
        Chain(Linear(3, 6), GLU(), Linear(4, 2))
    y, pullback = GLU().vjp(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"dy must have shape \(3, 2\), got \(3, 4\)"):
        pullback(np.zeros((3, 4)))
    pullback(y)
    with pytest.raises(RuntimeError, match="already run"):
        pullback(y)
    with pytest.raises(TypeError, match="x must be float32 or float64, got int64"):
        GLU()(np.zeros((3, 4), int))


def test_streams(rng):
    model = Chain(Conv1d(3, 8, 2, padding="causal", seed=1), GLU(), GRU(4, 2, seed=2))
    x = rng.standard_normal((7, 2, 3)).astype("f")
    stream = model.stream(2)
    y = np.concatenate([stream.run(x[:3]), stream.step(x[3])[None], stream.run(x[4:])])
    np.testing.assert_array_equal(y, model(x)[0])
