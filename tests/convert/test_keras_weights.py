"""Keras's arrays without a description: lists, layers on cuDNN, files of weights."""

import json
import shutil

import numpy as np
import pytest
from rnncore import GRU, LSTM, BatchNorm, Bidirectional, Chain, Embedding, LayerNorm, Linear
from rnncore.convert import from_keras, keras_weights

from tests.support.compare import assert_close, assert_same, near
from tests.support.keras_models import GOLDEN

GATES = {"lstm": 4, "gru": 3}


def weights(rng, cell, inputs=3, size=4, dtype="float32"):
    """Kernel, recurrent kernel and bias of a layer that is not on cuDNN."""
    columns = GATES[cell] * size
    shapes = [(inputs, columns), (size, columns), (2, columns) if cell == "gru" else (columns,)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def on_cudnn(arrays, cell, rng):
    """The same layer's arrays on cuDNN, as its documentation of the layout says.

    A gate's matrix (I, H) lies there as its transpose; of an LSTM's two biases the sum is known.
    """
    kernel, recurrent, bias = arrays
    count = GATES[cell]
    kernels = [k.T.reshape(k.shape) for k in np.split(kernel, count, axis=1)]
    recurrents = [k.T for k in np.split(recurrent, count, axis=1)]
    if cell == "lstm":
        other = rng.standard_normal(bias.shape).astype(bias.dtype)
        bias = np.stack([bias - other, other])
    return [np.hstack(kernels), np.hstack(recurrents), bias.reshape(-1)]


class TestCudnn:
    @pytest.mark.parametrize("inputs", [1, 3, 4, 5])
    @pytest.mark.parametrize("cell", GATES)
    def test_arrays_are_known_by_their_biases(self, rng, cell, inputs):
        plain = weights(rng, cell, inputs, dtype="float64")
        x = rng.standard_normal((2, 6, inputs))
        want, _ = from_keras(plain)(x)
        for kind in (None, cell):
            layer = from_keras(on_cudnn(plain, cell, rng), kind)
            near(layer(x)[0], want, 1e-12)
        both = from_keras([*on_cudnn(plain, cell, rng), *plain], merge_mode="concat")
        near(both(x)[0], from_keras([*plain, *plain], merge_mode="concat")(x)[0], 1e-12)

    def test_other_biases_are_named(self, rng):
        kernel, recurrent, bias = weights(rng, "lstm")
        with pytest.raises(
            ValueError, match=r"\(3, 16\), \(4, 16\) and a bias \(16,\) or \(2, 16\)"
        ):
            from_keras([kernel, recurrent, np.zeros(24, "f4")])
        kernel, recurrent, bias = weights(rng, "gru")
        six = on_cudnn([kernel, recurrent, bias], "gru", rng)
        assert from_keras(six).reset_after
        with pytest.raises(ValueError, match="reset_after=False does not go with a bias of shape"):
            from_keras(six, reset_after=False)

    def test_a_class_of_cudnn_has_biases_of_cudnn(self, tmp_path):
        pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
        shutil.copy(GOLDEN / "keras_2" / "on_cudnn.h5", tmp_path / "a.h5")
        told = json.loads((GOLDEN / "keras_2" / "on_cudnn.json").read_text())
        told["config"]["layers"][1]["config"]["layer"]["class_name"] = "GRU"
        inner = told["config"]["layers"][1]["config"]["layer"]["config"]
        inner |= {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": False}
        (tmp_path / "a.json").write_text(json.dumps(told))
        with pytest.raises(ValueError, match="with reset_after=False has a bias of shape"):
            from_keras(tmp_path / "a.h5")
        inner["reset_after"] = True
        (tmp_path / "a.json").write_text(json.dumps(told))
        assert from_keras(tmp_path / "a.h5")


class TestTwoLayers:
    """Six arrays of two layers on one another look like those of a Bidirectional."""

    def test_of_other_widths(self, rng):
        six = [*weights(rng, "lstm", 3, 4), *weights(rng, "lstm", 4, 4)]
        for arrays in (six, [six[at] for at in (0, 1, 3, 4)]):
            what = (
                r"array \d of shape \(4, 16\) does not read what array 0 of shape \(3, 16\) reads"
            )
            with pytest.raises(ValueError, match=what):
                from_keras(arrays)

    def test_of_one_width(self, rng):
        six = [*weights(rng, "lstm", 4, 4), *weights(rng, "lstm", 4, 4)]
        with pytest.raises(
            ValueError, match="6 arrays are those of a Bidirectional, or of two lay"
        ):
            from_keras(six)
        assert from_keras(six, merge_mode="concat").bidirectional
        assert type(from_keras(six, merge_mode="sum")) is Bidirectional
        assert from_keras([*six[:3], *six[:3]], merge_mode="concat").bidirectional

    def test_cells_on_one_another_in_a_file(self, tmp_path):
        pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
        with pytest.raises(ValueError, match="layer 'rnn' of several cells without a description"):
            from_keras(undescribed(tmp_path, "keras_graphs/nested.h5"), layer="rnn")


def undescribed(tmp_path, name):
    """A copy of a golden file without what describes it."""
    h5py = pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
    path = tmp_path / "weights.h5"
    shutil.copy(GOLDEN / name, path)
    with h5py.File(path, "r+") as file:
        file.attrs.pop("model_config", None)
    return path


class TestFiles:
    """Layers of files of weights, by their names."""

    @pytest.fixture(autouse=True)
    def h5py(self):
        self.h5py = pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")

    def test_arrays_by_their_names(self):
        found = keras_weights(GOLDEN / "keras_2" / "on_cudnn.h5")
        lstm = ["kernel", "recurrent_kernel", "bias"]
        names = {name: list(arrays) for name, arrays in found.items()}
        both = names.pop("both")
        assert names == {"lstm": lstm, "last": lstm, "out": ["kernel", "bias"]}
        assert [name.split("/")[-1] for name in both] == 2 * lstm
        assert [name.split("_")[0] for name in both] == 3 * ["forward"] + 3 * ["backward"]
        assert found["lstm"]["bias"].shape == (32,)

    @pytest.mark.parametrize("name", ["tagger.keras", "tagger.h5"])
    def test_of_both_formats(self, name):
        found = keras_weights(GOLDEN / "keras" / name)
        layers = [list(arrays) for arrays in found.values()]
        lstm = ["kernel", "recurrent_kernel", "bias"]
        prefix = "cell/" if name.endswith(".keras") else "lstm_cell/"
        assert sorted(map(len, layers)) == [1, 2, 2, 3, 3]
        assert [f"{prefix}{one}" for one in lstm] in layers
        tables = [arrays["embeddings"] for arrays in found.values() if "embeddings" in arrays]
        assert tables[0].shape == (9, 3)

    def test_each_layer_is_that_of_the_model(self, tmp_path):
        path, whole = undescribed(tmp_path, "keras/tagger.h5"), GOLDEN / "keras" / "tagger.h5"
        told = {"recurrent_activation": "sigmoid"}
        for layer, kind, own in (
            ("first", LSTM, {}),
            ("second", LSTM, told),
            ("embedding", Embedding, {}),
            ("layer_normalization", LayerNorm, {}),
        ):
            found = from_keras(path, layer=layer, **own)
            assert type(found) is kind
            assert_same(found.state_dict(), from_keras(whole, layer=layer).state_dict())
        dense = from_keras(path, layer="time_distributed", activation="tanh")
        assert [type(part).__name__ for part in dense.layers] == ["Linear", "Tanh"]
        assert type(from_keras(path, layer="time_distributed")) is Linear
        chain = from_keras(path, layer=["first", "second"], verify=True, report=lambda _: None)
        assert isinstance(chain, Chain)

    def test_both_directions_by_their_names(self, tmp_path):
        path = undescribed(tmp_path, "keras/classifier.h5")
        first, second = (name for name in keras_weights(path) if name.startswith("bidirectional"))
        mean = from_keras(path, layer=first, merge_mode="ave")
        assert isinstance(mean, Bidirectional)
        assert not mean.forward.reset_after
        assert from_keras(path, layer=second).bidirectional

    def test_numbered_arrays_of_keras_3(self, tmp_path):
        shutil.copy(GOLDEN / "keras_graphs" / "nested.weights.h5", tmp_path)
        path = tmp_path / "nested.weights.h5"
        with pytest.raises(
            ValueError, match="it holds weights and no model: give architecture=, a"
        ):
            from_keras(path)
        assert type(from_keras(path, layer="rnn_1")) is LSTM
        assert from_keras(path, layer="bidirectional").bidirectional
        assert type(from_keras(path, layer="dense")) is Linear
        with pytest.raises(ValueError, match="layer 'rnn' of several cells"):
            from_keras(path, layer="rnn")

    def test_an_architecture_beside_or_elsewhere(self, tmp_path):
        (x,), (y,) = ([np.load(GOLDEN / "keras_2.npz")[f"on_cudnn/{letter}0"]] for letter in "xy")
        model = from_keras(GOLDEN / "keras_2" / "on_cudnn.h5")
        near(model(x)[0], y, 2e-5)
        shutil.copy(GOLDEN / "keras_2" / "on_cudnn.h5", tmp_path / "w.h5")
        with pytest.raises(ValueError, match="it holds weights and no model"):
            from_keras(tmp_path / "w.h5")
        elsewhere = GOLDEN / "keras_2" / "on_cudnn.json"
        again = from_keras(tmp_path / "w.h5", architecture=elsewhere)
        assert_same({"y": again(x)[0]}, {"y": model(x)[0]})
        with pytest.raises(
            ValueError, match=r"architecture is '.*nowhere\.json', which is no file"
        ):
            from_keras(tmp_path / "w.h5", architecture=tmp_path / "nowhere.json")
        (tmp_path / "w.json").write_text("{")
        with pytest.raises(ValueError, match=r"w\.h5 is not a readable Keras model"):
            from_keras(tmp_path / "w.h5")
        assert from_keras(tmp_path / "w.h5", architecture=elsewhere)

    def test_a_hard_sigmoid_is_that_of_the_architectures_keras(self, tmp_path):
        """Keras 3 does not say its version there."""
        for version, alpha in ((None, 1 / 6), ("2.15.0", 0.2)):
            told = json.loads((GOLDEN / "keras_graphs" / "nested.json").read_text())
            text = json.dumps(told | ({"keras_version": version} if version else {}))
            (tmp_path / "a.json").write_text(text.replace('"sigmoid"', '"hard_sigmoid"'))
            shutil.copy(GOLDEN / "keras_graphs" / "nested.weights.h5", tmp_path / "a.weights.h5")
            end = from_keras(tmp_path / "a.weights.h5", layer="end").layer
            assert end.cell.activations[0] == ("hard_sigmoid", alpha, 0.5)

    def test_another_models_architecture(self, tmp_path):
        shutil.copy(GOLDEN / "keras_2" / "pair.h5", tmp_path / "w.h5")
        with pytest.raises(ValueError, match=r"Bidirectional 'both' has 0 arrays|arrays of"):
            from_keras(tmp_path / "w.h5", architecture=GOLDEN / "keras_2" / "on_cudnn.json")

    def test_a_default_that_was_another(self):
        path = GOLDEN / "keras_2" / "tagger.h5"
        (layer,) = [name for name in keras_weights(path) if name.startswith("lstm")]
        described = from_keras(path, layer=layer)
        assert described.layer.cell.activations[0] == ("hard_sigmoid", 0.2, 0.5)

    @pytest.mark.parametrize("told", ["?", "2.2.4-tf"])
    def test_what_older_files_do_not_tell_is_asked_for(self, tmp_path, told):
        path = undescribed(tmp_path, "keras_2/tagger.h5")
        with self.h5py.File(path, "r+") as file:
            file.attrs["keras_version"] = told
        (layer,) = [name for name in keras_weights(path) if name.startswith("lstm")]
        with pytest.raises(ValueError, match=r'whose recurrent_activation was "hard_s'):
            from_keras(path, layer=layer)

    def test_older_files_have_the_defaults_of_their_keras(self, tmp_path):
        path = undescribed(tmp_path, "keras_2/tagger.h5")
        (layer,) = [name for name in keras_weights(path) if name.startswith("lstm")]
        default = from_keras(path, layer=layer)
        assert default.cell.activations[0] == ("hard_sigmoid", 0.2, 0.5)
        hard = from_keras(path, layer=layer, recurrent_activation="hard_sigmoid")
        assert hard.cell.activations[0] == ("hard_sigmoid", 0.2, 0.5)
        soft = from_keras(path, layer=layer, recurrent_activation="sigmoid")
        assert soft.cell.activations[0] == ("sigmoid", 0.0, 0.0)
        (norm,) = [name for name in keras_weights(path) if name == "time_distributed_2"]
        found = from_keras(path, layer=norm)
        assert isinstance(found, BatchNorm)
        assert found.eps == 1e-3
        on_cudnn = from_keras(GOLDEN / "keras_2" / "on_cudnn.h5", layer="lstm")
        assert on_cudnn.cell.activations[0] == ("sigmoid", 0.0, 0.0)

    def test_what_cannot_be_told(self, tmp_path):
        path = undescribed(tmp_path, "keras_2/pair.h5")
        with pytest.raises(ValueError, match=r"layer must be one of .*'embedded'.*, got 'none'"):
            from_keras(path, layer="none")
        with self.h5py.File(path, "r+") as file:
            group = file["model_weights"].create_group("own")
            group.attrs["weight_names"] = [b"own/W:0"]
            group["own/W:0"] = np.ones((3, 1), "f4")
            file["model_weights"].attrs["layer_names"] = [b"own"]
        with pytest.raises(
            ValueError, match="layer 'own' cannot be told by its arrays, W: give the"
        ):
            from_keras(path, layer="own")
        assert keras_weights(path)["own"]["W"].shape == (3, 1)

    def test_long_lists_of_names_are_in_pieces(self, tmp_path):
        """An attribute holds 64 kB; Keras numbers the pieces."""
        path = undescribed(tmp_path, "keras/tagger.h5")
        whole = keras_weights(path)
        with self.h5py.File(path, "r+") as file:
            for group, name in (("model_weights", "layer_names"), ("model_weights/first", None)):
                attributes, name = file[group].attrs, name or "weight_names"
                names = list(attributes[name])
                del attributes[name]
                attributes[f"{name}0"], attributes[f"{name}1"] = names[:2], names[2:]
        found = keras_weights(path)
        assert {name: list(arrays) for name, arrays in found.items()} == {
            name: list(arrays) for name, arrays in whole.items()
        }

    def test_options_without_effect_are_refused(self, tmp_path):
        path = undescribed(tmp_path, "keras/tagger.h5")
        with pytest.raises(ValueError, match="activation has no effect on the layer 'embedding'"):
            from_keras(path, layer="embedding", activation="tanh")
        with pytest.raises(ValueError, match="reset_after has no effect on the Dense layer 'time"):
            from_keras(path, layer="time_distributed", reset_after=True)
        with pytest.raises(ValueError, match="cell has no effect on a saved model, which tells"):
            from_keras(GOLDEN / "keras" / "tagger.h5", "lstm")


def test_a_list_of_weights_computes_as_before(rng):
    """Both kinds of bias of a GRU, and none."""
    kernel, recurrent, bias = weights(rng, "gru", dtype="float64")
    x = rng.standard_normal((2, 5, 3))
    for arrays in ([kernel, recurrent], [kernel, recurrent, bias], [kernel, recurrent, bias[0]]):
        layer = from_keras(arrays, verify=x, report=lambda _: None)
        assert type(layer) is GRU
        assert_close({"y": layer(x)[0]}, {"y": from_keras(arrays)(x)[0]}, 0)
