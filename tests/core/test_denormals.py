"""Denormal numbers: zero inside a call, so that decaying states stay fast, and as ever outside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN, AvgPool1d, Conv1d, Conv2d, ConvTranspose1d
from rnncore.layers.linear import Linear
from rnncore.threads import set_num_threads

from tests.support import cases
from tests.support.cases import CELLS, TOLERANCE, Case, each

pytestmark = pytest.mark.usefixtures("set_threads")
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCE)

#: Batches for one thread and, cut by rows or by hidden units, for several.
COMPANY = [(1, 1, 16), (3, 1, 16), (3, 64, 64), (3, 1, 512)]


def assert_denormals_count() -> None:
    """NumPy computes with them, and makes them of normal numbers."""
    for precision in (np.float32, np.float64):
        limits = np.finfo(precision)
        few = np.full(64, limits.smallest_subnormal)
        assert np.all(few * precision(3) > 0)
        assert np.all(few + few == 2 * limits.smallest_subnormal)
        assert np.all(np.full(64, limits.tiny) / precision(2) > 0)


def denormal(dtype: str) -> float:
    return float(np.finfo(dtype).tiny) / 4


class TestOutside:
    @each([Case(cell, dtype, batch=40, hidden_size=140) for cell in CELLS for dtype in TOLERANCE])
    @pytest.mark.parametrize("threads", [1, 3])
    def test_the_caller_keeps_them(self, case: Case, threads: int) -> None:
        set_num_threads(threads)
        assert_denormals_count()
        cases.layer_results(case, case.draw())
        assert_denormals_count()

    @both_dtypes
    def test_the_caller_keeps_them_after_linear(self, dtype: str) -> None:
        linear = Linear(64, 64, dtype=dtype)
        y, pullback = linear.vjp(np.ones((64, 64), dtype))
        pullback(y)
        assert_denormals_count()

    def test_every_thread_keeps_them(self) -> None:
        layer, faults = LSTM(3, 5), []

        def work() -> None:
            try:
                layer(np.ones((4, 2, 3), np.float32))
                assert_denormals_count()
            except AssertionError as fault:
                faults.append(fault)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert not faults

    def test_they_are_kept_where_a_call_fails(self) -> None:
        layer = LSTM(3, 5)
        with pytest.raises(ValueError, match="x must have shape"):
            layer(np.ones((4, 2, 2), np.float32))
        assert_denormals_count()


class TestInside:
    @both_dtypes
    @pytest.mark.parametrize(("threads", "batch", "hidden"), COMPANY)
    def test_sums_below_the_smallest_normal_number_are_zero(
        self, dtype: str, threads: int, batch: int, hidden: int
    ) -> None:
        """h' = U h with U a quarter of the identity, from the smallest normal number."""
        set_num_threads(threads)
        layer = RNN(hidden, hidden, nonlinearity="identity", bias=False, dtype=dtype)
        layer.params["weight_ih_l0"] = np.zeros((hidden, hidden), dtype)
        layer.params["weight_hh_l0"] = np.eye(hidden, dtype=dtype) / 4
        h = np.full((1, batch, hidden), np.finfo(dtype).tiny * 4, dtype)
        y, _ = layer(np.zeros((3, batch, hidden), dtype), h)
        assert np.all(y[0] == np.finfo(dtype).tiny)
        assert not y[1:].any()

    @both_dtypes
    @pytest.mark.parametrize(("threads", "batch", "hidden"), COMPANY)
    def test_denormal_inputs_and_gradients_count_as_zero(
        self, dtype: str, threads: int, batch: int, hidden: int
    ) -> None:
        """All weights are 2^20, which would lift a denormal number far above the normal limit."""
        set_num_threads(threads)
        layer = RNN(hidden, hidden, nonlinearity="identity", bias=False, dtype=dtype)
        for weight in layer.params.values():
            weight.fill(2.0**20)
        x = np.full((2, batch, hidden), denormal(dtype), dtype)
        (y, _), pullback = layer.vjp(x)
        dx, dh = pullback(x)
        for array in (y, dx, dh, *layer.grads.values()):
            assert not array.any()

    @both_dtypes
    @pytest.mark.parametrize("make", [LSTM, GRU])
    def test_decaying_states_reach_zero(self, make: Callable[..., Any], dtype: str) -> None:
        """Gates in the middle halve the state at each step: it passes through all magnitudes."""
        layer = make(3, 17, bias=False, dtype=dtype)
        for weight in layer.params.values():
            weight.fill(0)
        start = np.ones((1, 2, 17), dtype)
        state = (start, start) if make is LSTM else start
        y, _ = layer(np.zeros((1200, 2, 3), dtype), state)
        assert np.all(y[100] > 0)
        assert not np.any((y != 0) & (np.abs(y) < np.finfo(dtype).tiny))
        assert not y[-1].any()

    @both_dtypes
    @pytest.mark.parametrize("make", [Conv1d, Conv2d, ConvTranspose1d])
    def test_convolutions_flush(self, make: Callable[..., Any], dtype: str) -> None:
        layer = make(5, 7, 2, bias=False, dtype=dtype)
        layer.params["weight"].fill(2.0**20)
        x = np.full((3, 4, 5), denormal(dtype), dtype)
        y, pullback = layer.vjp(x)
        dx = pullback(np.full_like(y, denormal(dtype)))
        for array in (layer(x), y, dx, *layer.grads.values()):
            assert not array.any()
        assert_denormals_count()

    @both_dtypes
    def test_means_flush(self, dtype: str) -> None:
        x = np.full((4, 2, 5), 2 * np.finfo(dtype).tiny, dtype)
        y, pullback = AvgPool1d(4).vjp(x / 8)
        assert not y.any()
        assert not pullback(x[:1]).any()
        assert_denormals_count()

    @both_dtypes
    def test_linear_flushes(self, dtype: str) -> None:
        linear = Linear(5, 7, bias=False, dtype=dtype)
        linear.params["weight"] = np.full((7, 5), 2.0**20, dtype)
        assert not linear(np.full((3, 5), denormal(dtype), dtype)).any()
