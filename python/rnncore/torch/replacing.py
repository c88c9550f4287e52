"""torch's recurrent layers within a model replaced, and put back."""

from __future__ import annotations

import logging
from typing import NamedTuple, TypeVar

import torch

from .kernels import DTYPES
from .layers import GRU, LSTM, RNN, Recurrent

Model = TypeVar("Model", bound=torch.nn.Module)

_PLACES: dict[type[torch.nn.Module], type[Recurrent]] = {
    kind.original: kind for kind in (LSTM, GRU, RNN)
}
_LOG = logging.getLogger("rnncore.torch")


class Found(NamedTuple):
    """A recurrent layer of a model, and what computes it."""

    #: Its name in the model, "" for the model itself.
    name: str
    #: The name of torch's class.
    kind: str
    #: Whether rnncore computes it.
    replaced: bool
    #: Why torch computes it.
    reason: str = ""


def replace(model: Model, fallback: str = "warn") -> Model:
    """Have rnncore compute every `nn.LSTM`, `nn.GRU` and `nn.RNN` of a model; return the model.

    Layers are changed where they are: their parameters, hooks and names stay the same objects, so
    that optimisers made before go on working. What is replaced, and what is left and why, is
    logged ("rnncore.torch") and returned by `survey`; that there is nothing to replace is a
    warning. fallback: what a replaced layer does with tensors that rnncore does not compute, see
    `LSTM.fallback`.
    """
    _check(model)
    if fallback not in ("warn", "raise"):
        raise ValueError(f"fallback must be 'warn' or 'raise', got {fallback!r}")
    if not any(isinstance(module, torch.nn.RNNBase) for module in model.modules()):
        _LOG.warning("the model has no nn.LSTM, nn.GRU or nn.RNN: nothing is replaced")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.RNNBase) and not _obstacle(module):
            if type(module) in _PLACES:
                module.__class__ = _PLACES[type(module)]
                _LOG.info("%s: replaced by rnncore", name or "the model")
            module.fallback = fallback
        elif isinstance(module, torch.nn.RNNBase):
            _LOG.warning("%s: left to torch, because %s", name or "the model", _obstacle(module))
    return model


def restore(model: Model) -> Model:
    """Undo `replace`: have torch compute all recurrent layers of a model again; return it."""
    _check(model)
    for module in model.modules():
        if isinstance(module, Recurrent):
            for name in ("_compiled", "_warned", "fallback"):
                module.__dict__.pop(name, None)
            module.__class__ = type(module).original
    return model


def survey(model: torch.nn.Module) -> list[Found]:
    """Return what computes each recurrent layer of a model."""
    _check(model)
    found = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.RNNBase):
            replaced = isinstance(module, Recurrent)
            reason = "" if replaced else _obstacle(module) or "it has not been replaced"
            kind = type(module).original if isinstance(module, Recurrent) else type(module)
            found.append(Found(name, kind.__name__, replaced, reason))
    return found


def _obstacle(module: torch.nn.RNNBase) -> str:
    """Why a layer cannot be replaced, or nothing."""
    if isinstance(module, Recurrent):
        return ""
    if isinstance(module, torch.jit.ScriptModule):
        return "it is compiled by TorchScript"
    if type(module) not in _PLACES:
        return f"{type(module).__name__} derives from torch's class and may compute something else"
    for weight in module.parameters():
        if weight.device.type != "cpu":
            return f"its weights are on {weight.device}"
        if weight.dtype not in DTYPES:
            return f"its weights are {weight.dtype}"
    return ""


def _check(model: torch.nn.Module) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
