"""What losses of whole sequences share: reductions and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, check_choice, check_flag, read
from ..losses import Objective
from ..module import once

#: From how much each sequence's loss counts, (B,) float64, to the gradient of x.
Backward: TypeAlias = Callable[[Array], Any]


class Sequences(NamedTuple):
    """The loss of every sequence, and how to get the gradient of a weighted sum of them."""

    losses: Array  # (B,) float64
    backward: Backward
    dtype: Any
    sizes: Array | None = None  # (B,), what "mean" divides each loss by; None: one
    steps: Array | None = None  # (B,), what "token_mean" divides the sum by


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
        scales = self._scales(as_weights(weights, len(found.losses)), found)
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
        given = (array for array in (target_lengths, lengths) if array is not None)
        return float(np.size(next(given, np.zeros(len(np.atleast_2d(targets))))))

    def _scales(self, weights: Array, found: Sequences) -> Array:
        """Return how much of each loss is in the reduced one."""
        scales = weights if found.sizes is None else weights / found.sizes
        total = 0.0
        if self.reduction == "mean":
            total = float(weights.sum())
        elif self.reduction == "token_mean" and found.steps is not None:
            total = float((weights * found.steps).sum())
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


def as_weights(weights: npt.ArrayLike | None, batch: int) -> Array:
    """Return weights `(batch,)` as float64, finite and at least 0; ones if there are none."""
    if weights is None:
        return np.ones(batch)
    given, _ = read("weights", weights)
    if given.dtype.kind not in "biuf":
        raise TypeError(f"weights must be numbers, got {given.dtype}")
    if given.shape != (batch,):
        raise ValueError(f"weights must have shape ({batch},), got {given.shape}")
    if not np.all((given >= 0) & (given < np.inf)):
        raise ValueError(
            f"weights must be finite and at least 0, got {given.min()} to {given.max()}"
        )
    return given.astype(np.float64)
