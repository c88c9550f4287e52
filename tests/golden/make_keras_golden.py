"""Make `keras.npz` and the models in `keras/`: what Keras computes with weights of each kind.

    pip install keras==3.15.1 h5py torch
    KERAS_BACKEND=torch python tests/golden/make_keras_golden.py

`keras.npz` holds `CASE/0`, `CASE/1`, ...: what `get_weights()` gives, `CASE/x` and `CASE/y`, for
single layers; and `MODEL/x` and `MODEL/y` for each model, which is saved in both formats.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers

KERAS_VERSION = "3.15.1"
FOLDER = Path(__file__).parent


def single_layers() -> dict[str, keras.Layer]:
    """The cases of single layers, all returning sequences."""
    whole = {"return_sequences": True}
    return {
        "rnn": layers.SimpleRNN(4, **whole),
        "rnn_relu_no_bias": layers.SimpleRNN(4, activation="relu", use_bias=False, **whole),
        "lstm": layers.LSTM(4, **whole),
        "lstm_no_bias": layers.LSTM(4, use_bias=False, **whole),
        "lstm_hard": layers.LSTM(
            4, recurrent_activation="hard_sigmoid", activation="softsign", **whole
        ),
        "lstm_one_unit": layers.LSTM(1, **whole),
        "gru": layers.GRU(4, **whole),
        "gru_reset_before": layers.GRU(4, reset_after=False, **whole),
        "gru_no_bias": layers.GRU(4, use_bias=False, **whole),
        "lstm_both": layers.Bidirectional(layers.LSTM(4, **whole)),
        "gru_both_sum": layers.Bidirectional(layers.GRU(4, **whole), merge_mode="sum"),
        "gru_reset_before_both": layers.Bidirectional(layers.GRU(4, reset_after=False, **whole)),
    }


def models() -> dict[str, keras.Model]:
    """The saved models."""
    tagger = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(9, 3),
            layers.LSTM(4, return_sequences=True, dropout=0.1, name="first"),
            layers.Dropout(0.2),
            layers.LSTM(4, return_sequences=True, name="second"),
            layers.LayerNormalization(),
            layers.TimeDistributed(layers.Dense(3, activation="tanh")),
            layers.Activation("softmax"),
        ]
    )
    classifier = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.Bidirectional(
                layers.GRU(4, return_sequences=True, reset_after=False), merge_mode="ave"
            ),
            layers.Bidirectional(layers.LSTM(2)),
            layers.Dense(5, activation="elu"),
            layers.LeakyReLU(0.1),
            layers.Dense(2, use_bias=False),
        ]
    )
    inputs = keras.Input((None, 3))
    hidden = layers.Bidirectional(
        layers.SimpleRNN(4, activation="relu"),
        backward_layer=layers.GRU(4, go_backwards=True),
        merge_mode="mul",
    )(inputs)
    functional = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))
    backwards = keras.Sequential([keras.Input((None, 3)), layers.GRU(4, go_backwards=True)])
    return {
        "tagger": tagger,
        "classifier": classifier,
        "functional": functional,
        "backwards": backwards,
    }


def scramble(layer: keras.Layer, rng: np.random.Generator) -> None:
    """Give every weight a value of its own, biases too."""
    layer.set_weights([w + 0.3 * rng.standard_normal(w.shape) for w in layer.get_weights()])


def main() -> None:
    """Write the files."""
    if keras.__version__ != KERAS_VERSION:
        raise SystemExit(f"the golden files are made with keras {KERAS_VERSION}")
    rng = np.random.default_rng(3)
    arrays: dict[str, np.ndarray] = {"keras_version": np.asarray(keras.__version__)}
    x = rng.standard_normal((2, 6, 3)).astype(np.float32)
    for case, layer in single_layers().items():
        layer.build(x.shape)
        scramble(layer, rng)
        arrays |= {f"{case}/x": x, f"{case}/y": keras.ops.convert_to_numpy(layer(x))}
        arrays |= {f"{case}/{at}": weight for at, weight in enumerate(layer.get_weights())}
    for name, model in models().items():
        scramble(model, rng)
        given = rng.integers(9, size=(2, 6)).astype(np.int32) if name == "tagger" else x
        arrays |= {f"{name}/x": given, f"{name}/y": keras.ops.convert_to_numpy(model(given))}
        for suffix in ("keras", "h5"):
            model.save(FOLDER / "keras" / f"{name}.{suffix}")
    np.savez_compressed(FOLDER / "keras.npz", **arrays)


if __name__ == "__main__":
    main()
