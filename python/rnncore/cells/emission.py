"""A graph's nodes as instructions over registers: fused, in an order that needs few of them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..nonlinearities import ACTIVATIONS
from .graph import OPERATIONS, Graph

#: Vectors that a program computes with, and how long it may be.
MOST_REGISTERS, MOST_INSTRUCTIONS, MOST_CONSTANTS = 64, 4096, 256
#: The activations' numbers in the core are their places.
_KINDS = list(ACTIVATIONS)
#: What stores overwrite, by the load of it.
_OVERWRITTEN = {
    "set_slot": "slot",
    "keep_slot": "slot",
    "new_state": "state",
    "d_old_state": "dstate",
    "d_old_h": "dh",
}
#: Operations that take in an operand, by its operation; and what both are then.
_TAKEN_IN = {
    "add": {"multiply": "fma"},
    "subtract": {"multiply": "fnma"},
    "multiply": {"sigmoid_slope": "sigmoid_back", "tanh_slope": "tanh_back"},
}


class Instruction(NamedTuple):
    """One operation of a program: `to` and the others are registers, or places of what is told."""

    operation: str
    to: int
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


class Store(NamedTuple):
    """A result of a program: where it goes, and the node that it is."""

    operation: str
    to: int
    node: int


class Constants:
    """Numbers that programs share."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def place(self, value: float) -> int:
        """Return where a number stands."""
        if value not in self.values:
            self.values.append(value)
        return self.values.index(value)


class _Work(NamedTuple):
    """A node as one operation of the core."""

    operation: str
    operands: tuple[int, ...]
    others: tuple[int, ...] = ()


def program_of(
    graph: Graph, stores: Sequence[Store], held: Mapping[int, int], constants: Constants
) -> list[Instruction]:
    """Return the instructions that compute and store some nodes, in few registers.

    held: nodes that need not be computed, and the slots which hold them.
    """
    works = _works(graph, stores, held, constants)
    orders = [stores, sorted(stores, key=lambda store: store.node), list(reversed(stores))]
    found = [_allocated(works, list(_ordered(works, order))) for order in orders]
    program, registers = min(found, key=lambda made: made[1])
    if registers > MOST_REGISTERS:
        raise ValueError(f"it needs {registers} registers; there are {MOST_REGISTERS}")
    if len(program) > MOST_INSTRUCTIONS:
        raise ValueError(
            f"it takes {len(program)} instructions; at most {MOST_INSTRUCTIONS} are possible"
        )
    return program


def _works(
    graph: Graph, stores: Sequence[Store], held: Mapping[int, int], constants: Constants
) -> dict[int, _Work]:
    """All that has to be computed or loaded, products and sums fused where nobody else asks."""
    needed = sorted(graph.reached((store.node for store in stores), held))
    computed = {n for n in needed if n not in held and graph.operands(n)}
    uses = Counter(operand for n in computed for operand in graph.operands(n))
    uses.update(store.node for store in stores)
    absorbed, works = set[int](), dict[int, _Work]()
    for n in reversed(needed):  # sums before the products in them
        if n in absorbed:
            continue
        if n in held:
            works[n] = _Work("slot", (), (held[n],))
        elif n not in computed:
            works[n] = _load(graph, n, constants)
        else:
            inner = _fusible(graph, n, held, uses)
            works[n] = _plain(graph, n, constants) if inner is None else _fused(graph, n, inner)
            absorbed |= set() if inner is None else {inner}
    return works


def _load(graph: Graph, n: int, constants: Constants) -> _Work:
    name, *given = graph.nodes[n]
    if name == "constant":
        given = [constants.place(given[0])]
    return _Work(name, (), tuple(given))


def _plain(graph: Graph, n: int, constants: Constants) -> _Work:
    name, *given = graph.nodes[n]
    count = OPERATIONS[name].operands
    spec = given[count:]
    if not spec:
        return _Work(name, tuple(given))
    kind, alpha, beta = spec
    others = (_KINDS.index(kind), constants.place(alpha), constants.place(beta))
    return _Work(name, tuple(given[:count]), others)


def _fusible(graph: Graph, n: int, held: Mapping[int, int], uses: Mapping[int, int]) -> int | None:
    """What an operation can take in, if nobody else asks for it: a sum a product, that a slope."""
    name, *given = graph.nodes[n]
    for operand in given[name == "subtract" :] if name in _TAKEN_IN else []:
        if graph.nodes[operand][0] not in _TAKEN_IN[name] or operand in held:
            continue
        if uses[operand] == 1:
            return int(operand)
    return None


def _fused(graph: Graph, n: int, inner: int) -> _Work:
    """a * b + c, c - a * b, or a times the slope of b."""
    name, *given = graph.nodes[n]
    (other,) = (operand for operand in given if operand != inner)
    if name == "multiply":
        return _Work(_TAKEN_IN[name][graph.nodes[inner][0]], (other, *graph.operands(inner)))
    return _Work(_TAKEN_IN[name]["multiply"], (*graph.operands(inner), other))


def _ordered(works: Mapping[int, _Work], stores: Sequence[Store]) -> Iterator[int | Store]:
    """Yield nodes and stores in an order that keeps few values waiting (Sethi and Ullman 1970)."""
    weights: dict[int, int] = {}
    for n in sorted(works):
        inner = sorted((weights[m] for m in works[n].operands), reverse=True)
        weights[n] = max((weight + at for at, weight in enumerate(inner)), default=1)
    loads = {(work.operation, *work.others): n for n, work in works.items() if not work.operands}
    done = set[int]()
    for store in stores:
        # What a place holds is read before it is overwritten.
        load = _OVERWRITTEN.get(store.operation, "")
        own = loads.get((load, store.to), loads.get((load,)))
        waiting = [store.node, *([] if own is None else [own])]
        while waiting:
            n = waiting[-1]
            before = [m for m in works[n].operands if m not in done]
            if n in done or not before:
                waiting.pop()
                if n not in done:
                    done.add(n)
                    yield n
            else:
                waiting += sorted(before, key=lambda m: weights[m])
        yield store


def _allocated(
    works: Mapping[int, _Work], order: Sequence[int | Store]
) -> tuple[list[Instruction], int]:
    """Give every value a register for as long as somebody reads it; and how many there are."""
    last: dict[int, int] = {}
    for at, item in enumerate(order):
        for n in (item.node,) if isinstance(item, Store) else works[item].operands:
            last[n] = at
    free, used, place = list[int](), 0, dict[int, int]()
    program = []
    for at, item in enumerate(order):
        read = (item.node,) if isinstance(item, Store) else works[item].operands
        registers = [place[n] for n in read]
        for n in set(read):
            if last[n] == at:
                heapq.heappush(free, place[n])
        if isinstance(item, Store):
            program.append(Instruction(item.operation, item.to, *registers))
            continue
        if not free:
            heapq.heappush(free, used)
            used += 1
        place[item] = heapq.heappop(free)
        work = works[item]
        program.append(Instruction(work.operation, place[item], *registers, *work.others))
        if item not in last:  # read for the sake of order alone
            heapq.heappush(free, place[item])
    return program, used
