"""A part of a graph as a model of its own: from values to values."""

import numpy as np
import pytest
from rnncore import GRU, LSTM, Chain, Linear
from rnncore.convert import from_onnx, to_onnx

from tests.support.compare import assert_close, assert_same

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

import onnx
from onnx import helper, numpy_helper

from tests.support.onnx_graphs import INPUTS, H, T, graph_of, runtime

make = helper.make_node


@pytest.fixture
def among_strangers(rng):
    """An LSTM between operators that nobody knows, and its weights."""
    shapes = {"W": (1, 4 * H, INPUTS), "R": (1, 4 * H, H)}
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        make("Spectrum", ["audio"], ["seen"], domain="d"),
        make("Relu", ["seen"], ["x"]),
        make("LSTM", ["x", "W", "R", "", "", "h0"], ["Y", "Y_h"], "lstm", hidden_size=H),
        make("Squeeze", ["Y", "one"], ["y"]),
        make("Words", ["y"], ["text"], domain="d"),
    ]
    inputs = {"audio": np.zeros(9, np.float32), "h0": np.zeros((1, 2, H), np.float32)}
    proto = graph_of(nodes, inputs, {"text": None}, weights | {"one": np.array([1])})
    proto.opset_import.append(helper.make_opsetid("d", 1))
    return proto


class TestAmongStrangers:
    def test_a_recurrence_is_taken_out(self, rng, among_strangers):
        with pytest.raises(ValueError, match=r"d\.Spectrum \(Spectrum 0\), d\.Words \(Words 4\)"):
            from_onnx(among_strangers)
        model = from_onnx(among_strangers, part=(["x", "h0"], ["y", "Y_h"]))
        assert list(model.inputs) == ["x", "h0"]
        assert model.outputs == ("y", "Y_h")
        assert [type(layer) for layer in model.layers.values()] == [LSTM]
        x, h0 = rng.standard_normal((T, 2, INPUTS)), rng.standard_normal((1, 2, H))
        x, h0 = x.astype(np.float32), h0.astype(np.float32)
        y, h = model.run(x, h0)
        want, (after, _) = model.layers["LSTM lstm"](x, (h0, np.zeros_like(h0)))
        assert_close({"y": y, "h": h}, {"y": want, "h": after}, 1e-6)
        assert_same({"y": model.run(x=x, h0=h0)[0]}, {"y": y})

    def test_what_is_not_said_of_a_value_is_taken_as_it_comes(self, rng, among_strangers):
        """Behind an operator that nobody knows there is no type."""
        model = from_onnx(among_strangers, part=("seen", "x"))
        assert (model.inputs["seen"].dtype, model.inputs["seen"].shape) == (None, None)
        x = rng.standard_normal((3, 1))
        assert_same({"x": model.run(x)[0]}, {"x": np.maximum(x, 0)})
        with pytest.raises(ValueError, match="does not say the shape of the input 'seen'"):
            from_onnx(among_strangers, part=("seen", "x"), verify=True)
        if runtime():
            x = x.astype(np.float32)
            from_onnx(among_strangers, part=("seen", "x"), verify=x, report=str)

    def test_an_output_that_needs_more_says_what(self, among_strangers):
        with pytest.raises(ValueError, match=r"'y' cannot be had of 'x' alone.* needs.* 'h0'$"):
            from_onnx(among_strangers, part=("x", "y"))
        with pytest.raises(ValueError, match=r"'seen' does not need 'h0'"):
            from_onnx(among_strangers, part=(["audio", "h0"], "seen"))

    def test_names_that_there_are_not(self, among_strangers):
        with pytest.raises(ValueError, match=r"the graph has no value 'q', 'z'$"):
            from_onnx(among_strangers, part=(["x", "q"], ["y", "z"]))
        with pytest.raises(ValueError, match="outputs names a value twice: 'y', 'y'"):
            from_onnx(among_strangers, part=("x", ["y", "y"]))
        for wrong in ("x", ("x",), ("x", "y", "z"), ("x", 3), ("x", []), (["x", 1], "y"), {}):
            with pytest.raises(TypeError, match=r"^part"):
                from_onnx(among_strangers, part=wrong)

    def test_the_model_is_left_as_it_is(self, among_strangers):
        before = among_strangers.SerializeToString()
        from_onnx(among_strangers, part=(["x", "h0"], "y"))
        assert among_strangers.SerializeToString() == before


class TestPlaces:
    def test_from_a_path_with_numbers_beside_it(self, tmp_path, rng):
        runtime()  # or there is nothing to verify by
        model = Chain(GRU(3, 4, seed=0), Linear(4, 2, seed=1))
        to_onnx(model, tmp_path / "m.onnx", lengths=False, state=False)
        proto = onnx.load(tmp_path / "m.onnx")
        onnx.save(
            proto,
            tmp_path / "m.onnx",
            save_as_external_data=True,
            location="m.data",
            size_threshold=0,
        )
        x = rng.standard_normal((5, 2, 3)).astype(np.float32)
        (inner,) = [n.input[0] for n in proto.graph.node if n.op_type == "MatMul"]
        first = from_onnx(tmp_path / "m.onnx", part=("x", inner))
        second = from_onnx(tmp_path / "m.onnx", part=(inner, "y"), verify=True, report=str)
        (y,) = second.run(first.run(x)[0])
        assert_close({"y": y}, {"y": model(x)[0]}, 1e-6)
        (gru,) = [type(layer) for layer in first.layers.values()]
        assert gru is GRU
        assert type(first.module()) is GRU

    def test_between_two_outputs_of_a_node(self, rng):
        """The node is run for the one that is wanted; the one that is given is not replaced."""
        x = rng.standard_normal(6).astype(np.float32)
        nodes = [
            make("Split", ["x"], ["a", "b"], num_outputs=2),
            make("Add", ["a", "b"], ["y"]),
        ]
        proto = graph_of(nodes, {"x": x}, {"y": None}, opset=18)
        (y,) = from_onnx(proto, part=(["x", "a"], "y")).run(x, np.ones(3, np.float32))
        assert_same({"y": y}, {"y": 1 + x[3:]})

    def test_weights_may_be_inputs_and_constants_outputs(self, rng):
        x, w = rng.standard_normal((2, 3)), rng.standard_normal((3, 4))
        nodes = [make("Neg", ["w"], ["v"]), make("MatMul", ["x", "v"], ["y"])]
        proto = graph_of(nodes, {"x": x}, {"y": None}, {"w": w})
        (y,) = from_onnx(proto, part=(["w", "x"], "y")).run(2 * w, x)
        assert_close({"y": y}, {"y": -2 * x @ w}, 1e-12)
        (v,) = from_onnx(proto, part=("w", "v")).run(w)
        assert_same({"v": v}, {"v": -w})

    def test_what_graphs_within_nodes_read_counts(self, rng):
        """A branch needs the value `a`, which its node does not name."""
        x = rng.standard_normal(3).astype(np.float32)
        kind = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
        branches = {
            name: helper.make_graph([make(op, ["a"], ["out"])], name, [], [kind])
            for name, op in (("then_branch", "Neg"), ("else_branch", "Abs"))
        }
        nodes = [make("Exp", ["x"], ["a"]), make("If", ["c"], ["y"], **branches)]
        proto = graph_of(nodes, {"x": x, "c": np.array(True)}, {"y": None})
        with pytest.raises(ValueError, match=r"needs the input 'x'$"):
            from_onnx(proto, part=("c", "y"))
        (y,) = from_onnx(proto, part=(["a", "c"], "y")).run(x, np.array(True))
        assert_same({"y": y}, {"y": -x})


def test_numbers_beside_the_model_of_graphs_within_nodes(tmp_path, rng):
    """A branch may hold tensors, and they may lie in the file beside."""
    x, w = (rng.standard_normal(3).astype(np.float32) for _ in range(2))
    tensor = numpy_helper.from_array(w, "w")
    (tmp_path / "w.data").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.data")
    kind = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
    held = helper.make_graph([make("Add", ["x", "w"], ["out"])], "held", [], [kind], [tensor])
    made = helper.make_graph(
        [make("Constant", [], ["v"], value=tensor), make("Sub", ["x", "v"], ["out"])],
        "made",
        [],
        [kind],
    )
    node = make("If", ["c"], ["y"], then_branch=held, else_branch=made)
    proto = graph_of([node], {"x": x, "c": np.array(True)}, {"y": None})
    with pytest.raises(ValueError, match="the numbers of 'w' lie in another file"):
        from_onnx(proto)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = from_onnx(tmp_path / "m.onnx")
    assert_same({"y": model.run(x, np.array(True))[0]}, {"y": x + w})
    assert_same({"y": model.run(x, np.array(False))[0]}, {"y": x - w})
