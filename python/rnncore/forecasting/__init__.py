"""Forecasts of series: arrays, frames of pandas and polars, many series at once; scores of them.

Only NumPy is needed: frames come from packages that who has them has imported.
"""

from .backtesting import Backtest, backtest
from .baselines import Naive, SeasonalNaive
from .frames import Columns, Panel, read_panel
from .global_forecaster import GlobalForecaster
from .metrics import (
    coverage,
    crps,
    crps_quantiles,
    interval_score,
    mase,
    msis,
    pinball,
    seasonal_scale,
    smape,
)
from .plots import plot_backtest, plot_forecast

__all__ = [
    "Backtest",
    "Columns",
    "GlobalForecaster",
    "Naive",
    "Panel",
    "SeasonalNaive",
    "backtest",
    "coverage",
    "crps",
    "crps_quantiles",
    "interval_score",
    "mase",
    "msis",
    "pinball",
    "plot_backtest",
    "plot_forecast",
    "read_panel",
    "seasonal_scale",
    "smape",
]
