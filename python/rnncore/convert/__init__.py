"""Other people's models: PyTorch, Keras, ONNX and RTNeural, without their frameworks installed.

`rnncore.convert` is imported when it is first asked for; only ONNX files and saved Keras models need
the extra "convert".
"""

from .common import Check
from .pytorch import from_torch, to_torch_state_dict

__all__ = ["Check", "from_torch", "to_torch_state_dict"]
