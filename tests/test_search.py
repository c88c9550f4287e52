"""Search against the abstract protocol: greedy, beam and sampling on a small decoder of NumPy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import _core
from rnncore.seq2seq import search
from rnncore.seq2seq.search import Hypothesis
from rnncore.training.plots import plot_attention
from seq2seq_models import S, V, luong

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


def methods(model: Any, **options: Any) -> list[list[Hypothesis]]:
    """What each way of searching finds for three sources."""
    x, lengths = sources()
    options = {**KEYS, **options}
    greedy = search.greedy(model, x, lengths, **options)
    beam = search.beam(model, x, lengths, width=4, n_best=4, **options)
    sample = search.sample(model, x, lengths, count=5, seed=0, **options)
    return [[h] for h in greedy] + beam + sample


class TestRules:
    def test_lengths(self) -> None:
        for low, high in ((0, 1), (2, 3), (4, 4)):
            lengths = {
                len(h.tokens)
                for mine in methods(Toy(2), min_length=low, max_length=high)
                for h in mine
            }
            assert lengths <= set(range(low, high + 1))
            assert high in lengths
        assert all(EOS not in h.tokens for mine in methods(Toy(2)) for h in mine)

    def test_log_prob_is_the_models_own(self) -> None:
        x, lengths = sources()
        for options in ({"min_length": 2}, {"no_repeat": 1}, {"prefix": [2, 3]}):
            for i, mine in enumerate(methods(Toy(2), **options)):
                for h in mine:
                    want, _ = log_prob(Toy(2), x[:, i % 3], lengths[i % 3], h.tokens)
                    assert h.log_prob == pytest.approx(want, rel=1e-5)

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_no_run_of_tokens_occurs_twice(self, n: int) -> None:
        def repeats(no_repeat: int) -> int:
            found = methods(Toy(7), max_length=12, min_length=4, no_repeat=no_repeat)
            runs = [
                [tuple(h.tokens[i : i + n]) for i in range(len(h.tokens) - n + 1)]
                for mine in found
                for h in mine
            ]
            return sum(len(r) - len(set(r)) for r in runs)

        assert repeats(n) == 0
        assert repeats(0) > 0

    def test_where_nothing_may_follow_it_ends(self) -> None:
        found = methods(Toy(0), no_repeat=1, min_length=12, max_length=12)
        assert {len(h.tokens) for mine in found for h in mine} == {VOCABULARY - 1}

    def test_prefix_of_all_and_of_each(self) -> None:
        for mine in methods(Toy(1), prefix=[3, 3], no_repeat=1):
            assert mine
            assert all(h.tokens[:2].tolist() == [3, 3] for h in mine)
        each = [[2], [], [4, 3, 2]]
        for i, mine in enumerate(methods(Toy(1), prefix=each)):
            want = each[i % 3]
            assert all(h.tokens[: len(want)].tolist() == want for h in mine)
        free = search.beam(Toy(1), *sources(), width=4, **KEYS)
        assert_same(search.beam(Toy(1), *sources(), width=4, prefix=each, **KEYS)[1][0], free[1][0])

    def test_rescoring_sees_the_beginnings_and_decides(self) -> None:
        def rescore(log_probs: np.ndarray, tokens: np.ndarray) -> np.ndarray:
            assert len(log_probs) == len(tokens)
            np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-5)
            wanted = np.full_like(log_probs, -np.inf)
            wanted[:, 2 + tokens.shape[1] % 2] = -0.5
            return wanted

        for mine in methods(Toy(1), rescore=rescore, min_length=4):
            assert mine[0].tokens.tolist() == [2, 3, 2, 3]
        assert search.greedy(Toy(1), *sources(), **KEYS, rescore=lambda p, _: p * 0)[0].tokens.size

    def test_nan_stays_in_its_source(self) -> None:
        class Broken(Toy):
            def step(self, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
                logits, state = super().step(tokens, state)
                logits[np.abs(state.keys).sum(axis=(1, 2)) > 100] = np.nan
                return logits, state

            def start(self, source: np.ndarray, lengths: Any) -> State:
                state = super().start(source, lengths)
                state.keys[1] += 100
                return state

        lowest = float(np.finfo(np.float32).min)
        for i, mine in enumerate(methods(Broken(1))):
            if i % 3 == 1:
                assert all(h.tokens.size == 0 and h.log_prob == lowest for h in mine)
            else:
                assert all(np.isfinite(h.log_prob) and h.log_prob > -100 for h in mine)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_length": 0}, "max_length must be at least 1, got 0"),
            ({"min_length": 5}, r"min_length must be in 0..4 \(max_length\), got 5"),
            ({"no_repeat": -1}, "no_repeat must be at least 0, got -1"),
            ({"eos": -1}, "bos and eos must be at least 0, got 0 and -1"),
            ({"eos": 5}, r"eos must be in 0..4, got 5"),
            ({"prefix": [2] * 5}, "prefix must have at most 4 tokens, got 5"),
            ({"prefix": [[2], [], [3, 7]]}, r"prefix must be in 0\.\.4, got 7"),
            ({"prefix": [2, EOS]}, "the end symbol not among them"),
            ({"prefix": [[2], [3]]}, "prefix must be one, or 3, got 2"),
            ({"rescore": lambda p, _: p[:, 1:]}, r"rescore\(...\) must have shape"),
        ],
    )
    def test_bad_ones_are_named(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            search.greedy(Toy(), *sources(), **{**KEYS, **options})

    @pytest.mark.parametrize("name", ["bos", "eos"])
    def test_tokens_are_whole_numbers(self, name: str) -> None:
        with pytest.raises(TypeError, match=f"{name} must be an integer, got 1.0: 'float'"):
            search.greedy(Toy(), *sources(), **{**KEYS, name: 1.0})

    def test_unknown_keywords_are_refused(self) -> None:
        with pytest.raises(TypeError, match="beams"):
            search.beam(Toy(), *sources(), beams=3, **KEYS)


class TestSample:
    def test_frequencies_are_the_models(self) -> None:
        """At temperature 2, of 5,000 first tokens, within 4 standard deviations."""
        model, (x, lengths) = Toy(6, scale=0.7), sources(1)
        logits, _ = model.decoder.step(np.array([BOS]), model.start(x, lengths))
        p = np.exp(logits[0].astype(np.float64) / 2)
        p /= p.sum()
        (found,) = search.sample(
            model, x, lengths, count=5000, temperature=2.0, seed=3, **{**KEYS, "max_length": 1}
        )
        first = [int(h.tokens[0]) if h.tokens.size else EOS for h in found]
        counts = np.bincount(first, minlength=VOCABULARY)
        assert np.all(np.abs(counts - 5000 * p) < 4 * np.sqrt(5000 * p * (1 - p)))

    def test_top_k_and_top_p_leave_the_likeliest(self) -> None:
        model, (x, lengths) = Toy(6, scale=0.7), sources(1)
        logits, _ = model.decoder.step(np.array([BOS]), model.start(x, lengths))
        p = np.exp(logits[0].astype(np.float64))
        p /= p.sum()
        order = np.argsort(-p)

        def first(**options: Any) -> set[int]:
            options = {"count": 1000, "seed": 0, **KEYS, "max_length": 1, **options}
            (found,) = search.sample(model, x, lengths, **options)
            return {int(h.tokens[0]) if h.tokens.size else EOS for h in found}

        for k in range(1, VOCABULARY + 1):
            assert first(top_k=k) == set(order[:k].tolist())
            enough = p[order[:k]].sum() - 1e-3
            assert first(top_p=enough) == set(order[:k].tolist())
        pair = p[order[0]] / p[order[:2]].sum()
        assert first(top_k=2, top_p=pair - 1e-3) == {order[0]}
        assert first(top_k=99) == set(range(VOCABULARY))
        assert first(temperature=1e-3) == {order[0]}

    def test_top_1_is_greedy_and_seeds_repeat(self) -> None:
        model, (x, lengths) = Toy(4), sources(5)
        certain = search.sample(model, x, lengths, top_k=1, seed=0, **KEYS)
        for (got,), want in zip(certain, search.greedy(model, x, lengths, **KEYS), strict=True):
            assert_same(got, want)
        draws = [
            [
                [h.tokens.tolist() for h in mine]
                for mine in search.sample(model, x, lengths, count=3, seed=seed, **KEYS)
            ]
            for seed in (1, 1, 2)
        ]
        assert draws[0] == draws[1] != draws[2]
        assert all(len(mine) == 3 for mine in draws[0])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": 0}, "temperature must be above 0 and finite, got 0"),
            ({"temperature": np.inf}, "temperature must be above 0 and finite, got inf"),
            ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
            ({"top_k": -1}, "top_k must be at least 0, got -1"),
            ({"count": 0}, "count must be at least 1, got 0"),
        ],
    )
    def test_bad_options_are_named(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            search.sample(Toy(), *sources(), **options, **KEYS)


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
