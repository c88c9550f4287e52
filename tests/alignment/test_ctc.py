"""CTC against all paths, the reference, torch and finite differences, and what it promises."""

import itertools
import re

import numpy as np
import pytest
from rnncore import LSTM, Chain, CTCLoss, Linear, optim
from rnncore.batches import Batch
from rnncore.reference import ctc as reference
from rnncore.threads import set_num_threads
from rnncore.training import Trainer, evaluate

from tests.golden.make_ctc_golden import CASES, FILE, REDUCTIONS, given
from tests.support.compare import near

GOLDEN = dict(np.load(FILE))
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def labels_of(path, blank=0):
    """What a path says: equal neighbours merged, blanks dropped."""
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def by_paths(x, labels, blank=0):
    """-log of the sum over all C^T paths."""
    log_p = reference.log_softmax(x)
    paths = itertools.product(range(x.shape[1]), repeat=len(x))
    scores = [
        log_p[np.arange(len(x)), list(path)].sum()
        for path in paths
        if labels_of(path, blank) == tuple(labels)
    ]
    return -np.logaddexp.reduce(scores) if scores else np.inf


def results(loss, *arguments):
    value, pullback = loss.vjp(*arguments)
    return value, pullback()


class TestOracles:
    @pytest.mark.parametrize("labels", [(), (1,), (2, 1), (1, 1), (2, 2, 1), (1, 2, 1)])
    @pytest.mark.parametrize("steps", [1, 2, 4, 5])
    def test_all_paths(self, labels, steps, rng):
        x = rng.standard_normal((steps, 3))
        expected = by_paths(x, labels)
        assert reference.loss(x, labels) == pytest.approx(expected, rel=1e-12)
        found = CTCLoss(reduction="sum", zero_infinity=True)(x, np.array(labels, int))
        assert found == pytest.approx(0 if expected == np.inf else expected, rel=1e-12)

    @each_dtype
    @pytest.mark.parametrize("blank", [0, 2])
    def test_reference(self, dtype, blank, rng):
        x = (4 * rng.standard_normal((140, 3, 5))).astype(dtype)
        labels = [rng.choice([k for k in range(5) if k != blank], n) for n in (9, 1, 30)]
        lengths = [140, 65, 129]
        loss = CTCLoss(blank, "none")
        found, dx = results(loss, x, np.concatenate(labels), lengths, [9, 1, 30])
        assert found.dtype == dx.dtype == dtype
        for b, (own, length) in enumerate(zip(labels, lengths, strict=True)):
            single = x[:length, b].astype(np.float64)
            near(found[b], reference.loss(single, own, blank), TOLERANCE[dtype])
            near(dx[:length, b], reference.gradient(single, own, blank), TOLERANCE[dtype])
            assert not dx[length:, b].any()

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    @pytest.mark.parametrize("name", CASES)
    @each_dtype
    def test_golden(self, name, reduction, dtype):
        x, *others = given(CASES[name])
        loss = CTCLoss(CASES[name].blank, reduction)
        value, dx = results(loss, x.astype(dtype), *others)
        assert type(value) is (np.ndarray if reduction == "none" else float)
        near(value, GOLDEN[f"{name}.{reduction}.loss"], TOLERANCE[dtype])
        near(dx, GOLDEN[f"{name}.{reduction}.dx"], TOLERANCE[dtype])

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_differences(self, reduction, rng):
        x, weights = rng.standard_normal((9, 3, 4)), np.array([0.5, 2, 0])
        loss, dloss = CTCLoss(reduction=reduction), rng.standard_normal(3)
        dloss = dloss if reduction == "none" else 1.5
        targets, lengths, counts = [[1, 1, 2], [3, 0, 9], [2, 2, 2]], [9, 4, 8], [3, 1, 2]

        def value(x):
            return np.sum(loss(x, targets, lengths, counts, weights) * dloss)

        dx = loss.vjp(x, targets, lengths, counts, weights)[1](dloss)
        expected = np.empty_like(x)
        for at in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[at] = 1e-5
            expected[at] = (value(x + step) - value(x - step)) / 2e-5
        near(dx, expected, 1e-7)

    @pytest.mark.parametrize("peaked", [0.5, 3.0, 30.0])
    def test_long(self, peaked, rng):
        """float32 over 5,000 frames; where logits are sharp, most paths are below 1e-308."""
        x = (peaked * rng.standard_normal((5000, 1, 40))).astype(np.float32)
        labels = rng.integers(1, 40, 300)
        value, dx = results(CTCLoss(reduction="sum"), x, labels)
        exact, exact_dx = results(CTCLoss(reduction="sum"), x.astype(np.float64), labels)
        assert exact == pytest.approx(reference.loss(x[:, 0].astype(float), labels), rel=1e-12)
        near(exact_dx[:, 0], reference.gradient(x[:, 0].astype(float), labels), 1e-9)
        near(value, exact, 1e-5)
        near(dx, exact_dx, 1e-5)


class TestForms:
    """One loss, however its arguments lie."""

    def arguments(self, rng):
        x = rng.standard_normal((12, 3, 5)).astype(np.float32)
        targets = np.array([[1, 2, 2, 9], [4, -7, 0, 0], [3, 1, 3, 1]])
        return x, targets, np.array([12, 3, 10]), np.array([3, 1, 4])

    def test_targets_in_one_row(self, rng):
        x, targets, lengths, counts = self.arguments(rng)
        flat = np.array([1, 2, 2, 4, 3, 1, 3, 1])
        value, dx = results(CTCLoss(), x, targets, lengths, counts)
        other, other_dx = results(CTCLoss(), x, flat, lengths, counts)
        assert value == other
        np.testing.assert_array_equal(dx, other_dx)

    def test_batch_first(self, rng):
        x, *others = self.arguments(rng)
        value, dx = results(CTCLoss(), x, *others)
        turned = np.ascontiguousarray(x.transpose(1, 0, 2))
        other, other_dx = results(CTCLoss(batch_first=True), turned, *others)
        assert value == other
        np.testing.assert_array_equal(dx, other_dx.transpose(1, 0, 2))

    def test_strides(self, rng):
        x, *others = self.arguments(rng)
        value, dx = results(CTCLoss(), x, *others)
        wide = np.zeros((24, 3, 10), np.float32)
        wide[::2, :, ::2] = x
        other, other_dx = results(CTCLoss(), wide[::2, :, ::2], *others)
        assert value == other
        np.testing.assert_array_equal(dx, other_dx)

    def test_one_sequence(self, rng):
        x, targets, _, _ = self.arguments(rng)
        value, dx = results(CTCLoss(), x[:, 0], targets[0, :3], 10, 3)
        other, other_dx = results(CTCLoss(), x[:, :1], targets[:1, :3], [10], [3])
        assert value == other
        assert dx.shape == (12, 5)
        np.testing.assert_array_equal(dx, other_dx[:, 0])
        assert results(CTCLoss(), x[:, 0], targets[0, :3])[0] == CTCLoss()(x[:, :1], [[1, 2, 2]])

    def test_permuted(self, rng):
        """Each sequence has its own bits, wherever it stands and on any number of threads."""
        x = rng.standard_normal((70, 20, 33)).astype(np.float32)
        targets = rng.integers(1, 33, (20, 15))
        lengths, counts = rng.integers(30, 71, 20), rng.integers(0, 16, 20)
        order = rng.permutation(20)
        value, dx = results(CTCLoss(reduction="none"), x, targets, lengths, counts)
        for threads in (1, 3):
            set_num_threads(threads)
            permuted = [x[:, order], targets[order], lengths[order], counts[order]]
            other, other_dx = results(CTCLoss(reduction="none"), *permuted)
            np.testing.assert_array_equal(value[order], other)
            np.testing.assert_array_equal(dx[:, order], other_dx)

    def test_weights(self, rng):
        x, *others = self.arguments(rng)
        losses = CTCLoss(reduction="none")(x, *others)
        weights = np.array([1, 0, 3])
        summed = CTCLoss(reduction="sum")(x, *others, weights)
        assert summed == pytest.approx(losses @ weights, rel=1e-6)
        mean = CTCLoss()(x, *others, weights)
        assert mean == pytest.approx((losses / [3, 1, 4]) @ weights / 4, rel=1e-6)
        assert CTCLoss().counted(*others, weights) == 4
        assert CTCLoss().counted(*others) == 3

    def test_nothing(self):
        """An empty batch, and sequences of no frames."""
        value, dx = results(CTCLoss(), np.zeros((4, 0, 3), np.float32), np.zeros((0, 2), int))
        assert (value, dx.shape) == (0, (4, 0, 3))
        value, dx = results(CTCLoss(), np.zeros((0, 2, 3), np.float32), np.zeros((2, 0), int))
        assert (value, dx.shape) == (0, (0, 2, 3))
        assert CTCLoss()(np.zeros((4, 1, 3), np.float32), np.zeros((1, 0), int), [0]) == 0


class TestHostile:
    def test_too_short(self, rng):
        x = rng.standard_normal((4, 2, 3)).astype(np.float32)
        targets = [[1, 2, 1], [1, 1, 1]]
        message = "sequence 1 has 4 frames, but its 3 labels, 2 of them equal to the one before, "
        with pytest.raises(ValueError, match=re.escape(message + "need 5")):
            CTCLoss()(x, targets)
        value, dx = results(CTCLoss(reduction="none", zero_infinity=True), x, targets)
        assert value[1] == 0 < value[0]
        assert not dx[:, 1].any()
        assert dx[:, 0].all()

    def test_repeats_are_counted_within_a_sequence(self, rng):
        x = rng.standard_normal((2, 2, 3)).astype(np.float32)
        assert np.isfinite(CTCLoss()(x, [1, 2, 2, 1], target_lengths=[2, 2]))

    def test_no_path(self, rng):
        x = rng.standard_normal((5, 2, 3)).astype(np.float32)
        x[:, 1, 2] = -np.inf
        value, dx = results(CTCLoss(reduction="none"), x, [[1, 2], [1, 2]])
        assert value[1] == np.inf
        assert np.isfinite(value[0])
        assert np.isfinite(dx).all()
        assert not dx[:, 1].any()
        zero, _ = results(CTCLoss(reduction="none", zero_infinity=True), x, [[1, 2], [1, 2]])
        assert zero.tolist() == [value[0], 0]

    def test_minus_infinity(self, rng):
        """A class that cannot be is one that is not there."""
        x = rng.standard_normal((6, 1, 4))
        x[:, :, 3] = -np.inf
        value, dx = results(CTCLoss(), x, [[1, 2]])
        other, other_dx = results(CTCLoss(), np.ascontiguousarray(x[:, :, :3]), [[1, 2]])
        assert value == pytest.approx(other, rel=1e-14)
        near(dx[..., :3], other_dx, 1e-14)
        assert not dx[..., 3].any()

    @each_dtype
    def test_nan_stays_in_its_row(self, dtype, rng):
        x = rng.standard_normal((8, 3, 4)).astype(dtype)
        clean, clean_dx = results(CTCLoss(reduction="none"), x, [[1, 2]] * 3, [8, 6, 8])
        x[6:, 1] = np.nan  # padding
        x[3, 2, 1] = np.nan
        value, dx = results(CTCLoss(reduction="none"), x, [[1, 2]] * 3, [8, 6, 8])
        np.testing.assert_array_equal(value[:2], clean[:2])
        np.testing.assert_array_equal(dx[:, :2], clean_dx[:, :2])
        assert np.isnan(value[2])
        assert np.isnan(dx[:, 2]).all()

    @pytest.mark.parametrize("size", [1e4, 1e9, 1e20, 3e38])
    def test_huge(self, size):
        """Probabilities of exp(-2 size), over the 6 ways to place two labels on four frames."""
        x = np.zeros((4, 1, 3), np.float32)
        x[:, :, 0] = size
        value, dx = results(CTCLoss(reduction="sum"), x, [[1, 2]])
        assert value == pytest.approx(2 * float(np.float32(size)) - np.log(6), rel=1e-7)
        t = np.arange(4)
        if size > 1e15:  # float64 has no place for what the ways differ by
            assert np.abs(dx).max() <= 1
            return
        near(dx[:, 0], np.stack([np.full(4, 0.5), (t - 3) / 6, -t / 6], axis=1), 1e-6)

    def test_one_class(self):
        value, dx = results(CTCLoss(), np.ones((3, 1, 1), np.float32), np.zeros((1, 0), int))
        assert value == 0
        assert not dx.any()

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"targets": [[1, 0]]}, r"other than the blank 0, got the blank in sequence 0"),
            ({"targets": [[1, 3]]}, r"targets must be classes 0\.\.2 .* got 3 in sequence 0"),
            ({"targets": [[1, -1]]}, r"targets must be classes 0\.\.2 .* got -1 in sequence 0"),
            ({"targets": [[1, 2**62]]}, r"got 4611686018427387904 in sequence 0"),
            ({"targets": np.array([[1, 2**64 - 1]], np.uint64)}, r"targets must be classes, got"),
            ({"targets": [[1.0, 2]]}, r"targets must be integers, got float64"),
            ({"targets": [[[1]]]}, r"targets must have shape \(1, S\), or .* got \(1, 1, 1\)"),
            ({"lengths": [6]}, r"lengths must be in 0\.\.5, the number of frames; got 6\.\.6"),
            ({"lengths": [-1]}, r"lengths must be in 0\.\.5"),
            ({"lengths": [5, 5]}, r"lengths must have shape \(1,\), got \(2,\)"),
            ({"lengths": [5.0]}, r"lengths must be integers"),
            ({"target_lengths": [3]}, r"target_lengths must be in 0\.\.2"),
            ({"weights": [-1.0]}, r"weights must be finite and at least 0"),
            ({"weights": [1.0, 2]}, r"weights must have shape \(1,\)"),
            ({"logits": np.zeros((5, 1, 3), int)}, r"logits must be float32 or float64, got int64"),
            ({"logits": np.zeros(5)}, r"logits must have shape \(T, B, C\) or \(T, C\)"),
            ({"logits": np.zeros((5, 1, 0))}, r"C at least 1, got \(5, 1, 0\)"),
        ],
    )
    def test_refused(self, changed, message):
        given = {"targets": [[1, 2]], "lengths": None, "target_lengths": None, "weights": None}
        given |= {"logits": np.zeros((5, 1, 3))} | changed
        with pytest.raises((ValueError, TypeError), match=message):
            CTCLoss()(given.pop("logits"), **given)

    def test_flat_targets_need_their_lengths(self):
        x = np.zeros((5, 2, 3), np.float32)
        with pytest.raises(ValueError, match="need target_lengths"):
            CTCLoss()(x, [1, 2])
        with pytest.raises(ValueError, match="as many as target_lengths say, 3, got 2"):
            CTCLoss()(x, [1, 2], target_lengths=[1, 2])

    def test_construction(self):
        with pytest.raises(ValueError, match="reduction must be one of mean, sum, none"):
            CTCLoss(reduction="max")
        with pytest.raises(ValueError, match="blank must be at least 0"):
            CTCLoss(-1)
        with pytest.raises(ValueError, match="blank is 3, but logits have 3 classes"):
            CTCLoss(3)(np.zeros((2, 1, 3)), [[1]])


class TestTraining:
    def batches(self, rng):
        """Sequences of frames that show their labels for some time, with silence between."""
        made = []
        for _ in range(12):
            labels = rng.integers(1, 4, (5, 3))
            frames = np.zeros((18, 5, 4), np.float32)
            for b in range(5):
                for i, label in enumerate(labels[b]):
                    frames[6 * i : 6 * i + rng.integers(2, 5), b, label] = 1
            counts = np.full(5, 3)
            made.append(Batch(frames, labels, np.full(5, 18), target_lengths=counts))
        return made

    def test_learns(self, rng):
        model = Chain(LSTM(4, 16, seed=0), Linear(16, 4, seed=1))
        batches = self.batches(rng)
        trainer = Trainer(
            model, CTCLoss(), optim.Adam(model, 0.02), batches[:10], clip_norm=5.0, seed=0
        )
        before = evaluate(model, CTCLoss(), batches[10:])
        trainer.fit(150, quiet=True)
        assert evaluate(model, CTCLoss(), batches[10:]) < 0.05 * before

    def test_none_is_no_loss_of_a_trainer(self, rng):
        model = Linear(4, 4, seed=1)
        with pytest.raises(ValueError, match="loss must reduce by 'mean' or 'sum', got 'none'"):
            Trainer(model, CTCLoss(reduction="none"), optim.SGD(model, 0.1), self.batches(rng))
