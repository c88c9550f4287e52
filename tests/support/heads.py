"""The heads that are tested, and the distributions of SciPy that each should be."""

from __future__ import annotations

import numpy as np
from rnncore.distributions import (
    Gaussian,
    GaussianMixture,
    NegativeBinomial,
    PenStrokes,
    Poisson,
    Quantiles,
    StudentT,
)

HEADS = {
    "gaussian": Gaussian,
    "student": StudentT,
    "poisson": Poisson,
    "negative binomial": NegativeBinomial,
    "mixture": lambda **options: GaussianMixture(3, **options),
    "quantiles": Quantiles,
    "crossing": lambda **options: Quantiles((0.1, 0.5, 0.8), crossing=True, **options),
    "pen": lambda **options: PenStrokes(2, **options),
    "no pen": lambda **options: PenStrokes(3, pen=False, **options),
}
#: Those with one value in each group of outputs.
OF_ONE = [name for name in HEADS if "pen" not in name]


def given(head, rng, lead=(4, 3), values=2):
    """x, targets and a mask for a head, in float64."""
    if isinstance(head, PenStrokes):
        x = rng.standard_normal((*lead, head.outputs))
        targets = rng.standard_normal((*lead, 2 + head.pen))
        if head.pen:
            targets[..., 2] = rng.random(lead) < 0.3
    else:
        x = rng.standard_normal((*lead, values * head.outputs))
        targets = rng.standard_normal((*lead, values))
        if head.counts:
            targets = rng.poisson(2.0, targets.shape).astype(float)
    return x, targets, rng.random(lead) < 0.7


def scipy_of(name, x):
    """The distribution of SciPy for rows x (N, outputs)."""
    from scipy import stats

    scale = np.logaddexp(0, x[:, 1]) if x.shape[1] > 1 else None
    if name == "gaussian":
        return stats.norm(x[:, 0], scale)
    if name == "student":
        return stats.t(2 + np.logaddexp(0, x[:, 2]), x[:, 0], scale)
    mean = np.exp(x[:, 0])
    if name == "poisson":
        return stats.poisson(mean)
    r = np.exp(x[:, 1])
    return stats.nbinom(r, r / (r + mean))
