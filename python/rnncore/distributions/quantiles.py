"""Quantiles as a head: the pinball loss of some levels, which cross or cannot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Array
from ..losses.base import Terms
from .base import FAR, Distribution
from .special import ndtri, softplus

_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)
#: The 95 % interval, the median, and what lies between.
LEVELS = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)


class Quantiles(Distribution):
    """The quantiles of each value at `levels`, increasing numbers in (0, 1).

        l(y) = mean_k max(p_k (y - q_k), (p_k - 1) (y - q_k))

    The pinball loss (Koenker and Bassett 1978), `losses.Pinball` with a mean over levels. Unless
    `crossing`, they are ordered by construction: the level nearest to the median is x itself, and
    each further one lies softplus(x_k) beyond the one before it. With `crossing` q is x, and
    sorted where it is read (Chernozhukov et al. 2010).

    Between the levels and beyond them, the value is a piecewise linear function of a standard
    normal number, through the quantiles: that is what `sample`, `quantile` and `log_prob` take the
    distribution for. x `(..., K * Q)`, targets `(..., K)`.
    """

    def __init__(
        self, levels: Sequence[float] = LEVELS, crossing: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        found = np.array(levels, np.float64)
        inside = found.ndim == 1 and len(found) and np.all(np.diff(found, prepend=0, append=1) > 0)
        if not inside:
            raise ValueError(f"levels must be increasing numbers in (0, 1), got {levels!r}")
        self.levels, self.crossing = found, bool(crossing)
        self.outputs = len(found)
        self._middle = int(np.argmin(np.abs(found - 0.5)))

    def _ordered(self, x: Array, steps: Array) -> Array:
        """Return the quantiles (N, Q) of raw numbers (N, Q), and of the softplus of these."""
        if self.crossing:
            return x
        found = x.copy()
        for at in range(self._middle + 1, self.outputs):
            np.add(found[:, at - 1], steps[:, at], out=found[:, at])
        for at in range(self._middle - 1, -1, -1):
            np.subtract(found[:, at + 1], steps[:, at], out=found[:, at])
        return found

    def _pulled(self, sigmoids: Array, slopes: Array) -> Array:
        """Return slopes along x, of slopes along the quantiles; overwrites these."""
        middle, total = self._middle, slopes.sum(axis=1)
        for at in range(self.outputs - 2, middle, -1):
            slopes[:, at] += slopes[:, at + 1]
        for at in range(1, middle):
            slopes[:, at] += slopes[:, at - 1]
        slopes[:, middle + 1 :] *= sigmoids[:, middle + 1 :]
        slopes[:, :middle] *= -sigmoids[:, :middle]
        slopes[:, middle] = total
        return slopes

    def _terms(self, x: Array, *beside: Array) -> Terms:
        # In x's own dtype: nothing is squared, and this is computed for every level of every value.
        raw, dtype = x.reshape(-1, self.outputs), x.dtype
        small = np.exp(-np.abs(raw))
        quantiles = self._ordered(raw, np.maximum(raw, 0) + np.log1p(small))
        error = beside[0].reshape(-1, 1) - quantiles
        slope = (self.levels.astype(dtype) - (error < 0)) / dtype.type(self.outputs)
        values = np.einsum("nq,nq->n", slope, error)

        def backward(scale: float) -> Array:
            slopes = slope * dtype.type(-scale)
            if not self.crossing:
                sigmoids = np.where(raw >= 0, dtype.type(1), small) / (1 + small)
                slopes = self._pulled(sigmoids, slopes)
            dx: Array = slopes.reshape(x.shape)
            return dx

        return Terms(values.reshape(x.shape[:-1]), backward)

    def _log_densities(self, x: Array, values: Array) -> Array:
        # Where neighbouring quantiles are equal there are steps, of the largest finite density.
        quantiles, knots = self._lines(x)
        at = np.clip((quantiles < values[:, None]).sum(axis=1) - 1, 0, len(knots) - 2)
        row = np.arange(len(x))
        width = np.maximum(quantiles[row, at + 1] - quantiles[row, at], np.finfo(float).tiny)
        slope = (knots[at + 1] - knots[at]) / width
        z = np.clip(knots[at] + slope * (values - quantiles[row, at]), -FAR, FAR)
        found: Array = -0.5 * z * z - _HALF_LOG_2PI + np.log(slope)
        return found

    def _lines(self, x: Array) -> tuple[Array, Array]:
        """Return quantiles (N, L) and normal numbers (L,) that the function goes through."""
        found, knots = np.sort(self._ordered(x, softplus(x)), axis=1), ndtri(self.levels)
        if len(knots) == 1:  # a single quantile is all that is known
            return np.repeat(found, 2, axis=1), np.array([knots[0] - 1, knots[0] + 1])
        return found, knots

    def _at(self, x: Array, z: Array) -> Array:
        """Return the values (S, N) that belong to normal numbers (S, N)."""
        quantiles, knots = self._lines(x)
        at = np.clip(np.searchsorted(knots, z) - 1, 0, len(knots) - 2)
        row = np.arange(len(x))
        low, high = quantiles[row, at], quantiles[row, at + 1]
        share = (z - knots[at]) / (knots[at + 1] - knots[at])
        # Exact at both ends.
        found: Array = np.where(share == 1, high, low + share * (high - low))
        return found

    def _quantiles(self, x: Array, p: Array) -> Array:
        return self._at(x, np.broadcast_to(ndtri(p)[:, None], (len(p), len(x)))).T

    def _samples(self, x: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        return self._at(x, rng.standard_normal(shape))
