"""The models that the tests of sequence to sequence walk, and what they are given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    RNN,
    BahdanauAttention,
    Bidirectional,
    Chain,
    ContextBridge,
    Decoder,
    DeepRNN,
    Embedding,
    FinalBridge,
    Linear,
    LinearBridge,
    LuongAttention,
    Reversed,
    Seq2Seq,
    TiedLinear,
)

S, T, B, V, E, H = 5, 6, 4, 7, 3, 5
SOURCE_LENGTHS, TARGET_LENGTHS = np.array([5, 1, 3, 4]), np.array([2, 6, 1, 5])


def encoder(dtype: str, cell: Any = LSTM, **options: Any) -> Chain:
    return Chain(Embedding(V, E, dtype=dtype, seed=0), cell(E, H, dtype=dtype, seed=1, **options))


def luong(
    dtype: str, score: str, feeding: bool = False, layers: int = 1, **options: Any
) -> Seq2Seq:
    """A bidirectional encoder, or one as wide as the decoder; Luong attention."""
    both = score != "dot"
    attention = LuongAttention(H, (1 + both) * H, score, dtype=dtype, seed=2, **options)
    rnn = LSTM(E + feeding * H, H, layers, dtype=dtype, seed=3)
    head = Linear(H, V, dtype=dtype, seed=4)
    embedding = Embedding(V, E, dtype=dtype, seed=5)
    decoder = Decoder(embedding, rnn, attention, head, input_feeding=feeding)
    bridge = LinearBridge((1 + both) * H, H, layers, dtype=dtype, seed=6)
    return Seq2Seq(encoder(dtype, bidirectional=both), decoder, bridge)


def bahdanau(dtype: str, layers: int = 1, **options: Any) -> Seq2Seq:
    attention = BahdanauAttention(H, 2 * H, size=4, dtype=dtype, seed=2, **options)
    rnn = GRU(E + 2 * H, H, layers, dtype=dtype, seed=3)
    head = Linear(H, V, dtype=dtype, seed=4)
    decoder = Decoder(Embedding(V, E, dtype=dtype, seed=5), rnn, attention, head)
    bridge = LinearBridge(H, H, layers, cell_state=False, backward=True, dtype=dtype, seed=6)
    return Seq2Seq(encoder(dtype, GRU, bidirectional=True), decoder, bridge)


def sutskever(dtype: str) -> Seq2Seq:
    """Two layers, final states as they are, the source reversed; no attention."""
    rnn, head = LSTM(E, H, 2, dtype=dtype, seed=3), Linear(H, V, dtype=dtype, seed=4)
    decoder = Decoder(Embedding(V, E, dtype=dtype, seed=5), rnn, None, head)
    return Seq2Seq(Reversed(encoder(dtype, num_layers=2)), decoder, FinalBridge())


def mixed(dtype: str, encodes: Any, decodes: Any, learnt: bool) -> Seq2Seq:
    """An encoder and a decoder of different cells."""
    rnn, head = decodes(E, H, 2, dtype=dtype, seed=3), Linear(H, V, dtype=dtype, seed=4)
    decoder = Decoder(Embedding(V, E, dtype=dtype, seed=5), rnn, None, head)
    has_c = decodes is LSTM
    bridge = LinearBridge(H, H, 2, cell_state=has_c, dtype=dtype) if learnt else FinalBridge()
    return Seq2Seq(encoder(dtype, encodes, num_layers=2), decoder, bridge)


def deep(dtype: str) -> Seq2Seq:
    """An encoder with more layers than the decoder, one of them in two directions side by side."""
    layers = GRU(E, H, dtype=dtype, seed=0), GRU(E, H, dtype=dtype, seed=1)
    above = DeepRNN(2 * H, H, cell="gru", num_layers=2, residual=True, dtype=dtype, seed=2)
    reads = Chain(Embedding(V, E, dtype=dtype, seed=7), Bidirectional(*layers), above)
    rnn, head = GRU(E, H, dtype=dtype, seed=3), Linear(H, V, dtype=dtype, seed=4)
    decoder = Decoder(Embedding(V, E, dtype=dtype, seed=5), rnn, None, head)
    return Seq2Seq(reads, decoder, LinearBridge(H, H, cell_state=False, dtype=dtype, seed=6))


def cho(dtype: str, cell: Any = GRU) -> Seq2Seq:
    """A context for every step."""
    rnn, head = cell(E + 4, H, 2, dtype=dtype, seed=3), Linear(H, V, dtype=dtype, seed=4)
    decoder = Decoder(Embedding(V, E, dtype=dtype, seed=5), rnn, None, head, context_size=4)
    bridge = ContextBridge(H, 4, H, 2, dtype=dtype, seed=6)
    return Seq2Seq(encoder(dtype, GRU), decoder, bridge)


def context_and_feeding(dtype: str) -> Seq2Seq:
    """All that can be joined to an input, from two layers side by side, reversed."""
    rnn = RNN(E + 4 + 6, H, dtype=dtype, seed=3)
    attention = LuongAttention(H, 2 * H, "general", output_size=6, dtype=dtype, seed=2)
    decoder = Decoder(
        Embedding(V, E, dtype=dtype, seed=5),
        rnn,
        attention,
        Linear(6, V, dtype=dtype, seed=4),
        input_feeding=True,
        context_size=4,
    )
    both = Bidirectional(LSTM(E, H, dtype=dtype, seed=0), LSTM(E, H, dtype=dtype, seed=1))
    reads = Chain(Embedding(V, E, dtype=dtype, seed=7), both)
    bridge = ContextBridge(2 * H, 4, H, dtype=dtype, seed=6)
    return Seq2Seq(Reversed(reads), decoder, bridge)


def tied(dtype: str) -> Seq2Seq:
    embedding = Embedding(V, E, dtype=dtype, seed=5)
    attention = LuongAttention(H, H, "dot", output_size=E, dtype=dtype, seed=2)
    rnn = LSTM(E, H, dtype=dtype, seed=3)
    decoder = Decoder(embedding, rnn, attention, TiedLinear(embedding))
    joined = Bidirectional(LSTM(E, H, dtype=dtype, seed=0), LSTM(E, H, dtype=dtype, seed=1), "sum")
    return Seq2Seq(Chain(Embedding(V, E, dtype=dtype, seed=8), joined), decoder)


def started(dtype: str) -> Seq2Seq:
    """Without a bridge: decoder and encoder start from states that are learnt."""
    rnn = LSTM(E + H, H, 2, dtype=dtype, learned_state=True, seed=3)
    attention = LuongAttention(H, H, "general", dtype=dtype, seed=2)
    head, embedding = Linear(H, V, dtype=dtype, seed=4), Embedding(V, E, dtype=dtype, seed=5)
    decoder = Decoder(embedding, rnn, attention, head, input_feeding=True)
    model = Seq2Seq(encoder(dtype, GRU, learned_state=True), decoder)
    for name, param in model.params.items():
        if "initial_" in name:
            param += np.linspace(-0.3, 0.4, param.size, dtype=dtype)
    return model


MODELS: dict[str, Callable[[str], Seq2Seq]] = {
    "dot": lambda dtype: luong(dtype, "dot"),
    "general, 2 layers": lambda dtype: luong(dtype, "general", layers=2),
    "concat": lambda dtype: luong(dtype, "concat", size=4),
    "local": lambda dtype: luong(dtype, "general", window=2),
    "local concat": lambda dtype: luong(dtype, "concat", window=1),
    "feeding, dot": lambda dtype: luong(dtype, "dot", feeding=True),
    "feeding, general, 2 layers": lambda dtype: luong(dtype, "general", feeding=True, layers=2),
    "feeding, concat": lambda dtype: luong(dtype, "concat", feeding=True, size=6),
    "feeding, local": lambda dtype: luong(dtype, "general", feeding=True, window=2),
    "feeding, local concat": lambda dtype: luong(dtype, "concat", feeding=True, window=1),
    "bahdanau": bahdanau,
    "bahdanau, local": lambda dtype: bahdanau(dtype, window=2),
    "bahdanau, 2 layers": lambda dtype: bahdanau(dtype, layers=2),
    "final states": sutskever,
    "final states, lstm to gru": lambda dtype: mixed(dtype, LSTM, GRU, False),
    "final states, gru to lstm": lambda dtype: mixed(dtype, GRU, LSTM, False),
    "learnt, lstm to rnn": lambda dtype: mixed(dtype, LSTM, RNN, True),
    "learnt, gru to lstm": lambda dtype: mixed(dtype, GRU, LSTM, True),
    "deep encoder": deep,
    "context": cho,
    "context, lstm": lambda dtype: cho(dtype, LSTM),
    "context and feeding": context_and_feeding,
    "tied": tied,
    "started": started,
}
each_model = pytest.mark.parametrize("build", MODELS.values(), ids=list(MODELS))
each_raggedness = pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])


def awake(model: Seq2Seq) -> Seq2Seq:
    """With weights so large that no gradient drowns in a difference's rounding."""
    for param in model.params.values():
        param *= 2.5
    return model


def tokens(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (S, B)), rng.integers(0, V, (T, B))


def lengths(ragged: bool) -> dict[str, Any]:
    if not ragged:
        return {}
    return {"source_lengths": SOURCE_LENGTHS, "target_lengths": TARGET_LENGTHS}


def forecaster(dtype: str) -> Seq2Seq:
    """From features to features: what the decoder reads and writes has two numbers a step."""
    attention = LuongAttention(H, H, "general", dtype=dtype, seed=2)
    decoder = Decoder(None, GRU(2, H, dtype=dtype, seed=3), attention, Linear(H, 2, dtype=dtype))
    bridge = FinalBridge()
    return Seq2Seq(GRU(3, H, dtype=dtype, seed=1), decoder, bridge)
