"""Learning rates that change: functions that return a function from the step (0, 1, ...) to a rate.

opt = Adam(model, lr=warmup_cosine(3e-3, total=5000, warmup=100))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Return `lr` at every step."""
    return lambda step: lr


def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """Multiply the rate by `factor` after every `every` steps: lr * factor^floor(step / every)."""
    _positive("every", every)
    return lambda step: lr * _power(factor, step // every)


def exponential(lr: float, factor: float) -> Schedule:
    """Multiply the rate by `factor` after every step: lr * factor^step."""
    return lambda step: lr * _power(factor, step)


def warmup_cosine(lr: float, total: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Rise linearly to `lr` over `warmup` steps, then fall along half a cosine to `final`.

    The first of the warm-up steps has the rate lr / (warmup + 1), step `warmup` has `lr`, steps
    from `total` on have `final` (Loshchilov and Hutter 2017, equation 5, without restarts).
    """
    _positive("total", total)
    if not 0 <= warmup < total:
        raise ValueError(f"warmup must be in 0..{total - 1} for total={total}, got {warmup}")

    def rate(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / (warmup + 1)
        progress = min((step - warmup) / (total - warmup), 1.0)
        return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return rate


def _power(base: float, exponent: int) -> float:
    """base^exponent, infinite where Python raises `OverflowError`."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
