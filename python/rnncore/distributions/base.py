"""What a head is: numbers of a network read as the distribution of a value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_float, as_shape, check_count, check_size
from ..init import Seed
from ..losses.base import Loss, Terms
from ..module import Pullback

#: Beyond this many standard deviations nothing is told apart: squares stay finite in float64.
FAR = 1e100
#: Larger numbers count as this one, so that sums and products of a few stay finite.
_LARGEST = 1e300
#: Raw numbers below this count as it: `softplus` of it is 2e-35.
LOWEST = -80.0


class Distribution(Loss):
    """A head: the distribution of each value, from `outputs` numbers of a network.

    As a loss it is -log p(target), with x `(..., K * outputs)` and targets `(..., K)`: the numbers
    of one value lie beside each other. The mask has the leading axes of the targets, up to all. It
    computes in float64, and no finite x and targets make NaN or an infinite gradient: what dtype
    does not hold is cut to its largest number.

    A subclass names the `outputs` of one value, and defines `_log_probs` and `_quantiles` over rows
    `(N, outputs)`, and `_samples`.
    """

    #: How many numbers of the network make the distribution of one value.
    outputs: int = 1
    #: Whether values are counts, 0, 1, ...
    counts: bool = False
    _x = "x"

    def width(self, values: int = 1) -> int:
        """How many outputs a network needs for so many values: `Linear(hidden, width(K))`."""
        return self.outputs * check_size("values", values)

    def vjp(
        self, x: npt.ArrayLike, targets: npt.ArrayLike, mask: npt.ArrayLike | None = None
    ) -> tuple[float, Pullback]:
        """Return the loss and the pullback from dloss to dx."""
        x = as_float(self._x, x)
        loss, pullback = super().vjp(self._grouped(x), targets, mask)
        return loss, lambda dloss=1.0: pullback(dloss).reshape(x.shape)

    def log_prob(self, x: npt.ArrayLike, targets: npt.ArrayLike) -> Array:
        """Return log p(target), `(..., K)`: of counts the probability's, else the density's."""
        x = self._grouped(as_float(self._x, x))
        targets = self._check_targets(x, targets)[0]
        with np.errstate(all="ignore"):
            rows = self._log_densities(*self._wide(x, targets))
        return _held(rows, x.dtype).reshape(x.shape[:-1])

    def quantile(self, x: npt.ArrayLike, p: npt.ArrayLike) -> Array:
        """Return the quantiles p in (0, 1): `(..., K)` of a number, `(..., K, P)` of some `(P,)`.

        Of counts, the least number whose cumulative probability is at least p.
        """
        x = self._grouped(as_float(self._x, x))
        levels = np.asarray(p, np.float64)
        if levels.ndim > 1 or not np.all((levels > 0) & (levels < 1)):
            raise ValueError(f"p must be a number in (0, 1) or some of them (P,), got {p!r}")
        with np.errstate(all="ignore"):
            rows = self._quantiles(self._wide(x)[0], levels.reshape(-1))
        return _held(rows, x.dtype).reshape(*x.shape[:-1], *rows.shape[1:-1], *levels.shape)

    def sample(self, x: npt.ArrayLike, size: int | None = None, seed: Seed = None) -> Array:
        """Draw values `(..., K)`, or `(size, ..., K)`; `seed` is an integer or a generator."""
        x = self._grouped(as_float(self._x, x))
        rng, number = np.random.default_rng(seed), 1 if size is None else check_count("size", size)
        with np.errstate(all="ignore"):
            rows = self._samples(self._wide(x)[0], (number, math.prod(x.shape[:-1])), rng)
        drawn = _held(rows, x.dtype).reshape(number, *x.shape[:-1], *rows.shape[2:])
        return drawn[0] if size is None else drawn

    def at_level(self, x: Array, level: Array) -> Array:
        """Return x such that the mean of counts is `level` times as large; others raise.

        x `(..., K * outputs)`, level broadcasts to `(..., K)`. The gradient of x is the same.
        """
        raise TypeError(f"{type(self).__name__} is no distribution of counts")

    def _grouped(self, x: Array) -> Array:
        """Return x as (..., K, outputs)."""
        if x.ndim < 1 or x.shape[-1] % self.outputs:
            raise ValueError(
                f"x must have {self.outputs} numbers for each value along its last axis, "
                f"got shape {x.shape}"
            )
        return x.reshape(*x.shape[:-1], x.shape[-1] // self.outputs, self.outputs)

    def _check_targets(self, x: Array, targets: npt.ArrayLike) -> tuple[Array, ...]:
        return (as_shape("targets", targets, x.dtype, x.shape[:-1], f"{self._x} is"),)

    def _check_mask(self, x: Array, mask: npt.ArrayLike) -> Array:
        found = super()._check_mask(x, mask)
        if found.ndim == x.ndim:
            raise ValueError(f"mask must have leading axes of {x.shape[:-1]}, got {found.shape}")
        return found

    def _wide(self, x: Array, *beside: Array) -> list[Array]:
        """Return rows (N, outputs) and values (N, ...) in float64."""
        parts = (part.reshape(-1, *part.shape[x.ndim - 1 :]) for part in (x, *beside))
        return [np.clip(part, -_LARGEST, _LARGEST, dtype=np.float64) for part in parts]

    def _terms(self, x: Array, *beside: Array) -> Terms:
        shape, dtype = x.shape, x.dtype
        with np.errstate(all="ignore"):
            values, slopes = self._log_probs(*self._wide(x, beside[0]))

        def backward(scale: float) -> Array:
            with np.errstate(all="ignore"):
                return _held(-scale * slopes, dtype).reshape(shape)

        return Terms(-values.reshape(shape[:-1]), backward)

    def _log_probs(self, x: Array, values: Array) -> tuple[Array, Array]:
        """Return log p (N,) of values (N,), and its slopes (N, outputs) along x (N, outputs)."""
        raise NotImplementedError

    def _log_densities(self, x: Array, values: Array) -> Array:
        """Return log p (N,) of values (N,), where that is not what the loss sums."""
        return self._log_probs(x, values)[0]

    def _quantiles(self, x: Array, p: Array) -> Array:
        """Return the quantiles p (P,) of each row, (N, P)."""
        raise NotImplementedError

    def _samples(self, x: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        """Draw values of this shape (size, N)."""
        raise NotImplementedError


def standardised(values: Array, loc: Array, scale: Array) -> Array:
    """Return (value - loc) / scale, within +-`FAR`."""
    return np.clip((values - loc) / scale, -FAR, FAR)


def _held(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array of this dtype; what is too large becomes its largest number."""
    most = float(np.finfo(dtype).max)
    return np.clip(array, -most, most).astype(dtype)
