"""Analytic gradients against central differences, entry by entry and along random directions.

    check_layer(Linear(3, 4, dtype="float64"), x)
    check_layer(Merge("mul"), a, b)
    check_recurrent(LSTM(3, 4, dtype="float64"), x, (h, c), lengths=[5, 2])
    check_cell(LSTMCell(3, 4, dtype="float64"), x, (h, c))
    check_loss(SoftmaxCrossEntropy(), logits, targets, mask)

All take float64 inputs, check every parameter and every input of floating point, and raise
`AssertionError` naming the one that differs. Training mode is what is checked: dropout draws the
same masks for every evaluation. Arguments are copied, gradients of the module are overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rnncore.training.checkpoint import generators

TOLERANCE = 1e-7  # of the largest entry of each gradient
STEP = 1e-4
DIRECTIONS = 3
MOST_ENTRIES = 24  # of larger arrays, this many entries are drawn at random: directions see all

Evaluate = Callable[[], tuple[Any, Callable[..., Any]]]


def check_layer(module, *xs, tolerance=TOLERANCE, **kwargs):
    """Check `y, pullback = module.vjp(x)`; `dx = pullback(dy)`, of several a tuple each."""
    xs = tuple(map(_writable, xs))

    def pull(back, dy):
        dx = back(*dy) if isinstance(dy, tuple) else back(dy)
        return dx if len(xs) > 1 else (dx,)

    _check(module, xs, lambda: module.vjp(*xs, **kwargs), pull, tolerance)


def check_recurrent(module, x, state=None, *, tolerance=TOLERANCE, **kwargs):
    """Check `(y, state), pullback = module.vjp(x, state)`; `dx, dstate = pullback(dy, dstate)`."""
    x, state = _writable(x), _writable(state)
    _check(
        module,
        (x, state),
        lambda: module.vjp(x, state, **kwargs),
        lambda back, dout: back(*dout),
        tolerance,
    )


def check_cell(module, x, state, *, tolerance=TOLERANCE):
    """Check `state, pullback = module.vjp(x, state)`; `dx, dstate = pullback(dstate)`."""
    x, state = _writable(x), _writable(state)
    _check(module, (x, state), lambda: module.vjp(x, state), lambda back, d: back(d), tolerance)


def check_loss(loss, x, *args, tolerance=TOLERANCE):
    """Check `value, pullback = loss.vjp(x, *args)`; `dx = pullback(dvalue)`."""
    x = _writable(x)
    _check(None, (x,), lambda: loss.vjp(x, *args), lambda back, d: (back(d),), tolerance)


def _check(module, inputs, evaluate, pull, tolerance):
    evaluate = _repeatable(module, evaluate)
    rng = np.random.default_rng(20)
    outputs, pullback = evaluate()
    douts = [rng.standard_normal(np.shape(out)) for out in leaves(outputs)]
    if module is not None:
        module.zero_grad()
    dinputs = pull(pullback, _like(outputs, iter(douts)))

    def change(variable, direction):
        """How much <outputs, douts> changes as the variable moves along the direction."""
        return _central_difference(lambda: leaves(evaluate()[0]), douts, variable, direction)

    for name, value, gradient in _variables(module, inputs, dinputs):
        assert gradient.shape == value.shape, f"{name}: {gradient.shape} for {value.shape}"
        assert gradient.dtype == value.dtype, f"{name}: {gradient.dtype} for {value.dtype}"
        for direction in _directions(rng, value):
            numeric, analytic = change(value, direction), float(np.vdot(gradient, direction))
            # Along a direction the error adds up as the length of the direction.
            scale = max(np.abs(gradient).max(), 1e-4) * np.linalg.norm(direction)
            assert abs(numeric - analytic) <= tolerance * scale, (
                f"gradient of {name}: analytic {analytic!r}, numeric {numeric!r}"
            )


def _central_difference(outputs, douts, variable, direction):
    """Return the directional derivative, of fourth order, so that 1e-7 leaves room for rounding."""
    kept = variable.copy()

    def at(multiple):
        variable[...] = kept + multiple * STEP * direction
        result = [np.array(out, np.float64) for out in outputs()]
        variable[...] = kept
        return result

    total = 0.0
    for weight, ahead, behind in ((8, at(1), at(-1)), (-1, at(2), at(-2))):
        for dout, high, low in zip(douts, ahead, behind, strict=True):
            total += weight * float(np.vdot(dout, high - low))
    return total / (12 * STEP)


def _directions(rng, value) -> Iterator[np.ndarray]:
    entries = np.arange(value.size)
    if value.size > MOST_ENTRIES:
        entries = rng.choice(entries, MOST_ENTRIES, replace=False)
    for entry in entries:
        unit = np.zeros(value.size)
        unit[entry] = 1
        yield unit.reshape(value.shape)
    if value.size:
        for _ in range(DIRECTIONS):
            yield rng.standard_normal(value.shape)


def _variables(module, inputs, dinputs) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, value and analytic gradient of all inputs and parameters."""
    for at, (value, gradient) in enumerate(zip(inputs, dinputs, strict=True)):
        for part, pair in enumerate(_pairs(value, gradient)):
            yield f"input {at}, array {part}", *pair
    if module is not None:
        grads = module.grads
        assert list(grads) == list(module.params)
        for name, value in module.params.items():
            yield f"parameter {name}", value, grads[name]


def _pairs(value, gradient) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the arrays of an input that was given, each with its gradient."""
    if value is None:
        return
    if isinstance(value, tuple):
        for pair in zip(value, gradient, strict=True):
            yield from _pairs(*pair)
    elif value.dtype.kind == "f":
        yield value, gradient
    else:
        assert gradient is None, f"the gradient of {value.dtype} must be None"


def _repeatable(module, evaluate: Evaluate) -> Evaluate:
    """Draw the same random numbers in every evaluation."""
    found = generators(module).values() if module is not None else []
    states = [(generator, generator.bit_generator.state) for generator in found]

    def run():
        for generator, state in states:
            generator.bit_generator.state = state
        return evaluate()

    return run


def leaves(tree) -> list[np.ndarray]:
    """Return the arrays of nested tuples, in order; None has none."""
    if tree is None:
        return []
    if isinstance(tree, (tuple, list)):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [np.asarray(tree)]


def _like(tree, arrays):
    """Put the next arrays in the places of the tree's leaves."""
    if tree is None:
        return None
    if isinstance(tree, (tuple, list)):
        return tuple(_like(branch, arrays) for branch in tree)
    return next(arrays)


def _writable(tree):
    """Copy the arrays of nested tuples; those of floating point must be float64."""
    if tree is None:
        return None
    if isinstance(tree, (tuple, list)):
        return tuple(_writable(branch) for branch in tree)
    copy = np.array(tree)
    assert copy.dtype == np.float64 or copy.dtype.kind in "iub", "gradients need float64"
    return copy
