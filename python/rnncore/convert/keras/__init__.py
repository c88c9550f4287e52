"""Keras: lists of weights, files of weights, and saved models; made into modules."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt

from ...arrays import Array
from ...compositions.graph import Graph
from ...compositions.masked import Masked
from ...reference.keras import KerasModel, line
from ..common import Report, Verify, shown
from . import files, named
from .arrays import Entry, name_of
from .files import Saved
from .given import Context, Custom
from .lists import Options, from_names, from_weights
from .makers import from_model
from .masks import Masks
from .models import read_line, read_model
from .verify import verify_model

Path = str | os.PathLike[str]


def from_keras(
    source: Path | Sequence[npt.ArrayLike],
    cell: str | None = None,
    *,
    layer: str | Sequence[str] | None = None,
    architecture: Path | None = None,
    custom: Custom | None = None,
    activation: Any = None,
    recurrent_activation: Any = None,
    reset_after: bool | None = None,
    merge_mode: str | None = None,
    lengths: bool = False,
    batch_first: bool = True,
    dtype: npt.DTypeLike | None = None,
    verify: Verify = None,
    report: Report = print,
) -> Any:
    """Make a module of Keras weights, or of a saved model: a `.keras` or `.h5` file.

    Weights: what `layer.get_weights()` gives for a SimpleRNN, LSTM or GRU, or for a Bidirectional
    of one (the backward layer's after the forward's), on cuDNN or not. The class is read off the
    shapes, or told by `cell`: "rnn", "lstm", "gru"; `reset_after` is read off the bias and needed
    only without one. Activations are Keras's names, or rnncore's with constants: ("hard_sigmoid",
    0.2, 0.5) is that of Keras 2, the name alone that of Keras 3. The layer returns whole sequences.

    A file (h5py reads it, the extra "convert") holds a model, or weights alone. Weights alone are
    described by `architecture`, the `.json` that `to_json` writes, or by the `.json` of the same
    name beside them. layer: the name of a layer, or several one after the other, of which alone a
    module is made; without a description the arguments above say what its arrays do not.

    A model becomes a `Chain`, or the layer alone; a `Graph` where it has branches, several inputs
    or outputs; in a `Masked` where it makes masks. A layer that returns its last output only is a
    `Readout`. Layers of classes that are not known, and settings, raise `ValueError` naming them,
    and so do links to other files and what asks for memory out of proportion to the file. Known are
    Keras's own, and the `ReversedLSTM` of rnnmorph. custom: what makes modules of layers of other
    classes, or of these, by their names, given a `KerasLayer` with `kind`, `name`, `config` and
    `weights`. lengths=True takes Masking and mask_zero for granted: the caller
    gives `lengths` in the place of masks.

    What concerns training alone (initialisers, dropout inside of layers, noise) is left behind.
    verify: as `from_torch`, lists of several inputs or outputs; the reference computes in Keras's
    letters.
    """
    options = Options(cell, activation, recurrent_activation, reset_after, merge_mode)
    if isinstance(source, (str, os.PathLike)):
        with files.readable(source), files.opened_model(source, architecture) as saved:
            context = Context(saved.version[0], custom or {})
            model, masks = _read(saved, layer, options, context, Masks(lengths))
            module = _masked(from_model(model, batch_first, dtype), model, masks)
    elif not isinstance(source, Iterable):
        raise TypeError(
            "source must be what get_weights() gives, a list of arrays, or the path of a model; "
            f"got {type(source).__name__}"
        )
    else:
        model = line([from_weights(source, options)])
        module = from_model(model, batch_first, dtype)
    verify_model(module, model, batch_first, verify, report)
    return module


def keras_weights(path: Path) -> dict[str, dict[str, Array]]:
    """Return the arrays of a `.keras` or `.h5` file, by the names of layers and by their own.

    Of the files of Keras 3 (`.keras`, `.weights.h5`) layers have the names of their classes, as
    "lstm_1", and arrays numbers where their names are not known. Raises as `from_keras`.
    """
    with files.readable(path), files.opened_model(path, None) as saved:
        names = named.layer_names(saved.file, saved.root)
        found = {name: named.layer_arrays(saved.file, saved.root, name) for name in names}
        return {name: arrays for name, arrays in found.items() if arrays}


def _read(
    saved: Saved,
    layer: str | Sequence[str] | None,
    options: Options,
    context: Context,
    masks: Masks,
) -> tuple[KerasModel, Masks]:
    wanted = [layer] if isinstance(layer, str) else layer
    if saved.model is not None:
        options.check_none("a saved model, which tells its own")
        if wanted is None:
            return read_model(saved.model, saved.source(), context, masks), masks
        return _of_model(saved, saved.model, wanted, context), masks
    known = named.layer_names(saved.file, saved.root)
    if wanted is None:
        raise ValueError(
            "it holds weights and no model: give architecture=, a .json, or layer=, one of "
            + ", ".join(map(repr, known))
        )
    layers = []
    for name in wanted:
        _check_known(name, known)
        arrays = named.layer_arrays(saved.file, saved.root, name)
        layers.append(from_names(name, arrays, options, saved.version))
    return line(layers), masks


def _of_model(saved: Saved, model: Entry, wanted: Sequence[str], context: Context) -> KerasModel:
    """The layers that are wanted, one after the other."""
    config = model["config"]
    entries = config if isinstance(config, list) else config["layers"]
    names = [name_of(entry) for entry in entries]
    for name in wanted:
        _check_known(name, names)
    places, sources = [names.index(name) for name in wanted], saved.source().of_layers(entries)
    layers = read_line([entries[at] for at in places], [sources[at] for at in places], context)
    return line(layers)


def _check_known(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(f"layer must be one of {', '.join(map(repr, known))}, got {shown(name)}")


def _masked(module: Any, model: KerasModel, masks: Masks) -> Any:
    """Let inputs tell the lengths, as far as these count."""
    names = [own.name for own in model.inputs]
    ragged: Sequence[str] = names if module.recurrent or module.takes_lengths else ()
    ragged = module.ragged_inputs if isinstance(module, Graph) else ragged
    values = [masks.values.get(name) if name in ragged else None for name in names]
    return module if set(values) == {None} else Masked(module, values)
