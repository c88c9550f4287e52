"""What losses of whole sequences share: reductions and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, check_choice, check_flag
from ..losses import Objective, as_weights
from ..module import once

#: From how much each sequence's loss counts, (B,) float64, to the gradient of x.
Backward: TypeAlias = Callable[[Array], Any]


class Sequences(NamedTuple):
    """The loss of every sequence, and how to get the gradient of a weighted sum of them."""

    losses: Array  # (B,) float64
    backward: Backward
    dtype: Any
    sizes: Array | None = None  # (B,), of the sequences, where a reduction divides by them


class SequenceLoss(Objective):
    """A loss for each sequence of a batch, reduced to one number or to none.

    reduction: "mean" over the sequences, "sum", or "none", which returns all of them, `(B,)`; a
    pullback then takes as many. With `weights` (B,), at least 0, each loss is multiplied by its
    own, and the mean divides by their sum.
    """

    takes: tuple[str, ...] = ("lengths", "target_lengths", "weights")
    #: The reductions that there are.
    reductions: tuple[str, ...] = ("mean", "sum", "none")

    def __init__(self, reduction: str = "mean", *, batch_first: bool = False) -> None:
        self.reduction = check_choice("reduction", reduction, self.reductions)
        self.batch_first = check_flag("batch_first", batch_first)

    def __call__(
        self,
        x: Any,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the loss: a float, or `(B,)` of them with reduction "none"."""
        return self.vjp(x, targets, lengths, target_lengths, weights)[0]

    def vjp(
        self,
        x: Any,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> tuple[Any, Callable[..., Any]]:
        """Return the loss, and the pullback from dloss (1 if it is not given) to dx."""
        found = self._sequences(x, targets, lengths, target_lengths)
        weights = as_sequence_weights(weights, len(found.losses))
        scales = self._scales(weights, found.sizes)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity pass quietly
            # A sequence without weight counts nothing, whatever its loss.
            losses = np.where(scales == 0, 0, found.losses) * scales
            each = losses.astype(found.dtype)
        loss: Any = each if self.reduction == "none" else float(losses.sum())

        def pullback(dloss: npt.ArrayLike = 1.0) -> Any:
            if self.reduction == "none" and np.ndim(dloss):
                own = as_array("dloss", dloss, found.dtype).astype(np.float64)
                if own.shape != losses.shape:
                    raise ValueError(f"dloss must have shape {losses.shape}, got {own.shape}")
            else:
                own = np.asarray(dloss, np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                each = own * scales
            return found.backward(each)

        return loss, once(pullback)

    def counted(
        self,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> float:
        """Return what the mean divides by: how many sequences there are, or their weights' sum."""
        if weights is not None:
            return float(np.sum(weights, dtype=np.float64))
        for counts in (target_lengths, lengths):
            if counts is not None:
                return float(np.size(counts))
        return float(len(np.atleast_2d(targets)))

    def _scales(self, weights: Array, sizes: Array | None) -> Array:
        """Return how much of each loss is in the reduced one."""
        scales = weights if sizes is None else weights / sizes
        total = float(weights.sum()) if self.reduction == "mean" else 0
        with np.errstate(over="ignore"):
            return scales / (total or 1)

    def _sequences(
        self,
        x: Any,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        target_lengths: npt.ArrayLike | None,
    ) -> Sequences:
        """Check the arguments and return the losses."""
        raise NotImplementedError


def as_sequence_weights(weights: npt.ArrayLike | None, batch: int) -> Array:
    """Return weights `(batch,)` as float64, finite and at least 0; ones if there are none."""
    if weights is None:
        return np.ones(batch)
    given = as_weights("weights", weights).astype(np.float64)
    if given.shape != (batch,):
        raise ValueError(f"weights must have shape ({batch},), got {given.shape}")
    return given
