"""Option values, checked: what is wrong with one becomes a line on stderr and exit status 2."""

from __future__ import annotations

import math
import os
from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)


def _number(
    kind: type[Number], good: Callable[[Number], bool], meaning: str
) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not good(value):
            raise ArgumentTypeError(f"must be {meaning}, got {text!r}")
        return value

    return parse


count = _number(int, lambda n: n >= 1, "a whole number from 1")
natural = _number(int, lambda n: n >= 0, "a whole number from 0")
positive = _number(float, lambda x: 0 < x < math.inf, "a number above 0")
not_negative = _number(float, lambda x: 0 <= x < math.inf, "a number from 0")
share = _number(float, lambda x: 0 <= x < 1, "a number from 0 to below 1")


def read_text(path: str) -> str:
    """Return the text of a UTF-8 file, without a byte order mark; `ValueError` if it is not one."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from error


def check_writable(path: Path) -> None:
    """Raise `OSError` before a long run rather than after it, if `path` cannot be written."""
    with suppress(FileNotFoundError):
        path.stat()  # a name may be too long
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file")
    if is_special(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} cannot be written")
        return
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    if not os.access(path.resolve().parent, os.W_OK):
        raise PermissionError(f"the folder {path.parent} cannot be written")


def is_special(path: Path) -> bool:
    """Whether there is a pipe or a device in the place of a file: it is written into."""
    return path.exists() and not path.is_file() and not path.is_dir()
