"""Names of tags: what may follow what, and the spans that they mark."""

import itertools

import numpy as np
import pytest
from rnncore import tag_constraints
from rnncore.alignment.tags import span_tags, tag_spans

KINDS = ["LOC", "B-", "x-y"]  # what is behind the first dash may be anything
NAMES = {
    scheme: ["O", *(f"{mark}-{kind}" for kind in KINDS for mark in scheme if mark != "O")]
    for scheme in ("BIO", "BIOES")
}
LEGAL = {
    "BIO": {"O": "OB", "B": "OBI", "I": "OBI"},
    "BIOES": {"O": "OBS", "B": "IE", "I": "IE", "E": "OBS", "S": "OBS"},
}


@pytest.mark.parametrize("scheme", NAMES)
class TestConstraints:
    def test_every_pair(self, scheme):
        names = NAMES[scheme]
        found = tag_constraints(names, scheme)
        for (i, a), (j, b) in itertools.product(enumerate(names), repeat=2):
            same = a[2:] == b[2:] or b[0] not in "IE"
            assert found.transitions[i, j] == (b[0] in LEGAL[scheme][a[0]] and same), (a, b)
        for at, name in enumerate(names):
            assert found.start[at] == (name[0] in "OBS")
            assert found.end[at] == (scheme == "BIO" or name[0] in "OES")

    def test_the_order_of_names_is_theirs(self, scheme, rng):
        names = NAMES[scheme]
        order = rng.permutation(len(names))
        found = tag_constraints([names[at] for at in order], scheme)
        wanted = tag_constraints(names, scheme)
        np.testing.assert_array_equal(found.transitions, wanted.transitions[order][:, order])
        np.testing.assert_array_equal(found.start, wanted.start[order])
        np.testing.assert_array_equal(found.end, wanted.end[order])

    def test_spans_and_back(self, scheme, rng):
        for _ in range(50):
            length = int(rng.integers(0, 12))
            ends = np.unique(rng.integers(0, length + 1, 6))
            spans = [
                (str(rng.choice(KINDS)), int(start), int(stop))
                for start, stop in itertools.pairwise(ends)
                if rng.random() < 0.7
            ]
            names = span_tags(spans, length, scheme)
            assert len(names) == length
            assert tag_spans(names, scheme) == spans
            may = tag_constraints(NAMES[scheme], scheme)
            places = [NAMES[scheme].index(name) for name in names]
            assert all(may.transitions[a, b] for a, b in itertools.pairwise(places))
            assert not places or (may.start[places[0]] and may.end[places[-1]])


def test_spans_of_what_is_not_allowed():
    assert tag_spans(["I-a", "I-a", "O", "I-b", "I-a"]) == [("a", 0, 2), ("b", 3, 4), ("a", 4, 5)]
    found = tag_spans(["B-a", "B-a", "E-b", "I-a", "O", "E-a"], "BIOES")
    assert found == [("a", 0, 1), ("a", 1, 2), ("b", 2, 3), ("a", 3, 4), ("a", 5, 6)]
    assert tag_spans([]) == []


@pytest.mark.parametrize(
    ("names", "scheme", "error", "message"),
    [
        (["O", "B-a", "I-a", "S-a"], "BIO", ValueError, "names must be O or B-..., I-... in the"),
        (["O", "B"], "BIO", ValueError, "got 'B'"),
        (["O", "B-"], "BIO", ValueError, "got 'B-'"),
        (["o"], "BIO", ValueError, "got 'o'"),
        (["O-a"], "BIO", ValueError, "got 'O-a'"),
        (["O", 3], "BIO", ValueError, "got 3"),
        (["O", "NOUN"], "BIOES", ValueError, "got 'NOUN'"),
        (["O", "O"], "BIO", ValueError, "names have 'O' twice"),
        (["O", "I-a"], "BIO", ValueError, "names have 'I-a', but no 'B-a' to go with it"),
        (["O", "B-a", "I-a"], "BIOES", ValueError, "names have 'B-a', but no 'E-a' to go with it"),
        ([], "BIO", ValueError, "names must have at least one name"),
        ("BIO", "BIO", TypeError, "names must be a list of names of tags, got 'BIO'"),
        (3, "BIO", TypeError, "names must be a list of names of tags, got 3"),
        (["O"], "IOB", ValueError, "scheme must be one of BIO, BIOES, got 'IOB'"),
    ],
)
def test_names_that_do_not_fit(names, scheme, error, message):
    with pytest.raises(error, match=message):
        tag_constraints(names, scheme)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([("a", 0, 0)], r"spans must be apart and within 0..4, got \('a', 0, 0\)"),
        ([("a", 0, 5)], "spans must be apart and within 0..4"),
        ([("a", -1, 2)], "spans must be apart and within 0..4"),
        ([("a", 0, 2), ("b", 1, 3)], "spans must be apart and within 0..4"),
    ],
)
def test_spans_that_do_not_fit(spans, message):
    with pytest.raises(ValueError, match=message):
        span_tags(spans, 4)
