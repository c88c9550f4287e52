"""PyTorch: a state_dict as arrays, or a .safetensors file; and back."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import reference
from ..arrays import Array, load_arrays
from ..compositions.bidirectional import Bidirectional
from ..compositions.chain import Chain
from ..files import listed, one_line, reading
from ..layers.activations import Activation
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.layer_norm import LayerNorm
from ..layers.linear import Linear
from ..module import Module
from ..precision import dequantized
from ..recurrent.registry import LAYERS, STEPS
from ..recurrent.stack import Stacked
from ..recurrent.step import Step
from ..reference.sequence import forward
from . import common
from .common import GATES, Report, Verify, refusal

#: Names of entries whose weights torch computes from others.
_COMPUTED = re.compile(r".*(?:weight|bias)\w*_[gv]|(?:.*\.)?parametrizations\..*")
_RECURRENT = re.compile(r"(.*?)((?:weight|bias)_(?:ih|hh|hr))(?:_l(\d+)(_reverse)?)?")

State = Mapping[str, npt.ArrayLike]


def from_torch(
    source: State | str | os.PathLike[str],
    prefix: str | Sequence[str | Module] | None = None,
    *,
    cell: str | None = None,
    batch_first: bool = False,
    dtype: npt.DTypeLike | None = None,
    verify: Verify = None,
    report: Report = print,
    **options: Any,
) -> Any:
    """Make a module of a PyTorch state_dict: a mapping of names to arrays, or a .safetensors file.

    Sizes, layers, directions, proj_size and biases are read off the shapes, and the class off the
    number of gates ("rnn", "lstm" or "gru" as `cell` insists on one). Entries without `_l0` make an
    `RNNCell`, `LSTMCell` or `GRUCell`. What a state_dict does not hold are arguments: `batch_first`
    and `options`, such as `nonlinearity="relu"` or `dropout`.

    prefix: names end where it ends, as "encoder.lstm" of "encoder.lstm.weight_ih_l0"; without it
    the mapping must hold one recurrent layer and nothing else. A sequence of prefixes and modules
    makes a `Chain`: `["embed", "lstm", rnncore.Dropout(), "out"]`. There a prefix may also name a
    Linear, a LayerNorm or, as the first, an Embedding.

    verify: True, an input x, or a pair (x, y): compare with the NumPy reference or with y, call
    `report` with the largest difference, raise `ValueError` if it is too large.
    """
    state = _read(source)
    with nullcontext() if isinstance(source, Mapping) else reading(source, damage=(ValueError,)):
        module = _module(state, prefix, cell, batch_first, dtype, options)
    _verify(module, verify, report)
    return module


def _module(
    state: dict[str, Array],
    prefix: str | Sequence[str | Module] | None,
    *settings: Any,
) -> Any:
    names = [prefix] if isinstance(prefix, str) else prefix
    if names is None:
        names = [_only_prefix(state)]
    return common.chain_of(
        [
            _layer(state, name, at == 0, *settings) if isinstance(name, str) else name
            for at, name in enumerate(names)
        ]
    )


def to_torch_state_dict(
    module: Module, prefix: str = "", *, verify: Verify = None, report: Report = print
) -> dict[str, Array]:
    """Return copies of a module's parameters under the names that torch.nn gives them.

    Recurrent layers and their cells, Linear, Embedding, LayerNorm; a `Chain` as torch.nn.Sequential
    names its parts; `Bidirectional` of two plain layers as one with both directions. A variant that
    torch.nn lacks raises `ValueError` naming it. Weights in fewer bits become float32, which is
    exact. verify: as `from_torch`; the reference reads these very arrays.
    """
    module = dequantized(module)
    state = dict(_entries(module, f"{prefix}." if prefix else ""))
    _verify(module, verify, report)
    return state


def _read(source: State | str | os.PathLike[str]) -> dict[str, Array]:
    if isinstance(source, Mapping):
        return {name: _array(name, value) for name, value in source.items()}
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "source must be a state_dict, arrays by their names, or the path of a file; "
            f"got {type(source).__name__}"
        )
    if os.fspath(source).lower().endswith((".pt", ".pth", ".bin", ".ckpt")):
        raise ValueError(
            f"{os.fspath(source)}: pickles run code and are not read; save the state_dict as "
            ".safetensors, or give it as a mapping of names to arrays"
        )
    return load_arrays(source)[0]


def _array(name: str, value: Any) -> Array:
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.float()  # which is exact; NumPy has no bfloat16
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name!r} cannot be read as an array: {one_line(error)}") from error


def _only_prefix(state: dict[str, Array]) -> str:
    """The prefix of the only recurrent layer; raises naming the entries that are not its own."""
    matches = {name: _RECURRENT.fullmatch(name) for name in state}
    found = list(dict.fromkeys(m[1] for m in matches.values() if m))
    others = [name for name, match in matches.items() if not match]
    _check_given([name for name in others if _RECURRENT.match(name)])
    if len(found) != 1 or others:
        layers = listed(name.removesuffix(".") for name in found)
        raise ValueError(
            f"give a prefix, or a sequence of them: recurrent layers are {layers}; "
            f"other entries are {listed(others)}"
        )
    return found[0]


def _layer(
    state: dict[str, Array],
    prefix: str,
    is_first: bool,
    cell: str | None,
    batch_first: bool,
    dtype: npt.DTypeLike | None,
    options: dict[str, Any],
) -> Module:
    start = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    own = {
        name[len(start) :]: common.as_floats(repr(name), array)
        for name, array in state.items()  # others, such as counters, need not be floats
        if name.startswith(start)
    }
    if not own:
        raise ValueError(f"no entry begins with {start!r}; there are {listed(state)}")
    dtype = common.dtype_of(own.values(), dtype)
    _check_given([start + name for name in own])
    if "weight" in own:
        return _plain(start, own, is_first, dtype)
    strange = [start + name for name in own if not _own_name(name)]
    if strange:
        raise refusal("rnncore", f"the entries {', '.join(strange)}")
    return _recurrent(start, own, cell, batch_first, dtype, options)


def _check_given(names: Sequence[str]) -> None:
    """Refuse entries of weight_norm and other parametrizations: they are not the weights."""
    computed = [name for name in names if _COMPUTED.fullmatch(name)]
    if computed:
        raise ValueError(
            f"the entries {one_line(', '.join(computed), 200)} are of weight_norm or another "
            "parametrization: before state_dict() call torch.nn.utils.remove_weight_norm(module, "
            "name), or torch.nn.utils.parametrize.remove_parametrizations(module, name), for each "
            "weight that has one"
        )


def _own_name(name: str) -> bool:
    match = _RECURRENT.fullmatch(name)
    return bool(match) and not match[1]  # type: ignore[index]


def _plain(start: str, own: dict[str, Array], is_first: bool, dtype: Any) -> Module:
    """A Linear, an Embedding or a LayerNorm."""
    weight = own["weight"]
    if not own.keys() <= {"weight", "bias"} or weight.ndim not in (1, 2):
        raise refusal("rnncore", f"the layer of {', '.join(start + name for name in own)}")
    if weight.ndim == 1:
        return common.filled(LayerNorm(weight.shape[0], dtype=dtype), own)  # type: ignore[no-any-return]
    rows, columns = weight.shape
    if is_first and "bias" not in own:
        return common.filled(Embedding(rows, columns, dtype=dtype), own)  # type: ignore[no-any-return]
    linear = Linear(columns, rows, "bias" in own, dtype=dtype)
    return common.filled(linear, own)  # type: ignore[no-any-return]


def _recurrent(
    start: str,
    own: dict[str, Array],
    cell: str | None,
    batch_first: bool,
    dtype: Any,
    options: dict[str, Any],
) -> Module:
    is_cell = "weight_ih" in own
    suffix = "" if is_cell else "_l0"
    for needed in (f"weight_ih{suffix}", f"weight_hh{suffix}"):
        if needed not in own or own[needed].ndim != 2:
            raise ValueError(f"{start}{needed} must be there, a matrix")
    projection = own.get(f"weight_hr{suffix}")
    rows, size = own[f"weight_ih{suffix}"].shape
    hidden = (own[f"weight_hh{suffix}"] if projection is None else projection).shape[1]
    kind = _kind(start, rows, hidden, cell)
    common_options = {"bias": f"bias_ih{suffix}" in own, "dtype": dtype} | options
    if projection is not None:
        common_options["proj_size"] = len(projection)
    if is_cell:
        return common.filled(STEPS[kind](size, hidden, **common_options), own)  # type: ignore[no-any-return]
    layers = len(list(itertools.takewhile(lambda n: f"weight_ih_l{n}" in own, itertools.count())))
    layer = LAYERS[kind](
        size,
        hidden,
        layers,
        bidirectional="weight_ih_l0_reverse" in own,
        batch_first=batch_first,
        **common_options,
    )
    return common.filled(layer, own)  # type: ignore[no-any-return]


def _kind(start: str, rows: int, hidden: int, cell: str | None) -> str:
    """The class by the number of gates."""
    kinds = {len(gates): name for name, gates in GATES.items()}
    kind = kinds.get(rows // hidden if hidden and rows % hidden == 0 else 0)
    if cell is not None and cell not in GATES:
        raise ValueError(f"cell must be one of {', '.join(GATES)}, got {cell!r}")
    if kind is None or cell not in (None, kind):
        raise ValueError(
            f"{start or 'the'} weights have {rows} rows for {hidden} hidden units: "
            f"no {cell or 'RNN, GRU or LSTM'}"
        )
    return kind


def _entries(module: Module, start: str) -> Iterator[tuple[str, Array]]:
    """A module's parameters under torch's names."""
    if isinstance(module, Chain):
        for name, child in module.children():
            yield from _entries(child, f"{start}{name}.")
    elif isinstance(module, Bidirectional):
        yield from _both_directions(module, start)
    elif type(module) in (Linear, Embedding, LayerNorm):
        yield from ((start + name, array.copy()) for name, array in module.params.items())
    elif not isinstance(module, (Dropout, Activation)):
        _check_torch(module)
        yield from ((start + name, array.copy()) for name, array in module.params.items())


def _both_directions(module: Bidirectional, start: str) -> Iterator[tuple[str, Array]]:
    parts = [module.forward, module.backward]
    for part in parts:
        _check_torch(part)
    ahead, behind = parts
    alike = type(ahead) is type(behind) and all(
        isinstance(part, Stacked) and part.num_layers == 1 and not part.bidirectional
        for part in parts
    )
    shapes = [{name: array.shape for name, array in part.params.items()} for part in parts]
    if module.merge != "concat" or not alike or shapes[0] != shapes[1]:
        raise refusal("torch.nn", "a Bidirectional but of two equal single layers side by side")
    yield from ((start + name, array.copy()) for name, array in ahead.params.items())
    yield from ((f"{start}{name}_reverse", array.copy()) for name, array in behind.params.items())


def _check_torch(module: Module) -> None:
    if isinstance(module, tuple(STEPS[cell] for cell in GATES)):
        assert isinstance(module, Step)
        found = common.features(module)
        for name, value in found.items():
            raise refusal("torch.nn", f"{type(module).__name__} with {name}={value!r}")
    else:
        common.check_representable("torch.nn", module, ("proj_size",))
    nonlinearity = getattr(module, "nonlinearity", "tanh")
    if nonlinearity not in ("tanh", "relu"):
        raise refusal("torch.nn", f"RNN with nonlinearity={nonlinearity!r}")


def _verify(module: Any, verify: Verify, report: Report) -> None:
    if verify is not None and verify is not False:
        state = {name: array.astype(np.float64) for name, array in _entries(module, "")}
        common.verify_module(module, verify, lambda x: _reference(module, state, x), report)


def _reference(module: Any, state: dict[str, Array], x: Array) -> Array:
    """What torch's modules of these names compute, in plain NumPy."""
    if isinstance(module, Chain):
        for name, layer in module.children():
            start = f"{name}."
            own = {n.removeprefix(start): a for n, a in state.items() if n.startswith(start)}
            x = _reference(layer, own, x)
        return x
    if isinstance(module, Embedding):
        return np.asarray(state["weight"][x])
    if isinstance(module, Linear):
        return np.asarray(x @ state["weight"].T + state.get("bias", 0))
    if isinstance(module, LayerNorm):
        norm = LayerNorm(module.normalized_shape, module.eps, dtype="float64")
        return np.asarray(common.filled(norm, state)(x))
    return _recurrence(module, state, x) if module.recurrent else np.asarray(module(x))


def _recurrence(module: Any, state: dict[str, Array], x: Array) -> Array:
    """A layer, a cell, or a `Bidirectional` under the names of a layer in both directions."""
    one: Any = module.forward if isinstance(module, Bidirectional) else module
    cell = reference.CELLS[one.cell.kernel]
    if isinstance(one, Step):
        named = {f"{name}_l0": array for name, array in state.items()}
        return np.asarray(forward(cell, named, x[None])[0][0])
    x = x.swapaxes(0, 1) if module.batch_first else x
    both = one is not module or module.bidirectional
    y, _, _ = forward(cell, state, x, num_layers=one.num_layers, bidirectional=both)
    return np.asarray(y.swapaxes(0, 1) if module.batch_first else y)
