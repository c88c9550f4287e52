"""A state_dict, the entries of one layer in it, and what it does not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...arrays import Array
from ...files import listed
from ..common import dtype_of
from .folding import check_folded, folded
from .names import Names, renamed, unwrapped, unwrapping
from .values import floats


@dataclass(frozen=True)
class Settings:
    """What holds of all layers: the cell insisted on, the order of gates, options of recurrence."""

    cell: str | None = None
    gate_order: str | None = None
    batch_first: bool = False
    dtype: npt.DTypeLike | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entries:
    """The arrays of one layer by their own names."""

    start: str
    arrays: dict[str, Array]
    dtype: np.dtype[Any]

    def named(self) -> str:
        """Return the entries' full names, for a message."""
        return ", ".join(self.start + name for name in self.arrays)


@dataclass(frozen=True)
class State:
    """A state_dict under torch's names, and what takes from a prefix what wrappers put there."""

    entries: dict[str, Any]
    unwrap: Callable[[str], str]

    @classmethod
    def of(
        cls,
        entries: Mapping[str, Any],
        dtype: npt.DTypeLike | None = None,
        names: Names | None = None,
    ) -> State:
        """Rename entries, leave out what wrappers and counters are, compute weights."""
        entries = renamed(entries, names)
        unwrap = unwrapping(entries)
        return cls(folded(unwrapped(entries, unwrap), dtype), unwrap)

    def under(self, prefix: str, dtype: npt.DTypeLike | None) -> Entries:
        """Return what begins with a prefix; others need not be arrays of floats."""
        start = self.unwrap(prefix if not prefix or prefix.endswith(".") else f"{prefix}.")
        own = {
            name[len(start) :]: floats(repr(name), value, dtype)
            for name, value in self.entries.items()
            if name.startswith(start)
        }
        if not own:
            raise ValueError(f"no entry begins with {start!r}; there are {listed(self.entries)}")
        check_folded([start + name for name in own])
        return Entries(start, own, dtype_of(own.values(), dtype))
