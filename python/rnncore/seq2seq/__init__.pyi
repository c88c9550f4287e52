from . import search as search
from .model import Seq2Seq as Seq2Seq
from .model import shifted as shifted
