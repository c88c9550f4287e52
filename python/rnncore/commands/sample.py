"""Continue a prompt with a saved character model, one character at a time."""

from __future__ import annotations

import argparse
from itertools import islice

from ..text import CharModel
from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", metavar="MODEL", help="file saved by `train` or `demo`")
    parser.add_argument("--prompt", default="\n", help="text to continue (a line break)")
    parser.add_argument(
        "--length", type=options.natural, default=500, help="characters to add (%(default)s)"
    )
    parser.add_argument(
        "--temperature",
        type=options.not_negative,
        default=0.8,
        help="below 1 safer, above 1 wilder, 0 always the likeliest (%(default)s)",
    )
    parser.add_argument("--seed", type=options.natural, help="the same seed gives the same text")


def run(args: argparse.Namespace) -> None:
    """Print the prompt and what follows, as it is drawn."""
    model = CharModel.from_file(args.model)
    characters = model.generate(args.prompt, args.temperature, args.seed)
    print(args.prompt, end="")
    for character in islice(characters, args.length):
        print(character, end="", flush=True)
    print()
