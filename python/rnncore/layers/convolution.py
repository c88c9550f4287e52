"""Convolutions over sequences and images, and their transpose over sequences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import init
from ..arrays import Array, as_shape, check_count, check_flag, check_size, float_dtype
from ..compiled import HoldsCompiled, Windows, core
from ..init import Seed
from ..module import Pullback, once
from .sliding import (
    BATCH_FIRST,
    TIME_MAJOR,
    Back,
    Slides,
    SlidesOverImages,
    SlidesOverTime,
)
from .sums import summed
from .windows import STILL, Axis, axes_of, axis_of, check_extent


class Convolves(HoldsCompiled, Slides):
    """A layer with filters: `weight` and, with `bias`, `bias (out_channels,)`.

    At first both are uniform in +-1/sqrt(inputs of a sum), torch's default.
    """

    groups: int
    _taps: tuple[int, int]

    def _fill(
        self, shape: tuple[int, ...], inputs: int, bias: bool, dtype: npt.DTypeLike, seed: Seed
    ) -> None:
        """Draw the parameters, and make the compiled layer."""
        self.bias, self.dtype = check_flag("bias", bias), float_dtype(dtype)
        rng, bound = np.random.default_rng(seed), 1 / math.sqrt(inputs)
        shapes: dict[str, tuple[int, ...]] = {"weight": shape}
        if bias:
            shapes["bias"] = (self.out_channels or 0,)
        super().__init__(
            {name: init.uniform(rng, shape, bound, self.dtype) for name, shape in shapes.items()}
        )
        self._build()

    def _build(self) -> None:
        arrays = self._params["weight"], self._kernel_bias()
        self.kernels = core(self.dtype).Convolution(
            *self._filters(), self._taps, *arrays, owned=True
        )

    def _filters(self) -> tuple[int, int, int]:
        """Inputs, outputs and groups of the compiled layer."""
        return self.in_channels or 0, self.out_channels or 0, self.groups

    def _kernel_bias(self) -> Array | None:
        return self._params.get("bias")

    def _lend(self) -> None:
        self.kernels.lend()

    def _compute(self, x: Array, windows: Windows) -> Array:
        return self.kernels.forward(x, windows)

    def _record(self, x: Array, windows: Windows) -> tuple[Array, Back]:
        def back(dy: Array) -> Array:
            grads = self._own_grads()
            dx: Array = self.kernels.backward(x, dy, windows, grads["weight"], grads.get("bias"))
            return dx

        return self.kernels.forward(x, windows), back


def _check_channels(in_channels: int, out_channels: int, groups: int) -> tuple[int, int, int]:
    inputs, outputs = (
        check_size("in_channels", in_channels),
        check_size("out_channels", out_channels),
    )
    check_count("groups", groups)
    if inputs % groups or outputs % groups:
        raise ValueError(
            f"groups must divide in_channels and out_channels, got {groups} of {inputs} and "
            f"{outputs}"
        )
    return inputs, outputs, int(groups)


class Conv1d(Convolves, SlidesOverTime):
    """Each output is a product of some frames around it (cross-correlation, as in torch).

        y_t = b + sum over k of W_k x_(t * stride + k * dilation - padding)

    x: `(T, B, in_channels)`, `(B, T, in_channels)` with `batch_first`, or `(T, in_channels)`; y has
    `(T + padding - dilation (kernel_size - 1) - 1) // stride + 1` steps, both sides' padding
    counted. Parameters in torch's layout: `weight (out_channels, in_channels / groups,
    kernel_size)` and, with `bias`, `bias (out_channels,)`; at first uniform in +-1/sqrt(inputs of a
    sum), torch's default.

    padding: a number for both sides, a pair (before, after), "valid" (none), "same" (as many
    outputs as inputs, or as strides that begin) or "causal" (all of it before: no output depends on
    a later frame, and the layer streams frame by frame). padding_mode: "zeros", "reflect" or
    "replicate". groups: channels are split, each part seen by its own outputs. lengths: see
    `SlidesOverTime`; `out_lengths` tells how long rows are after it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.in_channels, self.out_channels, self.groups = _check_channels(
            in_channels, out_channels, groups
        )
        self.axis = axis_of(kernel_size, stride, padding, dilation, padding_mode)
        self.batch_first = check_flag("batch_first", batch_first)
        self.looks_ahead = not self.causal
        taps = check_size("kernel_size", kernel_size)
        # A single row's windows are runs along the second axis, so are those of `batch_first`.
        self._taps = (1, taps)
        inputs = self.in_channels // self.groups
        self._fill((self.out_channels, inputs, taps), inputs * taps, bias, dtype, seed)


class Conv2d(Convolves, SlidesOverImages):
    """Each output is a product of a window of pixels (cross-correlation, as in torch).

    x: `(B, H, W, in_channels)`, or `(H, W, in_channels)` for one image: channels come last. y has
    the rows and columns that `Conv1d` would have along each axis. Parameters in torch's layout:
    `weight (out_channels, in_channels / groups, rows, columns)` and, with `bias`, `bias
    (out_channels,)`; at first uniform in +-1/sqrt(inputs of a sum), torch's default.

    kernel_size, stride, dilation: a number, or one for rows and one for columns; padding: likewise,
    each a number, a pair (before, after), "valid", "same" or "causal". padding_mode: "zeros",
    "reflect" or "replicate".
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: Any = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.in_channels, self.out_channels, self.groups = _check_channels(
            in_channels, out_channels, groups
        )
        self.axes = axes_of(kernel_size, stride, padding, dilation, padding_mode)
        self._taps = self.axes[0].taps, self.axes[1].taps
        for taps in self._taps:
            check_size("kernel_size", taps)
        inputs = self.in_channels // self.groups
        shape = self.out_channels, inputs, *self._taps
        self._fill(shape, inputs * math.prod(self._taps), bias, dtype, seed)


class ConvTranspose1d(Convolves):
    """The transpose of `Conv1d`: each frame is spread over the outputs around it.

        y_(t * stride + k * dilation - padding) += W_k^T x_t, over all t and k; y starts from b

    x: `(T, B, in_channels)`, `(B, T, in_channels)` with `batch_first`, or `(T, in_channels)`; y has
    `(T - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1` steps, none where
    that is below 1, or T is 0. Parameters in torch's layout: `weight (in_channels, out_channels /
    groups, kernel_size)` and, with `bias`, `bias (out_channels,)`; at first uniform in
    +-1/sqrt(outputs' share of a frame), torch's default. It does not stream: outputs overlap.
    """

    looks_ahead = True
    takes_lengths = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int = 1,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.in_channels, self.out_channels, self.groups = _check_channels(
            in_channels, out_channels, groups
        )
        self.axis = axis_of(kernel_size, stride, check_extent("padding", padding, 0), dilation)
        self.output_padding = check_extent("output_padding", output_padding, 0)
        if self.output_padding and self.output_padding >= max(stride, dilation):
            raise ValueError(
                f"output_padding must be smaller than stride or dilation, got {output_padding}"
            )
        self.batch_first = check_flag("batch_first", batch_first)
        taps = check_size("kernel_size", kernel_size)
        self._taps, outputs = (1, taps), self.out_channels // self.groups
        self._fill((self.in_channels, outputs, taps), outputs * taps, bias, dtype, seed)

    def _filters(self) -> tuple[int, int, int]:
        return self.out_channels or 0, self.in_channels or 0, self.groups

    def _kernel_bias(self) -> None:
        return None

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y for x."""
        return self._spread(self._checked(x, self._steps()))[0]

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return y and the pullback from dy to dx; keeps x."""
        x = self._checked(x, self._steps())
        y, rows, sliding = self._spread(x)

        def pullback(dy: npt.ArrayLike) -> Array:
            d = self._as_images(as_shape("dy", dy, y.dtype, y.shape))
            grads = self._own_grads()
            if self.bias:
                grads["bias"] += summed(d.reshape(-1, d.shape[-1]))
            self.kernels.backward(d, rows, sliding, grads["weight"], None, False)
            dx: Array = self.kernels.forward(d, sliding)
            return self._as_given(dx, x.ndim)

        return y, once(pullback)

    def _steps(self) -> dict[int, str]:
        return BATCH_FIRST if self.batch_first else TIME_MAJOR

    def _spread(self, x: Array) -> tuple[Array, Array, Windows]:
        """Return y, x as images, and the windows from y to x."""
        rows = self._as_images(x)
        axis, steps = self.axis, rows.shape[2]
        whole = (steps - 1) * axis.stride + axis.span + self.output_padding if steps else 0
        size = max(whole - 2 * axis.before, 0)
        # What is left over at the end is read by no window: there may be more windows than steps.
        sliding = _exactly(axis, len(rows), self.out_channels or 0, size, steps)
        y = self.kernels.spread(rows, sliding, self._params.get("bias"))
        return self._as_given(y, x.ndim), rows, sliding

    def _as_images(self, x: Array) -> Array:
        if x.ndim == 3 and not self.batch_first:
            x = x.swapaxes(0, 1)
        images = x[:, None] if x.ndim == 3 else x[None, None]
        return np.ascontiguousarray(images)

    def _as_given(self, images: Array, axes: int) -> Array:
        rows = images.squeeze(1)  # of (B, 1, T, C)
        if axes == 2:
            rows = rows.squeeze(0)
        elif not self.batch_first:
            rows = rows.swapaxes(0, 1)
        return rows


def _exactly(axis: Axis, images: int, channels: int, size: int, outputs: int) -> Windows:
    """Return windows of so many outputs, which need not be all that fit."""
    numbers = list(axis.numbers(size))
    numbers[1] = outputs
    return Windows(images, channels, STILL.numbers(1), tuple(numbers))
