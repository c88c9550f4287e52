"""A recurrent layer read otherwise: its last output alone, or from the end of the sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Array, as_shape
from .bidirectional import Bidirectional, merged
from .module import Module, once
from .sequences import Composition, Part, Run, Tree, add, reverse
from .stack import Layers


class Final(Module):
    """The last output of a recurrent layer: `(T, B, I)` to `(B, D * H)`.

    That is the output after each sequence's own last step, both directions' side by side, or merged
    as a `Bidirectional` merges them. layer: `RNN` and its relatives, `Bidirectional`, `Reversed`.
    The state is the layer's.
    """

    recurrent = True

    def __init__(self, layer: Module) -> None:
        super().__init__()
        check_ends(layer)
        self.layer = layer

    def __call__(
        self, x: npt.ArrayLike, state: Tree = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Tree]:
        """Return the last output and the final state; arguments as the layer's."""
        _, after = self.layer(x, state, lengths=lengths)
        return ending(self.layer, after)[0], after

    def vjp(
        self, x: npt.ArrayLike, state: Tree = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[tuple[Array, Tree], Callable[..., tuple[Any, Tree]]]:
        """As a call, with the way back: `pullback(dy, dstate=None) -> (dx, dstate)`."""
        (_, after), back = self.layer.vjp(x, state, lengths=lengths)
        y, unend = ending(self.layer, after)

        def pullback(dy: npt.ArrayLike | None = None, dstate: Tree = None) -> tuple[Any, Tree]:
            own = None if dy is None else unend(as_shape("dy", dy, y.dtype, y.shape))
            result: tuple[Any, Tree] = back(None, add(own, dstate))
            return result

        return (y, after), once(pullback)


class Reversed(Composition):
    """A layer that reads each sequence from its end; outputs stand beside the frames they read."""

    looks_ahead = True

    def __init__(self, layer: Module) -> None:
        super().__init__({"layer": layer})
        self.layer = layer
        self.part = Part(layer, self.batch_first)

    def _run(self, x: Array, state: Tree, lengths: Array | None, record: bool) -> Run:
        run = self.part.run(reverse(x, lengths), state, lengths, record)

        def pullback(dy: Array, dstate: Tree) -> tuple[Any, Tree]:
            dx, dfirst = run.pullback(reverse(dy, lengths), dstate)
            return None if dx is None else reverse(dx, lengths), dfirst

        return Run(reverse(run.y, lengths), run.state, pullback)


def check_ends(layer: Module) -> None:
    """Refuse a layer whose last output cannot be told from its state."""
    if isinstance(layer, Bidirectional):
        check_ends(layer.forward)
        check_ends(layer.backward)
    elif isinstance(layer, Reversed):
        check_ends(layer.layer)
    elif not isinstance(layer, Layers):
        raise TypeError(
            "layer must be a recurrent layer, Bidirectional or Reversed, "
            f"got {type(layer).__name__}"
        )


def ending(layer: Any, state: Tree) -> tuple[Array, Callable[[Array], Tree]]:
    """Return the last output in a final state, and the way back from its gradient."""
    if isinstance(layer, Reversed):
        return ending(layer.layer, state)
    if isinstance(layer, Bidirectional):
        (ahead, ahead_back), (behind, behind_back) = (
            ending(part, own)
            for part, own in zip((layer.forward, layer.backward), state, strict=True)
        )
        y, unmerge = merged(layer.merge, ahead, behind)

        def unend_both(dy: Array) -> Tree:
            d_ahead, d_behind = unmerge(dy)
            return ahead_back(d_ahead), behind_back(d_behind)

        return y, unend_both
    h = state[0] if layer.has_cell_state else state
    count = layer.directions

    def unend(dy: Array) -> Tree:
        dh = np.zeros_like(h)
        dh[-count:] = np.split(dy, count, axis=-1)
        return (dh, None) if layer.has_cell_state else dh

    return np.concatenate(list(h[-count:]), axis=-1), unend
