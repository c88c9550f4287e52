"""ONNX: files read into models that run, our models written; the package `onnx` does the format.

files.py       a file opened, and what it holds in NumPy's terms
external.py    numbers that lie in a file beside it
reader.py      a graph: its inputs, outputs and nodes, run one after the other
operators.py   what a node computes, in NumPy
sizes.py       how much that will be, before
recurrent.py   RNN, LSTM and GRU nodes on our layers, products on our kernels
quantised.py   what quantised models are made of, in NumPy and on our kernels for int8
fusing.py      groups of nodes that are one quantised product or table
weights.py     gates, activations and options, there and back
writer.py      modules as graphs
"""

from .reader import OnnxModel, from_onnx
from .writer import to_onnx

__all__ = ["OnnxModel", "from_onnx", "to_onnx"]
