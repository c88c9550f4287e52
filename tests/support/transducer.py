"""Transducers of many sizes, what they are given, and what the reference makes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rnncore import TransducerJoint, TransducerLoss
from rnncore.alignment.joint import Joined, JointGradients
from rnncore.reference import transducer as reference

Array = npt.NDArray[Any]

#: T, U, B, V, H and the blank: sizes of one, around vectors and blocks of nodes.
SIZES = [
    (1, 0, 1, 1, 1, 0),
    (1, 3, 2, 4, 3, 2),
    (5, 0, 3, 2, 1, 1),
    (6, 3, 2, 5, 4, 4),
    (30, 7, 5, 17, 20, 3),
    (3, 9, 4, 40, 70, 39),
    (60, 20, 9, 33, 65, 5),
]
Sizes = tuple[int, int, int, int, int, int]


class Case(NamedTuple):
    """A ragged batch; what is past the ends is NaN, or no label."""

    f: Array
    g: Array
    joint: TransducerJoint
    targets: Array
    lengths: Array
    counts: Array
    blank: int

    @property
    def joined(self) -> Joined:
        return self.joint(self.f, self.g)

    @property
    def logits(self) -> Array:
        """All of them, NaN where there are none."""
        logits = self.joined.logits()
        for b in range(len(logits)):
            logits[b, self.lengths[b] :] = logits[b, :, self.counts[b] + 1 :] = np.nan
        return logits

    def vjp(self, loss: TransducerLoss, x: Any = None, **options: Any) -> tuple[Any, Any]:
        x = self.joined if x is None else x
        return loss.vjp(x, self.targets, self.lengths, self.counts, **options)

    def take(self, rows: Array) -> Case:
        return self._replace(
            f=self.f[:, rows],
            g=self.g[:, rows],
            targets=self.targets[rows],
            lengths=self.lengths[rows],
            counts=self.counts[rows],
        )


def case(sizes: Sizes, dtype: str = "float64", seed: int = 0, scale: float = 3.0) -> Case:
    T, U, B, V, H, blank = sizes
    rng = np.random.default_rng(seed)
    lengths, counts = rng.integers(1, T + 1, B), rng.integers(0, U + 1, B)
    lengths[0], counts[-1] = T, U
    labels = np.array([k for k in range(V) if k != blank] or [-1])
    targets = labels[rng.integers(len(labels), size=(B, U))]
    f, g = rng.standard_normal((T, B, H)), rng.standard_normal((U + 1, B, H))
    for b in range(B):
        f[lengths[b] :, b] = g[counts[b] + 1 :, b] = np.nan
        targets[b, counts[b] :] = rng.choice([-7, blank, 2**40], U - counts[b])
    joint = TransducerJoint(H, V, dtype=dtype, seed=seed)
    joint.output.params["weight"] *= scale
    return Case(f.astype(dtype), g.astype(dtype), joint, targets, lengths, counts, blank)


def expected(c: Case, scales: Array, fastemit: float = 0.0) -> tuple[Array, dict[str, Array]]:
    """The losses and gradients of the reference, in float64."""
    weight = c.joint.params["output.weight"].astype(np.float64)
    bias = c.joint.params["output.bias"].astype(np.float64)
    logits = np.zeros((len(c.lengths), len(c.f), len(c.g), len(bias)))
    d = {"f": np.zeros(c.f.shape), "g": np.zeros(c.g.shape), "logits": logits}
    d |= {"weight": np.zeros(weight.shape), "bias": np.zeros(bias.shape)}
    losses = []
    for b, (length, count) in enumerate(zip(c.lengths, c.counts, strict=True)):
        f, g = c.f[:length, b].astype(np.float64), c.g[: count + 1, b].astype(np.float64)
        joint = reference.Joint(f, g, weight, bias)
        value, dz = reference.loss(reference.join(joint), c.targets[b, :count], c.blank, fastemit)
        found = reference.join_backward(scales[b] * dz, joint)
        losses.append(value)
        d["logits"][b, :length, : count + 1] = scales[b] * dz
        d["f"][:length, b], d["g"][: count + 1, b] = found.f, found.g
        d["weight"] += found.weight
        d["bias"] += found.bias
    return np.array(losses), d


def named(d: JointGradients) -> dict[str, Array]:
    return {name: array for name, array in d._asdict().items() if array is not None}
