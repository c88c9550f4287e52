"""Where known labels lie: the likeliest path that says them (Viterbi over the states of CTC)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_count
from .arguments import check_blank, check_labels, read_frames, read_labels
from .ctc import check_frames
from .scores import log_softmax


class Aligned(NamedTuple):
    """The labels of a sequence with the frames that show them."""

    labels: Array  # (S,)
    starts: Array  # (S,) the first frame of each
    ends: Array  # (S,) the one behind its last
    scores: Array  # (S,) the mean log-probability of its frames
    path: Array  # (T,) what each frame shows: a label or the blank
    log_prob: float  # of the path


def ctc_align(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    lengths: npt.ArrayLike | None = None,
    target_lengths: npt.ArrayLike | None = None,
    *,
    blank: int = 0,
    batch_first: bool = False,
) -> list[Aligned]:
    """Return for each sequence the likeliest way to place its labels on its frames.

    The arguments are those of `CTCLoss`. A frame's number times the seconds between frames is its
    time. Of equally likely paths the one is taken that stays longest where it is. Raises
    `ValueError` where there are too few frames, or no path is possible.
    """
    frames = read_frames(logits, lengths, batch_first)
    labels = read_labels(targets, target_lengths, len(frames.lengths))
    check_blank(check_count("blank", blank, 0), frames.logits.shape[-1])
    check_labels(labels, frames.logits.shape[-1], blank)
    check_frames(frames.lengths, labels)
    found = []
    for b, start in enumerate(labels.starts):
        own = labels.flat[start : start + labels.counts[b]]
        x = frames.logits[b] if batch_first else frames.logits[:, b]
        found.append(_align(log_softmax(x[: frames.lengths[b]]), own, blank, b))
    return found


def _align(log_p: Array, labels: Array, blank: int, sequence: int) -> Aligned:
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    # What a path may come from: where it is, one state before, two at a label that is not repeated.
    skips = np.full(len(states), -np.inf)
    skips[3::2] = np.where(labels[1:] != labels[:-1], 0, -np.inf)
    best = np.full(len(states) + 2, -np.inf)  # with two states before the first, never reached
    best[2] = 0
    came = np.zeros((len(log_p), len(states)), np.int8)
    for t, frame in enumerate(log_p):
        ways = np.stack([best[2:], best[1:-1], best[:-2] + skips])
        came[t] = ways.argmax(axis=0)
        best[2:] = ways.max(axis=0) + frame[states]
    state = len(states) - 1
    if len(labels) and best[state + 1] > best[state + 2]:
        state -= 1
    log_prob = float(best[state + 2])
    if not log_prob > -np.inf:
        raise ValueError(f"logits: no path of the labels of sequence {sequence} is possible")
    return _walk_back(log_p, states, came, state, log_prob)


def _walk_back(log_p: Array, states: Array, came: Array, state: int, log_prob: float) -> Aligned:
    path = np.zeros(len(log_p), np.int64)
    for t in range(len(log_p) - 1, -1, -1):
        path[t] = state
        state -= came[t, state]
    shown = np.flatnonzero(path % 2)
    which = path[shown] // 2
    count = len(states) // 2
    starts = shown[np.searchsorted(which, np.arange(count), side="left")]
    ends = shown[np.searchsorted(which, np.arange(count), side="right") - 1] + 1
    sums = np.bincount(which, log_p[shown, states[path[shown]]], minlength=count)
    return Aligned(states[1::2], starts, ends, sums / (ends - starts), states[path], log_prob)
