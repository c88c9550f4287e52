"""Connectionist temporal classification (Graves et al. 2006)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, check_count, check_flag
from ..compiled import core
from .arguments import Labels, check_blank, check_labels, read_frames, read_labels
from .sequence_loss import SequenceLoss, Sequences


class CTCLoss(SequenceLoss):
    """-log p(labels | frames), summed over all ways to place the labels on the frames.

    Each frame shows a label or a blank. Merging equal neighbours and dropping blanks leaves the
    labels of a path; their probability is the sum over their paths (Graves et al. 2006,
    "Connectionist Temporal Classification", equations 3 to 16):

        p(l | x) = sum over paths of prod_t softmax(logits_t)[path_t]

    `loss.vjp(logits, targets, lengths, target_lengths, weights)`: logits `(T, B, C)` as they come
    from a linear layer, without softmax, or `(B, T, C)` if `batch_first`, or `(T, C)`; targets
    integers, padded `(B, S)` or one sequence after the other `(sum of target_lengths,)`, in 0..C-1
    and not `blank`; lengths `(B,)` in 0..T. Reductions are torch's: "mean" divides each loss by the
    number of its labels (at least 1) and takes the mean over the batch.

    S labels, of which R equal the one before them, need S + R frames. A shorter input raises
    `ValueError`; with `zero_infinity` its loss and its gradient are zero. Where logits of -inf
    leave no path, the loss is infinite (zero with `zero_infinity`) and the gradient zero. NaN
    within a sequence makes its loss and gradient NaN.

    The pullback reads the logits again: they must be as they were. Sums are float64, each
    probability with an exponent of its own, so that nothing underflows and nothing is lost over
    thousands of frames.
    """

    def __init__(
        self,
        blank: int = 0,
        reduction: str = "mean",
        zero_infinity: bool = False,
        *,
        batch_first: bool = False,
    ) -> None:
        super().__init__(reduction, batch_first=batch_first)
        self.blank = check_count("blank", blank, 0)
        self.zero_infinity = check_flag("zero_infinity", zero_infinity)

    def _sequences(
        self,
        x: Any,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        target_lengths: npt.ArrayLike | None,
    ) -> Sequences:
        frames = read_frames(x, lengths, self.batch_first)
        labels = read_labels(targets, target_lengths, len(frames.lengths))
        classes = frames.logits.shape[-1]
        check_blank(self.blank, classes)
        check_labels(labels, classes, self.blank)
        if not self.zero_infinity:
            check_frames(frames.lengths, labels, " (zero_infinity=True passes over such sequences)")
        dtype = frames.logits.dtype
        batch = core(dtype).CtcBatch(
            frames.logits, self.batch_first, frames.lengths, labels.flat, labels.counts, self.blank
        )
        losses = 0.0 - batch.forward()  # no minus zero
        if self.zero_infinity:
            losses[np.isinf(losses)] = 0

        def backward(scales: Array) -> Array:
            gradient = batch.backward(scales)
            return gradient if frames.batched else gradient.reshape(np.shape(x))

        sizes = np.maximum(labels.counts, 1) if self.reduction == "mean" else None
        return Sequences(losses, backward, dtype, sizes)


def shortest(labels: Labels) -> Array:
    """Return how many frames the labels of each sequence need, `(B,)`: a blank between equals."""
    repeats = np.zeros(len(labels.flat) + 1, np.int64)
    repeats[1:-1] = labels.flat[1:] == labels.flat[:-1]
    repeats[labels.starts] = 0  # the one before is of another sequence
    ends = np.concatenate([[0], np.cumsum(repeats)])
    needed: Array = labels.counts + ends[labels.starts + labels.counts] - ends[labels.starts]
    return needed


def check_frames(lengths: Array, labels: Labels, hint: str = "") -> None:
    """Refuse sequences with fewer frames than their labels need, naming the first."""
    needed = shortest(labels)
    short = lengths < needed
    if short.any():
        b = int(short.argmax())
        count, repeats = int(labels.counts[b]), int(needed[b] - labels.counts[b])
        raise ValueError(
            f"lengths: sequence {b} has {int(lengths[b])} frames, but its {count} labels, "
            f"{repeats} of them equal to the one before, need {count + repeats}{hint}"
        )
