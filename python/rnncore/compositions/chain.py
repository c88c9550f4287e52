"""Layers one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from ..arrays import Array
from ..hinting import hinted, refuses_others, unknown_keyword
from ..hints import ROWS
from ..module import Module, once
from ..stream.base import Stream
from ..stream.chained import chained
from ..stream.stages import Stages, stages_of
from ..widths import width_through
from .composition import agreed, told_resets
from .ragged import lengths_after, takes_lengths, told

Pullback: TypeAlias = Callable[..., Any]


class Chain(Module):
    """Layers one after another, named "0", "1", ...; a chain is a layer, so chains nest.

    If a member is recurrent, so is the chain: `chain(x, state=None, *, lengths=None, resets=None)
    -> (y, state)` with a tuple of one state for each recurrent member; None is the state that a
    member starts from, zero or learnt, for one or for all. Every member that takes `lengths` gets
    them, as convolutions before it have made them; `resets` go to recurrent members, and what sees
    several frames at once refuses them. A convolution has no state in a call: it begins each call
    anew, where a stream goes on. Raises `ValueError` for layers that do not agree on `batch_first`,
    or of which one takes another width than the one before it gives.
    """

    def __init__(self, *layers: Module) -> None:
        for at, layer in enumerate(layers):
            if not isinstance(layer, Module):
                hint = ": write Chain(*layers)" if isinstance(layer, (list, tuple)) else ""
                raise TypeError(f"layer {at} must be a Module, got {type(layer).__name__}{hint}")
        super().__init__()
        self.layers = layers
        self.recurrent = any(layer.recurrent for layer in layers)
        self.takes_indices = any(layer.takes_indices for layer in layers)
        self.takes_lengths = takes_lengths(layers)
        self.takes_resets = any(layer.takes_resets for layer in layers)
        self.keeps_steps = all(layer.keeps_steps for layer in layers)
        named = {f"layer {at}": layer for at, layer in enumerate(layers)}
        agreed("batch_first", named)
        width_through(named.items())

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers as "0", "1", ..."""
        return ((name.removeprefix("layers."), part) for name, part in super().children())

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        return width_through(((f"layer {n}", layer) for n, layer in enumerate(self.layers)), width)

    def out_lengths(self, lengths: npt.ArrayLike) -> Array:
        """Return how long rows are in y that are `lengths` long in x."""
        found = np.asarray(lengths)
        for layer in self.layers:
            found = layer.out_lengths(found)
        return found

    @hinted(ROWS)
    def stream(self, batch: int = 1) -> Stream:
        """Return a stream; neighbours that the compiled core has run as one."""
        if type(self).__call__ is not Chain.__call__:
            return super().stream(batch)
        named = {str(at): layer for at, layer in enumerate(self.layers)}
        return chained(self.layers, batch, bool(agreed("batch_first", named)))

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled layers of all members."""
        found = stages_of(self.layers, batch, dtype)
        return found if self.recurrent else found._replace(state=None)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, at: int) -> Module:
        return self.layers[at]

    @refuses_others
    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        **others: NoReturn,
    ) -> Any:
        """Return y, or (y, state) if the chain is recurrent."""
        if others:
            raise unknown_keyword(self, others)
        before, after = self._states("state", state, lengths, resets), []
        for layer in self.layers:
            anew = {} if resets is None else told_resets(layer, resets)
            if layer.recurrent:
                x, final = layer(x, before.pop(0), lengths=lengths, **anew)
                after.append(final)
            else:
                x = layer(x, **told(layer, lengths), **anew)
            lengths = lengths_after(layer, lengths)
            resets = resets if layer.keeps_steps else None
        return (x, tuple(after)) if self.recurrent else x

    @refuses_others
    def vjp(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        **others: NoReturn,
    ) -> tuple[Any, Pullback]:
        """Return what a call returns, and the pullback from dy (and dstate) to dx (and dstate).

        In a recurrent chain, None for dy or for an entry of dstate means zero.
        """
        if others:
            raise unknown_keyword(self, others)
        before, after = self._states("state", state, lengths, resets), []
        pullbacks = []
        for layer in self.layers:
            anew = {} if resets is None else told_resets(layer, resets)
            if layer.recurrent:
                (x, final), back = layer.vjp(x, before.pop(0), lengths=lengths, **anew)
                after.append(final)
            else:
                x, back = layer.vjp(x, **told(layer, lengths), **anew)
            lengths = lengths_after(layer, lengths)
            resets = resets if layer.keeps_steps else None
            pullbacks.append(back)

        def pullback(dy: Any, dstate: Any = None) -> Any:
            dafter, dbefore = self._states("dstate", dstate), []
            for layer, back in zip(reversed(self.layers), reversed(pullbacks), strict=True):
                if layer.recurrent:
                    dy, dfirst = back(dy, dafter.pop())
                    dbefore.append(dfirst)
                elif dy is not None or not self.recurrent:
                    dy = back(dy)
            return (dy, tuple(reversed(dbefore))) if self.recurrent else dy

        return ((x, tuple(after)) if self.recurrent else x), once(pullback)

    def _states(self, name: str, states: Any, lengths: Any = None, resets: Any = None) -> list[Any]:
        """Return one state for each recurrent member."""
        count = sum(layer.recurrent for layer in self.layers)
        if not count and states is not None:
            raise TypeError(f"no layer of this chain is recurrent: it takes no {name}")
        if not count and lengths is not None and self.takes_lengths is None:
            raise TypeError("no layer of this chain is recurrent or slides: it takes no lengths")
        if not count and resets is not None and not self.takes_resets:
            raise TypeError("no layer of this chain has a state: it takes no resets")
        if states is None:
            return [None] * count
        if not isinstance(states, (tuple, list)) or len(states) != count:
            raise ValueError(
                f"{name} must be a tuple with one entry for each of the {count} recurrent layers"
            )
        return list(states)
