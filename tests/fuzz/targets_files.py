"""Files of every kind that is read: sound ones, and how each kind is changed and read."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import rnncore
from models import MODELS
from rnncore import Chain, Linear, Module, brackets, cli, convert, text
from rnncore.arrays import load_arrays, save_arrays
from rnncore.training import Trainer

from . import mutate
from .child import MEGABYTE, Target

GOLDEN = Path(__file__).parents[1] / "golden"
#: The longest message that still is one line for a person.
LONGEST = 1000
#: What says of a sound file that it holds more than can be taken.
REFUSED = "rnncore cannot represent"
TEXT = "a man, a plan, a canal: panama.\n" * 8


def targets() -> list[Target]:
    """One for each kind of file, as far as the packages are there that read it."""
    made = [
        _target("safetensors", ".safetensors", _models, mutate.safetensors, rnncore.load, share=3),
        _target(
            "parameters", ".safetensors", _parameters, mutate.safetensors, _load_into, *_DTYPES
        ),
        _target("torch", ".safetensors", _state_dicts, mutate.safetensors, _from_torch, *_DTYPES),
        _target("checkpoint", ".checkpoint", _checkpoints, mutate.safetensors, _resume, *_DTYPES),
        _target("snapshot", ".safetensors", _snapshots, mutate.safetensors, _restore, *_DTYPES),
        _target("rtneural", ".json", _rtneural, mutate.json_of, convert.from_rtneural),
        _target("brackets", ".txt", _trees, mutate.raw, _read_trees, names=False),
    ]
    if find_spec("h5py"):
        made += [
            _target("keras", ".keras", _golden("keras"), mutate.archive(_in_keras), _from_keras),
            _target("h5", ".h5", _golden("h5"), _in_h5, _from_keras),
        ]
    if find_spec("onnx"):
        made.append(_target("onnx", ".onnx", _onnx, mutate.onnx, _from_onnx, share=2))
    commands = {
        "convert": (_convertible, _any_kind, _convert_command),
        "sample": (_texts_models, mutate.safetensors, _sample_command),
        "train": (lambda: [TEXT.encode()], mutate.raw, _train_command),
        "resume": (_command_checkpoints, mutate.safetensors, _resume_command),
    }
    for name, (seeds, change, read) in commands.items():
        made.append(
            _target(f"command_{name}", ".file", seeds, change, read, names=False, share=0.3)
        )
    return made


#: Arrays of a dtype that loses precision, which `load_into` refuses.
_DTYPES = (TypeError,)


class Unclear(AssertionError):
    """A refusal that does not say, in one line, which file it is about."""


def _target(
    name: str,
    suffix: str,
    seeds: Callable[[], list[bytes]],
    change: mutate.Mutation,
    read: Callable[[Path], Any],
    *more: type[Exception],
    names: bool = True,
    share: float = 1.0,
) -> Target:
    """A kind of file: `read` of one of the seeds, changed; `names` whether errors name the file."""
    documented = (ValueError, *more)

    def prepare(luck: Random, path: Path) -> Callable[[], Any]:
        data = luck.choice(seeds())
        changed = mutate.raw(luck, data)
        if luck.random() < 0.7:
            with suppress(ValueError, OSError, RuntimeError):  # what cannot be written
                changed = change(luck, data)
        path.write_bytes(changed)

        def action() -> None:
            try:
                read(path)
            except documented as error:
                message = str(error)
                named = path.name in message or REFUSED in message
                if names and (not named or len(message) > LONGEST or "\n" in message):
                    raise Unclear(message[:3000]) from error
                raise

        return action

    memory = 64 * MEGABYTE
    return Target(name, prepare, documented, suffix, share=share, memory=memory)


def _written(*writers: Callable[[Path], Any]) -> list[bytes]:
    """What each of these writes to a path."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, write in enumerate(writers):
            path = Path(folder) / f"{number}.checkpoint"
            with suppress(ValueError):  # what a format cannot say
                write(path)
                found.append(path.read_bytes())
    return found


@cache
def all_models() -> list[tuple[Module, Callable[[Any], Any]]]:
    """The tests' models and how they are called, with the same weights in every process."""
    found = [(model, call) for models, call in MODELS.values() for model in models]
    for model, _ in found:
        redraw(model)
    return found


def redraw(model: Module) -> Module:
    """Give a model weights that do not depend on the process."""
    rng = np.random.default_rng(1)
    for param in model.params.values():
        param[...] = rng.standard_normal(param.shape) / 2
    return model


def _clock() -> Any:
    """Time that goes on by a second whenever it is asked for: checkpoints tell the time."""
    return patch("time.perf_counter", count(1.0).__next__)


# Our own files


@cache
def _models() -> list[bytes]:
    return _written(*(model.save for model, _ in all_models()))


def _layer() -> Module:
    return rnncore.LSTM(3, 4, proj_size=2, seed=1)


@cache
def _parameters() -> list[bytes]:
    return _written(_layer().save)


def _load_into(path: Path) -> None:
    """Read parameters into a module; refused, it is what it was."""
    module = _layer()
    with _Kept(module.state_dict):
        module.load(path)


class _Kept:
    """Fails where a refusal leaves something changed."""

    def __init__(self, state: Callable[[], dict[str, np.ndarray]]) -> None:
        self.state = state

    def __enter__(self) -> None:
        self.before = self.state()

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            after = self.state()
            for name, array in self.before.items():
                assert after[name].tobytes() == array.tobytes(), f"{name} was changed"


def _trainer() -> Trainer:
    model = Chain(rnncore.LSTM(2, 3, dropout=0, weight_drop=0.5, seed=1), Linear(3, 2, seed=2))
    x = np.random.default_rng(1).standard_normal((4, 2, 2)).astype("float32")
    batches = [
        rnncore.training.Batch(x, np.zeros((4, 2), int), None, None, carry)
        for carry in (False, True)
    ]
    adam = rnncore.Adam(model)
    loss = rnncore.SoftmaxCrossEntropy()
    return Trainer(model, loss, adam, batches, validate=lambda: 1.0, metadata={"a": [1]}, seed=1)


@cache
def _checkpoints() -> list[bytes]:
    trainer = _trainer()
    found = _written(trainer.save)
    with _clock():
        trainer.fit(3, validate_every=1, quiet=True)
    return found + _written(trainer.save)


def _resume(path: Path) -> None:
    """Go on from a checkpoint: refused, all is as it was; accepted, it trains."""
    trainer = _trainer()

    def state() -> dict[str, np.ndarray]:
        return trainer.model.state_dict() | {
            f"optimiser.{name}": array for name, array in trainer.optimiser.state_dict().items()
        }

    with _Kept(state):
        trainer.resume(path)
    with suppress(FloatingPointError):  # of weights that are not finite
        trainer.update()
        trainer.update()
        trainer.fit(trainer.progress.step + 1, quiet=True, patience=3)
    trainer.restore_best()
    str(trainer.progress), trainer.targets_per_second


@cache
def _streaming() -> dict[str, Module]:
    layers = rnncore.GRU(3, 4, seed=1), rnncore.RowConvolution(4, 2, seed=2)
    return {"prompt": rnncore.LSTM(3, 4, 2, seed=1), "delayed": Chain(*layers)}


def _snapshots() -> list[bytes]:
    found = []
    for module in _streaming().values():
        stream = module.stream(2)
        stream.run(np.ones((3, 2, 3), np.float32))
        found += _written(lambda path, stream=stream: save_arrays(path, stream.snapshot()))
    return found


_snapshots = cache(_snapshots)


def _restore(path: Path) -> None:
    """Restore two streams from the arrays; refused, they are as they were."""
    snapshot, _ = load_arrays(path)
    for module in _streaming().values():
        stream = module.stream(2)
        try:
            with _Kept(stream.snapshot):
                stream.restore(snapshot)
        except (ValueError, TypeError):
            continue
        stream.run(np.ones((2, stream.batch, 3), np.float32))


# Other libraries' files


@cache
def _state_dicts() -> list[bytes]:
    torch_like = (rnncore.LSTM, rnncore.GRU, rnncore.RNN)
    modules: list[Module] = [kind(3, 4, 2, bidirectional=True, seed=1) for kind in torch_like]
    modules += [Chain(rnncore.Embedding(5, 3, seed=1), rnncore.LSTM(3, 4, proj_size=2, seed=1))]
    return _written(
        *(
            lambda path, module=module: save_arrays(path, module.params, {"format": "pt"})
            for module in modules
        )
    )


def _from_torch(path: Path) -> None:
    for prefix in (None, "1", ("0", "1")):
        with suppress(ValueError):
            convert.from_torch(path, prefix)
    convert.from_torch(path)


def _golden(suffix: str) -> Callable[[], list[bytes]]:
    return cache(lambda: [path.read_bytes() for path in sorted(GOLDEN.glob(f"*/*.{suffix}"))])


def _in_keras(name: str) -> mutate.Mutation:
    return mutate.json_of if name.endswith(".json") else _in_h5


def _in_h5(luck: Random, data: bytes) -> bytes:
    return (mutate.compressed if luck.random() < 0.05 else mutate.hdf5)(luck, data)


def _from_keras(path: Path) -> None:
    convert.from_keras(path, lengths=True)


@cache
def _rtneural() -> list[bytes]:
    layers = Linear(2, 4, seed=1), rnncore.Tanh(), rnncore.GRU(4, 3, seed=2)
    return _written(
        lambda path: convert.to_rtneural(Chain(*layers), path),
        lambda path: convert.to_rtneural(rnncore.LSTM(2, 3, 2, seed=1), path),
    )


@cache
def _onnx() -> list[bytes]:
    return _written(
        *(lambda path, model=model: convert.to_onnx(model, path) for model, _ in all_models())
    )


def _from_onnx(path: Path) -> None:
    """Read a graph, make a module of it where that can be, and run it."""
    model = convert.from_onnx(path)
    with suppress(ValueError):  # of what a module cannot be: the file is read by now
        model.module()
    with suppress(ValueError):
        model.run(*(_zeros(wanted) for wanted in model.inputs.values()))


def _zeros(wanted: Any) -> np.ndarray:
    """An input of the kind that a graph says it takes."""
    sizes = wanted.shape if wanted.shape is not None else (2, 2, 3)
    small = (size if isinstance(size, int) and 0 <= size < 100 else 2 for size in sizes)
    return np.zeros(tuple(small), wanted.dtype)


# Text


def _trees() -> list[bytes]:
    return [b"(S (NP (DT the) (NN cat)) (VP sat))\n((a b) (c (d e)))\nword\n"]


def _read_trees(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for labelled in (False, True):
        with suppress(ValueError):
            forest = brackets.read(lines, labelled)
            brackets.write(forest, labelled)
            forest.to_nested()


# The command line: a file's fault is a line and status 2


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
    found = _models()[::7] + _state_dicts() + _rtneural()
    if find_spec("h5py"):
        found = found + _golden("keras")() + _golden("h5")()
    return found + (_onnx()[::5] if find_spec("onnx") else [])


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
        ".keras": mutate.archive(_in_keras),
        ".h5": _in_h5,
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


@cache
def _texts_models() -> list[bytes]:
    vocabulary = text.Vocabulary("abé")
    config = text.CharConfig(hidden=3, layers=2, embedding=2)
    return _written(text.CharModel(vocabulary, config, seed=1).save)


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
        path.write_text(TEXT)
        with _clock():
            _train_command(path)
        return [path.with_name("model.safetensors.checkpoint").read_bytes()]


def _resume_command(path: Path) -> None:
    source = path.with_name("text")
    source.write_text(TEXT)
    os.replace(path, path.with_name("model.safetensors.checkpoint"))
    _train_command(source, "--resume", "--minutes", "0.01")
