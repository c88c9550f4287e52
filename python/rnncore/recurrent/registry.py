"""All recurrent layers and cells by name: wherever a name chooses one, it is looked up here."""

from collections.abc import Callable
from typing import Any

from ..arrays import check_choice
from ..configuration import Configured
from . import gru, lstm, minimal, vanilla

#: The layers' classes. Any: each has keywords of its own.
LAYERS: dict[str, Any] = {**vanilla.LAYERS, **lstm.LAYERS, **gru.LAYERS, **minimal.LAYERS}
#: The classes of one step, for the layers that have one.
STEPS: dict[str, Any] = {**vanilla.STEPS, **lstm.STEPS, **gru.STEPS}


class LayerMaker(Configured):
    """What makes recurrent layers, called as a layer's class is; a file can hold it."""

    def __call__(self, input_size: int, hidden_size: int, *args: Any, **options: Any) -> Any:
        """Return a layer."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")


def layer_maker(name: str, cell: "str | LayerMaker") -> Callable[..., Any]:
    """Return what makes the layers of a cell: a class by its name, or a cell of one's own."""
    if isinstance(cell, LayerMaker):
        return cell
    return LAYERS[check_choice(name, cell, LAYERS)]  # type: ignore[no-any-return]
