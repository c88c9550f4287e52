"""Time stamps on a grid: how far apart they are, which ones are left out, which ones come next.

Stamps are integers, or `datetime64` of any unit. A calendar knows the stamps at any positions,
counted from the first one. `find` reads one off stamps that may have gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ..arrays import Array

_DAY = np.timedelta64(1, "D")


class Calendar(Protocol):
    """The stamps of a series, by position."""

    def at(self, positions: Array) -> Array:
        """Return the stamps at these positions, of any shape."""
        ...


@dataclass(frozen=True)
class Even:
    """Stamps that are `step` apart: integers, floats, or times and a `timedelta64`."""

    start: np.generic
    step: np.generic

    def at(self, positions: Array) -> Array:
        """Return the stamps at these positions."""
        stamps: Array = self.start + positions * self.step
        return stamps


@dataclass(frozen=True)
class Months:
    """One stamp in every `count` months, on a day that the rule names.

    rule: "end", the last day of the month; "business start" and "business end", its first and last
    day from Monday to Friday; "day", the day `day`, or the last one of a month that has it not.
    """

    start: np.datetime64
    count: int
    rule: str
    day: int

    def at(self, positions: Array) -> Array:
        """Return the stamps at these positions."""
        month = self.start.astype("M8[M]")
        time = self.start - self.start.astype("M8[D]")
        months = month + self.count * np.asarray(positions)
        days = _day_of(months, self.rule, self.day).astype(self.start.dtype)
        stamps: Array = days + time
        return stamps


@dataclass(frozen=True)
class BusinessDays:
    """Every day from Monday to Friday."""

    start: np.datetime64

    def at(self, positions: Array) -> Array:
        """Return the stamps at these positions."""
        day = self.start.astype("M8[D]")
        days: Array = np.busday_offset(day, positions).astype(self.start.dtype)
        stamps: Array = days + (self.start - day)
        return stamps


class Found(NamedTuple):
    """A calendar, the positions of stamps on it, and whether these are wall times."""

    calendar: Calendar
    positions: Array
    wall: bool = False


def find(elapsed: Array, wall: Array | None = None) -> Found | None:
    """Return the calendar with the fewest gaps that has all stamps, or None if there is none.

    Two neighbours at least must be one step apart. Where calendars have equally many gaps, months
    come first, then days and longer, then shorter steps, then days from Monday to Friday.

    elapsed: at least 2 increasing stamps (T,), of times those of UTC. wall: the same by the clock
    on the wall, where these differ: a step of a day or more is one of wall time, a shorter one of
    time that has elapsed.
    """
    found = None
    for each in _candidates(elapsed, elapsed if wall is None else wall):
        fewer = found is None or each.positions[-1] < found.positions[-1]
        if fewer and each.positions[-1] < 1000 + 100 * len(elapsed):
            found = each
    return found


def _candidates(elapsed: Array, wall: Array) -> Iterator[Found]:
    if elapsed.dtype.kind != "M":
        yield from _even(elapsed, False)
        return
    rising = bool(np.all(wall[1:] > wall[:-1]))
    if rising and np.ptp(wall - wall.astype("M8[D]")) == 0:
        yield from _monthly(wall)
    days = [found for found in _even(wall, True) if _step(found) >= _DAY] if rising else []
    yield from days
    yield from _even(elapsed, False)
    if rising:
        yield from _even(wall, True)
        yield from _business(wall)


def _even(stamps: Array, wall: bool) -> Iterator[Found]:
    steps = np.diff(stamps)
    if stamps.dtype.kind == "f":
        step = steps.min()
        positions = np.rint((stamps - stamps[0]) / step)
        if np.abs(stamps[0] + positions * step - stamps).max() < 1e-3 * step:
            yield Found(Even(stamps[0], step), positions.astype(np.int64), wall)
    elif not (steps % steps.min()).astype(np.int64).any():
        positions = ((stamps - stamps[0]) // steps.min()).astype(np.int64)
        yield Found(Even(stamps[0], steps.min()), positions, wall)


def _step(found: Found) -> np.timedelta64:
    assert isinstance(found.calendar, Even)
    step: np.timedelta64 = found.calendar.step  # type: ignore[assignment]
    return step


def _monthly(wall: Array) -> Iterator[Found]:
    months = wall.astype("M8[M]")
    steps = np.diff(months).astype(np.int64)
    count = int(steps.min())
    if count < 1 or (steps % count).any():
        return
    days = wall.astype("M8[D]")
    day = int((days - months).astype(np.int64).max()) + 1
    rules = ("end", "day", "business start", "business end")
    matching = [rule for rule in rules if np.array_equal(_day_of(months, rule, day), days)]
    if matching:
        positions = (months - months[0]).astype(np.int64) // count
        yield Found(Months(wall[0], count, matching[0], day), positions, True)


def _business(wall: Array) -> Iterator[Found]:
    days = wall.astype("M8[D]")
    even = np.ptp(wall - days) == 0
    positions = np.busday_count(days[0], days).astype(np.int64)
    if even and np.is_busday(days).all() and np.diff(positions).min() == 1:
        yield Found(BusinessDays(wall[0]), positions, True)


def _day_of(months: Array, rule: str, day: int) -> Array:
    """Return the day that a rule names in each month, `datetime64[D]`."""
    first, last = months.astype("M8[D]"), (months + 1).astype("M8[D]") - _DAY
    if rule == "end":
        return last
    if rule == "business start":
        return np.busday_offset(first, 0, roll="forward")
    if rule == "business end":
        return np.busday_offset(last, 0, roll="backward")
    return np.minimum(first + (day - 1) * _DAY, last)
