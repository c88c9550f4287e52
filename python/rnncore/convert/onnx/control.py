"""If, Loop and Scan: nodes that run the graphs within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...arrays import Array
from ..budget import Budget
from .nodes import Body, Node, Value

#: The bytes that each turn takes, so that a budget ends what would not end by itself.
_TURN = 1 << 10


class Control:
    """What runs the bodies of a node. `free`: the values around them that they read."""

    def __init__(self, *bodies: Body) -> None:
        self.bodies = bodies
        self.free = tuple(dict.fromkeys(name for body in bodies for name in body.free))

    def __call__(self, budget: Budget, *given: Value) -> tuple[Value, ...]:
        """Return the node's outputs, of its inputs and after them the free values."""
        raise NotImplementedError

    def parted(self, given: Sequence[Value]) -> tuple[Sequence[Value], dict[str, Value]]:
        """What was given as the node's inputs, and the free values by name."""
        count = len(given) - len(self.free)
        return given[:count], dict(zip(self.free, given[count:], strict=True))


class Controlled(Node):
    """A node whose function is a `Control`: it takes the budget, too."""

    def results(self, given: Sequence[Value], budget: Budget) -> tuple[Value, ...]:
        """What the bodies make; each of their nodes takes what it needs from the budget."""
        return self.function(budget, *given)


class If(Control):
    """The first body or the second."""

    def __call__(self, budget: Budget, *given: Value) -> tuple[Value, ...]:
        """Condition -> outputs."""
        (condition,), around = self.parted(given)
        body = self.bodies[0 if condition.item() else 1]
        return body.run({name: around[name] for name in body.free}, budget)


class Loop(Control):
    """A body that is run again and again: its states are carried on, other outputs are collected.

    blanks: what is collected in no turn at all, one for each such output.
    """

    def __init__(self, body: Body, blanks: Sequence[Array], states: int) -> None:
        super().__init__(body)
        _check_sizes(body, 2 + states, 1 + states)
        self.body, self.blanks = body, blanks[1 + states :]

    def __call__(self, budget: Budget, *given: Value) -> tuple[Value, ...]:
        """Most turns, condition, states -> states after, what was collected."""
        (most, condition, *states), around = self.parted(given)
        count, turn = len(states), 0
        goes_on = condition is None or bool(condition.item())
        collected: list[list[Array]] = [[] for _ in self.body.outputs[1 + count :]]
        while goes_on and (most is None or turn < most.item()):
            budget.take("a turn", (_TURN,))
            inputs = np.array(turn, np.int64), np.array(goes_on), *states
            condition, *made = _run(self.body, inputs, around, budget)
            goes_on, turn, states = bool(condition.item()), turn + 1, made[:count]
            for values, value in zip(collected, made[count:], strict=True):
                values.append(value)
        return *states, *_stacked(collected, self.blanks, [0] * len(collected), budget)


class Scan(Control):
    """A body that is run for each entry of arrays along an axis.

    inputs: of the node; as many as `num_scan_inputs` says, the last ones, are such arrays.
    """

    def __init__(
        self, body: Body, blanks: Sequence[Array], inputs: int, attributes: Mapping[str, Any]
    ) -> None:
        super().__init__(body)
        arrays = attributes["num_scan_inputs"]
        self.states = inputs - arrays
        if not 1 <= arrays <= inputs:
            raise ValueError(f"num_scan_inputs must be in 1..{inputs}, got {arrays}")
        _check_sizes(body, inputs, self.states)
        self.body, self.blanks = body, blanks[self.states :]
        options = {"scan_input_axes": arrays, "scan_input_directions": arrays}
        options |= dict.fromkeys(("scan_output_axes", "scan_output_directions"), len(self.blanks))
        given = {name: list(attributes.get(name, [0] * n)) for name, n in options.items()}
        for name, count in options.items():
            if len(given[name]) != count:
                raise ValueError(f"{name} must be {count} numbers, got {len(given[name])}")
        self.axes, self.backwards, self.axes_out, self.backwards_out = given.values()

    def __call__(self, budget: Budget, *given: Value) -> tuple[Value, ...]:
        """States, arrays -> states after, what was collected."""
        inputs, around = self.parted(given)
        states, arrays = inputs[: self.states], inputs[self.states :]
        turned = [
            np.moveaxis(array, axis, 0)[:: -1 if backwards else 1]
            for array, axis, backwards in zip(arrays, self.axes, self.backwards, strict=True)
        ]
        if len({len(array) for array in turned}) != 1:
            raise ValueError(f"the arrays have {[len(array) for array in turned]} entries")
        collected: list[list[Array]] = [[] for _ in self.axes_out]
        for entries in zip(*turned, strict=True):
            budget.take("a turn", (_TURN,))
            made = _run(self.body, (*states, *entries), around, budget)
            states = made[: self.states]
            for values, value in zip(collected, made[self.states :], strict=True):
                values.append(value)
        for values, backwards in zip(collected, self.backwards_out, strict=True):
            if backwards:
                values.reverse()
        return *states, *_stacked(collected, self.blanks, self.axes_out, budget)


def _check_sizes(body: Body, inputs: int, outputs: int) -> None:
    """Refuse a body that does not take and make as much as its node has."""
    if len(body.inputs) != inputs or len(body.outputs) < outputs:
        raise ValueError(
            f"a body of {len(body.inputs)} inputs and {len(body.outputs)} outputs, "
            f"expected {inputs} and at least {outputs}"
        )


def _run(
    body: Body, inputs: Sequence[Value], around: Mapping[str, Value], budget: Budget
) -> tuple[Value, ...]:
    return body.run({**around, **dict(zip(body.inputs, inputs, strict=True))}, budget)


def _stacked(
    collected: Sequence[list[Array]],
    blanks: Sequence[Array],
    axes: Sequence[int],
    budget: Budget,
) -> list[Array]:
    """What each turn gave as one array, along an axis of its own."""
    stacked = []
    for values, blank, axis in zip(collected, blanks, axes, strict=True):
        budget.take("an array", (sum(value.nbytes for value in values),))
        stacked.append(np.stack(values, axis) if values else np.moveaxis(blank, 0, axis))
    return stacked
