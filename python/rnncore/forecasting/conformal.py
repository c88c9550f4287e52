"""Quantiles corrected by what was held out: split conformal calibration."""

from __future__ import annotations

import numpy as np

from ..arrays import Array


def conformal_factors(actual: Array, quantiles: Array, levels: Array, middle: int) -> Array:
    """Return by how much the distance of each quantile from the middle one is to be multiplied.

    actual (N, H), NaN where there is none; quantiles (N, H, Q) at levels (Q,); the factors (Q,),
    at least 0, are chosen such that the share of actual values below each corrected quantile is its
    level, over all series and steps. The scores are the signed errors in units of that distance:
    conformalised quantile regression (Romano et al. 2019), with an interval's own width as unit
    (Kivaranovic et al. 2020). Where there is nothing to learn from, a factor is 1.
    """
    centre = quantiles[..., middle]
    factors = np.ones(len(levels))
    for at, level in enumerate(levels):
        if at == middle:
            continue
        distance = quantiles[..., at] - centre
        kept = ~np.isnan(actual) & (distance != 0)
        scores = (actual[kept] - centre[kept]) / distance[kept]
        if scores.size:
            # Below the middle the distance is negative: large scores are low values.
            share = level if at > middle else 1 - level
            rank = min(1.0, np.ceil((scores.size + 1) * share) / scores.size)
            factors[at] = max(0.0, float(np.quantile(scores, rank, method="inverted_cdf")))
    return factors


def corrected(quantiles: Array, factors: Array, middle: int) -> Array:
    """Return quantiles (N, H, Q), each as far from the middle one as the factors (Q,) say."""
    centre = quantiles[..., middle, None]
    most = np.finfo(quantiles.dtype).max
    with np.errstate(over="ignore"):
        moved = np.clip(centre + factors * (quantiles - centre), -most, most)
    return np.sort(moved, axis=-1)
