"""The recurrent layers in plain NumPy, forward and backward, written to be read.

This is the oracle of the tests and the baseline of the benchmarks: loops over time as a textbook
would write them, nothing fast. `cells` holds one instant of each cell, `sequence` the walk over
time, layers and directions.

    y, state, tape = forward(CELLS["lstm"], params, x)
    dx, dstate, grads = backward(tape, dy)
"""

from .cells import (
    CELLS,
    IDENTITY,
    LSTM,
    RELU,
    SIGMOID,
    TANH,
    Activation,
    Cell,
    GRUResetAfter,
    GRUResetBefore,
    Vanilla,
)
from .sequence import Tape, backward, forward

__all__ = [
    "CELLS",
    "IDENTITY",
    "LSTM",
    "RELU",
    "SIGMOID",
    "TANH",
    "Activation",
    "Cell",
    "GRUResetAfter",
    "GRUResetBefore",
    "Tape",
    "Vanilla",
    "backward",
    "forward",
]
