"""rnncore inside PyTorch: its layers, cells, and torch's own layers replaced in place."""

from typing import TYPE_CHECKING

from ..hinting import missing
from ..hints import TORCH
from .cells import GRUCell as GRUCell
from .cells import LSTMCell as LSTMCell
from .cells import RNNCell as RNNCell
from .layers import GRU as GRU
from .layers import LSTM as LSTM
from .layers import RNN as RNN
from .replacing import replace as replace
from .replacing import restore as restore
from .replacing import survey as survey
from .threads import share_threads
from .wrapping import wrap as wrap

share_threads()

if not TYPE_CHECKING:
    __getattr__ = missing(__name__, TORCH)
