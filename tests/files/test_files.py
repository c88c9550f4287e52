"""Model files: to the bit, atomic, of the right class; whatever else they hold gives an error."""

import json
import os
import stat
from contextlib import suppress

import numpy as np
import pytest
import rnncore
from rnncore import Chain, Linear, Module
from rnncore.arrays import load_arrays, save_arrays, write_atomic
from safetensors.numpy import save

from tests.support.models import MODELS


class Leaf(Module):
    """Two parameters."""

    def __init__(self, start=0.0):
        super().__init__({"weight": np.full((2, 3), start, "float32"), "bias": np.zeros(2, "f4")})


class Pair(Module):
    """Two parts."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Leaf(1.0), Leaf(2.0)


def special_values(dtype):
    info = np.finfo(dtype)
    return np.array(
        [0.0, -0.0, np.nan, np.inf, -np.inf, info.tiny / 2, info.max, info.eps, -1 / 3], dtype
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saved_and_loaded_to_the_bit(dtype, tmp_path):
    module, other = (Module({"a": np.zeros((3, 3), dtype)}) for _ in range(2))
    module.params["a"] = special_values(dtype).reshape(3, 3)
    module.save(tmp_path / "model.safetensors")
    other.load(str(tmp_path / "model.safetensors"))
    assert other.params["a"].tobytes() == module.params["a"].tobytes()


def test_save_arrays_in_any_memory_order(tmp_path):
    base = np.arange(24.0).reshape(2, 3, 4)
    named = {
        "turned": base.T,
        "strided": base[:, ::2, ::-1],
        "repeated": np.broadcast_to(base[0, 0], (3, 4)),
        "empty": np.zeros((0, 3)),
        "scalar": np.array(2.5),
        "integers": np.arange(5),
        "flags": np.array([True, False]),
    }
    save_arrays(tmp_path / "file", named)
    loaded, metadata = load_arrays(tmp_path / "file")
    assert metadata == {}
    assert loaded.keys() == named.keys()
    for name, array in named.items():
        assert (loaded[name].shape, loaded[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(loaded[name], array)


def test_metadata_comes_back(tmp_path):
    metadata = {"config": {"hidden": 3, "name": "é", "rates": [0.1, None]}, "version": "1"}
    Leaf().save(tmp_path / "file", metadata)
    stored = load_arrays(tmp_path / "file")[1]
    assert stored.pop("rnncore")["version"] == rnncore.__version__
    assert stored == metadata
    with pytest.raises(ValueError, match="metadata must not have an entry 'rnncore'"):
        Leaf().save(tmp_path / "file", {"rnncore": 1})


def test_load_names_what_does_not_fit(tmp_path):
    Pair().save(tmp_path / "pair")
    with pytest.raises(ValueError, match=r"missing 'weight'.*unknown 'first.weight'"):
        Leaf().load(tmp_path / "pair")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 50, -1])
def test_truncated_files(length, tmp_path):
    path = tmp_path / "model"
    Pair().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    leaf = Pair()
    with pytest.raises(ValueError, match="model is not a readable safetensors file"):
        leaf.load(path)
    assert (leaf.params["first.weight"] == 1).all()


def header(text):
    return len(text).to_bytes(8, "little") + text.encode()


FOREIGN = {
    "text": b"once upon a time there was a text file that was no model",
    "zip": b"PK\x03\x04" + bytes(100),
    "huge header": (1 << 62).to_bytes(8, "little") + b"{}",
    "no JSON": header("{nonsense"),
    "not an object": header("[1, 2]"),
    "outside the file": header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "unknown dtype": header('{"a":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
    "overlapping": header(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        '"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}'
    )
    + bytes(6),
    "a dtype that NumPy has not": header(
        '{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    )
    + bytes(4),
    "wrong size": header('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,4]}}') + bytes(4),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files(content, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model is not a readable safetensors file: "):
        load_arrays(path)


def test_missing_files(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no such model file: .*"):
            Leaf().load(path)


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    Leaf(1.0).save(path)

    def refuse(*_):
        raise OSError("disk full")

    for step in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, refuse)
            with pytest.raises(OSError, match="disk full"):
                Leaf(2.0).save(path)
        assert os.listdir(tmp_path) == ["model"]
        loaded = Leaf()
        loaded.load(path)
        assert (loaded.params["weight"] == 1).all()


def test_a_save_replaces_the_file_and_keeps_its_mode(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"new")
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o600)
    reader = path.open("rb")
    write_atomic(path, b"newer")
    with reader:
        assert reader.read() == b"new"  # whoever reads the old file goes on reading it
    assert path.read_bytes() == b"newer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["file", "plain"]


def test_saving_into_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        Leaf().save(tmp_path / "absent" / "model")


def test_metadata_must_be_json(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        Leaf().save(tmp_path / "model", {"array": np.zeros(3)})
    assert os.listdir(tmp_path) == []


# Models


@pytest.mark.parametrize("name", MODELS)
def test_every_class_comes_back(name, tmp_path):
    for module in MODELS[name][0]:
        module.save(tmp_path / "model", {"note": 1})
        twin = rnncore.load(tmp_path / "model")
        assert type(twin) is type(module)
        for key, param in module.params.items():
            assert twin.params[key].tobytes() == param.tobytes()


def test_tied_weights_stay_tied(tmp_path):
    linear = Linear(2, 2)
    Chain(linear, linear).save(tmp_path / "model")
    chain = rnncore.load(tmp_path / "model")
    assert chain[0] is chain[1]
    assert (chain[0].params["weight"] == linear.params["weight"]).all()


def test_tied_weights_are_one(tmp_path):
    linear = Linear(2, 2, seed=0)
    chain = Chain(linear, linear)
    before, state = linear.state_dict(), chain.state_dict()
    state["0.bias"][0] = np.nan
    state["1.bias"][0] = np.nan
    chain.load_state_dict(state)
    chain.load_state_dict(Chain(linear, linear).params)
    linear.load_state_dict(before)
    state = chain.state_dict()
    state["1.weight"] *= 2
    message = "'1.weight' differs from '0.weight', and they are one parameter"
    with pytest.raises(ValueError, match=message):
        chain.load_state_dict(state)
    chain.save(tmp_path / "model")
    save_arrays(tmp_path / "model", state, load_arrays(tmp_path / "model")[1])
    with pytest.raises(ValueError, match=message):
        rnncore.load(tmp_path / "model")
    assert linear.params["weight"].tobytes() == before["weight"].tobytes()


def test_a_users_class(tmp_path):
    path = tmp_path / "model"
    Leaf(3.0).save(path)
    message = r"model: the class 'tests.files.test_files.Leaf' is unknown: give it"
    with pytest.raises(ValueError, match=message):
        rnncore.load(path)
    leaf = rnncore.load(path, classes=[Leaf])
    assert type(leaf) is Leaf
    assert (leaf.params["weight"] == 3).all()


def test_files_without_a_model(tmp_path):
    path = tmp_path / "model"
    for metadata in (None, {"rnncore": 3}, {"rnncore": {"version": "1"}}):
        save_arrays(path, {"a": np.ones(1)}, metadata)
        with pytest.raises(ValueError, match="model describes no module"):
            rnncore.load(path)
    for described in (None, 3, [], {"class": "Vocabulary", "arguments": {"characters": "ab"}}):
        save_arrays(path, {}, {"rnncore": {"module": described}})
        with pytest.raises(ValueError, match=r"model: it describes no module.*by version None"):
            rnncore.load(path)


def test_arrays_must_fit_the_model(tmp_path):
    path = tmp_path / "model"
    described = {"class": "Linear", "arguments": {"in_features": 2, "out_features": 1}}
    metadata = {"rnncore": {"version": rnncore.__version__, "module": described}}
    weight, bias = np.ones((1, 2), "f4"), np.ones(1, "f4")
    for named, message in (
        ({"weight": weight}, "missing 'bias'"),
        ({"weight": weight.T, "bias": bias}, r"'weight' must have shape \(1, 2\), got \(2, 1\)"),
        ({"weight": weight.astype("f8"), "bias": bias}, "weight is float64"),
        ({"weight": weight, "bias": bias, "more": bias}, "unknown 'more'"),
    ):
        save_arrays(path, named, metadata)
        with pytest.raises(ValueError, match=f"model: .*{message}"):
            rnncore.load(path)


def test_huge_models_in_small_files(tmp_path):
    described = {"class": "Linear", "arguments": {"in_features": 10**6, "out_features": 10**6}}
    save_arrays(tmp_path / "model", {"a": np.ones(9)}, {"rnncore": {"module": described}})
    with pytest.raises(ValueError, match="the file holds no more than 9 numbers"):
        rnncore.load(tmp_path / "model")


@pytest.mark.parametrize("leaf", ["Tanh", "LSTM"])
def test_small_files_of_many_places(leaf, tmp_path):
    sizes = {"input_size": 1, "hidden_size": 1} if leaf == "LSTM" else {}
    described = {"class": leaf, "arguments": sizes}
    for level in range(45, 0, -1):
        described = {"class": "Chain", "arguments": {"layers": [described, {"shared": level}]}}
    save_arrays(tmp_path / "model", {"a": np.ones(9)}, {"rnncore": {"module": described}})
    with pytest.raises(ValueError, match="model: shared modules stand in"):
        rnncore.load(tmp_path / "model")


def test_a_file_that_does_not_fit_is_named_and_changes_nothing(tmp_path):
    leaf = Leaf(1.0)
    weight, bias = np.ones((2, 3), "f4") * 5, np.ones(2, "f4")
    for named in ({"weight": weight}, {"weight": weight, "bias": bias.astype("f8")}):
        save_arrays(tmp_path / "model", named)
        with pytest.raises(ValueError, match=r"model: .*bias"):
            leaf.load(tmp_path / "model")
        assert (leaf.params["weight"] == 1).all()


def test_bottomless_metadata(tmp_path):
    path = tmp_path / "model"
    for text in ("[" * 100_000, "[" * 900 + "]" * 900, '{"module": ' + "[" * 150 + "]" * 150 + "}"):
        path.write_bytes(save({}, {"rnncore": text}))
        with pytest.raises(ValueError, match="model"):
            rnncore.load(path)


# Files from anywhere


def change_bytes(data, rng):
    """Some bytes become others, mostly where the header is."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 8)):
        data[int(len(data) * rng.random() ** 3)] = rng.integers(256)
    return bytes(data)


def cut(data, rng):
    """A piece is missing, or there twice."""
    first, last = sorted(rng.integers(0, len(data), 2))
    return data[:first] + data[last:] if rng.random() < 0.5 else data[:last] + data[first:]


VALUES = [None, True, -1, 0, 2, 10**6, 10**12, 1.5, 1e999, "", "tanh", [], [[]], {}, {"shared": 0}]


def change_json(value, rng):
    """Something in a JSON value becomes something else, is missing, or moves."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        at = keys[rng.integers(len(keys))]
        value = value.copy()
        if isinstance(value, dict) and rng.random() < 0.1:
            value[str(VALUES[rng.integers(len(VALUES))])] = value.pop(at)
        elif rng.random() < 0.05:
            del value[at]
        else:
            value[at] = change_json(value[at], rng)
        return value
    if isinstance(value, int) and rng.random() < 0.5:
        return value + int(rng.integers(-3, 4)) * int(rng.choice([1, 8, 1 << 30]))
    return VALUES[rng.integers(len(VALUES))]


def change_header(data, rng):
    """The header is JSON still, but other JSON."""
    size = int.from_bytes(data[:8], "little")
    changed = json.loads(data[8 : 8 + size])
    if rng.random() < 0.7:
        stored = json.loads(changed["__metadata__"]["rnncore"])
        changed["__metadata__"]["rnncore"] = json.dumps(change_json(stored, rng))
    else:
        changed = change_json(changed, rng)
    text = json.dumps(changed).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@pytest.mark.parametrize("change", [change_bytes, cut, change_header])
def test_changed_files_load_or_give_an_error(change, tmp_path, rng):
    path, loaded = tmp_path / "model", 0
    models = [model for name in MODELS for model in MODELS[name][0]]
    for model in models:
        model.save(path)
        whole = path.read_bytes()
        for number in range(25):
            changed = tmp_path / f"changed{number}"  # to write over a file takes longer
            changed.write_bytes(change(whole, rng))
            with suppress(ValueError):
                assert isinstance(rnncore.load(changed), Module)
                loaded += 1
            changed.unlink()
    assert 0 < loaded < 0.8 * 25 * len(models)
