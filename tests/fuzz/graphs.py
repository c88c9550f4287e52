"""Sound ONNX graphs of what other people's models have around their recurrences."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def onnx_graphs() -> list[bytes]:
    """Convolutions and pools, graphs within nodes, sequences, gathers and scatters."""
    return [make().SerializeToString() for make in (_pictures, _sound, _turns, _choices, _places)]


def _model(nodes: list[Any], shapes: dict[str, Any], outputs: list[str], **held: Any) -> Any:
    from onnx import helper, numpy_helper

    inputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    results = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
    arrays = [numpy_helper.from_array(np.asarray(a), name) for name, a in held.items()]
    graph = helper.make_graph(nodes, "graph", inputs, results, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _body(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> Any:
    from onnx import helper

    def described(value: Any) -> Any:
        name, kind = value if isinstance(value, tuple) else (value, 1)
        return helper.make_tensor_value_info(name, kind, [] if kind != 1 else None)

    return helper.make_graph(nodes, "body", *([*map(described, v)] for v in (inputs, outputs)))


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _pictures() -> Any:
    from onnx.helper import make_node as make

    nodes = [
        make("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 1], group=2),
        make("BatchNormalization", ["c", "b", "b", "b", "v"], ["n"]),
        make("MaxPool", ["n"], ["m"], kernel_shape=[2, 2], ceil_mode=1, dilations=[1, 2]),
        make("AveragePool", ["m"], ["a"], kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
        make("Resize", ["a", "", "s"], ["r"], mode="linear"),
        make("ConvTranspose", ["r", "t"], ["d"], strides=[2, 2], output_padding=[1, 0]),
        make("GlobalAveragePool", ["d"], ["y"]),
    ]
    held = {"w": _floats(4, 1, 3, 3), "b": _floats(4), "v": np.square(_floats(4)) + 1}
    held |= {"s": np.array([1, 1, 2, 1.5], np.float32), "t": _floats(4, 2, 2, 2)}
    return _model(nodes, {"x": [1, 2, 8, 9]}, ["y"], **held)


def _sound() -> Any:
    from onnx.helper import make_node as make

    nodes = [
        make("Pad", ["x", "p"], ["wide"], mode="reflect"),
        make("Conv", ["wide", "w"], ["c"], dilations=[2]),
        make("ReduceL2", ["c", "one"], ["size"]),
        make("ReduceLogSumExp", ["c", "one"], ["loud"]),
        make("Div", ["c", "size"], ["even"]),
        make("Transpose", ["even"], ["turned"], perm=[2, 0, 1]),
        make("LSTM", ["turned", "W", "R"], ["Y", "Y_h"], hidden_size=2),
        make("Einsum", ["Y", "Y_h"], ["y"], equation="tdbh,dbh->tb"),
    ]
    held = {"p": np.array([0, 0, 2, 0, 0, 1]), "w": _floats(3, 1, 3), "one": np.array([1])}
    held |= {"W": _floats(1, 8, 3), "R": _floats(1, 8, 2)}
    return _model(nodes, {"x": [1, 1, 9]}, ["y", "loud"], **held)


def _turns() -> Any:
    from onnx.helper import make_node as make

    step = [
        make("Identity", ["on"], ["go"]),
        make("SequenceInsert", ["list", "s"], ["longer"]),
        make("Mul", ["s", "half"], ["s2"]),
    ]
    loop = _body(step, [("t", 7), ("on", 9), "s", "list"], [("go", 9), "s2", "longer"])
    each = _body(
        [make("Add", ["h", "x"], ["h2"]), make("Tanh", ["h2"], ["y"])], ["h", "x"], ["h2", "y"]
    )
    nodes = [
        make("SequenceEmpty", [], ["none"]),
        make("Loop", ["three", "", "x", "none"], ["last", "all"], body=loop),
        make("ConcatFromSequence", ["all"], ["joined"], axis=0),
        make("SplitToSequence", ["joined", "two"], ["parts"]),
        make("SequenceAt", ["parts", "two"], ["part"]),
        make(
            *("Scan", ["first", "joined"], ["h", "hs"]),
            body=each,
            num_scan_inputs=1,
            scan_input_directions=[1],
        ),
    ]
    held = {"half": np.float32(0.5), "three": np.array(3), "two": np.array(2)}
    return _model(nodes, {"x": [2, 3]}, ["hs", "part"], **held | {"first": _floats(3)})


def _choices() -> Any:
    from onnx.helper import make_node as make

    def choice(condition: str, output: str) -> Any:
        branches = {
            "then_branch": _body([make("MatMul", ["x", "w"], ["z"])], [], ["z"]),
            "else_branch": _body([make("Neg", ["x"], ["z"])], [], ["z"]),
        }
        return make("If", [condition], [output], **branches)

    nodes = [
        make("ReduceSum", ["x"], ["sum"], keepdims=0),
        make("Greater", ["sum", "zero"], ["some"]),
        choice("some", "a"),
        choice("known", "b"),
        make("Where", ["some", "a", "b"], ["y"]),
    ]
    held = {"w": _floats(3, 3), "zero": np.float32(0), "known": np.array(True)}
    return _model(nodes, {"x": [2, 3]}, ["y"], **held)


def _places() -> Any:
    from onnx.helper import make_node as make

    nodes = [
        make("ArgMax", ["x"], ["best"], axis=-1),
        make("GatherElements", ["x", "best"], ["top"], axis=-1),
        make("TopK", ["x", "k"], ["values", "order"]),
        make("ScatterElements", ["x", "order", "values"], ["s"], axis=-1, reduction="add"),
        make("GatherND", ["s", "at"], ["some"]),
        make("OneHot", ["best", "depth", "ends"], ["hot"]),
        make("CumSum", ["s", "zero"], ["c"], exclusive=1),
        make("Tile", ["c", "twice"], ["t"]),
        make("NonZero", ["hot"], ["n"]),
        make("Trilu", ["t"], ["y"]),
    ]
    held = {"k": np.array([2]), "at": np.array([[0], [1]]), "depth": np.array(4)}
    held |= {"ends": np.array([0, 1], np.float32), "zero": np.array(0), "twice": np.array([2, 1])}
    return _model(nodes, {"x": [2, 4]}, ["y", "n", "some", "top"], **held)
