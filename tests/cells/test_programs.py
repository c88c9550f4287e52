"""Register programs, run in NumPy, against the library's reference and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from rnncore import cells, reference
from rnncore.cells import CellDefinition, Reference
from rnncore.cells.emission import MOST_REGISTERS
from rnncore.cells.graph import SLOPES, Graph
from rnncore.cells.layer import OwnCell
from rnncore.cells.lowering import lowered

from tests.support import cases
from tests.support.cases import Case, Named, Numbers
from tests.support.compare import assert_close, assert_gradients
from tests.support.own_cells import OWN
from tests.support.programs import ProgramCell
from tests.support.shelf import SHELF

KINDS = {"trace": Reference, "programs": ProgramCell}


def by(cell: reference.Cell, case: Case, numbers: Numbers) -> tuple[Named, Named]:
    """Outputs and gradients of a cell, as the reference walks it."""
    y, state, tape = reference.forward(
        cell,
        numbers.params,
        numbers.x,
        numbers.state,
        numbers.lengths,
        case.num_layers,
        case.bidirectional,
    )
    dx, dstate, grads = reference.backward(tape, numbers.dy, numbers.dstate)
    outputs = {"y": y} | cases.named_state(state, "_n")
    return outputs, {"x": dx} | cases.named_state(dstate, "_0") | grads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", OWN)
def test_cells_of_the_library_equal_the_reference(name: str, bias: bool, kind: str) -> None:
    case = Case(name, "float64", 2, True, True, bias=bias)
    numbers = case.draw()
    want = cases.reference_results(case, numbers)
    for got, expected in zip(by(KINDS[kind](OWN[name]), case, numbers), want, strict=True):
        assert_close(got, expected, 1e-12)


def one_step(cell: CellDefinition, seed: int = 0) -> Numbers:
    """One time step of two rows of three units: states and inputs are positive."""
    rng = np.random.default_rng(seed)
    scalars, vectors = cell.width_beside
    beside = rng.uniform(0.1, 1, (2, scalars + 3 * vectors))
    inputs = {"x": np.concatenate([rng.standard_normal((2, 2)), beside], axis=1)}
    inputs |= {f"{n}_old": rng.uniform(0.1, 1, (2, 3)) for n in cell.states}
    own = OwnCell.of(cell)
    inputs |= {n: rng.uniform(-0.6, 0.6, s) for n, s in own.shapes("", 2, 3, True).items()}
    inputs |= {own.units: own.first_units(rng, 3)} if own.units else {}
    return Numbers(inputs, {f"{n}_new": rng.standard_normal((2, 3)) for n in cell.states})


def outputs_of(cell: CellDefinition, numbers: Numbers) -> Named:
    """The new states by the trace."""
    state = tuple(numbers.inputs[f"{n}_old"] for n in cell.states)
    new, _ = Reference(cell).forward(numbers.x, state, numbers.params)
    return {f"{n}_new": a for n, a in zip(cell.states, new, strict=True)}


def step_results(kind: str, cell: CellDefinition, numbers: Numbers) -> tuple[Named, Named]:
    """New states and all gradients of one step."""
    own, names = KINDS[kind](cell), cell.states
    state = tuple(numbers.inputs[f"{n}_old"] for n in names)
    new, saved = own.forward(numbers.x, state, numbers.params)
    grads = {name: np.zeros_like(a) for name, a in numbers.params.items()}
    dstate = tuple(numbers.upstream[f"{n}_new"] for n in names)
    dx, dold = own.backward(dstate, saved, numbers.params, grads)
    outputs = {f"{n}_new": a for n, a in zip(names, new, strict=True)}
    return outputs, {"x": dx, **{f"{n}_old": d for n, d in zip(names, dold, strict=True)}} | grads


@pytest.mark.parametrize("name", [*OWN, *SHELF])
def test_one_step_has_the_gradients_of_central_differences(name: str) -> None:
    cell = (OWN | SHELF)[name]
    numbers = one_step(cell)
    outputs, gradients = step_results("programs", cell, numbers)
    assert_close(outputs, outputs_of(cell, numbers), 1e-13)
    assert_close(gradients, step_results("trace", cell, numbers)[1], 1e-12)
    assert_gradients(lambda there: outputs_of(cell, there), numbers, gradients)


def random_cell(seed: int) -> CellDefinition:
    """A step of random expressions, smooth and not, over everything that a step may read."""
    rng = np.random.default_rng(seed)
    stages = bool(rng.integers(2))
    states = ("h",) if stages else ("h", "c", "m")[: rng.integers(1, 4)]

    def grown(*known: cells.definition.Symbol, results: int) -> tuple[cells.definition.Symbol, ...]:
        values = [*known]
        for _ in range(int(rng.integers(3, 25))):
            a, b, c, d = (values[i] for i in rng.integers(len(values), size=4))
            made = (
                lambda a, b, c, d: a + b,
                lambda a, b, c, d: a - b * c,
                lambda a, b, c, d: a * b,
                lambda a, b, c, d: a / (1 + abs(b)),
                lambda a, b, c, d: -a,
                lambda a, b, c, d: cells.maximum(a, b),
                lambda a, b, c, d: cells.minimum(a, 0.5),
                lambda a, b, c, d: cells.where(a <= b, c, d),
                lambda a, b, c, d: cells.where(a < b, 1 - c, d),
                lambda a, b, c, d: cells.sqrt(1 + a * a),
                lambda a, b, c, d: cells.exp(-cells.softplus(a)),
                lambda a, b, c, d: cells.log(1 + a * a),
                lambda a, b, c, d: cells.sin(a) + cells.cos(b),
                lambda a, b, c, d: cells.sigmoid(a) * b,
                lambda a, b, c, d: cells.tanh(a),
                lambda a, b, c, d: cells.relu(a),
                lambda a, b, c, d: cells.activation("elu", a, 0.7),
                lambda a, b, c, d: cells.activation("softsign", a),
                lambda a, b, c, d: 1 / (2 + cells.tanh(a)),
            )[rng.integers(19)]
            values.append(cells.tanh(made(a, b, c, d)))
        common = sum(values[1:], start=values[0]) * (1 / len(values))
        return tuple(cells.tanh(values[-1 - k] + common) for k in range(results))

    def of(r, s, h, u, e, v):
        return grown(r, s, h, u, e, v, results=1)[0]

    def step(r, s, n_input, n_recurrent, h, u, e, v):
        return grown(r, s, n_input, n_recurrent, h, u, e, v, results=len(states))

    gates = ["r", cells.Gate("s", recurrent=False), cells.Gate("n", apart=True)]
    if stages:
        gates[2] = cells.Gate("n", apart=True, of=of)
    return cells.define(gates=gates, states=states, units="u", inputs="e", vectors="v")(step)


@pytest.mark.parametrize("seed", range(40))
def test_random_steps(seed: int) -> None:
    cell = random_cell(seed)
    numbers = one_step(cell, seed)
    got, want = (step_results(kind, cell, numbers) for kind in ("programs", "trace"))
    for mine, other in zip(got, want, strict=True):
        assert_close(mine, other, 1e-11)
    assert_gradients(lambda there: outputs_of(cell, there), numbers, got[1], 1e-6)


def test_programs_are_short_and_need_few_registers() -> None:
    def registers(program: list) -> int:
        return 1 + max(
            i.to for i in program if not i.operation.startswith(("set", "keep", "new", "d_"))
        )

    programs = lowered(OWN["lstm"])
    assert len(programs.forward[0]) <= 19
    assert len(programs.backward[0]) <= 31
    assert registers(programs.backward[0]) <= 9 < MOST_REGISTERS
    assert programs.remembered == ["sigmoid of i", "sigmoid of f", "tanh of g", "sigmoid of o"]


def test_a_gate_that_is_needed_as_a_sum_stays_one() -> None:
    @cells.define(gates="ab")
    def cell(a, b, h):
        return a * cells.tanh(b) + h

    assert lowered(cell).remembered == ["sum a", "tanh of b"]


def test_products_are_fused_into_sums_where_nobody_else_asks() -> None:
    @cells.define(gates="ab")
    def cell(a, b, h):
        return a * b + h

    assert "fma" in [i.operation for i in lowered(cell).forward[0]]
    assert "multiply" not in [i.operation for i in lowered(cell).forward[0]]


def test_equal_expressions_are_one_and_constants_are_folded() -> None:
    graph = Graph()
    a, b = graph.leaf("h"), graph.leaf("slot", 0)
    assert graph.apply("add", a, b) == graph.apply("add", b, a)
    assert graph.apply("multiply", a, graph.constant(1)) == a
    assert graph.apply("negative", graph.apply("negative", a)) == a
    zero = graph.constant(0)
    one = graph.apply("select_le", a, b, a, zero)
    assert graph.apply("add", one, graph.apply("select_le", a, b, zero, a)) == a
    assert graph.apply("add", one, graph.apply("select_lt", a, b, zero, a)) != a
    half = graph.apply("divide", graph.constant(1), graph.constant(2))
    assert graph.nodes[half] == ("constant", 0.5)


def test_too_large_a_step_is_refused_by_name() -> None:
    @cells.define(gates="a", states=[f"s{k}" for k in range(8)])
    def cell(a, s0, s1, s2, s3, s4, s5, s6, s7):
        olds = (s0, s1, s2, s3, s4, s5, s6, s7)
        values = [cells.tanh(a * (k + 2) + olds[k % 8]) for k in range(90)]
        total = sum(x * y for x, y in zip(values, values[::-1], strict=True))
        for value in values:
            total = cells.tanh(total + value)
        return tuple(total + k for k in range(8))

    with pytest.raises(ValueError, match=r"cell: it needs \d+ registers"):
        lowered(cell)


def test_slopes_are_no_operations_of_a_step() -> None:
    assert {"sigmoid_slope", "tanh_slope", "relu_slope", "activation_slope"} == SLOPES
