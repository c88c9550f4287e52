"""Damaged files of other people's models: an error that says so, never a crash or a hang."""

import copy
import json
import random
import zipfile
from pathlib import Path

import pytest
from rnncore import GRU, LSTM, Chain, Linear
from rnncore.convert import from_keras, from_onnx, from_rtneural, from_torch, to_onnx, to_rtneural

GOLDEN = Path(__file__).parents[1] / "golden"
KERAS = GOLDEN / "keras" / "tagger.keras"
DAMAGES = 120


def model_of(suffix, path):
    if suffix == "onnx":
        pytest.importorskip("onnx", reason="the package onnx reads and writes the format")
        to_onnx(Chain(Linear(2, 4, seed=1), GRU(4, 3, 2, bidirectional=True, seed=2)), path)
    elif suffix == "json":
        to_rtneural(Chain(Linear(2, 4, seed=1), GRU(4, 3, seed=2)), path)
    elif suffix == "keras":  # its checksums let no damage through to the parser of HDF5
        pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
        path.write_bytes(KERAS.read_bytes())
    else:
        LSTM(3, 4, seed=1).save(path)
    return path.read_bytes()


def damaged(data, luck):
    """Cut off, or with some bytes changed; half of these into others that text is made of."""
    if luck.random() < 0.2:
        return data[: luck.randrange(len(data))]
    changed = bytearray(data)
    pool = b'0123456789[]{},":-ntf' if luck.random() < 0.5 else bytes(range(256))
    for _ in range(luck.randint(1, 6)):
        changed[luck.randrange(len(data))] = luck.choice(pool)
    return bytes(changed)


@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        ("onnx", lambda path: from_onnx(path).module()),
        ("json", from_rtneural),
        ("keras", from_keras),
        ("safetensors", from_torch),
    ],
    ids=["onnx", "json", "keras", "safetensors"],
)
def test_damage_is_an_error_or_without_effect(tmp_path, suffix, read):
    path, luck, refused = tmp_path / f"model.{suffix}", random.Random(1), 0
    data = model_of(suffix, path)
    for _ in range(DAMAGES):
        path.write_bytes(damaged(data, luck))
        try:
            read(path)
        except (ValueError, TypeError):
            refused += 1
    assert refused > DAMAGES // 4


STRANGE = (None, True, -1, 0, 3, 1e999, 10**20, "", "tanh", "LSTM", [], {}, [[]], [1, 2], {"a": 1})


def places(value, at=()):
    """The ways to everything within a JSON value, but not to all numbers of an array."""
    yield at
    inner = value.items() if isinstance(value, dict) else ()
    inner = list(enumerate(value))[:4] if isinstance(value, list) else inner
    for key, part in inner:
        yield from places(part, (*at, key))


def twisted(value, luck):
    """A copy of a JSON value with something taken out, or something strange in its place."""
    value = copy.deepcopy(value)
    for _ in range(luck.randint(1, 3)):
        *way, last = luck.choice([at for at in places(value) if at])
        holder = value
        for key in way:
            holder = holder[key]
        if luck.random() < 0.3:
            del holder[last]
        else:
            holder[last] = copy.deepcopy(luck.choice(STRANGE))
        if not value:
            break
    return value


def test_sound_json_of_strange_content(tmp_path):
    path, luck, refused = tmp_path / "model.json", random.Random(2), 0
    model = json.loads(model_of("json", path))
    for _ in range(5 * DAMAGES):
        path.write_text(json.dumps(twisted(model, luck)))
        try:
            from_rtneural(path)
        except ValueError:
            refused += 1
    assert refused > DAMAGES


@pytest.mark.parametrize("name", ["keras/tagger", "keras_graphs/translator", "keras_graphs/nested"])
def test_keras_configurations_of_strange_content(tmp_path, name):
    pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
    path, luck, refused = tmp_path / "model.keras", random.Random(4), 0
    with zipfile.ZipFile(GOLDEN / f"{name}.keras") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(held["config.json"])
    for _ in range(DAMAGES):
        held["config.json"] = json.dumps(twisted(config, luck)).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in held.items():
                archive.writestr(name, data)
        try:
            from_keras(path)
        except ValueError:
            refused += 1
    assert refused > DAMAGES // 4
