"""Sums over ranks: one order whatever their number, and how much is sent for it."""

import numpy as np
import pytest
from rnncore.distributed import Alone
from rnncore.distributed.collective import RankFailed, from_first, gathered, together
from rnncore.distributed.order import Summing, halves, in_order, nodes, share

from tests.support.ranks import all_of, on_ranks


def tree(rows, first, last):
    """The sum of some rows as the first half's and the second half's."""
    if last - first == 1:
        return rows[first]
    middle = (first + last) // 2
    return tree(rows, first, middle) + tree(rows, middle, last)


def summed(collective, rows):
    """The sum of all rows, of which each rank holds its share."""
    summing = Summing(collective, rows.shape[1], rows.dtype)
    held = share(len(rows), collective.rank, collective.size)

    def node_of(node):
        first, last = node
        array = summing.take()
        array[: rows.shape[1]] = tree(rows, first, last)
        return array

    found, kept = [], []
    for _ in range(3):  # with fresh memory, and with what was left
        mine = [node_of(node) for node in nodes((0, len(rows)), held)]
        whole = summing.over_ranks(len(rows), mine)
        found.append(whole[: rows.shape[1]].copy())
        kept.append(len(summing._spare))
    assert len(set(kept)) == 1  # memory does not grow
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    return found[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 7, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 8, 13])
def test_any_number_of_ranks_has_the_sums_of_one(rng, count, length, dtype):
    rows = rng.standard_normal((count, length)).astype(dtype) * 10.0 ** rng.integers(-6, 6)
    expected = tree(rows, 0, count)
    np.testing.assert_array_equal(summed(Alone(), rows), expected)
    for size in (2, 3, 4, 5, 8):
        for found in all_of(size, lambda ranks: summed(ranks, rows)):
            np.testing.assert_array_equal(found, expected)


def test_the_order_is_seen_in_the_bits(rng):
    """Else the test above would pass for any order."""
    rows = rng.standard_normal((8, 1000)).astype(np.float32)
    assert (tree(rows, 0, 8) != np.add.reduce(rows, axis=0)).any()


def test_numbers_that_are_not_finite_stay_where_they_are(rng):
    rows = rng.standard_normal((4, 9)).astype(np.float32)
    rows[2, 3], rows[3, 8] = np.nan, np.inf
    for found in all_of(4, lambda ranks: summed(ranks, rows)):
        np.testing.assert_array_equal(np.isfinite(found), ~np.isin(np.arange(9), (3, 8)))


@pytest.mark.parametrize("size", [2, 4, 8])
def test_as_much_is_sent_as_by_an_allreduce_of_rings(rng, size):
    rows = rng.standard_normal((8, 800)).astype(np.float32)

    def sent(ranks):
        summed(ranks, rows)
        return ranks.sent / 3  # it sums three times

    assert all_of(size, sent) == [2 * (size - 1) / size * 800] * size


@pytest.mark.parametrize("count", range(1, 20))
def test_nodes_of_all_ranks_are_all_shards_once(count):
    for size in range(1, 22):
        shares = [share(count, rank, size) for rank in range(size)]
        assert [shard for held in shares for shard in held] == list(range(count))
        found = [node for held in shares for node in nodes((0, count), held)]
        assert [shard for first, last in found for shard in range(first, last)] == list(
            range(count)
        )
        known = {node: np.array([float(node[1] - node[0])]) for node in found}
        assert in_order((0, count), known.get) == count


def test_powers_of_two_have_one_node_a_rank():
    for count, size in ((8, 2), (8, 4), (8, 8), (16, 4), (12, 4), (1000, 1000), (96, 32)):
        held = [list(nodes((0, count), share(count, rank, size))) for rank in range(size)]
        assert all(len(own) == 1 for own in held), (count, size)
    assert halves((2, 7)) == ((2, 4), (4, 7))


def test_objects_are_the_same_on_all_ranks():
    def run(ranks):
        mine = {"rank": ranks.rank, "long": "x" * 10 ** (ranks.rank + 1)}
        ranks.barrier()
        return [one["rank"] for one in gathered(ranks, mine)], from_first(ranks, mine)["rank"]

    assert all_of(3, run) == [([0, 1, 2], 0)] * 3
    assert from_first(Alone(), 5) == 5


def test_what_one_raises_all_raise():
    def run(ranks):
        return together(ranks, lambda: 1 / (ranks.rank - 1))

    first, second, third = on_ranks(3, run)
    assert isinstance(second, ZeroDivisionError)
    for error in (first, third):
        assert isinstance(error, RankFailed)
        assert error.rank == 1
        assert str(error) == "rank 1 of 3 failed: ZeroDivisionError: division by zero"
