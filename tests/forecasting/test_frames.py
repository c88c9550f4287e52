"""Series in every form, and forecasts given back in it."""

import numpy as np
import pytest
from rnncore.forecasting import Columns, read_panel

pd = pytest.importorskip("pandas", reason="pandas has the frames")
pl = pytest.importorskip("polars", reason="polars has the other frames")

X = np.arange(12.0)
ENDS = pd.date_range("2024-01-31", periods=4, freq="ME", name="month")
LONG = pd.DataFrame(
    {
        "id": ["x", "y", "x", "y", "y"],
        "day": pd.to_datetime(
            ["2024-01-01", "2024-01-03", "2024-01-02", "2024-01-04", "2024-01-06"]
        ),
        "sold": [1, 2, 3, 4, 5],
    }
)
STAMPS = pl.Series(LONG["day"].to_numpy().astype("M8[us]"))
DATED = pl.DataFrame({"id": list(LONG["id"]), "day": STAMPS, "sold": list(LONG["sold"])})
BERLIN = STAMPS.unique().sort().dt.replace_time_zone("Europe/Berlin")

FORMS = {
    "array": X,
    "columns": X.reshape(6, 2),
    "floats": [1.0, 2.0, 3.0],
    "integers": np.arange(3),
    "list": [X, X[:5]],
    "tuple": (X, X[:5]),
    "list of columns": [X.reshape(6, 2), X.reshape(6, 2)],
    "cube": X.reshape(2, 3, 2),
    "objects": np.array([X, X[:5]], dtype=object),
    "Series": pd.Series([1, 2, None, 3], ENDS, name="load"),
    "frame": pd.DataFrame({"a": [1, 2, 3, 4], "b": [1, 2, None, 4]}, ENDS),
    "nullable": pd.DataFrame({"a": pd.array([1, None, 3, 4], dtype="Int64")}, ENDS),
    "levels of columns": pd.DataFrame(
        X.reshape(4, 3), ENDS, pd.MultiIndex.from_product([["a"], [1, 2, 3]], names=["p", "q"])
    ),
    "list of Series": [pd.Series([1, 2, None, 3], ENDS, name="a"), pd.Series(range(5), name="b")],
    "list of frames": [pd.DataFrame({"a": X, "b": X}), pd.DataFrame({"a": X[:5]})],
    "long": LONG,
    "long, categories": LONG.astype({"id": "category"}),
    "long by index": LONG.set_index(["id", "day"]),
    "long Series": LONG.set_index(["id", "day"])["sold"],
    "long without names": LONG.set_index(["id", "day"])["sold"].rename_axis([None, None]),
    "long by Columns": Columns(
        LONG.assign(id=[1, 2, 1, 2, 2], price=3), time="day", series="id", value="sold"
    ),
    "wide by Columns": Columns(
        pd.DataFrame({"t": [1, 2, 4], "a": [1, 2, 3], "b": [1, 2, 3], "c": 0}),
        time="t",
        value=["b", "a"],
    ),
    "column of time": pd.DataFrame({"day": LONG["day"][[0, 2, 1]], "sold": [1, 2, 3]}),
    "column of periods": pd.DataFrame({"p": pd.period_range("2024", periods=3), "sold": [1, 2, 3]}),
    "polars long": DATED,
    "polars by Columns": Columns(
        DATED.with_columns(id=pl.Series([1, 2, 1, 2, 2])), time="day", series="id", value="sold"
    ),
    "polars": pl.DataFrame({"t": BERLIN, "a": X[:5], "b": 1}),
    "polars of days": pl.DataFrame({"t": BERLIN.dt.date(), "a": X[:5]}),
    "polars without time": pl.DataFrame({"a": X, "b": [None, *X[1:]]}),
    "polars series": pl.Series("load", [1, 2, None]),
}


@pytest.mark.parametrize("name", FORMS)
def test_there_and_back(name):
    """What is given back reads as what it was made of, and data read again are the same."""
    given, horizon = FORMS[name], 2
    panel = read_panel(given)
    n = len(panel)
    points = 1.0 * np.arange(n * horizon).reshape(n, horizon)
    quantiles = np.stack([points - 1, points, points + 1], axis=-1)
    told = panel.forecast(points)
    np.testing.assert_array_equal(panel.read_forecast(told, horizon), points)
    told = panel.quantiles(quantiles, [0.1, 0.5, 0.9])
    np.testing.assert_array_equal(panel.read_quantiles(told, horizon, 3), quantiles)
    again = read_panel(panel.data())
    assert again.names == panel.names
    for values, same in zip(panel.values, again.values, strict=True):
        np.testing.assert_array_equal(values, same)
    shorter = read_panel(panel.cut(panel.lengths - 1).data())
    np.testing.assert_array_equal(shorter.lengths, panel.lengths - 1)


@pytest.mark.parametrize("name", FORMS)
def test_a_forecast_stands_behind_the_series(name):
    """The series without its last step, and a forecast of that, are the series."""
    panel = read_panel(FORMS[name])
    cut = panel.cut(panel.lengths - 1)
    ahead, last = cut.labels(1), panel.last(1).labels()
    for found, wanted in zip(ahead, last, strict=True):
        assert (found is None) == (wanted is None)
        assert found is None or list(found) == list(wanted)
    np.testing.assert_array_equal(
        [v[-1] for v in panel.values], [v[0] for v in panel.last(1).values]
    )


SHAPES = {
    "array": ((2,), (2, 3), (4, 2)),
    "columns": ((2, 2), (2, 2, 3), (4, 2, 2)),
    "list": ((2, 2), (2, 2, 3), (2, 4, 2)),
    "list of columns": ((2, 2, 2), (2, 2, 2, 3), (2, 4, 2, 2)),
    "cube": ((2, 2, 2), (2, 2, 2, 3), (2, 4, 2, 2)),
    "objects": ((2, 2), (2, 2, 3), (2, 4, 2)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_arrays(name):
    panel = read_panel(FORMS[name])
    n = len(panel)
    values = 1.0 * np.arange(n * 2 * 12).reshape(n, 2, 12)
    found = panel.forecast(values[..., 0])
    assert found.shape == SHAPES[name][0]
    quantiles = panel.quantiles(values[..., :3], [0.1, 0.5, 0.9])
    assert quantiles.shape == SHAPES[name][1]
    np.testing.assert_array_equal(quantiles[..., 0], found)
    samples = panel.samples(np.moveaxis(values[..., :4], 2, 1))
    assert samples.shape == SHAPES[name][2]
    first = samples[0] if name in ("array", "columns") else samples[:, 0]
    np.testing.assert_array_equal(first, found)


class TestPandas:
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    spread = values[..., None] + [0, 10, 20]
    levels = (0.1, 0.5, 0.9)

    def test_series(self):
        panel = read_panel(FORMS["Series"])
        ends = pd.date_range("2024-05-31", periods=2, freq="ME", name="month")
        wanted = pd.Series([1.0, 2.0], ends, name="load")
        pd.testing.assert_series_equal(panel.forecast(self.values[:1]), wanted)
        wanted = pd.DataFrame({0.1: [1.0, 2], 0.5: [11.0, 12], 0.9: [21.0, 22]}, ends)
        wanted.columns.name = "quantile"
        pd.testing.assert_frame_equal(panel.quantiles(self.spread[:1], self.levels), wanted)
        wanted = pd.DataFrame({0: [1.0, 3], 1: [2.0, 4]}, ends).rename_axis("sample", axis=1)
        found = panel.samples(np.array([[[1.0, 3], [2, 4]]]))
        pd.testing.assert_frame_equal(found, wanted, check_column_type=False)

    def test_frame(self):
        panel = read_panel(FORMS["frame"])
        ends = pd.date_range("2024-05-31", periods=2, freq="ME", name="month")
        wanted = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}, ends)
        pd.testing.assert_frame_equal(panel.forecast(self.values), wanted)
        found = panel.quantiles(self.spread, self.levels)
        assert list(found.columns) == [(name, level) for name in "ab" for level in self.levels]
        assert found.columns.names == [None, "quantile"]
        np.testing.assert_array_equal(found["b"][0.5], [13, 14])
        np.testing.assert_array_equal(found.xs(0.9, axis=1, level="quantile"), wanted + 20)

    def test_levels_of_columns(self):
        panel = read_panel(FORMS["levels of columns"])
        found = panel.quantiles(np.zeros((3, 2, 1)), [0.5])
        assert found.columns.names == ["p", "q", "quantile"]
        assert list(found.columns) == [("a", 1, 0.5), ("a", 2, 0.5), ("a", 3, 0.5)]
        pd.testing.assert_index_equal(
            panel.forecast(np.zeros((3, 2))).columns, FORMS["levels of columns"].columns
        )

    @pytest.mark.parametrize("name", ["long", "long, categories", "long by index", "long Series"])
    def test_long(self, name):
        """Each series goes on from its own end; x from the third of January, y from the seventh."""
        panel = read_panel(FORMS[name])
        np.testing.assert_array_equal(panel.values[1], [2, 4, np.nan, 5])
        wanted = pd.DataFrame(
            {
                "id": ["x", "x", "y", "y"],
                "day": pd.to_datetime(["2024-01-03", "2024-01-04", "2024-01-07", "2024-01-08"]),
                "sold": [1.0, 2.0, 3.0, 4.0],
            }
        )
        found = panel.forecast(self.values)
        quantiles = panel.quantiles(self.spread, self.levels)
        if "index" in name or "Series" in name:
            assert list(quantiles.columns) == list(self.levels)
            assert isinstance(found, pd.Series) is (name == "long Series")
            quantiles, found = quantiles.reset_index(), found.reset_index()
        pd.testing.assert_frame_equal(found, wanted)
        assert list(quantiles.columns) == ["id", "day", *self.levels]
        np.testing.assert_array_equal(quantiles[0.9], [21, 22, 23, 24])

    def test_a_long_frame_may_have_series_of_one_row(self):
        frame = LONG.iloc[[0, 1, 2]]
        panel = read_panel(frame)
        np.testing.assert_array_equal(panel.lengths, [2, 1])
        days = panel.forecast(np.zeros((2, 1)))["day"]
        assert list(days.dt.day) == [3, 4]

    def test_what_is_given_is_not_changed(self):
        for name in ("Series", "frame", "long"):
            given = FORMS[name]
            before = given.copy()
            panel = read_panel(given)
            panel.values[0][:] = 7
            assert given.equals(before)


class TestPolars:
    def test_time_zones(self):
        found = read_panel(FORMS["polars"]).forecast(np.zeros((2, 3)))
        assert found.schema["t"] == pl.Datetime("us", "Europe/Berlin")
        days = ["2024-01-07", "2024-01-08", "2024-01-09"]
        assert [str(stamp) for stamp in found["t"]] == [f"{day} 00:00:00+01:00" for day in days]

    @pytest.mark.parametrize(("start", "step"), [("2024-03-29", "1D"), ("2024-03-30 07:00", "6h")])
    def test_a_change_of_clocks(self, start, step):
        """Days are those of the clock, six hours are six hours, as pandas has them."""
        index = pd.date_range(start, periods=6, freq=step, tz="Europe/Berlin")
        utc = pl.Series("t", index.tz_convert(None).to_numpy()).dt.replace_time_zone("UTC")
        stamps = utc.dt.convert_time_zone("Europe/Berlin")
        frame = pl.DataFrame({"t": stamps[:3], "a": [1.0, 2.0, 3.0]})
        found = read_panel(frame).forecast(np.zeros((1, 3)))["t"]
        assert found.equals(stamps[3:])
        assert len(set(index.hour)) == {"1D": 1, "6h": 6}[step]

    def test_a_time_that_the_clock_leaves_out(self):
        day = pl.Series(pd.date_range("2024-03-28 02:30", periods=3).to_numpy())
        frame = pl.DataFrame({"t": day.dt.replace_time_zone("Europe/Berlin"), "a": [1.0, 2.0, 3.0]})
        found = read_panel(frame).forecast(np.zeros((1, 2)))["t"]
        assert [f"{stamp}" for stamp in found][1] == "2024-04-01 02:30:00+02:00"
        assert f"{found[0]}".startswith("2024-03-31 03:")

    def test_days_and_months(self):
        found = read_panel(FORMS["polars of days"]).forecast(np.zeros((1, 1)))
        assert found.schema["t"] == pl.Date
        months = pl.date_range(pl.date(2023, 11, 1), pl.date(2024, 2, 1), "1mo", eager=True)
        ends = pl.DataFrame({"t": months.dt.month_end(), "a": X[:4]})
        found = read_panel(ends).forecast(np.zeros((1, 2)))
        assert [f"{day}" for day in found["t"]] == ["2024-03-31", "2024-04-30"]

    def test_columns_are_named_after_series_and_quantiles(self):
        panel = read_panel(FORMS["polars"])
        found = panel.quantiles(np.zeros((2, 1, 2)), [0.1, 0.9])
        assert found.columns == ["t", "a_0.1", "a_0.9", "b_0.1", "b_0.9"]
        found = read_panel(DATED).samples(np.zeros((2, 3, 1)))
        assert found.columns == ["id", "day", "0", "1", "2"]
        assert read_panel(FORMS["polars series"]).forecast(np.ones((1, 1))).name == "load"


REFUSED = {
    "infinite": (
        np.array([1.0, np.inf]),
        ValueError,
        r"series 0 of X must be finite .* inf at step 1",
    ),
    "infinite in a frame": (
        pd.DataFrame({"a": [1.0, -np.inf]}),
        ValueError,
        "series 'a' of X must be finite or NaN, .* -inf at step 1",
    ),
    "empty": (np.array([]), ValueError, "series 0 of X must have at least one value, got none"),
    "empty frame": (pd.DataFrame({"a": []}), ValueError, "series 'a' of X must have at least one"),
    "no columns": (pd.DataFrame(index=ENDS), ValueError, "must have at least one column, got none"),
    "no series": (np.zeros((3, 0)), ValueError, "must have at least one series"),
    "one empty": ([X, X[:0]], ValueError, "series 1 of X must have at least one value"),
    "nothing": ([], ValueError, "must have at least one value"),
    "a number": (
        3.0,
        ValueError,
        r"must have shape \(T,\), \(T, K\) or \(N, T, K\), got one number",
    ),
    "four axes": (np.zeros((2, 2, 2, 2)), ValueError, "must have shape"),
    "text": (["a", "b"], TypeError, "X must be|must hold numbers"),
    "a text": ("series", TypeError, "must be an array, a frame, or a list of these, got str"),
    "a dict": ({"a": X}, TypeError, "got dict"),
    "complex": (X * 1j, TypeError, "X must hold numbers, got complex128"),
    "dates": (ENDS.to_numpy(), TypeError, "X must hold numbers, got datetime64"),
    "masked": (np.ma.masked_equal(X, 3), TypeError, "must not be a masked array"),
    "text in a frame": (
        pd.DataFrame({"a": ["1", "x", "3", "4"]}, ENDS),
        TypeError,
        "column 'a' of X must hold numbers",
    ),
    "a column of text": (
        pd.DataFrame({"a": ["u", "v"], "b": [1, 2]}),
        ValueError,
        r"columns of time stamps \[\] and of text \['a'\]: choose by rnncore.forecasting.Columns",
    ),
    "two columns of time": (
        LONG.assign(other=LONG["day"]),
        ValueError,
        r"columns of time stamps \['day', 'other'\]",
    ),
    "two columns of values": (
        LONG.assign(price=1.0),
        ValueError,
        r"one column of values for its series, got time='day' and the columns \['sold', 'price'\]",
    ),
    "columns twice": (
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        ValueError,
        r"must have each column once, got \['a', 'a'\]",
    ),
    "three levels": (
        LONG.assign(k=1).set_index(["k", "id", "day"]),
        ValueError,
        "must have two levels of index, series and time, and one column of values; got 3 levels",
    ),
    "long, unsorted": (
        LONG.iloc[[2, 0, 1, 3, 4]],
        ValueError,
        "series 'x' of X must have time stamps in order, 2024-01-01 .* comes after 2024-01-02",
    ),
    "long, twice": (
        pd.concat([LONG, LONG]),
        ValueError,
        "series 'x' of X must have each time stamp once, 2024-01-01 00:00:00 comes again in row 2",
    ),
    "long, integers for names": (
        LONG.assign(id=[1, 2, 1, 2, 2]).iloc[[0, 0]],
        ValueError,
        r"name the column that tells series apart \(rnncore.forecasting.Columns\)",
    ),
    "long, no name": (
        LONG.assign(id=["x", None, "x", "y", "y"]),
        ValueError,
        "must name the series of each row, row 1 has no name",
    ),
    "long, no rows": (LONG[:0], ValueError, "must have at least one row"),
    "missing column": (
        Columns(LONG, time="date"),
        ValueError,
        r"must have the columns \['date'\], it has \['id', 'day', 'sold'\]",
    ),
    "Columns of an array": (Columns(X), TypeError, "must have a frame of pandas or polars"),
    "list of Columns": ([Columns(LONG)], TypeError, "give one long frame"),
    "polars text": (
        pl.DataFrame({"t": STAMPS, "a": list("uvwxy")})[:0],
        ValueError,
        "must have a column of times and one column of values|at least one row",
    ),
    "polars twice": (pl.DataFrame({"t": STAMPS[[0, 0]], "a": [1, 2]}), ValueError, "comes again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    given, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        read_panel(given)


@pytest.mark.parametrize("name", ["array", "columns", "list", "frame", "long", "polars"])
def test_forecasts_of_another_shape_are_refused(name):
    panel = read_panel(FORMS[name])
    with pytest.raises(ValueError, match="forecast must have"):
        panel.read_forecast(np.zeros((3, 7)), 2)
    with pytest.raises(ValueError, match="values must have"):
        panel.forecast(np.zeros((9, 2)))


def test_nothing_is_imported_for_arrays():
    """Pandas and polars are used where they were handed over, and asked for nowhere."""
    import subprocess
    import sys

    code = (
        "import sys, rnncore.forecasting as f; f.read_panel([1.0, 2.0]);"
        "sys.exit(bool({'pandas', 'polars', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
