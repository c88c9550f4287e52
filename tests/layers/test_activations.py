"""Sigmoid and tanh by themselves: near the true values everywhere, right at both ends."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rnncore import _core

Array = npt.NDArray[Any]
Function = Callable[[Array], Array]

#: Units in the last place of the true value.
BOUND = 4

FUNCTIONS: dict[tuple[str, str], Function] = {
    ("sigmoid", "float32"): _core.ActivationF32("sigmoid", 0, 0).forward,
    ("sigmoid", "float64"): _core.ActivationF64("sigmoid", 0, 0).forward,
    ("tanh", "float32"): _core.ActivationF32("tanh", 0, 0).forward,
    ("tanh", "float64"): _core.ActivationF64("tanh", 0, 0).forward,
}
LIMITS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}

each = pytest.mark.parametrize(("name", "dtype"), FUNCTIONS)


def floats_across_the_range(dtype: str, count: int) -> Array:
    """Numbers of both signs, evenly spread over the bit patterns of all finite ones."""
    bits = {"float32": np.uint32, "float64": np.uint64}[dtype]
    largest = np.array(np.finfo(dtype).max).view(bits)
    positive = np.linspace(0, 1, count // 2) * float(largest)
    numbers = np.minimum(positive.astype(bits), largest).view(dtype)
    return np.concatenate([-numbers[::-1], numbers])


def where_it_bends(dtype: str, count: int) -> Array:
    """Numbers that no function of these maps to its limit."""
    edge = {"float32": 90, "float64": 715}[dtype]
    wide = np.linspace(-edge, edge, count // 2)
    near = np.linspace(-20, 20, count // 2)
    return np.concatenate([wide, near]).astype(dtype)


def true_float64(name: str, x: Array) -> Array:
    """The true values of float32 arguments, good to a few units of float64."""
    x = x.astype(np.float64)
    if name == "tanh":
        return np.tanh(x)
    small = np.exp(-np.abs(x))
    return np.where(x > 0, 1, small) / (1 + small)


def true_decimal(name: str, x: float) -> Decimal:
    """The true value to forty digits or more."""
    with decimal.localcontext() as context:
        context.prec = 60
        exact = Decimal(min(max(x, -1e4), 1e4))  # beyond, nothing changes
        if name == "sigmoid":
            return 1 / (1 + (-exact).exp())
        if abs(exact) < Decimal("1e-12"):
            return exact - exact**3 / 3  # the next term is beyond the digits kept
        small = (-2 * abs(exact)).exp()
        return ((1 - small) / (1 + small)).copy_sign(exact)


def errors(got: Array, want: Array, dtype: str) -> Array:
    """The error in units of the last place; none where both are below the normal numbers."""
    unit = np.spacing(np.abs(want).astype(dtype)).astype(np.float64)
    tiny = np.finfo(dtype).tiny
    flushed = (np.abs(want) < tiny) & (np.abs(got) < tiny)
    return np.where(flushed, 0, np.abs(got.astype(np.float64) - want) / unit)


class TestNearTheTruth:
    @pytest.mark.parametrize("points", [floats_across_the_range, where_it_bends])
    @pytest.mark.parametrize("name", LIMITS)
    def test_float32(self, name: str, points: Callable[[str, int], Array]) -> None:
        x = points("float32", 1_000_000)
        off = errors(FUNCTIONS[name, "float32"](x), true_float64(name, x), "float32")
        worst = int(off.argmax())
        assert off[worst] <= BOUND, f"{off[worst]:.2f} ulp at {x[worst]!r}"

    @pytest.mark.parametrize("points", [floats_across_the_range, where_it_bends])
    @pytest.mark.parametrize("name", LIMITS)
    def test_float64(self, name: str, points: Callable[[str, int], Array]) -> None:
        x = points("float64", 4000)
        got = FUNCTIONS[name, "float64"](x)
        tiny = np.finfo(np.float64).tiny
        for argument, value in zip(x.tolist(), got.tolist(), strict=True):
            want = true_decimal(name, argument)
            if abs(want) < tiny and abs(value) < tiny:
                continue
            error = abs(Decimal(value) - want) / Decimal(float(np.spacing(abs(float(want)))))
            assert error <= BOUND, f"{error:.2f} ulp at {argument!r}"

    @each
    def test_every_lane_of_every_length_is_computed(self, name: str, dtype: str) -> None:
        x = np.linspace(-3, 3, 67).astype(dtype)
        whole = FUNCTIONS[name, dtype](x)
        for n in range(len(x)):
            assert FUNCTIONS[name, dtype](x[:n].copy()).tobytes() == whole[:n].tobytes()


class TestTheEnds:
    @each
    def test_limits(self, name: str, dtype: str) -> None:
        largest = np.finfo(dtype).max
        x = np.array([-np.inf, -largest, largest, np.inf], dtype)
        low, high = LIMITS[name]
        assert FUNCTIONS[name, dtype](x).tolist() == [low, low, high, high]

    @each
    def test_never_beyond_the_limits(self, name: str, dtype: str) -> None:
        y = FUNCTIONS[name, dtype](where_it_bends(dtype, 100_000))
        low, high = LIMITS[name]
        assert low <= y.min()
        assert y.max() <= high

    @each
    def test_nan_stays_where_it_is(self, name: str, dtype: str) -> None:
        for place in range(40):
            x = np.ones(40, dtype)
            x[place] = np.nan
            assert np.flatnonzero(np.isnan(FUNCTIONS[name, dtype](x))).tolist() == [place]

    @each
    def test_zero(self, name: str, dtype: str) -> None:
        y = FUNCTIONS[name, dtype](np.array([0.0, -0.0], dtype))
        assert y.tolist() == ([0.5, 0.5] if name == "sigmoid" else [0, 0])
        if name == "tanh":
            assert np.signbit(y).tolist() == [False, True]

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_tanh_is_odd(self, dtype: str) -> None:
        x = floats_across_the_range(dtype, 10_000)
        tanh = FUNCTIONS["tanh", dtype]
        assert tanh(-x).tobytes() == (-tanh(x)).tobytes()

    @each
    def test_below_the_smallest_normal_number_is_zero_or_right(self, name: str, dtype: str) -> None:
        limits = np.finfo(dtype)
        if name == "tanh":
            x = np.array([limits.tiny / 2, limits.smallest_subnormal], dtype)
            true = x
        else:
            x = np.log(np.array([limits.tiny], dtype)) - np.array([0.3, 1, 10, 20], dtype)
            true = np.exp(x)
        y = FUNCTIONS[name, dtype](x)
        assert np.all(
            (y == 0) | (np.abs(y - true) <= BOUND * limits.smallest_subnormal + 1e-6 * true)
        )
