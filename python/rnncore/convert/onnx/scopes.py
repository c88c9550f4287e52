"""The names that nodes of a graph, or of one within a node, can read while they are made ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..common import shown
from .nodes import Body, Node, Value


class Scope:
    """The values of one graph so far: constants, and what its nodes will make.

    path: what the names of layers in it begin with.
    """

    def __init__(self, outer: Scope | None = None, path: str = "") -> None:
        self.outer, self.path = outer, path
        self.constants: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self._made: set[str] = set()
        self._spliced: set[str] = set()
        self._free: dict[str, None] = {}

    def has(self, name: str) -> bool:
        """Whether there is such a value here or around; from then on it can be read here."""
        if name in self._made:
            return True
        if self.outer is None or not self.outer.has(name):
            return False
        if name in self.outer.constants:
            self.constants[name] = self.outer.constants[name]
        else:
            self._free[name] = None
        self._made.add(name)
        return True

    def check(self, where: str, names: Iterable[str]) -> None:
        """Refuse names that there are not; an empty one stands for nothing."""
        for name in names:
            if name and not self.has(name):
                raise ValueError(f"{where} reads {shown(name)}, which nothing before it makes")

    def are_constant(self, names: Iterable[str]) -> bool:
        """Whether all values are constants."""
        return all(not name or name in self.constants for name in names)

    def make(self, names: Iterable[str]) -> None:
        """Say that these values come to be; none may be called like one that was spliced in."""
        _check_apart(self._spliced, new := set(names))
        self._made |= new

    def hold(self, constants: dict[str, Value]) -> None:
        """Say that these values are constants."""
        self.constants |= constants
        self.make(constants)

    def splice(self, body: Body, where: str, outputs: Sequence[str]) -> None:
        """Take in the nodes of a body; what it makes is called as the outputs are.

        Its other values get names of their own: bodies of several nodes may use the same.
        """
        part = body.spliced(where, f"{len(self._spliced)}: ", outputs)
        made = {*part.constants, *(name for node in part.nodes for name in node.outputs)}
        _check_apart(self._made, new := made.difference(outputs, [""]))
        self._spliced |= new
        self.constants |= part.constants
        self.nodes.extend(part.nodes)

    def body(self, inputs: Iterable[str], outputs: Iterable[str]) -> Body:
        """What has come together."""
        return Body(
            tuple(inputs), tuple(outputs), tuple(self.nodes), self.constants, tuple(self._free)
        )


def _check_apart(names: set[str], others: set[str]) -> None:
    if clash := names & others:
        raise ValueError(f"the name {shown(min(clash))} is taken")
