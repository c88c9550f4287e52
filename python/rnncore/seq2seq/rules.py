"""What a search is told: what a hypothesis may be, and which of them a beam keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import (
    Array,
    as_float,
    as_integers,
    as_shape,
    check_integer,
    check_number,
    check_size,
)
from ..compiled import core


@dataclass(frozen=True)
class Rules:
    """What a hypothesis may be.

    bos, eos: what the decoder reads first, and what ends a hypothesis. min_length, max_length: the
    fewest and the most tokens, without the end symbol. no_repeat: no run of so many tokens occurs
    twice (0: any may). prefix: tokens that each hypothesis begins with, `(P,)`, or a list of such
    arrays, one for each source. rescore: `rescore(log_probs (R, V), tokens (R, t)) -> (R, V)` gives
    other scores for the next token after each of R beginnings; -inf forbids.

    A hypothesis that may not go on in any way ends. So does one whose logits are NaN, with the
    lowest number there is for its log-probability.
    """

    bos: int
    eos: int
    max_length: int = 100
    min_length: int = 0
    no_repeat: int = 0
    prefix: Any = None
    rescore: Callable[[Array, Array], npt.ArrayLike] | None = None

    def __post_init__(self) -> None:
        check_size("max_length", self.max_length)
        for name in ("bos", "eos", "min_length", "no_repeat"):
            check_integer(name, getattr(self, name))
        if min(self.bos, self.eos) < 0:
            raise ValueError(f"bos and eos must be at least 0, got {self.bos} and {self.eos}")
        if self.no_repeat < 0:
            raise ValueError(f"no_repeat must be at least 0, got {self.no_repeat}")
        if not 0 <= self.min_length <= self.max_length:
            raise ValueError(
                f"min_length must be in 0..{self.max_length} (max_length), got {self.min_length}"
            )

    def forced(self, sources: int) -> Array | None:
        """Return the prefixes as one array `(sources, P)`, -1 behind the end of each, or None."""
        if self.prefix is None or not len(self.prefix):
            return None
        given = [self.prefix] * sources if np.ndim(self.prefix[0]) == 0 else self.prefix
        prefixes = [as_integers("prefix", prefix) for prefix in given]
        if len(prefixes) != sources:
            raise ValueError(f"prefix must be one, or {sources}, got {len(prefixes)}")
        longest = max((len(prefix) for prefix in prefixes), default=0)
        if longest > self.max_length:
            raise ValueError(f"prefix must have at most {self.max_length} tokens, got {longest}")
        table = np.full((sources, longest), -1, np.int64)
        for row, prefix in zip(table, prefixes, strict=True):
            if prefix.ndim != 1 or np.any(prefix < 0) or np.any(prefix == self.eos):
                raise ValueError("prefix must be tokens (P,), the end symbol not among them")
            row[: len(prefix)] = prefix
        return table

    def apply(self, log_probs: Array, tokens: Array, forced: Array | None) -> Array:
        """Return what may follow tokens `(R, t)`; forced `(R,)` is what must, where not -1.

        Changes log_probs.
        """
        length = tokens.shape[1]
        if self.rescore is not None:
            scores = self.rescore(log_probs, tokens)
            log_probs = as_shape("rescore(...)", scores, log_probs.dtype, log_probs.shape).copy()
        ends = log_probs[:, self.eos].copy()
        if forced is not None:
            bound = np.flatnonzero(forced >= 0)
            must = log_probs[bound, forced[bound]]
        if length < self.min_length:
            log_probs[:, self.eos] = -np.inf
        if 0 < self.no_repeat <= length:
            self._forbid_repeats(log_probs, tokens)
        if length == self.max_length:
            log_probs[:] = -np.inf
            log_probs[:, self.eos] = ends
        if forced is not None:
            log_probs[bound] = -np.inf
            log_probs[bound, forced[bound]] = must
        stuck = ~(log_probs.max(axis=1, initial=-np.inf) > -np.inf)
        if stuck.any():
            lowest = float(np.finfo(log_probs.dtype).min)
            log_probs[stuck] = -np.inf
            log_probs[stuck, self.eos] = np.nan_to_num(ends[stuck], nan=lowest, neginf=lowest)
        return log_probs

    def _forbid_repeats(self, log_probs: Array, tokens: Array) -> None:
        windows = np.lib.stride_tricks.sliding_window_view(tokens, self.no_repeat, axis=1)
        begun = tokens[:, tokens.shape[1] - self.no_repeat + 1 :]
        rows, at = np.nonzero((windows[:, :, :-1] == begun[:, None]).all(axis=2))
        log_probs[rows, windows[rows, at, -1]] = -np.inf


@dataclass(frozen=True)
class Limits:
    """How wide a beam is, and what decides between its hypotheses; by itself greedy search."""

    width: int = 1
    n_best: int = 1
    length_penalty: float = 0.0
    coverage_penalty: float = 0.0
    prune: float = math.inf

    def __post_init__(self) -> None:
        check_integer("n_best", self.n_best)
        if not 1 <= self.n_best <= check_size("width", self.width):
            raise ValueError(f"n_best must be in 1..{self.width} (width), got {self.n_best}")
        for name in ("length_penalty", "coverage_penalty", "prune"):
            value = getattr(self, name)
            number = check_number(name, value)
            if not number >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
            object.__setattr__(self, name, number)

    def scaled(self, log_prob: Array, length: int) -> Array:
        """log P(Y | X) / lp(Y), the end symbol counted in the length."""
        try:
            penalty = ((5 + length) / 6) ** self.length_penalty
        except OverflowError:
            penalty = math.inf
        return np.asarray(log_prob / penalty)

    def covered(self, attention: Array, lengths: Array) -> Array:
        """cp(X; Y) of attention `(R, N, S)`."""
        weights = as_float("attention", attention)
        return np.asarray(self.coverage_penalty * core(weights.dtype).coverage(weights, lengths))
