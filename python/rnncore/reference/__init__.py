"""The recurrent layers in plain NumPy, forward and backward, written to be read.

This is the oracle of the tests and the baseline of the benchmarks: loops over time as a textbook
would write them, nothing fast. `vanilla`, `lstm`, `gru` and `minimal` hold one time step of each
cell, `transition` makes any of them deep, `sequence` is the walk over time, layers and directions.

    y, state, tape = forward(CELLS["lstm"], params, x)
    dx, dstate, grads = backward(tape, dy)
"""

from .activations import ACTIVATIONS, IDENTITY, RELU, SIGMOID, TANH, Activation, activation, clipped
from .attention import decode
from .cells import Cell
from .gru import MGU, GRUResetAfter, GRUResetBefore
from .lstm import LSTM, NormalisedLSTM
from .minimal import MinGRU, MinLSTM
from .sequence import Tape, backward, forward
from .transition import DeepTransition
from .vanilla import IndRNN, Vanilla

CELLS: dict[str, Cell] = {
    "rnn_tanh": Vanilla(TANH),
    "rnn_relu": Vanilla(RELU),
    "lstm": LSTM(),
    "gru": GRUResetAfter(),
    "gru_reset_before": GRUResetBefore(),
    "mgu": MGU(),
    "indrnn": IndRNN(),
    "min_gru": MinGRU(),
    "min_lstm": MinLSTM(),
}

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "IDENTITY",
    "LSTM",
    "MGU",
    "RELU",
    "SIGMOID",
    "TANH",
    "Activation",
    "Cell",
    "DeepTransition",
    "GRUResetAfter",
    "GRUResetBefore",
    "IndRNN",
    "MinGRU",
    "MinLSTM",
    "NormalisedLSTM",
    "Tape",
    "Vanilla",
    "activation",
    "backward",
    "clipped",
    "decode",
    "forward",
]
