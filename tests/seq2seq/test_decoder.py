"""The decoder: against the reference, its loop in C++, and step by step to the bit."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    MGU,
    RNN,
    BahdanauAttention,
    Decoder,
    Embedding,
    Identity,
    Linear,
    LuongAttention,
    Seq2Seq,
    SoftmaxCrossEntropy,
    length_mask,
    reference,
)
from rnncore.compositions.composition import run
from rnncore.recurrent.stack import Stacked
from rnncore.seq2seq.attention import Attention, MemoryGradients
from rnncore.seq2seq.teacher_forcing import Inputs, Outputs, in_turn, top
from rnncore.states import mapped

from tests.support.compare import assert_close, assert_gradients_of, assert_same
from tests.support.seq2seq_models import (
    MODELS,
    SOURCE_LENGTHS,
    TARGET_LENGTHS,
    B,
    E,
    H,
    S,
    T,
    V,
    awake,
    bahdanau,
    each_model,
    lengths,
    luong,
    tokens,
)


def by_steps(
    rnn: Stacked, attention: Attention, feeds: bool, inputs: Inputs, record: bool
) -> Outputs:
    """What `in_turn` does, with a call for each step."""
    first = state = inputs.state
    memory, size, before = inputs.memory, attention.memory_size, not feeds
    joined, joined_size = inputs.joined(rnn.input_size), attention.joined_size(feeds)
    ys: list[np.ndarray] = []
    looks, backs = [], []
    for t in range(len(joined)):
        alive = None if inputs.steps is None else (t < inputs.steps).astype(np.int64)
        now = joined[t : t + 1]
        if before:
            contexts, weights, attend_back = attention.look(
                top(state)[None], memory, alive, record=record
            )
            now[..., -joined_size:] = contexts[..., :size]
        elif t:
            now[..., -joined_size:] = ys[-1]
        (h, state), rnn_back = run(rnn, record, now, state)
        if feeds:
            contexts, weights, attend_back = attention.look(h, memory, alive, record=record)
        contexts[..., size:] = h
        y, merge_back = attention.merge(contexts, record)
        ys.append(y)
        looks.append(weights)
        backs.append((attend_back, rnn_back, merge_back))

    def pullback(dout: np.ndarray, d: MemoryGradients) -> tuple[Any, Any]:
        dstate, dx = mapped(np.zeros_like, first), np.zeros_like(joined)
        for t in reversed(range(len(joined))):
            attend_back, rnn_back, merge_back = backs[t]
            dy = dout[t : t + 1]
            if feeds and t + 1 < len(joined):
                dy = dy + dx[t + 1 : t + 2, :, -joined_size:]
            dcontexts = merge_back(dy)
            dcontext, dh = dcontexts[..., :size], dcontexts[..., size:]
            if feeds:
                dh = dh + attend_back(dcontext, d)
            dx[t : t + 1], dstate = rnn_back(dh, dstate)
            if before:
                top(dstate)[...] += attend_back(dcontext + dx[t : t + 1, :, -joined_size:], d)[0]
        return dx, dstate

    return Outputs(np.concatenate(ys), True, np.concatenate(looks), pullback)


CELLS: list[tuple[Any, dict[str, Any]]] = [
    (LSTM, {}),
    (GRU, {}),
    (LSTM, {"peephole": True}),
    (GRU, {"reset_after": False, "transition_depth": 2}),
    (LSTM, {"proj_size": True}),
    (MGU, {}),
    (RNN, {"nonlinearity": "relu"}),
]


class TestReference:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("dot", {}),
            ("concat", {}),
            ("general, 2 layers", {"num_layers": 2}),
            ("local", {"D": 2}),
            ("feeding, dot", {"feeding": True}),
            ("feeding, concat", {"feeding": True}),
            ("feeding, local", {"feeding": True, "D": 2}),
            ("bahdanau", {"before": True}),
        ],
    )
    def test_decodes_the_same(self, name: str, options: dict[str, Any]) -> None:
        model = awake(MODELS[name]("float64"))
        decoder, cell = model.decoder, reference.CELLS["gru" if name == "bahdanau" else "lstm"]
        rng = np.random.default_rng(0)
        encoded = rng.standard_normal((S, B, decoder.attention.memory_size))
        target = rng.integers(0, V, (T, B))
        got, weights = decoder(target, encoded, None, SOURCE_LENGTHS, TARGET_LENGTHS)
        x = decoder.embedding(target)
        for b, (length, steps) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
            zeros = np.zeros((options.get("num_layers", 1), 1, H))
            want = reference.decode(
                cell,
                dict(decoder.params),
                x[:steps, b],
                encoded[:length, b],
                (zeros, zeros) if cell is reference.CELLS["lstm"] else zeros,
                **options,
            )
            assert_close({"logits": got[:steps, b]}, {"logits": want[0]}, 1e-12)
            assert_close({"weights": weights[:steps, b, :length]}, {"weights": want[1]}, 1e-12)
            assert not got[steps:, b].any()
            assert not weights[:, b, length:].any()


class TestLoop:
    """The compiled loop over steps."""

    @pytest.mark.parametrize(
        "name",
        [
            "feeding, dot",
            "feeding, general, 2 layers",
            "feeding, concat",
            "feeding, local",
            "context and feeding",
            "bahdanau",
            "bahdanau, 2 layers",
        ],
    )
    def test_is_a_call_for_each_step(self, name: str) -> None:
        model, (source, target) = MODELS[name]("float64"), tokens()
        results = []
        for walk in (in_turn, by_steps):
            model.zero_grad()
            model.decoder._run = functools.partial(  # type: ignore[method-assign]
                walk, model.decoder.rnn, model.decoder.attention, model.decoder.input_feeding
            )
            logits, pullback = model.vjp(source, target, **lengths(True))
            pullback(np.sin(logits))
            results.append(({"logits": logits}, {n: g.copy() for n, g in model.grads.items()}))
        assert_same(*(outputs for outputs, _ in results))
        assert_close(results[0][1], results[1][1], 1e-12)

    @pytest.mark.parametrize("seed", range(12))
    def test_is_that_for_any_cell_and_size(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        (S, T), B, (P, W, E) = rng.integers(1, 12, 2), rng.integers(1, 70), rng.integers(1, 30, 3)
        before, score = bool(seed % 2), ("dot", "general", "concat")[seed % 3]
        cell, more = CELLS[seed % len(CELLS)]
        H = 2 * P if "proj_size" in more else P
        M = P if score == "dot" else rng.integers(1, 40)
        options: dict[str, Any] = {"dtype": "float64", "seed": rng}
        sizes = {"size": 5, "window": (None, 1, 3)[seed % 5 % 3], "output_size": W}
        kind = BahdanauAttention if before else LuongAttention
        attention = kind(P, M, score, **sizes, **options)
        more = more | {"proj_size": P} if "proj_size" in more else more
        rnn = cell(E + (M if before else W), H, 1 + seed % 3, **more, **options)
        decoder = Decoder(None, rnn, attention, Identity(), input_feeding=not before)
        x, encoded = rng.standard_normal((T, B, E)), rng.standard_normal((S, B, M))
        lengths = rng.integers(1, S + 1, B), rng.integers(1, T + 1, B) if seed % 4 else None
        results = []
        for walk in (in_turn, by_steps):
            decoder.zero_grad()
            decoder._run = functools.partial(  # type: ignore[method-assign]
                walk, rnn, attention, not before
            )
            (y, weights), pullback = decoder.vjp(x, encoded, None, *lengths)
            dx, dencoded, _, _ = pullback(np.cos(y))
            grads = {name: grad.copy() for name, grad in decoder.grads.items()}
            results.append(({"y": y, "w": weights}, grads | {"x": dx, "encoded": dencoded}))
        assert_same(*(outputs for outputs, _ in results))
        assert_close(results[0][1], results[1][1], 1e-12)

    @pytest.mark.parametrize("build", [bahdanau, luong], ids=["bahdanau", "feeding"])
    def test_has_dropout_between_layers(self, build: Callable[..., Seq2Seq]) -> None:
        more = {} if build is bahdanau else {"score": "concat", "feeding": True}
        model = awake(build("float64", layers=2, **more))
        rnn, (source, target) = model.decoder.rnn, tokens()
        rnn.dropout, criterion = 0.4, SoftmaxCrossEntropy(reduction="sum")
        masks = rnn.rng.bit_generator.state

        def run() -> Any:
            rnn.rng.bit_generator.state = masks
            return model.vjp(source, target, **lengths(True))

        mask = length_mask(TARGET_LENGTHS, T)
        logits, pullback = run()
        pullback(criterion.vjp(logits, target, mask)[1]())
        assert_gradients_of(
            lambda: criterion(run()[0], target, mask),
            ((p, model.grads[name]) for name, p in model.params.items()),
        )
        assert not np.array_equal(logits, model(source, target, **lengths(True)))

    @pytest.mark.parametrize("name", ["general, 2 layers", "feeding, concat", "bahdanau"])
    def test_the_number_of_threads_changes_no_bit(
        self, name: str, set_threads: Callable[[int], None]
    ) -> None:
        model, rng = MODELS[name]("float32"), np.random.default_rng(0)
        source, target = rng.integers(0, V, (17, 70)), rng.integers(0, V, (40, 70))
        ragged = {"source_lengths": rng.integers(1, 18, 70)}
        ragged |= {"target_lengths": rng.integers(1, 41, 70)}
        results = []
        for count in (1, 3):
            set_threads(count)
            model.zero_grad()
            logits, pullback = model.vjp(source, target, **ragged)
            pullback(logits)
            results.append({n: g.copy() for n, g in model.grads.items()} | {"y": logits})
        assert_same(*results)


class TestSteps:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @each_model
    def test_are_the_whole_to_the_bit(self, build: Callable[[str], Seq2Seq], dtype: str) -> None:
        model, (source, target) = build(dtype), tokens()
        whole = model(source, target, source_lengths=SOURCE_LENGTHS)
        state = model.start(source, SOURCE_LENGTHS)
        for t in range(T):
            logits, state = model.decoder.step(target[t], state)
            np.testing.assert_array_equal(logits, whole[t])

    def test_take_rows_in_any_order_and_number(self) -> None:
        model, (source, target) = MODELS["context and feeding"]("float32"), tokens()
        whole = model(source, target, source_lengths=SOURCE_LENGTHS)
        _, state = model.decoder.step(target[0], model.start(source, SOURCE_LENGTHS))
        rows = np.array([3, 1, 1, 0, 3])
        taken = state.take(rows)
        logits, after = model.decoder.step(target[1][rows], taken)
        np.testing.assert_array_equal(logits, whole[1][:, :][rows])
        assert len(after) == 5
        assert after.memory is state.memory
        weights = model.attention(source, target, source_lengths=SOURCE_LENGTHS)
        np.testing.assert_array_equal(after.attention, weights[1][rows])
        assert len(state.take(np.array([False, True, False, True]))) == 2

    def test_name_what_does_not_fit(self) -> None:
        model, (source, _) = MODELS["feeding, dot"]("float32"), tokens()
        state = model.start(source)
        for given, message in (
            ([1, 2], r"tokens must have shape \(4,\), got \(2,\)"),
            ([[1, 2, 3, 4]], r"tokens must have shape \(4,\), got \(1, 4\)"),
        ):
            with pytest.raises(ValueError, match=message):
                model.decoder.step(given, state)
        with pytest.raises(TypeError, match="tokens must be integers, got float64"):
            model.decoder.step([1.0, 2.0, 3.0, 4.0], state)
        with pytest.raises(ValueError, match=r"rows must be in 0\.\.3, got 4"):
            state.take([0, 4])
        with pytest.raises(TypeError, match="rows must be integers, got bool"):
            state.take([True])
        assert len(state.take([])) == 0

    def test_features_may_be_a_list(self) -> None:
        decoder = Decoder(None, GRU(2, 3, seed=0), None, Linear(3, 1, seed=1))
        state = decoder.start(np.zeros((1, 1, 3), "f"))
        logits, _ = decoder.step([[0.5, 1.0]], state)
        want, _ = decoder.step(np.array([[0.5, 1.0]], "f"), state)
        np.testing.assert_array_equal(logits, want)

    @pytest.mark.parametrize("size", [E - 1, E + 2, E + H])
    def test_embeddings_of_another_width(self, size: int) -> None:
        """Else zeros would stand in between, or what is fed back over the embedding."""
        attention = LuongAttention(H, H, "dot", seed=0)
        rnn, head = GRU(E + H, H, seed=1), Linear(H, V, seed=2)
        decoder = Decoder(Embedding(V, size), rnn, attention, head, input_feeding=True)
        encoded = np.zeros((S, B, H), "f")
        with pytest.raises(ValueError, match=f"embedding must give {E} features.*got {size}"):
            decoder(tokens()[1], encoded)
        with pytest.raises(ValueError, match=f"embedding must give {E} features.*got {size}"):
            decoder.step([1] * B, decoder.start(encoded))

    def test_attention_weights_add_up_to_one(self) -> None:
        model, (source, target) = MODELS["general, 2 layers"]("float64"), tokens()
        weights = model.attention(source, target, **lengths(True))
        assert weights.shape == (T, B, S)
        written = length_mask(TARGET_LENGTHS, T)
        np.testing.assert_allclose(weights.sum(axis=-1), written, atol=1e-15)
