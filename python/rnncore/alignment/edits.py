"""How far found labels are from the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def edit_distance(found: Sequence[Any], expected: Sequence[Any]) -> int:
    """Return how many labels must be put in, taken out or replaced to make one the other.

    Levenshtein 1966. Labels are compared by `==`; strings are sequences of characters.
    """
    places = np.arange(len(expected) + 1)
    row = places
    for count, label in enumerate(found, 1):
        kept = [label != other for other in expected]
        new = np.append(count, np.minimum(row[1:] + 1, row[:-1] + np.array(kept, np.intp)))
        # Labels put in: the least of what is to the left, one more for each place.
        row = np.minimum.accumulate(new - places) + places
    return int(row[-1])


def error_rate(found: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> float:
    """Return the edit distances of all sequences over the number of all expected labels.

    Word, character or phoneme error rate, as the labels are; it may exceed 1. Sequences without any
    expected label raise `ValueError`.
    """
    if len(found) != len(expected):
        raise ValueError(f"found must have {len(expected)} sequences, got {len(found)}")
    total = sum(map(len, expected))
    if not total:
        raise ValueError("expected must have at least one label")
    return sum(map(edit_distance, found, expected)) / total
