"""rnncore: recurrent neural networks for NumPy arrays on a CPU.

import numpy as np, rnncore

lstm = rnncore.LSTM(input_size=8, hidden_size=32)
y, (h, c) = lstm(np.zeros((20, 4, 8), np.float32))          # inference
(y, state), pullback = lstm.vjp(np.zeros((20, 4, 8), np.float32))
dx, dstate = pullback(np.ones_like(y))                      # adds to lstm.grads
"""

import lazy_loader

from ._core import info

# Public names stand in `__init__.pyi` alone. Their modules are imported when a name is first used:
# few programs need them all.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__: str = info()["version"]
