"""Modules as ONNX graphs, with dynamic batch and time; lengths and initial states are inputs."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...arrays import Array, write_atomic
from ...compositions.bidirectional import Bidirectional, Reversed
from ...compositions.chain import Chain
from ...compositions.composition import agreed
from ...compositions.deep import DeepRNN
from ...compositions.readout import Readout
from ...layers.activations import Elementwise, Identity, ReLU, Sigmoid, Softmax, Tanh
from ...layers.dropout import Dropout
from ...layers.embedding import Embedding
from ...layers.layer_norm import LayerNorm
from ...layers.linear import Linear
from ...layers.spec_augment import SpecAugment
from ...layers.tied import TiedLinear
from ...module import Module
from ...precision import SCALE, dequantized
from ...recurrent.registry import LAYERS
from ...states import leaves
from .. import common
from ..budget import Budget
from ..common import Report, Verify, is_batch_first, refusal
from .examples import neutral
from .files import import_onnx
from .graph import Graph
from .reader import OnnxModel
from .reference import compare, is_installed
from .weights import write_activations, write_weights

_FEATURES = ("peephole", "coupled", "activations", "gate_clip", "reset_after", "learned_state")
_MERGES = {"sum": "Add", "mul": "Mul", "mean": "Add"}


def to_onnx(
    module: Module,
    path: str | os.PathLike[str],
    *,
    lengths: bool = True,
    state: bool = True,
    verify: Verify = None,
    report: Report = print,
) -> None:
    """Write a module as an ONNX file (opset 17), replaced atomically.

    RNN, LSTM and GRU, stacked and in both directions, with peepholes, coupled gates, activations,
    gate_clip and both kinds of GRU; Chain, Bidirectional, Reversed, DeepRNN, Readout, Linear,
    Embedding, LayerNorm and activations. What ONNX cannot say raises `ValueError` naming it.
    Dropout and what else is active in training alone is left out.

    Inputs are `x` with free batch and time, int32 `lengths (B,)` and the initial states `h0` and
    `c0`, outputs `y`, `h` and `c`; states of a layer within are named by where it stands, "1.h0".
    `lengths=False` and `state=False` leave them out; then they are full and zero. A first state
    that is learnt is a constant of the file, never an input. Lengths may be 0: the outputs, or the
    reading, of no steps are zero, and its state is kept.

    A model that `rnncore.quantize` has made is written in as few bits, and its operators compute in
    float32: what the file gives is what `rnncore.precision.dequantized` gives, not to the bit what
    the model gives.

    verify: True, or an input x: compare with ONNX Runtime, or with our own reader where that is not
    installed or, as for float64, lacks a kernel. ONNX Runtime runs float32 only. A pair (x, y):
    compare the file, run by our own reader, with y.
    """
    agreed("batch_first", {type(module).__name__: module})
    onnx = import_onnx()
    if not module.params:
        raise refusal("ONNX", "a module without parameters: the width of its input is not known")
    dtype = common.dtype_of([np.empty(0, kind) for kind in module.dtypes()], None)
    graph = Writer(onnx, dtype, lengths and module.recurrent, state)
    name = graph.module(module, "x", "")
    graph.declare_ends(module)
    proto = graph.proto(name)
    if verify is not None and verify is not False:
        x, y = common.input_and_output(verify, lambda: common.random_input(module))
        _verify(dequantized(module), proto, x, y, report)
    write_atomic(path, proto.SerializeToString())


class Writer(Graph):
    """Modules as nodes."""

    def __init__(self, onnx: Any, dtype: np.dtype[Any], lengths: bool, state: bool) -> None:
        super().__init__(onnx, dtype, lengths, state)
        self.ends: dict[int, Callable[[], str]] = {}  # of recurrent layers: their last output

    def declare_ends(self, module: Module) -> None:
        """Declare x, lengths if there is a use for them, and y, whose shape an example shows."""
        example = common.random_input(module)
        y = common.output(module, example)
        axes = ("batch", "time") if is_batch_first(module) else ("time", "batch")
        dtype = np.dtype("int64") if example.dtype.kind in "iu" else example.dtype
        first = [self.declare("x", dtype, (*axes, *example.shape[2:]))]
        if self.has_lengths:
            first.append(self.declare("lengths", np.int32, ("batch",)))
        self.inputs[:0] = first
        free = axes if y.shape[:2] == example.shape[:2] else ("batch",)
        self.outputs.insert(0, self.declare("y", y.dtype, (*free, *y.shape[len(free) :])))

    def module(self, module: Module, x: str, path: str) -> str:
        """Add a module that reads x; return the name of its y."""
        if isinstance(module, Chain):
            for name, child in module.children():
                x = self.module(child, x, f"{path}{name}.")
            return x
        writers: dict[type[Module], Callable[[Any, str, str], str]] = {
            Bidirectional: self._bidirectional,
            DeepRNN: self._deep,
            Reversed: self._reversed,
            Readout: self._readout,
            Linear: self._linear,
            TiedLinear: self._linear,
            Embedding: self._embedding,
            LayerNorm: self._layer_norm,
            Softmax: lambda part, x, _: self.add("Softmax", x, axis=part.axis),
            Dropout: lambda part, x, _: x,
            SpecAugment: lambda part, x, _: x,
            Identity: lambda part, x, _: x,
        }
        writers |= {LAYERS[cell]: self._recurrent for cell in common.GATES}
        writers |= dict.fromkeys((Elementwise, Tanh, Sigmoid, ReLU), self._elementwise)
        if type(module) not in writers:
            raise refusal("ONNX", type(module).__name__)
        return writers[type(module)](module, x, path)

    def _recurrent(self, layer: Any, x: str, path: str) -> str:
        """RNN, LSTM or GRU: a node for each of the stacked layers."""
        y, finals = self._stacked(layer, x, self._initial_states(layer, [layer], x, path), path)
        self._final_states(layer, layer, finals, path)
        width = layer.directions * layer.hidden_size

        def end() -> str:
            turned = self.add("Transpose", finals[-1][0], perm=[1, 0, 2])
            return str(self.add("Reshape", turned, self.indices(0, width)))

        self.ends[id(layer)] = end
        return y

    def _stacked(
        self, layer: Any, x: str, states: list[list[str]], path: str
    ) -> tuple[str, list[list[str]]]:
        """Add the nodes of stacked layers; return the name of y and those of the final states."""
        common.check_representable("ONNX", layer, _FEATURES)
        if layer.batch_first:
            x = self.add("Transpose", x, perm=[1, 0, 2])
        finals: list[list[str]] = []
        for n in range(layer.num_layers):
            x, *last = self._node(layer, n, x, [names[n] for names in states], path)
            finals.append(last)
        return self.add("Transpose", x, perm=[1, 0, 2]) if layer.batch_first else x, finals

    def _deep(self, module: DeepRNN, x: str, path: str) -> str:
        """The nets around the recurrent layers, what passes them by, and one state for them all."""
        finals: list[list[str]] = []

        def layer(n: int, x: str) -> str:
            one = module.layers[n]
            own = [names[len(finals) : len(finals) + one.num_layers] for names in states]
            h, last = self._stacked(one, x, own, f"{path}recurrent.{n}.")
            finals.extend(last)
            return h

        x = self.module(module.input, x, f"{path}input.")
        states = self._initial_states(module, module.layers, x, path)
        y = module.wiring.through(
            len(module.layers),
            layer,
            x,
            add=partial(self.add, "Add"),
            join=partial(self.add, "Concat", axis=-1),
        )
        self._final_states(module, module.layers[0], finals, path)
        after = self.module(module.output, y, f"{path}output.")
        return after if after == y else self._inside(after, module.batch_first)

    def _inside(self, y: str, batch_first: bool) -> str:
        """Put zeros past the ends of the sequences."""
        if not self.has_lengths:
            return y
        time = 1 if batch_first else 0
        steps = self.add("Shape", y, start=time, end=time + 1)
        zero, one = (self.array(np.array(n, np.int64)) for n in (0, 1))
        places = self.add("Range", zero, self.add("Squeeze", steps, self.indices(0)), one)
        ends = self.add("Cast", "lengths", to=self.onnx.TensorProto.INT64)
        if batch_first:
            ends = self.add("Unsqueeze", ends, self.indices(1))
        else:
            places = self.add("Unsqueeze", places, self.indices(1))
        mask = self.add("Unsqueeze", self.add("Less", places, ends), self.indices(2))
        return str(self.add("Where", mask, y, self.array(self.dtype.type(0))))

    def _initial_states(self, whole: Any, layers: list[Any], x: str, path: str) -> list[list[str]]:
        """Add h0, and c0 of an LSTM, of all layers, and cut them into those of each."""
        layer = layers[0]
        kinds = "hc" if layer.has_cell_state else "h"
        if layer.learned_state:
            self._learned_states(layers, x, [f"{path}{kind}0" for kind in kinds])
        elif not self.has_state:
            return [[""] * whole.num_layers for _ in kinds]
        rows, parts = whole.num_layers * whole.directions, []
        for kind in kinds:
            name = f"{path}{kind}0"
            if not layer.learned_state:
                shape = (rows, "batch", layer.hidden_size)
                self.inputs.append(self.declare(name, layer.dtype, shape))
            if whole.num_layers == 1:
                parts.append([name])
            else:
                sizes = self.indices(*(whole.directions,) * whole.num_layers)
                parts.append(self.add("Split", name, sizes, outputs=whole.num_layers, axis=0))
        return parts

    def _learned_states(self, layers: list[Any], x: str, names: list[str]) -> None:
        """Add the first states of layers, one for each row of x."""
        axis = 0 if layers[0].batch_first else 1
        one, batch = self.indices(1), self.add("Shape", x, start=axis, end=axis + 1)
        shape = self.add("Concat", one, batch, one, axis=0)
        firsts = [list(leaves(layer.start_arrays((None, None), 1))) for layer in layers]
        for name, parts in zip(names, zip(*firsts, strict=True), strict=True):
            first = self.array(np.concatenate(parts), f"{name}_of_a_row")
            self.append("Expand", [first, shape], name)

    def _final_states(self, whole: Any, layer: Any, finals: list[list[str]], path: str) -> None:
        """Name the final states of all layers as outputs."""
        if not self.has_state:
            return
        shape = (whole.num_layers * whole.directions, "batch", layer.hidden_size)
        for kind, parts in zip("hc", zip(*finals, strict=True), strict=False):
            name = path + kind
            joined = f"{name}_after" if self.has_lengths else name
            self.append("Concat", list(parts), joined, axis=0)
            if self.has_lengths:  # nodes end in zero where there is no step
                self.append("Where", [self._has_steps(), joined, f"{name}0"], name)
            self.outputs.append(self.declare(name, layer.dtype, shape))

    def _has_steps(self) -> str:
        """Booleans (B, 1): which sequences have a step."""
        some = self.add("Less", self.array(np.int32(0)), "lengths")
        return str(self.add("Unsqueeze", some, self.indices(1)))

    def _node(self, layer: Any, n: int, x: str, states: list[str], path: str) -> list[str]:
        """One layer over x `(T, B, I)`: the names of y `(T, B, D H)` and of the final states."""
        kind = type(layer).__name__
        suffixes = (f"_l{n}", f"_l{n}_reverse")[: layer.directions]
        stacks = [write_weights(kind.lower(), layer, suffix) for suffix in suffixes]
        joined = {name: np.stack([stack[name] for stack in stacks]) for name in stacks[0]}
        arrays = {
            name: self.weights(f"{path}{name}_l{n}", joined[name], joined.get(f"{name}_scale"))
            for name in stacks[0]
            if not name.endswith("_scale")
        }
        inputs = [x, arrays["W"], arrays["R"], arrays.get("B", "")]
        inputs += ["lengths" if self.has_lengths else "", *states]
        inputs += [arrays["P"]] if "P" in arrays else []
        outputs = self.add(
            kind, *inputs, outputs=2 + layer.has_cell_state, **_attributes(kind, layer)
        )
        y = self.add("Transpose", outputs[0], perm=[0, 2, 1, 3])
        shape = self.indices(0, 0, layer.directions * layer.hidden_size)
        return [self.add("Reshape", y, shape), *outputs[1:]]

    def _backwards(self, x: str, batch_first: bool) -> str:
        """Turn sequences around, each within its length."""
        time = 1 if batch_first else 0
        if not self.has_lengths:
            ends = (self.indices(-1), self.indices(np.iinfo(np.int64).min))
            return str(self.add("Slice", x, *ends, self.indices(time), self.indices(-1)))
        ends64 = self.add("Cast", "lengths", to=self.onnx.TensorProto.INT64)
        return str(self.add("ReverseSequence", x, ends64, time_axis=time, batch_axis=1 - time))

    def _reversed(self, module: Reversed, x: str, path: str) -> str:
        y = self.module(module.layer, self._backwards(x, module.batch_first), f"{path}layer.")
        if id(module.layer) in self.ends:
            self.ends[id(module)] = self.ends[id(module.layer)]
        return self._backwards(y, module.batch_first)

    def _bidirectional(self, module: Bidirectional, x: str, path: str) -> str:
        ahead = self.module(module.forward, x, f"{path}forward.")
        turned = self._backwards(x, module.batch_first)
        behind = self.module(module.backward, turned, f"{path}backward.")
        first, second = (self.ends.get(id(part)) for part in (module.forward, module.backward))
        if first and second:
            self.ends[id(module)] = partial(self._both_ends, module, first, second)
        return self._merged(module, ahead, self._backwards(behind, module.batch_first))

    def _both_ends(
        self, module: Bidirectional, first: Callable[[], str], second: Callable[[], str]
    ) -> str:
        return self._merged(module, first(), second())

    def _merged(self, module: Bidirectional, a: str, b: str) -> str:
        if module.merge == "concat":
            return str(self.add("Concat", a, b, axis=-1))
        y = self.add(_MERGES[module.merge], a, b)
        if module.merge == "mean":
            y = self.add("Div", y, self.array(self.dtype.type(2)))
        return str(y)

    def _readout(self, module: Readout, x: str, path: str) -> str:
        y = self.module(module.layer, x, f"{path}layer.")
        if module.reading == "last":
            return self.ends[id(module.layer)]()
        time = 1 if module.batch_first else 0
        if module.reading == "last_step":  # of none the sum is zero
            y = self._backwards(self._inside(y, module.batch_first), module.batch_first)
            cut = (self.indices(0), self.indices(1), self.indices(time))
            return str(self.add("ReduceSum", self.add("Slice", y, *cut), cut[2], keepdims=0))
        if id(module.layer) not in self.ends:  # of recurrent layers zeros are past the ends
            y = self._inside(y, module.batch_first)
        total = self.add("ReduceSum", y, self.indices(time), keepdims=0)
        if self.has_lengths:
            steps = self.add("Cast", "lengths", to=self.onnx.TensorProto.INT64)
            steps = self.add("Unsqueeze", steps, self.indices(1))
        else:
            steps = self.add("Shape", y, start=time, end=time + 1)
        steps = self.add("Max", steps, self.indices(1))  # without steps the mean is zero
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        return str(self.add("Div", total, self.add("Cast", steps, to=kind)))

    def _linear(self, module: Linear, x: str, path: str) -> str:
        own = module.embedding.params if isinstance(module, TiedLinear) else module.params
        held = self.weights(f"{path}weight", own["weight"].T, own.get(f"weight{SCALE}"))
        y, bias = self.add("MatMul", x, held), module.params.get("bias")
        return str(y if bias is None else self.add("Add", y, self.array(bias, f"{path}bias")))

    def _embedding(self, module: Embedding, x: str, path: str) -> str:
        """Rows of the table, made float32 once they are found."""
        table, scale = module.params["weight"], module.params.get(f"weight{SCALE}")
        kind = self.onnx.TensorProto.FLOAT
        if table.dtype == np.uint16:
            rows = self.add("Gather", self.bfloat16(table, f"{path}weight"), x)
            return str(self.add("Cast", rows, to=kind))
        rows = self.add("Gather", self.array(table, f"{path}weight"), x)
        if scale is None:
            return str(rows)
        scales = self.add("Gather", self.array(scale[:, None], f"{path}weight_scale"), x)
        return str(self.add("Mul", self.add("Cast", rows, to=kind), scales))

    def _layer_norm(self, module: LayerNorm, x: str, path: str) -> str:
        arrays = [self.array(module.params[name], path + name) for name in ("weight", "bias")]
        axis = -len(module.normalized_shape)
        return str(self.add("LayerNormalization", x, *arrays, axis=axis, epsilon=module.eps))

    def _elementwise(self, module: Elementwise, x: str, path: str) -> str:
        name, *constants = module.spec
        alpha, beta = map(float, constants)
        ops = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softsign": "Softsign"}
        ops |= {"softplus": "Softplus", "exponential": "Exp", "identity": "Identity"}
        ops |= {"selu": "Selu"}
        sloped = {"leaky_relu": "LeakyRelu", "thresholded_relu": "ThresholdedRelu", "elu": "Elu"}
        if name in ops:
            return str(self.add(ops[name], x))
        if name in sloped:
            return str(self.add(sloped[name], x, alpha=alpha))
        if name == "hard_sigmoid":
            return str(self.add("HardSigmoid", x, alpha=alpha, beta=beta))
        a, b = (self.array(self.dtype.type(constant)) for constant in (alpha, beta))
        if name == "affine":
            return str(self.add("Add", self.add("Mul", x, a), b))
        return str(self.add("Mul", self.add("Tanh", self.add("Mul", x, b)), a))


def _attributes(kind: str, layer: Any) -> dict[str, Any]:
    """A layer's attributes; those that are at rest are left out."""
    cell = layer.cell
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if layer.directions == 2:
        attributes["direction"] = "bidirectional"
    gate, candidate, output = cell.activations
    own = {"RNN": [candidate], "LSTM": [gate, candidate, output], "GRU": [gate, candidate]}[kind]
    if not cell.standard or kind == "RNN":
        attributes |= write_activations(kind, own * layer.directions)
    if cell.gate_clip:
        attributes["clip"] = float(cell.gate_clip)
    if kind == "GRU":
        attributes["linear_before_reset"] = int(layer.reset_after)
    if kind == "LSTM" and cell.coupled:
        attributes["input_forget"] = 1
    return attributes


def _verify(module: Any, proto: Any, x: Array, told: Any, report: Report) -> None:
    """Compare a module's outputs, or those told, with what the file says from zero, full length."""
    model = OnnxModel(proto)
    room = Budget(proto.ByteSize() + x.nbytes)
    inputs = neutral(model.inputs, x, is_batch_first(module), room)
    y, state = module(x) if module.recurrent else (module(x), None)
    outputs = (y, *leaves(state))[: len(model.outputs)]
    if told is not None:
        common.check("the outputs given", model.run(**inputs)[:1], [np.asarray(told)], report)
    elif y.dtype == np.float32 and is_installed():
        compare(outputs, proto, inputs, report)
    else:
        common.check("our own reader", outputs, model.run(**inputs), report)
