"""What a file says of a model: every class is described by its arguments, and made by them."""

import copy
import inspect
import json
import pickle
import time

import numpy as np
import pytest
import rnncore
from rnncore import Chain, Dropout, Linear, Module, Tanh
from rnncore.arrays import room_for
from rnncore.configuration import DEPTH, Builder, describe

from tests.support.models import MODELS


def rebuilt(module, *classes):
    return Builder(classes).build(json.loads(json.dumps(describe(module))))


def arrays_of(result):
    if isinstance(result, tuple):
        return [array for part in result for array in arrays_of(part)]
    return [] if result is None else [result]


class Scaled(Module):
    """A user's class, with all kinds of arguments."""

    def __init__(self, inner, *more, factor=1.0, rng=None, hook=None, **options):
        super().__init__({"scale": np.full(1, factor, "float32")})
        self.inner, self.more, self.options, self.rng = inner, more, options, rng

    def __call__(self, x):
        return self.inner(x) * self.params["scale"]


# Descriptions


def test_the_table_has_every_class():
    public = (getattr(rnncore, name) for name in rnncore.__all__)
    classes = {c.__name__ for c in public if inspect.isclass(c) and issubclass(c, Module)}
    assert set(MODELS) == classes | {"CharModel"}


@pytest.mark.parametrize("name", MODELS)
def test_every_class_is_made_again(name):
    modules, call = MODELS[name]
    for module in modules:
        twin = rebuilt(module)
        assert type(twin) is type(module)
        assert describe(twin) == describe(module)
        assert list(twin.params) == list(module.params)
        twin.load_state_dict(module.stored)
        for got, want in zip(arrays_of(call(twin)), arrays_of(call(module)), strict=True):
            np.testing.assert_array_equal(got, want, strict=True)


def test_a_description_reads_like_the_call():
    chain = Chain(rnncore.GRU(1, np.int64(32), activations=["sigmoid", ("elu", 0.5)], seed=0))
    given = {"input_size": 1, "hidden_size": 32, "activations": ["sigmoid", ["elu", 0.5]]}
    gru = {"class": "GRU", "arguments": given}
    assert describe(chain) == {"class": "Chain", "arguments": {"layers": [gru]}}
    assert describe(Linear(1, 2, dtype=np.float64))["arguments"]["dtype"] == "float64"
    assert describe(Linear(1, 2, dtype=np.dtype("f8")))["arguments"]["dtype"] == "float64"


def test_seeds_and_first_values_are_left_out():
    for seed in (3, np.random.default_rng(3), np.random.SeedSequence(3)):
        assert describe(Linear(1, 2, seed=seed)) == describe(Linear(1, 2))
        assert describe(Dropout(0.5, seed=seed)) == describe(Dropout(0.5))
    zeros = rnncore.GRU(1, 2, init=lambda rng, name, shape, hidden, dtype: np.zeros(shape))
    assert describe(zeros) == describe(rnncore.GRU(1, 2))
    assert "rng" not in describe(Scaled(Tanh(), rng=np.random.default_rng(0)))["arguments"]


def test_a_seed_for_what_is_read():
    description = describe(Chain(Dropout(0.5), rnncore.GRU(3, 4, dropout=0.5, num_layers=2)))
    one, same, other = (Builder((), seed).build(description) for seed in (1, 1, 2))
    first, second, third = (np.array(m.layers[0].rng.random(4)) for m in (one, same, other))
    assert (first == second).all()
    assert (first != third).any()
    assert (one.params["1.weight_ih_l0"] == same.params["1.weight_ih_l0"]).all()


def test_shared_modules_stay_shared():
    linear = Linear(3, 3)
    chain = rebuilt(Chain(linear, Chain(Tanh(), linear), linear))
    assert chain[0] is chain[1][1] is chain[2]


def test_a_users_class():
    module = Scaled(Linear(2, 2), Tanh(), Dropout(), factor=np.float32(3), depth=2, hook=None)
    twin = rebuilt(module, Scaled)
    assert type(twin) is Scaled
    assert [type(part) for part in twin.more] == [Tanh, Dropout]
    assert (twin.params["scale"] == 3).all()
    assert twin.options == {"depth": 2}
    with pytest.raises(ValueError, match=r"test_configuration.Scaled' is unknown: .*=\[Scaled\]"):
        rebuilt(module)


def test_classes_of_one_name():
    class Chain(rnncore.Chain):
        """Somebody's."""

    first, mine = Chain, Chain(Tanh())

    class Chain(rnncore.Chain):
        """Somebody else's."""

    Chain.__module__ = "elsewhere"
    both = Chain(mine, rnncore.Chain())
    twin = rebuilt(both, Chain, first)
    assert [type(twin), type(twin[0]), type(twin[1])] == [Chain, first, rnncore.Chain]
    written = describe(mine)
    first.__module__ = "moved"
    assert type(Builder([first]).build(written)) is first


def test_what_a_file_cannot_hold_is_named():
    for given, kind in ((np.tanh, "ufunc"), (len, "builtin_function"), (np.ones(2), "ndarray")):
        with pytest.raises(ValueError, match=f"argument hook of Scaled was a '{kind}"):
            rebuilt(Scaled(Tanh(), hook=given), Scaled)
    with pytest.raises(ValueError, match="argument params of Module was a 'dict'"):
        rebuilt(Module({"a": np.ones(1)}))


@pytest.mark.parametrize("copy", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_describe_themselves(copy):
    linear = Linear(3, 3)
    chain = Chain(linear, rnncore.GRU(3, 3, init=lambda *args: np.zeros(args[2])), linear)
    twin = copy(chain)
    assert describe(twin) == describe(chain)
    assert twin[0] is twin[2]


def test_depth_has_a_limit():
    module = Chain()
    for _ in range(DEPTH // 2 - 1):
        module = Chain(module)
    rebuilt(module)
    with pytest.raises(ValueError, match=f"more than {DEPTH} deep"):
        describe(Chain(module))


# Descriptions from anywhere


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def linear(**arguments):
    return {"class": "Linear", "arguments": arguments}


HOSTILE = {
    "this describes no object": {"class": "Linear"},
    "this describes no object: {'class'": {"class": "Linear", "arguments": [3, 3]},
    "this describes no object: {'a'": linear(in_features={"a": 1}, out_features=2),
    "a class must be a name": {"class": ["Linear"], "arguments": {}},
    "the class 'open' is unknown": {"class": "open", "arguments": {}},
    "the class 'os.system' is unknown": {"class": "os.system", "arguments": {"command": "ls"}},
    "the class '__main__' is unknown": {"class": "__main__", "arguments": {}},
    "Linear has no argument 'size'": linear(in_features=1, out_features=1, size=1),
    "Linear has no argument 'self'": linear(self=1, in_features=1, out_features=1),
    "Linear: .*missing .*out_features": linear(in_features=1),
    "Linear: in_features must be at least 1, got 0": linear(in_features=0, out_features=1),
    "Linear: .*str": linear(in_features="3", out_features=1),
    "Linear: .*tuple": linear(in_features=[3], out_features=1),
    "Linear: .*NoneType": linear(in_features=None, out_features=1),
    "Linear: dtype": linear(in_features=1, out_features=1, dtype="int8"),
    "Chain: layer 0 must be a Module, got str": {
        "class": "Chain",
        "arguments": {"layers": ["Tanh"]},
    },
    "Chain: ": {"class": "Chain", "arguments": {"layers": 3}},
    "0 contains itself": {"class": "Chain", "arguments": {"layers": [{"shared": 0}]}},
    "1 is referred to before": {"class": "Chain", "arguments": {"layers": [{"shared": 1}]}},
    "-1 is referred to": {"class": "Chain", "arguments": {"layers": [Tanh, {"shared": -1}]}},
    "True is referred": {"class": "Chain", "arguments": {"layers": [{"shared": True}]}},
    "objects lie more than 100 deep": nested(DEPTH),
    "GRU has no argument 'nonsense'": {
        "class": "GRU",
        "arguments": {"input_size": 1, "hidden_size": 1, "nonsense": 1},
    },
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_descriptions(message):
    with pytest.raises(ValueError, match=message):
        Builder().build(HOSTILE[message])


HUGE = 10**6
CHANNELS = {"in_channels": 1, "out_channels": 1}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Linear", {"in_features": HUGE, "out_features": HUGE}),
        ("Linear", {"in_features": 60_000, "out_features": 60_000}),
        ("Embedding", {"num_embeddings": 60_000, "embedding_dim": 60_000}),
        ("LayerNorm", {"normalized_shape": [60_000, 60_000]}),
        ("LSTM", {"input_size": 1, "hidden_size": HUGE}),
        ("LSTM", {"input_size": 1, "hidden_size": 60_000, "init": "orthogonal"}),
        ("GRU", {"input_size": 1, "hidden_size": 1, "num_layers": 10**12}),
        ("RNN", {"input_size": 1, "hidden_size": 1, "transition_depth": 10**12}),
        ("GRUCell", {"input_size": 60_000, "hidden_size": 60_000}),
        ("DeepRNN", {"input_size": 1, "hidden_size": 1, "input_depth": 10**12}),
        ("DeepRNN", {"input_size": 1, "hidden_size": 1, "num_layers": 60_000, "skip": True}),
        ("TreeLSTM", {"input_size": 60_000, "hidden_size": 60_000, "arity": 5}),
        ("RowConvolution", {"size": 60_000, "future": 10**12}),
        ("Conv1d", {**CHANNELS, "kernel_size": 10**6}),
        ("Conv1d", {"in_channels": 60_000, "out_channels": 60_000, "kernel_size": 1}),
        ("Conv1d", {**CHANNELS, "kernel_size": 1, "padding": 10**6}),
        ("Conv1d", {**CHANNELS, "kernel_size": 1, "padding": [0, 10**6]}),
        ("Conv1d", {**CHANNELS, "kernel_size": 9, "dilation": 60_000, "padding": "causal"}),
        (
            "Conv1d",
            {**CHANNELS, "kernel_size": 9, "stride": 2, "dilation": 60_000, "padding": "same"},
        ),
        ("Conv2d", {**CHANNELS, "kernel_size": [60_000, 60_000]}),
        ("Conv2d", {**CHANNELS, "kernel_size": 1, "padding": [0, [0, 10**6]]}),
        ("ConvTranspose1d", {**CHANNELS, "kernel_size": 1, "stride": 10**6}),
        ("BatchNorm", {"num_features": HUGE}),
        ("MaxPool1d", {"kernel_size": 10**6}),
    ],
)
def test_no_more_memory_than_the_file_has_numbers(name, arguments):
    with room_for(100), pytest.raises(ValueError, match="the file holds no more than 100 numbers"):
        Builder().build({"class": name, "arguments": arguments})


def doubled(levels, leaf, wrap):
    """Each level holds the one below it twice."""
    for level in range(levels, 0, -1):
        leaf = {"class": "Chain", "arguments": {"layers": wrap(leaf, {"shared": level})}}
    return leaf


@pytest.mark.parametrize(
    "leaf", [linear(in_features=1, out_features=1), {"class": "Tanh", "arguments": {}}]
)
@pytest.mark.parametrize("wrap", [lambda a, b: [a, b], lambda a, b: [a] + [b] * 9])
@pytest.mark.parametrize("levels", [13, 45])
def test_no_more_places_than_the_file_has_entries(leaf, wrap, levels):
    started = time.process_time()
    with (
        room_for(100, 10),
        pytest.raises(ValueError, match="shared modules stand in"),
    ):
        Builder().build(doubled(levels, leaf, wrap))
    assert time.process_time() - started < 5


def test_shared_modules_within_reason():
    one = {"class": "Tanh", "arguments": {}}
    many = {"class": "Chain", "arguments": {"layers": [one] + [{"shared": 1}] * 20_000}}
    block = {
        "class": "Chain",
        "arguments": {"layers": [linear(in_features=1, out_features=1), one]},
    }
    tied = {"class": "Chain", "arguments": {"layers": [block] + [{"shared": 1}] * 2_000}}
    with room_for(10, 2):
        assert len(Builder().build(many)) == 20_001
    with room_for(8_000, 4_002):
        assert len(Builder().build(tied).params) == 4_002
