"""Nothing outlives its last user: whatever is dropped is gone at once, without the collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, Bidirectional, Chain, DeepRNN, Embedding, Linear, ReLU, Tanh, search

from tests.support import seq2seq_models
from tests.support.recursive_layers import CELLS, make, random_trees

X = np.zeros((4, 1, 3), np.float32)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What counting references does not free stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


#: What makes a module, its streams and what a call of it leaves.
MODULES: dict[str, Callable[[], Any]] = {
    "GRU": lambda: GRU(3, 2, seed=0),
    "LSTM": lambda: LSTM(3, 2, num_layers=2, dropout=0.1, seed=0),
    "Linear": lambda: Linear(3, 2, seed=0),
    "Tanh": Tanh,
    "Softmax": rnncore.Softmax,
    "LayerNorm": lambda: rnncore.LayerNorm(3),
    "PReLU": lambda: rnncore.PReLU(3),
    "BatchNorm": lambda: rnncore.BatchNorm(3),
    "causal": lambda: rnncore.Conv1d(3, 2, 2, padding="causal", seed=0),
    "Chain": lambda: Chain(GRU(3, 2, seed=0), Linear(2, 3, seed=0), ReLU()),
    "DeepRNN": lambda: DeepRNN(3, 4, num_layers=2, skip=True, seed=0),
    "two dtypes": lambda: Chain(Tanh(), GRU(3, 2, seed=0), Tanh()),
}
BOTH_WAYS = {
    "Bidirectional": lambda: Bidirectional(GRU(3, 2, seed=0), GRU(3, 2, seed=1)),
    "Conv1d": lambda: rnncore.Conv1d(3, 2, 2, padding=1, seed=0),
    "MaxPool1d": lambda: rnncore.MaxPool1d(2),
}


def pullback_of(module: Any) -> Any:
    return module.vjp(X)[1]


@pytest.mark.parametrize("make", (MODULES | BOTH_WAYS).values(), ids=MODULES | BOTH_WAYS)
class TestModules:
    def test_go(self, make: Callable[[], Any]) -> None:
        module = make()
        module(X)
        pullback_of(module)
        gone = weakref.ref(module)
        del module
        assert gone() is None

    def test_go_with_their_pullbacks(self, make: Callable[[], Any]) -> None:
        module = make()
        pullback, gone = pullback_of(module), weakref.ref(module)
        held = weakref.ref(pullback)
        del module, pullback
        assert (gone(), held()) == (None, None)

    def test_go_when_pullbacks_have_run(self, make: Callable[[], Any]) -> None:
        module, x = make(), X.copy()
        given = weakref.ref(x)
        y, pullback = module.vjp(x)
        pullback(np.ones_like(y[0] if module.recurrent else y))
        del x, y
        assert given() is None  # the pullback, which has run, holds nothing
        gone = weakref.ref(module)
        del module, pullback
        assert gone() is None


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
class TestStreams:
    def test_go(self, make: Callable[[], Any]) -> None:
        module = make()
        stream = module.stream(1)
        stream.step(X[0])
        stream.run(X)
        gone = weakref.ref(stream), weakref.ref(module)
        del module
        stream.step(X[0])  # which keeps what it needs
        del stream
        assert [ref() for ref in gone] == [None, None]

    def test_go_after_rows_have_come_and_gone(self, make: Callable[[], Any]) -> None:
        stream = make().stream(1)
        stream.run(X)
        stream.join(2)
        stream.leave([0])
        stream.restore(stream.snapshot())
        gone = weakref.ref(stream)
        del stream
        assert gone() is None


def test_a_thousand_connections_cost_no_more_than_one() -> None:
    module = GRU(3, 64, seed=0)
    module.stream(1).step(X[0])
    before = len(gc.get_objects())
    for _ in range(1000):
        module.stream(1).step(X[0])
    assert len(gc.get_objects()) < before + 100


def test_a_stream_of_numbers_goes() -> None:
    stream = Chain(Embedding(5, 3, seed=0), GRU(3, 2, seed=0)).stream(1)
    stream.step(np.array([1]))
    gone = weakref.ref(stream)
    del stream
    assert gone() is None


def test_attention_goes_with_its_memory() -> None:
    module = rnncore.LuongAttention(3, 3, seed=0)
    memory, _ = module.remember(X)
    contexts, _, back = module.look(X, memory, record=True)
    gone = [weakref.ref(thing) for thing in (module, contexts, back)]
    del module, memory, contexts, back
    assert [ref() for ref in gone] == [None, None, None]


@pytest.mark.parametrize("cell", CELLS)
def test_trees_go_with_what_was_remembered_of_them(cell: str) -> None:
    layer, forest = make(cell, 3, 2, 3), random_trees(np.random.default_rng(0), 2, 5, 3)
    x = np.zeros((forest.nodes, 3), np.float32)
    _, pullback = layer.vjp(x, forest)
    gone = [weakref.ref(thing) for thing in (layer, forest, pullback, x)]
    del layer, forest, pullback, x
    assert [ref() for ref in gone] == [None] * 4


@pytest.mark.parametrize("name", seq2seq_models.MODELS)
def test_models_of_two_sequences_go(name: str) -> None:
    model = seq2seq_models.MODELS[name]("float32")
    source, target = seq2seq_models.tokens()
    logits, pullback = model.vjp(source, target)
    gone = [weakref.ref(thing) for thing in (model, pullback)]
    del pullback
    _, pullback = model.vjp(source, target)
    pullback(np.ones_like(logits))
    search.beam(model, source, bos=0, eos=1, max_length=3, width=2)
    del model, pullback
    assert [ref() for ref in gone] == [None, None]
