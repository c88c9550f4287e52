"""Windows that slide over sequences and images: where they begin, how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..arrays import check_choice, check_count, check_flag, check_size, short
from ..compiled import Windows

#: What windows find beyond the ends of an axis, in the order of the kernels' numbers.
PADDING_MODES = ("zeros", "reflect", "replicate")
#: The largest number that is taken for one: products of two are still those of 64 bits.
_MOST = (1 << 31) - 1


class Axis(NamedTuple):
    """Windows of `taps` numbers, `dilation` apart, at every `stride`-th place of an axis."""

    taps: int
    stride: int = 1
    dilation: int = 1
    before: int = 0  # padding
    after: int = 0
    mode: str = "zeros"
    ceil: bool = False  # whether a last window may be cut short by the end
    reads: bool = False  # whether there are no windows over padding alone
    same: bool = False  # whether padding is what ceil(size / stride) outputs need

    @property
    def span(self) -> int:
        """Numbers from the first tap of a window to its last."""
        return self.dilation * (self.taps - 1) + 1

    def outputs(self, size: int) -> int:
        """Return how many windows fit; 0 where none does."""
        if self.reads and not size:
            return 0
        if self.same:
            return -(-size // self.stride)
        room = size + self.before + self.after - self.span
        count = (room + (self.stride - 1 if self.ceil else 0)) // self.stride + 1
        if self.ceil and (count - 1) * self.stride >= size + self.before:
            count -= 1  # it would begin in the padding at the end
        return max(count, 0)

    def padded(self, size: int) -> Axis:
        """Return the axis with the padding that it has where x has this size."""
        if not self.same:
            return self
        more = max((self.outputs(size) - 1) * self.stride + self.span - size, 0)
        return self._replace(before=more // 2, after=more - more // 2, same=False)

    def checked(self, name: str, size: int) -> None:
        """Refuse an axis that cannot be padded so."""
        before, after = self.padded(size)[3:5]
        most = {"reflect": size - 1, "replicate": size and before + after}
        padding = max(before, after)
        if padding > most.get(self.mode, padding) and self.outputs(size):
            raise ValueError(
                f"{name} has {size} places along an axis: too few for padding {padding} by "
                f"{self.mode!r}"
            )

    def numbers(self, size: int) -> tuple[int, ...]:
        """Return what the kernels are told of an axis of this size."""
        mode = PADDING_MODES.index(self.mode)
        sizes = size, self.outputs(size), self.taps, self.stride, self.dilation
        return (*sizes, *self.padded(size)[3:5], mode)


#: An axis that no window slides along: each place is an output.
STILL = Axis(1)


@lru_cache(256)
def windows(images: int, channels: int, sizes: tuple[int, int], axes: tuple[Axis, Axis]) -> Windows:
    """Return the compiled windows over x `(images, *sizes, channels)`.

    Raises `ValueError` where an axis of x cannot be padded so.
    """
    for axis, size in zip(axes, sizes, strict=True):
        axis.checked("x", size)
    return Windows(
        images, channels, *(axis.numbers(size) for axis, size in zip(axes, sizes, strict=True))
    )


def pair(name: str, value: int | Sequence[int], least: int = 1) -> tuple[int, int]:
    """Return a number for each of two axes, given as one or as a pair."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2:
        raise ValueError(f"{name} must be one number or two, got {short(value)}")
    first, second = (check_extent(name, one, least) for one in values)
    return first, second


def check_extent(name: str, value: int, least: int = 1) -> int:
    """Return a number of places, refusing what memory or 64 bits would not hold."""
    count = check_count(name, value, least)
    if count > _MOST:
        raise ValueError(f"{name} must be at most {_MOST}, got {short(count)}")
    return check_size(name, count) if count else 0


def axis_of(
    kernel_size: int, stride: int, padding: Any, dilation: int = 1, mode: str = "zeros"
) -> Axis:
    """Return one axis; padding is a number, a pair (before, after), or one of the names below.

    "valid": none; "same": as many outputs as inputs, or one for each `stride` of them that begins,
    the larger half after; "causal": all of it before, so that an output reads no later input.
    """
    check_choice("padding_mode", mode, PADDING_MODES)
    axis = Axis(
        check_extent("kernel_size", kernel_size),
        check_extent("stride", stride),
        check_extent("dilation", dilation),
        mode=mode,
    )
    more = axis.span - 1
    if isinstance(padding, str):
        check_choice("padding", padding, ("valid", "same", "causal"))
        check_extent("padding", more if padding != "valid" else 0, 0)
        if padding == "same" and axis.stride > 1:
            return axis._replace(same=True)
        sides = {"valid": (0, 0), "same": (more // 2, more - more // 2), "causal": (more, 0)}
        before, after = sides[padding]
    else:
        before, after = pair("padding", padding, 0)
    return axis._replace(before=before, after=after)


def axes_of(
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int],
    padding: Any,
    dilation: int | Sequence[int] = 1,
    mode: str = "zeros",
) -> tuple[Axis, Axis]:
    """Return two axes; padding is a name, a number, or for each axis a number or a pair."""
    paddings = padding if isinstance(padding, (tuple, list)) else (padding, padding)
    if len(paddings) != 2:
        raise ValueError(f"padding must be given once or for both axes, got {short(padding)}")
    sizes = pair("kernel_size", kernel_size), pair("stride", stride), pair("dilation", dilation)
    first, second = (
        axis_of(sizes[0][at], sizes[1][at], paddings[at], sizes[2][at], mode) for at in (0, 1)
    )
    return first, second


def for_pooling(axes: Sequence[Axis], ceil_mode: bool) -> tuple[Axis, ...]:
    """Return axes whose last window may be cut short, and none of which lies in padding alone."""
    ceil = check_flag("ceil_mode", ceil_mode)
    for axis in axes:
        padding = max(axis.before, axis.after)
        if 2 * padding > axis.taps:
            raise ValueError(
                f"padding must be at most half of kernel_size {axis.taps}, got {padding}"
            )
    return tuple(axis._replace(ceil=ceil, reads=True) for axis in axes)
