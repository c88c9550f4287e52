"""What a state_dict is read from: a mapping, or a file by its suffix. No code in a file runs."""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from ...arrays import Array, load_arrays
from ...files import DAMAGE, reading
from ..archives import unpacked
from ..budget import Budget
from ..json_files import read_json

Path: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = Mapping[str, Any] | Path

#: The first version of torch whose `weights_only` lets no code through.
_SAFE = (2, 6)
#: What zipfile and torch raise of a file that is damaged.
_DAMAGE = (*DAMAGE, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)


def read(source: Source) -> dict[str, Any]:
    """Return the entries of a state_dict; mappings within it are flattened to dotted names.

    Values are as they were given, to be read as arrays when they are used.
    """
    if isinstance(source, Mapping):
        return dict(_flat(source))
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "source must be a state_dict, arrays by their names, or the path of a file; "
            f"got {type(source).__name__}"
        )
    reader = _READERS.get(os.path.splitext(os.fspath(source))[1].lower())
    if reader is None:
        return load_arrays(source)[0]
    if not os.path.isfile(source):
        raise FileNotFoundError(f"no such model file: {os.fspath(source)}")
    with reading(source, " cannot be read as a state_dict", damage=_damage()):
        return dict(_flat(reader(source)))


def _damage() -> tuple[type[Exception], ...]:
    import pickle  # here, not above: for what torch raises

    return (*_DAMAGE, pickle.UnpicklingError)


def _flat(values: Any, start: str = "", depth: int = 32) -> Iterator[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        raise ValueError(f"it holds a {type(values).__name__}, and no arrays by their names")
    if not depth:
        raise ValueError(f"{start!r:.80} lies too deep")
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{start}{name}.", depth - 1)
        else:
            yield f"{start}{name}", value


def _npz(path: Path) -> dict[str, Array]:
    budget = Budget(os.path.getsize(path))
    with zipfile.ZipFile(path) as archive:
        return {
            info.filename.removesuffix(".npy"): _npy(info.filename, unpacked(archive, info, budget))
            for info in archive.infolist()
        }


def _npy(name: str, data: bytes) -> Array:
    """Read an array of NumPy's own format; its shape asks for no more than the bytes there are."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in headers:
        raise ValueError(f"{name} is of the format's version {version}, which is not read")
    try:
        shape, by_columns, dtype = headers[version](file)
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"{name} has a damaged header: {error}") from error
    if dtype.hasobject:
        raise ValueError(f"{name} is a pickle, which is not read")
    rest = data[file.tell() :]
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{name}: {len(rest)} bytes are not shape {shape!s:.80} of {dtype}")
    array = np.frombuffer(rest, dtype)
    return array.reshape(shape[::-1]).T if by_columns else array.reshape(shape)


def _pickled(path: Path) -> Any:
    """Read a file of torch.save by torch itself, which runs no code with `weights_only`."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ValueError(
                    "it is a TorchScript archive, which is code and not read: if you trust it, give"
                    " torch.jit.load(path).state_dict() instead of the path"
                )
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {os.fspath(path)} needs torch: pip install 'rnncore[torch]', "
            "or save the state_dict as .safetensors"
        ) from error
    if tuple(map(int, torch.__version__.split(".")[:2])) < _SAFE:
        raise ImportError(
            f"reading {os.fspath(path)} needs torch {'.'.join(map(str, _SAFE))} or newer, "
            f"whose weights_only runs no code; this is {torch.__version__}"
        )
    return torch.load(path, map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": _npz,
    ".json": read_json,
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".jit"), _pickled),
}
