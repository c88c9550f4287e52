"""What a search may be told: lengths, beginnings, repetitions, scores; how samples are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rnncore import search

from tests.support.searches import (
    BOS,
    EOS,
    KEYS,
    VOCABULARY,
    State,
    Toy,
    assert_same,
    log_prob,
    methods,
    sources,
)


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

    def test_a_huge_length_penalty_makes_all_scores_equal(self) -> None:
        options = {"length_penalty": 1e300, "min_length": 3, "width": 2, **KEYS}
        for mine in search.beam(Toy(0), *sources(2), **options):
            assert all(h.score == 0 for h in mine)

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
