"""The dry signal that programs for audio add to what a model makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compositions.skips import Parallel, Residual
from ..layers.linear import Linear
from ..module import Module
from .common import filled


def with_skip(module: Module, channels: int, sizes: tuple[int, int], dtype: Any) -> Module:
    """Return a module that adds the first channels of x to y; none for 0.

    One channel goes to all outputs. sizes: how many numbers go in and come out. Raises `ValueError`
    for other numbers of channels than one or that of the outputs.
    """
    inputs, outputs = sizes
    if not channels:
        return module
    if channels > inputs or channels not in (1, outputs):
        raise ValueError(f"{channels} of {inputs} inputs cannot be added to {outputs} outputs")
    if channels == inputs == outputs:
        return Residual(module)
    past = np.broadcast_to(np.eye(channels, inputs), (outputs, inputs))
    around = filled(Linear(inputs, outputs, bias=False, dtype=dtype), {"weight": past})
    return Parallel(module, around, merge="sum")
