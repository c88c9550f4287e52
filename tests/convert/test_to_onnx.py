"""Written as ONNX: ONNX Runtime computes the same; reading gives models back, as modules too."""

import sys

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    MGU,
    RNN,
    Bidirectional,
    Chain,
    DeepRNN,
    Dropout,
    Elementwise,
    Embedding,
    Identity,
    LayerNorm,
    Linear,
    Readout,
    ReLU,
    Reversed,
    RowConvolution,
    Sigmoid,
    Softmax,
    SpecAugment,
    Tanh,
    TiedLinear,
)
from rnncore.convert import from_onnx, to_onnx
from rnncore.module import load, modules

from tests.support.compare import assert_close, assert_same
from tests.support.gradients import leaves

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

import onnx
from onnx import helper

from tests.support.onnx_graphs import INPUTS, H, T, graph_of, recurrent, run_by_runtime, runtime

# Attributes are float32: these constants are whole numbers of small powers of two.
_CHOSEN = (("hard_sigmoid", 0.25, 0.375), "softsign", ("scaled_tanh", 1.75, 0.625))
MODELS = {
    "rnn": lambda **o: RNN(3, 4, **o),
    "rnn_relu_deep": lambda **o: RNN(3, 4, 2, nonlinearity="relu", bidirectional=True, **o),
    "rnn_leaky": lambda **o: RNN(3, 4, nonlinearity=("leaky_relu", 0.25), bias=False, **o),
    "lstm": lambda **o: LSTM(3, 4, **o),
    "lstm_deep": lambda **o: LSTM(3, 4, 3, bidirectional=True, dropout=0.5, **o),
    "lstm_one_unit": lambda **o: LSTM(1, 1, **o),
    "lstm_peephole": lambda **o: LSTM(3, 4, peephole=True, bidirectional=True, **o),
    "lstm_coupled": lambda **o: LSTM(3, 4, coupled=True, **o),
    "lstm_coupled_peephole": lambda **o: LSTM(3, 4, coupled=True, peephole=True, **o),
    "lstm_clipped": lambda **o: LSTM(3, 4, 2, gate_clip=0.375, **o),
    "lstm_chosen": lambda **o: LSTM(3, 4, activations=_CHOSEN, bidirectional=True, **o),
    "lstm_linear": lambda **o: LSTM(3, 4, activations=("softsign", "softplus", "identity"), **o),
    "gru": lambda **o: GRU(3, 4, **o),
    "gru_reset_before": lambda **o: GRU(3, 4, 2, reset_after=False, bidirectional=True, **o),
    "gru_clipped": lambda **o: GRU(3, 4, gate_clip=0.375, bias=False, **o),
    "both_mean": lambda **o: Bidirectional(LSTM(3, 4, **o), GRU(3, 4, 2, **o), "mean"),
    "both_concat": lambda **o: Bidirectional(RNN(3, 4, **o), GRU(3, 2, **o)),
    "reversed": lambda **o: Reversed(LSTM(3, 4, **o)),
    "deep": lambda **o: DeepRNN(3, 4, input_depth=2, output_depth=2, bidirectional=True, **o),
    "deep_lstm": lambda **o: DeepRNN(3, 4, cell="lstm", num_layers=2, output_depth=3, **o),
    "deep_residual": lambda **o: DeepRNN(3, 4, cell="lstm", num_layers=3, residual=True, **o),
    "deep_skip": lambda **o: DeepRNN(
        3, 4, cell="gru", num_layers=3, skip=True, bidirectional=True, output_depth=2, **o
    ),
    "final": lambda **o: Readout(LSTM(3, 4, 2, bidirectional=True, **o)),
    "mean": lambda **o: Readout(LSTM(3, 4, 2, bidirectional=True, **o), "mean"),
    "mean_both": lambda **o: Readout(Bidirectional(RNN(3, 4, **o), GRU(3, 4, **o), "mul"), "mean"),
    "last_step": lambda **o: Readout(LSTM(3, 4, 2, bidirectional=True, **o), "last_step"),
    "last_step_both": lambda **o: Readout(
        Bidirectional(RNN(3, 4, **o), GRU(3, 4, **o)), "last_step"
    ),
    "last_step_chain": lambda **o: Readout(
        Chain(LSTM(3, 4, **o), Linear(4, 2, dtype=o.get("dtype", "float32"))), "last_step"
    ),
    "mean_chain": lambda **o: Readout(
        Chain(LSTM(3, 4, **o), Linear(4, 2, dtype=o.get("dtype", "float32"))), "mean"
    ),
    "final_both": lambda **o: Readout(
        Bidirectional(RNN(3, 4, **o), Reversed(GRU(3, 4, **o)), "sum")
    ),
}
SURROUNDED = {
    "tagger": lambda dtype="float32", batch_first=False: Chain(
        Embedding(7, 3, dtype=dtype),
        LSTM(3, 4, bidirectional=True, dtype=dtype, batch_first=batch_first),
        Dropout(0.5),
        SpecAugment(1, 2, 1, 3, batch_first=batch_first),
        LayerNorm(8, 2**-16, dtype=dtype),
        Linear(8, 5, dtype=dtype),
        Tanh(),
        Chain(GRU(5, 2, dtype=dtype, batch_first=batch_first), Identity()),
        Softmax(),
    ),
    "activations": lambda dtype="float32": Chain(
        Linear(3, 4, bias=False, dtype=dtype),
        ReLU(),
        Sigmoid(),
        *(Elementwise(name) for name in ("relu", "tanh", "sigmoid", "identity", "softsign")),
        *(Elementwise(spec) for spec in (("affine", 3.0, -1.5), ("leaky_relu", 0.2), "selu")),
        *(Elementwise(spec) for spec in (("thresholded_relu", 0.3), ("elu", 0.7), "softplus")),
        *(Elementwise(spec) for spec in (("scaled_tanh", 1.7, 0.6), "exponential")),
        Elementwise(("hard_sigmoid", 0.3, 0.1)),
        *(Elementwise(name) for name in ("elu", "leaky_relu", "thresholded_relu")),
    ),
}


def scrambled(model, rng):
    for param in model.params.values():
        param[...] = 0.5 * rng.standard_normal(param.shape)
    return model


def states_like(state, rng):
    if isinstance(state, tuple):
        return tuple(states_like(part, rng) for part in state)
    return rng.standard_normal(state.shape).astype(state.dtype)


def written(tmp_path, model, **options):
    path = tmp_path / "model.onnx"
    to_onnx(model, path, **options)
    return path


def input_of(model, rng, steps=6, batch=3):
    batch_first = any(part.batch_first for part in modules(model))
    shape = (batch, steps) if batch_first else (steps, batch)
    if isinstance(model, Chain) and isinstance(model[0], Embedding):
        return rng.integers(7, size=shape)
    size = next(iter(model.params.values())).shape[1]
    dtype = next(iter(model.params.values())).dtype
    return rng.standard_normal((*shape, size)).astype(dtype)


@pytest.mark.parametrize("name", [*MODELS, "tagger"])
class TestWriting:
    def case(self, name, rng, **options):
        make = MODELS.get(name) or SURROUNDED[name]
        model = scrambled(make(**options), rng)
        x = input_of(model, rng)
        state = states_like(model(x)[1], rng)
        return model, x, np.array([6, 2, 4], np.int32), state

    @pytest.mark.parametrize("batch_first", [False, True])
    def test_onnx_runtime_computes_the_same(self, tmp_path, rng, name, batch_first):
        runtime()
        model, x, ends, state = self.case(name, rng, batch_first=batch_first)
        proto = onnx.load(written(tmp_path, model))
        y, after = model(x, state, lengths=ends)
        names = [value.name for value in proto.graph.input]
        inputs = dict(zip(names, (x, ends, *leaves(state)), strict=True))
        for mine, theirs in zip((y, *leaves(after)), run_by_runtime(proto, inputs), strict=True):
            assert_close({"y": theirs}, {"y": mine}, 2e-5)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_reading_gives_it_back(self, tmp_path, rng, name, dtype):
        model, x, ends, state = self.case(name, rng, dtype=dtype)
        again = from_onnx(written(tmp_path, model))
        y, after = model(x, state, lengths=ends)
        got = again.run(x, ends, *leaves(state))
        for mine, theirs in zip(got, (y, *leaves(after)), strict=True):
            assert_close({"y": mine}, {"y": theirs}, {"float32": 2e-5, "float64": 1e-12}[dtype])

    def test_without_lengths_and_states(self, tmp_path, rng, name):
        model, x, _, _ = self.case(name, rng)
        again = from_onnx(written(tmp_path, model, lengths=False, state=False))
        assert (list(again.inputs), again.outputs) == (["x"], ("y",))
        (y,) = again.run(x)
        assert_close({"y": y}, {"y": model(x)[0]}, 2e-5)
        short = x[:1, :2]
        assert_close({"y": again.run(short)[0]}, {"y": model(short)[0]}, 2e-5)
        for empty in (x[:, :0], x[:0]):  # no rows; no steps
            got, want = again.run(empty)[0], model(empty)[0]
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", [*MODELS, "tagger"])
class TestSequencesOfNoSteps:
    def case(self, tmp_path, rng, name, batch_first):
        make = MODELS.get(name) or SURROUNDED[name]
        model = scrambled(make(batch_first=batch_first), rng)
        x = input_of(model, rng)
        return model, written(tmp_path, model), x, states_like(model(x)[1], rng)

    def test_end_in_the_state_in_which_they_began(self, tmp_path, rng, name, batch_first):
        model, path, x, state = self.case(tmp_path, rng, name, batch_first)
        again, lengths = from_onnx(path), np.array([6, 0, 4], np.int32)
        y, *after = again.run(x, lengths, *leaves(state))
        whole, *others = again.run(x, np.array([6, 6, 4], np.int32), *leaves(state))
        for given, found, other in zip(leaves(state), after, others, strict=True):
            np.testing.assert_array_equal(found[:, 1], given[:, 1])
            np.testing.assert_array_equal(found[:, [0, 2]], other[:, [0, 2]])
        rows = [0, 2] if batch_first or isinstance(model, Readout) else (slice(None), [0, 2])
        np.testing.assert_array_equal(y[rows], whole[rows])
        assert np.isfinite(y).all()
        if isinstance(model, Readout):
            mine, mine_after = model(x, state, lengths=lengths)
            assert not mine[1].any()
            for found, other in zip((y, *after), (mine, *leaves(mine_after)), strict=True):
                assert_close({"y": found}, {"y": other}, 2e-5)

    def test_are_the_same_in_onnx_runtime(self, tmp_path, rng, name, batch_first):
        runtime()
        _, path, x, state = self.case(tmp_path, rng, name, batch_first)
        given = (x, np.array([6, 0, 4], np.int32), *leaves(state))
        proto, ours = onnx.load(path), from_onnx(path).run(*given)
        names = [value.name for value in proto.graph.input]
        theirs = run_by_runtime(proto, dict(zip(names, given, strict=True)))
        for mine, other in zip(ours, theirs, strict=True):
            assert_close({"y": other}, {"y": mine}, 2e-5)


def test_activations_as_layers(tmp_path, rng):
    model = scrambled(SURROUNDED["activations"](), rng)
    path = written(tmp_path, model, verify=True, report=str)
    x = rng.standard_normal((4, 2, 3)).astype(np.float32)
    assert_close({"y": from_onnx(path).run(x)[0]}, {"y": model(x)}, 2e-5)


def test_the_inputs_are_named_by_where_they_stand(tmp_path):
    model = Chain(Linear(3, 4), LSTM(4, 5, 2), Bidirectional(GRU(5, 2), RNN(5, 2)))
    again = from_onnx(written(tmp_path, model))
    states = ["1.h0", "1.c0", "2.forward.h0", "2.backward.h0"]
    assert list(again.inputs) == ["x", "lengths", *states]
    assert again.outputs == ("y", "1.h", "1.c", "2.forward.h", "2.backward.h")
    assert again.inputs["1.h0"].shape == (2, "batch", 5)
    assert again.inputs["x"].shape == ("time", "batch", 3)


MODULES = ("rnn", "rnn_relu_deep", "lstm", "lstm_deep", "lstm_peephole", "lstm_coupled_peephole")
MODULES += ("lstm_clipped", "lstm_chosen", "gru", "gru_reset_before", "final", "tagger")


class TestModule:
    """A graph that is a chain becomes modules again."""

    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("name", MODULES)
    def test_of_our_own_graphs(self, tmp_path, rng, name, batch_first):
        model = scrambled((MODELS.get(name) or SURROUNDED[name])(batch_first=batch_first), rng)
        x, ends = input_of(model, rng), [6, 2, 4]
        again = from_onnx(written(tmp_path, model)).module()
        assert_close({"y": again(x, lengths=ends)[0]}, {"y": model(x, lengths=ends)[0]}, 2e-6)
        assert sum(a.size for a in again.params.values()) == sum(
            a.size for a in model.params.values()
        )

    def test_is_saved_with_its_layout(self, tmp_path, rng):
        model = scrambled((MODELS.get("final") or SURROUNDED["final"])(batch_first=True), rng)
        again = from_onnx(written(tmp_path, model)).module()
        again.save(tmp_path / "again.safetensors")
        x, loaded = input_of(model, rng), load(tmp_path / "again.safetensors")
        np.testing.assert_array_equal(loaded(x)[0], again(x)[0])

    def test_is_a_copy_that_trains(self, tmp_path, rng):
        graph = from_onnx(written(tmp_path, LSTM(3, 4), lengths=False, state=False))
        x = rng.standard_normal((6, 3, 3)).astype(np.float32)
        (before,) = graph.run(x)
        module = graph.module()
        (y, _), pullback = module.vjp(x)
        pullback(np.ones_like(y))
        for name, grad in module.grads.items():
            assert grad.any()
            module.params[name] -= grad
        np.testing.assert_array_equal(graph.run(x)[0], before)

    def test_of_graphs_as_exporters_write_them(self, rng):
        """Batch-major input, zeros for the state, one direction, the last step, then Gemm."""
        make = helper.make_node
        arrays = {"W": (1, 3 * H, INPUTS), "R": (1, 3 * H, H), "B": (1, 6 * H), "gemm": (5, H)}
        arrays = {n: rng.standard_normal(s).astype(np.float32) for n, s in arrays.items()}
        arrays |= {"last": np.array(-1), "c": np.zeros(5, np.float32), "one": np.array([1])}
        arrays |= {"h0": np.zeros((1, 3, H), np.float32)}
        nodes = [
            make("Transpose", ["x"], ["turned"], perm=[1, 0, 2]),
            make("GRU", ["turned", "W", "R", "B", "", "h0"], ["Y", ""], hidden_size=H),
            make("Squeeze", ["Y", "one"], ["y"]),
            make("Transpose", ["y"], ["back"], perm=[1, 0, 2]),
            make("Gather", ["back", "last"], ["end"], axis=1),
            make("Gemm", ["end", "gemm", "c"], ["scores"], transB=1),
        ]
        x = rng.standard_normal((3, T, INPUTS)).astype(np.float32)
        graph = from_onnx(graph_of(nodes, {"x": x}, {"scores": (3, 5)}, arrays))
        module = graph.module()
        assert [type(layer) for layer in module.layers] == [Readout, Linear]
        assert module[0].layer.batch_first
        assert_close({"y": module(x)[0]}, {"y": graph.run(x)[0]}, 1e-6)
        arrays["h0"] += 1  # as constants, it becomes a parameter
        graph = from_onnx(graph_of(nodes, {"x": x}, {"scores": (3, 5)}, arrays))
        module = graph.module()
        assert (module.params["0.layer.initial_h_l0"] == 1).all()
        assert_close({"y": module(x)[0]}, {"y": graph.run(x)[0]}, 1e-6)

    def test_the_last_step_of_both_directions(self, rng):
        make = helper.make_node
        arrays = {"W": (2, 3 * H, INPUTS), "R": (2, 3 * H, H)}
        arrays = {n: rng.standard_normal(s).astype(np.float32) for n, s in arrays.items()}
        arrays |= {"last": np.array(-1), "shape": np.array([0, 0, -1])}
        nodes = [
            make("GRU", ["x", "W", "R"], ["Y"], hidden_size=H, direction="bidirectional"),
            make("Transpose", ["Y"], ["turned"], perm=[0, 2, 1, 3]),
            make("Reshape", ["turned", "shape"], ["y"]),
            make("Gather", ["y", "last"], ["end"], axis=0),
        ]
        x = rng.standard_normal((T, 3, INPUTS)).astype(np.float32)
        graph = from_onnx(graph_of(nodes, {"x": x}, {"end": (3, 2 * H)}, arrays))
        module = graph.module()
        assert module.reading == "last_step"
        assert_close({"y": module(x)[0]}, {"y": graph.run(x)[0]}, 1e-6)

    def test_what_is_no_chain_is_named(self, tmp_path, rng):
        graph = from_onnx(written(tmp_path, Bidirectional(RNN(3, 4), GRU(3, 4))))
        with pytest.raises(ValueError, match="a chain cannot represent ReverseSequence"):
            graph.module()
        proto, _ = recurrent(rng, "RNN", {}, held=False)
        with pytest.raises(ValueError, match="a chain cannot represent RNN 0, whose weights"):
            from_onnx(proto).module()

    def test_a_bias_that_is_an_input_is_not_dropped(self, rng):
        """All zeros, which the trial takes for it, would hide it."""
        x, bias = np.zeros((5, 3), np.float32), np.zeros(4, np.float32)
        array = rng.standard_normal((3, 4)).astype(np.float32)
        nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
        graph = from_onnx(graph_of(nodes, {"x": x, "b": bias}, {"y": (5, 4)}, {"w": array}))
        with pytest.raises(ValueError, match="a chain cannot represent Gemm 0, whose bias is b"):
            graph.module()
        nodes = [helper.make_node("LayerNormalization", ["x", "g"], ["y"])]
        gain = np.ones(3, np.float32)
        graph = from_onnx(graph_of(nodes, {"x": x, "g": gain}, {"y": (5, 3)}))
        with pytest.raises(ValueError, match="a chain cannot represent LayerNormalization"):
            graph.module()


def test_conversions_check_themselves(tmp_path, rng):
    found = []
    for dtype in ("float32", "float64"):
        path = written(tmp_path, LSTM(3, 4, dtype=dtype), verify=True, report=found.append)
    assert found[1].reference == "our own reader"
    assert found[0].reference.startswith(("ONNX Runtime", "our own reader"))
    to_onnx(
        GRU(3, 4, batch_first=True),
        path,
        verify=np.zeros((2, 5, 3), np.float32),
        report=found.append,
    )
    runtime()
    from_onnx(path, verify=True, report=found.append)
    assert found[-1].reference.startswith("ONNX Runtime")
    assert found[-1].difference <= 2e-5 * found[-1].largest


def test_given_outputs_are_compared_with(tmp_path, rng):
    model, found = LSTM(3, 4, seed=1), []
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    y, _ = model(x)
    path = written(tmp_path, model, verify=(x, y), report=found.append)
    assert [check.reference for check in found] == ["the outputs given"]
    path.unlink()
    with pytest.raises(ValueError, match="does not agree"):
        to_onnx(model, path, verify=(x, y + 1), report=found.append)
    assert not path.exists()


def test_tied_weights(tmp_path, rng):
    table = Embedding(7, 3, seed=1)
    model = scrambled(Chain(table, LSTM(3, 3, seed=2), TiedLinear(table)), rng)
    ids = rng.integers(7, size=(6, 2))
    (y,) = from_onnx(written(tmp_path, model, lengths=False, state=False)).run(ids)
    assert_close({"y": y}, {"y": model(ids)[0]}, 2e-5)


def test_layers_of_both_layouts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="all layers must have the same batch_first"):
        to_onnx(Chain(GRU(3, 4), GRU(4, 4, batch_first=True)), tmp_path / "model.onnx")


def test_without_onnx_runtime_reading_has_no_reference(tmp_path, monkeypatch):
    path = written(tmp_path, RNN(2, 3))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="verify= needs a reference: pip install onnxruntime"):
        from_onnx(path, verify=True)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (LSTM(3, 4, proj_size=2), "LSTM with proj_size=2"),
        (LSTM(3, 4, layer_norm=True), "LSTM with layer_norm=True"),
        (LSTM(3, 4, input_gate=False), "LSTM with input_gate=False"),
        (LSTM(3, 4, cell_clip=0.5), "LSTM with cell_clip=0.5"),
        (LSTM(3, 4, zoneout=0.1), "LSTM with zoneout="),
        (GRU(3, 4, transition_depth=2), "GRU with transition_depth=2"),
        (RNN(3, 4, nonlinearity="exponential"), "RNN with the activation 'exponential'"),
        (MGU(3, 4), "MGU"),
        (Chain(Linear(3, 3), DeepRNN(3, 4, transition_depth=2)), "RNN with transition_depth=2"),
        (Chain(Linear(3, 3), DeepRNN(3, 4, cell="mgu")), "MGU"),
        (RowConvolution(3, 2), "RowConvolution"),
        (Chain(Tanh()), "a module without parameters"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_onnx_lacks_is_refused_by_name(tmp_path, model, what):
    with pytest.raises(ValueError, match=f"ONNX cannot represent {what}"):
        to_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_bits_do_not_depend_on_the_rows_around(tmp_path, rng):
    model = from_onnx(
        written(tmp_path, Chain(GRU(3, 4, seed=1), Linear(4, 5, seed=2)), state=False)
    )
    x = rng.standard_normal((6, 5, 3)).astype(np.float32)
    ends = np.array([6, 1, 4, 2, 6], np.int32)
    (whole,) = model.run(x, ends)
    (part,) = model.run(x[:, 2:4], ends[2:4])
    assert_same({"y": part}, {"y": whole[:, 2:4].copy()})
