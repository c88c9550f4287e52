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
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rnncore import reference

from tests.support.cells import ACTIVATED, CELLS, DEEP, GATED, LINEAR_CELLS, VARIANTS, CellUnderTest

Array = npt.NDArray[Any]
Named = dict[str, Array]

#: Largest error against the float64 reference, as `compare.assert_close` measures it.
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


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
        return (CELLS | VARIANTS | LINEAR_CELLS)[self.cell]

    @property
    def options(self) -> dict[str, Any]:
        """What only this kind of layer takes."""
        cell = self.under_test
        return cell.options | ({"proj_size": self.output_size} if cell.projected else {})

    @property
    def output_size(self) -> int:
        """The width of h."""
        return (self.hidden_size + 1) // 2 if self.under_test.projected else self.hidden_size

    @property
    def directions(self) -> int:
        """How many ways time runs."""
        return 2 if self.bidirectional else 1

    def layer(self, **options: Any) -> Any:
        """Build the rnncore layer of this case."""
        import rnncore  # here, not above: the reference is tested without the core

        return getattr(rnncore, self.under_test.layer)(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            bias=self.bias,
            bidirectional=self.bidirectional,
            **{"dtype": self.dtype} | self.options | options,
        )

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters' names and shapes, in the layer's order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else self.directions * self.output_size
            for reverse in ("", "_reverse")[: self.directions]:
                for name, shape in self._direction(width).items():
                    kind, *transition = name.rsplit("_t", 1)
                    tail = "".join(f"_t{t}" for t in transition)
                    shapes[f"{kind}_l{layer}{tail}{reverse}"] = shape
        return shapes

    def _direction(self, width: int) -> dict[str, tuple[int, ...]]:
        """The same for one direction of a layer with inputs of this width, without suffixes."""
        cell, hidden = self.under_test, self.hidden_size
        rows = cell.gates * hidden
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, width),
            "weight_hh": (rows, self.output_size),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }
        shapes = {name: shape for name, shape in shapes.items() if name not in cell.missing}
        shapes |= {name: (count, hidden) for name, count in cell.units.items()}
        if cell.projected:
            shapes["weight_hr"] = (self.output_size, hidden)
        for t in range(2, cell.depth + 1):
            if cell.shortcut and t == cell.depth:
                shapes[f"weight_ih_t{t}"] = (rows, hidden)
            shapes |= {f"weight_hh_t{t}": (rows, hidden), f"bias_hh_t{t}": (rows,)}
        return {n: s for n, s in shapes.items() if self.bias or not n.startswith("bias")}

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

        return self._fill(sparse(0.5), sparse(0.1), rng)

    def _fill(self, values: _Draw, weights: _Draw, rng: np.random.Generator) -> Numbers:
        stacked = (self.num_layers * self.directions, self.batch)
        widths = {"h": self.output_size, "c": self.hidden_size}
        components = self.under_test.states if self.with_state else ""
        states = {name: (*stacked, widths[name]) for name in components}
        inputs = {"x": values((self.steps, self.batch, self.input_size))}
        inputs |= {f"{name}_0": values(shape) for name, shape in states.items()}
        inputs |= {name: weights(shape) for name, shape in self.param_shapes().items()}
        for name, array in inputs.items():
            if name.startswith("norm"):
                array[_GAINS] += 0.5
        upstream = {"y": values((self.steps, self.batch, self.directions * self.output_size))}
        upstream |= {f"{name}_n": values(shape) for name, shape in states.items()}
        lengths = rng.integers(1, self.steps + 1, self.batch) if self.ragged else None
        return Numbers(inputs, upstream, lengths).astype(self.dtype)


#: The rows of an LSTM's `norm` that are gains, not biases.
_GAINS = [0, 1, 2, 3, 4, 5, 6, 7, 12]

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
        kinds = ("weight", "bias", "norm")
        return {name: a for name, a in self.inputs.items() if name.startswith(kinds)}

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
    (9, 15, 600, 130, False),  # rows are copied into tiles, in several blocks
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


def _variants() -> Iterator[Case]:
    for cell in GATED:
        for dtype in TOLERANCE:
            yield Case(cell, dtype)
            yield Case(cell, dtype, 2, True, True)
            yield Case(cell, dtype, 1, False, False, 5, 17, 17, 33)
            yield Case(cell, dtype, 1, False, True, 300, 4, 5, 9)
        # The smallest whose h is narrower than c, and that has more than nothing left of a sum once
        # its mean is taken off and its size is one.
        inputs, hidden = (
            (3, 3) if "norm" in GATED[cell].units else (1, 2) if GATED[cell].projected else (1, 1)
        )
        yield Case(cell, "float64", 1, False, False, 1, 1, inputs, hidden)
        yield Case(cell, "float64", 2, True, False, 0)
        yield Case(cell, "float64", 2, False, True, bias=False)
        yield Case(cell, "float64", 1, True, False, with_state=False)
    for cell in DEEP:
        for dtype in TOLERANCE:
            yield Case(cell, dtype, 2, True, True)
            yield Case(cell, dtype, 1, False, False, 5, 17, 17, 33)
        yield Case(cell, "float64", 1, False, True, 1, 3, 1, 1, bias=False)
        yield Case(cell, "float64", 1, True, False, 0)
    for cell in ACTIVATED:
        for dtype in TOLERANCE:
            yield Case(cell, dtype, 1, True, True)


#: Every cell in both precisions: layers x directions x ragged, the odd shapes, no bias, no state;
#: its variants in fewer.
CASES = [*_table(), *_variants()]

#: The same in float64 alone.
CASES_FLOAT64 = [case for case in CASES if case.dtype == "float64"]

#: The variants once each: not every depth, nor every activation.
VARIED = [*GATED, *(cell for cell in DEEP if cell.endswith("depth3_shortcut"))]

#: One case for each cell and precision with everything that can vary, ragged.
FULL = [Case(cell, dtype, 2, True, True, 6, 7) for cell in CELLS for dtype in TOLERANCE]
FULL += [Case(cell, "float64", 2, True, True, 6, 7) for cell in VARIED]

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
SMALL += [Case(cell, "float64", 1, False, True, 3, 2, 2, 5) for cell in VARIANTS]

_GROWING = ("lstm_linear_peephole", "gru_linear_depth2")

#: Short enough for whole numbers to stay small through linear gates.
LINEAR = [
    Case(cell, dtype, 1, bidirectional, ragged, 2 if cell in _GROWING else 3, 7, 3, 5)
    for cell in LINEAR_CELLS
    for dtype in TOLERANCE
    for bidirectional in (False, True)
    for ragged in (False, True)
]

#: What PyTorch has as well and the golden files hold, in float64 and float32.
GOLDEN = [
    Case(cell, dtype, num_layers, bidirectional, ragged, 4, 3, 2, 3, bias)
    for cell in ("rnn_tanh", "rnn_relu", "lstm", "gru", "lstm_projected")
    for dtype in TOLERANCE
    for num_layers, bidirectional in STACKS[:4]
    for ragged in (False, True)
    for bias in (True, False)
    if bias or (num_layers == 2) == ragged
]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    """Run a test on each of these cases."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)
