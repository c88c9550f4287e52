"""Cells whose time step is written in Python: definitions, layers, checks, and cells of papers."""

from . import shelf as shelf
from .definition import CellDefinition as CellDefinition
from .definition import Gate as Gate
from .definition import define as define
from .evaluate import Reference as Reference
from .evaluate import check as check
from .grud import GRUD as GRUD
from .grud import InputDecay as InputDecay
from .grud import since_observed as since_observed
from .layer import Recurrent as Recurrent
from .symbols import absolute as absolute
from .symbols import activation as activation
from .symbols import cos as cos
from .symbols import exp as exp
from .symbols import log as log
from .symbols import maximum as maximum
from .symbols import minimum as minimum
from .symbols import relu as relu
from .symbols import sigmoid as sigmoid
from .symbols import sin as sin
from .symbols import softplus as softplus
from .symbols import sqrt as sqrt
from .symbols import tanh as tanh
from .symbols import where as where
