"""Other people's models: of PyTorch, Keras, ONNX and programs for audio, without these installed.

Only ONNX files and saved Keras models need the extra "convert".
"""

from .common import Check
from .gate_orders import GATE_ORDERS
from .guitarml import from_guitarml
from .keras import from_keras, keras_weights
from .nam import from_nam
from .onnx import OnnxModel, from_onnx, to_onnx
from .pytorch import from_torch, to_torch_state_dict
from .rtneural import from_rtneural, to_rtneural

__all__ = [
    "GATE_ORDERS",
    "Check",
    "OnnxModel",
    "from_guitarml",
    "from_keras",
    "from_nam",
    "from_onnx",
    "from_rtneural",
    "from_torch",
    "keras_weights",
    "to_onnx",
    "to_rtneural",
    "to_torch_state_dict",
]
