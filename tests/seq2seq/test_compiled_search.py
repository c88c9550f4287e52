"""Searches in one call of the compiled core: those by Python, to the bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import search
from rnncore.search import Hypothesis
from rnncore.seq2seq.hypotheses import Search

from tests.support.searches import ByPython, Toy, assert_same, everything, sources, wu
from tests.support.seq2seq_models import (
    MODELS,
    SOURCE_LENGTHS,
    E,
    H,
    S,
    V,
    awake,
    each_model,
    luong,
    mixed,
    tokens,
)

KEYS = {"bos": 0, "eos": 1, "max_length": 8}
BEAMS: list[dict[str, Any]] = [
    {"width": 1},
    {"width": 4, "n_best": 4, "length_penalty": 0.6},
    {"width": 3, "n_best": 2, "no_repeat": 2, "min_length": 3},
    {"width": 2 * V, "n_best": V, "prune": 2.0, "length_penalty": 1.5},
    {"width": 5, "prefix": [[2], [], [3, 4, 3], [2]], "no_repeat": 1},
]
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the searches of a test ran in the compiled core, in order."""
    ran, at_once = [], Search.at_once

    def noted(self: Search, limits: Any) -> Any:
        found = at_once(self, limits)
        ran.append(found is not None)
        return found

    monkeypatch.setattr(Search, "at_once", noted)
    return ran


def assert_all_same(got: list[list[Hypothesis]], want: list[list[Hypothesis]]) -> None:
    assert [len(mine) for mine in got] == [len(mine) for mine in want]
    for mine, theirs in zip(got, want, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
            assert one.tokens.dtype == other.tokens.dtype
            if other.attention is not None:
                assert one.attention.dtype == other.attention.dtype


def both(model: Any, x: np.ndarray, lengths: Any, **options: Any) -> list[list[Hypothesis]]:
    """What a beam finds, which is what it finds by Python."""
    found = search.beam(model, x, lengths, **options)
    assert_all_same(found, search.beam(ByPython(model), x, lengths, **options))
    return found


class TestAsByPython:
    @each_model
    @each_dtype
    @pytest.mark.parametrize("lengths", [None, SOURCE_LENGTHS], ids=["even", "ragged"])
    def test_models(self, build: Any, dtype: str, lengths: Any, compiled: list[bool]) -> None:
        model, (x, _) = awake(build(dtype)), tokens()
        greedy = search.greedy(model, x, lengths, **KEYS)
        by_python = search.greedy(ByPython(model), x, lengths, **KEYS)
        assert_all_same([[h] for h in greedy], [[h] for h in by_python])
        for options in BEAMS:
            both(model, x, lengths, **{**KEYS, **options})
        if model.decoder.attention is not None:
            both(model, x, lengths, width=4, n_best=3, coverage_penalty=0.3, **KEYS)
        assert compiled == [True, False] * (len(compiled) // 2)

    @pytest.mark.parametrize("seed", range(0, 400, 20))
    def test_anything(self, seed: int, compiled: list[bool]) -> None:
        """All that may be asked for, of all kinds of numbers."""
        for n in range(seed, seed + 20):
            rng = np.random.default_rng(n)
            model = list(MODELS.values())[n % len(MODELS)](rng.choice(["float32", "float64"]))
            for param in model.params.values():
                param *= rng.choice([0, 0.5, 1, 2.5, 5])
            spoil(model, rng)
            batch = int(rng.choice([1, 2, 5]))
            lengths = rng.integers(1, S + 1, batch) if rng.random() < 0.5 else None
            options = rules(rng, batch)
            options |= limits(rng, model.decoder.attention is not None)
            both(model, rng.integers(0, V, (S, batch)), lengths, **options)
        assert compiled == [True, False] * 20

    @pytest.mark.parametrize("name", ["feeding, general, 2 layers", "bahdanau", "context"])
    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    def test_weights_of_fewer_bits(self, name: str, weights: Any, compiled: list[bool]) -> None:
        model = rnncore.quantize(MODELS[name]("float32"), weights)
        both(model, tokens()[0], SOURCE_LENGTHS, width=4, n_best=4, **KEYS)
        assert compiled == [True, False]

    def test_many_rows_on_any_number_of_threads(self) -> None:
        """The products of a step are then shared between threads."""
        model = rnncore.Seq2Seq(
            rnncore.Chain(rnncore.Embedding(V, 64, seed=0), rnncore.GRU(64, 128, seed=1)),
            rnncore.Decoder(
                rnncore.Embedding(V, 64, seed=2),
                rnncore.GRU(64 + 128, 128, 2, seed=3),
                rnncore.LuongAttention(128, 128, "concat", seed=4),
                rnncore.Linear(128, V, seed=5),
                input_feeding=True,
            ),
        )
        x, options = np.random.default_rng(0).integers(0, V, (9, 60)), {"width": 4, **KEYS}
        before, found = rnncore.get_num_threads(), []
        try:
            for threads in (1, 2):
                rnncore.set_num_threads(threads)
                found.append(both(model, x, None, **options))
        finally:
            rnncore.set_num_threads(before)
        assert_all_same(*found)

    def test_several_at_once(self) -> None:
        model, x = awake(luong("float32", "general", layers=2)), tokens()[0]
        options: dict[str, Any] = {
            **KEYS,
            "width": 4,
            "n_best": 4,
            "max_length": 90,
            "no_repeat": 2,
        }
        want = search.beam(model, x, SOURCE_LENGTHS, **options)
        with ThreadPoolExecutor(4) as pool:
            found = [
                pool.submit(search.beam, model, x, SOURCE_LENGTHS, **options) for _ in range(16)
            ]
        for call in found:
            assert_all_same(call.result(), want)

    @pytest.mark.parametrize(
        "rnn",
        [
            rnncore.LSTM(E, 3, 2, zoneout=(0.1, 0.2), seed=1),
            rnncore.LSTM(E, H, 2, proj_size=3, seed=1),
            rnncore.RNN(E, 3, nonlinearity="relu", seed=1),
            rnncore.MinGRU(E, 3, seed=1),
        ],
        ids=["zoneout", "projection", "relu", "no recurrent weights"],
    )
    def test_layers_around_embedding_and_head(self, rnn: Any, compiled: list[bool]) -> None:
        decoder = rnncore.Decoder(
            rnncore.Chain(rnncore.Embedding(V, 4, seed=0), rnncore.Linear(4, E), rnncore.Tanh()),
            rnn,
            None,
            rnncore.Chain(
                rnncore.LayerNorm(3), rnncore.ReLU(), rnncore.Dropout(0.5), rnncore.Linear(3, V)
            ),
        )
        model = rnncore.Seq2Seq(rnncore.Chain(rnncore.Embedding(V, 2), rnncore.GRU(2, 3)), decoder)
        both(model, tokens()[0], SOURCE_LENGTHS, width=3, n_best=3, **KEYS)
        assert compiled == [True, False]

    def test_sources_of_no_steps(self, compiled: list[bool]) -> None:
        model, none = luong("float32", "general"), np.zeros((0, 2), int)
        both(model, none, None, width=3, **KEYS)
        assert compiled == [True, False]
        assert search.beam(model, np.zeros((S, 0), int), width=3, **KEYS) == []

    def test_equals_are_taken_in_order(self) -> None:
        model = mixed("float32", rnncore.GRU, rnncore.GRU, False)
        for param in model.params.values():
            param[:] = 0
        options = {**KEYS, "eos": V - 1, "max_length": 2, "width": 4, "n_best": 4}
        (found,) = both(model, tokens()[0][:, :1], None, **options)
        assert [h.tokens.tolist() for h in found] == [[0, 0], [0, 1], [0, 2], [0, 3]]
        assert found[0].log_prob == pytest.approx(-3 * np.log(V), rel=1e-6)


def spoil(model: Any, rng: np.random.Generator) -> None:
    """Infinite and NaN weights in some models; equal logits in others."""
    params, kind = model.params, rng.integers(6)
    bias = params["decoder.head.bias"]
    bias += rng.choice([0, 0, 3]) * rng.integers(-1, 2, bias.shape)
    if kind == 0:
        bias[rng.integers(V)] = -np.inf
    elif kind == 1 and rng.random() < 0.3:
        bias[rng.integers(V)] = rng.choice([np.inf, np.nan])
    elif kind < 4:
        tables = [n for n in params if params[n].shape == (V, E) and ("embed" in n) == (kind == 2)]
        params[tables[0]][rng.integers(V)] = np.nan  # of the decoder, or of the encoder


def rules(rng: np.random.Generator, batch: int) -> dict[str, Any]:
    bos, eos, longest = (int(n) for n in rng.integers((0, 0, 1), (V, V, 12)))

    def prefix() -> list[int]:
        said = rng.integers(0, V, rng.integers(0, longest + 1))
        return [int(token) for token in said if token != eos]

    prefixes = [None, None, prefix(), [prefix() for _ in range(batch)]]
    return {
        "bos": bos,
        "eos": eos,
        "max_length": longest,
        "min_length": int(rng.integers(0, longest + 1)),
        "no_repeat": int(rng.choice([0, 0, 1, 2, 3])),
        "prefix": prefixes[rng.integers(4)],
    }


def limits(rng: np.random.Generator, attends: bool) -> dict[str, Any]:
    width = int(rng.choice([1, 2, 3, 5, 9, 40]))
    return {
        "width": width,
        "n_best": int(rng.integers(1, width + 1)),
        "length_penalty": rng.choice([0, 0.6, np.float32(1.5), 1e300]),
        "coverage_penalty": rng.choice([0, 0.2, 1]) * attends,
        "prune": rng.choice([np.inf, np.inf, 3, 0.5, 0]),
    }


@pytest.mark.parametrize("name", ["feeding, dot", "bahdanau", "local", "context"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_as_wide_as_the_space_it_is_exhaustive(name: str, alpha: float) -> None:
    """Beside all that could be said, each as one call with teacher forcing."""
    model, (x, _), space = awake(MODELS[name]("float64")), tokens(), everything(V, 2)
    beta = 0.0 if name in ("local", "context") else 0.3
    penalties = {"length_penalty": alpha, "coverage_penalty": beta}
    options = {**KEYS, **penalties, "max_length": 2, "width": len(space), "n_best": 9}
    found = search.beam(model, x, SOURCE_LENGTHS, **options)
    for b, mine in enumerate(found):
        scores = scores_of(space, model, x[: SOURCE_LENGTHS[b], b], alpha, beta)
        order = np.argsort(-scores)[:9]
        assert [tuple(h.tokens.tolist()) for h in mine] == [space[i] for i in order]
        np.testing.assert_allclose([h.score for h in mine], scores[order], rtol=1e-9)


def scores_of(
    space: list[tuple[int, ...]], model: Any, source: np.ndarray, alpha: float, beta: float
) -> np.ndarray:
    steps = np.array([len(sentence) + 1 for sentence in space])
    said = np.full((steps.max(), len(space)), KEYS["eos"])
    for at, sentence in enumerate(space):
        said[: len(sentence), at] = sentence
    sources = np.repeat(source[:, None], len(space), axis=1)
    given, ends = (sources, rnncore.shifted(said, KEYS["bos"])), {"target_lengths": steps}
    p = np.exp(model(*given, **ends))
    p /= p.sum(axis=-1, keepdims=True)
    logs = np.log(np.take_along_axis(p, said[..., None], axis=-1))[..., 0]
    weights = model.attention(*given, **ends) if beta else np.ones((steps.max(), len(space), 1))
    return np.array(
        [wu(logs[:n, i].sum(), weights[:n, i], alpha, beta) for i, n in enumerate(steps)]
    )


class Loud(rnncore.Decoder):
    """Never says 3."""

    def step(self, tokens: Any, state: Any) -> Any:
        logits, state = super().step(tokens, state)
        logits[:, 3] = -np.inf
        return logits, state


class Doubled(rnncore.Linear):
    def __call__(self, x: Any) -> np.ndarray:
        return 2 * super().__call__(x)


class TestPythonHasASay:
    """Where Python takes the steps, and where it says what is wrong."""

    @pytest.fixture
    def model(self) -> rnncore.Seq2Seq:
        return awake(luong("float32", "general"))

    def other(self, kind: type, head: Any, model: rnncore.Seq2Seq) -> rnncore.Seq2Seq:
        d = model.decoder
        return rnncore.Seq2Seq(
            model.encoder, kind(d.embedding, d.rnn, d.attention, head), model.bridge
        )

    def test_a_step_of_its_own(self, model: rnncore.Seq2Seq, compiled: list[bool]) -> None:
        model.decoder.head.params["bias"][3] = 5
        (loud,) = search.greedy(model, tokens()[0][:, :1], **KEYS)
        assert 3 in loud.tokens
        quiet = self.other(Loud, model.decoder.head, model)
        (found,) = search.greedy(quiet, tokens()[0][:, :1], **KEYS)
        assert 3 not in found.tokens
        model.decoder.step = quiet.decoder.step  # type: ignore[method-assign]
        assert_same(search.greedy(model, tokens()[0][:, :1], **KEYS)[0], found)
        assert compiled == [True, False, False]

    def test_a_layer_of_its_own(self, model: rnncore.Seq2Seq, compiled: list[bool]) -> None:
        head = Doubled(H, V, seed=4)
        (found,) = search.greedy(
            self.other(rnncore.Decoder, head, model), tokens()[0][:, :1], **KEYS
        )
        for param in head.params.values():
            param *= 2
        plain = rnncore.Linear(H, V, seed=4)
        plain.load_state_dict(head.state_dict())
        (want,) = search.greedy(
            self.other(rnncore.Decoder, plain, model), tokens()[0][:, :1], **KEYS
        )
        assert_same(found, want)
        assert compiled == [False, True]

    def test_rescoring(self, model: rnncore.Seq2Seq, compiled: list[bool]) -> None:
        x = tokens()[0]
        rescored = search.beam(model, x, width=3, rescore=lambda p, _: p, **KEYS)
        for got, want in zip(rescored, search.beam(model, x, width=3, **KEYS), strict=True):
            assert_same(got[0], want[0])
        assert compiled == [False, True]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"bos": V}, rf"must be in 0\.\.{V - 1}, got {V}"),
            ({"eos": V}, rf"eos must be in 0\.\.{V - 1}, got {V}"),
            ({"prefix": [V]}, rf"prefix must be in 0\.\.{V - 1}, got {V}"),
        ],
    )
    def test_refusals(self, options: Any, message: str, model: rnncore.Seq2Seq) -> None:
        with pytest.raises(ValueError, match=message):
            search.beam(model, tokens()[0], **{**KEYS, **options})

    def test_coverage_takes_attention(self) -> None:
        model = MODELS["final states"]("float32")
        with pytest.raises(ValueError, match="coverage_penalty needs a decoder with attention"):
            search.beam(model, tokens()[0], coverage_penalty=0.1, **KEYS)

    def test_tokens_that_the_embedding_does_not_know(self, model: rnncore.Seq2Seq) -> None:
        head = rnncore.Linear(H, V + 1, seed=0)
        head.params["bias"][V] = 100
        with pytest.raises(ValueError, match=f"got {V}"):
            search.greedy(self.other(rnncore.Decoder, head, model), tokens()[0], **KEYS)

    def test_widths_that_do_not_fit(self, model: rnncore.Seq2Seq) -> None:
        wide = self.other(rnncore.Decoder, rnncore.Linear(H + 1, V, seed=0), model)
        with pytest.raises(ValueError, match=f"x must have shape .*{H + 1}"):
            search.greedy(wide, tokens()[0], **KEYS)

    def test_parameters_that_were_resized(self, model: rnncore.Seq2Seq) -> None:
        bias = model.decoder.head.params["bias"]
        bias.resize(V + 1, refcheck=False)
        with pytest.raises(ValueError, match="must stay the array that it was"):
            search.greedy(model, tokens()[0], **KEYS)


def test_other_models_are_left_to_python(compiled: list[bool]) -> None:
    search.greedy(Toy(), *sources(), bos=0, eos=1)
    assert compiled == [False]
