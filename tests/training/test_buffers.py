"""Training a model with running statistics: what moves them, what is kept, what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rnncore import SGD, Adam, BatchNorm, Chain, Conv1d, Linear, MaxPool1d, MeanSquaredError
from rnncore.arrays import load_arrays, save_arrays
from rnncore.batches import Batch
from rnncore.training.trainer import Trainer, evaluate

from tests.support.compare import assert_same


def model(seed: int = 0) -> Chain:
    return Chain(
        Conv1d(3, 4, 3, padding="same", seed=seed),
        BatchNorm(4, batch_first=False),
        MaxPool1d(2),
        Linear(4, 2, seed=seed + 1),
    )


def batches() -> list[Batch]:
    rng = np.random.default_rng(0)
    shapes, lengths = [(8, 5, 3), (4, 5, 2)], np.array([8, 2, 5, 8, 4])
    pairs = [[rng.standard_normal(shape).astype("f") for shape in shapes] for _ in range(4)]
    return [Batch(x, y, lengths) for x, y in pairs]


def trainer_of(seed: int = 0, **options: Any) -> Trainer:
    made = model(seed)
    return Trainer(made, MeanSquaredError(), Adam(made), batches(), **options)


def fit(trainer: Trainer, steps: int, **options: Any) -> None:
    trainer.fit(steps, **{"validate_every": 3, "quiet": True, **options})


def test_training_moves_them_and_evaluation_does_not() -> None:
    trainer = trainer_of()
    before = trainer.model.state_dict()
    evaluate(trainer.model, MeanSquaredError(), batches())
    assert_same(trainer.model.state_dict(), before)
    trainer.update()
    for name, array in trainer.model.buffers.items():
        assert (array != before[name]).any()


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    whole, first, second = trainer_of(), trainer_of(), trainer_of(seed=9)
    fit(whole, 10)
    fit(first, 4, checkpoint=tmp_path / "run")
    second.resume(tmp_path / "run")
    assert_same(second.model.state_dict(), first.model.state_dict())
    fit(second, 10)
    assert_same(second.model.state_dict(), whole.model.state_dict())


def test_the_best_come_back() -> None:
    losses = iter([3.0, 1.0, 2.0])
    seen: list[Any] = []

    def validate() -> float:
        seen.append(trainer.model.state_dict())
        return next(losses)

    trainer = trainer_of(validate=validate)
    fit(trainer, 9)
    trainer.restore_best()
    assert_same(trainer.model.state_dict(), seen[1])
    assert (seen[1]["1.running_mean"] != seen[2]["1.running_mean"]).any()


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_numbers_that_are_not_finite_do_not_reach_them(clip_norm: float | None) -> None:
    made = model()
    good, bad = batches()[:2]
    bad.inputs[0, 0] = np.nan
    trainer = Trainer(made, MeanSquaredError(), SGD(made), [good, bad], clip_norm=clip_norm)
    trainer.update()
    before = made.state_dict()
    with pytest.raises(FloatingPointError, match="the training loss is nan after 1 updates"):
        trainer.update()
    assert_same(made.state_dict(), before)


@pytest.mark.parametrize("change", ["missing", "misshapen", "unknown"])
def test_checkpoints_that_do_not_hold_them_are_refused(change: str, tmp_path: Path) -> None:
    trainer, path = trainer_of(), tmp_path / "run"
    fit(trainer, 4, checkpoint=path)
    arrays, metadata = load_arrays(path)
    name = "model.1.running_var"
    if change == "missing":
        del arrays[name]
    elif change == "unknown":
        arrays["model.1.running_median"] = arrays[name]
    else:
        arrays[name] = arrays[name][:2]
    save_arrays(path, arrays, metadata)
    other = trainer_of(seed=5)
    before = other.model.state_dict()
    with pytest.raises(ValueError, match="running_"):
        other.resume(path)
    assert_same(other.model.state_dict(), before)
