"""What streams: layers, and compositions of all kinds, with the frames that they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import rnncore
from rnncore import (
    GRU,
    LSTM,
    MGU,
    RNN,
    Chain,
    DeepRNN,
    Dropout,
    LayerNorm,
    Linear,
    Module,
    Parallel,
    Residual,
    text,
)
from rnncore.recurrent.registry import LAYERS

from tests.support.cells import GATED
from tests.support.compare import assert_same

WIDTH = 3


def learned(module: Module) -> Module:
    """The same with first states that are not zero."""
    rng = np.random.default_rng(3)
    for name, param in module.params.items():
        if "initial_" in name:
            param[...] = rng.standard_normal(param.shape)
    return module


def _layers() -> dict[str, Module]:
    made: dict[str, Module] = {cls.__name__: cls(WIDTH, 5, 2, seed=1) for cls in LAYERS.values()}
    for name, cell in GATED.items():
        size = {"proj_size": 3} if cell.projected else {}
        made[name] = getattr(rnncore, cell.layer)(WIDTH, 17, seed=2, **cell.options, **size)
    return made


#: By name; those that look ahead are in `DELAYED`.
PROMPT: dict[str, Module] = _layers() | {
    "wide": GRU(WIDTH, 70, seed=1),
    "float64": LSTM(WIDTH, 9, 2, dtype="float64", seed=1),
    "no bias": LSTM(WIDTH, 9, bias=False, seed=1),
    "zoneout": LSTM(WIDTH, 9, zoneout=(0.3, 0.1), seed=1),
    "weight_drop": GRU(WIDTH, 9, weight_drop=0.5, variational_dropout=0.5, seed=1),
    "depth": GRU(WIDTH, 9, transition_depth=3, shortcut=True, seed=1),
    "reset before": GRU(WIDTH, 9, reset_after=False, seed=1),
    "learned": learned(LSTM(WIDTH, 9, 2, proj_size=4, learned_state=True, seed=1)),
    "learned in a chain": learned(
        Chain(
            Linear(WIDTH, 4, seed=1),
            GRU(4, 5, learned_state=True, seed=2),
            DeepRNN(5, 5, cell="lstm", num_layers=2, residual=True, learned_state=True, seed=3),
        )
    ),
    "skip around": Residual(Chain(LSTM(WIDTH, 5, seed=1), Linear(5, WIDTH, seed=2))),
    "skip around a layer": Residual(GRU(WIDTH, WIDTH, 2, seed=1)),
    "skips in a chain": Chain(
        Linear(WIDTH, 4, seed=1),
        Residual(GRU(4, 4, seed=2)),
        Residual(
            Chain(LayerNorm(4), Residual(LSTM(4, 4, seed=3)), Dropout(), Linear(4, 4, seed=4))
        ),
        MGU(4, 3, seed=5),
    ),
    "beside": Parallel(GRU(WIDTH, 4, seed=1), Dropout(), Linear(WIDTH, 2, seed=2), LSTM(WIDTH, 5)),
    "beside, sum": Parallel(
        *(RNN(WIDTH, 4, seed=n) for n in range(3)), Linear(WIDTH, 4, seed=3), merge="sum"
    ),
    "beside, mul": Parallel(MGU(WIDTH, 3, seed=1), rnncore.Sigmoid(), rnncore.Tanh(), merge="mul"),
    "beside, mean": Parallel(*(GRU(WIDTH, 4, 2, seed=n) for n in range(3)), merge="mean"),
    "beside in a chain": Chain(
        Parallel(LSTM(WIDTH, 4, seed=1), Chain(rnncore.Tanh(), GRU(WIDTH, 2, seed=2))),
        Linear(6, 3, seed=3),
        Parallel(Chain(Parallel(RNN(3, 2, seed=4), rnncore.Identity())), LSTM(3, 2, seed=5)),
    ),
    "learned beside": learned(
        Parallel(GRU(WIDTH, 4, learned_state=True), LSTM(WIDTH, 4, learned_state=True), merge="sum")
    ),
    "pointwise skip": Residual(Parallel(rnncore.Tanh(), LayerNorm(WIDTH), merge="mean")),
    "linear": Linear(WIDTH, 40, seed=1),
    "norm": LayerNorm(WIDTH),
    "prelu": Chain(GRU(WIDTH, 5), rnncore.PReLU(5, -0.5), Linear(5, 2, seed=1)),
    "tanh": rnncore.Tanh(),
    "embedding": rnncore.Embedding(WIDTH, 2, seed=1),
    "chain": Chain(Linear(WIDTH, 5), LSTM(5, 6, seed=1), Dropout(), Linear(6, 2, seed=1)),
    "mixed": Chain(GRU(WIDTH, 5), LayerNorm(5), rnncore.ReLU(), RNN(5, 4), rnncore.Softmax()),
    "nested": Chain(
        Chain(MGU(WIDTH, 5)), Chain(LSTM(5, 4), Chain(Linear(4, 4), rnncore.Sigmoid()))
    ),
    "in front": Chain(rnncore.Tanh(), rnncore.Elementwise(("elu", 0.5)), GRU(WIDTH, 4, seed=1)),
    "no width": Chain(rnncore.Elementwise("softplus"), Chain(rnncore.Softmax()), rnncore.Tanh()),
    "nothing": Chain(Dropout()),
    "text": text.CharModel(text.Vocabulary("abc"), text.CharConfig(hidden=9, layers=2), seed=1),
    "deep": DeepRNN(
        WIDTH, 5, num_layers=2, input_depth=2, output_depth=2, transition_depth=2, seed=1
    ),
    "residual": DeepRNN(WIDTH, 5, cell="lstm", num_layers=3, residual=True, seed=1),
    "skip": DeepRNN(WIDTH, 5, cell="gru", num_layers=3, skip=True, seed=1),
    "both": DeepRNN(
        WIDTH, 5, cell="mgu", num_layers=3, residual=True, skip=True, input_depth=2, seed=1
    ),
    "deep in a chain": Chain(
        Linear(WIDTH, 4, seed=1),
        Chain(DeepRNN(4, 5, cell="lstm", num_layers=2, residual=True, seed=2), LayerNorm(5)),
        RNN(5, 2, seed=3),
    ),
}

DELAYED: dict[str, Module] = {
    "row convolution": rnncore.RowConvolution(WIDTH, 2, seed=1),
    "no future": rnncore.RowConvolution(WIDTH, 0, seed=1),
    "windows": rnncore.Windowed(GRU(WIDTH, 4, seed=1), LSTM(WIDTH, 4, seed=2), 2, 1),
    "windows back": rnncore.Windowed(LSTM(WIDTH, 4, seed=1), None, 2),
    "windows ahead": rnncore.Windowed(None, LSTM(WIDTH, 4, seed=1), future=2),
    "all back": rnncore.Windowed(
        Chain(LSTM(WIDTH, 4, seed=1)), GRU(WIDTH, 4, seed=2), None, 2, "sum"
    ),
    "all back alone": rnncore.Windowed(GRU(WIDTH, 4, seed=1), None),
    "skip around what waits": Residual(
        Chain(GRU(WIDTH, 4, seed=1), rnncore.RowConvolution(4, 2, seed=2), Linear(4, WIDTH, seed=3))
    ),
    "beside what waits": Parallel(
        rnncore.RowConvolution(WIDTH, 3, seed=1),
        LSTM(WIDTH, 4, seed=2),
        rnncore.LatencyControlled([(GRU(WIDTH, 4, seed=1), LSTM(WIDTH, 4, seed=2))], 3, 2),
        rnncore.Tanh(),
    ),
    "beside what waits, in a chain": Chain(
        Linear(WIDTH, 4, seed=1),
        Parallel(rnncore.RowConvolution(4, 1, seed=2), GRU(4, 4, seed=3), merge="sum"),
        Residual(rnncore.RowConvolution(4, 2, seed=4)),
        GRU(4, 2, seed=5),
    ),
    "learned windows": learned(
        rnncore.Windowed(
            GRU(WIDTH, 4, learned_state=True), LSTM(WIDTH, 4, learned_state=True), None, 2
        )
    ),
    "learned chunks": learned(
        rnncore.LatencyControlled(
            [(GRU(WIDTH, 4, learned_state=True), LSTM(WIDTH, 4, learned_state=True))], 3, 2
        )
    ),
    "chunks": rnncore.LatencyControlled([(GRU(WIDTH, 4, seed=1), LSTM(WIDTH, 4, seed=2))], 3, 2),
    "convolution": rnncore.Conv1d(WIDTH, 4, 3, padding=1, seed=1),
    "convolution, dilated": rnncore.Conv1d(WIDTH, 20, 2, dilation=3, padding=(1, 2), seed=1),
    "convolution, strided": rnncore.Conv1d(WIDTH, 4, 3, stride=2, seed=1),
    "convolution, apart": rnncore.Conv1d(WIDTH, 4, 2, stride=5, padding=1, seed=1),
    "more padding than taps": rnncore.Conv1d(WIDTH, 4, 2, padding=(4, 3), seed=1),
    "pooling": rnncore.MaxPool1d(3, 2),
    "pooling, apart": rnncore.AvgPool1d(1, 3),
    "convolution and recurrence": Chain(
        rnncore.Conv1d(WIDTH, 6, 3, padding="same", seed=1),
        rnncore.GLU(),
        rnncore.BatchNorm(3),
        LSTM(3, 5, seed=2),
        rnncore.MaxPool1d(2),
        Linear(5, 2, seed=3),
    ),
    "one after the other": Chain(
        GRU(WIDTH, 4, seed=1),
        rnncore.RowConvolution(4, 2, seed=1),
        rnncore.LatencyControlled([(GRU(4, 3, seed=1), GRU(4, 3, seed=2))], 2, 1),
        Linear(6, 2, seed=1),
    ),
}


def frames(module: Module, steps: int, batch: int, seed: int = 0) -> np.ndarray:
    """Random frames `(steps, batch, ...)` of the kind that the module takes."""
    rng = np.random.default_rng(seed)
    if module in (PROMPT["embedding"], PROMPT["text"]):
        return rng.integers(0, WIDTH, (steps, batch))
    dtype = "float64" if module is PROMPT["float64"] else "float32"
    return rng.standard_normal((steps, batch, WIDTH)).astype(dtype)


def called(module: Module, x: Any, state: Any = None) -> tuple[np.ndarray, Any]:
    """Outputs and state of one call over whole sequences."""
    return module(x, state) if module.recurrent else (module(x), ())


def same(got: np.ndarray, want: np.ndarray) -> None:
    """Both are the same to the bit."""
    assert_same({"y": np.ascontiguousarray(got)}, {"y": np.ascontiguousarray(want)})
