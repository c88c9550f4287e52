"""Scores against their formulas, written out one value after the other."""

import math

import numpy as np
import pytest
from rnncore.forecasting import (
    coverage,
    crps,
    crps_quantiles,
    interval_score,
    mase,
    msis,
    pinball,
    seasonal_scale,
    smape,
)

LEVELS = (0.05, 0.3, 0.5, 0.9)


@pytest.fixture(params=[1.0, 1e30, 1e-30])
def case(request, rng):
    """Values, points, sorted quantiles and histories of 3 series, of any scale."""
    scale = request.param
    return {
        "actual": scale * rng.normal(3, 2, (3, 5)),
        "forecast": scale * rng.normal(3, 2, (3, 5)),
        "quantiles": scale * np.sort(rng.normal(3, 2, (3, 5, 4)), axis=-1),
        "history": scale * rng.normal(3, 2, (3, 20)),
        "samples": scale * rng.normal(3, 2, (3, 7, 5)),
    }


def scale_of(history, season):
    pairs = [abs(history[t] - history[t - season]) for t in range(season, len(history))]
    return sum(pairs) / len(pairs)


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_smape(case):
    y, f = case["actual"], case["forecast"]
    wanted = [
        sum(200 * abs(a - b) / (abs(a) + abs(b)) for a, b in zip(*rows, strict=True)) / 5
        for rows in zip(y, f, strict=True)
    ]
    close(smape(y, f), wanted)
    assert smape(y[0], f[0]) == pytest.approx(wanted[0], rel=1e-12)
    assert type(smape(y[0], f[0])) is float


def test_smape_of_zeros():
    assert smape([0.0, 0.0, 1.0], [0.0, 2.0, 1.0]) == pytest.approx(200 / 3)


@pytest.mark.parametrize("season", [1, 4])
def test_mase(case, season):
    y, f, history = case["actual"], case["forecast"], case["history"]
    wanted = [
        sum(abs(a - b) for a, b in zip(y[n], f[n], strict=True)) / 5 / scale_of(history[n], season)
        for n in range(3)
    ]
    close(mase(y, f, history, season), wanted)
    close(mase(y, f, list(history), season), wanted)
    close(mase(y[0], f[0], history[0], season), wanted[0])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_scores_and_coverage(case, level):
    y, low, high = case["actual"], case["quantiles"][..., 0], case["quantiles"][..., 3]
    scores, inside = np.zeros((3, 5)), np.zeros((3, 5))
    for n in range(3):
        for h in range(5):
            scores[n, h] = high[n, h] - low[n, h]
            if y[n, h] < low[n, h]:
                scores[n, h] += 2 / (1 - level) * (low[n, h] - y[n, h])
            elif y[n, h] > high[n, h]:
                scores[n, h] += 2 / (1 - level) * (y[n, h] - high[n, h])
            else:
                inside[n, h] = 1
    close(interval_score(y, low, high, level), scores.mean(1))
    scales = [scale_of(history, 4) for history in case["history"]]
    close(msis(y, low, high, case["history"], 4, level), scores.mean(1) / scales)
    close(coverage(y, low, high), inside.mean(1))
    assert 0 < inside.mean() < 1


def test_coverage_counts_the_borders():
    assert coverage([1.0, 2.0, 3.0], [1.0, 2.0, 2.0], [1.5, 2.0, 2.5]) == pytest.approx(2 / 3)


def losses(y, quantiles, levels):
    out = np.zeros(quantiles.shape)
    for place in np.ndindex(quantiles.shape):
        error, q = y[place[:-1]] - quantiles[place], levels[place[-1]]
        out[place] = q * error if error >= 0 else (q - 1) * error
    return out


def test_pinball(case):
    y, quantiles = case["actual"], case["quantiles"]
    close(pinball(y, quantiles, LEVELS), losses(y, quantiles, LEVELS).mean((1, 2)))


def test_crps_of_quantiles_weighs_levels_by_what_is_nearest_to_them(case):
    weights = [0.175, 0.4 - 0.175, 0.7 - 0.4, 1 - 0.7]
    wanted = (2 * losses(case["actual"], case["quantiles"], LEVELS) * weights).sum(-1).mean(1)
    close(crps_quantiles(case["actual"], case["quantiles"], LEVELS), wanted)


def test_crps_of_samples(case):
    y, x = case["actual"], case["samples"]
    wanted = np.zeros((3, 5))
    for n, h in np.ndindex(3, 5):
        to_value = sum(abs(x[n, i, h] - y[n, h]) for i in range(7)) / 7
        apart = sum(abs(x[n, i, h] - x[n, j, h]) for i in range(7) for j in range(7)) / 49
        wanted[n, h] = to_value - apart / 2
    close(crps(y, x), wanted.mean(1))
    close(crps(y, x[:, :1]), np.abs(x[:, 0] - y).mean(1))  # of one sample


def test_crps_is_that_of_a_normal_distribution(rng):
    """The closed form of Gneiting and Raftery 2007, eq. 5 of section 4.2, and both estimates."""
    values = np.array([-1.5, 0.0, 0.7, 3.0])
    density = np.exp(-(values**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in values])
    wanted = values * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)
    samples = np.sort(rng.normal(size=200_000))
    levels = (np.arange(999) + 0.5) / 999
    quantiles = np.quantile(samples, levels)
    for value, exact in zip(values, wanted, strict=True):
        assert crps([value], samples[:, None]) == pytest.approx(exact, abs=5e-3)
        assert crps_quantiles([value], quantiles[None], levels) == pytest.approx(exact, abs=5e-3)


def test_missing_values_are_left_out():
    nan = np.nan
    y, f = np.array([[1.0, nan, 3.0], [nan, nan, nan]]), np.full((2, 3), 2.0)
    history = np.array([[1.0, 2.0, nan, 5.0, 6.0]] * 2)
    np.testing.assert_array_equal(seasonal_scale(history), [1.0, 1.0])
    np.testing.assert_array_equal(seasonal_scale(history, 3), [4.0, 4.0])
    np.testing.assert_array_equal(mase(y, f, history), [1.0, nan])
    np.testing.assert_array_equal(coverage(y, f - 1, f), [0.5, nan])
    np.testing.assert_array_equal(pinball(y, f[..., None], [0.5]), [0.5, nan])


def test_a_missing_forecast_is_no_score():
    y, f = np.array([1.0, 2.0]), np.array([1.0, np.nan])
    assert np.isnan(smape(y, f))
    assert np.isnan(coverage(y, f, f + 1))
    assert np.isnan(crps(y, np.stack([f, f])))


def test_scales_of_odd_histories():
    assert seasonal_scale([1.0, 2.0, 4.0], season=24) == 1.5  # shorter than the season
    assert np.isnan(seasonal_scale([7.0] * 30, season=24))  # constant
    assert np.isnan(seasonal_scale([7.0]))
    assert np.isnan(seasonal_scale([]))
    found = seasonal_scale([np.arange(3.0), [1.0, 3.0]])
    np.testing.assert_array_equal(found, [1.0, 2.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: smape(1.0, 1.0), ValueError, "actual must have an axis of the horizon"),
        (lambda: smape([1.0], [1.0, 2.0]), ValueError, r"forecast must have shape \(1,\)"),
        (lambda: smape(["a"], [1.0]), TypeError, "actual must be real numbers, got <U1"),
        (lambda: smape([1.0], [1j]), TypeError, "forecast must be real numbers"),
        (lambda: mase([1.0], [1.0], [[1.0, 2.0]] * 2), ValueError, "history must be one for each"),
        (lambda: mase([1.0], [1.0], [1.0], season=0), ValueError, "season must be at least 1"),
        (lambda: mase([1.0], [1.0], 1.0), ValueError, "history must have an axis of time"),
        (lambda: coverage([1.0], [2.0], [1.0]), ValueError, "lower must not be above upper"),
        (lambda: interval_score([1.0], [1.0], [1.0], 95), ValueError, r"level must be in \(0, 1\)"),
        (lambda: pinball([1.0], [[1.0]], [0.0]), ValueError, "levels must be increasing numbers"),
        (lambda: pinball([1.0], [[1.0, 2]], [0.5, 0.5]), ValueError, "levels must be increasing"),
        (lambda: pinball([1.0], [[1.0]], []), ValueError, "levels must be increasing numbers"),
        (lambda: pinball([1.0], [1.0], [0.5]), ValueError, r"quantiles must have shape \(1, 1\)"),
        (lambda: crps([1.0], [1.0]), ValueError, r"samples must have shape \(S, 1\), got \(1,\)"),
        (lambda: crps([1.0], np.ones((0, 1))), ValueError, r"samples must have shape \(S, 1\)"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
