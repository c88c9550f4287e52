"""What is taken for an array, a number, a size; what is refused; options without effect."""

import numpy as np
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    Adam,
    BinaryCrossEntropy,
    Chain,
    DeepRNN,
    Dropout,
    Embedding,
    GRUCell,
    LayerNorm,
    Linear,
    LuongAttention,
    MeanSquaredError,
    Readout,
    RowConvolution,
    SoftmaxCrossEntropy,
    Tanh,
    Windowed,
    length_mask,
)
from rnncore.arrays import as_array, as_float, as_integers, as_lengths
from rnncore.batches import Batch, padded
from rnncore.module import Module, once
from rnncore.states import take_rows
from rnncore.training.gradient_flow import gradient_flow
from rnncore.training.trainer import Trainer, evaluate

X = np.ones((5, 2, 3), np.float32)
MASKED = np.ma.masked_array(X, mask=X > 0)
LONG = np.ma.masked_array([5, 1], mask=[False, True])
gru, lstm, linear = GRU(3, 4, seed=0), LSTM(3, 4, seed=0), Linear(3, 2, seed=0)
STATE = np.ma.masked_array(np.zeros((1, 2, 4), np.float32), mask=True)


class Frame:
    """What a data frame is to NumPy: an array on demand, and no dtype."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __len__(self):
        return len(self.values)


def stream(module=gru):
    return module.stream(2)


TAKES = {
    "layer": lambda: gru(MASKED),
    "in a list": lambda: gru([*MASKED]),
    "in a nested list": lambda: gru([[*rows] for rows in MASKED]),
    "state": lambda: gru(X, STATE),
    "state of a pair": lambda: lstm(X, (None, STATE)),
    "lengths": lambda: gru(X, lengths=LONG),
    "dy": lambda: gru.vjp(X)[1](np.ma.zeros((5, 2, 4), np.float32)),
    "linear": lambda: linear(MASKED),
    "linear dy": lambda: linear.vjp(X)[1](np.ma.zeros((5, 2, 2), np.float32)),
    "embedding": lambda: Embedding(6, 2)(LONG),
    "activation": lambda: Tanh()(MASKED),
    "dropout": lambda: Dropout(0.5)(MASKED),
    "spec augment": lambda: rnncore.SpecAugment(1, 1, 1, 1)(MASKED),
    "norm": lambda: LayerNorm(3)(MASKED),
    "prelu": lambda: rnncore.PReLU()(MASKED),
    "cell": lambda: GRUCell(3, 4)(MASKED[0]),
    "cell state": lambda: GRUCell(3, 4)(X[0], STATE[0]),
    "deep": lambda: DeepRNN(3, 4)(MASKED),
    "both": lambda: rnncore.Bidirectional(gru, GRU(3, 4))(MASKED),
    "both of one": lambda: rnncore.Bidirectional(gru, GRU(3, 4))(X[:, 0], (STATE[:, 0], None)),
    "row convolution": lambda: RowConvolution(3, 1)(MASKED),
    "convolution": lambda: rnncore.Conv1d(3, 2, 2)(MASKED),
    "convolution's dy": lambda: rnncore.Conv1d(3, 2, 2).vjp(X)[1](np.ma.zeros((4, 2, 2), "f")),
    "convolution's lengths": lambda: rnncore.Conv1d(3, 2, 2)(X, lengths=LONG),
    "transposed": lambda: rnncore.ConvTranspose1d(3, 2, 2)(MASKED),
    "pooling": lambda: rnncore.MaxPool1d(2)(MASKED),
    "pooling of all": lambda: rnncore.GlobalAvgPool()(MASKED),
    "batch norm": lambda: rnncore.BatchNorm(3)(MASKED),
    "glu": lambda: rnncore.GLU()(MASKED[..., :2]),
    "stream of windows": lambda: rnncore.Conv1d(3, 2, 2).stream(2).run(MASKED),
    "attention": lambda: LuongAttention(3, 3)(X, MASKED),
    "stream step": lambda: stream().step(MASKED[0]),
    "stream run": lambda: stream().run(MASKED),
    "stream state": lambda: setattr(stream(), "state", STATE),
    "stream rows": lambda: stream().reset(np.ma.masked_array([0, 1], mask=[0, 1])),
    "chain stream": lambda: Chain(gru, Tanh(), Linear(4, 2)).stream(2).step(MASKED[0]),
    "parameter": lambda: linear.params.update(weight=np.ma.ones((2, 3), np.float32)),
    "targets": lambda: MeanSquaredError()(X, MASKED),
    "predictions": lambda: MeanSquaredError()(MASKED, X),
    "classes": lambda: SoftmaxCrossEntropy()(X[0], LONG),
    "mask": lambda: MeanSquaredError()(X, X, np.ma.masked_array([True] * 5, mask=True)),
    "mask's lengths": lambda: length_mask(LONG, 5),
    "padded": lambda: padded([X, MASKED]),
    "flow": lambda: gradient_flow(gru, MASKED),
}


@pytest.mark.parametrize("use", TAKES)
def test_masked_arrays_are_refused_wherever_an_array_is_taken(use):
    with pytest.raises(TypeError, match="must not be a masked array, its mask would be lost"):
        TAKES[use]()


@pytest.mark.parametrize("values", [np.full((5, 3), 1e300), np.full((5, 3), 2**24 + 1)])
@pytest.mark.parametrize(
    "of", [Frame, list, lambda v: [list(row) for row in v], tuple, lambda v: v]
)
def test_what_has_a_dtype_keeps_it(values, of):
    with pytest.raises(TypeError, match=f"x is {values.dtype}, but this module .* float32"):
        gru(of(values))


def test_frames_of_the_right_dtype_are_taken():
    frame = Frame(X[:, 0])
    np.testing.assert_array_equal(gru(frame)[0], gru(X[:, 0])[0])
    assert as_float("x", Frame(np.ones(3))).dtype == np.float64
    with pytest.raises(TypeError, match="x must be float32 or float64, got int64"):
        as_float("x", Frame(np.ones(3, np.int64)))
    np.testing.assert_array_equal(Tanh()(X.astype(">f4")), Tanh()(X))


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        ([1e300], "float32", r"x holds 1e\+300, which float32 does not hold"),
        ((0.5, -1e39), "float32", r"x holds -1e\+39"),
        (1e300, "float32", "x holds"),
        ([[2**24 + 1]], "float32", "x holds 16777217"),
        ([2**53 + 1], "float64", "x holds 9007199254740993"),
        ([300], "int8", "x holds 300, which int8"),
        ([1.0, [2.0]], "float32", "x must have rows of one length, got a ragged list"),
    ],
)
def test_numbers_that_would_change_are_named(value, dtype, message):
    with pytest.raises(ValueError, match=message):
        as_array("x", value, dtype)


def test_rounding_of_decimals_and_what_is_exact_is_taken():
    given = [0.1, 2**24, -(2**30), float("inf"), float("nan"), 1e-50]
    np.testing.assert_array_equal(as_array("x", given, "float32"), np.array(given, np.float32))
    assert as_array("x", [], "float32").dtype == np.float32
    assert as_array("x", [2**24, 2**40], "float32").tolist() == [2**24, 2**40]
    with pytest.raises(ValueError, match="logits holds"):
        SoftmaxCrossEntropy()([[1e39, 0.0]], [0])


STRANGE = [
    None,
    "abc",
    b"abc",
    {},
    {1},
    iter([]),
    1j,
    np.array(["2020"], "M8[D]"),
    [None],
    [10**30],
]


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: str(value)[:10])
def test_no_numbers_at_all(value):
    for name, use in {
        "x": lambda: gru(value),
        "state": lambda: gru(X, [value] if value is None else value),
        "lengths": lambda: as_lengths([value] if value is None else value, 5, 2),
        "targets": lambda: MeanSquaredError()(X, value),
        "numbers": lambda: as_integers("numbers", value),
    }.items():
        with pytest.raises(TypeError, match=f"^{name} (is|must be) ") as error:
            use()
        assert "astype" not in str(error.value) or "complex" in str(error.value)
        assert len(str(error.value)) < 200


def test_tensors():
    torch = pytest.importorskip("torch", reason="PyTorch makes the tensors")
    x = torch.ones(5, 2, 3)
    np.testing.assert_array_equal(gru(x)[0], gru(X)[0])
    with pytest.raises(TypeError, match=r"x must be an array, got Tensor: .*requires grad"):
        gru(x.requires_grad_())
    with pytest.raises(TypeError, match=r"x must be an array, got Tensor: .*BFloat16"):
        gru(x.detach().to(torch.bfloat16))
    with pytest.raises(TypeError, match="x is float64"):
        gru(x.detach().double())
    with pytest.raises(TypeError, match=r"x must be an array, got a PackedSequence: .*lengths"):
        gru(torch.nn.utils.rnn.pack_padded_sequence(x.detach(), [5, 2]))


def test_lists_in_lists_without_end():
    circle: list = []
    circle.append(circle)
    with pytest.raises(ValueError, match="x must be an array, got lists more than 64 deep"):
        gru(circle)


SIZES = {
    "hidden_size": lambda v: LSTM(3, v),
    "num_layers": lambda v: LSTM(3, 4, v),
    "in_features": lambda v: Linear(v, 2),
    "size": lambda v: RowConvolution(v, 1),
    "future": lambda v: RowConvolution(3, v),
    "normalized_shape": lambda v: LayerNorm(v),
    "num_parameters": lambda v: rnncore.PReLU(v),
    "T": lambda v: length_mask([1], v),
    "batch": lambda v: gru.stream(v),
    "proj_size": lambda v: LSTM(3, 4, proj_size=v),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [256.0, "3", None, True, X])
def test_sizes_are_integers(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be (an integer|a whole number), got "):
        SIZES[name](value)


NUMBERS = {
    "p": lambda v: Dropout(v),
    "dropout": lambda v: LSTM(3, 4, 2, dropout=v),
    "zoneout": lambda v: GRU(3, 4, zoneout=v),
    "cell_clip": lambda v: LSTM(3, 4, cell_clip=v),
    "eps": lambda v: LayerNorm(3, v),
    "init": lambda v: rnncore.PReLU(1, v),
    "lr": lambda v: Adam(linear, v),
    "betas": lambda v: Adam(linear, betas=v),
    "max_norm": lambda v: rnncore.clip_grad_norm(linear, v),
    "label_smoothing": lambda v: SoftmaxCrossEntropy(v),
    "value": lambda v: padded([np.ones(2)], v),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["3", {}, True, X, 1j])
def test_rates_are_numbers(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a (number|pair of numbers), got "):
        NUMBERS[name](value)


@pytest.mark.parametrize("name", ["bias", "batch_first", "bidirectional"])
@pytest.mark.parametrize("value", [0.5, None, "no", 2, X])
def test_flags_are_true_or_false(name, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False, got "):
        LSTM(3, 4, **{name: value})


@pytest.mark.parametrize("make", [LSTM, Linear, Embedding, LuongAttention, GRUCell])
@pytest.mark.parametrize("dtype", [None, "float", 3, "abc"])
def test_no_dtype(make, dtype):
    if dtype == "float":  # NumPy's name of float64
        assert make(3, 3, dtype=dtype).dtype == np.float64
    else:
        with pytest.raises(TypeError, match="dtype must be float32 or float64, got "):
            make(3, 3, dtype=dtype)


def test_padding_that_the_dtype_does_not_hold():
    integers = [np.array([1, 2]), np.array([3])]
    for value in (float("nan"), 1.5, 2**70 * 1.0):
        with pytest.raises(ValueError, match=r"value holds .* int64 does not hold"):
            padded(integers, value)
    for dtype, value in (("int8", 300), ("uint8", -1), ("bool", 2), ("float32", 1e300)):
        with pytest.raises(ValueError, match=f"value holds {value}".replace("+", r"\+")):
            padded([np.zeros(2, dtype)], value)
    together, lengths = padded(integers, -1)
    assert together.tolist() == [[1, 3], [2, -1]]
    assert lengths.tolist() == [2, 1]
    assert np.isnan(padded([np.ones(2), np.ones(1)], np.nan)[0][1, 1])


def test_options_without_effect():
    for name, make in {
        "dropout has no effect without several layers": lambda: LSTM(3, 4, dropout=0.5),
        "dropout has no effect": lambda: DeepRNN(3, 4, dropout=0.5),
        "width has no effect": lambda: DeepRNN(3, 4, width=5),
        "past has no effect": lambda: Windowed(None, gru, 2, 1),
        "future has no effect": lambda: Windowed(gru, None, 2, 1),
        r"zoneout\[1\] has no effect without a cell state": lambda: GRU(3, 4, zoneout=(0.1, 0.2)),
    }.items():
        with pytest.warns(UserWarning, match=name):
            make()
    trainer = Trainer(linear, MeanSquaredError(), Adam(linear), [(X, X[..., :2])])
    with pytest.raises(ValueError, match="patience counts validations"):
        trainer.fit(1, patience=3, quiet=True)


def test_trainers_name_what_they_lack():
    good = (linear, MeanSquaredError(), Adam(linear), [])
    for at, name in enumerate(("model", "loss", "optimiser", "batches")):
        wrong = [*good]
        wrong[at] = 3
        with pytest.raises(TypeError, match=f"{name} must "):
            Trainer(*wrong)
    for option, error, message in (
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"seconds": "3"}, TypeError, "seconds must be a number, got '3'"),
    ):
        trainer = Trainer(*good, validate=lambda: 0.0)
        with pytest.raises(error, match=message):
            trainer.fit(1, quiet=True, **option)
    assert Trainer(*good).fit(1, seconds=0, quiet=True) == "seconds"
    with pytest.raises(TypeError, match=r"steps must be an integer, got 1\.5"):
        Trainer(*good).fit(1.5, quiet=True)
    with pytest.raises(TypeError, match="state must hold arrays by their names, got int"):
        linear.load_state_dict(3)


class Halves(Module):
    """One output for two steps: its lengths are not those of its inputs."""

    recurrent = True

    def __call__(self, x, state=None, *, lengths=None):
        return x[::2], None

    def vjp(self, x, state=None, *, lengths=None):
        return (x[::2], None), once(lambda dy, d=None: (None, None))


class TestLengthsAreTheMask:
    lengths = np.array([5, 1])

    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_where_outputs_are_per_step(self, batch_first, reduction):
        def swap(array):
            return array.swapaxes(0, 1) if batch_first else array

        rng = np.random.default_rng(0)
        model = Chain(LSTM(3, 4, batch_first=batch_first, seed=0), Linear(4, 2, seed=1))
        x = swap(rng.standard_normal((5, 2, 3)).astype(np.float32))
        classes, reals = swap(rng.integers(2, size=(5, 2))), swap(rng.random((5, 2, 2), np.float32))
        mask = length_mask(self.lengths, 5, batch_first)
        losses = (
            (SoftmaxCrossEntropy, classes),
            (MeanSquaredError, reals),
            (BinaryCrossEntropy, reals),
        )
        for kind, targets in losses:
            loss = kind(reduction=reduction)
            want = evaluate(model, loss, [Batch(x, targets, self.lengths, mask)])
            assert evaluate(model, loss, [(x, targets, self.lengths)]) == want
            assert evaluate(model, loss, [(x, targets)]) != want
            gradients = []
            for batch in ((x, targets, self.lengths), (x, targets, self.lengths, mask)):
                trainer = Trainer(model, loss, rnncore.SGD(model, lr=0.0), [batch])
                gradients.append((trainer.update(), model.grads["0.weight_hh_l0"].copy()))
                assert trainer.progress.targets == mask.sum() * targets[0, 0].size
            assert gradients[0][0] == gradients[1][0]
            np.testing.assert_array_equal(gradients[0][1], gradients[1][1])

    def test_not_where_there_is_one_output_for_a_sequence(self):
        # As many steps as sequences and features: shapes alone could be taken for steps.
        model = Chain(Readout(GRU(3, 3, seed=0)), Linear(3, 3, seed=1))
        x, lengths = np.ones((3, 3, 3), np.float32), np.array([3, 1, 2])
        for loss, targets in (
            (SoftmaxCrossEntropy(), np.array([0, 1, 2])),
            (MeanSquaredError(), np.eye(3, dtype=np.float32)),
        ):
            want = loss(model(x, lengths=lengths)[0], targets)
            assert evaluate(model, loss, [(x, targets, lengths)]) == pytest.approx(want)

    def test_not_where_steps_are_others(self):
        targets = np.zeros((3, 2, 3), np.float32)
        assert evaluate(Halves(), MeanSquaredError(), [(X, targets, self.lengths)]) == 1.0

    def test_a_mask_that_is_given_counts(self):
        mask = np.zeros((5, 2), bool)
        mask[4, 1] = True
        model = Chain(LSTM(3, 4, seed=0), Linear(4, 2, seed=1))
        batch = Batch(X, np.zeros((5, 2), int), self.lengths, mask)
        assert batch.masked(np.zeros((5, 2, 2)), model).mask is mask


def test_layers_that_do_not_fit():
    for layers, message in (
        ((LSTM(3, 4, batch_first=True), LSTM(4, 2)), "same batch_first: layer 0 has True, layer 1"),
        ((LSTM(3, 4), Linear(5, 2)), "layer 1, a Linear: one gives 4 features, the next takes 5"),
        ((LSTM(3, 4, bidirectional=True), Tanh(), LSTM(4, 2)), "layer 2, a LSTM: one gives 8"),
        ((Linear(3, 4), Embedding(4, 2)), "one gives 4 features, the next takes indices"),
        ((Embedding(4, 2), Chain(Dropout(0.1), GRU(3, 4))), "layer 1, a Chain: layer 1, a GRU: "),
        ((Linear(3, 4), LayerNorm(3)), "one gives 4 features, the next takes 3"),
        ((Linear(3, 4), rnncore.PReLU(3)), "one gives 4 features, the next takes 3"),
        ((Readout(GRU(3, 4)), Linear(3, 4)), "one gives 4 features, the next takes 3"),
        ((rnncore.Bidirectional(GRU(3, 4), GRU(3, 5)), Linear(4, 4)), "one gives 9 features"),
        ((RowConvolution(3, 1), Linear(4, 4)), "one gives 3 features"),
        ((DeepRNN(3, 4, output_depth=2, width=6), Linear(4, 4)), "one gives 6 features"),
    ):
        with pytest.raises(ValueError, match=message):
            Chain(*layers)


def test_a_layer_of_ones_own_may_give_any_width():
    class Wide(Linear):
        def __call__(self, x):
            return np.concatenate([super().__call__(x)] * 2, axis=-1)

    assert Chain(Wide(3, 2), Linear(4, 2), Tanh())(X).shape == (5, 2, 2)


def test_an_optimiser_says_that_parts_were_replaced():
    chain = Chain(Linear(3, 2))
    optimiser = Adam(chain)
    optimiser.step()
    chain.layers = (Linear(3, 2),)
    with pytest.raises(RuntimeError, match="other parameters by now: make another optimiser"):
        optimiser.step()


@pytest.mark.parametrize("value", [None, 3, {}, X, ["tanh", "x"], [X], (True,)])
def test_names_of_activations(value):
    for name, make in (
        ("nonlinearity", lambda: rnncore.RNN(3, 4, nonlinearity=value)),
        ("activations", lambda: GRU(3, 4, activations=value)),
        ("activations", lambda: LSTM(3, 4, activations=(value,) * 3)),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be "):
            make()
    for name, make in (
        ("layer_norm", lambda: LSTM(3, 4, layer_norm="no")),
        ("init", lambda: LSTM(3, 4, init=value)),
        ("layers", lambda: rnncore.LatencyControlled(3, 2)),
        ("merge", lambda: rnncore.Bidirectional(gru, GRU(3, 4), value)),
        ("reading", lambda: Readout(gru, value)),
        ("score", lambda: LuongAttention(3, 3, value)),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be ") as error:
            make()
        assert len(str(error.value)) < 200


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4)])
def test_rows_of_a_state_that_lacks_them(shape):
    with pytest.raises(ValueError, match=r"state must hold arrays \(..., B, H\)"):
        take_rows(np.zeros(shape), np.array([0, 2]))


def test_a_flag_is_no_number():
    with pytest.raises(TypeError, match="normalise must be True or False"):
        rnncore.RecursiveAutoencoder(3, normalise=10**30)
