"""Sequences of unequal length: masks, rows that count, reading each from its own end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_indices, check_count
from ..module import Module
from ..states import State
from .composition import Run, Sequences, run


def length_mask(lengths: npt.ArrayLike, T: int, batch_first: bool = False) -> Array:
    """Return booleans `(T, B)`, or `(B, T)`, true at the first `lengths[b]` steps of row b.

    `lengths` are B integers in 0..T; others raise `ValueError`.
    """
    lengths = as_indices("lengths", lengths, check_count("T", T, 0) + 1)
    if lengths.ndim != 1:
        raise ValueError(f"lengths must have shape (B,), got {lengths.shape}")
    steps = np.arange(T)
    return steps < lengths[:, None] if batch_first else steps[:, None] < lengths


def takes_lengths(modules: Iterable[Module]) -> bool | None:
    """Return `Module.takes_lengths` of modules that are called as one."""
    found = {module.takes_lengths for module in modules if not module.recurrent}
    return None if found <= {None} else False not in found


def told(module: Module, lengths: Any) -> dict[str, Any]:
    """What a module is told of lengths; `ValueError` if it takes none."""
    if module.recurrent:
        return {"lengths": lengths}
    if lengths is not None and module.takes_lengths is False:
        raise ValueError(f"a {type(module).__name__} takes no lengths: give rows of equal length")
    return {"lengths": lengths} if module.takes_lengths and lengths is not None else {}


def lengths_after(module: Module, lengths: Any) -> Any:
    """Return the lengths of a module's outputs: None where these have no steps."""
    if lengths is None or not module.keeps_steps:
        return None
    if not module.takes_lengths:
        return lengths
    after = module.out_lengths(lengths)
    if after is not None and len(after) and after.min() < 1 <= np.min(lengths):
        raise ValueError(
            f"lengths must leave an output of the {type(module).__name__} in each row, but of "
            f"{int(np.asarray(lengths)[after.argmin()])} frames it makes none"
        )
    return after


def inside(x: Array, lengths: npt.ArrayLike | None, batch_first: bool) -> Array:
    """Return x `(T, B, C)`, `(B, T, C)` or `(T, C)` with zeros past the ends of its sequences."""
    if lengths is None:
        return x
    batched = x.ndim == 3
    turned = batched and batch_first
    steps, batch = x.shape[:2][:: -1 if turned else 1] if batched else (len(x), 1)
    mask = length_mask(lengths, steps, turned)
    if mask.shape[0 if turned else 1] != batch:
        raise ValueError(f"lengths must have shape ({batch},), got {np.shape(lengths)}")
    return np.where(mask[..., None] if batched else mask, x, x.dtype.type(0))


def run_rows(module: Module, record: bool, x: Array, mask: Array | None) -> tuple[Array, Any]:
    """`run` over the rows of x that the mask picks, all if None; the others become zero."""
    if mask is None or mask.all():
        return run(module, record, x)
    rows, back = run(module, record, pick(x, mask))
    return spread(rows, mask), lambda dy: spread(back(pick(dy, mask)), mask)


def pick(x: Array, mask: Array) -> Array:
    """The rows of x `(T, B, ...)` that the mask picks, one after the other."""
    rows: Array = x.reshape(mask.size, *x.shape[2:]).take(np.flatnonzero(mask), axis=0)
    return rows


def spread(rows: Array, mask: Array) -> Array:
    """Undo `rows = pick(x, mask)`, with zeros elsewhere."""
    x = np.zeros((mask.size, *rows.shape[1:]), rows.dtype)
    x[np.flatnonzero(mask)] = rows
    return x.reshape(*mask.shape, *rows.shape[1:])


def reverse(x: Array, lengths: Array | None) -> Array:
    """Turn each sequence of x `(T, B, ...)` around within its length; padding stays in its place.

    Undoes itself. Without lengths it is a view.
    """
    if lengths is None:
        return x[::-1]
    steps = np.arange(len(x))[:, None]
    source = np.where(steps < lengths, lengths - 1 - steps, steps)
    turned: Array = x[source, np.arange(x.shape[1])]
    return turned


def reverse_resets(resets: Array | None, lengths: Array | None) -> Array | None:
    """Return where sequences start anew that `reverse` has turned: after each step that did."""
    if resets is None:
        return None
    after = np.zeros_like(resets)
    after[:-1] = resets[1:]
    if lengths is not None:
        after &= np.arange(len(resets))[:, None] < lengths - 1
    return reverse(after, lengths)


def from_end(run: Callable[[Sequences, bool], Run], given: Sequences, record: bool) -> Run:
    """Let `run` read each sequence from its end; outputs stand beside the frames that it read."""
    x, state, lengths, resets = given
    anew = reverse_resets(resets, lengths)
    turned = run(Sequences(reverse(x, lengths), state, lengths, anew), record)

    def pullback(dy: Array, dstate: State) -> tuple[Any, State]:
        dx, dfirst = turned.pullback(reverse(dy, lengths), dstate)
        return None if dx is None else reverse(dx, lengths), dfirst

    return Run(reverse(turned.y, lengths), turned.state, pullback)
