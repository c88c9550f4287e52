"""Special functions of the distributions, in NumPy and float64, under SciPy's names.

Errors are some 1e-13 relative where the value is not near zero. Arguments are broadcast arrays
of float64. Sources: NIST Digital Library of Mathematical Functions (DLMF), sections as named.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from ..arrays import Array

_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)
#: From here on the asymptotic series have all digits.
_LARGE = 8.0
#: B_2k / (2k (2k - 1)) of log gamma, and B_2k / (2k) of digamma (DLMF 5.11.1, 5.11.2).
_LOG_GAMMA = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
#: One by one, and still faster than a continued fraction over arrays.
_erfc = np.frompyfunc(math.erfc, 1, 1)
_TINY, _EPS, _MOST_TERMS = 1e-300, 1e-16, 20_000


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return np.logaddexp(0, x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow: the slope of `softplus`."""
    small = np.exp(-np.abs(x))
    found: Array = np.where(x >= 0, 1.0, small) / (1 + small)
    return found


def _horner(inverse_square: Array, coefficients: tuple[float, ...]) -> Array:
    total = np.zeros_like(inverse_square)
    for coefficient in reversed(coefficients):
        total = total * inverse_square + coefficient
    return total


def _correction(x: Array) -> Array:
    """What Stirling's formula lacks, for large x."""
    inverse = 1 / x
    return _horner(inverse * inverse, _LOG_GAMMA) * inverse


def gammaln(x: Array) -> Array:
    """log gamma(x), x > 0."""
    small = x < _LARGE
    near = np.where(small, x, 1.0)
    product = np.ones_like(near)
    for k in range(int(_LARGE)):
        product = product * (near + k)
    z = np.where(small, x + _LARGE, x)
    found: Array = (z - 0.5) * np.log(z) - z + _HALF_LOG_2PI + _correction(z)
    return found - np.where(small, np.log(product), 0.0)


def digamma(x: Array) -> Array:
    """The derivative of log gamma(x), x > 0."""
    small = x < _LARGE
    near = np.where(small, x, 1.0)
    shift = np.zeros_like(near)
    for k in range(int(_LARGE)):
        shift = shift + 1 / (near + k)
    z = np.where(small, x + _LARGE, x)
    square = (1 / z) * (1 / z)
    found: Array = np.log(z) - 0.5 / z - square * _horner(square, _DIGAMMA)
    return found - np.where(small, shift, 0.0)


def log_rising(x: Array, y: Array) -> Array:
    """log gamma(x + y) - log gamma(x), x > 0 and y >= 0, with the digits that large x leave."""
    large = x >= _LARGE
    z = np.where(large, x, _LARGE)
    steps = (z - 0.5) * np.log1p(y / z) + y * (np.log(z + y) - 1)
    steps = steps + _correction(z + y) - _correction(z)
    return np.where(large, steps, gammaln(x + y) - gammaln(x))


def ndtr(z: Array) -> Array:
    """The probability that a standard normal number is at most z."""
    found: Array = 0.5 * np.asarray(_erfc(-np.asarray(z) / math.sqrt(2)), np.float64)
    return found


def ndtri(p: Array) -> Array:
    """The standard normal quantile of each p in (0, 1), by the standard library."""
    inverse = NormalDist().inv_cdf
    return np.array([inverse(float(one)) for one in np.ravel(p)]).reshape(np.shape(p))


def gammaincc(a: Array, x: Array) -> Array:
    """The regularised upper incomplete gamma function Q(a, x), a > 0 and x >= 0.

    The series below the mean, the continued fraction beyond (DLMF 8.7.1, 8.9.2, by Lentz's method).
    """
    a, x = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(x, np.float64))
    with np.errstate(all="ignore"):
        front = np.exp(a * np.log(x) - x - gammaln(a))
        below = x < a + 1
        lower = front * _gamma_series(np.where(below, a, 1.0), np.where(below, x, 0.0))
        at = np.where(below, 2.0, x)
        upper = front * _gamma_fraction(np.where(below, 0.5, a), at)
        found = np.where(below, 1 - lower, upper)
    return np.clip(np.where(x == 0, 1.0, np.where(np.isinf(x), 0.0, found)), 0, 1)


def _gamma_series(a: Array, x: Array) -> Array:
    term = 1 / a
    total, at = term.copy(), a.copy()
    for _ in range(_MOST_TERMS):
        at = at + 1
        term = term * x / at
        total = total + term
        if np.all(term <= total * _EPS):
            break
    return total


def _gamma_fraction(a: Array, x: Array) -> Array:
    def term(n: int) -> tuple[Array, Array]:
        return -n * (n - a), x + 2 * n + 1 - a

    return 1 / _lentz(x + 1 - a, term)


def betainc(a: Array, b: Array, x: Array) -> Array:
    """The regularised incomplete beta function I_x(a, b), a and b > 0, x in [0, 1].

    By the continued fraction of DLMF 8.17.22, on the side where it converges fast.
    """
    arrays = (np.asarray(part, np.float64) for part in (a, b, x))
    a, b, x = np.broadcast_arrays(*arrays)
    with np.errstate(all="ignore"):
        turned = x > (a + 1) / (a + b + 2)
        p, q = np.where(turned, b, a), np.where(turned, a, b)
        y = np.where(turned, 1 - x, x)
        log_beta = gammaln(np.minimum(p, q)) - log_rising(np.maximum(p, q), np.minimum(p, q))
        front = np.exp(p * np.log(y) + q * np.log1p(-y) - log_beta) / p
        found = front / _lentz(np.ones_like(y), lambda n: (_beta_term(p, q, y, n), 1.0))
        found = np.where(y == 0, 0.0, found)
    return np.clip(np.where(turned, 1 - found, found), 0, 1)


def _beta_term(a: Array, b: Array, x: Array, n: int) -> Array:
    m = n // 2
    found: Array
    if n % 2:
        found = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    else:
        found = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    return found


def _lentz(first: Array, term: Callable[[int], tuple[Array, Array | float]]) -> Array:
    """b0 + a1 / (b1 + a2 / (b2 + ...)) by the modified method of Lentz (DLMF 3.10)."""
    found = np.where(first == 0, _TINY, first)
    c, d, going = found, np.zeros_like(found), np.ones(found.shape, bool)
    for n in range(1, _MOST_TERMS):
        a, b = term(n)
        d = b + a * d
        d = 1 / np.where(d == 0, _TINY, d)
        c = b + a / c
        c = np.where(c == 0, _TINY, c)
        step = c * d
        # What has converged stays as it is: a row has the same bits in any batch.
        found = np.where(going, found * step, found)
        going &= np.abs(step - 1) > _EPS * 4
        if not going.any():
            break
    return found


def invert(
    cdf: Callable[[Array], Array],
    pdf: Callable[[Array], Array],
    p: Array,
    start: Array,
    step: Array,
) -> Array:
    """The x at which an increasing cdf reaches p: brackets from `start` by steps, then Newton.

    Where a step of Newton's leaves the bracket, it is halved.
    """
    low, high, least = start - step, start + step, 1e-17 * step
    for _ in range(1100):
        below, above = cdf(low) > p, cdf(high) < p
        if not (below.any() or above.any()):
            break
        low = np.where(below, low - step, low)
        high = np.where(above, high + step, high)
        step = step * 2
    x: Array = low + (high - low) / 2
    going = np.ones(x.shape, bool)
    for _ in range(1100):
        error = cdf(x) - p
        low, high = np.where(error < 0, x, low), np.where(error < 0, high, x)
        next_x = x - error / pdf(x)
        inside = (next_x > low) & (next_x < high)
        next_x = np.where(inside, next_x, low + (high - low) / 2)
        moved = np.abs(next_x - x)
        x = np.where(going, next_x, x)
        going &= ~((moved <= 4e-16 * np.abs(x) + least) | (high - low <= least))
        if not going.any():
            break
    return x
