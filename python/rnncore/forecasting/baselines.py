"""Forecasts that need no training, to be beaten by those that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..arrays import Array, check_count
from .frames import Panel, read_panel
from .metrics import check_levels

Self = TypeVar("Self", bound="SeasonalNaive")


@dataclass
class SeasonalNaive:
    """The value one season before: of the same hour yesterday, of the same month last year.

    Missing values are passed over: a step has the last value that is there at its place in the
    season, or, if there is none at that place, as in a series shorter than a season, the last value
    of all. Quantiles are those of a normal distribution around it. Its variance is the mean of
    `(y_t - y_(t - season))^2` of the series, times the number of seasons that lie between (Hyndman
    and Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition, section 5.5). In a
    series that has no two values a season apart it is that of neighbours; a single value tells no
    spread, and neither does a constant series: then all quantiles are the same.

    horizon: how many steps are forecast. season: how many steps a season has. quantiles: increasing
    numbers in (0, 1), those that `predict_quantiles` returns.
    """

    horizon: int = 1
    season: int = 1
    quantiles: Sequence[float] = (0.025, 0.5, 0.975)
    reads_panels: ClassVar[bool] = True

    def fit(self: Self, X: Any, y: Any = None) -> Self:
        """Check the series, and remember them for `predict`. There is nothing to learn.

        X: series in any form that `rnncore.forecasting.read_panel` takes. y: nothing.
        """
        self._check()
        self._panel = with_values(read_panel(X))
        return self

    def predict(self, X: Any = None) -> Any:
        """Return the `horizon` steps behind each series, in the form of X.

        X: series; None: those of `fit`. Raises `ValueError` for a series without any value.
        """
        panel = self._series(X)
        points, _ = self._forecast(panel)
        return panel.forecast(points)

    def predict_quantiles(self, X: Any = None) -> Any:
        """Return the quantiles of the `horizon` steps behind each series, in the form of X.

        X: as for `predict`.
        """
        panel, levels = self._series(X), check_levels(self.quantiles, "quantiles")
        points, spread = self._forecast(panel)
        bands = np.array([NormalDist().inv_cdf(level) for level in levels])
        return panel.quantiles(points[..., None] + spread[..., None] * bands, levels)

    def _check(self) -> None:
        check_count("horizon", self.horizon)
        check_count("season", self.season)
        check_levels(self.quantiles, "quantiles")

    def _series(self, X: Any) -> Panel:
        self._check()
        if X is not None:
            return with_values(read_panel(X))
        panel: Panel | None = getattr(self, "_panel", None)
        if panel is None:
            raise ValueError("X must be given, or series to fit before it")
        return panel

    def _forecast(self, panel: Panel) -> tuple[Array, Array]:
        """Return the values (N, H), and the standard deviations of their errors (N, H)."""
        parts = [self._of(values) for values in panel.values]
        return np.array([value for value, _ in parts]), np.array([spread for _, spread in parts])

    def _of(self, values: Array) -> tuple[Array, Array]:
        there = np.flatnonzero(~np.isnan(values))
        latest = np.full(self.season, -1)
        np.maximum.at(latest, there % self.season, there)
        ahead = len(values) + np.arange(self.horizon)
        source = latest[ahead % self.season]
        source = np.where(source < 0, there[-1], source)
        deviation, apart = _deviation(values, self.season)
        return values[source], deviation * np.sqrt((ahead - source) / apart)


@dataclass
class Naive(SeasonalNaive):
    """The last value, for all steps: `SeasonalNaive` with a season of one step.

    The best forecast of a random walk. horizon, quantiles: as there.
    """

    season: int = field(default=1, init=False)


def with_values(panel: Panel) -> Panel:
    """Return the series; raises `ValueError` for one without any value."""
    for name, values in zip(panel.names, panel.values, strict=True):
        if np.isnan(values).all():
            raise ValueError(
                f"series {name!r} of X must have a value, all {len(values)} are missing"
            )
    return panel


def _deviation(values: Array, season: int) -> tuple[float, int]:
    """Return the root mean square of the differences a season apart, and how far that is.

    Where there are none, it is that of neighbours, or 0.
    """
    for apart in (season, 1):
        steps = values[apart:] - values[:-apart]
        steps = steps[~np.isnan(steps)]
        most = float(np.abs(steps).max(initial=0))
        if len(steps):  # squares of large numbers would overflow
            return (most * float(np.sqrt(np.mean((steps / most) ** 2))) if most else 0.0), apart
    return 0.0, 1
