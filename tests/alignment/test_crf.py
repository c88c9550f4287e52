"""The CRF beside its reference, all sequences of tags in turn, and finite differences."""

import itertools

import numpy as np
import pytest
import rnncore
from rnncore import CRF, CRFLoss, tag_constraints
from rnncore.reference import crf as reference

from tests.support.compare import near
from tests.support.crf import NAMES, drawn, enumerated, partial, scores

SIZES = [(1, 1), (1, 4), (2, 1), (2, 3), (3, 2), (4, 3), (5, 3)]
#: Widths around those of vectors, and of tiles of them.
WIDTHS = [1, 2, 3, 7, 8, 9, 17, 31, 50, 64, 65, 100]


def case(rng, tags, steps=7, lengths=(7, 4, 1), **options):
    crf = drawn(tags, rng, **options)
    x = rng.standard_normal((steps, len(lengths), tags)).astype(crf.dtype) * 2
    return crf, x, rng.integers(0, tags, x.shape[:2]), np.array(lengths)


def expected(crf, x, targets, lengths):
    """Losses of the sequences, and the gradient of their sum."""
    s, x = scores(crf), x.astype(np.float64)
    rows = [(x[:n, b], targets[:n, b]) for b, n in enumerate(lengths)]
    parts = [reference.nll_gradients(*row, s) for row in rows]
    dx = np.zeros(x.shape)
    for b, part in enumerate(parts):
        dx[: lengths[b], b] = part.emissions
    gradients = {name: sum(getattr(part, name) for part in parts) for name in NAMES}
    return np.array([reference.nll(*row, s) for row in rows]), dx, gradients


class TestEnumeration:
    @pytest.mark.parametrize(("steps", "tags"), SIZES)
    def test_all_sequences_of_tags(self, steps, tags, rng):
        crf = drawn(tags, rng)
        x, y = rng.standard_normal((steps, 1, tags)), rng.integers(0, tags, (steps, 1))
        for targets in (y, *partial(rng, y, tags)):
            z, nll, marginals, best = enumerated(x[:, 0], targets[:, 0], scores(crf))
            near(crf.log_partition(x)[0], z, 1e-13)
            assert CRFLoss(crf, "sum")(x, targets) == pytest.approx(nll, rel=1e-12, abs=1e-13)
            near(crf.marginals(x)[:, 0], marginals, 1e-13)
            found = crf.decode(x, n_best=tags**steps + 2)
            assert [row.tolist() for row in found.tags[:-2, :, 0]] == [tags for _, tags in best]
            near(found.scores[:-2, 0], np.array([score for score, _ in best]), 1e-12)
            assert (found.tags[-2:] == -1).all()
            assert (found.scores[-2:] == -np.inf).all()

    @pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
    def test_what_is_forbidden_has_no_probability(self, scheme, rng):
        names = ["O", "B-a", "I-a"] + (["E-a"] if scheme == "BIOES" else [])
        crf = drawn(len(names), rng, constraints=tag_constraints(names, scheme))
        x, free = rng.standard_normal((4, 1, len(names))), np.full((4, 1), -1)
        z, nll, marginals, best = enumerated(x[:, 0], free[:, 0], scores(crf))
        near(crf.log_partition(x)[0], z, 1e-13)
        assert nll == CRFLoss(crf)(x, free) == 0
        near(crf.marginals(x)[:, 0], marginals, 1e-13)
        found = crf.decode(x, n_best=len(best) + 1)
        assert [row.tolist() for row in found.tags[:-1, :, 0]] == [tags for _, tags in best]
        assert found.scores[-1, 0] == -np.inf

    def test_equal_scores_take_the_lower_tag_at_the_last_difference(self):
        crf = CRF(3, dtype="float64")
        for name in NAMES:
            crf.params[name] = np.zeros_like(crf.params[name])
        x = np.zeros((3, 1, 3))
        assert (crf.decode(x) == 0).all()
        wanted = sorted(itertools.product(range(3), repeat=3), key=lambda tags: tags[::-1])
        assert [tuple(row) for row in crf.decode(x, n_best=27).tags[:, :, 0]] == wanted


class TestReference:
    @pytest.mark.parametrize("tags", WIDTHS)
    def test_values_and_gradients(self, tags, rng):
        crf, x, y, lengths = case(rng, tags)
        for targets in (y, *partial(rng, y, tags)):
            crf.zero_grad()
            losses, dx, gradients = expected(crf, x, targets, lengths)
            loss, pullback = CRFLoss(crf, "none").vjp(x, targets, lengths)
            near(loss, losses, 1e-12)
            near(pullback(), dx, 1e-12)
            for name in NAMES:
                near(crf.grads[name], gradients[name], 1e-12)

    @pytest.mark.parametrize("tags", WIDTHS)
    def test_partition_marginals_paths(self, tags, rng):
        crf, x, _, lengths = case(rng, tags)
        s, found = scores(crf), crf.marginals(x, lengths)
        for b, n in enumerate(lengths):
            row = x[:n, b]
            near(crf.log_partition(x, lengths)[b], reference.log_partition(row, s), 1e-13)
            near(found[:n, b], reference.marginals(row, s), 1e-12)
            assert not found[n:, b].any()
            for count in (1, 2, 6):
                best = crf.decode(x, lengths, n_best=count)
                wanted = reference.best(row, s, count)
                assert [r[:n, b].tolist() for r in best.tags[: len(wanted)]] == [
                    tags for _, tags in wanted
                ]
                near(best.scores[: len(wanted), b], np.array([v for v, _ in wanted]), 1e-13)
                assert (best.tags[:, n:, b] == -1).all()
        np.testing.assert_array_equal(crf.decode(x, lengths), best.tags[0])

    @pytest.mark.parametrize("tags", [3, 17, 50])
    def test_float32(self, tags, rng):
        crf, x, y, lengths = case(rng, tags, 60, (60, 1, 33), dtype="float32")
        losses, dx, gradients = expected(crf, x, y, lengths)
        loss, pullback = CRFLoss(crf, "none").vjp(x, y, lengths)
        assert loss.dtype == np.float32
        near(loss, losses, 2e-7)
        near(pullback(), dx, 2e-7)
        for name in NAMES:
            assert crf.grads[name].dtype == np.float32
            near(crf.grads[name], gradients[name], 2e-7)
        found = crf.marginals(x)
        assert found.dtype == np.float32
        near(found[:, 0], reference.marginals(x[:, 0].astype(np.float64), scores(crf)), 2e-7)

    def test_logs_and_probabilities_say_the_same(self, rng):
        """What differs by more than a hundred nats is summed by logarithms."""
        for tags, scale in itertools.product((1, 2, 9, 30), (60.0, 1e3, 1e5)):
            crf, x, y, lengths = case(rng, tags)
            x = x * scale
            for targets in (y, *partial(rng, y, tags)):
                crf.zero_grad()
                losses, dx, gradients = expected(crf, x, targets, lengths)
                loss, pullback = CRFLoss(crf, "none").vjp(x, targets, lengths)
                # The reference loses what is small beside log Z.
                assert np.abs(loss - losses).max() <= 1e-13 * max(np.abs(x).max() * 7, 1)
                assert np.abs(pullback() - dx).max() <= 1e-10 * scale / 60
                for name in NAMES:
                    assert np.abs(crf.grads[name] - gradients[name]).max() <= 1e-10 * scale / 60

    def test_large_transitions(self, rng):
        crf, x, y, lengths = case(rng, 9, scale=100.0)
        losses, dx, gradients = expected(crf, x, y, lengths)
        loss, pullback = CRFLoss(crf, "none").vjp(x, y, lengths)
        near(loss, losses, 1e-12)
        near(pullback(), dx, 1e-11)
        near(crf.grads["transitions"], gradients["transitions"], 1e-11)

    def test_long_sequences_lose_nothing(self, rng):
        crf, x, y, lengths = case(rng, 5, 5000, (5000, 4999), dtype="float32")
        losses, dx, gradients = expected(crf, x, y, lengths)
        loss, pullback = CRFLoss(crf, "none").vjp(x, y, lengths)
        near(loss, losses, 1e-7)
        near(pullback(), dx, 1e-6)
        for name in NAMES:
            near(crf.grads[name], gradients[name], 1e-6)

    def test_paths_that_hardly_any_sequence_takes(self, rng):
        """From left to right: after many steps all but the last tag are beyond any double."""
        may = np.triu(np.ones((4, 4), bool))
        crf = drawn(4, rng, constraints=(may, [True] * 4, [True, False, False, False]))
        x = rng.standard_normal((3000, 1, 4)) + np.array([-2.0, 0, 0, 2.0])
        s, y = scores(crf), np.zeros((3000, 1), int)
        near(crf.log_partition(x)[0], reference.log_partition(x[:, 0], s), 1e-12)
        np.testing.assert_array_equal(crf.decode(x), y)
        assert CRFLoss(crf)(x, y) == pytest.approx(0, abs=1e-9)
        near(crf.marginals(x)[:, 0], np.eye(4)[y[:, 0]], 1e-9)


def test_finite_differences(rng):
    crf, x, y, lengths = case(rng, 3, 4, (4, 2, 3))
    weights = np.array([0.5, 2.0, 1.0])
    for targets, reduction in itertools.product((y, *partial(rng, y, 3)), CRFLoss.reductions):
        loss = CRFLoss(crf, reduction)
        upstream = rng.standard_normal(3) if reduction == "none" else np.array(0.7)

        def value(loss=loss, targets=targets, upstream=upstream):
            return float(np.sum(upstream * loss(x, targets, lengths, weights)))

        crf.zero_grad()
        _, pullback = loss.vjp(x, targets, lengths, weights)
        gradients = {"x": pullback(upstream), **crf.grads}
        for name, numbers in {"x": x, **crf.params}.items():
            for at in np.ndindex(numbers.shape):
                before, ends = numbers[at], []
                for step in (1e-5, -1e-5):
                    numbers[at] = before + step
                    ends.append(value())
                numbers[at] = before
                slope = (ends[0] - ends[1]) / 2e-5
                assert gradients[name][at] == pytest.approx(slope, rel=1e-7, abs=1e-8)


class TestForms:
    def test_batch_first_is_the_same(self, rng):
        crf, x, y, lengths = case(rng, 6)
        turned = CRF(6, batch_first=True, dtype="float64")
        turned.load_state_dict(crf.state_dict())
        swapped = np.ascontiguousarray(x.swapaxes(0, 1))
        for targets in (y, *partial(rng, y, 6)):
            one, back = CRFLoss(crf).vjp(x, targets, lengths)
            other, back_turned = CRFLoss(turned).vjp(swapped, targets.swapaxes(0, 1), lengths)
            assert one == other
            np.testing.assert_array_equal(back(), back_turned().swapaxes(0, 1))
        np.testing.assert_array_equal(
            crf.decode(x, lengths), turned.decode(swapped, lengths).swapaxes(0, 1)
        )
        np.testing.assert_array_equal(
            crf.marginals(x, lengths), turned.marginals(swapped, lengths).swapaxes(0, 1)
        )
        pairs = zip(crf.decode(x, n_best=3), turned.decode(swapped, n_best=3), strict=True)
        for (found, wanted), axes in zip(pairs, ((0, 2, 1), (0, 1)), strict=True):
            np.testing.assert_array_equal(found, wanted.transpose(axes))

    @pytest.mark.parametrize("batch_first", [False, True])
    def test_one_sequence_without_a_batch(self, batch_first, rng):
        crf, x, y, _ = case(rng, 4, lengths=(7,), batch_first=batch_first)
        row, tags = x[:, 0], y[:, 0]
        both = x.swapaxes(0, 1) if batch_first else x
        for targets in (tags, *partial(rng, tags, 4)):
            batched = targets[None] if batch_first else targets[:, None]
            one, back = CRFLoss(crf).vjp(row, targets)
            other, _ = CRFLoss(crf).vjp(both, batched)
            assert one == other
            assert back().shape == row.shape
            assert crf.log_prob(row, targets) == -other
        np.testing.assert_array_equal(crf.decode(row), crf.decode(both).reshape(-1))
        np.testing.assert_array_equal(crf.marginals(row), crf.marginals(both).reshape(7, 4))
        assert crf.decode(row, n_best=2).tags.shape == (2, 7)
        assert crf.decode(row, n_best=2).scores.shape == (2,)
        assert crf.log_partition(row).shape == ()

    def test_arrays_that_are_not_contiguous(self, rng):
        crf, x, y, lengths = case(rng, 5)
        wide = np.zeros((7, 3, 10))
        wide[..., ::2] = x
        assert CRFLoss(crf)(wide[..., ::2], np.asfortranarray(y), lengths) == CRFLoss(crf)(
            x, y.astype(np.int8), lengths.tolist()
        )
        np.testing.assert_array_equal(crf.decode(wide[..., ::2]), crf.decode(x))

    def test_reductions_and_weights(self, rng):
        crf, x, y, lengths = case(rng, 4)
        each, weights = CRFLoss(crf, "none")(x, y, lengths), np.array([0.5, 0.0, 3.0])
        near(each, -crf.log_prob(x, y, lengths), 1e-15)
        wanted = {
            "sum": (each * weights).sum(),
            "mean": (each * weights).sum() / 3.5,
            "token_mean": (each * weights).sum() / (weights * lengths).sum(),
        }
        for reduction, value in wanted.items():
            loss = CRFLoss(crf, reduction)
            assert loss(x, y, lengths, weights) == pytest.approx(value, rel=1e-14)
        assert CRFLoss(crf)(x, y, lengths) == pytest.approx(each.mean(), rel=1e-14)
        token_mean = CRFLoss(crf, "token_mean")
        assert token_mean(x, y, lengths) == pytest.approx(each.sum() / 12, rel=1e-14)
        counts = [token_mean.counted(y), token_mean.counted(y, lengths)]
        assert [*counts, token_mean.counted(y, lengths, weights)] == [21, 12, 6.5]
        assert CRFLoss(crf).counted(y, lengths, weights) == 3.5
        assert CRFLoss(crf).counted(y) == 3

    def test_what_counts_nothing_is_not_looked_at(self, rng):
        crf, x, y, lengths = case(rng, 4)
        x[:, 1] = np.nan
        loss, pullback = CRFLoss(crf).vjp(x, y, lengths, [1.0, 0.0, 1.0])
        dx = pullback()
        assert np.isfinite(loss)
        assert np.isfinite(dx).all()
        assert not dx[:, 1].any()
        assert all(np.isfinite(crf.grads[name]).all() for name in NAMES)


class TestOrder:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_any_order_of_the_batch_and_any_threads(self, dtype, rng):
        lengths = rng.integers(1, 41, 50)
        crf, x, y, _ = case(rng, 11, 40, lengths, dtype=dtype)
        x[:, ::7] *= 300  # some by logarithms
        order, before = rng.permutation(50), rnncore.get_num_threads()
        results = []
        try:
            for rows, threads in ((np.arange(50), 1), (order, 1), (np.arange(50), 5), (order, 3)):
                rnncore.set_num_threads(threads)
                crf.zero_grad()
                args = x[:, rows], y[:, rows], lengths[rows], 1.0 + rows % 3
                losses, pullback = CRFLoss(crf, "none").vjp(*args)
                dx, back = pullback(), np.argsort(rows)
                found = crf.decode(x[:, rows], lengths[rows], n_best=3)
                arrays = [losses[back], dx[:, back], found.tags[:, :, back], found.scores[:, back]]
                arrays += [crf.decode(x[:, rows], lengths[rows])[:, back], *crf.grads.values()]
                results.append([np.ascontiguousarray(a).tobytes() for a in arrays])
        finally:
            rnncore.set_num_threads(before)
        assert all(result == results[0] for result in results)

    def test_a_row_is_the_same_in_any_batch(self, rng):
        crf, x, y, lengths = case(rng, 13)
        whole = CRFLoss(crf, "none")(x, y, lengths)
        for b, n in enumerate(lengths):
            assert CRFLoss(crf, "sum")(x[:n, b], y[:n, b]) == whole[b]
