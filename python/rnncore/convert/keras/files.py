"""Saved Keras models: configuration as JSON, arrays as HDF5; nothing in them is executed."""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .. import common
from ..archives import unpacked
from ..budget import RATIO, Budget
from ..hdf5 import Hdf5, opened
from .arrays import Entry, Source, source_of
from .settings import Version

_ARRAYS, _CONFIG, _METADATA = "model.weights.h5", "config.json", "metadata.json"
_WEIGHTS = "model_weights"

#: What a damaged file makes h5py, zipfile and json raise.
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, UnicodeError, zipfile.BadZipFile, zlib.error),
    json.JSONDecodeError,
)


class Saved(NamedTuple):
    """An open file: a model, or weights alone, which nothing describes."""

    model: Entry | None
    version: Version  # of Keras
    file: Hdf5
    root: str  # where the groups of layers are, if they are under names

    def source(self) -> Source:
        """Return the model's arrays."""
        return source_of(self.file, self.root)


def readable(path: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Make one `ValueError` of all that a damaged file raises, while it is read and understood."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such model file: {os.fspath(path)}")
    return common.readable(os.fspath(path), "is not a readable Keras model", *_DAMAGE)


@contextmanager
def opened_model(
    path: str | os.PathLike[str], architecture: str | os.PathLike[str] | None
) -> Iterator[Saved]:
    """Open a `.keras` or `.h5` file; architecture: the `.json` that describes weights alone.

    Weights alone without it are described by the file of their name that ends in `.json` and not in
    `.h5` or `.weights.h5`, if there is one.
    """
    name, budget = os.fspath(path), Budget(os.path.getsize(path))
    zipped = zipfile.is_zipfile(path)
    described, data = _unzipped(name, budget) if zipped else (None, Path(name).read_bytes())
    with opened(data, budget) as file:
        root = _WEIGHTS if _WEIGHTS in file else ""
        model, version = described or _described(file, root, budget)
        beside = Path(re.sub(r"(\.weights)?\.\w+$", "", name) + ".json")
        if architecture is not None:
            model, version = _beside(architecture, version, budget)
        elif model is None and beside.is_file():
            model, version = _beside(beside, version, budget)
        yield Saved(model, Version.read(version), file, root)


def _unzipped(name: str, budget: Budget) -> tuple[tuple[Entry | None, Any], bytes]:
    """The configuration, the version and the arrays of a `.keras` file."""
    with zipfile.ZipFile(name) as archive:
        config = _parsed(_member(archive, _CONFIG, budget), budget)
        arrays = _member(archive, _ARRAYS, budget)
        metadata: dict[str, Any] = {}
        if _METADATA in archive.namelist():
            metadata = _parsed(_member(archive, _METADATA, budget), budget)
        return (config, metadata.get("keras_version")), arrays


def _member(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """Unpack one file of a .keras file."""
    if name not in archive.namelist():
        raise ValueError(f"it is no Keras model: it has no {name}")
    return unpacked(archive, archive.getinfo(name), budget)


def _described(file: Hdf5, root: str, budget: Budget) -> tuple[Entry | None, Any]:
    """The configuration of an `.h5` file, None of weights alone, and the version."""
    version = file.attribute("", "keras_version")
    version = file.attribute(root, "keras_version") if version is None and root else version
    if version is None and "layers" in file:  # weights alone of Keras 3
        version = "3"
    config = file.attribute("", "model_config")
    return (None if config is None else _parsed(config, budget)), version


def _beside(path: str | os.PathLike[str], version: Any, budget: Budget) -> tuple[Entry, Any]:
    """The configuration in a file of its own, and the version: its own, or that of the weights.

    Keras 3 does not write it there, but the modules of all classes.
    """
    if not os.path.isfile(path):
        raise ValueError(f"architecture is {os.fspath(path)!r}, which is no file")
    budget.add(os.path.getsize(path))
    config = _parsed(Path(path).read_bytes(), budget)
    return config, config.get("keras_version") or ("3" if "module" in config else version)


def _parsed(text: str | bytes, budget: Budget) -> Any:
    """What a text of JSON says: its objects are many times as large as it is."""
    budget.check("a configuration", (RATIO * len(text),))
    return json.loads(text)
