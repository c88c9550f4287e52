"""Heads recover the parameters of simulated data; learnt quantiles are calibrated."""

import numpy as np
import pytest
from rnncore import Adam, Chain, Linear, Tanh
from rnncore.distributions import (
    Gaussian,
    GaussianMixture,
    NegativeBinomial,
    PenStrokes,
    Poisson,
    Quantiles,
    StudentT,
)
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer

COUNT = 8_000


def fitted(head, targets, start=None, updates=200, lr=0.1):
    """The numbers (outputs,) that minimise the loss of targets (N, ...)."""
    model = Linear(1, head.outputs, bias=False, dtype="float64", seed=0)
    model.params["weight"][:, 0] = 0 if start is None else start
    x = np.ones((len(targets), 1))
    optimiser = Adam(model, lr=warmup_cosine(lr, updates))
    Trainer(model, head, optimiser, [(x, targets)]).fit(updates, quiet=True)
    return model(x[:1])[0]


def softplus(x):
    return np.logaddexp(0, x)


def test_gaussian(rng):
    x = fitted(Gaussian(), rng.normal(-1.5, 0.4, (COUNT, 1)))
    assert x[0] == pytest.approx(-1.5, abs=0.02)
    assert softplus(x[1]) == pytest.approx(0.4, rel=0.03)


def test_student(rng):
    x = fitted(StudentT(), 2 + 3 * rng.standard_t(5, (COUNT, 1)), [1.0, 1, 1], 250)
    assert x[0] == pytest.approx(2, abs=0.1)
    assert softplus(x[1]) == pytest.approx(3, rel=0.05)
    assert 2 + softplus(x[2]) == pytest.approx(5, rel=0.2)


def test_poisson(rng):
    x = fitted(Poisson(), rng.poisson(3.7, (COUNT, 1)).astype(float))
    assert np.exp(x[0]) == pytest.approx(3.7, rel=0.02)


def test_negative_binomial(rng):
    mean, r = 6.0, 1.7
    x = fitted(NegativeBinomial(), rng.poisson(rng.gamma(r, mean / r, (COUNT, 1))).astype(float))
    assert np.exp(x[0]) == pytest.approx(mean, rel=0.03)
    assert np.exp(x[1]) == pytest.approx(r, rel=0.1)


def test_mixture(rng):
    first = rng.random((COUNT, 1)) < 0.3
    targets = np.where(first, rng.normal(-2, 0.5, (COUNT, 1)), rng.normal(1, 1.0, (COUNT, 1)))
    x = fitted(GaussianMixture(2), targets, [0, 0, -1, 1, 0, 0], 250)
    weights = np.exp(x[:2]) / np.exp(x[:2]).sum()
    np.testing.assert_allclose(weights, [0.3, 0.7], atol=0.03)
    np.testing.assert_allclose(x[2:4], [-2, 1], atol=0.08)
    np.testing.assert_allclose(softplus(x[4:]), [0.5, 1.0], rtol=0.08)


def test_strokes(rng):
    cov = [[0.25, 0.5 * 2 * 0.6], [0.5 * 2 * 0.6, 4.0]]
    targets = np.empty((COUNT, 3))
    targets[:, :2] = rng.multivariate_normal([1, -3], cov, COUNT)
    targets[:, 2] = rng.random(COUNT) < 0.2
    x = fitted(PenStrokes(1), targets, updates=350)
    assert 1 / (1 + np.exp(-x[0])) == pytest.approx(0.2, abs=0.015)
    np.testing.assert_allclose(x[2:4], [1, -3], atol=0.08)
    np.testing.assert_allclose(softplus(x[4:6]), [0.5, 2.0], rtol=0.03)
    assert np.tanh(x[6]) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("crossing", [False, True])
def test_quantiles_are_calibrated(crossing, rng):
    """Of data whose level and spread depend on an input: within 1 point of each level."""

    def drawn(count):
        x = rng.uniform(-1, 1, (count, 1))
        return x, np.sin(3 * x) + (0.3 + 0.25 * x) * rng.standard_normal((count, 1))

    head = Quantiles((0.05, 0.25, 0.5, 0.75, 0.95), crossing=crossing)
    options = {"dtype": "float64", "seed": 1}
    model = Chain(Linear(1, 24, **options), Tanh(), Linear(24, head.outputs, **options))
    updates = 1200

    def batches(_):
        while True:
            yield drawn(256)

    Trainer(model, head, Adam(model, lr=warmup_cosine(0.02, updates, 20)), batches).fit(
        updates, quiet=True
    )
    x, targets = drawn(100_000)
    below = (targets <= head.quantile(model(x), head.levels)[:, 0]).mean(axis=0)
    np.testing.assert_allclose(below, head.levels, atol=0.01)
