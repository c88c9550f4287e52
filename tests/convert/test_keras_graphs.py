"""Keras models with branches, nested models, masks and states, against Keras's own outputs."""

import re

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    Chain,
    Graph,
    Linear,
    Masked,
    Readout,
    Reversed,
    TimeDistributed,
    load,
)
from rnncore.convert import from_keras
from rnncore.module import modules

from tests.support.compare import assert_same, near
from tests.support.gradients import check_layer, check_recurrent
from tests.support.keras_models import GOLDEN, called, changed, entries, found, kind, settings

pytest.importorskip("h5py", reason="h5py reads the arrays of Keras models")

FILES = [
    f"{folder}/{path.name}"
    for folder in ("keras_graphs", "keras_2")
    for path in sorted((GOLDEN / folder).iterdir())
    if path.suffix != ".json"
]


def golden(name):
    """The inputs and outputs of a model."""
    folder, file = name.split("/")
    model = file.split(".")[0]
    with np.load(GOLDEN / f"{folder}.npz") as arrays:
        held = dict(arrays)
    return tuple(
        [held[key] for key in sorted(held) if re.fullmatch(rf"{model}/{letter}\d", key)]
        for letter in "xy"
    )


def unpacked(values):
    return values if len(values) > 1 else values[0]


def test_every_model_is_tested():
    models = {name.split(".")[0] for name in FILES}
    assert {name.split("/")[1] for name in models} == {
        *("branches", "masked", "nested", "on_cudnn", "pair", "picture", "sounds", "tagger"),
        "translator",
    }


@pytest.mark.parametrize("name", FILES)
def test_models_compute_what_keras_computes(name):
    xs, ys = golden(name)
    checks = []
    from_keras(GOLDEN / name, verify=(unpacked(xs), unpacked(ys)), report=checks.append)
    from_keras(GOLDEN / name, verify=True, dtype="float64", report=checks.append)
    assert [check.reference for check in checks] == ["the outputs given", "the NumPy reference"]
    assert checks[1].difference <= 1e-12 * checks[1].largest


def test_inputs_are_given_to_the_reference():
    xs, _ = golden("keras_graphs/translator.keras")
    checks = []
    from_keras(GOLDEN / "keras_graphs/translator.keras", verify=xs, report=checks.append)
    assert checks[0].reference == "the NumPy reference"
    xs, _ = golden("keras_graphs/masked.keras")
    with pytest.raises(
        ValueError, match=r"verify must be True or \(x, y\): the reference knows no"
    ):
        from_keras(GOLDEN / "keras_graphs/masked.keras", verify=xs)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".keras")])
def test_models_can_be_saved(name, tmp_path):
    xs, _ = golden(name)
    model = from_keras(GOLDEN / name)
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    one, other = (each(*xs) for each in (model, again))
    if model.recurrent:
        one, other = one[0], other[0]
    one, other = (value if isinstance(value, tuple) else (value,) for value in (one, other))
    assert_same(dict(enumerate(other)), dict(enumerate(one)))


@pytest.mark.parametrize("name", ["branches", "translator", "nested", "picture"])
def test_models_can_be_trained(rng, name):
    """Finite differences, but for batch normalisation, which sees the batch in training."""
    xs, _ = golden(f"keras_graphs/{name}.keras")
    model = from_keras(GOLDEN / f"keras_graphs/{name}.keras", dtype="float64")
    xs = [x if x.dtype.kind == "i" else x.astype(np.float64) for x in xs]
    result, back = model.vjp(*xs)
    y = result[0] if model.recurrent else result
    dy = tuple(rng.standard_normal(part.shape) for part in y) if isinstance(y, tuple) else y
    model.zero_grad()
    if isinstance(dy, tuple) and not model.recurrent:
        back(*dy)
    else:
        back(dy)
    assert all(np.isfinite(grad).all() for grad in model.grads.values())
    assert all(grad.any() for grad in model.grads.values() if grad.size > 40)


def test_gradients_of_a_model_with_branches():
    """All of its states are inputs and outputs of its nodes."""
    (source, target), _ = golden("keras_graphs/translator.keras")
    model = from_keras(GOLDEN / "keras_graphs" / "translator.keras", dtype="float64")
    assert not model.recurrent
    check_layer(model, source.astype(np.float64), target)


class TestForms:
    """What models become."""

    def test_branches_become_a_graph(self):
        model = from_keras(GOLDEN / "keras_graphs" / "branches.keras")
        assert isinstance(model, Graph)
        assert model.inputs == ("b", "a")
        assert model.parts["shared"] is model.parts["shared:1"]
        assert len(model.outputs) == 2

    def test_a_line_becomes_a_chain(self):
        model = from_keras(GOLDEN / "keras_graphs" / "sounds.keras")
        assert isinstance(model, Chain)
        assert from_keras(GOLDEN / "keras_graphs" / "sounds.keras", dtype=float).dtype is None

    def test_models_within_models(self):
        model = from_keras(GOLDEN / "keras_graphs" / "nested.keras")
        kinds = [type(part) for part in modules(model)]
        assert TimeDistributed in kinds
        assert isinstance(model, Chain)

    def test_layers_of_training_are_left_out(self):
        model = from_keras(GOLDEN / "keras_2" / "tagger.h5")
        assert isinstance(model, Masked)
        names = [type(part).__name__ for part in model.layer.layers]
        assert names == ["Embedding", "Bidirectional", "Linear", "Tanh", "BatchNorm", "Readout"]

    def test_time_comes_first_in_lines_alone(self, tmp_path):
        path = GOLDEN / "keras" / "tagger.keras"
        from_keras(path, batch_first=False, verify=True, report=lambda _: None)
        with pytest.raises(ValueError, match="batch_first must be True for a model with branches"):
            from_keras(GOLDEN / "keras_graphs" / "branches.keras", batch_first=False)
        with pytest.raises(ValueError, match="must have the same batch_first"):
            from_keras(GOLDEN / "keras_graphs" / "sounds.keras", batch_first=False)
        with pytest.raises(
            ValueError, match=r"TimeDistributed 'time_distributed\S*' needs batch_f"
        ):
            from_keras(GOLDEN / "keras_graphs" / "nested.keras", batch_first=False)


class TestMasks:
    NAME = "keras_graphs/masked.keras"

    def test_sequences_end_where_their_masks_say(self, rng):
        (ids, rows), (y,) = golden(self.NAME)
        model = from_keras(GOLDEN / self.NAME)
        assert isinstance(model, Masked)
        assert model.values == (0, -1)
        for row, end in enumerate((5, 2, 4)):
            alone, _ = model(ids[row : row + 1, :end], rows[row : row + 1, :end])
            near(y[row : row + 1], alone, 2e-5)

    def test_lengths_may_stand_in_their_place(self):
        (ids, rows), (y,) = golden(self.NAME)
        model = from_keras(GOLDEN / self.NAME, lengths=True)
        assert isinstance(model, Graph)
        ends = [5, 2, 4]
        found, _ = model(ids, rows, lengths=dict.fromkeys(model.inputs, ends))
        near(found, y, 2e-5)

    def test_holes_are_refused_at_the_call(self):
        (ids, rows), _ = golden(self.NAME)
        model = from_keras(GOLDEN / self.NAME)
        holes = ids.copy()
        holes[0, 2] = 0
        with pytest.raises(ValueError, match="before the end of sequence 0, at step 2: put such"):
            model(holes, rows)
        first = ids.copy()
        first[1] = first[1, ::-1]  # as Keras's pad_sequences pads unless it is told
        with pytest.raises(ValueError, match="before the end of sequence 1, at step 0"):
            model(first, rows)
        with pytest.raises(ValueError, match=r"input_layer\S* has a step that does not count, all"):
            model(ids, np.where(np.arange(5)[:, None] == 1, np.float32(-1), rows))

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (kind("GlobalAveragePooling1D", "GlobalMaxPooling1D"), "which reads a masked sequence"),
            (
                lambda layers, _: found(layers, "Concatenate")["inbound_nodes"][0]["args"][0].pop(
                    0
                ),
                None,
            ),
            (settings("Masking", mask_value=-2.0), None),
            (called("SimpleRNN", mask=None), None),
            (kind("NotEqual", "Equal"), "called with mask='not_equal"),
            (
                lambda layers, _: found(layers, "LSTM")["inbound_nodes"][0]["kwargs"].update(
                    mask=found(layers, "SimpleRNN")["inbound_nodes"][0]["args"][0]
                ),
                "called with mask='masking",
            ),
            (settings("Embedding", mask_zero=False), "called with a mask of its own"),
        ],
        ids=["pool", "fewer", "value", "implied", "op", "other", "none"],
    )
    def test_what_is_not_as_in_keras_is_refused(self, tmp_path, change, what):
        path = changed(tmp_path, self.NAME, change)
        if what is None:
            assert isinstance(from_keras(path), Masked)
        else:
            with pytest.raises(ValueError, match=what):
                from_keras(path)

    def test_a_mask_of_what_is_no_input(self, tmp_path):
        def behind(layers, _):
            source = found(layers, "Dense")["inbound_nodes"]
            found(layers, "Masking")["inbound_nodes"] = source

        path = changed(tmp_path, self.NAME, behind)
        with pytest.raises(
            ValueError, match=r"Masking 'masking\S*' of what is no input; with leng"
        ):
            from_keras(path)

    def test_a_mask_that_nothing_reads(self, tmp_path):
        def rows_alone(layers, _):
            layers[1]["config"]["mask_zero"] = True
            layers[:] = [entry for entry in layers if entry["class_name"] != "LSTM"]
            layers[-1]["config"] |= {"activation": "tanh"}
            del layers[3:-1]

        model = from_keras(changed(tmp_path, "keras/tagger.keras", rows_alone))
        assert isinstance(model, Chain)
        assert model(np.array([[1, 0, 2]])).shape == (1, 3, 3)

    def test_a_mask_for_each_item_of_a_step(self, tmp_path):
        path = changed(tmp_path, "keras_graphs/nested.keras", settings("Embedding", mask_zero=True))
        with pytest.raises(ValueError, match="with mask_zero=True of what is no input"):
            from_keras(path)
        with pytest.raises(ValueError, match="of a Embedding with a mask of its own"):
            from_keras(path, lengths=True)


TRAINS = [
    ("keras_graphs/translator", settings("Attention", score_mode="concat"), "score_mode='concat'"),
    ("keras_graphs/translator", settings("Attention", causal=True), "with causal=True"),
    ("keras_graphs/translator", settings("AdditiveAttention", use_scale=False), "use_scale=False"),
    ("keras_graphs/translator", called("GRU", training=True), "called with training=True"),
    ("keras_graphs/translator", called("Attention", use_causal_mask=True), "use_causal_mask=True"),
    ("keras_graphs/picture", settings("Conv2D", data_format="channels_first"), "data_format='ch"),
    ("keras_graphs/picture", settings("BatchNormalization", axis=1), "with axis=1"),
    ("keras_graphs/picture", settings("ReLU", max_value=6), "ReLU 're_lu.*' with max_value=6"),
    ("keras_graphs/nested", settings("StackedRNNCells", cells=[]), "RNN 'rnn' of no cells"),
    ("keras_graphs/nested", kind("GRUCell", "MyCell"), "RNN 'rnn' of MyCell"),
    ("keras_graphs/nested", settings("GRUCell", reset_after=True), "has a bias of shape"),
    ("keras_graphs/nested", settings("RNN", return_state=True), "of several cells with"),
    ("keras_graphs/nested", settings("Bidirectional", merge_mode=None), "with merge_mode=None"),
    ("keras_graphs/sounds", settings("LSTM", go_backwards=True), "go_backwards=True and return_s"),
    ("keras_graphs/sounds", settings("Conv1D", strides=[1, 1]), "is no size along 1 axes"),
    ("keras_graphs/branches", kind("GRU", "ConvLSTM1D"), "the Keras layer ConvLSTM1D 'gru.*'"),
]


@pytest.mark.parametrize(
    ("model", "change", "what"), TRAINS, ids=[f"{model}-{what[-20:]}" for model, _, what in TRAINS]
)
def test_what_cannot_be_represented_is_refused_by_name(tmp_path, model, change, what):
    with pytest.raises(ValueError, match=what):
        from_keras(changed(tmp_path, f"{model}.keras", change))


def test_an_axis_is_counted_where_the_axes_are_known(tmp_path):
    """Keras 2 counts from the front."""
    path = changed(tmp_path, "keras_graphs/picture.keras", settings("BatchNormalization", axis=[3]))
    assert from_keras(path)

    def unknown(layers, config):
        found(layers, "BatchNormalization")["config"]["axis"] = 2
        layers[0]["config"].pop("batch_shape")
        config["config"].pop("build_input_shape", None)

    path = changed(tmp_path, "keras_graphs/sounds.keras", unknown)
    assert from_keras(path)  # what a convolution makes is known
    with pytest.raises(ValueError, match="with axis=2: the file does not tell which axes x has"):
        from_keras(path, layer="batch_normalization")


def test_graphs_that_are_none(tmp_path):
    def missing(layers, _):
        layers[:] = [entry for entry in layers if entry["class_name"] != "GRU"]

    def circle(layers, _):
        found(layers, "GRU")["inbound_nodes"] = found(layers, "LSTM")["inbound_nodes"]

    def beyond(layers, _):
        for entry in entries(found(layers, "Dot")["inbound_nodes"]):
            entry["config"]["keras_history"][2] = 3

    for change, what in (
        (missing, "no layer gives 'gru.*', which is read"),
        (circle, "reads what depends on it"),
        (beyond, "has no output 3"),
    ):
        with pytest.raises(ValueError, match=what):
            from_keras(changed(tmp_path, "keras_graphs/branches.keras", change))


class TestCustom:
    """Layers of classes of somebody's own."""

    def test_a_module_takes_their_place(self):
        path, given = GOLDEN / "keras_graphs/translator.keras", []

        def mine(layer):
            given.append(layer)
            return from_keras(path).parts[layer.name]

        xs, ys = golden("keras_graphs/translator.keras")
        own = {"custom": {"AdditiveAttention": mine}, "report": lambda _: None}
        from_keras(path, verify=(xs, ys), **own)
        (layer,) = given
        assert (layer.kind, layer.name) == ("AdditiveAttention", "additive")
        assert [array.shape for array in layer.weights] == [(4,)]
        with pytest.raises(ValueError, match="of 'additive' there is no reference"):
            from_keras(path, verify=True, **own)

    def test_settings_are_in_our_terms(self, tmp_path):
        given = []

        def mine(layer):
            given.append(layer)
            return Reversed(GRU(9, 4, batch_first=True))

        path = changed(tmp_path, "keras/tagger.keras", kind(2, "Mine"))
        with pytest.raises(ValueError, match="one gives 3 features, the next takes 9"):
            from_keras(path, custom={"Mine": mine})
        assert given[0].config["recurrent_activation"] == "sigmoid"

    def test_what_makes_no_module(self):
        path = GOLDEN / "keras_graphs/translator.keras"
        with pytest.raises(ValueError, match=r"custom\['GRU'\] must make a Module, got str"):
            from_keras(path, custom={"GRU": lambda layer: "gru"})


def test_states_of_one_layer_start_another(rng):
    """As in Keras's own example of a translator."""
    model = from_keras(GOLDEN / "keras_graphs" / "translator.keras", dtype="float64")
    xs, _ = golden("keras_graphs/translator.keras")
    source = xs[0].astype(np.float64)
    one, _ = model(source, xs[1])
    other, _ = model(source + 1, xs[1])
    assert not np.allclose(one, other)


def test_a_part_of_a_model(tmp_path):
    path = GOLDEN / "keras_graphs" / "translator.keras"
    decoder = from_keras(path, layer="decoder")
    assert type(decoder) is LSTM
    chain = from_keras(path, layer=["table", "decoder"], verify=True, report=lambda _: None)
    assert isinstance(chain, Chain)
    assert_same({"w": chain.params["1.weight_ih_l0"]}, {"w": decoder.params["weight_ih_l0"]})
    assert isinstance(from_keras(path, layer="out")[0], Linear)
    assert isinstance(from_keras(GOLDEN / "keras_graphs" / "nested.keras", layer="end"), Readout)
    broken = changed(tmp_path, "keras_graphs/translator.keras", kind("Attention", "Mine"))
    assert type(from_keras(broken, layer="decoder")) is LSTM
    with pytest.raises(ValueError, match=r"layer must be one of 'source', .*, got 'lstm_9'"):
        from_keras(path, layer="lstm_9")
    with pytest.raises(ValueError, match="the Keras layer Mine 'attention'"):
        from_keras(broken, layer="attention")


def test_a_recurrent_graph_as_a_layer(rng):
    """A model of one input and one output goes into a chain."""
    model = from_keras(GOLDEN / "keras_graphs" / "picture.keras", dtype="float64")
    layer = Graph(["x"], [("model", model, "x")], [("model", 0)])
    x = rng.standard_normal((2, 8, 12, 1))
    (y, *_), _ = model(x)
    found, state = layer(x)
    assert_same({"y": found}, {"y": y})
    check_recurrent(
        from_keras(GOLDEN / "keras/tagger.keras", dtype=float), np.array([[1, 2]]), None
    )
    assert len(state) == 1
