"""Zip files of strangers: what is in them is unpacked within a budget."""

from __future__ import annotations

import zipfile

from .budget import Budget


def unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> bytes:
    """Return one file of an archive; `ValueError` for a way of packing other than deflate."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is packed in a way that is not read")
    budget.take(info.filename, (info.file_size,))
    with archive.open(info) as file:
        return file.read(info.file_size)  # the number keeps it from unpacking more than that
