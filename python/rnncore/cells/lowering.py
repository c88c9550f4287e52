"""A definition as programs for the compiled core, forward and backward, and what is kept between.

Each gate's sums have slots, which backward finds as forward left them. Where backward needs a sum
only through one value, such as a gate through its sigmoid, forward puts the value there, which
costs no memory. All else is computed again from slots and old states.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from .definition import CellDefinition
from .emission import MOST_CONSTANTS, Constants, Instruction, Store, program_of
from .gradient import gradients
from .graph import OPERATIONS, Node

#: How many values that depend on a sum are tried in its place.
_TRIED = 12


@dataclass(frozen=True)
class CellPrograms:
    """What the core takes: see `_core.CellProgram`. Programs are listed by the stage."""

    gates: list[tuple[bool, bool, bool, int]]
    phases: int
    units: int
    cells: int
    scalars: int
    vectors: int
    kept: int
    forward: list[list[Instruction]]
    backward: list[list[Instruction]]
    constants: list[float]
    #: What slots hold for backward, in words.
    remembered: list[str]


class _Kept(NamedTuple):
    """A value in the place of a sum."""

    node: int
    stage: int  # of the program that puts it there
    always: bool  # and not only where a backward pass will follow


class Zones(NamedTuple):
    """Of which states a share stays as it was (zoneout): h, the others."""

    h: bool = False
    others: bool = False


NO_ZONES = Zones()


@lru_cache(maxsize=64)
def lowered(cell: CellDefinition, zones: Zones = NO_ZONES, sums: bool = False) -> CellPrograms:
    """Return a cell's programs; sums: for nodes of trees, whose old states are sums.

    Raises `ValueError` for one that is too large for the core.
    """
    try:
        return _Lowering(cell, zones, sums).programs()
    except ValueError as error:
        raise ValueError(f"{cell.name}: {error}") from None


class _Lowering:
    """One cell on its way to programs."""

    def __init__(self, cell: CellDefinition, zones: Zones, sums: bool) -> None:
        self.cell, self.graph = cell, cell.graph.copy()
        self.outputs, self.reads_h = list(self._outputs(zones)), cell.reads_h or zones.h
        self.sums = sums
        self.stages = 1 if cell.middle is None else 2
        self.stage_of = [int(gate.second) for _, gate in cell.slots]
        self.leaves = [self.graph.leaf("slot", j) for j in range(len(self.stage_of))]
        self.extra = 0
        self.forward = self._forward_stores()
        self.backward = self._backward_stores()
        #: For each program, (is it backward, stage), the nodes that slots hold.
        self.held: dict[tuple[bool, int], dict[int, int]] = {
            (back, stage): {} for back in (False, True) for stage in range(self.stages)
        }
        self.kept: dict[int, _Kept] = {}

    def programs(self) -> CellPrograms:
        """Choose what is kept, and write it all down."""
        computed = [self.graph.reached(s.node for s in stores) for stores in self.forward]
        for slot, leaf in enumerate(self.leaves):
            self._choose(slot, leaf, computed)
        self._drop_unread()
        for slot, kept in self.kept.items():
            store = "set_slot" if kept.always else "keep_slot"
            self.forward[kept.stage].append(Store(store, slot, kept.node))
        cell, constants = self.cell, Constants()
        forward, backward = (
            [
                program_of(self.graph, stores, self.held[back, stage], constants)
                for stage, stores in enumerate(by_stage)
            ]
            for back, by_stage in ((False, self.forward), (True, self.backward))
        )
        if len(constants.values) > MOST_CONSTANTS:
            raise ValueError(f"it has {len(constants.values)} constants, and not {MOST_CONSTANTS}")
        return CellPrograms(
            [(gate.input, gate.recurrent, gate.apart, int(gate.second)) for gate in cell.gates],
            self.stages,
            len(cell.units),
            len(cell.states) - 1,
            len(cell.inputs),
            len(cell.vectors),
            self.extra,
            forward,
            backward,
            constants.values,
            list(self._remembered()),
        )

    def _outputs(self, zones: Zones) -> Iterator[int]:
        """The new states; zones keep a share of the old ones (Krueger et al. 2017)."""
        graph, one = self.graph, self.graph.constant(1)
        for place, node in enumerate(self.cell.outputs):
            if not (zones.others if place else zones.h):
                yield node
                continue
            keep = graph.leaf("keep_state" if place else "keep_h")
            old = graph.leaf("state", place - 1) if place else graph.leaf("h")
            new = graph.apply("multiply", graph.apply("subtract", one, keep), node)
            yield graph.apply("add", graph.apply("multiply", keep, old), new)

    def _forward_stores(self) -> list[list[Store]]:
        new_h, *others = self.outputs
        last = [Store("new_h", 0, new_h)]
        last += [Store("new_state", k, node) for k, node in enumerate(others)]
        middle = self.cell.middle
        return [last] if middle is None else [[Store("middle", 0, middle)], last]

    def _backward_stores(self) -> list[list[Store]]:
        """The gradients that each stage's backward stores."""
        graph, (new_h, *others) = self.graph, self.outputs
        seeds = [(new_h, graph.leaf("dh"))]
        seeds += [(node, graph.leaf("dstate", k)) for k, node in enumerate(others)]
        found = gradients(graph, seeds)
        if self.cell.middle is None:
            return [self._stores(found, self.leaves)]
        through = gradients(graph, [(self.cell.middle, graph.leaf("dmiddle"))])
        inside = graph.reached([self.cell.middle])
        early = [leaf for leaf in self.leaves if leaf in inside]
        late = [leaf for leaf in self.leaves if leaf not in inside]
        # Slots and vectors are stored once: where both stages have a part, one waits for the other.
        waiting = [graph.nodes[leaf] for leaf in early]
        waiting += [node for node in through if node[0] == "vector"]
        partial = []
        for node in waiting:
            part = found.pop(node, None)
            if part is not None:
                slot = len(self.leaves) + self.extra
                self.extra += 1
                partial.append(Store("set_slot", slot, part))
                self._add(through, node, graph.leaf("slot", slot))
        if self.reads_h and not self.sums:  # in a tree both stages add to the children's gradients
            self._add(through, ("h",), graph.leaf("dh"))
        vectors = {("vector", v) for v in range(len(self.cell.vectors))}
        return [
            self._stores(through, early, vectors - through.keys()),
            self._stores(found, late, through) + partial,
        ]

    def _add(self, gradient: dict[Node, int], leaf: Node, part: int) -> None:
        known = gradient.get(leaf)
        gradient[leaf] = part if known is None else self.graph.apply("add", known, part)

    def _stores(
        self, found: dict[Node, int], slots: list[int], elsewhere: Container[Node] = ()
    ) -> list[Store]:
        """What one backward program stores of the gradients of leaves.

        elsewhere: leaves that the other stage's program stores.
        """
        zero, cell = self.graph.constant(0), self.cell
        stores = []
        for leaf in slots:
            node = self.graph.nodes[leaf]
            stores.append(Store("set_slot", node[1], found.get(node, zero)))
        product = any(gate.recurrent and not gate.second for gate in cell.gates)
        if self.reads_h or not product:  # without a product in the first stage nobody else sets it
            stores.append(Store("d_old_h", 0, found.get(("h",), zero)))
        for k in range(len(cell.states) - 1):
            stores.append(Store("d_old_state", k, found.get(("state", k), zero)))
        for v in range(len(cell.vectors)):
            if ("vector", v) not in elsewhere:
                stores.append(Store("d_vector", v, found.get(("vector", v), zero)))
        for kind in ("unit", "scalar"):  # the core adds these up
            stores += [
                Store(f"d_{kind}", node[1], n) for node, n in found.items() if node[0] == kind
            ]
        return stores

    def _choose(self, slot: int, leaf: int, computed: list[set[int]]) -> None:
        """Find the value that saves most in the place of a sum, if there is one."""
        last = self.stages - 1
        after = [(True, stage) for stage in range(self.stages)]
        if self.stage_of[slot] == last:
            options = [(computed[last], [(True, last)], last)]
        else:
            options = [
                (computed[0], [(False, 1), *after], 0),
                (computed[1] - computed[0], after, 1),
            ]
        best, choice = 0, None
        for among, programs, stage in options:
            before = self._cost(programs, None, leaf)[0]
            for node in self._above(leaf, among):
                cost, sees = self._cost(programs, node, leaf)
                if not sees and before - cost > best:
                    best, choice = before - cost, (node, programs, stage)
        if choice is None:
            return
        node, programs, stage = choice
        always = (False, 1) in programs and node in self._reached((False, 1))
        self.kept[slot] = _Kept(node, stage, always)
        for program in programs:
            self.held[program][node] = slot

    def _drop_unread(self) -> None:
        """Let go of values that others, chosen later, have made needless."""
        for slot, kept in [*self.kept.items()]:
            read = (
                self.graph.reached((store.node for store in stores), self.held[back, stage])
                for back, stages in ((False, self.forward[1:]), (True, self.backward))
                for stage, stores in enumerate(stages, start=not back)
            )
            if not any(kept.node in reached for reached in read):
                del self.kept[slot]

    def _above(self, leaf: int, among: set[int]) -> list[int]:
        """The first nodes that depend on a leaf."""
        found = {leaf}
        for node in sorted(among):
            if found.intersection(self.graph.operands(node)):
                found.add(node)
                if len(found) > _TRIED:
                    break
        return sorted(found - {leaf})

    def _reached(self, program: tuple[bool, int], more: int | None = None) -> set[int]:
        back, stage = program
        stores = (self.backward if back else self.forward)[stage]
        held = self.held[program].keys() | (set() if more is None else {more})
        return self.graph.reached((store.node for store in stores), held) - held

    def _cost(
        self, programs: list[tuple[bool, int]], node: int | None, leaf: int
    ) -> tuple[int, bool]:
        """What the programs take with a node held, and whether they still read the leaf."""
        total, sees = 0, False
        for program in programs:
            reached = self._reached(program, node)
            sees = sees or leaf in reached
            names = (self.graph.nodes[n][0] for n in reached)
            total += sum(OPERATIONS[name].cost if name in OPERATIONS else 1 for name in names)
        return total, sees

    def _remembered(self) -> list[str]:
        """What each slot holds for backward, by what the last operation was."""
        words = []
        read = set().union(*(self._reached((True, stage)) for stage in range(self.stages)))
        for slot, (name, _) in enumerate(self.cell.slots):
            if slot in self.kept:
                node = self.graph.nodes[self.kept[slot].node]
                operation = node[2] if node[0] == "activation" else node[0]
                words.append(f"{operation} of {name}")
            elif self.leaves[slot] in read:
                words.append(f"sum {name}")
        return words + [f"partial gradient {k}" for k in range(self.extra)]
