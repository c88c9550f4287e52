"""Both passes over trees: they are their parts, forward and back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore import GRU, BidirectionalTree, RecursiveNet, TreeLSTM
from rnncore.reference import trees
from rnncore.trees.forest import Forest

from tests.support.compare import assert_close, assert_gradients_of, assert_same
from tests.support.recursive_layers import random_trees


def two_ways(
    reads: str, inputs: str, make_up: Any, make_down: Any, dtype: str = "float64"
) -> BidirectionalTree:
    """Both passes: 4 inputs, 5 units up, 3 units down."""
    width = {"inputs": 4, "states": 5, "both": 9}[reads]
    rows = inputs if reads == "inputs" else "all"
    up = make_up(4, 5, 3, inputs=inputs, dtype=dtype, seed=0)
    return BidirectionalTree(
        up, make_down(width, 3, 1, inputs=rows, dtype=dtype, seed=1), reads=reads
    )


class TestBothWays:
    @pytest.mark.parametrize("inputs", ["all", "leaves"])
    @pytest.mark.parametrize("reads", ["inputs", "states", "both"])
    def test_is_its_parts(self, reads: str, inputs: str) -> None:
        rng = np.random.default_rng(7)
        forest = random_trees(rng, 6, 12, 3)
        layer = two_ways(reads, inputs, TreeLSTM, TreeLSTM)
        every = rng.standard_normal((forest.nodes, 4))
        if inputs == "leaves":
            every[forest.child_count > 0] = 0
        x = every if inputs == "all" else every[forest.leaves]
        up, _ = layer.up(x, forest)
        read = {"inputs": every, "states": up, "both": np.concatenate([every, up], axis=1)}[reads]
        cell, params = trees.TreeLSTM(), dict(layer.down.params)
        before = [[None if p < 0 else int(p)] for p in forest.parent]
        walked = [int(n) for n in np.argsort(forest.top_down().wave, kind="stable")]
        down, _, _ = trees.forward(cell, params, read, before, walked)
        got = layer(x, forest)
        assert_close({"up": got[:, :5], "down": got[:, 5:]}, {"up": up, "down": down}, 1e-12)

    @pytest.mark.parametrize("inputs", ["all", "leaves"])
    @pytest.mark.parametrize("reads", ["inputs", "states", "both"])
    @pytest.mark.parametrize("pair", [(TreeLSTM, RecursiveNet), (RecursiveNet, TreeLSTM)])
    def test_gradients_agree(self, pair: tuple[Any, Any], reads: str, inputs: str) -> None:
        rng = np.random.default_rng(8)
        forest = random_trees(rng, 6, 12, 3)
        layer = two_ways(reads, inputs, *pair)
        x = rng.standard_normal((forest.nodes if inputs == "all" else len(forest.leaves), 4))
        h, pullback = layer.vjp(x, forest)
        assert_same({"h": layer(x, forest)}, {"h": h})
        dh = rng.standard_normal(h.shape)
        dx = pullback(dh)
        params = ((param, layer.grads[name]) for name, param in layer.params.items())
        assert_gradients_of(lambda: float((layer(x, forest) * dh).sum()), [(x, dx), *params])
        with pytest.raises(RuntimeError, match="already run"):
            pullback(dh)

    def test_every_node_sees_its_whole_tree_and_no_other(self) -> None:
        rng = np.random.default_rng(9)
        forest = random_trees(rng, 2, 12, 3)
        layer = two_ways("states", "leaves", RecursiveNet, RecursiveNet, "float32")
        x = rng.standard_normal((len(forest.leaves), 4)).astype("f")
        before = layer(x, forest)
        x[0] = np.nan
        after = layer(x, forest)
        assert np.isnan(after[forest.tree(0), 5:]).all()
        assert_same({"h": after[forest.tree(1)]}, {"h": before[forest.tree(1)]})

    def test_no_trees(self) -> None:
        forest = Forest.from_parents([])
        layer = two_ways("both", "leaves", TreeLSTM, TreeLSTM)
        h, pullback = layer.vjp(np.zeros((0, 4)), forest)
        assert h.shape == (0, 8)
        assert pullback(h).shape == (0, 4)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: BidirectionalTree(TreeLSTM(3, 4), TreeLSTM(4, 4)), "down must have an arity"),
            (
                lambda: BidirectionalTree(TreeLSTM(3, 4), TreeLSTM(3, 4, 1)),
                "down must have an input_size of 4 to read 'states', got 3",
            ),
            (
                lambda: BidirectionalTree(
                    TreeLSTM(3, 4, inputs="leaves"), TreeLSTM(3, 4, 1), reads="inputs"
                ),
                "down must have inputs='leaves' to read 'inputs'",
            ),
            (
                lambda: BidirectionalTree(TreeLSTM(3, 4), TreeLSTM(4, 4, 1, inputs="leaves")),
                "down must have inputs='all' to read 'states'",
            ),
            (
                lambda: BidirectionalTree(TreeLSTM(3, 4), TreeLSTM(4, 4, 1), reads="x"),
                "reads must be one of inputs, states, both, got 'x'",
            ),
            (
                lambda: BidirectionalTree(TreeLSTM(3, 4), TreeLSTM(4, 4, 1, dtype="float64")),
                "up computes in float32, but down in float64",
            ),
        ],
    )
    def test_errors(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()

    def test_errors_of_type(self) -> None:
        with pytest.raises(TypeError, match="down must be a recursive layer, got GRU"):
            BidirectionalTree(TreeLSTM(3, 4), GRU(3, 4))
        layer = two_ways("states", "all", TreeLSTM, TreeLSTM)
        with pytest.raises(TypeError, match="forest must be a Forest, got Order"):
            layer(np.zeros((0, 4)), Forest.from_parents([]).bottom_up(3))
