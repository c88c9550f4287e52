"""What a forest knows of its trees, against recursion; and the pictures of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rnncore import Forest
from rnncore.trees import brackets

NESTED: list[Any] = [
    (("a", "b"), "c"),
    "x",
    ("p", ("q", "r", "s"), ("t",), "u"),
    ((("l", "m"), "n"), ("o",)),
]
DEEP = 10_000


def shuffled(seed: int) -> Forest:
    """The trees of NESTED, rows of each tree in any order that keeps the order of siblings."""
    forest = Forest.from_nested(NESTED)
    rng = np.random.default_rng(seed)
    rank = np.zeros(forest.nodes)
    for row in np.argsort(forest.position, kind="stable"):  # siblings: rising numbers
        kin = forest.children[forest.parent[row]] if forest.parent[row] >= 0 else [row]
        earlier = [rank[other] for other in kin if other != row]
        rank[row] = rng.random() + max(earlier, default=0)
    tree = np.repeat(np.arange(len(forest)), np.diff(forest.begin))
    rows = np.lexsort((rank, tree))
    place = np.argsort(rows)
    parent = np.where(forest.parent[rows] < 0, -1, place[forest.parent[rows]])
    assert forest.labels is not None
    return Forest(parent, forest.begin, [forest.labels[row] for row in rows])


def words(tree: Any) -> list[Any]:
    """The leaves of a nested tree in reading order."""
    return [w for child in tree for w in words(child)] if isinstance(tree, tuple) else [tree]


def spans(tree: Any, start: int = 0) -> list[tuple[int, int]]:
    """The spans of all nodes of a nested tree, in postorder."""
    found, at = [], start
    for child in tree if isinstance(tree, tuple) else ():
        found += spans(child, at)
        at += len(words(child))
    return [*found, (start, start + len(words(tree)))]


class TestSpans:
    def test_are_those_of_the_nested_trees(self) -> None:
        want = [span for tree in NESTED for span in spans(tree)]
        assert Forest.from_nested(NESTED).spans.tolist() == [list(span) for span in want]

    @pytest.mark.parametrize("seed", range(5))
    def test_whatever_the_order_of_rows(self, seed: int) -> None:
        forest, plain = shuffled(seed), Forest.from_nested(NESTED)
        for n in range(len(forest)):
            got = forest.spans[forest.tree(n)]
            assert sorted(got.tolist()) == sorted(plain.spans[plain.tree(n)].tolist())
        assert forest.labels is not None
        for n, tree in enumerate(NESTED):
            leaves = [row for row in forest.leaves if forest.begin[n] <= row < forest.begin[n + 1]]
            leaves.sort(key=lambda row: int(forest.spans[row, 0]))
            assert [forest.labels[row] for row in leaves] == words(tree)

    def test_no_trees(self) -> None:
        assert Forest.from_nested([]).spans.shape == (0, 2)

    def test_a_chain_and_a_comb(self) -> None:
        chain = Forest.from_parents([[*range(1, DEEP), -1]])
        assert (chain.spans == [0, 1]).all()
        comb: Any = "w"
        for _ in range(DEEP):
            comb = ("v", comb)
        forest = Forest.from_nested([comb])
        assert forest.spans[-1].tolist() == [0, DEEP + 1]
        assert (np.diff(forest.spans[forest.child_count > 0])[:, 0] == np.arange(2, DEEP + 2)).all()

    def test_a_star(self) -> None:
        forest = Forest.from_parents([[DEEP] * DEEP + [-1]])
        assert forest.spans[-1].tolist() == [0, DEEP]
        assert forest.spans[:-1, 0].tolist() == list(range(DEEP))
        assert forest.levels.tolist() == [0] * DEEP + [1]


class TestLevels:
    @pytest.mark.parametrize("seed", range(3))
    def test_are_waves_and_what_layers_walk(self, seed: int) -> None:
        forest = shuffled(seed)
        assert (forest.levels == forest.bottom_up(forest.arity).wave).all()
        for height, rows in enumerate(forest.waves):
            assert rows.tolist() == np.flatnonzero(forest.levels == height).tolist()

    def test_round_in_a_circle(self) -> None:
        for parents, lost in ([1, 0, -1], 2), ([1, 0, 0, -1], 3), ([0, -1], 1):
            with pytest.raises(ValueError, match=f"circle: no root is above {lost} nodes"):
                Forest.from_parents([[-1, 0], parents])


class TestNested:
    def test_back_to_the_same(self) -> None:
        assert Forest.from_nested(NESTED).to_nested() == NESTED
        assert Forest.from_nested([]).to_nested() == []

    @pytest.mark.parametrize("seed", range(5))
    def test_whatever_the_order_of_rows(self, seed: int) -> None:
        assert shuffled(seed).to_nested() == NESTED

    def test_without_labels(self) -> None:
        assert Forest.from_parents([[2, 2, -1], [-1]]).to_nested() == [(None, None), None]

    def test_deep(self) -> None:
        (tree,) = brackets.read(["(" * DEEP + " a " + ")" * DEEP]).to_nested()
        for _ in range(DEEP):
            (tree,) = tree
        assert tree == "a"


class TestSelect:
    @pytest.mark.parametrize("numbers", [[2, 0], [1], [], [3, 3, 0], [0, 1, 2, 3]])
    def test_gives_these_trees(self, numbers: list[int]) -> None:
        forest = shuffled(1)
        some, rows = forest.select(numbers), forest.rows(numbers)
        assert some.to_nested() == [NESTED[n] for n in numbers]
        assert len(some) == len(numbers)
        assert (some.spans == forest.spans[rows]).all()
        assert (some.levels == forest.levels[rows]).all()

    def test_slices(self) -> None:
        forest = Forest.from_nested(NESTED)
        assert [forest.tree(n).stop for n in range(4)] == forest.begin[1:].tolist()
        assert Forest(forest.parent, forest.begin).select([1]).labels is None

    def test_names_what_is_wrong(self) -> None:
        forest = Forest.from_nested(NESTED)
        with pytest.raises(ValueError, match=r"numbers must be in 0\.\.3, got 4"):
            forest.select([0, 4])
        with pytest.raises(ValueError, match=r"number must be in 0\.\.3, got -1"):
            forest.tree(-1)
        with pytest.raises(TypeError, match="numbers must be integers, got bool"):
            forest.select([True, False, True, True])


class TestArguments:
    @pytest.mark.parametrize("wrong", [np.full((2, 2), -1), -1])
    def test_have_one_axis(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match="parent must have one axis, got"):
            Forest(wrong, [0, 2])
        with pytest.raises(ValueError, match="begin must have one axis, got"):
            Forest([-1, -1], wrong)

    def test_stay_as_they_were_checked(self) -> None:
        """What is found out about a forest is remembered: it must not change under that."""
        given = np.array([1, -1])
        forest = Forest(given, [0, 2])
        given[0] = -1
        assert forest.arity == 1
        with pytest.raises(ValueError, match="read-only"):
            forest.parent[0] = -1


class TestJoin:
    def test_undoes_select(self) -> None:
        whole = Forest.from_nested([(("a", "b"), "c"), "d", ("e", ("f", "g"))])
        parts = [whole.select(numbers) for numbers in ([0], [], [1, 2])]
        joined = Forest.join(parts)
        np.testing.assert_array_equal(joined.parent, whole.parent)
        np.testing.assert_array_equal(joined.begin, whole.begin)
        assert joined.labels == whole.labels

    def test_labels_of_all_or_none(self) -> None:
        parts = [Forest.from_nested(["a"]), Forest.from_parents([[-1]])]
        assert Forest.join(parts).labels is None
        assert len(Forest.join([])) == 0


class TestPicture:
    @pytest.fixture(autouse=True)
    def _matplotlib(self) -> None:
        pytest.importorskip("matplotlib")

    def test_is_written(self, tmp_path: Path) -> None:
        forest = Forest.from_nested([*NESTED, ("$x", "$y")])
        values = np.linspace(0, 1, forest.nodes)
        values[forest.leaves] = np.nan
        forest.plot(tmp_path / "plain.png")
        forest.plot(tmp_path / "values.svg", values, title="trees", value_name="error")
        assert (tmp_path / "plain.png").stat().st_size > 1000
        drawn = (tmp_path / "values.svg").read_text(encoding="utf-8")
        for text in ("trees", "error", "a", "$x", "1"):
            assert f"<!-- {text} -->" in drawn

    def test_leaves_stand_evenly_and_parents_between(self) -> None:
        from rnncore.trees.picture import layout

        forest = shuffled(2)
        x, y = layout(forest, 8)
        for node, kids in enumerate(forest.children):
            if kids:
                assert x[node] == (x[kids[0]] + x[kids[-1]]) / 2
                assert y[node] == 1 + max(y[kid] for kid in kids)
        feet = sorted((-y[leaf], x[leaf]) for leaf in forest.leaves)
        lines = [[at for foot, at in feet if foot == line] for line in dict(feet)]
        assert lines == [[0, 1, 2, 4], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3]]

    def test_errors(self, tmp_path: Path) -> None:
        forest = Forest.from_nested(NESTED)
        with pytest.raises(ValueError, match=rf"values must have shape \({forest.nodes},\)"):
            forest.plot(tmp_path / "a.png", [1.0])
        with pytest.raises(ValueError, match="no trees to draw"):
            Forest.from_nested([]).plot(tmp_path / "a.png")


def test_only_forests_are_joined() -> None:
    with pytest.raises(TypeError, match=r"forests\[1\] must be a Forest, got a int"):
        Forest.join([Forest([-1], [0, 1]), 3])  # type: ignore[list-item]
