"""One small model of every class of the library, and what it is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import rnncore
from rnncore import Module, text
from rnncore.recurrent.registry import LAYERS, STEPS

Call = Callable[[Any], Any]


def _x(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


def _sequence(width: int = 3, dtype: str = "float32") -> Call:
    x = _x(4, 2, width, dtype=dtype)
    return lambda module: module(x)


def _images(channels: int = 3) -> Call:
    x = _x(2, 5, 4, channels)
    return lambda module: module(x)


def _step(module: Any) -> Any:
    return module(_x(2, 3))


def _batch(*shapes: tuple[int, ...]) -> Call:
    """Arrays with the batch first."""
    xs = [_x(*shape) for shape in shapes]
    return lambda module: module(*xs)


def _graph() -> rnncore.Graph:
    encoder = rnncore.ReturnState(rnncore.LSTM(3, 4, batch_first=True, seed=0))
    shared = rnncore.Linear(4, 4, seed=1)
    nodes = [
        ("encoder", encoder, "x"),
        ("state", shared, ("encoder", 1)),
        ("steps", rnncore.RepeatVector(2), "state"),
        ("decoder", rnncore.GRU(4, 4, batch_first=True, seed=2), ["steps", 0]),
        ("out", shared, "decoder"),
        ("both", rnncore.Merge("mean"), "steps", "out"),
    ]
    return rnncore.Graph(["x"], nodes, ["both", ("encoder", 2)])


def _forest(module: Any) -> Any:
    return module(_x(5, 3), rnncore.Forest.from_nested([((1, 2), 3)]))


def _leaves(module: Any) -> Any:
    return module(_x(3, 3), rnncore.Forest.from_nested([((1, 2), 3)]))


def _ids(module: Any) -> Any:
    return module(np.array([[0, 2], [1, 1]]))


def _tied() -> Module:
    twice = rnncore.Linear(3, 3, seed=7)
    return rnncore.Chain(twice, rnncore.Tanh(), twice)


def _tied_linear() -> Module:
    embedding = rnncore.Embedding(7, 4, seed=0)
    return rnncore.Chain(embedding, rnncore.TiedLinear(embedding))


def _attention(kind: type[rnncore.Attention], **options: Any) -> rnncore.Attention:
    return kind(4, 6, size=5, seed=0, **options)


def _look(module: rnncore.Attention) -> Any:
    memory, _ = module.remember(_x(5, 2, 6), np.array([5, 3]))
    return module.look(_x(1, 2, 4), memory)[1]


def _decoder() -> rnncore.Decoder:
    embedding = rnncore.Embedding(7, 4, seed=0)
    attention = rnncore.LuongAttention(4, 6, window=2, seed=1)
    return rnncore.Decoder(
        embedding,
        rnncore.LSTM(8, 4, seed=2),
        attention,
        rnncore.TiedLinear(embedding),
        input_feeding=True,
    )


def _seq2seq() -> rnncore.Seq2Seq:
    encoder = rnncore.Chain(
        rnncore.Embedding(5, 3, seed=0), rnncore.LSTM(3, 3, bidirectional=True, seed=1)
    )
    bridge = rnncore.LinearBridge(6, 4, backward=False, seed=2)
    return rnncore.Seq2Seq(rnncore.Reversed(encoder), _decoder(), bridge)


def _transducer() -> rnncore.Transducer:
    predictor = rnncore.Chain(rnncore.Embedding(5, 3, seed=1), rnncore.GRU(3, 4, seed=2))
    return rnncore.Transducer(
        rnncore.LSTM(3, 4, seed=0), predictor, rnncore.TransducerJoint(4, 5, seed=3), blank=2
    )


def _transduced(module: rnncore.Transducer) -> Any:
    return module((_x(4, 2, 3), np.array([[0, 3], [4, 4]]))).logits()


def _bridge(module: rnncore.Module) -> Any:
    start = module([(_x(2, 3), _x(2, 3))])
    return start.h, start.c, start.context


def _recurrent() -> dict[str, tuple[list[Module], Call]]:
    """Every recurrent class with its options at rest."""
    layers: dict[str, tuple[list[Module], Call]] = {
        cls.__name__: ([cls(3, 4)], _sequence()) for cls in LAYERS.values()
    }
    return layers | {cls.__name__: ([cls(3, 4)], _step) for cls in STEPS.values()}


#: For each class its models, and how they are called.
MODELS: dict[str, tuple[list[Module], Call]] = _recurrent() | {
    "AdditiveAttention": (
        [rnncore.AdditiveAttention(3)],
        _batch((2, 4, 3), (2, 5, 3)),
    ),
    "Attention": ([_attention(rnncore.Attention, score="concat")], _look),
    "AvgPool1d": (
        [rnncore.AvgPool1d(2), rnncore.AvgPool1d(3, 1, 1, True, False, batch_first=True)],
        _sequence(),
    ),
    "AvgPool2d": ([rnncore.AvgPool2d((2, 3), 1, (1, 0), True, False)], _images()),
    "BahdanauAttention": ([_attention(rnncore.BahdanauAttention)], _look),
    "BatchNorm": (
        [rnncore.BatchNorm(3, 1e-3, 0.5), rnncore.BatchNorm(3, affine=False, batch_first=False)],
        _sequence(),
    ),
    "Bidirectional": (
        [rnncore.Bidirectional(rnncore.GRU(3, 4, seed=0), rnncore.MGU(3, 4, seed=1), "sum")],
        _sequence(),
    ),
    "BidirectionalTree": (
        [rnncore.BidirectionalTree(rnncore.TreeGRU(3, 4), rnncore.RecursiveNet(7, 2, 1), "both")],
        _forest,
    ),
    "CRF": (
        [
            rnncore.CRF(3, seed=1),
            rnncore.CRF(3, constraints=rnncore.tag_constraints(["O", "B-a", "I-a"])),
            rnncore.CRF(3, constraints=([[1 > 0] * 3] * 3, [1 > 0] * 3, [1 > 0] * 3)),
        ],
        _sequence(),
    ),
    "Chain": (
        [
            rnncore.Chain(),
            _tied(),
            rnncore.Chain(rnncore.Chain(rnncore.GRU(3, 4)), rnncore.Linear(4, 2)),
        ],
        _sequence(),
    ),
    "CharModel": (
        [
            text.CharModel(text.Vocabulary("abé"), text.CharConfig(hidden=3, layers=2), seed=1),
            text.CharModel(text.Vocabulary("abc")),
        ],
        _ids,
    ),
    "ChildSumTree": ([rnncore.ChildSumTree(rnncore.cells.shelf.slstm, 3, 4)], _forest),
    "ChildSumTreeLSTM": (
        [
            rnncore.ChildSumTreeLSTM(3, 4, recurrent_dropout=0.5),
            rnncore.ChildSumTreeLSTM(3, 4, leaf_module=True),
            rnncore.ChildSumTreeLSTM(3, 4, layer_norm="gate"),
        ],
        _forest,
    ),
    "ContextBridge": ([rnncore.ContextBridge(3, 2, 4, 2, seed=0)], _bridge),
    "Conv1d": (
        [
            rnncore.Conv1d(3, 4, 2),
            rnncore.Conv1d(3, 6, 3, 2, (2, 0), 2, 3, False, "replicate", batch_first=True),
            rnncore.Conv1d(3, 4, 3, padding="causal", seed=1),
        ],
        _sequence(),
    ),
    "Conv2d": (
        [
            rnncore.Conv2d(3, 4, 2),
            rnncore.Conv2d(3, 6, (3, 2), (2, 1), ((1, 0), "same"), (1, 2), 3, False, "reflect"),
        ],
        _images(),
    ),
    "ConvTranspose1d": (
        [
            rnncore.ConvTranspose1d(3, 4, 2),
            rnncore.ConvTranspose1d(3, 6, 3, 2, 1, 1, 3, False, 2, batch_first=True),
        ],
        _sequence(),
    ),
    "Decoder": (
        [_decoder()],
        lambda module: module(np.array([[1, 2], [3, 6]]), _x(5, 2, 6)),
    ),
    "DeepRNN": (
        [
            rnncore.DeepRNN(3, 4, num_layers=2, input_depth=2, skip=True, width=5),
            rnncore.DeepRNN(3, 4, cell="lstm", output_depth=2, residual=True, peephole=True),
        ],
        _sequence(),
    ),
    "Dot": ([rnncore.Dot((2, 1), True), rnncore.Dot(1)], _batch((2, 3, 3), (2, 3, 3))),
    "DotAttention": (
        [rnncore.DotAttention(), rnncore.DotAttention(scale=True)],
        _batch((2, 4, 3), (2, 5, 3)),
    ),
    "Dropout": ([rnncore.Dropout(0.25, seed=3)], _sequence()),
    "Elementwise": ([rnncore.Elementwise(("elu", 0.5))], _sequence()),
    "Embedding": ([rnncore.Embedding(3, 2, dtype=np.float64)], _ids),
    "FinalBridge": ([rnncore.FinalBridge()], _bridge),
    "GLU": ([rnncore.GLU()], _sequence(4)),
    "GRU": (
        [
            rnncore.GRU(3, 4, 2, False, bidirectional=True),
            rnncore.GRU(3, 4, reset_after=False, transition_depth=2, init="orthogonal"),
            rnncore.GRU(3, 4, zoneout=(0.2, 0.0), activations=("hard_sigmoid", ("elu", 0.5))),
            rnncore.GRU(3, 4, 2, bidirectional=True, learned_state=True),
        ],
        _sequence(),
    ),
    "GRUD": ([rnncore.GRUD(3, 4, batch_first=True, seed=0)], _sequence()),
    "GlobalAvgPool": (
        [rnncore.GlobalAvgPool(), rnncore.GlobalAvgPool(True, batch_first=True)],
        _sequence(),
    ),
    "GlobalMaxPool": ([rnncore.GlobalMaxPool(keepdims=True)], _images()),
    "GRUCell": ([rnncore.GRUCell(3, 4, bias=False)], _step),
    "Graph": ([_graph()], _sequence()),
    "Identity": ([rnncore.Identity()], _sequence()),
    "IndRNN": ([rnncore.IndRNN(3, 4, 2, nonlinearity=["leaky_relu", 0.1])], _sequence()),
    "LSTM": (
        [
            rnncore.LSTM(np.int64(3), 4, proj_size=2, cell_clip=np.float32(0.5), seed=1),
            rnncore.LSTM(3, 4, layer_norm="gate", variational_dropout=0.5, checkpoint=1 << 40),
            rnncore.LSTM(3, 4, coupled=True, peephole=True, batch_first=np.True_),
            rnncore.LSTM(3, 4, proj_size=2, learned_state=True),
        ],
        _sequence(),
    ),
    "LatencyControlled": (
        [
            rnncore.LatencyControlled([(rnncore.GRU(3, 4), rnncore.LSTM(3, 4))], 1 << 40, 1),
            rnncore.LatencyControlled(
                [rnncore.Bidirectional(rnncore.GRU(3, 4), rnncore.LSTM(3, 4), "mean")], 2
            ),
        ],
        _sequence(),
    ),
    "LayerNorm": ([rnncore.LayerNorm((2, 3), 1e-3), rnncore.LayerNorm(3)], _sequence()),
    "LSTMCell": ([rnncore.LSTMCell(3, 4, learned_state=True)], _step),
    "Linear": (
        [rnncore.Linear(3, 2, False), rnncore.Linear(3, 2, dtype=float)],
        lambda module: module(_x(4, 3, dtype=module.dtype)),
    ),
    "LinearBridge": ([rnncore.LinearBridge(3, 4, cell_state=False, seed=0)], _bridge),
    "LuongAttention": (
        [
            _attention(rnncore.LuongAttention, window=2),
            rnncore.LuongAttention(4, 6, output_size=3, seed=0),
        ],
        _look,
    ),
    "MaxPool1d": (
        [rnncore.MaxPool1d(2), rnncore.MaxPool1d(2, 2, 1, 2, ceil_mode=True)],
        _sequence(),
    ),
    "MaxPool2d": (
        [rnncore.MaxPool2d(2), rnncore.MaxPool2d((3, 2), 2, (1, 0), ceil_mode=True)],
        _images(),
    ),
    "Masked": (
        [rnncore.Masked(rnncore.GRU(3, 4, batch_first=True), -1.0)],
        _sequence(),
    ),
    "Merge": (
        [rnncore.Merge("concat", 1), rnncore.Merge("mul"), rnncore.Merge()],
        _batch((2, 4, 3), (2, 4, 3)),
    ),
    "MinGRU": ([rnncore.MinGRU(3, 4, dtype=np.dtype("float64"))], _sequence(3, "float64")),
    "Module": ([Module()], lambda module: None),
    "MultiheadAttention": (
        [
            rnncore.MultiheadAttention(3, 1, seed=0),
            rnncore.MultiheadAttention(3, 3, False, causal=True, batch_first=True),
        ],
        _sequence(),
    ),
    "Parallel": (
        [
            rnncore.Parallel(rnncore.GRU(3, 4), rnncore.Identity(), rnncore.LSTM(3, 2)),
            rnncore.Parallel(
                rnncore.Linear(3, 4), rnncore.Linear(3, 4, seed=1), rnncore.RNN(3, 4), merge="mul"
            ),
            rnncore.Parallel(rnncore.Tanh(), rnncore.LayerNorm(3), merge="mean"),
        ],
        _sequence(),
    ),
    "Parser": ([rnncore.Parser(3, 4, "relu")], _leaves),
    "Permute": ([rnncore.Permute(2, 1)], _sequence()),
    "PReLU": ([rnncore.PReLU(3, 0.5), rnncore.PReLU()], _sequence()),
    "RNN": ([rnncore.RNN(3, 4, nonlinearity="relu", weight_drop=0.5)], _sequence()),
    "ReLU": ([rnncore.ReLU()], _sequence()),
    "Readout": (
        [
            rnncore.Readout(rnncore.GRU(3, 4), "mean"),
            rnncore.Readout(rnncore.Reversed(rnncore.GRU(3, 4))),
            rnncore.Readout(rnncore.Chain(rnncore.GRU(3, 4), rnncore.Linear(4, 2)), "last_step"),
        ],
        _sequence(),
    ),
    "Recurrent": (
        [
            rnncore.Recurrent(rnncore.cells.shelf.slstm, 3, 4, 2, bidirectional=True),
            rnncore.cells.shelf.nbrc(3, 4, learned_state=True, weight_drop=0.5),
        ],
        _sequence(),
    ),
    "RecursiveAutoencoder": (
        [rnncore.RecursiveAutoencoder(3, 2), rnncore.RecursiveAutoencoder(3, unfolding=True)],
        lambda module: module.encode(_x(5, 3), [3, 2])[0],
    ),
    "RecursiveNet": ([rnncore.RecursiveNet(3, 4, nonlinearity="softsign")], _forest),
    "RecursiveTensorNet": ([rnncore.RecursiveTensorNet(3, 4, nonlinearity="relu")], _forest),
    "RepeatVector": ([rnncore.RepeatVector(3)], _batch((4, 2))),
    "Reshape": ([rnncore.Reshape(-1), rnncore.Reshape(3, 2)], _sequence()),
    "Residual": (
        [
            rnncore.Residual(rnncore.Chain(rnncore.LSTM(3, 4), rnncore.Linear(4, 3))),
            rnncore.Residual(rnncore.Residual(rnncore.Sigmoid())),
        ],
        _sequence(),
    ),
    "ReturnState": (
        [rnncore.ReturnState(rnncore.Bidirectional(rnncore.GRU(3, 4), rnncore.LSTM(3, 4)))],
        _sequence(),
    ),
    "Reversed": ([rnncore.Reversed(rnncore.GRU(3, 4))], _sequence()),
    "RowConvolution": ([rnncore.RowConvolution(3, 1)], _sequence()),
    "Seq2Seq": (
        [_seq2seq()],
        lambda module: module(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 6]])),
    ),
    "Sigmoid": ([rnncore.Sigmoid()], _sequence()),
    "Softmax": ([rnncore.Softmax(axis=0)], _sequence()),
    "SpecAugment": (
        [rnncore.SpecAugment(2, 3, 1, 2, p=0.5, seed=3), rnncore.SpecAugment(0, 1, 1, 1)],
        _sequence(),
    ),
    "Tanh": ([rnncore.Tanh()], _sequence()),
    "TimeDistributed": (
        [rnncore.TimeDistributed(rnncore.Readout(rnncore.GRU(3, 4, batch_first=True)))],
        _batch((2, 4, 5, 3)),
    ),
    "Transducer": ([_transducer()], _transduced),
    "TransducerJoint": (
        [rnncore.TransducerJoint(3, 4, bias=False, seed=1)],
        lambda module: module(_x(4, 2, 3), _x(3, 2, 3)).logits(),
    ),
    "TreeGRU": ([rnncore.TreeGRU(3, 4, variational_dropout=0.5)], _forest),
    "TiedLinear": ([_tied_linear()], _ids),
    "TreeLSTM": (
        [rnncore.TreeLSTM(3, 4, 3, bias=False), rnncore.TreeLSTM(3, 4, layer_norm="gate")],
        _forest,
    ),
    "Windowed": (
        [
            rnncore.Windowed(rnncore.GRU(3, 4), None, past=1),
            rnncore.Windowed(rnncore.GRU(3, 4), rnncore.RNN(3, 4), None, 1 << 40, merge="mul"),
        ],
        _sequence(),
    ),
    "ZeroPad": ([rnncore.ZeroPad((1, 2), (0, 1))], _sequence()),
}


def _draw() -> None:
    """Draw the weights that no seed says, so that tests see the same ones every time."""
    rng = np.random.default_rng(0)
    for models, _ in MODELS.values():
        for array in (a for model in models for a in model.params.values()):
            if array.size and array.min() < array.max():
                bound = array.shape[-1] ** -0.5
                array[...] = rng.uniform(-bound, bound, array.shape)


_draw()
