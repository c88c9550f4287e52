"""Losses that take other fields of a batch than its mask: what they are handed, and by whom."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rnncore import GRU
from rnncore.batches import Batch
from rnncore.compositions.chain import Chain
from rnncore.layers.linear import Linear
from rnncore.losses import Loss, MeanSquaredError, Objective
from rnncore.module import once
from rnncore.optim import SGD
from rnncore.training.trainer import Trainer, evaluate

Array = npt.NDArray[Any]

LENGTHS, TARGET_LENGTHS = np.array([5, 2, 3]), np.array([1, 2, 0])
WEIGHTS = np.array([1.0, 0.5, 2.0])


class SumsError(Objective):
    """w_b (sum of x_b's steps - sum of the target's)^2, for x `(T, B, 1)` and targets `(S, B)`."""

    takes = ("lengths", "target_lengths", "weights")

    def vjp(self, x: Any, targets: Any, *args: Any, **kwargs: Any) -> Any:
        lengths, target_lengths, weights = args
        inside = np.arange(len(x))[:, None] < lengths
        of_targets = (targets * (np.arange(len(targets))[:, None] < target_lengths)).sum(axis=0)
        error = (x[..., 0] * inside).sum(axis=0) - of_targets
        scale = 1 / self.counted(targets, *args) if self.reduction == "mean" else 1.0

        def pullback(dloss: float = 1.0) -> Array:
            dx = inside * (2 * dloss * scale * weights * error)
            return np.asarray(dx[..., None], x.dtype)

        return float((weights * error * error).sum()) * scale, once(pullback)

    def counted(self, targets: Any, *args: Any, **kwargs: Any) -> float:
        return float(args[2].sum())


class Half(Loss):
    """A loss written when all losses took a mask: its arguments have names of its own."""

    def vjp(self, x: Any, wanted: Any, where: Any = None) -> Any:  # type: ignore[override]
        value, pullback = MeanSquaredError(self.reduction).vjp(x, wanted, where)
        return value / 2, lambda dloss=1.0: pullback(dloss / 2)


class Foreign(SumsError):
    """Takes nothing that says how much a sequence counts."""

    takes = ("lengths",)


class Alike:
    """No subclass, but all that a trainer calls."""

    reduction = "mean"

    def __init__(self) -> None:
        self.vjp, self.counted = MeanSquaredError().vjp, MeanSquaredError().counted

    def __call__(self, x: Any, targets: Any, mask: Any) -> float:
        return MeanSquaredError()(x, targets, mask)


def model() -> Chain:
    layers = GRU(2, 4, dtype="float64", seed=0), Linear(4, 1, dtype="float64", seed=1)
    return Chain(*layers)


def batch(**fields: Any) -> Batch:
    rng = np.random.default_rng(0)
    given = {"lengths": LENGTHS, "target_lengths": TARGET_LENGTHS, "weights": WEIGHTS}
    return Batch(rng.standard_normal((5, 3, 2)), rng.standard_normal((2, 3)), **given | fields)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
class TestALossThatTakesLengths:
    def test_is_handed_them(self, reduction: str) -> None:
        net, loss, data = model(), SumsError(reduction), batch()
        (y, _), pullback = net.vjp(data.inputs, lengths=LENGTHS)
        want, back = loss.vjp(y, data.targets, LENGTHS, TARGET_LENGTHS, WEIGHTS)
        pullback(back())
        gradients = {name: array.copy() for name, array in net.grads.items()}
        trainer = Trainer(net, loss, SGD(net, lr=0.0), [data])
        assert trainer.update() == want
        assert trainer.progress.targets == WEIGHTS.sum()
        for name, array in gradients.items():
            np.testing.assert_array_equal(net.grads[name], array)

    def test_evaluate_divides_by_what_it_counts(self, reduction: str) -> None:
        net, loss = model(), SumsError(reduction)
        batches = [batch(), batch(weights=2 * WEIGHTS)]
        y = net(batches[0].inputs, lengths=LENGTHS)[0]
        want = SumsError()(y, batches[0].targets, LENGTHS, TARGET_LENGTHS, WEIGHTS)
        assert evaluate(net, loss, batches) == pytest.approx(want, rel=1e-12)


class TestRefusals:
    def test_a_field_that_no_batch_has(self) -> None:
        class Unknown(SumsError):
            takes = ("lengths", "alphabet")

        with pytest.raises(ValueError, match="Unknown takes 'alphabet', but a batch has inputs, "):
            evaluate(model(), Unknown(), [batch()])

    @pytest.mark.parametrize(
        ("loss", "fields", "message"),
        [
            (SumsError(), {"mask": np.ones((5, 3))}, "mask, but SumsError takes lengths, target"),
            (MeanSquaredError(), {"weights": None}, "target_lengths, but MeanSquaredError takes"),
            (Foreign(), {"target_lengths": None}, "weights, but Foreign takes lengths"),
        ],
    )
    def test_what_the_loss_would_not_see(self, loss: Any, fields: Any, message: str) -> None:
        net, given = model(), batch(**fields)
        before = net.state_dict()
        for call in (
            lambda: evaluate(net, loss, [given]),
            Trainer(net, loss, SGD(net, lr=1.0), [given]).update,
        ):
            with pytest.raises(ValueError, match=f"a batch has {message}"):
                call()
        for name, array in before.items():
            np.testing.assert_array_equal(net.params[name], array)


@pytest.mark.parametrize(("loss", "share"), [(Half(), 0.5), (Alike(), 1.0)])
def test_losses_of_ones_own_take_the_mask(loss: Any, share: float) -> None:
    targets = np.zeros((5, 3, 1))
    data = Batch(batch().inputs, targets, LENGTHS)
    net, plain = model(), model()
    want = evaluate(plain, MeanSquaredError(), [data])
    assert evaluate(net, loss, [data]) == share * want
    losses = [
        Trainer(m, objective, SGD(m, lr=0.1), [data]).update()
        for m, objective in ((net, loss), (plain, MeanSquaredError()))
    ]
    assert losses[0] == share * losses[1]


def test_an_estimators_loss_takes_what_the_one_in_it_takes() -> None:
    pytest.importorskip("sklearn")
    from rnncore.estimators.weights import ByWeight

    loss, x, targets = MeanSquaredError(), np.ones((4, 3)), np.zeros((4, 3))
    weighed = ByWeight(loss, 2.0)
    assert weighed.takes == loss.takes
    assert weighed.counted(targets, np.arange(4.0)) == loss.counted(targets, np.arange(4.0)) == 18
    value, pullback = weighed.vjp(x, targets, np.ones(4))
    assert value == 1.0
    np.testing.assert_array_equal(pullback(), loss.vjp(x, targets)[1]() / 2)
