"""ONNX read: the standard's own node tests, every attribute against ONNX Runtime's answers."""

import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from rnncore import RNN, Softmax, reference
from rnncore.convert import from_onnx, to_onnx

from tests.support.compare import assert_close, assert_same

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

import onnx
from onnx import helper, numpy_helper

from tests.support.onnx_graphs import (
    CASES,
    INPUTS,
    H,
    T,
    arguments,
    graph_of,
    node_tests,
    recurrent,
    run_by_runtime,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "onnxruntime.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.mark.parametrize(
    ("operators", "count"),
    [
        (("rnn", "lstm", "gru"), 18),
        (("topk", "scatterelements", "reduceprod", "reducemin"), 28),
        (("reducel2",), 9),
    ],
)
def test_the_standards_own_node_tests_pass(operators, count):
    cases = [
        c
        for c in node_tests(*operators)
        if not re.search("duplicate|_with_reduc|n_empty_set", c.name)
    ]
    assert len(cases) >= count
    for case in cases:
        model = from_onnx(case.model)
        for inputs, outputs in case.data_sets:
            got = model.run(*inputs)
            for mine, theirs in zip(got, outputs, strict=True):
                assert mine.shape == theirs.shape, case.name
                assert mine.dtype == theirs.dtype, case.name
                np.testing.assert_allclose(mine, theirs, atol=1e-5, err_msg=case.name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
class TestAttributes:
    def test_as_onnx_runtime(self, rng, golden, case):
        attributes, options = arguments(*case)
        proto, inputs = recurrent(rng, case[0], attributes, **options)
        for at, mine in enumerate(from_onnx(proto).run(*inputs.values())):
            want = golden["-".join(map(str, case)) + f"/{at}"]
            assert_close({"y": mine}, {"y": want}, 2e-5)

    def test_layout_and_weights_as_inputs_change_nothing(self, rng, case):
        attributes, options = arguments(*case)
        state = rng.bit_generator.state
        plain, inputs = recurrent(rng, case[0], attributes, **options)
        want = from_onnx(plain).run(*inputs.values())
        for layout, held in ((1, True), (0, False), (1, False)):
            rng.bit_generator.state = state
            layouts = attributes | {"layout": layout}
            other, inputs = recurrent(rng, case[0], layouts, held=held, **options)
            model = from_onnx(other)
            for _ in range(2):
                y, *ends = model.run(**inputs)
            if layout:
                y, ends = y.transpose(1, 2, 0, 3), [end.swapaxes(0, 1) for end in ends]
            for mine, theirs in zip((y, *ends), want, strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_the_golden_file_holds_the_cases(golden):
    names = {name.split("/")[0] for name in golden} - {"onnxruntime_version"}
    assert names == {"-".join(map(str, case)) for case in CASES}


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


@pytest.mark.parametrize(
    ("op", "others", "options", "formula"),
    [
        ("Celu", [], {"alpha": 0.5}, lambda x: np.where(x > 0, x, 0.5 * np.expm1(x / 0.5))),
        ("Erf", [], {}, np.vectorize(math.erf)),
        ("Gelu", [], {}, lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2),
        (
            *("Gelu", [], {"approximate": "tanh"}),
            lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
        ),
        ("HardSwish", [], {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
        ("Mish", [], {}, lambda x: x * np.tanh(np.log1p(np.exp(x)))),
        ("Max", [[0.5], [-1.0]], {}, lambda x: np.maximum(x, 0.5)),
        ("Min", [[0.5]], {}, lambda x: np.minimum(x, 0.5)),
        ("Sum", [[0.5], [1.0]], {}, lambda x: x + 1.5),
        ("PRelu", [[0.5]], {}, lambda x: np.where(x < 0, 0.5 * x, x)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operators_against_their_formulas(rng, op, others, options, formula):
    x = (4 * rng.standard_normal((5, 3))).astype(np.float32)
    constants = {f"c{at}": np.array(value, np.float32) for at, value in enumerate(others)}
    node = helper.make_node(op, ["x", *constants], ["y"], **options)
    proto = graph_of([node], {"x": x}, {"y": (5, 3)}, constants, opset=20)
    (y,) = from_onnx(proto).run(x)
    assert y.dtype == np.float32
    assert_close({"y": y}, {"y": formula(x.astype(np.float64))}, 2e-5)


@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_slices_from_and_to_anywhere(step):
    """Ends beyond either side are moved onto it, as the standard says step by step."""
    x = np.arange(5.0, dtype=np.float32)
    for start in range(-8, 9):
        for end in range(-8, 9):
            first, last = (at + 5 if at < 0 else at for at in (start, end))
            low, high = (0, 4) if step < 0 else (0, 5)
            last = min(max(last, -1 if step < 0 else 0), 5)
            want = x[[*range(min(max(first, low), high), last, step)]]
            given = ([start], [end], [0], [step])
            constants = {f"c{at}": np.array(v) for at, v in enumerate(given)}
            node = helper.make_node("Slice", ["x", *constants], ["y"])
            (y,) = from_onnx(graph_of([node], {"x": x}, {"y": want.shape}, constants)).run(x)
            assert_same({"y": y}, {"y": want})


def test_little_files_do_not_take_all_memory():
    make, x = helper.make_node, {"x": np.zeros(1, np.float32)}
    big = {"shape": np.array([1 << 40])}
    zero, one = (np.array(n, np.int64) for n in (0, 1))
    for node, arrays in (
        (make("ConstantOfShape", ["shape"], ["y"]), big),
        (make("Expand", ["x", "shape"], ["y"]), big),
        (make("Range", ["a", "n", "b"], ["y"]), {"a": zero, "n": one << 40, "b": one}),
    ):
        with pytest.raises(
            ValueError, match=rf"{node.op_type} 0: an array of shape \(1099511627776"
        ):
            from_onnx(graph_of([node], x, {"y": (None,)}, arrays)).run(**x)
    doubled = [make("Concat", [f"c{n}"] * 2, [f"c{n + 1}"], axis=0) for n in range(60)]
    proto = graph_of(doubled, x, {"c60": (None,)}, {"c0": np.zeros(1 << 20, np.int8)})
    with pytest.raises(ValueError, match=r"Concat 4: an array of shape \(33554432,\) is too l"):
        from_onnx(proto)
    proto = graph_of([make("Relu", ["x"], ["y"])], x, {"y": (None,)})
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40
    with pytest.raises(ValueError, match=r"shape \(1099511627776, .* is too large"):
        from_onnx(proto).module()


def test_inputs_and_outputs_need_not_tell_their_shapes(rng):
    proto, inputs = recurrent(rng, "GRU", {}, held=False)
    want = from_onnx(proto).run(**inputs)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.ClearField("shape")
    model = from_onnx(proto)
    assert not any(value.type.tensor_type.HasField("shape") for value in proto.graph.output)
    for got, before in zip(model.run(**inputs), want, strict=True):
        assert_same({"y": got}, {"y": before})


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
            (make("Unique", ["x"], ["y"], "u1"), r"the operator Unique \(Unique u1\)"),
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

    def test_dtypes_that_there_are_not(self, rng):
        proto, _ = recurrent(rng, "RNN", {})
        proto.graph.input[0].type.tensor_type.elem_type = 99
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(onnx.checker, "check_model", lambda *_: None)
            self.refused(proto, "the input X: numbers of ONNX's type 99")
        x = {"x": np.zeros(2, np.float32)}
        self.refused(
            graph_of([helper.make_node("Cast", ["x"], ["y"], to=99)], x, {"y": (2,)}),
            "Cast 0: numbers of ONNX's type 99",
        )


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
    with pytest.raises(ValueError, match="given twice are X"):
        model.run(x, X=x, sequence_lens=ends)
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
