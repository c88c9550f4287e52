"""The trainer: batches in; validation, early stopping, checkpoints and exact resume.

    trainer = Trainer(model, SoftmaxCrossEntropy(), AdamW(model), batches, clip_norm=1.0)
    trainer.fit(1000, checkpoint="run.checkpoint")

A run that was interrupted and resumed from its checkpoint equals one that was not, to the bit.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, check_count, check_number, check_size, load_arrays, save_arrays
from ..batches import Batch, Batches, BatchLike
from ..distributed.collective import Collective
from ..distributed.sharded import Drawn, ShardedUpdate
from ..files import reading
from ..hinting import Hinting, hinted, put_hints
from ..hints import FIT, TRAINED, TRAINER
from ..losses import Objective
from ..module import Module
from ..optim import Optimiser, clip_grad_norm
from ..parameters import copy_into, fitting, join_names, load_into
from ..states import State, leaves, skeleton, state_of
from .checkpoint import (
    Progress,
    buffers_kept,
    check_generator,
    check_generators,
    generator_state,
    generator_states,
    generators,
    group,
    restore_generators,
)
from .console import held_interrupts, progress_bar
from .divergence import Diverged
from .evaluation import check_reduced
from .evaluation import evaluate as evaluate
from .ranks import Ranks
from .update import Update, diverged, place_of

_INTERRUPTED = "interrupted"
_NO_CHECKPOINT = " is not a training checkpoint of this trainer"


def describe(record: Mapping[str, Any]) -> str:
    """Say what a record of the history holds, in a line."""
    losses = f"train {record['train_loss']:.4f}"
    if record["validation_loss"] is not None:
        losses += f", validation {record['validation_loss']:.4f}"
    return f"step {record['step']}: {losses}, {record['targets_per_second']:,.0f} targets/s"


class Limits(NamedTuple):
    """When a call of `fit` is over."""

    steps: int
    patience: float
    deadline: float

    def reached(self, progress: Progress) -> str | None:
        """Name the limit that was reached, if one was."""
        if progress.step >= self.steps:
            return "steps"
        if progress.without_gain >= self.patience:
            return "patience"
        return "seconds" if time.perf_counter() >= self.deadline else None


class Trainer(Hinting):
    """Fits a module to batches; all that it needs to go on exactly is in its checkpoints.

    `batches` is an iterable that gives the same epoch at every pass, or a function that makes an
    epoch from the trainer's generator (seeded by `seed`), as `shuffled` does. `validate` returns
    the loss by which the best parameters are chosen. `metadata` (JSON) is kept in the checkpoints.

    With a `collective` (`rnncore.distributed`) every rank makes the same trainer and the same
    batches, and calls the same functions; all begin with what rank 0 has, which alone writes files
    and shows progress. A batch is cut into `shards` by its rows, each computed by itself on one of
    the ranks: the results have the same bits for any number of ranks. None: a shard for 16 rows,
    8 at most. Of layers that draw at random each shard draws numbers of its own; those that
    normalise over a batch do so over a shard, and their running statistics are the shards' mean.
    """

    _hints = TRAINER

    def __init__(
        self,
        model: Module,
        loss: Objective,
        optimiser: Optimiser,
        batches: Batches,
        *,
        validate: Callable[[], float] | None = None,
        clip_norm: float | None = None,
        seed: int | np.random.Generator | None = None,
        metadata: Mapping[str, Any] | None = None,
        collective: Collective | None = None,
        shards: int | None = None,
    ) -> None:
        if isinstance(batches, Iterator):
            raise TypeError(
                "batches can be read only once: give a list, or a function that makes it"
            )
        for name, given, needed in (
            ("model", model, "zero_grad"),
            ("loss", loss, "vjp"),
            ("optimiser", optimiser, "step"),
        ):
            if not hasattr(given, needed):
                kind = type(given).__name__
                raise TypeError(f"{name} must have a method {needed}, got {kind}")
        check_reduced(loss)
        if not callable(batches) and not isinstance(batches, Iterable):
            kind = type(batches).__name__
            raise TypeError(f"batches must be an iterable or a function that makes it, got {kind}")
        # Zero would let nothing be learnt.
        if clip_norm is not None and not check_number("clip_norm", clip_norm) > 0:
            raise ValueError(f"clip_norm must be positive, or None for no bound, got {clip_norm}")
        self.model, self.loss, self.optimiser, self.batches = model, loss, optimiser, batches
        self.validate, self.clip_norm, self.metadata = validate, clip_norm, dict(metadata or {})
        self.progress = Progress()
        #: The parameters at the lowest validation loss; empty before the first validation.
        self.best: dict[str, Array] = {}
        self._rng = np.random.default_rng(seed)
        if collective is None and shards is not None:
            raise ValueError("shards needs a collective, if only rnncore.distributed.Alone()")
        self._ranks, self._shards = Ranks(collective), shards
        self._begin_alike()
        #: What makes gradients of a batch, and holds the state that is carried on.
        self._updates: Update | ShardedUpdate = (
            Update(model, loss)
            if collective is None
            else ShardedUpdate(model, loss, collective, shards)
        )
        #: Looked up once, since to look for them takes as long as a small update.
        self._generators = list(generators(model).values())
        self._open_epoch()

    @property
    def history(self) -> list[dict[str, Any]]:
        """A dict per record, of losses and speed since the one before.

        Its keys: step, epoch, train_loss, validation_loss (None without `validate`), seconds (in
        all), targets (or the sum of their weights), targets_per_second.
        """
        return self.progress.history

    @property
    def targets_per_second(self) -> float:
        """Targets (characters, where the data is text) per second of updating, over all records."""
        told = [record for record in self.history if record["targets"]]
        seconds = sum(record["targets"] / record["targets_per_second"] for record in told)
        return sum(record["targets"] for record in told) / seconds if seconds else 0.0

    @hinted(FIT)
    def fit(
        self,
        steps: int,
        *,
        validate_every: int = 100,
        patience: int | None = None,
        seconds: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        show_progress: bool = True,
        quiet: bool = False,
    ) -> str:
        """Train until `steps` updates have been made in all; return which limit ended it.

        Every `validate_every` steps and at the end there is a validation, a record in the history
        and a checkpoint. "patience" ends the run after so many validations without a new best,
        "seconds" after so much time in this call; else it is "steps". `quiet` runs print nothing;
        others a line for each record, and a progress bar with `show_progress`. `patience` without
        `validate` raises `ValueError`.

        Ctrl-C ends it after the running step: the checkpoint is written and a `KeyboardInterrupt`
        raised that says so. A second Ctrl-C strikes at once. A training loss (or a norm to be
        clipped) that is not finite raises `FloatingPointError` before it reaches the parameters or
        running statistics: `Diverged`, which names the layer and the time step where it began.
        """
        check_count("steps", steps, 0)
        check_size("validate_every", validate_every)
        if patience is not None and self.validate is None:
            raise ValueError("patience counts validations: it needs validate, or to be None")
        most = math.inf if patience is None else check_count("patience", patience)
        left = math.inf if seconds is None else check_number("seconds", seconds)
        limits = Limits(steps, most, time.perf_counter() + left)
        quiet = quiet or not self._ranks.first
        with (
            held_interrupts() as interrupted,
            progress_bar(steps, self.progress.step, show=show_progress and not quiet) as bar,
        ):
            while not (reason := self._over(limits, interrupted)):
                self.update()
                bar.set_postfix_str(str(self.progress), refresh=False)
                bar.update()
                if self.progress.step % validate_every == 0:
                    self._record(checkpoint, None if quiet else bar)
            if reason != _INTERRUPTED and self.progress.update_seconds:
                self._record(checkpoint, None if quiet else bar)
        if reason == _INTERRUPTED:
            raise self._interrupted(checkpoint)
        return reason

    def update(self) -> float:
        """Learn from the next batch and return its loss; `fit` is this in a loop."""
        started = time.perf_counter()
        batch = self._next_batch()
        drawn = [(rng, rng.bit_generator.state) for rng in self._generators]
        with buffers_kept(self.model):
            learnt = self._updates.learn(batch, drawn)
            if not math.isfinite(learnt.loss):
                raise self._diverged("training loss", learnt.loss, batch, drawn)
            norm = 0.0 if self.clip_norm is None else clip_grad_norm(self.model, self.clip_norm)
            if not math.isfinite(norm):
                raise self._diverged("gradient's norm", norm, batch, drawn)
        self.optimiser.step()
        self._updates.advance()
        self._count(learnt.loss_sum, learnt.counted, time.perf_counter() - started)
        return learnt.loss

    def restore_best(self) -> None:
        """Give the model the parameters of the best validation so far; without one, leave it."""
        if self.best:
            load_into(self.model.stored, self.best)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that `resume` needs, replacing the file atomically.

        Over ranks, all of them call this, and rank 0 writes.
        """
        state = self._updates.whole_state()
        arrays = join_names(
            [
                ("model", self.model.stored),
                ("best", self.best),
                ("optimiser", self.optimiser.state_dict()),
                ("state", {str(i): array for i, array in enumerate(leaves(state))}),
            ]
        )
        run = {
            "progress": asdict(self.progress),
            "state": skeleton(state),
            "generators": generator_states(self.model),
            "epoch_generator": self._epoch_generator,
        }
        self._ranks.check_alike(arrays)
        if self._ranks.collective is not None:
            run["shards"] = self._shards
        kept = {"run": run, "metadata": self.metadata}
        self._ranks.on_first(lambda: save_arrays(path, arrays, kept))

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint written by a trainer of the same model, optimiser and batches.

        Raises `FileNotFoundError`, or `ValueError` naming the file and what does not fit; then
        nothing is changed.
        """
        arrays, metadata = self._ranks.on_first(lambda: load_arrays(path))
        parts = {name: group(arrays, name) for name in ("model", "best", "optimiser", "state")}
        with reading(path, _NO_CHECKPOINT):
            run, kept = metadata["run"], metadata.get("metadata", {})
            if not isinstance(run, dict) or not isinstance(kept, dict):
                raise ValueError("its metadata say nothing of a run")
            if sum(map(len, parts.values())) < len(arrays):
                raise ValueError(f"it holds more than {', '.join(parts)}")
            progress = Progress.checked(run["progress"])
            params = fitting(self.model.stored, parts["model"])
            best = fitting(self.model.stored, parts["best"]) if parts["best"] else {}
            state = state_of(run["state"], parts["state"])
            if run.get("shards", self._shards) != self._shards:
                raise ValueError(f"its batches were cut into {run['shards']!r:.20} shards")
            check_generators(self.model, run["generators"])
            check_generator("the epochs' generator", self._rng, run["epoch_generator"])
        before = self._rng.bit_generator.state
        try:
            self._rng.bit_generator.state = run["epoch_generator"]
            items = self._made_epoch()
            used = sum(1 for _ in islice(items, progress.position))
            with reading(path, _NO_CHECKPOINT):
                if used < progress.position:
                    raise ValueError(f"position {progress.position} of an epoch of {used} batches")
                items = self._tried(items, state)
                self.optimiser.load_state_dict(parts["optimiser"])
        except BaseException:
            self._rng.bit_generator.state = before
            raise
        copy_into(self.model.stored, params)
        restore_generators(self.model, run["generators"])
        self.best, self.metadata, self.progress = best, kept, progress
        self._updates.take_state(state)
        self._epoch_generator, self._items = run["epoch_generator"], items

    def _begin_alike(self) -> None:
        """Have every rank begin with what rank 0 has: numbers, and where its generators stand."""
        mine = (
            dict(self.model.stored),
            self.optimiser.state_dict(),
            generator_states(self.model),
            generator_state(self._rng),
        )
        stored, optimiser, drawn, epochs = self._ranks.from_first(mine)
        if stored is not mine[0]:
            check_generators(self.model, drawn)
            check_generator("the epochs' generator", self._rng, epochs)
            self.optimiser.load_state_dict(optimiser)
            load_into(self.model.stored, stored)
            restore_generators(self.model, drawn)
            self._rng.bit_generator.state = epochs

    def _over(self, limits: Limits, interrupted: list[int]) -> str | None:
        """Name what ends the run, if anything does: the same on all ranks."""
        reason = limits.reached(self.progress)
        stop, late = self._ranks.agreed((bool(interrupted), reason == "seconds"))
        return _INTERRUPTED if stop else reason or ("seconds" if late else None)

    def _open_epoch(self) -> None:
        # Where the generator stood is all that it takes to make the same epoch again.
        self._epoch_generator = generator_state(self._rng)
        self._items = self._made_epoch()

    def _made_epoch(self) -> Iterator[BatchLike]:
        return iter(self.batches(self._rng) if callable(self.batches) else self.batches)

    def _tried(self, items: Iterator[BatchLike], state: State) -> Iterator[BatchLike]:
        """Return the batches; raises what the model raises if it cannot go on from the state."""
        first = next(items, None)
        if first is None:
            return items
        batch = Batch(*first)
        if state is not None and batch.carry:
            args, options = batch.arguments(self.model, state)
            with suppress(NotImplementedError):  # a model that has no more than vjp
                self.model(*args, **options)
        return chain([first], items)

    def _next_batch(self) -> Batch:
        for item in self._items:
            self.progress.position += 1
            return Batch(*item)
        if self.progress.position == 0:
            raise ValueError("an epoch holds no batches")
        self.progress.epoch += 1
        self.progress.position = 0
        self._open_epoch()
        return self._next_batch()

    def _diverged(self, name: str, value: float, batch: Batch, drawn: Drawn) -> Diverged:
        """Return the error that says what is not finite, and where that began."""

        def explain(part: Batch, stand: Drawn, state: State) -> Any:
            return place_of(self.model, self.loss, part, stand, state)

        place = self._updates.first_found(batch, drawn, explain)
        return diverged(name, value, self.progress.step, place)

    def _count(self, loss_sum: float, counted: float, seconds: float) -> None:
        progress = self.progress
        progress.step += 1
        progress.loss_sum += loss_sum
        progress.targets += counted
        progress.update_seconds += seconds
        progress.seconds += seconds

    def _record(self, checkpoint: str | os.PathLike[str] | None, bar: Any) -> None:
        progress = self.progress
        validation_loss = self._validated()
        progress.history.append(
            {
                "step": progress.step,
                "epoch": progress.epoch,
                # As losses have it, what counts nothing costs nothing.
                "train_loss": progress.loss_sum / (progress.targets or 1),
                "validation_loss": validation_loss,
                "seconds": progress.seconds,
                "targets": progress.targets,
                "targets_per_second": progress.targets / progress.update_seconds,
            }
        )
        progress.loss_sum = progress.targets = progress.update_seconds = 0.0
        if bar is not None:
            bar.write(describe(progress.history[-1]), file=sys.stderr)
        if checkpoint is not None:
            self.save(checkpoint)

    def _validated(self) -> float | None:
        """Validate if there is a way to, and keep the parameters if they are the best so far."""
        if self.validate is None:
            return None
        progress, started = self.progress, time.perf_counter()
        loss = self._ranks.from_first(float(self.validate()))
        progress.seconds += time.perf_counter() - started
        progress.without_gain += 1
        if loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.without_gain = loss, progress.step, 0
            self.best = self.model.state_dict()
        return loss

    def _interrupted(self, checkpoint: str | os.PathLike[str] | None) -> KeyboardInterrupt:
        said = f"stopped after step {self.progress.step}"
        if checkpoint is None:
            return KeyboardInterrupt(said)
        self.save(checkpoint)
        return KeyboardInterrupt(f"{said}; the checkpoint is saved as {os.fspath(checkpoint)}")


put_hints(Trainer, TRAINED)
