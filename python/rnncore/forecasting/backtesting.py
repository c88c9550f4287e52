"""What forecasts would have been worth: each made of what was known at its time, then scored."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..arrays import Array, check_count, check_flag
from . import metrics
from .aligned import align_static
from .baselines import SeasonalNaive
from .covariates import as_arrays
from .frames import Panel, read_panel
from .plots import plot_backtest


class Forecasts(Protocol):
    """What `backtest` asks of a forecaster.

    `horizon`, and `fit` and `predict` that take series in the form that they are given to
    `backtest`; `predict` returns the `horizon` steps behind each, in that form or as an array.
    Where there are `quantiles`, increasing numbers in (0, 1), `predict_quantiles` returns these.
    One with `reads_panels = True` is handed a `Panel`, which `read_panel` returns as it is: frames
    need not be built and read again for each origin.
    """

    horizon: int

    def fit(self, X: Any) -> Any:
        """Learn from series."""
        ...

    def predict(self, X: Any) -> Any:
        """Return the steps behind series."""
        ...


class Made(NamedTuple):
    """The forecasts of one forecaster: points (N, W, H), quantiles (N, W, H, Q) or None."""

    points: Array
    quantiles: Array | None

    def of(self, series: int) -> Made:
        """Return those of one series."""
        chosen = self.quantiles
        return Made(self.points[series], None if chosen is None else chosen[series])


@dataclass(frozen=True, eq=False, repr=False)
class Backtest:
    """Forecasts of N series from W origins, H steps each, what came, and the scores of both.

    panel: the series. origins: (N, W), the number of steps that were known. actual: (N, W, H), NaN
    where a value is missing. forecasts: by name those of the forecaster and of "seasonal naive".
    levels: those of the quantiles, (Q,), or None. scales: (N, W), `seasonal_scale` of what was
    known. season: its season.

    `print` shows a table of scores, means over series and origins; those without a score are left
    out. `plot` draws the forecasts of one series.
    """

    panel: Panel
    origins: Array
    actual: Array
    forecasts: Mapping[str, Made]
    levels: Array | None
    scales: Array
    season: int

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The means over all series and origins: of each forecaster, by the name of the score."""
        return {
            name: {
                score: metrics.mean_over_steps(values.reshape(-1), values.reshape(-1))
                for score, values in self.each(name).items()
            }
            for name in self.forecasts
        }

    def each(self, name: str) -> dict[str, Array]:
        """Return the scores of one forecaster for each series and origin, (N, W).

        smape, mase; with quantiles also crps in the units of the values, and with two quantiles as
        far from 0 as from 1 msis and coverage of the widest such interval.
        """
        points, quantiles = self.forecasts[name]
        error = metrics.mean_over_steps(np.abs(self.actual - points), self.actual)
        found = {"smape": metrics.smape(self.actual, points), "mase": error / self.scales}
        if quantiles is None or self.levels is None:
            return found
        found["crps"] = metrics.crps_quantiles(self.actual, quantiles, list(self.levels))
        for low_at, high_at in metrics.central_intervals(self.levels)[:1]:
            low, high = quantiles[..., low_at], quantiles[..., high_at]
            level = float(self.levels[high_at] - self.levels[low_at])
            score = metrics.interval_score(self.actual, low, high, level)
            found["msis"] = score / self.scales
            found["coverage"] = metrics.coverage(self.actual, low, high)
        return found

    def plot(self, series: Any = None, path: Any = None, *, ax: Any = None) -> Any:
        """Draw the forecasts of one series beside what came; return the matplotlib figure.

        series: its name; None: the first. path, ax: as for `rnncore.training.plots`.
        """
        return plot_backtest(self, series, path, ax=ax)

    def __repr__(self) -> str:
        scores = self.scores
        columns = list(next(iter(scores.values())))
        width = max(map(len, scores))
        lines = [" " * width + "".join(f"{column:>12}" for column in columns)]
        for name, row in scores.items():
            lines.append(f"{name:<{width}}" + "".join(_cell(key, row[key]) for key in columns))
        count, origins = self.origins.shape
        kind = f"{count} series" if count > 1 else "1 series"
        steps = self.actual.shape[2]
        lines.append(f"{kind}, {origins} origins, horizon {steps}, season {self.season}")
        if self.levels is not None:
            for low, high in metrics.central_intervals(self.levels)[:1]:
                level = self.levels[high] - self.levels[low]
                lines[-1] += f"; msis and coverage of {level:.0%} intervals"
        return "\n".join(lines)


def backtest(
    forecaster: Any,
    data: Any,
    *,
    origins: int = 4,
    step: int | None = None,
    window: int | None = None,
    refit: bool = True,
    season: int = 1,
    past: Any = None,
    ahead: Any = None,
    static: Any = None,
) -> Backtest:
    """Forecast the end of series from several origins, each from what came before it.

    The last origin is `horizon` steps before the end of each series, the others `step` steps before
    one another (rolling origin; Tashman 2000, "Out-of-sample tests of forecasting accuracy"). A
    copy of the forecaster is fitted; what was given stays as it is. Beside its scores stand those
    of the seasonal naive forecast, from the same origins.

    forecaster: with `fit`, `predict` and `horizon`; with `quantiles`, `predict_quantiles` too: a
    `rnncore.estimators.Forecaster`, one of this package, or one's own. data: series in any form
    that `read_panel` takes and the forecaster reads. Missing rows of an index come to it as NaN.

    origins: how many. step: None: the horizon, so that no step is forecast twice. window: how many
    steps before an origin are known; None: all, an expanding window. refit: whether the forecaster
    is fitted at each origin, or only at the first. season: of the seasonal naive forecast, and of
    the scales of mase and msis. past, ahead, static: what is known beside the series, as for
    `GlobalForecaster.fit`, as long as these; at each origin `past` is known up to there, `ahead`
    up to the horizon. A forecaster that takes none is given none.

    Raises `ValueError` for series that are too short for the origins, and for forecasts that are
    not finite.
    """
    panel, horizon = read_panel(data, "data"), check_count("horizon", forecaster.horizon)
    step = horizon if step is None else check_count("step", step)
    plan = _Plan(check_count("origins", origins), step, window, check_flag("refit", refit))
    levels = getattr(forecaster, "quantiles", None)
    levels = None if levels is None else metrics.check_levels(levels, "quantiles")
    baseline = SeasonalNaive(horizon, season, (0.5,) if levels is None else tuple(levels))
    if window is not None:
        check_count("window", window)
    at = _origins(panel, plan, horizon)
    known = list(_known(panel, at, plan))
    beside = list(_beside(panel, known, horizon, past, ahead, static))
    scales = [metrics.seasonal_scale(list(part.values), season) for part in known]
    forecasts = {
        type(forecaster).__name__: _run(forecaster, known, plan, levels, beside),
        "seasonal naive": _run(baseline, known, plan, levels, [{} for _ in known]),
    }
    return Backtest(
        panel, at, _actual(panel, at, horizon), forecasts, levels, np.stack(scales, axis=1), season
    )


class _Plan(NamedTuple):
    origins: int
    step: int
    window: int | None
    refit: bool


def _origins(panel: Panel, plan: _Plan, horizon: int) -> Array:
    """Return how many steps of each series are known at each origin, (N, W)."""
    needed = horizon + plan.step * (plan.origins - 1)
    for name, length in zip(panel.names, panel.lengths, strict=True):
        if length - needed < 2:
            raise ValueError(
                f"series {name!r} of data has {length} steps, but {plan.origins} origins with "
                f"horizon {horizon} and step {plan.step} need {needed + 2}: fewer origins, a "
                "smaller step, or leave the series out"
            )
    back = needed - plan.step * np.arange(plan.origins)
    origins: Array = panel.lengths[:, None] - back
    return origins


def _known(panel: Panel, origins: Array, plan: _Plan) -> Iterator[Panel]:
    """Yield what is known at each origin."""
    for lengths in origins.T:
        known = panel.cut(lengths)
        yield known if plan.window is None else known.last(plan.window)


def _beside(
    panel: Panel, known: Sequence[Panel], horizon: int, past: Any, ahead: Any, static: Any
) -> Iterator[dict[str, Any]]:
    """Yield what is known beside the series at each origin, by the names of arguments."""
    given = (("past", past, 0), ("ahead", ahead, horizon))
    whole = {
        name: (as_arrays(value, name, panel, 0), more)
        for name, value, more in given
        if value is not None
    }
    for part in known:
        first = np.subtract(part.starts, panel.starts)
        found: dict[str, Any] = {} if static is None else {"static": align_static(static, panel)}
        for name, (arrays, more) in whole.items():
            ends = first + part.lengths + more
            cuts = zip(arrays, first, ends, strict=True)
            found[name] = [array[start:end] for array, start, end in cuts]
        yield found


def _actual(panel: Panel, origins: Array, horizon: int) -> Array:
    ahead = origins[..., None] + np.arange(horizon)  # (N, W, H)
    return np.stack([values[at] for values, at in zip(panel.values, ahead, strict=True)])


def _run(
    forecaster: Any,
    known: Sequence[Panel],
    plan: _Plan,
    levels: Array | None,
    beside: Sequence[dict[str, Any]],
) -> Made:
    """Return what a forecaster makes of what is known at each origin."""
    points, quantiles = [], []
    model, horizon = copy.deepcopy(forecaster), forecaster.horizon
    direct = getattr(forecaster, "reads_panels", False)
    for at, (panel, more) in enumerate(zip(known, beside, strict=True)):
        panel = panel.plain() if direct else panel
        data = panel if direct else panel.data()
        if at == 0 or plan.refit:
            model.fit(data, **more)
        points.append(panel.read_forecast(model.predict(data, **more), horizon))
        if levels is not None:
            given = model.predict_quantiles(data, **more)
            quantiles.append(panel.read_quantiles(given, horizon, len(levels)))
    made = Made(np.stack(points, 1), np.stack(quantiles, 1) if quantiles else None)
    for found in made:
        if found is not None and not np.isfinite(found).all():
            kind = type(forecaster).__name__
            raise ValueError(
                f"forecasts of {kind} must be finite, got {found[~np.isfinite(found)][0]}"
            )
    return made


def _cell(name: str, value: float) -> str:
    if np.isnan(value):
        return f"{'-':>12}"
    text = f"{value:.1%}" if name == "coverage" else f"{value:.4g}"
    return f"{text:>12}"
