"""What the compiled layers promise beside numbers, and what they say to bad arguments."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import rnncore

from tests.support import cases
from tests.support.cases import CELLS, FULL, TOLERANCE, Case, each, named_state
from tests.support.compare import assert_close, assert_same


class TestProtocol:
    """What a layer promises beside numbers."""

    @each(FULL)
    def test_pullback_runs_once(self, case: Case) -> None:
        numbers = case.draw()
        layer = cases.built(case, numbers)
        _, pullback = layer.vjp(numbers.x, lengths=numbers.lengths)
        pullback(numbers.dy)
        with pytest.raises(RuntimeError, match="already run"):
            pullback(numbers.dy)

    @each(FULL)
    def test_a_gradient_not_given_is_zero(self, case: Case) -> None:
        numbers = case.draw()
        absent, zero = (cases.built(case, numbers) for _ in range(2))
        _, pullback = absent.vjp(numbers.x, numbers.state, lengths=numbers.lengths)
        dx, _ = pullback(None, numbers.dstate)
        _, pullback = zero.vjp(numbers.x, numbers.state, lengths=numbers.lengths)
        dx_zero, _ = pullback(np.zeros_like(numbers.dy), numbers.dstate)
        assert_same({"x": dx} | absent.grads, {"x": dx_zero} | zero.grads)

    @each(FULL)
    def test_gradients_accumulate_until_they_are_zeroed(self, case: Case) -> None:
        numbers = case.draw()
        layer = cases.built(case, numbers)
        for _ in range(2):
            _, pullback = layer.vjp(numbers.x, numbers.state, lengths=numbers.lengths)
            pullback(numbers.dy, numbers.dstate)
        _, once = cases.layer_results(case, numbers)
        twice = {name: 2 * once[name] for name in numbers.params}
        assert_close(dict(layer.grads), twice, TOLERANCE[case.dtype])
        layer.zero_grad()
        assert not any(grad.any() for grad in layer.grads.values())

    @each(FULL)
    def test_parameters_written_in_place_count_at_once(self, case: Case) -> None:
        numbers = case.draw()
        layer = cases.built(case, numbers)
        before, _ = layer(numbers.x)
        for name, array in numbers.params.items():
            array[0] += 0.5
            layer.params[name][0] += 0.5
        after, _ = layer(numbers.x)
        assert_same({"y": after}, {"y": cases.built(case, numbers)(numbers.x)[0]})
        assert np.any(after != before)

    @each(FULL)
    def test_inputs_are_left_alone_and_outputs_are_new(self, case: Case) -> None:
        numbers, copy = case.draw(), case.draw()
        outputs, gradients = cases.layer_results(case, numbers)
        assert_same(numbers.inputs | {"dy": numbers.dy}, copy.inputs | {"dy": copy.dy})
        given = [*numbers.inputs.values(), *numbers.upstream.values()]
        for array in [*outputs.values(), *gradients.values()]:
            assert not any(np.shares_memory(array, other) for other in given)

    @each(FULL)
    def test_what_the_pullback_shares_is_read_only(self, case: Case) -> None:
        (y, _), _ = case.layer().vjp(case.draw().x)
        with pytest.raises(ValueError, match="read-only"):
            y[...] = 0

    @each([Case(cell, steps=0) for cell in CELLS])
    def test_the_state_after_no_steps_is_a_copy(self, case: Case) -> None:
        numbers = case.draw()
        _, state = cases.built(case, numbers)(numbers.x, numbers.state)
        named = named_state(state, "_0")
        assert_same(named, {name: numbers.inputs[name] for name in named})
        assert not any(np.shares_memory(named[name], numbers.inputs[name]) for name in named)

    @pytest.mark.parametrize("kind", [list, tuple, np.int32, np.uint8])
    def test_lengths_come_in_any_integer_kind(self, kind: Any) -> None:
        case = Case("lstm", ragged=True)
        numbers = case.draw()
        assert numbers.lengths is not None
        lengths = kind(numbers.lengths)
        y, _ = cases.built(case, numbers)(numbers.x, numbers.state, lengths=lengths)
        assert_same({"y": y}, {"y": cases.layer_outputs(case, numbers)["y"]})

    def test_one_unbatched_sequence_may_have_a_length(self, rng: np.random.Generator) -> None:
        layer = rnncore.GRU(3, 5, bidirectional=True, seed=0)
        x = rng.standard_normal((4, 3), np.float32)
        (y, h), (y_short, h_short) = layer(x, lengths=[3]), layer(x[:3])
        assert_same({"y": y[:3], "h": h}, {"y": y_short, "h": h_short})
        assert not y[3].any()

    def test_a_part_of_the_state_not_given_is_zero(self) -> None:
        layer = rnncore.LSTM(3, 5, num_layers=2, bidirectional=True, seed=0)
        got, want = layer(X, (H + 1, None)), layer(X, (H + 1, H))
        assert_same({"y": got[0]}, {"y": want[0]})

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    @each(FULL)
    def test_a_copy_computes_the_same_and_stands_alone(self, case: Case, duplicate: Any) -> None:
        numbers = case.draw()
        layer = cases.built(case, numbers)
        want, _ = layer(numbers.x)
        twin = duplicate(layer)
        assert_same({"y": twin(numbers.x)[0]}, {"y": want})
        for param in twin.params.values():
            param.fill(0)
        assert_same({"y": layer(numbers.x)[0]}, {"y": want})

    def test_lists_and_narrower_floats_are_read_as_they_are(self, rng: np.random.Generator) -> None:
        layer = rnncore.GRU(3, 5, seed=0)
        half = rng.standard_normal((4, 2, 3)).astype(np.float16)
        want = {"y": layer(half.astype(np.float32))[0]}
        assert_same({"y": layer(half)[0]}, want)
        assert_same({"y": layer(half.tolist())[0]}, want)

    def test_dropout_leaves_inference_and_the_last_layer_alone(self) -> None:
        case = Case("gru", num_layers=2, hidden_size=33)
        numbers = case.draw()
        plain = cases.layer_outputs(case, numbers)
        assert_same(cases.layer_outputs(case, numbers, dropout=0.5), plain)
        (y, _), _ = cases.built(case, numbers, dropout=0.5).vjp(numbers.x, numbers.state)
        assert np.any(y != plain["y"])
        assert np.all(y != 0)

    def test_dropout_follows_its_seed_and_never_repeats_a_mask(self) -> None:
        case = Case("gru", num_layers=2)
        numbers = case.draw()
        one, two = (cases.built(case, numbers, dropout=0.5, seed=1) for _ in range(2))
        first, second = ([layer.vjp(numbers.x)[0][0] for _ in range(2)] for layer in (one, two))
        assert_same({"0": first[0], "1": first[1]}, {"0": second[0], "1": second[1]})
        assert np.any(first[0] != first[1])


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


X, H = zeros(4, 2, 3), zeros(4, 2, 5)

#: For LSTM(3, 5, num_layers=2, bidirectional=True): x, state, lengths, the error and its message.
BAD_CALLS: dict[str, tuple[Any, Any, Any, type[Exception], str]] = {
    "rank 1": (zeros(3), None, None, ValueError, r"x must .*\(3,\)"),
    "rank 4": (zeros(1, 4, 2, 3), None, None, ValueError, r"x must .*\(1, 4, 2, 3\)"),
    "width": (zeros(4, 2, 7), None, None, ValueError, r"x must .*3.*\(4, 2, 7\)"),
    "float64": (np.float64(X), None, None, TypeError, r"x is float64.*float32"),
    "complex": (np.complex64(X), None, None, TypeError, r"x is complex64.*float32"),
    "text": (
        [[["a"] * 3]],
        None,
        None,
        TypeError,
        r"x is <U1, but this module computes in float32",
    ),
    "state dtype": (X, (H, np.float64(H)), None, TypeError, r"state\[1\] is float64.*float32"),
    "state shape": (X, (H, H[:2]), None, ValueError, r"state\[1\] must .*\(4, 2, 5\).*\(2, 2, 5\)"),
    "state batch": (X, (zeros(4, 3, 5), H), None, ValueError, r"state\[0\] must .*\(4, 3, 5\)"),
    "state of one": (X, (H,), None, TypeError, r"state .*must be a pair \(h, c\)"),
    "state of three": (X, (H, H, H), None, TypeError, r"state .*must be a pair \(h, c\)"),
    "too few lengths": (X, None, [1], ValueError, r"lengths must .*2.*\(1,\)"),
    "lengths of rank 2": (X, None, [[1, 2]], ValueError, r"lengths must .*\(1, 2\)"),
    "a length of 0": (X, None, [0, 4], ValueError, r"lengths must .*1.*4.*0"),
    "a negative length": (X, None, [-1, 4], ValueError, r"lengths must .*1.*4.*-1"),
    "a length beyond T": (X, None, [4, 5], ValueError, r"lengths must .*1.*4.*5"),
    "lengths of floats": (X, None, [1.0, 4.0], TypeError, r"lengths must .*float64"),
    "lengths of nothing": (zeros(0, 2, 3), None, [0, 0], ValueError, r"lengths"),
}

#: For a pullback of the same: dy, dstate, the error and its message.
BAD_PULLBACKS: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "dy shape": (H, None, ValueError, r"dy must .*\(4, 2, 10\).*\(4, 2, 5\)"),
    "dy dtype": (np.zeros((4, 2, 10)), None, TypeError, r"dy is float64.*float32"),
    "dstate shape": (None, (H, H[:1]), ValueError, r"dstate\[1\] must .*\(4, 2, 5\).*\(1, 2, 5\)"),
    "dstate of one": (None, (H,), TypeError, r"dstate .*must be a pair \(h, c\)"),
}

BAD_LAYERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "input_size": ("LSTM", {"input_size": 0}, r"input_size must .*0"),
    "hidden_size": ("LSTM", {"hidden_size": -1}, r"hidden_size must .*-1"),
    "num_layers": ("GRU", {"num_layers": 0}, r"num_layers must .*0"),
    "dropout": ("GRU", {"dropout": 1.5}, r"dropout must .*1\.5"),
    "nonlinearity": ("RNN", {"nonlinearity": "sin"}, r"nonlinearity must .*'sin'"),
    "half": ("RNN", {"dtype": "float16"}, r"dtype must .*float16"),
    "whole": ("LSTM", {"dtype": "int64"}, r"dtype must .*int64"),
}

#: For GRUCell(3, 5): x, state and the message.
BAD_CELL_CALLS: dict[str, tuple[Any, Any, str]] = {
    "width": (zeros(2, 4), None, r"x must .*\(2, 4\)"),
    "rank": (zeros(1, 2, 3), None, r"x must .*\(1, 2, 3\)"),
    "state": (zeros(2, 3), zeros(3, 5), r"state must .*\(2, 5\).*\(3, 5\)"),
}


class TestCellStates:
    """`LSTM.cell_states`: every c, each the last one of a walk that ends at its step."""

    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_forward_they_are_where_the_walks_over_prefixes_end(self, dtype: str) -> None:
        case = Case("lstm", dtype, num_layers=2, ragged=True)
        numbers = case.draw()
        layer = cases.built(case, numbers)
        y, _, c = layer.cell_states(numbers.x, numbers.state, lengths=numbers.lengths)
        assert_same({"y": y}, {"y": cases.layer_outputs(case, numbers)["y"]})
        for t in range(case.steps):
            _, (_, ends) = layer(numbers.x[: t + 1], numbers.state)
            alive = np.array([t < numbers.length(b) for b in range(case.batch)])
            assert_same({"c": c[t, alive]}, {"c": ends[-1, alive]})
            assert not c[t, ~alive].any()

    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_backward_they_are_where_the_walks_over_suffixes_end(self, dtype: str) -> None:
        case = Case("lstm", dtype, bidirectional=True)
        numbers = case.draw()
        layer = cases.built(case, numbers, batch_first=True)
        _, _, c = layer.cell_states(numbers.x.swapaxes(0, 1), numbers.state)
        for t in range(case.steps):
            _, (_, ends) = layer(numbers.x[t:].swapaxes(0, 1), numbers.state)
            assert_same({"c": c[:, t, case.hidden_size :]}, {"c": ends[1]})

    def test_of_one_unbatched_sequence(self) -> None:
        layer = rnncore.LSTM(3, 5, seed=0)
        _, (_, last), c = layer.cell_states(X[:, 0])
        assert c.shape == (4, 5)
        assert_same({"c": c[-1:]}, {"c": last})


class TestMisuse:
    @pytest.fixture
    def layer(self) -> Any:
        return rnncore.LSTM(3, 5, num_layers=2, bidirectional=True, seed=0)

    @pytest.mark.parametrize("fault", BAD_CALLS)
    def test_calls(self, layer: Any, fault: str) -> None:
        x, state, lengths, error, message = BAD_CALLS[fault]
        for call in (layer, layer.vjp):
            with pytest.raises(error, match=message):
                call(x, state, lengths=lengths)

    @pytest.mark.parametrize("fault", BAD_PULLBACKS)
    def test_a_refused_gradient_leaves_the_pullback_usable(self, layer: Any, fault: str) -> None:
        dy, dstate, error, message = BAD_PULLBACKS[fault]
        _, pullback = layer.vjp(X)
        with pytest.raises(error, match=message):
            pullback(dy, dstate)
        pullback(zeros(4, 2, 10))

    @pytest.mark.parametrize("fault", BAD_LAYERS)
    def test_layers(self, fault: str) -> None:
        name, options, message = BAD_LAYERS[fault]
        with pytest.raises(ValueError, match=message):
            getattr(rnncore, name)(**{"input_size": 3, "hidden_size": 5} | options)

    @pytest.mark.parametrize("fault", BAD_CELL_CALLS)
    def test_cells(self, fault: str) -> None:
        x, state, message = BAD_CELL_CALLS[fault]
        with pytest.raises(ValueError, match=message):
            rnncore.GRUCell(3, 5)(x, state)

    def test_a_gru_takes_one_array_as_its_state(self) -> None:
        with pytest.raises((ValueError, TypeError), match="state"):
            rnncore.GRU(3, 5)(X, (zeros(1, 2, 5), zeros(1, 2, 5)))
