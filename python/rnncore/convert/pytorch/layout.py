"""A module's parameters under the names that torch.nn gives them."""

from __future__ import annotations

from collections.abc import Iterator

from ...arrays import Array
from ...compositions.bidirectional import Bidirectional
from ...compositions.chain import Chain
from ...layers.activations import Activation
from ...layers.dropout import Dropout
from ...layers.embedding import Embedding
from ...layers.layer_norm import LayerNorm
from ...layers.linear import Linear
from ...layers.prelu import PReLU
from ...module import Module
from ...recurrent.registry import STEPS
from ...recurrent.stack import Stacked
from ...recurrent.step import Step
from .. import common
from ..common import GATES, refusal


def entries_of(module: Module, start: str) -> Iterator[tuple[str, Array]]:
    """A module's parameters under torch's names."""
    if isinstance(module, Chain):
        for name, child in module.children():
            yield from entries_of(child, f"{start}{name}.")
    elif isinstance(module, Bidirectional):
        yield from _both_directions(module, start)
    elif type(module) in (Linear, Embedding, LayerNorm, PReLU):
        yield from ((start + name, array.copy()) for name, array in module.params.items())
    elif not isinstance(module, (Dropout, Activation)):
        _check_torch(module)
        yield from ((start + name, array.copy()) for name, array in module.params.items())


def _both_directions(module: Bidirectional, start: str) -> Iterator[tuple[str, Array]]:
    parts = [module.forward, module.backward]
    for part in parts:
        _check_torch(part)
    ahead, behind = parts
    alike = type(ahead) is type(behind) and all(
        isinstance(part, Stacked) and part.num_layers == 1 and not part.bidirectional
        for part in parts
    )
    shapes = [{name: array.shape for name, array in part.params.items()} for part in parts]
    if module.merge != "concat" or not alike or shapes[0] != shapes[1]:
        raise refusal("torch.nn", "a Bidirectional but of two equal single layers side by side")
    yield from ((start + name, array.copy()) for name, array in ahead.params.items())
    yield from ((f"{start}{name}_reverse", array.copy()) for name, array in behind.params.items())


def _check_torch(module: Module) -> None:
    if isinstance(module, tuple(STEPS[cell] for cell in GATES)):
        assert isinstance(module, Step)
        found = common.features(module)
        for name, value in found.items():
            raise refusal("torch.nn", f"{type(module).__name__} with {name}={value!r}")
    else:
        common.check_representable("torch.nn", module, ("proj_size",))
    nonlinearity = getattr(module, "nonlinearity", "tanh")
    if nonlinearity not in ("tanh", "relu"):
        raise refusal("torch.nn", f"RNN with nonlinearity={nonlinearity!r}")
