"""Pooling: the largest number or the mean of each window and channel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_float, as_lengths, as_shape, check_flag
from ..compiled import Windows, core
from ..module import Module, Pullback, once
from ..stream.base import Stream
from .sliding import Back, Slides, SlidesOverImages, SlidesOverTime
from .sums import summed
from .windows import axes_of, axis_of, for_pooling


class _Pools(Slides):
    """Windows of any number of channels."""

    #: Whether the largest number is taken, and whether padding counts in the mean.
    _kind: tuple[bool, bool]

    def _kernels(self, x: Array) -> Any:
        return core(x.dtype).Pooling(*self._kind)

    def _compute(self, x: Array, windows: Windows) -> Array:
        y: Array = self._kernels(x).forward(x, windows)
        return y

    def _record(self, x: Array, windows: Windows) -> tuple[Array, Back]:
        kernels = self._kernels(x)
        y: Array = kernels.forward(x, windows)
        return y, lambda dy: kernels.backward(x, y, dy, windows)


class _PoolsOverTime(_Pools, SlidesOverTime):
    causal = False
    looks_ahead = True

    def _slide(
        self,
        kernel_size: int,
        stride: int | None,
        padding: Any,
        dilation: int,
        ceil_mode: bool,
        batch_first: bool,
    ) -> None:
        super().__init__()
        stride = kernel_size if stride is None else stride
        axis = axis_of(kernel_size, stride, padding, dilation)
        (self.axis,) = for_pooling((axis,), ceil_mode)
        self.batch_first = check_flag("batch_first", batch_first)

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream; an output comes when its window is full."""
        if self.axis.before + self.axis.after:
            raise ValueError(f"a stream of {type(self).__name__} cannot be padded")
        return super().stream(batch)


class MaxPool1d(_PoolsOverTime):
    """The largest number of each channel among `kernel_size` frames, at every `stride`-th frame.

    x: `(T, B, C)`, `(B, T, C)` with `batch_first`, or `(T, C)`. stride: `kernel_size` if None.
    padding, dilation: as those of `Conv1d`; padding is at most half of `kernel_size` on each side,
    and never the largest. ceil_mode: a last window may be cut short by the end, if it begins before
    it. NaN is the largest; of equal numbers the first gets the gradient.
    """

    _kind = True, False
    _nothing = -np.inf

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int | tuple[int, int] | str = 0,
        dilation: int = 1,
        *,
        ceil_mode: bool = False,
        batch_first: bool = False,
    ) -> None:
        self._slide(kernel_size, stride, padding, dilation, ceil_mode, batch_first)


class AvgPool1d(_PoolsOverTime):
    """The mean of each channel over `kernel_size` frames, at every `stride`-th frame.

    As `MaxPool1d`; count_include_pad: whether padding counts as zeros, as in torch, or not at all.
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int | tuple[int, int] | str = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        batch_first: bool = False,
    ) -> None:
        self._slide(kernel_size, stride, padding, 1, ceil_mode, batch_first)
        self.count_include_pad = check_flag("count_include_pad", count_include_pad)
        self._kind = False, self.count_include_pad

    def _check_ragged(self) -> None:
        super()._check_ragged()
        padded = self.axis.before + self.axis.after
        if self.axis.ceil or (padded and not self.count_include_pad):
            raise ValueError(
                "lengths need ceil_mode=False, and no padding or count_include_pad=True"
            )


class _PoolsOverImages(_Pools, SlidesOverImages):
    def _slide(
        self, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> None:
        super().__init__()
        stride = kernel_size if stride is None else stride
        first, second = for_pooling(axes_of(kernel_size, stride, padding, dilation), ceil_mode)
        self.axes = first, second


class MaxPool2d(_PoolsOverImages):
    """The largest number of each channel in windows of pixels, as `MaxPool1d` along both axes.

    x: `(B, H, W, C)`, or `(H, W, C)` for one image: channels come last. kernel_size, stride,
    padding and dilation: given once, or for rows and columns.
    """

    _kind = True, False

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: Any = 0,
        dilation: int | tuple[int, int] = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self._slide(kernel_size, stride, padding, dilation, ceil_mode)


class AvgPool2d(_PoolsOverImages):
    """The mean of each channel over windows of pixels, as `AvgPool1d` along both axes.

    x: `(B, H, W, C)`, or `(H, W, C)` for one image: channels come last. kernel_size, stride and
    padding: given once, or for rows and columns.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self._slide(kernel_size, stride, padding, 1, ceil_mode)
        self.count_include_pad = check_flag("count_include_pad", count_include_pad)
        self._kind = False, self.count_include_pad


class _PoolsAll(Module):
    """Over all frames of a sequence, or all pixels of an image; one row for each."""

    takes_lengths = True
    keeps_steps = False
    looks_ahead = True

    def __init__(self, keepdims: bool = False, *, batch_first: bool = False) -> None:
        super().__init__()
        self.keepdims = check_flag("keepdims", keepdims)
        self.batch_first = check_flag("batch_first", batch_first)

    def _pool(self, rows: Array, alive: Array | None) -> tuple[Array, Back]:
        """Return y `(B, 1, C)` of rows `(B, N, C)` and the way back; alive: `(B, N, 1)` or all."""
        raise NotImplementedError

    def out_width(self, width: int | None) -> int | None:
        """Return how many channels y has."""
        return width

    def __call__(self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None) -> Array:
        """Return y `(B, C)`, with axes of size one in between if `keepdims`."""
        return self._run(x, lengths)[0]

    def vjp(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x."""
        y, back = self._run(x, lengths)
        return y, once(lambda dy: back(as_shape("dy", dy, y.dtype, y.shape)))

    def _run(self, x: npt.ArrayLike, lengths: Any) -> tuple[Array, Back]:
        array = as_float("x", x)
        if array.ndim not in (2, 3, 4):
            time = "B, T" if self.batch_first else "T, B"
            raise ValueError(
                f"x must have shape ({time}, C), (T, C) or (B, H, W, C), got {array.shape}"
            )
        if array.ndim == 4 and lengths is not None:
            raise ValueError("lengths must be None for images")
        turned = array.ndim == 3 and not self.batch_first
        batched = array.swapaxes(0, 1) if turned else array if array.ndim > 2 else array[None]
        rows = batched.reshape(len(batched), math.prod(batched.shape[1:-1]), batched.shape[-1])
        if not rows.shape[1]:
            raise ValueError(f"x must have at least one frame, got shape {array.shape}")
        ends = as_lengths(lengths, rows.shape[1], len(rows))
        alive = None if ends is None else np.arange(rows.shape[1]) < ends[:, None]
        y, back = self._pool(rows, None if alive is None else alive[..., None])

        def whole(dy: Array) -> Array:
            dx = back(dy.reshape(y.shape)).reshape(batched.shape)
            return dx.swapaxes(0, 1) if turned else dx.reshape(array.shape)

        return y.reshape(self._out_shape(array.shape)), whole

    def _out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        gone = {2: (0,), 3: (1 if self.batch_first else 0,), 4: (1, 2)}[len(shape)]
        kept = [1 if axis in gone else size for axis, size in enumerate(shape)]
        return tuple(s for axis, s in enumerate(kept) if self.keepdims or axis not in gone)


class GlobalMaxPool(_PoolsAll):
    """The largest number of each channel of a sequence or an image.

    x `(T, B, C)`, `(B, T, C)` with `batch_first`, `(T, C)` for one sequence, or images `(B, H, W,
    C)`; y `(B, C)`, or `(C,)`, or with axes of size one in their places with `keepdims`. lengths:
    `(B,)`, frames past them do not count. NaN is the largest; of equal numbers the first gets the
    gradient.
    """

    def _pool(self, rows: Array, alive: Array | None) -> tuple[Array, Back]:
        seen = rows if alive is None else np.where(alive, rows, rows.dtype.type(-np.inf))
        first = seen.argmax(axis=1)[:, None]

        def back(dy: Array) -> Array:
            dx = np.zeros_like(rows)
            np.put_along_axis(dx, first, dy, axis=1)
            return dx

        top: Array = np.take_along_axis(seen, first, axis=1)
        return top, back


class GlobalAvgPool(_PoolsAll):
    """The mean of each channel of a sequence or an image; as `GlobalMaxPool`."""

    def _pool(self, rows: Array, alive: Array | None) -> tuple[Array, Back]:
        steps = rows.shape[1] if alive is None else alive.sum(axis=1, keepdims=True)
        count, zero = np.asarray(steps, rows.dtype), rows.dtype.type(0)

        def back(dy: Array) -> Array:
            dx: Array = np.empty_like(rows)
            dx[...] = dy / count
            return dx if alive is None else np.where(alive, dx, zero)

        seen = rows if alive is None else np.where(alive, rows, zero)
        mean: Array = summed(seen)[:, None] / count
        return mean, back
