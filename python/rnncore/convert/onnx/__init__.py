"""ONNX: files read into models that run, our models written; the package `onnx` does the format.

files.py       a file opened, and what it holds in NumPy's terms
external.py    numbers that lie in a file beside it
part.py        a part of a graph cut out
reader.py      a graph as a model that runs
building.py    its nodes made ready; scopes.py: the names that they can read
nodes.py       nodes that run, one after the other
control.py     If, Loop, Scan; nested.py: the graphs within them
operators/     what nodes compute, in NumPy
sizes.py       how much that will be, before
recurrent.py   RNN, LSTM and GRU nodes on our layers, products on our kernels
quantised.py   products and recurrences in 8 bits, on our kernels for int8
fusing.py      groups of nodes that are one quantised product or table
weights.py     gates, activations and options, there and back
writer.py      modules as graphs
"""

from .reader import OnnxModel, from_onnx
from .writer import to_onnx

__all__ = ["OnnxModel", "from_onnx", "to_onnx"]
