"""Register programs of a cell run in NumPy, one instruction after the other: what the core must do.

It is written for what is checked, not for speed: every load and store is looked at, and what a
program must store and does not is an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rnncore.cells.definition import CellDefinition
from rnncore.cells.emission import _KINDS, MOST_REGISTERS, Instruction
from rnncore.cells.evaluate import Products
from rnncore.cells.graph import OPERATIONS
from rnncore.cells.lowering import CellPrograms, lowered

Array = np.ndarray
Leaves = dict[tuple[Any, ...], Array]

_LOADS = ("h", "state", "unit", "scalar", "vector", "dh", "dstate", "dmiddle")
_ALONE = ("h", "dh", "dmiddle")
_FUSED = {
    "fma": (3, lambda a, b, c: a * b + c),
    "fnma": (3, lambda a, b, c: c - a * b),
    "sigmoid_back": (2, lambda d, y: d * y * (1 - y)),
    "tanh_back": (2, lambda d, y: d * (1 - y * y)),
}


def run(
    program: list[Instruction],
    programs: CellPrograms,
    leaves: Leaves,
    slots: list[Array | None],
) -> Leaves:
    """Run a program over arrays (B, H): change `slots`, return what it stores elsewhere."""
    registers: list[Array | None] = [None] * MOST_REGISTERS
    stored: Leaves = {}
    for operation, to, *given in program:
        if operation in _LOADS:
            name = (operation,) if operation in _ALONE else (operation, given[0])
            registers[to] = leaves[name]
        elif operation == "slot":
            registers[to] = slots[given[0]]
        elif operation == "constant":
            registers[to] = np.array(programs.constants[given[0]])
        elif operation in _FUSED or operation in OPERATIONS:
            registers[to] = _computed(operation, given, registers, programs.constants)
        else:
            value = registers[given[0]]
            assert value is not None, "a register is stored that holds nothing"
            if operation in ("set_slot", "keep_slot"):
                slots[to] = value
            else:
                assert (operation, to) not in stored, f"{operation} {to} is stored twice"
                stored[operation, to] = value
    return stored


def _computed(
    operation: str, given: list[int], registers: list[Array | None], constants: list[float]
) -> Array:
    if operation in _FUSED:
        count, function = _FUSED[operation]
    else:
        function, count = OPERATIONS[operation].value, OPERATIONS[operation].operands
    operands = [registers[n] for n in given[:count]]
    assert all(a is not None for a in operands), f"{operation} reads a register that holds nothing"
    if operation.startswith("activation"):
        kind, alpha, beta = given[1:4]
        return function(*operands, _KINDS[kind], constants[alpha], constants[beta])
    return function(*operands)


class ProgramCell(Products):
    """A cell by its programs, as `rnncore.reference` walks it over time."""

    def __init__(self, cell: CellDefinition) -> None:
        super().__init__(cell)
        self.programs = lowered(cell)

    def forward(self, x, state, params):
        programs, h = self.programs, state[0]
        x, leaves = self.given(x, state, params)
        slots: list[Array | None] = [None] * (len(self.cell.slots) + programs.kept)
        source = h
        for stage in range(programs.phases):
            for (_, slot), sums in self.sums(stage, x, source, params).items():
                slots[slot] = sums
            stored = self._run(programs.forward[stage], leaves, slots, h)
            source = stored.get(("middle", 0), source)
        expected = {("new_h", 0)} | {("new_state", k) for k in range(programs.cells)}
        assert stored.keys() == expected
        new = (stored["new_h", 0], *(stored["new_state", k] for k in range(programs.cells)))
        return new, (x, leaves, source, slots)

    def backward(self, dstate, saved, params, grads):
        x, leaves, source, slots = saved
        h, programs = leaves["h",], self.programs
        assert not any(name[0].startswith("new") for name in leaves)
        leaves = leaves | {("dh",): dstate[0]}
        leaves |= {("dstate", k): d for k, d in enumerate(dstate[1:])}
        found: Leaves = {}
        dx: Any = 0
        for stage in range(programs.phases - 1, -1, -1):
            own = list(slots)
            stored = self._run(programs.backward[stage], leaves, own, h)
            for slot, _, _ in self._slots(stage):
                assert ("set_slot", slot) in self._stores(stage) or stage == 0
            slots = own
            self._take(found, stored)
            gradients = {("slot", slot): a for slot, a in enumerate(slots)}
            both = (params, grads)
            d, dsource = self.sums_back(stage, gradients, x, source if stage else h, both)
            dx = dx + d
            if stage:
                leaves["dmiddle",] = dsource
                leaves["dh",] = stored.get(("d_old_h", 0))
        if ("d_old_h", 0) in stored:
            dsource = dsource + stored["d_old_h", 0]
        found["h",] = dsource
        return self.given_back(dx, found, leaves, grads)

    def _run(self, program, leaves, slots, like):
        stored = run(program, self.programs, leaves, slots)
        return {name: np.broadcast_to(a, like.shape) for name, a in stored.items()}

    def _stores(self, stage: int) -> set[tuple[str, int]]:
        return {(i.operation, i.to) for i in self.programs.backward[stage]}

    def _take(self, found: Leaves, stored: Leaves) -> None:
        """Add up what programs store of the gradients of leaves."""
        names = {"d_unit": "unit", "d_scalar": "scalar", "d_vector": "vector"}
        names["d_old_state"] = "state"
        for (operation, to), value in stored.items():
            if operation in names:
                leaf = (names[operation], to)
                found[leaf] = found[leaf] + value if leaf in found else value
