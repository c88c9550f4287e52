"""Training over ranks: the bits of one rank, and the numbers of training without ranks."""

import numpy as np
import pytest
import rnncore
from rnncore.batches import Batch, chunked, shuffled
from rnncore.distributed import Alone, RankFailed
from rnncore.losses import Huber
from rnncore.training import Diverged, Trainer, evaluate
from rnncore.training.checkpoint import generators

from tests.support.ranks import all_of, on_ranks

CLASSES = 5


def tagger(dtype="float32", seed=0, dropout=0.0, **options):
    return rnncore.Chain(
        rnncore.Embedding(CLASSES, 4, seed=seed, dtype=dtype),
        rnncore.LSTM(4, 6, num_layers=2, seed=seed + 1, dropout=dropout, dtype=dtype, **options),
        rnncore.Linear(6, CLASSES, seed=seed + 2, dtype=dtype),
    )


def carried():
    ids = np.random.default_rng(0).integers(CLASSES, size=(25, 7))
    return list(chunked(ids[:-1], ids[1:], 8))


def ragged():
    """Batches of several sizes, the last smaller than most numbers of ranks."""
    rng, found = np.random.default_rng(1), []
    for rows in (9, 16, 3):
        ids, lengths = rng.integers(CLASSES, size=(6, rows)), rng.integers(1, 7, rows)
        found.append(Batch(ids, ids, lengths, weights=rng.uniform(0, 2, rows)))
    return found


def masked():
    rng, ids = np.random.default_rng(2), np.random.default_rng(2).integers(CLASSES, size=(4, 10))
    nothing = Batch(ids, ids, mask=np.zeros((4, 10), bool))
    return [Batch(ids, ids, mask=rng.uniform(size=(4, 10)) < 0.4), nothing]


BATCHES = {"carried": carried, "ragged": ragged, "masked": masked}


def trainer_of(collective, batches, model=None, loss=None, **options):
    model = tagger() if model is None else model
    loss = loss or rnncore.SoftmaxCrossEntropy(ignore_index=0)
    options.setdefault("shards", None if collective is None else 8)
    return Trainer(
        model,
        loss,
        rnncore.AdamW(model, 1e-2),
        batches,
        clip_norm=0.5,
        seed=3,
        validate=lambda: evaluate(
            model, loss, carried(), collective=collective, shards=options["shards"]
        ),
        collective=collective,
        **options,
    )


def outcome(trainer):
    """All that a run leaves, in bits."""
    told = [(r["train_loss"], r["validation_loss"], r["targets"]) for r in trainer.history]
    stood = {name: str(rng.bit_generator.state) for name, rng in generators(trainer.model).items()}
    arrays = {n: a.tobytes() for n, a in trainer.model.stored.items()}
    return told, stood, arrays, {n: a.tobytes() for n, a in trainer.optimiser.state_dict().items()}


def fitted(trainer, steps=7):
    trainer.fit(steps, validate_every=3, quiet=True)
    return trainer


@pytest.mark.parametrize("name", BATCHES)
def test_any_number_of_ranks_has_the_bits_of_one(name):
    def run(collective):
        batches = BATCHES[name]()
        shuffle = shuffled(batches) if name != "carried" else batches
        return outcome(fitted(trainer_of(collective, shuffle, tagger(dropout=0.3))))

    expected = run(Alone())
    for size in (2, 3, 4):
        assert all(found == expected for found in all_of(size, run)), size


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", BATCHES)
def test_numbers_are_those_without_ranks(name, reduction):
    def run(collective):
        loss = rnncore.SoftmaxCrossEntropy(
            reduction=reduction, ignore_index=0, class_weight=np.arange(1.0, 6)
        )
        return fitted(trainer_of(collective, BATCHES[name](), tagger("float64"), loss))

    alone, shared = run(None), run(Alone())
    for record, other in zip(alone.history, shared.history, strict=True):
        for key in ("train_loss", "validation_loss", "targets"):
            np.testing.assert_allclose(other[key], record[key], rtol=1e-11)
    for key, param in alone.model.params.items():
        np.testing.assert_allclose(shared.model.params[key], param, rtol=0, atol=1e-9)


def test_a_gradient_is_that_of_the_whole_batch(rng):
    """One step of plain gradient descent, in float32, by targets of real numbers."""
    x = rng.standard_normal((9, 13, 3)).astype(np.float32)
    y = rng.standard_normal((9, 13, 2)).astype(np.float32)
    found = []
    for collective in (None, Alone()):
        model = rnncore.Chain(rnncore.GRU(3, 5, seed=0), rnncore.Linear(5, 2, seed=1))
        Trainer(model, Huber(), rnncore.SGD(model, 1.0), [(x, y)], collective=collective).update()
        found.append(model.grads)
    for key, grad in found[0].items():
        np.testing.assert_allclose(found[1][key], grad, rtol=0, atol=2e-5 * np.abs(grad).max())


@pytest.mark.parametrize("batch_first", [False, True])
def test_outputs_of_a_sequence_are_cut_by_their_first_axis(rng, batch_first):
    x = rng.standard_normal((6, 6, 3)).astype(np.float32)  # T is B
    targets = rng.integers(6, size=6)

    def run(collective):
        model = rnncore.Chain(
            rnncore.Readout(rnncore.GRU(3, 4, seed=0, batch_first=batch_first), "last"),
            rnncore.Linear(4, 6, seed=1),
        )
        loss = rnncore.SoftmaxCrossEntropy()
        trainer = Trainer(
            model, loss, rnncore.SGD(model, 0.1), [(x, targets)], collective=collective
        )
        return trainer.update()

    expected = run(None)
    assert all_of(3, run) == pytest.approx([expected] * 3, rel=1e-6)


def test_running_statistics_are_the_mean_of_the_shards(rng):
    x = rng.standard_normal((5, 8, 3)).astype(np.float32)

    def run(collective):
        model = rnncore.Chain(
            rnncore.RNN(3, 4, seed=0), rnncore.BatchNorm(4), rnncore.Linear(4, 2, seed=1)
        )
        batches = [(x, np.zeros((5, 8), int))]
        loss, optimiser = rnncore.SoftmaxCrossEntropy(), rnncore.SGD(model, 0.0)
        trainer = Trainer(model, loss, optimiser, batches, collective=collective, shards=4)
        trainer.update()
        return {name: array.copy() for name, array in model.buffers.items()}

    found = all_of(2, run)
    rnn = rnncore.RNN(3, 4, seed=0)
    mean, variance = 0, 0
    for shard in range(4):
        y = rnn(np.ascontiguousarray(x[:, shard::4]))[0].reshape(-1, 4).astype(np.float64)
        mean, variance = mean + y.mean(0) / 4, variance + y.var(0, ddof=1) / 4
    for buffers in (*found, run(Alone())):
        np.testing.assert_array_equal(buffers["1.running_mean"], found[0]["1.running_mean"])
        np.testing.assert_allclose(buffers["1.running_mean"], 0.1 * mean, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(buffers["1.running_var"], 0.9 + 0.1 * variance, rtol=1e-5)


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    def first(collective):
        trainer = trainer_of(collective, carried(), tagger(dropout=0.3))
        trainer.fit(5, validate_every=5, quiet=True, checkpoint=tmp_path / f"{collective.size}")

    def rest(collective, size):
        trainer = trainer_of(collective, carried(), tagger(seed=99, dropout=0.3))
        trainer.resume(tmp_path / f"{size}")
        return outcome(fitted(trainer, 9))

    for size in (1, 2, 4):
        all_of(size, first)
    expected = rest(Alone(), 1)
    for size, later in ((4, 1), (4, 3), (2, 4), (1, 2)):
        found = all_of(later, lambda collective, size=size: rest(collective, size))
        assert all(one == expected for one in found), (size, later)


def test_only_rank_0_writes_and_speaks(tmp_path, capsys):
    def run(collective):
        folder = tmp_path / str(collective.rank)
        folder.mkdir()
        trainer = trainer_of(collective, carried())
        trainer.fit(4, validate_every=2, show_progress=False, checkpoint=folder / "run")

    all_of(3, run)
    assert [[file.name for file in (tmp_path / str(n)).iterdir()] for n in range(3)] == [
        ["run"],
        [],
        [],
    ]
    assert capsys.readouterr().err.count("step 4:") == 1


def test_all_begin_with_what_rank_0_has():
    def run(collective):
        return outcome(fitted(trainer_of(collective, carried(), tagger(seed=collective.rank))))

    expected = outcome(fitted(trainer_of(Alone(), carried(), tagger(seed=0))))
    assert all(found == expected for found in all_of(3, run))


def test_gradients_may_move():
    """Where the model becomes a part of another whose gradients are to lie together."""

    def run(moves):
        trainer = trainer_of(Alone(), carried())
        for step in range(4):
            if moves and step == 2:
                rnncore.Chain(trainer.model, rnncore.Linear(CLASSES, 2)).flat_grads()
            trainer.update()
        return outcome(trainer)

    assert run(True) == run(False)


def test_a_model_changed_on_one_rank_is_named(tmp_path):
    def run(collective):
        trainer = trainer_of(collective, carried())
        trainer.update()
        if collective.rank == 1:
            trainer.model.params["2.bias"][0] += 1
        trainer.save(tmp_path / "run")

    for error in on_ranks(2, run):
        assert isinstance(error, RuntimeError)
        assert "rank 1 has other numbers than rank 0 in model.2.bias" in str(error)


def test_an_error_on_one_rank_ends_all():
    def run(collective):
        batches = carried()
        if collective.rank == 2:
            batches[1] = batches[1]._replace(inputs=batches[1].inputs + CLASSES)
        fitted(trainer_of(collective, batches))

    first, _, third, _ = on_ranks(4, run)
    assert isinstance(first, RankFailed)
    assert "rank 2 of 4 failed: " in str(first)
    assert not isinstance(third, RankFailed)


def test_batches_of_other_sizes_are_refused():
    def run(collective):
        ids = np.zeros((3, 4 + collective.rank), int)
        trainer_of(collective, [(ids, ids)]).update()

    for error in on_ranks(2, run):
        assert isinstance(error, ValueError)
        assert str(error) == "batches must be the same on all ranks, got 4, 5 rows"


@pytest.mark.parametrize("row", [0, 5])
def test_all_say_where_numbers_stop_being_finite(row):
    """The row is in a shard of the first rank, or of the second."""

    def run(collective):
        x = np.ones((6, 8, 3), np.float32)
        x[:, row] = 1e30
        model = rnncore.Chain(
            rnncore.Linear(3, 3, seed=0),
            rnncore.RNN(3, 4, seed=0, nonlinearity="relu"),
            rnncore.Linear(4, 1, seed=1),
        )
        model.params["1.weight_hh_l0"][...] = 1e4 * np.eye(4)
        batches = [(x, np.zeros((6, 8, 1), np.float32))]
        loss, optimiser = rnncore.MeanSquaredError(), rnncore.SGD(model)
        shards = None if collective is None else 8
        Trainer(model, loss, optimiser, batches, collective=collective, shards=shards).update()

    with pytest.raises(Diverged) as alone:
        run(None)
    for error in on_ranks(2, run):
        assert isinstance(error, Diverged)
        assert str(error) == str(alone.value)
        assert (error.layer, error.step) == ("1", 3)  # 1e30, 1e34, 1e38


def test_seconds_end_all_ranks_at_once(monkeypatch):
    def run(collective):
        trainer = trainer_of(collective, carried())
        left = 0.0 if collective.rank == 1 else 1e9
        return trainer.fit(50, seconds=left, quiet=True), trainer.progress.step

    assert all_of(2, run) == [("seconds", 0)] * 2


def test_patience_and_the_best_are_those_of_one_rank():
    def run(collective):
        trainer = trainer_of(collective, carried())
        trainer.validate = lambda: float(trainer.progress.step >= 3) + collective.rank
        reason = trainer.fit(50, validate_every=1, patience=2, quiet=True)
        return reason, trainer.progress.best_step, trainer.progress.step

    assert all_of(3, run) == [("patience", 1, 3)] * 3


def test_evaluation_has_the_bits_of_one_rank_and_the_numbers_of_none():
    model, loss = tagger(), rnncore.SoftmaxCrossEntropy()
    for batches in (carried(), ragged(), masked()[:1]):
        plain = evaluate(model, loss, batches)
        expected = evaluate(model, loss, batches, collective=Alone(), shards=8)
        assert expected == pytest.approx(plain, rel=1e-6)
        for size in (2, 3, 5):
            found = all_of(
                size,
                lambda ranks, given=batches: evaluate(
                    tagger(), loss, given, collective=ranks, shards=8
                ),
            )
            assert found == [expected] * size
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(model, loss, [], collective=Alone())


def test_what_cannot_be_shared_is_refused(rng):
    x = np.zeros((3, 4, 3), np.float32)
    y = np.zeros((3, 4), int)

    def update(batch, collective=None, **options):
        model = rnncore.Chain(rnncore.GRU(3, 4, seed=0), rnncore.Linear(4, 2, seed=0))
        loss, optimiser = rnncore.SoftmaxCrossEntropy(), rnncore.SGD(model)
        collective = collective or Alone()
        Trainer(model, loss, optimiser, [batch], collective=collective, **options).update()

    with pytest.raises(ValueError, match=r"inputs must have a batch axis to be cut into shards"):
        update((x[0, 0], y))
    with pytest.raises(TypeError, match="inputs must be arrays, or tuples of them, to be cut"):
        update(("text", y))
    with pytest.raises(ValueError, match="targets must have 4 rows as inputs, got shape"):
        update((x, y[:, :3]))
    with pytest.raises(ValueError, match="lengths must have 4 rows along axis 0 to be cut"):
        update(Batch(x, y, np.array([3, 3])), shards=2)
    with pytest.raises(ValueError, match="shards must be at least 1, got 0"):
        update((x, y), shards=0)
    model = tagger()
    with pytest.raises(ValueError, match="shards needs a collective"):
        Trainer(model, rnncore.SoftmaxCrossEntropy(), rnncore.SGD(model), [(y, y)], shards=2)
    with pytest.raises(TypeError, match=r"collective must have rank, .*, got int"):
        update((x, y), collective=3)
    for error in on_ranks(3, lambda ranks: update((x, y), ranks, shards=2)):
        assert "shards must be at least the number of ranks, 3, got 2" in str(error)


def test_checkpoints_say_how_batches_were_cut(tmp_path):
    trainer_of(Alone(), carried()).save(tmp_path / "run")
    with pytest.raises(ValueError, match="its batches were cut into 8 shards"):
        trainer_of(Alone(), carried(), shards=4).resume(tmp_path / "run")
    with pytest.raises(ValueError, match="its batches were cut into 8 shards"):
        trainer_of(None, carried()).resume(tmp_path / "run")
    found = on_ranks(2, lambda ranks: trainer_of(ranks, carried()).resume(tmp_path / "none"))
    assert [type(error) for error in found] == [FileNotFoundError, RankFailed]
