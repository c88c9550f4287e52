"""Golden Keras models with something changed in their configuration."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"
Change = Callable[[list[dict[str, Any]], dict[str, Any]], object]


def changed(tmp_path: Path, name: str, change: Change) -> Path:
    """A copy of a golden `.keras` file, its layers and its whole configuration changed."""
    pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
    path = tmp_path / "changed.keras"
    with zipfile.ZipFile(GOLDEN / name) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry == "config.json":
                config = json.loads(data)
                change(config["config"]["layers"], config)
                data = json.dumps(config).encode()
            new.writestr(entry, data)
    return path


def settings(at: int | str, **values: Any) -> Change:
    """Change settings of a layer, by its number or, in whatever depth, of the first of a class."""
    return lambda layers, _: found(layers, at)["config"].update(values)


def called(at: int | str, **values: Any) -> Change:
    """Change the keywords of a layer's first call."""
    return lambda layers, _: found(layers, at)["inbound_nodes"][0]["kwargs"].update(values)


def kind(at: int | str, name: str) -> Change:
    """Change the class of a layer."""
    return lambda layers, _: found(layers, at).update(class_name=name)


def found(layers: list[dict[str, Any]], at: int | str) -> dict[str, Any]:
    """A layer's entry."""
    if isinstance(at, int):
        return layers[at]
    return next(entry for entry in entries(layers) if entry["class_name"] == at)


def entries(value: Any) -> Iterator[dict[str, Any]]:
    """The entries of all layers in a configuration, those within others behind them."""
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            yield value
        for part in value.values():
            yield from entries(part)
    elif isinstance(value, list):
        for part in value:
            yield from entries(part)
