"""Modules written as a state_dict of PyTorch."""

from __future__ import annotations

from ...arrays import Array
from ...module import Module
from ...precision import dequantized
from ..common import Report, Verify
from .layout import TORCH
from .reference import verify_torch


def to_torch_state_dict(
    module: Module, prefix: str = "", *, verify: Verify = None, report: Report = print
) -> dict[str, Array]:
    """Return copies of a module's parameters under the names that torch.nn gives them.

    Recurrent layers and their cells, Linear, Embedding, LayerNorm, BatchNorm with its running
    statistics, PReLU, convolutions, MultiheadAttention; a `Chain` as torch.nn.Sequential names its
    parts; `Bidirectional` of two plain layers as one with both directions. A variant that torch.nn
    lacks raises `ValueError` naming it. Weights in fewer bits become float32, which is exact.
    verify: as `from_torch`; the reference reads these very arrays.
    """
    module = dequantized(module)
    state = dict(TORCH.entries(module, f"{prefix}." if prefix else ""))
    verify_torch(module, verify, report)
    return state
