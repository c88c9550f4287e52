"""rnncore: recurrent neural networks for NumPy arrays on a CPU.

import numpy as np, rnncore

lstm = rnncore.LSTM(input_size=8, hidden_size=32)
y, (h, c) = lstm(np.zeros((20, 4, 8), np.float32))          # inference
(y, state), pullback = lstm.vjp(np.zeros((20, 4, 8), np.float32))
dx, dstate = pullback(np.ones_like(y))                      # adds to lstm.grads
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import init, losses, optim, schedules
from ._core import info
from .activations import Elementwise, Identity, ReLU, Sigmoid, Softmax, Tanh
from .bidirectional import Bidirectional, Reversed
from .chain import Chain
from .layers import Dropout, Embedding, LayerNorm, Linear
from .losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy, length_mask
from .module import Module, load
from .optim import SGD, Adagrad, Adam, AdamW, RMSprop, clip_grad_norm
from .recurrent import (
    GRU,
    LSTM,
    MGU,
    RNN,
    GRUCell,
    IndRNN,
    IndRNNCell,
    LSTMCell,
    MGUCell,
    MinGRU,
    MinLSTM,
    RNNCell,
)
from .threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from . import convert, search
    from .attention import Attention, BahdanauAttention, LuongAttention
    from .autoencoder import RecursiveAutoencoder
    from .bidirectional_tree import BidirectionalTree
    from .bridge import ContextBridge, FinalBridge, LinearBridge
    from .decoder import Decoder, DecoderState
    from .deep import DeepRNN
    from .forest import Forest
    from .latency import LatencyControlled
    from .lookahead import RowConvolution, Windowed
    from .parsing import Bracketing, Parsed, Parser, bracketing
    from .readout import Readout
    from .recursive import ChildSumTreeLSTM, RecursiveNet, RecursiveTensorNet, TreeGRU, TreeLSTM
    from .seq2seq import Seq2Seq, shifted
    from .stream import Stream
    from .tied import TiedLinear
    from .vocabulary import Vocabulary

#: Rooms that are entered when something in them is first asked for: few programs need them all.
_LATER = {
    "attention": ["Attention", "BahdanauAttention", "LuongAttention"],
    "autoencoder": ["RecursiveAutoencoder"],
    "bidirectional_tree": ["BidirectionalTree"],
    "bridge": ["ContextBridge", "FinalBridge", "LinearBridge"],
    "convert": [],
    "decoder": ["Decoder", "DecoderState"],
    "deep": ["DeepRNN"],
    "forest": ["Forest"],
    "latency": ["LatencyControlled"],
    "lookahead": ["RowConvolution", "Windowed"],
    "parsing": ["Bracketing", "Parsed", "Parser", "bracketing"],
    "readout": ["Readout"],
    "recursive": [
        "ChildSumTreeLSTM",
        "RecursiveNet",
        "RecursiveTensorNet",
        "TreeGRU",
        "TreeLSTM",
    ],
    "search": [],
    "seq2seq": ["Seq2Seq", "shifted"],
    "stream": ["Stream"],
    "tied": ["TiedLinear"],
    "vocabulary": ["Vocabulary"],
}
_ROOM_OF = {name: room for room, names in _LATER.items() for name in names}

__version__: str = info()["version"]


def __getattr__(name: str) -> Any:
    """Enter a room of `_LATER`."""
    if name in _LATER:
        return import_module(f".{name}", __name__)
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_ROOM_OF[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    """Everything, entered or not."""
    return sorted({*globals(), *__all__})


__all__ = [
    "GRU",
    "LSTM",
    "MGU",
    "RNN",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Attention",
    "BahdanauAttention",
    "Bidirectional",
    "BidirectionalTree",
    "BinaryCrossEntropy",
    "Bracketing",
    "Chain",
    "ChildSumTreeLSTM",
    "ContextBridge",
    "Decoder",
    "DecoderState",
    "DeepRNN",
    "Dropout",
    "Elementwise",
    "Embedding",
    "FinalBridge",
    "Forest",
    "GRUCell",
    "Identity",
    "IndRNN",
    "IndRNNCell",
    "LSTMCell",
    "LatencyControlled",
    "LayerNorm",
    "Linear",
    "LinearBridge",
    "LuongAttention",
    "MGUCell",
    "MeanSquaredError",
    "MinGRU",
    "MinLSTM",
    "Module",
    "Parsed",
    "Parser",
    "RMSprop",
    "RNNCell",
    "ReLU",
    "Readout",
    "RecursiveAutoencoder",
    "RecursiveNet",
    "RecursiveTensorNet",
    "Reversed",
    "RowConvolution",
    "Seq2Seq",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Stream",
    "Tanh",
    "TiedLinear",
    "TreeGRU",
    "TreeLSTM",
    "Vocabulary",
    "Windowed",
    "bracketing",
    "clip_grad_norm",
    "convert",
    "get_num_threads",
    "info",
    "init",
    "length_mask",
    "load",
    "losses",
    "optim",
    "schedules",
    "search",
    "set_num_threads",
    "shifted",
]
