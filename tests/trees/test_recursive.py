"""Recursive layers: against the reference, differences, and the sequence layers to the bit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    RNN,
    ChildSumTreeLSTM,
    RecursiveNet,
    RecursiveTensorNet,
    TreeGRU,
    TreeLSTM,
)
from rnncore.reference import trees
from rnncore.trees.forest import Forest
from rnncore.trees.order import NOBODY, Order, grid

from tests.support.cases import TOLERANCE
from tests.support.compare import assert_close, assert_gradients_of, assert_same
from tests.support.recursive_layers import CELLS, SUMS, make, named, random_trees


def places(layer: Any, order: Order) -> list[list[int | None]]:
    """What each node continues, as the reference takes it."""
    if order.first is None:
        return [[None if p == NOBODY else int(p) for p in column] for column in order.prev.T]
    return [[int(p) for p in part] for part in np.split(order.prev, order.first[1:-1])]


def any_number(order: Order) -> Order:
    """The same nodes, each after any number of others."""
    node, place = np.nonzero(order.prev.T != NOBODY)
    first = np.concatenate([[0], np.cumsum(np.bincount(node, minlength=len(order.wave)))])
    return Order.of(order.begin, order.prev.T[node, place], first)


def orders(arity: int) -> dict[str, Callable[[np.random.Generator], Order]]:
    """Shapes of every kind that a layer of this arity walks."""
    shapes: dict[str, Callable[[np.random.Generator], Order]] = {
        "random trees": lambda rng: random_trees(rng, 9, 30, arity).bottom_up(arity),
        "single nodes": lambda rng: random_trees(rng, 5, 1, arity).bottom_up(arity),
        "no trees": lambda rng: Forest.from_parents([]).bottom_up(arity),
        "many": lambda rng: random_trees(rng, 60, 15, arity).bottom_up(arity),
    }
    if arity == 1:
        shapes["chain"] = lambda rng: Forest.from_parents([[*range(1, 40), -1]]).bottom_up(1)
        shapes["top down"] = lambda rng: random_trees(rng, 9, 30, 3).top_down()
    if arity == 2:
        shapes["grid"] = lambda rng: grid(5, 7, 3)
    return shapes


CASES = [
    pytest.param(cell, arity, shape, id=f"{cell}, {shape}, arity {arity}")
    for cell in CELLS
    for arity in (1, 2, 3, 4, 5)
    for shape in orders(arity)
    if cell != "tensor net" or (arity < 3 and shape != "many")
]


def results(
    layer: Any, x: np.ndarray, order: Order, upstream: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """States and gradients by the compiled layer."""
    layer.zero_grad()
    states, pullback = layer.vjp(x, order)
    dx = pullback(*upstream[: len(named(states))])
    return named(states) | {"dx": dx} | dict(layer.grads)


def wanted(
    cell: trees.TreeCell, layer: Any, x: np.ndarray, order: Order, upstream: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """The same by the reference, in float64."""
    params = {name: p.astype("float64") for name, p in layer.params.items()}
    before = places(layer, order)
    walked = [int(n) for n in np.argsort(order.wave, kind="stable")]
    h, c, saved = trees.forward(cell, params, x.astype("float64"), before, walked)
    dh, dc = (d.astype("float64") for d in upstream)
    if not layer.cell.has_cell_state:
        dc = np.zeros_like(dc)
    dx, grads = trees.backward(cell, params, saved, before, walked, dh, dc)
    states = {"h": h, "c": c} if layer.cell.has_cell_state else {"h": h}
    return states | {"dx": dx} | grads


class TestAgainstTheReference:
    @pytest.mark.parametrize("hidden", [1, 17, 40])
    @pytest.mark.parametrize(("cell", "arity", "shape"), CASES)
    def test_states_and_gradients_agree(
        self, cell: str, arity: int, shape: str, hidden: int
    ) -> None:
        """In both precisions, of the same numbers."""
        rng = np.random.default_rng(1)
        order = orders(arity)[shape](rng)
        if cell in SUMS:
            order = any_number(order)
        layers = {t: make(cell, 5, hidden, arity, dtype=t, seed=0) for t in TOLERANCE}
        for name, param in layers["float64"].params.items():
            param[...] = layers["float32"].params[name]
        rows = len(order.wave)
        given = [rng.standard_normal((rows, n)).astype("f") for n in (5, hidden, hidden)]
        want = wanted(CELLS[cell][1], layers["float64"], given[0], order, given[1:])
        for dtype, layer in layers.items():
            x, *upstream = (array.astype(dtype) for array in given)
            got = results(layer, x, order, upstream)
            assert_close(got, want, TOLERANCE[dtype])
            states = named(layer(x, order))
            assert_same(states, {name: got[name] for name in states})


class TestDifferences:
    @pytest.mark.parametrize("inputs", ["all", "leaves"])
    @pytest.mark.parametrize("cell", CELLS)
    def test_gradients_agree(self, cell: str, inputs: str) -> None:
        rng = np.random.default_rng(2)
        forest = random_trees(rng, 6, 12, 3)
        layer = make(cell, 4, 6, 3, inputs=inputs, dtype="float64", seed=0)
        x = rng.standard_normal((forest.nodes if inputs == "all" else len(forest.leaves), 4))
        states, pullback = layer.vjp(x, forest)
        upstream = {name: rng.standard_normal(s.shape) for name, s in named(states).items()}
        dx = pullback(*upstream.values())

        def loss() -> float:
            return float(sum((s * upstream[n]).sum() for n, s in named(layer(x, forest)).items()))

        params = ((param, layer.grads[name]) for name, param in layer.params.items())
        assert_gradients_of(loss, [(x, dx), *params])

    @pytest.mark.parametrize("inputs", ["all", "leaves"])
    @pytest.mark.parametrize("cell", [c for c in CELLS if make(c, 1, 1, 1).cell.has_cell_state])
    def test_gradients_through_a_leaf_module_agree(self, cell: str, inputs: str) -> None:
        rng = np.random.default_rng(7)
        forest = random_trees(rng, 6, 12, 3)
        layer = make(cell, 4, 6, 3, inputs=inputs, leaf_module=True, dtype="float64", seed=0)
        assert ("weight_ih" in layer.params) == (inputs == "all")
        x = rng.standard_normal((forest.nodes if inputs == "all" else len(forest.leaves), 4))
        assert_differences(layer, x, forest, rng)

    @pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
    @pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "tensor net"])
    def test_gradients_behind_masks_agree(self, cell: str, rates: tuple[float, float]) -> None:
        rng = np.random.default_rng(8)
        forest = random_trees(rng, 6, 12, 3)
        variational, recurrent = rates
        if cell == "recursive net":
            variational, recurrent = max(rates), 0.0
        options = {"variational_dropout": variational, "recurrent_dropout": recurrent}
        layer = make(cell, 4, 9, 3, dtype="float64", seed=0, **options)
        assert_differences(layer, rng.standard_normal((forest.nodes, 4)), forest, rng)


def assert_differences(layer: Any, x: np.ndarray, forest: Forest, rng: Any) -> None:
    """Gradients of x and all parameters agree with differences, the masks of a call kept."""
    stands = layer.rng.bit_generator.state
    states, pullback = layer.vjp(x, forest)
    upstream = {name: rng.standard_normal(s.shape) for name, s in named(states).items()}
    dx = pullback(*upstream.values())

    def loss() -> float:
        layer.rng.bit_generator.state = stands
        found = named(layer.vjp(x, forest)[0])
        return float(sum((s * upstream[n]).sum() for n, s in found.items()))

    params = ((param, layer.grads[name]) for name, param in layer.params.items())
    assert_gradients_of(loss, [(x, dx), *params])


class TestLeaves:
    """Leaves have nothing to forget: the kernels leave their forget gates out."""

    @pytest.mark.parametrize("arity", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("cell", CELLS)
    def test_inputs_at_leaves_alone_are_zeros_elsewhere(self, cell: str, arity: int) -> None:
        if cell == "tensor net" and arity > 2:
            pytest.skip("its products grow with the cube of the arity")
        rng = np.random.default_rng(11)
        forest = random_trees(rng, 9, 30, arity)
        layers = [
            make(cell, 4, 17, arity, inputs=inputs, dtype="float64", seed=0)
            for inputs in ("all", "leaves")
        ]
        every = np.zeros((forest.nodes, 4))
        every[forest.leaves] = rng.standard_normal((len(forest.leaves), 4))
        order = forest.bottom_up(None if cell in SUMS else arity)
        upstream = [rng.standard_normal((forest.nodes, 17)) for _ in range(2)]
        want, got = (
            results(layer, x, order, upstream)
            for layer, x in zip(layers, (every, every[forest.leaves]), strict=True)
        )
        want["dx"] = want["dx"][forest.leaves]
        assert_close(got, want, 1e-12)

    @pytest.mark.parametrize("arity", [2, 5])
    @pytest.mark.parametrize("cell", ["tree lstm", "child-sum"])
    def test_what_they_leave_out_is_never_read(self, cell: str, arity: int) -> None:
        """The memory of a call all of whose gates were NaN serves the next one."""
        rng = np.random.default_rng(12)
        x = rng.standard_normal((240, 4)).astype("f")
        before = Forest.from_parents([[*range(1, 12), -1]] * 20)
        after = Forest.from_parents([[2, 2, -1]] * 80)
        upstream = [rng.standard_normal((240, 8)).astype("f") for _ in range(2)]
        used, fresh = (make(cell, 4, 8, arity, seed=0) for _ in range(2))
        places = None if cell in SUMS else arity
        results(used, np.full_like(x, np.nan), before.bottom_up(places), upstream)
        order = after.bottom_up(places)
        assert_same(results(used, x, order, upstream), results(fresh, x, order, upstream))

    def test_leaves_are_leaves_from_above_too(self) -> None:
        rng = np.random.default_rng(10)
        forest = random_trees(rng, 6, 12, 3)
        every = np.zeros((forest.nodes, 4))
        every[forest.leaves] = rng.standard_normal((len(forest.leaves), 4))
        layers = [TreeLSTM(4, 5, 1, inputs=i, dtype="float64", seed=0) for i in ("all", "leaves")]
        order = Order.join([forest.top_down()] * 2)
        results = []
        for layer, x in zip(layers, (every, every[forest.leaves]), strict=True):
            states, pullback = layer.vjp(np.concatenate([x, x]), order)
            results.append(named(states) | {"dx": pullback(np.ones_like(states[0]))})
        results[0]["dx"] = results[0]["dx"][order.input_rows]
        assert_same(*results)


class TestDropout:
    def test_a_tree_drops_the_same_units_everywhere(self) -> None:
        """Behind its masks a recursive net with the identity for weights shows what passed them."""
        chains = Forest.from_parents([[1, 2, 3, -1]] * 50)
        layer = RecursiveNet(1, 64, 1, "identity", variational_dropout=0.5, seed=0)
        layer.params["weight_hh"][...] = np.eye(64)
        layer.params["weight_ih"][...] = 1
        layer.params["bias_ih"][...] = 0
        x = np.zeros((200, 1), np.float32)
        x[::4] = 1
        (h, _) = layer.vjp(x, chains)
        last = h[3::4]
        assert set(np.unique(last)) == {0, 8}  # each unit passed three masks, all 0 or all 2
        assert 0.4 < (last > 0).mean() < 0.6
        assert len(np.unique(last > 0, axis=0)) > 40

    def test_inference_drops_nothing(self) -> None:
        forest = Forest.from_parents([[1, 2, 3, -1]])
        x = np.ones((4, 3), np.float32)
        plain, dropping = (TreeLSTM(3, 5, seed=0, variational_dropout=p) for p in (0, 0.5))
        assert_same(named(dropping(x, forest)), named(plain(x, forest)))


class TestLeafModule:
    def test_states_of_leaves(self) -> None:
        layer = TreeLSTM(3, 5, inputs="leaves", leaf_module=True, dtype="float64", seed=0)
        forest = Forest.from_nested([((0, 1), 2)])
        x = np.random.default_rng(0).standard_normal((3, 3))
        h, c = layer(x, forest)
        sums = x @ layer.params["leaf.linear.weight"].T + layer.params["leaf.linear.bias"]
        np.testing.assert_allclose(c[forest.leaves], sums[:, :5], rtol=1e-12)
        want = np.tanh(sums[:, :5]) / (1 + np.exp(-sums[:, 5:]))
        np.testing.assert_allclose(h[forest.leaves], want, rtol=1e-12)


class TestToTheBit:
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @pytest.mark.parametrize(
        ("tree", "chain"),
        [
            (TreeLSTM, LSTM),
            (RecursiveNet, RNN),
            (partial(TreeLSTM, layer_norm=True), partial(LSTM, layer_norm=True)),
        ],
        ids=["lstm", "rnn", "lstm, normalised"],
    )
    def test_a_chain_is_the_sequence_layer(self, tree: Any, chain: Any, dtype: str) -> None:
        rng = np.random.default_rng(3)
        steps, hidden = 50, 33
        forest = Forest.from_parents([[*range(1, steps), -1]])
        layer, plain = tree(5, hidden, 1, dtype=dtype, seed=0), chain(5, hidden, dtype=dtype)
        for name, param in plain.params.items():
            short = name.removesuffix("_l0")
            param[...] = layer.params.get(short, 0)
        x = rng.standard_normal((steps, 5)).astype(dtype)
        dh = rng.standard_normal((steps, hidden)).astype(dtype)
        (y, state), pullback = plain.vjp(x)
        dx, _ = pullback(dh)
        states, pullback = layer.vjp(x, forest)
        got = named(states) | {"dx": pullback(dh)} | dict(layer.grads)
        want = {"h": y, "dx": dx} | {n: plain.grads[n + "_l0"] for n in layer.grads}
        if isinstance(state, tuple):
            assert (got.pop("c")[-1] == state[1][0]).all()
        assert_same(got, want)

    @pytest.mark.parametrize("cell", CELLS)
    def test_permuted_trees_give_permuted_results(self, cell: str) -> None:
        rng = np.random.default_rng(4)
        forest = random_trees(rng, 40, 30, 3)
        parents = [forest.parent[forest.tree(n)] - forest.begin[n] for n in range(len(forest))]
        parents = [np.where(p < 0, -1, p) for p in parents]
        layer = make(cell, 5, 17, 3, seed=0)
        x, dh = rng.standard_normal((2, forest.nodes, 5)).astype("float32"), None
        dh = rng.standard_normal((forest.nodes, 17)).astype("float32")
        turn = rng.permutation(len(forest))
        rows = np.concatenate([np.arange(forest.nodes)[forest.tree(n)] for n in turn])
        other = Forest.from_parents([parents[n] for n in turn])
        states, pullback = layer.vjp(x[0], forest)
        permuted, pullback_permuted = layer.vjp(x[0][rows], other)
        assert_same(named(permuted), {n: s[rows] for n, s in named(states).items()})
        assert_same({"dx": pullback_permuted(dh[rows])}, {"dx": pullback(dh)[rows]})

    @pytest.mark.parametrize("hidden", [17, 200])
    @pytest.mark.parametrize("cell", CELLS)
    def test_any_number_of_threads(
        self, cell: str, hidden: int, set_threads: Callable[[int], None]
    ) -> None:
        rng = np.random.default_rng(5)
        if cell == "tensor net":
            hidden = min(hidden, 33)
        for count in (1, 50):
            order = random_trees(rng, count, 60, 2).bottom_up(None if cell in SUMS else 2)
            layer = make(cell, 5, hidden, 2, seed=0)
            x = rng.standard_normal((len(order.wave), 5)).astype("float32")
            upstream = list(rng.standard_normal((2, len(x), hidden)).astype("float32"))
            set_threads(1)
            alone = {n: a.copy() for n, a in results(layer, x, order, upstream).items()}
            set_threads(3)
            assert_same(results(layer, x, order, upstream), alone)


class TestDepth:
    def test_ten_thousand_levels(self) -> None:
        nested: Any = 0
        for _ in range(9_999):
            nested = (nested, 1)
        layer = TreeLSTM(3, 4, seed=0)
        for forest in (
            Forest.from_parents([[*range(1, 10_000), -1]]),
            Forest.from_nested([nested]),
        ):
            assert forest.levels.max() == 9_999
            states, pullback = layer.vjp(np.ones((forest.nodes, 3), np.float32), forest)
            assert np.isfinite(pullback(states[0])).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: TreeLSTM(3, 4, 6), "arity must be at most 5, got 6"),
            (lambda: TreeLSTM(3, 4, layer_norm="all"), "layer_norm must be False, True or 'gate'"),
            (lambda: ChildSumTreeLSTM(3, 4, layer_norm=1.5), "layer_norm must be False, True or"),
            (lambda: TreeLSTM(3, 4, inputs="some"), "inputs must be 'all' or 'leaves'"),
            (lambda: TreeGRU(3, 4, leaf_module=True), "leaf_module is for Tree-LSTMs"),
            (
                lambda: TreeLSTM(3, 4, 1, inputs="leaves", leaf_module=True)(
                    np.zeros((3, 3), "f"), Forest.from_nested([((0, 1), 2)]).top_down()
                ),
                "must be an order from the leaves up",
            ),
            (lambda: RecursiveTensorNet(3, 4, variational_dropout=0.1), "not for tensor networks"),
            (lambda: RecursiveNet(3, 4, recurrent_dropout=0.1), "recurrent_dropout needs a gated"),
            (
                lambda: TreeGRU(3, 4)(np.zeros((35, 3), "f"), grid(5, 7)),
                "must be an order of arity None, got 2",
            ),
            (lambda: Forest.from_parents([[1, 0]]), "tree 0 must have one root"),
            (lambda: Forest.from_parents([[-1, -1]]), "tree 0 must have one root.*has 2"),
            (
                lambda: Forest.from_parents([[-1], [-1, 5]]),
                r"parent\[2\] must be -1 or a row of its",
            ),
            (lambda: Forest.from_parents([[-1], []]), "tree 1 is empty"),
            (lambda: Forest.from_parents([[1, 2, 1, -1]]), "circle"),
            (lambda: Forest.from_nested([("a", ())]), "tree 0 holds an empty node"),
            (
                lambda: TreeLSTM(3, 4)(np.zeros((3, 3), "f"), Forest.from_parents([[-1]])),
                "x must have",
            ),
            (
                lambda: TreeLSTM(3, 4)(np.zeros((4, 3), "f"), Forest.from_parents([[3, 3, 3, -1]])),
                "node 3 has 3 children, but this layer has places for 2",
            ),
        ],
    )
    def test_name_what_is_wrong(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()

    def test_sequence_layers_are_not_recursive(self) -> None:
        with pytest.raises(TypeError, match="forest must be a Forest or an Order, got int"):
            TreeLSTM(3, 4)(np.zeros((3, 3), "f"), 3)
        assert GRU(3, 4).cell.arity == 0
