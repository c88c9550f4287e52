"""Bracketed strings to forests and back."""

import numpy as np
import pytest
from rnncore.trees import brackets
from rnncore.trees.forest import Forest

TREES = ["( ( a b ) c )", "x", "( a )", "( [SM 6 ( [MAX 1 2 ] ) ] )"]


def test_back_to_the_same() -> None:
    forest = brackets.read(TREES)
    assert len(forest) == len(TREES)
    assert brackets.write(forest) == TREES
    assert forest.labels is not None
    assert [forest.labels[row] for row in forest.leaves[:3]] == ["a", "b", "c"]


def test_nested_and_bracketed_are_the_same_trees() -> None:
    nested = Forest.from_nested([(("a", "b"), "c"), "x"])
    read = brackets.read(TREES[:2])
    np.testing.assert_array_equal(nested.parent, read.parent)
    assert nested.labels == read.labels


def test_labels_of_the_penn_treebank() -> None:
    text = "(S (NP (DT the) (NN cat)) (VP sat))"
    forest = brackets.read([text], labelled=True)
    assert forest.labels == ["the", "DT", "cat", "NN", "NP", "sat", "VP", "S"]
    assert (
        brackets.read(brackets.write(forest, labelled=True), labelled=True).labels == forest.labels
    )


def test_ten_thousand_brackets() -> None:
    forest = brackets.read(["(" * 10_000 + " a " + ")" * 10_000])
    assert forest.levels.max() == 10_000
    assert brackets.write(forest)[0].count("(") == 10_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("( a", "tree 1: 1 brackets are never closed"),
        ("a )", r"tree 1: '\)' stands after its end"),
        (")", "tree 1: a bracket is closed that was never opened"),
        ("( )", "tree 1 holds an empty node"),
        ("", "tree 1: it is empty"),
        ("( a ) b", "tree 1: 'b' stands after its end"),
    ],
)
def test_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        brackets.read(["a", text])


@pytest.mark.parametrize("label", ["a b", "a)", "", " "])
def test_labels_that_would_be_read_as_something_else(label: str) -> None:
    forest = Forest([2, 2, -1], [0, 3], ["x", "y", label])
    assert brackets.write(forest) == ["( x y )"]
    with pytest.raises(ValueError, match=r"the label of node 2 must be one word"):
        brackets.write(forest, labelled=True)
    with pytest.raises(ValueError, match=r"the label of node 0 must be one word"):
        brackets.write(Forest([-1], [0, 1], [label]))
