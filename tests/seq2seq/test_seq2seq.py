"""Sequence to sequence: differences through the whole model, and what it promises."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    Chain,
    ContextBridge,
    Decoder,
    Embedding,
    FinalBridge,
    LatencyControlled,
    Linear,
    LinearBridge,
    LuongAttention,
    MeanSquaredError,
    RowConvolution,
    Seq2Seq,
    SoftmaxCrossEntropy,
    TiedLinear,
    Windowed,
    length_mask,
    shifted,
)

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
    each_model,
    each_raggedness,
    encoder,
    forecaster,
    lengths,
    sutskever,
    tied,
    tokens,
)


class TestGradients:
    @each_raggedness
    @each_model
    def test_agree_with_differences(self, build: Callable[[str], Seq2Seq], ragged: bool) -> None:
        model, (source, target) = awake(build("float64")), tokens()
        criterion = SoftmaxCrossEntropy(label_smoothing=0.1, reduction="sum")
        inputs = shifted(target, 0)
        mask = length_mask(TARGET_LENGTHS, T) if ragged else None

        def loss() -> float:
            return criterion(model(source, inputs, **lengths(ragged)), target, mask)

        logits, pullback = model.vjp(source, inputs, **lengths(ragged))
        np.testing.assert_array_equal(logits, model(source, inputs, **lengths(ragged)))
        _, loss_back = criterion.vjp(logits, target, mask)
        assert pullback(loss_back()) == (None, None)
        assert_gradients_of(loss, ((p, model.grads[name]) for name, p in model.params.items()))


class TestGolden:
    @pytest.mark.parametrize("name", ["general, 2 layers", "feeding, concat", "bahdanau"])
    def test_torch_s_gradients_are_ours(self, name: str) -> None:
        with np.load(Path(__file__).parents[1] / "golden" / "seq2seq.npz") as file:
            golden = dict(file)

        def part(prefix: str) -> dict[str, np.ndarray]:
            start = f"{name}.{prefix}."
            return {n.removeprefix(start): a for n, a in golden.items() if n.startswith(start)}

        model = MODELS[name]("float64")
        model.load_state_dict(part("params"))
        given = {side: golden[side] for side in ("source_lengths", "target_lengths")}
        logits, pullback = model.vjp(golden["source"], golden["target"], **given)
        mask = length_mask(golden["target_lengths"], T)
        want = golden[f"{name}.logits"][mask]
        assert_close({"logits": logits[mask]}, {"logits": want}, 1e-12)
        pullback(golden["upstream"])
        assert_close(dict(model.grads), part("grads"), 1e-12)


class TestFeatures:
    @each_raggedness
    def test_gradients_agree_with_differences(self, ragged: bool) -> None:
        model, rng = awake(forecaster("float64")), np.random.default_rng(0)
        source, target = rng.standard_normal((S, B, 3)), rng.standard_normal((T, B, 2))
        wanted, criterion = rng.standard_normal((T, B, 2)), MeanSquaredError("sum")
        mask = length_mask(TARGET_LENGTHS, T) if ragged else None

        def loss() -> float:
            return criterion(model(source, target, **lengths(ragged)), wanted, mask)

        predicted, pullback = model.vjp(source, target, **lengths(ragged))
        dsource, dtarget = pullback(criterion.vjp(predicted, wanted, mask)[1]())
        params = ((p, model.grads[name]) for name, p in model.params.items())
        assert_gradients_of(loss, [(source, dsource), (target, dtarget), *params])

    def test_padding_may_hold_anything(self) -> None:
        model, rng = forecaster("float32"), np.random.default_rng(0)
        source = rng.standard_normal((S, B, 3), dtype=np.float32)
        target = rng.standard_normal((T, B, 2), dtype=np.float32)
        predicted, pullback = model.vjp(source, target, **lengths(True))
        clean = [predicted, *pullback(predicted), model.state_dict(), dict(model.grads)]
        clean[-1] = {name: grad.copy() for name, grad in model.grads.items()}
        model.zero_grad()
        for b in range(B):
            source[SOURCE_LENGTHS[b] :, b], target[TARGET_LENGTHS[b] :, b] = np.nan, np.nan
        predicted, pullback = model.vjp(source, target, **lengths(True))
        dirty = [predicted, *pullback(predicted), model.state_dict(), dict(model.grads)]
        for want, got in zip(clean[:3], dirty[:3], strict=True):
            np.testing.assert_array_equal(got, want)
        assert_same(dirty[-1], clean[-1])


class TestProtocol:
    @each_model
    def test_rows_do_not_see_each_other(self, build: Callable[[str], Seq2Seq]) -> None:
        model, (source, target) = build("float32"), tokens()
        whole = model(source, target, **lengths(True))
        for b in range(B):
            n, t = SOURCE_LENGTHS[b], TARGET_LENGTHS[b]
            np.testing.assert_array_equal(
                model(source[:n, b : b + 1], target[:t, b : b + 1]), whole[:t, b : b + 1]
            )

    @each_model
    def test_no_rows_and_no_steps(self, build: Callable[[str], Seq2Seq]) -> None:
        model, (source, target) = build("float32"), tokens()
        for inputs in ((source[:, :0], target[:, :0]), (source, target[:0])):
            logits, pullback = model.vjp(*inputs)
            assert logits.shape == (*inputs[1].shape, V)
            pullback(logits)
            assert not any(grad.any() for grad in model.grads.values())

    @each_model
    def test_sources_without_steps(self, build: Callable[[str], Seq2Seq]) -> None:
        model, (source, target) = build("float32"), tokens()
        logits, pullback = model.vjp(source[:0], target)
        assert np.isfinite(logits).all()
        pullback(np.ones_like(logits))
        assert all(np.isfinite(grad).all() for grad in model.grads.values())

    @each_model
    def test_params_travel(self, build: Callable[[str], Seq2Seq]) -> None:
        model, (source, target) = build("float32"), tokens()
        other = awake(build("float32"))
        other.load_state_dict(model.state_dict())
        np.testing.assert_array_equal(other(source, target), model(source, target))

    def test_a_pullback_serves_once(self) -> None:
        logits, pullback = MODELS["bahdanau"]("float32").vjp(*tokens())
        pullback(logits)
        with pytest.raises(RuntimeError, match="already run"):
            pullback(logits)

    def test_reversal_respects_lengths(self) -> None:
        model, (source, target) = sutskever("float32"), tokens()
        plain = Seq2Seq(model.encoder.layer, model.decoder, model.bridge)
        turned = source.copy()
        for b, n in enumerate(SOURCE_LENGTHS):
            turned[:n, b] = source[:n, b][::-1]
        np.testing.assert_array_equal(
            model(source, target, **lengths(True)), plain(turned, target, **lengths(True))
        )


class TestScheduled:
    @pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
    def test_mixes_in_what_the_model_draws(self, rate: float) -> None:
        model, (source, target) = MODELS["general, 2 layers"]("float32"), tokens()
        source, target = np.tile(source, 20), np.tile(target, 20)
        mixed = model.scheduled(source, target, rate, np.random.default_rng(0))
        np.testing.assert_array_equal(mixed[0], target[0])
        share = (mixed[1:] != target[1:]).mean()
        assert abs(share - rate * (1 - 1 / V)) < 0.1
        again = model.scheduled(source, target, rate, np.random.default_rng(0))
        np.testing.assert_array_equal(mixed, again)

    def test_features_are_those_predicted_from_what_stands_before(self) -> None:
        model, rng = forecaster("float64"), np.random.default_rng(0)
        source, target = rng.standard_normal((S, B, 3)), rng.standard_normal((T, B, 2))
        mixed = model.scheduled(source, target, 1.0, rng)
        np.testing.assert_array_equal(mixed[1:], model(source, mixed)[:-1])


class TestTied:
    def test_lists_the_table_once_and_sums_both_gradients(self) -> None:
        model = tied("float64")
        names = [n for n, p in model.params.items() if p.shape == (V, E)]
        assert names == ["encoder.0.weight", "decoder.embedding.weight"]
        assert "decoder.head.bias" in model.params
        assert model.params.keys() == model.grads.keys()

    @pytest.mark.parametrize("copy", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_copies_stay_tied(self, copy: Callable[[Seq2Seq], Seq2Seq]) -> None:
        model, (source, target) = tied("float32"), tokens()
        other = copy(model)
        before = other(source, target)
        np.testing.assert_array_equal(before, model(source, target))
        other.params["decoder.embedding.weight"] *= 2
        np.testing.assert_array_equal(model(source, target), before)
        logits, pullback = other.vjp(source, target)
        assert not np.array_equal(logits, before)
        pullback(logits)
        assert not model.grads["decoder.embedding.weight"].any()

    def test_wants_an_embedding(self) -> None:
        with pytest.raises(TypeError, match="embedding must be an Embedding, got Linear"):
            TiedLinear(Linear(3, 4))  # type: ignore[arg-type]


class TestErrors:
    def test_name_what_does_not_fit(self) -> None:
        embedding, head, attention = Embedding(V, E), Linear(H, V), LuongAttention(H, H)
        with pytest.raises(TypeError, match="rnn must be recurrent layers, got Linear"):
            Decoder(embedding, head, None, head)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="looks ahead"):
            Decoder(embedding, LSTM(E, H, bidirectional=True), None, head)
        with pytest.raises(ValueError, match="batch_first=False"):
            Decoder(embedding, LSTM(E, H, batch_first=True), None, head)
        with pytest.raises(ValueError, match="query_size 6, the rnn's output, got 5"):
            Decoder(embedding, LSTM(E, 6), attention, head)
        with pytest.raises(ValueError, match="input_feeding needs attention after the step"):
            Decoder(embedding, LSTM(E, H), None, head, input_feeding=True)
        with pytest.raises(ValueError, match="leaves no room"):
            Decoder(embedding, LSTM(E, H), attention, head, input_feeding=True)
        rnn = LSTM(E + H, H, recurrent_dropout=0.1)
        with pytest.raises(ValueError, match="takes no regularisers"):
            Decoder(embedding, rnn, attention, head, input_feeding=True)
        with pytest.raises(ValueError, match="same dtype"):
            Decoder(embedding, LSTM(E, H, dtype="float64"), None, head)
        decoder = Decoder(embedding, LSTM(E, H), None, head)
        with pytest.raises(TypeError, match="encoder must be a recurrent Module, got Embedding"):
            Seq2Seq(embedding, decoder)
        with pytest.raises(ValueError, match="encoder must be time-major: batch_first=False"):
            Seq2Seq(LSTM(E, H, batch_first=True), decoder)
        with pytest.raises(TypeError, match="decoder must be a Decoder, got LSTM"):
            Seq2Seq(LSTM(E, H), LSTM(E, H))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bridge must be a Bridge or None, got str"):
            Seq2Seq(LSTM(E, H), decoder, "final")  # type: ignore[arg-type]

    def test_name_bad_arguments(self) -> None:
        model, (source, target) = MODELS["dot"]("float32"), tokens()
        with pytest.raises(ValueError, match=r"source must have shape \(S, B\)"):
            model(source[0], target)
        with pytest.raises(ValueError, match=r"target must have shape \(T, B\), got \(4,\)"):
            model(source, target[0])
        with pytest.raises(ValueError, match="target has 3 rows, the source 4"):
            model(source, target[:, :3])
        encoded = np.zeros((S, B, H), "float32")
        with pytest.raises(ValueError, match="encoded must have 3 rows, got 4"):
            model.decoder(target[:, :3], encoded)
        with pytest.raises(TypeError, match="values is float64"):
            model.decoder(target, encoded.astype(float))
        with pytest.raises(ValueError, match=r"source_lengths must have shape \(4,\)"):
            model(source, target, source_lengths=[1])
        with pytest.raises(ValueError, match=r"target_lengths must be in 1\.\.6"):
            model(source, target, target_lengths=[7, 1, 1, 1])
        with pytest.raises(ValueError, match=r"x must be in 0\.\.6, got 13"):
            model(source, target + V)
        with pytest.raises(TypeError, match="no attention"):
            sutskever("float32").attention(source, target)
        with pytest.raises(ValueError, match=r"tokens must have shape \(4,\), got \(3,\)"):
            model.scheduled(source, target[:, :3], 1.0, np.random.default_rng(0))
        with pytest.raises(TypeError, match="target must be integers, got float64"):
            model.scheduled(source, target + 0.5, 1.0, np.random.default_rng(0))
        with pytest.raises(ValueError, match="rate must be in"):
            model.scheduled(source, target, 1.5, np.random.default_rng(0))

    @pytest.mark.parametrize(
        "encoder",
        [
            LatencyControlled([(GRU(E, H), GRU(E, H)), (GRU(2 * H, H), GRU(2 * H, H))], 2, 1),
            Windowed(GRU(E, H), GRU(E, H), None, None),
            Windowed(GRU(E, H), GRU(E, H), 1, 1),
            RowConvolution(E, 1),
        ],
        ids=lambda encoder: type(encoder).__name__,
    )
    def test_name_states_that_no_bridge_reads(self, encoder: Any) -> None:
        """A pair of states looks like h and c, and is not."""
        decoder = Decoder(Embedding(V, E), LSTM(E, H), None, Linear(H, V))
        model = Seq2Seq(encoder, decoder, LinearBridge(H, H))
        x, (_, target) = np.ones((S, B, E), "float32"), tokens()
        with pytest.raises(TypeError, match=r"a bridge cannot read the state|no state for the br"):
            model(x, target)
        Seq2Seq(encoder, decoder)(x, target)

    def test_a_row_convolution_behind_an_encoder(self) -> None:
        gru = GRU(E, H, dtype="float64", seed=0)
        decoder = Decoder(
            Embedding(V, E, dtype="float64", seed=2),
            GRU(E, H, dtype="float64", seed=3),
            None,
            Linear(H, V, dtype="float64", seed=4),
        )
        x, (_, target) = np.random.default_rng(0).standard_normal((S, B, E)), tokens()
        behind = Chain(gru, RowConvolution(H, 1, dtype="float64", seed=1))
        models = [Seq2Seq(encoder, decoder, FinalBridge()) for encoder in (gru, behind)]
        (want, want_back), (got, got_back) = (model.vjp(x, target) for model in models)
        np.testing.assert_array_equal(got, want)
        dx, want_dx = got_back(np.ones_like(got))[0], want_back(np.ones_like(want))[0]
        np.testing.assert_array_equal(dx, want_dx)

    def test_name_bridges_that_do_not_reach(self) -> None:
        source, target = tokens()
        decoder = Decoder(Embedding(V, E), LSTM(E, H, 2), None, Linear(H, V))
        with pytest.raises(ValueError, match=r"state\[0\] must have shape \(2, 4, 5\)"):
            Seq2Seq(encoder("float32"), decoder, FinalBridge())(source, target)
        gru = Decoder(Embedding(V, E), GRU(E, H), None, Linear(H, V))
        with pytest.raises(ValueError, match="the bridge needs cell_state=False"):
            Seq2Seq(encoder("float32"), gru, LinearBridge(H, H))
        with pytest.raises(ValueError, match="context_size is: it is 0"):
            Seq2Seq(encoder("float32"), decoder, ContextBridge(H, 4, H, 2))(source, target)


@pytest.mark.parametrize("bridge", [FinalBridge(), LinearBridge(3, 4)])
@pytest.mark.parametrize("layers", [[], [np.zeros((2, 3))], [(np.zeros(3), None)], [(None, None)]])
def test_bridges_refuse_what_are_no_final_states(bridge, layers):
    for call in (bridge, bridge.vjp):
        with pytest.raises(ValueError, match="layers"):
            call(layers)


def test_shifted_needs_steps():
    with pytest.raises(ValueError, match="target must have shape"):
        shifted(3, 0)
