"""A parser's margin: against enumeration and differences; and what is learnt by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rnncore import Adam, Forest, Parser
from rnncore.reference import parsing as reference
from rnncore.reference.parsing import Tree, all_trees, leaves, merges
from rnncore.trees import brackets
from rnncore.trees.parsing.spans import leaf_begin

from tests.support.compare import assert_gradients_of
from tests.support.parsing import REGIONS, SEARCHES, binary, both_ways, nested, oracle, parser, rows


class TestMargin:
    #: The correct tree, binary or not.
    CORRECT = ("(0 ((1 2) (3 4)))", "(0 1 (2 3 4))", "((0 1 2 3) 4)", "(0 1 2 3 4)")

    @pytest.mark.parametrize("kappa", [0.0, 0.1, 3.0])
    @pytest.mark.parametrize("text", CORRECT)
    @pytest.mark.parametrize("method", ["beam", "chart"])
    def test_against_enumeration(self, method: str, text: str, kappa: float) -> None:
        made, x = parser(), rows(5)
        correct = brackets.read([text])
        spans = [frozenset(range(*span)) for span in correct.spans]

        def wrong(tree: Tree) -> int:
            return sum(reference.crossing(leaves(merge), spans) for merge in merges(tree))

        want = reference.margin(oracle(made, x), binary(0, 5), wrong, kappa)
        got, _ = made.margin(x, [5], correct, kappa=kappa, method=method, width=1000)
        assert abs(got - want) <= 1e-12
        given, _ = made.margin(
            x, [5], correct, kappa=kappa, method=method, width=1000, partial=True
        )
        assert given >= got

    def test_charts_of_correct_trees_have_gaps(self) -> None:
        made, x = parser(), rows(8)  # no correct span has 3, 5, 6 or 7 leaves
        correct = brackets.read(["(((0 1) (2 3)) ((4 5) (6 7)))"])
        value, _ = made.margin(x, [8], correct, method="chart", width=500)
        best = made.parse(x, [8], method="chart", width=500).score
        assert value >= best[0] - made(x, correct)[0] > 0

    def test_labels_of_runs_are_brackets(self) -> None:
        made, x, search = parser(), rows(5), {"kappa": 0.0, "method": "chart", "width": 100}
        labels, _ = made.margin(x, [5], [0, 0, 1, 1, 1], **search)
        spans, _ = made.margin(x, [5], brackets.read(["((0 1) (2 3 4))"]), **search)
        assert labels == spans > 0

    @pytest.mark.parametrize("kappa", [0.1, 3.0])
    @pytest.mark.parametrize("method", ["beam", "chart"])
    def test_several_correct_trees(self, method: str, kappa: float) -> None:
        made, x = parser(), rows(5)
        options = [brackets.read([text]) for text in self.CORRECT[:3]]
        spans = [[frozenset(range(*span)) for span in option.spans] for option in options]

        def faults(tree: Tree, option: list[frozenset[int]]) -> set[Tree]:
            return {m for m in merges(tree) if reference.crossing(leaves(m), option)}

        def wrong(tree: Tree) -> int:
            return len(set.intersection(*(faults(tree, option) for option in spans)))

        scores, every = oracle(made, x), list(binary(0, 5))
        right = [t for t in every if any(not faults(t, option) for option in spans)]
        allowed = max((scores.tree(t) + kappa * wrong(t), wrong(t)) for t in every)
        want = allowed[0] - max(map(scores.tree, right)) if allowed[1] else 0.0
        search = {"kappa": kappa, "method": method, "width": 1000}
        got, pullback = made.margin(x, [5], options, **search)
        assert abs(got - want) <= 1e-12
        dx = pullback()
        assert_gradients_of(lambda: made.margin(x, [5], options, **search)[0], [(x, dx)])
        one, _ = made.margin(x, [5], options[:1], **search)
        assert one >= got

    @pytest.mark.parametrize("labels", [[0, 0, 1, 1, 0], [0, 1, 2, 3, 4], "aabba", [1] * 5])
    def test_regions_against_enumeration(self, labels: Any) -> None:
        count, edges = REGIONS["fan"]
        labels = np.array(list(labels))
        made, x, pairs = parser(), rows(5), both_ways(edges)
        same = {(a, b) for a, b in pairs if labels[a] == labels[b]}

        def segment(leaf: int) -> frozenset[int]:
            found = {leaf}
            while more := {b for a, b in same if a in found} - found:
                found |= more
            return frozenset(found)

        segments = {segment(leaf) for leaf in range(count)}

        def wrong(tree: Tree) -> int:
            """Merges of segments that are not whole with others, and whatever stands on them."""
            faulty = {m for m in merges(tree) if reference.crossing(leaves(m), segments)}
            return sum(any(below in faulty for below in merges(m)) for m in merges(tree))

        every = all_trees(count, pairs)
        want = reference.margin(oracle(made, x), every, wrong, 0.1)
        got, _ = made.margin(x, [5], labels, method="beam", width=2000, adjacency=edges)
        assert abs(got - want) <= 1e-12

    @pytest.mark.parametrize("partial", [False, True])
    @pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search["method"])
    def test_gradients(self, search: dict[str, Any], partial: bool) -> None:
        lengths, texts = [5, 1, 4], ["(0 (1 2 3) 4)", "0", "(((0 1) 2) 3)"]
        made, x, correct = parser(), rows(10), brackets.read(texts)
        options = {"kappa": 1.0, "partial": partial, "method": search["method"]}
        value, pullback = made.margin(x, lengths, correct, **options)
        assert value > 0.1
        dx = pullback(2.0)
        assert not dx[5].any()
        pairs = [(param, made.grads[name]) for name, param in made.params.items()]
        assert_gradients_of(
            lambda: 2 * made.margin(x, lengths, correct, **options)[0], [(x, dx), *pairs]
        )
        with pytest.raises(RuntimeError, match="already run"):
            pullback()

    def test_gradients_over_regions(self) -> None:
        count, edges = REGIONS["fan"]
        made, x = parser(), rows(count)
        options = {"kappa": 1.0, "adjacency": edges}
        value, pullback = made.margin(x, [5], [0, 0, 1, 1, 0], **options)
        assert value > 0.1
        pairs = [(pullback_of, made.grads[n]) for n, pullback_of in made.params.items()]
        assert_gradients_of(
            lambda: made.margin(x, [5], [0, 0, 1, 1, 0], **options)[0], [(x, pullback()), *pairs]
        )

    def test_a_wrong_first_merge_is_ahead(self) -> None:
        made = parser()
        for seed in range(10):
            x = rows(9, seed=seed)
            tree = nested(made.parse(rows(9, seed=seed + 100), [9]))  # of another sentence
            correct = Forest.from_nested(tree)
            value, _ = made.margin(x, [9], correct, kappa=0, partial=True)
            assert (value > 0) == (nested(made.parse(x, [9])) != tree)

    def test_nothing_is_lost_where_the_margin_holds(self) -> None:
        made, x, lengths = parser(), rows(40), [8] * 5
        made.scorer.params["weight"] *= 1e4
        correct = made.parse(x, lengths, method="chart", width=500).forest
        greedy = made.parse(x, lengths).forest
        assert (greedy.parent != correct.parent).any()  # it has missed what scores higher
        for search in ({"method": "chart", "width": 500}, {"method": "greedy"}):
            value, pullback = made.margin(x, lengths, correct, **search)
            assert value == 0
            assert not pullback().any()
            assert not any(grad.any() for grad in made.grads.values())
        assert made.margin(x, lengths, correct, partial=True)[0] > 0
        assert made.margin(x, lengths, correct, kappa=1e6)[0] > 0


class TestLearning:
    def test_a_grammar(self) -> None:
        """A noun and its number are a phrase; so is a verb with two phrases, one by one."""
        rng = np.random.default_rng(0)

        def phrase(depth: int) -> Any:
            if depth == 0 or rng.random() < 0.3:
                return (0, 1)
            return ((2, phrase(depth - 1)), phrase(depth - 1))

        made, words = Parser(3, 16, seed=0), np.eye(3, dtype="float32")
        optimiser = Adam(made, lr=1e-2)

        def draw(count: int) -> tuple[np.ndarray, np.ndarray, Forest]:
            forest = Forest.from_nested([phrase(2) for _ in range(count)])
            x = words[[forest.labels[row] for row in forest.leaves]]
            return x, np.diff(leaf_begin(forest)), forest

        for _ in range(30):
            x, lengths, correct = draw(10)
            _, pullback = made.margin(x, lengths, correct, partial=True)
            made.zero_grad()
            pullback()
            optimiser.step()
        x, lengths, correct = draw(100)
        found = made.parse(x, lengths).forest
        np.testing.assert_array_equal(found.parent, correct.parent)
