"""From which states the rows of a recurrent node start, as far as the file holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...arrays import Array
from ..budget import Budget
from ..common import refusal

#: As many sizes as any array here has.
_ONES = np.ones(8, np.int64)


def first_states(
    node: Any, nodes: Sequence[Any], constants: Mapping[str, Array], budget: Budget
) -> dict[str, Array]:
    """Return `initial_h` and `initial_c (D, H)` of a node; nothing where all of it is zero.

    What is an input of the graph, or depends on one beyond its shape, counts as zero: it is the
    caller's to give, and whoever compares outputs sees the rest.
    """
    kinds = "hc" if node.function.kind == "lstm" else "h"
    names = (*node.inputs, *[""] * 7)[5:7]
    found = {
        f"initial_{kind}": _of_a_row(node, _value(name, nodes, constants, budget))
        for kind, name in zip(kinds, names, strict=False)
    }
    return found if any(array.any() for array in found.values()) else {}


def leading_to(nodes: Sequence[Any], y: str) -> list[Any]:
    """The nodes that a value needs, in their order."""
    needed, kept = {y}, []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(name for name in node.inputs if name)
            kept.append(node)
    return kept[::-1]


def _value(
    name: str, nodes: Sequence[Any], constants: Mapping[str, Array], budget: Budget
) -> Array | None:
    """A value by what the file holds, for a batch of one: every size that is read off is one."""
    values = dict(constants)
    for node in leading_to(nodes, name) if name and name not in values else ():
        if node.op == "Shape":
            cut = slice(node.attributes.get("start", 0), node.attributes.get("end"))
            values[node.outputs[0]] = _ONES[cut]
        elif all(not of or of in values for of in node.inputs):
            node.run(values, budget)
    return values.get(name)


def _of_a_row(node: Any, state: Array | None) -> Array:
    """A state `(D, H)` of one row, of which all others start as well."""
    directions, hidden = len(node.function.directions), node.function.hidden
    if state is None:
        return np.zeros((directions, hidden))
    if state.ndim == 3 and not node.function.time_major:
        state = state.swapaxes(0, 1)
    if state.ndim != 3 or state.shape[::2] != (directions, hidden) or not state.shape[1]:
        wanted = f"({directions}, B, {hidden})"
        raise ValueError(f"{node.where}: initial states must be {wanted}, got {state.shape}")
    if (state != state[:, :1]).any():
        raise refusal("a chain", f"{node.where}, whose rows start from different states")
    return state[:, 0]
