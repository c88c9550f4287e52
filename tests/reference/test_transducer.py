"""The reference of the transducer against the sum over all alignments, and finite differences."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rnncore.reference.transducer import (
    Joint,
    backward_variables,
    emissions,
    forward_variables,
    join,
    join_backward,
    log_likelihood,
    loss,
    occupancies,
)

from tests.support.compare import near

Array = npt.NDArray[Any]

#: T, U and V; a blank that is the first, the last, or one between.
SIZES = [(1, 0, 1, 0), (1, 2, 3, 0), (4, 0, 2, 1), (3, 3, 4, 3), (5, 2, 3, 1), (2, 4, 2, 0)]


def drawn(sizes: tuple[int, int, int, int]) -> tuple[Array, Array, int]:
    """Logits, a target and the blank."""
    T, U, V, blank = sizes
    rng = np.random.default_rng(T + 10 * U)
    labels = np.array([k for k in range(V) if k != blank] or [0])
    return 2 * rng.standard_normal((T, U + 1, V)), labels[rng.integers(len(labels), size=U)], blank


def enumerated(z: Array, y: Array, blank: int) -> tuple[float, Array, Array]:
    """P(y), and the probability that a path takes each blank and label, from all alignments.

    An alignment is a string of T blanks and U labels that ends with a blank.
    """
    p = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    T, U = len(z), len(y)
    total, by_blank, by_label = 0.0, np.zeros((T, U + 1)), np.zeros((T, U + 1))
    for places in combinations(range(T + U - 1), U):
        t = u = 0
        product, blanks, labels = 1.0, [], []
        for step in range(T + U):
            if step in places:
                product *= p[t, u, y[u]]
                labels.append((t, u))
                u += 1
            else:
                product *= p[t, u, blank]
                blanks.append((t, u))
                t += 1
        total += product
        for node in blanks:
            by_blank[node] += product
        for node in labels:
            by_label[node] += product
    return total, by_blank / total, by_label / total


@pytest.mark.parametrize("sizes", SIZES, ids=str)
class TestTheLattice:
    def test_is_the_sum_over_alignments(self, sizes: tuple[int, int, int, int]) -> None:
        z, y, blank = drawn(sizes)
        total, by_blank, by_label = enumerated(z, y, blank)
        assert log_likelihood(z, y, blank) == pytest.approx(np.log(total), rel=1e-13, abs=1e-13)
        found = occupancies(*emissions(z, y, blank))
        near(found[0], by_blank, 1e-12)
        near(found[1], by_label, 1e-12)

    def test_has_one_sum_on_every_diagonal(self, sizes: tuple[int, int, int, int]) -> None:
        z, y, blank = drawn(sizes)
        given = emissions(z, y, blank)
        nodes = np.exp(forward_variables(*given) + backward_variables(*given))
        T, width = nodes.shape
        diagonal = np.add.outer(np.arange(T), np.arange(width))
        sums = np.bincount(diagonal.ravel(), nodes.ravel())
        near(sums, np.full(len(sums), np.exp(log_likelihood(z, y, blank))), 1e-12)

    def test_has_the_gradient_of_differences(self, sizes: tuple[int, int, int, int]) -> None:
        z, y, blank = drawn(sizes)
        _, dz = loss(z, y, blank)
        near(dz, differences(lambda moved: -log_likelihood(moved, y, blank), z), 1e-7)

    @pytest.mark.parametrize("fastemit", [0.0, 0.3])
    def test_labels_count_more_with_fastemit(
        self, sizes: tuple[int, int, int, int], fastemit: float
    ) -> None:
        """The gradient is that of the expected log-probability of what is emitted."""
        z, y, blank = drawn(sizes)
        by_blank, by_label = occupancies(*emissions(z, y, blank))

        def expected(moved: Array) -> float:
            b, label = emissions(moved, y, blank)
            labels = np.sum(by_label[:, :-1] * label[:, :-1])
            return -float(np.sum(by_blank * b) + (1 + fastemit) * labels)

        near(loss(z, y, blank, fastemit)[1], differences(expected, z), 1e-7)


def test_the_joint_network_has_the_gradient_of_differences() -> None:
    rng = np.random.default_rng(0)
    shapes = (3, 4), (2, 4), (5, 4), (5,)
    joint = Joint(*(rng.standard_normal(shape) for shape in shapes))
    upstream = rng.standard_normal(join(joint).shape)
    found = join_backward(upstream, joint)
    for name, array in joint._asdict().items():

        def value(moved: Array, name: str = name) -> float:
            return float(np.vdot(upstream, join(joint._replace(**{name: moved}))))

        near(getattr(found, name), differences(value, array), 1e-7)


def differences(function: Any, array: Array) -> Array:
    """The gradient by central differences."""
    found, eps = np.empty_like(array), 1e-5
    for index in np.ndindex(array.shape):
        step = np.zeros_like(array)
        step[index] = eps
        found[index] = (function(array + step) - function(array - step)) / (2 * eps)
    return found
