"""Recurrent layers of a configuration, with their arrays, in our terms."""

from __future__ import annotations

from typing import Any

from ...arrays import Array
from ...reference.keras import KerasLayer
from ..common import refusal, shown
from .arrays import Entry
from .calls import check_origin
from .cudnn import plain_weights
from .given import Given
from .others import OTHERS
from .settings import CELL_CLASSES, CELLS, check_settings, plain, translated


def recurrent(given: Given) -> KerasLayer:
    """Return a layer in one direction."""
    weights = plain_weights(given.kind, given.arrays)
    own = _checked_reset(given.who, given.settings() | _beyond(given), weights)
    return KerasLayer(plain(given.kind), given.name, own, weights)


def _beyond(given: Given) -> dict[str, Any]:
    """What a class of another package does beyond Keras's, as settings; else nothing."""
    if given.kind not in OTHERS:
        return {}
    other = OTHERS[given.kind]
    for name, value in other.where.items():
        if bool(given.config.get(name)) != value:
            raise given.refuse(f"with {name}={shown(given.config.get(name))}")
    return other.own


def cells(given: Given) -> list[KerasLayer]:
    """Return an RNN of a cell, or of cells on one another: a layer for each."""
    cell, arrays = given.config["cell"], given.arrays
    stacked = cell["class_name"] == "StackedRNNCells"
    every = cell["config"]["cells"] if stacked else [cell]
    if not every:
        raise given.refuse("of no cells")
    run = {key: given.config.get(key) for key in ("return_state", "go_backwards")}
    if stacked and any(run.values()):
        raise given.refuse(f"of several cells with {shown(run)}")
    found = []
    for at, one in enumerate(every):
        kind = _class_of_cell(given.who, one)
        own = translated(kind, one["config"], given.context.version) | run
        own["return_sequences"] = given.config.get("return_sequences") or at < len(every) - 1
        count = 3 if own.get("use_bias", True) else 2
        weights, arrays = arrays[:count], arrays[count:]
        own = _checked_reset(given.who, own, weights)
        found.append(
            KerasLayer(kind, f"{given.name}/{at}" if stacked else given.name, own, weights)
        )
    if arrays:
        raise ValueError(f"{given.who} has {len(arrays)} arrays more than its cells take")
    return found


def _class_of_cell(who: str, cell: Entry) -> str:
    """The layer that a cell makes; `ValueError` if it is none of Keras's, or not as they are."""
    check_origin(cell)
    kind = cell["class_name"]
    if kind not in CELL_CLASSES:
        raise refusal("rnncore", f"{who} of {kind}")
    check_settings(CELL_CLASSES[kind], cell["config"])
    return CELL_CLASSES[kind]


def bidirectional(given: Given) -> KerasLayer:
    """Return both directions; a backward layer that is not told is the forward's like."""
    ahead = given.config["layer"]
    behind = given.config.get("backward_layer") or ahead
    half = len(given.arrays) // 2
    parts, weights = [], list[Array]()
    for part, backwards in ((ahead, False), (behind, True)):
        kind, own = _direction(given, part)
        if bool(own.get("go_backwards")) != (backwards and part is not ahead):
            raise given.refuse("whose layers run the other way")
        settings = translated(kind, own, given.context.version) | {"go_backwards": backwards}
        mine = plain_weights(kind, given.arrays[half:] if backwards else given.arrays[:half])
        parts.append((plain(kind), _checked_reset(given.who, settings, mine)))
        weights += mine
    states = any(settings["return_state"] for _, settings in parts)
    both = {"parts": parts, "merge_mode": given.config["merge_mode"], "return_state": states}
    return given.as_layer(both, weights)


def _direction(given: Given, part: Entry) -> tuple[str, dict[str, Any]]:
    """The class and settings of one direction, those of a cell as of its layer."""
    check_origin(part)
    kind, own = part["class_name"], part["config"]
    if kind == "RNN":
        check_settings(kind, own)
        run = {key: value for key, value in own.items() if key != "cell"}
        return _class_of_cell(f"{given.who} of RNN", own["cell"]), run | own["cell"]["config"]
    if plain(kind) not in CELLS or kind in OTHERS:
        raise given.refuse(f"of {kind}")
    check_settings(kind, own)
    return kind, own


def _checked_reset(who: str, config: dict[str, Any], weights: list[Array]) -> dict[str, Any]:
    """Refuse a GRU whose bias is that of the other kind."""
    if len(weights) > 2 and (weights[2].ndim == 2) != bool(config["reset_after"]):
        raise ValueError(
            f"{who} with reset_after={config['reset_after']} has a bias of shape {weights[2].shape}"
        )
    return config
