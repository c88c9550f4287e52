"""Make `keras_2.npz` and the models in `keras_2/`: files of Keras 2, and layers on cuDNN.

    pip install keras==2.2.4 tensorflow==1.15.5 'h5py<3' 'protobuf<3.21'        # Python 3.7
    python tests/golden/make_keras_2_golden.py

`keras_2.npz` holds `MODEL/x0`, ... and `MODEL/y0`, ...: inputs and outputs of each model, which is
saved whole (`.h5`), or as weights alone (`.h5`) beside its architecture (`.json`). Layers on cuDNN
do not run without a GPU: Keras itself makes weights for them of those of others, and reads them
back into layers that do run.
"""

# ruff: noqa: B905  (Python 3.7)

from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers
from keras.engine import saving

KERAS_VERSION = "2.2.4"
FOLDER = Path(__file__).parent
WHOLE = {"return_sequences": True}


def on_cudnn(lstm=layers.CuDNNLSTM, gru=layers.CuDNNGRU, told=None, more=None):
    """Layers on cuDNN: one way, both ways, one that starts from another's states."""
    x = keras.Input((None, 3), name="x")
    told = told or {}
    y = layers.Bidirectional(gru(2, **WHOLE, **told, **(more or {})), name="both")(x)
    y, h, c = lstm(4, return_state=True, name="lstm", **WHOLE, **told)(y)
    z = lstm(4, name="last", **told)(y, initial_state=[h, c])
    return keras.Model(x, layers.Dense(2, name="out")(z))


def plain():
    """The same without a GPU."""
    sigmoid = {"recurrent_activation": "sigmoid"}
    return on_cudnn(layers.LSTM, layers.GRU, sigmoid, {"reset_after": True})


def pair():
    """A model called twice within another, merges, and layers that pad as TensorFlow does."""
    word = keras.Input((7, 3), name="word")
    y = layers.Conv1D(4, 3, padding="same", strides=2)(word)
    y = layers.AveragePooling1D(3, strides=2, padding="same")(layers.BatchNormalization()(y))
    embedded = keras.Model(word, layers.LSTM(3)(y), name="embedded")
    a, b = keras.Input((7, 3), name="a"), keras.Input((7, 3), name="b")
    one, other = embedded(a), embedded(b)
    y = layers.Subtract()([one, other])
    y = layers.Concatenate()([layers.Dot(1)([y, y]), layers.multiply([one, other])])
    return keras.Model([a, b], layers.Dense(1, activation="sigmoid")(y))


def tagger():
    """A Sequential model with a mask, steps taken apart, and a hard sigmoid, the default then."""
    return keras.Sequential(
        [
            layers.Embedding(9, 3, mask_zero=True, input_length=None),
            layers.SpatialDropout1D(0.2),
            layers.Bidirectional(layers.GRU(3, **WHOLE), merge_mode="sum"),
            layers.TimeDistributed(layers.Dense(3, activation="tanh")),
            layers.TimeDistributed(layers.BatchNormalization()),
            layers.LSTM(2, return_sequences=False),
        ]
    )


def scramble(model, rng):
    """Give every weight a value of its own; variances stay above zero."""
    model.set_weights(
        [
            np.abs(w + 0.3 * rng.standard_normal(w.shape)) + 0.1
            if "variance" in v.name
            else w + 0.3 * rng.standard_normal(w.shape)
            for w, v in zip(model.get_weights(), model.weights)
        ]
    )


def save_on_cudnn(model, path, rng):
    """Write a model's weights as its layers would have them on cuDNN, by Keras's own conversion."""
    kinds = {"LSTM": layers.CuDNNLSTM, "GRU": layers.CuDNNGRU}
    with h5py.File(str(path), "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", KERAS_VERSION.encode()
        for layer in model.layers:
            inner = getattr(layer, "layer", layer)
            kind = kinds.get(type(inner).__name__)
            fast = kind(1) if kind else inner
            fast = layers.Bidirectional(fast) if inner is not layer else fast
            arrays = saving.preprocess_weights_for_loading(fast, layer.get_weights(), KERAS_VERSION)
            for array in arrays:
                if array.shape == (8 * 4,):  # of the two biases of an LSTM only the sum is known
                    more = rng.standard_normal(4 * 4)
                    array += np.concatenate([more, -more])
            names = [weight.name.encode() for weight in layer.weights]
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = names
            for name, array in zip(names, arrays):
                group[name.decode()] = array


def main():
    """Write the files."""
    if keras.__version__ != KERAS_VERSION:
        raise SystemExit("the golden files are made with keras " + KERAS_VERSION)
    rng = np.random.Generator(np.random.PCG64(7))
    arrays, folder = {}, FOLDER / "keras_2"
    folder.mkdir(exist_ok=True)

    def note(name, model, *xs):
        ys = model.predict(list(xs) if len(xs) > 1 else xs[0])
        arrays.update({f"{name}/x{at}": x for at, x in enumerate(xs)})
        arrays.update({f"{name}/y0": ys})

    x = rng.standard_normal((2, 7, 3)).astype(np.float32)
    (folder / "on_cudnn.json").write_text(on_cudnn().to_json())
    keras.backend.clear_session()  # of what does not run here
    slow = plain()
    scramble(slow, rng)
    save_on_cudnn(slow, folder / "on_cudnn.h5", rng)
    again = plain()
    again.load_weights(str(folder / "on_cudnn.h5"))
    note("on_cudnn", again, x)

    two = pair()
    scramble(two, rng)
    two.save(str(folder / "pair.h5"))
    note("pair", two, x, rng.standard_normal((2, 7, 3)).astype(np.float32))

    ids = rng.integers(1, 9, (3, 5)).astype(np.int32)
    ids[1, 2:], ids[2, 4:] = 0, 0
    tags = tagger()
    tags.build((None, None))
    scramble(tags, rng)
    tags.save(str(folder / "tagger.h5"))
    note("tagger", tags, ids)
    np.savez_compressed(str(FOLDER / "keras_2.npz"), **arrays)


if __name__ == "__main__":
    main()
