"""What nodes compute, a function each: inputs first, attributes by keyword.

An optional input that is left out is None. Where an attribute became an input in a later version of
an operator, both are taken. Graphs within nodes are in `control.py`, recurrences in `recurrent.py`.

elementwise.py    number by number: arithmetic, comparisons, activations
shapes.py         shapes, parts, pads (padding.py), arrays made of nothing
indexing.py       gathers, scatters, orders
reductions.py     sums and other numbers of whole axes
normalisation.py  softmax, and what makes means zero and variances one
products.py       products of matrices
convolution.py    convolutions; pooling.py; their windows are windows.py's
resizing.py       sizes in space changed
sequences.py      lists of arrays
quantised.py      whole numbers with scales
"""

from . import (
    convolution,
    elementwise,
    indexing,
    normalisation,
    pooling,
    products,
    quantised,
    reductions,
    resizing,
    sequences,
    shapes,
)
from .arguments import Operator

OPERATORS: dict[str, Operator] = {
    **convolution.OPERATORS,
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **normalisation.OPERATORS,
    **pooling.OPERATORS,
    **products.OPERATORS,
    **quantised.OPERATORS,
    **reductions.OPERATORS,
    **resizing.OPERATORS,
    **sequences.OPERATORS,
    **shapes.OPERATORS,
}

#: Operators with several outputs, and how many we have of each.
OUTPUTS = {"Dropout": 2, "DynamicQuantizeLinear": 3, "Split": 1 << 30, "TopK": 2}

#: Which operators those were that have these names in versions before the one given.
EARLIER = {**normalisation.EARLIER, **resizing.EARLIER}
