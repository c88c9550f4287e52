"""Files changed so that some of them get far: bytes, JSON, safetensors, zip, HDF5 and ONNX."""

from __future__ import annotations

import copy
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from random import Random
from typing import Any

import numpy as np

from .hostile import NUMBERS, STRINGS

Mutation = Callable[[Random, bytes], bytes]


def some(luck: Random) -> int:
    """A small count, mostly one."""
    return luck.choice((1, 1, 1, 2, 3, 6))


# Bytes


def raw(luck: Random, data: bytes) -> bytes:
    """Cut off, or with bytes changed, put in, taken out or moved, mostly near the front."""
    changed = bytearray(data)
    for _ in range(some(luck)):
        reach = luck.choice((8, 64, 512, len(changed)))
        at = luck.randrange(max(1, min(reach, len(changed))))
        until = at + luck.choice((1, 2, 4, 8, 32))
        match luck.randrange(7):
            case 0:
                del changed[luck.randrange(len(changed) + 1) :]
            case 1:
                changed[at:until] = luck.randbytes(until - at)
            case 2:
                changed[at : at + 1] = bytes(
                    (luck.choice(changed or b"\0") ^ 1 << luck.randrange(8),)
                )
            case 3:
                number = luck.choice((0, 1, 127, 128, 255, 1 << 15, 1 << 31, 1 << 32, 1 << 62, -1))
                size = luck.choice((1, 2, 4, 8))
                changed[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
            case 4:
                del changed[at:until]
            case 5:
                changed[at:at] = changed[luck.randrange(len(changed) + 1) :][: until - at]
            case _:
                pool = b'0123456789[]{},":-ntfeE.'
                changed[at : at + 1] = bytes((luck.choice(pool),))
    return bytes(changed)


# JSON

#: Stands in a tree for what `json` does not write: text of many brackets.
_DEEP = "\x01deep"


class Twice(dict[str, Any]):
    """Written with its last entry given twice, the first time with another value."""

    def items(self) -> Any:
        *rest, last = super().items()
        return [*rest, (last[0], None), last]


def tree(luck: Random, value: Any) -> Any:
    """A copy of a JSON value with some parts replaced, moved, dropped, renamed or nested."""
    value = copy.deepcopy(value)
    for _ in range(some(luck)):
        places = [at for at in _places(value) if at]
        if not places:
            return luck.choice(NUMBERS + STRINGS)
        *way, last = luck.choice(places)
        holder = value
        for key in way:
            holder = holder[key]
        _change(luck, holder, last, value, places)
    return value


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to everything within a JSON value, but not to all numbers of an array."""
    yield at
    inner = list(value.items()) if isinstance(value, dict) else []
    inner = list(enumerate(value))[:4] if isinstance(value, list) else inner
    for key, part in inner:
        yield from _places(part, (*at, key))


def _change(luck: Random, holder: Any, last: Any, whole: Any, places: list[Any]) -> None:
    match luck.randrange(9):
        case 0:
            del holder[last]
        case 1:
            other = whole
            for key in luck.choice(places)[: luck.randint(1, 5)]:
                if not isinstance(other, (dict, list)) or (
                    isinstance(other, list) and key >= len(other)
                ):
                    break
                other = other[key] if isinstance(other, list) else other.get(key, other)
            holder[last] = copy.deepcopy(other)
        case 2 if isinstance(holder, dict):
            holder[str(luck.choice(STRINGS))] = holder.pop(last)
        case 2:
            holder.insert(last, copy.deepcopy(holder[last]))
        case 3 if isinstance(holder[last], dict) and holder[last]:
            holder[last] = Twice(holder[last])
        case 4:
            holder[last] = luck.choice(([holder[last]], {"a": holder[last]}, _DEEP))
        case 5 if type(holder[last]) is int:
            holder[last] += luck.choice((-3, -1, 1, 3)) * luck.choice((1, 8, 1 << 30))
        case _:
            holder[last] = copy.deepcopy(
                luck.choice(NUMBERS + STRINGS + [None, True, [], {}, [[]]])
            )


def dumps(luck: Random, value: Any) -> bytes:
    """JSON, with brackets too deep for most readers where that is asked for."""
    depth = luck.choice((10, 90, 300, 990, 100_000))
    text = json.dumps(value).replace(json.dumps(_DEEP), "[" * depth + "]" * depth)
    return text.encode()


def json_of(luck: Random, data: bytes) -> bytes:
    """A file of JSON."""
    return dumps(luck, tree(luck, json.loads(data)))


# safetensors


def safetensors(luck: Random, data: bytes) -> bytes:
    """Another header, or other metadata, which are JSON in JSON, or bytes after the header."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = header.get("__metadata__", {})
    match luck.randrange(4):
        case 0:
            header = tree(luck, header)
        case 1:
            body = raw(luck, body) if body else body
        case _ if metadata:
            key = luck.choice(list(metadata))
            with suppress(json.JSONDecodeError):  # text that is no JSON, as torch's files have it
                metadata[key] = dumps(luck, tree(luck, json.loads(metadata[key]))).decode()
        case _:
            header = tree(luck, header)
    text = json.dumps(header).encode()
    return (len(text) + luck.choice((0, 0, 0, 0, 1, -1))).to_bytes(8, "little") + text + body


# zip


@cache
def _zeros() -> bytes:
    """A deflated stream of 64 MB, which is 64 KB."""
    return bytes(1 << 26)


def archive(inside: Callable[[str], Mutation]) -> Mutation:
    """A zip whose entries are changed as `inside` says of their names, dropped or doubled."""

    def change(luck: Random, data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            entries = [(name, source.read(name)) for name in source.namelist()]
        at = luck.randrange(len(entries))
        name, content = entries[at]
        match luck.randrange(12):
            case 0:
                del entries[at]
            case 1:
                entries.append((name, inside(name)(luck, content)))
            case 2:
                entries[at] = luck.choice(STRINGS) or "_", content
            case 3 if luck.random() < 0.1:
                entries[at] = name, _zeros()
            case _:
                entries[at] = name, inside(name)(luck, content)
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
            for name, content in entries:
                target.writestr(zipfile.ZipInfo(name), content)
        return written.getvalue()

    return change


# HDF5


def hdf5(luck: Random, data: bytes) -> bytes:
    """Objects of a file taken out, replaced, linked elsewhere, or grown beyond what is there."""
    import h5py

    held = io.BytesIO(data)
    with h5py.File(held, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(some(luck)):
            with suppress(OSError, KeyError, RuntimeError):  # what was changed before is in the way
                _change_object(luck, file, luck.choice(names), names)
    return held.getvalue()


def _change_object(luck: Random, file: Any, name: str, names: list[str]) -> None:
    import h5py

    kind = luck.randrange(9)
    attributes = list(file[name].attrs)
    if kind < 4 and attributes:
        key = luck.choice(attributes)
        value = file[name].attrs[key]
        text = value.decode() if isinstance(value, bytes) else value
        if isinstance(text, str) and text[:1] in "{[":
            file[name].attrs[key] = np.bytes_(dumps(luck, tree(luck, json.loads(text)))[:60_000])
        else:
            file[name].attrs[key] = luck.choice((*_STRANGE_ARRAYS, *STRINGS[:3], 3))
        return
    shape = getattr(file[name], "shape", (2,))
    del file[name]
    match kind:
        case 4:
            file[name] = luck.choice(_STRANGE_ARRAYS)
        case 5:  # a shape and no bytes
            file.create_dataset(
                name, (1 << luck.choice((10, 26, 33)), *shape[1:]), "f4", chunks=True
            )
        case 6:
            file[name] = h5py.SoftLink(luck.choice((f"/{name}", *names, "/nowhere")))
        case 7:
            file[name] = h5py.ExternalLink(luck.choice(("/etc/hostname", "no.h5")), "/")
        case 8:
            files = [("/etc/passwd", 0, 4 * int(np.prod(shape)))]
            file.create_dataset(name, shape, "f4", external=files)


_STRANGE_ARRAYS = [
    np.zeros((3, 4), np.float32),
    np.zeros(0, np.float32),
    np.full((4, 12), np.nan, np.float64),
    np.arange(6, dtype=np.int8),
    np.float32(1),
    np.bytes_("text"),
    np.zeros(3, [("a", "f4"), ("b", "i4")]),
    np.zeros((2, 2), np.complex64),
]


def compressed(luck: Random, data: bytes) -> bytes:
    """A data set of zeros behind a filter: small where it lies, large where it is read."""
    import h5py

    held = io.BytesIO(data)
    with h5py.File(held, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, part: names.append(name) if hasattr(part, "shape") else None)
        name = luck.choice(names)
        del file[name]
        rows = 1 << luck.choice((12, 20, 24))
        made = file.create_dataset(name, (rows, 4), "f4", chunks=(rows, 4), compression="gzip")
        made.id.write_direct_chunk((0, 0), _deflated(16 * rows))
    return held.getvalue()


@cache
def _deflated(size: int) -> bytes:
    return zlib.compress(bytes(size))


# ONNX


def onnx(luck: Random, data: bytes) -> bytes:
    """Fields of the message cleared, doubled, moved from elsewhere, or given strange values."""
    from onnx import ModelProto

    proto = ModelProto.FromString(data)
    for _ in range(some(luck)):
        messages = list(_messages(proto))
        message = luck.choice(messages)
        fields = message.ListFields()
        if fields:
            _change_field(luck, message, *luck.choice(fields), messages)
    return proto.SerializeToString()


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [*value][:8] if _repeated(value) else [value]:
                yield from _messages(part)


def _repeated(value: Any) -> bool:
    return hasattr(value, "extend")


def _change_field(luck: Random, message: Any, field: Any, value: Any, messages: list[Any]) -> None:
    strange = _strange(luck, field, messages)
    if luck.random() < 0.15:
        message.ClearField(field.name)
    elif not _repeated(value):
        if field.message_type is None:
            setattr(message, field.name, strange)
        else:
            value.CopyFrom(strange)
    else:
        parts = list(value)
        at = luck.randrange(len(parts))
        match luck.randrange(4):
            case 0:
                del parts[at]
            case 1:
                parts.insert(luck.randrange(len(parts) + 1), parts[at])
            case 2:
                parts[at] = strange
            case 3:
                luck.shuffle(parts)
        parts = [copy.deepcopy(part) for part in parts]  # they go with the list that held them
        message.ClearField(field.name)
        getattr(message, field.name).extend(parts)


def _strange(luck: Random, field: Any, messages: list[Any]) -> Any:
    """A value that the field can hold."""
    if field.message_type is not None:
        found = luck.choice([m for m in messages if m.DESCRIPTOR is field.message_type])
        return copy.deepcopy(found)  # which may hold the field itself
    kinds = type(field)
    if field.type == kinds.TYPE_STRING:
        names = [m.name for m in messages if m.DESCRIPTOR.fields_by_name.get("name")]
        return luck.choice([*STRINGS[:4], *names, *_OPERATORS])
    if field.type == kinds.TYPE_BYTES:
        return luck.randbytes(luck.choice((0, 1, 4, 8, 64)))
    if field.type in (kinds.TYPE_FLOAT, kinds.TYPE_DOUBLE):
        return luck.choice((0.0, -1.0, np.nan, np.inf, 1e38))
    if field.type == kinds.TYPE_ENUM:
        return luck.choice(field.enum_type.values).number
    bits = 31 if field.type == kinds.TYPE_INT32 else 63
    return luck.choice((0, 1, 2, 3, 7, 16, -1, -2, 1 << 16, (1 << bits) - 1, -(1 << bits)))


_OPERATORS = (
    *("LSTM", "GRU", "RNN", "Gemm", "MatMul", "Add", "Transpose", "Reshape", "Concat", "Slice"),
    *("Gather", "Squeeze", "Constant", "ConstantOfShape", "Expand", "Tile", "Range", "Loop", "If"),
    *("Scan", "Conv", "ConvTranspose", "MaxPool", "Pad", "Resize", "Einsum", "TopK", "OneHot"),
    *("GatherND", "ScatterND", "NonZero", "SplitToSequence", "SequenceInsert", "CumSum", "ArgMax"),
)
