"""The command line, given files: a file's fault is a line and status 2."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from rnncore import cli

from . import mutate, seeds
from .child import Target
from .targets_files import LONGEST, file_target, in_h5, in_keras

_TEXT = "a man, a plan, a canal: panama.\n" * 8


def targets() -> list[Target]:
    """One for each command that reads files."""
    commands = {
        "convert": (_convertible, _any_kind, _convert_command),
        "sample": (seeds.character_models, mutate.safetensors, _sample_command),
        "train": (lambda: [_TEXT.encode()], mutate.raw, _train_command),
        "resume": (_command_checkpoints, mutate.safetensors, _resume_command),
    }
    return [
        file_target(f"command_{name}", *how, names=False, share=0.3)
        for name, how in commands.items()
    ]


class Status(AssertionError):
    """A command that ended otherwise than it says."""


def _command(*arguments: str) -> None:
    """Run a command: its status is 0, or 2 with one line that is not too long."""
    complaints = io.StringIO()
    with redirect_stderr(complaints), redirect_stdout(io.StringIO()):
        try:
            status: Any = cli.main(arguments)
        except SystemExit as stop:
            status = stop.code
    said = complaints.getvalue()
    if status == 2:
        if len(said) > 2 * LONGEST or said.count("\n") != 1:
            raise Status(f"{status}: {said[:3000]!r}")
        raise ValueError(said)
    if status:
        raise Status(f"{status}: {said[:3000]!r}")


@cache
def _convertible() -> list[bytes]:
    found = seeds.models()[::7] + seeds.state_dicts() + seeds.rtneural()
    if find_spec("h5py"):
        found = found + seeds.golden("keras")() + seeds.golden("h5")()
    return found + (seeds.onnx_files()[::5] if find_spec("onnx") else [])


_KINDS = {
    ".keras": lambda data: data[:4] == b"PK\x03\x04",
    ".h5": lambda data: data[1:4] == b"HDF",
    ".json": lambda data: data[:1] == b"{",
    ".safetensors": lambda data: data[2:9] == b"\0\0\0\0\0\0{",
    ".onnx": lambda data: True,
}


def _kind(data: bytes) -> str:
    return next(suffix for suffix, fits in _KINDS.items() if fits(data))


def _any_kind(luck: Random, data: bytes) -> bytes:
    change = {
        ".keras": mutate.archive(in_keras),
        ".h5": in_h5,
        ".json": mutate.json_of,
        ".safetensors": mutate.safetensors,
        ".onnx": mutate.onnx,
    }
    return change[_kind(data)](luck, data)


def _convert_command(path: Path) -> None:
    """Convert a file to every kind that is written; what is no model can become none of them."""
    source = path.with_suffix(_kind(path.read_bytes()))
    os.link(path, source)
    try:
        for suffix in (".onnx", ".json"):
            with suppress(ValueError):
                _command("convert", str(source), str(path.with_name("out" + suffix)))
        _command("convert", str(source), str(path.with_name("out.safetensors")))
    finally:
        source.unlink()


def _sample_command(path: Path) -> None:
    _command("sample", str(path), "--length", "3", "--prompt", "ab", "--seed", "1")


_SMALL = ("--hidden", "4", "--embedding", "2", "--length", "4", "--batch", "2", "--steps", "2")


def _train_command(path: Path, *more: str) -> None:
    out = path.with_name("model.safetensors")
    _command("train", "--text", str(path), "--out", str(out), *_SMALL, *more)


@cache
def _command_checkpoints() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text"
        path.write_text(_TEXT)
        with seeds.clock():
            _train_command(path)
        return [path.with_name("model.safetensors.checkpoint").read_bytes()]


def _resume_command(path: Path) -> None:
    source = path.with_name("text")
    source.write_text(_TEXT)
    os.replace(path, path.with_name("model.safetensors.checkpoint"))
    _train_command(source, "--resume", "--minutes", "0.01")
