"""What layers share that slide windows over sequences, or over images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_float, as_integers, as_lengths, as_shape
from ..compiled import Windows
from ..module import Module, Pullback, once
from ..stream.base import Stream
from ..stream.sliding import Sliding, SlidingAhead
from ..widths import check_width
from .windows import STILL, Axis, windows

#: The axes of x beside the channels, by how many x has.
TIME_MAJOR = {3: "T, B", 2: "T"}
BATCH_FIRST = {3: "B, T", 2: "T"}
IMAGES = {4: "B, H, W", 3: "H, W"}
#: What makes dx `(images, size, size, channels)` of dy.
Back = Callable[[Array], Array]


class Slides(Module):
    """A layer over x `(images, size, size, channels)`; subclasses say what x is to the caller."""

    #: Channels of x and of y; None: any number, as many.
    in_channels: int | None = None
    out_channels: int | None = None

    def _compute(self, x: Array, windows: Windows) -> Array:
        """Return y `(images, outputs, outputs, channels)`."""
        raise NotImplementedError

    def _record(self, x: Array, windows: Windows) -> tuple[Array, Back]:
        """Return y and the way back, which adds the gradients of parameters."""
        raise NotImplementedError

    def out_width(self, width: int | None) -> int | None:
        """Return how many channels y has."""
        if self.in_channels is not None:
            check_width(width, self.in_channels)
        return width if self.out_channels is None else self.out_channels

    def _checked(self, x: npt.ArrayLike, shapes: Mapping[int, str]) -> Array:
        """Return x as an array; shapes: what it may be by its number of axes, without channels."""
        array = as_float("x", x) if self.dtype is None else as_array("x", x, self.dtype)
        if array.ndim not in shapes or array.shape[-1] != (self.in_channels or array.shape[-1]):
            channels = self.in_channels or "C"
            wanted = " or ".join(f"({shape}, {channels})" for shape in shapes.values())
            raise ValueError(f"x must have shape {wanted}, got {array.shape}")
        return array


class SlidesOverTime(Slides):
    """Over sequences x `(T, B, C)`, `(B, T, C)` with `batch_first`, or `(T, C)` for one.

    lengths: `(B,)` whole numbers in 1..T; what is past the end of a row counts as padding, and
    outputs past `out_lengths(lengths)` are zero.
    """

    takes_lengths = True
    axis: Axis
    #: What padding is to the layer.
    _nothing: float = 0.0

    def __call__(self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None) -> Array:
        """Return y `(T', B, C')` for x."""
        x, ends = self._taken(x, lengths)
        y = self._compute(*self._images(x, ends))
        return self._cut(y.reshape(self._out_shape(x.shape, y.shape[-1])), ends)

    def vjp(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x."""
        x, ends = self._taken(x, lengths)
        images, sliding = self._images(x, ends)
        made, back = self._record(images, sliding)
        y = self._cut(made.reshape(self._out_shape(x.shape, made.shape[-1])), ends)

        def pullback(dy: npt.ArrayLike) -> Array:
            d = self._cut(as_shape("dy", dy, y.dtype, y.shape), ends)
            dx = back(np.ascontiguousarray(d).reshape(made.shape)).reshape(x.shape)
            return self._beyond(dx, ends, 0)

        return y, once(pullback)

    def out_lengths(self, lengths: npt.ArrayLike) -> Array:
        """Return how many outputs rows of these lengths have."""
        counts = as_integers("lengths", lengths)
        return np.array([self.axis.outputs(int(n)) for n in counts], np.int64)

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream that keeps the frames that later windows read.

        A causal layer with a stride of 1 gives an output for each frame. Others give them when
        their windows are full: `run` may return fewer frames than it was given. Raises `ValueError`
        where padding depends on what comes.
        """
        if self.axis.mode != "zeros" and self.axis.before + self.axis.after:
            raise ValueError(f"a stream cannot be padded by {self.axis.mode!r}")
        if self.axis.same:
            raise ValueError("a stream cannot be padded by what its length asks for")
        if self.axis.ceil:
            raise ValueError("a stream cannot have a last window that is cut short (ceil_mode)")
        return Sliding(self, batch) if self.causal else SlidingAhead(self, batch)

    @property
    def causal(self) -> bool:
        """Whether there is an output for each frame, which depends on no later one."""
        axis = self.axis
        return axis.stride == 1 and (axis.before, axis.after) == (axis.span - 1, 0)

    def slide(self, x: Array) -> Array:
        """Return the outputs of whole windows over x `(T, B, C)`: as a call, without padding."""
        whole = self.axis._replace(before=0, after=0)
        images, sizes, axes = self._layout(x, whole, False)
        y = self._compute(images, windows(len(images), x.shape[-1], sizes, axes))
        return y.reshape(whole.outputs(len(x)), x.shape[1], y.shape[-1])

    def _taken(self, x: npt.ArrayLike, lengths: Any) -> tuple[Array, Array | None]:
        array = self._checked(x, BATCH_FIRST if self.batch_first else TIME_MAJOR)
        batch = array.shape[self._time(array.ndim) ^ 1] if array.ndim == 3 else 1
        ends = as_lengths(lengths, array.shape[self._time(array.ndim)], batch)
        if ends is not None:
            self._check_ragged()
        return array, ends

    def _check_ragged(self) -> None:
        """Refuse lengths where rows that end early would be padded in another way."""
        if self.axis.same:
            raise ValueError(f'padding="same" with a stride of {self.axis.stride} takes no lengths')
        if self.axis.mode != "zeros" and self.axis.before + self.axis.after:
            raise ValueError(f"lengths need padding by zeros, not by {self.axis.mode!r}")

    def _images(self, x: Array, ends: Array | None) -> tuple[Array, Windows]:
        """Return x as images, and the windows over them."""
        x = self._beyond(x, ends, self._nothing)
        images, sizes, axes = self._layout(x, self.axis, bool(self.batch_first))
        return images, windows(len(images), x.shape[-1], sizes, axes)

    def _layout(
        self, x: Array, axis: Axis, batch_first: bool
    ) -> tuple[Array, tuple[int, int], tuple[Axis, Axis]]:
        """Return x as images with their sizes and axes; a single row's windows are runs of it."""
        if x.ndim == 3 and x.shape[1] != 1 and not batch_first:
            return x[None], x.shape[:2], (axis, STILL)
        rows, steps = x.shape[:2] if batch_first and x.ndim == 3 else (1, len(x))
        return x.reshape(rows, 1, steps, x.shape[-1]), (1, steps), (STILL, axis)

    def _time(self, axes: int) -> int:
        return 1 if self.batch_first and axes == 3 else 0

    def _out_shape(self, shape: tuple[int, ...], channels: int) -> tuple[int, ...]:
        time, sizes = self._time(len(shape)), [*shape[:-1], channels]
        sizes[time] = self.axis.outputs(shape[time])
        return tuple(sizes)

    def _cut(self, y: Array, ends: Array | None) -> Array:
        """Return outputs that are zero past the end of their rows."""
        return y if ends is None else self._beyond(y, self.out_lengths(ends), 0)

    def _beyond(self, x: Array, ends: Array | None, fill: float) -> Array:
        if ends is None:
            return x
        steps = np.arange(x.shape[self._time(x.ndim)])
        if x.ndim == 2:
            alive = steps < ends
        else:
            alive = steps < ends[:, None] if self.batch_first else steps[:, None] < ends
        return np.where(alive[..., None], x, x.dtype.type(fill))


class SlidesOverImages(Slides):
    """Over images x `(B, H, W, C)`, or `(H, W, C)` for one: channels last, in rows and columns."""

    takes_lengths = False

    axes: tuple[Axis, Axis]

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y `(B, H', W', C')` for x."""
        images, sliding, batched = self._images(x)
        y = self._compute(images, sliding)
        return y if batched else y[0]

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x."""
        images, sliding, batched = self._images(x)
        y, back = self._record(images, sliding)

        def pullback(dy: npt.ArrayLike) -> Array:
            d = as_shape("dy", dy, y.dtype, y.shape if batched else y.shape[1:])
            dx = back(np.ascontiguousarray(d).reshape(y.shape))
            return dx if batched else dx[0]

        return (y if batched else y[0]), once(pullback)

    def _images(self, x: npt.ArrayLike) -> tuple[Array, Windows, bool]:
        array = self._checked(x, IMAGES)
        images = array if array.ndim == 4 else array[None]
        count, height, width, channels = images.shape
        sliding = windows(count, channels, (height, width), self.axes)
        return images, sliding, array.ndim == 4
