"""Arrays in other layouts, byte orders and places, and such as there is no memory to copy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import GRU, LSTM, Chain, DeepRNN, Embedding, LayerNorm, Linear, Softmax, Tanh

from tests.support.processes import not_sanitized, run_python

X = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)


def shifted(x: np.ndarray) -> np.ndarray:
    """The same numbers, contiguous, a byte away from where the processor wants them."""
    room = np.empty(x.nbytes + 1, np.uint8)
    y = room[1:].view(x.dtype).reshape(x.shape)
    y[...] = x
    assert y.flags.c_contiguous
    assert not y.flags.aligned
    return y


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "unaligned": shifted,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "Fortran order": np.asfortranarray,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


def attention(x: np.ndarray) -> Any:
    return rnncore.LuongAttention(3, 3, seed=0)(x, x)


def decoded(x: np.ndarray) -> Any:
    asks = rnncore.BahdanauAttention(3, 3, seed=0)
    decoder = rnncore.Decoder(None, GRU(6, 3, seed=0), asks, Linear(3, 2, seed=0))
    return rnncore.Seq2Seq(GRU(3, 3, seed=0), decoder)(x, x)


def both_ways(module: Any) -> Callable[[np.ndarray], Any]:
    def call(x: np.ndarray) -> Any:
        module.zero_grad()
        y, pullback = module.vjp(x)
        return module(x), y, pullback(x), *map(np.copy, module.grads.values())

    return call


CALLS: dict[str, Callable[[np.ndarray], Any]] = {
    **{
        module.__class__.__name__: both_ways(module)
        for module in (Tanh(), Softmax(), LayerNorm(3), rnncore.PReLU(3))
    },
    "Linear": both_ways(Linear(3, 3, seed=0)),
    "Dropout": both_ways(rnncore.Dropout(0.0)),
    "Conv1d": both_ways(rnncore.Conv1d(3, 3, 3, padding=1, seed=0)),
    "Conv2d": lambda x: both_ways(rnncore.Conv2d(3, 3, 1, seed=0))(x[None]),
    "ConvTranspose1d": both_ways(rnncore.ConvTranspose1d(3, 3, 3, padding=1, seed=0)),
    "MaxPool1d": both_ways(rnncore.MaxPool1d(3, 1, 1)),
    "AvgPool1d": both_ways(rnncore.AvgPool1d(3, 1, 1)),
    "GlobalMaxPool": lambda x: rnncore.GlobalMaxPool()(x),
    "GlobalAvgPool": lambda x: rnncore.GlobalAvgPool()(x),
    "GLU": lambda x: rnncore.GLU()(x[..., :2]),
    "BatchNorm": lambda x: both_ways(rnncore.BatchNorm(3))(x),  # each call moves its statistics
    "causal stream": lambda x: rnncore.Conv1d(3, 3, 2, padding="causal", seed=0).stream(2).run(x),
    "pool stream": lambda x: rnncore.MaxPool1d(2).stream(2).run(x),
    "GRU": both_ways(GRU(3, 3, seed=0)),
    "state": lambda x: GRU(3, 3, seed=0)(x, x[:1]),
    "two states": lambda x: LSTM(3, 3, seed=0)(x, (x[:1], x[1:2])),
    "DeepRNN": both_ways(DeepRNN(3, 3, num_layers=2, seed=0)),
    "cell": lambda x: rnncore.GRUCell(3, 3, seed=0)(x[0], x[1]),
    "stream": lambda x: Chain(Tanh(), GRU(3, 3, seed=0)).stream(2).run(x),
    "steps": lambda x: [s.step(x[0]) for s in [GRU(3, 3, seed=0).stream(2)] for _ in range(2)],
    "attention": attention,
    "decoder": decoded,
    "error": lambda x: rnncore.MeanSquaredError().vjp(x, x * 2)[1](),
    "cross entropy": lambda x: rnncore.SoftmaxCrossEntropy()(x, np.zeros((4, 2), int)),
}


def flat(value: Any) -> list[np.ndarray]:
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in flat(part)]
    return [np.asarray(value)]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_form_is_read_right(
    call: Callable[[np.ndarray], Any], form: Callable[[np.ndarray], np.ndarray]
) -> None:
    for got, want in zip(flat(call(form(X))), flat(call(X)), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_numbers_of_rows(form: Callable[[np.ndarray], np.ndarray]) -> None:
    table, numbers = Embedding(5, 3, seed=0), np.array([[1, 2], [4, 0]])
    np.testing.assert_array_equal(table(form(numbers)), table(numbers))
    one = table.stream(2).run(form(numbers))
    np.testing.assert_array_equal(one, table(numbers))


def test_results_do_not_go_to_an_unaligned_place() -> None:
    stream, out = GRU(3, 3, seed=0).stream(2), shifted(X[0])
    with pytest.raises(ValueError, match="out must be a contiguous array"):
        stream.step(X[0], out)
    np.testing.assert_array_equal(out, X[0])
    np.testing.assert_array_equal(stream.state, np.zeros((1, 2, 3), np.float32))


def test_room_beside_contexts_is_zero() -> None:
    asks = rnncore.LuongAttention(3, 3, seed=0)
    memory, _ = asks.remember(X)
    for _ in range(3):
        np.full((4, 2, 6), np.nan, np.float32)  # what memory used before would hold
        contexts, *_ = asks.look(X, memory, steps=np.array([2, 4]))
        assert not contexts[..., 3:].any()
        assert not contexts[2:, 0].any()


#: Views of one number that no memory holds copies of.
TOO_LARGE = {
    "Linear": "rnncore.Linear(3, 2)(view(2**31, 2, 3))",
    "Linear, transposed": "rnncore.Linear(64, 1)(np.zeros((64, 9_000_000), np.float32).T)",
    "Linear, out of range": "rnncore.Linear(1, 2**20)(view(2**44, 1))",
    "activation": "rnncore.ReLU()(view(2**31, 2, 3))",
    "softmax": "rnncore.Softmax()(view(2**31, 2, 3))",
    "normalisation": "rnncore.LayerNorm(3)(view(2**31, 2, 3))",
    "recurrent": "rnncore.GRU(3, 2)(view(2**10, 2**20, 3))",
    "convolution": "rnncore.Conv1d(3, 2, 2)(view(2**10, 2**20, 3))",
    "convolution, rows first": "rnncore.Conv1d(3, 2, 2, batch_first=True)(view(2**10, 2**20, 3))",
    "convolution's padding": "rnncore.Conv1d(1, 2, 2, padding=2**30)(view(1, 1, 1))",
    "images": "rnncore.Conv2d(3, 2, 2)(view(2**10, 2**10, 2**10, 3))",
    "transposed": "rnncore.ConvTranspose1d(1, 1, 1, 2**30)(view(3, 1, 1))",
    "pooling": "rnncore.MaxPool1d(2)(view(2**10, 2**20, 3))",
    "pooling of all": "rnncore.GlobalAvgPool()(view(2**20, 2**10, 3))",
    "batch norm": "rnncore.BatchNorm(3)(view(2**31, 2, 3))",
    "recurrent vjp": "rnncore.LSTM(3, 2).vjp(view(2**10, 2**20, 3))",
    "outputs alone": "rnncore.RNN(1, 2**12)(np.zeros((1000, 1000, 1), np.float32))",
    "stream": "rnncore.GRU(3, 2).stream(2).run(view(2**29, 2, 3))",
    "attention": "a = rnncore.LuongAttention(4, 6, seed=0); m, _ = a.remember("
    "np.zeros((5, 2, 6), np.float32)); a.look(view(2**31, 2, 4), m)",
    "memory": "rnncore.LuongAttention(4, 6, seed=0).remember(view(2**29, 2, 6))",
    "trees": "f = rnncore.Forest(np.r_[1 : 2**10, -1], [0, 2**10]); "
    "rnncore.TreeLSTM(2**21, 2)(view(2**10, 2**21), f)",
}


@not_sanitized
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory")
@pytest.mark.parametrize("call", TOO_LARGE.values(), ids=TOO_LARGE)
def test_without_memory_a_copy_is_refused(call: str) -> None:
    run_python(
        f"""
        import resource
        import numpy as np
        import rnncore
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        def view(*shape):
            return np.broadcast_to(np.float32(0), shape)
        try:
            {call}
        except MemoryError:
            pass
        else:
            raise SystemExit("no error")
        rnncore.GRU(3, 2)(np.zeros((5, 2, 3), np.float32))  # which goes on
        """
    )
