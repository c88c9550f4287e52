"""How near is near: named arrays against each other, gradients against central differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from tests.support.cases import Named, Numbers


def assert_close(got: Named, want: Named, tolerance: float) -> None:
    """The same names and shapes, and every error within `tolerance` of the largest magnitude."""
    assert got.keys() == want.keys()
    for name, expected in want.items():
        assert got[name].shape == expected.shape, name
        error = np.max(np.abs(got[name] - expected), initial=0)
        largest = np.max(np.abs(expected), initial=0)
        assert error <= tolerance * largest, f"{name} is off by {error:.3g} of {largest:.3g}"


def assert_same(got: Named, want: Named) -> None:
    """The same names, shapes, dtypes and bits."""
    assert got.keys() == want.keys()
    for name, expected in want.items():
        assert (got[name].dtype, got[name].shape) == (expected.dtype, expected.shape), name
        assert got[name].tobytes() == expected.tobytes(), f"{name} differs in some bit"


def near(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Within `tolerance` of the largest magnitude."""
    assert np.shape(got) == np.shape(expected)
    error = np.abs(np.subtract(got, expected, dtype=np.float64)).max(initial=0)
    assert error <= tolerance * np.abs(expected).max(initial=0)


#: From a case's numbers to its outputs.
Outputs = Callable[[Numbers], Named]


def loss(outputs: Named, upstream: Named) -> float:
    """A number whose gradient with respect to the outputs is `upstream`."""
    return float(sum(np.vdot(upstream[name], outputs[name]) for name in upstream))


def difference(outputs: Outputs, numbers: Numbers, step: Named) -> float:
    """The central difference of the loss over `step`, half of it each way."""
    ends = []
    for sign in (1, -1):
        moved = {name: numbers.inputs[name] + sign * step[name] for name in step}
        there = replace(numbers, inputs=numbers.inputs | moved)
        ends.append(loss(outputs(there), numbers.upstream))
    return (ends[0] - ends[1]) / 2


def assert_gradients(
    outputs: Outputs, numbers: Numbers, gradients: Named, tolerance: float = 1e-7
) -> None:
    """Every entry of every gradient agrees with its central difference."""
    eps = 1e-5
    for name, array in numbers.inputs.items():
        numerical = np.empty_like(array)
        for index in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[index] = eps
            numerical[index] = difference(outputs, numbers, {name: step}) / eps
        assert_close({name: gradients[name]}, {name: numerical}, tolerance)


def assert_gradient_along(
    outputs: Outputs, numbers: Numbers, gradients: Named, tolerance: float = 1e-7
) -> None:
    """The gradients agree with a central difference along a random direction of all inputs.

    The error is measured against what a random unit direction shows of a gradient g of n entries,
    which is |g| / sqrt(n).
    """
    eps = 1e-5
    rng = np.random.default_rng(0)
    direction = {name: rng.standard_normal(array.shape) for name, array in numbers.inputs.items()}
    length = np.sqrt(sum(np.vdot(d, d) for d in direction.values()))
    direction = {name: d / length for name, d in direction.items()}
    step = {name: eps * d for name, d in direction.items()}
    numerical = difference(outputs, numbers, step) / eps
    analytic = sum(np.vdot(gradients[name], d) for name, d in direction.items())
    entries = np.concatenate([gradients[name].ravel() for name in direction])
    typical = np.sqrt(np.mean(entries**2))
    assert abs(numerical - analytic) <= tolerance * typical


def assert_gradients_of(
    loss: Callable[[], float], pairs: Iterable[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Each array's gradient agrees with a central difference of `loss` along a random direction.

    The arrays are moved in place and put back.
    """
    eps, rng = 1e-5, np.random.default_rng(0)
    for array, gradient in pairs:
        direction, kept = rng.standard_normal(array.shape), array.copy()
        array += eps * direction
        above = loss()
        array[...] = kept - eps * direction
        difference = (above - loss()) / (2 * eps)
        array[...] = kept
        assert abs(difference - np.vdot(gradient, direction)) <= 1e-7 * np.linalg.norm(gradient)
