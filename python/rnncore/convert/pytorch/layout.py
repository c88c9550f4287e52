"""A module's parameters under the names that torch.nn gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...arrays import Array
from ...compositions.bidirectional import Bidirectional
from ...compositions.chain import Chain
from ...module import Module
from ...recurrent.base import RecurrentBase
from ...recurrent.registry import LAYERS, STEPS
from ...recurrent.stack import Stacked
from ..common import GATES, features, refusal
from .kinds import PLAIN


@dataclass(frozen=True)
class Layout:
    """Names of entries in `where`, which has the plain recurrent layers and some of our options."""

    where: str
    options: tuple[str, ...]

    def entries(self, module: Module, start: str = "") -> Iterator[tuple[str, Array]]:
        """Yield a module's parameters and buffers; `ValueError` naming what cannot be said."""
        if isinstance(module, Chain):
            for name, child in module.children():
                yield from self.entries(child, f"{start}{name}.")
        elif isinstance(module, Bidirectional):
            yield from self._both_directions(module, start)
        elif type(module) in PLAIN or module.stored:
            if type(module) not in PLAIN:
                self._check(module)
            yield from ((start + name, array.copy()) for name, array in module.stored.items())

    def _both_directions(self, module: Bidirectional, start: str) -> Iterator[tuple[str, Array]]:
        parts = [module.forward, module.backward]
        for part in parts:
            self._check(part)
        ahead, behind = parts
        alike = type(ahead) is type(behind) and all(
            isinstance(part, Stacked) and part.num_layers == 1 and not part.bidirectional
            for part in parts
        )
        shapes = [{name: array.shape for name, array in part.params.items()} for part in parts]
        if module.merge != "concat" or not alike or shapes[0] != shapes[1]:
            raise refusal(self.where, "a Bidirectional but of two equal single layers side by side")
        for part, end in zip(parts, ("", "_reverse"), strict=True):
            yield from ((start + n + end, array.copy()) for n, array in part.params.items())

    def _check(self, module: Module) -> None:
        """Refuse what is no plain recurrent layer or cell."""
        if type(module) not in [kinds[cell] for kinds in (LAYERS, STEPS) for cell in GATES]:
            raise refusal(self.where, type(module).__name__)
        assert isinstance(module, RecurrentBase)
        for name, value in features(module).items():
            if name not in self.options:
                raise refusal(self.where, f"{type(module).__name__} with {name}={value!r}")
        nonlinearity = getattr(module, "nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise refusal(self.where, f"RNN with nonlinearity={nonlinearity!r}")


TORCH = Layout("torch.nn", ("proj_size",))
REFERENCE = Layout("the NumPy reference", ("proj_size", "peephole", "learned_state"))
