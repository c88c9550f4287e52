"""rnncore: recurrent neural networks for NumPy arrays on a CPU.

import numpy as np, rnncore

lstm = rnncore.LSTM(input_size=8, hidden_size=32)
y, (h, c) = lstm(np.zeros((20, 4, 8), np.float32))          # inference
(y, state), pullback = lstm.vjp(np.zeros((20, 4, 8), np.float32))
dx, dstate = pullback(np.ones_like(y))                      # adds to lstm.grads
"""

from . import init, losses, optim, schedules, search
from ._core import info
from .attention import Attention, BahdanauAttention, LuongAttention
from .bidirectional import Bidirectional
from .bridge import ContextBridge, FinalBridge, LinearBridge
from .chain import Chain
from .decoder import Decoder, DecoderState
from .deep import DeepRNN
from .forest import Forest
from .latency import LatencyControlled, Stream
from .layers import (
    Dropout,
    Embedding,
    Identity,
    LayerNorm,
    Linear,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from .lookahead import RowConvolution, Windowed
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
from .recursive import RecursiveNet, TreeLSTM
from .seq2seq import Seq2Seq, shifted
from .threads import get_num_threads, set_num_threads
from .tied import TiedLinear
from .vocabulary import Vocabulary

__version__: str = info()["version"]

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
    "BinaryCrossEntropy",
    "Chain",
    "ContextBridge",
    "Decoder",
    "DecoderState",
    "DeepRNN",
    "Dropout",
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
    "RMSprop",
    "RNNCell",
    "ReLU",
    "RecursiveNet",
    "RowConvolution",
    "Seq2Seq",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Stream",
    "Tanh",
    "TiedLinear",
    "TreeLSTM",
    "Vocabulary",
    "Windowed",
    "clip_grad_norm",
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
