"""How good forecasts are: scores of points, intervals, quantiles and samples.

    smape(actual, forecast)                       # (H,) -> one number, (N, H) -> (N,)
    mase(actual, forecast, history, season=24).mean()

The last axis is that of the horizon, over which a score is the mean; leading axes are kept, so that
the score of many series is the mean of what is returned, as in the M4 competition (Makridakis,
Spiliotis and Assimakopoulos 2020, "The M4 Competition: 100,000 time series and 61 forecasting
methods"). All numbers are read as float64. NaN in `actual` is a missing value, which is left out; a
row without any value has the score NaN. NaN in a forecast gives NaN, which is no score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_count, check_number, read


def smape(actual: npt.ArrayLike, forecast: npt.ArrayLike) -> Any:
    """Return the symmetric mean absolute percentage error, in percent: 0 to 200.

    The mean of `200 |y - f| / (|y| + |f|)`, and 0 where both are 0 (Makridakis 1993; M4). Of little
    use where zeros are common: a forecast above a value of 0 scores 200, however near it is.

    actual, forecast: (..., H). Returns (...).
    """
    y, f = _pair(actual, forecast)
    size = np.abs(y) + np.abs(f)
    error = np.divide(np.abs(y - f), size, out=np.zeros_like(size), where=size != 0)
    return mean_over_steps(200 * error, y)


def seasonal_scale(history: Any, season: int = 1) -> Any:
    """Return the mean step of a season in a history, which MASE and MSIS divide by.

    The mean of `|y_t - y_(t - season)|`, the error of seasonal naive forecasts, in the units of the
    values (Hyndman and Koehler 2006, "Another look at measures of forecast accuracy"). Pairs with a
    missing value are left out. A history without a pair `season` steps apart is measured by its
    neighbours (season=1); one without these, or one that repeats itself, has no scale: NaN.

    history: (T,), (N, T), or a list of N arrays (T_n,). Returns one number or (N,).
    """
    check_count("season", season)
    if isinstance(history, (list, tuple)) and len(history) and np.ndim(history[0]) == 1:
        return np.array([seasonal_scale(part, season) for part in history])
    values = _numbers("history", history)
    if values.ndim == 0:
        raise ValueError("history must have an axis of time, got a single number")
    return _plain(np.apply_along_axis(_scale, -1, values, season) if values.size else _none(values))


def mase(actual: npt.ArrayLike, forecast: npt.ArrayLike, history: Any, season: int = 1) -> Any:
    """Return the mean absolute scaled error (Hyndman and Koehler 2006).

    The mean of `|y - f|` over `seasonal_scale(history, season)`; NaN where there is no scale. Below
    1 a forecast is nearer than the seasonal naive one of a single step is on the history.

    actual, forecast: (..., H). history: what came before, as `seasonal_scale` takes it; one for
    each row of `actual`. Returns (...).
    """
    y, f = _pair(actual, forecast)
    return mean_over_steps(np.abs(y - f), y) / _scales(history, season, y)


def interval_score(
    actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, level: float = 0.95
) -> Any:
    """Return the mean interval score of central intervals (Gneiting and Raftery 2007, eq. 43).

    `u - l + 2/a (l - y)[y < l] + 2/a (y - u)[y > u]`, where a = 1 - level, in the units of the
    values.

    actual, lower, upper: (..., H). level: how much of the values are to lie within, in (0, 1).
    Returns (...).
    """
    y, low, high = _interval(actual, lower, upper)
    miss = 1 - _fraction("level", level)
    outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return mean_over_steps(high - low + 2 / miss * outside, y)


def msis(
    actual: npt.ArrayLike,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    history: Any,
    season: int = 1,
    level: float = 0.95,
) -> Any:
    """Return the mean scaled interval score (M4): `interval_score` over `seasonal_scale`.

    actual, lower, upper: (..., H). history: as for `mase`. Returns (...).
    """
    score = interval_score(actual, lower, upper, level)
    return score / _scales(history, season, _numbers("actual", actual))


def coverage(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> Any:
    """Return which share of the values lies in l <= y <= u, 0 to 1.

    actual, lower, upper: (..., H). Returns (...).
    """
    y, low, high = _interval(actual, lower, upper)
    inside = ((low <= y) & (y <= high)).astype(np.float64)
    return mean_over_steps(np.where(np.isnan(low) | np.isnan(high), np.nan, inside), y)


def pinball(actual: npt.ArrayLike, quantiles: npt.ArrayLike, levels: Sequence[float]) -> Any:
    """Return the mean pinball loss of quantiles (Koenker and Bassett 1978).

    `max(q (y - f), (q - 1) (y - f))`, the mean over the horizon and all levels q, in the units of
    the values.

    actual: (..., H). quantiles: (..., H, Q). levels: (Q,), increasing, in (0, 1). Returns (...).
    """
    y, losses = _pinball(actual, quantiles, levels)
    return mean_over_steps(losses.mean(axis=-1), y)


def crps_quantiles(actual: npt.ArrayLike, quantiles: npt.ArrayLike, levels: Sequence[float]) -> Any:
    """Return the continuous ranked probability score of a forecast that is given by quantiles.

    CRPS is twice the integral of the pinball loss over all levels from 0 to 1 (Laio and Tamea 2007;
    Gneiting and Ranjan 2011). It is taken as a sum over the levels, each weighed by the part of
    [0, 1] that is nearest to it. Few levels make it coarse: compare scores of the same levels.

    Shapes as for `pinball`. Returns (...), in the units of the values.
    """
    y, losses = _pinball(actual, quantiles, levels)
    q = np.asarray(levels, np.float64)
    borders = np.concatenate([[0.0], (q[1:] + q[:-1]) / 2, [1.0]])
    return mean_over_steps(2 * (losses * np.diff(borders)).sum(axis=-1), y)


def crps(actual: npt.ArrayLike, samples: npt.ArrayLike) -> Any:
    """Return the continuous ranked probability score of a forecast that is given by samples.

    `E|X - y| - E|X - X'| / 2` under the samples' own distribution (Gneiting and Raftery 2007, eq.
    21), the mean over the horizon; of one sample it is the absolute error.

    actual: (..., H). samples: (..., S, H), S paths. Returns (...), in the units of the values.
    """
    y, x = _numbers("actual", actual), _numbers("samples", samples)
    if x.ndim != y.ndim + 1 or (*x.shape[:-2], x.shape[-1]) != y.shape or not x.shape[-2]:
        wanted = ", ".join(map(str, (*y.shape[:-1], "S", *y.shape[-1:])))
        raise ValueError(f"samples must have shape ({wanted}), got {x.shape}")
    count = x.shape[-2]
    rank = (2 * np.arange(1, count + 1) - count - 1)[:, None]
    spread = (rank * np.sort(x, axis=-2)).sum(axis=-2) / count**2  # E|X - X'| / 2
    return mean_over_steps(np.abs(x - y[..., None, :]).mean(axis=-2) - spread, y)


def _pinball(actual: Any, quantiles: Any, levels: Any) -> tuple[Array, Array]:
    """Return the values (..., H), and the loss of each level (..., H, Q)."""
    y, f, q = _numbers("actual", actual), _numbers("quantiles", quantiles), check_levels(levels)
    if f.shape != (*y.shape, len(q)):
        raise ValueError(f"quantiles must have shape {(*y.shape, len(q))}, got {f.shape}")
    error = y[..., None] - f
    return y, np.maximum(q * error, (q - 1) * error)


def check_levels(levels: Any, name: str = "levels") -> Array:
    """Return levels of quantiles as float64 (Q,), at least one, increasing, in (0, 1)."""
    q, _ = read(name, levels)
    numbers = q.dtype.kind in "iuf" and q.ndim == 1 and len(q) > 0
    if not numbers or not np.all(np.diff(q.astype(np.float64), prepend=0, append=1) > 0):
        raise ValueError(f"{name} must be increasing numbers in (0, 1), got {levels!r}")
    return np.array(q, np.float64)


def _numbers(name: str, value: Any) -> Array:
    array, _ = read(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}")
    return np.array(array, np.float64)


def _same(y: Array, name: str, value: Any) -> Array:
    array = _numbers(name, value)
    if array.shape != y.shape:
        raise ValueError(f"{name} must have shape {y.shape}, as actual has, got {array.shape}")
    return array


def _pair(actual: Any, forecast: Any) -> tuple[Array, Array]:
    y = _numbers("actual", actual)
    if not y.ndim:
        raise ValueError("actual must have an axis of the horizon, got a single number")
    return y, _same(y, "forecast", forecast)


def _interval(actual: Any, lower: Any, upper: Any) -> tuple[Array, Array, Array]:
    y, low = _pair(actual, lower)
    high = _same(y, "upper", upper)
    if np.any(low > high):
        raise ValueError("lower must not be above upper")
    return y, low, high


def _fraction(name: str, value: float) -> float:
    number = check_number(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name} must be in (0, 1), got {number}")
    return number


def central_intervals(levels: Array) -> list[tuple[int, int]]:
    """Return the places of each two levels that are as far from 0 as from 1, the widest first."""
    found = []
    for low, level in enumerate(levels):
        high = int(np.argmin(np.abs(levels - (1 - level))))
        if high > low and abs(levels[high] - (1 - level)) < 1e-9:
            found.append((low, high))
    return found


def mean_over_steps(scores: Array, actual: Array) -> Any:
    """Return the mean over the last axis, of those whose value is there."""
    there = ~np.isnan(actual)
    count = there.sum(axis=-1)
    total = np.where(there, scores, 0.0).sum(axis=-1)
    nothing = np.full(count.shape, np.nan)
    return _plain(np.divide(total, count, out=nothing, where=count > 0))


def _plain(values: Array) -> Any:
    return values if values.ndim else float(values)


def _none(values: Array) -> Array:
    return np.full(values.shape[:-1], np.nan)


def _scale(row: Array, season: int) -> float:
    if season != 1 and not _steps(row, season).size:
        season = 1
    steps = _steps(row, season)
    scale = float(steps.mean()) if steps.size else 0.0
    return scale if scale > 0 and math.isfinite(scale) else math.nan


def _steps(row: Array, season: int) -> Array:
    steps: Array = np.abs(row[season:] - row[:-season])
    return np.asarray(steps[~np.isnan(steps)])


def _scales(history: Any, season: int, actual: Array) -> Any:
    scales = seasonal_scale(history, season)
    if np.shape(scales) != actual.shape[:-1]:
        raise ValueError(
            f"history must be one for each row of actual {actual.shape}, "
            f"got {np.shape(scales) or 'one'}"
        )
    return scales
