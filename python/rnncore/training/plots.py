"""Pictures of training and of attention. They need matplotlib: pip install 'rnncore[plot]'.

    figure = plot_history(trainer.history)                        # a matplotlib Figure
    plot_history(trainer.history, "losses.svg")                   # and saved
    plot_history(trainer.history, ax=axes)                        # drawn into axes of your own

Figures are made without `pyplot`: nothing opens a window or stays in memory, and a notebook shows
what a cell ends with once it has imported `matplotlib.pyplot`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import write_atomic


def require_matplotlib() -> None:
    """Raise an `ImportError` that says what to install, if matplotlib is not there."""
    try:
        import matplotlib  # noqa: F401  (imported where it is used, to keep `import rnncore` quick)
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'rnncore[plot]'") from error


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a matplotlib figure, replacing the file atomically.

    The ending of `path` chooses the format; without one it is PNG.
    """
    drawn = BytesIO()
    figure.savefig(drawn, dpi=150, format=os.path.splitext(path)[1][1:].lower() or "png")
    write_atomic(path, drawn.getvalue())


def axes_for(ax: Any, size: tuple[float, float], **options: Any) -> Any:
    """Return the axes to draw into: `ax`, or new ones in a figure of `size` inches; set `options`.

    Raises `TypeError` if `ax` is no matplotlib `Axes`, and `ImportError` without matplotlib.
    """
    require_matplotlib()
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    if ax is None:
        ax = Figure(figsize=size, layout="constrained").add_subplot()
    elif not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes or None, got {type(ax).__name__}")
    ax.set(**{name: value for name, value in options.items() if value})
    return ax


def finished(ax: Any, path: str | os.PathLike[str] | None) -> Any:
    """Return the whole figure that axes are in, saved as `path` if there is one."""
    figure = ax.figure
    while getattr(figure, "figure", figure) is not figure:  # a part of a figure
        figure = figure.figure
    if path is not None:
        save_figure(figure, path)
    return figure


def plot_history(
    history: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str] | None = None,
    unit: str = "nats",
    *,
    ax: Any = None,
) -> Any:
    """Draw training and validation loss over the steps of a `Trainer.history`; return the figure.

    unit: what the loss is counted in. path: a file to be saved, replaced atomically, whose ending
    chooses the format. ax: matplotlib axes to draw into; None: those of a new figure. Raises
    `ImportError` without matplotlib.
    """
    axes = axes_for(ax, (7, 4), xlabel="step", ylabel=f"loss ({unit})")
    for key, label in (("train_loss", "training"), ("validation_loss", "validation")):
        points = [(entry["step"], entry[key]) for entry in history if entry[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    return finished(axes, path)


def plot_attention(
    weights: npt.ArrayLike,
    source: Sequence[str],
    target: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw attention weights `(T, S)`, a row for each target token; return the figure.

    path, ax: as for `plot_history`. Raises `ImportError` without matplotlib.
    """
    weights = np.asarray(weights)
    if weights.shape != (len(target), len(source)):
        raise ValueError(
            f"weights must have shape ({len(target)}, {len(source)}), got {weights.shape}"
        )
    width, height = (max(3.0, 0.3 * len(tokens) + 1.2) for tokens in (source, target))
    axes = axes_for(ax, (width, height))
    picture = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="equal")
    axes.set_xticks(range(len(source)), source)
    axes.set_yticks(range(len(target)), target)
    axes.xaxis.tick_top()
    axes.figure.colorbar(picture, ax=axes, label="weight", shrink=0.7)
    return finished(axes, path)
