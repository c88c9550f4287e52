"""Parsing by merges: against enumeration, naive searches and differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore import Forest, Parser, bracketing
from rnncore.reference import parsing as reference
from rnncore.reference.parsing import all_trees, in_a_row, leaves, merges
from rnncore.trees import brackets

from tests.support.cases import TOLERANCE
from tests.support.compare import assert_close, assert_gradients_of, assert_same
from tests.support.parsing import REGIONS, SEARCHES, binary, both_ways, nested, oracle, parser, rows


class TestScores:
    @pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "sigmoid", "identity", "softsign"])
    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("hidden", [1, 17])
    def test_sum_over_merges(self, hidden: int, dtype: str, nonlinearity: str) -> None:
        made, x = parser(dtype, hidden, nonlinearity), rows(9, dtype)
        trees = [(0, ((1, 2), 3)), 4, ((5, 6), (7, 8))]
        score, scores = made(x, Forest.from_nested(trees)), oracle(made, x)
        want = np.array([scores.tree(tree) for tree in trees])
        assert_close({"score": score}, {"score": want}, TOLERANCE[dtype])
        assert_same({"score": made.vjp(x, Forest.from_nested(trees))[0]}, {"score": score})

    def test_gradients(self) -> None:
        made, x = parser(), rows(9)
        forest = Forest.from_nested([(0, ((1, 2), 3)), 4, ((5, 6), (7, 8))])
        upstream = np.array([0.3, 1.0, -2.0])
        _, pullback = made.vjp(x, forest)
        dx = pullback(upstream)
        pairs = [(param, made.grads[name]) for name, param in made.params.items()]
        assert_gradients_of(lambda: float(made(x, forest) @ upstream), [(x, dx), *pairs])


class TestSearch:
    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("count", [*range(1, 7), 8])
    def test_a_chart_that_keeps_all_is_exhaustive(self, count: int, dtype: str) -> None:
        made, x = parser(dtype), rows(count, dtype)
        every = list(binary(0, count))
        got = made.parse(x, [count], method="chart", width=len(every), best=len(every))
        assert sorted(map(str, nested(got))) == sorted(map(str, every))
        scores = oracle(made, x)
        want = np.array([scores.tree(tree) for tree in nested(got)])
        assert_close({"score": got.score}, {"score": want}, TOLERANCE[dtype])
        assert (np.diff(got.score) <= 0).all()

    @pytest.mark.parametrize("count", range(1, 7))
    def test_a_beam_that_keeps_all_is_exhaustive(self, count: int) -> None:
        made, x = parser(), rows(count)
        every = all_trees(count, in_a_row(count))
        got = made.parse(x, [count], method="beam", width=1000, best=1000)
        assert sorted(map(str, nested(got))) == sorted(map(str, every))
        want = made.parse(x, [count], method="chart", width=1000, best=1000)
        assert nested(got) == nested(want)
        assert_same({"score": got.score}, {"score": want.score})

    @pytest.mark.parametrize("name", REGIONS)
    def test_regions_too(self, name: str) -> None:
        count, edges = REGIONS[name]
        made, x = parser(), rows(count)
        got = made.parse(x, [count], method="beam", width=2000, best=2000, adjacency=edges)
        every = all_trees(count, both_ways(edges))
        assert sorted(map(str, nested(got))) == sorted(map(str, every))
        scores = oracle(made, x)
        want = np.array([scores.tree(tree) for tree in nested(got)])
        assert_close({"score": got.score}, {"score": want}, 1e-12)

    @pytest.mark.parametrize("seed", range(5))
    def test_greedy_makes_the_best_merge(self, seed: int) -> None:
        made, x = parser(), rows(12, seed=seed)
        want = reference.greedy(oracle(made, x), 12, in_a_row(12))
        assert nested(made.parse(x, [12])) == [want]
        for count, edges in REGIONS.values():
            want = reference.greedy(oracle(made, x), count, both_ways(edges))
            assert nested(made.parse(x[:count], [count], adjacency=edges)) == [want]

    def test_the_first_of_equal_merges_is_made(self) -> None:
        got = parser().parse(np.ones((4, 3)), [4])
        tree = nested(got)[0]
        assert leaves(next(merges(tree))) == {0, 1}

    def test_a_beam_of_one_is_greedy(self) -> None:
        made, x = parser("float32"), rows(60, "float32")
        for adjacency in (None, [[0, 5], [5, 9]] + [[at, at + 1] for at in range(19)]):
            size = 60 if adjacency is None else 20
            greedy, beam = (
                made.parse(x[:size], [size], method=method, width=1, adjacency=adjacency)
                for method in ("greedy", "beam")
            )
            assert nested(greedy) == nested(beam)
            assert_same({"score": greedy.score}, {"score": beam.score})

    def test_wider_is_no_worse_here(self) -> None:
        made, x = parser("float32"), rows(240, "float32")
        found = [
            made.parse(x, [12] * 20, method=method, width=width).score.sum()
            for method, width in (("greedy", 1), ("beam", 4), ("beam", 64), ("chart", 20))
        ]
        assert found == sorted(found)

    def test_states_are_those_of_the_net(self) -> None:
        made, x = parser(), rows(20)
        for got in (
            made.parse(x, [7, 1, 12], method="beam", best=4),
            made.parse(x[:5], [5], adjacency=REGIONS["fan"][1]),
        ):
            again = made(x[got.leaves], got.forest)
            assert [got.forest.labels[row] for row in got.forest.leaves] == list(got.leaves)
            assert_close({"score": got.score}, {"score": again}, 1e-12)


class TestBatches:
    @pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search["method"])
    @pytest.mark.parametrize("dtype", TOLERANCE)
    def test_sentences_do_not_see_each_other(self, dtype: str, search: dict[str, Any]) -> None:
        lengths = [5, 1, 14, 2, 5, 3]
        made, x = parser(dtype, 17), rows(sum(lengths), dtype)
        x[[6, 7, 8]] = x[[9, 10, 11]] = x[6]  # equal merges
        together = made.parse(x, lengths, **search)
        assert (np.diff(together.sentence) >= 0).all()
        for at, (first, size) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
            alone = made.parse(x[first : first + size], [size], **search)
            mine = together.sentence == at
            assert_same({"score": together.score[mine]}, {"score": alone.score})
            forest = together.forest.select(np.flatnonzero(mine))
            np.testing.assert_array_equal(forest.parent, alone.forest.parent)

    def test_regions_do_not_see_each_other(self) -> None:
        made, counts, edges = parser(), [], []
        for count, pairs in REGIONS.values():
            edges += [[a + sum(counts), b + sum(counts)] for a, b in pairs]
            counts.append(count)
        x = rows(sum(counts))
        together = made.parse(x, counts, method="beam", adjacency=edges)
        for at, (count, pairs) in enumerate(REGIONS.values()):
            first = sum(counts[:at])
            alone = made.parse(x[first : first + count], [count], method="beam", adjacency=pairs)
            assert together.score[at] == alone.score[0]
            np.testing.assert_array_equal(
                together.leaves[first : first + count] - first, alone.leaves
            )

    def test_many_are_cut_into_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lengths = [9, 1, 4, 6, 2, 8]
        made, x = parser(), rows(sum(lengths))
        whole = made.parse(x, lengths, method="chart", best=2)
        monkeypatch.setattr("rnncore.trees.parsing.search._NODES", 40)
        parts = made.parse(x, lengths, method="chart", best=2)
        for name in ("score", "sentence", "leaves"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
        np.testing.assert_array_equal(parts.forest.parent, whole.forest.parent)

    def test_any_number_of_threads(self, set_threads: Callable[[int], None]) -> None:
        made, x, found = parser("float32", 64), rows(3000, "float32"), []
        for count in (1, 3):
            set_threads(count)
            found.append(made.parse(x, [30] * 100))
        assert_same({"score": found[0].score}, {"score": found[1].score})

    @pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search["method"])
    def test_nan_stays_in_its_sentence(self, search: dict[str, Any]) -> None:
        made, x = parser(), rows(15)
        sound = made.parse(x, [5, 5, 5], **search)
        x[7], x[6] = np.nan, np.inf
        got = made.parse(x, [5, 5, 5], **search)
        others = sound.sentence != 1
        assert_same({"score": got.score[others]}, {"score": sound.score[others]})
        assert np.isnan(got.score[~others]).all()

    @pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search["method"])
    def test_nothing_and_single_words(self, search: dict[str, Any]) -> None:
        made = parser()
        nothing = made.parse(np.zeros((0, 3)), [], **search)
        assert len(nothing.forest) == len(nothing.score) == len(nothing.leaves) == 0
        words = made.parse(rows(2), [1, 1], **search)
        assert brackets.write(words.forest) == ["0", "1"]
        assert (words.score == 0).all()
        assert made.margin(rows(0), [], Forest.from_nested([]))[0] == 0

    def test_strides_do_not_matter(self) -> None:
        made, x = parser(), rows(20)
        there = np.asfortranarray(x)
        assert nested(made.parse(there[::2], [10])) == nested(made.parse(x[::2].copy(), [10]))

    def test_a_thousand_levels(self) -> None:
        made, count = parser("float32", 2), 1000
        made.scorer.params["weight"][...] = 0  # so that the first merge is always the best
        x = rows(count, "float32")
        got = made.parse(x, [count])
        assert got.forest.levels.max() == count - 1
        correct = Forest.from_nested([tuple(range(count))])  # whatever is found is correct
        assert made.margin(x, [count], correct)[0] == 0


ERRORS: list[tuple[Callable[[Parser], Any], type[Exception], str]] = [
    (lambda p: p.parse(rows(3, "float32"), [2]), ValueError, r"x must have shape \(2, 3\)"),
    (lambda p: p.parse(rows(3), [3], method="best"), ValueError, "method must be 'greedy', 'beam'"),
    (
        lambda p: p.parse(rows(3), [3, 0]),
        ValueError,
        "lengths must have one axis and be at least 1",
    ),
    (
        lambda p: p.margin(rows(3), [3], Forest.from_nested([((0, 1), 2)]), kappa=np.nan),
        ValueError,
        "kappa must be at least 0 and finite, got nan",
    ),
    (lambda p: p.parse(rows(3), [1.5, 1.5]), TypeError, "lengths must be integers, got float64"),
    (lambda p: p.parse(rows(3), [3], width=2), ValueError, "width must be 1 with method='greedy'"),
    (lambda p: p.parse(rows(3), [3], method="beam", width=0), ValueError, "width must be at least"),
    (lambda p: p.parse(rows(3), [3], best=2), ValueError, "best must be at most the width, 1"),
    (
        lambda p: p.parse(rows(3), [3], adjacency=[[0, 1]]),
        ValueError,
        "adjacency is not connected: no path leads from leaf 0 to leaf 2 of sentence 0",
    ),
    (
        lambda p: p.parse(rows(3), [2, 1], adjacency=[[0, 1], [1, 2]]),
        ValueError,
        r"adjacency must join two leaves of one sentence, got \[1, 2\]",
    ),
    (
        lambda p: p.parse(rows(3), [3], adjacency=[[0, 1], [1, 3]]),
        ValueError,
        r"adjacency must be in 0\.\.2, got 3",
    ),
    (
        lambda p: p.parse(rows(3), [3], adjacency=[0, 1, 2]),
        ValueError,
        r"adjacency must have shape \(E, 2\), got \(3,\)",
    ),
    (
        lambda p: p.parse(rows(2), [2], method="chart", adjacency=[[0, 1]]),
        ValueError,
        "method='chart' parses sequences only",
    ),
    (
        lambda p: p.margin(rows(3), [3], brackets.read(["(0 1)"])),
        ValueError,
        r"correct must have trees of \[3\] leaves, got \[2\]",
    ),
    (
        lambda p: p.margin(rows(2), [2], [brackets.read(["(0 1)"]), 3]),
        TypeError,
        "correct must hold nothing but Forests, got 3",
    ),
    (lambda p: p.margin(rows(3), [3], [0, 1]), ValueError, r"correct must have shape \(3,\)"),
    (
        lambda p: p.margin(rows(2), [2], brackets.read(["(0 1)"]), adjacency=[[0, 1]]),
        ValueError,
        "correct must be labels where there is an adjacency",
    ),
    (lambda p: Parser(3, 4, "softmax"), ValueError, "nonlinearity must be one of sigmoid"),
]


class TestBracketing:
    TREES = ("(a (b (c d)))", "((a b) (c d) e)", "a", "((a) ((b c)))", "(a b)")
    FOUND = ("((a b) (c d))", "((a b) (c (d e)))", "a", "(a (b c))", "(a b)")

    @pytest.mark.parametrize("whole", [True, False])
    def test_counts_spans(self, whole: bool) -> None:
        def spans(text: str) -> set[tuple[int, int]]:
            forest = brackets.read([text])
            longest = len(forest.leaves)
            given = {(int(first), int(last)) for first, last in forest.spans}
            return {s for s in given if 1 < s[1] - s[0] < longest + whole}

        found, correct = ([spans(text) for text in texts] for texts in (self.FOUND, self.TREES))
        both = [ours & theirs for ours, theirs in zip(found, correct, strict=True)]
        got = bracketing(brackets.read(self.FOUND), brackets.read(self.TREES), whole=whole)
        for name, sets in (("found", found), ("correct", correct), ("matched", both)):
            assert getattr(got, name).tolist() == [len(each) for each in sets]
        totals = [sum(map(len, sets)) for sets in (both, found, correct)]
        assert got.precision == totals[0] / totals[1]
        assert got.recall == totals[0] / totals[2]
        harmonic = 2 / (1 / got.precision + 1 / got.recall)
        assert abs(got.f1 - harmonic) < 1e-15
        precision, recall, f1 = got.per_tree()
        assert precision[2] == recall[2] == f1[2] == 1
        assert (precision[1], recall[1]) == ((0.5, 2 / 3) if whole else (1 / 3, 0.5))

    def test_refuses_other_sentences(self) -> None:
        with pytest.raises(ValueError, match="found and correct must be as many trees"):
            bracketing(brackets.read(["(a b)"]), brackets.read(["(a b c)"]))


class TestRefusals:
    @pytest.mark.parametrize(("act", "error", "message"), ERRORS)
    def test_name_what_is_wrong(
        self, act: Callable[[Parser], Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            act(parser())

    def test_a_wider_dtype(self) -> None:
        with pytest.raises(TypeError, match="x is float64, but this module computes in float32"):
            parser("float32").parse(rows(3), [3])
