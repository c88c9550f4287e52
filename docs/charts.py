"""The charts of the site: the tables of `docs/benchmarks.md`, which commands have printed, drawn.

    python docs/charts.py docs/benchmarks.md docs/charts

Each chart is drawn twice, for light and for dark pages. The build of the site does the same.
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

INK = {"light": "#24292f", "dark": "#d0d7de"}
COLOURS = {
    "rnncore": "#2a78d6",
    "onednn": "#e69f00",
    "onnxruntime": "#009e73",
    "torch": "#cc79a7",
}
NAMES = {"onednn": "oneDNN", "onnxruntime": "ONNX Runtime", "torch": "PyTorch"}


class Table(NamedTuple):
    """A table: the section it is in, the line above it, its head, and its rows."""

    section: str
    title: str
    head: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[float]:
        """Return the numbers of a column, without empty cells."""
        at = self.head.index(name)
        return [number(row[at]) for row in self.rows if row[at]]


def number(text: str) -> float:
    """Return the number that a cell starts with."""
    return float(re.match(r"[\d.,]+", text)[0].replace(",", ""))


def tables(page: str) -> Iterator[Table]:
    """Yield every table of a Markdown page."""
    section = title = ""
    lines = iter(page.splitlines())
    for line in lines:
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("| "):
            head, rows = cells(line), []
            next(lines)  # the rule
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            yield Table(section, title, head, rows)
        elif line:
            title = line


def cells(line: str) -> list[str]:
    """Return the cells of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def means(found: list[Table], section: str) -> dict[str, dict[str, float]]:
    """Return the geometric mean of each peer's column, by the peer, then by cell and mode."""
    by_peer: dict[str, dict[str, float]] = {}
    for table in (table for table in found if table.section == section):
        cell, mode = re.match(r"\*\*(\w+), (\w+)\*\*", table.title).groups()
        for peer in NAMES:
            ratios = table.column(peer)
            if ratios:
                by_peer.setdefault(peer, {})[f"{cell.upper()}\n{mode}"] = (
                    geometric_mean(ratios)
                )
    return by_peer


def draw_speed(axes: Any, found: list[Table]) -> None:
    """How many times as long as rnncore the peers take, over all shapes: geometric means."""
    by_peer = means(found, "One thread")
    kinds = list(dict.fromkeys(kind for peer in by_peer.values() for kind in peer))
    width = 0.8 / len(by_peer)
    for n, (peer, values) in enumerate(by_peer.items()):
        shift = (n - (len(by_peer) - 1) / 2) * width
        places = [i + shift for i, kind in enumerate(kinds) if kind in values]
        above = [values[kind] - 1 for kind in kinds if kind in values]
        bars = axes.bar(
            places, above, width * 0.92, 1, color=COLOURS[peer], label=NAMES[peer]
        )
        axes.bar_label(
            bars, [f"{1 + more:.1f}" for more in above], padding=2, fontsize=9
        )
    axes.axhline(1, color=COLOURS["rnncore"], linewidth=2, label="rnncore")
    axes.set_yscale("log")
    axes.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"], minor=False)
    axes.minorticks_off()
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_ylabel("times as long as rnncore")
    axes.legend(
        ncols=4, loc="upper center", bbox_to_anchor=(0.48, 1.13), columnspacing=1.2
    )


def draw_shapes(axes: Any, found: list[Table]) -> None:
    """The LSTM's training, shape by shape."""
    table = next(t for t in found if t.title.startswith("**lstm, training**"))
    shapes = [row[0] for row in table.rows]
    for peer in NAMES:
        at = table.head.index(peer)
        points = [(number(r[at]), n) for n, r in enumerate(table.rows) if r[at]]
        if points:
            axes.plot(
                *zip(*points, strict=True), "o", color=COLOURS[peer], label=NAMES[peer]
            )
    axes.axvline(1, color=COLOURS["rnncore"], linewidth=2, label="rnncore")
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 2, 4, 8, 16, 32], ["½", "1", "2", "4", "8", "16", "32"])
    axes.minorticks_off()
    axes.set_yticks(range(len(shapes)), shapes)
    axes.invert_yaxis()
    axes.set_xlabel("times as long as rnncore")
    axes.set_ylabel("steps, sequences, inputs, hidden units")
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.4, 1.09))


def draw_memory(axes: Any, found: list[Table]) -> None:
    """The LSTM's memory at its peak in training, above that after the import."""
    table = next(t for t in found if t.section.startswith("Memory"))
    rows = [row for row in table.rows if row[0].startswith("lstm, training, ")]
    for side, (name, colour) in enumerate(
        (("rnncore", "rnncore"), ("PyTorch", "torch"))
    ):
        places = [n + (side - 0.5) * 0.4 for n in range(len(rows))]
        axes.barh(
            places,
            [number(r[1 + side]) for r in rows],
            0.38,
            color=COLOURS[colour],
            label=name,
        )
    axes.set_yticks(range(len(rows)), [row[0].split(", ")[2] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("MiB")
    axes.set_ylabel("steps, sequences, inputs, hidden units")
    axes.legend()


def draw_steps(axes: Any, found: list[Table]) -> None:
    """What a single step costs in a stream and by a call."""
    table = next(t for t in found if t.section == "Single steps")
    labels = [f"{row[0].upper()}: {row[1]}" for row in table.rows]
    colours = ["rnncore" if "compiled in" not in label else "torch" for label in labels]
    bars = axes.barh(
        labels, table.column("ns a step"), 0.7, color=[COLOURS[c] for c in colours]
    )
    axes.bar_label(bars, padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("nanoseconds a step")


CHARTS: dict[str, tuple[Callable[[Any, list[Table]], None], tuple[float, float]]] = {
    "speed": (draw_speed, (6, 4)),
    "shapes": (draw_shapes, (6, 5.2)),
    "memory": (draw_memory, (6, 5.2)),
    "steps": (draw_steps, (6, 3.8)),
}


def draw(page: Path, folder: Path) -> None:
    """Draw all charts from the tables of a page into a folder."""
    found = list(tables(page.read_text(encoding="utf-8")))
    folder.mkdir(exist_ok=True)
    for theme, ink in INK.items():
        colours = [
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "xtick.color",
            "ytick.color",
        ]
        style = dict.fromkeys(colours, ink) | {
            "svg.hashsalt": "rnncore",
            "axes.grid": True,
        }
        style |= {"grid.alpha": 0.25, "axes.axisbelow": True, "legend.frameon": False}
        style |= {"axes.spines.top": False, "axes.spines.right": False}
        with mpl.rc_context(style):
            for name, (chart, size) in CHARTS.items():
                figure = Figure(size, layout="constrained")
                chart(figure.add_subplot(), found)
                file = folder / f"{name}-{theme}.svg"
                figure.savefig(file, transparent=True, metadata={"Date": None})


def setup(app: Any) -> dict[str, bool]:
    """Draw the charts before Sphinx looks for pictures."""
    source = Path(app.srcdir)
    draw(source / "benchmarks.md", source / "charts")
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:]))
