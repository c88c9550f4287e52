"""How the outputs of several layers become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ..arrays import Array, check_choice
from ..layers.merge import joined

MERGES = ("concat", "sum", "mean", "mul")
#: From the gradient of what outputs became to theirs.
Unmerge: TypeAlias = Callable[[Array], tuple[Array, ...]]


def check_merge(merge: str) -> str:
    """Return the name of a way to merge, or raise `ValueError`."""
    return check_choice("merge", merge, MERGES)


def merged_width(merge: str, widths: Mapping[str, int | None]) -> int | None:
    """Return how wide outputs become, by who gives them; None where that is not known.

    `ValueError` where they must be of one width.
    """
    known = {name: width for name, width in widths.items() if width is not None}
    if merge == "concat":
        return sum(known.values()) if len(known) == len(widths) else None
    if len(set(known.values())) > 1:
        got = " and ".join(f"{width} from {name}" for name, width in known.items())
        raise ValueError(f"merge={merge!r} needs outputs of the same width, got {got}")
    return next(iter(known.values()), None)


def merged(merge: str, named: Mapping[str, Array]) -> tuple[Array, Unmerge]:
    """Return what outputs become, by who gives them, and the pullback to theirs, in order."""
    _check_shapes(merge, {name: output.shape for name, output in named.items()})
    return joined(merge, tuple(named.values()))


def _check_shapes(merge: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse outputs that NumPy would spread over one another, or cannot."""
    if () in shapes.values() or len({shape[:-1] for shape in shapes.values()}) > 1:
        got = " and ".join(f"{shape} from {name}" for name, shape in shapes.items())
        raise ValueError(f"outputs must have the same axes but for the last, got {got}")
    merged_width(merge, {name: shape[-1] for name, shape in shapes.items()})
