"""Special functions beside SciPy's."""

import numpy as np
import pytest
from rnncore.distributions import special as own

special = pytest.importorskip("scipy.special", reason="SciPy is not installed")

SIZES = np.geomspace(1e-6, 1e6, 61)


@pytest.mark.parametrize("name", ["gammaln", "digamma"])
def test_of_one_argument(name):
    x = np.concatenate([SIZES, np.linspace(0.1, 12, 97), [1e30, 1e300]])
    got, want = getattr(own, name)(x), getattr(special, name)(x)
    np.testing.assert_allclose(got, want, rtol=2e-13, atol=2e-14)


def test_log_rising_keeps_the_digits_of_large_numbers():
    x, y = np.meshgrid(SIZES, [0.0, 0.5, 3.0, 100.0])
    # Of whole steps it is a sum of logarithms.
    np.testing.assert_allclose(
        own.log_rising(x[2], y[2]), sum(np.log(x[2] + k) for k in range(3)), rtol=1e-12, atol=1e-13
    )
    small = x < 1e3
    want = special.gammaln(x + y) - special.gammaln(x)
    np.testing.assert_allclose(own.log_rising(x, y)[small], want[small], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(own.log_rising(np.array(1e30), np.array(0.5)), 15 * np.log(10))


def test_incomplete_gamma():
    a, x = np.meshgrid(np.geomspace(1e-3, 1e4, 41), np.geomspace(1e-4, 2e4, 83))
    np.testing.assert_allclose(own.gammaincc(a, x), special.gammaincc(a, x), rtol=1e-9, atol=1e-13)
    edges = own.gammaincc(np.ones(2), np.array([0.0, np.inf]))
    np.testing.assert_array_equal(edges, [1, 0])


def test_incomplete_beta():
    a, b, x = np.meshgrid(
        np.geomspace(1e-2, 1e3, 16), np.geomspace(1e-2, 1e3, 16), np.linspace(0, 1, 21)
    )
    want = special.betainc(a, b, x)
    np.testing.assert_allclose(own.betainc(a, b, x), want, rtol=1e-9, atol=1e-13)


def test_normal():
    z = np.linspace(-30, 30, 241)
    np.testing.assert_allclose(own.ndtr(z), special.ndtr(z), rtol=1e-10)
    p = np.array([[1e-12, 0.01], [0.5, 0.975]])
    np.testing.assert_allclose(own.ndtri(p), special.ndtri(p), rtol=1e-12, atol=1e-15)


def test_positive_functions():
    x = np.array([-1e300, -800.0, -1.0, 0.0, 1.0, 800.0, 1e300])
    np.testing.assert_allclose(own.softplus(x), np.logaddexp(0, x))
    np.testing.assert_allclose(own.sigmoid(x), special.expit(x))


def test_inverting():
    p = np.array([1e-9, 0.3, 0.999])
    zero = np.zeros(3)
    found = own.invert(
        special.expit, lambda x: special.expit(x) * special.expit(-x), p, zero, zero + 1
    )
    np.testing.assert_allclose(found, special.logit(p), rtol=1e-12)
