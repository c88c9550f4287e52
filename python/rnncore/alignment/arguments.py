"""What losses over alignments are given: frames, labels, and how many of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_float, as_integers, short
from ..compositions.ragged import length_mask


class Labels(NamedTuple):
    """The labels of the sequences of a batch, one sequence after the other."""

    flat: Array  # (sum of counts,) int64
    counts: Array  # (B,) int64

    @property
    def starts(self) -> Array:
        """Where the labels of each sequence begin, `(B,)`."""
        starts: Array = np.cumsum(self.counts) - self.counts
        return starts

    def padded(self, rows: Array) -> tuple[Array, Array]:
        """Return the labels of these sequences, `(B, S)` with zeros past the ends, and counts."""
        counts = self.counts[rows]
        inside = length_mask(counts, int(counts.max(initial=0)), batch_first=True)
        padded = np.zeros(inside.shape, np.int64)
        padded[inside] = self.flat[(self.starts[rows, None] + np.arange(inside.shape[1]))[inside]]
        return padded, counts


class Frames(NamedTuple):
    """Logits of a batch, and how many frames of each sequence count."""

    logits: Array  # (T, B, C), or (B, T, C) if batch_first
    lengths: Array  # (B,) int64
    batched: bool  # else they came as (T, C)
    batch_first: bool


def read_frames(
    logits: npt.ArrayLike, lengths: npt.ArrayLike | None, batch_first: bool, name: str = "logits"
) -> Frames:
    """Check logits `(T, B, C)`, `(B, T, C)` or `(T, C)` and lengths of 0..T; None: all frames."""
    x = as_float(name, logits)
    if x.ndim not in (2, 3) or not x.shape[-1]:
        form = "(B, T, C)" if batch_first else "(T, B, C)"
        raise ValueError(f"{name} must have shape {form} or (T, C), C at least 1, got {x.shape}")
    batched = x.ndim == 3
    if not batched:
        x = x[None] if batch_first else x[:, None]
    steps, batch = x.shape[1::-1] if batch_first else x.shape[:2]
    return Frames(x, read_counts("lengths", lengths, batch, steps, "frames"), batched, batch_first)


def read_counts(name: str, counts: npt.ArrayLike | None, batch: int, most: int, what: str) -> Array:
    """Return integers `(batch,)` in 0..most, all `most` if None; a number stands for one."""
    if counts is None:
        return np.full(batch, most, np.int64)
    given = as_integers(name, counts)
    given = given.reshape(1) if given.ndim == 0 and batch == 1 else given
    if given.shape != (batch,):
        raise ValueError(f"{name} must have shape ({batch},), got {given.shape}")
    if batch and (given.min() < 0 or given.max() > most):
        raise ValueError(
            f"{name} must be in 0..{most}, the number of {what}; got {given.min()}..{given.max()}"
        )
    return given.astype(np.int64)


def read_labels(targets: npt.ArrayLike, target_lengths: npt.ArrayLike | None, batch: int) -> Labels:
    """Return the labels of targets, padded `(B, S)` or one after the other `(sum of lengths,)`.

    Of a batch of one sequence both are the same. What lies past the end of a row may be anything.
    """
    given = as_integers("targets", targets)
    if given.ndim == 1 and batch == 1:
        given = given[None]
    if given.ndim == 2 and len(given) == batch:
        counts = read_counts("target_lengths", target_lengths, batch, given.shape[1], "targets")
        flat = given[length_mask(counts, given.shape[1], batch_first=True)]
    elif given.ndim == 1:
        if target_lengths is None:
            raise ValueError("targets of all sequences in one row need target_lengths")
        counts = read_counts("target_lengths", target_lengths, batch, given.size, "targets")
        if counts.sum() != given.size:
            raise ValueError(
                f"targets in one row must be as many as target_lengths say, {counts.sum()}, "
                f"got {given.size}"
            )
        flat = given
    else:
        raise ValueError(
            f"targets must have shape ({batch}, S), or (sum of target_lengths,), got {given.shape}"
        )
    if flat.dtype.kind == "u" and flat.size and flat.max() > np.iinfo(np.int64).max:
        raise ValueError(f"targets must be classes, got {flat.max()}")
    return Labels(np.ascontiguousarray(flat, np.int64), counts)


def check_labels(labels: Labels, classes: int, blank: int) -> None:
    """Refuse labels that are the blank or no class, naming the first sequence that has one."""
    flat = labels.flat
    wrong = (flat < 0) | (flat >= classes) | (flat == blank)
    if not wrong.any():
        return
    at = int(wrong.argmax())
    sequence = int(np.searchsorted(labels.starts, at, side="right")) - 1
    said = "the blank" if flat[at] == blank else short(int(flat[at]))
    raise ValueError(
        f"targets must be classes 0..{classes - 1} other than the blank {blank}, "
        f"got {said} in sequence {sequence}"
    )


def check_blank(blank: int, classes: int) -> None:
    """Refuse a blank that is none of the classes."""
    if blank >= classes:
        raise ValueError(f"blank is {blank}, but logits have {classes} classes")
