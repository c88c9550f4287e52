"""Softmax, and what makes means zero and variances one."""

from __future__ import annotations

import numpy as np

from ....arrays import Array
from ....layers.activations import Softmax
from ....layers.layer_norm import LayerNorm
from .arguments import Operator, check_plain
from .shapes import flatten

#: What Softmax and LogSoftmax were before version 13.
FLAT_SOFTMAX, FLAT_LOG_SOFTMAX = "rnncore.FlatSoftmax", "rnncore.FlatLogSoftmax"


def _softmax(x: Array, *, axis: int = -1) -> Array:
    return Softmax(axis)(x)


def _log_softmax(x: Array, *, axis: int = -1) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    y: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return y


def _flat(function: Operator) -> Operator:
    """Over all axes from `axis` on together, as it was before version 13."""
    return lambda x, *, axis=1: function(flatten(x, axis=axis)).reshape(x.shape)


def _layer_normalization(
    x: Array,
    scale: Array,
    bias: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Array:
    layer = LayerNorm(x.shape[axis:], epsilon, dtype=x.dtype)
    layer.params["weight"] = np.broadcast_to(scale, x.shape[axis:])
    layer.params["bias"] = np.broadcast_to(0 if bias is None else bias, x.shape[axis:]).astype(
        x.dtype
    )
    return layer(x)


def _by_channel(values: Array, x: Array) -> Array:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _batch_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> Array:
    """By the means and variances of the file, `(C,)` each."""
    check_plain(training_mode=training_mode)
    if not spatial:
        raise ValueError("rnncore cannot represent spatial=0")
    factor = scale / np.sqrt(variance + variance.dtype.type(epsilon))
    y: Array = (x - _by_channel(mean, x)) * _by_channel(factor, x) + _by_channel(bias, x)
    return y.astype(x.dtype)


def _standard(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Less the mean over some axes, over the deviation."""
    centred = x - x.mean(axes, keepdims=True)
    variance = np.square(centred).mean(axes, keepdims=True)
    y: Array = centred / np.sqrt(variance + x.dtype.type(epsilon))
    return y


def _scaled(y: Array, scale: Array, bias: Array) -> Array:
    z: Array = y * _by_channel(scale, y) + _by_channel(bias, y)
    return z


def _instance_normalization(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5) -> Array:
    y = _standard(x, tuple(range(2, x.ndim)), epsilon)
    return _scaled(y, scale, bias)


def _group_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Array:
    """scale and bias `(C,)`; before version 21 one a group."""
    each = x.shape[1] // num_groups
    parts = x.reshape(x.shape[0], num_groups, each, *x.shape[2:])
    y = _standard(parts, tuple(range(2, parts.ndim)), epsilon).reshape(x.shape)
    weight, shift = (np.repeat(a, each) if len(a) == num_groups else a for a in (scale, bias))
    return _scaled(y, weight, shift)


def _rms_normalization(
    x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    along = tuple(range(axis % x.ndim, x.ndim))
    mean = np.square(x).mean(along, keepdims=True)
    y: Array = x / np.sqrt(mean + x.dtype.type(epsilon)) * scale
    return y


def _lp_normalization(x: Array, *, axis: int = -1, p: int = 2) -> Array:
    norm = np.linalg.norm(x, p, axis, keepdims=True).astype(x.dtype)
    y: Array = np.divide(x, norm, out=np.zeros_like(x), where=norm != 0)
    return y


OPERATORS: dict[str, Operator] = {
    FLAT_LOG_SOFTMAX: _flat(_log_softmax),
    FLAT_SOFTMAX: _flat(_softmax),
    "BatchNormalization": _batch_normalization,
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "RMSNormalization": _rms_normalization,
    "Softmax": _softmax,
}

#: What operators were called here in versions before the one given.
EARLIER = {"LogSoftmax": (13, FLAT_LOG_SOFTMAX), "Softmax": (13, FLAT_SOFTMAX)}
