"""HDF5 files of strangers: only what lies in the file itself is read, and not beyond a budget."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..arrays import Array
from .budget import Budget


def import_h5py() -> Any:
    """Return the package h5py, or raise an `ImportError` that names the extra."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "reading Keras models needs h5py: pip install 'rnncore[convert]'"
        ) from error
    return h5py


@contextmanager
def opened(data: bytes, budget: Budget) -> Iterator[Hdf5]:
    """Open the bytes of a file."""
    h5py = import_h5py()
    _check_strings(data)
    with h5py.File(io.BytesIO(data), "r") as file:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("its addresses do not have 8 bytes")
        yield Hdf5(file, budget)


#: How a heap begins, and how large it is at least.
_HEAP, _LEAST = b"GCOL\1\0\0\0", 4096


def _check_strings(data: bytes) -> None:
    """Refuse damaged strings of variable length: libhdf5 may not end, or take up to 4 GB for one.

    They lie in heaps; a reference to one is its length, the address of its heap and its number.
    """
    heaps = dict(_heaps(data))
    if len(heaps) * len(data) > 1 << 34:
        raise ValueError("it has too many heaps of strings")
    for begin, sizes in heaps.items():
        address = begin.to_bytes(8, "little")
        at = data.find(address, 4)
        while at >= 0:
            length, number = struct.unpack("<I8xI", data[at - 4 : at + 12].ljust(16, b"\0"))
            virtual = length >> 24 == 3  # a data set's class, not a length: refused when it is met
            if length > sizes.get(number, length) and not virtual:
                raise ValueError("its strings of variable length are damaged")
            at = data.find(address, at + 1)


def _heaps(data: bytes) -> Iterator[tuple[int, dict[int, int]]]:
    """Where heaps begin, and of each the sizes of what it holds by their numbers."""
    begin = data.find(_HEAP)
    while begin >= 0:
        heap = data[begin : begin + int.from_bytes(data[begin + 8 : begin + 16], "little")]
        at, sizes = 16, {}
        while at + 16 <= len(heap):
            number, size = struct.unpack_from("<H6xQ", heap, at)
            if not number and size < 16:
                break
            sizes[number] = size
            at += 16 + -(-size // 8) * 8 if number else size  # what is free counts its own head
        following = data.find(_HEAP, begin + 8)
        whole = len(heap) >= _LEAST and len(heap) - 16 < at <= len(heap)
        if not whole or 0 <= following < begin + len(heap):
            raise ValueError("its strings of variable length are damaged")
        yield begin, sizes
        begin = following


class Hdf5:
    """Groups, arrays and attributes of an open file, by their paths from the root.

    HDF5 can name other files in links, in external storage and in virtual data sets. All three
    raise `ValueError`: they would put any file of the user into the weights.
    """

    def __init__(self, file: Any, budget: Budget) -> None:
        self._h5py, self._file, self._budget = import_h5py(), file, budget

    def __contains__(self, path: str) -> bool:
        return self._at(path) is not None

    def names(self, path: str) -> list[str]:
        """What a group holds; nothing if there is none."""
        group = self._at(path)  # a data set would give its numbers
        return list(group) if isinstance(group, self._h5py.Group) else []

    def array(self, path: str) -> Array:
        """Read a data set; `KeyError` if there is none."""
        data = self._at(path)
        if not isinstance(data, self._h5py.Dataset):
            raise KeyError(path)
        self._check_storage(path, data)
        if data.shape is None or data.dtype.hasobject:
            raise ValueError(f"{path} has no numbers")
        self._budget.take(path, data.shape, data.dtype.itemsize)
        if data.chunks:
            self._check_chunks(path, data)
        return np.asarray(data[()])

    def attribute(self, path: str, name: str) -> Any:
        """Read an attribute, text or an array; None if there is none."""
        item = self._at(path)
        if item is None or name not in item.attrs:
            return None
        held = item.attrs.get_id(name)
        if held.dtype.hasobject and self._h5py.check_string_dtype(held.dtype) is None:
            raise ValueError(f"the attribute {name} of {path} is neither text nor numbers")
        # Texts of any length lie elsewhere in the file, where one may serve for many.
        each = self._budget.size if held.dtype.hasobject else held.dtype.itemsize
        self._budget.check(f"the attribute {name} of {path}", held.shape, each)
        return item.attrs[name]

    def _at(self, path: str) -> Any:
        """Follow a path by hard links alone; None if it ends nowhere."""
        item = self._file
        for part in filter(None, path.split("/")):
            links = getattr(item.id, "links", None)
            if links is None or not links.exists(part.encode()):
                return None
            if links.get_info(part.encode()).type != self._h5py.h5l.TYPE_HARD:
                raise ValueError(f"{path}: {part!r} is a link to another place, which is not read")
            item = item[part]
        return item

    def _check_storage(self, path: str, data: Any) -> None:
        """Refuse numbers that lie in other files, and filters that may make much of little."""
        created, h5d, h5z = data.id.get_create_plist(), self._h5py.h5d, self._h5py.h5z
        own = (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED)
        if created.get_layout() not in own or created.get_external_count():
            raise ValueError(f"{path}: its numbers are kept in another file, which is not read")
        filters = [created.get_filter(at)[0] for at in range(created.get_nfilters())]
        known = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
        if not known.issuperset(filters) or filters.count(h5z.FILTER_DEFLATE) > 1:
            raise ValueError(f"{path}: filters other than gzip, once, are not read")

    def _check_chunks(self, path: str, data: Any) -> None:
        """Refuse chunks that are larger than all, or that unpack to more than they should."""
        size = self._budget.check(f"{path}, in pieces", data.chunks, data.dtype.itemsize)
        if not data.compression:
            return
        places: list[Any] = []
        data.id.chunk_iter(lambda chunk: places.append(chunk.chunk_offset))
        for place in places:
            _, packed = data.id.read_direct_chunk(place)
            if len(zlib.decompressobj().decompress(packed, size + 65)) > size + 64:  # checksums
                raise ValueError(f"{path}: a piece unpacks to more than its {size} bytes")
