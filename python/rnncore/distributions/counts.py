"""Distributions of counts: Poisson, negative binomial."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..arrays import Array
from .base import Distribution
from .special import betainc, digamma, gammaincc, gammaln, log_rising, ndtri

#: Logarithms of means beyond +-600, and of shapes beyond +-20, count as these.
_LOG_MEAN, _LOG_SHAPE = 600.0, 20.0
#: Means from here on have the quantiles of the limit: sums of probabilities would take too long.
_LARGE_MEAN = 1e5


class Counts(Distribution):
    """Base of distributions over 0, 1, ... whose first number is the logarithm of the mean.

    Targets are at least 0. What is no whole number has the formula's value, too, so that scaled
    counts can be learnt.
    """

    counts = True

    def at_level(self, x: Array, level: Array) -> Array:
        """Return x such that the mean is `level` times as large."""
        grouped = np.array(self._grouped(x))
        grouped[..., 0] += np.log(level)
        return grouped.reshape(x.shape)

    def _log_probs(self, x: Array, values: Array) -> tuple[Array, Array]:
        if np.any(values < 0):
            raise ValueError(f"targets must be at least 0, got {values.min()}")
        return self._log_masses(x, values)

    def _log_masses(self, x: Array, values: Array) -> tuple[Array, Array]:
        raise NotImplementedError


class Poisson(Counts):
    """The Poisson distribution: mean = exp(x_0).

        log p(y) = y log mean - mean - log y!

    x `(..., K)`, targets `(..., K)`, at least 0.
    """

    outputs = 1

    def _log_masses(self, x: Array, values: Array) -> tuple[Array, Array]:
        log_mean, mean = _mean(x[:, 0])
        log_p = values * log_mean - mean - gammaln(values + 1)
        return log_p, (values - mean)[:, None]

    def _quantiles(self, x: Array, p: Array) -> Array:
        mean = np.broadcast_to(_mean(x[:, :1])[1], (len(x), len(p)))
        # Cornish and Fisher's expansion to the skewness, which has the digits of large means.
        z = np.broadcast_to(ndtri(p), mean.shape)
        limit = mean + np.sqrt(mean) * z + (z * z - 1) / 6
        return _least(lambda k, m: gammaincc(k + 1, m), p, limit, mean)

    def _samples(self, x: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        return _poisson(np.broadcast_to(_mean(x[:, 0])[1], shape), rng)


class NegativeBinomial(Counts):
    """The negative binomial distribution: mean = exp(x_0), shape r = exp(x_1).

        log p(y) = log gamma(y + r) - log gamma(r) - log y!
                   + r log(r / (r + mean)) + y log(mean / (r + mean))

    Its variance is mean + mean^2 / r. DeepAR's likelihood of counts, whose alpha is 1 / r
    (Salinas et al. 2020, section 3.1). x `(..., K * 2)`, targets `(..., K)`, at least 0.
    """

    outputs = 2

    def _log_masses(self, x: Array, values: Array) -> tuple[Array, Array]:
        log_mean, mean = _mean(x[:, 0])
        log_r, r = _shape(x[:, 1])
        ratio = np.logaddexp(log_mean, log_r)  # log(r + mean)
        log_p = log_rising(r, values) - gammaln(values + 1)
        log_p = log_p + values * (log_mean - ratio) - r * np.log1p(mean / r)
        dmean = (values - mean) * np.exp(log_r - ratio)
        dr = digamma(r + values) - digamma(r) - np.log1p(mean / r)
        dr = r * dr + (mean - values) * np.exp(log_r - ratio)
        inside = np.abs(x[:, 1]) <= _LOG_SHAPE
        return log_p, np.stack([dmean, np.where(inside, dr, 0.0)], -1)

    def _quantiles(self, x: Array, p: Array) -> Array:
        shape = (len(x), len(p))
        mean = np.broadcast_to(_mean(x[:, :1])[1], shape)
        r = np.broadcast_to(_shape(x[:, 1:])[1], shape)
        return _least(
            lambda k, m, r: betainc(r, k + 1, r / (r + m)), p, _gamma_quantile(r, p, mean), mean, r
        )

    def _samples(self, x: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        mean, r = _mean(x[:, 0])[1], _shape(x[:, 1])[1]
        return _poisson(rng.gamma(np.broadcast_to(r, shape)) * (mean / r), rng)


def _mean(x: Array) -> tuple[Array, Array]:
    log_mean = np.clip(x, -_LOG_MEAN, _LOG_MEAN)
    return log_mean, np.exp(log_mean)


def _shape(x: Array) -> tuple[Array, Array]:
    log_r = np.clip(x, -_LOG_SHAPE, _LOG_SHAPE)
    return log_r, np.exp(log_r)


def _poisson(mean: Array, rng: np.random.Generator) -> Array:
    """Draw counts; of means that NumPy refuses, by the normal distribution."""
    most = 1e15
    drawn = rng.poisson(np.minimum(mean, most)).astype(np.float64)
    normal = np.round(mean + np.sqrt(mean) * rng.standard_normal(mean.shape))
    return np.where(mean < most, drawn, normal)


def _least(cdf: Callable[..., Array], p: Array, limit: Array, mean: Array, *beside: Array) -> Array:
    """The least count at which the cdf is at least p; of large means, from their limit.

    `limit`, `mean` and what is beside it are (N, P), and the cdf takes the last of them.
    """
    found: Array = np.maximum(np.ceil(limit), 0.0)
    small = mean < _LARGE_MEAN
    given = [part[small] for part in (mean, *beside)]
    wanted = np.broadcast_to(p, mean.shape)[small]
    low, high = np.full(wanted.shape, -1.0), np.ones(wanted.shape)
    while np.any(short := cdf(high, *given) < wanted):
        low, high = np.where(short, high, low), np.where(short, high * 2, high)
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        under = cdf(middle, *given) < wanted
        under &= high - low > 1
        low = np.where(under, middle, low)
        high = np.where(under | (high - low <= 1), high, middle)
    found[small] = high
    return found


def _gamma_quantile(r: Array, p: Array, mean: Array) -> Array:
    """The quantile of the gamma distribution that a negative binomial is near to for large means.

    It has the same mean and variance. Bisected in logarithms, in which quantiles are of one size.
    """
    r = 1 / (1 / r + 1 / np.maximum(mean, 1e-300))
    z = np.broadcast_to(ndtri(p), r.shape)
    near = np.minimum(r, _LARGE_MEAN)
    log_x = np.full(r.shape, -800.0)
    high = np.full(r.shape, 30.0)
    wanted = np.broadcast_to(p, r.shape)
    for _ in range(60 if np.any(mean >= _LARGE_MEAN) else 0):
        middle = (log_x + high) / 2
        under = 1 - gammaincc(near, np.exp(middle)) < wanted
        log_x, high = np.where(under, middle, log_x), np.where(under, high, middle)
    normal = 1 + z / np.sqrt(r)
    return mean * np.where(r < _LARGE_MEAN, np.exp(high) / near, normal)
