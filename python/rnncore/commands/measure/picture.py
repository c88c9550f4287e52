"""The roofline picture: what each case gets done, under what the machine allows."""

from __future__ import annotations

import os
from typing import Any

from ...training.plots import require_matplotlib, save_figure
from . import machine
from .report import Results, is_roof

_SECONDS = 0.1


def plot_roofline(results: Results, path: str | os.PathLike[str]) -> None:
    """Draw operations per second over operations per byte of recurrent weights; save as `path`.

    Where there is a C++ compiler there are roofs, measured now: the multiply-add peak of a core,
    and the bandwidth of each of its caches. The ending of `path` chooses the format. Raises
    `ImportError` without matplotlib.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log",
        yscale="log",
        xlabel="operations per byte of recurrent weights",
        ylabel="GF/s (1e9 operations per second)",
    )
    for name in results.about:
        records = [r for r in results.records if name in r.times and not is_roof(name)]
        if records:
            points = sorted((r.case.intensity, r.rate(name)) for r in records)
            style = "o" if name.startswith("rnncore") else "x"
            axes.plot(*zip(*points, strict=True), style, label=name, alpha=0.8)
    if machine.compiler():
        _draw_roofs(axes, machine.Machine(), results.records[0].case.dtype)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    save_figure(figure, path)


def _draw_roofs(axes: Any, core: machine.Machine, dtype: str) -> None:
    peak = core.peak(dtype, _SECONDS) / 1e9
    left, right = axes.get_xlim()
    for name, size in machine.cache_sizes().items():
        bandwidth = core.bandwidth(size // 2, _SECONDS) / 1e9
        ends = [left, max(left, min(right, peak / bandwidth))]
        label = f"{name}: {bandwidth:.0f} GB/s"
        (line,) = axes.plot(ends, [bandwidth * x for x in ends], "-", lw=1, label=label)
        axes.plot([ends[1], right], [peak, peak], "-", lw=1, color=line.get_color(), alpha=0.5)
    axes.text(right, peak, f"multiply-adds: {peak:.0f} GF/s ", ha="right", va="bottom")
    axes.set_xlim(left, right)
