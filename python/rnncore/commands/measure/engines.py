"""Who computes: each engine makes of a case a `Work` to be timed, with the same numbers in it."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ... import compiled, reference
from ...arrays import Array
from ...module import WEIGHT_TYPES
from ...precision import quantize
from ...recurrent.registry import LAYERS
from . import machine
from .cases import GATES, KERNELS, Case
from .timing import time_call

Named = dict[str, Array]


class Unsupported(ValueError):
    """This engine cannot do this case."""


class Work:
    """A case made ready: `run` does it once, `results` does it and names what came out.

    Names: y, h and c (final states); of training also dx, and dh and dc (of the initial states), dy
    being given and the final states' gradient zero; and the parameters' own names for theirs.
    """

    def __init__(self, run: Callable[[], Any], results: Callable[[], Named]) -> None:
        self.run, self.results = run, results

    def time(self, seconds: float) -> float:
        """Seconds that a call takes."""
        return time_call(self.run, seconds)


class Engine:
    """What all have: the kinds of weights that it can hold, beside those of the numbers."""

    weights: ClassVar[tuple[str, ...]] = ()

    def check(self, case: Case) -> None:
        """Raise `Unsupported` for weights that it does not hold, and for training with others."""
        if case.weights and case.weights not in self.weights:
            raise Unsupported(f"no {case.weights} weights")
        if case.weights and case.training:
            raise Unsupported(f"no training with {case.weights} weights")


class RnnCore(Engine):
    """This package."""

    weights = WEIGHT_TYPES

    def about(self) -> str:
        """Version and instruction set."""
        info = compiled.info()
        return f"rnncore {info['version']}, {info['instruction_set']}"

    def prepare(self, case: Case) -> Work:
        """Through the public classes, as a user would."""
        self.check(case)
        layer = LAYERS[case.cell](case.shape.inputs, case.shape.hidden, dtype=case.dtype)
        layer.load_state_dict(case.params())
        if case.weights:
            layer = quantize(layer, case.weights)  # type: ignore[arg-type]
        (x, dy), lengths = case.arrays(), case.shape.lengths

        def infer() -> Any:
            return layer(x, lengths=lengths)

        def train() -> Any:
            outputs, pullback = layer.vjp(x, lengths=lengths)
            return outputs, pullback(dy)

        def results() -> Named:
            if not case.training:
                return _named(*infer())
            layer.zero_grad()
            outputs, (dx, dstate) = train()
            gradients = {"dx": dx, **_states(dstate, "d"), **layer.grads}
            return {**_named(*outputs), **gradients}

        return Work(train if case.training else infer, results)


class NumPy(Engine):
    """The reference in this package, written to be read: what plain NumPy does."""

    def about(self) -> str:
        """Version, and the BLAS with the processor it was written for, if that can be told."""
        text = f"NumPy {np.__version__}"
        if not find_spec("threadpoolctl"):
            return f"{text} (install threadpoolctl to see its BLAS)"
        pools = import_module("threadpoolctl").threadpool_info()
        blas = [pool for pool in pools if pool["user_api"] == "blas"]
        names = (f"{p['internal_api']} {p['version']} for {p.get('architecture')}" for p in blas)
        return ", ".join([text, *names])

    def prepare(self, case: Case) -> Work:
        """The textbook's loops."""
        self.check(case)
        cell = reference.CELLS[KERNELS[case.cell]]
        params, (x, dy), lengths = case.params(), case.arrays(), case.shape.lengths

        def infer() -> Any:
            return reference.forward(cell, params, x, lengths=lengths)

        def train() -> Any:
            *outputs, tape = infer()
            return outputs, reference.backward(tape, dy)

        def results() -> Named:
            if not case.training:
                return _named(*infer()[:2])
            outputs, (dx, dstate, gradients) = train()
            return {**_named(*outputs), "dx": dx, **_states(dstate, "d"), **gradients}

        return Work(train if case.training else infer, results)


class Torch(Engine):
    """PyTorch: `torch.nn` under `inference_mode`, or with autograd; packed sequences if ragged.

    int8 is its dynamic quantization; in bfloat16 all is, inputs and outputs too.
    """

    weights = ("int8", "bfloat16")

    def __init__(self) -> None:
        self.torch: Any = import_module("torch")

    def about(self) -> str:
        """Version and instruction set."""
        capability = self.torch.backends.cpu.get_cpu_capability()
        return f"PyTorch {self.torch.__version__}, {capability}"

    def prepare(self, case: Case) -> Work:
        """Gradients by autograd, all in one call, none of them accumulated."""
        self.check(case)
        torch = self.torch
        dtype = getattr(torch, case.dtype)
        layer = getattr(torch.nn, case.cell.upper())(case.shape.inputs, case.shape.hidden)
        layer.to(dtype).load_state_dict({k: torch.from_numpy(v) for k, v in case.params().items()})
        x, dy = (torch.from_numpy(array) for array in case.arrays())
        x.requires_grad_(case.training)
        if case.weights == "bfloat16":
            layer, x = layer.bfloat16(), x.bfloat16()
        sources = {"dx": x, **dict(layer.named_parameters())}
        if case.weights == "int8":
            layer = self._in_int8(layer)
        forward = self._forward(layer, x, case)

        def infer() -> Any:
            with torch.inference_mode():
                return forward()

        def train() -> Any:
            y, state = forward()
            return y, state, torch.autograd.grad(y, list(sources.values()), dy)

        def results() -> Named:
            if not case.training:
                return _named(*_numpy(infer()))
            y, state, gradients = _numpy(train())
            return {**_named(y, state), **dict(zip(sources, gradients, strict=True))}

        return Work(train if case.training else infer, results)

    def _in_int8(self, layer: Any) -> Any:
        """The layer with the weights in int8; PyTorch changes the parts of a module alone."""
        whole = self.torch.nn.Sequential(layer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will move to another package
            ao = self.torch.ao.quantization
            made = ao.quantize_dynamic(whole, {type(layer)}, dtype=self.torch.qint8)[0]
        if type(made) is type(layer):  # left as it was
            raise Unsupported(f"no int8 weights for {type(layer).__name__}")
        return made

    def _forward(self, layer: Any, x: Any, case: Case) -> Callable[[], Any]:
        if case.shape.lengths is None:
            return lambda: layer(x)
        utils = self.torch.nn.utils.rnn
        lengths = self.torch.from_numpy(case.shape.lengths)

        def forward() -> Any:
            packed = utils.pack_padded_sequence(x, lengths, enforce_sorted=False)
            y, state = layer(packed)
            return utils.pad_packed_sequence(y)[0], state

        return forward


class OnnxRuntime(Engine):
    """ONNX Runtime on a model of one node; inference only. It has int8 weights for the LSTM."""

    weights = ("int8", "int8_per_channel")

    #: Of each cell: operator, its attributes, and torch's gates in ONNX's order.
    NODES: ClassVar[dict[str, tuple[str, dict[str, Any], list[int]]]] = {
        "lstm": ("LSTM", {}, [0, 3, 1, 2]),
        "gru": ("GRU", {"linear_before_reset": 1}, [1, 0, 2]),
        "rnn": ("RNN", {"activations": ["Tanh"]}, [0]),
    }

    def __init__(self) -> None:
        self.runtime: Any = import_module("onnxruntime")
        self.onnx: Any = import_module("onnx")

    def about(self) -> str:
        """Version."""
        return f"ONNX Runtime {self.runtime.__version__}"

    def prepare(self, case: Case) -> Work:
        """A session with as many threads as the other engines."""
        self.check(case)
        if case.training or case.dtype != "float32":
            raise Unsupported("inference in float32 only")
        if case.weights and case.cell != "lstm":
            raise Unsupported(f"no {case.weights} weights but for the LSTM")
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        options.inter_op_num_threads = 1
        model = self._model(case)
        if case.weights:
            model = self._in_int8(model, per_channel=case.weights == "int8_per_channel")
        session = self.runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feed, lengths = {"x": case.arrays()[0]}, case.shape.lengths
        if lengths is not None:
            feed["lengths"] = lengths.astype(np.int32)

        def run() -> Any:
            return session.run(None, feed)

        def results() -> Named:
            y, *states = run()
            return {"y": y[:, 0], **dict(zip("hc", states, strict=False))}

        return Work(run, results)

    def _in_int8(self, model: bytes, per_channel: bool) -> bytes:
        """What its own tool makes of the model."""
        tool = import_module("onnxruntime.quantization")
        logging.getLogger().setLevel(logging.ERROR)  # advice about models of many nodes
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            whole, kind = self.onnx.load_from_string(model), tool.QuantType.QInt8
            tool.quantize_dynamic(whole, path, weight_type=kind, per_channel=per_channel)
            return path.read_bytes()

    def _model(self, case: Case) -> bytes:
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        operator, attributes, order = self.NODES[case.cell]

        def gates(name: str) -> Array:
            param = case.params()[f"{name}_l0"]
            return np.concatenate([np.split(param, GATES[case.cell])[gate] for gate in order])

        constants = {
            "w": gates("weight_ih"),
            "r": gates("weight_hh"),
            "b": np.concatenate([gates("bias_ih"), gates("bias_hh")]),
        }
        ragged = case.shape.lengths is not None
        names = ["y", "h", "c"] if case.cell == "lstm" else ["y", "h"]
        node = helper.make_node(
            operator,
            ["x", *constants, "lengths" if ragged else ""],
            names,
            hidden_size=case.shape.hidden,
            **attributes,
        )
        s = case.shape
        inputs = [helper.make_tensor_value_info("x", kinds.FLOAT, [s.steps, s.batch, s.inputs])]
        if ragged:
            inputs.append(helper.make_tensor_value_info("lengths", kinds.INT32, [s.batch]))
        graph = helper.make_graph(
            [node],
            "layer",
            inputs,
            [helper.make_tensor_value_info(name, kinds.FLOAT, None) for name in names],
            [self.onnx.numpy_helper.from_array(v[np.newaxis], k) for k, v in constants.items()],
        )
        opset = [helper.make_opsetid("", 17)]
        model: bytes = helper.make_model(
            graph, opset_imports=opset, ir_version=8
        ).SerializeToString()
        return model


class Roof(Engine):
    """Nobody: the time that a core would take at its limit, by measuring the limit just then."""

    def __init__(self) -> None:
        self.machine = machine.Machine()

    def about(self) -> str:
        """The limits."""
        peaks = (f"{self.machine.peak(d, 0.1) / 1e9:.1f} GF/s {d}" for d in ("float32", "float64"))
        sizes = machine.cache_sizes().items()
        rates = (
            f"{name} {self.machine.bandwidth(n // 2, 0.1) / 1e9:.0f} GB/s" for name, n in sizes
        )
        return "one core: " + ", ".join([*peaks, *rates])

    def prepare(self, case: Case) -> Work:
        """Nothing to run, only to time."""
        self.check(case)
        work = Work(lambda: None, dict)
        work.time = lambda seconds: self.machine.least_time(case, seconds)  # type: ignore[method-assign]
        return work


ENGINES: dict[str, Any] = {
    "roof": Roof,
    "rnncore": RnnCore,
    "numpy": NumPy,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
}


def available() -> list[str]:
    """Return the engines that can run here."""
    needs = {"torch": ["torch"], "onnxruntime": ["onnxruntime", "onnx"]}
    there = [name for name in ENGINES if all(map(find_spec, needs.get(name, [])))]
    return there if machine.compiler() else [name for name in there if name != "roof"]


def _states(state: Any, prefix: str = "") -> Named:
    """Name the parts of a state: h, or h and c."""
    parts = state if isinstance(state, tuple) else (state,)
    return {f"{prefix}{name}": part for name, part in zip("hc", parts, strict=False)}


def _named(y: Array, state: Any) -> Named:
    return {"y": y, **_states(state)}


def _numpy(values: Any) -> Any:
    """Torch's tensors as arrays, in the tuples they came in; NumPy has no bfloat16."""
    if isinstance(values, tuple):
        return tuple(map(_numpy, values))
    values = values.detach()
    return (values.float() if values.element_size() == 2 else values).numpy()
