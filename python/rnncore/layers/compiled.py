"""Layers with a part in the compiled core."""

from __future__ import annotations

from typing import Any

from ..module import Module


class Compiled(Module):
    """A layer with a part in the compiled core that watches its parameters."""

    _kernels: Any

    def _build(self) -> None:
        """Make the compiled part; the parameters never change identity."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kernels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._build()
