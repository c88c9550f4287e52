"""Sequences that start anew within a call: as separate calls would, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN, quantize

from tests.support import cases
from tests.support.cases import FULL, TOLERANCE, Case, Numbers, each
from tests.support.compare import assert_close, assert_same
from tests.support.gradients import check_recurrent

#: Every cell; sequences over several chunks, in several parts; h narrower than c; one step.
TABLE = [
    *FULL,
    Case("lstm", "float32", 2, True, True, 60, 40, 5, 17),
    Case("gru_reset_before", "float32", 1, False, True, 90, 20, 5, 33),
    Case("lstm_projected", "float32", 1, True, False, 50, 17, 5, 33),
    Case("lstm", "float32", 1, False, False, 1, 5, 3, 9),
]
EMPTY = [Case("gru", "float32", 1, False, False, 0, 3), Case("lstm", "float32", 2, True, batch=0)]


def drawn(case: Case, share: float = 0.3, seed: int = 0) -> np.ndarray:
    """Where sequences start anew: at some of the steps, and past their ends as well."""
    rng = np.random.default_rng(seed)
    return rng.random((case.steps, case.batch)) < share


def learned(case: Case, numbers: Numbers, seed: int = 5) -> cases.Named:
    """First states that are parameters, for `learned_state`."""
    rng = np.random.default_rng(seed)
    widths = {"h": case.output_size, "c": case.hidden_size}
    dtype = numbers.x.dtype
    return {
        f"initial_{kind}_l{n}{back}": rng.standard_normal(widths[kind]).astype(dtype)
        for n in range(case.num_layers)
        for back in ("", "_reverse")[: case.directions]
        for kind in case.under_test.states
    }


def built(case: Case, numbers: Numbers, own: cases.Named | None = None, **options: Any) -> Any:
    """The layer with these parameters, and with these first states if it learns them."""
    layer = case.layer(learned_state=own is not None, **options)
    layer.load_state_dict(numbers.params | (own or {}))
    return layer


def together(
    case: Case,
    numbers: Numbers,
    resets: np.ndarray | None,
    own: cases.Named | None = None,
    **options: Any,
) -> tuple[cases.Named, cases.Named]:
    """Outputs and gradients of one call."""
    layer = built(case, numbers, own, **options)
    given = {"lengths": numbers.lengths, "resets": resets}
    inferred, final = layer(numbers.x, numbers.state, **given)
    (y, state), pullback = layer.vjp(numbers.x, numbers.state, **given)
    outputs = {"y": y} | cases.named_state(state, "_n")
    assert_same(outputs, {"y": inferred} | cases.named_state(final, "_n"))
    dx, dstate = pullback(numbers.dy, numbers.dstate)
    return outputs, {"x": dx} | cases.named_state(dstate, "_0") | dict(layer.grads)


def _segments(resets: np.ndarray, b: int, length: int) -> Iterator[slice]:
    cuts = {0, length, *(np.flatnonzero(resets[:length, b])).tolist()}
    return (slice(*ends) for ends in pairwise(sorted(cuts)))


def apart(
    case: Case, numbers: Numbers, resets: np.ndarray, own: cases.Named | None = None
) -> tuple[cases.Named, cases.Named]:
    """The same of a call for each run of steps between two resets."""
    layer = built(case, numbers)
    kinds, D = case.under_test.states, case.directions
    outputs = {
        name: np.zeros_like(numbers.upstream[name]) for name in ("y", *(f"{k}_n" for k in kinds))
    }
    gradients = {n: np.zeros_like(a) for n, a in numbers.inputs.items()}
    gradients |= {name: np.zeros_like(a) for name, a in (own or {}).items()}
    for b in range(case.batch):
        segments = list(_segments(resets, b, numbers.length(b)))
        for at, steps in enumerate(segments):
            # Of each layer forward and backward: whether this is where the sequence's ends are.
            anew = bool(resets[0, b]) if at == 0 else True
            begins = np.array([not anew, at == len(segments) - 1][:D] * case.num_layers)
            ends = np.array([at == len(segments) - 1, at == 0][:D] * case.num_layers)
            state, dstate = {}, {}
            for kind in kinds:
                given, first = numbers.inputs[f"{kind}_0"][:, b], 0
                if own:
                    first = np.stack([a for n, a in own.items() if n[8] == kind])
                state[kind] = np.where(begins[:, None], given, first)[:, None]
                up = numbers.upstream[f"{kind}_n"][:, b]
                dstate[kind] = np.where(ends[:, None], up, 0)[:, None]
            rows = (steps, slice(b, b + 1))
            (y, final), pullback = layer.vjp(numbers.x[rows], _joined(state))
            dx, dfirst = pullback(numbers.dy[rows], _joined(dstate))
            outputs["y"][rows], gradients["x"][rows] = y, dx
            for kind, part, d in zip(kinds, _split(final), _split(dfirst), strict=True):
                outputs[f"{kind}_n"][ends, b] = part[ends, 0]
                gradients[f"{kind}_0"][begins, b] = d[begins, 0]
                names = [n for n in own or {} if n[8] == kind]
                for n in np.flatnonzero(~begins) if own else ():
                    gradients[names[n]] += d[n, 0]
    return outputs, gradients | dict(layer.grads)


def _joined(parts: dict[str, np.ndarray]) -> Any:
    return tuple(parts.values()) if len(parts) > 1 else parts["h"]


def _split(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


class TestAsSeparateCalls:
    @each(TABLE)
    @pytest.mark.parametrize("learns", [False, True], ids=["zero", "learned"])
    def test_same_bits_and_gradients_that_add_up(self, case: Case, learns: bool) -> None:
        numbers, resets = case.draw(), drawn(case)
        own = learned(case, numbers) if learns else None
        outputs, gradients = together(case, numbers, resets, own)
        wanted, wanted_gradients = apart(case, numbers, resets, own)
        assert_same(outputs, wanted)
        rowwise = ["x", *(f"{kind}_0" for kind in case.under_test.states)]
        assert_same({n: gradients[n] for n in rowwise}, {n: wanted_gradients[n] for n in rowwise})
        assert_close(gradients, wanted_gradients, TOLERANCE[case.dtype])

    @each([*TABLE, *EMPTY])
    def test_the_given_state_is_all_there_is_without(self, case: Case) -> None:
        numbers = case.draw()
        nowhere = np.zeros((case.steps, case.batch), bool)
        for resets in (None, nowhere):
            outputs, gradients = together(case, numbers, resets)
            wanted, wanted_gradients = cases.layer_results(case, numbers)
            assert_same(outputs, wanted)
            assert_same(gradients, wanted_gradients)

    def test_what_is_not_finite_does_not_pass(self, rng: np.random.Generator) -> None:
        layer = LSTM(3, 9, seed=1)
        x = rng.standard_normal((6, 2, 3), np.float32)
        x[1, 0] = np.nan
        resets = np.zeros((6, 2), bool)
        resets[3, 0] = True
        (y, _), pullback = layer.vjp(x, resets=resets)
        assert np.isnan(y[1:3, 0]).all()
        assert np.isfinite(y[3:]).all()
        dy = np.ones_like(y)
        dy[4, 1] = np.nan
        assert np.isfinite(pullback(dy)[0][3:, 0]).all()


#: Differences across the corners of a hard sigmoid are no gradients.
SMOOTH = [cell for cell in (*cases.CELLS, *cases.VARIED) if "chosen" not in cell]


class TestGradients:
    @pytest.mark.parametrize("cell", SMOOTH)
    def test_central_differences(self, cell: str) -> None:
        case = Case(cell, "float64", 2, True, True, 5, 3, 3, 5)
        numbers = case.draw()
        layer = built(case, numbers, learned(case, numbers))
        check_recurrent(
            layer, numbers.x, numbers.state, lengths=numbers.lengths, resets=drawn(case)
        )

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (LSTM, {"zoneout": (0.3, 0.2), "variational_dropout": 0.3}),
            (GRU, {"recurrent_dropout": 0.3, "weight_drop": 0.2}),
            (RNN, {"transition_depth": 2, "shortcut": True, "variational_dropout": 0.4}),
            (LSTM, {"num_layers": 2, "proj_size": 4, "checkpoint": 2, "dropout": 0.3}),
        ],
    )
    @pytest.mark.parametrize("learns", [False, True], ids=["zero", "learned"])
    def test_masks(
        self, kind: Any, options: dict[str, Any], learns: bool, rng: np.random.Generator
    ) -> None:
        layer = kind(3, 5, learned_state=learns, dtype="float64", seed=1, **options)
        for name, array in layer.params.items():
            if name.startswith("initial"):
                array[...] = rng.standard_normal(array.shape)
        resets = rng.random((5, 2)) < 0.4
        check_recurrent(layer, rng.standard_normal((5, 2, 3)), resets=resets)


class TestToTheBit:
    @each([Case(c, "float32", 2, True, True, 30, 40, 17, 33) for c in ("lstm", "gru", "rnn_tanh")])
    def test_any_number_of_threads_and_any_tape(
        self, case: Case, set_threads: Callable[[int], None]
    ) -> None:
        numbers, resets, found = case.draw(), drawn(case), []
        own = learned(case, numbers)
        for count, checkpoint in [(1, False), (3, False), (2, 7), (1, 1)]:
            set_threads(count)
            found.append(together(case, numbers, resets, own, checkpoint=checkpoint))
        for outputs, gradients in found[1:]:
            assert_same(outputs, found[0][0])
            assert_same(gradients, found[0][1])

    @pytest.mark.parametrize("cell", ["lstm", "gru_reset_before", "lstm_projected"])
    def test_hidden_units_shared_between_threads(
        self, cell: str, set_threads: Callable[[int], None]
    ) -> None:
        case = Case(cell, "float32", 1, False, False, 12, 2, 70, 300)
        numbers, resets, found = case.draw(), drawn(case), []
        own = learned(case, numbers)
        for count in (1, 2, 3):
            set_threads(count)
            found.append(together(case, numbers, resets, own))
        for outputs, gradients in found[1:]:
            assert_same(outputs, found[0][0])
            assert_same(gradients, found[0][1])

    @pytest.mark.parametrize("learns", [False, True], ids=["zero", "learned"])
    @pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "lstm_projected"])
    def test_calls_that_cut_time(self, cell: str, learns: bool) -> None:
        case = Case(cell, "float32", 2 if learns else 1, False, False, 40, 7, 5, 17)
        numbers, resets = case.draw(), drawn(case)
        layer = built(case, numbers, learned(case, numbers) if learns else None)
        whole, final = layer(numbers.x, numbers.state, resets=resets)
        for steps in (1, 3, 17):
            state, parts = numbers.state, []
            for at in range(0, case.steps, steps):
                here = slice(at, at + steps)
                y, state = layer(numbers.x[here], state, resets=resets[here])
                parts.append(y)
            assert_same({"y": np.concatenate(parts)}, {"y": whole})
            assert_same(cases.named_state(state, "_n"), cases.named_state(final, "_n"))

    @pytest.mark.parametrize("learns", [False, True], ids=["zero", "learned"])
    def test_layouts(self, learns: bool) -> None:
        case = Case("lstm", "float32", 2, True, True, 9, 5, 3, 17)
        numbers, resets = case.draw(), drawn(case)
        own = learned(case, numbers) if learns else None
        want, want_gradients = together(case, numbers, resets, own)
        turned = Numbers(
            numbers.inputs | {"x": numbers.x.swapaxes(0, 1)},
            numbers.upstream | {"y": numbers.dy.swapaxes(0, 1)},
            numbers.lengths,
        )
        got, got_gradients = together(case, turned, resets.T, own, batch_first=True)
        assert_same(got, want | {"y": want["y"].swapaxes(0, 1)})
        assert_same(got_gradients, want_gradients | {"x": want_gradients["x"].swapaxes(0, 1)})
        layer = built(case, numbers, own)
        length = numbers.length(1)
        y, _ = layer(numbers.x[:length, 1], resets=resets[:length, 1])
        batch, _ = layer(numbers.x[:length, 1:2], resets=resets[:length, 1:2])
        assert_same({"y": y}, {"y": batch[:, 0]})

    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    def test_weights_of_fewer_bits(self, weights: Any, rng: np.random.Generator) -> None:
        layer = quantize(LSTM(5, 33, seed=1), weights)
        x = rng.standard_normal((8, 3, 5), np.float32)
        resets = np.zeros((8, 3), bool)
        resets[5] = True
        y, _ = layer(x, resets=resets)
        assert_same({"y": y[:5]}, {"y": layer(x[:5])[0]})
        assert_same({"y": y[5:]}, {"y": layer(x[5:])[0]})


class TestRefusals:
    @pytest.mark.parametrize("call", ["__call__", "vjp"])
    def test_names_what_came(self, call: str) -> None:
        x = np.zeros((4, 2, 3), np.float32)
        run = getattr(LSTM(3, 5), call)
        with pytest.raises(TypeError, match=r"resets must be booleans, got .*int64"):
            run(x, resets=np.zeros((4, 2), np.int64))
        with pytest.raises(ValueError, match=r"resets must have shape \(4, 2\), got \(2, 4\)"):
            run(x, resets=np.zeros((2, 4), bool))
        with pytest.raises(ValueError, match=r"resets must have shape \(4,\), got \(4, 1\)"):
            run(x[:, 0], resets=np.zeros((4, 1), bool))
        run(x, resets=[[True, False]] * 4)
