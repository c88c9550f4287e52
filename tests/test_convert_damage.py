"""Damaged files of other people's models: an error that says so, never a crash or a hang."""

import random
from pathlib import Path

import pytest
from rnncore import GRU, LSTM, Chain, Linear
from rnncore.convert import from_keras, from_onnx, from_rtneural, from_torch, to_onnx, to_rtneural

KERAS = Path(__file__).parent / "golden" / "keras" / "tagger.keras"
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
