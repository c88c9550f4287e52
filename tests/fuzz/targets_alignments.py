"""Calls of losses and searches over alignments."""

from __future__ import annotations

import numpy as np
import rnncore

from .hostile import Hostile, Program

# Logits are (6, 2, 4), or (2, 6, 3, 4) of a transducer; sequence 1 is shorter than sequence 0.


def _targets(hostile: Hostile) -> np.ndarray:
    return hostile.rng.integers(1, 4, (2, 2))


def _ctc(hostile: Hostile) -> None:
    loss = hostile.call(rnncore.CTCLoss, 0, "mean", hostile.maybe())
    hostile.results.clear()
    arguments = [hostile.normal(6, 2, 4), _targets(hostile), np.array([6, 4]), np.array([2, 1])]
    if hostile.maybe(0.3):
        arguments.append(np.array([0.5, 2.0]))
    value, pullback = hostile.call(loss.vjp, *arguments)
    hostile.results.clear()
    hostile.results += [value, hostile.call(pullback, 1.0)]


def _align(hostile: Hostile) -> None:
    x, lengths = hostile.normal(6, 2, 4), np.array([6, 4])
    hostile.call(rnncore.ctc_align, x, _targets(hostile), lengths, np.array([2, 1]), blank=0)


def _best_path(hostile: Hostile) -> None:
    hostile.call(rnncore.ctc_best_path, hostile.normal(6, 2, 4), np.array([6, 4]), blank=0)


def _search(hostile: Hostile) -> None:
    model = rnncore.CharacterNGram("abc", 2).fit(["abc", "ab"]) if hostile.maybe(0.3) else None
    search = hostile.call(
        rnncore.CTCBeamSearch, 3, n_best=2, language_model=model, lm_weight=0.5, label_bonus=0.1
    )
    hostile.results.clear()
    hostile.call(search, hostile.normal(6, 2, 4), np.array([6, 4]))
    stream = search.stream()
    hostile.call(stream.feed, hostile.normal(3, 4))
    hostile.results += stream.finish()


def _n_gram(hostile: Hostile) -> None:
    model = hostile.call(rnncore.CharacterNGram, "abc", 3, blank=0)
    hostile.results.clear()
    model.fit(["abc", "cab"])
    hostile.call(model.log_prob, "ab")
    hostile.call(rnncore.edit_distance, "abc", "ac")
    hostile.call(rnncore.error_rate, ["abc"], ["ac"])


def _crf(hostile: Hostile) -> None:
    crf = hostile.call(rnncore.CRF, 4, seed=1)
    x, lengths = hostile.normal(6, 2, 4), np.array([6, 4])
    tags = hostile.rng.integers(0, 4, (6, 2))
    hostile.results.clear()
    value, pullback = hostile.call(rnncore.CRFLoss(crf).vjp, x, tags, lengths)
    hostile.results.clear()
    hostile.results += [value, hostile.call(pullback, 1.0), dict(crf.grads)]
    hostile.call(crf.decode, x, lengths)
    hostile.call(crf.decode, x, lengths, n_best=2)
    hostile.call(crf.marginals, x, lengths)


def _transducer(hostile: Hostile) -> None:
    loss = hostile.call(rnncore.TransducerLoss, 0, "mean", 0.01)
    hostile.results.clear()
    x = hostile.normal(2, 6, 3, 4)
    value, pullback = hostile.call(loss.vjp, x, _targets(hostile), np.array([6, 4]))
    hostile.results.clear()
    hostile.results += [value, hostile.call(pullback, 1.0)]


def _joint(hostile: Hostile) -> None:
    joint = rnncore.TransducerJoint(5, 4, seed=1)
    f, g = hostile.normal(6, 2, 5), hostile.normal(3, 2, 5)
    joined, pullback = hostile.call(joint.vjp, f, g)
    loss = rnncore.TransducerLoss()
    value, back = hostile.call(loss.vjp, joined, _targets(hostile), np.array([6, 4]))
    hostile.results.clear()
    hostile.results += [value, *pullback(back()), dict(joint.grads)]


def _hear(hostile: Hostile) -> None:
    predictor = rnncore.Chain(
        rnncore.Embedding(4, 3, seed=1), rnncore.GRU(3, 5, seed=2), rnncore.Linear(5, 5, seed=3)
    )
    encoder = rnncore.Chain(rnncore.GRU(3, 5, seed=4), rnncore.Linear(5, 5, seed=5))
    model = rnncore.Transducer(encoder, predictor, rnncore.TransducerJoint(5, 4, seed=6))
    x = hostile.normal(4, 2, 3)
    hostile.call(model.greedy, x, np.array([4, 2]), max_symbols=2)
    hostile.call(model.beam, x, np.array([4, 2]), beam_size=2, n_best=2)
    hostile.call(model.vjp, (x, _targets(hostile), np.array([2, 1])), lengths=np.array([4, 2]))
    hostile.results.pop()


def _tags(hostile: Hostile) -> None:
    hostile.call(rnncore.tag_constraints, ["O", "B-x", "I-x"], "BIO")


ALIGNMENTS: list[Program] = [
    _ctc,
    _align,
    _best_path,
    _search,
    _n_gram,
    _crf,
    _transducer,
    _joint,
    _hear,
    _tags,
]
