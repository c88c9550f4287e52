"""Forecasts of series: arrays, frames of pandas and polars, many series at once; scores of them.

Only NumPy is needed: frames come from packages that who has them has imported.
"""

from .frames import Columns, Panel, read_panel
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

__all__ = [
    "Columns",
    "Panel",
    "coverage",
    "crps",
    "crps_quantiles",
    "interval_score",
    "mase",
    "msis",
    "pinball",
    "read_panel",
    "seasonal_scale",
    "smape",
]
