"""Masks: which sequences have them, from which inputs they come, and who may read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...reference.keras import KerasLayer
from ..common import refusal
from .arrays import Entry
from .calls import who
from .settings import CELLS, TRAINING, plain
from .values import Value

#: Layers that hand a mask on, as they keep the steps.
_KEEPS = {
    *("Activation", "Add", "Average", "BatchNormalization", "Dense", "Dropout", "ELU"),
    *("LayerNormalization", "LeakyReLU", "Maximum", "Minimum", "Multiply", "PReLU", "ReLU"),
    *("Masking", "Subtract", "TimeDistributed", *TRAINING),
}
#: Layers that read a mask as ours read lengths, and hand on that of the query, or none.
_READS = {"AdditiveAttention", "Attention"}
_ENDS = {"GlobalAveragePooling1D"}


class Masks:
    """The inputs that tell which steps count, with the number by which they say that one does not.

    told: whether the caller gives lengths in their place.
    """

    def __init__(self, told: bool) -> None:
        self._told = told
        self.values: dict[str, float] = {}

    def after(self, entry: Entry, layers: Sequence[KerasLayer], reads: Sequence[Value]) -> bool:
        """Whether what a layer gives is masked; `ValueError` where that is not as in Keras."""
        kind, config = plain(entry["class_name"]), entry["config"]
        if kind == "TimeDistributed":
            _refuse_inside(who(entry), config["layer"])
        if kind == "Masking":
            self._begin(who(entry), reads[0], float(config.get("mask_value", 0.0)))
            return True
        if kind == "Embedding" and config.get("mask_zero"):
            self._begin(f"{who(entry)} with mask_zero=True", reads[0], 0)
            return True
        if not any(value.masked for value in reads) or kind in _ENDS:
            return False
        if kind in CELLS or kind in ("RNN", "Bidirectional"):
            return _returns_sequences(config)
        if kind in _READS:
            return reads[0].masked
        if kind not in _KEEPS and not any(map(_hands_on, layers)):
            raise refusal("rnncore", f"{who(entry)}, which reads a masked sequence")
        return True

    def check(self, entry: Entry, reads: Sequence[Value], given: Sequence[Value | None]) -> None:
        """Refuse a mask that is given to a call and is not that of what it reads."""
        own = all(x is not None and (self._told or x.origin in self.values) for x in given)
        if given and not (own and any(x.masked for x in reads)):
            raise refusal("rnncore", f"{who(entry)} called with a mask of its own")

    def _begin(self, maker: str, x: Value, value: float) -> None:
        if self._told:
            return
        if x.origin is None or self.values.get(x.origin, value) != value:
            raise refusal(
                "rnncore", f"{maker} of what is no input; with lengths=True you give the lengths"
            )
        self.values[x.origin] = value


def _hands_on(layer: KerasLayer) -> bool:
    """Whether a layer keeps the steps; of a model each output tells that for itself."""
    concatenated = layer.kind == "Concatenate" and layer.config["axis"] == -1
    return concatenated or layer.kind in ("Custom", "Model")


def _returns_sequences(config: dict[str, Any]) -> bool:
    return bool(config.get("layer", {"config": config})["config"].get("return_sequences"))


def _refuse_inside(wrapper: str, inner: Entry) -> None:
    """Refuse a mask for each item of each step."""
    config = inner["config"]
    settings = config if isinstance(config, dict) else {}
    if inner["class_name"] == "Masking" or settings.get("mask_zero"):
        raise refusal("rnncore", f"{wrapper} of a {inner['class_name']} with a mask of its own")
    for layer in settings.get("layers") or (config if settings is not config else []):
        _refuse_inside(wrapper, layer)
