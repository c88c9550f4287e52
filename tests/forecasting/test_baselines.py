"""Naive forecasts against their rules, written out one step after the other."""

from statistics import NormalDist

import numpy as np
import pytest
from rnncore.forecasting import Naive, SeasonalNaive

LEVELS = (0.05, 0.5, 0.8)


def written_out(y, season, horizon):
    """The points and deviations of Hyndman and Athanasopoulos, for a series without gaps."""
    steps = [y[t] - y[t - season] for t in range(season, len(y))]
    sigma = (sum(step**2 for step in steps) / len(steps)) ** 0.5
    points, spread = [], []
    for h in range(1, horizon + 1):
        cycles = (h - 1) // season
        points.append(y[len(y) + h - season * (cycles + 1) - 1])
        spread.append(sigma * (cycles + 1) ** 0.5)
    return np.array(points), np.array(spread)


@pytest.mark.parametrize("season", [1, 3, 7])
@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30, 1e200])
def test_seasonal_naive(rng, season, scale):
    y = rng.normal(5, 2, 23)
    points, spread = written_out(y, season, 10)
    model = SeasonalNaive(10, season, LEVELS).fit(scale * y)
    np.testing.assert_allclose(model.predict(), scale * points, rtol=1e-12)
    quantiles = model.predict_quantiles()
    for level, found in zip(LEVELS, quantiles.T, strict=True):
        wanted = points + spread * NormalDist().inv_cdf(level)
        np.testing.assert_allclose(found, scale * wanted, rtol=1e-12, atol=1e-12 * scale)


def test_naive_is_of_one_step(rng):
    y = rng.normal(size=9)
    for found, wanted in ((Naive(4, LEVELS), SeasonalNaive(4, 1, LEVELS)),):
        np.testing.assert_array_equal(found.predict(y), wanted.predict(y))
        np.testing.assert_array_equal(found.predict_quantiles(y), wanted.predict_quantiles(y))
    np.testing.assert_array_equal(Naive(4).predict(y), [y[-1]] * 4)


def test_missing_values_are_passed_over():
    nan = np.nan
    y = np.array([1.0, 2.0, nan, 4.0, nan, 6.0, nan, nan, nan])  # of season 3, the third from 6
    np.testing.assert_array_equal(SeasonalNaive(4, 3).predict(y), [4, 2, 6, 4])
    # at the first place 4 is two seasons old, at the second 2 is three, at the third 6 two
    (low, middle, high) = SeasonalNaive(3, 3).predict_quantiles(y).T
    one = 3.0  # the only pair a season apart: 1 and 4
    np.testing.assert_allclose(
        (high - middle) / NormalDist().inv_cdf(0.975), one * np.sqrt([2, 3, 2]), rtol=1e-12
    )
    np.testing.assert_allclose(high - middle, middle - low, rtol=1e-12)


def test_series_shorter_than_a_season_go_on_from_the_last_value():
    y = np.array([1.0, 2.0, 4.0])
    np.testing.assert_array_equal(SeasonalNaive(6, 5).predict(y), [4, 4, 1, 2, 4, 4])
    spread = np.diff(SeasonalNaive(2, 5, (0.5, 0.841344746)).predict_quantiles(y))[:, 0]
    np.testing.assert_allclose(spread, np.sqrt(2.5) * np.sqrt([1, 2]), rtol=1e-7)


@pytest.mark.parametrize("values", [[7.0], [7.0] * 40, [np.nan, 7.0, np.nan]])
def test_series_without_spread_have_no_intervals(values):
    quantiles = SeasonalNaive(5, 4, LEVELS).predict_quantiles(values)
    np.testing.assert_array_equal(quantiles, np.full((5, 3), 7.0))


def test_many_series(rng):
    series = [rng.normal(size=length) for length in (5, 30, 12)]
    model = SeasonalNaive(4, 3, LEVELS)
    found, quantiles = model.predict(series), model.predict_quantiles(series)
    assert found.shape == (3, 4)
    for at, values in enumerate(series):
        np.testing.assert_array_equal(found[at], model.predict(values))
        np.testing.assert_array_equal(quantiles[at], model.predict_quantiles(values))


def test_frames_come_back_as_frames():
    pd = pytest.importorskip("pandas", reason="pandas has the frames")
    index = pd.date_range("2024-01-31", periods=13, freq="ME")
    frame = pd.DataFrame({"a": np.arange(13.0), "b": 1.0}, index)
    found = SeasonalNaive(2, 12).fit(frame).predict()
    wanted = pd.date_range("2025-02-28", periods=2, freq="ME")
    pd.testing.assert_frame_equal(found, pd.DataFrame({"a": [1.0, 2.0], "b": 1.0}, wanted))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Naive().predict(), "X must be given, or series to fit before it"),
        (lambda: Naive().predict([np.nan] * 3), "series 0 of X must have a value, all 3 are miss"),
        (lambda: Naive().fit([[1.0], [np.nan]]), "series 0|series 1|must"),
        (lambda: Naive(0).fit([1.0]), "horizon must be at least 1"),
        (lambda: SeasonalNaive(1, 0).predict([1.0]), "season must be at least 1"),
        (lambda: Naive(1, (0.5, 0.5)).fit([1.0]), "quantiles must be increasing numbers"),
        (lambda: Naive().predict([1.0, np.inf]), "must be finite or NaN"),
        (lambda: Naive().predict([]), "must have at least one value"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
