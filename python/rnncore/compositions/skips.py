"""Ways around layers: x added to their outputs, and layers beside one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_shape
from ..module import Module, once
from ..states import State, add, split_state
from ..stream.base import Stream
from ..stream.branched import Branched
from ..stream.stages import AnyStage, Branches, Stages
from ..widths import taken_width, width_through
from .composition import agreed, as_input, check_same_input, run, told_resets
from .merging import Unmerge, check_merge, merged, merged_width
from .ragged import inside, lengths_after, takes_lengths, told


class Branching(Module):
    """Layers that all see x; a subclass says how their states make one.

    Called as `y = m(x)`, or if a layer is recurrent `(y, state) = m(x, state=None, *, lengths=None,
    resets=None)`. What lies past the ends of sequences does not matter; y is zero there.
    """

    #: Whether x itself is merged with the outputs.
    passes_x = False

    def __init__(self, layers: Mapping[str, Module], merge: str) -> None:
        for name, layer in layers.items():
            if not isinstance(layer, Module):
                raise TypeError(f"{name} must be a Module, got {type(layer).__name__}")
        super().__init__()
        self.merge, parts = check_merge(merge), layers.values()
        self.recurrent = any(layer.recurrent for layer in parts)
        self.pointwise = all(layer.pointwise for layer in parts)
        self.takes_indices = any(layer.takes_indices for layer in parts)
        self.takes_lengths = takes_lengths(parts)
        self.takes_resets = any(layer.takes_resets for layer in parts)
        self.keeps_steps = all(layer.keeps_steps for layer in parts)
        self.batch_first = agreed("batch_first", layers)
        self.dtype = agreed("dtype", layers)
        check_same_input(layers)

    def branches(self) -> dict[str, Module]:
        """Return the layers by name."""
        raise NotImplementedError

    def _states(self, name: str, state: State) -> list[State]:
        """The state of each recurrent layer."""
        raise NotImplementedError

    def _joined(self, states: Sequence[State]) -> State:
        """Undo `_states`."""
        raise NotImplementedError

    def out_lengths(self, lengths: npt.ArrayLike) -> Array:
        """Return how long rows are in y that are `lengths` long in x."""
        found = [layer.out_lengths(lengths) for layer in self.branches().values()]
        found += [np.asarray(lengths)] * self.passes_x
        if not all(np.array_equal(found[0], one) for one in found):
            raise ValueError("layers beside one another must leave rows of the same lengths")
        return found[0]

    def compiles(self) -> bool:
        """Return whether `stages` says what a call does."""
        return not self.takes_indices and super().compiles()

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return the compiled layers, all beside one another, and the first state."""
        layers = list(self.branches().values())
        parts = [layer.stages(batch, dtype) for layer in layers]
        width = next((part.width for part in parts if part.width is not None), None)
        states = [p.state for p, layer in zip(parts, layers, strict=True) if layer.recurrent]
        found: list[list[AnyStage]] = [[]] * self.passes_x + [part.stages for part in parts]
        state = self._joined(states) if self.recurrent else None
        return Stages(width, state, [Branches(tuple(found), self.merge)])

    def stream(self, batch: int = 1) -> Stream:
        """Return a stream; outputs come once those of all layers are there."""
        if self.compiles() or self.pointwise or type(self).__call__ is not Branching.__call__:
            return super().stream(batch)
        return Branched(self, [layer.stream(batch) for layer in self.branches().values()])

    def frames(self, name: str, x: npt.ArrayLike) -> Array:
        """Return x as an array that the layers take, with whatever axes."""
        return as_input(self, name, x)

    def merged(self, arrays: Sequence[Array]) -> tuple[Array, Unmerge]:
        """Return what the outputs become, x before them if it is passed, and the pullback."""
        names = ["x"] * self.passes_x + list(self.branches())
        return merged(self.merge, dict(zip(names, arrays, strict=True)))

    def __call__(
        self, x: Any, state: State = None, *, lengths: Any = None, resets: Any = None
    ) -> Any:
        """Return y, or (y, state) if a layer is recurrent."""
        return self._run(x, state, lengths, resets, False)[0]

    def vjp(
        self, x: Any, state: State = None, *, lengths: Any = None, resets: Any = None
    ) -> tuple[Any, Callable[..., Any]]:
        """Return what a call returns, and the pullback from dy (and dstate) to dx (and dstate).

        If a layer is recurrent, None for dy or for an entry of dstate means zero.
        """
        output, pullback = self._run(x, state, lengths, resets, True)
        return output, once(pullback)

    def _run(
        self, x: Any, state: State, lengths: Any, resets: Any, record: bool
    ) -> tuple[Any, Any]:
        x = self._taken(x, state, lengths, resets)
        before, finals, backs = self._states("state", state), [], []
        outputs = [x] * self.passes_x
        for layer in self.branches().values():
            anew = told_resets(layer, resets)
            if layer.recurrent:
                (y, final), back = run(layer, record, x, before.pop(0), lengths=lengths, **anew)
                finals.append(final)
            else:
                y, back = run(layer, record, x, **told(layer, lengths), **anew)
            outputs.append(y)
            backs.append(back)
        y, unmerge = self.merged(outputs)
        ends, batch_first = lengths_after(self, lengths), bool(self.batch_first)
        y = inside(y, ends, batch_first)

        def pullback(dy: Any = None, dstate: State = None) -> Any:
            ds: Sequence[Any] = [None] * len(outputs)
            if dy is not None or not self.recurrent:
                ds = unmerge(inside(as_shape("dy", dy, y.dtype, y.shape), ends, batch_first))
            dx, dfirst = self._back(list(ds), dstate, backs)
            dx = None if dx is None else inside(dx, lengths, batch_first)
            return (dx, dfirst) if self.recurrent else dx

        return (y, self._joined(finals)) if self.recurrent else y, pullback

    def _taken(self, x: Any, state: State, lengths: Any, resets: Any) -> Array:
        """Return x as an array, with zeros past the ends of sequences."""
        if not self.recurrent and (
            state is not None or (lengths is not None and self.takes_lengths is None)
        ):
            kind = type(self).__name__
            raise TypeError(f"no layer of this {kind} is recurrent: it takes no state or lengths")
        if not self.takes_resets and resets is not None:
            raise TypeError(f"no layer of this {type(self).__name__} takes resets")
        array = self.frames("x", x)
        return array if self.takes_indices else inside(array, lengths, bool(self.batch_first))

    def _back(self, ds: list[Any], dstate: State, backs: Sequence[Any]) -> tuple[Any, State]:
        """From the gradients of what was merged to those of x and of the state."""
        dx = ds.pop(0) if self.passes_x else None
        dafter, dbefore = self._states("dstate", dstate), []
        for layer, back, d in zip(self.branches().values(), backs, ds, strict=True):
            if layer.recurrent:
                own, dfirst = back(d, dafter.pop(0))
                dbefore.append(dfirst)
            else:
                own = None if d is None else back(d)
            dx = add(dx, own)
        return dx, self._joined(dbefore)


class Residual(Branching):
    """A layer and a way around it: `y = x + module(x)` (He et al. 2016).

    module: any that gives as many features as it takes. Its state is that of the whole.
    """

    passes_x = True

    def __init__(self, module: Module) -> None:
        super().__init__({"module": module}, "sum")
        if self.takes_indices:
            raise ValueError("module must take features, to which its outputs are added")
        self.module = module
        self.out_width(None)

    def branches(self) -> dict[str, Module]:
        """Return the layer by name."""
        return {"module": self.module}

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        takes = taken_width(self.module) if width is None else width
        gives = width_through([("module", self.module)], takes)
        if takes is not None and gives is not None and takes != gives:
            raise ValueError(
                f"module must give as many features as it takes, but of {takes} it makes {gives}"
            )
        return gives

    def _states(self, name: str, state: State) -> list[State]:
        return [state]

    def _joined(self, states: Sequence[State]) -> State:
        return states[0] if states else None


class Parallel(Branching):
    """Layers beside one another, named "0", "1", ...: all see x, and their outputs are merged.

    merge: "concat", side by side along the last axis, or "sum", "mean", "mul" of outputs of the
    same width. The state is a tuple of one for each recurrent layer. Raises `ValueError` for layers
    that do not agree on `batch_first`, on `dtype` or on the width of x.
    """

    def __init__(self, *layers: Module, merge: str = "concat") -> None:
        if not layers:
            raise ValueError("layers must be at least one")
        super().__init__({f"layer {at}": layer for at, layer in enumerate(layers)}, merge)
        if not all(layer.takes_indices == self.takes_indices for layer in layers):
            raise ValueError("layers that read the same x must all take indices, or all features")
        self.layers = layers
        self.out_width(None)

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers as "0", "1", ..."""
        return ((name.removeprefix("layers."), part) for name, part in super().children())

    def branches(self) -> dict[str, Module]:
        """Return the layers by name."""
        return {f"layer {at}": layer for at, layer in enumerate(self.layers)}

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        named = self.branches().items()
        return merged_width(self.merge, {n: width_through([(n, one)], width) for n, one in named})

    def _states(self, name: str, state: State) -> list[State]:
        count = sum(layer.recurrent for layer in self.layers)
        return split_state(name, state, "of one entry for each recurrent layer", count)

    def _joined(self, states: Sequence[State]) -> State:
        return tuple(states)
