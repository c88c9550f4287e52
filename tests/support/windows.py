"""Layers that slide windows, in plain NumPy and float64: loops over windows, forward and backward.

All is written for images `(B, H, W, C)`; a sequence is an image of one row.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import rnncore
from rnncore import Module

Array = npt.NDArray[Any]
#: Of each output the places that its taps read along an axis, -1 for a zero: `(outputs, taps)`.
Places = Array

_PAD = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}


def places(
    size: int,
    taps: int,
    stride: int = 1,
    dilation: int = 1,
    before: int = 0,
    after: int = 0,
    mode: str = "zeros",
    ceil: bool = False,
) -> Places:
    """Return what windows read along an axis: of the padded axis, cut at every stride."""
    fill = {"constant_values": -1} if mode == "zeros" else {}
    line = np.arange(size)
    if before + after:
        line = np.pad(line, (before, after), _PAD[mode], **fill)
    span = dilation * (taps - 1) + 1
    starts = list(range(0, len(line) - span + 1, stride))
    if ceil:
        last = math.ceil((len(line) - span) / stride) * stride
        starts += [last] if (not starts or last > starts[-1]) and 0 <= last < before + size else []
    line = np.concatenate((line, np.full(span, -2)))  # beyond the padding
    return np.array([line[s : s + span : dilation] for s in starts], int).reshape(-1, taps)


def seen(x: Array, rows: Places, columns: Places) -> Array:
    """Return all windows of x: `(B, H', W', taps, taps, C)`."""
    shape = len(x), len(rows), len(columns), rows.shape[1], columns.shape[1], x.shape[-1]
    windows = np.zeros(shape)
    for h, w, i, j in np.ndindex(shape[1:5]):
        if rows[h, i] >= 0 and columns[w, j] >= 0:
            windows[:, h, w, i, j] = x[:, rows[h, i], columns[w, j]]
    return windows


def put_back(dwindows: Array, rows: Places, columns: Places, shape: tuple[int, ...]) -> Array:
    """Return dx of the gradients of all windows."""
    dx = np.zeros(shape)
    for h, w, i, j in np.ndindex(dwindows.shape[1:5]):
        if rows[h, i] >= 0 and columns[w, j] >= 0:
            dx[:, rows[h, i], columns[w, j]] += dwindows[:, h, w, i, j]
    return dx


class Convolution(NamedTuple):
    """What a convolution gives: y, and the gradients for dy."""

    y: Array
    dx: Array
    dweight: Array
    dbias: Array


def convolution(
    x: Array, weight: Array, bias: Array | None, rows: Places, columns: Places, dy: Array | None
) -> Convolution:
    """weight `(outputs, inputs / groups, taps, taps)`; without dy, y alone counts."""
    outputs, inputs = weight.shape[:2]
    groups = x.shape[-1] // inputs
    each, windows = outputs // groups, seen(x, rows, columns)
    y = np.zeros((*windows.shape[:3], outputs))
    dy = np.zeros_like(y) if dy is None else dy
    dwindows, dweight = np.zeros_like(windows), np.zeros(weight.shape)
    for o in range(outputs):
        own = slice(o // each * inputs, (o // each + 1) * inputs)
        filters = np.moveaxis(weight[o], 0, -1)  # (taps, taps, inputs)
        y[..., o] = np.einsum("bhwijc,ijc->bhw", windows[..., own], filters)
        y[..., o] += 0 if bias is None else bias[o]
        dwindows[..., own] += dy[..., o, None, None, None] * filters
        dweight[o] = np.einsum("bhw,bhwijc->cij", dy[..., o], windows[..., own])
    return Convolution(y, put_back(dwindows, rows, columns, x.shape), dweight, dy.sum((0, 1, 2)))


def transposed(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """y `(T', B, outputs)` of x `(T, B, inputs)`: frames spread over what is around them."""
    inputs, each, taps = weight.shape
    steps = (len(x) - 1) * stride - 2 * padding + dilation * (taps - 1) + output_padding + 1
    y = np.zeros((max(steps, 0) if len(x) else 0, x.shape[1], each * groups))
    for t, k, i in np.ndindex(len(x), taps, inputs):
        at = t * stride + k * dilation - padding
        if 0 <= at < len(y):
            group = i // (inputs // groups)
            y[at][:, group * each : (group + 1) * each] += x[t, :, i, None] * weight[i, :, k]
    return y if bias is None else y + bias


def pooled(
    x: Array, rows: Places, columns: Places, dy: Array, largest: bool, padded: bool = True
) -> tuple[Array, Array]:
    """y and dx; `padded`: whether the zeros around x count in a mean."""
    y = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
    dx = np.zeros(x.shape)
    for b, h, w, c in np.ndindex(y.shape):
        taps = [(r, k) for r in rows[h] for k in columns[w]]
        inside = [(r, k) for r, k in taps if r >= 0 and k >= 0]
        numbers = np.array([x[b, r, k, c] for r, k in inside])
        if largest:
            first = int(np.flatnonzero(np.isnan(numbers))[0]) if np.isnan(numbers).any() else None
            best = int(numbers.argmax()) if first is None else first
            y[b, h, w, c] = numbers[best]
            dx[(b, *inside[best], c)] += dy[b, h, w, c]
        else:
            counted = [tap for tap in taps if min(tap) >= -1] if padded else inside
            y[b, h, w, c] = numbers.sum() / len(counted)
            for at in inside:
                dx[(b, *at, c)] += dy[b, h, w, c] / len(counted)
    return y, dx


def as_images(x: Array, layout: str) -> Array:
    """x as `(B, H, W, C)`; layout: the axes of x, such as "TBC", "BTC", "TC", "HWC", "BHWC"."""
    if "T" not in layout:
        return x if x.ndim == 4 else x[None]
    if layout == "TC":
        return x[None, None]
    return (x.swapaxes(0, 1) if layout == "TBC" else x)[:, None]


def as_given(images: Array, layout: str) -> Array:
    """Undo `as_images`."""
    if "T" not in layout:
        return images if "B" in layout else images[0]
    if layout == "TC":
        return images[0, 0]
    return images[:, 0].swapaxes(0, 1) if layout == "TBC" else images[:, 0]


class Ragged(Module):
    """A module that is called with lengths, for what knows only x."""

    def __init__(self, module: Module, lengths: Any) -> None:
        super().__init__()
        self.module, self.lengths = module, lengths

    def __call__(self, x: Any) -> Any:
        return self.module(x, lengths=self.lengths)

    def vjp(self, x: Any) -> Any:
        return self.module.vjp(x, lengths=self.lengths)


class Case(NamedTuple):
    """A layer over sequences or images by its class and arguments, and its reference."""

    kind: str
    arguments: dict[str, Any]

    @property
    def axes(self) -> int:
        """Along how many axes windows slide."""
        return int(self.kind[-2])

    @property
    def channels(self) -> int:
        """Those of x."""
        return int(self.arguments.get("in_channels", 3))

    def layer(self, dtype: str = "float64", **options: Any) -> Any:
        """The layer; seeds are the same for the same arguments."""
        own = {} if "Pool" in self.kind else {"dtype": dtype, "seed": 3}
        return getattr(rnncore, self.kind)(**self.arguments, **own, **options)

    def places(self, sizes: tuple[int, ...]) -> tuple[Places, Places]:
        """What windows over an image of these sizes read."""
        both = (0, 1) if self.axes == 2 else (None,)
        found = [places(size, **self._axis(at, size)) for at, size in zip(both, sizes, strict=True)]
        return (found[0], found[1]) if self.axes == 2 else (places(1, 1), found[0])

    def cannot_pad(self, *sizes: int) -> bool:
        """Whether windows would read an end that is not there."""
        found = [self._axis(at if self.axes == 2 else None, n) for at, n in enumerate(sizes)]
        return any(
            axis["mode"] != "zeros"
            and not n
            and axis["before"] + axis["after"] > axis["dilation"] * (axis["taps"] - 1)
            for axis, n in zip(found, sizes, strict=True)
        )

    def expected(self, layer: Any, images: Array, dy: Array) -> dict[str, Array]:
        """y, dx and the gradients of parameters, in float64."""
        rows, columns = self.places(images.shape[1:3] if self.axes == 2 else images.shape[2:3])
        if "Pool" in self.kind:
            padded = self.arguments.get("count_include_pad", True)
            y, dx = pooled(images, rows, columns, dy, "Max" in self.kind, padded)
            return {"y": y, "dx": dx}
        params = {name: array.astype(np.float64) for name, array in layer.params.items()}
        weight = params["weight"] if self.axes == 2 else params["weight"][:, :, None]
        found = convolution(images, weight, params.get("bias"), rows, columns, dy)
        dweight = found.dweight.reshape(params["weight"].shape)
        gradients = {"weight": dweight, "bias": found.dbias} if "bias" in params else {}
        return {"y": found.y, "dx": found.dx, "weight": dweight} | gradients

    def _axis(self, at: int | None, size: int) -> dict[str, Any]:
        def of(name: str, default: int) -> int:
            value = self.arguments.get(name)
            value = default if value is None else value
            return value[at] if at is not None and isinstance(value, tuple) else value

        taps = of("kernel_size", 1)
        stride = of("stride", taps if "Pool" in self.kind else 1)
        dilation = of("dilation", 1)
        padding: Any = self.arguments.get("padding", 0)
        padding = padding[at] if at is not None and isinstance(padding, tuple) else padding
        before, after = _padding(padding, size, dilation * (taps - 1) + 1, stride)
        mode = self.arguments.get("padding_mode", "zeros")
        ceil = self.arguments.get("ceil_mode", False)
        return {
            "taps": taps,
            "stride": stride,
            "dilation": dilation,
            "before": before,
            "after": after,
            "mode": mode,
            "ceil": ceil,
        }


def _padding(given: Any, size: int, span: int, stride: int) -> tuple[int, int]:
    if given == "causal":
        return span - 1, 0
    if given == "same":
        more = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
        more = span - 1 if stride == 1 else more
        return more // 2, more - more // 2
    if given == "valid":
        return 0, 0
    return given if isinstance(given, tuple) else (given, given)


def _conv(axes: int, inputs: int, outputs: int, kernel: Any, **more: Any) -> Case:
    sizes = {"in_channels": inputs, "out_channels": outputs, "kernel_size": kernel}
    return Case(f"Conv{axes}d", sizes | more)


#: Convolutions over time: sizes of one, around those of vectors, all options.
OVER_TIME: dict[str, Case] = {
    "one": _conv(1, 1, 1, 1),
    "one channel": _conv(1, 1, 5, 3),
    "one output": _conv(1, 5, 1, 3),
    "no bias": _conv(1, 3, 4, 2, bias=False),
    "stride": _conv(1, 3, 4, 3, stride=2),
    "stride beyond the kernel": _conv(1, 3, 4, 2, stride=5),
    "dilation": _conv(1, 3, 4, 3, dilation=2),
    "dilation, wide": _conv(1, 17, 4, 3, dilation=3, padding=2),
    "padding": _conv(1, 3, 4, 3, padding=2),
    "more padding than taps": _conv(1, 2, 3, 2, padding=(4, 3)),
    "a pair": _conv(1, 3, 4, 3, padding=(0, 2)),
    "same": _conv(1, 3, 4, 4, padding="same"),
    "same, dilated": _conv(1, 3, 4, 2, dilation=3, padding="same"),
    "same, strided": _conv(1, 3, 4, 3, stride=2, padding="same"),
    "causal": _conv(1, 3, 4, 3, padding="causal"),
    "causal, dilated": _conv(1, 4, 4, 2, dilation=4, padding="causal"),
    "causal, strided": _conv(1, 3, 4, 3, stride=2, padding="causal"),
    "causal and more": _conv(1, 3, 4, 3, padding=(2, 1)),
    "reflect": _conv(1, 3, 4, 3, padding=2, padding_mode="reflect"),
    "reflect, dilated": _conv(1, 3, 4, 2, dilation=2, padding=(1, 2), padding_mode="reflect"),
    "replicate": _conv(1, 3, 4, 3, stride=2, padding=3, padding_mode="replicate"),
    "groups": _conv(1, 6, 9, 3, groups=3, padding=1),
    "groups, wide": _conv(1, 34, 38, 2, groups=2),
    "depthwise": _conv(1, 7, 7, 3, groups=7),
    "depthwise, doubled": _conv(1, 5, 10, 3, groups=5, stride=2, dilation=2, padding=2),
    "odd and narrow": _conv(1, 17, 3, 3),
    "even and narrow": _conv(1, 18, 30, 3, padding=1),
    "wide": _conv(1, 16, 70, 3, padding="same"),
    "wide, odd": _conv(1, 35, 131, 2, stride=2),
    "wider than a vector, one tap": _conv(1, 33, 40, 1),
    "many taps": _conv(1, 2, 3, 7, padding=6),
}

OVER_IMAGES: dict[str, Case] = {
    "one": _conv(2, 1, 1, 1),
    "square": _conv(2, 3, 4, 3),
    "lines": _conv(2, 3, 4, (1, 3), padding=(0, 1)),
    "columns": _conv(2, 3, 4, (3, 1), padding=(1, 0)),
    "stride": _conv(2, 3, 4, 2, stride=(2, 3)),
    "dilation": _conv(2, 3, 4, (2, 3), dilation=(3, 2), padding=2),
    "pairs": _conv(2, 3, 4, 3, padding=((0, 2), (1, 0))),
    "same": _conv(2, 3, 20, (2, 4), padding="same"),
    "same, strided": _conv(2, 3, 2, 3, stride=(2, 1), padding="same"),
    "causal": _conv(2, 2, 3, 2, padding=("causal", "valid")),
    "reflect": _conv(2, 3, 4, 3, padding=(2, 1), padding_mode="reflect"),
    "replicate": _conv(2, 3, 4, 3, padding=3, padding_mode="replicate"),
    "groups": _conv(2, 4, 6, 3, groups=2, padding=1),
    "depthwise": _conv(2, 5, 5, 3, groups=5, padding=1, stride=2),
    "one channel": _conv(2, 1, 37, 3, padding=1),
    "wide": _conv(2, 19, 70, 3, padding=1),
}


def _pool(kind: str, kernel: Any, **more: Any) -> Case:
    return Case(kind, {"kernel_size": kernel} | more)


POOLS: dict[str, Case] = {
    "max": _pool("MaxPool1d", 2),
    "max, one": _pool("MaxPool1d", 1),
    "max, beside each other": _pool("MaxPool1d", 3, stride=1, padding=1),
    "max, apart": _pool("MaxPool1d", 2, stride=3),
    "max, ceil": _pool("MaxPool1d", 3, stride=2, padding=1, ceil_mode=True),
    "max, dilated": _pool("MaxPool1d", 3, stride=1, padding=1, dilation=2),
    "max, a pair": _pool("MaxPool1d", 3, stride=1, padding=(0, 1)),
    "max, same": _pool("MaxPool1d", 3, stride=2, padding="same"),
    "mean": _pool("AvgPool1d", 2),
    "mean, padded": _pool("AvgPool1d", 3, stride=1, padding=1),
    "mean, ceil": _pool("AvgPool1d", 3, stride=2, padding=1, ceil_mode=True),
    "mean, inside": _pool(
        "AvgPool1d", 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False
    ),
    "mean, same": _pool("AvgPool1d", 3, stride=2, padding="same", count_include_pad=False),
}

POOLS_OF_IMAGES: dict[str, Case] = {
    "max": _pool("MaxPool2d", 2),
    "max, all": _pool(
        "MaxPool2d", (3, 2), stride=(1, 2), padding=(1, 1), dilation=(2, 1), ceil_mode=True
    ),
    "mean": _pool("AvgPool2d", (2, 3), padding=1),
    "mean, inside": _pool(
        "AvgPool2d", 3, stride=2, padding=(1, 0), ceil_mode=True, count_include_pad=False
    ),
}

SEQUENCES = OVER_TIME | {f"pool, {name}": case for name, case in POOLS.items()}
IMAGES = OVER_IMAGES | {f"pool, {name}": case for name, case in POOLS_OF_IMAGES.items()}


def results(layer: Any, x: Array, dy: Array | None = None, **options: Any) -> dict[str, Array]:
    """y, dx and gradients by name; dy is drawn if it is not given."""
    layer.zero_grad()
    y, pullback = layer.vjp(x, **options)
    if dy is None:
        dy = np.random.default_rng(7).standard_normal(y.shape).astype(y.dtype)
    return {"y": y, "dx": pullback(dy)} | {name: g.copy() for name, g in layer.grads.items()}
