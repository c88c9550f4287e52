"""Definitions: what is refused, and by which words, when written and when read from a file."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import cells
from rnncore.arrays import load_arrays, save_arrays
from rnncore.cells import CellDefinition, Gate, maximum, sigmoid, tanh, where
from rnncore.cells.graph import MOST_NODES
from rnncore.configuration import arguments_of
from rnncore.module import KEY

from tests.support.own_cells import OWN
from tests.support.shelf import SHELF


def step_of(body: Callable[..., Any], **options: Any) -> CellDefinition:
    return cells.define(**{"gates": "a", **options})(body)


class TestWhatAStepIsWrittenWith:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (lambda a: a if a > 0 else -a, "where"),
            (lambda a: a and a, "where"),
            (lambda a: max(a, 0), "maximum"),
            (lambda a: a == 0, "where"),
            (lambda a: a != 0, "where"),
            (lambda a: np.exp(a), r"rnncore\.cells\.exp"),
            (lambda a: np.maximum(a, 0), r"rnncore\.cells\.maximum"),
            (lambda a: np.abs(a), r"rnncore\.cells\.absolute"),
            (lambda a: np.where(a > 0, a, 0), "comparison|where"),
            (lambda a: np.clip(a, -1, 1), "np.clip"),
            (lambda a: np.arctan(a), "functions of rnncore.cells"),
            (lambda a: math.exp(a), "functions of rnncore.cells"),
            (lambda a: float(a), "functions of rnncore.cells"),
            (lambda a: [*a], "has no parts"),
            (lambda a: np.asarray(a), "no array"),
            (lambda a: a * np.ones(3), "symbols and numbers"),
            (lambda a: a + "b", "symbols and numbers"),
            (lambda a: a**0.5, "powers"),
            (lambda a: where(a, 1, 2), "where takes a comparison"),
            (lambda a: tanh(0.5), "tanh takes a symbol"),
            (lambda a: None, "symbols and numbers"),
        ],
    )
    def test_what_is_no_expression_is_a_type_error(self, body: Any, said: str) -> None:
        with pytest.raises(TypeError, match=said):
            step_of(body)

    def test_numbers_of_numpy_are_numbers(self) -> None:
        one = step_of(lambda a: np.float32(2) * a + np.float64(1) - np.int64(3) / (a * a + 1))
        two = step_of(lambda a: 2 * a + 1 - 3 / (a * a + 1))
        assert arguments_of(one)["nodes"] == arguments_of(two)["nodes"]
        compared = step_of(lambda a: where(np.float64(0) < a, a, 1))
        assert (
            arguments_of(compared)["nodes"]
            == arguments_of(step_of(lambda a: where(a > 0, a, 1)))["nodes"]
        )

    @pytest.mark.parametrize("constant", [math.nan, math.inf, -math.inf])
    def test_constants_are_finite(self, constant: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            step_of(lambda a: a + constant)

    def test_symbols_of_another_step_are_refused(self) -> None:
        kept = []
        step_of(lambda a: kept.append(a) or a)
        with pytest.raises(ValueError, match="another step"):
            step_of(lambda a: a + kept[0])

    def test_a_step_may_have_constants_as_defaults(self) -> None:
        def step(a, h, slope=0.25):
            return h + slope * a

        found = arguments_of(step_of(step))["nodes"]
        assert ("constant", 0.25) in found

    def test_what_an_expression_says_is_found_once(self) -> None:
        cell = step_of(lambda a, h: sigmoid(a) * h + (1 - sigmoid(a)) * tanh(a))
        names = [node[0] for node in arguments_of(cell)["nodes"]]
        assert names.count("sigmoid") == 1


class TestWhatADefinitionIs:
    @pytest.mark.parametrize(
        ("options", "body", "said"),
        [
            ({}, lambda a, b: a, "asks for 'b', which there is not; there are a, h"),
            ({}, lambda *a: a, "no .arguments"),
            ({"states": "hc"}, lambda a: a, "must return 2 values, h first; it returned 1"),
            ({}, lambda a: (a, a), "must return 1 values"),
            ({"gates": "ab"}, lambda a: a, "sum 'b' is never read"),
            ({"units": "u"}, lambda a: a, "number 'u' is never read"),
            ({"inputs": "e"}, lambda a: a, "input 'e' is never read"),
            ({"vectors": "v"}, lambda a: a, "vector 'v' is never read"),
            ({"gates": "aa"}, lambda a: a, "'a' names two things"),
            ({"gates": "h"}, lambda h: h, "'h' names two things"),
            ({"gates": ""}, lambda: 0, "gates must be a list of 1"),
            ({"gates": ["1"]}, lambda: 0, "names as Python has them"),
            ({"gates": ["if"]}, lambda: 0, "names as Python has them"),
            ({"states": ""}, lambda a: (), "states must be 1 to 8"),
            ({"states": "bcdefghij"}, lambda a: (a,) * 9, "states must be 1 to 8"),
            ({"gates": "bcdefgijk"}, lambda: 0, "at most 8 may have an input part"),
            ({"gates": [Gate("a", input=False)]}, lambda a: a, "nothing reads x"),
            (
                {"gates": [Gate("a", False, False)]},
                lambda a: a,
                "an input part or a recurrent part",
            ),
            ({"gates": [Gate("a", input=False, apart=True)]}, lambda a: a, "no two parts"),
            ({"gates": [Gate("a", recurrent=False, of=lambda h: h)]}, lambda a: a, "no recurrent"),
            (
                {"gates": [Gate("a", recurrent=False, each=lambda a: a)]},
                lambda a: a,
                "'a' has `each`: it must have a recurrent part",
            ),
            (
                {"gates": [Gate("a", each=lambda a: a), Gate("b", each=lambda b: b)]},
                lambda a, b: a + b,
                "at most one may have `each`",
            ),
            (
                {"gates": [Gate("a", each=lambda h: h)]},
                lambda a: a,
                "`each` of gate 'a' must read its sum, old states and units alone",
            ),
            (
                {"gates": ["r", Gate("a", each=lambda a, r: a * r)]},
                lambda a, r: a + r,
                "`each` of a asks for 'r', which there is not",
            ),
            (
                {"gates": ["r", Gate("a", of=lambda h: h)], "states": "hc"},
                lambda a, r, c: (a, r),
                "a cell with `of` has h alone",
            ),
            (
                {"gates": ["r", Gate("a", of=lambda a: a)]},
                lambda a, r: a + r,
                "asks for 'a', which there is not",
            ),
            (
                {"gates": ["r", Gate("a", of=lambda h: h), Gate("b", of=lambda h: h)]},
                lambda a, b, r: a + b + r,
                "must share one function",
            ),
            ({"units": [f"u{k}" for k in range(19)]}, lambda a: a, "at most 18"),
            ({"units": {"u": (1, 0)}}, lambda a, u: a + u, "between finite bounds"),
            ({"units": {"u": math.nan}}, lambda a, u: a + u, "between finite bounds"),
            ({"inputs": [f"e{k}" for k in range(65)]}, lambda a: a, "at most 64"),
        ],
    )
    def test_a_wrong_one_is_refused_by_name(self, options: Any, body: Any, said: str) -> None:
        with pytest.raises((ValueError, TypeError), match=said):
            step_of(body, **options)

    def test_too_many_nodes(self) -> None:
        def step(a):
            for k in range(MOST_NODES):
                a = tanh(a + k)
            return a

        with pytest.raises(ValueError, match="nodes"):
            step_of(step)

    @pytest.mark.parametrize("name", [*OWN, *SHELF])
    def test_it_is_the_same_after_json(self, name: str) -> None:
        cell = (OWN | SHELF)[name]
        arguments = arguments_of(cell)
        again = CellDefinition(**json.loads(json.dumps(arguments)))
        assert repr(again) == repr(cell)
        assert cells.lowering.lowered(again) == cells.lowering.lowered(cell)

    def test_repr_says_what_a_step_keeps(self) -> None:
        said = repr(OWN["lstm"])
        assert "kept of a step: sigmoid of i, sigmoid of f, tanh of g, sigmoid of o, h, c" in said
        assert repr(OWN["lstm"](3, 4, 2)) == "Recurrent(lstm, 3, 4, num_layers=2)"


#: Edits of the arguments in a file, and what is said of them.
EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a cycle": (lambda a: a["nodes"].__setitem__(9, ["add", 9, 9]), "operands, which stand before"),
    "a later node": (lambda a: a["nodes"].__setitem__(9, ["add", 10, 0]), "stand before it"),
    "a negative one": (lambda a: a["nodes"].__setitem__(9, ["add", -1, 0]), "stand before it"),
    "one that is no whole number": (
        lambda a: a["nodes"].__setitem__(9, ["add", 0.0, True]),
        "stand before it",
    ),
    "too few operands": (lambda a: a["nodes"].__setitem__(9, ["add", 0]), "2 operands"),
    "too many operands": (lambda a: a["nodes"].__setitem__(9, ["tanh", 0, 0]), "1 operands"),
    "an undefined name": (lambda a: a["nodes"].__setitem__(9, ["system", 0]), "no operation"),
    "a slope": (lambda a: a["nodes"].__setitem__(9, ["tanh_slope", 0]), "no operation"),
    "a gradient": (lambda a: a["nodes"].__setitem__(9, ["dh"]), "no operation"),
    "a store": (lambda a: a["nodes"].__setitem__(9, ["new_h", 0]), "no operation"),
    "no node": (lambda a: a["nodes"].__setitem__(9, 7), "a name and its arguments"),
    "an empty node": (lambda a: a["nodes"].__setitem__(9, []), "a name and its arguments"),
    "a list for a name": (lambda a: a["nodes"].__setitem__(9, [["add"], 0, 0]), "a name and its"),
    "NaN": (lambda a: a["nodes"].insert(0, ["constant", math.nan]), "finite"),
    "a large whole number": (
        lambda a: a["nodes"].insert(0, ["constant", 10**400]),
        "finite|digits",
    ),
    "a text for a constant": (lambda a: a["nodes"].insert(0, ["constant", "1"]), "one number"),
    "a slot too many": (lambda a: a["nodes"].__setitem__(9, ["slot", 4]), "there is no slot"),
    "a state too many": (lambda a: a["nodes"].__setitem__(9, ["state", 1]), "there is no state"),
    "a huge slot": (lambda a: a["nodes"].__setitem__(9, ["slot", 2**70]), "there is no slot"),
    "an activation without a name": (
        lambda a: a["nodes"].__setitem__(9, ["activation", 0, "swish", 0, 0]),
        "an activation has",
    ),
    "an activation of NaN": (
        lambda a: a["nodes"].__setitem__(9, ["activation", 0, "elu", math.nan, 0]),
        "finite",
    ),
    "thousands of nodes": (
        lambda a: a["nodes"].extend([["tanh", 0]] * 100_000),
        f"at most {MOST_NODES}",
    ),
    "another output": (lambda a: a.__setitem__("outputs", [0, 99]), "there is no node 99"),
    "an output too few": (lambda a: a.__setitem__("outputs", [0]), "outputs must be 2 nodes"),
    "an output that is no number": (lambda a: a.__setitem__("outputs", [0, "1"]), "there is no"),
    "a middle": (lambda a: a.__setitem__("middle", 0), "middle must be a node exactly if"),
    "an each": (lambda a: a.__setitem__("each", 0), "each must be a node exactly if a gate has it"),
    "a gate with an each": (
        lambda a: a["gates"].__setitem__(0, ["i", True, True, False, False, True]),
        "each must be a node exactly if a gate has it",
    ),
    "a total of nothing": (lambda a: a["nodes"].__setitem__(9, ["each"]), "no operation"),
    "a gate more": (lambda a: a["gates"].append(["q", True, True, False, False]), "never read"),
    "a gate less": (lambda a: a["gates"].pop(), "there is no slot"),
    "flags that are numbers": (lambda a: a["gates"].__setitem__(0, ["i", 1, 1, 0, 0]), "flags"),
    "a gate in a second stage": (lambda a: a["gates"][0].__setitem__(4, True), "has h alone"),
    "a hundred gates": (
        lambda a: a.__setitem__("gates", [[f"g{k}", True, True, False, False] for k in range(100)]),
        "gates must be a list of 1 to 16",
    ),
    "a name that is code": (lambda a: a.__setitem__("name", "__import__('os')"), "names as Python"),
    "a long name": (lambda a: a.__setitem__("name", "a" * 10_000), "at most 60 letters"),
    "no names": (lambda a: a.__setitem__("states", 5), "states must be a list"),
    "a state more": (lambda a: a["states"].append("m"), "outputs must be 3 nodes"),
    "no nodes": (lambda a: a.__setitem__("nodes", "add"), "nodes must be a list"),
    "an argument more": (lambda a: a.__setitem__("source", "import os"), "no argument"),
    "an argument less": (lambda a: a.pop("gates"), "gates"),
    "units without bounds": (lambda a: a.__setitem__("units", [["u"]]), "a name and two bounds"),
    "units of NaN": (lambda a: a.__setitem__("units", [["u", math.nan, 1]]), "finite bounds"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    OWN["lstm"](3, 4, seed=0).save(path)
    return path


def edited(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a file says of its layer."""
    arrays, metadata = load_arrays(path)
    metadata = copy.deepcopy(metadata)
    edit(metadata[KEY]["module"]["arguments"])
    save_arrays(path, arrays, metadata)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_file_is_refused(name: str, file: Path) -> None:
    edit, said = EDITS[name]
    edited(file, lambda module: edit(module["cell"]["arguments"]))
    began = time.process_time()
    with pytest.raises(ValueError, match=said):
        rnncore.load(file)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("value", [5, None, "lstm", [], {"class": "LSTM", "arguments": {}}])
def test_a_file_whose_cell_is_no_definition_is_refused(value: Any, file: Path) -> None:
    edited(file, lambda module: module.__setitem__("cell", value))
    with pytest.raises(ValueError, match=r"cell must be a CellDefinition|missing|LSTM"):
        rnncore.load(file)


def test_a_file_whose_cell_needs_other_arrays_is_refused(file: Path) -> None:
    def more(module: dict[str, Any]) -> None:
        cell = module["cell"]["arguments"]
        cell["gates"].append(["q", True, True, False, False])
        cell["nodes"] += [["slot", 4], ["add", cell["outputs"][0], len(cell["nodes"])]]
        cell["outputs"][0] = len(cell["nodes"]) - 1

    edited(file, more)
    with pytest.raises(ValueError, match="weight_ih_l0"):
        rnncore.load(file)


def test_the_largest_step_of_a_file_is_refused_in_bounded_time(file: Path) -> None:
    """A thousand nodes of which each asks for two others."""

    def grow(module: dict[str, Any]) -> None:
        cell = module["cell"]["arguments"]
        nodes = cell["nodes"]
        while len(nodes) < MOST_NODES:
            n = len(nodes)
            nodes.append(["tanh", n - 1] if n % 2 else ["multiply", n - 1, n - 3])
        cell["outputs"] = [len(nodes) - 1, cell["outputs"][1]]

    edited(file, grow)
    began = time.process_time()
    with pytest.raises(ValueError, match=r"lstm: it needs \d+ registers; there are 64"):
        rnncore.load(file)
    assert time.process_time() - began < 20


def test_maximum_and_minimum_take_numbers() -> None:
    names = [n[0] for n in arguments_of(step_of(lambda a: maximum(0, a)))["nodes"]]
    assert "maximum" in names
