"""Train a character model on a text file.

The first 90 % of the text train the model, the last 10 % validate it, and the parameters with the
best validation loss are saved. Ctrl-C saves a checkpoint, from which --resume goes on exactly. The
last line printed is for machines: result: val_loss=1.58 seconds=900 chars_per_second=60000
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..arrays import load_arrays
from ..files import reading
from ..training.plots import plot_history, require_matplotlib
from . import options
from .recipe import Recipe, Run, digest, fit_and_save, introduce, prepare, steps_within


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options: where from and where to, and one for each field of the recipe."""
    parser.add_argument("--text", required=True, metavar="FILE", help="the text, in UTF-8")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("model.safetensors"),
        metavar="MODEL",
        help="file of the saved model (%(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from MODEL.checkpoint with the options that the run was started with",
    )
    parser.add_argument(
        "--minutes",
        type=options.positive,
        help="stop after so long; without --steps, plan as many as fit",
    )
    parser.add_argument("--plot", type=Path, metavar="CURVE", help="picture of the losses, .png")
    for option in fields(Recipe):
        # Suppressed: only what was given is in the namespace, so that --resume can compare.
        more = {**option.metadata, "default": argparse.SUPPRESS}
        more["help"] += "" if option.default is None else f" ({option.default})"
        parser.add_argument(f"--{option.name.replace('_', '-')}", **more)


def run(args: argparse.Namespace) -> None:
    """Train, save, report."""
    options.check_writable(args.out)
    if args.plot:
        options.check_writable(args.plot)
        require_matplotlib()
    checkpoint = None if options.is_special(args.out) else checkpoint_of(args.out)
    if checkpoint:
        options.check_writable(checkpoint)
    run = _prepared(args, options.read_text(args.text), checkpoint)
    introduce(run)
    try:
        fit_and_save(
            run, args.out, seconds=args.minutes and 60 * args.minutes, checkpoint=checkpoint
        )
    except KeyboardInterrupt as stop:
        hint = "; --resume goes on from there" if checkpoint else ""
        raise KeyboardInterrupt(f"{stop}{hint}") from stop
    if args.plot:
        plot_history(run.trainer.history, args.plot)
        print(f"curve saved as {args.plot}")
    loss = run.model.evaluate(run.held_out)
    seconds, speed = run.trainer.progress.seconds, run.trainer.targets_per_second
    print(f"result: val_loss={loss:.4f} seconds={seconds:.1f} chars_per_second={speed:.0f}")


def checkpoint_of(model: Path) -> Path:
    """Where the checkpoint of a run lies."""
    return model.with_name(f"{model.name}.checkpoint")


def _prepared(args: argparse.Namespace, text: str, checkpoint: Path | None) -> Run:
    given = {f.name: getattr(args, f.name) for f in fields(Recipe) if hasattr(args, f.name)}
    if args.resume:
        if checkpoint is None:
            raise ValueError(f"--resume: {args.out} is no regular file, and has no checkpoint")
        run = prepare(text, _resumed_recipe(checkpoint, given, text))
        run.trainer.resume(checkpoint)
        return run
    recipe = Recipe(**given)
    if args.minutes and recipe.steps is None:
        recipe = replace(recipe, steps=steps_within(60 * args.minutes, text, recipe))
    return prepare(text, recipe)


def _resumed_recipe(checkpoint: Path, given: dict[str, Any], text: str) -> Recipe:
    """Return a checkpoint's recipe; raises `ValueError` where the text or an option differs."""
    _, metadata = load_arrays(checkpoint)
    with reading(checkpoint, " is not a checkpoint of this command"):
        kept = metadata["metadata"]
        recipe, kept_digest = Recipe.checked(kept["recipe"]), kept["text"]
    if kept_digest != digest(text):
        raise ValueError("the text is not the one that the run was started with")
    for name, value in given.items():
        if value != getattr(recipe, name):
            raise ValueError(
                f"the run was started with {name}={getattr(recipe, name)}, not {value}: "
                "leave the option out to resume"
            )
    return recipe
