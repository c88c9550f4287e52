"""Where the error of an int8 LSTM comes from: its steps in NumPy, parts of them rounded.

python benchmarks/quantized_error.py                # some seconds
python benchmarks/quantized_error.py --size 1024 --steps 16
python benchmarks/quantized_error.py --quick        # does it work?

An LSTM in float64, I = H, whose weights are uniform within 1 / sqrt(H), and x normal, as in
`quantized.py`. Weights W of x and U of h have a scale for each row, max / 127; x and h one for
each row and time step, likewise, or the one that is named. Errors are those of h over all steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rnncore.arrays import Array
from rnncore.commands.measure.report import table


@dataclass(frozen=True)
class Rounding:
    """How many steps a side the largest number of a row is; 0: as it is. `fixed`: of 1, for h."""

    x: int = 0
    h: int = 0
    weights_of_x: int = 0
    weights_of_h: int = 0
    fixed: bool = False


CASES = {
    "all, as rnncore does": Rounding(127, 127, 127, 127),
    "all, h by a fixed scale of 1 / 127": Rounding(127, 127, 127, 127, fixed=True),
    "x alone": Rounding(x=127),
    "W alone": Rounding(weights_of_x=127),
    "h alone": Rounding(h=127),
    "h alone, by a fixed scale of 1 / 127": Rounding(h=127, fixed=True),
    "U alone": Rounding(weights_of_h=127),
    "all but h": Rounding(127, 0, 127, 127),
    "all but x": Rounding(0, 127, 127, 127),
    "all, x in 9 bits": Rounding(254, 127, 127, 127),
}


def rounded(rows: Array, steps: int, largest: float | None = None) -> Array:
    """Rows as whole numbers of so many steps a side, times a scale of each."""
    if steps == 0:
        return rows
    size = np.abs(rows).max(axis=-1, keepdims=True) if largest is None else largest
    scale = np.where(size == 0, 1, size) / steps
    return np.rint(rows / scale) * scale


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Model:
    """An LSTM with weights and inputs drawn."""

    def __init__(self, steps: int, rows: int, size: int) -> None:
        rng = np.random.default_rng(0)
        most = 1 / np.sqrt(size)
        self.w, self.u = rng.uniform(-most, most, (2, 4 * size, size))
        self.b = rng.uniform(-most, most, (2, 4 * size)).sum(axis=0)
        self.x = rng.standard_normal((steps, rows, size))

    def states(self, how: Rounding) -> Array:
        """All h `(T, B, H)` where parts are rounded."""
        w, u = rounded(self.w, how.weights_of_x), rounded(self.u, how.weights_of_h)
        h = c = np.zeros(self.x.shape[1:])
        found = []
        for x in self.x:
            before = rounded(h, how.h, 1.0 if how.fixed else None)
            i, f, g, o = np.split(rounded(x, how.x) @ w.T + before @ u.T + self.b, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            found.append(h)
        return np.array(found)


def errors(model: Model, cases: Sequence[Rounding]) -> list[tuple[float, float]]:
    """The largest error of each case, and the root of the mean square."""
    exact = model.states(Rounding())
    off = [np.abs(model.states(case) - exact) for case in cases]
    return [(float(each.max()), float(np.sqrt(np.mean(each**2)))) for each in off]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=32, help="of time (default: 32)")
    parser.add_argument("--rows", type=int, default=64, help="of the batch (default: 64)")
    parser.add_argument("--size", type=int, default=256, help="of x and h (default: 256)")
    parser.add_argument("--quick", action="store_true", help="a small model")
    args = parser.parse_args()
    steps, rows, size = (4, 2, 16) if args.quick else (args.steps, args.rows, args.size)
    found = errors(Model(steps, rows, size), list(CASES.values()))
    lines = [
        [name, f"{most:.4f}", f"{mean:.5f}"]
        for name, (most, mean) in zip(CASES, found, strict=True)
    ]
    print(table(["rounded to 8 bits", "largest error", "root mean square"], lines))
    print(f"result: all={found[0][1]:.4g} x={found[2][1]:.4g} w={found[3][1]:.4g}")


if __name__ == "__main__":
    main()
