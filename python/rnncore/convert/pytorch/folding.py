"""Weights that torch computes from others: weight_norm, computed here once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...arrays import Array
from ...files import one_line
from .values import floats

#: Names of entries from which torch computes weights: of the older utilities and of the newer.
_OLD = re.compile(r"(.*(?:weight|bias)\w*)_([gv])")
_NEW = re.compile(r"((?:.*\.)?)parametrizations\.(\w+)\.(.*)")


def folded(entries: Mapping[str, Any], dtype: npt.DTypeLike | None) -> dict[str, Any]:
    """Put weights in the place of their lengths and directions (Salimans and Kingma 2016).

    Those of `torch.nn.utils.weight_norm` and of `parametrizations.weight_norm`; what other
    parametrizations are made of stays.
    """
    found: dict[str, dict[str, str]] = {}
    for name in entries:
        part = _part(name)
        if part is not None:
            weight, kind = part
            found.setdefault(weight, {})[kind] = name
    result = dict(entries)
    for weight, parts in found.items():
        if parts.keys() == {"g", "v"} and weight not in entries:
            g, v = (floats(repr(parts[kind]), result.pop(parts[kind]), dtype) for kind in "gv")
            result[weight] = _weight(weight, g, v)
    return result


def _part(name: str) -> tuple[str, str] | None:
    """The weight that an entry is made into, and what it is to it."""
    new, old = _NEW.fullmatch(name), _OLD.fullmatch(name)
    if new:
        return new[1] + new[2], {"original0": "g", "original1": "v"}.get(new[3], new[3])
    return (old[1], old[2]) if old else None


def _is_value(name: str, names: list[str]) -> bool:
    """Whether an entry is no direction of a bias, but what MultiheadAttention adds to values."""
    return name.endswith("bias_v") and f"{name[:-1]}k" in names


def check_folded(names: list[str]) -> None:
    """Refuse entries of other parametrizations: they are not the weights."""
    computed = [name for name in names if _part(name) and not _is_value(name, names)]
    if computed:
        raise ValueError(
            f"the entries {one_line(', '.join(computed), 200)} are of a parametrization other than "
            "weight_norm: before state_dict() call "
            "torch.nn.utils.parametrize.remove_parametrizations(module, name), for each weight "
            "that has one"
        )


def _weight(name: str, g: Array, v: Array) -> Array:
    """g v / |v|, where |v| is taken over the axes along which there is one g."""
    axes = tuple(n for n, size in enumerate(g.shape or v.shape) if size == 1 or not g.shape)
    if g.ndim not in (0, v.ndim) or any(
        g.shape[n] != v.shape[n] for n in range(g.ndim) if n not in axes
    ):
        raise ValueError(
            f"{name!r} is of weight_norm: its length has shape {g.shape}, its direction {v.shape}"
        )
    wide = v.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # of no direction: torch gives NaN, too
        wide /= np.abs(wide).max(axis=axes, keepdims=True, initial=0)  # so that squares are finite
        wide *= g.astype(np.float64) / np.sqrt((wide**2).sum(axis=axes, keepdims=True))
    return wide.astype(np.result_type(g, v))
