"""Train a character model on English text in some seconds, and measure it against NumPy.

The text is Python's own documentation, which comes with Python, or any file given with --text.
"""

from __future__ import annotations

import argparse
import inspect
import shlex
from dataclasses import replace
from pathlib import Path

from . import compare, options
from .recipe import Recipe, Run, fit_and_save, introduce, prepare, steps_within

RECIPE = Recipe(hidden=256, dropout=0.0, lr=8e-3, validations=5)
SECONDS = 6.0
PROMPT = "The "
#: The documents of modules that any Python has, should its collected documentation be missing.
MODULES = ("argparse", "ast", "decimal", "difflib", "doctest", "inspect", "pickletools", "typing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--text", metavar="FILE", help="train on this text instead, in UTF-8")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo.safetensors"),
        metavar="MODEL",
        help="file of the saved model (%(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=options.positive,
        default=SECONDS,
        help="time to train; the rest takes a few more (%(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Train, sample, compare."""
    options.check_writable(args.out)
    text = options.read_text(args.text) if args.text else stdlib_text()
    recipe = replace(RECIPE, steps=steps_within(args.seconds, text, RECIPE))
    run = prepare(text, recipe)
    introduce(run)
    fit_and_save(run, args.out, seconds=1.2 * args.seconds)
    show_results(run)
    compare_with_numpy(recipe)
    print(f"more: python -m rnncore sample {shlex.quote(str(args.out))} --prompt 'A '")


def stdlib_text() -> str:
    """Return English text that comes with Python, and print what it is."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        print(f"text: the source of Python's {', '.join(MODULES)} (pydoc_data is not installed)")
        return "\n".join(inspect.getsource(__import__(name)) for name in MODULES)
    print("text: Python's documentation (pydoc_data.topics)")
    return "\n\n".join(topics[name] for name in sorted(topics))


def show_results(run: Run) -> None:
    """Print the losses, the speed and a sample."""
    last = run.trainer.history[-1]
    loss = run.model.evaluate(run.held_out)
    print(f"loss: {last['train_loss']:.3f} training, {loss:.3f} validation (nats per character)")
    print(f"speed: {run.trainer.targets_per_second:,.0f} characters per second in training")
    prompt = PROMPT if set(PROMPT) <= set(run.model.vocabulary.characters) else run.held_out[:20]
    print(f"sample:\n\n{prompt}{run.model.sample(prompt, 400, 0.7, seed=0)}\n")


def compare_with_numpy(recipe: Recipe) -> None:
    """Print how long the demo's recurrent layer takes here and in the NumPy reference."""
    shape = (recipe.length, recipe.batch, recipe.embedding, recipe.hidden)
    ours, numpys = compare.in_own_process(*shape)
    print(
        f"the LSTM layer alone, {recipe.length} steps of {recipe.batch} rows, forward and "
        f"backward, one thread: {1e3 * ours:.1f} ms; the NumPy reference: {1e3 * numpys:.1f} ms "
        f"({numpys / ours:.1f} times as long)"
    )
