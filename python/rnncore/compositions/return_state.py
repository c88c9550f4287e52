"""States as inputs and outputs like any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array
from ..module import Module, Pullback, once
from ..recurrent.stack import Stacked
from ..states import State
from .bidirectional import Bidirectional, Reversed
from .composition import agreed, run
from .readout import Readout


class ReturnState(Module):
    """A recurrent layer whose states are arrays among others: `y, h, c = m(x, h0, c0)`.

    layer: `RNN` or a relative; `Readout`, `Reversed`, `Bidirectional` of such. States are `(B, H)`:
    h and c of an LSTM, h of the others; of two directions the forward one's come first. Without
    first states the layer starts from its own. The pullback takes the gradients of all outputs, of
    which each may be None, and returns that of x, or a tuple of it and those of the first states
    where these were given.
    """

    takes_lengths = True

    def __init__(self, layer: Module) -> None:
        super().__init__()
        self.layer, self.count = layer, _count(layer)
        self.batch_first = bool(agreed("batch_first", {"layer": layer}))
        self.dtype = agreed("dtype", {"layer": layer})
        self.takes_indices, self.keeps_steps = layer.takes_indices, layer.keeps_steps

    def __call__(
        self, x: npt.ArrayLike, *states: npt.ArrayLike, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, ...]:
        """Return y and the final states."""
        found: tuple[Array, ...] = self._run(x, states, lengths, False)[0]
        return found

    def vjp(
        self, x: npt.ArrayLike, *states: npt.ArrayLike, lengths: npt.ArrayLike | None = None
    ) -> tuple[tuple[Array, ...], Pullback]:
        """Return y and the final states, and the pullback."""
        found, back = self._run(x, states, lengths, True)
        return found, once(back)

    def _run(self, x: Any, states: Sequence[Any], lengths: Any, record: bool) -> tuple[Any, Any]:
        if len(states) not in (0, self.count):
            raise ValueError(f"there must be {self.count} first states, or none: got {len(states)}")
        before = _nested(self.layer, iter(states)) if states else None
        (y, after), back = run(self.layer, record, x, before, lengths=lengths)

        def pullback(dy: npt.ArrayLike | None = None, *dstates: npt.ArrayLike | None) -> Any:
            if len(dstates) not in (0, self.count):
                raise ValueError(f"there must be {self.count} dstates, or none: got {len(dstates)}")
            dstate = _nested(self.layer, iter(dstates)) if dstates else None
            dx, dfirst = back(dy, dstate)
            return (dx, *_rows(self.layer, dfirst)) if states else dx

        return (y, *_rows(self.layer, after)), pullback


def _count(layer: Any) -> int:
    """How many arrays the states are."""
    if isinstance(layer, (Readout, Reversed)):
        return _count(layer.layer)
    if isinstance(layer, Bidirectional):
        return _count(layer.forward) + _count(layer.backward)
    if not isinstance(layer, Stacked):
        raise TypeError(f"layer must have states (B, H), got {type(layer).__name__}")
    return layer.num_layers * layer.directions * layer.state_count


def _rows(layer: Any, state: State) -> list[Array]:
    """The arrays of a state."""
    if isinstance(layer, (Readout, Reversed)):
        return _rows(layer.layer, state)
    if isinstance(layer, Bidirectional):
        return _rows(layer.forward, state[0]) + _rows(layer.backward, state[1])
    parts = state if layer.state_count > 1 else (state,)
    return [part[at] for at in range(len(parts[0])) for part in parts]


def _nested(layer: Any, rows: Iterator[Any]) -> State:
    """Undo `_rows`; an array may be None, which is zero."""
    if isinstance(layer, (Readout, Reversed)):
        return _nested(layer.layer, rows)
    if isinstance(layer, Bidirectional):
        return _nested(layer.forward, rows), _nested(layer.backward, rows)
    own = [next(rows) for _ in range(_count(layer))]
    count = layer.state_count
    parts = tuple(_stacked(own[at::count], layer.dtype) for at in range(count))
    return parts if count > 1 else parts[0]


def _stacked(rows: list[Any], dtype: np.dtype[Any]) -> Array | None:
    given = [as_array("a state", row, dtype) for row in rows if row is not None]
    if not given:
        return None
    zeros = np.zeros_like(given[0])
    return np.stack([zeros if row is None else as_array("a state", row, dtype) for row in rows])
