"""A cell that a user wrote: its gates, states and numbers, and its time step as a graph.

The step is a Python function, which is called once with symbols; what it returns is the definition.
A definition is data: it is stored in model files, and checked when it is read.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

from ..arrays import check_flag, check_number, short
from ..recurrent.registry import LayerMaker
from .graph import MOST_NODES, Graph, read_graph
from .symbols import Symbol, node_of

Names: TypeAlias = "str | Sequence[str]"

#: What the compiled core has room for.
MOST_GATES, MOST_STATES, MOST_UNITS, MOST_INPUTS = 8, 8, 18, 64


class Gate:
    """One gate of a cell: H rows of the weights, and the sums that its step is handed.

    input, recurrent: whether the sum has a product with x, and one with h. apart: the step is
    handed the two parts as `NAME_input` and `NAME_recurrent`, each with its own bias, in place of
    their sum. of: a function of what a step may read that returns what the recurrent weights
    multiply in place of h; the cell then has a second stage, as the GRU that resets before the
    product, and no state but h. All gates with `of` share one function.
    """

    def __init__(
        self,
        name: str,
        input: bool = True,
        recurrent: bool = True,
        apart: bool = False,
        of: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name
        self.input, self.recurrent = check_flag("input", input), check_flag("recurrent", recurrent)
        self.apart, self.of = check_flag("apart", apart), of
        if of is not None and not callable(of):
            raise TypeError(f"of must be a function of a step's arguments, got {short(of)}")


class GateFacts(NamedTuple):
    """What a definition holds of a gate."""

    name: str
    input: bool
    recurrent: bool
    apart: bool
    second: bool  # computed in the second stage

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of its sums."""
        return (f"{self.name}_input", f"{self.name}_recurrent") if self.apart else (self.name,)


class UnitFacts(NamedTuple):
    """Numbers of each hidden unit's own, and between which they start; None: as weights do."""

    name: str
    low: float | None
    high: float | None


class CellDefinition(LayerMaker):
    """A cell of one's own, as `rnncore.cells.define` makes it.

    Called with sizes it makes a layer: `cell(16, 32)` is `rnncore.Recurrent(cell, 16, 32)`.
    """

    #: `rnncore.Recurrent`, and what slots hold for backward in words: defined on top of this.
    layer: ClassVar[Callable[..., Any]]
    remembered: ClassVar[Callable[[CellDefinition], list[str]]]

    def __init__(
        self,
        name: str,
        gates: Sequence[Sequence[Any]],
        states: Sequence[str],
        units: Sequence[Sequence[Any]],
        inputs: Sequence[str],
        vectors: Sequence[str],
        nodes: Sequence[Sequence[Any]],
        outputs: Sequence[int],
        middle: int | None = None,
    ) -> None:
        """nodes: the step's expressions, `[name, arguments...]`, operands by their number.

        outputs: the nodes of the new states, h first; middle: that of what the second stage's
        recurrent weights multiply. Raises `ValueError` saying what is wrong.
        """
        self.name = self.written_as = _checked_name("name", name)
        self.gates = _read_gates(gates)
        self.units = _read_units(units)
        self.states, self.inputs, self.vectors = (
            _checked_names(kind, given)
            for kind, given in (("states", states), ("inputs", inputs), ("vectors", vectors))
        )
        _check_sizes(self)
        self.graph, numbers = read_graph(nodes, self._leaves())
        places = range(len(numbers))
        if not isinstance(outputs, (tuple, list)) or len(outputs) != len(self.states):
            raise ValueError(f"outputs must be {len(self.states)} nodes, got {short(outputs)}")
        for at in (*outputs, *(() if middle is None else (middle,))):
            if type(at) is not int or at not in places:
                raise ValueError(f"there is no node {short(at)} to be a result")
        self.outputs = tuple(numbers[at] for at in outputs)
        self.middle = None if middle is None else numbers[middle]
        _check_stages(self)
        _check_all_read(self)

    def __repr__(self) -> str:
        """Say what the step reads and returns, and what is remembered of it for backward."""
        gates = ", ".join(_gate_in_words(gate) for gate in self.gates)
        lines = [f"cell {self.name}: {', '.join(self.states)}", f"  gates: {gates}"]
        lines += [
            f"  {called}: {', '.join(names)}"
            for called, names in (
                ("units", [unit.name for unit in self.units]),
                ("inputs", self.inputs),
                ("vectors", self.vectors),
                ("kept of a step", CellDefinition.remembered(self)),
            )
            if names
        ]
        return "\n".join(lines)

    def __call__(self, input_size: int, hidden_size: int, *args: Any, **options: Any) -> Any:
        """Return `rnncore.Recurrent(self, input_size, hidden_size, ...)`."""
        return CellDefinition.layer(self, input_size, hidden_size, *args, **options)

    def columns(self, input_size: int, hidden_size: int) -> int:
        """Return how wide x is: features, inputs, vectors."""
        scalars, vectors = self.width_beside
        return input_size + scalars + vectors * hidden_size

    def features(self, columns: int, hidden_size: int) -> int:
        """Return the input_size of a layer where x has so many columns, inputs and vectors last.

        Raises `ValueError` where no feature is left.
        """
        beside = self.columns(0, hidden_size)
        if columns <= beside:
            raise ValueError(
                f"x must have features beside the {beside} columns of inputs that {self.name} "
                f"reads, got {columns} columns"
            )
        return columns - beside

    @property
    def slots(self) -> list[tuple[str, GateFacts]]:
        """The sums that a step is handed, by name, each with its gate."""
        return [(name, gate) for gate in self.gates for name in gate.slots]

    @property
    def reads_h(self) -> bool:
        """Whether the step, or the second stage's function, reads h itself."""
        return bool(self._read_nodes() & {("h",)})

    @property
    def recurrent(self) -> bool:
        """Whether there are recurrent weights."""
        return any(gate.recurrent for gate in self.gates)

    @property
    def width_beside(self) -> tuple[int, int]:
        """How many columns of x are no features: numbers for all units, and vectors of H each."""
        return len(self.inputs), len(self.vectors)

    def _leaves(self) -> dict[str, int]:
        """How many leaves there are of each kind."""
        return {
            "slot": len(self.slots),
            "h": 1,
            "state": len(self.states) - 1,
            "unit": len(self.units),
            "scalar": len(self.inputs),
            "vector": len(self.vectors),
        }

    def _read_nodes(self) -> set[Any]:
        roots = (*self.outputs, *(() if self.middle is None else (self.middle,)))
        return {self.graph.nodes[number] for number in self.graph.reached(roots)}


def _gate_in_words(gate: GateFacts) -> str:
    parts = [part for part, there in (("x", gate.input), ("h", gate.recurrent)) if there]
    if gate.second:
        parts[-1] = "of"
    return f"{gate.name}({' | '.join(parts) if gate.apart else ' + '.join(parts)})"


def _checked_name(kind: str, name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{kind} must be names as Python has them, got {short(name)}")
    if len(name) > 60:
        raise ValueError(f"{kind} must have at most 60 letters, got {short(name)}")
    return name


def _checked_names(kind: str, names: Names) -> tuple[str, ...]:
    if not isinstance(names, (str, tuple, list)):
        raise TypeError(f"{kind} must be a list of names, got {short(names)}")
    if len(names) > MOST_INPUTS:
        raise ValueError(f"{kind} must be at most {MOST_INPUTS} names, got {len(names)}")
    return tuple(_checked_name(kind, name) for name in names)


def _read_gates(gates: Any) -> tuple[GateFacts, ...]:
    if not isinstance(gates, (tuple, list)) or not 0 < len(gates) <= 2 * MOST_GATES:
        raise ValueError(f"gates must be a list of 1 to {2 * MOST_GATES}, got {short(gates)}")
    found = []
    for gate in gates:
        if not isinstance(gate, (tuple, list)) or len(gate) != 5:
            raise ValueError(f"a gate must be a name and four flags, got {short(gate)}")
        if any(type(flag) is not bool for flag in gate[1:]):
            raise ValueError(f"the flags of a gate must be true or false, got {short(gate)}")
        made = GateFacts(_checked_name("gates", gate[0]), *gate[1:])
        if not made.input and not made.recurrent:
            raise ValueError(f"gate {made.name!r} must have an input part or a recurrent part")
        if made.apart and not (made.input and made.recurrent):
            raise ValueError(f"gate {made.name!r} is apart, but has no two parts")
        if made.second and not made.recurrent:
            raise ValueError(f"gate {made.name!r} has `of`, but no recurrent part")
        found.append(made)
    return tuple(found)


def _read_units(units: Any) -> tuple[UnitFacts, ...]:
    if not isinstance(units, (tuple, list)) or len(units) > MOST_UNITS:
        raise ValueError(f"units must be a list of at most {MOST_UNITS}, got {short(units)}")
    found = []
    for unit in units:
        if not isinstance(unit, (tuple, list)) or len(unit) != 3:
            raise ValueError(f"a unit must be a name and two bounds, got {short(unit)}")
        name, *bounds = unit
        name = _checked_name("units", name)
        if bounds != [None, None]:
            low, high = (check_number(f"units: bounds of {name}", bound) for bound in bounds)
            if not -1e30 <= low <= high <= 1e30:
                raise ValueError(f"units: {name} must start between finite bounds, got {bounds}")
        found.append(UnitFacts(name, *bounds))
    return tuple(found)


def _check_sizes(cell: CellDefinition) -> None:
    """Refuse more than the core has room for, and names that stand for two things."""
    if not 1 <= len(cell.states) <= MOST_STATES:
        raise ValueError(f"states must be 1 to {MOST_STATES} names, h first, got {cell.states}")
    second = any(gate.second for gate in cell.gates)
    if not any(gate.input for gate in cell.gates):
        raise ValueError("gates: at least one must have an input part, or nothing reads x")
    for stage in (False, True):
        most = MOST_GATES // 2 if second else MOST_GATES
        for part in ("input", "recurrent"):
            own = [g for g in cell.gates if g.second is stage and getattr(g, part)]
            if len(own) > most:
                raise ValueError(
                    f"gates: at most {most} may have an {part} part"
                    f"{' in each stage' if second else ''}, got {len(own)}"
                )
    if second and len(cell.states) > 1:
        raise ValueError(f"states: a cell with `of` has h alone, got {cell.states}")
    named = [name for name, _ in cell.slots] + [gate.name for gate in cell.gates if gate.apart]
    named += [*cell.states, *(unit.name for unit in cell.units), *cell.inputs, *cell.vectors]
    for name in named:
        if named.count(name) > 1:
            raise ValueError(f"{name!r} names two things: gates, states, units, inputs differ")


def _check_stages(cell: CellDefinition) -> None:
    """Refuse a second stage without its function, and a function that reads the stage."""
    if (cell.middle is None) == any(gate.second for gate in cell.gates):
        raise ValueError("middle must be a node exactly if a gate is in the second stage")
    if cell.middle is None:
        return
    for number in cell.graph.reached([cell.middle]):
        node = cell.graph.nodes[number]
        if node[0] == "slot" and cell.slots[node[1]][1].second:
            raise ValueError(
                f"`of` reads gate {cell.slots[node[1]][1].name!r}, which comes after it"
            )


def _check_all_read(cell: CellDefinition) -> None:
    """Refuse what has weights or columns of x and is never read."""
    read = cell._read_nodes()
    kinds = (
        ("slot", "the gate's sum", [name for name, _ in cell.slots]),
        ("unit", "the units' number", [unit.name for unit in cell.units]),
        ("scalar", "the input", cell.inputs),
        ("vector", "the vector", cell.vectors),
    )
    for kind, called, names in kinds:
        for number, name in enumerate(names):
            if (kind, number) not in read:
                raise ValueError(f"{called} {name!r} is never read by the step of {cell.name}")


def define(
    *,
    gates: str | Sequence[str | Gate],
    states: Names = "h",
    units: Names | Mapping[str, Any] = (),
    inputs: Names = (),
    vectors: Names = (),
    name: str | None = None,
) -> Callable[[Callable[..., Any]], CellDefinition]:
    """Return a decorator that makes a `CellDefinition` of the function of one time step.

    The function asks by name for what it reads: the gates' sums, old states, numbers of the units
    and inputs of the step. It returns the new h, or a tuple of the new states in the order of
    `states`. It is called once, with symbols; nothing is compiled, and its source is not read.
    Other arguments must have defaults, which are constants of the cell.

    gates: names (a string of letters is one each) or `Gate`. states: names, h first, which is the
    output. units: names of numbers that each hidden unit has of its own; a mapping gives how they
    start, a number or (low, high), else they start as weights do. inputs: names of numbers that
    come with each step, the same for all hidden units, the columns of x behind its features.
    vectors: names of H numbers that come with each step, in the columns behind those.
    name: of the cell; that of the function if None.
    """

    def decorated(step: Callable[..., Any]) -> CellDefinition:
        own = getattr(step, "__name__", "")
        made = _traced(
            step,
            name if name is not None else own if own.isidentifier() else "cell",
            _as_gates(gates),
            _checked_names("states", states),
            _as_units(units),
            (_checked_names("inputs", inputs), _checked_names("vectors", vectors)),
        )
        if step.__doc__:
            made.__doc__ = step.__doc__
        return made

    return decorated


def _as_gates(gates: Any) -> list[Gate]:
    if not isinstance(gates, (str, tuple, list)):
        raise TypeError(f"gates must be names or Gates, got {short(gates)}")
    return [gate if isinstance(gate, Gate) else Gate(gate) for gate in gates]


def _as_units(units: Any) -> tuple[UnitFacts, ...]:
    if not isinstance(units, Mapping):
        return tuple(UnitFacts(name, None, None) for name in _checked_names("units", units))
    found = []
    for name, start in units.items():
        bounds = start if isinstance(start, (tuple, list)) else (start, start)
        if start is not None and len(bounds) != 2:
            raise ValueError(f"units: {name} must start at a number or in (low, high), got {start}")
        found.append(UnitFacts(name, *(None if b is None else float(b) for b in bounds)))
    return tuple(found)


def _traced(
    step: Callable[..., Any],
    name: str,
    gates: list[Gate],
    states: tuple[str, ...],
    units: tuple[UnitFacts, ...],
    beside: tuple[tuple[str, ...], tuple[str, ...]],
) -> CellDefinition:
    """Call a step with symbols, and return what came of it."""
    (inputs, vectors), graph = beside, Graph()
    facts = _read_gates([(g.name, g.input, g.recurrent, g.apart, bool(g.of)) for g in gates])
    slots = [(name, gate) for gate in facts for name in gate.slots]
    leaves: dict[str, int] = {n: graph.leaf("slot", j) for j, (n, _) in enumerate(slots)}
    common = {states[0]: graph.leaf("h")} if states else {}
    common |= {n: graph.leaf("state", k) for k, n in enumerate(states[1:])}
    common |= {unit.name: graph.leaf("unit", k) for k, unit in enumerate(units)}
    common |= {n: graph.leaf("scalar", k) for k, n in enumerate(inputs)}
    common |= {n: graph.leaf("vector", k) for k, n in enumerate(vectors)}
    middle = None
    functions = [gate.of for gate in gates if gate.of is not None]
    if functions:
        if any(function is not functions[0] for function in functions):
            raise ValueError("gates: all that have `of` must share one function")
        first = {n: leaves[n] for n, gate in slots if not gate.second}
        (middle,) = _called(functions[0], graph, first | common, 1, f"{name}: `of`")
    outputs = _called(step, graph, leaves | common, len(states), name)
    if len(graph.nodes) > MOST_NODES:
        raise ValueError(f"{name} has {len(graph.nodes)} nodes; at most {MOST_NODES} are possible")
    nodes, places = graph.compact([*outputs, *([] if middle is None else [middle])])
    return CellDefinition(
        name,
        [tuple(gate) for gate in facts],
        states,
        [tuple(unit) for unit in units],
        inputs,
        vectors,
        nodes,
        [places[number] for number in outputs],
        None if middle is None else places[middle],
    )


def _called(
    function: Callable[..., Any], graph: Graph, known: Mapping[str, int], count: int, name: str
) -> list[int]:
    """Call a function with the symbols that it asks for; return the nodes of its results."""
    asked = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{name}: a step names what it reads, and takes no *arguments")
        if parameter.name in known:
            asked[parameter.name] = Symbol(graph, known[parameter.name])
        elif parameter.default is parameter.empty:
            raise ValueError(
                f"{name} asks for {parameter.name!r}, which there is not; there are "
                f"{', '.join(known)}"
            )
    found = function(**asked)
    results = found if isinstance(found, tuple) else (found,)
    if len(results) != count:
        raise ValueError(f"{name} must return {count} values, h first; it returned {len(results)}")
    return [node_of(graph, value) for value in results]
