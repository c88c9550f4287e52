"""Modules and arrays: names, identity, loading with every fault named, pullbacks."""

import copy
import pickle
import threading
import weakref

import numpy as np
import pytest
from rnncore.arrays import as_array, as_shape
from rnncore.module import Module, once
from rnncore.parameters import Arrays, load_into


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
    pair.grads["first.bias"] += 3  # which no copy has
    twin = copy(pair)
    for name, param in pair.params.items():
        np.testing.assert_array_equal(twin.params[name], param)
        assert not twin.grads[name].any()
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
    with pytest.raises(KeyError, match="no array named 'b'"):
        held["b"] = None
    with pytest.raises(KeyError, match="no array named 'b'"):
        held.update(a=[1, 2, 3], b=[1, 2, 3])
    with pytest.raises(KeyError, match="no array named 'b'"):
        held |= {"a": [1, 2, 3], "b": [1, 2, 3]}
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
        with pytest.raises(TypeError, match=f"x is {wide.dtype}, but .* float32: write x"):
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


def test_a_second_thread_is_refused_while_the_first_runs():
    began, go_on, results = threading.Event(), threading.Event(), []

    def slow(dy):
        began.set()
        assert go_on.wait(10)
        return dy

    pullback = once(slow)
    first = threading.Thread(target=lambda: results.append(pullback(3)))
    first.start()
    assert began.wait(10)
    try:
        with pytest.raises(RuntimeError, match="already run"):
            pullback(4)
    finally:
        go_on.set()
        first.join()
    assert results == [3]
