"""Pictures of trees. They need matplotlib: pip install 'rnncore[plot]'."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, check_size
from ..training.plots import axes_for, finished

if TYPE_CHECKING:
    from .forest import Forest

_LEVEL, _GAP = 0.45, 0.8  # inches from level to level, and from line to line


def plot(
    forest: Forest,
    path: str | os.PathLike[str] | None = None,
    values: npt.ArrayLike | None = None,
    *,
    title: str = "",
    value_name: str = "",
    leaves_per_line: int = 32,
    ax: Any = None,
) -> Any:
    """Draw every tree, its foot in reading order; return the figure.

    Labels stand below leaves and beside inner nodes. values `(N,)`: a number for each node, written
    above inner nodes and shown as a colour; NaN where there is none. Trees follow each other like
    words: a new line begins when `leaves_per_line` would be exceeded. path, ax: as for
    `rnncore.training.plots.plot_history`. Raises `ImportError` without matplotlib.
    """
    shown = None if values is None else as_array("values", values, "float64")
    if shown is not None and shown.shape != (forest.nodes,):
        raise ValueError(f"values must have shape ({forest.nodes},), got {shown.shape}")
    if not len(forest):
        raise ValueError("this forest has no trees to draw")
    names = ["" if label is None else str(label) for label in forest.labels or [""] * forest.nodes]
    unit = max(0.3, 0.09 * (2 + max(len(names[leaf]) for leaf in forest.leaves)))
    x, y = layout(forest, check_size("leaves_per_line", leaves_per_line))
    x, y = x * unit, y * _LEVEL
    size = (np.ptp(x) + 2 * unit + (1 if shown is not None else 0), np.ptp(y) + 1.3)
    axes = axes_for(ax, size, title=title)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(x.min() - unit, x.max() + unit)
    axes.set_ylim(y.min() - 0.4, y.max() + 0.4)
    inner = np.flatnonzero(forest.parent >= 0)
    ends = np.stack([inner, forest.parent[inner]], axis=1)
    lines = list(np.stack([x, y], axis=1)[ends])
    _edges(axes, lines)
    _nodes(axes, (x, y), shown, value_name)
    _words(axes, forest, names, (x, y), shown)
    return finished(axes, path)


def _edges(axes: Any, lines: list[Array]) -> None:
    """Draw a line from each node to its parent."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(lines, color="0.6", linewidth=1))


def _nodes(axes: Any, at: tuple[Array, Array], values: Array | None, name: str) -> None:
    """Draw a dot for each node, coloured by its value."""
    if values is None:
        axes.scatter(*at, s=12, color="0.3", zorder=2)
        return
    known = np.isfinite(values)
    axes.scatter(at[0][~known], at[1][~known], s=12, color="0.3", zorder=2)
    dots = axes.scatter(at[0][known], at[1][known], s=36, c=values[known], zorder=2)
    figure = axes.figure
    shrink = min(0.8, 3 / finished(axes, None).get_figheight())  # at most three inches high
    figure.colorbar(dots, ax=axes, label=name, shrink=shrink, aspect=20, fraction=0.05, pad=0.02)


def _words(
    axes: Any, forest: Forest, names: list[str], at: tuple[Array, Array], values: Array | None
) -> None:
    """Write labels and values beside the dots."""
    below = {"xytext": (0, -5), "ha": "center", "va": "top"}
    beside = {"xytext": (5, 0), "va": "center", "size": 8}
    above = {"xytext": (0, 5), "ha": "center", "size": 6}
    above["bbox"] = {"color": "white", "alpha": 0.7, "pad": 0}

    def write(text: str, point: list[float], how: dict[str, Any]) -> None:
        axes.annotate(text, point, textcoords="offset points", parse_math=False, **how)

    for node, (name, *point) in enumerate(zip(names, *at, strict=True)):
        inner = bool(forest.children[node])
        if values is not None and inner and np.isfinite(values[node]):
            write(f"{values[node]:.2g}", point, above)
        if name:
            write(name, point, beside if inner else below)


def layout(forest: Forest, leaves_per_line: int) -> tuple[Array, Array]:
    """Return x and y of each node, in leaves and in levels.

    Leaves are evenly spaced, parents stand above the middle of their first and last child, as high
    as they have levels below.
    """
    first, last = _places(forest, forest.spans[:, 0].astype(float))
    column, line = _lines(forest.spans[forest.roots, 1], leaves_per_line)
    tree = np.repeat(np.arange(len(forest)), np.diff(forest.begin))
    height = forest.levels[forest.roots]
    tallest = np.zeros(line[-1] + 1)
    np.maximum.at(tallest, line, height)
    foot = -np.cumsum(tallest + _GAP / _LEVEL)
    return (first + last) / 2 + column[tree], forest.levels + foot[line[tree]]


def _places(forest: Forest, leaf: Array) -> tuple[Array, Array]:
    """The x of each node's first and last child; of a leaf its own, twice."""
    first, last = leaf.copy(), leaf.copy()
    for node in np.argsort(forest.levels, kind="stable"):
        if kids := forest.children[node]:
            ends = [(first[kid] + last[kid]) / 2 for kid in (kids[0], kids[-1])]
            first[node], last[node] = ends
    return first, last


def _lines(widths: Array, most: int) -> tuple[Array, Array]:
    """The first column and the line of each tree, a column free between neighbours."""
    column, line = np.zeros((2, len(widths)), np.int64)
    at = number = 0
    for tree, width in enumerate(widths):
        if at and at + width > most:
            at, number = 0, number + 1
        column[tree], line[tree] = at, number
        at += width + 1
    return column, line
