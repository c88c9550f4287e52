"""What a module is made of, as a table."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from .arrays import Array, check_kind
from .compositions.chain import Chain
from .module import Module, modules
from .widths import taken_width, width_through

_HEAD = ("name", "class", "output", "parameters")


@dataclass(frozen=True)
class Row:
    """A module in a table: where it stands, and what is its own."""

    #: Dotted, as in the names of parameters; "" for the module itself.
    name: str
    #: The name of its class.
    kind: str
    #: The shapes of what it returns, "" where they are not known.
    output: str
    #: How many, without those of its parts; 0 where it stands again.
    parameters: int
    #: Where it stands for a second time, the name of the first place.
    again: str = ""

    def cells(self) -> tuple[str, str, str, str]:
        """What is written of it."""
        count = f"{self.parameters:,}" if self.parameters else "-"
        return self.name, self.kind, self.output, f"as {self.again}" if self.again else count


@dataclass(frozen=True, repr=False)
class Summary:
    """The table that `summary` makes: `print` it, or end a notebook's cell with it."""

    #: The module, and all its parts.
    rows: tuple[Row, ...]
    #: How many numbers there are, each counted once.
    parameters: int
    parameter_bytes: int
    #: The same of what is kept beside the parameters, such as running statistics.
    buffers: int
    buffer_bytes: int
    #: Of the parameters.
    dtypes: tuple[str, ...]

    def totals(self) -> str:
        """What they are all together."""
        held = f" in {', '.join(self.dtypes)}" if self.dtypes else ""
        said = f"{self.parameters:,} parameters, {_size(self.parameter_bytes)}{held}"
        if self.buffers:
            said += f"; {self.buffers:,} numbers in buffers, {_size(self.buffer_bytes)}"
        return said

    def __str__(self) -> str:
        lines = [_HEAD, *(row.cells() for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = "-" * (sum(widths) + 2 * 3)
        texts = [_line(cells, widths) for cells in lines]
        return "\n".join([texts[0], rule, *texts[1:], rule, self.totals()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _HEAD)
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row.cells()) for row in self.rows)
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<table><tr>{head}</tr>{rows}</table><p>{escape(self.totals())}</p>"


def summary(module: Module, *inputs: Any, **options: Any) -> Summary:
    """Return a table of a module and its parts: names, classes, outputs, parameters, memory.

        print(rnncore.summary(model, (100, 32, 8)))

    inputs, options: what the module is called with, to see the shapes of the outputs; a tuple of
    whole numbers is the shape of an array of zeros, of the module's dtype or of indices. A copy of
    the module is called, so that nothing is recorded or drawn. Of what returns `(y, state)` the
    shape is y's; a part that is called several times shows the first, one that is not called (its
    composition computes it in another way) none. Without inputs the last axis is told, where it is
    known.

    `parameters` of a row are its own, without those of its parts. A part in several places is
    counted once. Training needs as much memory again for gradients. It is a function, and no method
    of `Module`, so that a class of one's own may use the name.
    """
    check_kind("module", module, Module)
    shapes = _called(module, inputs, options) if inputs or options else _widths(module)
    rows = tuple(_rows(module, shapes))
    parts = list(modules(module))
    params = {id(array): array for part in parts for array in part._params.values()}
    buffers = {id(array): array for part in parts for array in part._buffers.values()}
    return Summary(
        rows,
        *_totals(params),
        *_totals(buffers),
        tuple(sorted({array.dtype.name for array in params.values()})),
    )


def _rows(module: Module, shapes: dict[int, str]) -> Iterator[Row]:
    """Yield a row for each place of each part, but none for what lies within a part seen before."""
    first: dict[int, str] = {}
    counted: set[int] = set()

    def walk(part: Module, name: str) -> Iterator[Row]:
        kind = type(part).__name__
        if id(part) in first:
            yield Row(name, kind, "", 0, first[id(part)] or "the whole")
            return
        first[id(part)] = name
        own = [array for array in part._params.values() if id(array) not in counted]
        counted.update(map(id, own))
        count = sum(array.size for array in own)
        yield Row(name, kind, shapes.get(id(part), ""), count)
        for child, inner in part.children():
            yield from walk(inner, f"{name}.{child}" if name else child)

    return walk(module, "")


def _totals(arrays: dict[int, Array]) -> tuple[int, int]:
    """How many numbers there are, and bytes."""
    found = arrays.values()
    return sum(array.size for array in found), sum(array.nbytes for array in found)


def _called(module: Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> dict[int, str]:
    """Return the shapes of what each part returns in a call, by its identity."""
    given = [_zeros(module, x) if _is_shape(x) else x for x in inputs]
    other, found = copy.deepcopy(module), dict[int, str]()
    pairs = {id(mine): part for mine, part in zip(modules(module), modules(other), strict=True)}
    for part in {id(part): part for part in pairs.values()}.values():
        part.__class__ = _watched(type(part), found)
    other(*given, **options)
    return {mine: found[id(part)] for mine, part in pairs.items() if id(part) in found}


def _watched(cls: type[Module], found: dict[int, str]) -> type[Module]:
    """Return a subclass whose calls note the shapes of what they return."""

    def __call__(self: Module, *args: Any, **kwargs: Any) -> Any:
        y = cls.__call__(self, *args, **kwargs)
        found.setdefault(id(self), _shapes(y[0] if self.recurrent and type(y) is tuple else y))
        return y

    # No module of this library: files know its classes by their names.
    return type(cls.__name__, (cls,), {"__call__": __call__, "__module__": ""})


def _shapes(y: Any) -> str:
    if isinstance(y, np.ndarray):
        return str(y.shape)
    parts = y if isinstance(y, (tuple, list)) else ()
    return ", ".join(filter(None, map(_shapes, parts)))


def _is_shape(x: Any) -> bool:
    whole = (int, np.integer)
    return type(x) is tuple and len(x) > 0 and all(isinstance(n, whole) for n in x)


def _zeros(module: Module, shape: tuple[int, ...]) -> Array:
    dtypes = module.dtypes()
    dtype = np.dtype(np.int64) if module.takes_indices else next(iter(dtypes), np.float32)
    return np.zeros(shape, dtype)


def _widths(module: Module) -> dict[int, str]:
    """Return the last axis of what each part returns, where it is known."""
    found: dict[int, str] = {}

    def walk(part: Module, width: int | None) -> int | None:
        after = _after(part, width)
        if id(part) not in found:
            found[id(part)] = f"(..., {after})" if after else ""
            inner = width if isinstance(part, Chain) else None
            for _, child in part.children():
                inner = walk(child, inner)
                inner = inner if isinstance(part, Chain) else None
        return after

    walk(module, taken_width(module))
    return found


def _after(part: Module, width: int | None) -> int | None:
    try:
        return width_through([("", part)], width)
    except ValueError:
        return None


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    *texts, count = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([*texts, count.rstrip().rjust(widths[-1])])


def _size(count: int) -> str:
    """Say a number of bytes."""
    if count < 10_000:
        return f"{count:,} bytes"
    unit = next(n for n in (3, 2, 1) if count >= 1000**n)
    return f"{count / 1000**unit:.3g} {' kMG'[unit]}B"
