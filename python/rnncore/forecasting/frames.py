"""Series in the forms that users have them in, and forecasts in the same form.

    panel = read_panel(frame)                    # names, values with NaN for missing, index
    panel.forecast(np.zeros((len(panel), 24)))   # a frame again, its index continued

What is given, its series, and what comes back for H steps, Q quantiles, S sample paths:

- An array (T,): one series; (H,), (H, Q), (S, H).
- An array (T, K): a series in each column; (H, K), (H, K, Q), (S, H, K).
- A list of N arrays (T_n,): N series; (N, H), (N, H, Q), (N, S, H).
- A list of N arrays (T_n, K): N K series; (N, H, K), (N, H, K, Q), (N, S, H, K).
- A Series of pandas: one series; a Series, frames.
- A frame, wide: a series in each column; a frame.
- A frame, long, with columns for series, time and value: a long frame.

An array (N, T, K) is a list of N arrays. A list of series and frames gives a list. Quantiles and
sample paths stand in a column each: of each series in a wide frame, for all in a long one.

The index of pandas is continued: time stamps with their time zone, periods, numbers. In a frame of
polars, or of pandas with plain numbers as index, the one column of time stamps is the time. A frame
is long if a column of text or categories names its series, or if its index has two levels, series
and time; series then begin and end where they do, and share one step. `Columns` says which columns
are what where that is not enough.

What has an index must have each time stamp once, in order, a whole number of steps apart. Stamps
that are left out, and NaN, None, NA, are missing values. Infinite values are refused. An index
without a frequency gets that of the calendar with the fewest gaps on which all stamps lie: months,
days and longer steps by the clock on the wall, shorter ones by elapsed time, days from Monday to
Friday. A time that a change of clocks leaves out is the one just after, one that comes twice the
first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from ..arrays import Array, read, short
from .forms import Arrays, Extra, Form, Indexed, Several, Tables
from .indexes import Axis, check_rising, host, locate, package_of, stamps_of


@dataclass(frozen=True)
class Columns:
    """A frame of pandas or polars, and which of its columns are what.

    time: the column of time stamps, or of numbers that stand for them; None: there is none.
    series: the column that names the series of a long frame; None: the frame is wide. value: the
    column of values, or a list of columns of a wide frame; None: all others. Columns that are not
    named are left out of forecasts.
    """

    frame: Any
    time: Any = None
    series: Any = None
    value: Any = None


@dataclass(frozen=True)
class Panel:
    """Series as arrays, with what it takes to give forecasts back in the form they came in.

    names: one for each of N series. values: N arrays (T_n,) of float64, NaN where a value is
    missing, one for each step from the first to the last. axes, starts: where each series lies in
    time, None and 0 for plain arrays. form: the form that the series came in.
    """

    names: tuple[Any, ...]
    values: tuple[Array, ...]
    axes: tuple[Axis | None, ...]
    starts: tuple[int, ...]
    form: Form

    def __len__(self) -> int:
        return len(self.values)

    @property
    def lengths(self) -> Array:
        """The number of steps of each series, (N,)."""
        return np.array([len(values) for values in self.values], np.int64)

    def labels(self, ahead: int = 0) -> list[Any]:
        """Return the time of each step of each series, or of the `ahead` steps behind the last.

        Indexes of pandas, columns of polars, None for plain arrays.
        """
        return self._at(ahead, lambda axis, steps: None if axis is None else axis.labels(steps))

    def clock(self, ahead: int = 0) -> list[Array]:
        """Return what a clock on the wall shows at the steps that `labels` has, of each series.

        `datetime64` (T_n,), of periods where they begin; numbers where there are no times: those of
        the index, or positions from 0.
        """
        return self._at(ahead, lambda axis, steps: steps if axis is None else axis.clock(steps))

    def cut(self, lengths: Sequence[int] | Array) -> Panel:
        """Return the series up to a number of steps each, (N,)."""
        values = tuple(v[:n] for v, n in zip(self.values, lengths, strict=True))
        return replace(self, values=values)

    def last(self, steps: int) -> Panel:
        """Return the last steps of each series, all of those that have no more."""
        values = tuple(v[-steps:] for v in self.values)
        skipped = self.lengths - [len(v) for v in values]
        starts = tuple(int(at) for at in np.add(self.starts, skipped))
        return replace(self, values=values, starts=starts)

    def plain(self) -> Panel:
        """Return the same series as if they had come as a list of arrays, with their times."""
        form = Several(tuple((Arrays(), (name,)) for name in self.names))
        return replace(self, form=form)

    def data(self) -> Any:
        """Return the series in the form that they came in, with a row for each step."""
        labels = self.labels() if self.form.timed else [None] * len(self)
        out = self.form.build(self.values, self.names, labels, None)
        if isinstance(self.form, Tables) and self.form.told:
            return Columns(out, self.form.time, self.form.series, list(self.form.values))
        return out

    def forecast(self, values: Array) -> Any:
        """Return the steps behind each series, (N, H), in the form that the series came in."""
        return self._give(values, None)

    def quantiles(self, values: Array, levels: Sequence[float] | Array) -> Any:
        """Return quantiles (N, H, Q) of these levels, (Q,), in the form of the series."""
        return self._give(values, Extra("quantile", [float(level) for level in levels]))

    def samples(self, values: Array) -> Any:
        """Return sample paths (N, S, H) in the form of the series."""
        paths = np.moveaxis(values, 1, 2)
        return self._give(paths, Extra("sample", list(range(paths.shape[2])), leading=True))

    def read_forecast(self, given: Any, horizon: int) -> Array:
        """Return a forecast in the form of the series as an array (N, H); what `forecast` gave."""
        return self.form.take(given, len(self), horizon, None)

    def read_quantiles(self, given: Any, horizon: int, count: int) -> Array:
        """Return quantiles in the form of the series as an array (N, H, Q)."""
        return self.form.take(given, len(self), horizon, count)

    def _give(self, values: Array, extra: Extra | None) -> Any:
        values = np.asarray(values)
        if len(values) != len(self):
            raise ValueError(f"values must have {len(self)} series, got shape {values.shape}")
        out = self.form.build(tuple(values), self.names, self._told(values.shape[1]), extra)
        return self.form.stack(out) if isinstance(self.form, Several) else out

    def _told(self, ahead: int) -> list[Any]:
        """Return `labels(ahead)`, also of no steps, or nothing for a form that shows no times."""
        if not self.form.timed:
            return [None] * len(self)
        if ahead:
            return self.labels(ahead)
        return [None if labels is None else labels[:0] for labels in self.labels()]

    def _at(self, ahead: int, what: Callable[[Axis | None, Array], Any]) -> list[Any]:
        """Return what there is at the steps of each series: once for those with the same steps."""
        known: dict[tuple[int, tuple[int, int]], Any] = {}
        found = []
        for axis, span in zip(self.axes, self._spans(ahead), strict=True):
            key = id(axis), span
            if key not in known:
                known[key] = what(axis, np.arange(*span))
            found.append(known[key])
        return found

    def _spans(self, ahead: int) -> Iterator[tuple[int, int]]:
        for start, values in zip(self.starts, self.values, strict=True):
            end = start + len(values)
            yield (end, end + ahead) if ahead else (start, end)


def read_panel(data: Any, name: str = "X") -> Panel:
    """Return the series of arrays, frames, lists of these, or `Columns`.

    Raises `TypeError` for what holds no numbers, and `ValueError`, naming series and place, for
    infinite values, for series of no values, and for an index that has stamps twice, not in order,
    or off any grid.
    """
    if isinstance(data, Panel):
        return data
    panel = _read(data, name)
    for series, values in zip(panel.names, panel.values, strict=True):
        if not len(values):
            raise ValueError(f"series {series!r} of {name} must have at least one value, got none")
        infinite = np.isinf(values)
        if infinite.any():
            at = int(infinite.argmax())
            raise ValueError(
                f"series {series!r} of {name} must be finite or NaN, which says that a value is "
                f"missing; got {values[at]} at step {at}"
            )
    return panel


def _read(data: Any, name: str) -> Panel:
    if isinstance(data, Columns):
        if not hasattr(data.frame, "columns") or not package_of(data.frame):
            kind = type(data.frame).__name__
            raise TypeError(f"Columns must have a frame of pandas or polars, got {kind}")
        return _read_columns(data, name, told=True)
    package = package_of(data)
    if package and hasattr(data, "columns"):
        return _read_frame(data, name)
    if package == "pandas" and hasattr(data, "index"):
        return _read_series(data, name)
    if package == "polars" and hasattr(data, "dtype"):
        values = (floats(data, name),)
        return Panel((data.name,), values, (None,), (0,), Arrays(host(data), data.name))
    if isinstance(data, (list, tuple)) and len(data) and not isinstance(data[0], (int, float)):
        return _read_list(data, name)
    return _read_array(data, name)


def _read_array(data: Any, name: str) -> Panel:
    if isinstance(data, (str, bytes, dict, set)) or hasattr(data, "__next__"):
        raise TypeError(
            f"{name} must be an array, a frame, or a list of these, got {type(data).__name__}"
        )
    array, _ = read(name, data)
    if array.dtype == object and array.ndim == 1 and any(map(np.ndim, array)):
        return _read_list(list(array), name)
    if array.ndim == 3:
        return _read_list(list(array), name)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} must have shape (T,), (T, K) or (N, T, K), got {array.shape or 'one number'}"
        )
    columns = np.atleast_2d(floats(array, name).T)
    if not len(columns):
        raise ValueError(f"{name} must have at least one series, got shape {array.shape}")
    count = len(columns)
    form = Arrays(flat=array.ndim == 1)
    return Panel(tuple(range(count)), tuple(columns), (None,) * count, (0,) * count, form)


def _read_list(data: Sequence[Any], name: str) -> Panel:
    if any(isinstance(part, Columns) for part in data):
        raise TypeError(f"{name} must not be a list of Columns: give one long frame")
    parts = [
        _read(part, name if package_of(part) else f"series {at} of {name}")
        for at, part in enumerate(data)
    ]
    names: list[Any] = []
    for at, part in enumerate(parts):
        plain = isinstance(part.form, Arrays)
        names += (
            [at]
            if plain and len(part) == 1
            else [(at, own) if plain or own in names else own for own in part.names]
        )
    values, axes, starts = (
        tuple(chain.from_iterable(getattr(part, field) for part in parts))
        for field in ("values", "axes", "starts")
    )
    form = Several(tuple((part.form, part.names) for part in parts))
    return Panel(tuple(names), values, axes, starts, form)


def _read_series(data: Any, name: str) -> Panel:
    index = data.index
    if index.nlevels > 1:
        return _read_levels(data.to_frame(), name, flat=True)
    axis, places = locate(index, name) if len(index) else (None, np.arange(0))
    values = _placed(floats(data, name), places)
    return Panel((data.name,), (values,), (axis,), (0,), Indexed(host(data), None, data.name))


def _read_frame(frame: Any, name: str) -> Panel:
    """Return the series of a frame whose columns have to tell what they are."""
    if not len(frame.columns):
        raise ValueError(f"{name} must have at least one column, got none")
    if package_of(frame) == "pandas":
        index = frame.index
        if index.nlevels > 1:
            return _read_levels(frame, name, flat=False)
        if isinstance(index, (host(frame).DatetimeIndex, host(frame).PeriodIndex)):
            return _read_wide(frame, name)
    told = roles(frame, name)
    if told.time is not None or package_of(frame) == "polars":
        return _read_columns(told, name)
    return _read_wide(frame, name)


def roles(frame: Any, name: str) -> Columns:
    """Return which column has the time of a frame, and which names its series, if any does."""
    if len(set(frame.columns)) < len(frame.columns):
        raise ValueError(f"{name} must have each column once, got {list(frame.columns)}")
    times = [column for column in frame.columns if _is_time(frame[column])]
    words = [column for column in frame.columns if _is_text(frame[column])]
    if len(times) > 1 or len(words) > 1 or (words and not times):
        found = f"columns of time stamps {times} and of text {words}"
        raise ValueError(
            f"{name} must have one column of time stamps, and one of text if it is long, got "
            f"{found}: choose by rnncore.forecasting.Columns(frame, time=..., series=..., "
            "value=...), convert text to times, or drop columns"
        )
    return Columns(frame, times[0] if times else None, words[0] if words else None)


def _read_wide(frame: Any, name: str) -> Panel:
    """Return the columns of a frame of pandas with the time as its index."""
    axis, places = locate(frame.index, name) if len(frame) else (None, np.arange(0))
    columns = tuple(frame.columns)
    values = tuple(
        _placed(floats(frame.iloc[:, at], f"column {column!r} of {name}"), places)
        for at, column in enumerate(columns)
    )
    count = len(columns)
    form = Indexed(host(frame), frame.columns, None)
    return Panel(columns, values, (axis,) * count, (0,) * count, form)


def _read_levels(frame: Any, name: str, *, flat: bool) -> Panel:
    """Return a frame of pandas that is long by an index of two levels, series and time."""
    if frame.index.nlevels != 2 or len(frame.columns) != 1:
        raise ValueError(
            f"{name} must have two levels of index, series and time, and one column of values; "
            f"got {frame.index.nlevels} levels and {len(frame.columns)} columns"
        )
    levels = tuple(frame.index.names)
    series, time = (frame.index.get_level_values(level) for level in (0, 1))
    table = Tables(host(frame), "time", "series", (frame.columns[0],), levels, flat)
    return _read_long(table, series, time, floats(frame.iloc[:, 0], name), name)


def _read_columns(given: Columns, name: str, *, told: bool = False) -> Panel:
    frame = given.frame
    chosen = [given.value] if not isinstance(given.value, list) else given.value
    chosen = [] if given.value is None else chosen
    named = [column for column in (given.time, given.series) if column is not None]
    missing = [column for column in (*named, *chosen) if column not in list(frame.columns)]
    if missing:
        raise ValueError(f"{name} must have the columns {missing}, it has {list(frame.columns)}")
    chosen = chosen or [column for column in frame.columns if column not in named]
    table = Tables(host(frame), given.time, given.series, tuple(chosen), told=told)
    time = None if given.time is None else as_labels(frame[given.time])
    if given.series is None:
        return _read_table(table, frame, time, name)
    if len(chosen) != 1 or time is None:
        raise ValueError(
            f"{name} must have a column of times and one column of values for its series, got "
            f"time={given.time!r} and the columns {chosen}: choose by "
            "rnncore.forecasting.Columns(frame, time=..., series=..., value=...)"
        )
    values = floats(frame[chosen[0]], f"column {chosen[0]!r} of {name}")
    return _read_long(table, frame[given.series], time, values, name)


def _read_table(table: Tables, frame: Any, time: Any, name: str) -> Panel:
    """Return the series of a wide frame whose time is a column."""
    axis, places = (None, np.arange(len(frame)))
    if time is not None and len(frame):
        axis, places = locate(time, name)
    values = tuple(
        _placed(floats(frame[column], f"column {column!r} of {name}"), places)
        for column in table.values
    )
    count = len(values)
    return Panel(table.values, values, (axis,) * count, (0,) * count, table)


def _read_long(table: Tables, series: Any, time: Any, values: Array, name: str) -> Panel:
    """Return the series of rows that say which series and which time they are of."""
    if not len(series):
        raise ValueError(f"{name} must have at least one row, got none")
    unnamed = np.asarray(series.isna() if hasattr(series, "isna") else series.is_null())
    if unnamed.any():
        row = int(unnamed.argmax())
        raise ValueError(f"{name} must name the series of each row, row {row} has no name")
    order: dict[Any, list[int]] = {}
    for row, key in enumerate(series.to_list()):
        order.setdefault(key, []).append(row)
    stamps = stamps_of(time, name)
    rows = {key: np.array(own) for key, own in order.items()}
    for key, own in rows.items():
        check_rising(stamps[own], time[own], f"series {key!r} of {name}")
    _, first, inverse = np.unique(stamps, return_index=True, return_inverse=True)
    axis, places = locate(time[first], name)
    places = places[inverse]
    starts = tuple(int(places[own[0]]) for own in rows.values())
    spread = tuple(
        _placed(values[own], places[own] - start)
        for own, start in zip(rows.values(), starts, strict=True)
    )
    return Panel(tuple(rows), spread, (axis,) * len(rows), starts, table)


def _placed(values: Array, places: Array) -> Array:
    """Return values at their places, NaN in between."""
    if not len(places) or places[-1] == len(values) - 1:
        return values
    out = np.full(int(places[-1]) + 1, np.nan)
    out[places] = values
    return out


def as_labels(column: Any) -> Any:
    """Return a column of times as something that can be located: in pandas an index."""
    return host(column).Index(column) if package_of(column) == "pandas" else column


def _is_time(column: Any) -> bool:
    kind = str(column.dtype).lower()
    return kind.startswith(("datetime", "date", "period"))


def _is_text(column: Any) -> bool:
    kind = str(column.dtype).lower()
    return kind.startswith(("object", "str", "categor", "utf8", "enum"))


def floats(column: Any, name: str) -> Array:
    """Return numbers as float64, NaN where they are missing; others raise `TypeError`."""
    kind = str(getattr(column, "dtype", ""))
    try:
        if _is_time(column) or kind.startswith(("complex", "timedelta")):
            raise TypeError("no numbers")
        if package_of(column) == "pandas":
            return np.array(column.to_numpy(dtype=np.float64, na_value=np.nan))
        if package_of(column) == "polars" and _is_text(column):
            raise TypeError("text")
        if package_of(column) == "polars":
            column = column.to_numpy()
        array = np.asarray(column)
        if array.dtype == object:
            array = np.array([np.nan if x is None else x for x in array.flat]).reshape(array.shape)
        if array.dtype.kind not in "biuf":
            raise TypeError(str(array.dtype))
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        found = short(next(iter(column))) if kind == "object" and len(column) else kind
        raise TypeError(f"{name} must hold numbers, got {found}: {short(error)}") from error
