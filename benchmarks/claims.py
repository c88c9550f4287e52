"""What the project promises about its speed, compared with measurements (see must_show.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rnncore.commands.measure.cases import Case
from rnncore.commands.measure.report import Record, Results
from rnncore.commands.measure.timing import geometric_mean

ONE_STEP = "1,1,32,32"
SMALL = "128,1,32,32"


@dataclass(frozen=True)
class Claim:
    """A promise, whether it holds, and the numbers."""

    text: str
    holds: bool
    numbers: str

    def __str__(self) -> str:
        return f"{'holds      ' if self.holds else 'FALLS SHORT'} {self.text}: {self.numbers}"


@dataclass(frozen=True)
class Value:
    """A number of a case, and with whom."""

    case: Case
    number: float
    whom: str = ""

    def __str__(self) -> str:
        where = f"{self.case.cell} {self.case.mode} {self.case.shape}"
        return f"{self.number:.2f} in {where}{self.whom and f' ({self.whom})'}"


def every(text: str, goal: float, values: Iterable[Value]) -> Claim:
    """Claim that all values reach the goal; shows the worst, or all that do not."""
    known = sorted(_known(values), key=lambda value: value.number)
    short = [value for value in known if value.number < goal]
    count = f"{len(short)} of {len(known)} below {goal:g}: " if short else "lowest "
    numbers = count + "; ".join(map(str, short or known[:1])) if known else "not measured"
    return Claim(f"{text}, every row at least {goal:g}", bool(known) and not short, numbers)


def mean(text: str, goal: float, values: Iterable[Value]) -> Claim:
    """Claim that the geometric mean reaches the goal."""
    known = _known(values)
    result = geometric_mean(value.number for value in known)
    numbers = f"{result:.2f} over {len(known)} rows" if known else "not measured"
    return Claim(f"{text}, geometric mean at least {goal:g}", result >= goal, numbers)


def _known(values: Iterable[Value]) -> list[Value]:
    return [value for value in values if not math.isnan(value.number)]


def compare(parts: Mapping[str, Results]) -> list[Claim]:
    """Return all claims on the parts that were measured."""
    return [claim for name, results in parts.items() for claim in _CLAIMS[name](results.records)]


def _of(records: Sequence[Record], cell: str = "", mode: str = "") -> list[Record]:
    return [r for r in records if cell in ("", r.case.cell) and mode in ("", r.case.mode)]


def _against(records: Iterable[Record], peers: Sequence[str], base: str = "rnncore") -> list[Value]:
    """Return how many times as long as `base` the fastest of the peers takes.

    In the one-step row the peers that count are those that are called from Python as well.
    """
    values = []
    for record in records:
        known = [peer for peer in peers if peer in record.times and _counts(record.case, peer)]
        if known:
            best = min(known, key=lambda peer: record.ratio(peer, base))
            values.append(Value(record.case, record.ratio(best, base), best))
    return values


def _counts(case: Case, peer: str) -> bool:
    return not (peer.startswith("onednn") and str(case.shape) == ONE_STEP)


def _speed(records: Sequence[Record]) -> list[Claim]:
    inference, training = _of(records, mode="inference"), _of(records, mode="training")
    best = _against(inference, ["onednn", "torch", "onnxruntime"])
    direct = _against(training, ["onednn"])
    one_step = _against((r for r in training if str(r.case.shape) == ONE_STEP), ["torch"])
    large = [r for r in records if r.case.shape.hidden >= 256 and r.case.shape.batch >= 32]
    single = [r for r in records if r.case.shape.batch == 1 and r.case.shape.steps > 1]
    ragged = [r for r in training if r.case.shape.shortest is not None]
    gated = [r for r in large if r.case.cell != "rnn"]
    return [
        every("1. inference against the best peer", 1, best),
        mean("1. inference against the best peer", 1.3, best),
        every("2. training against oneDNN", 1, direct + one_step),
        mean("2. training against oneDNN", 1.25, direct),
        *(
            mean(f"2. {cell} training against PyTorch", goal, _against(rows, ["torch"]))
            for cell, goal in (("lstm", 2), ("gru", 4), ("rnn", 4))
            if (rows := _of(training, cell))
        ),
        every("3. LSTM and GRU, share of the multiply-add peak", 0.85, _shares(gated)),
        every("3. batch 1, share of what the caches deliver", 0.8, _shares(single)),
        every("4. ragged training against PyTorch, packed", 3, _against(ragged, ["torch"])),
    ]


def _shares(records: Iterable[Record]) -> list[Value]:
    return [Value(record.case, record.roof_share("rnncore")) for record in records]


def _numpy(records: Sequence[Record]) -> list[Claim]:
    kinds = sorted({name for r in records for name in r.times if name.startswith("numpy")})
    small = [r for r in records if str(r.case.shape) == SMALL]
    large = [r for r in records if r.case.shape.hidden >= 256]
    return [
        every(f"5. against NumPy{text}, {what}", goal, _against(rows, peers))
        for text, peers in (("", ["numpy"]), (" with its best BLAS kernels", kinds))
        for what, goal, rows in ((SMALL, 40, small), ("where products dominate", 2, large))
    ]


def _threads(records: Sequence[Record]) -> list[Claim]:
    def speedups(suits: Callable[[Case], bool]) -> list[Value]:
        rows = (record for record in records if suits(record.case))
        return [Value(record.case, record.ratio("rnncore", "rnncore:2")) for record in rows]

    def single(case: Case) -> bool:
        return case.shape.batch == 1 and case.shape.hidden >= 256

    return [
        every("6. two threads, batch 16 and above", 1.8, speedups(lambda c: c.shape.batch >= 16)),
        every("6. two threads, batch 1 and H 256 and above", 1.4, speedups(single)),
    ]


def _float64(records: Sequence[Record]) -> list[Claim]:
    rates = [Value(r.case, r.ratio("rnncore", "rnncore:float64")) for r in records]
    return [every("7. float64, share of the float32 rate", 0.5, rates)]


def _avx2(records: Sequence[Record]) -> list[Claim]:
    names = {name for record in records for name in record.times}
    values = _against(records, sorted(names - {"rnncore:v3"}), base="rnncore:v3")
    return [mean("8. AVX2 only, against the best peer", 1, values)]


_CLAIMS = {
    "speed": _speed,
    "numpy": _numpy,
    "threads": _threads,
    "float64": _float64,
    "avx2": _avx2,
}
