"""rnncore: recurrent neural networks for NumPy arrays on a CPU.

import numpy as np, rnncore

lstm = rnncore.LSTM(input_size=8, hidden_size=32)
y, (h, c) = lstm(np.zeros((20, 4, 8), np.float32))          # inference
(y, state), pullback = lstm.vjp(np.zeros((20, 4, 8), np.float32))
dx, dstate = pullback(np.ones_like(y))                      # adds to lstm.grads
"""

import sys as _sys
from typing import Any as _Any

import lazy_loader

from . import hints as _hints
from ._core import info

# Public names stand in `__init__.pyi` alone. Their modules are imported when a name is first used:
# few programs need them all.
_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> _Any:
    if name in __all__ or name not in _hints.TOP_LEVEL:
        return _find(name)
    message = f"rnncore has no {name!r}: {_hints.TOP_LEVEL[name]}"
    # `from rnncore import name` would drop the message of an AttributeError.
    if _sys._getframe(1).f_code.co_name == "_handle_fromlist" and name not in _hints.SUBMODULES:
        raise ImportError(message)
    raise AttributeError(message)


__version__: str = info()["version"]
