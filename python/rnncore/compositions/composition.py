"""What compositions over sequence layers share: one layout, batch axes, lengths of zero.

A sequence layer is a module whose call is `m(x, state=None, *, lengths=None) -> (y, state)`, with
the `vjp` that goes with it, and `resets` if it `takes_resets`. Inside a composition all arrays are
time-major with a batch axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import (
    Array,
    as_array,
    as_float,
    as_integers,
    as_lengths,
    as_resets,
    as_shape,
    check_count,
    short,
)
from ..module import Module, modules, once
from ..states import State, mapped, take_rows, with_batch_axis, without_batch_axis
from ..widths import taken_width


class Sequences(NamedTuple):
    """What is run over, time-major: x `(T, B, ...)`, lengths `(B,)`, resets `(T, B)`."""

    x: Array
    state: State = None
    lengths: Array | None = None
    resets: Array | None = None


class Run(NamedTuple):
    """What became of a sequence: outputs, final state, and the pullback if it was recorded."""

    y: Array
    state: State
    pullback: Callable[[Array, State], tuple[Any, State]]


class Composition(Module):
    """A sequence layer made of sequence layers; a subclass says how in `_run`."""

    recurrent = True
    takes_resets = True

    def __init__(
        self, parts: Mapping[str, Module], params: Mapping[str, Array] | None = None
    ) -> None:
        for name, part in parts.items():
            if not isinstance(part, Module) or not part.recurrent:
                raise TypeError(f"{name} must be a recurrent Module, got {type(part).__name__}")
        super().__init__(params)
        self.batch_first = bool(agreed("batch_first", parts))
        self.dtype = agreed("dtype", parts)
        inner = (module for part in parts.values() for module in modules(part))
        self.takes_indices = any(module.takes_indices for module in inner)

    def _run(self, given: Sequences, record: bool) -> Run:
        """Run over sequences; only a class that `takes_resets` is given them."""
        raise NotImplementedError

    def __call__(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[Array, State]:
        """Run over whole sequences; nothing is recorded.

        x: `(T, B, I)`, `(B, T, I)` with `batch_first`, or `(T, I)` for one sequence, whatever the
        layers take; lengths: `(B,)` whole numbers in 1..T, outputs past the end are zero. resets:
        booleans in x's order of axes, true where a sequence starts anew.
        """
        run, batched = self._run_given(x, state, lengths, resets, False)
        return self._leave(run.y, batched), without_batch_axis(run.state, batched)

    def vjp(
        self,
        x: npt.ArrayLike,
        state: State = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[tuple[Array, State], Callable[..., tuple[Any, State]]]:
        """As a call, with the pullback: `((y, state), pullback)`.

        `pullback(dy, dstate=None) -> (dx, dstate)`, None being zero; y must stay unchanged until it
        has run, and so must x.
        """
        run, batched = self._run_given(x, state, lengths, resets, True)
        y, back = self._leave(run.y, batched), run.pullback

        def pullback(dy: npt.ArrayLike | None = None, dstate: State = None) -> tuple[Any, State]:
            d = np.zeros_like(y) if dy is None else as_shape("dy", dy, y.dtype, y.shape)
            d = d[:, None] if not batched else self._swap(d)
            dx, dfirst = back(d, with_batch_axis(dstate, batched))
            dx = None if dx is None else self._leave(dx, batched)
            return dx, without_batch_axis(dfirst, batched)

        return (y, without_batch_axis(run.state, batched)), once(pullback)

    def _run_given(
        self, x: Any, state: State, lengths: Any, resets: Any, record: bool
    ) -> tuple[Run, bool]:
        """Run over x as a caller gave it; also whether it came with a batch axis."""
        steps, batched = self._enter(x)
        own, anew = as_lengths(lengths, *steps.shape[:2]), None
        if told_resets(self, resets):
            axes = steps.shape[:2] if batched else (len(steps),)
            where = as_resets(resets, axes[::-1] if self.batch_first else axes)
            anew = self._swap(where) if batched else where[:, None]
        given = Sequences(steps, with_batch_axis(state, batched), own, anew)
        return self._run(given, record), batched

    def _enter(self, x: npt.ArrayLike) -> tuple[Array, bool]:
        """Return x as `(T, B, ...)`, and whether it came with a batch axis."""
        array = as_input(self, "x", x)
        axes = 2 if self.takes_indices else 3
        wanted = "(T, B) or (T,)" if self.takes_indices else "(T, B, features) or (T, features)"
        if array.ndim not in (axes - 1, axes):
            wanted = wanted.replace("T, B", "B, T") if self.batch_first else wanted
            raise ValueError(f"x must have shape {wanted}, got {array.shape}")
        if array.ndim == axes:
            return self._swap(array), True
        return array[:, None], False

    def _leave(self, y: Array, batched: bool) -> Array:
        return self._swap(y) if batched else y[:, 0]

    def _swap(self, x: Array) -> Array:
        return x.swapaxes(0, 1) if self.batch_first else x


class Part:
    """A layer as a composition uses it: time-major, and a length may be zero."""

    def __init__(self, layer: Module, batch_first: bool) -> None:
        self.layer, self.batch_first = layer, batch_first

    def run(self, given: Sequences, record: bool) -> Run:
        """Run over sequences; rows of length zero are left out and end where they start."""
        x, state, lengths, resets = given
        if lengths is not None and not lengths.all():
            return self._run_rows(given, lengths, record)
        x = self._swap(x)
        anew = told_resets(self.layer, None if resets is None else self._swap(resets))
        if not record:
            y, after = self.layer(x, state, lengths=lengths, **anew)
            return Run(self._swap(y), after, _not_recorded)
        (y, after), back = self.layer.vjp(x, state, lengths=lengths, **anew)

        def pullback(dy: Array, dstate: State) -> tuple[Any, State]:
            dx, dfirst = back(self._swap(dy), dstate)
            return None if dx is None else self._swap(dx), dfirst

        return Run(self._swap(y), after, pullback)

    def _run_rows(self, given: Sequences, lengths: Array, record: bool) -> Run:
        x, state, _, resets = given
        batch, rows, others = x.shape[1], np.flatnonzero(lengths), np.flatnonzero(lengths == 0)
        anew = None if resets is None else resets[:, rows]
        own = Sequences(x[:, rows], take_rows(state, rows), lengths[rows], anew)
        some = self.run(own, record)
        none = self.run(Sequences(x[:0, others], take_rows(state, others)), record)
        order = np.argsort(np.concatenate((rows, others)))

        def together(a: Array, b: Array) -> Array:
            both: Array = np.concatenate((a, b), axis=-2)
            return both[..., order, :]

        y = np.zeros((len(some.y), batch, *some.y.shape[2:]), some.y.dtype)
        y[:, rows] = some.y

        def pullback(dy: Array, dstate: State) -> tuple[Any, State]:
            d, dfirst = some.pullback(dy[:, rows], take_rows(dstate, rows))
            _, dothers = none.pullback(dy[:0, others], take_rows(dstate, others))
            if d is None:
                dx = None
            else:
                dx = np.zeros((*x.shape[:2], *d.shape[2:]), d.dtype)
                dx[:, rows] = d
            return dx, mapped(together, dfirst, dothers)

        return Run(y, mapped(together, some.state, none.state), pullback)

    def _swap(self, x: Array) -> Array:
        return x.swapaxes(0, 1) if self.batch_first else x


def _not_recorded(dy: Array, dstate: State) -> tuple[Any, State]:
    raise RuntimeError("nothing was recorded: call vjp")


def run(module: Module, record: bool, *args: Any, **options: Any) -> tuple[Any, Any]:
    """What a module returns, and its pullback if it is to be recorded."""
    if record:
        output, pullback = module.vjp(*args, **options)
        return output, pullback
    return module(*args, **options), None


def as_input(module: Module, name: str, x: npt.ArrayLike) -> Array:
    """Return x as an array of what a module's layers take, with whatever axes."""
    if module.takes_indices:
        return as_integers(name, x)
    return as_float(name, x) if module.dtype is None else as_array(name, x, module.dtype)


def agreed(name: str, parts: Mapping[str, Module]) -> Any:
    """Return `batch_first` or `dtype` of all modules that have it, None if none does.

    Raises `ValueError` where they do not agree.
    """
    found = [
        (label, getattr(module, name))
        for label, part in parts.items()
        for module in modules(part)
        if getattr(module, name) is not None
    ]
    for label, value in found:
        if value != found[0][1]:
            raise ValueError(
                f"all layers must have the same {name}: "
                f"{found[0][0]} has {found[0][1]}, {label} has {value}"
            )
    return found[0][1] if found else None


def check_same_input(parts: Mapping[str, Module]) -> None:
    """Refuse layers that read the same x, but take it in different widths."""
    found = {name: taken_width(part) for name, part in parts.items()}
    told = [(name, width) for name, width in found.items() if width is not None]
    for name, width in told:
        if width != told[0][1]:
            one, other = (f"{n} features" if n else "indices" for n in (told[0][1], width))
            raise ValueError(
                f"layers that read the same x must take the same width: "
                f"{told[0][0]} takes {one}, {name} {other}"
            )


def check_one_way(name: str, part: Module) -> None:
    """Refuse a layer whose output depends on later frames."""
    for module in modules(part):
        if module.bidirectional or module.looks_ahead:
            raise ValueError(
                f"{name} must run in one direction, but its {type(module).__name__} looks ahead"
            )


def check_remembers(name: str, part: Module) -> None:
    """Refuse a layer that is run in pieces or from its end, and keeps frames outside its state."""
    for module in _sliding(part):
        raise ValueError(
            f"{name} must hold what it remembers in its state, but its {type(module).__name__} "
            "mixes frames: put that before it"
        )


def told_resets(module: Module, resets: Any) -> dict[str, Any]:
    """What a module is told of where sequences start anew; `ValueError` if it cannot."""
    if resets is None:
        return {}
    if module.takes_resets:
        return {"resets": resets}
    if module.recurrent or any(_sliding(module)):
        raise ValueError(f"a {type(module).__name__} takes no resets: it would see across them")
    return {}


def _sliding(module: Module) -> Iterator[Module]:
    """Yield the parts that see several frames at once, and have no state."""
    parts = [part for _, part in module.children()]
    if parts and (module.recurrent or module.takes_lengths is not None):
        for part in parts:
            yield from _sliding(part)
    elif not module.recurrent and module.takes_lengths is not None and not module.pointwise:
        yield module


def check_frames(name: str, count: int) -> int:
    """Return a number of frames."""
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {short(count)}")
    return check_count(name, count, 0)
