"""Graphs of a few nodes for the tests of ONNX, and how near two results are."""

import numpy as np
from rnncore.convert.budget import Budget

from .onnx_graphs import helper, numpy_helper, onnx


def graph(nodes, inputs, outputs, constants=None, opset=17):
    """A model of nodes (op, inputs, outputs, attributes); inputs by name with type and shape."""
    made = [
        helper.make_node(op, ins.split(), outs.split(), **attributes)
        for op, ins, outs, attributes in nodes
    ]
    kinds = {"f": onnx.TensorProto.FLOAT, "d": onnx.TensorProto.DOUBLE, "i": onnx.TensorProto.INT64}
    given = [helper.make_tensor_value_info(n, kinds[k], s) for n, (k, s) in inputs.items()]
    results = [helper.make_tensor_value_info(name, 1, None) for name in outputs.split()]
    held = [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()]
    proto = helper.make_graph(made, "g", given, results, held)
    return helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def near(mine, theirs, bound=1e-6):
    for a, b in zip(mine, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.array_equal(np.isnan(a), np.isnan(b))
        largest = np.nanmax(np.abs(b), initial=1)
        assert np.nanmax(np.abs(a - b), initial=0) <= bound * largest


def f32(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def by_node(model, given):
    """What the nodes give when none is compiled."""
    return model._body.run(given, Budget(1 << 30))


def plans(model):
    return [plan for plans in model._plans._free.values() for plan in plans]


def steps_of(model):
    """How many programs and nodes a model's only plan runs one after the other."""
    (plan,) = plans(model)
    return len(plan.steps)


IMAGE = (2, 3, 9, 7)


def conv(rng, name="w", inputs=3, outputs=5, size=(3, 3)):
    return {name: f32(rng, outputs, inputs, *size), f"{name}_b": f32(rng, outputs)}
