"""Modules and arrays: names, identity, loading with every fault named, files, pullbacks."""

import copy
import os
import pickle
import stat
import weakref

import numpy as np
import pytest
from rnncore import arrays
from rnncore.arrays import (
    Arrays,
    as_array,
    as_shape,
    load_arrays,
    load_into,
    save_arrays,
    write_atomic,
)
from rnncore.module import Module, once
from safetensors.numpy import save


class Leaf(Module):
    """Two parameters."""

    def __init__(self, start=0.0, dtype="float32"):
        super().__init__({"weight": np.full((2, 3), start, dtype), "bias": np.zeros(2, dtype)})


class Pair(Module):
    """A composition that keeps its parts as attributes, among other things."""

    def __init__(self):
        super().__init__()
        self.size = 3
        self.first, self.second = Leaf(1.0), Leaf(2.0)


class Mixed(Module):
    """Parts and a parameter of its own."""

    def __init__(self):
        super().__init__({"scale": np.ones(1, "float32")})
        self.inner = Pair()


NAMES = ["first.weight", "first.bias", "second.weight", "second.bias"]


# Names and identity


def test_names_are_dotted():
    assert list(Leaf().params) == ["weight", "bias"]
    assert list(Pair().params) == NAMES
    assert list(Mixed().params) == ["scale"] + [f"inner.{name}" for name in NAMES]
    assert dict(Module().params) == {}


@pytest.mark.parametrize("kind", [Leaf, Pair, Mixed])
def test_gradients_mirror_parameters(kind):
    module = kind()
    grads = module.grads
    assert list(grads) == list(module.params)
    for name, param in module.params.items():
        assert (grads[name].shape, grads[name].dtype) == (param.shape, param.dtype)
        assert not grads[name].any()
        assert module.grads[name] is grads[name]
        module.grads[name] += 2
        assert (grads[name] == 2).all()
    module.zero_grad()
    for name, grad in grads.items():
        assert not grad.any()
        assert module.grads[name] is grad


def test_a_composition_shares_the_arrays_of_its_parts():
    pair = Pair()
    weight = pair.second.params["weight"]
    assert pair.params["second.weight"] is weight
    pair.params["second.weight"] = np.full((2, 3), 7, "float32")
    assert (weight == 7).all()
    pair.params["second.weight"] *= 2
    assert pair.second.params["weight"] is weight
    assert (weight == 14).all()


def test_base_class_computes_nothing():
    for call in (Module(), Module().vjp):
        with pytest.raises(NotImplementedError):
            call(np.zeros(3))


@pytest.mark.parametrize("copy", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_whole_and_apart(copy):
    pair = Pair()
    pair.grads["first.bias"] += 3
    twin = copy(pair)
    for name, param in pair.params.items():
        np.testing.assert_array_equal(twin.params[name], param)
        np.testing.assert_array_equal(twin.grads[name], pair.grads[name])
    twin.first.params["weight"] = np.full((2, 3), 9, "float32")
    assert (twin.params["first.weight"] == 9).all()
    assert (pair.params["first.weight"] == 1).all()


def test_parameters_mapped_read_only_come_back_writeable():
    params = Arrays({"w": np.arange(3.0)})
    restore, (given,) = params.__reduce__()
    given["w"].flags.writeable = False  # as joblib.load(..., mmap_mode="r") leaves them
    copy = restore(given)
    copy["w"] = np.ones(3)
    np.testing.assert_array_equal(params["w"], np.arange(3.0))


# Arrays


def test_arrays_copy_in_and_never_change_identity():
    mine, theirs = np.zeros(3, "float32"), np.ones(3, "float32")
    held = Arrays({"a": mine})
    held["a"] = theirs
    theirs[0] = 5
    assert held["a"] is mine
    np.testing.assert_array_equal(mine, [1, 1, 1])
    held["a"] = [1, 2, 3]
    held.update(a=np.array([3, 2, 1], "float32"))
    held |= {"a": mine + 1}
    assert held["a"] is mine
    np.testing.assert_array_equal(mine, [4, 3, 2])


def test_arrays_refuse_what_does_not_fit():
    held = Arrays({"a": np.zeros(3, "float32")})
    with pytest.raises(ValueError, match=r"a must have shape \(3,\), got \(2,\)"):
        held["a"] = [1, 2]
    with pytest.raises(ValueError, match=r"a must have shape \(3,\), got \(\)"):
        held["a"] = 1
    with pytest.raises(TypeError, match="a is float64, but this module computes in float32"):
        held["a"] = np.ones(3)
    with pytest.raises(KeyError, match="no array named 'b'; there are a"):
        held["b"] = [1, 2, 3]
    with pytest.raises(KeyError, match="no array named 'b'"):
        held.update(b=[1, 2, 3])
    assert not held["a"].any()


def test_arrays_have_fixed_names():
    held = Arrays({"a": np.zeros(3)})
    changes = [
        lambda: held.pop("a"),
        lambda: held.popitem(),
        lambda: held.clear(),
        lambda: held.setdefault("b", np.zeros(1)),
        lambda: held.__delitem__("a"),
    ]
    for change in changes:
        with pytest.raises(TypeError, match=r"names .* are fixed"):
            change()
    assert list(held) == ["a"]


def test_as_array_never_changes_a_number():
    exact = np.arange(3, dtype="float32")
    assert as_array("x", exact, "float32") is exact
    assert as_array("x", exact, "float64").dtype == np.float64
    assert as_array("x", np.array([1, 2], "int16"), "float32").dtype == np.float32
    assert as_array("x", [0.1, 2], "float32").dtype == np.float32
    assert as_array("x", 3, "float64").shape == ()
    for wide in (np.zeros(2), np.zeros(2, "int64"), np.zeros(2, "complex64"), np.float64(1)):
        with pytest.raises(TypeError, match=f"x is {wide.dtype}, but .* float32: convert it"):
            as_array("x", wide, "float32")
    with pytest.raises(TypeError, match="x"):
        as_array("x", [1.5, 2], "int64")
    with pytest.raises(ValueError, match=r"x must have shape \(2, 3\), got \(3, 2\)"):
        as_shape("x", np.zeros((3, 2)), "float64", (2, 3))


def test_load_into_names_every_fault_and_copies_nothing():
    target = {"a": np.zeros(2), "b": np.zeros(3), "c": np.zeros(1), "d": np.zeros((2, 2))}
    source = {"a": np.ones(2), "b": np.ones(4), "d": np.ones(4), "e": np.ones(1), "f": 1.0}
    with pytest.raises(ValueError, match="do not fit") as error:
        load_into(target, source)
    faults = (
        "missing 'c'",
        "unknown 'e'",
        "unknown 'f'",
        "'b' must have shape (3,), got (4,)",
        "'d' must have shape (2, 2), got (4,)",
    )
    for fault in faults:
        assert fault in str(error.value)
    with pytest.raises(TypeError, match="b is complex128"):
        load_into({k: target[k] for k in "ab"}, {"a": np.ones(2), "b": np.ones(3, complex)})
    assert not any(array.any() for array in target.values())
    load_into(target, {"a": [1, 1], "b": np.ones(3, "float32"), "c": [1], "d": np.ones((2, 2))})
    assert all(array.all() for array in target.values())


# State dicts


def test_state_dict_is_a_copy():
    pair = Pair()
    state = pair.state_dict()
    assert type(state) is dict
    pair.params["first.weight"] += 1
    assert (state["first.weight"] == 1).all()
    held = pair.params["first.weight"]
    pair.load_state_dict(state)
    assert pair.params["first.weight"] is held
    assert (held == 1).all()


def test_load_state_dict_names_all_that_does_not_fit():
    pair = Pair()
    state = pair.state_dict() | {"third.weight": np.zeros(1), "first.bias": np.zeros(9, "float32")}
    del state["second.weight"]
    with pytest.raises(
        ValueError, match=r"missing 'second.weight'.*unknown 'third.weight'"
    ) as error:
        pair.load_state_dict(state)
    assert "'first.bias' must have shape (2,), got (9,)" in str(error.value)
    with pytest.raises(TypeError, match="float64"):
        pair.load_state_dict(Pair().state_dict() | {"first.bias": np.zeros(2)})


# Files


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
    assert load_arrays(tmp_path / "file")[1] == metadata


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
    "wrong size": header('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,4]}}') + bytes(4),
    "metadata that is not JSON": save({"a": np.zeros(1)}, {"config": "{oops"}),
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
            patch.setattr(arrays.os, step, refuse)
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


# Pullbacks


def test_once():
    calls = []
    pullback = once(lambda *args, **kwargs: calls.append((args, kwargs)) or len(calls))
    assert pullback(1, b=2) == 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="this pullback has already run"):
            pullback(1)
    assert calls == [((1,), {"b": 2})]


def test_once_releases_what_was_captured():
    class Tape:
        pass

    tape = Tape()
    gone = weakref.ref(tape)
    pullback = once(lambda dy, tape=tape: dy)
    del tape
    assert gone() is not None
    pullback(1)
    assert gone() is None


def test_a_refused_call_does_not_count():
    def strict(dy):
        if dy is None:
            raise ValueError("dy must be given")
        return dy

    pullback = once(strict)
    with pytest.raises(ValueError, match="dy must be given"):
        pullback(None)
    assert pullback(3) == 3
    with pytest.raises(RuntimeError, match="already run"):
        pullback(3)
