"""Other people's models: PyTorch, Keras, ONNX and RTNeural, without their frameworks installed.

Only ONNX files and saved Keras models need the extra "convert".
"""

from .common import Check
from .keras import from_keras
from .pytorch import from_torch, to_torch_state_dict
from .rtneural import from_rtneural, to_rtneural

__all__ = [
    "Check",
    "from_keras",
    "from_rtneural",
    "from_torch",
    "to_rtneural",
    "to_torch_state_dict",
]
