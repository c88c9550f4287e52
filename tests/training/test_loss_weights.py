"""Weights in losses: of items, classes and positives; and in the means of the trainer."""

import pickle

import numpy as np
import pytest
from rnncore import SGD, Linear
from rnncore.batches import Batch, chunked
from rnncore.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from rnncore.training.trainer import Trainer, evaluate

from tests.golden.make_training_golden import WEIGHT
from tests.support.gradients import check_loss
from tests.support.loss_cases import KINDS, given


@pytest.fixture
def weights(rng):
    """Of (4, 3) items; two count nothing."""
    weights = rng.uniform(0.1, 3, (4, 3))
    weights[1, 2] = weights[3, 0] = 0
    return weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
class TestItems:
    def test_gradients(self, kind, reduction, weights):
        loss = KINDS[kind](reduction=reduction)
        x, targets, _ = given(loss)
        check_loss(loss, x, targets, weights)

    def test_whole_weights_are_repetitions(self, kind, reduction, rng):
        loss = KINDS[kind](reduction=reduction)
        x, targets, _ = given(loss)
        rows = [a.reshape(12, *a.shape[2:]) for a in (x, targets)]
        times = rng.integers(0, 4, 12)
        value, pullback = loss.vjp(*rows, times.astype(float))
        repeated = [a.repeat(times, axis=0) for a in rows]
        wanted, wanted_pullback = loss.vjp(*repeated)
        assert value == pytest.approx(wanted, rel=1e-13)
        dx = np.zeros_like(rows[0])
        np.add.at(dx, np.arange(12).repeat(times), wanted_pullback())
        np.testing.assert_allclose(pullback(), dx, rtol=1e-12, atol=1e-15)

    def test_ones_and_zeros_are_a_mask(self, kind, reduction):
        loss = KINDS[kind](reduction=reduction)
        for dtype in ("float32", "float64"):
            x, targets, mask = given(loss, dtype)
            value, pullback = loss.vjp(x, targets, mask)
            other, other_pullback = loss.vjp(x, targets, mask.astype(dtype))
            assert other == value
            found = other_pullback()
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, pullback())

    def test_what_counts_nothing_is_not_looked_at(self, kind, reduction, weights):
        loss = KINDS[kind](reduction=reduction)
        x, targets, _ = given(loss)
        value, pullback = loss.vjp(x, targets, weights)
        dx = pullback()
        x[weights == 0] = np.nan
        targets[weights == 0] = -100 if targets.dtype.kind == "i" else np.nan
        other, other_pullback = loss.vjp(x, targets, weights)
        assert other == value
        np.testing.assert_array_equal(other_pullback(), dx)
        assert loss(x, targets, np.zeros_like(weights)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_common_factor_changes_no_mean(kind, weights):
    loss = KINDS[kind]()
    x, targets, _ = given(loss)
    assert loss(x, targets, 8 * weights) == pytest.approx(loss(x, targets, weights), rel=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_counted_is_what_the_mean_divides_by(kind, weights):
    mean, total = (KINDS[kind](reduction=reduction) for reduction in ("mean", "sum"))
    x, classes, mask = given(mean)
    for counts in (None, mask, weights):
        targets = classes.copy()
        if counts is not None and targets.dtype.kind == "i":
            targets[counts == 0] = -100
        share = total(x, targets, counts) / mean(x, targets, counts)
        assert mean.counted(targets, counts) == pytest.approx(share, rel=1e-12)


def test_a_class_weight_is_that_of_its_items():
    x, targets, mask = given(SoftmaxCrossEntropy())
    weighted, pullback = SoftmaxCrossEntropy(weight=WEIGHT).vjp(x, targets, mask)
    own = np.array(WEIGHT)[targets] * mask
    value, own_pullback = SoftmaxCrossEntropy().vjp(x, targets, own)
    assert weighted == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(pullback(), own_pullback(), rtol=1e-12, atol=1e-16)


def test_positive_weights_by_their_formula():
    x, targets, _ = given(BinaryCrossEntropy())
    p = 1 / (1 + np.exp(-x))
    for weight in (2.5, WEIGHT):
        terms = np.array(weight) * targets * np.log(p) + (1 - targets) * np.log(1 - p)
        found = BinaryCrossEntropy(pos_weight=weight)(x, targets)
        assert found == pytest.approx(-terms.mean(), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_weighs_targets_and_not_batches(kind, weights):
    loss = KINDS[kind]()
    x, targets, _ = given(loss)
    model = Linear(5, 5, dtype="float64", seed=0)
    whole = loss(model(x), targets, weights)
    parts = [Batch(x[a], targets[a], mask=weights[a]) for a in (slice(0, 1), slice(1, 4))]
    assert evaluate(model, loss, parts) == pytest.approx(whole, rel=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainer_weighs_as_evaluate_does(kind, weights):
    loss = KINDS[kind]()
    x, targets, _ = given(loss)
    model = Linear(5, 5, dtype="float64", seed=0)
    parts = [Batch(x[a], targets[a], mask=weights[a]) for a in (slice(0, 1), slice(1, 4))]
    trainer = Trainer(model, loss, SGD(model, lr=0.0), parts)
    trainer.fit(2, quiet=True)
    (record,) = trainer.history
    assert record["train_loss"] == pytest.approx(evaluate(model, loss, parts), rel=1e-13)


def test_chunks_keep_weights():
    x, weights = np.zeros((6, 2, 1)), np.ones((6, 2))
    weights[3] = 0.5
    first, last = chunked(x, x, 3, weights)
    assert first.mask is None
    np.testing.assert_array_equal(last.mask, weights[3:])


def test_losses_from_before_there_were_weights():
    for loss, name in ((SoftmaxCrossEntropy(), "weight"), (BinaryCrossEntropy(), "pos_weight")):
        x, targets, _ = given(loss)
        del loss.__dict__[name]
        assert pickle.loads(pickle.dumps(loss))(x, targets) == type(loss)()(x, targets)


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_refused_weights(name):
    kind = SoftmaxCrossEntropy if name == "weight" else BinaryCrossEntropy
    for bad in ([1.0, -1.0], [1.0, np.nan], [1.0, np.inf]):
        with pytest.raises(ValueError, match=f"^{name} must be finite and at least 0"):
            kind(**{name: bad})
    with pytest.raises(TypeError, match=f"{name} must be numbers, got <U1"):
        kind(**{name: np.array(["a"])})
    with pytest.raises(ValueError, match=f"{name} must .*shape .*, got \\(1, 2\\)"):
        kind(**{name: [[1.0, 2.0]]})
    loss = kind(**{name: np.ones(3)})
    x, targets, _ = given(loss)
    with pytest.raises(ValueError, match=rf"{name} has .*3.*, but logits have shape \(4, 3, 5\)"):
        loss(x, targets)


@pytest.mark.parametrize("kind", [SoftmaxCrossEntropy, BinaryCrossEntropy, MeanSquaredError])
def test_refused_masks(kind):
    loss = kind()
    x, targets, mask = given(loss, "float32")
    with pytest.raises(TypeError, match="mask is float64"):
        loss(x, targets, mask.astype(float))
    for bad in (-1, np.nan, np.inf):
        weights = mask.astype("float32")
        weights[0, 0] = bad
        with pytest.raises(ValueError, match="mask must be finite and at least 0"):
            loss(x, targets, weights)
    with pytest.raises(TypeError, match="mask must not be a masked array"):
        loss(x, targets, np.ma.masked_array(mask, mask))
    with pytest.raises(ValueError, match=r"mask must have .* got \(4, 1\)"):
        loss(x, targets, mask[:, :1])
    with pytest.raises(TypeError, match="mask must be boolean, got int64"):
        loss(x, targets, mask.astype("int64"))
