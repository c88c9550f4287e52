"""Data that no repository holds: the folder that `RNNCORE_DATA` names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[3] / "shared" / "data"


def data(path: str) -> Path:
    """The path of a file of the folder; the test is skipped, with the reason, without it."""
    found = Path(os.environ.get("RNNCORE_DATA", _BESIDE)) / path
    if not found.is_file():
        pytest.skip(f"no {found}; the environment variable RNNCORE_DATA names the folder of data")
    return found
