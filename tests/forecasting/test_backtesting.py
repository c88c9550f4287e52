"""Rolling origins against loops over them, and scores against means of the metrics."""

import numpy as np
import pytest
from rnncore.forecasting import (
    Naive,
    SeasonalNaive,
    backtest,
    coverage,
    crps_quantiles,
    mase,
    msis,
    smape,
)

LEVELS = (0.05, 0.5, 0.95)


class Mean:
    """The mean of what it was fitted on, and how often that was; it keeps what it saw."""

    horizon = 3
    fits: tuple = ()
    seen: tuple = ()

    def fit(self, X):
        self.fits += (np.array(X),)
        self.value = np.nanmean(X)
        Mean.last = self

    def predict(self, X):
        self.seen += (np.array(X),)
        return np.full((3, *np.shape(X)[1:]), self.value)


@pytest.fixture
def y(rng):
    return rng.normal(5, 2, 40)


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("window", [None, 6])
def test_origins(y, refit, window):
    result = backtest(Mean(), y, origins=4, step=2, window=window, refit=refit)
    ends = [31, 33, 35, 37]  # the last 3 steps before the end, the others 2 before one another
    np.testing.assert_array_equal(result.origins, [ends])
    known = [y[:end] if window is None else y[end - window : end] for end in ends]
    fitted = known if refit else known[:1]
    for found, wanted in ((Mean.last.fits, fitted), (Mean.last.seen, known)):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    means = [(known[at] if refit else known[0]).mean() for at in range(4)]
    np.testing.assert_array_equal(
        result.forecasts["Mean"].points[0], np.repeat(means, 3).reshape(4, 3)
    )
    np.testing.assert_array_equal(result.actual[0], [y[end : end + 3] for end in ends])
    naive = [np.repeat(y[end - 1], 3) for end in ends]
    np.testing.assert_array_equal(result.forecasts["seasonal naive"].points[0], naive)


def test_the_step_is_the_horizon_where_it_is_not_given(y):
    np.testing.assert_array_equal(backtest(Naive(5), y).origins, [[20, 25, 30, 35]])


def test_the_forecaster_stays_as_it_is(y):
    model = Mean()
    backtest(model, y)
    assert model.fits == ()
    assert not hasattr(model, "value")


def test_scores_are_means_of_the_metrics(rng):
    series = [rng.normal(5, 2, length) for length in (40, 25, 33)]
    series[1][12:20] = np.nan  # of which some are to be forecast, once all
    result = backtest(SeasonalNaive(4, 2, LEVELS), series, origins=3, step=3, season=5)
    model = SeasonalNaive(4, 2, LEVELS)
    parts = {name: np.zeros((3, 3)) for name in ("smape", "mase", "crps", "msis", "coverage")}
    for n, values in enumerate(series):
        for w in range(3):
            end = len(values) - 4 - 3 * (2 - w)
            history, actual = values[:end], values[end : end + 4]
            points, q = model.predict(history), model.predict_quantiles(history)
            parts["smape"][n, w] = smape(actual, points)
            parts["mase"][n, w] = mase(actual, points, history, 5)
            parts["crps"][n, w] = crps_quantiles(actual, q, LEVELS)
            parts["msis"][n, w] = msis(actual, q[:, 0], q[:, 2], history, 5, 0.9)
            parts["coverage"][n, w] = coverage(actual, q[:, 0], q[:, 2])
    each, means = result.each("SeasonalNaive"), result.scores["SeasonalNaive"]
    assert list(each) == list(means) == list(parts)
    for name, wanted in parts.items():
        np.testing.assert_allclose(each[name], wanted, rtol=1e-12)
        assert means[name] == pytest.approx(np.nanmean(wanted), rel=1e-12)
    beside = backtest(SeasonalNaive(4, 5, LEVELS), series, origins=3, step=3, season=5)
    assert beside.scores["SeasonalNaive"] == beside.scores["seasonal naive"]
    assert beside.scores["seasonal naive"] == result.scores["seasonal naive"]


def test_what_is_printed(y):
    lines = repr(backtest(SeasonalNaive(4, 2, LEVELS), y, season=7)).splitlines()
    assert lines[0].split() == ["smape", "mase", "crps", "msis", "coverage"]
    assert [line.split("  ")[0] for line in lines[1:3]] == ["SeasonalNaive", "seasonal naive"]
    assert lines[3] == (
        "1 series, 4 origins, horizon 4, season 7; msis and coverage of 90% intervals"
    )
    lines = repr(backtest(Mean(), y)).splitlines()
    assert lines[0].split() == ["smape", "mase"]
    assert lines[3] == "1 series, 4 origins, horizon 3, season 1"


def test_steps_without_a_value_have_no_score():
    y = np.r_[np.arange(20.0), [np.nan] * 3]
    result = backtest(Mean(), y, origins=1)
    assert np.isnan(result.scores["Mean"]["smape"])
    assert repr(result).splitlines()[1].split() == ["Mean", "-", "-"]
    constant = backtest(Mean(), np.ones(20), origins=2)  # which has no scale
    assert constant.scores["Mean"]["smape"] == 0
    assert np.isnan(constant.scores["Mean"]["mase"])


class TestFrames:
    def test_each_form_has_the_same_forecasts(self, rng):
        pd = pytest.importorskip("pandas", reason="pandas has the frames")
        pl = pytest.importorskip("polars", reason="polars has the other frames")
        days = pd.date_range("2024-03-20", periods=30, freq="D")
        values = rng.normal(size=(30, 2))
        wide = pd.DataFrame(values, days, ["a", "b"])
        long = wide.rename_axis("day").reset_index().melt("day", var_name="id", value_name="y")
        long["id"] = long["id"].astype("category")
        forms = [
            values,
            list(values.T),
            wide,
            wide.tz_localize("Europe/Berlin"),
            [wide["a"], wide["b"]],
            long,
            pl.DataFrame({"day": days.to_numpy(), "a": values[:, 0], "b": values[:, 1]}),
        ]

        class OfFrames(SeasonalNaive):
            reads_panels = False  # but what a user would hand over

        found = [backtest(SeasonalNaive(3, 7), form, season=7) for form in forms]
        for form, result in zip(forms, found, strict=True):
            through = backtest(OfFrames(3, 7), form, season=7)
            assert through.scores["OfFrames"] == result.scores["SeasonalNaive"]
        for result in found[1:]:
            assert result.scores == found[0].scores
            for name, made in result.forecasts.items():
                np.testing.assert_array_equal(made.points, found[0].forecasts[name].points)
                np.testing.assert_array_equal(made.quantiles, found[0].forecasts[name].quantiles)

    def test_rows_that_are_left_out_come_as_missing(self):
        pd = pytest.importorskip("pandas", reason="pandas has the frames")
        index = pd.date_range("2024-01-01", periods=20, freq="D").delete([15, 16])

        class Looks(Mean):
            def fit(self, X):
                super().fit(X)
                assert X.index.freq == pd.offsets.Day()

        result = backtest(Looks(), pd.Series(np.arange(18.0), index), origins=2)
        np.testing.assert_array_equal(result.origins, [[14, 17]])
        np.testing.assert_array_equal(np.isnan(Mean.last.seen[1]), np.arange(17) >= 15)
        np.testing.assert_array_equal(result.actual[0, 0], [14, np.nan, np.nan])


class TestForecaster:
    """`rnncore.estimators.Forecaster` is one of those that can be tested."""

    @pytest.fixture
    def model(self):
        estimators = pytest.importorskip("rnncore.estimators", reason="needs scikit-learn")
        options = {"hidden_size": 4, "max_iter": 2, "random_state": 0, "window": 8}
        return estimators.Forecaster(cell="gru", horizon=3, quantiles=LEVELS, **options)

    @pytest.mark.parametrize("form", ["column", "columns", "list", "frame"])
    def test_forms(self, model, rng, form):
        values = rng.normal(size=(24, 2))
        data = {"column": values[:, 0], "columns": values, "list": [values, values[5:]]}
        if form == "frame":
            pd = pytest.importorskip("pandas", reason="pandas has the frames")
            data["frame"] = pd.DataFrame(values, pd.date_range("2024", periods=24), ["a", "b"])
        result = backtest(model, data[form], origins=2)
        points, quantiles = result.forecasts["Forecaster"]
        assert points.shape == (len(result.panel), 2, 3)
        assert quantiles.shape == (len(result.panel), 2, 3, 3)
        np.testing.assert_array_equal(quantiles[..., 1], points)
        known = (
            [part[: len(part) - 6] for part in data[form]] if form == "list" else data[form][:18]
        )
        wanted = np.moveaxis(np.asarray(model.fit(known).predict(known)), -1, 0)
        if form == "column":
            wanted = model.predict(known)[None]
        elif form == "list":
            wanted = np.moveaxis(model.predict(known), -1, 1).reshape(4, 3)
        np.testing.assert_array_equal(points[:, 0], wanted)


class Wrong(Mean):
    def predict(self, X):
        return np.full(3, np.nan)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: backtest(Naive(5), np.ones(21)),
            ValueError,
            "series 0 of data has 21 steps, but 4 origins with horizon 5 and step 5 need 22",
        ),
        (lambda: backtest(Wrong(), np.ones(30)), ValueError, "forecasts of Wrong must be finite"),
        (
            lambda: backtest(Naive(), np.ones(9), origins=0),
            ValueError,
            "origins must be at least 1",
        ),
        (lambda: backtest(Naive(), np.ones(9), step=0), ValueError, "step must be at least 1"),
        (lambda: backtest(Naive(), np.ones(9), window=0), ValueError, "window must be at least 1"),
        (lambda: backtest(Naive(), np.ones(9), season=0), ValueError, "season must be at least 1"),
        (lambda: backtest(Naive(), np.ones(9), refit=2), TypeError, "refit must be True or False"),
        (lambda: backtest(Naive(0), np.ones(9)), ValueError, "horizon must be at least 1"),
        (lambda: backtest(Mean(), np.ones((30, 2))[:, :0]), ValueError, "at least one series"),
        (lambda: backtest(Naive(), [np.nan] * 9), ValueError, "must have a value, all .* missing"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
