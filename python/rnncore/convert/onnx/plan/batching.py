"""Products with one matrix that do not wait for each other, made one: unrolled loops have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..nodes import Node
from .fusing import Fused


@dataclass(frozen=True)
class Batch:
    """Nodes of one matrix, none of which needs what another one makes."""

    nodes: tuple[Node, ...]


Item: TypeAlias = "Node | Fused | Batch"


def reads(item: Item) -> Iterator[str]:
    """Yield the names of what an item needs."""
    if isinstance(item, Fused):
        yield from filter(None, (item.x, item.add))
    else:
        for node in item.nodes if isinstance(item, Batch) else (item,):
            yield from filter(None, node.inputs)


def makes(item: Item) -> Iterator[str]:
    """Yield the names of what an item makes."""
    if isinstance(item, Fused):
        yield item.output
    else:
        for node in item.nodes if isinstance(item, Batch) else (item,):
            yield from filter(None, node.outputs)


def needed(items: Iterable[Node | Fused], outputs: Iterable[str]) -> list[Node | Fused]:
    """Return the items that lead to the outputs, in order."""
    wanted, kept = set(outputs), []
    for item in reversed(list(items)):
        if wanted.intersection(makes(item)):
            wanted.update(reads(item))
            kept.append(item)
    return kept[::-1]


def batched(items: Sequence[Node | Fused]) -> list[Item]:
    """Return the items in an order in which products of one matrix are together.

    Of products that need each other's outputs, as those with a state do, only the first can be.
    """
    groups: dict[int, list[Node]] = {}
    after: dict[str, frozenset[int]] = {}  # the matrices on whose products a value depends
    for item in items:
        needs = frozenset().union(*(after.get(name, frozenset()) for name in reads(item)))
        if isinstance(item, Node) and hasattr(item.function, "linear"):
            own = id(item.function.linear)
            if own not in needs:
                groups.setdefault(own, []).append(item)
            needs |= {own}
        after.update(dict.fromkeys(makes(item), needs))
    batches = [Batch(tuple(nodes)) for nodes in groups.values() if len(nodes) > 1]
    owner: dict[int, Item] = {id(node): batch for batch in batches for node in batch.nodes}
    return _sorted(list(items), owner) or list(items)


def _sorted(items: list[Item], owner: dict[int, Item]) -> list[Item] | None:
    """Each item after what it needs, else as they were; None if batches wait for each other."""
    maker = {name: owner.get(id(item), item) for item in items for name in makes(item)}
    order: list[Item] = []
    seen: dict[int, bool] = {}  # whether all it needs is there
    for first in items:
        stack: list[Any] = [owner.get(id(first), first)]
        while stack:
            item = stack[-1]
            if seen.get(id(item)):
                stack.pop()
                continue
            needed = [maker[name] for name in reads(item) if name in maker]
            missing = [other for other in needed if not seen.get(id(other))]
            if not missing:
                seen[id(item)] = True
                order.append(stack.pop())
                continue
            if any(id(other) in seen for other in missing):  # it waits for this one
                return None
            seen[id(item)] = False
            stack.extend(missing)
    return order
