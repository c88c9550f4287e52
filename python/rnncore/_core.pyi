"""The compiled kernels; arguments have been checked by the callers."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

class Parameters:
    def __init__(self, groups: list[list[list[tuple[str, Array | None]]]]) -> None: ...

class Hold:
    def __call__(self, function: Callable[..., Any], *args: Any) -> Any: ...

ActivationSpec = tuple[str, float, float]

class TapeF32:
    @property
    def nbytes(self) -> int: ...

class TapeF64:
    @property
    def nbytes(self) -> int: ...

#: Of one of a cell's phases: operation, to, a, b, c, d.
CellRows = list[tuple[int, int, int, int, int, int]]

class CellProgram:
    def __init__(
        self,
        gates: list[tuple[bool, bool, bool, int]],
        units: int,
        cells: int,
        scalars: int,
        vectors: int,
        kept: int,
        forward: list[CellRows],
        backward: list[CellRows],
        constants: list[float],
        sums: bool = False,
    ) -> None: ...

def cell_operations() -> dict[str, int]: ...

class Settings:
    def __init__(
        self,
        cell: str | CellProgram,
        input_size: int,
        hidden_size: int,
        output_size: int,
        arity: int,
        batch_first: bool,
        activations: tuple[ActivationSpec, ActivationSpec, ActivationSpec],
        cell_clip: float,
        gate_clip: float,
        plain: bool,
        weights: str = "",
    ) -> None: ...

class TargetsF32: ...

class LayerF32:
    def __init__(self, settings: Settings, params: Parameters) -> None: ...
    def lend(self) -> None: ...
    def targets(self, gradients: Parameters) -> TargetsF32: ...
    def targets_in(self, parameters: Parameters, arrays: list[Array]) -> TargetsF32: ...
    def forward(
        self,
        x: Array,
        h0: Array | None,
        c0: Array | None,
        lengths: Array | None,
        record: int | None,
        cell_states: bool,
        masks: tuple[Array | None, ...] | None,
        batch_sizes: Array | None = None,
        out: Array | None = None,
        restarts: tuple[Array, Array | None, Array | None] | None = None,
    ) -> tuple[Array, Array, Array | None, Array | None, Any]: ...
    def infer(
        self, x: Any, state: Any, masks: tuple[Array | None, ...] | None, resets: Any
    ) -> tuple[Array, Any] | None: ...
    def backward(
        self,
        tape: Any,
        dy: Array | None,
        dh: Array | None,
        dc: Array | None,
        gradients: TargetsF32 | None,
        want_dx: bool,
        d_anew: tuple[Array, Array | None] | None = None,
    ) -> tuple[Array, Array, Array | None]: ...
    def forward_forest(
        self,
        x: Array,
        order: tuple[Array, Array, Array, Array | None, bool],
        given: tuple[Array, Array | None] | None,
        masks: tuple[Array | None, ...] | None,
        record: bool,
    ) -> tuple[Array, Array | None, Any]: ...
    def backward_forest(
        self, tape: Any, dh: Array | None, dc: Array | None, gradients: TargetsF32
    ) -> tuple[Array, Array, Array | None]: ...

class LayerF64(LayerF32): ...

class LinearF32:
    def __init__(
        self,
        inputs: int,
        outputs: int,
        weight: Array,
        bias: Array | None,
        owned: bool = False,
        weights: str = "",
    ) -> None: ...
    def lend(self) -> None: ...
    def forward(self, x: Array) -> Array: ...
    def backward(
        self,
        x: Array,
        dy: Array,
        weight_gradient: Array,
        bias_gradient: Array | None,
        want_dx: bool = True,
    ) -> Any: ...

class LinearF64(LinearF32): ...

_Axis = tuple[int, ...]

class Windows:
    def __init__(self, images: int, channels: int, first: _Axis, second: _Axis) -> None: ...

class ConvolutionF32:
    def __init__(
        self,
        inputs: int,
        outputs: int,
        groups: int,
        taps: tuple[int, int],
        weight: Array,
        bias: Array | None,
        owned: bool = False,
        weights: str = "",
    ) -> None: ...
    def lend(self) -> None: ...
    def forward(self, x: Array, windows: Windows) -> Array: ...
    def spread(self, y: Array, windows: Windows, bias: Array | None) -> Array: ...
    def backward(
        self,
        x: Array,
        dy: Array,
        windows: Windows,
        weight_gradient: Array,
        bias_gradient: Array | None,
        want_dx: bool = True,
    ) -> Any: ...

class ConvolutionF64(ConvolutionF32): ...

class PoolingF32:
    def __init__(self, largest: bool, padded: bool) -> None: ...
    def forward(self, x: Array, windows: Windows) -> Array: ...
    def backward(self, x: Array, y: Array, dy: Array, windows: Windows) -> Array: ...

class PoolingF64(PoolingF32): ...

class ProgramF32:
    def copy(self, to: Array, x: Array) -> None: ...
    def gather(self, to: Array, x: Array, index: Array) -> None: ...
    def activate(self, to: Array, x: Array, name: str, alpha: float, beta: float) -> None: ...
    def apply(self, to: Array, x: Array, function: str) -> None: ...
    def combine(self, to: Array, a: Array, b: Array, operation: str) -> None: ...
    def reduce(self, to: Array, x: Array, kind: str) -> None: ...
    def pointwise(self, to: Array, x: Array, layer: PointwiseF32) -> None: ...
    def linear(self, to: Array, x: Array, layer: LinearF32) -> None: ...
    def convolve(
        self,
        to: Array,
        x: Array,
        layer: ConvolutionF32,
        windows: Windows,
        add: Array | None,
        activation: ActivationSpec | None,
        gated: bool,
    ) -> None: ...
    def pool(self, to: Array, x: Array, layer: PoolingF32, windows: Windows) -> None: ...
    def recur(self, to: Array, x: Array, layer: LayerF32, h: Array, c: Array | None) -> None: ...
    def run(self) -> None: ...

class ProgramF64(ProgramF32): ...

class PointwiseF32:
    def forward(self, x: Array, out: Array | None = None) -> Array: ...

class PointwiseF64(PointwiseF32): ...

class ActivationF32(PointwiseF32):
    def __init__(self, name: str, alpha: float, beta: float) -> None: ...
    def backward(self, y: Array, dy: Array) -> Array: ...

class ActivationF64(ActivationF32): ...
class SoftmaxF32(PointwiseF32): ...
class SoftmaxF64(SoftmaxF32): ...

class NormF32(PointwiseF32):
    def __init__(self, weight: Array, bias: Array, epsilon: float) -> None: ...

class NormF64(NormF32): ...

class SlopesF32(PointwiseF32):
    def __init__(self, weight: Array) -> None: ...

class SlopesF64(SlopesF32): ...

class EmbeddingF32:
    def __init__(
        self, count: int, width: int, weight: Array, scale: Array | None = None
    ) -> None: ...
    @property
    def count(self) -> int: ...

class EmbeddingF64(EmbeddingF32): ...

class StreamF32:
    def __init__(
        self,
        layers: list[Any],
        batch: int,
        width: int,
        check: Callable[[Any, int], Array],
        other: StreamF32 | None,
    ) -> None: ...
    def step(
        self,
        x: npt.ArrayLike,
        out: Array | None = None,
        resets: npt.ArrayLike | None = None,
        *,
        rows: npt.ArrayLike | None = None,
    ) -> Array: ...
    def run(
        self, x: Array, resets: Array | None, rows: Array | None, lengths: Array | None
    ) -> Array: ...
    def repeat(self, x: Array, times: int) -> None: ...
    def refresh(self, layers: list[Any]) -> None: ...

class StreamF64(StreamF32): ...

class MemoryF32:
    def __init__(
        self,
        keys: Array,
        values: Array,
        lengths: Array,
        v: Array | None = None,
        window: float = 0,
        causal: bool = False,
    ) -> None: ...
    def attend(
        self,
        query: Array,
        source: Array | None = None,
        steps: Array | None = None,
        centre: Array | None = None,
        room: int = 0,
    ) -> tuple[Array, Array]: ...
    def attend_backward(
        self,
        dcontext: Array,
        weights: Array,
        query: Array,
        steps: Array | None,
        centre: Array | None,
        dkeys: Array,
        dvalues: Array,
        dv: Array | None,
    ) -> tuple[Array, Array | None]: ...

class MemoryF64(MemoryF32): ...

class DecodingF32:
    def __init__(
        self,
        layers: list[LayerF32],
        query: LinearF32 | None,
        position: tuple[LinearF32, LinearF32] | None,
        combine: LinearF32 | None,
    ) -> None: ...
    def forward(
        self,
        memory: MemoryF32,
        x: Array,
        h0: Array,
        c0: Array | None,
        lengths: Array | None,
        masks: list[Array | None],
        record: bool,
    ) -> tuple[Array, Array, Array, Array | None, Any]: ...
    def backward(
        self,
        tape: Any,
        dy: Array,
        dcontext: Array | None,
        gradients: list[TargetsF32],
        dkeys: Array,
        dvalues: Array,
        dv: Array | None,
    ) -> dict[str, Array]: ...

class DecodingF64(DecodingF32): ...

class CrfBatchF32:
    def __init__(
        self,
        emissions: Array,
        batch_first: bool,
        lengths: Array | None,
        transitions: Array,
        start: Array,
        end: Array,
        allowed: Array | None,
    ) -> None: ...
    def loss(
        self, targets: Array | None, scales: Array | None
    ) -> tuple[Array, Array | None, Array | None, Array | None, Array | None]: ...
    def decode(self, count: int) -> tuple[Array, Array]: ...

class CrfBatchF64(CrfBatchF32): ...

class CtcBatchF32:
    def __init__(
        self,
        logits: Array,
        batch_first: bool,
        lengths: Array,
        labels: Array,
        counts: Array,
        blank: int,
    ) -> None: ...
    def forward(self) -> Array: ...
    def backward(self, scales: Array) -> Array: ...

class CtcBatchF64(CtcBatchF32): ...

class TransducerLogitsF32:
    def __init__(
        self, logits: Array, lengths: Array, labels: Array, counts: Array, blank: int
    ) -> None: ...
    def forward(self) -> Array: ...
    def backward(self, scales: Array, label_weight: float) -> Array: ...

class TransducerLogitsF64(TransducerLogitsF32): ...

class TransducerJointF32:
    def __init__(
        self,
        output: Any,
        f: Array,
        g: Array,
        lengths: Array,
        labels: Array,
        counts: Array,
        blank: int,
    ) -> None: ...
    def forward(self) -> Array: ...
    def backward(
        self, scales: Array, label_weight: float, bias: bool
    ) -> tuple[Array, Array, Array, Array | None]: ...

class TransducerJointF64(TransducerJointF32): ...

def joint_rowsF32(f: Array, g: Array) -> Array: ...
def searchF32(
    parts: Any, rules: Any, limits: Any, forced: Array | None, lengths: Array
) -> list[list[tuple[Array, float, float, Array | None]]]: ...
def log_softmaxF32(logits: Array) -> Array: ...
def likeliestF32(log_probs: Array, k: int) -> Array: ...
def coverageF32(attention: Array, lengths: Array) -> Array: ...
def cells() -> dict[str, dict[str, Any]]: ...
def info() -> dict[str, Any]: ...
def num_threads() -> int: ...
def use_threads(parallel: int, rank: int, count: int) -> None: ...
def processors(root: str) -> int: ...
def set_piece_work(operations: float) -> float: ...
def set_num_threads(n: int, /) -> None: ...
def spin_time() -> int: ...
def set_spin_time(nanoseconds: int, /) -> None: ...
