"""Files: replaced at once or not at all; safetensors read, whoever wrote them."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from .hinting import of_file

try:
    import fcntl
except ImportError:  # a system without: nothing can be told of who is still writing
    fcntl = None  # type: ignore[assignment]

#: What reading raises where a file does not hold what its reader expects.
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
#: What systems say that have no files without a name, or no way to give them one.
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS)
_CANNOT_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
#: The longest header that the format allows.
_LONGEST_HEADER = 100_000_000
_METADATA = "__metadata__"
_NOT_OURS = " is not a readable safetensors file"

# Messages


def one_line(text: object, most: int = 1000) -> str:
    """Return text for a message: in one line, without control characters, its middle cut out."""
    line = str(text)
    if len(line) > 2 * most:  # so that what follows takes no time
        line = f"{line[:most]} [...] {line[-most:]}"
    line = " ".join(line.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    if len(line) > most:
        line = f"{line[: most * 3 // 4]} [...] {line[-most // 4 :]}"
    return line


def listed(names: Iterable[object], most: int = 10) -> str:
    """Return names for a message: the first of them, and how many more there are."""
    said = [f"{name!r:.80}" for name in names]
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return (", ".join(said[:most]) or "none") + more


@contextmanager
def reading(
    path: str | os.PathLike[str],
    what: str = "",
    hint: str = "",
    damage: tuple[type[Exception], ...] = DAMAGE,
) -> Iterator[None]:
    """Make of all that a damaged file raises one `ValueError` that names the file, in one line."""
    try:
        yield
    except damage as error:
        said = str(error) if isinstance(error, (ValueError, TypeError)) else repr(error)
        raise ValueError(f"{os.fspath(path)}{what}: {one_line(said)}{hint}") from error


# Writing


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace what the file at `path` holds by `data`, wholly or not at all.

    Of a symbolic link, the file that it points to is replaced. A file keeps its mode; a new one has
    that which the umask leaves. What is no regular file (a pipe, a device) is written into. `data`
    are on the disk before the old file is gone. A process that is killed may leave a temporary file
    in the same folder; the next save of the file removes it.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not os.path.basename(path):
            raise  # no name of a file
        mode = None
    if mode is None or stat.S_ISREG(mode):
        _replace(os.fsdecode(os.path.realpath(path)), data, mode)
    else:
        with open(path, "wb", buffering=0) as file:
            _write(file, data)


def _replace(target: str, data: bytes, mode: int | None) -> None:
    folder, name = os.path.split(target)
    start = f".rnncore-{zlib.crc32(os.fsencode(name)):08x}-"  # short: names may have 255 bytes
    _sweep(folder, start)
    temporary = os.path.join(folder, start + os.urandom(8).hex())
    opened: list[FileIO] = []
    try:
        if not _open_unnamed(opened, folder):
            _open_named(opened, temporary)
        file = opened[-1]
        if mode is not None:
            os.fchmod(file.fileno(), stat.S_IMODE(mode))
        _write(file, data)
        os.fsync(file.fileno())
        if not os.fstat(file.fileno()).st_nlink:
            _give_name(file, temporary)
        os.replace(temporary, target)
    finally:
        for file in opened:
            file.close()
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # only after an error or an interrupt there is one
    _sync(folder)


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


# Files are opened by one call of C that puts them where they will be closed: an interrupt after the
# system has opened one, and before Python has noted its number, would leave it open for good. So
# there is no `opener` either, which is a function of Python between the two.


def _open_by(opened: list[FileIO], path: str, flags: int, mode: str) -> None:
    opened.extend(map(FileIO, map(os.open, (path,), (flags,), (0o666,)), (mode,)))


def _open_unnamed(opened: list[FileIO], folder: str) -> bool:
    """Open and lock a file without a name, of which nothing outlives the process, if there are."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return False
    try:
        _open_by(opened, folder, os.O_TMPFILE | os.O_WRONLY, "wb")
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        return False
    _lock(opened[-1])
    return True


def _open_named(opened: list[FileIO], path: str) -> None:
    """Make a file and lock it; one that `_sweep` has taken away before the lock is made again."""
    while not opened or not os.fstat(opened[-1].fileno()).st_nlink:
        opened.extend(map(FileIO, (path,), ("xb",)))
        _lock(opened[-1])


def _give_name(file: FileIO, path: str) -> None:
    number = file.fileno()
    # With a folder's number, of which an absolute path makes no use, Python follows the link.
    os.link(f"/proc/self/fd/{number}", path, src_dir_fd=number, follow_symlinks=True)


def _lock(file: FileIO) -> None:
    """Say that a file is being written; the system takes it back when the file is closed."""
    if fcntl is not None:
        with suppress(OSError):  # where files cannot be locked, none is swept either
            fcntl.flock(file, fcntl.LOCK_EX)


def _sweep(folder: str, start: str) -> None:
    """Remove temporary files that nobody has locked: whoever wrote them was killed."""
    if fcntl is None:
        return
    for name in _names(folder):
        if name.startswith(start):
            path = os.path.join(folder, name)
            opened: list[FileIO] = []  # closed with the list, at the latest
            try:
                _open_by(opened, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, "rb")
                fcntl.flock(opened[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            except OSError:
                pass
            finally:
                any(map(FileIO.close, opened))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # it may be written to and not read; what else is wrong, writing will say
        return []


def _sync(folder: str) -> None:
    """Put a folder's names on the disk, where the system allows it."""
    numbers: list[int] = []
    closed = map(os.close, numbers)  # made here: an interrupt may come after any call that ends
    try:
        numbers.extend(map(os.open, (folder,), (os.O_RDONLY,)))
        os.fsync(numbers[0])
    except PermissionError:
        pass  # it may be written to and not read
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        any(closed)


# Safetensors


def save_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, Any] | None = None,
    bfloat16: Collection[str] = (),
) -> None:
    """Write named arrays to a safetensors file, replacing it atomically (`write_atomic`).

    `metadata` is stored beside them, each value as JSON. `bfloat16`: names of arrays in uint16 that
    hold the bits of that type, which NumPy lacks. Raises `TypeError` for a dtype other than
    bool, integers and float16 to float64, `ValueError` for an array named `__metadata__` and for
    more names and metadata than the format allows.
    """
    # Here, not above: most users of `import rnncore` never save.
    from safetensors import SafetensorError
    from safetensors.numpy import save

    if _METADATA in arrays:
        raise ValueError(f"an array must not be named {_METADATA!r}: the format keeps that name")
    # safetensors writes a Fortran-ordered array's bytes as if it were C-ordered, silently.
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in ordered.items():
        if array.dtype.newbyteorder("=") not in _WRITTEN:
            raise TypeError(
                f"{name!r:.80} is {array.dtype}, which is not stored: convert it (astype)"
            )
    text = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    try:
        data = save(ordered, text or None)
    except SafetensorError as error:
        raise ValueError(f"this does not fit into a safetensors file: {error}") from error
    write_atomic(path, _said_to_be(data, "BF16", bfloat16) if bfloat16 else data)


def _said_to_be(data: bytes, dtype: str, names: Iterable[str]) -> bytes:
    """A file's bytes, with another dtype said of some arrays; safetensors takes NumPy's alone."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for name in names:
        header[name]["dtype"] = dtype
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def load_arrays(
    path: str | os.PathLike[str],
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read `(arrays, metadata)` from a safetensors file.

    Values of the metadata that are JSON are read as such; others are text and stay so. bfloat16,
    which NumPy lacks, becomes float32, which is exact. Raises `FileNotFoundError`, or `ValueError`
    naming the file if it is not a readable safetensors file.
    """
    with _regular(path) as file, reading(path, _NOT_OURS, of_file(path)):
        entries, metadata = _header(file)
        arrays = {entry.name: entry.read(file) for entry in entries}
        return arrays, {name: _json_or_text(text) for name, text in metadata.items()}


def _regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file, which is neither a folder nor a pipe: its size says how much may be read."""
    if not os.path.isfile(path):
        if os.path.exists(path) and not os.path.isdir(path):
            raise ValueError(f"{os.fspath(path)} is no regular file, but a pipe or a device")
        raise FileNotFoundError(f"no such model file: {os.fspath(path)}")
    return open(path, "rb")


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _as_flags(flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return flat.astype(np.bool_)


def _widened(flat: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """bfloat16 is the upper half of a float32."""
    return (flat.astype(np.uint32) << 16).view(np.float32)


#: How numbers lie in a file, by the format's names.
_STORED = {"U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4"}
_STORED |= {"U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
_STORED |= {"BOOL": "u1", "BF16": "<u2"}
_WRITTEN = {np.dtype(bool), *(np.dtype(name).newbyteorder("=") for name in _STORED.values())}
#: And what becomes of those that NumPy has not.
_CONVERTED: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]]
_CONVERTED = {"BOOL": _as_flags, "BF16": _widened}


class _Entry(NamedTuple):
    """Where an array lies behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @classmethod
    def checked(cls, name: str, said: Any) -> _Entry:
        """Return what a header says of an array, or raise `ValueError`."""
        if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"entry {name!r:.80} says {said!r:.80}")
        dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _STORED:
            raise ValueError(f"entry {name!r:.80} has dtype {dtype!r:.20}: save it as float32")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise ValueError(f"entry {name!r:.80} has shape {shape!r:.80} at {offsets!r:.80}")
        begin, end = offsets
        if end - begin != math.prod(shape) * np.dtype(_STORED[dtype]).itemsize:
            raise ValueError(f"entry {name!r:.80}: {end - begin} bytes are not shape {shape!r:.80}")
        return cls(name, dtype, tuple(shape), begin, end)

    def read(self, file: BinaryIO) -> npt.NDArray[Any]:
        """Read the array, which comes next in the file."""
        stored = np.dtype(_STORED[self.dtype])
        flat: npt.NDArray[Any] = np.empty((self.end - self.begin) // stored.itemsize, stored)
        if file.readinto(flat.view(np.uint8)) != flat.nbytes:  # type: ignore[attr-defined]
            raise ValueError("it was cut short meanwhile")
        flat = flat.astype(stored.newbyteorder("="), copy=False)
        if self.dtype in _CONVERTED:
            flat = _CONVERTED[self.dtype](flat)
        return flat.reshape(self.shape)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _header(file: BinaryIO) -> tuple[list[_Entry], dict[str, str]]:
    """Return the entries in the order in which they lie, and the metadata."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("it is shorter than its header")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, the format allows {_LONGEST_HEADER}")
    header = json.loads(file.read(length).decode(), object_pairs_hook=_distinct)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are not text by name")
    entries = [_Entry.checked(name, said) for name, said in header.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    end = 0
    for entry in entries:
        if entry.begin != end:
            raise ValueError(f"entry {entry.name!r:.80} begins at {entry.begin}, not at {end}")
        end = entry.end
    if end != size - 8 - length:
        raise ValueError(f"its arrays take {end} bytes, and it holds {size - 8 - length}")
    return entries, metadata


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header says something twice")
    return found
