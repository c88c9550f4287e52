"""Orders of nodes: those that the kernels could not walk are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore import RecursiveNet
from rnncore.trees.forest import Forest
from rnncore.trees.order import NOBODY, Order

from tests.support.recursive_layers import random_trees


class TestOrders:
    def test_orders_put_together_are_one_forest(self) -> None:
        rng = np.random.default_rng(6)
        forests = [random_trees(rng, n, 20, 2) for n in (3, 1, 4)]
        parents = [f.parent[f.tree(n)] - f.begin[n] for f in forests for n in range(len(f))]
        whole = Forest.from_parents([np.where(p < 0, -1, p) for p in parents]).bottom_up(2)
        joined = Order.join([forest.bottom_up(2) for forest in forests])
        for name in ("begin", "prev", "wave"):
            np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))

    @pytest.mark.parametrize(
        ("begin", "prev", "wave", "message"),
        [
            ([0, 3], [[NOBODY, 0]], [0, 1], "begin must rise from 0 to 2"),
            ([0, 2], [[NOBODY]], [0, 1], r"prev must have shape \(arity, 2\), got \(1, 1\)"),
            ([0, 2], [[NOBODY, 7]], [0, 1], "prev must hold rows of the node's own part"),
            ([0, 1, 2], [[NOBODY, 0]], [0, 1], "prev must hold rows of the node's own part"),
            ([0, 2], [[NOBODY, 0]], [0, 0], "wave must be 0 where nothing is continued"),
            ([0, 2], [[NOBODY, NOBODY]], [0, -1], "wave must be 0 where nothing is continued"),
            ([0, 2], [[NOBODY, 0]], [0, 2**30], "wave must be below 2, the number of nodes"),
            ([0, 2], [[NOBODY, 2**32]], [0, 1], "prev must be numbers of nodes, got 4294967296"),
            ([[0, 2]], [[NOBODY, 0]], [0, 1], r"begin must have one axis, got \(1, 2\)"),
        ],
    )
    def test_orders_that_the_kernels_could_not_walk(
        self, begin: list[int], prev: list[list[int]], wave: list[int], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            Order(np.array(begin), np.array(prev), np.array(wave))

    def test_orders_stay_as_they_were_checked(self) -> None:
        begin, prev = np.array([0, 2]), np.array([[NOBODY, 0]], np.int32)
        order = Order.of(begin, prev)
        prev[0, 1] = 1 << 20  # the kernels would read there
        assert order.prev.tolist() == [[NOBODY, 0]]
        with pytest.raises(ValueError, match="read-only"):
            order.prev[0, 1] = 1 << 20

    def test_orders_of_other_integers_and_lists(self) -> None:
        x, layer = np.ones((2, 3), "f"), RecursiveNet(3, 4, 1, seed=0)
        y = layer(x, Order.of([0, 2], [[NOBODY, 0]]))
        for dtype in ("i2", "u4", "i8"):
            wave = np.array([0, 1], dtype)
            order = Order(np.array([0, 2], dtype), np.array([[NOBODY, 0]]), wave)
            np.testing.assert_array_equal(layer(x, order), y)

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: Order.of([0, 2], [[NOBODY, 2]]), ValueError, r"prev must hold rows in 0\.\.1"),
            (lambda: Order.of([0, 2], [NOBODY, 0]), ValueError, "prev must have shape"),
            (lambda: Order.of([0, 2], [0], [0, 2, 1]), ValueError, "first must rise from 0 to 1"),
            (lambda: Order.of([0, 2], [[NOBODY, 0.0]]), TypeError, "prev must be integers"),
            (lambda: Order.of([0, 1], [[NOBODY]], leaves=[1]), ValueError, "leaves must be in"),
            (lambda: Order.of([0, 1], [[NOBODY]], leaves=[0, 0]), ValueError, "leaves must differ"),
            (lambda: Order.join([]), ValueError, "orders must be at least one"),
        ],
    )
    def test_orders_name_what_is_wrong(
        self, make: Callable[[], Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            make()
