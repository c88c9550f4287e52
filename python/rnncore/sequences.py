"""What compositions over sequence layers share: one layout, states as trees, ragged lengths.

A sequence layer is a module whose call is `m(x, state=None, *, lengths=None) -> (y, state)`, with
the `vjp` that goes with it. Inside a composition all arrays are time-major with a batch axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .arrays import (
    Array,
    as_array,
    as_float,
    as_integers,
    as_lengths,
    as_shape,
    check_count,
    read,
    short,
)
from .layers import Embedding
from .module import Module, once, walk

#: Arrays `(..., B, H)`, nested in tuples as the layers nest them; None is zero.
Tree: TypeAlias = Any


class Run(NamedTuple):
    """What became of a sequence: outputs, final state, and the way back if it was recorded."""

    y: Array
    state: Tree
    pullback: Callable[[Array, Tree], tuple[Any, Tree]]


class Composition(Module):
    """A sequence layer made of sequence layers; a subclass says how in `_run`."""

    recurrent = True

    def __init__(
        self, parts: Mapping[str, Module], params: Mapping[str, Array] | None = None
    ) -> None:
        for name, part in parts.items():
            if not isinstance(part, Module) or not part.recurrent:
                raise TypeError(f"{name} must be a recurrent Module, got {type(part).__name__}")
        super().__init__(params)
        self.batch_first = bool(agreed("batch_first", parts))
        self.dtype = agreed("dtype", parts)
        self._indices = any(isinstance(m, Embedding) for part in parts.values() for m in walk(part))

    def _run(self, x: Array, state: Tree, lengths: Array | None, record: bool) -> Run:
        """Run over x `(T, B, ...)`."""
        raise NotImplementedError

    def __call__(
        self, x: npt.ArrayLike, state: Tree = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Tree]:
        """Run over whole sequences; nothing is recorded.

        x: `(T, B, I)`, `(B, T, I)` with `batch_first`, or `(T, I)` for one sequence, whatever the
        layers take; lengths: `(B,)` whole numbers in 1..T, outputs past the end are zero.
        """
        steps, batched = self._enter(x)
        run = self._run(steps, _lift(state, batched), as_lengths(lengths, *steps.shape[:2]), False)
        return self._leave(run.y, batched), _drop(run.state, batched)

    def vjp(
        self, x: npt.ArrayLike, state: Tree = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[tuple[Array, Tree], Callable[..., tuple[Any, Tree]]]:
        """As a call, with the way back: `((y, state), pullback)`.

        `pullback(dy, dstate=None) -> (dx, dstate)`, None being zero; y must stay unchanged until it
        has run, and so must x.
        """
        steps, batched = self._enter(x)
        run = self._run(steps, _lift(state, batched), as_lengths(lengths, *steps.shape[:2]), True)
        y, back = self._leave(run.y, batched), run.pullback

        def pullback(dy: npt.ArrayLike | None = None, dstate: Tree = None) -> tuple[Any, Tree]:
            d = np.zeros_like(y) if dy is None else as_shape("dy", dy, y.dtype, y.shape)
            d = d[:, None] if not batched else self._swap(d)
            dx, dfirst = back(d, _lift(dstate, batched))
            return None if dx is None else self._leave(dx, batched), _drop(dfirst, batched)

        return (y, _drop(run.state, batched)), once(pullback)

    def _enter(self, x: npt.ArrayLike) -> tuple[Array, bool]:
        """Return x as `(T, B, ...)`, and whether it came with a batch axis."""
        array = self._array("x", x)
        axes = 2 if self._indices else 3
        wanted = "(T, B) or (T,)" if self._indices else "(T, B, features) or (T, features)"
        if array.ndim not in (axes - 1, axes):
            wanted = wanted.replace("T, B", "B, T") if self.batch_first else wanted
            raise ValueError(f"x must have shape {wanted}, got {array.shape}")
        if array.ndim == axes:
            return self._swap(array), True
        return array[:, None], False

    def _array(self, name: str, x: npt.ArrayLike) -> Array:
        if self._indices:
            return as_integers(name, x)
        return as_float(name, x) if self.dtype is None else as_array(name, x, self.dtype)

    def _leave(self, y: Array, batched: bool) -> Array:
        return self._swap(y) if batched else y[:, 0]

    def _swap(self, x: Array) -> Array:
        return x.swapaxes(0, 1) if self.batch_first else x


class Part:
    """A layer as a composition uses it: time-major, and a length may be zero."""

    def __init__(self, layer: Module, batch_first: bool) -> None:
        self.layer, self.batch_first = layer, batch_first

    def run(self, x: Array, state: Tree, lengths: Array | None, record: bool) -> Run:
        """Run over x `(T, B, ...)`; rows of length zero are left out and keep their state."""
        if lengths is not None and not lengths.all():
            return self._run_rows(np.flatnonzero(lengths), x, state, lengths, record)
        x = self._swap(x)
        if not record:
            y, after = self.layer(x, state, lengths=lengths)
            return Run(self._swap(y), after, _not_recorded)
        (y, after), back = self.layer.vjp(x, state, lengths=lengths)

        def pullback(dy: Array, dstate: Tree) -> tuple[Any, Tree]:
            dx, dfirst = back(self._swap(dy), dstate)
            return None if dx is None else self._swap(dx), dfirst

        return Run(self._swap(y), after, pullback)

    def _run_rows(self, rows: Array, x: Array, state: Tree, lengths: Array, record: bool) -> Run:
        batch = x.shape[1]
        some = self.run(x[:, rows], take_rows(state, rows), lengths[rows], record)
        y = np.zeros((len(x), batch, *some.y.shape[2:]), some.y.dtype)
        y[:, rows] = some.y

        def pullback(dy: Array, dstate: Tree) -> tuple[Any, Tree]:
            d, dfirst = some.pullback(dy[:, rows], take_rows(dstate, rows))
            if d is None:
                dx = None
            else:
                dx = np.zeros((*x.shape[:2], *d.shape[2:]), d.dtype)
                dx[:, rows] = d
            return dx, put_rows(dstate, dfirst, rows, batch)

        return Run(y, put_rows(state, some.state, rows, batch), pullback)

    def _swap(self, x: Array) -> Array:
        return x.swapaxes(0, 1) if self.batch_first else x


def _not_recorded(dy: Array, dstate: Tree) -> tuple[Any, Tree]:
    raise RuntimeError("nothing was recorded: call vjp")


def run(module: Module, record: bool, *args: Any, **options: Any) -> tuple[Any, Any]:
    """What a module returns, and its pullback if it is to be recorded."""
    if record:
        output, pullback = module.vjp(*args, **options)
        return output, pullback
    return module(*args, **options), None


def run_rows(module: Module, record: bool, x: Array, mask: Array | None) -> tuple[Array, Any]:
    """The same over the rows of x that the mask picks, all if None; the others become zero."""
    if mask is None or mask.all():
        return run(module, record, x)
    rows, back = run(module, record, pick(x, mask))
    return spread(rows, mask), lambda dy: spread(back(pick(dy, mask)), mask)


def pick(x: Array, mask: Array) -> Array:
    """The rows of x `(T, B, ...)` that the mask picks, one after the other."""
    rows: Array = x.reshape(mask.size, *x.shape[2:]).take(np.flatnonzero(mask), axis=0)
    return rows


def spread(rows: Array, mask: Array) -> Array:
    """Undo `rows = pick(x, mask)`, with zeros elsewhere."""
    x = np.zeros((mask.size, *rows.shape[1:]), rows.dtype)
    x[np.flatnonzero(mask)] = rows
    return x.reshape(*mask.shape, *rows.shape[1:])


def agreed(name: str, parts: Mapping[str, Module]) -> Any:
    """Return the attribute on which all modules that have it agree, None if none has it."""
    found = [
        (label, getattr(module, name))
        for label, part in parts.items()
        for module in walk(part)
        if getattr(module, name, None) is not None
    ]
    for label, value in found:
        if value != found[0][1]:
            raise ValueError(
                f"all layers must have the same {name}: "
                f"{found[0][0]} has {found[0][1]}, {label} has {value}"
            )
    return found[0][1] if found else None


def check_one_way(name: str, part: Module) -> None:
    """Refuse a layer whose output depends on later frames."""
    for module in walk(part):
        if getattr(module, "bidirectional", False) or getattr(module, "looks_ahead", False):
            raise ValueError(
                f"{name} must run in one direction, but its {type(module).__name__} looks ahead"
            )


def check_frames(name: str, count: int) -> int:
    """Return a number of frames."""
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {short(count)}")
    return check_count(name, count, 0)


def split_state(name: str, state: Tree, entries: str, count: int) -> list[Tree]:
    """Return the `count` entries of a state that is a tuple of so many, or None."""
    if state is None:
        return [None] * count
    if not isinstance(state, (tuple, list)):
        raise TypeError(f"{name} must be a tuple {entries}, got {type(state).__name__}")
    if len(state) != count:
        raise ValueError(f"{name} must be a tuple {entries}, got {len(state)} entries")
    return list(state)


def reverse(x: Array, lengths: Array | None) -> Array:
    """Turn each sequence of x `(T, B, ...)` around within its length; padding stays in its place.

    Undoes itself. Without lengths it is a view.
    """
    if lengths is None:
        return x[::-1]
    steps = np.arange(len(x))[:, None]
    source = np.where(steps < lengths, lengths - 1 - steps, steps)
    turned: Array = x[source, np.arange(x.shape[1])]
    return turned


def from_end(run: Callable[[Array], Run], x: Array, lengths: Array | None) -> Run:
    """Let `run` read each sequence from its end; outputs stand beside the frames that it read."""
    turned = run(reverse(x, lengths))

    def pullback(dy: Array, dstate: Tree) -> tuple[Any, Tree]:
        dx, dfirst = turned.pullback(reverse(dy, lengths), dstate)
        return None if dx is None else reverse(dx, lengths), dfirst

    return Run(reverse(turned.y, lengths), turned.state, pullback)


def mapped(function: Callable[[Array], Array], tree: Tree) -> Tree:
    """Apply a function to every array of a tree."""
    if tree is None:
        return None
    if isinstance(tree, (tuple, list)):
        return tuple(mapped(function, branch) for branch in tree)
    return function(tree)


def add(a: Tree, b: Tree) -> Tree:
    """Sum two trees."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, (tuple, list)):
        return tuple(add(*pair) for pair in zip(a, b, strict=True))
    return a + b


def take_rows(tree: Tree, rows: Array) -> Tree:
    """Return the rows of every array `(..., B, H)`."""
    return mapped(lambda array: read_rows("state", array)[..., rows, :], tree)


def read_rows(name: str, value: npt.ArrayLike) -> Array:
    """Return an array of rows `(..., H)`."""
    array, _ = read(name, value)
    if not array.ndim:
        raise TypeError(f"{name} must hold arrays (..., H), got {short(value)}")
    return array


def put_rows(whole: Tree, part: Tree, rows: Array, batch: int) -> Tree:
    """Return `whole`, zero if None, with `part` in the given rows."""
    if part is None:
        return whole
    if isinstance(part, tuple):
        wholes = (None,) * len(part) if whole is None else whole
        return tuple(put_rows(*pair, rows, batch) for pair in zip(wholes, part, strict=True))
    shape = (*part.shape[:-2], batch, part.shape[-1])
    result = np.zeros(shape, part.dtype) if whole is None else np.array(whole)
    result[..., rows, :] = part
    return result


def _lift(tree: Tree, batched: bool) -> Tree:
    return tree if batched else mapped(lambda array: read_rows("state", array)[..., None, :], tree)


def _drop(tree: Tree, batched: bool) -> Tree:
    return tree if batched else mapped(lambda array: array[..., 0, :], tree)
