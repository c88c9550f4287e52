"""The gradients of a batch in one process, and the state that the next batch carries on."""

from __future__ import annotations

import math
from typing import Any

from ..batches import Batch
from ..distributed.sharded import Drawn, Learnt, total
from ..losses import Objective
from ..module import Module
from ..states import State
from .divergence import Diverged, Place, find


class Update:
    """A whole batch forward and backward. `rnncore.distributed.sharded` has that over ranks."""

    def __init__(self, model: Module, loss: Objective) -> None:
        self.model, self.loss = model, loss
        self._state: State = None
        self._next: State = None

    def learn(self, batch: Batch, drawn: Drawn) -> Learnt:
        """Leave the gradients of a batch in the model, unless its loss is no finite number."""
        args, options = batch.arguments(self.model, self._state)
        self.model.zero_grad()
        output, model_pullback = self.model.vjp(*args, **options)
        y, self._next = output if self.model.recurrent else (output, None)
        given = batch.for_loss(self.loss, y, self.model)
        loss, loss_pullback = self.loss.vjp(y, *given)
        if math.isfinite(loss):
            model_pullback(loss_pullback())
        counted = self.loss.counted(*given)
        return Learnt(loss, total(self.loss, loss, counted), counted)

    def advance(self) -> None:
        """Let the next batch carry on from the one that was learnt."""
        self._state = self._next

    def first_found(self, batch: Batch, drawn: Drawn, explain: Any) -> Any:
        """Return what `explain` says of a batch, from what it is learnt from."""
        return explain(batch, drawn, self._state)

    def whole_state(self) -> State:
        """Return the state of all rows."""
        return self._state

    def take_state(self, state: State) -> None:
        """Go on from a state of all rows."""
        self._state = state


def place_of(
    model: Module, loss: Objective, batch: Batch, drawn: Drawn, state: State
) -> Place | str | None:
    """Return where the first number stands that is not finite when a batch is learnt, if anywhere.

    drawn: where the generators stood before, to which they are set back.
    """

    def again() -> None:
        args, options = batch.arguments(model, state)
        output, pullback = model.vjp(*args, **options)
        y = output[0] if model.recurrent else output
        _, loss_pullback = loss.vjp(y, *batch.for_loss(loss, y, model))
        pullback(loss_pullback())

    return find(model, drawn, batch.inputs, again)


def diverged(name: str, value: float, updates: int, place: Place | str | None) -> Diverged:
    """Return the error that says what is not finite, and where that began."""
    said = (
        f"the {name} is {value} after {updates} updates: "
        "lower the learning rate or clip the gradients"
    )
    if place is not None:
        said += f"; the first number that is not finite is {place}"
    if isinstance(place, Place):
        return Diverged(said, updates, place.layer, place.step)
    return Diverged(said, updates)
