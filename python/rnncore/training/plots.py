"""Pictures of training and of attention. They need matplotlib: pip install 'rnncore[plot]'."""

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


def plot_history(
    history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], unit: str = "nats"
) -> None:
    """Draw training and validation loss over the steps of a `Trainer.history`; save as `path`.

    `unit` is what the loss is counted in. The ending of `path` chooses the format. Raises
    `ImportError` without matplotlib.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel=f"loss ({unit})")
    for key, label in (("train_loss", "training"), ("validation_loss", "validation")):
        points = [(entry["step"], entry[key]) for entry in history if entry[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    save_figure(figure, path)


def plot_attention(
    weights: npt.ArrayLike,
    source: Sequence[str],
    target: Sequence[str],
    path: str | os.PathLike[str],
) -> None:
    """Draw attention weights `(T, S)`, a row for each target token; save as `path`.

    Raises `ImportError` without matplotlib.
    """
    weights = np.asarray(weights)
    if weights.shape != (len(target), len(source)):
        raise ValueError(
            f"weights must have shape ({len(target)}, {len(source)}), got {weights.shape}"
        )
    require_matplotlib()
    from matplotlib.figure import Figure

    width, height = (max(3.0, 0.3 * len(tokens) + 1.2) for tokens in (source, target))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="equal")
    axes.set_xticks(range(len(source)), source)
    axes.set_yticks(range(len(target)), target)
    axes.xaxis.tick_top()
    figure.colorbar(picture, label="weight", shrink=0.7)
    save_figure(figure, path)
