"""Two layers over the same trees, one from the leaves up and one from the roots down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_shape
from ..module import Module, once
from .forest import Forest
from .recursive import Recursive

READS = ("inputs", "states", "both")


class BidirectionalTree(Module):
    """A layer up the trees and one down them: `h = layer(x, forest)`.

        up_n   = up(x_n, up of n's children)
        down_n = down(r_n, down of n's parent)
        h_n    = [up_n; down_n]

    What the way down reads, r, is x_n (reads="inputs"; Miwa and Bansal 2016), up_n ("states"; Irsoy
    and Cardie 2013) or [x_n; up_n] ("both"). With "states" or "both" every node's h has seen the
    whole tree. up: a recursive layer of any arity; down: one of arity 1.

    x has a row for each node, or each leaf if up has inputs="leaves"; there r of other nodes holds
    zeros for x. `down` then needs inputs="leaves", too, to read inputs alone, and inputs="all" to
    read states. Returns h `(N, H_up + H_down)`, of all nodes in the forest's order.
    """

    def __init__(self, up: Recursive, down: Recursive, reads: str = "states") -> None:
        super().__init__()
        if reads not in READS:
            raise ValueError(f"reads must be one of {', '.join(READS)}, got {reads!r}")
        for name, layer in (("up", up), ("down", down)):
            if not isinstance(layer, Recursive):
                raise TypeError(f"{name} must be a recursive layer, got {type(layer).__name__}")
        self.up, self.down, self.reads = up, down, reads
        self.dtype = up.dtype
        self._check()

    def _check(self) -> None:
        up, down = self.up, self.down
        if up.dtype != down.dtype:
            raise ValueError(f"up computes in {up.dtype}, but down in {down.dtype}")
        if down.cell.arity != 1:
            raise ValueError(
                f"down must have an arity of 1, as a node has one parent; got {down.cell.arity}"
            )
        width = {"inputs": up.input_size, "states": up.hidden_size}
        wanted = width.get(self.reads, up.input_size + up.hidden_size)
        if down.input_size != wanted:
            raise ValueError(
                f"down must have an input_size of {wanted} to read {self.reads!r}, "
                f"got {down.input_size}"
            )
        rows = up.inputs if self.reads == "inputs" else "all"
        if down.inputs != rows:
            raise ValueError(
                f"down must have inputs={rows!r} to read {self.reads!r} beside an up with "
                f"inputs={up.inputs!r}, got {down.inputs!r}"
            )

    def __call__(self, x: npt.ArrayLike, forest: Forest) -> Array:
        """Return h of all nodes; nothing is recorded."""
        x, forest = self._inputs(x, forest)
        up = _hidden(self.up(x, forest))
        down = _hidden(self.down(self._read(x, up, forest), forest.top_down()))
        return np.concatenate([up, down], axis=1)

    def vjp(self, x: npt.ArrayLike, forest: Forest) -> tuple[Array, Callable[..., Array]]:
        """Return h and the pullback from dh to dx."""
        x, forest = self._inputs(x, forest)
        states, up_back = self.up.vjp(x, forest)
        up = _hidden(states)
        states, down_back = self.down.vjp(self._read(x, up, forest), forest.top_down())
        h = np.concatenate([up, _hidden(states)], axis=1)

        def pullback(dh: npt.ArrayLike) -> Array:
            dh = as_shape("dh", dh, self.dtype, h.shape)
            size = self.up.hidden_size
            read = down_back(dh[:, size:])
            if self.reads == "inputs":
                return np.asarray(up_back(dh[:, :size]) + read)
            dx = up_back(dh[:, :size] + read[:, -size:])
            if self.reads == "both":
                direct = read[:, :-size]
                dx = dx + (direct[forest.leaves] if self.up.inputs == "leaves" else direct)
            return np.asarray(dx)

        return h, once(pullback)

    def _inputs(self, x: npt.ArrayLike, forest: Forest) -> tuple[Array, Forest]:
        if not isinstance(forest, Forest):
            raise TypeError(f"forest must be a Forest, got {type(forest).__name__}")
        return as_array("x", x, self.dtype), forest

    def _read(self, x: Array, up: Array, forest: Forest) -> Array:
        """What the way down reads."""
        if self.reads != "both":
            return x if self.reads == "inputs" else up
        if self.up.inputs == "leaves":
            leaves, x = x, np.zeros((forest.nodes, x.shape[1]), x.dtype)
            x[forest.leaves] = leaves
        return np.concatenate([x, up], axis=1)


def _hidden(states: Any) -> Array:
    """The h of h or (h, c)."""
    return np.asarray(states[0] if isinstance(states, tuple) else states)
