"""Keras's weights and saved models, against Keras's own outputs."""

import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
from rnncore import GRU, LSTM, RNN, Bidirectional, Readout
from rnncore.convert import from_keras

from tests.support.compare import assert_close, assert_same
from tests.support.keras_models import GOLDEN, changed, kind, settings

SINGLE = {
    "rnn": {},
    "rnn_relu_no_bias": {"activation": "relu"},
    "lstm": {},
    "lstm_no_bias": {},
    "lstm_hard": {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    "lstm_one_unit": {},
    "gru": {},
    "gru_reset_before": {},
    "gru_no_bias": {},
    "lstm_both": {},
    "gru_both_sum": {"merge_mode": "sum"},
    "gru_reset_before_both": {},
}
MODELS = ("tagger", "classifier", "functional", "backwards")
FILES = [f"{name}.{suffix}" for name in MODELS for suffix in ("keras", "h5")]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "keras.npz") as file:
        return dict(file)


def weights_of(golden, case):
    return [golden[f"{case}/{at}"] for at in range(6) if f"{case}/{at}" in golden]


def test_every_golden_case_is_tested(golden):
    cases = {name.split("/")[0] for name in golden} - {"keras_version"}
    assert cases == {*SINGLE, *MODELS}
    assert sorted(FILES) == sorted(path.name for path in (GOLDEN / "keras").iterdir())


@pytest.mark.parametrize("case", SINGLE)
class TestWeights:
    def test_read_what_keras_computes(self, golden, case):
        layer = from_keras(weights_of(golden, case), **SINGLE[case])
        y, _ = layer(golden[f"{case}/x"])
        assert_close({"y": y}, {"y": golden[f"{case}/y"]}, 2e-5)

    def test_the_reference_agrees_with_keras_too(self, golden, case):
        found = []
        x, y = golden[f"{case}/x"], golden[f"{case}/y"]
        for verify in (True, x, (x, y)):
            options = {"verify": verify, "report": found.append, **SINGLE[case]}
            from_keras(
                weights_of(golden, case), dtype="float64" if verify is x else None, **options
            )
        assert [check.reference for check in found][1:] == [
            "the NumPy reference",
            "the outputs given",
        ]
        assert found[1].difference <= 1e-12 * found[1].largest


def test_the_layers_are_the_plain_ones(golden):
    assert type(from_keras(weights_of(golden, "rnn"))) is RNN
    both = from_keras(weights_of(golden, "lstm_both"))
    assert type(both) is LSTM
    assert (both.bidirectional, both.batch_first, both.bias) == (True, True, True)
    before = from_keras(weights_of(golden, "gru_reset_before"), batch_first=False)
    assert type(before) is GRU
    assert (before.reset_after, before.batch_first) == (False, False)
    x = golden["gru_reset_before/x"]
    y = from_keras(weights_of(golden, "gru_reset_before"))(x)[0]
    assert_same({"y": before(x.swapaxes(0, 1))[0].swapaxes(0, 1)}, {"y": y})
    assert type(from_keras(weights_of(golden, "gru_both_sum"), merge_mode="sum")) is Bidirectional
    assert not from_keras(weights_of(golden, "gru_no_bias"), reset_after=False).reset_after
    assert from_keras(weights_of(golden, "gru_no_bias"), "gru").reset_after


@pytest.mark.parametrize("name", FILES)
class TestFiles:
    def test_compute_what_keras_computes(self, golden, name):
        pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
        case, found = name.split(".")[0], []
        pair = golden[f"{case}/x"], golden[f"{case}/y"]
        for verify in (pair, True):
            from_keras(GOLDEN / "keras" / name, verify=verify, report=found.append)
        assert [check.reference for check in found] == ["the outputs given", "the NumPy reference"]

    def test_can_be_trained_on(self, rng, golden, name):
        pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
        model = from_keras(GOLDEN / "keras" / name, dtype="float64")
        x = golden[f"{name.split('.')[0]}/x"]
        (y, _), pullback = model.vjp(x)
        model.zero_grad()
        pullback(rng.standard_normal(y.shape))
        assert all(grad.any() for grad in model.grads.values() if grad.size > 40)


@pytest.mark.parametrize(
    ("model", "change", "what"),
    [
        ("tagger", settings(2, return_state=True), "LSTM 'first' with return_state=True"),
        ("tagger", settings(2, go_backwards=True), "LSTM 'first' with go_backwards=True"),
        ("tagger", settings(2, activation="mish"), "the Keras activation 'mish'"),
        ("tagger", settings(2, activation="softmax"), "LSTM with the activation 'softmax'"),
        ("tagger", settings(2, novelty=3), "LSTM 'first' with novelty=3"),
        ("tagger", settings(5, axis=1), "LayerNormalization 'layer_normalization' with axis=1"),
        ("tagger", kind(3, "ConvLSTM1D"), "the Keras layer ConvLSTM1D 'dropout'"),
        ("tagger", lambda layers, _: layers[2].update(module="mine"), "LSTM 'first' of the module"),
        ("classifier", settings(1, merge_mode=None), "with merge_mode=None"),
        (
            "classifier",
            lambda layers, _: layers[1]["config"]["layer"].update(module="mine.layers"),
            "of the module 'mine.layers'",
        ),
        ("classifier", kind(4, "ReLU"), None),
        ("tagger", lambda _, config: config.update(class_name="Mine"), "of class 'Mine'"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_what_cannot_be_represented_is_refused_by_name(tmp_path, model, change, what):
    path = changed(tmp_path, f"keras/{model}.keras", change)
    if what is None:
        assert from_keras(path)
    else:
        with pytest.raises(ValueError, match=rf"rnncore cannot represent .*{what}"):
            from_keras(path)


def test_lengths_stand_for_masks(golden, tmp_path):
    path = changed(tmp_path, "keras/tagger.keras", settings(1, mask_zero=True))
    model = from_keras(path, lengths=True)
    y, _ = model(golden["tagger/x"], lengths=[6, 3])
    assert_close({"y": y[0]}, {"y": golden["tagger/y"][0]}, 2e-5)


def test_keras_2_has_another_hard_sigmoid(golden, tmp_path):
    path = changed(
        tmp_path, "keras/backwards.keras", settings(1, recurrent_activation="hard_sigmoid")
    )
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for version, alpha in (("2.15.0", 0.2), ("3.15.1", 1 / 6)):
        entries["metadata.json"] = json.dumps({"keras_version": version}).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        final = from_keras(path)
        assert isinstance(final, Readout)
        assert final.layer.layer.cell.activations[0] == ("hard_sigmoid", alpha, 0.5)


def test_weights_that_do_not_fit_are_named(golden):
    weights = weights_of(golden, "gru")
    with pytest.raises(ValueError, match=r"arrays of shapes \(3, 12\)$"):
        from_keras(weights[:1])
    with pytest.raises(ValueError, match="got arrays of shapes none at all"):
        from_keras([])
    with pytest.raises(TypeError, match=r"source must be what get_weights\(\) gives, .* got LSTM"):
        from_keras(LSTM(3, 4))
    with pytest.raises(ValueError, match="make no lstm"):
        from_keras(weights, "lstm")
    with pytest.raises(ValueError, match="make no SimpleRNN, LSTM or GRU"):
        from_keras([weights[0], np.zeros((5, 12))])
    with pytest.raises(ValueError, match=r"reset_after=False does not go with .* \(2, 12\)"):
        from_keras(weights, reset_after=False)
    with pytest.raises(ValueError, match="cell must be one of rnn, lstm, gru"):
        from_keras(weights, "mgu")
    for bias in (np.zeros(7, "f4"), np.zeros((1, 12), "f4")):
        with pytest.raises(
            ValueError, match=r"expected \(3, 12\), \(4, 12\) and a bias \(12,\) or"
        ):
            from_keras([*weights[:2], bias])
    with pytest.raises(TypeError, match="array 1 must be an array of floats, got int64"):
        from_keras([weights[0], np.zeros((4, 12), np.int64)])


def test_files_that_are_none_are_named(tmp_path):
    pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")
    with pytest.raises(FileNotFoundError, match="no such model file"):
        from_keras(tmp_path / "none.keras")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(ValueError, match=r"text\.h5 is not a readable Keras model"):
        from_keras(tmp_path / "text.h5")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError, match=r"it has no model\.weights\.h5"):
        from_keras(tmp_path / "empty.keras")
    for change in (
        lambda layers, _: layers[2].pop("config"),
        lambda layers, _: layers[2]["config"].pop("activation"),
        lambda layers, _: layers[2]["config"].update(activation=[[]]),
    ):
        path = changed(tmp_path, "keras/tagger.keras", change)
        with pytest.raises(ValueError, match=r"changed\.keras is not a readable Keras model"):
            from_keras(path)


def test_without_h5py_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    shutil.copy(GOLDEN / "keras" / "tagger.h5", tmp_path)
    with pytest.raises(ImportError, match=r"rnncore\[convert\]"):
        from_keras(tmp_path / "tagger.h5")
