"""A small decoder of NumPy to search with, and what is found by trying everything."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from rnncore import search
from rnncore.search import Hypothesis

BOS, EOS, VOCABULARY, STEPS = 0, 1, 5, 3
KEYS = {"bos": BOS, "eos": EOS, "max_length": 4}


@dataclass
class State:
    """What the toy remembers of each row."""

    h: np.ndarray  # (R, 6)
    keys: np.ndarray  # (R, S, 6)
    attention: np.ndarray | None

    def take(self, rows: np.ndarray) -> State:
        attention = None if self.attention is None else self.attention[rows]
        return State(self.h[rows], self.keys[rows], attention)


class Toy:
    """A recurrent decoder with attention; products by einsum, so that rows do not mix."""

    def __init__(self, seed: int = 0, vocabulary: int = VOCABULARY, scale: float = 2.0) -> None:
        rng = np.random.default_rng(seed)
        self.embedding, self.w = scale * rng.standard_normal((vocabulary, 6)), np.eye(6)[::-1]
        self.out = scale * rng.standard_normal((12, vocabulary))
        self.rows: list[int] = []  # of each step
        self.decoder = self

    def start(self, source: np.ndarray, lengths: Any) -> State:
        keys = np.sin(source[..., None] * np.arange(1, 7)).swapaxes(0, 1)
        if lengths is not None:
            keys[np.arange(len(source)) >= np.asarray(lengths)[:, None]] = 0
        return State(keys.sum(axis=1), keys, None)

    def step(self, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        self.rows.append(len(tokens))
        h = np.tanh(np.einsum("ri,ij->rj", state.h, self.w) + self.embedding[tokens])
        weights = np.exp(np.einsum("ri,rsi->rs", h, state.keys))
        weights[(state.keys == 0).all(axis=2)] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        seen = np.concatenate([h, np.einsum("rs,rsi->ri", weights, state.keys)], axis=1)
        logits = np.einsum("ri,iv->rv", seen, self.out).astype(np.float32)
        return logits, State(h, state.keys, weights)


class ByPython:
    """A model whose steps the compiled core knows nothing of: a search asks Python for each."""

    def __init__(self, model: Any) -> None:
        self.model, self.decoder, self.start = model, self, model.start

    def step(self, tokens: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        return self.model.decoder.step(tokens, state)


def sources(batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(1, 9, (STEPS, batch)), rng.integers(1, STEPS + 1, batch)


def log_prob(model: Any, source: np.ndarray, length: int, tokens: Any) -> tuple[float, np.ndarray]:
    """Log-probability of tokens and the end, token by token, and the attention `(N + 1, S)`."""
    state, total, weights = model.start(source[:, None], [length]), 0.0, []
    said = [*map(int, tokens), EOS]
    for before, now in zip([BOS, *said], said, strict=False):
        logits, state = model.decoder.step(np.array([before]), state)
        row = logits[0].astype(np.float64)
        total += row[now] - row.max() - np.log(np.exp(row - row.max()).sum())
        weights.append(state.attention[0, :length])
    return total, np.array(weights)


def everything(vocabulary: int, longest: int) -> list[tuple[int, ...]]:
    letters = [token for token in range(vocabulary) if token != EOS]
    return [t for n in range(longest + 1) for t in itertools.product(letters, repeat=n)]


def wu(log_p: float, weights: np.ndarray, alpha: float, beta: float) -> float:
    """Wu et al. 2016, equation 14."""
    factor = (5 + len(weights)) ** alpha / (5 + 1) ** alpha
    return log_p / factor + beta * np.log(np.minimum(weights.sum(axis=0), 1)).sum()


def assert_same(got: Hypothesis, want: Hypothesis) -> None:
    assert got.tokens.tolist() == want.tokens.tolist()
    assert (got.log_prob, got.score) == (want.log_prob, want.score)
    np.testing.assert_array_equal(got.attention, want.attention)


def methods(model: Any, **options: Any) -> list[list[Hypothesis]]:
    """What each way of searching finds for three sources."""
    x, lengths = sources()
    options = {**KEYS, **options}
    greedy = search.greedy(model, x, lengths, **options)
    beam = search.beam(model, x, lengths, width=4, n_best=4, **options)
    sample = search.sample(model, x, lengths, count=5, seed=0, **options)
    return [[h] for h in greedy] + beam + sample
