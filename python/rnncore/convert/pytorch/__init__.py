"""PyTorch: a state_dict as arrays, or a file of one; and back."""

from .reader import from_torch
from .writer import to_torch_state_dict

__all__ = ["from_torch", "to_torch_state_dict"]
