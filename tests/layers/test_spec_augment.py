"""Masks over time and frequency: where they lie, how wide they are, and what they leave alone."""

import math

import numpy as np
import pytest
from rnncore import LSTM, Adam, Chain, Linear, MeanSquaredError, SpecAugment
from rnncore.batches import Batch
from rnncore.training.trainer import Trainer

from tests.support.gradients import check_layer
from tests.support.windows import Ragged


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def masked(layer, *shape, lengths=None):
    """Draw once; return booleans `(B, T)` and `(B, C)`, where all features or frames are zero."""
    y, _ = layer.vjp(ones(*shape), lengths=lengths)
    y = y if layer.batch_first else y.swapaxes(0, 1)
    ends = np.full(len(y), y.shape[1]) if lengths is None else lengths
    bands = np.array([~row[:n].any(axis=0) for row, n in zip(y, ends, strict=True)])
    return ~y.any(axis=2), bands


def runs(row):
    """How many runs of true values there are."""
    return int(row[0]) + int((~row[:-1] & row[1:]).sum())


class TestWhereMasksLie:
    def test_an_element_is_hidden_if_its_frame_or_its_feature_is(self):
        layer = SpecAugment(2, 4, 2, 3, seed=0)
        x = np.random.default_rng(1).standard_normal((30, 50, 12)).astype("f")
        y, pullback = layer.vjp(x)
        frames, bands = ~y.any(axis=2), ~y.any(axis=0)
        hidden = frames[:, :, None] | bands[None]
        assert hidden.any()
        np.testing.assert_array_equal(y, np.where(hidden, 0, x))
        np.testing.assert_array_equal(pullback(ones(*x.shape)), ~hidden)

    def test_each_is_one_run_and_each_row_has_its_own(self):
        frames, bands = masked(SpecAugment(1, 9, 1, 5, seed=0), 40, 64, 16)
        assert max(map(runs, frames)) == max(map(runs, bands)) == 1
        assert len(np.unique(frames, axis=0)) > 40
        assert len(np.unique(bands, axis=0)) > 20

    def test_several_masks(self):
        frames, bands = masked(SpecAugment(3, 5, 2, 3, seed=0), 60, 200, 20)
        assert max(map(runs, frames)) == 3
        assert max(map(runs, bands)) == 2
        assert frames.sum(axis=1).max() <= 15

    def test_widths_and_starts_are_uniform(self):
        """Width and start of one mask, counted against what the paper says of them."""
        batch, steps, widest = 60_000, 6, 3
        frames, _ = masked(SpecAugment(1, widest, 0, 0, seed=3), steps, batch, 1)
        widths, starts = frames.sum(axis=1), frames.argmax(axis=1)
        for width in range(widest + 1):
            places = steps - width + 1 if width else 1  # a mask of no frames lies nowhere
            for start in range(places):
                share = np.mean((widths == width) & (starts == start))
                expected = 1 / (widest + 1) / places
                assert abs(share - expected) < 5 * math.sqrt(expected / batch)

    def test_wider_than_what_there_is(self):
        frames, _ = masked(SpecAugment(1, 1 << 40, 0, 0, seed=0), 3, 500, 2)
        _, bands = masked(SpecAugment(0, 0, 1, 1 << 40, seed=0), 3, 500, 2)
        assert {*frames.sum(axis=1)} == {0, 1, 2, 3}
        assert {*bands.sum(axis=1)} == {0, 1, 2}

    @pytest.mark.parametrize(("p", "widest"), [(0.0, 0), (0.2, 2), (0.29, 2), (1.0, 7)])
    def test_share_of_the_length(self, p, widest):
        frames, _ = masked(SpecAugment(1, 7, 0, 0, p=p, seed=0), 10, 300, 1)
        assert frames.sum(axis=1).max() == widest

    def test_no_masks(self, rng):
        x = rng.standard_normal((5, 2, 3))
        np.testing.assert_array_equal(SpecAugment(0, 9, 0, 9).vjp(x)[0], x)
        np.testing.assert_array_equal(SpecAugment(9, 0, 9, 0).vjp(x)[0], x)


class TestLengths:
    @pytest.mark.parametrize("first", [False, True])
    def test_masks_end_where_sequences_do(self, first):
        lengths = np.tile([10, 3, 1, 7], 100)
        shape = (400, 10, 4) if first else (10, 400, 4)
        layer = SpecAugment(1, 10, 0, 0, batch_first=first, seed=0)
        frames, _ = masked(layer, *shape, lengths=lengths)
        for length in (10, 3, 1, 7):
            rows = frames[lengths == length]
            assert rows[:, length:].all()
            assert {*rows[:, :length].sum(axis=1)} == {*range(length + 1)}

    def test_padding_is_never_looked_at_and_changes_no_mask(self):
        lengths, layer = [4, 9], SpecAugment(2, 3, 1, 2, p=0.5, seed=0)
        x = np.random.default_rng(0).standard_normal((9, 2, 5))
        x[4:, 0] = np.nan
        state = layer.rng.bit_generator.state
        y, pullback = layer.vjp(x, lengths=lengths)
        dx = pullback(ones(9, 2, 5, dtype="float64"))
        assert not y[4:, 0].any()
        assert not dx[4:, 0].any()
        longer = np.concatenate((x, np.full((6, 2, 5), np.inf)))
        layer.rng.bit_generator.state = state
        np.testing.assert_array_equal(layer.vjp(longer, lengths=lengths)[0][:9], y)

    @pytest.mark.parametrize("first", [False, True])
    def test_a_call_clears_padding_and_nothing_else(self, first, rng):
        x = rng.standard_normal((3, 3, 2))
        layer, expected = SpecAugment(1, 2, 1, 1, batch_first=first), x.copy()
        (expected if first else expected.swapaxes(0, 1))[1, 2:] = 0
        np.testing.assert_array_equal(layer(x, lengths=[3, 2, 3]), expected)

    def test_of_one_sequence(self, rng):
        x = rng.standard_normal((6, 3))
        for first in (False, True):
            y = SpecAugment(1, 6, 1, 3, batch_first=first, seed=4).vjp(x, lengths=[5])[0]
            same = SpecAugment(1, 6, 1, 3, seed=4).vjp(x[:, None], lengths=[5])[0]
            np.testing.assert_array_equal(y, same[:, 0])

    @pytest.mark.parametrize("lengths", [[3], [3, 4], [0, 3], [1.0, 2.0]])
    def test_refused(self, lengths):
        for use in (SpecAugment(1, 1, 1, 1), SpecAugment(1, 1, 1, 1).vjp):
            with pytest.raises((TypeError, ValueError), match="lengths must "):
                use(ones(3, 2, 1), lengths=lengths)


class TestAsALayer:
    def test_gradient(self, rng):
        for first, shape in ((False, (7, 3, 4)), (True, (3, 7, 4))):
            layer = SpecAugment(2, 3, 1, 2, batch_first=first, seed=2)
            check_layer(layer, rng.standard_normal(shape))
            check_layer(Ragged(layer, [7, 2, 5]), rng.standard_normal(shape))

    def test_inference_is_nothing_and_draws_nothing(self, rng):
        x, layer = rng.standard_normal((5, 2, 3)), SpecAugment(1, 3, 1, 2, seed=0)
        before = layer.rng.bit_generator.state
        assert layer(x) is x
        assert layer.rng.bit_generator.state == before

    def test_both_layouts_and_precisions_have_the_same_masks(self):
        x = ones(6, 4, 5)
        y = SpecAugment(2, 3, 2, 2, seed=7).vjp(x)[0]
        assert not y.all()
        for dtype in ("float32", "float64"):
            turned = ones(4, 6, 5, dtype=dtype)
            other = SpecAugment(2, 3, 2, 2, batch_first=True, seed=7).vjp(turned)[0]
            assert other.dtype == dtype
            np.testing.assert_array_equal(other.swapaxes(0, 1), y)

    def test_memory_order_does_not_matter(self, rng):
        x = rng.standard_normal((5, 4, 6)).T
        for given in (x, x[::-1], np.asfortranarray(x)[::2]):
            y = SpecAugment(1, 3, 1, 2, seed=1).vjp(given)[0]
            same = SpecAugment(1, 3, 1, 2, seed=1).vjp(given.copy())[0]
            np.testing.assert_array_equal(y, same)

    @pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0), (0, 3)])
    def test_nothing_to_mask(self, shape):
        y, pullback = SpecAugment(2, 3, 2, 2).vjp(ones(*shape))
        assert y.shape == pullback(y).shape == shape

    def test_a_masked_nan_is_hidden_and_others_stay(self):
        layer = SpecAugment(1, 2, 0, 0, seed=0)
        frames, _ = masked(layer, 3, 50, 2)
        layer.rng = np.random.default_rng(0)
        y = layer.vjp(np.full((3, 50, 2), np.nan))[0]
        np.testing.assert_array_equal(np.isnan(y), ~frames.T[..., None] & ones(1, 1, 2, dtype=bool))

    def test_streams_pass_it_by(self, rng):
        x = rng.standard_normal((6, 2, 3)).astype("f")
        model = Chain(SpecAugment(1, 3, 1, 2), LSTM(3, 4, seed=0), Linear(4, 2, seed=1))
        np.testing.assert_array_equal(model.stream(2).run(x), model(x)[0])
        np.testing.assert_array_equal(model[0].stream(2).run(x), x)

    def test_checkpoints_restore_its_generator(self, tmp_path):
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((8, 3, 4)).astype("f"), rng.standard_normal((8, 3, 2))
        batches = [Batch(x, y.astype("f"), np.array([8, 5, 2]))]

        def trainer(seed):
            layers = LSTM(4, 5, seed=0), Linear(5, 2, seed=1)
            model = Chain(SpecAugment(1, 4, 1, 2, seed=seed), *layers)
            return Trainer(model, MeanSquaredError(), Adam(model), batches, seed=0)

        whole = trainer(seed=1)
        losses = [whole.update() for _ in range(6)]
        first = trainer(seed=1)
        for _ in range(3):
            first.update()
        first.save(tmp_path / "run")
        other = trainer(seed=2)
        other.resume(tmp_path / "run")
        assert [other.update() for _ in range(3)] == losses[3:]

    @pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5)])
    def test_refused_shapes(self, shape):
        with pytest.raises(ValueError, match=r"x must have shape \(T, B, C\) or \(T, C\), got"):
            SpecAugment(1, 1, 1, 1)(ones(*shape))
        with pytest.raises(ValueError, match=r"x must have shape \(B, T, C\) or \(T, C\), got"):
            SpecAugment(1, 1, 1, 1, batch_first=True).vjp(ones(*shape))

    def test_refused_arguments(self):
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\], got 1.5"):
            SpecAugment(1, 1, 1, 1, p=1.5)
        for at, name in enumerate(
            ("n_time_masks", "time_mask_param", "n_freq_masks", "freq_mask_param")
        ):
            numbers = [1, 1, 1, 1]
            numbers[at] = -1
            with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
                SpecAugment(*numbers)
            with pytest.raises(TypeError, match=f"{name} must be an integer"):
                SpecAugment(*(0.5 if name_at == at else 1 for name_at in range(4)))

    def test_refused_gradients(self):
        _, pullback = SpecAugment(1, 1, 1, 1).vjp(ones(3, 2, 4))
        with pytest.raises(ValueError, match=r"dy must have shape \(3, 2, 4\), got \(3, 2\)"):
            pullback(ones(3, 2))
