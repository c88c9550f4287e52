"""The compiled core: its classes by dtype, and objects that hold some of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._core import ActivationF32 as Activation
from ._core import CellProgram as CellProgram
from ._core import Hold as Hold
from ._core import LayerF32 as Layer
from ._core import LinearF32 as Linear
from ._core import MemoryF32 as Memory
from ._core import Parameters as Parameters
from ._core import PointwiseF32 as Pointwise
from ._core import ProgramF32 as Program
from ._core import Settings as Settings
from ._core import TargetsF32 as Targets
from ._core import Windows as Windows
from ._core import cell_operations as cell_operations
from ._core import cells as cells
from ._core import info as info
from ._core import num_threads as num_threads
from ._core import set_num_threads as set_num_threads
from ._core import set_spin_time as set_spin_time
from ._core import spin_time as spin_time
from ._core import use_threads as use_threads

__all__ = [
    "Activation",
    "CellProgram",
    "Core",
    "Hold",
    "HoldsCompiled",
    "Layer",
    "Linear",
    "Memory",
    "Parameters",
    "Pointwise",
    "Program",
    "Settings",
    "Targets",
    "Windows",
    "cell_operations",
    "cells",
    "core",
    "info",
    "num_threads",
    "set_num_threads",
    "set_spin_time",
    "spin_time",
    "use_threads",
]


class Core(NamedTuple):
    """The classes of one dtype; float64's are the float32's to a type checker."""

    Layer: type[_core.LayerF32]
    Linear: type[_core.LinearF32]
    Convolution: type[_core.ConvolutionF32]
    Pooling: type[_core.PoolingF32]
    Activation: type[_core.ActivationF32]
    Softmax: type[_core.SoftmaxF32]
    Norm: type[_core.NormF32]
    Slopes: type[_core.SlopesF32]
    Embedding: type[_core.EmbeddingF32]
    Stream: type[_core.StreamF32]
    Program: type[_core.ProgramF32]
    Memory: type[_core.MemoryF32]
    Decoding: type[_core.DecodingF32]
    CrfBatch: type[_core.CrfBatchF32]
    CtcBatch: type[_core.CtcBatchF32]
    TransducerLogits: type[_core.TransducerLogitsF32]
    TransducerJoint: type[_core.TransducerJointF32]
    search: Callable[..., Any]
    log_softmax: Callable[..., npt.NDArray[Any]]
    likeliest: Callable[..., npt.NDArray[Any]]
    coverage: Callable[..., npt.NDArray[Any]]
    joint_rows: Callable[..., npt.NDArray[Any]]


_CORES = {
    np.dtype(dtype): Core(*(getattr(_core, name + suffix) for name in Core._fields))
    for dtype, suffix in (("float32", "F32"), ("float64", "F64"))
}


def core(dtype: np.dtype[Any]) -> Core:
    """Return the classes that compute in float32 or float64."""
    return _CORES[dtype]


class HoldsCompiled:
    """An object with parts in the compiled core: copies and pickles make theirs anew."""

    #: The attributes that `_build` sets.
    _built: ClassVar[frozenset[str]] = frozenset(("kernels",))

    def _build(self) -> None:
        """Make the compiled parts; they watch the parameters, which never change identity."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: no gradients, which are zero in them."""
        built = self._built | {"_grads"}
        return {name: value for name, value in vars(self).items() if name not in built}

    def _moved(self) -> None:
        self._build()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._build()
