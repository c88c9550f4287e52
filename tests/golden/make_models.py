"""Make the files of `models/`: models as a release writes them, and what they compute.

    python tests/golden/make_models.py

To be run with the release whose files shall be kept, before its successor is out; the files of
commit 7e28965 are kept now. `outputs.npz` has what the models of `MODELS` gave, as `NAME/PLACE`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rnncore
from rnncore import text

FOLDER = Path(__file__).with_name("models")

Model = Any
Outputs = dict[str, np.ndarray]


def frames(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Numbers that no library draws, so that they stay what they are."""
    return (
        np.sin(1 + np.arange(np.prod(shape), dtype="float64") ** 1.5).reshape(shape).astype(dtype)
    )


def ids(*shape: int, below: int) -> np.ndarray:
    return (np.arange(np.prod(shape)) ** 2 % below).reshape(shape)


def outputs(found: Any, name: str) -> Outputs:
    """The arrays of whatever a call returns, named by their places."""
    if found is None:
        return {}
    if isinstance(found, np.ndarray):
        return {name: found}
    return {n: a for i, f in enumerate(found) for n, a in outputs(f, f"{name}/{i}").items()}


def ragged(model: Model, dtype: str = "float32") -> Any:
    return model(frames(5, 3, 3, dtype=dtype), lengths=[5, 2, 4])


def rectangular(model: Model) -> Any:
    return model(frames(5, 3, 3))


def forest(model: Model) -> Any:
    return model(frames(8, 3), rnncore.Forest.from_nested([((1, 2), 3), (4, 5)]))


def leaves(model: Model) -> Any:
    return model(frames(5, 3), rnncore.Forest.from_nested([((1, 2), 3), (4, 5)]))


def translated(model: Model) -> Any:
    return model(ids(6, 2, below=5), ids(3, 2, below=7), source_lengths=[6, 4])


def char_model() -> Model:
    config = text.CharConfig(cell="gru", hidden=5, layers=2, embedding=3)
    return text.CharModel(text.Vocabulary("\nabcdé"), config, seed=1)


def chain() -> Model:
    """Parts with options of their own, and one that stands in two places."""
    twice = rnncore.Linear(3, 3, seed=7)
    both = rnncore.Bidirectional(rnncore.GRU(3, 4, seed=0), rnncore.MGU(3, 4, seed=1), "sum")
    rest = rnncore.Elementwise(("elu", 0.5)), rnncore.LayerNorm(4), rnncore.Linear(4, 3, seed=2)
    return rnncore.Chain(twice, rnncore.Dropout(0.25), both, *rest, twice, rnncore.Softmax())


def seq2seq() -> Model:
    encoder = rnncore.Chain(
        rnncore.Embedding(5, 3, seed=0), rnncore.LSTM(3, 3, bidirectional=True, seed=1)
    )
    embedding = rnncore.Embedding(7, 4, seed=2)
    attention = rnncore.LuongAttention(4, 6, window=2, seed=3)
    lstm, head = rnncore.LSTM(8, 4, seed=4), rnncore.Linear(4, 7, seed=5)
    decoder = rnncore.Decoder(embedding, lstm, attention, head, input_feeding=True)
    return rnncore.Seq2Seq(encoder, decoder, rnncore.LinearBridge(6, 4, backward=False, seed=6))


#: How each model is made, and called.
MODELS: dict[str, tuple[Callable[[], Model], Callable[[Model], Any]]] = {
    "rnn": (lambda: rnncore.RNN(3, 4, 2, nonlinearity="relu", weight_drop=0.5, seed=0), ragged),
    "lstm": (
        lambda: rnncore.LSTM(3, 4, 2, bidirectional=True, proj_size=2, cell_clip=0.5, seed=0),
        ragged,
    ),
    "lstm_coupled": (lambda: rnncore.LSTM(3, 4, coupled=True, peephole=True, seed=0), ragged),
    "lstm_normalised": (lambda: rnncore.LSTM(3, 4, layer_norm="gate", seed=0), ragged),
    "gru": (
        lambda: rnncore.GRU(
            3, 4, 2, reset_after=False, transition_depth=2, dtype="float64", seed=0
        ),
        lambda model: ragged(model, "float64"),
    ),
    "gru_activations": (
        lambda: rnncore.GRU(3, 4, zoneout=0.25, activations=("hard_sigmoid", ("elu", 0.5)), seed=0),
        ragged,
    ),
    "ind_rnn": (
        lambda: rnncore.IndRNN(3, 4, 2, nonlinearity=("leaky_relu", 0.1), seed=0),
        ragged,
    ),
    "min_gru": (lambda: rnncore.MinGRU(3, 4, seed=0), ragged),
    "min_lstm": (lambda: rnncore.MinLSTM(3, 4, seed=0), ragged),
    "deep": (
        lambda: rnncore.DeepRNN(
            3, 4, num_layers=2, cell="lstm", input_depth=2, skip=True, peephole=True, seed=0
        ),
        ragged,
    ),
    "chain": (chain, ragged),
    "latency": (
        lambda: rnncore.LatencyControlled(
            [(rnncore.GRU(3, 4, seed=0), rnncore.LSTM(3, 4, seed=1))], 2, 1
        ),
        rectangular,
    ),
    "seq2seq": (seq2seq, translated),
    "char_model": (char_model, lambda model: model(ids(5, 2, below=6))),
    "tree_lstm": (lambda: rnncore.TreeLSTM(3, 4, layer_norm="gate", seed=0), forest),
    "child_sum": (lambda: rnncore.ChildSumTreeLSTM(3, 4, leaf_module=True, seed=0), forest),
    "both_tree": (
        lambda: rnncore.BidirectionalTree(
            rnncore.TreeGRU(3, 4, seed=0), rnncore.RecursiveNet(7, 2, 1, seed=1), "both"
        ),
        forest,
    ),
    "parser": (lambda: rnncore.Parser(3, 4, "relu", seed=0), leaves),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    found: Outputs = {}
    for name, (make, call) in MODELS.items():
        model = make()
        model.save(FOLDER / f"{name}.safetensors")
        found |= outputs(call(model), name)
    np.savez_compressed(FOLDER / "outputs.npz", **found)


if __name__ == "__main__":
    main()
