"""What a search keeps: hypotheses that still run, and those that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_float, as_indices, as_lengths, read
from ..compiled import Hold, core
from .compiled import Parts, parts_of
from .rules import Limits, Rules


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What a decoder said, from its first token to the end symbol, which is not among `tokens`."""

    tokens: Array  # (N,)
    log_prob: float  # log P(tokens, end symbol | source)
    score: float  # what it is ranked by
    attention: Array | None = None  # (N + 1, S): on the source's S steps, as each token was said


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
        self._lengths = np.full(self.count, shape[0], np.int64) if given is None else given
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

    def at_once(self, limits: Limits) -> list[list[Hypothesis]] | None:
        """Return the n best hypotheses about each source, found in one call of the compiled core.

        None where the steps are Python's to take: its own, or rescored, or with something to be
        refused.
        """
        parts = parts_of(self.model.decoder, self.state)
        if parts is None or not self._fits(parts, limits):
            return None
        search = core(self.model.decoder.dtype).search
        found = self._hold(search, parts, self.rules, limits, self._forced, self._lengths)
        return [[Hypothesis(*each) for each in mine] for mine in found]

    def _fits(self, parts: Parts, limits: Limits) -> bool:
        rules, known = self.rules, parts.embedding[0].layer.count
        said = max(rules.eos, -1 if self._forced is None else self._forced.max(initial=-1))
        return (
            rules.rescore is None
            and rules.bos < known
            and said < parts.vocabulary <= known
            and (parts.memory is not None or not limits.coverage_penalty)
            and max(rules.max_length, rules.no_repeat, limits.width) < 1 << 31
        )

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


def log_softmax(logits: npt.ArrayLike) -> Array:
    """Return log softmax of rows `(R, V)`."""
    rows = as_float("logits", logits)
    return core(rows.dtype).log_softmax(rows)


def likeliest_tokens(log_probs: Array, k: int) -> Array:
    """Return the k likeliest of each row `(R, k)`, in ascending order; of equals the first."""
    return core(log_probs.dtype).likeliest(log_probs, k)
