"""Pictures of forecasts. They need matplotlib: pip install 'rnncore[plot]'."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..arrays import Array
from ..training.plots import axes_for, finished
from .frames import Panel, read_panel
from .metrics import central_intervals, check_levels

if TYPE_CHECKING:
    from .backtesting import Backtest, Made


def plot_forecast(
    history: Any,
    forecast: Any,
    quantiles: Any = None,
    levels: Sequence[float] | None = None,
    *,
    actual: Any = None,
    series: Any = None,
    last: int | None = None,
    path: str | os.PathLike[str] | None = None,
    ax: Any = None,
) -> Any:
    """Draw the forecast of one series behind its end, with bands; return the matplotlib figure.

    history: the series that were forecast, in any form that `read_panel` takes. forecast,
    quantiles: what `predict` and `predict_quantiles` returned for them; between two quantiles as
    far from 0 as from 1 lies a band. levels: those of the quantiles, (Q,), which a frame of pandas
    says itself. actual: what came, in the form of `forecast`. series: the name of the series to
    draw; None: the first. last: how many steps of the history are drawn; None: four times as many
    as are forecast. path: a file to be saved, replaced atomically, whose ending chooses the format.
    ax: matplotlib axes to draw into; None: those of a new figure. Raises `ImportError` without
    matplotlib.
    """
    panel = read_panel(history, "history")
    at = place_of(panel, series)
    horizon = panel.form.steps(forecast, len(panel))
    ahead = panel.clock(horizon)[at]
    axes = axes_for(ax, (8, 4), ylabel=_title(panel.names[at]))
    last = 4 * horizon if last is None else last
    style = {"color": "black", "lw": 1}
    axes.plot(panel.clock()[at][-last:], panel.values[at][-last:], label="history", **style)
    if actual is not None:
        came = panel.read_forecast(actual, horizon)[at]
        axes.plot(ahead, came, ls=":", marker=".", ms=3, label="what came", **style)
    if quantiles is not None:
        q = _levels_of(quantiles, levels)
        _draw_bands(axes, ahead, panel.read_quantiles(quantiles, horizon, len(q))[at], q, "C0")
    points = panel.read_forecast(forecast, horizon)[at]
    axes.plot(ahead, points, color="C0", label="forecast", marker=_marker(horizon), ms=4)
    return _finish(axes, ahead, path)


def plot_backtest(
    result: Backtest,
    series: Any = None,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw the forecasts of a `backtest` from each origin beside what came; return the figure.

    series, path, ax: as for `plot_forecast`. Raises `ImportError` without matplotlib.
    """
    panel = result.panel
    at = place_of(panel, series)
    origins, horizon = result.origins[at], result.actual.shape[2]
    clock, values = panel.clock()[at], panel.values[at]
    axes = axes_for(ax, (9, 4), ylabel=_title(panel.names[at]))
    first = max(0, int(origins[0]) - 2 * horizon)
    axes.plot(clock[first:], values[first:], color="black", lw=1, label="what came")
    for place, (name, made) in enumerate(result.forecasts.items()):
        _draw_origins(axes, clock, origins, made.of(at), result.levels, name, place)
    for origin in origins:
        axes.axvline(clock[origin], color="grey", lw=0.5, ls=":")
    return _finish(axes, clock, path)


def place_of(panel: Panel, series: Any) -> int:
    """Return the place of a series by its name; None: the first. Raises `ValueError` for others."""
    if series is None:
        return 0
    if series not in panel.names:
        some = ", ".join(map(repr, panel.names[:5]))
        raise ValueError(
            f"series must be one of {some}{', ...' * (len(panel) > 5)}, got {series!r}"
        )
    return panel.names.index(series)


def _draw_origins(
    axes: Any, clock: Array, origins: Array, made: Made, levels: Array | None, name: str, place: int
) -> None:
    """Draw the forecasts of one forecaster from all origins, the first (place 0) with bands."""
    horizon = made.points.shape[1]
    for number, origin in enumerate(origins):
        ahead, color = clock[origin : origin + horizon], f"C{place}"
        if place == 0 and made.quantiles is not None and levels is not None:
            _draw_bands(axes, ahead, made.quantiles[number], levels, color, label=number == 0)
        style = {"ls": "-" if place == 0 else "--", "lw": 1.5 if place == 0 else 1}
        label = None if number else name
        points = made.points[number]
        axes.plot(ahead, points, color=color, label=label, marker=_marker(horizon), ms=4, **style)


def _draw_bands(
    axes: Any, ahead: Array, quantiles: Array, levels: Array, color: str, *, label: bool = True
) -> None:
    """Shade what lies between each two levels that are as far from 0 as from 1."""
    for place, (low, high) in enumerate(central_intervals(levels)):
        text = f"{levels[high] - levels[low]:.0%} interval" if label else None
        options = {"color": color, "alpha": 0.15 + 0.1 * place, "lw": 0 if len(ahead) > 1 else 4}
        axes.fill_between(ahead, quantiles[:, low], quantiles[:, high], label=text, **options)


def _levels_of(quantiles: Any, levels: Sequence[float] | None) -> Array:
    """Return the levels that are given, or those that the columns of a frame of pandas have."""
    if levels is None and "quantile" in getattr(getattr(quantiles, "columns", None), "names", ()):
        levels = list(quantiles.columns.get_level_values("quantile").unique())
    if levels is None:
        raise ValueError("levels must say which quantiles these are, such as (0.1, 0.5, 0.9)")
    return check_levels(levels)


def _marker(horizon: int) -> str:
    return "o" if horizon == 1 else ""


def _title(name: Any) -> str:
    return "" if name is None or isinstance(name, int) else str(name)


def _finish(axes: Any, clock: Array, path: str | os.PathLike[str] | None) -> Any:
    """Return the figure with legend and short dates, saved as `path` if there is one."""
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    if clock.dtype.kind == "M":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        places: Any = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(places)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(places))  # type: ignore[no-untyped-call]
    return finished(axes, path)
