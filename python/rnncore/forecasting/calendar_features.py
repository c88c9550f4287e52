"""What the clock on the wall tells a network: where in the day, the week and the year a step is."""

from __future__ import annotations

import numpy as np

from ..arrays import Array

#: Lengths of cycles in seconds, by name.
_CYCLES = {"day": 86_400.0, "week": 7 * 86_400.0, "year": 365.2425 * 86_400.0}


def cycles_of(clock: Array) -> tuple[str, ...]:
    """Return the cycles that several steps fall into, and that the stamps see twice at least.

    clock: what `Panel.clock` gives of one series. Numbers have none.
    """
    if clock.dtype.kind != "M" or len(clock) < 2:
        return ()
    seconds = clock.astype("M8[s]").astype(np.float64)
    step, span = np.median(np.diff(seconds)), seconds[-1] - seconds[0]
    return tuple(name for name, cycle in _CYCLES.items() if 2 * step <= cycle <= span / 2)


def calendar_features(clock: Array, cycles: tuple[str, ...]) -> Array:
    """Return sine and cosine of the phase in each cycle, (T, 2 C).

    Weeks begin on Monday. The year is followed month by month, whatever their lengths.
    """
    found = np.empty((len(clock), 2 * len(cycles)))
    for at, name in enumerate(cycles):
        phase = _year(clock) if name == "year" else _even(clock, _CYCLES[name])
        found[:, 2 * at], found[:, 2 * at + 1] = np.sin(phase), np.cos(phase)
    return found


def _even(clock: Array, cycle: float) -> Array:
    # 1970-01-01 was a Thursday: three days behind a Monday.
    seconds = clock.astype("M8[s]").astype(np.float64) + 3 * 86_400
    phase: Array = 2 * np.pi * (seconds % cycle) / cycle
    return phase


def _year(clock: Array) -> Array:
    months = clock.astype("M8[M]")
    days = (clock.astype("M8[s]") - months.astype("M8[s]")) / np.timedelta64(86_400, "s")
    number = months.astype(np.int64) % 12
    phase: Array = 2 * np.pi * (number + days / 31) / 12
    return phase
