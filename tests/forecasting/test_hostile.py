"""Series that break forecasters: a clear error or a sensible forecast, and never NaN."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore.distributions import Gaussian, StudentT
from rnncore.forecasting import GlobalForecaster, Naive, SeasonalNaive, backtest

LEVELS = (0.05, 0.5, 0.95)
HORIZON = 8
WAVE = np.sin(np.arange(60) / 3) + np.random.default_rng(7).normal(0, 0.1, 60)
PLACES = np.arange(60)


def estimator(**options: Any) -> Any:
    estimators = pytest.importorskip("rnncore.estimators", reason="needs scikit-learn")
    options |= {"hidden_size": 4, "max_iter": 3, "window": 16, "random_state": 0}
    return estimators.Forecaster(cell="gru", horizon=HORIZON, **options)


def networks(**options: Any) -> Any:
    sizes = {"hidden_size": 8, "batch_size": 8, "updates": 10, "seed": 0}
    return GlobalForecaster(horizon=HORIZON, season=7, quantiles=LEVELS, **sizes | options)


FORECASTERS: dict[str, Callable[[], Any]] = {
    "Naive": lambda: Naive(HORIZON, LEVELS),
    "SeasonalNaive": lambda: SeasonalNaive(HORIZON, 7, LEVELS),
    "direct": networks,
    "autoregressive": lambda: networks(network="autoregressive", head=Gaussian(), paths=20),
    "decoder": lambda: networks(network="encoder-decoder", residual=True, head=StudentT()),
    "calibrated": lambda: networks(calibrate=True, members=2),
    "Forecaster": estimator,
    "Forecaster with quantiles": lambda: estimator(quantiles=LEVELS),
}
SERIES = {
    "constant": np.full(60, 3.0),
    "zeros": np.zeros(60),
    "constant and huge": np.full(60, 1e30),
    "constant and tiny": np.full(60, 1e-30),
    "huge": 1e30 * WAVE,
    "tiny": 1e-30 * WAVE,
    "denormal": 1e-310 * WAVE,
    "a spread of rounding errors": 1 + 1e-14 * WAVE,
    "far from zero": 1e9 + WAVE,
    "shorter than the horizon": WAVE[:5],
    "two values": np.array([3.0, 4.0]),
    "rarely not zero": np.where(PLACES % 9 == 0, 4.0, 0.0),
    "one value that is huge": np.where(PLACES == 30, 1e30, 0.0),
    "ends with one that is huge": np.where(PLACES == 59, 1e30, WAVE),
    "of both signs and huge": np.where(PLACES % 2, 1e30, -1e30),
    "integers": PLACES,
    "booleans": PLACES % 3 == 0,
}


def forecasts(model: Any, data: Any) -> list[np.ndarray]:
    model.fit(data)
    found = [np.asarray(model.predict(data))]
    if getattr(model, "quantiles", None) is not None:
        found.append(np.asarray(model.predict_quantiles(data)))
        assert np.all(np.diff(found[1], axis=-1) >= 0)
    if hasattr(model, "sample"):
        found.append(np.moveaxis(model.sample(data, 5), -1, 0))
    return found


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("kind", FORECASTERS)
def test_sensible(kind, name):
    """Forecasts lie about as far from the values as these from one another, at any scale."""
    values = SERIES[name]
    if kind == "calibrated" and len(values) < HORIZON + 2:
        with pytest.raises(
            ValueError, match=r"calibrate needs series of more than horizon \+ 1 = 9"
        ):
            FORECASTERS[kind]().fit(values)
        return
    numbers = values.astype(float)
    spread = np.ptp(numbers)
    for found in forecasts(FORECASTERS[kind](), values):
        assert found.shape[0] == HORIZON
        assert np.isfinite(found).all()
        beyond = np.maximum(numbers.min() - found, found - numbers.max())
        assert beyond.max() <= 5 * spread + 1e-12 * np.abs(numbers).max()


def times() -> Any:
    pd = pytest.importorskip("pandas", reason="pandas has time stamps")
    return pd.date_range("2024-01-01", periods=60)


def frame(order: Any) -> Any:
    import pandas as pd

    return pd.DataFrame({"load": WAVE}, times()[order])


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "all missing": (lambda: np.full(60, np.nan), "missing|NaN"),
    "infinite": (lambda: np.where(PLACES == 3, np.inf, WAVE), "finite|infinity"),
    "ends with infinity": (lambda: np.where(PLACES == 59, -np.inf, WAVE), "finite|infinity"),
    "empty": (lambda: WAVE[:0], "at least one"),
    "time stamps twice": (lambda: frame(np.r_[:59, 58]), "each time stamp once, 2024-02-28"),
    "time stamps not in order": (lambda: frame(np.r_[:58, 59, 58]), "in order, 2024-02-28"),
    "time stamps backwards": (lambda: frame(np.r_[59:-1:-1]), "in order, 2024-02-28"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", FORECASTERS)
@pytest.mark.parametrize("when", ["fit", "predict"])
def test_refused(kind, name, when):
    make, message = REFUSED[name]
    data, model = make(), FORECASTERS[kind]()
    if when == "fit":
        with pytest.raises(ValueError, match=message):
            model.fit(data)
        return
    model.fit(frame(PLACES) if hasattr(data, "index") else WAVE)
    if name == "empty" and kind.startswith("Forecaster"):  # which then answers from its zero state
        assert np.isfinite(model.predict(data)).all()
        return
    with pytest.raises(ValueError, match=message):
        model.predict(data)


@pytest.mark.parametrize("kind", FORECASTERS)
def test_one_value(kind):
    model = FORECASTERS[kind]()
    if kind.startswith("Forecaster") or kind == "calibrated":
        with pytest.raises(ValueError, match=r"at least 2 steps|more than horizon"):
            model.fit([5.0])
        model.fit(WAVE)
        assert np.isfinite(model.predict([0.5])).all()
        return
    for found in forecasts(model, [5.0]):
        np.testing.assert_array_equal(found, 5.0)


NETWORKS = ["direct", "autoregressive", "decoder", "calibrated"]


@pytest.mark.parametrize("kind", ["Naive", "SeasonalNaive", *NETWORKS])
def test_beside_others(kind):
    """Series of all kinds in one panel: the forecasts of each are of its own scale."""
    one_left = np.where(PLACES == 20, 4.0, np.nan)
    series = [WAVE, np.full(40, 7.0), 1e30 * WAVE, np.array([5.0]), 1e-30 * WAVE, one_left]
    model = FORECASTERS[kind]().fit(series)
    found, quantiles = model.predict(series), model.predict_quantiles(series)
    for at, values in enumerate(series):
        low, high = np.nanmin(values), np.nanmax(values)
        for part in (found[at], quantiles[at]):
            assert np.isfinite(part).all()
            assert np.all(part >= low - 5 * (high - low))
            assert np.all(part <= high + 5 * (high - low))
    with pytest.raises(ValueError, match="series 1 of X must have a value, all 60 are missing"):
        model.predict([WAVE, np.full(60, np.nan)])


@pytest.mark.parametrize("kind", FORECASTERS)
@pytest.mark.parametrize("scale", [1e30, 1e37, 1e-30, 1e200])
def test_another_scale_than_that_of_fit(kind, scale):
    """A network that was fitted at one scale may refuse another, and never returns NaN."""
    model = FORECASTERS[kind]().fit(WAVE)
    if scale == 1e200 and kind.startswith("Forecaster"):
        with pytest.raises(
            ValueError, match=r"X has values too far from those of fit: .*e\+200 dev"
        ):
            model.predict(scale * WAVE)
    else:
        assert np.isfinite(model.predict(scale * WAVE)).all()


@pytest.mark.parametrize("kind", ["Forecaster", "Forecaster with quantiles"])
def test_values_whose_squares_are_too_large(kind):
    with pytest.raises(ValueError, match=r"X is too large to be standardised: up to 1\..*e\+300"):
        FORECASTERS[kind]().fit(1e300 * WAVE)


@pytest.mark.parametrize("name", ["constant", "huge", "tiny", "rarely not zero"])
@pytest.mark.parametrize("kind", FORECASTERS)
def test_backtests(kind, name):
    """All scores are numbers but those that have no scale, as mase of a constant."""
    scores = backtest(FORECASTERS[kind](), SERIES[name], origins=2, season=7).scores
    for row in scores.values():
        missing = {score for score, value in row.items() if not np.isfinite(value)}
        assert missing <= ({"mase", "msis"} if name == "constant" else set())
