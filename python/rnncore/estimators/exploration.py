"""What an exploration found: a row for each candidate, the table and the picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import t as student

from ..training.plots import axes_for, finished, require_matplotlib


@dataclass(frozen=True)
class Divergence:
    """A run that ended in a number that is not finite: in training, or (None) in the score."""

    seed: int
    updates: int | None
    layer: str | None
    step: int | None

    def __str__(self) -> str:
        """Say where and when."""
        if self.updates is None:
            return f"seed {self.seed} has no finite score"
        said = f"seed {self.seed} diverged after {self.updates} updates"
        if self.layer is None:
            return said
        place = f"layer {self.layer}" if self.layer else "the network"
        return f"{said} in " + (place if self.step is None else f"time step {self.step} of {place}")


@dataclass(frozen=True)
class Row:
    """A candidate, and what its seeds reached on the validation part.

    settings: the estimator's parameters that make it; options: those of them that were drawn;
    passes: over the training part, as many as successive halving gave it; scores: of each seed, NaN
    where it diverged; seconds: of training, the mean over the seeds.
    """

    architecture: str
    settings: dict[str, Any]
    options: dict[str, Any]
    hidden_size: int
    parameters: int
    passes: int
    scores: tuple[float, ...]
    seconds: float
    diverged: tuple[Divergence, ...] = ()

    @property
    def score(self) -> float:
        """The mean over the seeds; NaN if one of them diverged."""
        return float(np.mean(self.scores))

    @property
    def interval(self) -> float:
        """Half the width of the 95 % interval of the mean, by Student's t; NaN of one seed."""
        count = len(self.scores)
        if count < 2:
            return math.nan
        deviation = float(np.std(self.scores, ddof=1))
        return float(student.ppf(0.975, count - 1)) * deviation / math.sqrt(count)

    def cells(self) -> list[str]:
        """Return what the table says of it."""
        interval = "" if math.isnan(self.interval) else f" ± {self.interval:.4f}"
        score = "diverged" if self.diverged else f"{self.score:.4f}{interval}"
        drawn = [f"{name}={_shown(value)}" for name, value in self.options.items()]
        notes = ", ".join(drawn + [str(run) for run in self.diverged])
        return [
            *(self.architecture, str(self.hidden_size), f"{self.parameters:,}", str(self.passes)),
            *(score, f"{self.seconds:.1f}", notes),
        ]


HEADINGS = ["architecture", "width", "parameters", "passes", "score", "seconds", ""]


@dataclass(frozen=True)
class Exploration:
    """What `explore` found: `rows`, the best first; printed, it is their table.

    Rows that came further stand before others, those that diverged last.
    """

    rows: list[Row] = field(default_factory=list)

    @property
    def best(self) -> Row:
        """The best row; `ValueError` if all diverged."""
        for row in self.rows:
            if not row.diverged:
                return row
        raise ValueError("every candidate diverged: draw smaller learning rates, or clip more")

    def shown(self) -> list[Row]:
        """Return the best row of each architecture and budget, and all that diverged."""
        found: dict[Any, Row] = {}
        for row in self.rows:
            if not row.diverged:
                width = None if "hidden_size" in row.options else row.hidden_size
                found.setdefault((row.architecture, width), row)
        drawn = any(row.options for row in self.rows)
        best = list(found.values()) if drawn else [row for row in self.rows if not row.diverged]
        return best + [row for row in self.rows if row.diverged]

    def table(self, every: bool = False) -> str:
        """Return the table; where options were drawn, `every` row of an architecture or its best.

        A score stands with its 95 % interval over the seeds.
        """
        rows = self.rows if every else self.shown()
        lines = [HEADINGS, *(row.cells() for row in rows)]
        if not any(line[-1] for line in lines):
            lines = [line[:-1] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        left = {0, 6}
        return "\n".join(
            "  ".join(
                cell.ljust(width) if at in left else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def __str__(self) -> str:
        return self.table()

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw scores against size and time of training; return the figure. Needs matplotlib.

        A line for each architecture, its points with intervals over the seeds; hollow points were
        given up early. path: a file to be saved, whose ending chooses the format.
        """
        require_matplotlib()
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 4.5), layout="constrained")
        by_size, by_time = figure.subplots(1, 2, sharey=True)
        rows = [row for row in self.shown() if not row.diverged]
        sizes, seconds = [row.parameters for row in rows], [row.seconds for row in rows]
        axes_for(by_size, (0, 0), xlabel="parameters", ylabel="score", xscale=_scale(sizes))
        axes_for(by_time, (0, 0), xlabel="seconds of training", xscale=_scale(seconds))
        last = max((row.passes for row in rows), default=0)
        for at, name in enumerate(dict.fromkeys(row.architecture for row in rows)):
            own = sorted(
                (row for row in rows if row.architecture == name), key=lambda row: row.parameters
            )
            _draw(by_size, [row.parameters for row in own], own, last, f"C{at % 10}", name)
            _draw(by_time, [row.seconds for row in own], own, last, f"C{at % 10}", name)
        by_time.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return finished(by_size, path)


def _scale(sizes: Sequence[float]) -> str:
    """Logarithmic where sizes differ much, as those of several budgets do."""
    return "log" if sizes and max(sizes) > 10 * min(sizes) else "linear"


def _draw(
    axes: Any, sizes: Sequence[float], rows: list[Row], last: int, colour: str, name: str
) -> None:
    """Draw an architecture's line, with hollow points where it was given up early."""
    axes.plot(sizes, [row.score for row in rows], color=colour, linewidth=0.8, label=name)
    for size, row in zip(sizes, rows, strict=True):
        error = None if math.isnan(row.interval) else row.interval
        face = colour if row.passes == last else "none"
        style = {"color": colour, "markerfacecolor": face, "capsize": 3}
        axes.errorbar([size], [row.score], yerr=error, fmt="o", **style)
    axes.grid(alpha=0.3)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
