"""A graph that is a chain of layers, as modules: to train on, to save, to write elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...arrays import Array
from ...compositions.bidirectional import Bidirectional, Reversed
from ...compositions.readout import Readout
from ...layers.activations import Elementwise, Softmax
from ...layers.dropout import Dropout
from ...layers.embedding import Embedding
from ...layers.layer_norm import LayerNorm
from ...layers.linear import Linear
from ...module import Module
from ...precision import SCALE, hold_int8
from .. import common
from ..budget import Budget, bytes_as_floats
from ..common import refusal
from . import quantised
from .first_states import first_states, leading_to
from .nodes import Body
from .operators.normalisation import FLAT_SOFTMAX
from .operators.quantised import ROWS, rows
from .quantised import Product, within
from .recurrent import Recurrent
from .weights import ACTIVATIONS

_OURS = {written: ours for ours, (written, _) in ACTIVATIONS.items()}
_OURS |= {"Selu": "selu", "Exp": "exponential"}


class Chained:
    """The walk along the one way from the input to the first output.

    A recurrent node hands on Y with its axes of directions, or Y_h; until these are gone, `open` is
    the layer and `ending` says which of the two it is.
    """

    def __init__(self, body: Body, x: str, budget: Budget) -> None:
        self.budget, self.constants, self.y = budget, body.constants, body.outputs[0]
        self.nodes = leading_to(body.nodes, self.y)
        self.at, self.passed = x, {x}
        self.modules: list[Module] = []
        self.turned = False  # against the axes of the input
        self.time_major: bool | None = None  # known once a recurrent node has been met
        self.open: Module | None = None
        self.ending = False

    def module(self) -> Any:
        """Walk, and return the layers."""
        for node in self.nodes:
            if self.at in node.inputs and node.op != "Shape":
                self._step(node)
            elif node.op != "Shape" and self.passed.intersection(node.inputs):
                raise refusal("a chain", f"{node.where}, which begins a second branch")
        has_time = not any(isinstance(module, Readout) for module in self.modules)
        if self.at != self.y or self.open is not None or (has_time and self.turned):
            raise refusal("a chain", f"the way that ends at {self.at}")
        return common.chain_of(self.modules)

    def _step(self, node: Any) -> None:
        steps: dict[str, Callable[[Any], None]] = {
            "Add": self._add,
            "Dropout": self._nothing,
            "Gather": self._gather,
            "Gemm": self._product,
            "Identity": self._nothing,
            "LayerNormalization": self._layer_norm,
            "MatMul": self._product,
            "Reshape": self._close,
            "Softmax": self._softmax,
            FLAT_SOFTMAX: self._softmax,
            "Squeeze": self._squeeze,
            "Transpose": self._transpose,
            quantised.LSTM: self._recurrent,
            quantised.PRODUCT: self._rounded_product,
            ROWS: self._rows,
        }
        steps |= dict.fromkeys(_OURS, self._activation)
        steps |= dict.fromkeys(("RNN", "LSTM", "GRU"), self._recurrent)
        closing = ("Reshape", "Squeeze", "Transpose", "Identity")
        if node.op not in steps or (self.open is not None and node.op not in closing):
            raise refusal("a chain", node.where)
        held = sum(
            bytes_as_floats(self.constants[name]) for name in node.inputs if name in self.constants
        )
        self.budget.take(f"{node.where}: a copy of weights", (2 * held,))
        self.passed.add(node.outputs[0])
        self.at = node.outputs[0]
        steps[node.op](node)

    def _nothing(self, node: Any) -> None:
        if node.op == "Dropout":
            self.modules.append(Dropout(node.attributes.get("ratio", 0.5)))

    def _recurrent(self, node: Any) -> None:
        recurrent = node.function
        assert isinstance(recurrent, Recurrent)
        if node.inputs[0] not in self.passed or not recurrent.fixed:
            raise refusal("a chain", f"{node.where}, whose weights are inputs")
        if (*node.inputs, *[""] * 5)[4] in self.constants:
            raise refusal("a chain", f"{node.where}, whose lengths are constants")
        self.time_major = recurrent.time_major
        first = first_states(node, self.nodes, self.constants, self.budget)
        layers = recurrent.layers(self.turned == self.time_major, first)
        if len(layers) == 2:
            self.open = Bidirectional(layers[0], layers[1])
        else:
            self.open = Reversed(layers[0]) if recurrent.directions == [True] else layers[0]
        outputs = [name for name in node.outputs[:2] if name and self._is_read(name)]
        if len(outputs) != 1:
            raise refusal("a chain", f"{node.where}, of which {len(outputs)} outputs are read")
        self.at, self.ending = outputs[0], outputs[0] != node.outputs[0]
        self.passed.add(self.at)

    def _is_read(self, name: str) -> bool:
        return name == self.y or any(name in node.inputs for node in self.nodes)

    def _close(self, node: Any) -> None:
        """The axis of directions is gone: the layer is whole."""
        if self.open is None:
            raise refusal("a chain", node.where)
        self.modules.append(Readout(self.open) if self.ending else self.open)
        self.open = None

    def _squeeze(self, node: Any) -> None:
        axes = node.attributes.get("axes", self.constants.get((*node.inputs, "", "")[1]))
        if list(axes if axes is not None else []) != [0 if self.ending else 1]:
            raise refusal("a chain", node.where)
        self._close(node)

    def _transpose(self, node: Any) -> None:
        perm = list(node.attributes.get("perm", []))
        if self.open is not None:
            if perm != ([1, 0, 2] if self.ending else [0, 2, 1, 3]):
                raise refusal("a chain", node.where)
        elif perm in ([1, 0], [1, 0, 2]):
            self.turned = not self.turned
            self.time_major = None if self.time_major is None else not self.time_major
        else:
            raise refusal("a chain", node.where)

    def _gather(self, node: Any) -> None:
        """An embedding, or the last step."""
        table, axis = self.constants.get(node.inputs[0]), node.attributes.get("axis", 0)
        if table is not None and table.ndim == 2 and axis == 0:
            embedding = Embedding(*table.shape, dtype=table.dtype)
            self.modules.append(common.filled(embedding, {"weight": table}))
            return
        index = self.constants.get(node.inputs[1])
        last = self.modules[-1] if self.modules else None
        is_last = index is not None and not index.shape and index == -1
        has_time = last is not None and last.recurrent and not isinstance(last, Readout)
        if not is_last or not has_time or axis != (0 if self.time_major else 1):
            raise refusal("a chain", node.where)
        one_way = self.modules[-1].directions == 1
        self.modules[-1] = Readout(self.modules[-1], "last" if one_way else "last_step")

    def _product(self, node: Any) -> None:
        weight = self.constants.get(node.inputs[1])
        if weight is None or weight.ndim != 2 or node.inputs[0] in self.constants:
            raise refusal("a chain", node.where)
        if node.op == "Gemm":
            plain = all(node.attributes.get(name, 1) == 1 for name in ("alpha", "beta"))
            if not plain or node.attributes.get("transA"):
                raise refusal("a chain", node.where)
            weight = weight.T if node.attributes.get("transB") else weight
        self.modules.append(_linear(weight.T, self._third(node)))

    def _rounded_product(self, node: Any) -> None:
        product = node.function
        assert isinstance(product, Product)
        self.modules.append(_with_bias(product.linear, self._third(node, 4)))

    def _rows(self, node: Any) -> None:
        """An embedding whose table is in few bits."""
        table, scale, zero = (
            self.constants.get(name) for name in (node.inputs[0], *(*node.inputs, "", "")[2:4])
        )
        assert table is not None
        embedding = Embedding(*table.shape)
        with np.errstate(all="ignore"):
            every = rows(table, np.arange(len(table)), scale, zero)
        self.modules.append(common.filled(embedding, {"weight": every}))
        held = within(table - np.int16(0 if zero is None else zero.item()))
        if scale is not None and held is not None:
            scales = np.broadcast_to(scale.reshape(-1), len(table))
            hold_int8(embedding, {"weight": (held, scales)})

    def _third(self, node: Any, at: int = 2) -> Array | None:
        """The bias of a node, None without one; what is computed cannot be a parameter."""
        name = (*node.inputs, *[""] * 5)[at]
        if name and name not in self.constants:
            raise refusal("a chain", f"{node.where}, whose bias is {name}")
        return self.constants.get(name)

    def _add(self, node: Any) -> None:
        """The bias of a product."""
        other = next((name for name in node.inputs if name in self.constants), "")
        bias, last = self.constants.get(other), self.modules[-1] if self.modules else None
        if not isinstance(last, Linear) or last.bias or bias is None or bias.ndim != 1:
            raise refusal("a chain", node.where)
        self.modules[-1] = _with_bias(last, bias)

    def _layer_norm(self, node: Any) -> None:
        weight = self.constants.get(node.inputs[1])
        axis = node.attributes.get("axis", -1)
        if weight is None or axis != -weight.ndim:
            raise refusal("a chain", node.where)
        bias = self._third(node)
        bias = np.zeros_like(weight) if bias is None else bias
        layer = LayerNorm(weight.shape, node.attributes.get("epsilon", 1e-5), dtype=weight.dtype)
        self.modules.append(common.filled(layer, {"weight": weight, "bias": bias}))

    def _softmax(self, node: Any) -> None:
        usual = -1 if node.op == "Softmax" else 1
        self.modules.append(Softmax(node.attributes.get("axis", usual)))

    def _activation(self, node: Any) -> None:
        constants = [node.attributes[n] for n in ("alpha", "beta") if n in node.attributes]
        name = (_OURS[node.op], *constants) if constants else _OURS[node.op]
        made = common.activation_layer(name)
        assert isinstance(made, Module)
        if isinstance(made, Elementwise) and node.op == "Selu" and constants:
            raise refusal("a chain", node.where)
        self.modules.append(made)


def _linear(weight: Array, bias: Array | None) -> Any:
    outputs, inputs = weight.shape
    linear = Linear(inputs, outputs, bias is not None, dtype=weight.dtype)
    params = {"weight": weight} | ({} if bias is None else {"bias": bias.reshape(-1)})
    return common.filled(linear, params)


def _with_bias(linear: Linear, bias: Array | None) -> Any:
    """A copy of a layer without one."""
    params = linear.float_params()
    made = _linear(params["weight"], bias)
    if linear.weight_type is not None:
        names = "weight", f"weight{SCALE}"
        whole, scale = (linear.params[name] for name in names)
        hold_int8(made, {"weight": (whole, scale)})
    return made
