"""What nobody should give a CRF: right numbers, or an error that names the argument."""

import warnings

import numpy as np
import pytest
from rnncore import CRF, CRFLoss, tag_constraints
from rnncore.reference import crf as reference

from tests.support.compare import near
from tests.support.crf import NAMES, drawn, scores

BIO = tag_constraints(["O", "B-a", "I-a"])


def case(rng, tags=4, steps=5, batch=3, **options):
    crf = drawn(tags, rng, **options)
    x = rng.standard_normal((steps, batch, tags)).astype(crf.dtype)
    return crf, x, rng.integers(0, tags, (steps, batch))


class TestNumbers:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_bad_numbers_stay_in_their_row(self, bad, dtype, rng):
        crf, x, y = case(rng, dtype=dtype)
        wanted, back = CRFLoss(crf, "none").vjp(x, y, [5, 4, 5])
        dx = back()
        spoilt = x.copy()
        spoilt[2, 0, 1] = bad
        spoilt[4, 1] = bad  # padding
        crf.zero_grad()
        loss, pullback = CRFLoss(crf, "none").vjp(spoilt, y, [5, 4, 5])
        found = pullback()
        np.testing.assert_array_equal(loss[1:], wanted[1:])
        np.testing.assert_array_equal(found[:, 1:], dx[:, 1:])
        assert np.isnan(loss[0])
        assert np.isnan(found[:, 0]).all()
        assert all(np.isnan(crf.grads[name]).all() for name in NAMES)
        tags = crf.decode(spoilt, [5, 4, 5])
        np.testing.assert_array_equal(tags[:, 1:], crf.decode(x, [5, 4, 5])[:, 1:])
        assert (tags[:, 0] == -1).all()
        assert np.isnan(crf.decode(spoilt, n_best=2).scores[:, 0]).all()
        assert np.isnan(crf.marginals(spoilt)[:, 0]).all()
        assert np.isnan(crf.log_partition(spoilt)[0])

    def test_bad_scores_make_all_nan(self, rng):
        crf, x, y = case(rng)
        crf.params["transitions"][0, 1] = np.nan
        loss, pullback = CRFLoss(crf).vjp(x, y)
        assert np.isnan(loss)
        assert np.isnan(pullback()).all()
        assert (crf.decode(x) == -1).all()

    def test_emissions_of_minus_infinity_rule_tags_out(self, rng):
        crf, x, y = case(rng)
        x[1, :, 0] = x[3, 1, 1:] = -np.inf
        y[1], y[3, 1], y[1, 2] = 2, 0, 0  # the last target cannot be
        crf.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss, pullback = CRFLoss(crf, "none").vjp(x, y)
            dx = pullback()
        for b in (0, 1):
            assert loss[b] == pytest.approx(reference.nll(x[:, b], y[:, b], scores(crf)), rel=1e-12)
            wanted = reference.nll_gradients(x[:, b], y[:, b], scores(crf))
            near(dx[:, b], wanted.emissions, 1e-12)
        assert loss[2] == np.inf
        assert not dx[:, 2].any()
        assert all(np.isfinite(crf.grads[name]).all() for name in NAMES)
        found = crf.decode(x)
        assert (found[1] != 0).all()
        assert found[3, 1] == 0

    def test_nothing_is_possible(self, rng):
        crf, x, y = case(rng, batch=2)
        x[2, 0] = -np.inf
        loss, pullback = CRFLoss(crf, "none").vjp(x, y)
        assert loss[0] == np.inf
        assert not pullback()[:, 0].any()
        assert (crf.decode(x)[:, 0] == -1).all()
        assert crf.decode(x, n_best=2).scores[0, 0] == -np.inf
        assert not crf.marginals(x)[:, 0].any()
        assert crf.log_partition(x)[0] == -np.inf
        unknown = np.full((5, 2), -1)
        assert CRFLoss(crf, "none")(x, unknown).tolist() == [np.inf, 0]

    @pytest.mark.parametrize("huge", [1e30, -1e30])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_huge_emissions(self, huge, dtype, rng):
        crf, x, y = case(rng, dtype=dtype)
        x[2, 0, 1], x[3, 1] = huge, huge  # of one tag; of all, which changes nothing
        y[2, 0] = 1
        plain = x.copy()
        plain[2, 0, 1], plain[3, 1] = -np.inf if huge < 0 else 0, 0
        loss, pullback = CRFLoss(crf, "none").vjp(x, y)
        near(loss[1:], CRFLoss(crf, "none")(plain, y)[1:], 1e-6)
        if huge > 0:  # the tag is certain, and that it was the target costs nothing
            known = np.full(5, -1)
            known[2] = 1
            agreed = CRFLoss(crf)(plain[:, 0], y[:, 0]) - CRFLoss(crf)(plain[:, 0], known)
            assert loss[0] == pytest.approx(agreed, rel=1e-5)
        else:
            assert loss[0] == pytest.approx(1e30, rel=1e-6)
        assert np.isfinite(pullback()).all()
        assert all(np.isfinite(crf.grads[name]).all() for name in NAMES)
        assert (crf.decode(x)[2, 0] == 1) == (huge > 0)

    def test_huge_emissions_of_what_is_forbidden(self):
        crf = CRF(3, constraints=BIO, dtype="float64", seed=0)
        x = np.zeros((3, 1, 3))
        x[0, 0, 2] = 1e30  # a sequence does not start with I-a
        assert crf.log_partition(x)[0] == pytest.approx(crf.log_partition(x * 0)[0], rel=1e-12)
        assert CRFLoss(crf)(x, [[0], [0], [0]]) == CRFLoss(crf)(x * 0, [[0], [0], [0]])


class TestSizes:
    def test_one_tag(self, rng):
        crf, x, y = case(rng, tags=1)
        loss, pullback = CRFLoss(crf).vjp(x, y)
        assert loss == pytest.approx(0, abs=1e-15)
        assert np.abs(pullback()).max() < 1e-15
        assert (crf.decode(x) == 0).all()
        np.testing.assert_array_equal(crf.marginals(x), np.ones_like(x))
        assert (crf.decode(x, n_best=2).tags[1] == -1).all()

    @pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (0, 0, 4)])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_no_steps_or_no_sequences(self, shape, batch_first, rng):
        crf = drawn(4, rng, batch_first=batch_first)
        shape = (shape[1], shape[0], 4) if batch_first else shape
        x, y = np.zeros(shape), np.zeros(shape[:2], int)
        batch = y.shape[0 if batch_first else 1]
        loss, pullback = CRFLoss(crf, "none").vjp(x, y)
        assert loss.tolist() == [0] * batch
        assert pullback().shape == shape
        assert not any(crf.grads[name].any() for name in NAMES)
        for reduction in ("mean", "sum", "token_mean"):
            assert CRFLoss(crf, reduction)(x, y) == 0
        assert crf.decode(x).shape == y.shape
        assert crf.decode(x, n_best=3).tags.shape == (3, *y.shape)
        assert crf.decode(x, n_best=3).scores.tolist() == [
            [0.0] * batch,
            *[[-np.inf] * batch] * 2,
        ]
        assert crf.marginals(x).shape == shape
        assert crf.log_partition(x).tolist() == [0] * batch

    def test_lengths_of_zero_are_empty_sequences(self, rng):
        crf, x, y = case(rng)
        x[:, 1] = np.nan
        y[:, 1] = 99
        loss, pullback = CRFLoss(crf, "none").vjp(x, y, [5, 0, 2])
        dx = pullback()
        assert loss[1] == 0
        assert not dx[:, 1].any()
        assert np.isfinite(loss).all()
        assert (crf.decode(x, [5, 0, 2])[:, 1] == -1).all()
        assert crf.decode(x, [5, 0, 2], n_best=2).scores[:, 1].tolist() == [0, -np.inf]

    def test_more_than_there_are(self, rng):
        crf, x, _ = case(rng, tags=2, steps=2, batch=1)
        found = crf.decode(x, n_best=1000)
        assert (found.scores > -np.inf).sum() == 4
        assert np.all(np.diff(found.scores[:4, 0]) <= 0)


class TestPadding:
    @pytest.mark.parametrize("wrong", [-7, 4, 10**9, -(2**63), 2**63 - 1])
    def test_targets_past_the_ends_may_be_anything(self, wrong, rng):
        crf, x, y = case(rng)
        wanted = CRFLoss(crf)(x, y, [5, 2, 3])
        y[2:, 1] = wrong
        assert CRFLoss(crf)(x, y, [5, 2, 3]) == wanted
        with pytest.raises(ValueError, match=rf"in 0\.\.3, or -1 .*, got {wrong} in sequence 1"):
            CRFLoss(crf)(x, y, [5, 3, 3])

    def test_unsigned_targets(self, rng):
        crf, x, y = case(rng)
        assert CRFLoss(crf)(x, y.astype(np.uint64)) == CRFLoss(crf)(x, y)
        y = y.astype(np.uint64)
        y[0, 0] = 2**64 - 1
        with pytest.raises(ValueError, match="got 18446744073709551615 in sequence 0"):
            CRFLoss(crf)(x, y)


class TestRefusals:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda c, x, y: CRFLoss(c)(x[..., :3], y), ValueError, r"emissions .* \(\.\.\., 4\)"),
            (lambda c, x, y: CRFLoss(c)(x[0, 0], y), ValueError, r"emissions .* got \(4,\)"),
            (
                lambda c, x, y: CRFLoss(c)(x[None], y),
                ValueError,
                r"emissions .* got \(1, 5, 3, 4\)",
            ),
            (lambda c, x, y: c.decode(x.astype(str)), TypeError, "emissions is <U"),
            (lambda c, x, y: CRFLoss(c)(x, y[:4]), ValueError, r"targets .*\(5, 3\).*\(4, 3\)"),
            (lambda c, x, y: CRFLoss(c)(x, y.T), ValueError, r"targets .*\(5, 3\).*\(3, 5\)"),
            (lambda c, x, y: CRFLoss(c)(x, y > 0), ValueError, r"\(5, 3, 4\) if they are boolean"),
            (lambda c, x, y: CRFLoss(c)(x, y * 1.0), TypeError, "targets must be integers"),
            (
                lambda c, x, y: CRFLoss(c)(x, y - 2),
                ValueError,
                "targets must be tags in 0..3, or -1",
            ),
            (lambda c, x, y: CRFLoss(c)(x, y, [5, 6, 1]), ValueError, "lengths must be in 0..5"),
            (lambda c, x, y: CRFLoss(c)(x, y, [5, -1, 1]), ValueError, "lengths must be in 0..5"),
            (lambda c, x, y: CRFLoss(c)(x, y, [5, 1]), ValueError, r"lengths .*\(3,\), got \(2,\)"),
            (lambda c, x, y: CRFLoss(c)(x, y, None, [1, 1]), ValueError, r"weights .*\(3,\)"),
            (
                lambda c, x, y: CRFLoss(c)(x, y, None, [1, -1, 1]),
                ValueError,
                "weights .*at least 0",
            ),
            (
                lambda c, x, y: CRFLoss(c, "max"),
                ValueError,
                "reduction must be one of mean, sum, none",
            ),
            (lambda c, x, y: CRFLoss(4), TypeError, "crf must be a CRF, got a int"),
            (lambda c, x, y: c.decode(x, n_best=0), ValueError, "n_best must be at least 1, got 0"),
            (lambda c, x, y: c.decode(x, n_best=1 << 30), ValueError, "n_best must be less than"),
            (lambda c, x, y: c.decode(x, n_best=1.5), TypeError, "n_best must be an integer"),
            (lambda c, x, y: CRF(0), ValueError, "num_tags must be at least 1, got 0"),
            (lambda c, x, y: CRF(3, dtype="int8"), ValueError, "dtype must be float32 or float64"),
        ],
    )
    def test_arguments(self, call, error, message, rng):
        with pytest.raises(error, match=message):
            call(*case(rng))

    @pytest.mark.parametrize(
        ("constraints", "message"),
        [
            (np.ones((3, 3), bool), "constraints must be three boolean arrays"),
            (BIO[:2], "constraints must be three boolean arrays"),
            ((BIO[0][:2], *BIO[1:]), r"constraints: transitions must have shape \(3, 3\)"),
            ((BIO[0], BIO[1], BIO[2] & False), "constraints: end must allow at least one tag"),
            (tag_constraints(["O", "B-a"]), r"transitions must have shape \(3, 3\), got \(2, 2\)"),
        ],
    )
    def test_constraints(self, constraints, message):
        with pytest.raises(ValueError, match=message):
            CRF(3, constraints=constraints)
        with pytest.raises(TypeError, match="constraints: start must be boolean, got float64"):
            CRF(3, constraints=(BIO[0], np.ones(3), BIO[2]))

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ([2, 0, 0], "sequence 1 starts with tag 2, which the constraints forbid"),
            ([0, 1, 0], "sequence 1 ends with tag 0, which the constraints forbid"),
            ([0, 2, 1], "sequence 1 has tag 2 after tag 0 at step 1, which the constraints forbid"),
            ([0, -1, 2], None),
            ([-1, 2, 0], "sequence 1 ends with tag 0, which the constraints forbid"),
            ([-1, 0, 2], "sequence 1 has tag 2 after tag 0 at step 2"),
        ],
    )
    def test_forbidden_targets(self, row, message, rng):
        ends = BIO._replace(end=np.array([False, True, True]))
        crf = drawn(3, rng, constraints=ends)
        x = rng.standard_normal((3, 2, 3))
        y = np.array([[0, 1, 2], row]).T
        possible = (y[..., None] == np.arange(3)) | (y[..., None] < 0)
        if message is None:
            assert np.isfinite(CRFLoss(crf)(x, y))
            assert CRFLoss(crf)(x, possible) == CRFLoss(crf)(x, y)
            return
        with pytest.raises(ValueError, match=f"^targets: {message}"):
            CRFLoss(crf)(x, y)
        with pytest.raises(ValueError, match="no allowed sequence of tags agrees with sequence 1"):
            CRFLoss(crf)(x, possible)
        assert crf.log_prob(x, y)[1] == -np.inf

    def test_a_pullback_runs_once(self, rng):
        crf, x, y = case(rng)
        _, pullback = CRFLoss(crf, "none").vjp(x, y)
        with pytest.raises(ValueError, match=r"dloss must have shape \(3,\), got \(2,\)"):
            pullback(np.ones(2))
        pullback(np.ones(3))
        with pytest.raises(RuntimeError, match="already run"):
            pullback(np.ones(3))


def test_hostile_calls(rng):
    """Whatever it is given, a call returns numbers or raises what it says it does."""
    values = [0, 1, -3, 1e30, -1e30, 1e300, -1e300, 1.7e308, -1.7e308, 1e-300, 5e-324]
    values += [np.inf, -np.inf, np.nan]
    refused = accepted = 0
    for _ in range(600):
        tags, steps, batch = (int(n) for n in rng.integers((1, 0, 0), (11, 9, 5)))
        constraints = None
        if rng.random() < 0.3:
            parts = (rng.random(shape) < 0.6 for shape in ((tags, tags), tags, tags))
            constraints = tuple(part | (part.sum() == 0) for part in parts)
        crf = drawn(tags, rng, constraints=constraints)
        x = rng.standard_normal((steps, batch, tags))
        strange = rng.random(x.shape) < rng.choice([0, 0.02, 0.5])
        x[strange] = rng.choice(values, int(strange.sum()))
        if rng.random() < 0.2:
            crf.params["transitions"].flat[rng.integers(tags * tags)] = rng.choice(values)
        y = rng.integers(-1, tags + int(rng.random() < 0.05), (steps, batch))
        if rng.random() < 0.3:
            y = rng.random(x.shape) < 0.7
        lengths = rng.integers(0, steps + 1, batch) if rng.random() < 0.7 else None
        weights = rng.choice([0.0, 1.0, 1e-300, 1e300], batch) if rng.random() < 0.3 else None
        try:
            _loss, pullback = CRFLoss(crf, str(rng.choice(CRFLoss.reductions))).vjp(
                x, y, lengths, weights
            )
            assert pullback(rng.choice([1.0, 0.0, -2.0, np.inf])).shape == x.shape
            accepted += 1
        except ValueError:
            refused += 1
        found = crf.decode(x, lengths, n_best=int(rng.integers(1, 5)))
        assert found.tags.min(initial=0) >= -1
        assert found.tags.max(initial=0) < tags
        p = crf.marginals(x, lengths)
        assert not (p < 0).any()
        assert not (p > 1 + 1e-12).any()
        totals = p.sum(axis=2)
        one = np.isclose(totals, 1, rtol=0, atol=1e-9) | (totals == 0) | np.isnan(totals)
        assert one.all()
    assert accepted > 300
    assert refused > 10
