"""Weights in losses: of items, classes and positives; and in the means of the trainer."""

import numpy as np
import pytest
from rnncore import GRU, SGD, Chain, Linear, Readout, length_mask
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
    weighted, pullback = SoftmaxCrossEntropy(class_weight=WEIGHT).vjp(x, targets, mask)
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


class TestIgnored:
    """Targets of `ignore_index` are as if the mask were false there."""

    @pytest.mark.parametrize("options", [{}, {"class_weight": WEIGHT}, {"label_smoothing": 0.2}])
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("index", [-100, 3, 7])
    def test_as_a_mask(self, options, reduction, index, weights):
        x, targets, _ = given(SoftmaxCrossEntropy())
        kept = targets != 3
        targets[~kept] = index
        ignoring = SoftmaxCrossEntropy(reduction=reduction, ignore_index=index, **options)
        plain = SoftmaxCrossEntropy(reduction=reduction, **options)
        check_loss(ignoring, x, targets)
        for mask in (None, weights > 0, weights):
            both = kept if mask is None else mask * kept
            value, pullback = ignoring.vjp(x, targets, mask)
            wanted, wanted_pullback = plain.vjp(x, targets, both)
            assert value == wanted
            np.testing.assert_array_equal(pullback(), wanted_pullback())
            counted = ignoring.counted(targets, mask)
            assert counted == pytest.approx(plain.counted(targets, both), rel=1e-14)
        assert ignoring.ignore_index == index

    def test_what_is_ignored_does_no_harm(self):
        x, targets, _ = given(SoftmaxCrossEntropy(), "float32")
        loss = SoftmaxCrossEntropy(ignore_index=-1)
        targets[1] = -1
        value, pullback = loss.vjp(x, targets)
        dx = pullback()
        x[1] = np.nan
        other, other_pullback = loss.vjp(x, targets)
        assert other == value
        np.testing.assert_array_equal(other_pullback(), dx)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("options", [{}, {"class_weight": WEIGHT}])
    def test_all_ignored(self, reduction, options):
        x, targets, _ = given(SoftmaxCrossEntropy())
        loss = SoftmaxCrossEntropy(reduction=reduction, ignore_index=9, **options)
        value, pullback = loss.vjp(x, np.full_like(targets, 9))
        assert value == loss.counted(np.full_like(targets, 9)) == 0
        np.testing.assert_array_equal(pullback(), np.zeros_like(x))

    def test_one_element(self):
        x = np.arange(3.0)
        loss = SoftmaxCrossEntropy(ignore_index=2)
        assert (loss(x, 2), loss.counted(2)) == (0, 0)
        assert loss(x, 1) == SoftmaxCrossEntropy()(x, 1)

    def test_others_are_refused_with_a_hint(self):
        x = np.zeros((3, 4))
        with pytest.raises(
            ValueError, match=r"^targets must be in 0\.\.3, got -100: ignore_index=-100 lets"
        ):
            SoftmaxCrossEntropy()(x, [0, -100, 1])
        with pytest.raises(ValueError, match=r"^targets must be in 0\.\.3, got 4$"):
            SoftmaxCrossEntropy()(x, [0, 4, 1])
        with pytest.raises(ValueError, match=r"^targets must be in 0\.\.3, got -1$"):
            SoftmaxCrossEntropy(ignore_index=-100)(x, [0, -1, -100])

    @pytest.mark.parametrize("bad", [True, 1.0, "a", np.nan, [1]])
    def test_no_index(self, bad):
        with pytest.raises(TypeError, match="ignore_index must be a whole number or None, got"):
            SoftmaxCrossEntropy(ignore_index=bad)


@pytest.mark.parametrize("index", [-100, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_as_torch_does(index, smoothing, rng):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x, weight = rng.standard_normal((6, 4)), rng.uniform(0.2, 3, 4)
    targets = np.array([0, 1, index, 3, 3, index])
    given_x = torch.tensor(x, requires_grad=True)
    wanted = torch.nn.CrossEntropyLoss(
        torch.tensor(weight), ignore_index=index, label_smoothing=smoothing
    )(given_x, torch.tensor(targets))
    wanted.backward()
    loss = SoftmaxCrossEntropy(smoothing, class_weight=weight, ignore_index=index)
    value, pullback = loss.vjp(x, targets)
    assert value == pytest.approx(wanted.item(), rel=1e-13)
    np.testing.assert_allclose(pullback(), given_x.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_a_class_that_never_comes_may_have_any_weight():
    x, targets, _ = given(SoftmaxCrossEntropy())
    targets[targets == 3] = 0
    one, other = (SoftmaxCrossEntropy(class_weight=[1, 2, 1, w, 1]) for w in (0, 1e30))
    assert one(x, targets) == other(x, targets)
    none = SoftmaxCrossEntropy(class_weight=np.zeros(5))
    assert none(x, targets) == none.counted(targets) == 0
    assert not none.vjp(x, targets)[1]().any()


def net(batch_first=False):
    layers = GRU(2, 4, batch_first=batch_first, dtype="float64", seed=0)
    return Chain(layers, Linear(4, 5, dtype="float64", seed=1))


class TestInBatches:
    """`Batch.weights`, with losses that take a mask."""

    LENGTHS, OF_ROWS = np.array([4, 2, 3]), np.array([1.0, 0.0, 2.5])

    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize("kind", ["weighted", "positive"])
    def test_of_sequences_and_of_steps(self, kind, batch_first, rng):
        loss, model = KINDS[kind](), net(batch_first)
        _, targets, _ = given(loss)
        x, steps = rng.standard_normal((4, 3, 2)), rng.uniform(0.1, 2, (4, 3))
        inside = length_mask(self.LENGTHS, 4)
        if batch_first:
            x, targets, steps, inside = (a.swapaxes(0, 1) for a in (x, targets, steps, inside))
        y, _ = model(x, lengths=self.LENGTHS)
        rows = self.OF_ROWS[:, None] if batch_first else self.OF_ROWS
        for weights, mask in ((self.OF_ROWS, rows * inside), (steps, steps * inside)):
            batch = Batch(x, targets, self.LENGTHS, weights=weights)
            found = batch.for_loss(loss, y, model)
            np.testing.assert_array_equal(found[1], mask)
            assert evaluate(model, loss, [batch]) == pytest.approx(loss(y, targets, mask))
            given_mask = Batch(x, targets, self.LENGTHS, inside, weights=weights)
            assert evaluate(model, loss, [given_mask]) == evaluate(model, loss, [batch])
            trainer = Trainer(model, loss, SGD(model, lr=0.0), [batch])
            trainer.fit(1, quiet=True)
            assert trainer.history[0]["train_loss"] == pytest.approx(loss(y, targets, mask))
            assert trainer.history[0]["targets"] == pytest.approx(loss.counted(targets, mask))

    def test_of_whole_sequences(self, rng):
        model = Chain(Readout(GRU(2, 4, dtype="float64", seed=0)), Linear(4, 5, dtype="float64"))
        x, targets = rng.standard_normal((4, 3, 2)), np.array([0, 3, 1])
        loss = SoftmaxCrossEntropy()
        y, _ = model(x, lengths=self.LENGTHS)
        batch = Batch(x, targets, self.LENGTHS, weights=self.OF_ROWS)
        wanted = loss(y, targets, self.OF_ROWS)
        assert evaluate(model, loss, [batch]) == pytest.approx(wanted, rel=1e-14)

    def test_the_mask_of_items(self, rng):
        """`(T, B, K)` times weights `(B,)`, or `(T,)` times `(T, B)`."""
        model, (x, targets) = net(), (rng.standard_normal((4, 3, 2)), rng.random((4, 3, 5)))
        loss, y = BinaryCrossEntropy(), net()(x)[0]
        items, steps = rng.random((4, 3, 5)) < 0.6, rng.random((4, 3))
        batch = Batch(x, targets, mask=items, weights=self.OF_ROWS)
        wanted = loss(y, targets, items * self.OF_ROWS[:, None])
        assert evaluate(model, loss, [batch]) == wanted
        first = np.arange(4) < 3
        batch = Batch(x, targets, mask=first, weights=steps)
        assert evaluate(model, loss, [batch]) == loss(y, targets, first[:, None] * steps)

    def test_without_any_weight(self, rng):
        model, x, targets = net(), rng.standard_normal((4, 3, 2)), np.zeros((4, 3), int)
        loss, batch = SoftmaxCrossEntropy(), Batch(x, targets, weights=np.zeros(3))
        before = model.state_dict()
        trainer = Trainer(model, loss, SGD(model, lr=1.0), [batch])
        trainer.fit(2, quiet=True)
        assert trainer.history[0]["train_loss"] == trainer.history[0]["targets"] == 0
        assert trainer.targets_per_second == 0
        for name, array in before.items():
            np.testing.assert_array_equal(model.params[name], array)
        with pytest.raises(ValueError, match="nothing to evaluate"):
            evaluate(model, loss, [batch])

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
    def test_refused_numbers(self, bad, rng):
        batch = Batch(np.zeros((4, 3, 2)), np.zeros((4, 3), int), weights=[1.0, bad, 1.0])
        with pytest.raises(ValueError, match="weights must be finite and at least 0"):
            evaluate(net(), SoftmaxCrossEntropy(), [batch])

    def test_refused_shapes(self):
        for weights, wanted in ((np.ones(4), r"\(3,\)"), (np.ones((3, 4)), r"\(4, 3\)")):
            batch = Batch(np.zeros((4, 3, 2)), np.zeros((4, 3), int), weights=weights)
            with pytest.raises(
                ValueError, match=rf"weights must have shape {wanted}, as the outputs \(4, 3, 5\)"
            ):
                evaluate(net(), SoftmaxCrossEntropy(), [batch])


@pytest.mark.parametrize("name", ["class_weight", "pos_weight"])
def test_refused_weights(name):
    kind = SoftmaxCrossEntropy if name == "class_weight" else BinaryCrossEntropy
    for bad in ([1.0, -1.0], [1.0, np.nan], [1.0, np.inf]):
        with pytest.raises(ValueError, match=f"^{name} must be finite and at least 0"):
            kind(**{name: bad})
    with pytest.raises(TypeError, match=f"{name} must be numbers, got <U1"):
        kind(**{name: np.array(["a"])})
    with pytest.raises(ValueError, match=f"{name} must .*shape .*, got \\(1, 2\\)"):
        kind(**{name: [[1.0, 2.0]]})
    for bad in ("balanced", {0: 1.0}):
        if name == "class_weight":
            with pytest.raises(TypeError, match="class_weight must be an array"):
                kind(class_weight=bad)
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
