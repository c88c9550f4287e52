"""What was measured, as tables (Markdown that reads well as it is) and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from ...files import write_atomic
from .cases import Case
from .contest import Contestant, compete
from .timing import ratio


@dataclass(frozen=True)
class Record:
    """A case, and the seconds of each entry in each round, by the entry's name."""

    case: Case
    times: dict[str, list[float]]

    def time(self, entry: str) -> float:
        """Return the median time of an entry."""
        return median(self.times[entry])

    def ratio(self, entry: str, base: str) -> float:
        """Return how many times as long as `base` an entry takes; NaN if it has no times."""
        if entry not in self.times or base not in self.times:
            return math.nan
        return ratio(self.times[entry], self.times[base])

    def roof_share(self, entry: str) -> float:
        """Return which share of the machine's limit an entry reaches."""
        return self.ratio(next(filter(is_roof, self.times), "roof"), entry)

    def rate(self, entry: str) -> float:
        """Return 1e9 floating point operations per second."""
        return self.case.flops / self.time(entry) / 1e9


def is_roof(entry: str) -> bool:
    """Whether this is the machine's limit."""
    return entry.split(":")[0] == "roof"


@dataclass(frozen=True)
class Results:
    """Records, and what each entry says it is; the first entry is the one in question."""

    about: dict[str, str]
    records: list[Record]

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads back."""
        rows = [
            {"case": str(r.case), "flops": r.case.flops, "times": r.times} for r in self.records
        ]
        return {"about": self.about, "records": rows}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Results:
        """Read what `as_json` made."""
        rows = data["records"]
        return cls(data["about"], [Record(Case.parse(r["case"]), r["times"]) for r in rows])

    def save(self, path: Path) -> None:
        """Write as JSON, replacing the file atomically."""
        write_atomic(path, f"{json.dumps(self.as_json(), indent=1)}\n".encode())


def measure(
    cases: Sequence[Case], contestants: Sequence[Contestant], rounds: int, seconds: float
) -> Results:
    """Let the contestants compete in each case."""
    from tqdm import tqdm

    bar = tqdm(cases, unit="case", leave=False, disable=None)
    records = [Record(case, compete(case, contestants, rounds, seconds)) for case in bar]
    return Results({str(c.entry): c.about for c in contestants}, records)


def tables(results: Results) -> str:
    """Return a table for each cell and mode.

    Columns: of the first entry its time, 1e9 operations per second, and share of the machine's
    limit if that was measured; of the others how many times as long they take.
    """
    lines = [f"- {name}: {text}" for name, text in results.about.items()]
    names = list(results.about)
    rated = any(map(is_roof, names))
    base, *others = (name for name in names if not is_roof(name))
    head = ["T,B,I,H", base, "GF/s", *(["of roof"] if rated else []), *others]
    for (cell, mode), group in groupby(results.records, lambda r: (r.case.cell, r.case.mode)):
        rows = [_row(record, base, others, rated) for record in group]
        lines += [
            "",
            f"**{cell}, {mode}** (others: times as long as {base})",
            "",
            table(head, rows),
        ]
    return "\n".join(lines)


def _row(record: Record, base: str, others: list[str], rated: bool) -> list[str]:
    share = [f"{100 * record.roof_share(base):.0f} %"] if rated else []
    ratios = (record.ratio(name, base) for name in others)
    return [
        str(record.case.shape),
        duration(record.time(base)),
        f"{record.rate(base):.1f}",
        *share,
        *("" if math.isnan(value) else f"{value:.2f}" for value in ratios),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines of aligned columns, the first to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            break
    return f"{seconds / size:.3g} {unit}"
