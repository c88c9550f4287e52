"""Graphs for the tests of ONNX: single recurrent nodes with all that their attributes can say."""

import importlib
import itertools
from functools import cache

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx reads and writes the format")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT


def runtime():
    """ONNX Runtime, or the reason why a test is skipped."""
    return pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")


def session(proto):
    """A model in ONNX Runtime, on one thread."""
    options = runtime().SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return runtime().InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_by_runtime(proto, inputs):
    return session(proto).run(None, inputs)


@cache
def sums_bytes_exactly():
    """Whether ONNX Runtime's sums of bytes are exact: on x86 without VNNI two products saturate."""
    w = np.full((2, 8), 127, np.int8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    x = np.full((8, 2), 255, np.uint8)
    proto = graph_of([node], {"x": x}, {}, {"w": w})
    proto.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.INT32, (8, 8)))
    return bool((run_by_runtime(proto, {"x": x})[0] == 2 * 255 * 127).all())


def node_tests(*operators):
    """The standard's tests of some operators, by the names of the modules that they are in.

    Importing those of all takes too long.
    """
    node = importlib.import_module("onnx.backend.test.case.node")
    with pytest.MonkeyPatch.context() as patch, np.errstate(divide="ignore", invalid="ignore"):
        patch.setattr(node, "import_recursive", lambda package: None)
        for name in operators:
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
        cases = node.collect_testcases(None)
    names = {name.replace("_", "").removesuffix("op") for name in operators}
    return [c for c in cases if c.model and c.model.graph.node[0].op_type.lower() in names]


#: The gates of each operator, and the sizes of the nodes here.
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


#: An operator, the name of its attributes, a direction, whether lengths and states are given.
CASES = [
    (op, name, direction, ragged)
    for op in GATES
    for name in ATTRIBUTES
    for direction in ("forward", "reverse", "bidirectional")
    for ragged in (False, True)
    if ONLY.get(name, op) == op
]


def arguments(op, name, direction, ragged):
    """What a case's attributes and inputs are."""
    attributes = {"direction": direction} | activations_of(op, direction, ATTRIBUTES[name])
    peephole = op == "LSTM" and name != "leaky"
    return attributes, {"ragged": ragged, "initial": ragged, "peephole": peephole}


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
