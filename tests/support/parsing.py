"""A parser whose merges differ clearly, what it parses, and its reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rnncore import Parsed, Parser
from rnncore.reference import activation
from rnncore.reference.parsing import Scores, Tree

#: Neighbours of a small picture's regions.
REGIONS = {"pair": (2, [(1, 0)]), "ring": (4, [(0, 1), (1, 2), (2, 3), (3, 0)])}
REGIONS["fan"] = (5, [(0, 1), (0, 2), (0, 3), (4, 0), (1, 2)])
SEARCHES: list[dict[str, Any]] = [
    {"method": "greedy"},
    {"method": "beam", "width": 3, "best": 3},
    {"method": "chart", "width": 2, "best": 2},
]


def parser(dtype: str = "float64", hidden: int = 7, nonlinearity: str = "tanh") -> Parser:
    """A parser whose merges differ clearly."""
    made = Parser(3, hidden, nonlinearity, dtype=dtype, seed=1)
    for param in made.params.values():
        param *= 2
    return made


def rows(count: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(dtype)


def oracle(made: Parser, x: np.ndarray) -> Scores:
    params = {name: param.astype(float) for name, param in made.params.items()}
    return Scores(params, x.astype(float), activation(made.nonlinearity))


def nested(parsed: Parsed) -> list[Tree]:
    """The trees as nested pairs of rows of x."""
    return parsed.forest.to_nested()


def both_ways(edges: list[tuple[int, int]]) -> set[tuple[int, int]]:
    return {*edges, *((b, a) for a, b in edges)}


def binary(first: int, last: int) -> Iterator[Tree]:
    """All binary trees over leaves in a row."""
    if last - first == 1:
        yield first
    for split in range(first + 1, last):
        for left in binary(first, split):
            yield from ((left, right) for right in binary(split, last))
