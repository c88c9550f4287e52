"""Cells of papers, each written as one of one's own."""

from .antisymmetric import antisymmetric as antisymmetric
from .antisymmetric import gated_antisymmetric as gated_antisymmetric
from .antisymmetric import make_antisymmetric as make_antisymmetric
from .bistable import brc as brc
from .bistable import nbrc as nbrc
from .gru_d import gru_d as gru_d
from .li_gru import li_gru as li_gru
from .liquid import cfc as cfc
from .liquid import ltc as ltc
from .lru import lru as lru
from .oscillators import cornn as cornn
from .phased_lstm import phased_lstm as phased_lstm
from .qrnn import qrnn as qrnn
from .slstm import slstm as slstm
from .slstm import slstm_sigmoid as slstm_sigmoid
from .sru import sru as sru
from .ugrnn import ugrnn as ugrnn
