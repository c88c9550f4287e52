"""Activations as layers: those of the cells, and softmax. They compute in their input's dtype."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import compiled
from ..arrays import Array, as_float, as_shape, check_integer, short
from ..compiled import Pointwise, core
from ..module import Module, Pullback, once
from ..nonlinearities import SIGMOID, ActivationSpec, as_activation
from ..nonlinearities import Activation as Name
from ..stream.stages import Stage, Stages


@lru_cache(256)
def activation(spec: ActivationSpec, dtype: np.dtype[Any]) -> compiled.Activation:
    """Return the compiled activation; one number has the same bits wherever it stands."""
    return core(dtype).Activation(*spec)


@lru_cache(2)
def softmax(dtype: np.dtype[Any]) -> Pointwise:
    """Return the compiled softmax along the last axis."""
    return core(dtype).Softmax()


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), of a float32 or float64 array."""
    return activation(SIGMOID, x.dtype).forward(x)


class Activation(Module):
    """y = f(x), where dx follows from dy and y alone; the y that `vjp` returns is read-only."""

    pointwise = True

    def _kernels(self, dtype: np.dtype[Any]) -> Pointwise:
        """Return the compiled function of rows of this dtype."""
        raise NotImplementedError

    def _backward(self, dy: Array, y: Array) -> Array:
        """Return dx."""
        raise NotImplementedError

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled function, for frames of any width."""
        return Stages(None, None, [Stage(self._kernels(dtype))])

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        return width

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x."""
        x = as_float("x", x)
        return self._kernels(x.dtype).forward(x)

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps y."""
        y = self(x).view()
        y.flags.writeable = False

        def pullback(dy: npt.ArrayLike) -> Array:
            return self._backward(as_shape("dy", dy, y.dtype, y.shape), y)

        return y, once(pullback)


class Elementwise(Activation):
    """y = f(x), for any activation that a recurrent layer can have.

    activation: a name of `rnncore.nonlinearities.ACTIVATIONS`, (name, alpha) or (name, alpha,
    beta).
    """

    def __init__(self, activation: Name) -> None:
        super().__init__()
        self.activation = activation
        self.spec = as_activation("activation", activation)

    def _kernels(self, dtype: np.dtype[Any]) -> compiled.Activation:
        return activation(self.spec, dtype)

    def _backward(self, dy: Array, y: Array) -> Array:
        return self._kernels(y.dtype).backward(y, dy)


class Identity(Elementwise):
    """y = x, which is returned as it is."""

    def __init__(self) -> None:
        super().__init__("identity")

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return nothing to go through."""
        return Stages(None, None, [])

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return x."""
        return as_float("x", x)


class Tanh(Elementwise):
    """y = tanh(x)."""

    def __init__(self) -> None:
        super().__init__("tanh")


class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x))."""

    def __init__(self) -> None:
        super().__init__("sigmoid")


class ReLU(Elementwise):
    """y = max(x, 0)."""

    def __init__(self) -> None:
        super().__init__("relu")


class Softmax(Activation):
    """y = exp(x) / sum(exp(x)) along one axis."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = check_integer("axis", axis)
        if not -64 <= self.axis < 64:  # NumPy's arrays have no more
            raise ValueError(f"axis must be one that an array has, got {short(axis)}")
        self.pointwise = self.axis == -1

    def _kernels(self, dtype: np.dtype[Any]) -> Pointwise:
        return softmax(dtype)

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled function, for frames of any width."""
        if not self.pointwise:
            raise TypeError(f"Softmax cannot run as a stream over axis {self.axis}")
        return super().stages(batch, dtype)

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x."""
        x = as_float("x", x)
        return super().__call__(x.swapaxes(self.axis, -1)).swapaxes(self.axis, -1)

    def _backward(self, dy: Array, y: Array) -> Array:
        dx: Array = y * (dy - (dy * y).sum(axis=self.axis, keepdims=True))
        return dx


class GLU(Module):
    """y = a sigmoid(b), a and b being the halves of x along the last axis (Dauphin et al. 2017)."""

    pointwise = True

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        if width is not None and width % 2:
            raise ValueError(f"one gives {width} features, the next takes an even number")
        return None if width is None else width // 2

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y `(..., n)` for x `(..., 2 n)`."""
        a, b = self._halves(x)
        return a * sigmoid(b)

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x."""
        a, b = self._halves(x)
        gate = sigmoid(b)
        y = a * gate

        def pullback(dy: npt.ArrayLike) -> Array:
            d = as_shape("dy", dy, y.dtype, y.shape) * gate
            return np.concatenate((d, d * a * (1 - gate)), axis=-1)

        return y, once(pullback)

    def _halves(self, x: npt.ArrayLike) -> tuple[Array, Array]:
        array = as_float("x", x)
        if array.ndim < 1 or array.shape[-1] % 2:
            raise ValueError(f"x must have an even number of features, got shape {array.shape}")
        a, b = np.split(array, 2, axis=-1)
        return a, np.ascontiguousarray(b)
