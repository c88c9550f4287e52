"""ONNX: the standard's own node tests, every attribute, and our models written and read again."""

import importlib
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from compare import assert_close, assert_same
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
    Final,
    Identity,
    LayerNorm,
    Linear,
    ReLU,
    Reversed,
    RowConvolution,
    Sigmoid,
    Softmax,
    Tanh,
    reference,
)
from rnncore.convert import from_onnx, to_onnx
from rnncore.sequences import walk

onnx = pytest.importorskip("onnx", reason="the package onnx reads and writes the format")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT


def runtime():
    """ONNX Runtime, or the reason why a test is skipped."""
    return pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")


def run_by_runtime(proto, inputs):
    options = runtime().SessionOptions()
    options.log_severity_level = 4
    session = runtime().InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def node_tests():
    """The standard's tests of recurrent nodes; importing those of all operators takes too long."""
    node = importlib.import_module("onnx.backend.test.case.node")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "import_recursive", lambda package: None)
        for name in ("rnn", "lstm", "gru"):
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
        cases = node.collect_testcases()
    recurrent = ("RNN", "LSTM", "GRU")
    return [c for c in cases if c.model and c.model.graph.node[0].op_type in recurrent]


def test_the_standards_own_node_tests_pass():
    cases = node_tests()
    assert len(cases) >= 18
    for case in cases:
        model = from_onnx(case.model)
        for inputs, outputs in case.data_sets:
            got = model.run(*inputs)
            for mine, theirs in zip(got, outputs, strict=True):
                assert mine.shape == theirs.shape, case.name
                np.testing.assert_allclose(mine, theirs, atol=1e-5, err_msg=case.name)


# Nodes of our making: GATES of each operator, and all that its attributes can say.
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
T, B, H, INPUTS = 5, 3, 4, 2
HARD = {"activations": ["HardSigmoid", "Softsign", "ScaledTanh"]}
HARD |= {"activation_alpha": [0.3, 1.7], "activation_beta": [0.4, 0.6]}
ATTRIBUTES = {
    "plain": {},
    "clip": {"clip": 0.4},
    "linear_before_reset": {"linear_before_reset": 1},
    "input_forget": {"input_forget": 1},
    "leaky": {"activations": ["LeakyRelu", "Tanh", "Elu"], "activation_alpha": [0.2, 0.7]},
    "hard": HARD,
    "softplus": {"activations": ["Sigmoid", "Softplus", "Affine"], "activation_alpha": [0.5]},
    "thresholded": {
        "activations": ["sigmoid", "ThresholdedRelu", "Relu"],
        "activation_alpha": [0.5],
    },
}
ONLY = {"linear_before_reset": "GRU", "input_forget": "LSTM"}


def activations_of(op, direction, attributes):
    """Cut a list for an LSTM to what the operator has, for each direction."""
    count = {"RNN": 1, "LSTM": 3, "GRU": 2}[op]
    if "activations" not in attributes:
        return attributes
    names = attributes["activations"][-1:] if op == "RNN" else attributes["activations"][:count]
    wants = {"HardSigmoid": (1, 1), "ScaledTanh": (1, 1), "Affine": (1, 1)}
    wants |= {"LeakyRelu": (1, 0), "Elu": (1, 0), "ThresholdedRelu": (1, 0)}
    both = names * (2 if direction == "bidirectional" else 1)
    cut = {"activations": both}
    for at, key in enumerate(("activation_alpha", "activation_beta")):
        have = sum(wants.get(name, (0, 0))[at] for name in both)
        pool = itertools.cycle(attributes.get(key, []))
        if attributes.get(key) and have:
            cut[key] = list(itertools.islice(pool, have))
    return attributes | {"activation_alpha": [], "activation_beta": []} | cut


def graph_of(nodes, inputs, outputs, arrays=(), opset=17):
    """A model: inputs as arrays by name, outputs by name."""
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in inputs.items()}
    described = [helper.make_tensor_value_info(n, kinds[n], a.shape) for n, a in inputs.items()]
    results = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()]
    held = [numpy_helper.from_array(a, n) for n, a in dict(arrays).items()]
    graph = helper.make_graph(nodes, "test", described, results, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def recurrent(rng, op, attributes, *, ragged=False, initial=False, peephole=False, held=True):
    """A model of one recurrent node, and its inputs."""
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op] * H

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    weights = {
        "W": draw(count, rows, INPUTS),
        "R": draw(count, rows, H),
        "B": draw(count, 2 * rows),
    }
    if peephole:
        weights["P"] = draw(count, 3 * H)
    inputs = {"X": draw(T, B, INPUTS)}
    if ragged:
        inputs["sequence_lens"] = np.array([3, 5, 0], np.int32)
    if initial:
        inputs["initial_h"] = draw(count, B, H)
        if op == "LSTM":
            inputs["initial_c"] = draw(count, B, H)
    layout = attributes.get("layout", 0)
    if layout:
        inputs = {n: a if a.ndim == 1 else a.swapaxes(0, 1) for n, a in inputs.items()}
    everything = inputs | weights
    order = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    names = [name if name in everything else "" for name in order]
    shapes = {"Y": (B, T, count, H) if layout else (T, count, B, H)}
    shapes |= dict.fromkeys(("Y_h", "Y_c"), (B, count, H) if layout else (count, B, H))
    if op != "LSTM":
        shapes.pop("Y_c")
    given = {name: value for name, value in attributes.items() if value != []}
    node = helper.make_node(
        op, names[: 8 if op == "LSTM" else 6], list(shapes), hidden_size=H, **given
    )
    if held:
        return graph_of([node], inputs, shapes, weights), inputs
    return graph_of([node], inputs | weights, shapes), inputs | weights


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op in GATES for name in ATTRIBUTES if ONLY.get(name, op) == op]
)
class TestAttributes:
    @pytest.fixture
    def attributes(self, op, name, direction):
        return {"direction": direction} | activations_of(op, direction, ATTRIBUTES[name])

    @pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
    def test_as_onnx_runtime(self, rng, op, name, direction, attributes, ragged):
        runtime()
        peephole = op == "LSTM" and name != "leaky"
        options = {"ragged": ragged, "initial": ragged, "peephole": peephole}
        proto, inputs = recurrent(rng, op, attributes, **options)
        got = from_onnx(proto).run(*inputs.values())
        want = run_by_runtime(proto, inputs)
        for mine, theirs in zip(got, want, strict=True):
            assert_close({"y": mine}, {"y": theirs}, 2e-5)

    def test_layout_and_weights_as_inputs_change_nothing(
        self, rng, op, name, direction, attributes
    ):
        state = rng.bit_generator.state
        plain, inputs = recurrent(rng, op, attributes, ragged=True, initial=True)
        want = from_onnx(plain).run(*inputs.values())
        for layout, held in ((1, True), (0, False), (1, False)):
            rng.bit_generator.state = state
            other, inputs = recurrent(
                rng, op, attributes | {"layout": layout}, ragged=True, initial=True, held=held
            )
            model = from_onnx(other)
            for _ in range(2):
                y, *ends = model.run(*inputs.values())
            if layout:
                y, ends = y.transpose(1, 2, 0, 3), [end.swapaxes(0, 1) for end in ends]
            for mine, theirs in zip((y, *ends), want, strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_against_the_reference_where_there_is_no_onnx_runtime(rng):
    """Peepholes and clip of an LSTM with a length and initial states, in plain NumPy."""
    attributes = {"direction": "reverse", "clip": 0.4}
    proto, inputs = recurrent(rng, "LSTM", attributes, initial=True, peephole=True)
    w, r, b, p = (numpy_helper.to_array(a)[0].astype(np.float64) for a in proto.graph.initializer)

    def ours(a):
        i, o, f, g = np.split(a, 4)
        return np.concatenate((i, f, g, o))

    params = {"weight_ih_l0": ours(w), "weight_hh_l0": ours(r)}
    params |= {"bias_ih_l0": ours(b[: 4 * H]), "bias_hh_l0": ours(b[4 * H :])}
    i, o, f = np.split(p, 3)
    params["weight_ch_l0"] = np.stack((i, f, o))
    sigma, tau = (reference.clipped(f, 0.4) for f in (reference.SIGMOID, reference.TANH))
    first = inputs["initial_h"].astype(np.float64), inputs["initial_c"].astype(np.float64)
    y, (h, c), _ = reference.forward(
        reference.LSTM(sigma, tau), params, inputs["X"][::-1].astype(np.float64), first
    )
    got = from_onnx(proto).run(*inputs.values())
    want = {"Y": y[::-1, None], "Y_h": h, "Y_c": c}
    assert_close(dict(zip(want, got, strict=True)), want, 2e-5)


def test_two_directions_may_have_their_own_activations(rng):
    attributes = {
        "direction": "bidirectional",
        "activations": ["Sigmoid", "Tanh", "HardSigmoid", "Relu"],
        "activation_alpha": [0.3],
        "clip": 1.5,
    }
    proto, inputs = recurrent(rng, "GRU", attributes, ragged=True, initial=True)
    model = from_onnx(proto)
    assert len(model.layers) == 2
    got = model.run(*inputs.values())
    for mine, theirs in zip(got, run_by_runtime(proto, inputs), strict=True):
        assert_close({"y": mine}, {"y": theirs}, 2e-5)


def test_changed_weights_count_and_other_sizes_too(rng):
    proto, inputs = recurrent(rng, "LSTM", {}, held=False)
    for value in proto.graph.input:
        for size in value.type.tensor_type.shape.dim:
            size.ClearField("dim_value")
    model = from_onnx(proto)
    before = model.run(**inputs)[0].copy()
    inputs["W"] *= 2  # in place: the same array, other numbers
    assert np.abs(model.run(**inputs)[0] - before).max() > 0.01
    inputs["X"], inputs["W"] = np.zeros((2, 1, 7), np.float32), np.zeros((1, 16, 7), np.float32)
    assert model.run(**inputs)[0].shape == (2, 1, 1, H)


def test_a_model_with_its_surroundings(rng):
    """Gather, LSTM in both directions, Transpose, Reshape, Gemm and what exporters put between."""
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    arrays = {"table": draw(9, INPUTS), "W": draw(2, 4 * H, INPUTS), "R": draw(2, 4 * H, H)}
    arrays |= {"gemm": draw(5, 2 * H), "bias": draw(5), "matrix": draw(5, 3)}
    arrays |= {"flat": np.array([-1, 2 * H]), "one": np.array([1]), "zero": np.array([0])}
    arrays |= {"first": np.array([0]), "last": np.array([2]), "axis": np.array([1])}
    make, inner = helper.make_node, ["x", "W", "R", "", "", "h0", "c0"]
    nodes = [
        make("Transpose", ["ids"], ["turned"], perm=[1, 0]),
        make("Gather", ["table", "turned"], ["x"]),
        make("Shape", ["x"], ["shape"]),
        make("Gather", ["shape", "one"], ["batch"]),
        make("Constant", [], ["two"], value_ints=[2]),
        make("Constant", [], ["size"], value_ints=[H]),
        make("Concat", ["two", "batch", "size"], ["state"], axis=0),
        make("ConstantOfShape", ["state"], ["h0"]),
        make("Expand", ["h0", "state"], ["c0"]),
        make("LSTM", inner, ["Y", "Y_h"], hidden_size=H, direction="bidirectional"),
        make("Transpose", ["Y_h"], ["h"], perm=[1, 0, 2]),
        make("Reshape", ["h", "flat"], ["rows"]),
        make("Gemm", ["rows", "gemm", "bias"], ["scores"], transB=1),
        make("Relu", ["scores"], ["positive"]),
        make("MatMul", ["positive", "matrix"], ["mixed"]),
        make("Unsqueeze", ["mixed", "axis"], ["wide"]),
        make("Squeeze", ["wide", "axis"], ["narrow"]),
        make("Slice", ["narrow", "first", "last", "axis"], ["cut"]),
        make("Add", ["cut", "cut"], ["sum"]),
        make("Softmax", ["sum"], ["p"], axis=-1),
    ]
    ids = rng.integers(9, size=(3, T))
    shapes = {"p": (3, 2), "Y": (T, 2, 3, H)}
    proto = graph_of(nodes, {"ids": ids}, shapes, arrays)
    model = from_onnx(proto, verify=ids if sys.modules.get("onnxruntime") else None, report=str)
    p, y = model.run(ids)
    assert (list(model.inputs), model.outputs) == (["ids"], ("p", "Y"))
    kinds = [type(layer).__name__ for layer in model.layers.values()]
    assert kinds == ["LSTM", "Linear", "Linear"]
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-6)
    for mine, theirs in zip((p, y), run_by_runtime(proto, {"ids": ids}), strict=True):
        assert_close({"y": mine}, {"y": theirs}, 2e-5)


def test_versions_of_an_operator(rng):
    x = rng.standard_normal((2, 1, 3)).astype(np.float32)
    make = helper.make_node
    nodes = [make("Squeeze", ["x"], ["s"], axes=[1]), make("Unsqueeze", ["s"], ["u"], axes=[1])]
    nodes += [make("Softmax", ["u"], ["y"])]
    (y,) = from_onnx(graph_of(nodes, {"x": x}, {"y": (2, 1, 3)}, opset=11)).run(x)
    assert_close({"y": y}, {"y": Softmax()(x)}, 1e-6)  # over the last two axes, one of them 1
    nodes = [make("Softmax", ["x"], ["y"])]
    (y,) = from_onnx(graph_of(nodes, {"x": x.transpose(1, 0, 2)}, {"y": (1, 2, 3)}, opset=11)).run(
        x.transpose(1, 0, 2)
    )
    assert_close({"sum": y.sum(axis=(1, 2))}, {"sum": np.ones(1)}, 1e-6)


class TestRefusals:
    def refused(self, proto, what):
        with pytest.raises(ValueError, match=f"rnncore cannot represent .*{what}"):
            from_onnx(proto)

    def test_operators_attributes_and_domains(self, rng):
        x = {"x": np.zeros((2, 3), np.float32)}
        make = helper.make_node
        for node, what in (
            (make("Conv", ["x", "x"], ["y"], "c1"), r"the operator Conv \(Conv c1\)"),
            (make("Elu", ["x"], ["y"], other=1), "other"),
            (make("Dropout", ["x"], ["z", "y", "w"]), "the output w"),
        ):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(onnx.checker, "check_model", lambda *_: None)
                self.refused(graph_of([node], x, {"y": (2, 3)}), what)
        self.refused(
            graph_of([make("LayerNormalization", ["x", "s"], ["y", "m"])], x, {"y": (2, 3)},
                     {"s": np.ones(3, np.float32)}),
            "the output m",
        )  # fmt: skip

    def test_activations_and_what_they_have(self, rng):
        for attributes, what in (
            ({"activations": ["Cube"]}, "the activation 'Cube'"),
            ({"activations": ["Tanh"], "activation_alpha": [1.0]}, "more of activation_alpha"),
        ):
            self.refused(recurrent(rng, "RNN", attributes)[0], what)
        with pytest.raises(ValueError, match="2 activations, expected 1"):
            from_onnx(recurrent(rng, "RNN", {"activations": ["Tanh", "Tanh"]})[0])

    def test_half_precision(self, rng):
        proto, _ = recurrent(rng, "RNN", {})
        for array in proto.graph.initializer:
            array.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(array).astype(np.float16), array.name)
            )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onnx.checker, "check_model", lambda *_: None)
            self.refused(proto, "weights in float16")


def test_bad_inputs_are_named(rng):
    proto, inputs = recurrent(rng, "LSTM", {}, ragged=True)
    model, x, ends = from_onnx(proto), inputs["X"], inputs["sequence_lens"]
    with pytest.raises(ValueError, match=r"X must have shape \(5, 3, 2\), got \(5, 3\)"):
        model.run(x[..., 0], ends)
    with pytest.raises(TypeError, match="X is float64"):
        model.run(x.astype(np.float64), ends)
    with pytest.raises(ValueError, match="missing are sequence_lens"):
        model.run(x)
    with pytest.raises(ValueError, match="unknown are Z"):
        model.run(x, ends, Z=x)
    with pytest.raises(ValueError, match="got 3 in order"):
        model.run(x, ends, ends)
    for wrong in ([6, 1, 1], [-1, 1, 1]):
        with pytest.raises(ValueError, match=r"LSTM 0: sequence_lens must be \(3,\) .* 0\.\.5"):
            model.run(x, wrong)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model file"):
        from_onnx(tmp_path / "none.onnx")
    for data in (b"text", b"\x08\x07" * 50):
        (tmp_path / "bad.onnx").write_bytes(data)
        with pytest.raises(ValueError, match=r"bad\.onnx is not a readable ONNX model"):
            from_onnx(tmp_path / "bad.onnx")


def test_without_onnx_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"rnncore\[convert\]"):
        from_onnx(tmp_path / "x.onnx")
    with pytest.raises(ImportError, match=r"rnncore\[convert\]"):
        to_onnx(RNN(2, 3), tmp_path / "x.onnx")


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
    "final": lambda **o: Final(LSTM(3, 4, 2, bidirectional=True, **o)),
    "final_both": lambda **o: Final(Bidirectional(RNN(3, 4, **o), Reversed(GRU(3, 4, **o)), "sum")),
}
SURROUNDED = {
    "tagger": lambda dtype="float32", batch_first=False: Chain(
        Embedding(7, 3, dtype=dtype),
        LSTM(3, 4, bidirectional=True, dtype=dtype, batch_first=batch_first),
        Dropout(0.5),
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


def leaves(tree):
    return [a for part in tree for a in leaves(part)] if isinstance(tree, tuple) else [tree]


def written(tmp_path, model, **options):
    path = tmp_path / "model.onnx"
    to_onnx(model, path, **options)
    return path


def input_of(model, rng, steps=6, batch=3):
    batch_first = any(getattr(part, "batch_first", False) for part in walk(model))
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
        assert [type(layer) for layer in module.layers] == [Final, Linear]
        assert module[0].layer.batch_first
        assert_close({"y": module(x)[0]}, {"y": graph.run(x)[0]}, 1e-6)
        arrays["h0"] += 1  # then it is another function
        graph = from_onnx(graph_of(nodes, {"x": x}, {"scores": (3, 5)}, arrays))
        with pytest.raises(ValueError, match="does not agree"):
            graph.module()

    def test_what_is_no_chain_is_named(self, tmp_path, rng):
        graph = from_onnx(written(tmp_path, Bidirectional(RNN(3, 4), GRU(3, 4))))
        with pytest.raises(ValueError, match="a chain cannot represent ReverseSequence"):
            graph.module()
        proto, _ = recurrent(rng, "RNN", {}, held=False)
        with pytest.raises(ValueError, match="a chain cannot represent RNN 0, whose weights"):
            from_onnx(proto).module()


def test_conversions_check_themselves(tmp_path, rng):
    found = []
    for dtype in ("float32", "float64"):
        path = written(tmp_path, LSTM(3, 4, dtype=dtype), verify=True, report=found.append)
    assert found[1].judge == "our own reader"
    assert found[0].judge.startswith(("ONNX Runtime", "our own reader"))
    to_onnx(
        GRU(3, 4, batch_first=True),
        path,
        verify=np.zeros((2, 5, 3), np.float32),
        report=found.append,
    )
    runtime()
    from_onnx(path, verify=True, report=found.append)
    assert found[-1].judge.startswith("ONNX Runtime")
    assert found[-1].difference <= 2e-5 * found[-1].largest


def test_without_onnx_runtime_reading_has_no_judge(tmp_path, monkeypatch):
    path = written(tmp_path, RNN(2, 3))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="verify= needs a judge: pip install onnxruntime"):
        from_onnx(path, verify=True)


def test_threads_may_share_a_model_whose_weights_are_inputs(rng):
    proto, inputs = recurrent(rng, "LSTM", {}, held=False)
    model = from_onnx(proto)
    given = [inputs | {"W": inputs["W"] * factor} for factor in (1, 2, 3, 4)]
    want = [model.run(**one)[0].copy() for one in given]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            got = list(pool.map(lambda one: model.run(**one)[0], given))
            for mine, alone in zip(got, want, strict=True):
                np.testing.assert_array_equal(mine, alone)


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
        (Chain(Linear(3, 3), DeepRNN(3, 4)), "DeepRNN"),
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
