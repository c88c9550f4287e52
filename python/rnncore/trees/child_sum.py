"""Trees whose nodes are cells that users wrote."""

from __future__ import annotations

import numpy.typing as npt

from ..arrays import Array, check_kind
from ..cells.definition import CellDefinition
from ..cells.layer import OwnCell, joined
from ..recurrent.base import Seed
from .recursive import Recursive


class ChildSumTree(Recursive):
    """A cell that `rnncore.cells.define` made, at the nodes of trees: `states = layer(x, forest)`.

    A node has any number of children, whose order does not count. The old states that its step
    sees, and that the recurrent weights multiply, are the sums over its children of their states,
    zero at a leaf. With one child at each node these are the states of `rnncore.Recurrent`, to the
    bit.

    x `(N, I)`: a row for each node, with what the cell has of `inputs` and `vectors` in the columns
    behind (`join`); or with inputs="leaves" `(leaves, I)`. Returns h `(N, H)`, or a tuple of the
    states in their order, h first, of all nodes in the forest's order; the pullback takes their
    gradients and returns dx. Parameters: those of a layer of `Recurrent`, without a suffix:
    `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`, `weight_ch`. variational_dropout: as of
    `Recursive`.
    """

    _no_parts = Recursive._no_parts | {"definition"}

    def __init__(
        self,
        cell: CellDefinition,
        input_size: int,
        hidden_size: int,
        *,
        inputs: str = "all",
        bias: bool = True,
        variational_dropout: float = 0.0,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.definition = check_kind("cell", cell, CellDefinition)
        beside = (*cell.inputs, *cell.vectors)
        if beside and inputs == "leaves":
            raise ValueError(f"inputs must be 'all' for a cell that reads {beside[0]} at each node")
        super().__init__(
            OwnCell.of_trees(cell),
            input_size,
            hidden_size,
            inputs=inputs,
            bias=bias,
            dtype=dtype,
            seed=seed,
            variational_dropout=variational_dropout,
        )

    def _shapes(self, bias: bool, leaves_only: bool) -> dict[str, tuple[int, ...]]:
        return self.cell.shapes("", self.input_size, self.hidden_size, bias)

    @property
    def columns(self) -> int:
        """How wide x is: features, inputs, vectors."""
        return self.definition.columns(self.input_size, self.hidden_size)

    @property
    def state_names(self) -> tuple[str, ...]:
        """What the states of a node are called."""
        return self.definition.states

    def join(self, x: npt.ArrayLike, **beside: npt.ArrayLike) -> Array:
        """Return x `(N, input_size)` with the cell's inputs and vectors in the columns behind.

        Each is given by its name: inputs `(N,)`, vectors `(N, H)`; all of them, in the layer's
        dtype.
        """
        return joined(self.definition, (self.input_size, self.hidden_size), self.dtype, x, beside)
