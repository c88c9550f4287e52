"""The joint network of a transducer, whose logits are computed a few at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_shape, check_kind, check_size
from ..compiled import core
from ..init import Seed
from ..layers.linear import Linear
from ..module import Module, Pullback, once


class Joined(NamedTuple):
    """What the logits of a transducer are made of: the first argument of its loss.

        z(t, u) = W tanh(f_t + g_u) + b

    The tensor of all logits, which may take gigabytes, is not computed.
    """

    f: Array  # (T, B, H)
    g: Array  # (U+1, B, H)
    joint: TransducerJoint

    def logits(self) -> Array:
        """Return all logits `(B, T, U+1, V)`."""
        f, g = np.swapaxes(self.f, 0, 1), np.swapaxes(self.g, 0, 1)
        batch, frames, width = f.shape
        labels = g.shape[1]
        rows = batch, frames, labels, width
        return self.joint.rows(
            np.broadcast_to(f[:, :, None], rows).reshape(-1, width),
            np.broadcast_to(g[:, None], rows).reshape(-1, width),
        ).reshape(batch, frames, labels, self.joint.num_labels)


class JointGradients(NamedTuple):
    """The gradient of a `Joined`, from the pullback of a loss to that of a model."""

    f: Array
    g: Array
    weight: Array  # (V, H)
    bias: Array | None  # (V,)


class TransducerJoint(Module):
    """z(t, u) = W tanh(f_t + g_u) + b, of an encoder's f_t and a prediction network's g_u.

    Graves, Mohamed and Hinton 2013, section 2.3. A call hands on f `(T, B, joint_size)` and g
    `(U+1, B, joint_size)` as they are, with this network: `TransducerLoss` computes the logits
    `(B, T, U+1, num_labels)` piece by piece, and forgets them. Parameters: those of `output`, a
    `Linear`: `output.weight (num_labels, joint_size)` and, with `bias`, `output.bias`.
    """

    def __init__(
        self,
        joint_size: int,
        num_labels: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        super().__init__()
        self.joint_size = check_size("joint_size", joint_size)
        self.num_labels = check_size("num_labels", num_labels)
        self.output = Linear(joint_size, num_labels, bias, dtype=dtype, seed=seed)
        self.dtype = self.output.dtype

    def __call__(self, f: npt.ArrayLike, g: npt.ArrayLike) -> Joined:
        """Return f and g, checked, and this network."""
        joined = Joined(self._checked("f", "T", f), self._checked("g", "U+1", g), self)
        if joined.f.shape[1] != joined.g.shape[1]:
            raise ValueError(
                f"g must have {joined.f.shape[1]} rows as f, got shape {joined.g.shape}"
            )
        return joined

    def vjp(self, f: npt.ArrayLike, g: npt.ArrayLike) -> tuple[Joined, Pullback]:
        """As a call, with the pullback: from `JointGradients` to (df, dg)."""
        joined, (weight, bias) = self(f, g), self.output.gradients()

        def pullback(d: JointGradients) -> tuple[Array, Array]:
            check_kind("d", d, JointGradients)
            df, dg, dweight = (
                as_shape(name, given, self.dtype, like.shape)
                for name, given, like in (
                    ("d.f", d.f, joined.f),
                    ("d.g", d.g, joined.g),
                    ("d.weight", d.weight, weight),
                )
            )
            if bias is not None:
                bias[...] += as_shape("d.bias", d.bias, self.dtype, bias.shape)  # type: ignore[arg-type]
            weight[...] += dweight
            return df, dg

        return joined, once(pullback)

    def rows(self, f: Array, g: Array) -> Array:
        """Return logits `(R, V)` of rows of f and g: `(R, H)`, or `(1, H)` for all rows."""
        logits: Array = self.output(core(self.dtype).joint_rows(f, g))
        return logits

    def _checked(self, name: str, steps: str, value: npt.ArrayLike) -> Array:
        array = as_array(name, value, self.dtype)
        if array.ndim != 3 or array.shape[2] != self.joint_size:
            raise ValueError(
                f"{name} must have shape ({steps}, B, {self.joint_size}), got {array.shape}"
            )
        return array
