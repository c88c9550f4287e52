"""Weights of fewer bits: int8 products in NumPy, and what the tests of `quantize` share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore.module import WEIGHT_TYPES, Module, named_modules
from rnncore.precision import HoldsWeights

from tests.support.cases import VARIED, Case
from tests.support.cells import CELLS, DEEP

Array = np.ndarray
WEIGHTS = ("int8", "bfloat16")
each_type = pytest.mark.parametrize("weights", WEIGHTS)
each_kind = pytest.mark.parametrize("weights", WEIGHT_TYPES)

#: Every cell and variant in a small odd shape.
FLOAT32 = [Case(cell, "float32", 1, False, False, 6, 4, 3, 9) for cell in (*CELLS, *VARIED, *DEEP)]
#: And the cells with all that layers have besides.
STACKED = [Case(cell, "float32", 2, True, True, 6, 7, 5, 13) for cell in (*CELLS, *VARIED)]


def arrays(nest: Any) -> list[Array]:
    """The arrays in nested tuples and lists; a number is one as well."""
    if isinstance(nest, (tuple, list)):
        return [array for part in nest for array in arrays(part)]
    return [np.asarray(nest)] if isinstance(nest, (np.ndarray, float)) else []


def assert_same_bits(got: Any, want: Any) -> None:
    """The same arrays in nested tuples, to the bit; NaN is equal to NaN."""
    got, want = arrays(got), arrays(want)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def farthest(got: Any, want: Any) -> float:
    """The largest difference of arrays in nested tuples, against the largest number of each."""
    pairs = list(zip(arrays(got), arrays(want), strict=True))
    assert all(a.shape == b.shape and np.isfinite(a).all() for a, b in pairs)
    sizes = (np.abs(b).max(initial=1e-30) for _, b in pairs)
    errors = (np.abs(np.subtract(a, b, dtype=float)).max(initial=0) for a, b in pairs)
    return max((e / s for e, s in zip(errors, sizes, strict=True)), default=0.0)


def holding(model: Module) -> list[HoldsWeights]:
    """The parts of a model that have matrices of products."""
    parts = (part for _, part in named_modules(model) if isinstance(part, HoldsWeights))
    return [part for part in parts if any(part.weight_names())]


def each_model(models: Any, held: bool = False) -> Any:
    """Models and how they are called, as `models.MODELS` has them; `held`: that quantize takes."""
    return [
        pytest.param(model, call, id=f"{name} {n}")
        for name, (several, call) in models.items()
        for n, model in enumerate(several)
        if not held or ((parts := holding(model)) and all(p.dtype == np.float32 for p in parts))
    ]


def dtypes_in(path: Any) -> dict[str, str]:
    """What a file's header says of its arrays."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: said["dtype"] for name, said in header.items() if name != "__metadata__"}


# The oracle

#: How near to a tie, in units of a whole number, rounding is not judged: an oracle in float64 and
#: kernels in float32 may there go different ways, which changes a sum by a whole unit.
_TIE = 1e-3


class Rounding:
    """Products in int8 of rows that float32 kernels have, or nearly have.

    `clear`: whether no number of a row was near a tie where it was rounded, in any product so far.
    """

    def __init__(self, rows: int) -> None:
        self.clear = np.ones(rows, bool)

    def product(self, rows: Array, whole: Array, scale: Array) -> Array:
        """rows `(B, K)` times weights `whole (N, K)`, each a whole number times `scale (N,)`."""
        rows = rows.astype(np.float32)
        largest = np.abs(rows).max(axis=1, keepdims=True)
        inverse = np.divide(127, largest, out=np.zeros_like(largest), where=largest > 1e-30)
        scaled = rows.astype(float) * inverse.astype(float)
        self.clear &= (np.abs(scaled - np.floor(scaled) - 0.5) > _TIE).all(axis=1)
        numbers = np.rint(scaled).astype(np.int64)
        assert np.abs(numbers).max() <= 127
        sums = numbers @ whole.astype(np.int64).T
        return sums * (largest / np.float32(127)).astype(float) * scale.astype(float)


Product = Callable[[Array, str], Array]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm_step(p: Any, product: Product, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    """h and c after one time step."""
    sums = product(x, "weight_ih_l0") + p["bias_ih_l0"] + product(h, "weight_hh_l0")
    i, f, g, o = np.split(sums + p["bias_hh_l0"], 4, axis=1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    h = _sigmoid(o) * np.tanh(c)
    return (product(h, "weight_hr_l0") if "weight_hr_l0" in p else h), c


def gru_step(p: Any, product: Product, x: Array, h: Array, after: bool) -> tuple[Array, ...]:
    """The same of a GRU; `after`: whether it resets after the product."""
    size = h.shape[1]
    gates = product(x, "weight_ih_l0") + p["bias_ih_l0"]
    states = product(h, "weight_hh_l0") + p["bias_hh_l0"]
    r, z = np.split(_sigmoid((gates + states)[:, : 2 * size]), 2, axis=1)
    if after:
        offer = r * states[:, 2 * size :]
    else:
        offer = (product(r * h, "weight_hh_l0") + p["bias_hh_l0"])[:, 2 * size :]
    n = np.tanh(gates[:, 2 * size :] + offer)
    return ((1 - z) * n + z * h,)


def rnn_step(p: Any, product: Product, x: Array, h: Array, relu: bool) -> tuple[Array, ...]:
    """The same of a plain cell."""
    sums = product(x, "weight_ih_l0") + p["bias_ih_l0"] + product(h, "weight_hh_l0")
    sums = sums + p["bias_hh_l0"]
    return (np.maximum(sums, 0) if relu else np.tanh(sums),)


STEPS: dict[str, Callable[..., tuple[Array, ...]]] = {
    "lstm": lstm_step,
    "lstm_projected": lstm_step,
    "gru": lambda *given: gru_step(*given, after=True),
    "gru_reset_before": lambda *given: gru_step(*given, after=False),
    "rnn_tanh": lambda *given: rnn_step(*given, relu=False),
    "rnn_relu": lambda *given: rnn_step(*given, relu=True),
}
