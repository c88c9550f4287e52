"""Modules to wrap for PyTorch, what they are called with, and what their own pullbacks give."""

import numpy as np
import pytest
import rnncore
from rnncore import losses

from tests.support import seq2seq_models
from tests.support.models import MODELS

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

F64 = {"dtype": "float64", "seed": 0}
FOREST = rnncore.Forest.from_nested([((1, 2), 3), (4, 5)])


def random(*shape, dtype=torch.float64, grad=True):
    x = np.random.default_rng(len(shape)).standard_normal(shape)
    return torch.tensor(x, dtype=dtype, requires_grad=grad)


def tensors(nest):
    """The tensors in nested tuples."""
    if isinstance(nest, (tuple, list)):
        return [tensor for part in nest for tensor in tensors(part)]
    return [nest] if isinstance(nest, torch.Tensor) else []


X, IDS, LENGTHS = random(4, 2, 3), torch.tensor([[0, 2], [1, 1], [2, 0]]), torch.tensor([4, 2])
H = random(1, 2, 4)
#: Modules, and what they are called with.
CASES = {
    "attention": (rnncore.LuongAttention(3, 5, window=2, **F64), X, random(5, 2, 5)),
    "attention, concat": (rnncore.BahdanauAttention(3, 5, size=4, **F64), X, random(5, 2, 5)),
    "autoencoder": (rnncore.RecursiveAutoencoder(3, 2, **F64), random(5, 3), torch.tensor([3, 2])),
    "bidirectional": (
        rnncore.Bidirectional(rnncore.GRU(3, 4, **F64), rnncore.MGU(3, 4, **F64), "mul"),
        X,
    ),
    "both ways in trees": (
        rnncore.BidirectionalTree(
            rnncore.TreeGRU(3, 4, **F64), rnncore.TreeLSTM(7, 4, 1, **F64), "both"
        ),
        random(8, 3),
        FOREST,
    ),
    "bridge": (rnncore.LinearBridge(3, 4, **F64), [(random(2, 3), random(2, 3))]),
    "cell": (rnncore.LSTMCell(3, 4, **F64), random(2, 3), (random(2, 4), random(2, 4))),
    "cell with one state": (rnncore.GRUCell(3, 4, **F64), random(2, 3), random(2, 4)),
    "chain": (
        rnncore.Chain(
            rnncore.LayerNorm(3, dtype="float64"), rnncore.Linear(3, 4, **F64), rnncore.Softmax(0)
        ),
        X,
    ),
    "child sum": (rnncore.ChildSumTreeLSTM(3, 4, **F64), random(8, 3), FOREST),
    "context": (rnncore.ContextBridge(3, 2, 4, 2, **F64), [(random(2, 3), None)]),
    "convolution": (
        rnncore.Chain(
            rnncore.Conv1d(3, 4, 3, padding="same", **F64),
            rnncore.BatchNorm(4, dtype="float64"),
            rnncore.GLU(),
            rnncore.MaxPool1d(2),
            rnncore.ConvTranspose1d(2, 3, 2, **F64),
        ),
        X,
    ),
    "convolution, ragged": (
        rnncore.Chain(rnncore.Conv1d(3, 4, 2, **F64), rnncore.GRU(4, 3, **F64)),
        X,
        None,
    ),
    "decoder": (
        rnncore.Decoder(
            None,
            rnncore.LSTM(8, 4, **F64),
            rnncore.LuongAttention(4, 6, **F64),
            rnncore.Linear(4, 2, **F64),
            input_feeding=True,
        ),
        random(3, 2, 4),
        random(4, 2, 6),
        (H, random(1, 2, 4)),
        LENGTHS,
    ),
    "deep": (
        rnncore.DeepRNN(
            3, 4, cell="lstm", num_layers=2, input_depth=2, residual=True, skip=True, **F64
        ),
        X,
    ),
    "embedding": (rnncore.Embedding(3, 2, **F64), IDS),
    "latency": (
        rnncore.LatencyControlled([(rnncore.GRU(3, 4, **F64), rnncore.RNN(3, 4, **F64))], 2, 1),
        X,
    ),
    "layer-normalised": (rnncore.LSTM(3, 4, layer_norm=True, **F64), X, (H, None)),
    "loss": (losses.BinaryCrossEntropy(), X, torch.full((4, 2, 3), 0.25, dtype=torch.float64)),
    "loss of classes": (losses.SoftmaxCrossEntropy(0.1), random(3, 2, 5), IDS, IDS > 0),
    "heads": (rnncore.MultiheadAttention(3, 3, causal=True, **F64), X),
    "parser": (rnncore.Parser(3, 4, **F64), random(5, 3), FOREST),
    "peephole": (rnncore.LSTM(3, 4, peephole=True, bidirectional=True, **F64), X),
    "projected": (rnncore.LSTM(3, 4, 2, proj_size=2, batch_first=True, **F64), X),
    "readout": (rnncore.Readout(rnncore.GRU(3, 4, **F64), "mean"), X, None),
    "recurrent chain": (
        rnncore.Chain(rnncore.GRU(3, 4, **F64), rnncore.Tanh(), rnncore.LSTM(4, 4, **F64)),
        X,
        (H, None),
    ),
    "reversed": (rnncore.Reversed(rnncore.IndRNN(3, 4, **F64)), X),
    "row convolution": (rnncore.RowConvolution(3, 1, **F64), X),
    "sequence to sequence": (seq2seq_models.luong("float64", "general"), IDS[:, :2], IDS),
    "tensors": (rnncore.RecursiveTensorNet(3, 4, inputs="leaves", **F64), random(5, 3), FOREST),
    "tied": (
        (lambda e: rnncore.Chain(e, rnncore.TiedLinear(e)))(rnncore.Embedding(3, 2, **F64)),
        IDS,
    ),
    "transitions": (rnncore.LSTM(3, 4, transition_depth=2, shortcut=True, **F64), X),
    "tree": (rnncore.TreeLSTM(3, 4, leaf_module=True, **F64), random(8, 3), FOREST),
    "windows": (rnncore.Windowed(rnncore.GRU(3, 4, **F64), None, past=1), X),
}


class Called(Exception):
    """Carries the arguments of a call."""


class Spy:
    """In the place of a module: raises what it is called with."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, name)

    def __call__(self, *args):
        raise Called(args)


#: Classes whose output is no tensor.
REFUSED = {"Transducer", "TransducerJoint"}


def _called():
    """Every class of the library with a model of it, and what it is called with."""
    for name, (models, call) in MODELS.items():
        if name in REFUSED:
            continue
        for n, model in enumerate(models):
            try:
                call(Spy(model))
            except Called as found:
                yield pytest.param(model, found.args[0], id=f"{name} {n}")


#: All that `MODELS` calls.
CALLED = list(_called())


def as_tensors(nest):
    if isinstance(nest, (tuple, list)):
        return type(nest)(as_tensors(part) for part in nest)
    if not isinstance(nest, np.ndarray):
        return nest
    return torch.tensor(nest, requires_grad=nest.dtype.kind == "f")


def pulled(module, pullback, dys):
    """Call a pullback with the gradients of all outputs, as its class wants them."""
    kind = type(module).__name__
    if kind.endswith(("Cell", "Bridge")):
        return pullback(dys)
    if kind == "Decoder":
        return pullback(dys[0])
    return pullback(*dys) if isinstance(dys, tuple) else pullback(dys)


def same(got, expected):
    """The same arrays to the bit."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        a = a.detach().numpy()
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
