"""Search against the abstract protocol: greedy, beam and sampling on a small decoder of NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import _core, search
from rnncore.training.plots import plot_attention

from tests.support.searches import (
    BOS,
    EOS,
    KEYS,
    VOCABULARY,
    State,
    Toy,
    assert_same,
    everything,
    log_prob,
    sources,
    wu,
)
from tests.support.seq2seq_models import S, V, luong


@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_likeliest_and_says_how_likely(seed: int) -> None:
    model, (x, lengths) = Toy(seed), sources(7)
    for b, found in enumerate(search.greedy(model, x, lengths, **KEYS)):
        state, before, tokens = model.start(x[:, b : b + 1], lengths[b : b + 1]), BOS, []
        for _ in range(KEYS["max_length"]):
            logits, state = model.decoder.step(np.array([before]), state)
            before = int(logits[0].argmax())
            if before == EOS:
                break
            tokens.append(before)
        total, weights = log_prob(model, x[:, b], lengths[b], tokens)
        assert found.tokens.tolist() == tokens
        assert found.score == found.log_prob == pytest.approx(total, abs=1e-6)
        assert found.attention.shape == (len(tokens) + 1, lengths[b])
        np.testing.assert_array_equal(found.attention, weights)


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_of_one_is_greedy_to_the_bit(seed: int) -> None:
    model, (x, lengths) = Toy(seed), sources(9)
    narrow = search.beam(model, x, lengths, width=1, **KEYS)
    for (got,), want in zip(narrow, search.greedy(model, x, lengths, **KEYS), strict=True):
        assert_same(got, want)


@pytest.mark.parametrize(("alpha", "beta"), [(0, 0), (0.7, 0), (0, 0.3), (1.5, 0.2)])
def test_a_beam_as_wide_as_the_space_is_exhaustive(alpha: float, beta: float) -> None:
    model, (x, lengths) = Toy(3, vocabulary=4), sources()
    space = everything(4, KEYS["max_length"])
    penalties = {"length_penalty": alpha, "coverage_penalty": beta}
    found = search.beam(model, x, lengths, width=len(space), n_best=7, **penalties, **KEYS)
    for b, mine in enumerate(found):
        scores = [wu(*log_prob(model, x[:, b], lengths[b], t), alpha, beta) for t in space]
        order = np.argsort(-np.array(scores))[:7]
        assert [tuple(h.tokens) for h in mine] == [space[i] for i in order]
        np.testing.assert_allclose([h.score for h in mine], np.array(scores)[order], rtol=1e-5)


def test_stopping_early_loses_nothing() -> None:
    """The whole space, all of it asked for, begins with what the search for one finds."""
    model, (x, lengths) = Toy(5, vocabulary=4), sources(6)
    space = len(everything(4, KEYS["max_length"]))
    for alpha in (0.0, 1.0):
        options = {"width": space, "length_penalty": alpha, **KEYS}
        model.rows = []
        one = search.beam(model, x, lengths, **options)
        short, model.rows = sum(model.rows), []
        everyone = search.beam(model, x, lengths, n_best=space, **options)
        assert short < sum(model.rows)
        for (got,), want in zip(one, everyone, strict=True):
            assert len(want) == space
            assert_same(got, want[0])


def test_pruning_gives_up_what_is_unlikely() -> None:
    model, (x, lengths) = Toy(5, scale=1.0), sources(6)
    options = {"width": 8, "n_best": 8, **KEYS}
    rows, found = [], []
    for prune in (np.inf, 3.0, 0.0):
        model.rows = []
        found.append(search.beam(model, x, lengths, prune=prune, **options))
        rows.append(sum(model.rows))
    assert rows[0] > rows[1] > rows[2]
    everything, some, one = found
    for b, greedy in enumerate(search.greedy(model, x, lengths, **KEYS)):
        assert_same(one[b][0], greedy)
        assert len(one[b]) == 1 <= len(some[b]) <= len(everything[b]) == 8
        assert all(h.log_prob > some[b][0].log_prob - 3.0001 for h in some[b])


def test_what_has_ended_is_dropped() -> None:
    model, (x, lengths) = Toy(2), sources(8)
    found = search.greedy(model, x, lengths, **KEYS)
    ends = np.array([len(h.tokens) + 1 for h in found])
    assert len(set(ends)) > 1
    assert model.rows == [int((ends > step).sum()) for step in range(ends.max())]
    model.rows = []
    search.beam(model, x, lengths, width=3, n_best=3, **KEYS)
    assert max(model.rows) <= 3 * 8
    assert model.rows[-1] < 3 * 8


@pytest.mark.parametrize("width", [1, 3])
def test_a_source_does_not_depend_on_the_others(width: int) -> None:
    model, (x, lengths) = Toy(4), sources(6)
    options = {"width": width, "n_best": width, "length_penalty": 0.5, **KEYS}
    together = search.beam(model, x, lengths, **options)
    for b, mine in enumerate(together):
        (alone,) = search.beam(model, x[:, [b]], lengths[[b]], **options)
        assert len(alone) == len(mine) == width
        for got, want in zip(mine, alone, strict=True):
            assert_same(got, want)


class TestSeq2Seq:
    def model(self, kind: str = "luong") -> rnncore.Seq2Seq:
        seed = np.random.default_rng(5)
        feeding, attention = kind == "input feeding", None
        if kind == "bahdanau":
            attention = rnncore.BahdanauAttention(8, 8, seed=seed)
        elif kind != "none":
            attention = rnncore.LuongAttention(8, 8, seed=seed)
        encoder = rnncore.Chain(
            rnncore.Embedding(9, 5, seed=seed), rnncore.LSTM(5, 4, bidirectional=True, seed=seed)
        )
        decoder = rnncore.Decoder(
            rnncore.Embedding(VOCABULARY, 5, seed=seed),
            rnncore.LSTM(13 if kind in ("bahdanau", "input feeding") else 5, 8, seed=seed),
            attention,
            rnncore.Linear(8, VOCABULARY, seed=seed),
            input_feeding=feeding,
        )
        model = rnncore.Seq2Seq(encoder, decoder, rnncore.FinalBridge())
        for param in model.params.values():
            param *= 3
        decoder.head.params["bias"][EOS] += 2  # so that some end early
        return model

    def test_greedy_says_what_the_whole_call_says(self) -> None:
        """Fed what it said itself, the model's likeliest tokens are the same, bit by bit."""
        model, (x, lengths) = self.model(), sources(20)
        found = search.greedy(model, x, lengths, **{**KEYS, "max_length": 9})
        steps = np.array([len(h.tokens) for h in found])
        said = np.full((10, 20), EOS)
        for b, h in enumerate(found):
            said[: steps[b], b] = h.tokens
        logits = model(
            x, rnncore.shifted(said, BOS), source_lengths=lengths, target_lengths=steps + 1
        )
        best = logits.argmax(axis=-1)
        for b, h in enumerate(found):
            end = min(steps[b] + 1, 9)
            assert best[:end, b].tolist() == said[:end, b].tolist()
            sums = np.exp(logits[: steps[b] + 1, b]).sum(axis=-1)
            terms = logits[np.arange(steps[b] + 1), b, said[: steps[b] + 1, b]] - np.log(sums)
            assert h.log_prob == pytest.approx(terms.sum(), rel=1e-5)
        assert steps.min() < steps.max() == 9

    @pytest.mark.parametrize("kind", ["luong", "bahdanau", "input feeding", "none"])
    def test_beams_do_not_depend_on_the_batch(self, kind: str) -> None:
        model, (x, lengths) = self.model(kind), sources(6)
        for width in (1, 4):
            penalty = 0.0 if kind == "none" else 0.2
            options = {"width": width, "n_best": width, "coverage_penalty": penalty, **KEYS}
            together = search.beam(model, x, lengths, **options)
            for b, mine in enumerate(together):
                (alone,) = search.beam(model, x[:, [b]], lengths[[b]], **options)
                for got, want in zip(mine, alone, strict=True):
                    assert_same(got, want)
        narrow = search.beam(model, x, lengths, width=1, **KEYS)
        for (got,), want in zip(narrow, search.greedy(model, x, lengths, **KEYS), strict=True):
            assert_same(got, want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"n_best": 6}, r"n_best must be in 1..5 \(width\), got 6"),
        ({"length_penalty": -1}, "length_penalty must be at least 0, got -1"),
        ({"coverage_penalty": -1}, "coverage_penalty must be at least 0, got -1"),
        ({"prune": -1}, "prune must be at least 0, got -1"),
    ],
)
def test_bad_beams_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search.beam(Toy(), *sources(), **options, **KEYS)


def test_sources_must_be_a_batch() -> None:
    with pytest.raises(ValueError, match=r"source must have shape \(S, B\) or \(S, B, I\)"):
        search.greedy(Toy(), np.zeros(3, int), **KEYS)


def test_an_empty_batch_has_no_hypotheses() -> None:
    assert search.greedy(Toy(), np.zeros((3, 0), int), **KEYS) == []
    assert search.beam(Toy(), np.zeros((3, 0), int), **KEYS) == []


def test_without_attention() -> None:
    class Plain(Toy):
        def step(self, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
            logits, state = super().step(tokens, state)
            return logits, State(state.h, state.keys, None)

    found = search.beam(Plain(), *sources(), **KEYS)
    assert all(h.attention is None for (h,) in found)
    with pytest.raises(ValueError, match="coverage_penalty needs a decoder with attention"):
        search.beam(Plain(), *sources(), coverage_penalty=0.5, **KEYS)


def test_a_picture_of_the_weights(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib draws the weights")
    (found,) = search.greedy(Toy(2), *sources(1), **KEYS)
    assert found.attention is not None
    source, target = ["a"] * found.attention.shape[1], ["b"] * len(found.attention)
    plot_attention(found.attention, source, target, tmp_path / "weights.png")
    assert (tmp_path / "weights.png").stat().st_size > 0
    with pytest.raises(ValueError, match="weights must have shape"):
        plot_attention(found.attention, source, target[1:], tmp_path / "weights.png")


def test_a_search_keeps_the_weights_that_it_began_with() -> None:
    model, source = luong("float32", "general"), np.arange(2 * S).reshape(S, 2) % V
    keys = {"bos": BOS, "eos": EOS, "max_length": 6, "min_length": 4}
    before = search.greedy(model, source, **keys)
    first = {name: param.copy() for name, param in model.params.items()}

    def meddle(log_probs: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        for name in ("decoder.rnn.weight_hh_l0", "decoder.head.weight"):
            model.params[name][:] = -first[name]
        return log_probs

    during = search.greedy(model, source, rescore=meddle, **keys)
    after = search.greedy(model, source, **keys)
    assert [h.log_prob for h in during] == [h.log_prob for h in before]
    assert [h.log_prob for h in after] != [h.log_prob for h in before]


def test_a_hold_is_the_calls_own() -> None:
    linear, x, hold = rnncore.Linear(3, 2, seed=0), np.ones((1, 3), np.float32), _core.Hold()
    y = hold(linear, x)
    linear.params["weight"][:] = 0
    np.testing.assert_array_equal(hold(linear, x), y)
    np.testing.assert_array_equal(linear(x)[0], linear.params["bias"])
    with pytest.raises(ValueError, match="x must"):
        hold(linear, x[:, :2])
    np.testing.assert_array_equal(linear(x)[0], linear.params["bias"])  # no longer under it
