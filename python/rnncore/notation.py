"""Objects as the Python that makes them: what `repr` shows of a module.

    Chain(
        GRU(1, 32, batch_first=True),
        Linear(32, 1),
    )

What the constructor was given, but for defaults, `seed` and `init`: evaluated with the names of
`rnncore` it makes the module again, with other parameters. Comments tell what arguments do not: an
object that stands in several places, weights in fewer bits, and the parts that a class outside this
library makes for itself. A cell of one's own is its name. What no file can hold is written as its
type, `<function>`; what is long, and a composition that stands above already, as `...`.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from typing import Any, NamedTuple

from .configuration import DEPTH, Configured, Unstorable, arguments_of, is_own, remembered

#: How long a line may be that holds arguments, and the text of one argument.
_WIDTH, _LONG = 88, 80


def written(value: Configured) -> str:
    """Return an object as Python."""
    lines, comment = _lines(_Writer(value).node(value, DEPTH))
    return "\n".join(lines) + comment


class _Node(NamedTuple):
    """A call or a tuple with its items, or the text of anything else."""

    head: str
    items: tuple[tuple[str, _Node], ...] = ()  # behind the names of arguments, as "merge="
    tail: str = ""
    module: bool = False
    comment: str = ""
    parts: tuple[tuple[str, _Node], ...] = ()  # of a module, by name: those no argument holds

    @property
    def on_one_line(self) -> bool:
        """Whether no two modules stand beside one another within, and no comment is needed."""
        inner = [node for _, node in self.items]
        plain = all(node.on_one_line and not node.comment for node in inner)
        return plain and not self.parts and sum(node.has_module for node in inner) < 2

    @property
    def has_module(self) -> bool:
        """Whether it is or holds a module."""
        return self.module or any(node.has_module for _, node in self.items)

    @property
    def flat(self) -> str:
        """The whole on one line."""
        single = "," if self.head == "(" and len(self.items) == 1 else ""
        inner = ", ".join(name + node.flat for name, node in self.items)
        return f"{self.head}{inner}{single}{self.tail}"


def _lines(node: _Node) -> tuple[list[str], str]:
    """Return the lines of an expression, and the comment that goes behind the comma."""
    if node.on_one_line and (len(node.flat) <= _WIDTH or not node.has_module):
        return [node.flat], node.comment
    inner = []
    for name, item in node.items:
        lines, comment = _lines(item)
        inner += [name + lines[0], *lines[1:]]
        inner[-1] += f",{comment}"
    for name, part in node.parts:
        lines, comment = _lines(part)
        lines[-1] += comment
        inner += [f"# {name}: {lines[0]}", *(f"# {line}" for line in lines[1:])]
    return [node.head + node.comment, *(f"    {line}" for line in inner), node.tail], ""


class _Writer:
    """Makes nodes of objects, those in several places with a number."""

    def __init__(self, value: Configured) -> None:
        self._places: Counter[int] = Counter()
        self._count(value, DEPTH)
        shared = (key for key, places in self._places.items() if places > 1)
        self._numbers = {key: number for number, key in enumerate(shared, 1)}
        self._met: set[int] = set()

    def _count(self, value: Any, depth: int) -> None:
        """Count the places of all objects; the contents of each once."""
        if _is_tuple(value):
            for item in value:
                self._count(item, depth - 1)
        elif isinstance(value, Configured) and depth > 0 and not value.written_as:
            self._places[id(value)] += 1
            if self._places[id(value)] == 1:
                for _, item in (*_arguments(value), *_parts(value)):
                    self._count(item, depth - 1)

    def node(self, value: Any, depth: int) -> _Node:
        """Return the expression of a value."""
        if isinstance(value, Configured) and value.written_as:
            return _Node(value.written_as)
        if isinstance(value, Configured) and depth > 0:
            return self._call(value, depth)
        if _is_tuple(value) and depth > 0:
            node = _Node("(", tuple(("", self.node(item, depth - 1)) for item in value), ")")
            return node if node.has_module or len(node.flat) <= _LONG else _Node("...")
        return _Node("..." if isinstance(value, Configured) or _is_tuple(value) else _text(value))

    def _call(self, value: Configured, depth: int) -> _Node:
        name, module = type(value).__name__, hasattr(value, "children")
        remarks, number = [], self._numbers.get(id(value))
        if number is not None:
            remarks.append(f"shared {number}")
        arguments, parts = _arguments(value), _parts(value)
        if id(value) in self._met and (parts or any(_holds(item) for _, item in arguments)):
            return _Node(f"{name}(...)", module=module, comment=f"  # {remarks[0]}")
        self._met.add(id(value))
        items = tuple((key, self.node(item, depth - 1)) for key, item in arguments)
        if not any(node.has_module for _, node in items):
            remarks += sorted(f"{weights} weights" for weights in _weights(value))
        comment = f"  # {', '.join(remarks)}" if remarks else ""
        beside = tuple((key, self.node(part, depth - 1)) for key, part in parts)
        return _Node(f"{name}(", items, ")", module, comment, beside)


def _arguments(value: Configured) -> list[tuple[str, Any]]:
    """Return the arguments that are no defaults, each behind its name, if it needs one."""
    try:
        given = arguments_of(value)
    except (AttributeError, TypeError):  # its constructor has refused them
        return [("", Ellipsis)]
    parameters = [*inspect.signature(type(value).__init__).parameters.values()][1:]
    several = any(p.kind is p.VAR_POSITIONAL and given.get(p.name) for p in parameters)
    found: list[tuple[str, Any]] = []
    for parameter in parameters:
        if parameter.name not in given or parameter.kind is parameter.VAR_KEYWORD:
            continue
        item, place = given.pop(parameter.name), parameter.kind is not parameter.KEYWORD_ONLY
        if parameter.kind is parameter.VAR_POSITIONAL:
            found += [("", one) for one in item]
        elif place and (several or parameter.default is parameter.empty):
            found.append(("", item))
        elif item != remembered(parameter.default):
            found.append((f"{parameter.name}=", item))
    return found + [(f"{name}=", item) for name, item in given.items()]


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return the parts that somebody else's class makes for itself, by name."""
    if is_own(type(value)) or not hasattr(value, "children"):
        return []
    given = {id(one) for _, item in _arguments(value) for one in _objects(item)}
    return [(name, part) for name, part in value.children() if id(part) not in given]


def _is_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and not isinstance(value, Unstorable)


def _objects(item: Any) -> list[Any]:
    """Return an argument and what lies in it."""
    return [one for part in item for one in _objects(part)] if _is_tuple(item) else [item]


def _holds(item: Any) -> bool:
    return any(isinstance(one, Configured) for one in _objects(item))


def _weights(value: Any) -> set[str]:
    """Return in what fewer bits a module holds weights."""
    own = getattr(value, "weight_type", None)
    parts = value.children() if hasattr(value, "children") else ()
    return {own} if own else {held for _, part in parts for held in _weights(part)}


def _text(value: Any) -> str:
    if value is Ellipsis:
        return "..."
    if isinstance(value, Unstorable):
        return f"<{value.kind}>"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    text = repr(value)
    return text if len(text) <= _LONG else "..."
