"""Heads: SciPy's and PyTorch's numbers, finite differences, and no NaN from finite numbers."""

import math

import numpy as np
import pytest
from rnncore import losses
from rnncore.distributions import (
    Gaussian,
    GaussianMixture,
    NegativeBinomial,
    PenStrokes,
    Poisson,
    Quantiles,
    StudentT,
)
from rnncore.distributions.base import Distribution

from tests.support.gradients import check_loss
from tests.support.heads import HEADS, OF_ONE, given, scipy_of

SCIPY = ["gaussian", "student", "poisson", "negative binomial"]
EXTREMES = [0.0, 1.0, -1.0, 30.0, -30.0, 1e4, -1e4, 1e10, -1e10, 1e30, -1e30, 1e-30, 3e38, -3e38]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients(name, reduction, masked, rng):
    head = HEADS[name](reduction=reduction)
    x, targets, mask = given(head, rng)
    check_loss(head, x, targets, mask if masked else None)


@pytest.mark.parametrize("name", OF_ONE)
def test_a_mask_of_single_values(name, rng):
    head = HEADS[name]()
    x, targets, _ = given(head, rng)
    mask = rng.random(targets.shape) < 0.5
    loss, pullback = head.vjp(x, targets, mask)
    if not isinstance(head, Quantiles):
        assert loss == pytest.approx(-head.log_prob(x, targets)[mask].mean(), rel=1e-12)
    dx = pullback().reshape(*targets.shape, head.outputs)
    assert not dx[~mask].any()
    assert dx[mask].any()
    targets[~mask] = np.nan
    assert head(x, targets, mask) == loss
    check_loss(head, x, np.where(mask, targets, 0), mask.astype(float))


@pytest.mark.parametrize("name", SCIPY)
def test_probabilities_beside_scipy(name, rng):
    pytest.importorskip("scipy", reason="SciPy is not installed")
    head = HEADS[name]()
    x = 3 * rng.standard_normal((500, head.outputs))
    peer = scipy_of(name, x)
    targets = peer.rvs(random_state=rng).astype(float)
    want = peer.logpmf(targets) if head.counts else peer.logpdf(targets)
    got = head.log_prob(x, targets[:, None])
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-9, atol=1e-9)
    assert head(x, targets[:, None]) == pytest.approx(-want.mean(), rel=1e-9)


@pytest.mark.parametrize("name", SCIPY)
def test_quantiles_beside_scipy(name, rng):
    pytest.importorskip("scipy", reason="SciPy is not installed")
    head = HEADS[name]()
    x = 2 * rng.standard_normal((100, head.outputs))
    levels = [0.001, 0.1, 0.5, 0.9, 0.995]
    want = scipy_of(name, x[:, None].repeat(5, 1).reshape(500, -1)).ppf(np.tile(levels, 100))
    got = head.quantile(x, levels)
    assert got.shape == (100, 1, 5)
    np.testing.assert_allclose(got.reshape(-1), want, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(head.quantile(x, 0.9), got[..., 3])


def test_quantiles_of_many_degrees_of_freedom():
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    p = np.array([0.001, 0.5, 0.9])
    for raw in (9e3, 2e4, 1e9):
        want = stats.t(2 + raw).ppf(p)
        got = StudentT().quantile(np.array([0.0, np.log(np.expm1(1.0)), raw]), p)[0]
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mean", [1e4, 3e5, 1e9])
@pytest.mark.parametrize("r", [0.3, 5.0, 1e7])
def test_quantiles_of_large_counts(mean, r):
    """From the limit on within two hundred thousandths of the mean; else to the count."""
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    p = np.array([0.025, 0.5, 0.975])
    x = np.log([[mean, r]])
    got = NegativeBinomial().quantile(x, p)[0, 0]
    atol = 2e-5 * mean if mean > 1e5 else 0
    want = stats.nbinom(r, r / (r + mean)).ppf(p)
    np.testing.assert_allclose(got, want, rtol=0, atol=atol)
    got = Poisson().quantile(x[:, :1], p)[0, 0]
    np.testing.assert_allclose(got, stats.poisson(mean).ppf(p), rtol=0, atol=1)


@pytest.mark.parametrize("name", SCIPY)
def test_samples_have_the_distribution(name):
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    head = HEADS[name]()
    x = np.array([[0.4, -0.3, 0.5][: head.outputs]])
    drawn = head.sample(x, 20_000, seed=1)
    assert drawn.shape == (20_000, 1, 1)
    peer = scipy_of(name, x)
    if head.counts:
        counts = np.arange(8)
        found = [(drawn == k).mean() for k in counts]
        np.testing.assert_allclose(found, peer.pmf(counts), atol=0.012)
    else:
        assert stats.kstest(drawn.ravel(), lambda y: peer.cdf(y)).pvalue > 0.01
    np.testing.assert_array_equal(head.sample(x, 20_000, seed=1), drawn)
    assert head.sample(x, seed=1).shape == (1, 1)


def test_mixture_beside_torch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    head = GaussianMixture(4)
    x, y = rng.standard_normal((50, 12)), rng.standard_normal((50, 1))
    parts = [torch.tensor(x[:, at : at + 4]) for at in (0, 4, 8)]
    normal = torch.distributions.Normal(parts[1], torch.nn.functional.softplus(parts[2]))
    weights = torch.distributions.Categorical(logits=parts[0])
    peer = torch.distributions.MixtureSameFamily(weights, normal)
    want = peer.log_prob(torch.tensor(y[:, 0])).numpy()
    np.testing.assert_allclose(head.log_prob(x, y)[:, 0], want, rtol=1e-12)
    q = head.quantile(x, [0.1, 0.7])
    np.testing.assert_allclose(peer.cdf(torch.tensor(q[:, 0].T)).numpy(), [[0.1] * 50, [0.7] * 50])
    drawn = np.sort(head.sample(x[:1], 20_000, seed=0).ravel())
    reached = peer.cdf(torch.tensor(drawn)[:, None].expand(-1, 50))[:, 0].numpy()
    assert np.abs(reached - np.arange(20_000) / 20_000).max() < 0.012


def test_strokes_beside_torch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    head = PenStrokes(3)
    x, targets, _ = given(head, rng, (40,))
    end, *parts = torch.tensor(x).split([1, 3, 3, 3, 3, 3, 3], dim=-1)
    logits, *loc, raw_x, raw_y, raw_rho = parts
    sx, sy, rho = *map(torch.nn.functional.softplus, (raw_x, raw_y)), raw_rho.tanh()
    rows = [torch.stack([sx * sx, rho * sx * sy], -1), torch.stack([rho * sx * sy, sy * sy], -1)]
    normal = torch.distributions.MultivariateNormal(torch.stack(loc, -1), torch.stack(rows, -2))
    peer = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), normal
    )
    told = torch.tensor(targets)
    want = peer.log_prob(told[:, :2])
    want += torch.distributions.Bernoulli(logits=end[:, 0]).log_prob(told[:, 2])
    got = head.log_prob(x, targets)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-10)
    assert head(x, targets) == pytest.approx(-want.mean().item(), rel=1e-10)


def test_strokes_are_drawn_from_their_distribution(rng):
    head = PenStrokes(2)
    x = rng.standard_normal((3, head.outputs))
    drawn = head.sample(x, 40_000, seed=0)
    assert drawn.shape == (40_000, 3, 3)
    assert np.abs(drawn[..., 2].mean(0) - 1 / (1 + np.exp(-x[:, 0]))).max() < 0.01
    found = head.quantile(x, [0.1, 0.6])
    assert found.shape == (3, 2, 2)
    assert head.quantile(x, 0.6).shape == (3, 2)
    below = (drawn[..., :2, None] <= found).mean(axis=0)
    np.testing.assert_allclose(below, np.broadcast_to([0.1, 0.6], (3, 2, 2)), atol=0.01)
    weights = np.exp(x[:, 1:3])
    weights /= weights.sum(1, keepdims=True)
    loc, scale = x[:, 3:7].reshape(3, 2, 2), np.logaddexp(0, x[:, 7:11]).reshape(3, 2, 2)
    both = (loc.prod(1) + np.tanh(x[:, 11:]) * scale.prod(1)) * weights
    np.testing.assert_allclose(drawn[..., :2].prod(-1).mean(0), both.sum(1), atol=0.06)


class TestQuantiles:
    def test_the_loss_is_the_pinball_loss(self, rng):
        levels = (0.1, 0.5, 0.8)
        x, targets = rng.standard_normal((5, 6)), rng.standard_normal((5, 2))
        wide = np.repeat(targets, 3, axis=1)
        loss, pullback = Quantiles(levels, crossing=True).vjp(x, targets)
        other, other_pullback = losses.Pinball(np.tile(levels, 2)).vjp(x, wide)
        assert loss == pytest.approx(other, rel=1e-12)
        np.testing.assert_allclose(pullback(), other_pullback(), rtol=1e-12)

    def test_they_never_cross(self, rng):
        head = Quantiles((0.1, 0.2, 0.6, 0.9))
        x = 100 * rng.standard_normal((200, 4))
        found = head.quantile(x, head.levels)[:, 0]
        assert (np.diff(found) >= 0).all()
        step = np.logaddexp(0, x)
        np.testing.assert_allclose(found[:, 2], x[:, 2], rtol=1e-12)  # the nearest to the median
        np.testing.assert_allclose(found[:, 3], x[:, 2] + step[:, 3], rtol=1e-12)
        np.testing.assert_allclose(found[:, 0], x[:, 2] - step[:, 1] - step[:, 0], rtol=1e-12)

    def test_those_that_cross_are_sorted(self):
        head = Quantiles((0.1, 0.5, 0.9), crossing=True)
        np.testing.assert_allclose(head.quantile(np.array([3.0, 1, 2]), head.levels), [[1, 2, 3]])

    def test_of_a_normal_distribution_they_give_its_density(self, rng):
        stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
        head, peer = Quantiles(crossing=True), stats.norm(2, 3)
        x = np.broadcast_to(peer.ppf(head.levels), (9, 7))
        y = np.linspace(-20, 20, 9)[:, None]
        np.testing.assert_allclose(head.log_prob(x, y), peer.logpdf(y), rtol=1e-9)
        p = [0.001, 0.3, 0.999]
        np.testing.assert_allclose(head.quantile(x, p)[0, 0], peer.ppf(p), rtol=1e-9)
        drawn = head.sample(x[:1], 20_000, seed=3)
        assert stats.kstest(drawn.ravel(), peer.cdf).pvalue > 0.01

    def test_one_level(self):
        head = Quantiles((0.5,))
        np.testing.assert_array_equal(head.quantile(np.array([3.0]), 0.5), [3])

    @pytest.mark.parametrize("levels", [(), (0.5, 0.5), (0.9, 0.1), (0, 0.5), (0.5, 1), ((0.5,),)])
    def test_refused_levels(self, levels):
        with pytest.raises(ValueError, match=r"levels must be increasing numbers in \(0, 1\)"):
            Quantiles(levels)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_finite_number_gives_nan(name, dtype, rng):
    """Any finite x and targets: value, gradient, quantiles and samples are numbers."""
    head = HEADS[name]()
    extremes = np.array([*EXTREMES, np.finfo(dtype).max, np.finfo(dtype).tiny], dtype)
    x = rng.choice(extremes, (2000, head.outputs))
    shape = given(head, rng, (1,), 1)[1].shape[1:]
    targets = rng.choice(extremes, (2000, *shape))
    if head.counts:
        targets = np.abs(targets)
    if isinstance(head, PenStrokes) and head.pen:
        targets[:, 2] = rng.random(2000) < 0.5
    value, pullback = head.vjp(x, targets)
    assert not math.isnan(value)
    dx = pullback()
    assert dx.dtype == x.dtype
    assert np.isfinite(dx).all()
    assert not np.isnan(head.log_prob(x, targets)).any()
    some = x[:40]
    for drawn in (head.sample(some, 3, seed=0), head.quantile(some, [0.025, 0.5, 0.975])):
        assert drawn.dtype == x.dtype
        assert np.isfinite(drawn).all()


@pytest.mark.parametrize("name", HEADS)
def test_float32_is_near_float64(name, rng):
    head = HEADS[name]()
    x, targets, mask = given(head, rng)
    x32, targets32 = x.astype("float32"), targets.astype("float32")
    exact, pullback = head.vjp(x32.astype(float), targets32.astype(float), mask)
    near, pullback32 = head.vjp(x32, targets32, mask)
    assert near == pytest.approx(exact, rel=2e-5)
    exact_dx = pullback()
    assert np.abs(pullback32() - exact_dx).max() <= 2e-5 * np.abs(exact_dx).max()


@pytest.mark.parametrize("name", HEADS)
def test_nan_stays_in_its_row(name, rng):
    head = HEADS[name](reduction="sum")
    x, targets, _ = given(head, rng)
    clean = head.vjp(x, targets)[1]()
    x[1, 2] = np.nan
    value, pullback = head.vjp(x, targets)
    assert math.isnan(value)
    others = np.ones((4, 3), bool)
    others[1, 2] = False
    np.testing.assert_array_equal(pullback()[others], clean[others])


@pytest.mark.parametrize("name", HEADS)
def test_shapes(name, rng):
    head = HEADS[name]()
    for lead in ((), (0,), (1, 1), (2, 0, 3)):
        x, targets, _ = given(head, rng, lead, 1)
        value, pullback = head.vjp(x, targets)
        assert type(value) is float
        assert pullback().shape == x.shape
        turned = np.asfortranarray(x), np.asfortranarray(targets)
        assert head(*turned) == value
    assert head.width() == head.outputs


def test_counts_at_a_level(rng):
    for head in (Poisson(), NegativeBinomial()):
        x, targets, _ = given(head, rng)
        moved = head.at_level(x, np.full(targets.shape, 5.0))
        np.testing.assert_allclose(moved[..., :: head.outputs], x[..., :: head.outputs] + np.log(5))
        if head.outputs == 2:
            np.testing.assert_array_equal(moved[..., 1::2], x[..., 1::2])
    with pytest.raises(TypeError, match="Gaussian is no distribution of counts"):
        Gaussian().at_level(np.zeros(2), np.ones(1))


def test_refused_arguments():
    head = Gaussian()
    with pytest.raises(ValueError, match=r"x must have 2 numbers for each value .* \(4, 3\)"):
        head(np.zeros((4, 3)), np.zeros((4, 1)))
    with pytest.raises(ValueError, match=r"targets must have shape \(4, 2\), got \(4, 1\)"):
        head(np.zeros((4, 4)), np.zeros((4, 1)))
    with pytest.raises(ValueError, match=r"mask must have .* \(4, 2\), got \(4, 2, 2\)"):
        head(np.zeros((4, 4)), np.zeros((4, 2)), np.ones((4, 2, 2), bool))
    with pytest.raises(TypeError, match="x must be float32 or float64, got int64"):
        head(np.zeros((4, 4), int), np.zeros((4, 2)))
    for p in (0, 1.0, [0.5, 1.5], np.nan, [[0.5]]):
        with pytest.raises(ValueError, match=r"p must be a number in \(0, 1\)"):
            head.quantile(np.zeros(2), p)
    for name in ("poisson", "negative binomial"):
        with pytest.raises(ValueError, match="targets must be at least 0, got -1"):
            HEADS[name]()(np.zeros((1, HEADS[name]().outputs)), -np.ones((1, 1)))
    with pytest.raises(ValueError, match=r"end must be in \[0, 1\], got 2"):
        PenStrokes(1)(np.zeros((1, 7)), np.full((1, 3), 2.0))
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 7\), got \(1, 8\)"):
        PenStrokes(1)(np.zeros((1, 8)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="components must be"):
        GaussianMixture(0)
    with pytest.raises(ValueError, match="values must be 1"):
        PenStrokes(1).width(2)


def test_they_are_written_as_python():
    assert (
        repr(Quantiles((0.1, 0.9), crossing=True)) == "Quantiles(levels=(0.1, 0.9), crossing=True)"
    )
    assert repr(StudentT()) == "StudentT()"
    assert issubclass(StudentT, Distribution)
