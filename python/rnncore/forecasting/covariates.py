"""What is known beside the values of series: read, checked, and scaled as it was when learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import Array, read
from .aligned import align, align_static
from .calendar_features import calendar_features, cycles_of
from .frames import Panel
from .windows import Covariates


@dataclass
class Beside:
    """Learns of covariates how they are scaled, and of categories which there are.

    `fit` learns; `read` makes `Covariates` of what goes with other series, in the same way.
    """

    calendar: bool = True
    cycles: tuple[str, ...] = ()
    scales: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    labels: list[list[Any]] = field(default_factory=list)

    def fit(self, panel: Panel, past: Any, ahead: Any, static: Any) -> None:
        """Learn from what goes with series."""
        clocks = panel.clock() if self.calendar else []
        self.cycles = cycles_of(max(clocks, key=len)) if clocks else ()
        self.scales = {}
        for name, given in (("past", past), ("ahead", ahead)):
            if given is not None:
                steps = np.concatenate(as_arrays(given, name, panel, 0))
                mean, spread = _mean(steps)
                self.scales[name] = mean, np.where(spread > 0, spread, 1.0)
        columns: Any = (
            () if static is None else _categories(align_static(static, panel), len(panel)).T
        )
        self.labels = [sorted(set(column), key=str) for column in columns]

    @property
    def categories(self) -> tuple[int, ...]:
        """How many codes each category has: one for each label, and 0 for new ones."""
        return tuple(len(labels) + 1 for labels in self.labels)

    def read(self, panel: Panel, past: Any, ahead: Any, static: Any, horizon: int) -> Covariates:
        """Return what goes with series, scaled. horizon: how far `ahead` must go beyond them."""
        for name, given, known in (
            ("past", past, "past" in self.scales),
            ("ahead", ahead, "ahead" in self.scales),
            ("static", static, bool(self.labels)),
        ):
            if (given is None) == known:
                raise ValueError(f"{name} must be {'given' if known else 'None'}, as it was to fit")
        return Covariates(
            self._scaled("past", past, panel, 0),
            self._scaled("ahead", ahead, panel, horizon),
            self._clocks(panel, horizon),
            self._codes(align_static(static, panel), len(panel)),
        )

    def _scaled(self, name: str, given: Any, panel: Panel, beyond: int) -> list[Array]:
        if given is None:
            return [np.empty((int(length), 0)) for length in panel.lengths]
        mean, spread = self.scales[name]
        found = []
        for array in as_arrays(given, name, panel, beyond):
            if array.shape[1] != len(mean):
                raise ValueError(
                    f"{name} must have {len(mean)} columns, as it had for fit, got {array.shape[1]}"
                )
            scaled = np.clip((array - mean) / spread, -1e4, 1e4)
            found.append(np.where(np.isnan(scaled), 0.0, scaled))
        return found

    def _clocks(self, panel: Panel, horizon: int) -> list[Array]:
        if not self.cycles:
            return [np.empty((int(length), 0)) for length in panel.lengths]
        both = zip(panel.clock(), panel.clock(horizon), strict=True)
        wholes = (np.concatenate(parts) for parts in both)
        if any(whole.dtype.kind != "M" for whole in (panel.clock(1))):
            raise ValueError("X must have time stamps, as it had for fit")
        return [calendar_features(whole, self.cycles) for whole in wholes]

    def _codes(self, static: Any, count: int) -> Array:
        if static is None:
            return np.zeros((count, 0), np.int64)
        columns = _categories(static, count).T
        if len(columns) != len(self.labels):
            raise ValueError(
                f"static must have {len(self.labels)} categories, as it had for fit, "
                f"got {len(columns)}"
            )
        codes = [
            [labels.index(one) + 1 if one in labels else 0 for one in column]
            for labels, column in zip(self.labels, columns, strict=True)
        ]
        return np.array(codes, np.int64).T


def as_arrays(given: Any, name: str, panel: Panel, beyond: int) -> list[Array]:
    """Return covariates as arrays (T_n, K), or (T_n + beyond, K), of float64.

    given: arrays, one for each series, or frames, whose rows are found by their times.
    """
    given = align(given, name, panel, beyond)
    single = len(panel) == 1 and not isinstance(given, (list, tuple))
    parts: Sequence[Any] = [given] if single and np.ndim(given) < 3 else given
    if len(parts) != len(panel):
        raise ValueError(f"{name} must have {len(panel)} arrays, one a series, got {len(parts)}")
    found = []
    for series, part, length in zip(panel.names, parts, panel.lengths, strict=True):
        array, _ = read(f"{name} of series {series!r}", part)
        array = np.asarray(array, np.float64)
        array = array[:, None] if array.ndim == 1 else array
        needed = int(length) + beyond
        if array.ndim != 2 or len(array) < needed:
            raise ValueError(
                f"{name} of series {series!r} must have shape ({needed}, K), got {array.shape}"
            )
        if np.isinf(array).any():
            raise ValueError(f"{name} of series {series!r} must be finite or NaN")
        found.append(array[:needed] if name == "past" else array)
    widths = {array.shape[1] for array in found}
    if len(widths) > 1:
        raise ValueError(f"{name} must have the same columns for all series, got {sorted(widths)}")
    return found


def _mean(steps: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of the columns without NaN; of none 0 and 0."""
    there = ~np.isnan(steps)
    count = np.maximum(there.sum(axis=0), 1)
    most = np.where(there, np.abs(steps), 0.0).max(axis=0, initial=0.0)
    unit = np.where(most > 0, most, 1.0)
    scaled = np.where(there, steps / unit, 0.0)
    mean = scaled.sum(axis=0) / count
    spread = np.sqrt((np.where(there, scaled - mean, 0.0) ** 2).sum(axis=0) / count)
    return mean * unit, spread * unit


def _categories(static: Any, count: int) -> Array:
    """Return labels (N, S) of objects."""
    array = np.array(static, dtype=object)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != count:
        raise ValueError(f"static must have shape ({count},) or ({count}, S), got {array.shape}")
    return array
