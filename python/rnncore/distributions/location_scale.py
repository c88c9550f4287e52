"""Distributions with a location and a scale: Gaussian, Student's t."""

from __future__ import annotations

import numpy as np

from ..arrays import Array
from .base import LOWEST, Distribution, standardised
from .special import betainc, digamma, invert, log_rising, ndtri, sigmoid, softplus

_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)
#: Degrees of freedom from which quantiles are an expansion's, whose error is some 1e-12.
_MANY = 1e4


class Gaussian(Distribution):
    """The normal distribution: loc = x_0, scale = softplus(x_1).

        log p(y) = -z^2 / 2 - log scale - log(2 pi) / 2,  z = (y - loc) / scale

    x `(..., K * 2)`, targets `(..., K)`. Raw scales below -80 count as -80.
    """

    outputs = 2

    def _log_probs(self, x: Array, values: Array) -> tuple[Array, Array]:
        scale, slope = positive(x[:, 1])
        z = standardised(values, x[:, 0], scale)
        log_p = -0.5 * z * z - np.log(scale) - _HALF_LOG_2PI
        return log_p, np.stack([z / scale, (z * z - 1) / scale * slope], -1)

    def _quantiles(self, x: Array, p: Array) -> Array:
        found: Array = x[:, :1] + positive(x[:, 1:])[0] * ndtri(p)
        return found

    def _samples(self, x: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        return x[:, 0] + positive(x[:, 1])[0] * rng.standard_normal(shape)


class StudentT(Distribution):
    """Student's t distribution: loc = x_0, scale = softplus(x_1), df = 2 + softplus(x_2).

        log p(y) = log gamma((df + 1) / 2) - log gamma(df / 2) - log(df pi) / 2 - log scale
                   - (df + 1) / 2 log(1 + z^2 / df),  z = (y - loc) / scale

    More than two degrees of freedom, so that the variance is finite, as in DeepAR's heavy-tailed
    likelihood. x `(..., K * 3)`, targets `(..., K)`. Raw scales below -80 count as -80.
    """

    outputs = 3

    def _log_probs(self, x: Array, values: Array) -> tuple[Array, Array]:
        scale, slope = positive(x[:, 1])
        df = 2 + softplus(x[:, 2])
        z = standardised(values, x[:, 0], scale)
        square, half = z * z, df / 2
        tail = np.log1p(square / df)
        log_p = log_rising(half, np.full_like(half, 0.5)) - 0.5 * np.log(df * np.pi)
        log_p = log_p - np.log(scale) - (half + 0.5) * tail
        share = square / (df + square)  # in 0..1
        dz = -(df + 1) * (z / (df + square))
        ddf = digamma(half + 0.5) - digamma(half) - 1 / df - tail + share * (df + 1) / df
        slopes = [-dz / scale, (share * (df + 1) - 1) / scale * slope, ddf / 2 * sigmoid(x[:, 2])]
        return log_p, np.stack(slopes, -1)

    def _quantiles(self, x: Array, p: Array) -> Array:
        df = np.broadcast_to(2 + softplus(x[:, 2:]), (len(x), len(p)))
        # Symmetric: of the upper half, by the tail's probability.
        tail = np.broadcast_to(np.minimum(p, 1 - p), df.shape)
        few, zero = np.minimum(df, _MANY), np.zeros(df.shape)
        top = np.exp(log_rising(few / 2, zero + 0.5)) / np.sqrt(few * np.pi)

        def pdf(z: Array) -> Array:
            found: Array = top * np.exp(-(few + 1) / 2 * np.log1p(z * z / few))
            return found

        z = -invert(lambda z: _tail(-z, few), pdf, tail, zero, zero + 1)
        z = np.where(df < _MANY, z, _near_normal(-ndtri(np.minimum(p, 1 - p)), df))
        z = z * np.where(p < 0.5, -1, p > 0.5)
        found: Array = x[:, :1] + positive(x[:, 1:2])[0] * z
        return found

    def _samples(self, x: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        df = 2 + softplus(x[:, 2])
        return x[:, 0] + positive(x[:, 1])[0] * rng.standard_t(df, shape)


def _near_normal(z: Array, df: Array) -> Array:
    """The quantile of many degrees of freedom (Abramowitz and Stegun 1964, 26.7.5)."""
    cube, fifth = z**3, z**5
    found: Array = z + (cube + z) / (4 * df) + (5 * fifth + 16 * cube + 3 * z) / (96 * df * df)
    return found


def _tail(z: Array, df: Array) -> Array:
    """The probability of more than z >= 0; of less, 1."""
    return np.where(z < 0, 1.0, 0.5 * betainc(df / 2, np.full(df.shape, 0.5), df / (df + z * z)))


def positive(x: Array) -> tuple[Array, Array]:
    """Return softplus(x), at least that of `LOWEST`, and its slope."""
    return softplus(np.maximum(x, LOWEST)), sigmoid(x)
