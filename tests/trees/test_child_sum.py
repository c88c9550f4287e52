"""Own cells at the nodes of trees: NumPy, differences, built-in layers, sequences to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import BidirectionalTree, ChildSumTree, Forest, RecursiveNet, cells
from rnncore.cells import Gate, sigmoid, tanh
from rnncore.trees import check_tree
from rnncore.trees.checked import in_numpy
from rnncore.trees.order import Order

from tests.support.cases import TOLERANCE
from tests.support.compare import assert_close, assert_gradients_of, assert_same
from tests.support.own_cells import OWN
from tests.support.recursive_layers import named, random_trees
from tests.support.shelf import SHELF

ALL = OWN | SHELF
every = pytest.mark.parametrize("name", ALL)
FORESTS: dict[str, Callable[[np.random.Generator], Forest]] = {
    "random trees": lambda rng: random_trees(rng, 9, 30, 5),
    "single nodes": lambda rng: random_trees(rng, 5, 1, 1),
    "no trees": lambda rng: Forest.from_parents([]),
    "many": lambda rng: random_trees(rng, 60, 15, 3),
    "one of many children": lambda rng: Forest.from_parents([[*[40] * 40, -1]]),
}


def inputs_of(layer: ChildSumTree, rows: int, seed: int = 0) -> np.ndarray:
    """x whose columns behind the features are positive."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, layer.columns)).astype(layer.dtype)
    x[:, layer.input_size :] = rng.uniform(0.1, 1, x[:, layer.input_size :].shape)
    return x


def results(
    layer: ChildSumTree, x: np.ndarray, forest: Forest | Order, upstream: list[np.ndarray]
) -> dict[str, np.ndarray]:
    layer.zero_grad()
    states, pullback = layer.vjp(x, forest)
    found = named(states, layer.state_names)
    return found | {"x": pullback(*upstream[: len(found)])} | dict(layer.grads)


def gradients_for(layer: ChildSumTree, rows: int, seed: int = 0) -> list[np.ndarray]:
    rng, states = np.random.default_rng(seed), layer.definition.states
    shape = (len(states), rows, layer.hidden_size)
    return list(rng.standard_normal(shape).astype(layer.dtype))


class TestAgainstNumPy:
    @pytest.mark.parametrize("shape", FORESTS)
    @pytest.mark.parametrize("name", ["lstm", "gru", "gru_reset_before", "mgu", "cfc", "indrnn"])
    def test_states_and_gradients_agree(self, name: str, shape: str) -> None:
        """In both precisions, of the same numbers."""
        forest = FORESTS[shape](np.random.default_rng(1))
        layers = {t: ChildSumTree(ALL[name], 5, 17, dtype=t, seed=0) for t in TOLERANCE}
        single, double = layers["float32"], layers["float64"]
        for param, other in double.params.items():
            other[...] = single.params[param]
        x, upstream = inputs_of(single, forest.nodes), gradients_for(single, forest.nodes)
        wide = [d.astype("float64") for d in (x, *upstream)]
        given = dict(zip(layers["float32"].definition.states, wide[1:], strict=True))
        inputs = {"x": wide[0], **double.params}
        outputs, gradients = in_numpy(ALL[name], forest.bottom_up(None), inputs, given)
        for dtype, layer in layers.items():
            got = results(layer, x.astype(dtype), forest, [d.astype(dtype) for d in upstream])
            assert_close(got, outputs | gradients, TOLERANCE[dtype])
            states = named(layer(x.astype(dtype), forest), layer.state_names)
            assert_same(states, {name: got[name] for name in states})

    @every
    def test_check_agrees(self, name: str) -> None:
        # At seed 0 a unit of li_gru is at the kink of its relu, where nothing reaches it.
        found = check_tree(ALL[name], seed=3 if name == "li_gru" else 0)
        assert found.kernel < 1e-13
        assert found.gradient < 1e-7

    def test_what_of_makes_of_nothing_is_multiplied_at_leaves_too(self) -> None:
        @cells.define(gates=[Gate("a", recurrent=False), Gate("n", of=lambda a: tanh(a))])
        def forgetful(a: Any, n: Any) -> Any:
            return tanh(n) * sigmoid(a)

        layer = ChildSumTree(forgetful, 3, 5, dtype="float64", seed=0)
        p, x = layer.params, inputs_of(layer, 1)
        w_a, w_n = np.split(p["weight_ih"], 2)
        b_a, b_n = np.split(p["bias_ih"], 2)
        a = x[0] @ w_a.T + b_a
        n = x[0] @ w_n.T + b_n + p["weight_hh"] @ np.tanh(a) + p["bias_hh"]
        want = np.tanh(n) / (1 + np.exp(-a))
        np.testing.assert_allclose(layer(x, Forest.from_parents([[-1]]))[0], want, rtol=1e-12)
        assert check_tree(forgetful).gradient < 1e-7

    def test_a_check_names_what_is_off(self) -> None:
        @cells.define(gates="n", states="hc")
        def ratio(n: Any, h: Any, c: Any) -> Any:
            return n / c, h + n

        with pytest.raises(ValueError, match="ratio gives numbers that are not finite"):
            check_tree(ratio)


class TestAgainstBuiltInLayers:
    def test_without_gates_it_is_the_recursive_net_with_one_matrix(self) -> None:
        forest = random_trees(np.random.default_rng(2), 9, 30, 3)
        own = ChildSumTree(OWN["rnn_tanh"], 5, 17, dtype="float64", seed=0)
        own.params["bias_hh"][...] = 0
        net = RecursiveNet(5, 17, 3, dtype="float64")
        net.params["weight_ih"][...] = own.params["weight_ih"]
        net.params["bias_ih"][...] = own.params["bias_ih"]
        net.params["weight_hh"][...] = own.params["weight_hh"]
        x, (dh,) = inputs_of(own, forest.nodes), gradients_for(own, forest.nodes)
        got = results(own, x, forest, [dh])
        h, pullback = net.vjp(x, forest)
        want = {"h": h, "x": pullback(dh)} | dict(net.grads)
        want["weight_hh"] = want["weight_hh"].sum(axis=0)
        assert_close(got, want | {"bias_hh": got["bias_ih"]}, 1e-12)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @every
    def test_a_chain_is_the_sequence_layer(self, name: str, dtype: str) -> None:
        """To the bit; where h has a way past the products, but for the order of the sum of both."""
        steps, cell = 50, ALL[name]
        layer, plain = ChildSumTree(cell, 5, 33, dtype=dtype, seed=0), cell(5, 33, dtype=dtype)
        plain.load_state_dict({f"{n}_l0": p for n, p in layer.params.items()})
        x, (dh, *_) = inputs_of(layer, steps), gradients_for(layer, steps)
        (y, final), pullback = plain.vjp(x)
        dx, _ = pullback(dh)
        got = results(layer, x, Forest.from_parents([[*range(1, steps), -1]]), [dh])
        ends = final if isinstance(final, tuple) else (final,)
        for state, end in zip(cell.states[1:], ends[1:], strict=True):
            assert (got.pop(state)[-1] == end[0]).all()
        want = {"h": y, "x": dx} | {n: plain.grads[f"{n}_l0"] for n in layer.grads}
        if cell.reads_h and cell.recurrent:
            assert_same({"h": got.pop("h")}, {"h": want.pop("h")})
            assert_close(got, want, 1e-5 if dtype == "float32" else 1e-13)
        else:
            assert_same(got, want)


class TestWays:
    @pytest.mark.parametrize("name", ["lstm", "gru_reset_before"])
    def test_inputs_at_leaves_alone_are_zeros_elsewhere(self, name: str) -> None:
        forest = random_trees(np.random.default_rng(3), 9, 30, 4)
        all_nodes, leaves = (
            ChildSumTree(OWN[name], 4, 9, inputs=inputs, dtype="float64", seed=0)
            for inputs in ("all", "leaves")
        )
        x, upstream = inputs_of(all_nodes, forest.nodes), gradients_for(leaves, forest.nodes)
        x[forest.levels > 0] = 0
        want = results(all_nodes, x, forest, upstream)
        want["x"] = want["x"][forest.leaves]
        assert_close(results(leaves, x[forest.leaves], forest, upstream), want, 1e-12)

    def test_both_ways(self) -> None:
        forest = random_trees(np.random.default_rng(4), 6, 12, 3)
        up, down = (ChildSumTree(OWN["lstm"], n, 5, dtype="float64", seed=n) for n in (4, 5))
        both = BidirectionalTree(up, down)
        x = inputs_of(up, forest.nodes)
        h, pullback = both.vjp(x, forest)
        dh = np.random.default_rng(5).standard_normal(h.shape)
        dx = pullback(dh)

        def loss() -> float:
            return float((both(x, forest) * dh).sum())

        params = ((array, both.grads[name]) for name, array in both.params.items())
        assert_gradients_of(loss, [(x, dx), *params])

    def test_inputs_of_each_node(self) -> None:
        forest = random_trees(np.random.default_rng(6), 3, 9, 3)
        layer = ChildSumTree(SHELF["cfc"], 4, 5, seed=0)
        x = np.ones((forest.nodes, 4), np.float32)
        gaps = np.linspace(0.1, 1, forest.nodes).astype(np.float32)
        joined = layer.join(x, delta=gaps)
        assert (joined[:, 4] == gaps).all()
        assert layer(joined, forest).shape == (forest.nodes, 5)

    def test_dropout_masks_the_products_alone(self) -> None:
        forest = random_trees(np.random.default_rng(7), 6, 12, 3)
        layer = ChildSumTree(OWN["gru"], 4, 9, dtype="float64", seed=0, variational_dropout=0.5)
        x, (dh,) = inputs_of(layer, forest.nodes), gradients_for(layer, forest.nodes)
        stands = layer.rng.bit_generator.state
        h, pullback = layer.vjp(x, forest)
        dx = pullback(dh)
        assert not np.array_equal(h, layer(x, forest))

        def loss() -> float:
            layer.rng.bit_generator.state = stands
            return float((layer.vjp(x, forest)[0] * dh).sum())

        params = ((array, layer.grads[name]) for name, array in layer.params.items())
        assert_gradients_of(loss, [(x, dx), *params])

    @pytest.mark.parametrize("hidden", [17, 200])
    @pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "slstm"])
    def test_any_number_of_threads(
        self, name: str, hidden: int, set_threads: Callable[[int], None]
    ) -> None:
        rng = np.random.default_rng(8)
        for count in (1, 50):
            forest = random_trees(rng, count, 60, 4)
            layer = ChildSumTree(ALL[name], 5, hidden, seed=0)
            x, upstream = inputs_of(layer, forest.nodes), gradients_for(layer, forest.nodes)
            set_threads(1)
            alone = {n: a.copy() for n, a in results(layer, x, forest, upstream).items()}
            set_threads(3)
            assert_same(results(layer, x, forest, upstream), alone)

    def test_files_and_fewer_bits(self, tmp_path: Path) -> None:
        forest = random_trees(np.random.default_rng(9), 3, 9, 3)
        layer = ChildSumTree(SHELF["sru"], 4, 8, seed=0)
        x = inputs_of(layer, forest.nodes)
        want = named(layer(x, forest), layer.state_names)
        layer.save(tmp_path / "tree.safetensors")
        again = rnncore.load(tmp_path / "tree.safetensors")
        assert_same(named(again(x, forest), layer.state_names), want)
        whole = ChildSumTree(OWN["lstm_peephole"], 4, 8, seed=0)
        small = rnncore.quantize(whole)
        assert {n for n, p in small.stored.items() if p.dtype == np.int8} == {
            "weight_ih",
            "weight_hh",
        }
        for got, expected in zip(small(x, forest), whole(x, forest), strict=True):
            assert 0 < np.abs(got - expected).max() < 0.02


class TestRefusals:
    def test_name_what_is_wrong(self) -> None:
        forest = Forest.from_parents([[2, 2, -1]])
        layer = ChildSumTree(OWN["lstm"], 4, 5, seed=0)
        x = inputs_of(layer, 3)
        with pytest.raises(TypeError, match="cell must be a CellDefinition, got a str"):
            ChildSumTree("lstm", 4, 5)
        with pytest.raises(ValueError, match="inputs must be 'all' for a cell that reads delta"):
            ChildSumTree(SHELF["cfc"], 4, 5, inputs="leaves")
        with pytest.raises(ValueError, match=r"x must have shape \(3, 4\)"):
            layer(x[:, :3], forest)
        with pytest.raises(ValueError, match=r"dc must have shape \(3, 5\)"):
            layer.vjp(x, forest)[1](None, x)
        with pytest.raises(TypeError, match="takes the gradients of h, c alone, got 3"):
            layer.vjp(x, forest)[1](None, None, x)
        with pytest.raises(ValueError, match="variational_dropout needs recurrent weights"):
            ChildSumTree(SHELF["sru"], 4, 5, variational_dropout=0.5)
