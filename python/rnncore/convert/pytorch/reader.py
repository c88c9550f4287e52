"""A state_dict made into modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy.typing as npt

from ...arrays import short
from ...files import listed, reading
from ...layers.embedding import Embedding
from ...module import Module
from ...widths import width_through
from .. import common
from ..common import Report, Verify
from . import files
from .entries import Settings, State
from .folding import check_folded
from .kinds import kinds_of, layer_of
from .names import Names
from .recurrent import NAMES
from .reference import verify_torch

#: A prefix, a module without parameters, or a prefix with a class, and with options for it.
Part: TypeAlias = str | Module | tuple[str, type[Module]] | tuple[str, type[Module], dict[str, Any]]


def from_torch(
    source: files.Source,
    prefix: Part | Sequence[Part] | None = None,
    *,
    names: Names | None = None,
    cell: str | None = None,
    gate_order: str | None = None,
    batch_first: bool = False,
    dtype: npt.DTypeLike | None = None,
    verify: Verify = None,
    report: Report = print,
    **options: Any,
) -> Any:
    """Make a module of a PyTorch state_dict: a mapping of names to arrays, or a file of one.

    Files are .safetensors, .npz, .json (lists of numbers), and .pt, .pth, .bin and .ckpt, which
    torch itself reads, without running code. Mappings in one another have dotted names. Prefixes
    of wrappers (`module.`, `_orig_mod.`) and counters of steps are passed over, weight_norm is
    computed.

    Sizes, layers, directions, proj_size and biases are read off the shapes, and the class off the
    number of gates ("rnn", "lstm" or "gru" as `cell` insists on one). Entries without `_l0` make an
    `RNNCell`, `LSTMCell` or `GRUCell`. What a state_dict does not hold are arguments: `batch_first`
    and `options`, such as `nonlinearity="relu"` or `dropout`. Lists of numbers, which have no
    dtype, are read as `dtype` or float32.

    prefix: names end where it ends, as "encoder.lstm" of "encoder.lstm.weight_ih_l0"; without it
    the mapping must hold one recurrent layer and nothing else. A sequence of prefixes and modules
    makes a `Chain`: `["embed", "lstm", rnncore.Dropout(), "out"]`. There a prefix may also name a
    Linear, a LayerNorm, a PReLU, a convolution, MultiheadAttention or, as the first, an Embedding.
    A class goes beside the prefix where shapes do not tell it, and with it what a state_dict does
    not say of that layer: `("embed", rnncore.Embedding)`, `("norm", rnncore.LayerNorm, {"eps":
    1e-6})`, `("attention", rnncore.MultiheadAttention, {"num_heads": 4})`.

    names: what entries of the source are called here: a mapping of names here to those there, or a
    function of a name there, None for an entry to leave out. `bias_l0` is the only bias of a layer,
    or cuDNN's two in a row. gate_order: letters of gates in the order in which rows are stacked, or
    the name of a program in `GATE_ORDERS`; without it torch's.

    verify: True, an input x, or a pair (x, y): compare with the NumPy reference or with y, call
    `report` with the largest difference, raise `ValueError` if it is too large.
    """
    settings = Settings(cell, gate_order, batch_first, dtype, options)
    entries = files.read(source)
    damage = (ValueError, common.NotFloats)
    with nullcontext() if isinstance(source, Mapping) else reading(source, damage=damage):
        state = State.of(entries, dtype, names)
        module = common.chain_of(modules(state, _parts(prefix, state), settings))
    verify_torch(module, verify, report)
    return module


def modules(state: State, parts: Sequence[Part], settings: Settings) -> list[Module]:
    """Return the layers of a chain; what is not told by its own shapes may be by those after it."""
    made: list[Module] = []
    for at, part in reversed(list(enumerate(parts))):
        made.insert(0, _made(state, part, settings, made, at == 0))
    return made


def _made(
    state: State, part: Part, settings: Settings, after: list[Module], is_first: bool
) -> Module:
    if isinstance(part, Module):
        return part
    prefix, kind, options = _taken_apart(part)
    own = state.under(prefix, settings.dtype)
    if kind is not None:
        return layer_of(kind, own, settings, options)
    kinds = kinds_of(own, settings)
    if not is_first:  # indices come first
        kinds = [kind for kind in kinds if kind is not Embedding]
    layers = [layer_of(kind, own, settings, options) for kind in kinds]
    fitting = layers if len(layers) == 1 else [layer for layer in layers if _fits(layer, after)]
    if len(fitting) != 1:
        names = " and ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"the shapes of {own.named()} fit {names} alike: put the class beside the prefix, "
            f"as ({prefix!r}, rnncore.{kinds[0].__name__})"
        )
    return fitting[0]


def _fits(layer: Module, after: Sequence[Module]) -> bool:
    """Whether the following layers take what a layer gives."""
    try:
        width_through((("", module) for module in after), layer.out_width(None))
    except ValueError:
        return False
    return True


def _parts(prefix: Part | Sequence[Part] | None, state: State) -> Sequence[Part]:
    if prefix is None:
        return [_only_prefix(state.entries)]
    if isinstance(prefix, (str, Module)) or _has_class(prefix):
        return [prefix]  # type: ignore[list-item]
    return prefix  # type: ignore[return-value]


def _has_class(part: Any) -> bool:
    return isinstance(part, tuple) and len(part) in (2, 3) and isinstance(part[1], type)


def _taken_apart(part: Any) -> tuple[str, type[Module] | None, Mapping[str, Any]]:
    """A prefix, a class or None, and options."""
    if isinstance(part, str):
        return part, None, {}
    if not _has_class(part) or not isinstance(part[0], str):
        raise TypeError(
            "prefix must hold prefixes, modules, and pairs of a prefix and a class, "
            f"got {short(part)}"
        )
    prefix, kind, *options = part
    return prefix, kind, options[0] if options else {}


def _only_prefix(entries: Mapping[str, Any]) -> str:
    """The prefix of the only recurrent layer; raises naming the entries that are not its own."""
    matches = {name: NAMES.fullmatch(name) for name in entries}
    found = list(dict.fromkeys(m[1] for m in matches.values() if m))
    others = [name for name, match in matches.items() if not match]
    check_folded([name for name in others if NAMES.match(name)])
    if len(found) != 1 or others:
        layers = listed(name.removesuffix(".") for name in found)
        raise ValueError(
            f"give a prefix, or a sequence of them: recurrent layers are {layers}; "
            f"other entries are {listed(others)}"
        )
    return found[0]
