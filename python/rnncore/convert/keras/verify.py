"""Converted models against the reference in Keras's letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...arrays import Array
from ...compositions.masked import Masked
from ...reference import keras as reference
from ...reference.keras import KerasLayer, KerasModel
from .. import common
from ..budget import Budget
from ..common import Report, Verify, shown


def verify_layers(
    module: Any, layers: Sequence[KerasLayer], batch_first: bool, verify: Verify, report: Report
) -> None:
    """Check a module against layers one after the other, if that is asked for."""
    verify_model(module, reference.line(layers), batch_first, verify, report)


def verify_model(
    module: Any, model: KerasModel, batch_first: bool, verify: Verify, report: Report
) -> None:
    """Check a module against its model, if that is asked for.

    Of several inputs x is a list, of several outputs y.
    """
    if verify is None or verify is False:
        return
    x, y = _given(module, model, verify)
    found = module(*x)
    mine = _as_list(found[0] if module.recurrent else found)
    if y is not None:
        common.check("the outputs given", mine, [np.asarray(one) for one in _as_list(y)], report)
        return
    if isinstance(module, Masked) and verify is not True:
        raise ValueError("verify must be True or (x, y): the reference knows no masks")
    for layer in _layers(model):
        if layer.kind == "Custom":
            raise ValueError(f"verify must be (x, y): of {shown(layer.name)} there is no reference")
    wide = [one if one.dtype.kind in "iu" else one.astype(np.float64) for one in x]
    want = reference.run(model, [_turned(one, batch_first) for one in wide])
    common.check("the NumPy reference", mine, [_outputs(o, batch_first) for o in want], report)


def _given(module: Any, model: KerasModel, verify: Verify) -> tuple[list[Array], Any]:
    if len(model.inputs) == 1:
        x, y = common.input_and_output(verify, lambda: _random(module, model)[0])
        return [x], y
    if verify is True:
        return _random(module, model), None
    xs, y = verify if isinstance(verify, tuple) else (verify, None)
    return [np.asarray(x) for x in xs], y


def _random(module: Any, model: KerasModel) -> list[Array]:
    """Draw inputs of the shapes that the model tells; sizes that it leaves open are 3 and 7."""
    if any(own.shape is None for own in model.inputs):
        return [common.random_input(module)]
    rng, budget, xs = np.random.default_rng(0), Budget(0), []
    for own in model.inputs:
        batch, *sizes = own.shape or ()
        shape = (3 if batch is None else batch, *(7 if size is None else size for size in sizes))
        budget.take(f"the input {shown(own.name)}", shape, 8)
        count = _indices(model, own.name)
        wanted = np.float32 if module.dtype is None else module.dtype
        x = rng.integers(1, max(2, count), shape) if count else rng.standard_normal(shape)
        xs.append(x if count else x.astype(wanted))
    return xs


def _indices(model: KerasModel, name: str) -> int:
    """Of how many rows the table is that an input names rows of; 0 if it holds features."""
    for node in model.nodes:
        if (name, 0) not in node.reads:
            continue
        layer = node.layer
        while layer.kind == "TimeDistributed":
            layer = layer.config["layer"]
        if layer.kind == "Embedding":
            return len(layer.weights[0])
        if layer.kind == "Model":
            inner = layer.config["model"]
            return _indices(inner, inner.inputs[node.reads.index((name, 0))].name)
    return 0


def _layers(model: KerasModel) -> Iterator[KerasLayer]:
    for node in model.nodes:
        layer = node.layer
        while layer.kind == "TimeDistributed":
            layer = layer.config["layer"]
        yield layer
        if layer.kind == "Model":
            yield from _layers(layer.config["model"])


def _turned(x: Array, batch_first: bool) -> Array:
    """An input with the batch first, as the reference has it."""
    return x if batch_first else x.swapaxes(0, 1)


def _outputs(y: Array, batch_first: bool) -> Array:
    return y if batch_first or y.ndim < 3 else y.swapaxes(0, 1)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]
