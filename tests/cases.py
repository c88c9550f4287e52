"""The table that every test of the recurrent layers walks, and what the tests do with a row of it.

A row, a `Case`, is a cell in a shape. It draws `Numbers` from its seed, and runs them through the
NumPy reference or through the compiled layer. Inputs, outputs and gradients travel as dicts under
one set of names, so that a test compares, perturbs or prints them all in one loop:

    inputs     x, h_0, c_0 and the parameters        gradients   the same names
    outputs    y, h_n, c_n                           upstream    the same names
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from rnncore import reference
from rnncore.reference import IDENTITY

Array = npt.NDArray[Any]
Named = dict[str, Array]

#: Largest error against the float64 reference, as `compare.assert_close` measures it.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


class CellUnderTest(NamedTuple):
    """One cell: the layer's class in rnncore.recurrent, its options, and its reference."""

    layer: str
    options: dict[str, Any]
    gates: int
    reference: reference.Cell


CELLS = {
    "rnn_tanh": CellUnderTest("RNN", {"nonlinearity": "tanh"}, 1, reference.CELLS["rnn_tanh"]),
    "rnn_relu": CellUnderTest("RNN", {"nonlinearity": "relu"}, 1, reference.CELLS["rnn_relu"]),
    "lstm": CellUnderTest("LSTM", {}, 4, reference.CELLS["lstm"]),
    "gru": CellUnderTest("GRU", {}, 3, reference.CELLS["gru"]),
    "gru_reset_before": CellUnderTest(
        "GRU", {"reset_after": False}, 3, reference.CELLS["gru_reset_before"]
    ),
}

_LINEAR = {"_activations": "linear"}

#: The same with the identity for every activation: on small integers everything is exact.
LINEAR_CELLS = {
    "rnn_linear": CellUnderTest(
        "RNN", {"nonlinearity": "identity"}, 1, reference.Vanilla(IDENTITY)
    ),
    "lstm_linear": CellUnderTest("LSTM", _LINEAR, 4, reference.LSTM(IDENTITY, IDENTITY)),
    "gru_linear": CellUnderTest("GRU", _LINEAR, 3, reference.GRUResetAfter(IDENTITY, IDENTITY)),
    "gru_reset_before_linear": CellUnderTest(
        "GRU", {"reset_after": False} | _LINEAR, 3, reference.GRUResetBefore(IDENTITY, IDENTITY)
    ),
}


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    cell: str
    dtype: str = "float64"
    num_layers: int = 1
    bidirectional: bool = False
    ragged: bool = False
    steps: int = 5
    batch: int = 3
    input_size: int = 3
    hidden_size: int = 17
    bias: bool = True
    #: Whether an initial state goes in, and a gradient of the last one.
    with_state: bool = True

    @property
    def id(self) -> str:
        """A name that tells this row from every other."""
        parts = [
            f"{self.cell}-{self.dtype}-{self.num_layers}x{self.directions}",
            f"T{self.steps}-B{self.batch}-I{self.input_size}-H{self.hidden_size}",
        ]
        parts += ["ragged"] * self.ragged + ["nobias"] * (not self.bias)
        return "-".join(parts + ["nostate"] * (not self.with_state))

    @property
    def under_test(self) -> CellUnderTest:
        """The cell's row."""
        return (CELLS | LINEAR_CELLS)[self.cell]

    @property
    def directions(self) -> int:
        """How many ways time runs."""
        return 2 if self.bidirectional else 1

    def layer(self, **options: Any) -> Any:
        """Build the rnncore layer of this case."""
        import rnncore.recurrent  # here, not above: the reference is tested without the core

        return getattr(rnncore.recurrent, self.under_test.layer)(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            bias=self.bias,
            bidirectional=self.bidirectional,
            **{"dtype": self.dtype} | self.under_test.options | options,
        )

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters' names and shapes, in torch's order."""
        rows = self.under_test.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else self.directions * self.hidden_size
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: self.directions]:
                shapes |= {f"weight_ih{suffix}": (rows, width)}
                shapes |= {f"weight_hh{suffix}": (rows, self.hidden_size)}
                if self.bias:
                    shapes |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
        return shapes

    def draw(self, seed: int = 0) -> Numbers:
        """Random numbers, the same for the same seed; weights as torch draws them."""
        rng = np.random.default_rng([seed, zlib.crc32(self.id.encode())])
        bound = self.hidden_size**-0.5
        return self._fill(rng.standard_normal, lambda shape: rng.uniform(-bound, bound, shape), rng)

    def draw_integers(self, seed: int = 0) -> Numbers:
        """Whole numbers so small and sparse that a short linear recurrence stays exact."""
        rng = np.random.default_rng([seed, zlib.crc32(self.id.encode())])

        def sparse(share: float) -> _Draw:
            return lambda shape: rng.choice([-1.0, 1.0], shape) * (rng.random(shape) < share)

        return self._fill(sparse(0.5), sparse(0.15), rng)

    def _fill(self, values: _Draw, weights: _Draw, rng: np.random.Generator) -> Numbers:
        state_shape = (self.num_layers * self.directions, self.batch, self.hidden_size)
        y_shape = (self.steps, self.batch, self.directions * self.hidden_size)
        components = ["h", "c"][: self.under_test.reference.states] if self.with_state else []
        inputs = {"x": values((self.steps, self.batch, self.input_size))}
        inputs |= {f"{name}_0": values(state_shape) for name in components}
        inputs |= {name: weights(shape) for name, shape in self.param_shapes().items()}
        upstream = {"y": values(y_shape)} | {f"{n}_n": values(state_shape) for n in components}
        lengths = rng.integers(1, self.steps + 1, self.batch) if self.ragged else None
        return Numbers(inputs, upstream, lengths).astype(self.dtype)


_Draw = Callable[[tuple[int, ...]], Array]


@dataclass(frozen=True)
class Numbers:
    """What goes into a case: inputs and parameters, the outputs' gradients, the lengths."""

    inputs: Named
    upstream: Named
    lengths: npt.NDArray[np.int64] | None = None

    @property
    def x(self) -> Array:
        """The input (T, B, I)."""
        return self.inputs["x"]

    @property
    def params(self) -> Named:
        """The weights and biases."""
        return {name: a for name, a in self.inputs.items() if name.startswith(("weight", "bias"))}

    @property
    def state(self) -> Any:
        """The initial state as the layers take it: None, h or (h, c)."""
        return _state(self.inputs, "_0")

    @property
    def dy(self) -> Array:
        """The gradient of y."""
        return self.upstream["y"]

    @property
    def dstate(self) -> Any:
        """The gradient of the last state."""
        return _state(self.upstream, "_n")

    def astype(self, dtype: str) -> Numbers:
        """The same numbers in another precision, copied."""
        inputs, upstream = (
            {name: array.astype(dtype) for name, array in named.items()}
            for named in (self.inputs, self.upstream)
        )
        return replace(self, inputs=inputs, upstream=upstream)

    def length(self, b: int) -> int:
        """Where sequence b ends."""
        return len(self.x) if self.lengths is None else int(self.lengths[b])

    def row(self, b: int) -> Numbers:
        """Sequence b by itself, without its padding."""
        inputs, upstream = (row(named, b, self.length(b)) for named in (self.inputs, self.upstream))
        return Numbers(inputs, upstream)


def _state(named: Named, suffix: str) -> Any:
    components = tuple(named[n + suffix] for n in ("h", "c") if n + suffix in named)
    return components if len(components) > 1 else components[0] if components else None


def row(named: Named, b: int, length: int) -> Named:
    """What belongs to sequence b alone, as views, and the parameters as they are."""
    sequences = {name: a[:length, b : b + 1] for name, a in named.items() if name in ("x", "y")}
    states = {name: a[:, b : b + 1] for name, a in named.items() if name[0] in "hc"}
    return named | sequences | states


def named_state(state: Any, suffix: str) -> Named:
    """The state's arrays under their names: h_0, c_0 with the suffix "_0"."""
    components = state if isinstance(state, tuple) else (state,)
    return {name + suffix: array for name, array in zip("hc", components, strict=False)}


def reference_outputs(case: Case, numbers: Numbers) -> Named:
    """What the reference computes, in the precision of the numbers."""
    return _reference_forward(case, numbers)[0]


def reference_results(case: Case, numbers: Numbers) -> tuple[Named, Named]:
    """Outputs and gradients by the reference, in the precision of the numbers."""
    outputs, tape = _reference_forward(case, numbers)
    dx, dstate, grads = reference.backward(tape, numbers.dy, numbers.dstate)
    return outputs, {"x": dx} | named_state(dstate, "_0") | grads


def _reference_forward(case: Case, numbers: Numbers) -> tuple[Named, reference.Tape]:
    y, state, tape = reference.forward(
        case.under_test.reference,
        numbers.params,
        numbers.x,
        numbers.state,
        numbers.lengths,
        case.num_layers,
        case.bidirectional,
    )
    return {"y": y} | named_state(state, "_n"), tape


def built(case: Case, numbers: Numbers, **options: Any) -> Any:
    """The compiled layer with the parameters of `numbers`."""
    layer = case.layer(**options)
    layer.load_state_dict(numbers.params)
    return layer


def layer_outputs(case: Case, numbers: Numbers, **options: Any) -> Named:
    """What the compiled layer computes, by inference."""
    layer = built(case, numbers, **options)
    y, state = layer(numbers.x, numbers.state, lengths=numbers.lengths)
    return {"y": y} | named_state(state, "_n")


def layer_results(case: Case, numbers: Numbers, **options: Any) -> tuple[Named, Named]:
    """Outputs and gradients by the compiled layer."""
    layer = built(case, numbers, **options)
    (y, state), pullback = layer.vjp(numbers.x, numbers.state, lengths=numbers.lengths)
    dx, dstate = pullback(numbers.dy, numbers.dstate)
    outputs = {"y": y} | named_state(state, "_n")
    return outputs, {"x": dx} | named_state(dstate, "_0") | dict(layer.grads)


#: T, B, I, H, ragged: the odd sizes 1, 3, 17, 33 in every place, what divides evenly, and wide.
SHAPES = [
    (1, 1, 1, 1, False),
    (1, 3, 3, 3, True),
    (5, 1, 17, 33, True),
    (5, 3, 33, 1, False),
    (5, 17, 1, 3, True),
    (5, 33, 3, 17, False),
    (17, 33, 17, 3, True),
    (4, 6, 16, 32, False),
    (40, 17, 17, 33, False),
    (33, 17, 3, 33, True),
    (3, 7, 300, 260, True),
    (0, 3, 3, 3, False),
    (5, 0, 3, 3, True),
    (0, 0, 3, 17, False),
]


#: Layers, and whether both directions.
STACKS = [(1, False), (1, True), (2, False), (2, True), (3, True)]


def _table() -> Iterator[Case]:
    for cell in CELLS:
        for dtype in TOLERANCE:
            for num_layers, bidirectional in STACKS:
                for ragged in (False, True):
                    yield Case(cell, dtype, num_layers, bidirectional, ragged)
            for shape in SHAPES:
                steps, batch, input_size, hidden_size, ragged = shape
                yield Case(cell, dtype, 1, False, ragged, steps, batch, input_size, hidden_size)
            for steps, batch in [(0, 3), (3, 0), (1, 1)]:
                yield Case(cell, dtype, 2, True, False, steps, batch)
            for ragged in (False, True):
                yield Case(cell, dtype, 2, True, ragged, bias=False)
                yield Case(cell, dtype, 2, True, ragged, with_state=False)


#: Every cell in both precisions: layers x directions x ragged, the odd shapes, no bias, no state.
CASES = list(_table())

#: The same in float64 alone.
CASES_FLOAT64 = [case for case in CASES if case.dtype == "float64"]

#: One case for each cell and precision with everything that can vary, ragged.
FULL = [Case(cell, dtype, 2, True, True, 6, 7) for cell in CELLS for dtype in TOLERANCE]

#: So small that every entry of every gradient is checked.
SMALL = [
    Case(cell, "float64", num_layers, num_layers == 2, ragged, 4, 2, 3, 3, bias=bias)
    for cell in CELLS
    for num_layers, ragged, bias in [
        (1, False, True),
        (1, True, False),
        (2, False, False),
        (2, True, True),
    ]
]

#: Short enough for whole numbers to stay small through linear gates.
LINEAR = [
    Case(cell, dtype, 1, bidirectional, ragged, 3, 7, 3, 5)
    for cell in LINEAR_CELLS
    for dtype in TOLERANCE
    for bidirectional in (False, True)
    for ragged in (False, True)
]

#: What PyTorch has as well and the golden files hold, in float64 and float32.
GOLDEN = [
    Case(cell, dtype, num_layers, bidirectional, ragged, 4, 3, 2, 3, bias)
    for cell in CELLS
    if cell != "gru_reset_before"
    for dtype in TOLERANCE
    for num_layers, bidirectional in STACKS[:4]
    for ragged in (False, True)
    for bias in (True, False)
    if bias or (num_layers == 2) == ragged
]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    """Run a test on each of these cases."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)
