"""The command `rnncore`: a table of its commands, and how they fail."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import compiled
from .commands import bench, convert, demo, explore, info, sample, train
from .training.console import print_any_text

COMMANDS = {
    "demo": demo,
    "train": train,
    "sample": sample,
    "convert": convert,
    "explore": explore,
    "bench": bench,
    "info": info,
}


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments and leave with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def parser() -> Parser:
    """Build the parser from the table of commands."""
    top = Parser(prog="rnncore", description="Recurrent neural networks on a CPU.")
    version = compiled.info()["version"]
    top.add_argument("--version", action="version", version=f"rnncore {version}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        summary = (command.__doc__ or "").strip()
        sub = commands.add_parser(name, help=summary.split("\n")[0], description=summary)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 2 after an error, 130 after Ctrl-C."""
    print_any_text()
    args = parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for one, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stop:
        return _complain(args.command, str(stop) or "stopped", 130)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _complain(args.command, f"error: {name}{error.strerror or error}", 2)
    except (ValueError, FloatingPointError, ImportError, MemoryError) as error:
        return _complain(args.command, f"error: {error}", 2)
    return 0


def _complain(command: str, message: str, status: int) -> int:
    print(f"rnncore {command}: {' '.join(message.split())}", file=sys.stderr)
    return status
