"""Searching for what a decoder would say: greedy, beam, and random sampling.

    found = search.beam(model, source, lengths, bos=1, eos=2, width=5, n_best=3)
    found[0][0].tokens, found[0][0].score       # of the first source, the best hypothesis

The model is a `Seq2Seq`, or whatever gives `state = model.start(source, lengths)`, with a row for
each source of `(S, B, ...)`, and `logits (R, V), state = model.decoder.step(tokens (R,), state)`,
where `state.take(rows)` repeats, drops and re-orders rows, and `state.attention`, if there is that,
holds the last step's weights `(R, S)`. Logits are float32 or float64. All hypotheses about all
sources are one call of `step`, and what has ended is dropped. Of equally likely tokens the lowest
numbers come first.

`greedy` and `beam` of a `Seq2Seq` run in the compiled core from the first step to the last, unless
they are rescored: the same to the bit, without Python in between.

Every function takes the fields of `Rules` as keywords: bos, eos, max_length, min_length, no_repeat,
prefix, rescore.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array, check_count, check_number, check_size
from .seq2seq.hypotheses import Hypothesis, Search, likeliest_tokens
from .seq2seq.rules import Limits, Rules

__all__ = ["Hypothesis", "Rules", "beam", "greedy", "sample"]


def greedy(
    model: Any, source: npt.ArrayLike, lengths: npt.ArrayLike | None = None, **rules: Any
) -> list[Hypothesis]:
    """Take the likeliest token at every step; return a hypothesis for each source."""
    search = Search(model, source, lengths, Rules(**rules))
    found = search.at_once(Limits())
    if found is None:
        while len(search):
            log_probs = search.step()
            _follow(search, log_probs, log_probs.argmax(axis=1))
        found = search.best(1)
    return [best for (best,) in found]


def sample(
    model: Any,
    source: npt.ArrayLike,
    lengths: npt.ArrayLike | None = None,
    *,
    count: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | np.random.Generator | None = None,
    **rules: Any,
) -> list[list[Hypothesis]]:
    """Draw every token from softmax(logits / temperature); return `count` hypotheses per source.

    Drawn is among the `top_k` likeliest tokens (0: all), and of those among the fewest likeliest
    whose probabilities come to `top_p` (Holtzman et al. 2020). Hypotheses are ranked by `log_prob`,
    which is the model's own.
    """
    if not 0 < check_number("temperature", temperature) < np.inf:
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")
    if not 0 < check_number("top_p", top_p) <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    check_count("top_k", top_k, 0)
    search = Search(model, source, lengths, Rules(**rules), check_size("count", count))
    rng, started = np.random.default_rng(seed), len(search)
    running = np.arange(started)
    while len(search):
        # A number for all that started: what one draws does not depend on when others end.
        uniform = rng.random(started)[running]
        log_probs = search.step()
        tokens = _draw(log_probs, uniform, temperature, top_k, top_p)
        running = running[tokens != search.rules.eos]
        _follow(search, log_probs, tokens)
    return search.best(count)


def beam(
    model: Any,
    source: npt.ArrayLike,
    lengths: npt.ArrayLike | None = None,
    *,
    width: int = 5,
    n_best: int = 1,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    prune: float = np.inf,
    **rules: Any,
) -> list[list[Hypothesis]]:
    """Keep the `width` likeliest hypotheses at every step; return the n best for each source.

    A hypothesis Y about X that ends leaves the beam, which is narrower from then on, and has the
    score of Wu et al. 2016, equation 14, alpha and beta being the two penalties:

        log P(Y | X) / lp(Y) + cp(X; Y)
        lp(Y) = (5 + |Y|)^alpha / 6^alpha,  |Y| counting the end symbol
        cp(X; Y) = beta * sum_i log(min(sum_j p_ij, 1)),  p_ij the attention of step j to input i

    The second needs a decoder with attention; without, a penalty above 0 raises `ValueError`. A
    source is done when nothing that still runs can reach its n best (never before the whole beam
    has ended where `rescore` is given). Width 1 is `greedy`.

    A hypothesis that at any step is `prune` nats less likely than the likeliest about its source is
    given up (threshold pruning, Freitag and Al-Onaizan 2017): where a model is sure, a wide beam
    then costs little more than a narrow one.
    """
    limits = Limits(width, n_best, length_penalty, coverage_penalty, prune)
    search = _Beam(model, source, lengths, Rules(**rules), limits)
    found = search.at_once(limits)
    if found is not None:
        return found
    while len(search):
        search.extend(*search.choose(search.step()))
    return search.best(n_best)


class _Beam(Search):
    """At most `width` hypotheses for each source, those that have ended counted."""

    def __init__(
        self,
        model: Any,
        source: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        rules: Rules,
        limits: Limits,
    ) -> None:
        super().__init__(model, source, lengths, rules)
        self.limits = limits
        self.left = np.full(self.count, limits.width)
        #: Of those that ended: the best scores, and the highest log-probability.
        self.top = np.full((self.count, limits.n_best), -np.inf)
        self.likeliest = np.full(self.count, -np.inf)

    def choose(self, log_probs: Array) -> tuple[Array, Array, Array]:
        """Return rows, tokens and log-probabilities of what goes on, the likeliest first."""
        width = self.limits.width
        if self.limits.coverage_penalty and not self._attention:
            raise ValueError("coverage_penalty needs a decoder with attention")
        each = min(width, log_probs.shape[1])  # no more than that can come from one row
        likely = likeliest_tokens(log_probs, each)
        sums = self.log_prob[:, None] + log_probs[np.arange(len(self))[:, None], likely]
        table, sources, first = _by_source(self.sources, sums)
        order = np.argsort(-table, axis=1, kind="stable")[:, :width]
        best = table[np.arange(len(table))[:, None], order]
        room = np.arange(order.shape[1]) < self.left[sources, None]
        likeliest = np.maximum(best[:, 0], self.likeliest[sources])
        likely_enough = (best > -np.inf) & (best >= likeliest[:, None] - self.limits.prune)
        group, rank = np.nonzero(room & likely_enough)
        row, at = np.divmod(order[group, rank], each)
        row += first[group]
        return row, likely[row, at], best[group, rank]

    def _rank(self, sources: Array, log_prob: Array, steps: int, attention: Array | None) -> Array:
        score = self.limits.scaled(log_prob, steps)
        if self.limits.coverage_penalty:
            assert attention is not None
            score = score + self.limits.covered(attention, self._lengths[sources])
        table, several, _ = _by_source(sources, score[:, None])
        known = np.concatenate([self.top[several], table], axis=1)
        self.top[several] = -np.sort(-known, axis=1)[:, : self.top.shape[1]]
        np.maximum.at(self.likeliest, sources, log_prob)
        self.left -= np.bincount(sources, minlength=self.count)
        return score

    def _hopeful(self, sources: Array, log_prob: Array) -> Array:
        room = self.left[sources] > 0
        if self.rules.rescore is not None:
            return room
        reach = self.limits.scaled(log_prob, self.rules.max_length + 1)
        return np.asarray(room & (reach > self.top[sources, -1]))


def _follow(search: Search, log_probs: Array, tokens: Array) -> None:
    """Go on with every row by one token."""
    rows = np.arange(len(tokens))
    search.extend(rows, tokens, search.log_prob + log_probs[rows, tokens])


def _by_source(sources: Array, values: Array) -> tuple[Array, Array, Array]:
    """Put rows `(R, k)` of one source, which are neighbours, side by side: -inf where fewer.

    Returns the table `(G, most * k)`, the G different sources, and the first row of each.
    """
    rows = np.arange(len(sources))
    begins = np.append(True, sources[1:] != sources[:-1])
    first, group = np.flatnonzero(begins), np.cumsum(begins) - 1
    place = rows - first[group]
    table = np.full((len(first), place.max() + 1, values.shape[1]), -np.inf)
    table[group, place] = values
    return table.reshape(len(first), -1), sources[first], first


def _draw(log_probs: Array, uniform: Array, temperature: float, top_k: int, top_p: float) -> Array:
    """Draw a token for each row: uniform `(R,)` in [0, 1) says where in the cumulated sum."""
    vocabulary = log_probs.shape[1]
    tokens = likeliest_tokens(log_probs, min(top_k or vocabulary, vocabulary))
    if top_p < 1:
        order = np.argsort(-np.take_along_axis(log_probs, tokens, axis=1), axis=1, kind="stable")
        tokens = np.take_along_axis(tokens, order, axis=1)
    kept = np.take_along_axis(log_probs, tokens, axis=1).astype(np.float64)
    p = np.exp((kept - kept.max(axis=1, keepdims=True)) / temperature)
    sums = np.cumsum(p, axis=1)
    if top_p < 1:
        p[sums - p >= top_p * sums[:, -1:]] = 0
        sums = np.cumsum(p, axis=1)
    at = (sums / sums[:, -1:] <= uniform[:, None]).sum(axis=1)
    return np.asarray(tokens[np.arange(len(at)), at])
