"""Convolutions among other layers: gradients, and lengths on to losses and attention."""

import numpy as np
import pytest
import rnncore
from rnncore import (
    GLU,
    GRU,
    LSTM,
    BatchNorm,
    Chain,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    GlobalAvgPool,
    GlobalMaxPool,
    Linear,
    MaxPool1d,
    MeanSquaredError,
    Readout,
    SoftmaxCrossEntropy,
    Tanh,
    search,
)
from rnncore.batches import Batch
from rnncore.losses import Objective
from rnncore.training.trainer import evaluate

from tests.support.compare import near
from tests.support.gradients import check_layer, check_recurrent
from tests.support.windows import Ragged

F64 = {"dtype": "float64", "seed": 1}
LENGTHS = np.array([9, 4, 7])


def tagger(**options):
    """Halves the steps, with a convolution within a chain within the chain."""
    own = F64 | options
    return Chain(
        Conv1d(3, 6, 3, padding="same", **own),
        BatchNorm(6, dtype="float64", batch_first=options.get("batch_first", False)),
        GLU(),
        Chain(Conv1d(3, 4, 2, stride=2, **own), Tanh()),
        LSTM(4, 5, **own),
        Chain(Conv1d(5, 5, 2, padding="causal", **own), GRU(5, 3, **own)),
        Linear(3, 2, **F64),
    )


def encoder(**options):
    """A chain without a state."""
    return Chain(
        Conv1d(3, 4, 3, padding=1, **F64 | options),
        Tanh(),
        Chain(MaxPool1d(2, **options), Conv1d(4, 2, 2, **F64 | options)),
    )


class TestGradients:
    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize("lengths", [None, LENGTHS])
    def test_of_a_recurrent_chain(self, first, lengths, rng):
        x = rng.standard_normal((3, 9, 3) if first else (9, 3, 3))
        check_recurrent(tagger(batch_first=first), x, lengths=lengths)

    @pytest.mark.parametrize("first", [False, True])
    def test_of_a_chain_without_a_state(self, first, rng):
        x = rng.standard_normal((3, 9, 3) if first else (9, 3, 3))
        check_layer(encoder(batch_first=first), x)
        check_layer(Ragged(encoder(batch_first=first), LENGTHS), x)

    def test_of_images(self, rng):
        model = Chain(
            Conv2d(2, 4, 3, padding=1, **F64),
            BatchNorm(4, dtype="float64"),
            rnncore.MaxPool2d(2),
            Conv2d(4, 3, 2, **F64),
            GlobalAvgPool(),
            Linear(3, 2, **F64),
        )
        check_layer(model, rng.standard_normal((3, 6, 5, 2)))

    def test_of_a_single_sequence(self, rng):
        check_recurrent(tagger(), rng.standard_normal((9, 3)))

    def test_there_and_back(self, rng):
        model = Chain(Conv1d(3, 4, 4, 2, 1, **F64), Tanh(), ConvTranspose1d(4, 3, 4, 2, 1, **F64))
        x = rng.standard_normal((8, 2, 3))
        assert model(x).shape == x.shape
        check_layer(model, x)


class TestLengths:
    @pytest.mark.parametrize("first", [False, True])
    def test_rows_are_those_alone(self, first, rng):
        model, x = tagger(batch_first=first), rng.standard_normal((9, 3, 3))
        alive = np.arange(9)[:, None] < LENGTHS
        x[~alive] = np.nan
        swap = (lambda a: a.swapaxes(0, 1)) if first else (lambda a: a)
        y = swap(model(swap(x), lengths=LENGTHS)[0])
        after = model.out_lengths(LENGTHS)
        np.testing.assert_array_equal(after, [4, 2, 3])
        for row, (n, m) in enumerate(zip(LENGTHS, after, strict=True)):
            np.testing.assert_array_equal(y[:m, row], model(x[:n, row])[0])

    def test_of_a_chain_without_a_state(self, rng):
        model, x = encoder(), rng.standard_normal((9, 3, 3))
        y, after = model(x, lengths=LENGTHS), model.out_lengths(LENGTHS)
        np.testing.assert_array_equal(after, [3, 1, 2])
        for row, (n, m) in enumerate(zip(LENGTHS, after, strict=True)):
            np.testing.assert_array_equal(y[:m, row], model(x[:n, row]))
            assert not y[m:, row].any()

    @pytest.mark.parametrize(
        "model",
        [
            Chain(tagger(), GlobalMaxPool(), BatchNorm(2, dtype="float64"), Linear(2, 2, **F64)),
            Chain(
                Conv1d(3, 4, 2, 2, **F64),
                Readout(GRU(4, 3, **F64), "mean"),
                BatchNorm(3, dtype="float64"),
            ),
        ],
        ids=["pool", "readout"],
    )
    def test_end_where_one_row_is_left(self, model, rng):
        x = rng.standard_normal((9, 3, 3))
        y, _ = model(x, lengths=LENGTHS)
        for row, n in enumerate(LENGTHS):
            near(y[row], model(x[:n, row : row + 1])[0][0], 1e-13)
        (y, _), pullback = model.vjp(x, lengths=LENGTHS)
        dx, _ = pullback(np.ones_like(y))
        assert not dx[np.arange(9)[:, None] >= LENGTHS].any()

    def test_that_leave_nothing_are_refused(self, rng):
        model = Chain(Conv1d(3, 4, 4, **F64), GRU(4, 2, **F64))
        message = "lengths must leave an output of the Conv1d in each row, but of 3 frames it makes"
        for call in (model, model.vjp):
            with pytest.raises(ValueError, match=message):
                call(np.zeros((9, 3, 3)), lengths=[9, 3, 7])

    def test_of_layers_that_take_none(self):
        for layer, kind in (
            (ConvTranspose1d(3, 3, 2, **F64), "ConvTranspose1d"),
            (Mixed(), "Mixed"),
        ):
            for model in (Chain(layer, GRU(3, 2, **F64)), Chain(Chain(layer), GRU(3, 2, **F64))):
                with pytest.raises(ValueError, match=f"a ({kind}|Chain) takes no lengths"):
                    model(np.zeros((5, 2, 3)), lengths=[5, 3])
                model(np.zeros((5, 2, 3)))

    def test_chains_begin_anew_where_streams_go_on(self, rng):
        model = Chain(Conv1d(3, 4, 2, padding="causal", **F64), GRU(4, 2, **F64))
        x = rng.standard_normal((8, 2, 3))
        whole, _ = model(x)
        first, state = model(x[:4])
        second, _ = model(x[4:], state)
        assert (second[0] != whole[4]).any()
        stream = model.stream(2)
        np.testing.assert_array_equal(np.concatenate([stream.run(x[:4]), stream.run(x[4:])]), whole)
        np.testing.assert_array_equal(first, whole[:4])


class Mixed(rnncore.Module):
    """Somebody's own layer, which says that it mixes frames and takes no lengths."""

    takes_lengths = False

    def __call__(self, x):
        return x[::-1]


class Ends(Objective):
    """Notes the lengths that it is handed."""

    takes = ("lengths",)

    def vjp(self, x, targets, lengths):
        self.seen = lengths
        return 0.0, lambda dloss=1.0: np.zeros_like(x)

    def counted(self, targets, lengths):
        return 1.0


class TestLosses:
    @pytest.mark.parametrize("first", [False, True])
    def test_do_not_count_what_is_past_the_outputs(self, first, rng):
        """The lengths of the outputs are the mask, and are fewer than those of the inputs."""
        model, x = tagger(batch_first=first), rng.standard_normal((9, 3, 3))
        swap = (lambda a: a.swapaxes(0, 1)) if first else (lambda a: a)
        y = swap(model(swap(x), lengths=LENGTHS)[0])
        targets = rng.standard_normal(y.shape)
        alive = np.arange(len(y))[:, None] < model.out_lengths(LENGTHS)
        batch = Batch(swap(x), swap(targets), LENGTHS)
        got = evaluate(model, MeanSquaredError(), [batch])
        near(got, ((y - targets)[alive] ** 2).mean(), 1e-12)

    def test_are_handed_the_lengths_of_the_outputs(self, rng):
        loss, x = Ends(), rng.standard_normal((9, 3, 3))
        evaluate(tagger(), loss, [Batch(x, np.zeros(3), LENGTHS)])
        np.testing.assert_array_equal(loss.seen, [4, 2, 3])
        evaluate(GRU(3, 2, **F64), loss, [Batch(x, np.zeros(3), LENGTHS)])
        np.testing.assert_array_equal(loss.seen, LENGTHS)

    def test_of_one_output_for_each_sequence_have_no_mask(self, rng):
        model = Chain(Conv1d(3, 4, 3, 2, **F64), GlobalMaxPool(), Linear(4, 3, **F64))
        x, targets = rng.standard_normal((9, 3, 3)), np.array([0, 1, 2])
        batch = Batch(x, targets, LENGTHS)
        got = evaluate(model, SoftmaxCrossEntropy(), [batch])
        near(got, SoftmaxCrossEntropy()(model(x, lengths=LENGTHS), targets), 1e-14)


class TestAttention:
    """An encoder with strides: a decoder attends to what is there."""

    def model(self):
        encoder = Chain(Conv1d(3, 4, 3, stride=2, **F64), GRU(4, 5, **F64))
        decoder = rnncore.Decoder(
            rnncore.Embedding(6, 4, **F64),
            GRU(4, 5, **F64),
            rnncore.LuongAttention(5, 5, **F64),
            Linear(5, 6, **F64),
        )
        return rnncore.Seq2Seq(encoder, decoder)

    def test_rows_are_those_alone(self, rng):
        model, source = self.model(), rng.standard_normal((9, 3, 3))
        target = rng.integers(0, 6, (4, 3))
        y = model(source, target, source_lengths=LENGTHS)
        weights = model.attention(source, target, source_lengths=LENGTHS)
        assert weights.shape[-1] == 4
        for row, n in enumerate(LENGTHS):
            alone = model(source[:n, row : row + 1], target[:, row : row + 1])
            near(y[:, row], alone[:, 0], 1e-13)

    @pytest.mark.parametrize("coverage", [0.0, 0.5])
    def test_searches_are_those_alone(self, coverage, rng):
        model, source = self.model(), rng.standard_normal((9, 3, 3))
        rules = {"bos": 0, "eos": 1, "max_length": 5, "coverage_penalty": coverage}
        found = search.beam(model, source, LENGTHS, width=3, **rules)
        for row, n in enumerate(LENGTHS):
            (alone,) = search.beam(model, source[:n, row : row + 1], width=3, **rules)
            assert [h.tokens.tolist() for h in found[row]] == [h.tokens.tolist() for h in alone]
            near([h.score for h in found[row]], [h.score for h in alone], 1e-12)
            assert all(h.attention.shape[-1] == (n - 3) // 2 + 1 for h in found[row])
