"""An ONNX file as a model that runs: its nodes one after the other, recurrences on our kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ...arrays import Array
from ..budget import Budget
from ..common import (
    Report,
    Verify,
    check,
    is_batch_first,
    output,
    random_input,
    readable,
    refusal,
)
from .building import Builder
from .examples import as_inputs, bound_by_states, neutral, random_inputs, steps_and_batch
from .files import Source, described, import_onnx, load, name_of
from .modules import Chained
from .part import part_of
from .plan import Plans
from .reference import compare
from .stream import GraphStream

#: So many times the usual may be made of a file while a module is compared with it.
_ROOM = 4


def from_onnx(
    source: Source,
    *,
    part: tuple[str | Sequence[str], str | Sequence[str]] | None = None,
    verify: Verify = None,
    report: Report = print,
) -> OnnxModel:
    """Read an ONNX file into a model: `model.run(*inputs)` gives the outputs.

    source: a path, the bytes of a file, or an `onnx.ModelProto`. Beside a path, numbers that are
    kept in other files are read if these lie in the same folder.

    part: names of values in the graph, `(inputs, outputs)`, each a name or several: the model is
    what lies between them, and only that is read. `ValueError` if the graph has no such values, or
    if the outputs need more than these inputs.

    RNN, LSTM and GRU with all their attributes, weights as initialisers or as inputs; If, Loop and
    Scan; and the operators around them, those of `rnncore.convert.onnx.operators.OPERATORS`. If the
    file has others, `ValueError` names all of them. A file that asks for memory out of proportion
    to its size is refused.
    float32 or float64; a sequence of length zero ends in zeros, as in ONNX Runtime, and `clip` acts
    as it does there, on the sums of gates and candidate. Quantised models: see docs/conversion.md.

    verify: True, an input or a tuple of inputs: compare with ONNX Runtime, where it is installed;
    `report` gets the largest difference.
    """
    proto, budget = load(source, None if part is None else part_of(part))
    with readable(name_of(source), "is not a readable ONNX model"):
        model = OnnxModel(proto, budget)
    if verify is not None and verify is not False:
        inputs = model._random(budget) if verify is True else as_inputs(verify)
        named = dict(zip(model.inputs, inputs, strict=False))
        try:
            outputs = model.run(*inputs)
        except ValueError as error:
            if verify is not True:
                raise
            raise ValueError(f"random inputs do not fit, give verify= one: {error}") from error
        compare(outputs, proto, named, report, rounded=model.rounds)
    return model


class OnnxModel:
    """A graph of nodes. `inputs` names what `run` takes, with dtypes and shapes; `outputs` its
    results; `layers` holds the recurrent layers and products whose weights the file has, by node.
    """

    def __init__(self, proto: Any, budget: Budget | None = None) -> None:
        onnx, graph = import_onnx(), proto.graph
        self._budget = Budget(proto.ByteSize()) if budget is None else budget
        opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
        held = {tensor.name for tensor in graph.initializer}
        self.inputs = {
            value.name: described(onnx, value) for value in graph.input if value.name not in held
        }
        builder = Builder(onnx, opset, self._budget)
        self._body = builder.model(graph, list(self.inputs))
        self._plans = Plans(self._body, self._budget.size)
        self.outputs, self.layers = self._body.outputs, builder.layers
        self.rounds = builder.rounds  # activations to 8 bits

    def run(self, *inputs: npt.ArrayLike, **named: npt.ArrayLike) -> tuple[Array, ...]:
        """Return the outputs in the file's order; inputs come in the file's order or by name.

        Raises `ValueError` naming an input that does not fit, or a node that fails.
        """
        return self.compute(self._values(inputs, named))

    def compute(self, given: Mapping[str, Array]) -> tuple[Array, ...]:
        """`run` for inputs that are known to fit: all of them, in the file's order."""
        return self._plans.run(given)

    def stream(
        self, states: Mapping[str, str], batch: int = 1, **fixed: npt.ArrayLike
    ) -> GraphStream:
        """Return an object that takes frame by frame and keeps the states.

        states: for each input that is a state the output that it is afterwards, as in
        `{"state": "stateN"}`; they start at zero, with `batch` rows where sizes are open. fixed:
        inputs that stay the same, such as a rate. Raises `ValueError` for names that there are not.
        """
        return GraphStream(self, states, batch, fixed)

    def _values(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Array]:
        """The inputs by name, checked."""
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
        return {name: own.checked(name, given[name]) for name, own in self.inputs.items()}

    def _random(self, budget: Budget) -> tuple[Array, ...]:
        return random_inputs(self.inputs, bound_by_states(self._body, self.inputs), budget)

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
        module = Chained(self._body, x, budget).module()
        batch_first = is_batch_first(module)
        bound = bound_by_states(self._body, self.inputs)
        sizes = steps_and_batch(self.inputs, bound, batch_first)
        example = random_input(module, *sizes, budget)
        values = self._values((), neutral(self.inputs, example, batch_first, budget))
        # The file told the size of the input: that alone must not raise what may be made of it.
        given = sum(value.nbytes for value in values.values())
        want = self._body.run(values, Budget(_ROOM * (self._budget.size + given)))[0]
        check("the graph itself", [output(module, example)], [want], lambda _: None, self.rounds)
        return module
