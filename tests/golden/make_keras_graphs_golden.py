"""Make `keras_graphs.npz` and the models in `keras_graphs/`: what Keras computes with branches.

    pip install keras==3.15.1 h5py torch
    KERAS_BACKEND=torch python tests/golden/make_keras_graphs_golden.py

`keras_graphs.npz` holds `MODEL/x0`, `MODEL/x1`, ... and `MODEL/y0`, ...: inputs and outputs of each
model, which is saved as `.keras`. Some are saved as `.h5` as well, one as weights alone beside its
architecture; all files together would be a megabyte.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
from keras import layers
from make_keras_golden import KERAS_VERSION, scramble

FOLDER = Path(__file__).parent
WHOLE = {"return_sequences": True}


def branches() -> keras.Model:
    """Merges of all kinds, a layer in two places, several inputs and outputs."""
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    shared = layers.Dense(4, activation="tanh", name="shared")
    one, other = shared(a), shared(b)
    merges = [
        layers.Add()([one, other, one]),
        layers.Subtract()([one, other]),
        layers.Multiply()([one, other]),
        layers.Average()([one, other]),
        layers.Maximum()([one, other]),
        layers.Minimum()([one, other]),
    ]
    joined = layers.Concatenate()(merges)
    hidden = layers.GRU(4, **WHOLE)(joined)
    skipped = layers.Add()([hidden, one])
    steps = layers.Concatenate(axis=1)([skipped, other])
    return keras.Model(
        [b, a], [layers.LSTM(2)(steps), layers.Dot((2, 2), normalize=True)([one, hidden])]
    )


def translator() -> keras.Model:
    """States of an encoder that a decoder starts from, and attention."""
    source, target = keras.Input((None, 3), name="source"), keras.Input((None,), dtype="int32")
    encoded, *states = layers.Bidirectional(layers.LSTM(2, return_state=True, **WHOLE))(source)
    h = layers.Concatenate()([states[0], states[2]])
    c = layers.Concatenate()([states[1], states[3]])
    table = layers.Embedding(7, 3, name="table")(target)
    decoder = layers.LSTM(4, return_state=True, name="decoder", **WHOLE)
    decoded, last, _ = decoder(table, initial_state=[h, c])
    context = layers.Attention(use_scale=True)([decoded, encoded])
    more = layers.AdditiveAttention(name="additive")([decoded, encoded, encoded])
    own = layers.GRU(4, **WHOLE)(decoded, initial_state=last)
    joined = layers.Concatenate()([decoded, context, more, own])
    out = layers.Dense(7, activation="softmax", name="out")
    return keras.Model([source, target], [out(joined), last])


def nested() -> keras.Model:
    """Models within models and within steps, cells, cells on one another, layers of training."""
    word = keras.Input((5,), dtype="int32")
    letters = layers.Embedding(9, 2)(word)
    word_model = keras.Model(word, layers.Bidirectional(layers.GRU(3))(letters), name="word")
    rows = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4), layers.BatchNormalization(), layers.PReLU()],
        name="rows",
    )
    words = keras.Input((None, 5), dtype="int32", name="words")
    steps = layers.TimeDistributed(word_model)(words)
    steps = layers.TimeDistributed(rows)(steps)
    steps = layers.GaussianNoise(0.2)(layers.SpatialDropout1D(0.2)(steps))
    steps = layers.ActivityRegularization(0.1)(steps)
    steps = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2, reset_after=False)], **WHOLE)(steps)
    steps = layers.Bidirectional(layers.RNN(layers.SimpleRNNCell(2), **WHOLE))(steps)
    steps = layers.TimeDistributed(layers.LayerNormalization())(steps)
    y = layers.RNN(layers.LSTMCell(3), name="end")(steps)
    return keras.Model(words, rows(layers.Dense(6)(y)))


def picture() -> keras.Model:
    """Characters in a picture: convolutions in two dimensions, then along the columns."""
    x = keras.Input((8, 12, 1))
    y = layers.Conv2D(4, 3, padding="same", strides=(2, 1), name="conv")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.MaxPooling2D((2, 2))(y)
    y = layers.ZeroPadding2D(((0, 1), (1, 2)))(y)
    y = layers.Conv2D(4, (2, 3), dilation_rate=(1, 2), groups=2, activation="relu")(y)
    y = layers.AveragePooling2D(2, strides=1, padding="same")(y)
    pooled = layers.GlobalAveragePooling2D()(y)
    y = layers.Permute((2, 1, 3))(y)
    y = layers.TimeDistributed(layers.Flatten())(y)
    y = layers.Bidirectional(layers.LSTM(3, **WHOLE))(y)
    y = layers.Dense(5, activation="softmax")(y)
    return keras.Model(x, [y, layers.GlobalMaxPooling1D(keepdims=True)(y), pooled])


def sounds() -> keras.Model:
    """Convolutions and pooling over time, one after the other."""
    return keras.Sequential(
        [
            keras.Input((40, 2)),
            layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"),
            layers.MaxPooling1D(2, padding="same"),
            layers.Conv1D(4, 4, strides=3, padding="same", use_bias=False, groups=2),
            layers.BatchNormalization(scale=False),
            layers.ZeroPadding1D((1, 0)),
            layers.AveragePooling1D(2, strides=1, padding="same"),  # of more torch counts padding
            layers.Conv1D(3, 2),
            layers.LSTM(3, **WHOLE),
            layers.GlobalAveragePooling1D(),
            layers.RepeatVector(4),
            layers.GRU(3, **WHOLE),
            layers.Flatten(),
            layers.Reshape((2, -1)),
            layers.Softmax(axis=1),
        ]
    )


def masked() -> keras.Model:
    """A mask that goes through layers of rows, both directions and a mean over time."""
    ids, rows = keras.Input((None,), dtype="int32"), keras.Input((None, 3))
    hidden = layers.Dense(4, activation="relu")(layers.Embedding(9, 3, mask_zero=True)(ids))
    hidden = layers.Bidirectional(layers.GRU(3, **WHOLE))(hidden)
    mean = layers.GlobalAveragePooling1D()(hidden)
    last = layers.LSTM(3)(layers.Dropout(0.3)(hidden))
    back = layers.SimpleRNN(2, go_backwards=True)(layers.Masking(-1.0)(rows))
    return keras.Model([ids, rows], layers.Concatenate()([mean, last, back]))


MODELS = {
    "branches": (branches, [(2, 5, 3), (2, 5, 3)]),
    "translator": (translator, [(2, 5, 3), (2, 4)]),
    "nested": (nested, [(2, 3, 5)]),
    "picture": (picture, [(2, 8, 12, 1)]),
    "sounds": (sounds, [(2, 40, 2)]),
    "masked": (masked, [(3, 5), (3, 5, 3)]),
}
LENGTHS = (5, 2, 4)


def inputs(name: str, shapes: list[tuple[int, ...]], rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the inputs of a model: indices where its input is one of indices."""
    indices = {"translator": (1,), "nested": (0,), "masked": (0,)}.get(name, ())
    xs = [
        rng.integers(1, 7, shape).astype(np.int32)
        if at in indices
        else rng.standard_normal(shape).astype(np.float32)
        for at, shape in enumerate(shapes)
    ]
    if name == "masked":
        for x, nothing in zip(xs, (0, -1), strict=True):
            for row, length in enumerate(LENGTHS):
                x[row, length:] = nothing
    return xs


def save(model: keras.Model, path: Path) -> None:
    """Write the files of a model."""
    whole = path.with_suffix(".keras")
    model.save(whole)
    with zipfile.ZipFile(whole) as archive:
        held = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in held.items():
            archive.writestr(zipfile.ZipInfo(entry), data, zipfile.ZIP_DEFLATED)
    if path.name in ("branches", "translator", "nested"):
        model.save(path.with_suffix(".h5"))
    if path.name == "nested":
        model.save_weights(path.with_suffix(".weights.h5"))
        path.with_suffix(".json").write_text(model.to_json())


def main() -> None:
    """Write the files."""
    if keras.__version__ != KERAS_VERSION:
        raise SystemExit(f"the golden files are made with keras {KERAS_VERSION}")
    rng, arrays = np.random.default_rng(5), {}
    (FOLDER / "keras_graphs").mkdir(exist_ok=True)
    for name, (build, shapes) in MODELS.items():
        keras.utils.clear_session()
        model = build()
        scramble(model, rng)
        for layer in model._flatten_layers():
            if isinstance(layer, layers.BatchNormalization):  # a variance is none below zero
                layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
        xs = inputs(name, shapes, rng)
        ys = model(xs if len(xs) > 1 else xs[0])
        ys = ys if isinstance(ys, (list, tuple)) else [ys]
        arrays |= {f"{name}/x{at}": x for at, x in enumerate(xs)}
        arrays |= {f"{name}/y{at}": keras.ops.convert_to_numpy(y) for at, y in enumerate(ys)}
        save(model, FOLDER / "keras_graphs" / name)
    np.savez_compressed(FOLDER / "keras_graphs.npz", **arrays)


if __name__ == "__main__":
    main()
