"""Indexes continued: pandas' own ranges are the oracle, by their names for frequencies."""

import re

import numpy as np
import pytest
from rnncore.forecasting import read_panel

pd = pytest.importorskip("pandas", reason="pandas has the indexes")

BERLIN = "Europe/Berlin"


def ahead(index, steps=5):
    """The index of a forecast behind a series with this index."""
    panel = read_panel(pd.Series(np.arange(len(index), dtype=float), index))
    return panel.forecast(np.zeros((1, steps))).index


def same(found, wanted):
    """Labels, dtype and name are the same, whatever is said of the frequency."""
    assert type(found) is type(wanted)
    assert found.dtype == wanted.dtype
    assert found.equals(wanted), (found, wanted)
    assert found.name == wanted.name


def dates(start, freq, count, **options):
    return pd.date_range(start, periods=count, freq=freq, **options)


REGULAR = {
    "month ends": ("2023-10-31", "ME"),
    "month ends over a leap day": ("2023-12-31", "ME"),
    "month starts": ("2023-10-01", "MS"),
    "month starts of 31 days each": ("2024-07-01", "MS"),
    "last business days of months": ("2023-10-31", "BME"),
    "first business days of months": ("2023-10-02", "BMS"),
    "quarters": ("2023-03-31", "QE-DEC"),
    "quarters of November": ("2023-02-28", "QE-NOV"),
    "quarter starts": ("2023-02-01", "QS-FEB"),
    "years": ("2000-12-31", "YE-DEC"),
    "years of June": ("2000-06-30", "YE-JUN"),
    "year starts": ("2000-01-01", "YS-JAN"),
    "days": ("2024-02-25", "D"),
    "days at six": ("2024-02-25 06:00", "D"),
    "days from Monday to Friday": ("2024-02-22", "B"),
    "every third day": ("2024-02-20", "3D"),
    "weeks": ("2024-02-04", "W-SUN"),
    "weeks of Wednesday": ("2024-02-07", "W-WED"),
    "four weeks": ("2024-02-04", "4W-SUN"),
    "hours": ("2024-02-28 20:00", "h"),
    "quarters of an hour": ("2024-02-28 23:00", "15min"),
    "milliseconds": ("2024-02-28 23:59:59.990", "ms"),
    "business hours": ("2024-02-27 15:00", "bh"),
}


@pytest.mark.parametrize("name", REGULAR)
@pytest.mark.parametrize("told", [True, False])
def test_regular(name, told):
    start, freq = REGULAR[name]
    if freq == "bh" and not told:
        pytest.skip("business hours have no calendar of ours: the index must say them")
    whole = dates(start, freq, 17, name="when")
    found = ahead(whole[:12] if told else pd.DatetimeIndex(whole[:12], freq=None))
    same(found, whole[12:])
    assert found.freq == whole.freq


@pytest.mark.parametrize("name", sorted(set(REGULAR) - {"business hours"}))
def test_gaps_are_missing_values(name):
    whole = dates(*REGULAR[name], 25)
    kept = np.delete(np.arange(20), [3, 4, 9, 17])
    panel = read_panel(pd.Series(kept * 1.0, whole[kept]))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(panel.values[0])), [3, 4, 9, 17])
    np.testing.assert_array_equal(panel.values[0][kept], kept)
    same(panel.forecast(np.zeros((1, 5))).index, whole[20:])
    same(panel.data().index, whole[:20])


ZONES = [None, "UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"]
FREQUENCIES = ["ME", "MS", "QE-FEB", "QS-MAR", "YE-APR", "BMS", "W-FRI", "D", "10D", "h", "15min"]


@pytest.mark.parametrize("freq", [*FREQUENCIES, "B", "2ME", "2MS", "6h", "s"])
def test_any_start_zone_and_gaps(freq, rng):
    """As pandas' `date_range` goes on; shorter steps than a day are those of UTC there."""
    for zone in ZONES * 3:
        start = pd.Timestamp("1990-01-01") + pd.Timedelta(hours=int(rng.integers(0, 350_000)))
        whole = dates(start, freq, 45)
        if zone is not None and freq in ("h", "15min", "6h", "s"):
            whole = whole.tz_localize("UTC").tz_convert(zone)
        elif zone is not None:
            first = np.ones(45, bool)
            whole = whole.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
        kept = np.union1d(rng.choice(40, 24, replace=False), [17, 18, 39])
        same(ahead(pd.DatetimeIndex(whole[kept], freq=None)), whole[40:])


def test_days_of_the_month():
    """The fifteenth, and the thirtieth or the last day before it."""
    middle = pd.DatetimeIndex(["2023-11-15", "2023-12-15", "2024-01-15"])
    assert list(ahead(middle, 2).strftime("%F")) == ["2024-02-15", "2024-03-15"]
    late = pd.DatetimeIndex(["2023-11-30", "2023-12-30", "2024-01-30"])
    assert list(ahead(late, 3).strftime("%F")) == ["2024-02-29", "2024-03-30", "2024-04-30"]
    ends = pd.DatetimeIndex(["2023-04-30", "2023-06-30"])  # ends, rather than the thirtieth
    assert list(ahead(ends, 2).strftime("%F")) == ["2023-08-31", "2023-10-31"]
    halves = pd.DatetimeIndex(["2023-02-28", "2023-08-31"])
    assert list(ahead(halves, 2).strftime("%F")) == ["2024-02-29", "2024-08-31"]


def test_an_offset_with_holidays():
    offset = pd.offsets.CustomBusinessDay(holidays=["2024-03-29", "2024-04-01"])
    whole = dates("2024-03-18", offset, 14)
    same(ahead(whole[:9]), whole[9:])
    assert pd.Timestamp("2024-03-29") not in whole


class TestZones:
    @pytest.mark.parametrize("day", ["2024-03-31", "2024-10-27"])
    @pytest.mark.parametrize("told", [True, False])
    @pytest.mark.parametrize("before", [8, -5])
    def test_hours_are_elapsed_time(self, day, told, before):
        """Over a change of clocks, which lies in the future or in the past."""
        start = pd.Timestamp(day, tz=BERLIN) - pd.Timedelta(hours=before)
        whole = dates(start, "h", 24)
        given = whole[:7] if told else pd.DatetimeIndex(whole[:7], freq=None)
        found = ahead(given, 17)
        same(found, whole[7:])
        assert set(np.diff(found.tz_convert("UTC"))) == {np.timedelta64(1, "h")}

    @pytest.mark.parametrize("day", ["2024-03-31", "2024-10-27"])
    @pytest.mark.parametrize("told", [True, False])
    def test_days_are_days_of_the_clock(self, day, told):
        start = pd.Timestamp(day) - pd.Timedelta(days=4)
        for shift in (0, 3, 6):
            whole = dates(start + pd.Timedelta(days=shift, hours=7), "D", 12, tz=BERLIN)
            found = ahead(whole[:6] if told else pd.DatetimeIndex(whole[:6], freq=None), 6)
            same(found, whole[6:])
            assert set(found.hour) == {7}

    @pytest.mark.parametrize("freq", ["ME", "MS", "W-SUN", "B", "QE-DEC"])
    def test_months_and_weeks(self, freq):
        whole = dates("2024-01-31", freq, 20, tz="America/New_York")
        given = pd.DatetimeIndex(whole[:15], freq=None)
        same(ahead(given), whole[15:])

    def test_half_days_are_those_of_the_clock_where_the_past_says_so(self):
        wall = pd.date_range("2024-03-29", periods=16, freq="12h")
        whole = wall.tz_localize(BERLIN)
        assert len(set(np.diff(whole.tz_convert("UTC")))) == 2
        same(ahead(whole[:10], 6), whole[10:])
        elapsed = dates("2024-03-29", "12h", 16, tz=BERLIN)
        same(ahead(elapsed[:10], 6), elapsed[10:])

    def test_a_time_that_the_clock_leaves_out_is_the_one_after(self):
        index = pd.DatetimeIndex(["2024-03-28 02:30", "2024-03-29 02:30", "2024-03-30 02:30"])
        found = ahead(index.tz_localize(BERLIN), 2)
        assert [f"{stamp}" for stamp in found] == [
            "2024-03-31 03:00:00+02:00",
            "2024-04-01 02:30:00+02:00",
        ]
        # and such a stamp in the past is one of the days
        midnight = pd.date_range("2018-11-01", periods=9).tz_localize(
            "America/Sao_Paulo", nonexistent="shift_forward"
        )
        assert midnight[3].hour == 1
        same(ahead(midnight[:6], 3), midnight[6:])

    def test_a_time_that_comes_twice_is_the_first(self):
        index = pd.DatetimeIndex(["2024-10-24 02:30", "2024-10-25 02:30", "2024-10-26 02:30"])
        found = ahead(index.tz_localize(BERLIN), 2)
        assert [stamp.utcoffset().total_seconds() for stamp in found] == [7200, 3600]
        assert set(found.strftime("%H:%M")) == {"02:30"}

    def test_wall_times_without_their_zone_come_twice(self):
        naive = dates("2024-10-27", "h", 6, tz=BERLIN).tz_localize(None)
        with pytest.raises(ValueError, match="give times a time zone where clocks were put back"):
            ahead(naive)


OTHERS = {
    "range": (pd.RangeIndex(3, 33, 3, name="k"), pd.RangeIndex(33, 48, 3, name="k")),
    "integers": (pd.Index([1990, 1991, 1993]), pd.Index([1994, 1995, 1996, 1997, 1998])),
    "small integers": (
        pd.Index([0, 5], dtype="int8"),
        pd.Index([10, 15, 20, 25, 30], dtype="int8"),
    ),
    "unsigned": (pd.Index([1, 3], dtype="uint64"), pd.Index([5, 7, 9, 11, 13], dtype="uint64")),
    "one integer": (pd.Index([7]), pd.Index([8, 9, 10, 11, 12])),
    "years as floats": (pd.Index([1700.0, 1701.0]), pd.Index(np.arange(1702.0, 1707))),
    "floats": (pd.Index([0.0, 0.1, 0.2]), pd.Index([0.3, 0.4, 0.5, 0.6, 0.7])),
    "months": (
        pd.PeriodIndex(["2023-11", "2024-01"], freq="M", name="p"),
        pd.period_range("2024-02", periods=5, freq="M", name="p"),
    ),
    "quarters": (
        pd.period_range("2023Q3", periods=2, freq="Q-NOV"),
        pd.period_range("2024Q1", periods=5, freq="Q-NOV"),
    ),
    "pairs of months": (
        pd.PeriodIndex(["2023-11", "2024-01"], freq="2M"),
        pd.PeriodIndex(["2024-03", "2024-05", "2024-07", "2024-09", "2024-11"], freq="2M"),
    ),
    "one period": (pd.period_range("2024", periods=1), pd.period_range("2024-01-02", periods=5)),
    "durations": (
        pd.to_timedelta([1, 3, 7], unit="h"),
        pd.to_timedelta([9, 11, 13, 15, 17], unit="h"),
    ),
    "one time stamp with a frequency": (
        pd.date_range("2024-01-31", periods=1, freq="ME"),
        pd.date_range("2024-02-29", periods=5, freq="ME"),
    ),
    "one duration with a frequency": (
        pd.timedelta_range("1h", periods=1, freq="2h"),
        pd.timedelta_range("3h", periods=5, freq="2h"),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_indexes(name):
    given, wanted = OTHERS[name]
    found = ahead(given)
    if name == "floats":
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    else:
        same(found, wanted)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, BERLIN])
def test_units_of_time_are_kept(unit, zone):
    whole = dates("2024-03-30", "D", 9, tz=zone).as_unit(unit)
    found = ahead(whole[:4])
    assert found.dtype == whole.dtype
    same(found, whole[4:])


REFUSED = {
    "text": (
        pd.Index(["2024-01-01", "2024-01-02"]),
        TypeError,
        "convert text by pandas.to_datetime",
    ),
    "booleans": (pd.Index([True, False]), TypeError, "must have times or numbers for an index"),
    "no time": (pd.DatetimeIndex(["2024-01-01", None]), ValueError, "row 1 has none"),
    "no period": (pd.PeriodIndex(["2024-01", "NaT"], freq="M"), ValueError, "row 1 has none"),
    "no number": (pd.Index([1.0, np.nan]), ValueError, "row 1 has none"),
    "twice": (pd.DatetimeIndex(["2024-01-01"] * 2), ValueError, "each time stamp once, 2024-01-01"),
    "twice apart": (
        pd.Index([1, 2, 1]),
        ValueError,
        "each time stamp once, 1 comes again in row 2",
    ),
    "backwards": (
        pd.DatetimeIndex(["2024-01-02", "2024-01-01"]),
        ValueError,
        "in order, 2024-01-01 00:00:00 comes after 2024-01-02 00:00:00: sort the rows",
    ),
    "periods backwards": (pd.PeriodIndex(["2024", "2023"], freq="Y"), ValueError, "in order"),
    "a range backwards": (pd.RangeIndex(5, 0, -1), ValueError, "in order, 4 comes after 5"),
    "one": (pd.DatetimeIndex(["2024-01-01"]), ValueError, "does not tell how far apart"),
    "uneven": (
        pd.DatetimeIndex(["2024-01-01", "2024-01-03", "2024-01-06"]),
        ValueError,
        "these are 2 days to 3 days apart: resample",
    ),
    "jitter": (
        pd.DatetimeIndex(["2024-01-01 00:00", "2024-01-01 01:00:01", "2024-01-01 02:00"]),
        ValueError,
        "these are 3599 seconds to 1.00028 hours apart",
    ),
    "uneven numbers": (pd.Index([0.0, 1.0, 2.5]), ValueError, "these are 1 to 1.5 apart"),
    "a gap of ages": (pd.Index([0, 1, 10**9]), ValueError, "these are 1 to 1e"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    index, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        ahead(index)
    assert re.match("X (must|has)", str(caught.value))
