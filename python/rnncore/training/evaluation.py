"""The mean of a loss over batches."""

from __future__ import annotations

from collections.abc import Iterable

from ..batches import Batch, BatchLike
from ..distributed.collective import Collective
from ..distributed.sharded import evaluate_over_ranks, total
from ..losses import Objective
from ..module import Module
from ..states import State


def evaluate(
    model: Module,
    loss: Objective,
    batches: Iterable[BatchLike],
    *,
    collective: Collective | None = None,
    shards: int | None = None,
) -> float:
    """Return the mean loss per target that counts, with dropout off and states carried.

    Where targets have weights, the mean is weighted by them. With a `collective` each rank runs its
    shards of every batch, as in training, and all ranks return the same number.
    """
    check_reduced(loss)
    if collective is None:
        loss_sum, count = _summed(model, loss, batches)
    else:
        loss_sum, count = evaluate_over_ranks(model, loss, batches, collective, shards)
    if not count:
        raise ValueError("there is nothing to evaluate: no batch holds a target that counts")
    return loss_sum / count


def _summed(model: Module, loss: Objective, batches: Iterable[BatchLike]) -> tuple[float, float]:
    """The sum of a loss over all targets, and what they count."""
    loss_sum = count = 0.0
    state: State = None
    for batch in (Batch(*item) for item in batches):
        args, options = batch.arguments(model, state)
        output = model(*args, **options)
        y, state = output if model.recurrent else (output, None)
        given = batch.for_loss(loss, y, model)
        counted = loss.counted(*given)
        loss_sum += total(loss, loss(y, *given), counted)
        count += counted
    return loss_sum, count


def check_reduced(loss: Objective) -> None:
    """Refuse a loss that returns more than one number."""
    if getattr(loss, "reduction", "mean") == "none":
        raise ValueError("loss must reduce by 'mean' or 'sum', got 'none'")
