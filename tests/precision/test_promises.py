"""Rounded weights: no row's results depend on chunks, on other rows or on threads, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, RNN, Chain, Forest, Linear, quantize
from rnncore.module import WEIGHT_TYPES, modules
from rnncore.precision import MOST_COLUMNS, HoldsWeights
from rnncore.states import leaves
from rnncore.trees.order import Order

from tests.support.cases import Case, built, each
from tests.support.quantized import FLOAT32, STACKED, assert_same_bits, each_kind
from tests.support.recursive_layers import CELLS, SUMS, make, random_trees
from tests.support.streams import DELAYED, PROMPT, WIDTH, called, frames

STEPS = 7
#: What has weights, in float32.
STREAMED = {
    name: module
    for name, module in (PROMPT | DELAYED).items()
    if name != "float64" and any(isinstance(part, HoldsWeights) for part in modules(module))
}
each_streamed = pytest.mark.parametrize("name", STREAMED)


class TestChunks:
    @each_kind
    @each_streamed
    def test_steps_chunks_and_one_call(self, name: str, weights: Any) -> None:
        module = quantize(STREAMED[name], weights)
        x = frames(STREAMED[name], STEPS, 3)
        y, state = called(module, x)
        for cuts in ([], [3], [1, 1, 5], range(1, STEPS)):
            stream = module.stream(3)
            ready = [stream.run(chunk) for chunk in np.split(x, cuts)]
            assert_same_bits([np.concatenate([*ready, stream.finish()])], [y])
            assert_same_bits(list(leaves(stream.state)), list(leaves(state)))
        stream = module.stream(3)
        if not stream.looks_ahead:
            assert_same_bits([np.stack([stream.step(frame) for frame in x])], [y])
            stream = module.stream(1)
            assert_same_bits([np.stack([stream.step(frame[2:]) for frame in x])], [y[:, 2:]])

    @each_kind
    @each(FLOAT32)
    def test_calls_that_hand_the_state_on(self, case: Case, weights: Any) -> None:
        numbers = case.draw()
        layer = quantize(built(case, numbers), weights)
        y, state = layer(numbers.x, numbers.state)
        own, at = [], numbers.state
        for x in np.split(numbers.x, [1, 2, 5]):
            part, at = layer(x, at)
            own.append(part)
        assert_same_bits([np.concatenate(own), at], [y, state])

    @each_kind
    def test_large_layers(self, weights: Any) -> None:
        model = Chain(GRU(WIDTH, 200, 2, seed=0), LSTM(200, 70, seed=1), Linear(70, 50, seed=1))
        model = quantize(model, weights)
        x = frames(model, 9, 40)
        y, _ = model(x)
        stream = model.stream(40)
        parts = [stream.run(x[:4]), stream.step(x[4])[None], stream.run(x[5:])]
        assert_same_bits([np.concatenate(parts)], [y])

    @each_kind
    @pytest.mark.parametrize("cell", ["RNN", "IndRNN", "LSTM", "GRU", "MGU"])
    def test_a_cell_is_its_layer_step_by_step(self, cell: str, weights: Any) -> None:
        layer = getattr(rnncore, cell)(5, 9, seed=0)
        step = getattr(rnncore, f"{cell}Cell")(5, 9)
        step.load_state_dict({n.removesuffix("_l0"): a for n, a in layer.params.items()})
        x = np.random.default_rng(0).standard_normal((STEPS, 3, 5)).astype("f4")
        want, _ = quantize(layer, weights)(x)
        single, state, got = quantize(step, weights), None, []
        for frame in x:
            state = single(frame, state)
            got.append(state[0] if isinstance(state, tuple) else state)
        assert_same_bits([np.stack(got)], [want])

    @each_kind
    def test_layers_in_a_chain_are_those_of_one_stack(self, weights: Any) -> None:
        stack = LSTM(5, 9, 3, seed=0)
        parts = [LSTM(9 if n else 5, 9) for n in range(3)]
        for n, part in enumerate(parts):
            part.load_state_dict({name: stack.params[name[:-1] + str(n)] for name in part.params})
        x = np.random.default_rng(0).standard_normal((STEPS, 3, 5)).astype("f4")
        want, _ = quantize(stack, weights)(x)
        assert_same_bits([quantize(Chain(*parts), weights)(x)[0]], [want])


def rows_of(case: Case, layer: Any, numbers: Any) -> list[Any]:
    """Results of each sequence of a call by itself."""
    found = []
    for b in range(case.batch):
        one = numbers.row(b)
        found.append(layer(one.x, one.state))
    return found


class TestRows:
    @each_kind
    @each(FLOAT32 + STACKED)
    def test_a_row_alone_and_in_a_batch(self, case: Case, weights: Any) -> None:
        numbers = case.draw()
        layer = quantize(built(case, numbers), weights)
        y, state = layer(numbers.x, numbers.state, lengths=numbers.lengths)
        for b, (own, last) in enumerate(rows_of(case, layer, numbers)):
            length = numbers.length(b)
            assert_same_bits([own], [y[:length, b : b + 1]])
            assert not y[length:, b].any()
            assert_same_bits(list(leaves(last)), [part[:, b : b + 1] for part in leaves(state)])

    @each_kind
    @pytest.mark.parametrize("hidden", [1, 8, 33, 100])
    @pytest.mark.parametrize("batch", [2, 3, 8, 9, 17, 64, 129])
    def test_any_batch(self, batch: int, hidden: int, weights: Any) -> None:
        """Tiles of rows differ with the batch; so do those that are quantised together."""
        model = Chain(GRU(5, hidden, seed=0), Linear(hidden, 3, seed=1))
        model = quantize(model, weights)
        x = np.random.default_rng(0).standard_normal((3, batch, 5)).astype("f4")
        x *= np.exp(np.random.default_rng(1).uniform(-3, 3, (3, batch, 1))).astype("f4")
        y, _ = model(x)
        order = np.random.default_rng(2).permutation(batch)
        assert_same_bits([model(x[:, order])[0]], [y[:, order]])
        for b in {0, batch // 2, batch - 1}:
            assert_same_bits([model(x[:, b : b + 1])[0]], [y[:, b : b + 1]])

    @each_kind
    def test_rows_of_a_linear(self, weights: Any, rng: np.random.Generator) -> None:
        linear = quantize(Linear(33, 70, seed=0), weights)
        x = rng.standard_normal((300, 33)).astype("f4")
        y = linear(x)
        assert_same_bits([np.stack([linear(row) for row in x])], [y])
        assert_same_bits([linear(x.reshape(3, 4, 25, 33))], [y.reshape(3, 4, 25, 70)])


@each_kind
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("cell", ["lstm", "lstm_projected", "gru_reset_before", "lstm_layer_norm"])
def test_threads(cell: str, threads: int, weights: Any, set_threads: Callable[[int], None]) -> None:
    case = Case(cell, "float32", 2, True, True, 6, 33, 20, 150)
    numbers = case.draw()
    layer = quantize(Chain(built(case, numbers), Linear(2 * case.output_size, 90, seed=0)), weights)
    found = []
    for count in (1, threads):
        set_threads(count)
        found.append(layer(numbers.x, lengths=numbers.lengths))
        found[-1] += (layer(numbers.x[:, :1]),)
    assert_same_bits(found[1], found[0])


class TestTrees:
    @each_kind
    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("inputs", ["all", "leaves"])
    def test_a_tree_alone_and_in_a_forest(self, cell: str, inputs: str, weights: Any) -> None:
        arity = 2 if cell == "tensor net" else 3
        layer = quantize(make(cell, 4, 5, arity, inputs=inputs, seed=0), weights)
        rng = np.random.default_rng(3)
        forest = random_trees(rng, 6, 9, arity)
        rows = forest.nodes if inputs == "all" else len(forest.leaves)
        x = rng.standard_normal((rows, 4)).astype("f4")
        whole = list(leaves(layer(x, forest)))
        at = 0
        for begin, end in zip(forest.begin, forest.begin[1:], strict=False):
            parent = forest.parent[begin:end]
            tree = Forest.from_parents([np.where(parent < 0, -1, parent - begin)])
            count = tree.nodes if inputs == "all" else len(tree.leaves)
            own = layer(x[at : at + count], tree)
            assert_same_bits(list(leaves(own)), [part[begin:end] for part in whole])
            at += count

    @each_kind
    @pytest.mark.parametrize("cell", SUMS)
    def test_threads(self, cell: str, weights: Any, set_threads: Callable[[int], None]) -> None:
        layer = quantize(make(cell, 20, 150, 3, seed=0), weights)
        rng = np.random.default_rng(4)
        forest = random_trees(rng, 12, 30, 3)
        x = rng.standard_normal((forest.nodes, 20)).astype("f4")
        found = []
        for count in (1, 2, 3):
            set_threads(count)
            found.append(layer(x, forest))
        assert_same_bits(found[1], found[0])
        assert_same_bits(found[2], found[0])


class TestOddShapes:
    @each_kind
    @pytest.mark.parametrize("hidden", [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 47, 63, 65])
    @pytest.mark.parametrize("inputs", [1, 2, 3, 5, 64, 67])
    def test_sizes(self, inputs: int, hidden: int, weights: Any) -> None:
        """What lies beyond the end of a row or a matrix must not matter."""
        layer = LSTM(inputs, hidden, 2, seed=0)
        held = quantize(layer, weights)
        x = np.random.default_rng(0).standard_normal((3, 2, inputs)).astype("f4")
        y, _ = held(x)
        want, _ = layer(x)
        assert np.abs(y - want).max() < 0.03
        assert_same_bits([held(x[:, 1:])[0]], [y[:, 1:]])

    @each_kind
    def test_no_steps_and_no_rows(self, weights: Any) -> None:
        layer = LSTM(3, 5, 2, bidirectional=True, seed=0)
        held, linear = quantize(layer, weights), quantize(Linear(3, 5, seed=0), weights)
        state = (np.full((4, 2, 5), 0.5, "f4"), np.full((4, 2, 5), 0.25, "f4"))
        for x in (np.zeros((0, 2, 3), "f4"), np.zeros((4, 0, 3), "f4"), np.zeros((0, 0, 3), "f4")):
            given = state if x.shape[1] == 2 else None
            got, want = held(x, given), layer(x, given)
            assert got[0].shape == want[0].shape
            assert_same_bits(got, want)
        assert linear(np.zeros((0, 3), "f4")).shape == (0, 5)

    @each_kind
    @pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
    def test_a_row_that_is_not_finite(self, odd: float, weights: Any) -> None:
        model = Chain(LSTM(5, 9, seed=0), RNN(9, 7, nonlinearity="relu", seed=1), Linear(7, 3))
        model = quantize(model, weights)
        x = np.random.default_rng(0).standard_normal((6, 40, 5)).astype("f4")
        want, _ = model(x)
        x[2, 21, 4] = odd
        y, _ = model(x)
        others = np.arange(40) != 21
        assert_same_bits([y[:, others], y[:2, 21]], [want[:, others], want[:2, 21]])
        linear = quantize(Linear(5, 3, seed=0), weights)
        got = linear(x[2])
        assert np.isfinite(got[others]).all()
        if np.isnan(odd) or weights == "int8":  # a row whose scale is not finite has no numbers
            assert np.isnan(y[2:, 21]).all()
            assert np.isnan(got[21]).all()
        else:
            assert not np.isfinite(got[21]).any()
        assert_same_bits([model(x[:, 21:22])[0]], [y[:, 21:22]])

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_the_longest_rows(self, sign: int) -> None:
        """The largest sum that there is, and the largest of what is added to be taken back."""
        linear = Linear(MOST_COLUMNS, 2, bias=False, seed=0)
        linear.params["weight"] = [[127.0] * MOST_COLUMNS, [-127.0] * MOST_COLUMNS]
        got = quantize(linear)(np.full((3, MOST_COLUMNS), sign * 127, "f4"))
        most = np.float32(sign * 127**2 * MOST_COLUMNS)
        assert got.tolist() == [[most, -most]] * 3

    @each_kind
    @pytest.mark.parametrize("place", range(0, 70, 3))
    def test_nan_anywhere_in_a_row(self, place: int, weights: Any) -> None:
        linear = quantize(Linear(70, 20, seed=0), weights)
        x = np.random.default_rng(0).standard_normal((3, 70)).astype("f4")
        want = linear(x)
        x[1, place] = np.nan
        got = linear(x)
        assert np.isnan(got[1]).all()
        assert_same_bits([got[::2]], [want[::2]])

    @pytest.mark.parametrize("size", [1e-25, 1e-12, 1.0, 1e12, 1e25, 1e37])
    def test_numbers_of_any_size(self, size: float) -> None:
        """A row's scale is its own: twice the row is twice the product, whatever its size."""
        linear = Linear(37, 20, bias=False, seed=0)
        x = np.random.default_rng(0).uniform(-1, 1, (4, 37)).astype("f4")
        scaled = x * np.float32(size)
        for weights in WEIGHT_TYPES:
            held = quantize(linear, weights)
            assert_same_bits([held(scaled * 2)], [held(scaled) * 2])
            want = linear(scaled)
            assert np.abs(held(scaled) - want).max() <= 0.03 * np.abs(want).max()

    def test_numbers_too_small_for_a_scale_are_zero(self) -> None:
        linear = quantize(Linear(37, 20, seed=0))
        tiny = np.full((2, 37), 1e-38, "f4")
        assert_same_bits([linear(tiny)], [linear(0 * tiny)])
        assert_same_bits([linear(0 * tiny)[0]], [np.array(linear.params["bias"])])

    @each_kind
    def test_weights_of_any_size(self, weights: Any) -> None:
        linear = Linear(9, 7, bias=False, seed=0)
        sizes = np.array([1e-38, 1e-20, 1e-3, 1, 1e3, 1e20, 3e38], "f4")
        rows = linear.params["weight"]
        rows /= np.abs(rows).max(axis=1, keepdims=True)
        rows *= sizes[:, None]
        x = np.random.default_rng(0).standard_normal((4, 9)).astype("f4") * np.float32(0.1)
        got, want = quantize(linear, weights)(x), linear(x)
        assert np.isfinite(got).all()
        assert (np.abs(got - want)[:, 1:] <= 0.03 * np.abs(want).max(axis=0)[1:]).all()

    def test_the_largest_weights_there_are(self) -> None:
        linear = Linear(2, 1, bias=False)
        linear.params["weight"] = np.full((1, 2), np.finfo("f4").max)
        got = quantize(linear)(np.array([[0.25, 0.25]], "f4"))
        np.testing.assert_allclose(got, np.finfo("f4").max / 2, rtol=1e-6)
        with pytest.raises(ValueError, match="weight holds numbers too large for bfloat16"):
            quantize(linear, "bfloat16")

    @each_kind
    def test_states_far_outside(self, weights: Any) -> None:
        """h has a scale of its own, too: it may be any number at first."""
        case = Case("lstm", "float32", 1, False, False, 3, 4, 3, 9)
        numbers = case.draw()
        layer = built(case, numbers)
        h, c = (1000 * part for part in numbers.state)
        got, want = quantize(layer, weights)(numbers.x, (h, c)), layer(numbers.x, (h, c))
        assert np.abs(got[1][1] - want[1][1]).max() <= 0.02 * np.abs(want[1][1]).max()
        sums = Linear(9, 36, bias=False)
        sums.params["weight"] = layer.params["weight_hh_l0"]
        large = quantize(sums, weights)(h[0])
        assert np.abs(large - sums(h[0])).max() <= 0.02 * np.abs(sums(h[0])).max()

    @each_kind
    def test_rows_of_zeros(self, weights: Any) -> None:
        layer = GRU(3, 5, seed=0)
        for name in ("weight_ih_l0", "weight_hh_l0"):
            layer.params[name][[0, 6, 14]] = 0
        held, x = quantize(layer, weights), np.random.default_rng(0).standard_normal((4, 2, 3))
        y, _ = held(x.astype("f4"))
        assert np.abs(y - layer(x.astype("f4"))[0]).max() < 0.02
        for name in ("weight_ih_l0", "weight_hh_l0"):
            layer.params[name] = np.zeros_like(layer.params[name])
        zero = x.astype("f4")
        assert_same_bits(quantize(layer, weights)(zero), layer(zero))

    @each_kind
    def test_arrays_as_they_come(self, weights: Any) -> None:
        """Strides, other types and lists as modules in float32 take them."""
        layer = LSTM(3, 5, seed=0)
        held, linear = quantize(layer, weights), quantize(Linear(3, 5, seed=0), weights)
        x = np.random.default_rng(0).standard_normal((4, 6, 3)).astype("f4")
        wide = np.zeros((8, 6, 9), "f4")
        wide[::2, :, 1:7:2] = x
        for given in (wide[::2, :, 1:7:2], x[:, ::-1].copy()[:, ::-1], np.asfortranarray(x)):
            assert_same_bits(held(given), held(x))
            assert_same_bits(linear(given), linear(x))
        swapped = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
        lengths = [4, 1, 2, 3, 4, 4]
        assert_same_bits(held(swapped, lengths=lengths), held(x, lengths=lengths))
        assert_same_bits(held(x.tolist()), held(x))
        for model in (layer, held, linear):
            with pytest.raises(TypeError, match="x is float64, but this module computes in flo"):
                model(x.astype("f8"))
        first = LSTM(3, 5, batch_first=True, seed=0)
        y, state = quantize(first, weights)(swapped.swapaxes(0, 1))
        assert_same_bits([y.swapaxes(0, 1), state], list(held(x)))


def test_an_order_from_the_roots() -> None:
    """Trees are walked down by the same kernels."""
    forest = Forest.from_nested([((1, 2), 3)])
    order = forest.top_down()
    assert isinstance(order, Order)
    layer = rnncore.RecursiveNet(3, 4, 1, seed=0)
    x = np.random.default_rng(0).standard_normal((forest.nodes, 3)).astype("f4")
    for weights in WEIGHT_TYPES:
        got = quantize(layer, weights)(x, order)
        assert 0 < np.abs(got - layer(x, order)).max() < 0.02
