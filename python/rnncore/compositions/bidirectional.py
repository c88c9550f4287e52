"""Layers that read a sequence from its end: alone, or beside one that reads from its start."""

from __future__ import annotations

from typing import Any

from ..arrays import Array
from ..module import Module
from ..states import State, add, split_state
from ..widths import width_through
from .composition import Composition, Part, Run, Sequences, check_remembers, check_same_input
from .merging import check_merge, merged, merged_width
from .ragged import from_end

_ENTRIES = "(forward, backward)"


class Reversed(Composition):
    """A layer that reads each sequence from its end; outputs stand beside the frames they read.

    The state is the layer's own, `batch_first` and `dtype` too.
    """

    looks_ahead = True

    def __init__(self, layer: Module) -> None:
        super().__init__({"layer": layer})
        check_remembers("layer", layer)
        self.layer = layer
        self.part = Part(layer, self.batch_first)

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        return width_through([("layer", self.layer)], width)

    def _run(self, given: Sequences, record: bool) -> Run:
        return from_end(self.part.run, given, record)


class Bidirectional(Composition):
    """A layer forward and a layer backward in time (Schuster and Paliwal 1997).

        y_t = merge(forward(x)_t, backward(x reversed) reversed_t)

    Each part is any sequence layer, stacked or wrapped as may be. The backward one reads each
    sequence from its own end, and its output stands beside the frame that it has just read.
    merge: "concat" `(T, B, H + H')`, or "sum", "mean", "mul" of two outputs of the same width. The
    state is the pair of the parts' states. `batch_first` and `dtype` are the parts' own. Parts that
    take x in different widths raise `ValueError`.

    With "concat" and the same parameters, outputs and states equal those of
    `LSTM(bidirectional=True)` to the bit.
    """

    looks_ahead = True

    def __init__(self, forward: Module, backward: Module, merge: str = "concat") -> None:
        parts = {"forward": forward, "backward": backward}
        super().__init__(parts)
        check_same_input(parts)
        for name, part in parts.items():
            check_remembers(name, part)
        self.merge = check_merge(merge)
        self.forward, self.backward = forward, backward
        self.parts = Part(forward, self.batch_first), Part(backward, self.batch_first)

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        parts = (("forward", self.forward), ("backward", self.backward))
        return merged_width(
            self.merge, {name: width_through([(name, part)], width) for name, part in parts}
        )

    def _run(self, given: Sequences, record: bool) -> Run:
        first = split_state("state", given.state, _ENTRIES, 2)
        ahead = self.parts[0].run(given._replace(state=first[0]), record)
        back = from_end(self.parts[1].run, given._replace(state=first[1]), record)
        y, unmerge = merged(self.merge, {"forward": ahead.y, "backward": back.y})

        def pullback(dy: Array, dstate: State) -> tuple[Any, State]:
            dlast = split_state("dstate", dstate, _ENTRIES, 2)
            d_ahead, d_back = unmerge(dy)
            dx, dahead = ahead.pullback(d_ahead, dlast[0])
            dx_back, dback = back.pullback(d_back, dlast[1])
            return add(dx, dx_back), (dahead, dback)

        return Run(y, (ahead.state, back.state), pullback)
