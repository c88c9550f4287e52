"""Inputs that a model is tried on, of sizes that fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from ...arrays import Array
from ..budget import Budget
from ..common import shown
from .files import Input
from .nodes import Body
from .recurrent import Recurrent

Inputs: TypeAlias = Mapping[str, Input]
#: Sizes that are fixed elsewhere: of an input's axis, or of all axes of a name.
Bound: TypeAlias = dict[Any, int]


def as_inputs(verify: Any) -> tuple[Array, ...]:
    """Return inputs given to `verify=` as a tuple."""
    return verify if isinstance(verify, tuple) else (verify,)


def bound_by_states(body: Body, inputs: Inputs) -> Bound:
    """The batches of inputs that recurrent nodes read whose first states have a fixed one."""
    makers = {name: node for node in body.nodes for name in node.outputs}
    bound: Bound = {}
    for node in body.nodes:
        if not isinstance(node.function, Recurrent):
            continue
        axis = 1 if node.function.time_major else 0
        for state in (*node.inputs, *[""] * 7)[5:7]:
            shape = _shape_of(state, body, inputs)
            name, at = _traced(makers, node.inputs[0], axis)
            if len(shape) == 3 and isinstance(shape[axis], int) and name in inputs:
                bound[name, at] = shape[axis]
                sizes = inputs[name].shape or ()
                if at < len(sizes) and isinstance(sizes[at], str):
                    bound[sizes[at]] = shape[axis]
    return bound


def _shape_of(name: str, body: Body, inputs: Inputs) -> tuple[Any, ...]:
    """What is known of a value's shape; empty if nothing is."""
    if name in inputs:
        return inputs[name].shape or ()
    return np.shape(body.constants[name]) if name in body.constants else ()


def _traced(makers: Mapping[str, Any], name: str, axis: int) -> tuple[str, int]:
    """The value, and its axis, of which this is the axis of another after transpositions."""
    while name in makers and makers[name].op in ("Identity", "Transpose"):
        node = makers[name]
        perm = node.attributes.get("perm")
        if node.op == "Transpose" and perm is None:
            break
        name, axis = node.inputs[0], axis if perm is None else perm[axis]
    return name, axis


def random_inputs(inputs: Inputs, bound: Bound, budget: Budget) -> tuple[Array, ...]:
    """Draw inputs that a model takes: floats at random, whole numbers all one."""
    rng = np.random.default_rng(0)
    sizes: Bound = {}
    drawn = []
    for name, described in inputs.items():
        if described.shape is None or described.dtype is None:
            raise ValueError(
                f"the file does not say the shape of the input {shown(name)}: "
                "give verify= an input, or a tuple of all"
            )
        shape = tuple(
            size
            if isinstance(size, int)
            else bound.get((name, axis))
            or bound.get(size)
            or sizes.setdefault(size, 3 + len(sizes))
            for axis, size in enumerate(described.shape)
        )
        budget.take("an input", shape, 8)
        values = rng.standard_normal(shape) if described.dtype.kind == "f" else np.ones(shape)
        drawn.append(values.astype(described.dtype))
    return tuple(drawn)


def steps_and_batch(inputs: Inputs, bound: Bound, batch_first: bool) -> tuple[int, int]:
    """How many steps and rows the first input has; 7 and 3 where that is left open."""
    name, described = next(iter(inputs.items()))
    sizes = (*(described.shape or ()), None, None)[:2]
    steps, batch = sizes[:: -1 if batch_first else 1]
    fixed = bound.get((name, 0 if batch_first else 1), 3)
    return steps if isinstance(steps, int) else 7, batch if isinstance(batch, int) else fixed


def neutral(inputs: Inputs, x: Array, batch_first: bool, budget: Budget) -> dict[str, Array]:
    """Inputs with x as the first, lengths that are full, and states that are zero."""
    (name, described), *others = inputs.items()
    given = {name: x if described.dtype is None else x.astype(described.dtype)}
    steps, batch = x.shape[:2][:: -1 if batch_first else 1]
    for other, described in others:
        if described.shape is None or described.dtype is None:
            raise ValueError(f"the file does not say the shape of the input {shown(other)}")
        fill = steps if described.dtype.kind in "iu" else 0
        sizes = [size if isinstance(size, int) else batch for size in described.shape]
        budget.take(f"the input {shown(other)}", sizes, described.dtype.itemsize)
        given[other] = np.full(sizes, fill, described.dtype)
    return given
