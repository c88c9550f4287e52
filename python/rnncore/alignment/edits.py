"""How far found labels are from the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def edit_distance(found: Sequence[Any], expected: Sequence[Any]) -> int:
    """Return how many labels must be put in, taken out or replaced to make one the other.

    Levenshtein 1966. Labels are compared by `==`; strings are sequences of characters.
    """
    row = list(range(len(expected) + 1))
    for count, label in enumerate(found, 1):
        before, row[0] = row[0], count
        for j, other in enumerate(expected, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (label != other))
    return row[-1]


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
