"""Models in Keras's letters, the reference for converted ones; sequences are batch-major."""

from .model import KerasInput, KerasLayer, KerasModel, KerasNode, line, run

__all__ = ["KerasInput", "KerasLayer", "KerasModel", "KerasNode", "line", "run"]
