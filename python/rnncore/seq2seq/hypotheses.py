"""What a search keeps: hypotheses that still run, what they may say, and those that have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import (
    Array,
    as_indices,
    as_integers,
    as_lengths,
    as_shape,
    check_integer,
    check_size,
    read,
)
from ..compiled import Hold


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What a decoder said, from its first token to the end symbol, which is not among `tokens`."""

    tokens: Array  # (N,)
    log_prob: float  # log P(tokens, end symbol | source)
    score: float  # what it is ranked by
    attention: Array | None = None  # (N + 1, S): on the source's S steps, as each token was said


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
        table = np.full((sources, longest), -1)
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


@dataclass
class _Ended:
    """Hypotheses that ended at one step, N tokens long."""

    sources: Array  # (R,)
    tokens: Array  # (R, N)
    attention: Array | None  # (R, N + 1, S)
    log_prob: Array  # (R,)
    score: Array  # (R,)


class Search:
    """Hypotheses `(R, t)` about the sources of a batch, as long as each other, in their order."""

    def __init__(
        self,
        model: Any,
        source: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        rules: Rules,
        copies: int = 1,
    ) -> None:
        shape = read("source", source)[0].shape
        if len(shape) < 2:
            raise ValueError(f"source must have shape (S, B) or (S, B, I), got {shape}")
        self.model, self.rules, self.count = model, rules, shape[1]
        given = as_lengths(lengths, *shape[:2])
        self._lengths = np.full(self.count, shape[0]) if given is None else given
        self._forced = rules.forced(self.count)
        self.sources = np.repeat(np.arange(self.count), copies)  # (R,)
        #: The model's weights are read once; rescoring may do whatever it likes meanwhile.
        self._hold = Hold()
        self.state = self._hold(model.start, source, lengths)
        memory = getattr(self.state, "memory", None)  # of what the encoder made of the sources
        if memory is not None:
            self._lengths = memory.lengths
        if copies > 1:
            self.state = self.state.take(self.sources)
        self.tokens = np.empty((len(self), 0), np.intp)
        self.log_prob = np.zeros(len(self))
        self._ended: list[_Ended] = []
        #: The attention of each step `(R, S)`, and which row of it belongs to a hypothesis.
        self._attention: list[Array] = []
        self._places = np.empty((len(self), 0), np.intp)

    def __len__(self) -> int:
        """How many hypotheses still run."""
        return len(self.sources)

    def step(self) -> Array:
        """Return the log-probabilities `(R, V)` of the next token, by the rules."""
        length = self.tokens.shape[1]
        last = self.tokens[:, -1] if length else np.full(len(self), self.rules.bos)
        logits, self.state = self._hold(self.model.decoder.step, last, self.state)
        if self.rules.eos >= logits.shape[1]:
            raise ValueError(f"eos must be in 0..{logits.shape[1] - 1}, got {self.rules.eos}")
        if self._forced is not None and not length:
            as_indices("prefix", self._forced[self._forced >= 0], logits.shape[1])
        attention = getattr(self.state, "attention", None)
        if attention is not None:
            self._attention.append(attention)
        table, forced = self._forced, None
        if table is not None and length < table.shape[1]:
            forced = table[self.sources, length]
        with np.errstate(invalid="ignore"):  # NaN passes through quietly
            return self.rules.apply(log_softmax(logits), self.tokens, forced)

    def extend(self, rows: Array, tokens: Array, log_prob: Array) -> None:
        """Go on with these rows, each by a token: `log_prob` is that of the whole hypothesis."""
        sources = self.sources[rows]
        places = np.concatenate([self._places[rows], rows[:, None]], axis=1)
        ends = tokens == self.rules.eos
        if ends.any():
            self._end(sources[ends], self.tokens[rows[ends]], places[ends], log_prob[ends])
        going = np.flatnonzero(~ends & self._hopeful(sources, log_prob))
        rows = rows[going]
        if not np.array_equal(rows, np.arange(len(self))):
            self.state = self.state.take(rows)
        self.tokens = np.concatenate([self.tokens[rows], tokens[going, None]], axis=1)
        self.sources, self.log_prob, self._places = sources[going], log_prob[going], places[going]

    def _end(self, sources: Array, tokens: Array, places: Array, log_prob: Array) -> None:
        attention = None
        if self._attention:
            steps = zip(self._attention, places.T, strict=True)
            attention = np.stack([weights[rows] for weights, rows in steps], axis=1)
        score = self._rank(sources, log_prob, tokens.shape[1] + 1, attention)
        self._ended.append(_Ended(sources, tokens, attention, log_prob, score))

    def _rank(self, sources: Array, log_prob: Array, steps: int, attention: Array | None) -> Array:
        """Return the scores of hypotheses that end after so many steps."""
        return log_prob

    def _hopeful(self, sources: Array, log_prob: Array) -> Array:
        """Return which hypotheses are worth going on with."""
        return np.ones(len(sources), bool)

    def best(self, n: int) -> list[list[Hypothesis]]:
        """Return the n best hypotheses that ended, for each source, best first."""
        found: list[list[Hypothesis]] = [[] for _ in range(self.count)]
        if not self._ended:
            return found
        sources = np.concatenate([ended.sources for ended in self._ended])
        scores = np.concatenate([ended.score for ended in self._ended])
        at = [(ended, row) for ended in self._ended for row in range(len(ended.sources))]
        for i in np.lexsort((-scores, sources)):
            mine = found[sources[i]]
            if len(mine) < n:
                mine.append(self._hypothesis(*at[i]))
        return found

    def _hypothesis(self, ended: _Ended, row: int) -> Hypothesis:
        weights = ended.attention
        if weights is not None:
            weights = weights[row, :, : self._lengths[ended.sources[row]]]
        return Hypothesis(
            ended.tokens[row], float(ended.log_prob[row]), float(ended.score[row]), weights
        )


def log_softmax(logits: Array) -> Array:
    """Return log softmax over the last axis."""
    z: Array = logits - logits.max(axis=-1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return z
