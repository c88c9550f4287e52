"""What the reading of one layer is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...arrays import Array
from ...module import Module
from ...reference.keras import KerasLayer
from ..common import refusal, shown
from .settings import translated

#: Makers of modules of layers of somebody's own, by the names of their classes.
Custom = Mapping[str, Callable[[KerasLayer], Module]]


class Context(NamedTuple):
    """What the reading of a layer depends on beside its own settings."""

    version: int  # of Keras, the first number
    custom: Custom
    rank: int | None = None  # how many axes x has, if that is known


class Given(NamedTuple):
    """A layer's class, name, settings and arrays."""

    kind: str
    name: str
    config: dict[str, Any]
    arrays: list[Array]
    context: Context

    @property
    def who(self) -> str:
        """The layer's class and name, as messages have them."""
        return f"{self.kind} {shown(self.name)}"

    def settings(self) -> dict[str, Any]:
        """Return the settings, activations by our names."""
        return translated(self.kind, self.config, self.context.version)

    def as_layer(self, config: dict[str, Any], arrays: list[Array] | None = None) -> KerasLayer:
        """Return the layer with these settings, and its own arrays if there are no others."""
        return KerasLayer(self.kind, self.name, config, self.arrays if arrays is None else arrays)

    def refuse(self, what: str) -> ValueError:
        """Return the error that says with what the layer cannot be represented."""
        return refusal("rnncore", f"{self.who} {what}")

    def check_count(self, *counts: int) -> None:
        """Refuse another number of arrays."""
        if len(self.arrays) not in counts:
            wanted = " or ".join(map(str, counts))
            raise ValueError(f"{self.who} has {len(self.arrays)} arrays, expected {wanted}")

    def axis(self) -> int:
        """Return the setting `axis` counted from the end; `ValueError` where that is not known."""
        axis, rank = self.config.get("axis", -1), self.context.rank
        if isinstance(axis, (list, tuple)) and len(axis) != 1:
            raise self.refuse(f"with axis={shown(axis)}")
        (one,) = axis if isinstance(axis, (list, tuple)) else (axis,)
        if one >= 0 and rank is None:
            raise self.refuse(f"with axis={shown(axis)}: the file does not tell which axes x has")
        return int(one) if one < 0 or rank is None else int(one) - rank
