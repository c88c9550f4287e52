"""Memory: what the docstrings state, and no more, however long it runs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from tests.support.cases import CELLS, TOLERANCE, Case, each
from tests.support.processes import not_sanitized, run_python

#: Numbers remembered of a step of a row, in units of H, as the layers' docstrings have it.
REMEMBERED = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 5, "gru": 4, "gru_reset_before": 4}

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

#: Resident memory now, and its peak since the last reset, in code for another process.
MEASURE = """
import numpy as np, rnncore

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

kept = []

def peak_of(work):
    # Results are kept, so that memory of one cannot serve the next unseen.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    kept.append(work())
    return status("VmHWM") - before
"""


def tape_of(layer: Any, x: np.ndarray) -> Any:
    return layer.kernels[0].forward(x, None, None, None, 0, False, None)[-1]


class TestTheTape:
    @each([Case(cell, dtype, batch=3) for cell in CELLS for dtype in TOLERANCE])
    def test_is_as_large_as_documented(self, case: Case) -> None:
        steps, batch, inputs, hidden = 50, 12, 5, 64
        layer = type(case.layer())(inputs, hidden, dtype=case.dtype, **case.under_test.options)
        x = np.zeros((steps, batch, inputs), case.dtype)
        per_node = inputs + hidden + REMEMBERED[case.cell] * hidden  # x, y and what is remembered
        states = len(case.under_test.states) * batch * hidden
        expected = (steps * batch * per_node + states) * x.itemsize
        assert expected <= tape_of(layer, x).nbytes <= expected + 256

    @pytest.mark.parametrize("hidden", [1, 17, 33])
    def test_rounds_the_gates_up_to_a_vector_at_most(self, hidden: int) -> None:
        case = Case("lstm", "float32", hidden_size=hidden)
        steps, batch = 50, 12
        tape = tape_of(case.layer(), np.zeros((steps, batch, case.input_size), np.float32))
        vector = 16
        rounded = -(-hidden // vector) * vector
        per_node = case.input_size + 2 * hidden + 4 * rounded
        states = 2 * batch * hidden
        assert tape.nbytes <= (steps * batch * per_node + states) * 4 + 256


@not_sanitized
@linux
class TestTheProcess:
    @pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
    def test_inference_needs_its_outputs_and_little_more(self, cell: str) -> None:
        """The gates of 8000 steps would be 33 MB for each gate."""
        printed = run_python(
            MEASURE
            + f"""
layer = rnncore.{cell}(1, 64, seed=0)
for steps in (100, 2000, 8000):
    x = np.zeros((steps, 16, 1), np.float32)
    print(peak_of(lambda: layer(x)) - steps * 16 * 64 * 4)
""",
            RNNCORE_NUM_THREADS="1",
        )
        _, short, long = map(int, printed.split())
        schedule = 12 * 16 * (8000 - 2000)  # row, predecessor and sequence of each node
        assert long - short <= schedule + 4 * 2**20
        assert long <= 8 * 2**20

    @pytest.mark.parametrize("shape", ["(20_000, 1, 64)", "(5_000, 4, 64)"])
    def test_windows_are_not_copied_out(self, shape: str) -> None:
        """All windows of the convolution would be 164 MB, and as much what comes back to them."""
        printed = run_python(
            MEASURE
            + f"""
layer = rnncore.Conv1d(64, 64, 32, padding=16, seed=0)
x = np.zeros({shape}, np.float32)
layer.vjp(x[:100])[1](np.zeros_like(layer(x[:100])))
print(peak_of(lambda: layer(x)) - x.nbytes)
y, pullback = layer.vjp(x)
print(peak_of(lambda: pullback(y)) - x.nbytes)
""",
            RNNCORE_NUM_THREADS="2",
        )
        assert all(int(more) < 8 * 2**20 for more in printed.split())

    def test_the_transducers_logits_are_not_held(self) -> None:
        """All of them would be 400 MB."""
        printed = run_python(
            MEASURE
            + """
T, B, U, V, H = 400, 8, 60, 512, 64
joint, loss = rnncore.TransducerJoint(H, V, seed=0), rnncore.TransducerLoss()
f, g = np.zeros((T, B, H), np.float32), np.zeros((U + 1, B, H), np.float32)

def work():
    value, pullback = loss.vjp(joint(f, g), np.ones((B, U), int))
    return pullback()

print(B * T * (U + 1) * V * 4, peak_of(work))
""",
            RNNCORE_NUM_THREADS="2",
        )
        tensor, peak = map(int, printed.split())
        assert peak < tensor / 20

    @pytest.mark.parametrize("threads", ["1", "2"])
    def test_a_long_run_does_not_grow(self, threads: str) -> None:
        printed = run_python(
            MEASURE
            + """
layer = rnncore.Chain(
    rnncore.LSTM(20, 32, 2, bidirectional=True, seed=0), rnncore.Linear(64, 10, seed=0)
)
rng = np.random.default_rng(0)

def work(lengths):
    x = np.zeros((30, 40, 20), np.float32)
    layer(x, lengths=lengths)
    (y, _), pullback = layer.vjp(x, lengths=lengths)
    pullback(y)

for _ in range(40):
    work(None)
    work(rng.integers(1, 31, 40))
before = status("VmRSS")
for _ in range(200):
    work(rng.integers(1, 31, 40))
print(status("VmRSS") - before)
""",
            RNNCORE_NUM_THREADS=threads,
        )
        assert int(printed) < 2**20
