"""Quantised ONNX models: those of ONNX Runtime's quantiser read, and ours written."""

import re

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, Chain, Embedding, Linear, TiedLinear
from rnncore.convert import from_onnx, to_onnx, to_rtneural, to_torch_state_dict
from rnncore.module import modules
from rnncore.precision import SCALE, dequantized, hold_int8

from tests.support.compare import assert_close
from tests.support.gradients import leaves

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

import onnx
from onnx import helper, numpy_helper

from tests.convert.test_to_onnx import MODELS, SURROUNDED, input_of, scrambled, states_like
from tests.support.onnx_graphs import (
    graph_of,
    node_tests,
    run_by_runtime,
    runtime,
    sums_bytes_exactly,
)

#: Of the largest output: what differs between two ways to round activations to 8 bits.
ROUNDED = 0.05


def quantiser():
    return pytest.importorskip(
        "onnxruntime.quantization", reason="ONNX Runtime is not installed, which has the quantiser"
    )


def model_of(rng, bidirectional=True):
    lstm = LSTM(6, 16, bidirectional=bidirectional)
    return scrambled(Chain(Embedding(7, 6), lstm, Linear(16 * lstm.directions, 5)), rng)


def quantised(tmp_path, model, **options):
    """A model, as a file that ONNX Runtime has quantised."""
    to_onnx(model, tmp_path / "float.onnx", lengths=False, state=False)
    path = tmp_path / "quantised.onnx"
    quantiser().quantize_dynamic(tmp_path / "float.onnx", path, **options)
    return path


def statically(tmp_path, model, **options):
    tools, path = quantiser(), tmp_path / "static.onnx"
    drawn = np.random.default_rng(3)
    batches = iter([{"x": drawn.standard_normal((4, 2, 6)).astype(np.float32)} for _ in range(3)])

    class Reader(tools.CalibrationDataReader):
        def get_next(self):
            return next(batches, None)

    to_onnx(model, tmp_path / "float.onnx", lengths=False, state=False)
    tools.quantize_static(tmp_path / "float.onnx", path, Reader(), **options)
    return path


def skip_where_sums_saturate():
    """Before a comparison with weights that fill 8 bits."""
    if not sums_bytes_exactly():
        pytest.skip("ONNX Runtime's sums of bytes saturate on this processor")


def assert_as_runtime(path, x, bound=ROUNDED):
    """Within a bound of ONNX Runtime's outputs; returns ours."""
    proto = onnx.load(path)
    (mine,) = from_onnx(path).run(x)
    (theirs,) = run_by_runtime(proto, {"x": x})
    assert np.abs(mine - theirs).max() <= bound * np.abs(theirs).max()
    return mine


class TestDynamic:
    @pytest.mark.parametrize("per_channel", [False, True])
    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_is_computed_by_our_kernels_for_int8(self, tmp_path, rng, per_channel, bidirectional):
        if per_channel:
            skip_where_sums_saturate()
        path = quantised(tmp_path, model_of(rng, bidirectional), per_channel=per_channel)
        y = assert_as_runtime(path, x := rng.integers(7, size=(9, 3)))
        graph = from_onnx(path, verify=x, report=str)
        lstm, linear = graph.layers.values()
        assert (type(lstm), type(linear)) == (LSTM, Linear)
        assert lstm.weight_type == linear.weight_type == "int8"
        module = graph.module()
        assert [type(part) for part in module.layers] == [Embedding, LSTM, Linear]
        assert_close({"y": module(x)[0]}, {"y": y}, ROUNDED)

    def test_weights_that_need_all_of_8_bits_are_float32(self, tmp_path, rng):
        tools = quantiser()
        model = model_of(rng)
        model.params["2.weight"][0, 0] = 3  # so that the zero point is none in the middle
        path = quantised(tmp_path, model, weight_type=tools.QuantType.QUInt8)
        assert_as_runtime(path, rng.integers(7, size=(9, 3)))
        held = {type(part): part.weight_type for part in from_onnx(path).layers.values()}
        assert held == {LSTM: "int8", Linear: None}

    def test_a_scale_a_row_is_kept(self, tmp_path, rng):
        path = quantised(tmp_path, model_of(rng, False), per_channel=True)
        arrays = {a.name: numpy_helper.to_array(a) for a in onnx.load(path).graph.initializer}
        _, linear = from_onnx(path).layers.values()
        whole, scales = arrays["2.weight_quantized"].T, arrays["2.weight_scale"]
        assert (np.abs(whole).max(axis=1) == 127).all()
        np.testing.assert_array_equal(linear.params["weight"], whole)
        np.testing.assert_array_equal(linear.params["weight" + SCALE], scales)

    def test_as_onnx_runtime_has_made_it_faster(self, tmp_path, rng):
        """Its session writes DynamicQuantizeMatMul, with the bias."""
        path = quantised(tmp_path, model_of(rng))
        options = runtime().SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = runtime().GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        runtime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        ops = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
        assert "DynamicQuantizeMatMul" in ops
        assert_as_runtime(tmp_path / "optimized.onnx", x := rng.integers(7, size=(9, 3)))
        graph = from_onnx(tmp_path / "optimized.onnx")
        assert_close({"y": graph.module()(x)[0]}, {"y": graph.run(x)[0]}, ROUNDED)

    def test_other_parts_of_a_group_may_be_outputs(self, tmp_path, rng):
        """Then they are computed as well, and the numbers are those of the operators."""
        path = quantised(tmp_path, Chain(Linear(6, 4, seed=1)))
        proto, x = onnx.load(path), rng.standard_normal((5, 2, 6)).astype(np.float32)
        (scale,) = [n.output[1] for n in proto.graph.node if n.op_type == "DynamicQuantizeLinear"]
        proto.graph.output.append(helper.make_tensor_value_info(scale, 1, ()))
        got, want = from_onnx(proto).run(x), run_by_runtime(proto, {"x": x})
        np.testing.assert_array_equal(got[1], want[1])
        assert_close({"y": got[0]}, {"y": want[0]}, ROUNDED)


class TestStatic:
    @pytest.mark.parametrize("per_channel", [False, True])
    def test_what_the_file_rounds_is_rounded_as_it_says(self, tmp_path, rng, per_channel):
        if per_channel:
            skip_where_sums_saturate()
        model = scrambled(Chain(LSTM(6, 16), Linear(16, 5)), rng)
        path = statically(tmp_path, model, per_channel=per_channel)
        x = rng.standard_normal((9, 3, 6)).astype(np.float32)
        y = assert_as_runtime(path, x)
        assert len(np.unique(y)) <= 256
        assert {part.weight_type for part in from_onnx(path).layers.values()} == {None}
        with pytest.raises(ValueError, match="a chain cannot represent QuantizeLinear"):
            from_onnx(path).module()

    def test_other_operators_are_refused_by_name(self, tmp_path, rng):
        model = scrambled(Chain(LSTM(6, 16), Linear(16, 5)), rng)
        path = statically(tmp_path, model, quant_format=quantiser().QuantFormat.QOperator)
        with pytest.raises(ValueError, match=r"the operators QLinearMatMul .*, com\.microsoft\.QL"):
            from_onnx(path)


def test_the_standards_own_node_tests_pass():
    names = ("quantizelinear", "dequantizelinear", "dynamicquantizelinear", "matmulinteger")
    cases = [
        case
        for case in node_tests(*names)
        if not re.search("e[45]m|int4|int2|float4|blocked|expanded|int16", case.name)
    ]
    assert len(cases) >= 8
    for case in cases:
        for inputs, outputs in case.data_sets:
            for mine, theirs in zip(from_onnx(case.model).run(*inputs), outputs, strict=True):
                assert mine.dtype == theirs.dtype, case.name
                np.testing.assert_allclose(mine, theirs, rtol=1e-6, err_msg=case.name)


def lstm_node(rng, *, zero=0, per_row=False, low=-127, high=127, **attributes):
    """A model of one DynamicQuantizeLSTM, its input, and W and R as float32, `(D, 4 H, I)`."""
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    inputs, hidden = 5, 6
    arrays, floats = {}, []
    for name, size in (("W", inputs), ("R", hidden)):
        whole = rng.integers(low, high + 1, (count, size, 4 * hidden)) + zero
        scale = rng.uniform(0.002, 0.006, (count, 4 * hidden) if per_row else count)
        kind = np.uint8 if zero else np.int8
        arrays[name] = whole.astype(kind)
        arrays[f"{name}_scale"] = scale.astype(np.float32)
        arrays[f"{name}_zero"] = np.full(scale.shape, zero, kind)
        steps = np.broadcast_to(arrays[f"{name}_scale"].reshape(count, -1, 1), (count, 24, 1))
        floats.append((whole - zero).swapaxes(1, 2).astype(np.float32) * steps)
    arrays["B"] = rng.standard_normal((count, 8 * hidden)).astype(np.float32)
    ends = ["W_scale", "W_zero", "R_scale", "R_zero"]
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        ["X", "W", "R", "B", "", "", "", "", *ends],
        ["Y", "Y_h", "Y_c"],
        domain="com.microsoft",
        hidden_size=hidden,
        **attributes,
    )
    x = rng.standard_normal((7, 3, inputs)).astype(np.float32)
    proto = graph_of([node], {"X": x}, {"Y": None, "Y_h": None, "Y_c": None}, arrays)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto, x, (*floats, arrays["B"])


class TestLSTM:
    """DynamicQuantizeLSTM beside an LSTM with the same weights in float32."""

    def as_floats(self, x, weights, **attributes):
        node = helper.make_node(
            "LSTM", ["X", "W", "R", "B"], ["Y", "Y_h", "Y_c"], hidden_size=6, **attributes
        )
        held = dict(zip("WRB", weights, strict=True))
        shapes = {"Y": None, "Y_h": None, "Y_c": None}
        return from_onnx(graph_of([node], {"X": x}, shapes, held)).run(x)

    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"direction": "reverse"},
            {"direction": "bidirectional", "clip": 0.8},
            {"input_forget": 1},
            {
                "direction": "bidirectional",
                "activations": [*["Sigmoid", "Tanh", "Tanh"], *["HardSigmoid", "Tanh", "Relu"]],
            },
        ],
        ids=lambda value: "-".join(value) or "plain",
    )
    @pytest.mark.parametrize("zero", [0, 128])
    @pytest.mark.parametrize("per_row", [False, True])
    def test_in_int8(self, rng, attributes, zero, per_row):
        proto, x, weights = lstm_node(rng, zero=zero, per_row=per_row, **attributes)
        graph = from_onnx(proto)
        assert {part.weight_type for part in graph.layers.values()} == {"int8"}
        for mine, theirs in zip(
            graph.run(x), self.as_floats(x, weights, **attributes), strict=True
        ):
            assert 0 < np.abs(mine - theirs).max() <= ROUNDED * np.abs(theirs).max()

    @pytest.mark.parametrize("direction", ["forward", "bidirectional"])
    def test_in_float32_where_a_number_is_beyond(self, rng, direction):
        case = {"zero": 100, "low": -100, "high": 155, "direction": direction}
        proto, x, weights = lstm_node(rng, **case)
        graph = from_onnx(proto)
        assert {part.weight_type for part in graph.layers.values()} == {None}
        want = self.as_floats(x, weights, direction=direction)
        for mine, theirs in zip(graph.run(x), want, strict=True):
            assert_close({"y": mine}, {"y": theirs}, 1e-6)

    def test_as_onnx_runtime(self, rng):
        skip_where_sums_saturate()
        for per_row in (False, True):
            proto, x, _ = lstm_node(rng, per_row=per_row, direction="bidirectional")
            want = run_by_runtime(proto, {"X": x})
            for mine, theirs in zip(from_onnx(proto).run(x), want, strict=True):
                assert np.abs(mine - theirs).max() <= ROUNDED * np.abs(theirs).max()

    def test_what_is_not_there_or_does_not_fit_is_named(self, rng):
        proto, _, _ = lstm_node(rng)
        broken = onnx.ModelProto.FromString(proto.SerializeToString())
        held = {array.name: array for array in broken.graph.initializer}
        held["W_scale"].CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "W_scale"))
        with pytest.raises(ValueError, match=r"scales and zero points must be \(1,\) or \(1, 24\)"):
            from_onnx(broken)
        broken.graph.initializer.remove(held["W_scale"])
        broken.graph.input.append(helper.make_tensor_value_info("W_scale", 1, (1,)))
        with pytest.raises(ValueError, match="'W_scale', which the file does not hold"):
            from_onnx(broken)


def test_matmul_integer_to_float(rng):
    """With activations that nothing rounds dynamically it is what it says; ONNX Runtime agrees."""
    a, b = (rng.integers(0, 256, s).astype(np.uint8) for s in ((4, 3), (3, 5)))
    arrays = {"b": b, "a_scale": np.float32(0.5), "b_scale": np.full(5, 0.25, np.float32)}
    arrays |= {"a_zero": np.uint8(3), "b_zero": np.full(5, 7, np.uint8)}
    arrays |= {"bias": rng.standard_normal(5).astype(np.float32)}
    names = ["a", "b", "a_scale", "b_scale", "a_zero", "b_zero", "bias"]
    node = helper.make_node("MatMulIntegerToFloat", names, ["y"], domain="com.microsoft")
    proto = graph_of([node], {"a": a}, {"y": (4, 5)}, arrays)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    sums = (a.astype(int) - 3) @ (b.astype(int) - 7)
    want = (sums * 0.125 + arrays["bias"]).astype(np.float32)
    np.testing.assert_allclose(from_onnx(proto).run(a)[0], want, rtol=1e-6)


class TestWriting:
    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    @pytest.mark.parametrize("name", [*MODELS, "tagger"])
    def test_the_file_computes_with_these_weights(self, tmp_path, rng, name, weights):
        model = scrambled((MODELS.get(name) or SURROUNDED[name])(), rng)
        light = rnncore.quantize(model, weights)
        x, same = input_of(model, rng), dequantized(light)
        state, ends = states_like(model(x)[1], rng), np.array([6, 2, 4], np.int32)
        to_onnx(light, tmp_path / "m.onnx")
        y, after = same(x, state, lengths=ends)
        got = from_onnx(tmp_path / "m.onnx").run(x, ends, *leaves(state))
        for mine, theirs in zip(got, (y, *leaves(after)), strict=True):
            assert_close({"y": mine}, {"y": theirs}, 2e-5)

    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    @pytest.mark.parametrize(
        "name", ["rnn", "lstm_deep", "lstm_coupled_peephole", "gru_reset_before", "tagger"]
    )
    def test_onnx_runtime_computes_the_same(self, tmp_path, rng, name, weights):
        runtime()
        model = scrambled((MODELS.get(name) or SURROUNDED[name])(), rng)
        found = []
        light = rnncore.quantize(model, weights)
        to_onnx(light, tmp_path / "m.onnx", verify=True, report=found.append)
        assert found[0].reference.startswith("ONNX Runtime")
        assert found[0].difference <= 2e-5 * found[0].largest

    def test_files_are_a_quarter_and_a_half(self, tmp_path):
        table = Embedding(300, 64, seed=0)
        model = Chain(table, LSTM(64, 96, 2, seed=1), Linear(96, 64, seed=2), TiedLinear(table))
        sizes = {}
        for weights in (None, "int8", "bfloat16"):
            made = model if weights is None else rnncore.quantize(model, weights)
            to_onnx(made, tmp_path / "m.onnx")
            sizes[weights] = (tmp_path / "m.onnx").stat().st_size
        assert sizes["int8"] < 0.28 * sizes[None]
        assert sizes["bfloat16"] < 0.52 * sizes[None]

    def test_read_as_modules_it_can_be_quantized_as_before(self, tmp_path):
        light = rnncore.quantize(Chain(Embedding(7, 6), LSTM(6, 16), GRU(16, 5)))
        to_onnx(light, tmp_path / "m.onnx")
        module = from_onnx(tmp_path / "m.onnx").module()
        assert [part.weight_type for part in module.layers] == ["int8", None, None]
        again = rnncore.quantize(module, exclude="0")  # which is so already
        for name, array in light.params.items():
            bound = 1e-6 if name.endswith(SCALE) else 0
            np.testing.assert_allclose(again.params[name], array, rtol=bound)

    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    def test_other_formats_have_float32(self, tmp_path, rng, weights):
        model = rnncore.quantize(Chain(GRU(1, 8, seed=0), Linear(8, 1, seed=1)), weights)
        to_rtneural(model, tmp_path / "m.json", verify=True, report=str)
        state = to_torch_state_dict(model, verify=True, report=str)
        for name, array in dequantized(model).params.items():
            np.testing.assert_array_equal(state[name], array)
        assert state.keys() == dequantized(model).params.keys()


class TestHolding:
    def test_rows_that_reach_127_are_kept(self, rng):
        whole = rng.integers(-127, 128, (4, 6)).astype(np.int8)
        whole[0, 2], whole[1, 5], whole[2], whole[3] = 127, -127, 0, whole[3] // 2
        scale = rng.uniform(0.5, 2, 4).astype(np.float32)
        layer, table = Linear(6, 4), Embedding(4, 6)
        for held in (layer, table):
            hold_int8(held, {"weight": (whole, scale)})
            np.testing.assert_array_equal(held.params["weight"][:3], whole[:3])
            np.testing.assert_array_equal(held.params["weight" + SCALE][:2], scale[:2])
        np.testing.assert_array_equal(table.params["weight"], whole)
        np.testing.assert_array_equal(table.params["weight" + SCALE], scale)
        most = np.abs(whole[3].astype(int)).max()
        assert np.abs(layer.params["weight"][3].astype(int)).max() == 127
        off = dequantized(layer).params["weight"][3] - whole[3] * scale[3]
        assert np.abs(off).max() <= scale[3] * most / 127 / 2 * 1.001

    @pytest.mark.parametrize(
        ("weights", "what"),
        [
            ({}, "weights must be 'weight'"),
            ({"weight": (np.zeros((3, 2), np.int8), np.ones(3))}, r"must have shape \(2, 3\)"),
            ({"weight": (np.full((2, 3), -128, np.int8), np.ones(2))}, "within"),
            ({"weight": (np.zeros((2, 3), np.int8), -np.ones(2))}, "finite and not negative"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, weights, what):
        with pytest.raises(ValueError, match=what):
            hold_int8(Linear(3, 2), weights)


def test_the_units_own_numbers_stay_float32():
    light = rnncore.quantize(LSTM(3, 4, peephole=True, seed=0))
    assert light.params["weight_ch_l0"].dtype == np.float32
    assert {part.weight_type for part in modules(light)} == {"int8"}
