"""All recurrent layers and cells by name: wherever a name chooses one, it is looked up here."""

from typing import Any

from . import gru, lstm, minimal, vanilla

#: The layers' classes. Any: each has keywords of its own.
LAYERS: dict[str, Any] = {**vanilla.LAYERS, **lstm.LAYERS, **gru.LAYERS, **minimal.LAYERS}
#: The classes of one step, for the layers that have one.
STEPS: dict[str, Any] = {**vanilla.STEPS, **lstm.STEPS, **gru.STEPS}
