"""What is known beside series, from frames: found by the time and the name of each series."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from .frames import Columns, Panel, as_labels, floats, roles
from .indexes import host, package_of, stamps_of, zone_of


class _Rows(NamedTuple):
    """Rows of covariates: times, values (R, K), and which rows each series has; None: all."""

    labels: Any
    values: Array
    of: dict[Any, list[int]] | None


def _grouped(series: Any) -> dict[Any, list[int]]:
    found: dict[Any, list[int]] = {}
    for row, key in enumerate(series.to_list()):
        found.setdefault(key, []).append(row)
    return found


def align(given: Any, name: str, panel: Panel, beyond: int) -> Any:
    """Return covariates in frames as a list of arrays (T_n + beyond, K), others as they are.

    A wide frame goes with all series; a long one, by the names of its series; a list of frames has
    one for each. Rows are found by their times, in any order; NaN stands where there is none. What
    is no frame, and goes with series without times, is given back. Raises `ValueError` for times
    that come twice, that are of another kind than those of the series, or that end before them.
    """
    if all(axis is None for axis in panel.axes):
        return given
    if _is_frame(given):
        rows = _read(given, name)
        return [_placed(rows, name, panel, at, beyond) for at in range(len(panel))]
    if isinstance(given, (list, tuple)) and any(map(_is_frame, given)) and len(given) == len(panel):
        return [
            _placed(_read(part, name), name, panel, at, beyond) if _is_frame(part) else part
            for at, part in enumerate(given)
        ]
    return given


def align_static(given: Any, panel: Panel) -> Any:
    """Return the rows of a frame or series of pandas that the names of series have in its index."""
    if package_of(given) != "pandas" or not hasattr(given, "index"):
        return given
    if not len(set(given.index) & set(panel.names)):  # numbers of rows
        return given
    missing = [series for series in panel.names if series not in given.index]
    if missing or not given.index.is_unique:
        what = f"none for {missing[0]!r}" if missing else "several for some"
        raise ValueError(f"static must have one row for each series, got {what}")
    return given.loc[list(panel.names)].to_numpy(dtype=object)


def _is_frame(given: Any) -> bool:
    if isinstance(given, Columns):
        return True
    return bool(package_of(given)) and (hasattr(given, "columns") or hasattr(given, "index"))


def _read(given: Any, name: str) -> _Rows:
    frame = given.frame if isinstance(given, Columns) else given
    frame = frame if hasattr(frame, "columns") else frame.to_frame()
    if package_of(frame) == "pandas" and not isinstance(given, Columns):
        index, pd = frame.index, host(frame)
        kinds = (pd.DatetimeIndex, pd.PeriodIndex, pd.TimedeltaIndex)
        if index.nlevels == 2:
            series, labels = (index.get_level_values(level) for level in (0, 1))
            return _Rows(labels, _table(frame, list(frame.columns), name), _grouped(series))
        if isinstance(index, kinds):
            return _Rows(index, _table(frame, list(frame.columns), name), None)
    told = given if isinstance(given, Columns) else roles(frame, name)
    named = [column for column in (told.time, told.series) if column is not None]
    chosen = told.value if isinstance(told.value, list) else [told.value]
    if told.value is None:
        chosen = [column for column in frame.columns if column not in named]
    labels = frame.index if told.time is None else as_labels(frame[told.time])
    of = None if told.series is None else _grouped(frame[told.series])
    return _Rows(labels, _table(frame, chosen, name), of)


def _table(frame: Any, columns: list[Any], name: str) -> Array:
    found = [floats(frame[column], f"column {column!r} of {name}") for column in columns]
    return np.stack(found, axis=1)


def _placed(rows: _Rows, name: str, panel: Panel, at: int, beyond: int) -> Array:
    """Return what goes with one series, (T_n + beyond, K)."""
    axis, series = panel.axes[at], panel.names[at]
    start, length = panel.starts[at], len(panel.values[at])
    if axis is None:
        raise ValueError(f"series {series!r} of X has no times by which rows of {name} are found")
    wanted = axis.labels(np.arange(start, start + length + beyond))
    labels, values = rows.labels, rows.values
    if rows.of is not None:
        own = np.array(rows.of.get(series, []), np.int64)
        labels, values = labels[own], values[own]
    have, need = stamps_of(labels, name), stamps_of(wanted, "X")
    if have.dtype.kind != need.dtype.kind or (zone_of(labels) is None) != (zone_of(wanted) is None):
        raise ValueError(
            f"{name} must have times like those of X, {wanted.dtype}, got {labels.dtype}"
        )
    order = np.argsort(have, kind="stable")
    have, values = have[order], values[order]
    if np.any(have[1:] == have[:-1]):
        again = labels[int(order[1:][have[1:] == have[:-1]][0])]
        raise ValueError(
            f"{name} must have each time once for series {series!r}, {again} comes twice"
        )
    if not len(have) or have[-1] < need[-1]:
        last = wanted[len(wanted) - 1]
        raise ValueError(
            f"{name} must go on to {last} for series {series!r}, to where it is needed"
        )
    place = np.minimum(np.searchsorted(have, need), len(have) - 1)
    return np.where((have[place] == need)[:, None], values[place], np.nan)
