"""The program of a user's cell: every operation against NumPy, and programs that are refused."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from rnncore import _core

NUMBERS = _core.cell_operations()
KINDS = ["sigmoid", "tanh", "relu", "identity", "affine", "leaky_relu", "thresholded_relu"]
KINDS += ["scaled_tanh", "hard_sigmoid", "elu", "selu", "softsign", "softplus", "exponential"]
Code = list[tuple[Any, ...]]


def rows(code: Code) -> list[tuple[int, ...]]:
    """Instructions by their names as the core takes them."""
    return [(NUMBERS[name], *rest, *[0] * (5 - len(rest))) for name, *rest in code]


def program(code: Code, **changed: Any) -> _core.CellProgram:
    """A cell of four gates that see x alone, and one new state h."""
    gates = 4
    zero: Code = [("constant", 0, 0), *(("set_slot", j, 0) for j in range(gates))]
    zero += [("d_old_h", 0, 0)]
    given: dict[str, Any] = {
        "gates": [(True, False, False, 0)] * gates,
        "units": 0,
        "cells": 0,
        "scalars": 0,
        "vectors": 0,
        "kept": 0,
        "forward": [rows(code)],
        "backward": [rows(zero)],
        "constants": [0.0],
    }
    return _core.CellProgram(**given | changed)


LOADS: Code = [("slot", j, j) for j in range(4)]


def values(dtype: str, code: Code) -> tuple[Any, ...]:
    """Return a, b, c and d of some units, and what the code leaves in register 9."""
    hidden, wide = 37, _core.LayerF32 if dtype == "float32" else _core.LayerF64
    x = np.random.default_rng(0).standard_normal((5, 3, 4 * hidden)).astype(dtype) * 2
    x[3, 2, :hidden] = x[3, 2, hidden : 2 * hidden]  # a = b
    settings = _core.Settings(
        cell=program([*LOADS, *code, ("new_h", 0, 9)]),
        input_size=4 * hidden,
        hidden_size=hidden,
        output_size=hidden,
        arity=0,
        batch_first=False,
        activations=(("sigmoid", 0.0, 0.0),) * 3,
        cell_clip=0.0,
        gate_clip=0.0,
        plain=True,
    )
    parameters = [("weight_ih", np.eye(4 * hidden, dtype=dtype)), *[("", None)] * 5]
    layer = wide(settings, _core.Parameters([[parameters]]))
    y = layer.forward(x, None, None, None, None, False, None)[0]
    return (*np.split(x.astype(np.float64), 4, axis=-1), y)


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


#: name: (operands, what it computes)
COMPUTED: dict[str, tuple[int, Any]] = {
    "add": (2, lambda a, b: a + b),
    "subtract": (2, lambda a, b: a - b),
    "multiply": (2, lambda a, b: a * b),
    "divide": (2, lambda a, b: a / b),
    "maximum": (2, np.maximum),
    "minimum": (2, np.minimum),
    "negative": (1, lambda a: -a),
    "absolute": (1, np.abs),
    "reciprocal": (1, lambda a: 1 / a),
    "fma": (3, lambda a, b, c: a * b + c),
    "fnma": (3, lambda a, b, c: c - a * b),
    "exp": (1, np.exp),
    "sin": (1, np.sin),
    "cos": (1, np.cos),
    "sigmoid": (1, sigmoid),
    "tanh": (1, np.tanh),
    "softplus": (1, lambda a: np.log1p(np.exp(a))),
    "relu": (1, lambda a: np.maximum(a, 0)),
    "sigmoid_slope": (1, lambda a: a * (1 - a)),
    "tanh_slope": (1, lambda a: 1 - a * a),
    "relu_slope": (1, lambda a: a > 0),
    "sigmoid_back": (2, lambda d, a: d * a * (1 - a)),
    "tanh_back": (2, lambda d, a: d * (1 - a * a)),
    "select_le": (4, lambda a, b, c, d: np.where(a <= b, c, d)),
    "select_lt": (4, lambda a, b, c, d: np.where(a < b, c, d)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
class TestOperations:
    @pytest.mark.parametrize("name", COMPUTED)
    @pytest.mark.filterwarnings("ignore:divide by zero")
    def test_is_what_numpy_computes(self, dtype: str, name: str) -> None:
        count, wanted = COMPUTED[name]
        *operands, y = values(dtype, [(name, 9, *range(count))])
        eps = np.finfo(dtype).eps
        want = wanted(*operands[:count])  # of numbers below ten, some of which nearly cancel
        np.testing.assert_allclose(y, want, rtol=8 * eps, atol=64 * eps)

    @pytest.mark.parametrize("name", ["sqrt", "log"])
    def test_of_what_is_positive(self, dtype: str, name: str) -> None:
        a, *_, y = values(dtype, [("absolute", 4, 0), (name, 9, 4)])
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(y, getattr(np, name)(abs(a)), rtol=8 * eps, atol=8 * eps)

    def test_activations_are_those_of_layers(self, dtype: str) -> None:
        core = _core.ActivationF32 if dtype == "float32" else _core.ActivationF64
        for number, kind in enumerate(KINDS):
            a, *_, y = values(dtype, [("activation", 9, 0, number, 0, 0)])
            want = core(kind, 0.0, 0.0).forward(np.ascontiguousarray(a, dtype))
            assert y.tobytes() == want.tobytes(), kind

    @pytest.mark.parametrize("name", ["maximum", "minimum"])
    def test_nan_stays(self, dtype: str, name: str) -> None:
        nan: Code = [("constant", 4, 0), ("divide", 4, 4, 4)]
        for operands in ((0, 4), (4, 0)):
            assert np.isnan(values(dtype, [*nan, (name, 9, *operands)])[-1]).all()

    @pytest.mark.parametrize("name", ["select_le", "select_lt"])
    def test_what_does_not_compare_goes_the_other_way(self, dtype: str, name: str) -> None:
        nan: Code = [("constant", 4, 0), ("divide", 4, 4, 4)]
        for operands in ((0, 4), (4, 0)):
            *_, d, y = values(dtype, [*nan, (name, 9, *operands, 2, 3)])
            np.testing.assert_array_equal(y, d)


def one(name: str, *rest: int) -> Code:
    return [*LOADS, (name, *rest), ("new_h", 0, 0)]


#: Without a recurrent product nothing else sets it.
NO_GRADIENT_OF_H: Code = [("constant", 0, 0), *(("set_slot", j, 0) for j in range(4))]


class TestRefused:
    @pytest.mark.parametrize(
        ("code", "says"),
        [
            (one("slot", 0, 4), "slot must be in 0..3, got 4"),
            (one("slot", 64, 0), "slot must be in 0..63, got 64"),
            (one("slot", -1, 0), "slot must be in 0..63, got -1"),
            (one("state", 0, 0), "state must be in 0..-1"),
            (one("constant", 0, 1), "constant must be in 0..0, got 1"),
            (one("activation", 0, 0, 14, 0, 0), "activation must be in 0..13, got 14"),
            (one("add", 0, 0, 9), "add reads a register before it is written"),
            (one("dh", 0), "dh does not belong into this pass"),
            (
                [*LOADS, ("set_slot", 0, 0), ("slot", 1, 0), ("new_h", 0, 0)],
                "read after it is overwritten",
            ),
            (LOADS, "a new state, or a gradient, is never stored"),
            ([*LOADS, *[("add", 0, 0, 0)] * 5000], "the number of instructions must be in 0..4096"),
        ],
    )
    def test_code(self, code: Code, says: str) -> None:
        with pytest.raises(ValueError, match=re.escape(says)):
            program(code)

    @pytest.mark.parametrize(
        ("changed", "says"),
        [
            ({"gates": []}, "the number of gates must be in 1..16, got 0"),
            ({"gates": [(True, False, False, 0)] * 9}, "input part must be in 0..8, got 9"),
            ({"gates": [(False, False, False, 0)]}, "a gate has an input part"),
            ({"gates": [(True, False, True, 0)]}, "both if they are apart"),
            ({"gates": [(True, True, False, 1)]}, "the phase of a gate must be in 0..0"),
            ({"units": 19}, "units must be in 0..18, got 19"),
            ({"cells": 8}, "cells must be in 0..7, got 8"),
            ({"kept": -1}, "kept must be in 0..64, got -1"),
            ({"constants": [math.nan]}, "constants must be finite"),
            ({"constants": [0.0] * 257}, "the number of constants must be in 0..256"),
            ({"forward": []}, "the number of phases must be in 1..2, got 0"),
            ({"backward": []}, "forward and backward must have the same phases"),
            ({"backward": [[]]}, "a new state, or a gradient, is never stored"),
            ({"backward": [rows(NO_GRADIENT_OF_H)]}, "a new state, or a gradient, is never stored"),
            ({"forward": [[(999, 0, 0, 0, 0, 0)]]}, "an operation must be in 0.."),
        ],
    )
    def test_sizes(self, changed: dict[str, Any], says: str) -> None:
        with pytest.raises(ValueError, match=re.escape(says)):
            program(one("slot", 0, 0), **changed)
