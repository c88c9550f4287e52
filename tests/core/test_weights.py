"""Weights that others may write to: every call sees what `params` hold, however it came there."""

import copy
import ctypes
import gc
import pickle
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import rnncore
from hypothesis import given, settings
from hypothesis import strategies as st
from rnncore import Module

SIZE = 24
KINDS = (
    rnncore.Linear,
    rnncore.RNN,
    rnncore.LSTM,
    rnncore.GRU,
    rnncore.MGU,
    rnncore.MinGRU,
    rnncore.IndRNN,
)
LAYERS: dict[str, Callable[..., Module]] = {k.__name__: partial(k, SIZE, SIZE) for k in KINDS} | {
    k.__name__: partial(k, SIZE, SIZE, 1) for k in (rnncore.Conv1d, rnncore.ConvTranspose1d)
}
each_layer = pytest.mark.parametrize("name", LAYERS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def outputs(module: Module) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((3, 2, SIZE)).astype(module.dtype)
    y = module(x)
    return y[0] if isinstance(y, tuple) else y


def agrees(name: str, module: Module) -> None:
    """Check against a module made anew with the same parameters, to the bit."""
    found = outputs(module)  # before `state_dict` hands the arrays out
    fresh = LAYERS[name](seed=9, dtype=module.dtype)
    fresh.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(found, outputs(fresh))


def words(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(f"u{array.itemsize}")


def halves(a: np.ndarray) -> np.ndarray:
    """Numbers as they are after rounding to 16 bits: the upper half of a float32."""
    return (a.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def square(a: np.ndarray) -> np.ndarray:
    return a[: a.shape[1], : a.shape[0]]


Change = Callable[[np.ndarray, np.random.Generator], Any]
#: Writes into an array of two axes. Each leaves much of the array, or of its bits, as it was.
CHANGES: dict[str, Change] = {
    "all signs": lambda a, rng: np.negative(a, out=a),
    "some signs": lambda a, rng: np.multiply(a, rng.choice([-1, 1], a.shape), out=a),
    "signs of two rows": lambda a, rng: np.negative(a[2:4], out=a[2:4]),
    "signs of three numbers": lambda a, rng: np.multiply.at(
        a.reshape(-1), rng.choice(a.size, 3, replace=False), -1
    ),
    "a power of two": lambda a, rng: np.ldexp(a, rng.integers(-3, 4), out=a),
    "powers of two by row": lambda a, rng: np.ldexp(a, rng.integers(-3, 4, (len(a), 1)), out=a),
    "two doubled": lambda a, rng: np.multiply.at(
        a.reshape(-1), rng.choice(a.size, 2, replace=False), 2
    ),
    "rows": lambda a, rng: np.copyto(a, a[rng.permutation(len(a))]),
    "columns": lambda a, rng: np.copyto(a, a[:, rng.permutation(a.shape[1])]),
    "all numbers": lambda a, rng: rng.shuffle(a.reshape(-1)),
    "pairs of numbers": lambda a, rng: np.copyto(a, a.reshape(-1, 2)[:, ::-1].reshape(a.shape)),
    "rotated": lambda a, rng: np.copyto(a, np.roll(a, rng.integers(1, a.size))),
    "transposed": lambda a, rng: np.copyto(square(a), square(a).T.copy()),
    "16 bits": lambda a, rng: np.copyto(a, halves(a)),
    "a constant": lambda a, rng: np.add(a, 2.0 ** rng.integers(-8, 3), out=a),
    "the word's own": lambda a, rng: np.add(words(a), 1, out=words(a)),
    "a bit": lambda a, rng: np.bitwise_xor.at(
        words(a), rng.integers(a.size), words(a).dtype.type(1 << rng.integers(8 * a.itemsize - 2))
    ),
    "two top bits": lambda a, rng: np.bitwise_xor.at(
        words(a),
        rng.choice(a.size, 2, replace=False),
        words(a).dtype.type(1 << (8 * a.itemsize - 1)),
    ),
}


@each_layer
@each_dtype
@pytest.mark.parametrize("change", CHANGES)
def test_structured_changes_are_seen(name: str, dtype: str, change: str) -> None:
    module = LAYERS[name](seed=0, dtype=dtype)
    arrays = [a.reshape(len(a), -1) for n, a in module.params.items() if a.ndim > 1]
    rng = np.random.default_rng(0)
    for _ in range(5):
        outputs(module)
        CHANGES[change](arrays[rng.integers(len(arrays))], rng)
        agrees(name, module)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    changes=st.lists(st.sampled_from(list(CHANGES)), min_size=1),
    data=st.data(),
)
def test_changes_one_after_the_other_are_seen(
    seed: int, changes: list[str], data: st.DataObject
) -> None:
    """After each change the weights are looked at, or the next one comes at once."""
    module, rng = LAYERS["Linear"](seed=0), np.random.default_rng(seed)
    weight = module.params["weight"]
    for change in changes:
        CHANGES[change](weight, rng)
        if data.draw(st.booleans()):
            agrees("Linear", module)
    agrees("Linear", module)


def test_ternary_weights_drawn_anew_are_seen() -> None:
    """Few values, many ties: one call in 20 computed with the old ones."""
    rng = np.random.default_rng(0)
    module = LAYERS["Linear"](seed=0, bias=False)
    weight, x = module.params["weight"], np.eye(SIZE, dtype="float32")
    weight[...] = rng.integers(-1, 2, weight.shape)
    for _ in range(5000):
        module(x)
        at = rng.choice(weight.size, 2, replace=False)
        weight.reshape(-1)[at] = rng.integers(-1, 2, 2)
        np.testing.assert_array_equal(module(x), weight.T)


def write_and_let_go(module: Module) -> None:
    module.params["weight"] *= -1


def write_through_values(module: Module) -> None:
    for array in module.params.values():
        array += 1


def write_through_the_parent(module: Module) -> None:
    rnncore.Chain(module, rnncore.Tanh()).params["0.weight"] += 1


def write_through_weights(module: Module) -> None:
    module.weights()[0][...] *= -1


@pytest.mark.parametrize(
    "write",
    [write_and_let_go, write_through_values, write_through_the_parent, write_through_weights],
)
def test_arrays_handed_out_and_let_go_are_looked_at(write: Callable[[Module], None]) -> None:
    module = LAYERS["Linear"](seed=0)
    for _ in range(3):
        for _ in range(3):
            outputs(module)  # nobody holds the arrays: nothing is looked at
        write(module)
        agrees("Linear", module)


@pytest.mark.parametrize(
    "hold",
    [
        lambda a: a,
        lambda a: a[:1].T,
        memoryview,
        lambda a: np.frombuffer(a, a.dtype),
        lambda a: ctypes.c_char.from_buffer(a.reshape(-1).view(np.uint8)),
        lambda a: np.from_dlpack(a),
        lambda a: {"list": [a]},
    ],
)
def test_arrays_that_somebody_holds_are_looked_at(hold: Callable[[np.ndarray], Any]) -> None:
    module = LAYERS["Linear"](seed=0)
    held = hold(module.params["weight"])
    address = module.params["weight"].ctypes.data
    for _ in range(2):
        for _ in range(3):
            outputs(module)
        ctypes.c_float.from_address(address).value += 1
        agrees("Linear", module)
    del held


def test_weak_references_are_looked_at() -> None:
    module = LAYERS["Linear"](seed=0)
    weak = weakref.ref(module.params["weight"])
    for _ in range(3):
        outputs(module)
    weak()[...] += 1
    agrees("Linear", module)


def test_copies_that_share_arrays_are_looked_at() -> None:
    module = LAYERS["LSTM"](seed=0)
    twin = copy.copy(module)
    outputs(module), outputs(twin)
    for array in twin.params.values():
        array += 1
    agrees("LSTM", module)


def test_memory_that_an_array_does_not_own_is_looked_at() -> None:
    """Unpickled with buffers out of band, two modules would have one memory."""
    module, buffers = LAYERS["Linear"](seed=0), []
    text = pickle.dumps(module, protocol=5, buffer_callback=buffers.append)
    memory = [bytearray(buffer.raw()) for buffer in buffers]
    one, two = (pickle.loads(text, buffers=memory) for _ in range(2))
    outputs(one), outputs(two)
    two.params["weight"][...] += 1
    agrees("Linear", one), agrees("Linear", two)
    assert all(array.flags.owndata for array in one.params.values())


def test_an_embedding_written_to_counts_in_the_layer_tied_to_it() -> None:
    embedding = rnncore.Embedding(7, SIZE, seed=0)
    tied, x = rnncore.TiedLinear(embedding, bias=False), np.eye(SIZE, dtype="float32")
    for _ in range(3):
        np.testing.assert_array_equal(tied(x), embedding.params["weight"].T)
        embedding.params["weight"] *= -1


@pytest.mark.parametrize("name", ["Linear", "LSTM"])
def test_weights_that_nobody_holds_are_not_read(name: str) -> None:
    """Written behind Python's back, by their bare address, they go unseen: they were not read."""
    module = LAYERS[name](seed=0)
    key = next(iter(module.params))
    address = module.params[key].ctypes.data
    gc.collect()
    before = outputs(module)
    ctypes.c_float.from_address(address).value += 1
    np.testing.assert_array_equal(outputs(module), before)
    assert key in module.params  # handed out: now they are
    assert np.any(outputs(module) != before)


class TestArraysChangedInPlace:
    """Their address was taken when the layer was made: with another one nothing is right."""

    @staticmethod
    def resize(array: np.ndarray) -> None:
        array.resize((1, 1), refcheck=False)

    @staticmethod
    def retype(array: np.ndarray) -> None:
        array.dtype = np.int32

    @pytest.mark.parametrize("change", ["resize", "retype"])
    @pytest.mark.filterwarnings("ignore:Setting the dtype")
    @pytest.mark.parametrize("name", ["Linear", "LSTM", "GRU"])
    def test_a_parameter_is_refused_by_name(self, name: str, change: str) -> None:
        module = LAYERS[name](seed=0)
        outputs(module)
        key = next(iter(module.params))
        getattr(self, change)(module.params[key])
        with pytest.raises(ValueError, match=f"{key} must stay the array that it was"):
            outputs(module)
        with pytest.raises(ValueError, match=f"{key} must stay"):
            module.vjp(np.zeros((1, 1, SIZE), "float32"))
        with pytest.raises(ValueError, match=f"{key} must stay"):
            module.stream(1)

    def test_layers_that_read_in_place_refuse_too(self) -> None:
        norm, table = rnncore.LayerNorm(SIZE), rnncore.Embedding(5, SIZE, seed=0)
        norms, tables = norm.stream(1), table.stream(1)
        norm.params["bias"].resize(1, refcheck=False)
        table.params["weight"].resize((1, 1), refcheck=False)
        x = np.zeros((1, SIZE), "float32")
        for call in (lambda: norm(x), lambda: norms.step(x)):
            with pytest.raises(ValueError, match="bias must stay"):
                call()
        with pytest.raises(ValueError, match="weight must stay"):
            tables.step(np.zeros(1, np.int64))

    @pytest.mark.parametrize("name", ["LSTM", "GRU"])
    def test_a_gradient_is_refused_by_name(self, name: str) -> None:
        module = LAYERS[name](seed=0)
        x = np.ones((3, 2, SIZE), "float32")
        (y, _), pullback = module.vjp(x)
        pullback(y)
        (y, _), pullback = module.vjp(x)
        key = next(iter(module.grads))
        module.grads[key].resize((1, 1), refcheck=False)
        with pytest.raises(ValueError, match=f"{key} must stay"):
            pullback(y)

    def test_trees_refuse_too(self) -> None:
        net, forest = rnncore.TreeLSTM(4, 5, seed=0), rnncore.Forest.from_parents([[2, 2, -1]])
        x = np.ones((3, 4), "float32")
        _, pullback = net.vjp(x, forest)
        net.grads["weight_hh"].resize(1, refcheck=False)
        with pytest.raises(ValueError, match=r"weight_hh must have shape .*, got \(1,\)"):
            pullback(np.ones((3, 5), "float32"))
        net.params["weight_ih"].resize((1, 1), refcheck=False)
        with pytest.raises(ValueError, match="weight_ih must stay"):
            net(x, forest)
