"""Nodes that are one step: a convolution with what is done to each of its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ....arrays import Array
from ..nodes import Node
from ..operators.quantised import dequantize_linear
from .lowering import activation_of, affine_of
from .tracing import Trace


@dataclass
class Fused:
    """A convolution: weights `(O, I / groups, *kernel)` and bias of all its nodes, and its finish.

    add: the name of what is added before the activation. gated: the sums are multiplied by it.
    rounded: weights were in 8 bits, and met what was rounded as it came.
    """

    node: Node
    x: str
    weight: Array
    bias: Array
    output: str
    add: str = ""
    activation: tuple[str, float, float] | None = None
    gated: bool = False
    rounded: bool = False
    taken: list[Node] = field(default_factory=list)

    def multiply(self, scale: Array) -> None:
        """Multiply the sums of each output by a number."""
        self.weight = self.weight * scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        self.bias = self.bias * scale


class Fuser:
    """Finds what belongs to each convolution of a trace that computes in `dtype`."""

    def __init__(self, trace: Trace, dtype: np.dtype[Any]) -> None:
        self.trace, self.dtype = trace, dtype
        self.readers: dict[str, list[Node]] = {name: [] for name in trace.outputs}
        self.makers: dict[str, Node] = {}
        for node in trace.nodes:
            for name in filter(None, node.inputs):
                self.readers.setdefault(name, []).append(node)
            for name in filter(None, node.outputs):
                self.makers[name] = node

    def items(self) -> Iterator[Node | Fused]:
        """Yield the nodes in order, each convolution where the last of its nodes was."""
        found: dict[int, Fused] = {}
        taken: set[int] = set()
        for node in self.trace.nodes:
            if id(node) in taken:
                continue
            fused = self._start(node)
            if fused is not None and self._fits(fused):
                self._extend(fused, taken)
                taken.update(map(id, fused.taken))
                found[id(fused.taken[-1])] = fused
        for node in self.trace.nodes:
            if id(node) in found:
                yield found[id(node)]
            elif id(node) not in taken:
                yield node

    def _start(self, node: Node) -> Fused | None:
        if node.op == "Conv":
            weight, bias = (self.trace.known(n) if n else None for n in (*node.inputs, "")[1:3])
            if weight is None or (bias is None and len(node.inputs) > 2 and node.inputs[2]):
                return None
            zero = np.zeros(len(weight), weight.dtype)
            own = zero if bias is None else bias
            return Fused(node, node.inputs[0], weight, own, node.outputs[0], taken=[node])
        return self._in_eight_bits(node) if node.op == "ConvInteger" else None

    def _fits(self, fused: Fused) -> bool:
        """Whether the core has such a convolution: over sequences or images, of some numbers."""
        x, y = self.trace.values[fused.x], self.trace.values[fused.output]
        known = x.dtype == fused.weight.dtype == self.dtype and x.ndim in (3, 4)
        return bool(known and x.size and y.size)

    def _extend(self, fused: Fused, taken: set[int]) -> None:
        """Take what reads the output alone, as long as it is an affine map, a sum or the end."""
        while fused.activation is None:
            reader = self._only_reader(fused.output)
            if reader is None:
                self._take_gate(fused)
                return
            if id(reader) in taken or not self._take(fused, reader):
                return
            fused.taken.append(reader)
            fused.output = reader.outputs[0]

    def _only_reader(self, name: str) -> Node | None:
        readers = self.readers.get(name, [])
        alone = len(readers) == 1 and name not in self.trace.outputs
        return readers[0] if alone and readers[0].inputs.count(name) == 1 else None

    def _take(self, fused: Fused, node: Node) -> bool:
        if activation_of(node) is not None:
            fused.activation = activation_of(node)
            return True
        if node.op not in ("Add", "Mul", "BatchNormalization") or fused.add:
            return False
        if node.op == "BatchNormalization":
            affine = affine_of(self.trace, node) if node.inputs[0] == fused.output else None
            if affine is not None:
                fused.multiply(affine[0])
                fused.bias = fused.bias + affine[1]
            return affine is not None
        other = next(name for name in node.inputs if name != fused.output)
        channels = self._by_channel(fused, other)
        if channels is not None:
            if node.op == "Mul":
                fused.multiply(channels)
            else:
                fused.bias = fused.bias + channels
            return True
        values = self.trace.values
        if node.op != "Add" or values[other].shape != values[fused.output].shape:
            return False
        fused.add = other
        return True

    def _by_channel(self, fused: Fused, name: str) -> Array | None:
        """A known number for each channel, as `(O,)`; None for anything else."""
        known = self.trace.known(name)
        count, axes = len(fused.weight), self.trace.values[fused.output].ndim
        if known is None or known.dtype != fused.weight.dtype:
            return None
        shape = (1,) * (axes - known.ndim) + known.shape
        if len(shape) != axes or shape[1] not in (1, count) or known.size != shape[1]:
            return None
        return np.broadcast_to(known.reshape(-1), count)

    def _take_gate(self, fused: Fused) -> None:
        """y = x sigmoid(x), as it is written with two nodes."""
        readers = self.readers.get(fused.output, [])
        if len(readers) != 2 or fused.output in self.trace.outputs:
            return
        gate, product = readers
        activation = activation_of(gate)
        if activation is None or product.op != "Mul":
            return
        if self._only_reader(gate.outputs[0]) is not product or len(product.inputs) != 2:
            return
        if set(product.inputs) != {fused.output, gate.outputs[0]}:
            return
        fused.activation, fused.gated = activation, True
        fused.taken += [gate, product]
        fused.output = product.outputs[0]

    def _in_eight_bits(self, node: Node) -> Fused | None:
        """The nodes of a convolution whose input is rounded as it comes, as one in float32.

        DynamicQuantizeLinear, ConvInteger, Cast and Mul by both scales; before the Cast a bias may
        be added, which was divided by them.
        """
        x, weight, x_zero, zero = (*node.inputs, "", "")[:4]
        rounding = self.makers.get(x)
        if rounding is None or rounding.op != "DynamicQuantizeLinear":
            return None
        known = self.trace.known(weight), self.trace.known(zero) if zero else None
        if known[0] is None or x_zero != rounding.outputs[2]:
            return None
        taken, bias = [node], None
        after = self._only_reader(node.outputs[0])
        if after is not None and after.op == "Add":
            taken.append(after)
            bias = self._bias(next(n for n in after.inputs if n != node.outputs[0]))
            after = self._only_reader(after.outputs[0]) if bias is not None else None
        scaled = self._only_reader(after.outputs[0]) if after and after.op == "Cast" else None
        if after is None or scaled is None or scaled.op != "Mul":
            return None
        scale = self._scale(next(n for n in scaled.inputs if n != after.outputs[0]), rounding)
        if scale is None or scale.size != 1:
            return None
        floats = dequantize_linear(known[0], scale.reshape(()), known[1])
        bias = np.zeros(len(floats), floats.dtype) if bias is None else bias
        plain = replace(node, op="Conv", inputs=(rounding.inputs[0], weight, ""))
        output, taken = scaled.outputs[0], [*taken, after, scaled]
        return Fused(plain, rounding.inputs[0], floats, bias, output, rounded=True, taken=taken)

    def _scale(self, name: str, rounding: Node) -> Array | None:
        """The scale of the weights in the product of both scales."""
        product = self.makers.get(name)
        if product is None or product.op != "Mul" or rounding.outputs[1] not in product.inputs:
            return None
        other = next(n for n in product.inputs if n != rounding.outputs[1])
        known: Array | None = self.trace.known(other)
        return known

    def _bias(self, name: str) -> Array | None:
        """The bias that is divided by the scales and cut to a whole number."""
        for op in ("Reshape", "Cast", "Floor", "Div"):
            node = self.makers.get(name)
            if node is None or node.op != op or (op != "Reshape" and not self._only_reader(name)):
                return None
            name = node.inputs[0]
        known: Array | None = self.trace.known(name)
        return None if known is None else known.reshape(-1)
