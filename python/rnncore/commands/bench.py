"""Measure the recurrent layers here, beside NumPy, PyTorch and ONNX Runtime where installed.

Each engine works in a process of its own, and they take turns. Shapes are T,B,I,H: steps, batch,
inputs, hidden units; "10..200,64,128,128" is a ragged batch. With a C++ compiler the machine's own
limit is measured too. With --weights, quantized layers (`rnncore.quantize`) stand beside those in
float32, and beside whoever else has such weights. The full comparison is in the repository, in
benchmarks/.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from ..module import WEIGHT_TYPES
from ..training.plots import require_matplotlib
from . import options
from .measure import machine, picture
from .measure.cases import GATES, MODES, Case, Shape
from .measure.contest import Entry, contest
from .measure.engines import ENGINES, Engine, available
from .measure.report import measure, tables
from .measure.timing import SECONDS

SHAPES = ["1,1,32,32", "128,1,128,128", "128,32,256,256", "10..100,32,64,64"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    peers = [engine for engine in available() if engine not in ("roof", "rnncore")]
    add_case_arguments(parser, SHAPES)
    add_entry_arguments(parser, peers)
    add_effort_arguments(parser, rounds=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all times")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="roofline picture, .png or .svg")


def add_case_arguments(parser: argparse.ArgumentParser, shapes: list[str]) -> None:
    """Add the options that say what is measured."""
    parser.add_argument("--cells", nargs="+", choices=list(GATES), default=list(GATES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=_argument(Shape.parse),
        default=[Shape.parse(shape) for shape in shapes],
        metavar="T,B,I,H",
        help=" ".join(shapes),
    )


def add_entry_arguments(parser: argparse.ArgumentParser, peers: list[str]) -> None:
    """Add the options that say who is measured."""
    parser.add_argument(
        "--against",
        nargs="*",
        metavar="ENGINE",
        help=f"others to measure, also with settings of their own, as numpy:Haswell, torch:2 (two "
        f"threads), torch:int8 or rnncore:v3 (without AVX-512): {' '.join(peers)}",
    )
    parser.set_defaults(peers=peers)
    parser.add_argument("--threads", type=options.count, default=1, help="for each (%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument(
        "--weights",
        choices=WEIGHT_TYPES,
        help="that our layers hold, quantized, and the others that can; inference only",
    )


def add_effort_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Add the options that say how long it takes."""
    parser.add_argument("--rounds", type=options.count, default=rounds, help="turns (%(default)s)")
    parser.add_argument(
        "--seconds", type=options.positive, default=SECONDS, help="of a turn (%(default)s)"
    )


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let argparse show what is wrong with a value."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from error

    return parsed


def chosen_cases(args: argparse.Namespace) -> list[Case]:
    """Return the cases that the options ask for."""
    modes = ["inference"] if args.weights else args.modes
    if modes[0] not in args.modes:
        raise ValueError("--weights is for inference only, got --modes training")
    return [Case(*choice) for choice in product(args.cells, modes, args.shapes)]


def chosen_entries(args: argparse.Namespace) -> list[Entry]:
    """Return rnncore and those it is measured against, each once, and the machine's limit.

    With --weights: rnncore with those weights, then with its own; of the others, if nobody is
    named, who has such weights too; no limit, which would be that of float32.
    """
    if args.weights and args.dtype != "float32":
        raise ValueError(f"--weights is for --dtype float32, got {args.dtype}")
    rated = machine.compiler() and args.threads == 1
    ours, peers = ["rnncore", *(["roof"] if rated else [])], args.peers
    if args.weights:
        ours = [f"rnncore:{args.weights}", "rnncore"]
        with_such = (name for name in peers if args.weights in ENGINES.get(name, Engine).weights)
        peers = [f"{name}:{args.weights}" for name in with_such]
    entries = []
    for text in [*ours, *(peers if args.against is None else args.against)]:
        engine, *own = text.split(":")
        entries.append(Entry.parse(":".join([engine, str(args.threads), args.dtype, *own])))
    return list(dict.fromkeys(entries))


def run(args: argparse.Namespace) -> None:
    """Measure, print, save."""
    for path in filter(None, (args.json, args.plot)):
        options.check_writable(path)
    if args.plot:
        require_matplotlib()
    entries, cases = chosen_entries(args), chosen_cases(args)
    if missing := {entry.engine for entry in entries} - set(available()):
        raise ValueError(f"not here: {', '.join(missing)}; there are {', '.join(available())}")
    with contest(entries) as contestants:
        results = measure(cases, contestants, args.rounds, args.seconds)
    print(tables(results))
    if args.json:
        results.save(args.json)
    if args.plot:
        picture.plot_roofline(results, args.plot)
