"""One layer of a configuration with its arrays, in our terms."""

from __future__ import annotations

from ...module import Module
from ...reference.keras import KerasLayer
from .given import Given
from .readers import READERS
from .readers import plain as as_it_is
from .recurrent_readers import bidirectional, cells, recurrent
from .settings import CELLS, activation_name, check_settings, plain


def read_layer(given: Given) -> list[KerasLayer]:
    """Return a layer in our terms, several for stacked cells."""
    if given.kind in given.context.custom:
        return [_custom(given)]
    check_settings(given.kind, given.config)
    if given.kind == "RNN":
        return cells(given)
    if given.kind == "Bidirectional":
        return [bidirectional(given)]
    if plain(given.kind) in CELLS:
        return [recurrent(given)]
    return [READERS.get(given.kind, as_it_is)(given)]


def _custom(given: Given) -> KerasLayer:
    """The module that the caller makes of a class of somebody's own."""
    settings = dict(given.config)
    for key in ("activation", "recurrent_activation"):
        if isinstance(settings.get(key), str):
            settings[key] = activation_name(settings[key], given.context.version)
    module = given.context.custom[given.kind](given.as_layer(settings))
    if not isinstance(module, Module):
        made = type(module).__name__
        raise ValueError(f"custom[{given.kind!r}] must make a Module, got {made}")
    return KerasLayer("Custom", given.name, {"module": module}, given.arrays)
