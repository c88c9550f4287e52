"""A checkpoint that is damaged is refused with the file's name, and nothing has changed by then."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rnncore import LSTM, Adam, Chain, Dropout, Linear, MeanSquaredError
from rnncore.arrays import load_arrays, save_arrays
from rnncore.batches import Batch, shuffled
from rnncore.commands.recipe import Recipe
from rnncore.training.checkpoint import check_generator, generator_state
from rnncore.training.trainer import Trainer

STEPS = 5


def trainer_of(carry: bool = True) -> Trainer:
    """A trainer whose checkpoint after `STEPS` has a bit of everything."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 2, 3)).astype("float32")
    y = np.zeros((6, 2, 2), "float32")
    model = Chain(LSTM(3, 4, 2, dropout=0.1, seed=0), Dropout(0.1, seed=1), Linear(4, 2, seed=2))
    batches: Any = [Batch(x, y, carry=carry)] * 3
    if not carry:
        batches = shuffled(batches)
    return Trainer(
        model,
        MeanSquaredError(),
        Adam(model),
        batches,
        validate=lambda: 1.0,
        seed=1,
        metadata={"a": 1},
    )


def everything(trainer: Trainer, folder: Path) -> Any:
    """All that a checkpoint of the trainer holds, to be compared."""
    trainer.save(folder / "everything")
    arrays, metadata = load_arrays(folder / "everything")
    return {name: array.tobytes() for name, array in arrays.items()}, json.dumps(
        metadata, sort_keys=True
    )


def change(part: str, name: str, value: Any) -> Callable[[Any, Any, Any], None]:
    def damage(run: Any, metadata: Any, arrays: Any) -> None:
        {"run": run, "metadata": metadata, "arrays": arrays, **run}[part][name] = value

    return damage


def record(name: str, value: Any) -> Callable[[Any, Any, Any], None]:
    return lambda run, metadata, arrays: run["progress"]["history"][0].update({name: value})


def rename(start: str) -> Callable[[Any, Any, Any], None]:
    def damage(run: Any, metadata: Any, arrays: Any) -> None:
        for name in [name for name in arrays if name.startswith(start)]:
            arrays[f"{name}x"] = arrays.pop(name)

    return damage


def reshape(name: str) -> Callable[[Any, Any, Any], None]:
    def damage(run: Any, metadata: Any, arrays: Any) -> None:
        arrays[name] = np.ascontiguousarray(arrays[name].T)

    return damage


DAMAGE = {
    **{
        f"{name} is {value!r:.12}": change("progress", name, value)
        for name in ("step", "epoch", "position", "best_step", "without_gain")
        for value in (-1, 1.5, "1", None, True, [], 10**40)
    },
    **{
        f"{name} is {value!r:.12}": change("progress", name, value)
        for name in ("seconds", "targets", "update_seconds")
        for value in (-1.0, math.nan, math.inf, "1", None, [])
    },
    **{
        f"{name} is {value!r}": change("progress", name, value)
        for name in ("best_loss", "loss_sum")
        for value in (math.nan, "1", None, {})
    },
    **{
        f"history is {value!r}": change("progress", "history", value)
        for value in (None, {}, "ab", [1], [{}], [[]])
    },
    **{
        f"a record's {name} is {value!r}": record(name, value)
        for name in ("step", "train_loss", "seconds", "targets", "targets_per_second")
        for value in (None, "1", math.nan)
    },
    "a record's speed is 0": record("targets_per_second", 0.0),
    "a record's validation_loss is text": record("validation_loss", "1"),
    "unknown progress": change("progress", "pace", 1),
    "far beyond the epoch": change("progress", "position", 10**15),
    "one beyond the epoch": change("progress", "position", 4),
    **{f"progress is {v!r}": change("run", "progress", v) for v in (None, [], "text", 7)},
    **{f"generators are {v!r}": change("run", "generators", v) for v in (None, [], 7, {})},
    **{f"the epoch's is {v!r}": change("run", "epoch_generator", v) for v in (None, [], 7, {})},
    "the epoch's state is text": change("epoch_generator", "state", "x"),
    "the epoch's state is empty": change("epoch_generator", "state", {}),
    "the epoch's kind": change("epoch_generator", "bit_generator", "MT19937"),
    "a generator's state": change("generators", "1.rng", {"state": 1}),
    "a state that is too large": lambda run, metadata, arrays: run["epoch_generator"][
        "state"
    ].update(state=10**60),
    **{f"state is {v!r}": change("run", "state", v) for v in (True, 7, {}, [True] * 3, [[1]])},
    "no state": change("run", "state", None),
    "a state of another shape": reshape("state.0"),
    "arrays of the state": rename("state"),
    "arrays of the optimiser": rename("optimiser"),
    "arrays of the model": rename("model"),
    "arrays of the best": rename("best"),
    "arrays of nothing": change("arrays", "nothing", np.zeros(1)),
    "a misshapen slot": reshape("optimiser.exp_avg.2.weight"),
    "a misshapen parameter": reshape("model.2.weight"),
    "a misshapen best": reshape("best.2.weight"),
    "steps below 0": change("arrays", "optimiser.steps", np.array([-1])),
    "steps of floats": change("arrays", "optimiser.steps", np.array([1.0])),
    "a parameter of float64": change("arrays", "model.2.bias", np.zeros(2)),
    "metadata that are none": change("metadata", "metadata", [1]),
    "a run that is none": change("metadata", "run", "text"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_is_refused_and_changes_nothing(
    damage: Callable[[Any, Any, Any], None], tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    first = trainer_of()
    first.fit(STEPS, validate_every=2, quiet=True, checkpoint=path)
    arrays, metadata = load_arrays(path)
    damage(metadata["run"], metadata, arrays)
    save_arrays(path, arrays, metadata)
    second = trainer_of()
    second.fit(2, validate_every=2, quiet=True)
    before = everything(second, tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint is not a training checkpoint") as refusal:
        second.resume(path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1500
    assert everything(second, tmp_path) == before
    second.fit(4, validate_every=2, quiet=True)
    whole = trainer_of()
    whole.fit(4, validate_every=2, quiet=True)
    for name, param in whole.model.params.items():
        np.testing.assert_array_equal(second.model.params[name], param)


def test_an_epoch_that_fails_leaves_the_generator(tmp_path: Path) -> None:
    trainer_of(carry=False).save(tmp_path / "checkpoint")
    trainer = trainer_of(carry=False)
    before = trainer._rng.bit_generator.state
    trainer.batches = lambda rng: [rng.random(), 1 // 0]  # type: ignore[list-item]
    with pytest.raises(ZeroDivisionError):
        trainer.resume(tmp_path / "checkpoint")
    assert trainer._rng.bit_generator.state == before


KINDS = [
    np.random.PCG64,
    np.random.PCG64DXSM,
    np.random.MT19937,
    np.random.Philox,
    np.random.SFC64,
]


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_every_kind_of_generator(kind: Callable[[int], np.random.BitGenerator]) -> None:
    rng = np.random.Generator(kind(3))
    rng.random(7)
    state = json.loads(json.dumps(generator_state(rng)))
    other = np.random.Generator(kind(4))
    check_generator("rng", other, state)
    for key in state:
        for value in (None, "x", -1, [], {}, 10**30):
            with pytest.raises(ValueError, match="the state of rng is none of a "):
                check_generator("rng", other, {**state, key: value})
    for key in state["state"]:
        for value in (None, "x", -1, [], {}, 10**60):
            with pytest.raises(ValueError, match="the state of rng is none of a "):
                check_generator("rng", other, {**state, "state": {**state["state"], key: value}})
    assert generator_state(other) == generator_state(np.random.Generator(kind(4)))


@pytest.mark.parametrize(
    "said",
    [
        {"cell": "lsmt"},
        {"hidden": "512"},
        {"hidden": -1},
        {"batch": 1.5},
        {"dropout": 2.0},
        {"lr": None},
        {"seed": True},
    ],
)
def test_recipes_are_checked(said: dict[str, Any]) -> None:
    assert Recipe.checked({"steps": 3, "lr": 1e-3}) == Recipe(steps=3, lr=1e-3)
    with pytest.raises(ValueError, match=f"{next(iter(said))} cannot be "):
        Recipe.checked(said)
