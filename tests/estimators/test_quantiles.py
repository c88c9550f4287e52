"""Forecasts of quantiles."""

import pickle

import numpy as np
import pytest
from rnncore.estimators import Forecaster
from sklearn.base import clone

LEVELS = [0.1, 0.5, 0.9]


def noise(rng, count=4, steps=300):
    """Series (N, T, 1) whose steps are drawn from an exponential distribution."""
    return rng.exponential(size=(count, steps, 1))


def test_they_are_those_of_the_distribution(rng):
    model = Forecaster(horizon=3, quantiles=LEVELS, batch_size=4, random_state=0)
    model.fit(noise(rng))
    found = model.predict_quantiles(noise(rng)).mean(axis=(0, 1, 2))
    assert np.abs(found - -np.log1p(-np.array(LEVELS))).max() < 0.25
    future = noise(rng, 200)
    below = future[:, -3:, :, None] <= model.predict_quantiles(future[:, :-3])
    assert np.abs(below.mean(axis=(0, 1, 2)) - LEVELS).max() < 0.08


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_shapes(weighted, early_stopping, rng):
    x = rng.standard_normal((20, 12, 2))
    weights = rng.integers(1, 4, 20) / 2 if weighted else None
    options = {"early_stopping": early_stopping, "max_iter": 2, "window": 5, "random_state": 0}
    model = Forecaster(horizon=4, quantiles=LEVELS, **options).fit(x, sample_weight=weights)
    found = model.predict_quantiles(x)
    assert found.shape == (20, 4, 2, 3)
    assert np.all(np.diff(found) >= 0)
    assert np.array_equal(model.predict(x), found[..., 1])
    assert np.array_equal(model.predict_quantiles(x[0]), found[0])
    assert model.predict_quantiles(x[0]).shape == (4, 2, 3)
    told = model.score(x, sample_weight=weights)
    assert np.isfinite(told)
    for y, shape in ((x[:, 0, 0], (20,)), (x[:, 0], (20, 2)), (x[:, :3], (20, 3, 2))):
        model = Forecaster(quantiles=LEVELS, **options).fit(x, y, weights)
        assert model.predict(x).shape == shape
        assert model.predict_quantiles(x).shape == (*shape, 3)


def test_score_is_that_of_the_median(rng):
    x = noise(rng, 3, 40)
    model = Forecaster(quantiles=LEVELS, max_iter=2, random_state=0).fit(x)
    told = [
        (x[n, t + 1, 0], model.predict(x[n, : t + 1])[0, 0]) for n in range(3) for t in range(39)
    ]
    true, found = np.array(told).T
    r2 = 1 - ((true - found) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    assert model.score(x) == pytest.approx(r2, rel=1e-4)


def test_the_middle_is_nearest_to_the_median(rng):
    x = noise(rng, 2, 30)
    model = Forecaster(quantiles=(0.05, 0.4, 0.99), max_iter=1, random_state=0).fit(x)
    assert np.array_equal(model.predict(x), model.predict_quantiles(x)[..., 1])


def test_clones_and_pickles(rng):
    x = noise(rng, 2, 30)
    model = Forecaster(quantiles=LEVELS, max_iter=1, random_state=0).fit(x)
    again = clone(model).fit(x)
    for other in (again, pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.predict_quantiles(x), model.predict_quantiles(x))
    assert again.partial_fit(x).n_iter_ == 2


@pytest.mark.parametrize(
    "levels", [[], [0.5, 0.1], [0.5, 0.5], [0.0, 0.5], [0.5, 1.0], 0.5, [np.nan]]
)
def test_what_are_no_quantiles(levels, rng):
    with pytest.raises(ValueError, match=r"quantiles must be increasing numbers in \(0, 1\), got"):
        Forecaster(quantiles=levels).fit(noise(rng, 2, 30))


def test_without_quantiles(rng):
    model = Forecaster(max_iter=1).fit(noise(rng, 2, 30))
    with pytest.raises(ValueError, match=r"Forecaster\(quantiles=\[0.1, 0.5, 0.9\]\)"):
        model.predict_quantiles(noise(rng, 2, 30))
