"""A graph compiled for inputs of known shapes: what does not depend on their numbers is done once.

tracing.py    a run that notes what depends on numbers, and what on shapes alone
fusing.py     nodes that are one step: a convolution and what follows it
batching.py   products with one matrix that are one
steps.py      arrays that stay where they are, and the steps between them
lowering.py   nodes as steps of the compiled core: parts of arrays, arithmetic
layers.py     convolutions, pools, products and recurrences
plan.py       all of it: what runs for one set of shapes
"""

from .plan import Plan, Plans

__all__ = ["Plan", "Plans"]
