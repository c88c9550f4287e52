"""Sound files of every kind, and the models in them: made by the library itself, or golden."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import count, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import rnncore
from rnncore import Chain, Linear, Module, convert, text
from rnncore.arrays import save_arrays
from rnncore.module import WEIGHT_TYPES
from rnncore.training.trainer import Batch, Trainer
from safetensors.numpy import save_file

from tests.support.models import MODELS
from tests.support.quantized import holding

_GOLDEN = Path(__file__).parents[1] / "golden"


def written(*writers: Callable[[Path], Any]) -> list[bytes]:
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


def clock() -> Any:
    """Time that goes on by a second whenever it is asked for: checkpoints tell the time."""
    return patch("time.perf_counter", count(1.0).__next__)


# Our own files


@cache
def models() -> list[bytes]:
    return written(*(model.save for model, _ in all_models()))


@cache
def quantized() -> list[bytes]:
    """Those of the models' copies with weights of fewer bits."""
    able = [
        model for model, _ in all_models() if all(p.dtype == np.float32 for p in holding(model))
    ]
    pairs = product(filter(holding, able), WEIGHT_TYPES)
    return written(*(rnncore.quantize(model, weights).save for model, weights in pairs))


def layer() -> Module:
    return rnncore.LSTM(3, 4, proj_size=2, seed=1)


@cache
def parameters() -> list[bytes]:
    return written(layer().save)


def new_trainer() -> Trainer:
    model = Chain(rnncore.LSTM(2, 3, dropout=0, weight_drop=0.5, seed=1), Linear(3, 2, seed=2))
    x = np.random.default_rng(1).standard_normal((4, 2, 2)).astype("float32")
    batches = [Batch(x, np.zeros((4, 2), int), None, None, carry) for carry in (False, True)]
    adam = rnncore.Adam(model)
    loss = rnncore.SoftmaxCrossEntropy()
    return Trainer(model, loss, adam, batches, validate=lambda: 1.0, metadata={"a": [1]}, seed=1)


@cache
def checkpoints() -> list[bytes]:
    trainer = new_trainer()
    found = written(trainer.save)
    with clock():
        trainer.fit(3, validate_every=1, quiet=True)
    return found + written(trainer.save)


@cache
def streaming() -> dict[str, Module]:
    layers = rnncore.GRU(3, 4, seed=1), rnncore.RowConvolution(4, 2, seed=2)
    return {"prompt": rnncore.LSTM(3, 4, 2, seed=1), "delayed": Chain(*layers)}


@cache
def snapshots() -> list[bytes]:
    found = []
    for module in streaming().values():
        stream = module.stream(2)
        stream.run(np.ones((3, 2, 3), np.float32))
        found += written(lambda path, stream=stream: save_arrays(path, stream.snapshot()))
    return found


@cache
def character_models() -> list[bytes]:
    vocabulary = text.Vocabulary("abé")
    config = text.CharConfig(hidden=3, layers=2, embedding=2)
    return written(text.CharModel(vocabulary, config, seed=1).save)


# Other libraries' files


@cache
def state_dicts() -> list[bytes]:
    torch_like = (rnncore.LSTM, rnncore.GRU, rnncore.RNN)
    modules: list[Module] = [kind(3, 4, 2, bidirectional=True, seed=1) for kind in torch_like]
    return written(
        *(
            lambda path, module=module: save_file(dict(module.params), path, {"format": "pt"})
            for module in modules
        )
    )


def _state() -> dict[str, np.ndarray]:
    """A state_dict with most that is read from one."""
    state = {f"module.rnn.{n}": a for n, a in rnncore.LSTM(3, 4, 2, seed=1).state_dict().items()}
    matrix = state.pop("module.rnn.weight_hh_l1")
    state |= {"module.rnn.weight_hh_l1_g": matrix[:, :1], "module.rnn.weight_hh_l1_v": matrix}
    norm = rnncore.BatchNorm(4).state_dict() | {"num_batches_tracked": np.array(3)}
    return state | {f"module.norm.{name}": array for name, array in norm.items()}


#: The layers of `_state`.
PARTS = ["rnn", "norm"]


@cache
def npz() -> list[bytes]:
    whole, half = _state(), {n: a.astype("f2" if a.ndim else "i8") for n, a in _state().items()}

    def writing(write: Callable[..., None], state: dict[str, np.ndarray]) -> Callable[[Path], Any]:
        def to(path: Path) -> None:
            with path.open("wb") as file:  # to a path NumPy adds a suffix
                write(file, **state)

        return to

    return written(writing(np.savez, whole), writing(np.savez_compressed, half))


@cache
def json_states() -> list[bytes]:
    state = {name: array.tolist() for name, array in _state().items()}
    return [json.dumps(state).encode()]


def golden(suffix: str) -> Callable[[], list[bytes]]:
    return cache(lambda: [path.read_bytes() for path in sorted(_GOLDEN.glob(f"*/*.{suffix}"))])


def in_folder(name: str) -> Callable[[], list[bytes]]:
    """The golden files of one kind."""
    return cache(lambda: [path.read_bytes() for path in sorted((_GOLDEN / name).glob("*.json"))])


@cache
def rtneural() -> list[bytes]:
    layers = Linear(2, 4, seed=1), rnncore.Tanh(), rnncore.GRU(4, 3, seed=2)
    return in_folder("rtneural")() + written(
        lambda path: convert.to_rtneural(Chain(*layers), path),
        lambda path: convert.to_rtneural(rnncore.LSTM(2, 3, 2, seed=1), path),
    )


@cache
def onnx_files() -> list[bytes]:
    return written(
        *(lambda path, model=model: convert.to_onnx(model, path) for model, _ in all_models())
    )


def trees() -> list[bytes]:
    return [b"(S (NP (DT the) (NN cat)) (VP sat))\n((a b) (c (d e)))\nword\n"]
