"""What int8 and bfloat16 weights cost of what the examples' models reach on held-out data.

python benchmarks/quantized_accuracy.py --text input.txt --text-model shakespeare.model
    --words cmudict.dict --words-model g2p.model --trees test_d20s.tsv --trees-models listops-models
python benchmarks/quantized_accuracy.py ... --quick      # a little of the data: does it work?

The models are what `python -m rnncore train --out`, `examples/pronunciation.py --model` and
`examples/listops.py --models` write; the data are what these are tested on, and the metrics are
theirs. What is not given is left out. A positive number under "worse by" is a loss of accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import listops
import pronunciation
import rnncore
from rnncore.commands.measure.report import table
from rnncore.commands.options import read_text
from rnncore.text import CharModel, split

WEIGHTS = ("int8", "bfloat16")
WIDTHS = {"wer_greedy": 1, "wer": 5}  # of the beam


class Metric(NamedTuple):
    """How a number is shown, and by how much fewer bits may make it worse."""

    name: str
    limits: tuple[float, float]  # int8, bfloat16
    unit: str = " %"
    digits: int = 2
    sign: int = 1  # -1: more is better


METRICS = {
    "val_loss": Metric("tinyshakespeare, loss in nats", (0.01, 0.002), "", 4),
    "wer_greedy": Metric("CMUdict, word errors, greedy", (0.2, 0.2)),
    "wer": Metric("CMUdict, word errors, beam of 5", (0.2, 0.2)),
    "tree_lstm": Metric("ListOps, Tree-LSTM, right", (0.1, 0.1), sign=-1),
    "lstm": Metric("ListOps, LSTM, right", (0.1, 0.1), sign=-1),
    "parser_f1": Metric("ListOps, parser, F1", (0.1, 0.1), sign=-1),
    "parsed_tree_lstm": Metric("ListOps, Tree-LSTM on parsed trees, right", (0.1, 0.1), sign=-1),
}


class Task(NamedTuple):
    """Models, and a function of them or of copies with fewer bits to metrics by name."""

    models: dict[str, Any]
    evaluate: Callable[[dict[str, Any]], dict[str, float]]


class Reached(NamedTuple):
    """What models reach, and the bytes of the file of the one that a metric is of."""

    values: dict[str, float]
    sizes: dict[str, int]


def characters(text: Path, file: Path, quick: bool) -> Task:
    """The last tenth of a text, read in one go."""
    before, rest = split(read_text(str(text)))
    some = (before[-1] + rest)[: 2000 if quick else None]  # the first character is only read
    return Task(
        {"val_loss": CharModel.from_file(file)},
        lambda models: {name: model.evaluate(some) for name, model in models.items()},
    )


def spelling(data: Path, file: Path, quick: bool) -> Task:
    """The test part of the dictionary, by the greedy search and by the beam."""
    words = pronunciation.split(pronunciation.read(data))["test"]
    some = dict(list(words.items())[: 200 if quick else None])
    speller = pronunciation.Speller.from_file(file)

    def evaluate(models: dict[str, Any]) -> dict[str, float]:
        model = models["wer"]
        tried = pronunciation.Speller(model, speller.letters, speller.phonemes)
        return {name: tried.errors(some, width)[0] for name, width in WIDTHS.items()}

    return Task({"wer": speller.model}, evaluate)


def operations(data: Path, folder: Path, quick: bool) -> Task:
    """The published test file, as far as there are models."""
    tests = listops.prepare(listops.read_rows(data)[: 200 if quick else None])

    def evaluate(models: dict[str, Any]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in models:
            found |= listops.evaluate(name, models, tests)
        return found

    return Task(listops.load_models(folder), evaluate)


def reach(task: Task, models: dict[str, Any]) -> Reached:
    """Evaluate models, and save them to see how long the files are."""
    values, sizes = task.evaluate(models), dict[str, int]()
    with TemporaryDirectory() as folder:
        for name, model in models.items():
            file = Path(folder, name)
            model.save(file)
            sizes[name] = file.stat().st_size
    sizes |= {"wer_greedy": sizes.get("wer", 0), "parsed_tree_lstm": sizes.get("tree_lstm", 0)}
    return Reached(values, sizes | {"parser_f1": sizes.get("parser", 0)})


def rows(task: Task, numbers: dict[str, float]) -> Iterator[list[str]]:
    """Yield the rows of the table; note what they say in `numbers`."""
    exact = reach(task, task.models)
    others = {
        kind: reach(task, {n: rnncore.quantize(m, kind) for n, m in task.models.items()})
        for kind in WEIGHTS
    }
    for name, value in exact.values.items():
        metric, size = METRICS[name], exact.sizes[name]
        numbers[name] = value
        yield [metric.name, "float32", shown(value, metric), "", "", f"{size:,}", ""]
        for kind, limit in zip(WEIGHTS, metric.limits, strict=True):
            other, smaller = others[kind].values[name], others[kind].sizes[name]
            worse = metric.sign * (other - value) + 0.0  # not -0
            numbers[f"{name}_{kind}_worse"] = worse
            holds = "" if worse <= limit else " (more)"
            yield [
                *("", kind, shown(other, metric), f"{worse:+.{metric.digits + 1}f}"),
                *(f"{limit:g}{holds}", f"{smaller:,}", f"{smaller / size:.2f}"),
            ]


def shown(value: float, metric: Metric) -> str:
    return f"{value:.{metric.digits}f}{metric.unit}"


def given_tasks(args: argparse.Namespace) -> Iterator[Task]:
    """Yield what there are data and models for; say what is left out, and why."""
    for name, make in (("text", characters), ("words", spelling), ("trees", operations)):
        option = f"{name}-models" if make is operations else f"{name}-model"
        data, model = getattr(args, name), getattr(args, option.replace("-", "_"))
        pairs = {f"--{name}": data, f"--{option}": model}
        lacking = [one for one, path in pairs.items() if path is None]
        absent = [f"{one} {path}" for one, path in pairs.items() if path and not path.exists()]
        if lacking:
            print(f"- left out: {make.__name__}, for lack of {' and '.join(lacking)}")
        elif absent:
            print(f"- left out: {make.__name__}; there is no {' and no '.join(absent)}")
        elif not (task := make(data, model, args.quick)).models:
            print(f"- left out: {make.__name__}; there are no models in {model}")
        else:
            yield task


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--text", type=Path, metavar="FILE", help="tinyshakespeare's input.txt")
    parser.add_argument("--text-model", type=Path, metavar="FILE", help="of rnncore train")
    parser.add_argument("--words", type=Path, metavar="FILE", help="cmudict.dict")
    parser.add_argument("--words-model", type=Path, metavar="FILE", help="of pronunciation.py")
    parser.add_argument("--trees", type=Path, metavar="FILE", help="test_d20s.tsv")
    parser.add_argument("--trees-models", type=Path, metavar="FOLDER", help="of listops.py")
    parser.add_argument("--quick", action="store_true", help="a little of the data")
    return parser.parse_args()


def main() -> None:
    numbers: dict[str, float] = {}
    lines = [row for task in given_tasks(arguments()) for row in rows(task, numbers)]
    if not lines:
        raise SystemExit("nothing to evaluate")
    head = ["metric", "weights", "value", "worse by", "at most", "bytes", "of float32"]
    print(f"\n{table(head, lines)}\n")
    print("result:", *(f"{name}={value:.6g}" for name, value in numbers.items()))


if __name__ == "__main__":
    main()
