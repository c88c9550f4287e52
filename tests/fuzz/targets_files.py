"""Files of every kind: how each is changed and read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import rnncore
from rnncore import convert
from rnncore.arrays import load_arrays
from rnncore.trees import brackets

from . import graphs, mutate, seeds
from .child import MEGABYTE, Target

#: The longest message that a person reads: 1000 characters of what is wrong, and names.
LONGEST = 1300
#: What says of a sound file that it holds more than can be taken.
REFUSED = "rnncore cannot represent"


def targets() -> list[Target]:
    """One for each kind of file, as far as the packages are there that read it."""
    header = mutate.safetensors
    made = [
        file_target("safetensors", seeds.models, header, rnncore.load, share=3),
        file_target("quantized", seeds.quantized, header, rnncore.load),
        file_target("parameters", seeds.parameters, header, _load_into, *_DTYPES),
        file_target("torch", seeds.state_dicts, header, _from_torch, *_DTYPES),
        file_target("npz", seeds.npz, in_npz, _from_parts, *_DTYPES, suffix=".npz"),
        file_target(
            "json", seeds.json_states, mutate.json_of, _from_parts, *_DTYPES, suffix=".json"
        ),
        file_target(
            "guitarml", seeds.in_folder("amplifiers"), mutate.json_of, convert.from_guitarml
        ),
        file_target("nam", seeds.golden("nam"), mutate.json_of, convert.from_nam),
        file_target("checkpoint", seeds.checkpoints, header, _resume, *_DTYPES),
        file_target("snapshot", seeds.snapshots, header, _restore, *_DTYPES),
        file_target("rtneural", seeds.rtneural, mutate.json_of, convert.from_rtneural),
        file_target("brackets", seeds.trees, mutate.raw, _read_trees, names=False),
    ]
    if find_spec("h5py"):
        change = mutate.archive(in_keras)
        made += [
            file_target("keras", seeds.golden("keras"), change, _from_keras, suffix=".keras"),
            file_target("h5", seeds.golden("h5"), in_h5, _from_keras, suffix=".h5"),
            file_target("h5_arrays", seeds.golden("h5"), in_h5, convert.keras_weights),
        ]
    if find_spec("onnx"):
        made += [
            file_target("onnx", seeds.onnx_files, mutate.onnx, _from_onnx, share=2),
            file_target("graphs", graphs.onnx_graphs, mutate.onnx, _from_onnx, share=2),
        ]
    return made


#: Arrays of a dtype that loses precision, which `load_into` refuses.
_DTYPES = (TypeError,)


class Unclear(AssertionError):
    """A refusal that does not say, in one line, which file it is about."""


def file_target(
    name: str,
    sound: Callable[[], list[bytes]],
    change: mutate.Mutation,
    read: Callable[[Path], Any],
    *more: type[Exception],
    suffix: str = ".file",
    names: bool = True,
    share: float = 1.0,
) -> Target:
    """A kind of file: `read` of a sound one, changed; `names` whether errors name the file."""
    documented = (ValueError, *more)

    def prepare(luck: Random, path: Path) -> Callable[[], Any]:
        data = luck.choice(sound())
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


# Our own files


def _load_into(path: Path) -> None:
    """Read parameters into a module; refused, it is what it was."""
    module = seeds.layer()
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


def _resume(path: Path) -> None:
    """Go on from a checkpoint: refused, all is as it was; accepted, it trains."""
    trainer = seeds.new_trainer()

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


def _restore(path: Path) -> None:
    """Restore two streams from the arrays; refused, they are as they were."""
    snapshot, _ = load_arrays(path)
    for module in seeds.streaming().values():
        stream = module.stream(2)
        try:
            with _Kept(stream.snapshot):
                stream.restore(snapshot)
        except (ValueError, TypeError):
            continue
        with suppress(RuntimeError):  # of one that was finished
            stream.run(np.ones((2, stream.batch, 3), np.float32))


# Other libraries' files


def _from_torch(path: Path) -> None:
    convert.from_torch(path)


def _from_parts(path: Path) -> None:
    convert.from_torch(path, seeds.PARTS)


def in_npz(luck: Random, data: bytes) -> bytes:
    return mutate.archive(lambda name: mutate.raw)(luck, data)


def in_keras(name: str) -> mutate.Mutation:
    return mutate.json_of if name.endswith(".json") else in_h5


def in_h5(luck: Random, data: bytes) -> bytes:
    return (mutate.compressed if luck.random() < 0.05 else mutate.hdf5)(luck, data)


def _from_keras(path: Path) -> None:
    convert.from_keras(path, lengths=True)


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


def _read_trees(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for labelled in (False, True):
        with suppress(ValueError):
            forest = brackets.read(lines, labelled)
            brackets.write(forest, labelled)
            forest.to_nested()
