"""Inputs that a model is tried on: their sizes fit each other, and none is made up."""

import numpy as np
import pytest
from rnncore import LSTM
from rnncore.convert import from_onnx
from rnncore.convert.budget import Budget
from rnncore.convert.onnx.examples import bound_by_states, random_inputs

from tests.support.compare import assert_close

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

from onnx import helper

from tests.support.onnx_graphs import GATES, INPUTS, H, graph_of, recurrent, runtime

make = helper.make_node


def open_sizes(value, *names):
    """Leave the sizes of an input open, by a name or by none."""
    for size, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        size.Clear()
        if name:
            size.dim_param = name


def with_states_of_one_row(rng, op="LSTM", layout=0):
    """A node whose first states are inputs of batch 1, time and batch of X open."""
    proto, _ = recurrent(rng, op, {"layout": layout}, initial=True)
    x, *states = proto.graph.input
    open_sizes(x, "", "")
    for state in states:
        state.type.tensor_type.shape.dim[0 if layout else 1].dim_value = 1
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return proto


def squeezed(proto):
    """Without the axis of directions, and with this output alone."""
    proto.graph.node.append(make("Squeeze", ["Y", "one"], ["y"]))
    proto.graph.initializer.append(helper.make_tensor("one", 7, [1], [1]))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("y", 1, None))


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
class TestStatesOfOneRow:
    def test_are_run_with_one_row(self, rng, op):
        runtime()
        from_onnx(with_states_of_one_row(rng, op), verify=True, report=str)

    @pytest.mark.parametrize("layout", [0, 1])
    def test_bind_the_batch_of_their_layout(self, rng, op, layout):
        model = from_onnx(with_states_of_one_row(rng, op, layout))
        bound = bound_by_states(model._body, model.inputs)
        assert bound == {("X", 0 if layout else 1): 1}
        x, *states = random_inputs(model.inputs, bound, Budget(1 << 20))
        assert sorted(x.shape[:2]) == [1, 3]
        y = model.run(x, *states)[0]
        assert y.shape == ((1, 3, 1, H) if layout else (3, 1, 1, H))

    def test_become_a_module(self, rng, op):
        proto = with_states_of_one_row(rng, op)
        squeezed(proto)
        module = from_onnx(proto).module()
        assert type(module).__name__ == op
        x = rng.standard_normal((5, 3, INPUTS)).astype(np.float32)
        assert module(x)[0].shape == (5, 3, H)  # of any batch

    def test_behind_a_transposition_and_under_a_name(self, rng, op):
        """The batch has a name that another input shares."""
        proto = with_states_of_one_row(rng, op)
        x = proto.graph.input[0]
        nodes = list(proto.graph.node)
        nodes[0].input[0] = "turned"
        del proto.graph.node[:]
        proto.graph.node.extend([make("Transpose", ["X"], ["turned"], perm=[1, 0, 2]), *nodes])
        proto.graph.node.append(make("Add", ["Y_h", "more"], ["sum"]))
        open_sizes(x, "rows", "time")
        proto.graph.input.append(helper.make_tensor_value_info("more", 1, ["rows", H]))
        proto.graph.output.append(helper.make_tensor_value_info("sum", 1, None))
        runtime()
        from_onnx(proto, verify=True, report=str)


def test_constant_states_of_one_row_fix_the_batch_too(rng):
    shapes = {"W": (1, GATES["LSTM"] * H, INPUTS), "R": (1, GATES["LSTM"] * H, H)}
    arrays = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    arrays |= {n: np.zeros((1, 1, H), np.float32) for n in ("h0", "c0")} | {"one": np.array([1])}
    nodes = [
        make("LSTM", ["x", "W", "R", "", "", "h0", "c0"], ["Y"], hidden_size=H),
        make("Squeeze", ["Y", "one"], ["y"]),
    ]
    x = rng.standard_normal((4, 1, INPUTS)).astype(np.float32)
    proto = graph_of(nodes, {"x": x}, {"y": None}, arrays)
    open_sizes(proto.graph.input[0], "time", "batch")
    graph = from_onnx(proto)
    module = graph.module()
    assert type(module) is LSTM
    assert_close({"y": module(x)[0]}, {"y": graph.run(x)[0]}, 1e-6)


class TestUndeclaredShapes:
    def test_an_input_is_asked_for(self, rng):
        proto, inputs = recurrent(rng, "GRU", {}, initial=True)
        for value in proto.graph.input:
            value.type.tensor_type.ClearField("shape")
        what = r"does not say the shape of the input 'X': give verify= an input"
        with pytest.raises(ValueError, match=what):
            from_onnx(proto, verify=True)
        runtime()
        from_onnx(proto, verify=tuple(inputs.values()), report=str)

    def test_sizes_that_only_the_author_knows_are_asked_for(self, rng):
        x = rng.standard_normal((2, 6)).astype(np.float32)
        node = make("Reshape", ["x", "shape"], ["y"])
        proto = graph_of([node], {"x": x}, {"y": None}, {"shape": np.array([0, 2, 3])})
        open_sizes(proto.graph.input[0], "batch", "chunk")
        with pytest.raises(ValueError, match=r"do not fit, give verify= one: Reshape 0: cannot"):
            from_onnx(proto, verify=True)
        runtime()
        from_onnx(proto, verify=x, report=str)

    def test_a_module_needs_those_beside_the_first(self, rng):
        proto, _ = recurrent(rng, "GRU", {}, initial=True)
        squeezed(proto)
        proto.graph.input[0].type.tensor_type.ClearField("shape")
        assert from_onnx(proto).module().input_size == INPUTS
        proto.graph.input[1].type.tensor_type.ClearField("shape")
        with pytest.raises(ValueError, match="does not say the shape of the input 'initial_h'"):
            from_onnx(proto).module()
