"""Covariates in frames: rows go where their times and the names of their series say."""

import numpy as np
import pytest
from rnncore.forecasting import Columns, GlobalForecaster, backtest, read_panel
from rnncore.forecasting.aligned import align, align_static

pd = pytest.importorskip("pandas", reason="pandas has the frames")
pl = pytest.importorskip("polars", reason="polars has the other frames")

DAYS = pd.date_range("2024-03-25", periods=12, freq="D", name="day")
WIDE = pd.DataFrame({"a": np.arange(8.0), "b": np.arange(8.0)}, DAYS[2:10])
BESIDE = pd.DataFrame({"price": np.arange(12.0), "promo": np.arange(12.0) ** 2}, DAYS)
LONG = pd.DataFrame(
    {
        "id": ["x"] * 5 + ["y"] * 3,
        "day": [*DAYS[:5], *DAYS[4:7]],
        "sold": np.arange(8.0),
    }
)


def polars(frame):
    return pl.DataFrame({"day": frame.index.to_numpy(), **{c: frame[c].to_numpy() for c in frame}})


FRAMES = {
    "by index": (WIDE, BESIDE),
    "in any order": (WIDE, BESIDE.iloc[::-1]),
    "by a column": (WIDE, BESIDE.reset_index()),
    "with a zone": (WIDE.tz_localize("Europe/Berlin"), BESIDE.tz_localize("Europe/Berlin")),
    "with another zone": (
        WIDE.tz_localize("Europe/Berlin"),
        BESIDE.tz_localize("Europe/Berlin").tz_convert("UTC"),
    ),
    "periods": (WIDE.to_period("D"), BESIDE.to_period("D")),
    "polars": (polars(WIDE), polars(BESIDE)),
    "polars for pandas": (WIDE, polars(BESIDE)),
    "numbers": (
        Columns(WIDE.assign(t=np.arange(2, 10)), time="t", value=["a", "b"]),
        Columns(BESIDE.assign(t=np.arange(12)), time="t", value=["price", "promo"]),
    ),
    "one for each": (WIDE, [BESIDE, BESIDE]),
}


@pytest.mark.parametrize("name", FRAMES)
def test_rows_are_found_by_their_times(name):
    data, beside = FRAMES[name]
    found = align(beside, "ahead", read_panel(data), 2)
    assert len(found) == 2
    for part in found:
        np.testing.assert_array_equal(part, BESIDE.to_numpy()[2:12])


def test_rows_that_are_not_there_are_missing():
    some = BESIDE.iloc[[4, 5, 11]]  # no grid is asked for
    found = align(some, "ahead", read_panel(WIDE), 2)[0]
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(found[:, 0])), [2, 3, 9])
    np.testing.assert_array_equal(found[[2, 3, 9], 0], [4, 5, 11])


def test_a_gap_in_the_series_has_its_covariates():
    panel = read_panel(WIDE.drop(DAYS[5]))
    np.testing.assert_array_equal(
        align(BESIDE["price"], "past", panel, 0)[0][:, 0], np.arange(2, 10)
    )


@pytest.mark.parametrize("package", ["pandas", "levels", "polars"])
def test_long_frames_have_rows_for_each_series(package):
    rows = [(key, day, at + 100 * (key == "y")) for key in "yx" for at, day in enumerate(DAYS)]
    beside = pd.DataFrame(rows, columns=["id", "day", "price"])
    if package == "levels":
        beside = beside.set_index(["id", "day"])
    elif package == "polars":
        beside = pl.DataFrame({c: beside[c].to_numpy() for c in beside})
    x, y = align(beside, "ahead", read_panel(LONG), 3)
    np.testing.assert_array_equal(x[:, 0], np.arange(8))
    np.testing.assert_array_equal(y[:, 0], 100 + np.arange(4, 10))


def test_what_has_no_times_is_given_back():
    panel, array = read_panel([[1.0, 2.0], [3.0]]), [np.ones(3), np.ones(2)]
    assert align(array, "past", panel, 0) is array
    assert align(BESIDE, "past", panel, 0) is BESIDE
    assert align(array, "past", read_panel(WIDE), 0) is array


def test_static_by_the_names_of_series():
    panel = read_panel(LONG)
    frame = pd.DataFrame({"kind": ["u", "v", "w"], "size": [3, 1, 2]}, ["y", "z", "x"])
    assert align_static(frame, panel).tolist() == [["w", 2], ["u", 3]]
    assert align_static(frame["kind"], panel).tolist() == ["w", "u"]
    rows = pd.Series(["u", "v"])
    assert align_static(rows, panel) is rows
    for bad in (frame.drop("x"), pd.concat([frame, frame])):
        with pytest.raises(ValueError, match="static must have one row for each series, got"):
            align_static(bad, panel)


REFUSED = {
    "too short": (BESIDE.iloc[:11], "ahead must go on to 2024-04-05 .* for series 'a'"),
    "twice": (
        BESIDE.iloc[[*range(12), 3]],
        "ahead must have each time once for series 'a', 2024-0",
    ),
    "another zone": (BESIDE.tz_localize("UTC"), "ahead must have times like those of X"),
    "other times": (BESIDE.to_period("D"), "ahead must have times like those of X"),
    "numbers": (BESIDE.reset_index(drop=True), "ahead must have times like those of X"),
    "text": (BESIDE.assign(price="much"), "column 'price' of ahead must hold numbers"),
    "unknown series": (
        LONG.assign(id="other"),
        "ahead must go on to 2024-04-05 .* for series 'a', to where it is needed",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    beside, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        align(beside, "ahead", read_panel(WIDE), 2)


class TestModels:
    """Frames all the way: forecasts have the index continued, and the numbers of arrays."""

    @pytest.fixture
    def model(self):
        sizes = {"hidden_size": 4, "updates": 5, "batch_size": 4, "lags": 4, "window": 2, "seed": 0}
        return GlobalForecaster(horizon=2, quantiles=(0.1, 0.5, 0.9), **sizes)

    def test_frames_and_arrays_say_the_same(self, model):
        beside = BESIDE.to_numpy()[2:]
        kinds = pd.Series({"b": "v", "a": "u"})
        model.calendar = False  # which arrays do not have
        model.fit(WIDE, ahead=BESIDE, past=BESIDE[["price"]], static=kinds)
        forecast, bands, paths = model.predict(), model.predict_quantiles(), model.sample(paths=3)
        days = pd.DatetimeIndex(DAYS[10:], freq="D")
        pd.testing.assert_index_equal(forecast.index, days)
        pd.testing.assert_index_equal(bands.index, days)
        pd.testing.assert_index_equal(paths.index, days)
        assert list(forecast.columns) == ["a", "b"]
        assert list(bands.columns) == [(name, q) for name in "ab" for q in (0.1, 0.5, 0.9)]
        assert list(paths.columns) == [(name, s) for name in "ab" for s in range(3)]
        known = {"past": [beside[:8, :1]] * 2, "static": ["u", "v"]}
        values = WIDE.to_numpy()
        model.fit(values, ahead=[beside[:8]] * 2, **known)
        known["ahead"] = [beside] * 2
        np.testing.assert_array_equal(model.predict(values, **known), forecast)
        found = model.predict_quantiles(values, **known)
        np.testing.assert_array_equal(found.reshape(2, 6), bands)

    def test_the_future_of_other_series(self, model):
        model.fit(WIDE, ahead=BESIDE)
        later = pd.DataFrame({"c": np.arange(5.0)}, pd.date_range("2024-03-25", periods=5))
        assert list(model.predict(later, ahead=BESIDE).index) == list(DAYS[5:7])
        with pytest.raises(ValueError, match="ahead must go on to 2024-03-31"):
            model.predict(later, ahead=BESIDE.iloc[:6])

    @pytest.mark.parametrize("form", ["wide", "long", "polars"])
    def test_every_form(self, model, form):
        data = {"wide": WIDE, "long": LONG, "polars": polars(WIDE)}[form]
        model.fit(data)
        told, panel = model.predict(), read_panel(data)
        assert type(told) is type(data)
        wanted = panel.forecast(panel.read_forecast(told, 2))
        assert told.equals(wanted)

    @pytest.mark.parametrize("window", [None, 4])
    def test_backtests_know_what_was_known(self, window):
        data = WIDE.iloc[:, :1]

        class Looks:
            horizon = 2
            seen: tuple = ()

            def fit(self, X, *, past, ahead, static):
                Looks.seen += ((len(X), past, ahead, static),)

            def predict(self, X, **beside):
                return np.zeros((2, 1))

        Looks.seen = ()
        beside = {"past": BESIDE["price"], "ahead": BESIDE["price"], "static": ["u"]}
        backtest(Looks(), data, origins=2, window=window, **beside)
        for (length, past, ahead, static), end in zip(Looks.seen, (4, 6), strict=True):
            first = 0 if window is None else end - window
            assert length == end - first
            np.testing.assert_array_equal(past[0][:, 0], 2 + np.arange(first, end))
            np.testing.assert_array_equal(ahead[0][:, 0], 2 + np.arange(first, end + 2))
            assert static == ["u"]

    def test_backtests_of_networks_with_covariates(self, model):
        beside = {"past": BESIDE, "ahead": BESIDE, "static": pd.Series({"a": 1, "b": 2})}
        result = backtest(model, WIDE, origins=2, **beside)
        values = BESIDE.to_numpy()[2:]
        known = {"past": [values[:6]] * 2, "ahead": [values[:8]] * 2, "static": [1, 2]}
        wanted = model.fit(WIDE.iloc[:6], **known).predict(WIDE.iloc[:6], **known)
        np.testing.assert_array_equal(result.forecasts["GlobalForecaster"].points[:, 1].T, wanted)
