"""What is measured: a layer of one cell, one shape, inference or training."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...arrays import Array
from ...recurrent.cell import FACTS

#: The cells, each with the kernel that it is measured with.
KERNELS = {"lstm": "lstm", "gru": "gru", "rnn": "rnn_tanh"}
#: Gates of each cell: the weights have so many times H rows.
GATES = {cell: FACTS[kernel].gates for cell, kernel in KERNELS.items()}
MODES = ("inference", "training")
#: What weights may be held in; per channel: a scale for each row, where that is a choice.
WEIGHTS = ("int8", "int8_per_channel", "bfloat16", "bfloat16_dot")

_SHAPE = re.compile(r"(?:(\d+)\.\.)?(\d+),(\d+),(\d+),(\d+)")


@dataclass(frozen=True)
class Shape:
    """T steps of B sequences, I inputs and H hidden units; written "128,32,256,256".

    "10..200,64,128,128" is a ragged batch: lengths uniform in 10..200, in any order.
    """

    steps: int
    batch: int
    inputs: int
    hidden: int
    shortest: int | None = None

    def __str__(self) -> str:
        ragged = "" if self.shortest is None else f"{self.shortest}.."
        return f"{ragged}{self.steps},{self.batch},{self.inputs},{self.hidden}"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read a shape as it is written; raises `ValueError`."""
        match = _SHAPE.fullmatch(text)
        if not match:
            raise ValueError(f"a shape is T,B,I,H or T..T,B,I,H in whole numbers, got {text!r}")
        shortest = int(match[1]) if match[1] else None
        steps, batch, inputs, hidden = map(int, match.groups()[1:])
        if not min(steps, batch, inputs, hidden) or not (
            shortest is None or 1 <= shortest <= steps
        ):
            raise ValueError(
                f"a shape has no zeros, and lengths from the shorter one, got {text!r}"
            )
        return cls(steps, batch, inputs, hidden, shortest)

    @property
    def lengths(self) -> Array | None:
        """Of a ragged batch, `(B,)`: always the same; else None."""
        if self.shortest is None:
            return None
        rng = np.random.default_rng(self.batch)
        lengths = rng.integers(self.shortest, self.steps, self.batch, np.int64, endpoint=True)
        lengths[-1] = self.steps
        return lengths

    @property
    def rows(self) -> int:
        """Steps of all sequences together."""
        return self.steps * self.batch if self.lengths is None else int(self.lengths.sum())


@dataclass(frozen=True)
class Case:
    """A layer to run: forward only, or forward and backward with all gradients.

    weights: one of `WEIGHTS`, in which an engine holds them; empty: those of `dtype`.
    """

    cell: str
    mode: str
    shape: Shape
    dtype: str = "float32"
    weights: str = ""

    def __str__(self) -> str:
        return f"{self.cell} {self.mode} {self.shape} {self.dtype} {self.weights}".rstrip()

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read a case as it is written."""
        cell, mode, shape, dtype, *weights = text.split()
        return cls(cell, mode, Shape.parse(shape), dtype, *weights)

    @property
    def training(self) -> bool:
        """Whether it goes backward too."""
        return self.mode == "training"

    @property
    def flops(self) -> int:
        """Operations in the matrix products, which are nearly all; backward has twice forward's."""
        s = self.shape
        forward = 2 * GATES[self.cell] * s.hidden * (s.inputs + s.hidden) * s.rows
        return 3 * forward if self.training else forward

    @property
    def recurrent_bytes(self) -> int:
        """Size of the recurrent weights, which every step has to read, forward and backward."""
        return GATES[self.cell] * self.shape.hidden**2 * np.dtype(self.dtype).itemsize

    @property
    def intensity(self) -> float:
        """Operations per byte of recurrent weights read: the roofline's horizontal axis."""
        reads = self.shape.steps * (2 if self.training else 1)
        return self.flops / (reads * self.recurrent_bytes)

    def params(self) -> dict[str, Array]:
        """Parameters in torch's layout; the same for every engine."""
        s, rng = self.shape, np.random.default_rng(1)
        rows, bound = GATES[self.cell] * s.hidden, s.hidden**-0.5
        shapes = {"weight_ih": (rows, s.inputs), "weight_hh": (rows, s.hidden)}
        sizes = {**shapes, "bias_ih": (rows,), "bias_hh": (rows,)}
        return {
            f"{name}_l0": bound * (2 * self._random(rng.random, size) - 1)
            for name, size in sizes.items()
        }

    def arrays(self) -> tuple[Array, Array]:
        """Inputs x `(T, B, I)` and gradients of the outputs `(T, B, H)`; for every engine alike."""
        s, rng = self.shape, np.random.default_rng(2)
        x = self._random(rng.standard_normal, (s.steps, s.batch, s.inputs))
        return x, self._random(rng.standard_normal, (s.steps, s.batch, s.hidden))

    def _random(self, draw: Callable[..., Array], size: tuple[int, ...]) -> Array:
        return draw(size, dtype=np.dtype(self.dtype).type)
