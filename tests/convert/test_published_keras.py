"""Models that people ship as Keras files, against NumPy in float64 that reads their arrays itself.

tests/support/published.py says where they are found.
"""

import json

import numpy as np
import pytest
from rnncore import Chain, Graph, Merge, Module, Readout, Softmax, load
from rnncore.convert import from_keras, keras_weights
from rnncore.module import once

from tests.support.compare import assert_same, near
from tests.support.gradients import check_layer
from tests.support.published import place

h5py = pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")

#: Of the largest output, by the dtype that the model computes in.
BOUNDS = {"float32": 2e-5, "float64": 1e-12}
dtypes = pytest.mark.parametrize("dtype", BOUNDS)


def arrays(path):
    """All arrays of a file in float64, by the last two parts of their names."""
    found = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            layer, array = name.split(":")[0].split("/")[-2:]
            found[layer, array] = item[()].astype(np.float64)

    with h5py.File(path) as file:
        file.visititems(note)
    return lambda layer, *names: [found[layer, name] for name in names]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def dense(x, kernel, bias, function=lambda x: x):
    return function(x @ kernel + bias)


def relu(x):
    return np.maximum(x, 0)


def lstm(x, kernel, recurrent, bias, gate, backwards=False):
    """Outputs of all steps, beside the frames they read; x (B, T, I), gates i, f, c, o."""
    h = c = np.zeros((len(x), len(recurrent)))
    y = np.zeros((*x.shape[:2], len(recurrent)))
    steps = range(x.shape[1])
    for t in reversed(steps) if backwards else steps:
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = gate(f) * c + gate(i) * np.tanh(g)
        y[:, t] = h = gate(o) * np.tanh(c)
    return y


LSTM = ("kernel", "recurrent_kernel", "bias")


@dtypes
@pytest.mark.parametrize("size", [50, 100, 150, 200, 300])
def test_chars2vec(rng, size, dtype):
    """Vectors of words: two LSTMs, of which the second's last output counts."""
    path = place("chars2vec", f"trained_models/eng_{size}/weights.h5", "chars2vec==0.1.7")
    names = list(keras_weights(path))
    first, second = (from_keras(path, layer=name, dtype=dtype) for name in names)
    model = Chain(first, Readout(second))
    words = np.zeros((3, 9, first.input_size), dtype)
    letters = rng.integers(0, first.input_size, (3, 9))
    np.put_along_axis(words, letters[..., None], 1, axis=2)
    words[:, :2] = 0  # as the package pads: at the beginning
    of, y = arrays(path), words
    for name in names:
        y = lstm(y, *of(name, *LSTM), hard_sigmoid)
    vectors, _ = model(words)
    assert vectors.shape == (3, size)
    near(vectors, y[:, -1], BOUNDS[dtype])


class WeightedAverage(Module):
    """y = sum_t a_t x_t with a = softmax(x w) over the steps: textgenrnn's own layer."""

    def __init__(self, size, dtype="float32"):
        super().__init__({"weight": np.zeros((size, 1), dtype)})
        self.softmax = Softmax(axis=1)
        self.batch_first = True
        self.dtype = np.dtype(dtype)

    def __call__(self, x):
        return (self.softmax(x @ self.params["weight"]) * x).sum(axis=1)

    def vjp(self, x):
        weight = self.params["weight"]
        a, back = self.softmax.vjp(x @ weight)

        def pullback(dy):
            ds = back((dy[:, None] * x).sum(axis=2, keepdims=True))
            self.grads["weight"] += np.einsum("bti,bto->io", x, ds)
            return a * dy[:, None] + ds @ weight.T

        return (a * x).sum(axis=1), once(pullback)


def test_a_layer_of_ones_own(rng):
    layer = WeightedAverage(4, "float64")
    layer.params["weight"][...] = rng.standard_normal((4, 1))
    check_layer(layer, rng.standard_normal((2, 5, 4)))


def textgenrnn(path, dtype):
    """The net that textgenrnn builds in Python, up to its softmax: the file holds weights alone."""
    own = keras_weights(path)["attention"]["attention_W"]
    attention = WeightedAverage(len(own), dtype)
    attention.load_state_dict({"weight": own.astype(dtype)})
    embedding, first, second, output = (
        from_keras(path, layer=name, dtype=dtype)
        for name in ("embedding", "rnn_1", "rnn_2", "output")
    )
    nodes = [
        ("embedding", embedding, "characters"),
        ("rnn_1", first, "embedding"),
        ("rnn_2", second, "rnn_1"),
        ("rnn_concat", Merge("concat"), "embedding", "rnn_1", "rnn_2"),
        ("attention", attention, "rnn_concat"),
        ("output", output, "attention"),
    ]
    return Graph(["characters"], nodes, ["output"])


def from_cudnn(kernel, recurrent, bias):
    """The arrays of an LSTM on cuDNN as those of one that is not, gate after gate."""
    kernels = [np.reshape(k.ravel(), k.shape[::-1]).T for k in np.split(kernel, 4, axis=1)]
    recurrents = [k.T for k in np.split(recurrent, 4, axis=1)]
    biases = np.float32(np.split(bias, 2))  # as Keras adds them
    return np.hstack(kernels), np.hstack(recurrents), biases.sum(axis=0)


def test_textgenrnn(rng, tmp_path):
    """Characters of text: LSTMs trained on cuDNN, skips over them, attention.

    In float64: on characters at random these weights make a thousand times more of rounding.
    """
    path = place("textgenrnn", "textgenrnn_weights.hdf5", "textgenrnn==2.0.0")
    model, of = textgenrnn(path, "float64"), arrays(path)
    given = rng.integers(0, 465, (3, 40))
    x = of("embedding", "embeddings")[0][given]
    parts = [x]
    for name in ("rnn_1", "rnn_2"):
        parts.append(lstm(parts[-1], *from_cudnn(*of(name, *LSTM)), sigmoid))
    joined = np.concatenate(parts, axis=-1)
    a = softmax(joined @ of("attention", "attention_W")[0], axis=1)
    want = dense((a * joined).sum(axis=1), *of("output", "kernel", "bias"))
    y, _ = model(given)
    near(y, want, BOUNDS["float64"])
    model.save(tmp_path / "textgenrnn.safetensors")
    again = load(tmp_path / "textgenrnn.safetensors", classes=[WeightedAverage])
    assert_same({"y": again(given)[0]}, {"y": y})


def test_textgenrnn_writes_english():
    """What no reference tells that shares our reading of cuDNN's arrays."""
    path = place("textgenrnn", "textgenrnn_weights.hdf5", "textgenrnn==2.0.0")
    vocabulary = place("textgenrnn", "textgenrnn_vocab.json", "textgenrnn==2.0.0")
    numbers = json.loads(vocabulary.read_text(encoding="utf-8"))
    letters = {number: letter for letter, number in numbers.items()}
    model, text = textgenrnn(path, "float32"), "What is the best "
    for _ in range(20):
        last = [numbers[letter] for letter in ("<s>", *text)][-40:]
        padded = np.array([[0] * (40 - len(last)) + last])
        text += letters[int(model(padded)[0].argmax())]
    assert " of the " in text


@dtypes
@pytest.mark.parametrize("language", ["ru", "en"])
def test_rnnmorph(rng, language, dtype):
    """Parts of speech: letters and properties of words, LSTMs both ways, normalised in batches."""
    path = place("rnnmorph", f"models/{language}/eval_model.h5", "rnnmorph==0.4.1")
    place("rnnmorph", f"models/{language}/eval_model.json", "rnnmorph==0.4.1")
    model = from_keras(path, dtype=dtype)
    assert model.inputs == ("grammemes", "chars")
    of = arrays(path)
    properties = len(of("dense_1", "kernel")[0])
    grammemes = rng.random((2, 7, properties)).astype(dtype)
    chars = rng.integers(0, len(of("chars_embeddings", "embeddings")[0]), (2, 7, 32))

    x = dense(grammemes, *of("dense_1", "kernel", "bias"), relu)
    words = of("chars_embeddings", "embeddings")[0][chars].reshape(2, 7, -1)
    words = dense(words, *of("dense_2", "kernel", "bias"), relu)
    x = np.concatenate([x, dense(words, *of("dense_3", "kernel", "bias"))], axis=-1)
    x = dense(x, *of("dense_4" if language == "ru" else "dense_5", "kernel", "bias"), relu)
    ahead = lstm(x, *of("LSTM_1_forward", *LSTM), hard_sigmoid)
    behind = lstm(x, *of("LSTM_1_backward", *LSTM), hard_sigmoid, backwards=True)
    x = np.concatenate([ahead, behind], axis=-1)
    ahead = lstm(x, *of("forward_LSTM_0", *LSTM), hard_sigmoid)
    behind = lstm(x, *of("backward_LSTM_0", *LSTM), hard_sigmoid, backwards=True)
    x = dense(np.concatenate([ahead, behind], axis=-1), *of("time_distributed_2", "kernel", "bias"))
    gamma, beta, mean, variance = of(
        "time_distributed_4", "gamma", "beta", "moving_mean", "moving_variance"
    )
    x = relu((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta)
    want = dense(x, *of("main_pred", "kernel", "bias"), softmax)
    y, _ = model(grammemes, chars)
    near(y, want, BOUNDS[dtype])
    ragged, _ = model(grammemes, chars, lengths=[7, 4])
    alone, _ = model(grammemes[1:, :4], chars[1:, :4])
    near(ragged[1:, :4], alone, BOUNDS[dtype])
