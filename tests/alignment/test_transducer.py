"""The loss of the transducer, on logits and fused with the joint network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rnncore import TransducerJoint, TransducerLoss
from rnncore.alignment.joint import JointGradients

from tests.support.compare import assert_close, assert_gradients_of, assert_same, near
from tests.support.transducer import SIZES, Case, Sizes, case, expected, named

Array = npt.NDArray[Any]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("fastemit", [0.0, 0.25])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_agrees_with_the_reference(
    sizes: Sizes, fastemit: float, dtype: str, tolerance: float
) -> None:
    c = case(sizes, dtype)
    scales = np.random.default_rng(1).standard_normal(len(c.lengths)).astype(dtype)
    losses, d = expected(c, scales.astype(np.float64), fastemit)
    loss = TransducerLoss(c.blank, "none", fastemit)
    for x in (c.joined, c.logits):
        found, pullback = c.vjp(loss, x)
        assert found.dtype == dtype
        near(found, losses, tolerance)
        gradient = pullback(scales)
        wanted = dict(d)
        logits = wanted.pop("logits")
        if isinstance(gradient, JointGradients):
            assert_close(named(gradient), wanted, tolerance)
        else:
            near(gradient, logits, tolerance)


@pytest.mark.parametrize("sizes", SIZES[:5], ids=str)
def test_has_the_gradient_of_differences(sizes: Sizes) -> None:
    c = case(sizes, scale=1.0)
    c = c._replace(f=np.nan_to_num(c.f), g=np.nan_to_num(c.g))
    loss, logits = TransducerLoss(c.blank), c.joined.logits()
    _, pullback = c.vjp(loss)
    d: JointGradients = pullback()
    weight, bias = c.joint.output.weights()
    assert bias is not None
    assert_gradients_of(
        lambda: c.vjp(loss)[0],
        [(c.f, d.f), (c.g, d.g), (weight, d.weight), (bias, d.bias)],
    )
    assert_gradients_of(lambda: c.vjp(loss, logits)[0], [(logits, c.vjp(loss, logits)[1]())])


class TestReductions:
    sizes = SIZES[4]

    def test_are_of_the_sequences(self) -> None:
        c = case(self.sizes)
        losses, _ = c.vjp(TransducerLoss(c.blank, "none"))
        assert c.vjp(TransducerLoss(c.blank, "sum"))[0] == pytest.approx(losses.sum(), rel=1e-14)
        assert c.vjp(TransducerLoss(c.blank))[0] == pytest.approx(losses.mean(), rel=1e-14)

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_scale_the_gradient(self, reduction: str) -> None:
        c = case(self.sizes)
        each = {"mean": 1 / len(c.lengths), "sum": 1.0, "none": 1.0}[reduction]
        _, d = expected(c, np.full(len(c.lengths), 2.5 * each))
        gradient = c.vjp(TransducerLoss(c.blank, reduction))[1](2.5)
        del d["logits"]
        assert_close(named(gradient), d, 1e-12)

    def test_weights(self) -> None:
        c = case(self.sizes)
        weights = np.array([1.0, 0.0, 2.0, 0.5, 0.0])
        losses, d = expected(c, weights / weights.sum())
        value, pullback = c.vjp(TransducerLoss(c.blank), weights=weights)
        assert value == pytest.approx(losses @ weights / weights.sum(), rel=1e-13)
        del d["logits"]
        assert_close(named(pullback()), d, 1e-12)

    def test_concatenated_targets(self) -> None:
        c = case(self.sizes)
        flat = np.concatenate([y[:n] for y, n in zip(c.targets, c.counts, strict=True)])
        loss = TransducerLoss(c.blank)
        assert loss(c.joined, flat, c.lengths, c.counts) == c.vjp(loss)[0]

    def test_no_lengths_are_all(self) -> None:
        joint = TransducerJoint(4, 5, dtype="float64", seed=0)
        rng = np.random.default_rng(0)
        joined = joint(rng.standard_normal((6, 2, 4)), rng.standard_normal((3, 2, 4)))
        targets, loss = np.array([[1, 2], [4, 4]]), TransducerLoss()
        assert loss(joined, targets) == loss(joined, targets, [6, 6], [2, 2])

    def test_an_empty_batch(self) -> None:
        joint = TransducerJoint(4, 5, seed=0)
        joined = joint(np.zeros((3, 0, 4), np.float32), np.zeros((2, 0, 4), np.float32))
        value, pullback = TransducerLoss().vjp(joined, np.zeros((0, 1), int))
        assert value == 0
        assert [np.shape(array) for array in pullback()] == [(3, 0, 4), (2, 0, 4), (5, 4), (5,)]
        logits = np.zeros((0, 3, 2, 5), np.float32)
        assert TransducerLoss().vjp(logits, np.zeros((0, 1), int))[1]().shape == logits.shape


@pytest.mark.parametrize("dtype", ["float32", "float64"])
class TestBits:
    """Results do not depend on threads, nor on the order of the batch."""

    sizes = SIZES[6]

    def computed(self, c: Case) -> dict[str, Array]:
        loss = TransducerLoss(c.blank, "none")
        found, pullback = c.vjp(loss)
        logits = np.ascontiguousarray(c.logits)
        plain, plain_pullback = c.vjp(loss, logits)
        return {
            "losses": found,
            "plain": plain,
            "logits": plain_pullback(),
            **named(pullback()),
        }

    def test_any_number_of_threads(self, dtype: str, set_threads: Callable[[int], None]) -> None:
        c, found = case(self.sizes, dtype), []
        for threads in (1, 2, 3, 5):
            set_threads(threads)
            found.append(self.computed(c))
        for other in found[1:]:
            assert_same(other, found[0])

    def test_any_order_of_the_batch(self, dtype: str) -> None:
        c = case(self.sizes, dtype)
        order = np.random.default_rng(2).permutation(len(c.lengths))
        found, turned = self.computed(c), self.computed(c.take(order))
        for name in ("losses", "plain", "logits"):
            assert_same({name: turned[name]}, {name: found[name][order]})
        for name in ("f", "g"):
            assert_same({name: turned[name]}, {name: found[name][:, order]})
        for name in ("weight", "bias"):  # sums over the batch
            near(turned[name], found[name], 2e-5 if dtype == "float32" else 1e-12)

    def test_alone_as_in_a_batch(self, dtype: str) -> None:
        c = case(self.sizes, dtype)
        found = self.computed(c)
        for b in range(0, len(c.lengths), 3):
            alone = self.computed(c.take(np.array([b])))
            assert_same({"f": alone["f"][:, 0]}, {"f": found["f"][:, b]})
            assert_same({"losses": alone["losses"]}, {"losses": found["losses"][[b]]})


@pytest.mark.parametrize("fused", [True, False])
def test_long_sequences_keep_their_digits(fused: bool) -> None:
    """T = 5000 and U = 50 in float32, beside the same numbers in float64."""
    T, U, V, H = 5000, 50, 12, 16
    rng = np.random.default_rng(0)
    joint = TransducerJoint(H, V, seed=0)
    joint.output.params["weight"] *= 4
    wide = TransducerJoint(H, V, dtype="float64")
    wide.load_state_dict({n: a.astype(np.float64) for n, a in joint.params.items()})
    f = rng.standard_normal((T, 2, H)).astype(np.float32)
    g = rng.standard_normal((U + 1, 2, H)).astype(np.float32)
    targets, lengths, counts = rng.integers(1, V, (2, U)), [T, 3700], [U, 31]
    narrow: Any = joint(f, g)
    exact: Any = wide(f.astype(np.float64), g.astype(np.float64))
    if not fused:
        narrow, exact = narrow.logits(), narrow.logits().astype(np.float64)
    value, pullback = TransducerLoss().vjp(narrow, targets, lengths, counts)
    want, exactly = TransducerLoss().vjp(exact, targets, lengths, counts)
    assert value == pytest.approx(want, rel=1e-6)
    found, wanted = pullback(), exactly()
    if fused:
        assert_close(named(found), named(wanted), 1e-5)
    else:
        near(found, wanted, 1e-5)


class TestExtremes:
    def test_nan_stays_in_its_row(self) -> None:
        c = case(SIZES[4])
        f = c.f.copy()
        f[0, 2, 0] = np.nan
        loss = TransducerLoss(c.blank, "none")
        clean, clean_back = c.vjp(loss)
        hurt, hurt_back = c._replace(f=f).vjp(loss)
        others = np.arange(len(clean)) != 2
        assert np.isnan(hurt[2])
        assert_same({"losses": hurt[others]}, {"losses": clean[others]})
        d, want = hurt_back(), clean_back()
        assert_same({"f": d.f[:, others]}, {"f": want.f[:, others]})
        assert_same({"g": d.g[:, others]}, {"g": want.g[:, others]})
        assert np.isnan(d.f[0, 2, 0])

    def test_nan_without_weight_counts_nothing(self) -> None:
        c = case(SIZES[4])
        f = c.f.copy()
        f[:, 2] = np.nan
        weights = (np.arange(5) != 2) * 1.0
        value, pullback = c._replace(f=f).vjp(TransducerLoss(c.blank), weights=weights)
        want, clean = c.vjp(TransducerLoss(c.blank), weights=weights)
        assert value == want
        assert_same(named(pullback()), named(clean()))

    def test_no_path_is_infinite_and_has_no_gradient(self) -> None:
        rng = np.random.default_rng(0)
        logits = rng.standard_normal((2, 4, 3, 5))
        logits[0, :, :, 3] = -np.inf
        losses, pullback = TransducerLoss(reduction="none").vjp(logits, [[3, 1], [3, 1]])
        assert losses[0] == np.inf
        assert np.isfinite(losses[1])
        gradient = pullback()
        assert not gradient[0].any()
        assert np.isfinite(gradient[1]).all()

    def test_forbidden_labels_are_right_numbers(self) -> None:
        rng = np.random.default_rng(0)
        logits = rng.standard_normal((1, 3, 2, 4))
        logits[0, 1, 0, 2] = logits[0, 2, :, 3] = -np.inf
        value, pullback = TransducerLoss().vjp(logits, [[2]])
        low = np.where(np.isinf(logits), -1e4, logits)
        want, back = TransducerLoss().vjp(low, [[2]])
        assert value == pytest.approx(want, rel=1e-14)
        near(pullback(), back(), 1e-12)

    def test_huge_logits(self) -> None:
        logits = np.full((1, 3, 2, 4), -3e38, np.float32)
        logits[..., 0] = 3e38
        value, pullback = TransducerLoss().vjp(logits, [[2]])
        assert value == pytest.approx(6e38, rel=1e-6)
        assert np.isfinite(pullback()).all()


class TestArguments:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 4, 3, 5)).astype(np.float32)
    targets = np.array([[1, 2], [3, 4]])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"targets": [[1, 0], [3, 4]]}, "the blank"),
            ({"targets": [[1, 5], [3, 4]]}, "got 5 in sequence 0"),
            ({"targets": [[1, 2], [-1, 4]]}, "got -1 in sequence 1"),
            ({"targets": [1, 2, 3]}, "need target_lengths"),
            ({"targets": [[1, 2, 3], [3, 4, 1]]}, "target_lengths must be at most 2"),
            ({"lengths": [4, 0]}, "lengths must be at least 1"),
            ({"lengths": [4, 5]}, "lengths must be in 0..4"),
            ({"lengths": [4]}, "lengths must have shape"),
            ({"target_lengths": [3, 1]}, "target_lengths must be in 0..2"),
            ({"logits": logits[0]}, "logits must have shape"),
            ({"logits": logits[..., :0]}, "logits must have shape"),
            ({"weights": [1.0, -1.0]}, "weights"),
        ],
        ids=str,
    )
    def test_that_are_wrong_are_named(self, change: dict[str, Any], message: str) -> None:
        given = {"logits": self.logits, "targets": self.targets} | change
        with pytest.raises(ValueError, match=message):
            TransducerLoss().vjp(given.pop("logits"), given.pop("targets"), **given)

    def test_types(self) -> None:
        with pytest.raises(TypeError, match="targets must be integers"):
            TransducerLoss()(self.logits, self.targets * 1.0)
        with pytest.raises(TypeError, match="logits must be float32"):
            TransducerLoss()(self.logits.astype(np.float16), self.targets)

    @pytest.mark.parametrize(
        "options", [{"blank": -1}, {"fastemit": -0.1}, {"fastemit": np.inf}, {"reduction": "max"}]
    )
    def test_of_the_loss(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            TransducerLoss(**options)

    def test_a_blank_that_is_no_class(self) -> None:
        with pytest.raises(ValueError, match="blank is 5"):
            TransducerLoss(blank=5)(self.logits, self.targets)

    def test_any_layout_of_memory(self) -> None:
        turned = np.asfortranarray(self.logits)
        value, pullback = TransducerLoss().vjp(turned, self.targets)
        want, back = TransducerLoss().vjp(self.logits, self.targets)
        assert value == want
        assert_same({"d": pullback()}, {"d": back()})

    @given(st.data())
    def test_no_argument_crashes(self, data: st.DataObject) -> None:
        """Right numbers, or an error that is documented."""
        sizes = st.integers(0, 4)
        shape = tuple(data.draw(sizes) for _ in range(4))
        wild = st.sampled_from([0.0, 1.0, -2.5, np.inf, -np.inf, np.nan, 3e38, -3e38])
        rng = np.random.default_rng(data.draw(st.integers(0, 9)))
        logits = rng.standard_normal(shape).astype(data.draw(st.sampled_from(["f4", "f8"])))
        for place in np.ndindex(shape):
            if rng.random() < 0.1:
                logits[place] = data.draw(wild)
        numbers = st.integers(-2, 6) | st.sampled_from([2**31, 2**63 - 1, -(2**63)])
        lists = st.lists(numbers, max_size=4)
        B = shape[0]
        targets = data.draw(
            st.lists(lists.map(lambda row: (row + [1] * 3)[:3]), min_size=B, max_size=B)
        )
        lengths = data.draw(st.none() | st.lists(st.integers(-1, 5), max_size=4))
        counts = data.draw(st.none() | st.lists(st.integers(-1, 4), max_size=4))
        loss = TransducerLoss(data.draw(st.integers(0, 4)), "none")
        with np.errstate(all="ignore"):
            try:
                found, pullback = loss.vjp(
                    logits, np.array(targets, int).reshape(B, 3), lengths, counts
                )
            except ValueError:
                return
            gradient = pullback()
        assert gradient.shape == logits.shape
        unsound = ~np.isfinite(found)
        assert np.isfinite(gradient[~unsound]).all()
