"""How to train a character model: all choices that the result depends on, and the run they make."""

from __future__ import annotations

import hashlib
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from timeit import repeat
from typing import Any

from ..arrays import Array
from ..batches import Batch
from ..losses import SoftmaxCrossEntropy
from ..optim import AdamW
from ..schedules import warmup_cosine
from ..text import CELLS, CharConfig, CharModel, Vocabulary, split, streams
from ..training.trainer import Trainer, evaluate
from . import options


def _option(default: Any, parse: Callable[[str], Any], about: str, **more: Any) -> Any:
    return field(default=default, metadata={"type": parse, "help": about, **more})


@dataclass(frozen=True)
class Recipe:
    """The options of `train`; each field is one, with its type and help."""

    cell: str = _option("lstm", str, "kind of recurrent layer", choices=list(CELLS))
    hidden: int = _option(512, options.count, "hidden units per layer")
    layers: int = _option(1, options.count, "recurrent layers")
    embedding: int = _option(64, options.count, "width of a character's embedding")
    dropout: float = _option(0.2, options.share, "dropout between and after the layers")
    epochs: int = _option(12, options.count, "passes over the text, if neither steps nor minutes")
    steps: int | None = _option(None, options.count, "updates")
    batch: int = _option(32, options.count, "parallel streams of text")
    length: int = _option(64, options.count, "characters per stream and step")
    lr: float = _option(5e-3, options.positive, "highest learning rate")
    weight_decay: float = _option(0.01, options.not_negative, "weight decay of AdamW")
    clip: float = _option(1.0, options.positive, "bound on the norm of the gradients")
    validations: int = _option(25, options.count, "validations in the run")
    patience: int | None = _option(None, options.count, "end after so many in vain")
    seed: int = _option(0, options.natural, "seed of all that is random")

    @classmethod
    def checked(cls, said: dict[str, Any]) -> Recipe:
        """Return the recipe that a checkpoint holds, or raise `ValueError` as the options do."""
        recipe = cls(**said)
        for option in fields(cls):
            value, choices = getattr(recipe, option.name), option.metadata.get("choices")
            if value is None and option.default is None:
                continue
            try:
                same = option.metadata["type"](str(value)) == value
            except ArgumentTypeError:
                same = False
            if not same or (choices and value not in choices):
                raise ValueError(f"{option.name} cannot be {value!r:.80}")
        return recipe


@dataclass
class Run:
    """A model, the trainer that fits it to the first part of a text, and the rest of the text."""

    recipe: Recipe  # with `steps` filled in
    model: CharModel
    trainer: Trainer
    train_text: str
    held_out: str  # what follows it, and before that its last character, which is only read

    def fit(self, **options: Any) -> str:
        """Train to the end of the recipe; see `Trainer.fit`."""
        assert self.recipe.steps is not None
        every = max(1, self.recipe.steps // self.recipe.validations)
        return self.trainer.fit(
            self.recipe.steps, validate_every=every, patience=self.recipe.patience, **options
        )


def prepare(text: str, recipe: Recipe) -> Run:
    """Cut the text (first 90 % to train, the rest to validate) and build all that a run needs.

    The vocabulary is that of the whole text. Raises `ValueError` if the training part does not fill
    one batch.
    """
    train_text, rest = split(text)
    if len(train_text) <= recipe.batch * recipe.length:
        raise ValueError(
            f"the text is too short to train on: the first 90 % are {len(train_text)} characters, "
            f"and {recipe.batch} streams of {recipe.length} need {recipe.batch * recipe.length + 1}"
        )
    vocabulary = Vocabulary.of(text)
    sizes = {f.name: getattr(recipe, f.name) for f in fields(CharConfig) if hasattr(recipe, f.name)}
    model = CharModel(vocabulary, CharConfig(**sizes), seed=recipe.seed)
    batches = streams(vocabulary.encode(train_text), recipe.batch, recipe.length)
    steps = recipe.steps or recipe.epochs * len(batches)
    recipe = replace(recipe, steps=steps)
    rate = warmup_cosine(recipe.lr, steps, warmup=min(100, steps // 10))
    loss, held_out = SoftmaxCrossEntropy(), train_text[-1] + rest
    validation = _side_by_side(vocabulary.encode(held_out))
    trainer = Trainer(
        model,
        loss,
        AdamW(model, rate, weight_decay=recipe.weight_decay),
        batches,
        validate=lambda: evaluate(model, loss, validation),
        clip_norm=recipe.clip,
        seed=recipe.seed,
        metadata={"recipe": asdict(recipe), "text": digest(text)},
    )
    return Run(recipe, model, trainer, train_text, held_out)


def _side_by_side(ids: Array) -> list[Batch]:
    """Cut a text for quick validation: many streams, each warmed up on what comes before it."""
    batch = min(max(len(ids) // 1024, 1), 32)
    return streams(ids, batch, 128, overlap=256 if batch > 1 else 0)


def steps_within(seconds: float, text: str, recipe: Recipe) -> int:
    """Return how many updates fit into so much time here, measured by a few on a trial model."""
    trainer = prepare(text, replace(recipe, steps=8)).trainer
    fastest = min(repeat(trainer.update, number=1, repeat=8))
    return max(1, int(0.8 * seconds / fastest))  # a fifth is for slower ones and validations


def introduce(run: Run) -> None:
    """Print what is about to be trained on what."""
    recipe, parameters = run.recipe, run.model.params.values()
    print(
        f"model: {recipe.cell.upper()}, {recipe.layers} x {recipe.hidden} units, "
        f"{sum(array.size for array in parameters):,} parameters"
    )
    print(
        f"text: {len(run.train_text):,} characters to train on, {len(run.held_out) - 1:,} to "
        f"validate, {len(run.model.vocabulary)} different"
    )
    print(f"plan: {recipe.steps} steps of {recipe.batch} x {recipe.length} characters", flush=True)


def fit_and_save(run: Run, out: Path, **options: Any) -> None:
    """Train, save the best parameters, and say so; also after Ctrl-C or a loss that explodes."""
    try:
        run.fit(**options)
    except (KeyboardInterrupt, FloatingPointError) as stop:
        if isinstance(stop, FloatingPointError) and not run.trainer.best:
            raise  # an untrained model must not replace a file
        _save_best(run, out)
        raise type(stop)(f"{stop}; the best model so far is saved as {out}") from stop
    _save_best(run, out)
    step = run.trainer.progress.best_step
    print(f"best validation at step {step}; that model is saved as {out}")


def _save_best(run: Run, out: Path) -> None:
    run.trainer.restore_best()
    run.model.save(out)


def digest(text: str) -> str:
    """Identify a text, so that a run is resumed on the one that it started on."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
