"""Losses against PyTorch's numbers, finite differences, and their promises about masks."""

import math
import warnings

import numpy as np
import pytest
from rnncore import losses
from rnncore.compositions.ragged import length_mask
from rnncore.losses import (
    BinaryCrossEntropy,
    Huber,
    MeanSquaredError,
    Pinball,
    SoftmaxCrossEntropy,
)

from tests.golden.make_training_golden import FILE, LOSSES
from tests.support.gradients import check_loss
from tests.support.loss_cases import KINDS, given

GOLDEN = dict(np.load(FILE))
ELEMENTWISE = [BinaryCrossEntropy, MeanSquaredError]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("masked", ["all", "masked"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_golden(name, masked, dtype, tolerance):
    loss = getattr(losses, LOSSES[name].name)(**LOSSES[name].ours)
    x, targets, mask = given(loss, dtype)
    mask = mask if masked == "masked" else None
    value, pullback = loss.vjp(x, targets, mask)
    assert type(value) is float
    assert loss(x, targets, mask) == value
    expected, expected_dx = (GOLDEN[f"{name}.{masked}.{key}"] for key in ("loss", "dx"))
    assert abs(value - expected) <= tolerance * abs(expected)
    dx = pullback()
    assert (dx.dtype, dx.shape) == (x.dtype, x.shape)
    assert np.abs(dx - expected_dx).max() <= tolerance * np.abs(expected_dx).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients(kind, reduction, masked):
    loss = KINDS[kind](reduction=reduction)
    x, targets, mask = given(loss)
    check_loss(loss, x, targets, mask if masked else None)


@pytest.mark.parametrize("kind", ["binary", "squared"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_elementwise_masks_over_leading_axes(kind, axes, rng):
    loss = KINDS[kind]()
    x, targets, _ = given(loss)
    mask = rng.random(x.shape[:axes]) < 0.5
    full = np.broadcast_to(mask.reshape(mask.shape + (1,) * (3 - axes)), x.shape)
    value, pullback = loss.vjp(x, targets, mask)
    whole, whole_pullback = loss.vjp(x, targets, full)
    assert value == pytest.approx(whole, rel=1e-14)
    np.testing.assert_allclose(pullback(), whole_pullback(), rtol=1e-14)
    check_loss(loss, x, targets, mask)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_masked_does_no_harm(kind):
    loss = KINDS[kind]()
    x, targets, mask = given(loss)
    value, pullback = loss.vjp(x, targets, mask)
    dx = pullback()
    assert not dx[~mask].any()
    for bad in (np.nan, np.inf, -np.inf):
        x[~mask] = bad
        targets[~mask] = -100 if targets.dtype.kind == "i" else bad
        other, other_pullback = loss.vjp(x, targets, mask)
        assert other == value
        np.testing.assert_array_equal(other_pullback(), dx)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_in_its_row(kind):
    loss = KINDS[kind](reduction="sum")
    x, targets, _ = given(loss)
    clean = loss.vjp(x, targets)[1]()
    for bad in (np.nan, np.inf):
        x[1, 2] = bad
        value, pullback = loss.vjp(x, targets)
        assert not math.isfinite(value)
        dx = pullback()
        others = np.ones((4, 3), bool)
        others[1, 2] = False
        np.testing.assert_array_equal(dx[others], clean[others])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_counts(kind, reduction):
    loss = KINDS[kind](reduction=reduction)
    x, targets, mask = given(loss)
    value, pullback = loss.vjp(x, targets, np.zeros_like(mask))
    assert value == 0
    np.testing.assert_array_equal(pullback(), np.zeros_like(x))
    value, pullback = loss.vjp(x[:0], targets[:0])
    assert value == 0
    assert pullback().shape == (0, 3, 5)
    assert loss(x[:, :0], targets[:, :0], mask[:, :0]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_dloss_scales(kind):
    loss = KINDS[kind]()
    x, targets, mask = given(loss)
    once = loss.vjp(x, targets, mask)[1]()
    np.testing.assert_allclose(loss.vjp(x, targets, mask)[1](-2.5), -2.5 * once, rtol=1e-14)
    pullback = loss.vjp(x, targets, mask)[1]
    pullback()
    with pytest.raises(RuntimeError, match="already run"):
        pullback()


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_left_alone_in_any_memory_order(kind):
    loss = KINDS[kind]()
    x, targets, mask = given(loss)
    value, pullback = loss.vjp(x, targets, mask)
    dx = pullback()
    turned = [np.asfortranarray(a) for a in (x, targets, mask)]
    kept = [a.copy() for a in turned]
    for array in turned:
        array.flags.writeable = False
    other, other_pullback = loss.vjp(*turned)
    assert other == value
    np.testing.assert_array_equal(other_pullback(), dx)
    for array, before in zip(turned, kept, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("kind", KINDS)
def test_one_element(kind):
    """A single row, without leading axes."""
    loss = KINDS[kind]()
    x, targets, _ = given(loss)
    batched, pullback = loss.vjp(x[:1, 0], targets[:1, 0])
    value, single = loss.vjp(x[0, 0], targets[0, 0])
    assert value == batched
    np.testing.assert_array_equal(single(), pullback()[0])


def test_mean_is_over_what_counts(rng):
    mask = length_mask([3, 1], 4)
    for kind, width in (("softmax", 1), ("binary", 5), ("squared", 5)):
        x, targets, _ = given(KINDS[kind]())
        x, targets = x[:, :2], targets[:, :2]
        mean, total = (KINDS[kind](reduction=r)(x, targets, mask) for r in ("mean", "sum"))
        assert mean == pytest.approx(total / (4 * width), rel=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_large_logits_do_not_overflow(dtype, scale):
    logits = np.array([[scale, -scale, 0], [-scale, scale, 0]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, pullback = SoftmaxCrossEntropy(reduction="sum").vjp(logits, [0, 2])
        assert value == pytest.approx(scale)
        np.testing.assert_array_equal(pullback(), [[0, 0, 0], [0, 1, -1]])
        value, pullback = BinaryCrossEntropy(reduction="sum").vjp(logits, logits > 0)
        assert value == pytest.approx(2 * math.log(2))
        np.testing.assert_array_equal(pullback(), [[0, 0, 0.5], [0, 0, 0.5]])


def test_impossible_classes():
    """A logit of -inf rules a class out: no probability, no gradient."""
    logits = np.array([[0.0, -np.inf, 0.0]])
    value, pullback = SoftmaxCrossEntropy().vjp(logits, [2])
    assert value == pytest.approx(math.log(2))
    np.testing.assert_array_equal(pullback(), [[0.5, 0, -0.5]])
    assert SoftmaxCrossEntropy()(logits, [1]) == math.inf


def test_small_losses_keep_their_digits():
    """Far on the right side, the loss is exp(-x), not zero."""
    assert BinaryCrossEntropy()(np.array([30.0]), np.array([1.0])) == pytest.approx(math.exp(-30))
    assert BinaryCrossEntropy()(np.array([-30.0]), np.array([0.0])) == pytest.approx(math.exp(-30))


def test_float32_sums_in_float64():
    """4 million equal terms: a float32 sum would be off in the fifth digit or the eighth."""
    x = np.full((1 << 22, 1), 0.1, "float32")
    expected = float(np.float32(0.1) * np.float32(0.1))
    assert MeanSquaredError()(x, np.zeros_like(x)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("targets", ["bool", "uint8"])
def test_binary_targets_may_be_counts(targets, rng):
    logits = rng.standard_normal((4, 3)).astype("float32")
    played = rng.random((4, 3)) < 0.5
    loss = BinaryCrossEntropy()
    assert loss(logits, played.astype(targets)) == loss(logits, played.astype("float32"))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64"])
def test_class_targets_of_any_integer_type(dtype):
    loss = SoftmaxCrossEntropy()
    x, targets, _ = given(loss)
    assert loss(x, targets.astype(dtype)) == loss(x, targets) == loss(x, targets.tolist())


# Arguments


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (np.zeros((4, 2), int), ValueError, r"targets must have shape \(4, 3\), got \(4, 2\)"),
        (np.zeros((4, 3)), TypeError, "targets must be integers, got float64"),
        (np.ones((4, 3), bool), TypeError, "targets must be integers, got bool"),
        (np.full((4, 3), 5), ValueError, r"targets must be in 0\.\.4, got 5"),
        (np.full((4, 3), -1), ValueError, r"targets must be in 0\.\.4, got -1"),
    ],
)
def test_refused_classes(targets, error, message):
    with pytest.raises(error, match=message):
        SoftmaxCrossEntropy()(np.zeros((4, 3, 5)), targets)


@pytest.mark.parametrize("loss", [kind() for kind in ELEMENTWISE])
def test_refused_values(loss):
    x = np.zeros((4, 3), "float32")
    with pytest.raises(ValueError, match=r"targets must have shape \(4, 3\), got \(4,\)"):
        loss(x, np.zeros(4, "float32"))
    with pytest.raises(TypeError, match=r"targets is float64, .* float32"):
        loss(x, np.zeros((4, 3)))


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_refused_probabilities(bad):
    targets = np.full((4, 3), 0.5)
    targets[2, 1] = bad
    with pytest.raises(ValueError, match=r"targets must be in \[0, 1\]"):
        BinaryCrossEntropy()(np.zeros((4, 3)), targets)


@pytest.mark.parametrize("kind", KINDS)
def test_refused_masks(kind):
    loss = KINDS[kind]()
    x, targets, mask = given(loss)
    with pytest.raises(TypeError, match="mask must be boolean, got int64"):
        loss(x, targets, mask.astype("int64"))
    with pytest.raises(ValueError, match=r"mask must have .* got \(3, 4\)"):
        loss(x, targets, mask.T)
    with pytest.raises(ValueError, match=r"mask must have .* got \(4, 3, 5, 1\)"):
        loss(x, targets, np.ones((4, 3, 5, 1), bool))


def test_refused_logits_and_options():
    for shape in ((), (4, 0)):
        with pytest.raises(ValueError, match=r"logits must have shape \(\.\.\., classes\)"):
            SoftmaxCrossEntropy()(np.zeros(shape), np.zeros(shape[:-1], int))
    with pytest.raises(TypeError, match="logits must be float32 or float64, got int64"):
        BinaryCrossEntropy()(np.zeros(3, "int64"), np.zeros(3))
    with pytest.raises(TypeError, match="predictions must be float32 or float64, got float16"):
        MeanSquaredError()(np.zeros(3, "float16"), np.zeros(3))
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', got 'none'"):
        MeanSquaredError("none")
    for smoothing in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\]"):
            SoftmaxCrossEntropy(smoothing)


# Ragged batches


def test_length_mask():
    expected = [[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]]
    mask = length_mask([3, 1, 2, 0], 3)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, np.array(expected, bool))
    np.testing.assert_array_equal(length_mask(np.array([3, 1, 2, 0], "uint8"), 3, True), mask.T)
    assert length_mask([], 3).shape == (3, 0)
    assert length_mask([0, 0], 0).shape == (0, 2)


def test_length_mask_refuses():
    with pytest.raises(ValueError, match=r"lengths must be in 0\.\.3, got 4"):
        length_mask([1, 4], 3)
    with pytest.raises(ValueError, match=r"lengths must be in 0\.\.3, got -1"):
        length_mask([-1, 4], 3)
    with pytest.raises(ValueError, match=r"lengths must have shape \(B,\), got \(1, 1\)"):
        length_mask([[1]], 3)
    with pytest.raises(TypeError, match="lengths must be integers, got float64"):
        length_mask([1.0], 3)


@pytest.mark.parametrize("kind", KINDS)
def test_ragged_batch_is_the_sum_of_its_sequences(kind):
    loss, lengths = KINDS[kind](reduction="sum"), [4, 1, 2]
    x, targets, _ = given(loss)
    value, pullback = loss.vjp(x, targets, length_mask(lengths, 4))
    dx, alone = pullback(), 0.0
    for row, length in enumerate(lengths):
        part, part_pullback = loss.vjp(x[:length, row], targets[:length, row])
        alone += part
        np.testing.assert_allclose(dx[:length, row], part_pullback(), rtol=1e-14)
    assert value == pytest.approx(alone, rel=1e-14)


class TestHuber:
    def test_is_torchs(self):
        """Of `torch.nn.HuberLoss(delta=0.5)`, in float64."""
        x, targets = np.array([-3.0, -0.5, -0.25, 0.0, 0.25, 2.0]), np.zeros(6)
        value, pullback = Huber(0.5, "sum").vjp(x, targets)
        assert value == 1.375 + 0.125 + 0.03125 + 0.0 + 0.03125 + 0.875
        assert pullback().tolist() == [-0.5, -0.5, -0.25, 0.0, 0.25, 0.5]

    def test_is_half_the_squared_error_below_delta(self, rng):
        x, targets = rng.random((4, 3)), rng.random((4, 3))
        assert Huber()(x, targets) == pytest.approx(MeanSquaredError()(x, targets) / 2, rel=1e-14)

    @pytest.mark.parametrize("delta", [0, -1.0, np.inf, np.nan])
    def test_delta_must_be_positive(self, delta):
        with pytest.raises(ValueError, match="delta"):
            Huber(delta)

    def test_delta_must_be_a_number(self):
        with pytest.raises(TypeError, match="delta"):
            Huber("1")


def test_pinball_is_least_at_the_quantile(rng):
    targets = np.sort(rng.standard_normal(101))
    for quantile in (0.1, 0.5, 0.9):
        loss = Pinball(quantile)
        values = [loss(np.full(101, target), targets) for target in targets]
        assert np.argmin(values) == round(100 * quantile)


def test_pinball_beside_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    x, targets = rng.standard_normal((2, 7, 3))
    levels = [0.1, 0.5, 0.95]
    told = [
        metrics.mean_pinball_loss(targets[:, k], x[:, k], alpha=level)
        for k, level in enumerate(levels)
    ]
    assert Pinball(levels)(x, targets) == pytest.approx(np.mean(told), rel=1e-12)
    assert Pinball()(x, targets) == pytest.approx(np.abs(x - targets).mean() / 2, rel=1e-12)


@pytest.mark.parametrize("quantile", [0, 1, -0.5, [0.5, 1.0], [[0.5]], np.nan])
def test_pinball_refuses(quantile):
    with pytest.raises(ValueError, match="quantile must be"):
        Pinball(quantile)


def test_pinball_needs_a_quantile_for_each():
    with pytest.raises(ValueError, match=r"\(2,\), but predictions have shape \(4, 3\)"):
        Pinball([0.1, 0.9])(np.zeros((4, 3)), np.zeros((4, 3)))
