"""From the nodes of a file to those that run: constants folded, layers made, strangers listed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...arrays import Array
from ...files import one_line
from ...layers.linear import Linear
from ...module import Module
from ..budget import Budget, bytes_as_floats
from ..common import TOLERANCE, refusal, shown
from .control import Control, Controlled, If, Loop, Scan
from .external import array_of
from .files import attributes_of, blank, constant_of
from .fusing import fused
from .nested import graphs_of
from .nodes import Body, Function, Node
from .operators import EARLIER, OPERATORS, OUTPUTS
from .quantised import LSTM, PRODUCT, Product, QuantisedLSTM
from .recurrent import Recurrent, product
from .scopes import Scope

_RECURRENT = {"RNN": 2, "LSTM": 3, "GRU": 2}
_QUANTISED = {LSTM: 3, PRODUCT: 1}
_CONTROL = frozenset(("If", "Loop", "Scan"))
_BRANCHES = ("then_branch", "else_branch")
_KNOWN = {*OPERATORS, *_RECURRENT, *_QUANTISED, *_CONTROL, "Constant"}
#: How many outputs we have of each operator; of others one.
_OUTPUTS = {**OUTPUTS, **_RECURRENT, **_QUANTISED}
#: The bytes that a node takes, and a layer beside its weights.
_NODE, _LAYER = 1 << 11, 1 << 13


class Builder:
    """Makes the nodes of a model ready.

    layers: recurrent layers and products whose weights the file has, by node. rounds: whether
    activations are rounded to 8 bits.
    """

    def __init__(self, onnx: Any, opset: int, budget: Budget) -> None:
        self.onnx, self.opset, self.budget = onnx, opset, budget
        self.layers: dict[str, Module] = {}
        self.rounds = False
        self._unknown: dict[str, list[str]] = {}
        self._products: dict[Any, tuple[Array, Linear]] = {}

    def model(self, graph: Any, inputs: list[str]) -> Body:
        """The body of a whole graph; `ValueError` with all operators that are not known."""
        scope = Scope()
        scope.make(inputs)
        body = self._body(graph, scope, inputs)
        if self._unknown:
            listed = ", ".join(
                f"{op} ({places[0]})" if len(places) == 1 else f"{op} ({len(places)} times)"
                for op, places in sorted(self._unknown.items())
            )
            what = "operators" if len(self._unknown) > 1 else "operator"
            raise ValueError(f"rnncore cannot represent the {what} {listed}")
        return body

    def _body(self, graph: Any, scope: Scope, inputs: list[str]) -> Body:
        if graph.sparse_initializer:
            raise refusal("rnncore", "sparse initialisers")
        scope.hold({t.name: array_of(self.onnx, t) for t in graph.initializer})
        for at, node in fused(self.onnx, graph):
            self._add(node, scope, one_line(f"{node.op_type} {node.name or at}", 120))
        outputs = [value.name for value in graph.output]
        scope.check("the graph", outputs)
        return scope.body(inputs, outputs)

    def _add(self, node: Any, scope: Scope, where: str) -> None:
        """Make a node ready; one that needs nothing but constants is run at once."""
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        before, earlier = EARLIER.get(op, (0, op))
        op = earlier if self.opset < before else op
        self.budget.take(f"{where}: a node", (_NODE,))
        if op not in _KNOWN:
            self._unknown.setdefault(op, []).append(where)
            scope.make(node.output)
            return
        scope.check(where, node.input)
        scope.make(node.output)
        if op in _CONTROL:
            self._add_control(op, node, scope, where)
            return
        attributes = dict(attributes_of(self.onnx, where, node))
        if op == "Constant":
            scope.hold({node.output[0]: constant_of(where, attributes)})
            return
        function = self._function(op, node, scope, where, attributes)
        self._put(
            Node(op, where, function, tuple(node.input), tuple(node.output), attributes), scope
        )

    def _put(self, node: Node, scope: Scope) -> None:
        if not scope.are_constant(node.inputs):
            scope.nodes.append(node)
            return
        try:
            node.run(scope.constants, self.budget)
        except ValueError:
            if scope.outer is None:
                raise
            scope.nodes.append(node)  # of a branch that may never be taken

    def _add_control(self, op: str, node: Any, scope: Scope, where: str) -> None:
        """A node with graphs within; an If whose condition is known becomes one of its branches."""
        graphs = graphs_of(node)
        if op == "If" and node.input[0] in scope.constants:
            chosen = scope.constants[node.input[0]].item()
            branch = self._within(graphs, _BRANCHES[0 if chosen else 1], scope, where)
            scope.splice(branch, where, node.output)
            return
        inputs = [*node.input]
        if op == "If":
            control: Control = If(*(self._within(graphs, n, scope, where) for n in _BRANCHES))
        else:
            blanks = [blank(self.onnx, value) for value in graphs["body"].output]
            body = self._within(graphs, "body", scope, where)
            control = self._repeated(op, node, body, blanks)
            inputs += [""] * (2 - len(inputs) if op == "Loop" else 0)
        names = (*inputs, *control.free)
        self._put(Controlled(op, where, control, names, tuple(node.output), {}), scope)

    def _within(self, graphs: Mapping[str, Any], name: str, scope: Scope, where: str) -> Body:
        """The body of a graph within a node."""
        inner = Scope(scope, f"{scope.path}{where} {name}: ")
        inputs = [value.name for value in graphs[name].input]
        inner.make(inputs)
        try:
            return self._body(graphs[name], inner, inputs)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def _repeated(self, op: str, node: Any, body: Body, blanks: list[Array]) -> Control:
        if op == "Loop":
            return Loop(body, blanks, max(0, len(node.input) - 2))
        if self.opset < 9:
            raise refusal("rnncore", "Scan before version 9")
        attributes = {
            a.name: self.onnx.helper.get_attribute_value(a)
            for a in node.attribute
            if a.name != "body"
        }
        return Scan(body, blanks, len(node.input), attributes)

    def _function(
        self, op: str, node: Any, scope: Scope, where: str, attributes: dict[str, Any]
    ) -> Function:
        for name in list(node.output)[_OUTPUTS.get(op, 1) :]:
            if name:
                raise refusal("rnncore", f"{where}: the output {name}")
        constant = [scope.constants.get(name) for name in node.input]
        if op in _RECURRENT or op in _QUANTISED:
            self._take_layer(where, *constant)
        self.rounds |= op in ("DynamicQuantizeLinear", "QuantizeLinear")
        if op in _RECURRENT:
            return self._recurrent(node, scope, where, attributes)
        if op in _QUANTISED:
            return self._quantised(op, node, scope, where, attributes)
        function = OPERATORS[op]
        if op == "Split":
            attributes = attributes | {"outputs": len(node.output)}
            attributes.pop("num_outputs", None)
        _check_arguments(function, where, len(node.input), attributes)
        weight = _matrix(op, constant, attributes)
        if weight is not None:
            linear = self.layers[scope.path + where] = self._product(where, weight)
            return Multiplied(linear)
        return lambda *given: _tuple(function(*given, **attributes))

    def _take_layer(self, where: str, *held: Array | None) -> None:
        size = sum(bytes_as_floats(array) for array in held if array is not None)
        self.budget.take(f"{where}: a layer", (2 * size + _LAYER,))

    def _product(self, where: str, weight: Array) -> Linear:
        """The layer of a matrix, one for all nodes that it serves, such as a cell's steps."""
        lies = (weight.__array_interface__["data"][0], weight.shape, weight.strides, weight.dtype)
        if lies not in self._products:
            self._take_layer(where, weight)
            self._products[lies] = weight, product(weight)  # the place is taken while it is held
        return self._products[lies][1]

    def _recurrent(
        self, node: Any, scope: Scope, where: str, attributes: dict[str, Any]
    ) -> Function:
        names = [node.input[at] if at < len(node.input) else "" for at in (1, 2, 3, 7)]
        known = scope.are_constant(names)
        weights = [scope.constants.get(name) for name in names] if known else None
        recurrent = Recurrent(where, node.op_type, attributes, weights)
        return self._with_layers(scope.path + where, recurrent)

    def _quantised(
        self, op: str, node: Any, scope: Scope, where: str, attributes: dict[str, Any]
    ) -> Function:
        """A node whose weights in 8 bits the file must hold."""
        names = [*node.input, *[""] * 12]
        places = (1, 2, 3, 7, 8, 9, 10, 11) if op == LSTM else (1, 2, 3)
        if missing := [names[at] for at in places if not scope.are_constant([names[at]])]:
            raise refusal("rnncore", f"{where}: {shown(missing[0])}, which the file does not hold")
        given = [scope.constants.get(names[at]) for at in places]
        with np.errstate(all="ignore"):  # scales may be anything
            if op == LSTM:
                lstm = QuantisedLSTM(where, attributes, given)
                self.rounds |= any(part.layer.weight_type is not None for part in lstm.parts)
                return self._with_layers(scope.path + where, lstm)
            _check_arguments(Product.__call__, where, len(node.input) + 1, attributes)
            return self._rounded_product(scope.path + where, given)

    def _rounded_product(self, where: str, given: list[Any]) -> Function:
        b, scale, zero = given
        if b is None or scale is None:
            raise ValueError(f"{where}: B and its scale must be there")
        made = Product(where, b, scale, zero)
        self.layers[where] = made.linear
        self.rounds |= made.linear.weight_type is not None
        return made

    def _with_layers(self, where: str, recurrent: Recurrent) -> Recurrent:
        for at, part in enumerate(recurrent.parts):
            self.layers[f"{where}.{at}" if len(recurrent.parts) > 1 else where] = part.layer
        return recurrent


def _check_arguments(
    function: Callable[..., Any], where: str, count: int, attributes: Mapping[str, Any]
) -> None:
    """Refuse a number of inputs, or an attribute, that the function does not know."""
    try:
        inspect.signature(function).bind(*(None,) * count, **attributes)
    except TypeError as error:
        raise refusal("rnncore", f"{where}: {error}") from error


def _matrix(op: str, constant: list[Array | None], attributes: Mapping[str, Any]) -> Array | None:
    """The matrix that the file holds of a plain product with it; None for anything else."""
    weight = constant[1] if op in ("Gemm", "MatMul") and constant[0] is None else None
    if weight is None or weight.ndim != 2 or weight.dtype not in TOLERANCE or not weight.size:
        return None
    if op == "MatMul":
        return weight
    plain = all(attributes.get(name, 1) == 1 for name in ("alpha", "beta"))
    if not plain or attributes.get("transA"):
        return None
    return weight.T if attributes.get("transB") else weight


class Multiplied:
    """A product with a matrix that the file holds, on the kernels of a layer."""

    def __init__(self, linear: Linear) -> None:
        self.linear = linear

    def __call__(self, x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, ...]:
        """X, the matrix and a bias -> the product."""
        y = self.linear(x)
        return (y if bias is None else y + bias,)


def _tuple(result: Any) -> tuple[Array, ...]:
    return result if isinstance(result, tuple) else (result,)
