"""What is downloaded to install rnncore."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import rnncore
from rnncore import _core

#: Bytes of the package with the kernels of all instruction sets: a wheel, with its metadata, is to
#: have less than 2.5 MB.
MOST = 2_475_000


def test_a_wheel_is_small(tmp_path: Path) -> None:
    if not {"v2", "v3", "v4"} <= set(_core.info()["compiled_for"]):
        pytest.skip("not built with all instruction sets")
    package = Path(rnncore.__file__).parent
    files = [path for path in package.rglob("*") if path.suffix in (".py", ".pyi", ".typed")]
    wheel = tmp_path / "rnncore.whl"
    with zipfile.ZipFile(wheel, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for path in [*files, Path(_core.__file__)]:
            archive.write(path, path.relative_to(package.parent))
    assert wheel.stat().st_size < MOST
