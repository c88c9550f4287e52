"""The index of a frame, read off and continued: in pandas an index, in polars a column.

Neither package is imported: who has frames of one has imported it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..arrays import Array, short
from .calendars import BusinessDays, Calendar, Even, Months, find

_DAY = np.timedelta64(1, "D")
_HOUR = np.timedelta64(1, "h")


class Axis(Protocol):
    """The labels of the steps of a series, by position; the first one read has position 0."""

    def labels(self, positions: Array) -> Any:
        """Return the labels at positions (T,), which lie one after the other."""
        ...

    def clock(self, positions: Array) -> Array:
        """Return what a clock on the wall shows, `datetime64` (T,), or numbers for a number."""
        ...


class Located(NamedTuple):
    """An axis, and the positions (T,) on it that labels have."""

    axis: Axis
    positions: Array


def package_of(value: Any) -> str:
    """Return "pandas" or "polars" for what is theirs, "" for all else."""
    modules = {cls.__module__.partition(".")[0] for cls in type(value).__mro__}
    return next((name for name in ("pandas", "polars") if name in modules), "")


def host(value: Any) -> Any:
    """Return the module that a frame or a series comes from."""
    return sys.modules[package_of(value)]


def zone_of(labels: Any) -> Any:
    """Return the time zone of labels, or None."""
    pandas = getattr(labels, "tz", None)
    return pandas if pandas is not None else getattr(labels.dtype, "time_zone", None)


def stamps_of(labels: Any, name: str) -> Array:
    """Return labels as numbers or `datetime64` that rise with time, (T,); of zones, UTC.

    Raises `TypeError` for text and other labels that have no distance, and `ValueError` for
    missing ones.
    """
    if package_of(labels) == "polars":
        kind = str(labels.dtype)
        known = kind.startswith(("Datetime", "Date", "Duration", "Int", "UInt", "Float"))
        stamps = _Polars(labels).elapsed() if known else np.array(())
    else:
        known = getattr(labels, "dtype", None) is not None and _known_to_pandas(labels)
        stamps = _Pandas(labels).elapsed() if known else np.array(())
    if not known:
        first = short(labels[0]) if len(labels) else labels.dtype
        raise TypeError(
            f"{name} must have times or numbers for an index, got {labels.dtype} ({first}): "
            "convert text by pandas.to_datetime or polars' str.to_datetime"
        )
    missing = np.isnat(stamps) if stamps.dtype.kind in "mM" else np.isnan(stamps)
    if missing.any():
        raise ValueError(
            f"{name} must have a time stamp in each row, row {missing.argmax()} has none"
        )
    if stamps.dtype.kind == "M":
        return stamps
    return stamps.astype(np.float64 if stamps.dtype.kind == "f" else np.int64)


def check_rising(stamps: Array, labels: Any, name: str) -> None:
    """Raise `ValueError` where stamps come twice or not in order."""
    wrong = ~(stamps[1:] > stamps[:-1])
    if not wrong.any():
        return
    unique, counts = np.unique(stamps, return_counts=True)
    if len(unique) < len(stamps):
        at = int(np.flatnonzero(stamps == unique[counts > 1][0])[1])
        raise ValueError(
            f"{name} must have each time stamp once, {labels[at]} comes again in row {at}: drop "
            "or merge the rows, give times a time zone where clocks were put back, or name the "
            "column that tells series apart (rnncore.forecasting.Columns)"
        )
    at = int(wrong.argmax())
    raise ValueError(
        f"{name} must have time stamps in order, {labels[at + 1]} comes after {labels[at]}: sort "
        "the rows by time"
    )


def check_times(data: Any, name: str) -> None:
    """Raise `ValueError` where frames of pandas have time stamps twice or not in order.

    data: anything, or a list of these. Other indexes than those of times are not looked at.
    """
    for part in data if isinstance(data, (list, tuple)) else [data]:
        if package_of(part) == "pandas" and hasattr(part, "index"):
            index, pd = part.index, host(part)
            if isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)):
                check_rising(stamps_of(index, name), index, name)


def locate(labels: Any, name: str) -> Located:
    """Return the axis that labels (T,) lie on, T at least 1, and their positions.

    Raises `ValueError` where labels come twice or not in order, or lie on no grid, and what
    `stamps_of` raises.
    """
    stamps = stamps_of(labels, name)
    check_rising(stamps, labels, name)
    times: _Times = _Polars(labels) if package_of(labels) == "polars" else _Pandas(labels)
    known = times.known()
    if known is not None:
        return known
    if len(stamps) < 2:
        if stamps.dtype.kind == "M":
            raise ValueError(
                f"{name} has one time stamp, {labels[0]}, which does not tell how far apart they "
                "are: give the index a frequency (frame.asfreq('D'))"
            )
        return Located(_Grid(times, Even(stamps[0], stamps.dtype.type(1)), False), np.zeros(1, int))
    found = find(stamps, times.wall() if stamps.dtype.kind == "M" else None)
    if found is None:
        least, most = (_distance(step) for step in np.sort(np.diff(stamps))[[0, -1]])
        raise ValueError(
            f"{name} must have time stamps a whole number of steps apart, the least distance being "
            f"one step; these are {least} to {most} apart: resample (frame.resample('D').mean()), "
            "or say which step it is (frame.asfreq('D'))"
        )
    return Located(_Grid(times, found.calendar, found.wall), found.positions)


def _distance(step: Any) -> str:
    if step.dtype.kind != "m":
        return f"{step:g}"
    units = {"day": _DAY, "hour": _HOUR, "second": np.timedelta64(1, "s")}
    unit = next((unit for unit, size in units.items() if step >= size), "second")
    count = float(step / units[unit])
    return f"{count:g} {unit}{'s' * (count != 1)}"


class _Times(Protocol):
    """Labels of one package as stamps of NumPy, and back."""

    def __init__(self, labels: Any) -> None: ...

    def elapsed(self) -> Array: ...

    def wall(self) -> Array: ...

    def known(self) -> Located | None: ...

    def build(self, stamps: Array, wall: bool, calendar: Calendar) -> Any: ...


@dataclass(frozen=True)
class _Grid:
    """Labels of a calendar."""

    times: _Times
    calendar: Calendar
    wall: bool

    def labels(self, positions: Array) -> Any:
        return self.times.build(self.calendar.at(positions), self.wall, self.calendar)

    def clock(self, positions: Array) -> Array:
        stamps = self.calendar.at(positions)
        if self.wall or stamps.dtype.kind != "M":
            return stamps
        return type(self.times)(self.labels(positions)).wall()


def _common_time(wall: Array, same: Any) -> Array:
    """Return wall times with one time of day, if that is the one that all were meant to have.

    Where clocks are put forward over it, a day has a later one.
    """
    days = wall.astype("M8[D]")
    times, counts = np.unique(wall - days, return_counts=True)
    meant = days.astype(wall.dtype) + times[counts.argmax()]
    return meant if len(times) > 1 and same(meant) else wall


class _Polars:
    def __init__(self, labels: Any) -> None:
        self.given = labels
        self.zone = getattr(labels.dtype, "time_zone", None)

    def elapsed(self) -> Array:
        labels = self.given
        if self.zone is not None:
            labels = labels.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return np.asarray(labels.to_numpy())

    def wall(self) -> Array:
        if self.zone is None:
            return self.elapsed()
        wall = np.asarray(self.given.dt.replace_time_zone(None).to_numpy())
        return _common_time(wall, lambda meant: self._localised(meant).equals(self.given))

    def known(self) -> Located | None:
        return None

    def build(self, stamps: Array, wall: bool, calendar: Calendar) -> Any:
        if self.zone is not None and wall:
            return self._localised(stamps)
        kind = self.given.dtype
        if self.zone is not None:
            labels = self._naive(stamps).dt.replace_time_zone("UTC")
            return labels.dt.convert_time_zone(self.zone)
        if str(kind).startswith("Duration"):
            stamps = stamps.astype(f"m8[{kind.time_unit}]")
        return host(self.given).Series(self.given.name, stamps).cast(kind)

    def _naive(self, stamps: Array) -> Any:
        unit = self.given.dtype.time_unit
        return host(self.given).Series(self.given.name, stamps.astype(f"M8[{unit}]"))

    def _localised(self, wall: Array) -> Any:
        """Return wall times in the zone; those that the clock jumps over an hour later."""
        options = {"ambiguous": "earliest", "non_existent": "null"}
        first, later = (
            self._naive(stamps).dt.replace_time_zone(self.zone, **options)
            for stamps in (wall, wall + _HOUR)
        )
        return first.fill_null(later)


def _known_to_pandas(labels: Any) -> bool:
    pd = host(labels)
    times = (pd.DatetimeIndex, pd.PeriodIndex, pd.TimedeltaIndex)
    return isinstance(labels, times) or getattr(labels.dtype, "kind", "") in "iuf"


class _Pandas:
    def __init__(self, labels: Any) -> None:
        self.given, self.pd = labels, host(labels)

    def elapsed(self) -> Array:
        labels = self.given
        if isinstance(labels, self.pd.PeriodIndex):
            if labels.hasnans:
                return np.asarray(labels.to_timestamp().to_numpy())
            return np.asarray(labels.asi8)
        if getattr(labels, "tz", None) is not None:
            labels = labels.tz_convert(None)
        return np.asarray(labels.to_numpy())

    def wall(self) -> Array:
        if self.given.tz is None:
            return self.elapsed()
        wall = np.asarray(self.given.tz_localize(None).to_numpy())
        return _common_time(wall, lambda meant: self._localised(meant).equals(self.given))

    def known(self) -> Located | None:
        """Return what an index that knows its own step says."""
        labels, pd = self.given, self.pd
        if isinstance(labels, pd.RangeIndex):
            if labels.step < 1:
                return None
            even = Even(np.int64(labels.start), np.int64(labels.step))
            return Located(_Grid(self, even, False), np.arange(len(labels)))
        if isinstance(labels, pd.PeriodIndex):
            positions = labels.asi8 - labels.asi8[0]
            count = labels.freq.n
            if (positions % count).any():
                raise ValueError(
                    f"periods of {labels.freqstr} must be whole periods apart, got {labels}"
                )
            return Located(_Periods(labels[:1]), positions // count)
        freq = getattr(labels, "freq", None)
        if freq is None:
            return None
        if isinstance(labels, pd.TimedeltaIndex):
            step = pd.Timedelta(freq).to_timedelta64().astype(f"m8[{labels.unit}]")
            even = Even(self.elapsed()[0].astype(np.int64), step.astype(np.int64))
            return Located(_Grid(self, even, False), np.arange(len(labels)))
        return self._by_offset(freq)

    def _by_offset(self, freq: Any) -> Located | None:
        """Return the axis of an offset such as pandas' `BMonthEnd`, if it makes these labels."""
        ticks = self.pd.offsets.Tick, self.pd.offsets.Day
        wall = isinstance(freq, ticks[1]) or not isinstance(freq, ticks[0])
        calendar = _Offset(self.pd, (self.wall() if wall else self.elapsed())[0], freq)
        axis, positions = _Grid(self, calendar, wall), np.arange(len(self.given))
        return Located(axis, positions) if axis.labels(positions).equals(self.given) else None

    def build(self, stamps: Array, wall: bool, calendar: Calendar) -> Any:
        given, pd = self.given, self.pd
        if isinstance(given, pd.RangeIndex):
            step = given.step
            return pd.RangeIndex(
                int(stamps[0]) if len(stamps) else 0,
                int(stamps[-1]) + step if len(stamps) else 0,
                step,
                name=given.name,
            )
        if isinstance(given, pd.TimedeltaIndex):
            stamps = stamps.astype(f"m8[{given.unit}]")
        if not isinstance(given, pd.DatetimeIndex):
            return pd.Index(stamps, dtype=given.dtype, name=given.name)
        labels = self._localised(stamps) if wall else self._of_elapsed(stamps)
        labels = labels.as_unit(given.unit).rename(given.name)
        freq = self._offset_of(calendar, wall)
        if freq is not None and len(labels):
            with suppress(Exception):  # of the zone's package, where the clock jumps over a label
                labels.freq = freq
        return labels

    def _localised(self, wall: Array) -> Any:
        """Return wall times in the zone; those that the clock jumps over just after."""
        labels = self.pd.DatetimeIndex(wall)
        if self.given.tz is None:
            return labels
        first = np.ones(len(labels), bool)  # of two times that the clock shows twice
        return labels.tz_localize(self.given.tz, ambiguous=first, nonexistent="shift_forward")

    def _of_elapsed(self, stamps: Array) -> Any:
        labels = self.pd.DatetimeIndex(stamps)
        return (
            labels if self.given.tz is None else labels.tz_localize("UTC").tz_convert(self.given.tz)
        )

    def _offset_of(self, calendar: Calendar, wall: bool) -> Any:
        """Return pandas' offset of a calendar, None where it has none."""
        if isinstance(calendar, _Offset):
            return calendar.freq
        if isinstance(calendar, BusinessDays):
            return self.pd.offsets.BusinessDay()
        if isinstance(calendar, Months):
            return self._months_of(calendar)
        assert isinstance(calendar, Even)
        step: Any = calendar.step
        if wall and step % _DAY == np.timedelta64(0):
            days = int(step // _DAY)
            weekday = int((calendar.start.astype("M8[D]").astype(np.int64) + 3) % 7)
            weeks = self.pd.offsets.Week(days // 7, weekday=weekday)
            return self.pd.offsets.Day(days) if days % 7 else weeks
        if wall and self.given.tz is not None:
            return None
        return self.pd.tseries.frequencies.to_offset(self.pd.Timedelta(step))

    def _months_of(self, calendar: Months) -> Any:
        """Return pandas' offset of months, quarters or years, None where it has none."""
        edges = {"end": "End", "business start": "Begin", "business end": "End"}
        edges |= {"day": "Begin"} if calendar.day == 1 else {}
        if calendar.rule not in edges:
            return None
        edge, count, offsets = edges[calendar.rule], calendar.count, self.pd.offsets
        prefix = "B" if calendar.rule.startswith("business") else ""
        month = int(calendar.start.astype("M8[M]").astype(np.int64) % 12) + 1
        if count % 12 == 0:
            return getattr(offsets, f"{prefix}Year{edge}")(count // 12, month=month)
        if count % 3 == 0:
            quarter = (month - 1) % 3 + (10 if edge == "End" else 1)
            return getattr(offsets, f"{prefix}Quarter{edge}")(count // 3, startingMonth=quarter)
        return getattr(offsets, f"{prefix}Month{edge}")(count)


@dataclass(frozen=True)
class _Offset:
    """The stamps of one of pandas' offsets."""

    pd: Any
    start: Any
    freq: Any

    def at(self, positions: Array) -> Array:
        count = int(np.max(positions, initial=-1)) + 1
        stamps = self.pd.date_range(self.start, periods=count, freq=self.freq)
        return np.asarray(stamps.to_numpy())[positions]


@dataclass(frozen=True)
class _Periods:
    """Consecutive periods of pandas."""

    first: Any

    def labels(self, positions: Array) -> Any:
        return (self.first.repeat(len(positions)) + positions).rename(self.first.name)

    def clock(self, positions: Array) -> Array:
        return np.asarray(self.labels(positions).to_timestamp().to_numpy())
