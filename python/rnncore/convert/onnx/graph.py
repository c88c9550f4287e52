"""A graph in the making: nodes and arrays; names of values stand for them."""

from __future__ import annotations

from typing import Any

import numpy as np

OPSET, IR_VERSION = 17, 8


class Graph:
    """The nodes, arrays, inputs and outputs so far."""

    def __init__(self, onnx: Any, dtype: np.dtype[Any], lengths: bool, state: bool) -> None:
        self.onnx, self.dtype, self.has_lengths, self.has_state = onnx, dtype, lengths, state
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or their names."""
        names = [f"{op}_{len(self.nodes)}" + f"_{at}" * (outputs > 1) for at in range(outputs)]
        node = self.onnx.helper.make_node(
            op, inputs, names, f"{op}_{len(self.nodes)}", **attributes
        )
        self.nodes.append(node)
        return names if outputs > 1 else names[0]

    def append(self, op: str, inputs: list[str], name: str, **attributes: Any) -> None:
        """Add a node whose output has this name."""
        node = self.onnx.helper.make_node(op, inputs, [name], f"{name}_n", **attributes)
        self.nodes.append(node)

    def array(self, value: Any, name: str = "") -> str:
        """Add a constant; return its name."""
        name = name or f"constant_{len(self.arrays)}"
        self.arrays.append(self.onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def weights(self, name: str, value: Any, scale: Any = None) -> str:
        """Add weights in float32, int8 with scales that broadcast, or the bits of bfloat16.

        Returns the name of what holds them as numbers of the graph.
        """
        # Cast and Mul of constants are computed once, when the file is loaded. DequantizeLinear
        # before MatMul is for ONNX Runtime a product that may round its activations to 8 bits.
        kind = self.onnx.TensorProto.FLOAT
        if value.dtype == np.int8:
            whole = self.add("Cast", self.array(value, name), to=kind)
            return str(self.add("Mul", whole, self.array(scale, f"{name}_scale")))
        if value.dtype == np.uint16:
            return str(self.add("Cast", self.bfloat16(value, name), to=kind))
        return self.array(value, name)

    def bfloat16(self, bits: Any, name: str) -> str:
        """Add numbers in bfloat16, given as their bits, as a constant; return its name."""
        kind = self.onnx.TensorProto.BFLOAT16
        data = np.asarray(bits, "<u2", order="C").tobytes()
        self.arrays.append(self.onnx.helper.make_tensor(name, kind, bits.shape, data, raw=True))
        return name

    def indices(self, *values: int) -> str:
        """Add whole numbers as a constant."""
        return self.array(np.array(values, np.int64))

    def declare(self, name: str, dtype: Any, shape: tuple[Any, ...]) -> Any:
        """Describe an input or an output."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def proto(self, y: str) -> Any:
        """Finish: the whole file."""
        helper = self.onnx.helper
        self.nodes.append(helper.make_node("Identity", [y], ["y"], "y"))
        graph = helper.make_graph(self.nodes, "rnncore", self.inputs, self.outputs, self.arrays)
        proto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="rnncore",
        )
        self.onnx.checker.check_model(proto, full_check=True)
        return proto
