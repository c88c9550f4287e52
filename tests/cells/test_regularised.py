"""Own cells with zoneout and deep transitions: as built-in ones have them, and for any cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import cells
from rnncore.cells import Gate, Recurrent, sigmoid, tanh

from tests.support import cases
from tests.support.cases import Case, Named
from tests.support.compare import assert_close, assert_same
from tests.support.gradients import check_recurrent
from tests.support.own_cells import OWN
from tests.support.shelf import SHELF

ALL = OWN | SHELF
every = pytest.mark.parametrize("name", ALL)
OPTIONS: dict[str, dict[str, Any]] = {
    "zoneout": {"zoneout": 0.3},
    "zoneout, different rates": {"zoneout": (0.1, 0.5)},
    "zoneout of other states": {"zoneout": (0, 0.5)},
    "zoneout, variational dropout": {"zoneout": 0.2, "variational_dropout": 0.3},
    "two transitions": {"transition_depth": 2},
    "three transitions, a shortcut": {"transition_depth": 3, "shortcut": True},
}
BUILT_IN = ("rnn_tanh", "lstm", "gru", "gru_reset_before", "mgu")
#: A built-in cell without c has no rate for it.
PAIRS = [
    (cell, options)
    for cell in BUILT_IN
    for options in OPTIONS
    if cell == "lstm" or not isinstance(OPTIONS[options].get("zoneout"), tuple)
]
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))


def own_layer(case: Case, **options: Any) -> Recurrent:
    shape = case.input_size, case.hidden_size, case.num_layers
    layer: Recurrent = OWN[case.cell](
        *shape, bidirectional=case.bidirectional, dtype=case.dtype, seed=1, **options
    )
    return layer


def results(layer: Any, numbers: cases.Numbers) -> tuple[Named, Named, Named]:
    """What inference gives, what a recorded call gives, and gradients."""
    layer.load_state_dict(numbers.params)
    y, state = layer(numbers.x, numbers.state, lengths=numbers.lengths)
    (masked, final), pullback = layer.vjp(numbers.x, numbers.state, lengths=numbers.lengths)
    dx, dstate = pullback(numbers.dy, numbers.dstate)
    return (
        {"y": y} | cases.named_state(state, "_n"),
        {"y": masked} | cases.named_state(final, "_n"),
        {"x": dx} | cases.named_state(dstate, "_0") | dict(layer.grads),
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("cell", "options"), PAIRS)
def test_they_equal_the_built_in_cell(cell: str, options: str, dtype: str) -> None:
    given = OPTIONS[options]
    case = Case(cell, dtype, num_layers=2, bidirectional=True, ragged=True)
    built_in, own = case.layer(seed=1, **given), own_layer(case, **given)
    shapes = {name: array.shape for name, array in built_in.params.items()}
    assert {name: array.shape for name, array in own.params.items()} == shapes
    numbers = with_params(case.draw(), own)
    tolerance = 16 * np.finfo(dtype).eps
    for got, want in zip(results(own, numbers), results(built_in, numbers), strict=True):
        assert_close(got, want, tolerance)


def with_params(numbers: cases.Numbers, layer: Recurrent) -> cases.Numbers:
    """The same with parameters for a layer that has more of them."""
    params = {name: array.copy() for name, array in layer.params.items()}
    return replace(numbers, inputs={**numbers.inputs, **params})


def inputs_of(layer: Recurrent, steps: int, batch: int) -> tuple[np.ndarray, Any]:
    """x whose columns behind the features are positive, and a state that is."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((steps, batch, layer.columns)).astype(layer.dtype)
    x[..., layer.input_size :] = rng.uniform(0.1, 1, x[..., layer.input_size :].shape)
    rows = (layer.directions, batch, layer.hidden_size)
    state = tuple(rng.uniform(0.1, 1, rows).astype(layer.dtype) for _ in layer.definition.states)
    return x, state if len(state) > 1 else state[0]


@every
def test_gradients_with_zoneout(name: str) -> None:
    cell = ALL[name]
    rates = (0.4, 0.3) if len(cell.states) > 1 else 0.4
    layer = cell(2, 3, bidirectional=True, dtype="float64", seed=1, zoneout=rates)
    check_recurrent(layer, *inputs_of(layer, 4, 3), lengths=[4, 1, 2])


@every
def test_gradients_of_deep_transitions(name: str) -> None:
    cell = ALL[name]
    alone = [gate.name for gate in cell.gates if not gate.recurrent]
    beside = [kind for kind in ("units", "inputs", "vectors") if getattr(cell, kind)]
    if alone or beside:
        what = f"that has {beside[0]}" if beside else f"'{alone[0]}' has an input part alone"
        with pytest.raises(ValueError, match=what):
            cell(2, 3, transition_depth=2)
        return
    layer = cell(2, 3, bidirectional=True, dtype="float64", seed=1, transition_depth=2)
    check_recurrent(layer, *inputs_of(layer, 4, 3), lengths=[4, 1, 2])


@cells.define(gates="ifo", states=("h", "c", "n"))
def averaging(i: Any, f: Any, o: Any, c: Any, n: Any) -> Any:
    c, n = sigmoid(f) * c + tanh(i), sigmoid(f) * n + 1
    return sigmoid(o) * c / n, c, n


def test_zoneout_expects_at_inference_what_the_rates_say() -> None:
    """h is made of the new states, before a share of the old ones takes their place."""
    layer = averaging(2, 5, dtype="float64", seed=0, zoneout=(0.25, 0.5))
    plain = averaging(2, 5, dtype="float64", seed=0)
    x, state = inputs_of(layer, 6, 3)
    y, _ = layer(x, state)
    old = state
    for t in range(6):
        _, new = plain(x[t : t + 1], old)
        rates = (0.25, 0.5, 0.5)
        old = tuple(r * a + (1 - r) * b for r, a, b in zip(rates, old, new, strict=True))
        np.testing.assert_allclose(y[t], old[0][0], rtol=1e-13)


def test_zoneout_keeps_numbers_as_they_were() -> None:
    layer = averaging(1, 40, dtype="float64", seed=0, zoneout=(0.0, 0.25))
    x, state = inputs_of(layer, 1, 8)
    (_, final), _ = layer.vjp(x, state)
    stayed = [new == old for new, old in zip(final[1:], state[1:], strict=True)]
    assert 0.15 < stayed[0].mean() < 0.35
    assert (stayed[0] == stayed[1]).all()  # the same units of c and n


@each_option
def test_streams_have_the_bits_of_a_call(options: dict[str, Any]) -> None:
    for cell in (OWN["lstm"], OWN["gru_reset_before"]):
        if len(cell.states) == 1 and isinstance(options.get("zoneout"), tuple):
            continue  # there is no other state
        layer = cell(3, 17, 2, dtype="float32", seed=1, **options)
        x = np.random.default_rng(0).standard_normal((9, 5, 3), dtype=np.float32)
        y, _ = layer(x)
        stream = layer.stream(5)
        steps = [stream.step(x[t]).copy() for t in range(9)]
        assert np.stack(steps).tobytes() == y.tobytes()


@each_option
def test_any_number_of_threads_and_any_tape(
    options: dict[str, Any], set_threads: Callable[[int], None]
) -> None:
    case = Case("lstm", "float32", 2, True, True, 30, 40, 17, 33)
    numbers, found = with_params(case.draw(), own_layer(case, **options)), []
    for count, checkpoint in [(1, False), (3, False), (2, 7)]:
        set_threads(count)
        found.append(results(own_layer(case, checkpoint=checkpoint, **options), numbers))
    for others in found[1:]:
        for got, want in zip(others, found[0], strict=True):
            assert_same(got, want)


@each_option
def test_files_keep_them(options: dict[str, Any], tmp_path: Path) -> None:
    layer = OWN["lstm"](3, 4, seed=1, **options)
    layer.save(tmp_path / "own.safetensors")
    loaded = rnncore.load(tmp_path / "own.safetensors")
    x = np.random.default_rng(0).standard_normal((5, 2, 3), dtype=np.float32)
    assert loaded(x)[0].tobytes() == layer(x)[0].tobytes()
    assert repr(loaded) == repr(layer)


def test_what_is_no_option_is_refused() -> None:
    lstm = OWN["lstm"]
    with pytest.raises(TypeError, match="recurrent_dropout': use variational_dropout, zoneout or"):
        lstm(3, 4, recurrent_dropout=0.1)
    with pytest.raises(ValueError, match="zoneout and transition_depth do not go together"):
        lstm(3, 4, zoneout=0.1, transition_depth=2)
    with pytest.raises(ValueError, match="shortcut=True needs a transition_depth"):
        lstm(3, 4, shortcut=True)
    with pytest.raises(ValueError, match=r"zoneout must be in \[0, 1\)"):
        lstm(3, 4, zoneout=1.0)


def test_a_gate_of_the_second_stage_alone_may_be_deep() -> None:
    @cells.define(gates=["z", Gate("n", of=lambda z: tanh(z))])
    def inside(z: Any, n: Any, h: Any) -> Any:
        return sigmoid(z) * h + tanh(n)

    layer = inside(2, 3, dtype="float64", seed=1, transition_depth=3, shortcut=True)
    check_recurrent(layer, *inputs_of(layer, 4, 3), lengths=[4, 1, 2])
