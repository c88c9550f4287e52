"""The loss of the RNN transducer (Graves 2012)."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from ..arrays import Array, as_float, check_count, check_number
from ..compiled import core
from .arguments import Labels, check_blank, check_labels, read_counts, read_labels
from .joint import Joined, JointGradients
from .sequence_loss import Backward, SequenceLoss, Sequences


class TransducerLoss(SequenceLoss):
    """-log P(labels | frames), summed over all ways to place the labels on the frames.

    A path goes from node (0, 0) of a lattice to its end. At node (t, u), after frame t and u
    labels, the blank goes on to the next frame, and the next label stays at the frame (Graves 2012,
    "Sequence Transduction with Recurrent Neural Networks", equations 12 to 20):

        alpha(t, u) = alpha(t-1, u) P(blank | t-1, u) + alpha(t, u-1) P(y_u | t, u-1)
        P(y | x) = alpha(T-1, U) P(blank | T-1, U)

    `loss.vjp(x, targets, lengths, target_lengths, weights)`: x is what a `Transducer` returns, a
    `Joined`; the pullback then returns `JointGradients`, which the model's pullback takes. Its
    logits are computed some rows at a time and forgotten, in backward once more, so that memory
    grows with B T U, not with B T U V. Or x is all logits `(B, T, U+1, V)`, without softmax, as
    torchaudio's `rnnt_loss` takes them, and the pullback returns their gradient. targets: integers,
    padded `(B, U)` or one sequence after the other `(sum of target_lengths,)`, in 0..V-1 and not
    `blank`; lengths `(B,)` in 1..T. Reduction "mean" is the mean over the batch.

    fastemit: labels are to be emitted early: their share of the gradient counts 1 + fastemit times,
    the loss stays what it is (Yu et al. 2021, "FastEmit: Low-latency Streaming ASR with
    Sequence-level Emission Regularization").

    Where logits of -inf leave no path, the loss is infinite and the gradient zero. NaN within a
    sequence makes its loss and gradient NaN. Sums over paths are logarithms in float64.
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", fastemit: float = 0.0) -> None:
        super().__init__(reduction)
        self.blank = check_count("blank", blank, 0)
        if not 0 <= check_number("fastemit", fastemit) < math.inf:
            raise ValueError(f"fastemit must be at least 0 and finite, got {fastemit}")
        self.fastemit = float(fastemit)

    def _sequences(
        self,
        x: Any,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        target_lengths: npt.ArrayLike | None,
    ) -> Sequences:
        if isinstance(x, Joined):
            frames, batch, dtype = x.f.shape[0], x.f.shape[1], x.joint.dtype
            most, classes = x.g.shape[0] - 1, x.joint.num_labels
        else:
            x = as_float("logits", x)
            if x.ndim != 4 or 0 in x.shape[1:]:
                raise ValueError(f"logits must have shape (B, T, U+1, V), got {x.shape}")
            (batch, frames, nodes, classes), dtype = x.shape, x.dtype
            most = nodes - 1
        check_blank(self.blank, classes)
        steps = read_counts("lengths", lengths, batch, frames, "frames")
        if steps.min(initial=1) < 1:
            raise ValueError("lengths must be at least 1: a path ends with the blank of a frame")
        labels = read_labels(targets, target_lengths, batch)
        check_labels(labels, classes, self.blank)
        if labels.counts.max(initial=0) > most:
            raise ValueError(
                f"target_lengths must be at most {most}, as x has {most + 1} nodes for a frame; "
                f"got {labels.counts.max()}"
            )
        found, backward = self._run(x, steps, labels, dtype)
        return Sequences(0.0 - found, backward, dtype)

    def _run(self, x: Any, steps: Array, labels: Labels, dtype: Any) -> tuple[Array, Backward]:
        """Return log P of each sequence, and the pullback."""
        sizes = steps, labels.flat, labels.counts, self.blank
        weight = 1 + self.fastemit
        if not isinstance(x, Joined):
            plain = core(dtype).TransducerLogits(x, *sizes)
            return plain.forward(), lambda scales: plain.backward(scales, weight)
        output = x.joint.output
        joint = core(dtype).TransducerJoint(output.kernels, x.f, x.g, *sizes)

        def backward(scales: Array) -> JointGradients:
            return JointGradients(*joint.backward(scales, weight, bool(output.bias)))

        return joint.forward(), backward
