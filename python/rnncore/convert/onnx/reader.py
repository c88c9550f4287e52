"""An ONNX file as a model that runs: its nodes one after the other, recurrences on our kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...arrays import Array
from ...files import one_line
from ...layers.linear import Linear
from ...module import Module
from ..budget import Budget, bytes_as_floats
from ..common import (
    TOLERANCE,
    Report,
    Verify,
    check,
    is_batch_first,
    output,
    random_input,
    readable,
    refusal,
    shown,
)
from .external import array_of
from .files import Source, attributes_of, constant_of, described, import_onnx, load, name_of
from .fusing import fused
from .modules import Chained
from .operators import EARLIER, OPERATORS, OUTPUTS
from .quantised import LSTM, PRODUCT, Product, QuantisedLSTM
from .recurrent import Recurrent, product
from .reference import as_inputs, compare, random_inputs
from .sizes import take

Function = Callable[..., tuple[Array, ...]]

_RECURRENT = frozenset(("RNN", "LSTM", "GRU"))
_QUANTISED = frozenset((LSTM, PRODUCT))
_KNOWN = {*OPERATORS, *_RECURRENT, *_QUANTISED, "Constant"}
#: The bytes that a node takes, and a layer beside its weights.
_NODE, _LAYER = 1 << 11, 1 << 13
#: So many times the usual may be made of a file while a module is compared with it.
_ROOM = 4


def from_onnx(
    source: Source,
    *,
    verify: Verify = None,
    report: Report = print,
) -> OnnxModel:
    """Read an ONNX file into a model: `model.run(*inputs)` gives the outputs.

    source: a path, the bytes of a file, or an `onnx.ModelProto`. Beside a path, numbers that are
    kept in other files are read if these lie in the same folder.

    RNN, LSTM and GRU with all their attributes, weights as initialisers or as inputs, and the plain
    operators around them, those of `rnncore.convert.onnx.operators.OPERATORS`. Anything else raises
    `ValueError` naming it, and so does a file that asks for memory out of proportion to its size.
    float32 or float64; a sequence of length zero ends in zeros, as in ONNX Runtime, and `clip` acts
    as it does there, on the sums of gates and candidate. Quantised models: see docs/conversion.md.

    verify: True, an input or a tuple of inputs: compare with ONNX Runtime, where it is installed;
    `report` gets the largest difference.
    """
    proto, budget = load(source)
    with readable(name_of(source), "is not a readable ONNX model"):
        model = OnnxModel(proto, budget)
    if verify is not None and verify is not False:
        inputs = random_inputs(model.inputs, budget) if verify is True else as_inputs(verify)
        named = dict(zip(model.inputs, inputs, strict=False))
        compare(model.run(*inputs), proto, named, report, rounded=model.rounds)
    return model


@dataclass(frozen=True)
class Node:
    """One node, ready to run."""

    op: str
    where: str
    function: Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def run(self, values: dict[str, Array], budget: Budget) -> None:
        """Add the outputs to the values; take from the budget what they need."""
        given = [values[name] if name else None for name in self.inputs]
        try:
            with np.errstate(all="ignore"):  # a graph may divide by zero, as elsewhere
                take(budget, self.op, given, self.attributes)
                results = self.function(*given)
            if len(results) < len(self.outputs):
                raise ValueError(f"makes {len(results)} outputs, not {len(self.outputs)}")
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{self.where}: {error}") from error
        for name, result in zip(self.outputs, results, strict=False):
            if name:
                values[name] = np.asarray(result)


class OnnxModel:
    """A graph of nodes. `inputs` names what `run` takes, with dtypes and shapes; `outputs` its
    results; `layers` holds the recurrent layers and products whose weights the file has, by node.
    """

    def __init__(self, proto: Any, budget: Budget | None = None) -> None:
        onnx = import_onnx()
        graph = proto.graph
        self._budget = Budget(proto.ByteSize()) if budget is None else budget
        opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
        self._constants = {t.name: array_of(onnx, t) for t in graph.initializer}
        if graph.sparse_initializer:
            raise refusal("rnncore", "sparse initialisers")
        self.inputs = {
            value.name: described(onnx, value)
            for value in graph.input
            if value.name not in self._constants
        }
        self.outputs = tuple(value.name for value in graph.output)
        self._made = {*self._constants, *self.inputs}
        self.layers: dict[str, Module] = {}
        self._nodes: list[Node] = []
        self.rounds = False  # activations to 8 bits
        for at, node in fused(onnx, graph):
            self._add(onnx, node, one_line(f"{node.op_type} {node.name or at}", 120), opset)
        self._check_made("the graph", self.outputs)

    def run(self, *inputs: npt.ArrayLike, **named: npt.ArrayLike) -> tuple[Array, ...]:
        """Return the outputs in the file's order; inputs come in the file's order or by name.

        Raises `ValueError` naming an input that does not fit, or a node that fails.
        """
        values = self._values(inputs, named)
        numbers = sum(values[name].size for name in self.inputs)
        return self._outputs(values, Budget(self._budget.size * (1 + numbers)))

    def _values(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Array]:
        """The constants and the inputs, checked."""
        given = dict(zip(self.inputs, inputs, strict=False)) | named
        unknown = [name for name in named if name not in self.inputs]
        missing = [name for name in self.inputs if name not in given]
        twice = [name for name in list(self.inputs)[: len(inputs)] if name in named]
        if len(inputs) > len(self.inputs) or unknown or missing or twice:
            faults = {"missing": missing, "unknown": unknown, "given twice": twice}
            raise ValueError(
                f"this model takes the inputs {', '.join(self.inputs)}; got {len(inputs)} in order"
                + "".join(
                    f", {w} are {', '.join(names or ['none'])}" for w, names in faults.items()
                )
            )
        values = dict(self._constants)
        for name, value in given.items():
            values[name] = self.inputs[name].checked(name, value)
        return values

    def _outputs(self, values: dict[str, Array], budget: Budget) -> tuple[Array, ...]:
        for node in self._nodes:
            node.run(values, budget)
        return tuple(values[name] for name in self.outputs)

    def module(self) -> Any:
        """Return the layers on the way from the first input to the first output as a module.

        For graphs that are a chain of layers, such as ours and those of simple models elsewhere;
        anything else raises `ValueError` naming the node. The module is a copy, checked against
        this model on random input.
        """
        if not self.inputs or not self.outputs:
            raise refusal("a chain", "a graph without inputs or outputs")
        budget = Budget(self._budget.size)
        x = next(iter(self.inputs))
        module = Chained(self._nodes, self._constants, x, self.outputs[0], budget).module()
        batch_first = is_batch_first(module)
        example = random_input(module, *self._sizes(batch_first), budget)
        values = self._values((), self.neutral(example, batch_first, budget))
        # The file told the size of the input: that alone must not raise what may be made of it.
        room = Budget(
            _ROOM * (self._budget.size + sum(values[name].nbytes for name in self.inputs))
        )
        want = self._outputs(values, room)[0]
        check("the graph itself", [output(module, example)], [want], lambda _: None, self.rounds)
        return module

    def _sizes(self, batch_first: bool) -> tuple[int, int]:
        """How many steps and rows the first input has; 7 and 3 where that is left open."""
        described = next(iter(self.inputs.values()))
        sizes = (*(described.shape or ()), None, None)[:2]
        steps, batch = (
            size if isinstance(size, int) else usual
            for size, usual in zip(sizes[:: -1 if batch_first else 1], (7, 3), strict=True)
        )
        return steps, batch

    def neutral(
        self, x: Array, batch_first: bool, budget: Budget | None = None
    ) -> dict[str, Array]:
        """Inputs with x as the first, lengths that are full, and states that are zero."""
        budget = budget or Budget(self._budget.size + x.nbytes)
        (name, described), *others = self.inputs.items()
        inputs = {name: x.astype(described.dtype)}
        steps, batch = x.shape[:2][:: -1 if batch_first else 1]
        for other, described in others:
            shape = described.shape or ()
            fill = steps if described.dtype.kind in "iu" else 0
            sizes = [size if isinstance(size, int) else batch for size in shape]
            budget.take(f"the input {shown(other)}", sizes, described.dtype.itemsize)
            inputs[other] = np.full(sizes, fill, described.dtype)
        return inputs

    def _add(self, onnx: Any, node: Any, where: str, opset: int) -> None:
        """Make a node ready; one that needs nothing but constants is run at once."""
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if op not in _KNOWN:
            raise refusal("rnncore", f"the operator {op} ({where})")
        self._budget.take(f"{where}: a node", (_NODE,))
        self._check_made(where, node.input)
        self._made.update(node.output)
        attributes = dict(attributes_of(onnx, where, node))
        if op == "Constant":
            self._constants[node.output[0]] = constant_of(where, attributes)
            return
        function = self._function(op, node, where, opset, attributes)
        names = tuple(node.input), tuple(node.output)
        ready = Node(op, where, function, *names, attributes)
        if all(not name or name in self._constants for name in ready.inputs):
            ready.run(self._constants, self._budget)
        else:
            self._nodes.append(ready)

    def _check_made(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if name and name not in self._made:
                raise ValueError(f"{where} reads {shown(name)}, which nothing before it makes")

    def _function(
        self, op: str, node: Any, where: str, opset: int, attributes: dict[str, Any]
    ) -> Function:
        for name in list(node.output)[OUTPUTS.get(op, 1) :]:
            if name:
                raise refusal("rnncore", f"{where}: the output {name}")
        constant = [self._constants.get(name) for name in node.input]
        if op in ("Gemm", "MatMul", *_RECURRENT, *_QUANTISED):
            held = sum(bytes_as_floats(array) for array in constant if array is not None)
            self._budget.take(f"{where}: a layer", (2 * held + _LAYER,))
        self.rounds |= op in ("DynamicQuantizeLinear", "QuantizeLinear")
        if op in _RECURRENT:
            return self._recurrent(node, where, attributes)
        if op in _QUANTISED:
            return self._quantised(op, node, where, attributes)
        function = OPERATORS[op]
        before, earlier = EARLIER.get(op, (0, function))
        function = earlier if opset < before else function
        if op == "Split":
            attributes = attributes | {"outputs": len(node.output)}
            attributes.pop("num_outputs", None)
        _check_arguments(function, where, len(node.input), attributes)
        kernel = _on_kernels(op, constant, attributes)
        if kernel is not None:
            self.layers[where] = kernel
            return _with_kernel(kernel)
        return lambda *given: _tuple(function(*given, **attributes))

    def _recurrent(self, node: Any, where: str, attributes: dict[str, Any]) -> Function:
        names = [node.input[at] if at < len(node.input) else "" for at in (1, 2, 3, 7)]
        known = all(not name or name in self._constants for name in names)
        weights = [self._constants.get(name) for name in names] if known else None
        return self._with_layers(where, Recurrent(where, node.op_type, attributes, weights))

    def _quantised(self, op: str, node: Any, where: str, attributes: dict[str, Any]) -> Function:
        """A node whose weights in 8 bits the file must hold."""
        names = [*node.input, *[""] * 12]
        places = (1, 2, 3, 7, 8, 9, 10, 11) if op == LSTM else (1, 2, 3)
        if missing := [
            names[at] for at in places if names[at] and names[at] not in self._constants
        ]:
            raise refusal("rnncore", f"{where}: {shown(missing[0])}, which the file does not hold")
        given = [self._constants.get(names[at]) for at in places]
        with np.errstate(all="ignore"):  # scales may be anything
            return self._quantised_layer(op, node, where, attributes, given)

    def _quantised_layer(
        self, op: str, node: Any, where: str, attributes: dict[str, Any], given: list[Any]
    ) -> Function:
        if op == LSTM:
            lstm = QuantisedLSTM(where, attributes, given)
            self.rounds |= any(part.layer.weight_type is not None for part in lstm.parts)
            return self._with_layers(where, lstm)
        _check_arguments(Product.__call__, where, len(node.input) + 1, attributes)
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


def _on_kernels(op: str, constant: list[Array | None], attributes: Mapping[str, Any]) -> Any:
    """A product with a matrix that the file holds, as a Linear; None for anything else."""
    weight = constant[1] if op in ("Gemm", "MatMul") and constant[0] is None else None
    if weight is None or weight.ndim != 2 or weight.dtype not in TOLERANCE or not weight.size:
        return None
    if op == "MatMul":
        return product(weight)
    plain = all(attributes.get(name, 1) == 1 for name in ("alpha", "beta"))
    if not plain or attributes.get("transA"):
        return None
    return product(weight.T if attributes.get("transB") else weight)


def _with_kernel(linear: Linear) -> Function:
    def run(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, ...]:
        y = linear(x)
        return (y if bias is None else y + bias,)

    return run


def _tuple(result: Any) -> tuple[Array, ...]:
    return result if isinstance(result, tuple) else (result,)
