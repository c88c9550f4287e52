"""The trainer: what it learns from, when it stops, and that a resumed run is the same run."""

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rnncore.arrays import load_arrays, save_arrays
from rnncore.batches import Batch, Batches, bucketed, chunked, shuffled
from rnncore.compositions.chain import Chain
from rnncore.compositions.ragged import length_mask
from rnncore.layers.dropout import Dropout
from rnncore.layers.embedding import Embedding
from rnncore.layers.linear import Linear
from rnncore.losses import MeanSquaredError, SoftmaxCrossEntropy
from rnncore.module import Module
from rnncore.optim import SGD, AdamW
from rnncore.recurrent.gru import GRU
from rnncore.recurrent.lstm import LSTM
from rnncore.schedules import warmup_cosine
from rnncore.states import leaves, rebuild, skeleton
from rnncore.training.checkpoint import generators
from rnncore.training.plots import plot_history
from rnncore.training.trainer import Trainer, evaluate

CLASSES, ROWS = 7, 3


def tagger(seed: int = 0) -> Chain:
    """A small recurrent model with every source of randomness that a model can have."""
    return Chain(
        Embedding(CLASSES, 5, seed=seed),
        LSTM(5, 6, num_layers=2, dropout=0.3, seed=seed + 1),
        Dropout(0.2, seed=seed + 2),
        Linear(6, CLASSES, seed=seed + 3),
    )


def text_batches() -> list[Batch]:
    ids = np.random.default_rng(0).integers(CLASSES, size=(41, ROWS))
    return list(chunked(ids[:-1], ids[1:], 6))


def ragged_batches() -> list[Batch]:
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(5):
        ids, lengths = rng.integers(CLASSES, size=(8, ROWS)), rng.integers(1, 9, ROWS)
        batches.append(Batch(ids, ids, lengths, length_mask(lengths, 8)))
    return batches


def trainer_of(batches: Batches, seed: int = 0, **options: Any) -> Trainer:
    model = tagger(seed)
    loss, held_out = SoftmaxCrossEntropy(), text_batches()[:2]
    options.setdefault("validate", lambda: evaluate(model, loss, held_out))
    rate = warmup_cosine(1e-2, total=24, warmup=3)
    return Trainer(model, loss, AdamW(model, rate), batches, clip_norm=1.0, seed=seed, **options)


def quiet_fit(trainer: Trainer, steps: int, **options: Any) -> str:
    return trainer.fit(steps, **{"validate_every": 5, "show_progress": False, **options})


class Counter(Module):
    """A recurrent module whose state counts the calls, and which notes the states it was given."""

    recurrent = True

    def __init__(self) -> None:
        super().__init__({"w": np.ones(1)})
        self.seen: list[float | None] = []

    def vjp(self, x: Any, state: Any = None) -> Any:
        self.seen.append(None if state is None else float(state[0]))
        after = np.array([1.0 if state is None else state[0] + 1])
        return (x * self.params["w"], after), lambda dy: None


class TestBatches:
    def test_chunks_are_even_and_cover_everything_in_order(self) -> None:
        x = np.arange(23 * 2).reshape(23, 2)
        chunks = list(chunked(x, -x, 5))
        assert [len(chunk.inputs) for chunk in chunks] == [4, 5, 4, 5, 5]
        assert [chunk.carry for chunk in chunks] == [False, True, True, True, True]
        np.testing.assert_array_equal(np.concatenate([chunk.inputs for chunk in chunks]), x)
        np.testing.assert_array_equal(np.concatenate([chunk.targets for chunk in chunks]), -x)

    def test_a_mask_is_kept_only_where_it_hides_something(self) -> None:
        x = np.zeros((6, 2))
        mask = np.ones((6, 2), bool)
        mask[5, 1] = False
        first, last = chunked(x, x, 3, mask)
        assert first.mask is None
        np.testing.assert_array_equal(last.mask, mask[3:])
        assert (first.counted, last.counted) == (6, 5)

    def test_counted_with_a_mask_over_leading_axes(self) -> None:
        mask = np.array([[True, False], [True, True]])
        assert Batch(None, np.zeros((2, 2, 4)), mask=mask).counted == 12

    def test_chunks_have_a_length(self) -> None:
        with pytest.raises(ValueError, match="length must be at least 1, got 0"):
            list(chunked(np.ones((2, 1)), np.ones((2, 1)), 0))

    def test_shuffled_gives_every_batch_once_in_new_orders(self) -> None:
        epoch, rng = shuffled([(i,) for i in range(20)]), np.random.default_rng(0)
        assert callable(epoch)
        first, second = list(epoch(rng)), list(epoch(rng))
        assert sorted(first) == sorted(second) == [(i,) for i in range(20)]
        assert first != second


class TestState:
    def test_is_carried_within_an_epoch_and_dropped_between(self) -> None:
        model, x = Counter(), np.ones((6, 1))
        trainer = Trainer(model, MeanSquaredError(), SGD(model), list(chunked(x, x, 2)))
        for _ in range(5):
            trainer.update()
        assert model.seen == [None, 1, 2, None, 1]

    def test_is_not_carried_into_batches_that_do_not_ask_for_it(self) -> None:
        model, x = Counter(), np.ones((2, 1))
        trainer = Trainer(model, MeanSquaredError(), SGD(model), [(x, x), (x, x)])
        for _ in range(3):
            trainer.update()
        assert model.seen == [None, None, None]

    @pytest.mark.parametrize("nested", [None, (), ("a", ("b", "c")), ((None, "a"), None), "a"])
    def test_survives_being_flattened(self, nested: Any) -> None:
        assert rebuild(skeleton(nested), iter(list(leaves(nested)))) == nested

    def test_generators_are_found_wherever_they_are(self) -> None:
        model = Chain(Dropout(0.1), Chain(Linear(2, 2), Dropout(0.1)))
        assert list(generators(model)) == ["0.rng", "1.1.rng"]


class TestEvaluate:
    def test_weighs_targets_and_not_batches(self) -> None:
        model, loss = tagger(), SoftmaxCrossEntropy()
        ids = np.arange(9)[:, np.newaxis] % CLASSES
        whole = evaluate(model, loss, [(ids[:-1], ids[1:])])
        chunks = list(chunked(ids[:-1], ids[1:], 3))
        assert len({len(chunk.inputs) for chunk in chunks}) > 1
        assert evaluate(model, loss, chunks) == pytest.approx(whole, rel=1e-6)

    def test_leaves_out_what_is_masked(self) -> None:
        ragged = ragged_batches()
        total = SoftmaxCrossEntropy(reduction="sum")
        model, state_free = tagger(), 0.0
        for batch in ragged:
            y, _ = model(batch.inputs, lengths=batch.lengths)
            state_free += total(y, batch.targets, batch.mask)
        count = sum(int(np.sum(batch.mask)) for batch in ragged)
        for loss in (SoftmaxCrossEntropy(), total):
            assert evaluate(model, loss, ragged) == pytest.approx(state_free / count, rel=1e-6)

    def test_of_nothing_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="nothing to evaluate"):
            evaluate(tagger(), SoftmaxCrossEntropy(), [])


class TestFit:
    def test_learns_a_line_and_writes_history(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((64, 3)).astype(np.float32)
        y = x @ np.array([[1.0], [-2.0], [0.5]], np.float32)
        model = Linear(3, 1, seed=0)
        trainer = Trainer(model, MeanSquaredError(), SGD(model, 0.1), [(x, y)])
        assert quiet_fit(trainer, 103, validate_every=50) == "steps"
        assert [record["step"] for record in trainer.history] == [50, 100, 103]
        assert [record["targets"] for record in trainer.history] == [3200, 3200, 192]
        assert trainer.history[0]["epoch"] == 49
        assert trainer.history[-1]["train_loss"] < 1e-6 < trainer.history[0]["train_loss"]
        assert trainer.history[-1]["validation_loss"] is None
        assert trainer.targets_per_second > 0

    def test_patience_ends_it_and_the_best_comes_back(self) -> None:
        losses = iter([3.0, 2.0, 2.5, float("nan"), 2.1, 0.0])
        trainer = trainer_of(text_batches(), validate=lambda: next(losses))
        snapshots = {}
        original = trainer.validate
        assert original is not None

        def validate() -> float:
            snapshots[trainer.progress.step] = trainer.model.state_dict()
            return original()

        trainer.validate = validate
        assert quiet_fit(trainer, 1000, patience=3) == "patience"
        assert (trainer.progress.step, trainer.progress.best_step) == (25, 10)
        assert trainer.progress.best_loss == 2.0
        trainer.restore_best()
        for name, array in trainer.model.params.items():
            np.testing.assert_array_equal(array, snapshots[10][name])
            assert np.any(array != snapshots[25][name]), name

    def test_seconds_end_it_after_a_last_validation(self) -> None:
        trainer = trainer_of(text_batches())
        assert quiet_fit(trainer, 10**9, seconds=0.2, validate_every=10**9) == "seconds"
        assert [record["step"] for record in trainer.history] == [trainer.progress.step]
        assert 0.1 < trainer.progress.seconds < 20

    def test_runs_in_a_thread_that_is_not_the_main_one(self) -> None:
        trainer, reasons = trainer_of(text_batches()), []
        thread = threading.Thread(target=lambda: reasons.append(quiet_fit(trainer, 3)))
        thread.start()
        thread.join()
        assert reasons == ["steps"]

    def test_clips_the_gradients(self) -> None:
        x = np.full((1, 1), 1e3, np.float32)
        model = Linear(1, 1, seed=0)
        before = model.state_dict()
        trainer = Trainer(model, MeanSquaredError(), SGD(model, 1.0), [(x, -x)], clip_norm=0.01)
        trainer.update()
        moved = [array - before[name] for name, array in model.params.items()]
        assert np.sqrt(sum(np.sum(change**2) for change in moved)) == pytest.approx(0.01, rel=1e-2)

    def test_an_infinite_loss_stops_before_the_update(self) -> None:
        x = np.full((1, 1), np.inf, np.float32)
        model = Linear(1, 1, seed=0)
        before = model.state_dict()
        trainer = Trainer(model, MeanSquaredError(), SGD(model), [(x, x)])
        with pytest.raises(FloatingPointError, match="after 0 updates: lower the learning rate"):
            quiet_fit(trainer, 1)
        for name, array in model.params.items():
            np.testing.assert_array_equal(array, before[name])

    def test_an_infinite_gradient_stops_before_the_update(self) -> None:
        class Cliff(Counter):
            recurrent = False

            def vjp(self, x: Any, state: Any = None) -> Any:
                return x * self.params["w"], lambda dy: self.grads["w"].fill(np.inf)

        model, x = Cliff(), np.ones((1, 1))
        trainer = Trainer(model, MeanSquaredError(), SGD(model), [(x, -x)], clip_norm=1.0)
        with pytest.raises(FloatingPointError, match="the gradient's norm is inf after 0 updates"):
            quiet_fit(trainer, 1)
        assert model.params["w"] == 1

    def test_shows_a_bar_and_a_line_per_record(self, capsys: pytest.CaptureFixture[str]) -> None:
        trainer_of(text_batches()).fit(4, validate_every=2)
        said = capsys.readouterr()
        assert said.out == ""
        assert "4/4" in said.err
        assert "step 2: train " in said.err
        assert ", validation " in said.err

    def test_quiet_says_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        trainer_of(text_batches()).fit(4, validate_every=2, quiet=True)
        assert capsys.readouterr() == ("", "")

    def test_validates_at_whole_intervals(self) -> None:
        with pytest.raises(ValueError, match="validate_every must be at least 1, got 0"):
            quiet_fit(trainer_of(text_batches()), 1, validate_every=0)

    @pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
    def test_a_bound_of_gradients_is_positive(self, bound: float) -> None:
        model, x = Counter(), np.ones((1, 1))
        with pytest.raises(ValueError, match="clip_norm must be positive, or None for no bound"):
            Trainer(model, MeanSquaredError(), SGD(model), [(x, x)], clip_norm=bound)

    def test_batches_must_be_readable_again(self) -> None:
        with pytest.raises(TypeError, match="only once"):
            trainer_of(iter(text_batches()))

    def test_an_empty_epoch_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="holds no batches"):
            quiet_fit(trainer_of([]), 1)


def numbers(trainer: Trainer, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that a checkpoint of this trainer holds, without the times."""
    path = folder / "numbers"
    trainer.save(path)
    arrays, metadata = load_arrays(path)
    progress = metadata["run"]["progress"]
    for record in (progress, *progress["history"]):
        for name in ("seconds", "update_seconds", "targets_per_second"):
            record.pop(name, None)
    return arrays, metadata


def assert_same_run(one: Trainer, two: Trainer, folder: Path) -> None:
    (arrays, metadata), (other_arrays, other_metadata) = numbers(one, folder), numbers(two, folder)
    assert metadata == other_metadata
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, other_arrays[name], err_msg=name)
    for array, other in zip(
        *(leaves(trainer._updates.whole_state()) for trainer in (one, two)), strict=True
    ):
        np.testing.assert_array_equal(array, other)


class Interrupting:
    """Batches during one of which Ctrl-C is pressed."""

    def __init__(self, batches: Batches, at: int, presses: int = 1) -> None:
        self.batches, self.at, self.presses, self.given = batches, at, presses, 0

    def __call__(self, rng: np.random.Generator) -> Iterator[Any]:
        for batch in self.batches(rng) if callable(self.batches) else self.batches:
            self.given += 1
            for _ in range(self.presses if self.given == self.at else 0):
                signal.raise_signal(signal.SIGINT)
            yield batch


DATA: dict[str, Callable[[], Batches]] = {
    "carried state": text_batches,
    "shuffled, ragged": lambda: shuffled(ragged_batches()),
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA.keys())
class TestResume:
    def test_equals_the_uninterrupted_run(
        self, data: Callable[[], Batches], tmp_path: Path
    ) -> None:
        whole = trainer_of(data())
        quiet_fit(whole, 24)

        first = trainer_of(data())
        quiet_fit(first, 10, checkpoint=tmp_path / "checkpoint")
        second = trainer_of(data(), seed=99)  # nothing may be left of these other numbers
        second.resume(tmp_path / "checkpoint")
        assert_same_run(first, second, tmp_path)
        quiet_fit(second, 24)
        assert_same_run(whole, second, tmp_path)

    def test_after_ctrl_c_equals_the_uninterrupted_run(
        self, data: Callable[[], Batches], tmp_path: Path
    ) -> None:
        whole = trainer_of(data())
        quiet_fit(whole, 24)

        path = tmp_path / "checkpoint"
        first = trainer_of(Interrupting(data(), at=12))
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as stop:
            quiet_fit(first, 24, checkpoint=path)
        assert str(stop.value) == f"stopped after step 12; the checkpoint is saved as {path}"
        assert signal.getsignal(signal.SIGINT) is handler
        second = trainer_of(data(), seed=99)
        second.resume(path)
        assert second.progress.step == 12
        quiet_fit(second, 24)
        assert_same_run(whole, second, tmp_path)


class TestCheckpoint:
    def test_is_written_at_every_record(self, tmp_path: Path) -> None:
        path, steps = tmp_path / "checkpoint", []

        def validate() -> float:
            if path.exists():
                steps.append(load_arrays(path)[1]["run"]["progress"]["step"])
            return 1.0

        trainer = trainer_of(text_batches(), validate=validate, metadata={"who": "me"})
        quiet_fit(trainer, 12, checkpoint=path)
        assert steps == [5, 10]
        _, metadata = load_arrays(path)
        assert metadata["run"]["progress"]["step"] == 12
        assert metadata["metadata"] == {"who": "me"}

    def test_ctrl_c_without_one_still_finishes_the_step(self) -> None:
        trainer = trainer_of(Interrupting(text_batches(), at=3))
        with pytest.raises(KeyboardInterrupt, match=r"stopped after step 3$"):
            quiet_fit(trainer, 24)

    def test_a_second_ctrl_c_strikes_at_once(self) -> None:
        trainer = trainer_of(Interrupting(text_batches(), at=3, presses=2))
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            quiet_fit(trainer, 24)
        assert trainer.progress.step == 2

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            trainer_of(text_batches()).resume(tmp_path / "nowhere")

    @pytest.mark.parametrize("metadata", [{}, {"run": 1}, {"run": {"progress": {"pace": 1}}}])
    def test_foreign(self, metadata: dict[str, Any], tmp_path: Path) -> None:
        save_arrays(tmp_path / "other", {"a": np.ones(1)}, metadata)
        with pytest.raises(ValueError, match="other is not a training checkpoint"):
            trainer_of(text_batches()).resume(tmp_path / "other")

    def test_of_another_model(self, tmp_path: Path) -> None:
        trainer_of(text_batches()).save(tmp_path / "checkpoint")
        model = Linear(2, 2)
        other = Trainer(model, MeanSquaredError(), SGD(model), [])
        with pytest.raises(ValueError, match="missing 'weight'"):
            other.resume(tmp_path / "checkpoint")

    def test_of_a_model_with_other_generators(self, tmp_path: Path) -> None:
        def trainer(*more: Module) -> Trainer:
            model = Chain(Linear(2, 2), *more)
            return Trainer(model, MeanSquaredError(), SGD(model), [])

        trainer().save(tmp_path / "checkpoint")
        with pytest.raises(ValueError, match=r"draws from \['1.rng'\], the checkpoint from \[\]"):
            trainer(Dropout(0.5)).resume(tmp_path / "checkpoint")


def test_importing_the_trainer_is_cheap() -> None:
    heavy = "{'tqdm', 'safetensors', 'matplotlib'}"
    code = f"import sys, rnncore.training.trainer, rnncore.text; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class TestCurve:
    def test_is_drawn(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib", reason="matplotlib draws the curves")
        trainer = trainer_of(text_batches())
        quiet_fit(trainer, 10)
        plot_history(trainer.history, tmp_path / "curve.png")
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")

    def test_without_matplotlib_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"pip install 'rnncore\[plot\]'"):
            plot_history([], tmp_path / "curve.png")


def test_chunks_and_buckets_refuse_what_does_not_fit() -> None:
    x = np.zeros((7, 2, 3))
    with pytest.raises(ValueError, match="targets must have 7 steps"):
        list(chunked(x, np.zeros(6), 3))
    with pytest.raises(ValueError, match="mask must have 7 steps"):
        list(chunked(x, x, 3, np.ones((2, 2), bool)))
    for spread in (-1, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"spread must be in 0\.\.1"):
            bucketed([3, 1], 1, spread=spread)


class TestResets:
    """Sequences that start anew within a batch: in one call or in chunks that carry the state."""

    def test_chunks_carry_on_where_nothing_starts_anew(self, rng):
        x, y = rng.standard_normal((12, 3, 2), np.float32), np.zeros((12, 3, 4), np.float32)
        resets = rng.random((12, 3)) < 0.3
        chunks = list(chunked(x, y, 5, resets=resets))
        assert np.array_equal(np.concatenate([chunk.resets for chunk in chunks]), resets)
        model, loss = GRU(2, 4, seed=1), MeanSquaredError()
        whole = evaluate(model, loss, [Batch(x, y, resets=resets)])
        assert evaluate(model, loss, chunks) == pytest.approx(whole, rel=1e-6)
        assert evaluate(model, loss, [Batch(x, y)]) != pytest.approx(whole, rel=1e-3)

    def test_an_update_is_that_of_the_model(self, rng):
        x, y = rng.standard_normal((6, 3, 2), np.float32), np.ones((6, 3, 4), np.float32)
        resets, loss = rng.random((6, 3)) < 0.3, MeanSquaredError()
        model, other = GRU(2, 4, seed=1), GRU(2, 4, seed=1)
        Trainer(model, loss, SGD(model, lr=0.1), [Batch(x, y, resets=resets)]).fit(1, quiet=True)
        optimiser = SGD(other, lr=0.1)
        (found, _), pullback = other.vjp(x, resets=resets)
        pullback(loss.vjp(found, y)[1]())
        optimiser.step()
        for name, array in model.params.items():
            assert np.array_equal(array, other.params[name])

    def test_resets_fit_the_inputs(self):
        x = np.zeros((6, 3, 2), np.float32)
        with pytest.raises(ValueError, match="resets must have 6 steps as inputs"):
            list(chunked(x, x, 2, resets=np.zeros((5, 3), bool)))
