"""Targets of a CRF: known, unknown and possible tags, and whether constraints allow them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_integers, read, short
from ..compositions.ragged import length_mask
from .arguments import Frames


def read_tags(targets: npt.ArrayLike, frames: Frames) -> Array:
    """Return tags `(T, B)` as int64, -1 where any may be, or booleans `(T, B, K)`."""
    given, _ = read("targets", targets)
    shape, tags = frames.logits.shape, frames.logits.shape[-1]
    own = shape if frames.batched else tuple(n for i, n in enumerate(shape) if i != _batch(frames))
    if given.dtype == np.bool_:
        if given.shape != own:
            raise ValueError(
                f"targets must have shape {own} if they are boolean, got {given.shape}"
            )
        return given.reshape(shape)
    given = as_integers("targets", targets)
    if given.shape != own[:-1]:
        raise ValueError(
            f"targets must have shape {own[:-1]}, or {own} and be boolean, got {given.shape}"
        )
    given = given.reshape(shape[:-1])
    if given.size and not -1 <= given.min() <= given.max() < tags:
        inside = length_mask(frames.lengths, shape[1 - _batch(frames)], frames.batch_first)
        wrong = inside & ((given < -1) | (given >= tags))
        if wrong.any():
            at = np.unravel_index(wrong.argmax(), wrong.shape)
            raise ValueError(
                f"targets must be tags in 0..{tags - 1}, or -1 where the tag is unknown, got "
                f"{short(int(given[at]))} in sequence {int(at[_batch(frames)])}"
            )
        given = np.where(inside, given, 0)  # what lies past the end of a row may be anything
    return given.astype(np.int64, copy=False)


def check_allowed(tags: Array, frames: Frames, allowed: Array, sequences: Array) -> None:
    """Refuse targets with which no sequence of tags agrees that is allowed `(K + 2, K)`."""
    transitions, start, end = allowed[:-2], allowed[-2], allowed[-1]
    for b in sequences:
        row = tags[b] if _batch(frames) == 0 else tags[:, b]
        row = row[: frames.lengths[b]]
        may = row if row.dtype == np.bool_ else (row[:, None] < 0) | _one_hot(row, len(start))
        reached = start & may[0]
        for t in range(len(may)):
            if t > 0:
                reached = transitions[reached].any(axis=0) & may[t]
            if not reached.any():
                raise ValueError(f"targets: {_told(row, int(b), t)}")
        if not (reached & end).any():
            raise ValueError(f"targets: {_told(row, int(b), len(may))}")


def _told(row: Array, b: int, t: int) -> str:
    """Say which step of a row of targets is forbidden."""
    known = row.dtype != np.bool_ and (row[max(t - 1, 0) : t + 1] >= 0).all()
    if not known:
        return f"no allowed sequence of tags agrees with sequence {b} up to step {t}"
    if t == 0:
        return f"sequence {b} starts with tag {row[0]}, which the constraints forbid"
    if t == len(row):
        return f"sequence {b} ends with tag {row[-1]}, which the constraints forbid"
    return (
        f"sequence {b} has tag {row[t]} after tag {row[t - 1]} at step {t}, "
        "which the constraints forbid"
    )


def _one_hot(row: Array, tags: int) -> Array:
    found: Array = row[:, None] == np.arange(tags)
    return found


def _batch(frames: Frames) -> int:
    """The axis of the batch."""
    return 0 if frames.batch_first else 1
