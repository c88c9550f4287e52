"""The layers by name: their signatures, and what their cells say of themselves."""

import inspect
from typing import Any

import pytest
import rnncore
from rnncore import LSTM, Chain
from rnncore.recurrent.cell import FACTS
from rnncore.recurrent.registry import LAYERS, STEPS

from tests.support.cells import GATED, CellUnderTest

TORCHS = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"]
TORCHS += ["bidirectional"]


@pytest.mark.parametrize("cls", [*LAYERS.values(), *STEPS.values()])
def test_a_signature_names_all(cls: Any) -> None:
    """What torch has by position, in its order; the rest by keyword, each with its default."""
    parameters = inspect.signature(cls).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == (TORCHS if cls in LAYERS.values() else [*TORCHS[:2], "bias"])
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters if p.name not in positional)
    assert all(p.default is not p.empty for p in parameters if p.name not in positional[:2])


def test_a_module_itself_has_the_signature_of_its_call() -> None:
    assert [*inspect.signature(LSTM(1, 1)).parameters] == ["x", "state", "lengths", "resets"]
    assert [*inspect.signature(Chain).parameters] == ["layers"]


@pytest.mark.parametrize("name", STEPS)
def test_a_cell_is_called_as_its_layer(name: str) -> None:
    assert STEPS[name].__name__ == LAYERS[name].__name__ + "Cell"
    own, layers = (inspect.signature(of[name]).parameters for of in (STEPS, LAYERS))
    assert {n: p.default for n, p in own.items()} == {n: layers[n].default for n in own}


@pytest.mark.parametrize("row", GATED.values(), ids=GATED)
def test_a_cell_knows_its_facts_and_options(row: CellUnderTest) -> None:
    options = row.options | ({"proj_size": 3} if row.projected else {})
    cell = getattr(rnncore, row.layer)(4, 7, **options).cell
    assert cell.facts is FACTS[cell.kernel]
    assert cell.facts.gates == len(cell.gate_names) == row.gates
    assert cell.facts.units == sum(row.units.values())
    assert cell.has_cell_state == (row.states == "hc")
    found = cell.options()
    if "nonlinearity" in options:
        options["activations"] = options.pop("nonlinearity")
    assert found.keys() == options.keys()
    assert {n: v for n, v in found.items() if n != "activations"} == {
        n: v for n, v in options.items() if n != "activations"
    }
