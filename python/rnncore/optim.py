"""Optimisers: torch's formulas and defaults, in place, with nothing allocated once they run.

All parameters of a module are treated as one long vector, cut into blocks that stay in the cache
while the dozen passes of an update go over them. Small parameters share a block, so that a small
model costs a dozen NumPy calls and not a dozen per parameter. (10 million float32 parameters, Adam:
36 ms whole, 22 ms in blocks of 32768; blocks of 4096 lose to call overhead, 42 ms.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .arrays import Array, check_flag, check_number, short
from .hinting import Hinting
from .module import Module, modules
from .parameters import copy_into, distinct, fitting

BLOCK = 32768
# OpenBLAS cuts longer dot products between threads, and then their bits depend on how many.
_DOT_BLOCK = 8192
#: Steps that a file may tell: more than that is no count of anything.
_MOST_STEPS = 1 << 62


class _Piece(NamedTuple):
    """The part of one parameter that lies in a block: flat views."""

    param: Array
    grad: Array
    update: Array


class _Block(NamedTuple):
    """A stretch of the long vector: `update` and `scratch` are work space shared by all blocks."""

    pieces: list[_Piece]
    update: Array
    scratch: Array
    slots: list[Array]


class Optimiser(Hinting):
    """Base of the optimisers: `step` subtracts what `_update` makes of each gradient.

    `lr` is a number or a function of the number of steps done before (see `rnncore.schedules`) and
    may be replaced at any time. `steps` counts the steps done. A parameter that a module holds
    under several names is updated once. The module's parameters must have one dtype.
    """

    _decoupled_decay = False

    def __init__(
        self,
        module: Module,
        lr: float | Callable[[int], float],
        *,
        weight_decay: float = 0.0,
        slots: tuple[str, ...] = (),
    ) -> None:
        _check_module(module)
        if not callable(lr):
            _not_negative("lr", lr)
        _not_negative("weight_decay", weight_decay)
        self.lr = lr
        self.weight_decay = float(weight_decay)
        self.steps = 0
        self._module = module
        self._build(dict.fromkeys(slots))

    def _build(self, slots: Mapping[str, Array | None]) -> None:
        """Cut the parameters into blocks; a slot without values is zero."""
        self._moves = Module._moves
        self._params, self._grads = _distinct(self._module)
        if not self._params:
            kind = type(self._module).__name__
            raise ValueError(f"module must have parameters to optimise: this {kind} has none")
        dtype, size = _common_dtype(self._params), sum(p.size for p in self._params.values())
        self._slots = {
            name: np.zeros(size, dtype) if values is None else np.array(values)
            for name, values in slots.items()
        }
        self._blocks = _cut(self._params, self._grads, list(self._slots.values()), dtype, size)

    def __getstate__(self) -> dict[str, Any]:
        views = ("_params", "_grads", "_blocks", "_moves")
        return {name: value for name, value in vars(self).items() if name not in views}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._build(self._slots)

    @property
    def learning_rate(self) -> float:
        """The rate that the next step will use."""
        return float(self.lr(self.steps) if callable(self.lr) else self.lr)

    def step(self) -> None:
        """Update every parameter from its gradient.

        Raises `RuntimeError` where the module has got other parameters in the meantime.
        """
        self._follow()
        held = {id(param) for part in modules(self._module) for param in part._params.values()}
        if held != set(map(id, self._params.values())):
            raise RuntimeError("the module has other parameters by now: make another optimiser")
        rate = self.learning_rate
        self.steps += 1
        for block in self._blocks:
            for piece in block.pieces:
                self._gather(piece, rate)
            self._update(rate, block.update, block.scratch, *block.slots)
            for param, _, update in block.pieces:
                np.subtract(param, update, out=param)

    def _follow(self) -> None:
        """Look again where parameters and gradients lie if some have moved; the slots stay."""
        if self._moves != Module._moves:
            params, _ = _distinct(self._module)
            if _shapes(params) == _shapes(self._params):
                self._build(self._slots)

    def zero_grad(self) -> None:
        """Set every gradient to zero, in place."""
        self._follow()
        for grad in self._grads.values():
            grad.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that an exact resume needs: `steps` and arrays `<slot>.<parameter>`."""
        return {name: array.copy() for name, array in self._state().items()}

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Copy in what `state_dict` gave. Raises `ValueError` naming all that does not fit."""
        mine = self._state()
        found = fitting(mine, state)
        if found["steps"][0] < 0:
            raise ValueError(f"steps must be at least 0, got {found['steps'][0]}")
        if found["steps"][0] >= _MOST_STEPS:
            raise ValueError(f"steps must be below {_MOST_STEPS}, got {found['steps'][0]}")
        copy_into(mine, found)
        self.steps = int(found["steps"][0])

    def _state(self) -> dict[str, Array]:
        """Views of the slots under the parameters' names and shapes, and a copy of `steps`."""
        state: dict[str, Array] = {"steps": np.array([self.steps], np.int64)}
        for slot, whole in self._slots.items():
            at = 0
            for name, param in self._params.items():
                state[f"{slot}.{name}"] = whole[at : at + param.size].reshape(param.shape)
                at += param.size
        return state

    def _gather(self, piece: _Piece, rate: float) -> None:
        """Put the gradient, with its weight decay, where the update is computed."""
        param, grad, update = piece
        if not self.weight_decay:
            np.copyto(update, grad)
        elif self._decoupled_decay:
            np.copyto(update, grad)
            np.multiply(param, 1 - rate * self.weight_decay, out=param)
        else:
            np.multiply(param, self.weight_decay, out=update)
            np.add(update, grad, out=update)

    def _update(self, rate: float, g: Array, scratch: Array, *slots: Array) -> None:
        """Turn the gradients `g` of one block, in place, into what is to be subtracted."""
        raise NotImplementedError


class SGD(Optimiser):
    """Stochastic gradient descent, with momentum as in torch.

    v = momentum * v + g;  p -= lr * v      (nesterov: p -= lr * (g + momentum * v))
    """

    def __init__(
        self,
        module: Module,
        lr: float | Callable[[int], float] = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        _not_negative("momentum", momentum)
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum above 0")
        self.momentum, self.nesterov = float(momentum), nesterov
        slots = ("momentum_buffer",) if momentum else ()
        super().__init__(module, lr, weight_decay=weight_decay, slots=slots)

    def _update(self, rate: float, g: Array, scratch: Array, *slots: Array) -> None:
        if not slots:
            g *= rate
            return
        (velocity,) = slots
        velocity *= self.momentum
        velocity += g
        if self.nesterov:
            np.multiply(velocity, self.momentum, out=scratch)
            g += scratch
            g *= rate
        else:
            np.multiply(velocity, rate, out=g)


class Adam(Optimiser):
    """Adam (Kingma and Ba 2015, algorithm 1).

    m = b1 * m + (1 - b1) * g;  v = b2 * v + (1 - b2) * g^2
    p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
    """

    def __init__(
        self,
        module: Module,
        lr: float | Callable[[int], float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas must be a pair of numbers, got {short(betas)}")
        for beta in betas:
            _fraction("betas", beta)
        _not_negative("eps", eps)
        self.betas, self.eps = (float(betas[0]), float(betas[1])), float(eps)
        super().__init__(module, lr, weight_decay=weight_decay, slots=("exp_avg", "exp_avg_sq"))

    def _update(self, rate: float, g: Array, scratch: Array, *slots: Array) -> None:
        mean, square = slots
        beta1, beta2 = self.betas
        np.subtract(g, mean, out=scratch)
        scratch *= 1 - beta1
        mean += scratch
        np.multiply(g, g, out=scratch)
        scratch *= 1 - beta2
        square *= beta2
        square += scratch
        # Both corrections for the start are numbers: applied to the rate and eps, not to vectors.
        root = math.sqrt(1 - beta2**self.steps)
        np.sqrt(square, out=scratch)
        scratch += self.eps * root
        np.divide(mean, scratch, out=g)
        g *= rate * root / (1 - beta1**self.steps)


class AdamW(Adam):
    """Adam with decoupled decay (Loshchilov and Hutter 2019): p = p * (1 - lr * weight_decay)."""

    _decoupled_decay = True

    def __init__(
        self,
        module: Module,
        lr: float | Callable[[int], float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(module, lr, betas, eps, weight_decay)


class RMSprop(Optimiser):
    """RMSprop (Tieleman and Hinton 2012), `centered` as in Graves 2013, equations 38 to 45.

    v = alpha * v + (1 - alpha) * g^2;  u = g / (sqrt(v) + eps)     (centered: sqrt(v - m^2))
    p -= lr * u     (momentum: b = momentum * b + u;  p -= lr * b)
    """

    def __init__(
        self,
        module: Module,
        lr: float | Callable[[int], float] = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        _fraction("alpha", alpha)
        _not_negative("eps", eps)
        _not_negative("momentum", momentum)
        self.alpha, self.eps, self.momentum = float(alpha), float(eps), float(momentum)
        self.centered = check_flag("centered", centered)
        slots = ("square_avg",) + ("grad_avg",) * self.centered
        slots += ("momentum_buffer",) * (momentum > 0)
        super().__init__(module, lr, weight_decay=weight_decay, slots=slots)

    def _update(self, rate: float, g: Array, scratch: Array, *slots: Array) -> None:
        square = slots[0]
        np.multiply(g, g, out=scratch)
        scratch *= 1 - self.alpha
        square *= self.alpha
        square += scratch
        if self.centered:
            self._variance(g, slots[1], square, scratch)
        else:
            np.copyto(scratch, square)
        np.sqrt(scratch, out=scratch)
        scratch += self.eps
        g /= scratch
        if self.momentum:
            velocity = slots[-1]
            velocity *= self.momentum
            velocity += g
            np.copyto(g, velocity)
        g *= rate

    def _variance(self, g: Array, mean: Array, square: Array, out: Array) -> None:
        np.subtract(g, mean, out=out)
        out *= 1 - self.alpha
        mean += out
        np.multiply(mean, mean, out=out)
        np.subtract(square, out, out=out)


class Adagrad(Optimiser):
    """Adagrad (Duchi et al. 2011), with torch's decay of the rate.

    s = s + g^2;  p -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)
    """

    def __init__(
        self,
        module: Module,
        lr: float | Callable[[int], float] = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        _not_negative("lr_decay", lr_decay)
        _not_negative("initial_accumulator_value", initial_accumulator_value)
        _not_negative("eps", eps)
        self.lr_decay, self.eps = float(lr_decay), float(eps)
        super().__init__(module, lr, weight_decay=weight_decay, slots=("sum",))
        self._slots["sum"].fill(initial_accumulator_value)

    def _update(self, rate: float, g: Array, scratch: Array, *slots: Array) -> None:
        total = slots[0]
        np.multiply(g, g, out=scratch)
        total += scratch
        np.sqrt(total, out=scratch)
        scratch += self.eps
        g /= scratch
        g *= rate / (1 + (self.steps - 1) * self.lr_decay)


def clip_grad_norm(module: Module, max_norm: float) -> float:
    """Scale all gradients together so that their 2-norm is at most `max_norm`; return it unscaled.

    As in torch, the factor is max_norm / (norm + 1e-6) where that is below 1. Where the norm is NaN
    or infinite no scale helps: the gradients stay as they are, and the caller sees it in what is
    returned and can leave out the step.
    """
    _check_module(module)
    _not_negative("max_norm", max_norm)
    grads = list({id(grad): grad for grad in module.grads.values()}.values())
    with np.errstate(over="ignore", invalid="ignore"):
        norm = math.sqrt(sum(_sum_of_squares(grad.reshape(-1)) for grad in grads))
    factor = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1:
        for grad in grads:
            grad *= factor
    return norm


def _sum_of_squares(flat: Array) -> float:
    parts = (flat[at : at + _DOT_BLOCK] for at in range(0, flat.size, _DOT_BLOCK))
    total = sum(float(np.dot(part, part)) for part in parts)
    if math.isfinite(total):
        return total
    # float32 overflows for gradients above 1e19, which are worth clipping.
    return float(np.sum(np.square(flat, dtype=np.float64)))


def _check_module(module: Module) -> None:
    if not isinstance(module, Module):
        raise TypeError(
            f"module must be a Module, got {type(module).__name__}: give the module itself, "
            "as in Adam(model); several go in a Chain, or in a list of a Module of your own"
        )


def _distinct(module: Module) -> tuple[dict[str, Array], dict[str, Array]]:
    """Parameters and gradients by name, each array once, under its first name."""
    params, grads = module.params, module.grads
    once = distinct(params)
    return once, {name: grads[name] for name in once}


def _shapes(params: Mapping[str, Array]) -> dict[str, Any]:
    return {name: (param.shape, param.dtype) for name, param in params.items()}


def _common_dtype(params: Mapping[str, Array]) -> np.dtype[np.generic]:
    dtypes = {param.dtype for param in params.values()}
    if len(dtypes) > 1:
        raise ValueError(f"all parameters must have one dtype, got {sorted(map(str, dtypes))}")
    return dtypes.pop()


def _cut(
    params: Mapping[str, Array],
    grads: Mapping[str, Array],
    slots: list[Array],
    dtype: np.dtype[np.generic],
    size: int,
) -> list[_Block]:
    """Lay the parameters end to end and cut them into blocks of at most `BLOCK` elements."""
    update, scratch = np.empty((2, min(BLOCK, size)), dtype)
    flat = [(_flat(name, params[name]), _flat(name, grads[name])) for name in params]
    starts = np.cumsum([0, *(param.size for param, _ in flat)]).tolist()
    blocks = []
    for begin in range(0, size, BLOCK):
        end = min(begin + BLOCK, size)
        pieces = []
        for (param, grad), (first, last) in zip(flat, pairwise(starts), strict=True):
            low, high = max(first, begin), min(last, end)
            if low < high:
                part = slice(low - first, high - first)
                pieces.append(_Piece(param[part], grad[part], update[low - begin : high - begin]))
        views = [slot[begin:end] for slot in slots]
        blocks.append(_Block(pieces, update[: end - begin], scratch[: end - begin], views))
    return blocks


def _flat(name: str, array: Array) -> Array:
    if not array.flags.c_contiguous:
        raise ValueError(f"parameter {name!r} and its gradient must be C-contiguous")
    return array.reshape(-1)


def _not_negative(name: str, value: float) -> None:
    if not check_number(name, value) >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")


def _fraction(name: str, value: float) -> None:
    if not 0 <= check_number(name, value) < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
