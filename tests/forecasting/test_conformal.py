"""Conformal factors beside a loop that tries every score."""

import numpy as np
from rnncore.forecasting.conformal import conformal_factors, corrected

LEVELS = np.array([0.1, 0.5, 0.9])


def test_shares_are_the_levels(rng):
    actual = rng.standard_normal((50, 8)) * 2 + 1
    quantiles = np.broadcast_to([-1.0, 1.0, 1.5], (50, 8, 3))
    factors = conformal_factors(actual, quantiles, LEVELS, 1)
    assert factors[1] == 1
    found = corrected(quantiles, factors, 1)
    for at, level in ((0, 0.1), (2, 0.9)):
        assert abs((actual <= found[..., at]).mean() - level) <= 1.5 / actual.size


def test_by_hand():
    actual = np.array([[0.0, 1, 2, 3, 4, 5, 6, 7, 8, np.nan]])
    quantiles = np.broadcast_to([2.0, 4.0, 5.0], (1, 10, 3))
    factors = conformal_factors(actual, quantiles, LEVELS, 1)
    # The ceil(10 * 0.9) = 9th of the scores -4..4 of the upper, and 2..-2 of the lower quantile.
    np.testing.assert_array_equal(factors, [2, 1, 4])


def test_nothing_to_learn_from():
    flat = np.zeros((2, 3, 3))
    np.testing.assert_array_equal(conformal_factors(np.zeros((2, 3)), flat, LEVELS, 1), 1)
    nan = np.full((2, 3), np.nan)
    np.testing.assert_array_equal(conformal_factors(nan, flat + LEVELS, LEVELS, 1), 1)


def test_corrections_stay_in_order_and_finite():
    quantiles = np.array([[[-1.7e308, 0.0, 1.7e308]]])
    found = corrected(quantiles, np.array([0.0, 1.0, 3.0]), 1)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
