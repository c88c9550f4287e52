"""Mixtures of Gaussians: of one number, and of the steps of a pen."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_shape, check_size
from .base import Distribution, standardised
from .location_scale import positive
from .special import invert, ndtr, sigmoid, softplus

_LOG_2PI = math.log(2 * math.pi)
#: Raw correlations beyond +-8 count as that: 1 - rho^2 is at least 4.5e-7.
_CORRELATION = 8.0


class GaussianMixture(Distribution):
    """A mixture of Gaussians (Bishop 1994, "Mixture Density Networks", equations 22 to 26).

        p(y) = sum_m weight_m N(y; loc_m, scale_m)

    x `(..., K * 3 M)`: of each value the M logits of the weights, the M locations, and the M raw
    scales, whose softplus the scales are. Targets `(..., K)`.
    """

    def __init__(self, components: int = 3, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.components = check_size("components", components)
        self.outputs = 3 * self.components

    def _split(self, x: Array) -> tuple[Array, Array, Array]:
        m = self.components
        return x[:, :m], x[:, m : 2 * m], x[:, 2 * m :]

    def _log_probs(self, x: Array, values: Array) -> tuple[Array, Array]:
        logits, loc, raw = self._split(x)
        scale, slope = positive(raw)
        z = standardised(values[:, None], loc, scale)
        log_n = -0.5 * z * z - np.log(scale) - 0.5 * _LOG_2PI
        log_p, weight, share = _mixed(logits, log_n)
        slopes = [share - weight, share * (z / scale), share * ((z * z - 1) / scale * slope)]
        return log_p, np.concatenate(slopes, -1)

    def _quantiles(self, x: Array, p: Array) -> Array:
        logits, loc, raw = self._split(x)
        return _mixture_quantiles(_softmax(logits), loc, positive(raw)[0], p)

    def _samples(self, x: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        logits, loc, raw = self._split(x)
        which = _drawn(_softmax(logits), shape, rng)
        rows = np.arange(len(x))
        return loc[rows, which] + positive(raw)[0][rows, which] * rng.standard_normal(shape)


class PenStrokes(Distribution):
    """A mixture of correlated Gaussians of two numbers, and whether the pen is lifted after them.

    Graves 2013, "Generating Sequences With Recurrent Neural Networks", equations 15 to 25:

        p(dx, dy, end) = sum_m weight_m N(dx, dy; loc_m, scale_m, rho_m) p_end(end)

    x `(..., 1 + 6 M)`: the logit of `end`, and of the M components logits of the weights,
    locations of dx, of dy, raw scales of dx, of dy (softplus), raw correlations (rho = tanh).
    Without `pen` it is `(..., 6 M)`. Targets `(..., 3)`: dx, dy, and end in 0..1; without `pen`
    `(..., 2)`.
    `log_prob` is `(...)`, `sample` `(..., 3)`, `quantile` that of dx and of dy, each for itself,
    `(..., 2, P)`.
    """

    def __init__(self, components: int = 20, pen: bool = True, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.components, self.pen = check_size("components", components), bool(pen)
        self.outputs = int(self.pen) + 6 * self.components

    def _grouped(self, x: Array) -> Array:
        if x.ndim < 1 or x.shape[-1] != self.outputs:
            raise ValueError(f"x must have shape (..., {self.outputs}), got {x.shape}")
        return x

    def width(self, values: int = 1) -> int:
        """How many outputs a network needs; there is one pen."""
        if values != 1:
            raise ValueError(f"values must be 1, for there is one pen, got {values}")
        return self.outputs

    def counted(self, targets: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> float:
        """Return what the mean divides by: how many steps of the pen count."""
        return super().counted(np.asarray(targets)[..., 0], mask)

    def _check_targets(self, x: Array, targets: npt.ArrayLike) -> tuple[Array, ...]:
        shape = (*x.shape[:-1], 2 + self.pen)
        return (as_shape("targets", targets, x.dtype, shape),)

    def _counting(self, x: Array, targets: Array, mask: npt.ArrayLike | None) -> Array | None:
        # The targets have an axis of their own behind those of the rows.
        return super()._counting(x, targets, np.ones(x.shape[:-1], bool) if mask is None else mask)

    def _parts(self, x: Array) -> list[Array]:
        """Return logits, both locations, both raw scales, raw correlations: (N, M) each."""
        return np.split(x[:, int(self.pen) :], 6, axis=1)

    def _log_probs(self, x: Array, values: Array) -> tuple[Array, Array]:
        logits, loc_x, loc_y, raw_x, raw_y, raw_rho = self._parts(x)
        (scale_x, slope_x), (scale_y, slope_y) = positive(raw_x), positive(raw_y)
        zx = standardised(values[:, :1], loc_x, scale_x)
        zy = standardised(values[:, 1:2], loc_y, scale_y)
        rho, inverse, log_root = _correlation(raw_rho)
        ax, ay = inverse * (zx - rho * zy), inverse * (zy - rho * zx)
        square = (zx - rho * zy) * ax + zy * zy  # (zx^2 + zy^2 - 2 rho zx zy) / (1 - rho^2)
        log_n = -0.5 * square - np.log(scale_x) - np.log(scale_y) - _LOG_2PI - log_root
        log_p, weight, share = _mixed(logits, log_n)
        inside = np.abs(raw_rho) <= _CORRELATION
        drho = np.where(inside, zx * zy + rho * (1 - square), 0.0)
        slopes = [
            share - weight,
            share * (ax / scale_x),
            share * (ay / scale_y),
            share * ((zx * ax - 1) / scale_x * slope_x),
            share * ((zy * ay - 1) / scale_y * slope_y),
            share * drho,
        ]
        if self.pen:
            end = values[:, 2]
            if end.size and not (end.min() >= 0 and end.max() <= 1):
                raise ValueError(f"end must be in [0, 1], got {end.min()} to {end.max()}")
            log_p = log_p + end * x[:, 0] - softplus(x[:, 0])
            slopes.insert(0, (end - sigmoid(x[:, 0]))[:, None])
        return log_p, np.concatenate(slopes, -1)

    def _quantiles(self, x: Array, p: Array) -> Array:
        logits, loc_x, loc_y, raw_x, raw_y, _ = self._parts(x)
        weight = _softmax(logits)
        both = ((loc_x, positive(raw_x)[0]), (loc_y, positive(raw_y)[0]))
        return np.stack([_mixture_quantiles(weight, *one, p) for one in both], axis=1)

    def _samples(self, x: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        logits, loc_x, loc_y, raw_x, raw_y, raw_rho = self._parts(x)
        at = np.arange(len(x)), _drawn(_softmax(logits), shape, rng)
        rho, _, log_root = _correlation(raw_rho[at])
        zx, other = rng.standard_normal((2, *shape))
        zy = rho * zx + np.exp(log_root) * other
        drawn = [loc_x[at] + positive(raw_x)[0][at] * zx, loc_y[at] + positive(raw_y)[0][at] * zy]
        if self.pen:
            drawn.append((rng.random(shape) < sigmoid(x[:, 0])).astype(np.float64))
        return np.stack(drawn, -1)


def _correlation(raw: Array) -> tuple[Array, Array, Array]:
    """Return rho, 1 / (1 - rho^2), and log(1 - rho^2) / 2, without cancellation."""
    raw = np.clip(raw, -_CORRELATION, _CORRELATION)
    log_root = -np.log(np.cosh(raw))
    return np.tanh(raw), np.cosh(raw) ** 2, log_root


def _softmax(logits: Array) -> Array:
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Array = weight / weight.sum(axis=1, keepdims=True)
    return found


def _mixed(logits: Array, log_n: Array) -> tuple[Array, Array, Array]:
    """Return log p (N,), the weights and the shares of components in it (N, M)."""
    weight = _softmax(logits)
    top = logits.max(axis=1, keepdims=True)
    log_weight = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    joint = log_weight + log_n
    most = joint.max(axis=1, keepdims=True)
    share = np.exp(joint - most)
    total = share.sum(axis=1, keepdims=True)
    log_p: Array = (most + np.log(total))[:, 0]
    return log_p, weight, share / total


def _drawn(weight: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Draw components (size, N) by weights (N, M)."""
    ends = np.cumsum(weight, axis=1)[:, :-1]
    found: Array = (rng.random(shape)[..., None] >= ends).sum(axis=-1)
    return found


def _mixture_quantiles(weight: Array, loc: Array, scale: Array, p: Array) -> Array:
    """Return the quantiles p (P,) of mixtures (N, M), one number each: (N, P)."""
    most = scale.max(axis=1, keepdims=True)

    def cdf(y: Array) -> Array:
        z = (y[..., None] - loc[:, None]) / scale[:, None]
        found: Array = (weight[:, None] * ndtr(np.clip(z, -40, 40))).sum(axis=-1)
        return found

    def pdf(y: Array) -> Array:
        z = np.clip((y[..., None] - loc[:, None]) / scale[:, None], -40, 40)
        density = np.exp(-0.5 * z * z - 0.5 * _LOG_2PI) / scale[:, None]
        found: Array = (weight[:, None] * density).sum(axis=-1)
        return found

    start = np.broadcast_to((weight * loc).sum(axis=1, keepdims=True), (len(loc), len(p)))
    shape = start.shape
    return invert(cdf, pdf, np.broadcast_to(p, shape), start, np.broadcast_to(most, shape))
