"""Groups of nodes that stand for one product or one table of weights in few bits, made one node.

- DynamicQuantizeLinear, MatMulInteger, Cast and Mul, as the quantiser writes a MatMul, or with
  MatMulIntegerToFloat: DynamicQuantizeMatMul, which ONNX Runtime itself makes of them.
- Gather of a table in few bits, and what makes its rows float32: `operators.quantised.ROWS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .nested import reads
from .operators.quantised import ROWS
from .quantised import PRODUCT

#: The operators of which groups are made.
_PARTS = ("Cast", "DynamicQuantizeLinear", "Gather", "MatMulInteger", "Mul")
_STANDARD = ("", "ai.onnx")


def fused(onnx: Any, graph: Any) -> Iterator[tuple[int, Any]]:
    """Yield the nodes of a graph with their numbers, groups as one; the graph is left as it is."""
    fuser = _Fuser(onnx, graph)
    nodes = [(at, fuser.node(node)) for at, node in enumerate(graph.node)]
    if all(mine is theirs for (_, mine), theirs in zip(nodes, graph.node, strict=True)):
        yield from nodes
        return
    read = {value.name for value in graph.output}
    kept = []
    for at, node in reversed(nodes):
        part = node.op_type in _PARTS and node.domain in _STANDARD
        if not part or read.intersection(node.output):
            kept.append((at, node))
            read |= reads(node)
    yield from reversed(kept)


class _Fuser:
    def __init__(self, onnx: Any, graph: Any) -> None:
        self.onnx, self.types = onnx, onnx.TensorProto
        self.held = {tensor.name: tensor for tensor in graph.initializer}
        self.made = {name: node for node in graph.node for name in node.output if name}

    def node(self, node: Any) -> Any:
        """The node itself, or the one that does what the group does that it ends."""
        found = None
        if node.op_type == "Mul" and node.domain in _STANDARD:
            found = self._product(*node.input) or self._product(*reversed(node.input))
            found = found or self._scaled_rows(*node.input)
        elif node.op_type == "MatMulIntegerToFloat":
            found = self._product_with_bias(node)
        elif node.op_type == "DequantizeLinear":
            found = self._rounded_rows(node)
        elif node.op_type == "Cast":
            found = self._short_rows(node)
        if not found:
            return node
        domain, _, op = found[0].rpartition(".")
        return self.onnx.helper.make_node(op, found[1:], node.output, node.name, domain=domain)

    def _maker(self, name: str, op: str) -> Any:
        """The node of this operator that makes a value; None if another does."""
        node = self.made.get(name)
        alike = node is not None and node.op_type == op and node.domain in _STANDARD
        return node if alike else None

    def _product(self, whole: str, scale: str) -> list[str] | None:
        """Cast(MatMulInteger) times (the scale of X times that of B)."""
        cast, scales = self._cast_of(whole), self._maker(scale, "Mul")
        product = self._maker(cast, "MatMulInteger") if cast else None
        if product is None or scales is None:
            return None
        for x_scale, b_scale in (scales.input, reversed(scales.input)):
            if found := self._rounded(product.input, x_scale, b_scale):
                return found
        return None

    def _product_with_bias(self, node: Any) -> list[str] | None:
        a, b, x_scale, b_scale, x_zero, b_zero, bias = (*node.input, "", "", "")[:7]
        found = self._rounded([a, b, x_zero, b_zero], x_scale, b_scale)
        return [*found, *([""] if len(found) == 4 else []), bias] if found and bias else found

    def _rounded(self, product: Any, x_scale: str, b_scale: str) -> list[str] | None:
        """The product of x, rounded as it comes, and a matrix that the file holds."""
        a, b, x_zero, b_zero = (*product, "", "")[:4]
        rounded = self._maker(a, "DynamicQuantizeLinear")
        if rounded is None or list(rounded.output) != [a, x_scale, x_zero]:
            return None
        names = [b, b_scale, *([b_zero] if b_zero else [])]
        if any(name not in self.held for name in names) or len(self.held[b].dims) != 2:
            return None
        return [PRODUCT, rounded.input[0], *names]

    def _cast_of(self, name: str) -> str:
        """What a Cast to float32 makes this of; empty without one."""
        node = self._maker(name, "Cast")
        if node is None or self._attribute(node, "to", 0) != self.types.FLOAT:
            return ""
        return str(node.input[0])

    def _attribute(self, node: Any, name: str, default: int) -> Any:
        given = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        return given.get(name, default)

    def _gathered(self, name: str, *kinds: int) -> list[str] | None:
        """Table and indices of a Gather of rows, if the file holds the table in one of these."""
        node = self._maker(name, "Gather")
        table = None if node is None else self.held.get(node.input[0])
        if table is None or len(table.dims) != 2 or self._attribute(node, "axis", 0):
            return None
        return list(node.input) if table.data_type in kinds else None

    def _scaled_rows(self, whole: str, scale: str) -> list[str] | None:
        """Cast(Gather(table)) times Gather(scales), as we write it."""
        found = self._gathered(self._cast_of(whole), self.types.INT8)
        scales = self._gathered(scale, self.types.FLOAT)
        if found is None or scales is None or scales[1] != found[1]:
            return None
        sizes = [list(self.held[name].dims) for name in (found[0], scales[0])]
        return [ROWS, *found, scales[0]] if sizes[1] == [sizes[0][0], 1] else None

    def _rounded_rows(self, node: Any) -> list[str] | None:
        """DequantizeLinear(Gather(table)) with a single scale."""
        found = self._gathered(node.input[0], self.types.INT8, self.types.UINT8)
        given = [name for name in node.input[1:] if name]
        if found is None or any(attribute.name != "axis" for attribute in node.attribute):
            return None
        tensors = [self.held[name] for name in given if name in self.held]
        single = all(list(tensor.dims) in ([], [1]) for tensor in tensors)
        if len(tensors) < len(given) or not single or tensors[0].data_type != self.types.FLOAT:
            return None
        return [ROWS, *found, *given]

    def _short_rows(self, node: Any) -> list[str] | None:
        """Cast(Gather(table)) of a table in bfloat16."""
        found = self._gathered(self._cast_of(node.output[0]), self.types.BFLOAT16)
        return [ROWS, *found] if found else None
