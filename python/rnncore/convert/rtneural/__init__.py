"""RTNeural's JSON: layers of numbers one after the other, weights as Keras lays them."""

from .reader import from_rtneural
from .writer import to_rtneural

__all__ = ["from_rtneural", "to_rtneural"]
