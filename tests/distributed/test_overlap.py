"""Exchange while backward runs: the same bits, and errors on all ranks."""

from __future__ import annotations

from collections import defaultdict
from threading import get_ident

import numpy as np
import pytest
import rnncore
from rnncore.distributed import Alone, RankFailed, overlap
from rnncore.training import Diverged, Trainer

from tests.support.ranks import all_of, on_ranks


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(overlap, "LEAST", 100)


def tied():
    table = rnncore.Embedding(5, 6, seed=0)
    return rnncore.Chain(
        table,
        rnncore.LSTM(6, 6, seed=1),
        rnncore.GRU(6, 6, seed=2, num_layers=2),
        rnncore.Dropout(0.2, seed=4),
        rnncore.TiedLinear(table),
    )


def twice():
    layer = rnncore.RNN(5, 5, seed=1)
    return rnncore.Chain(
        rnncore.Embedding(5, 5, seed=0),
        layer,
        rnncore.GRU(5, 5, seed=2),
        layer,
        rnncore.LayerNorm(5),
    )


def updates(collective, make, steps=4):
    """Train a little; return parameters, and how many buckets had gone out in each pullback."""
    ids = np.random.default_rng(0).integers(5, size=(9, 11))
    model = make()
    loss, optimiser = rnncore.SoftmaxCrossEntropy(), rnncore.Adam(model, 1e-2)
    trainer = Trainer(
        model, loss, optimiser, [(ids, ids)], collective=collective, shards=8, clip_norm=1.0
    )
    for _ in range(steps):
        trainer.update()
    return model.flat_params().tobytes(), len(trainer._updates._overlap.buckets)


@pytest.mark.parametrize("make", [tied, twice])
def test_bits_are_those_of_one_rank(make):
    def run(collective):
        collective.overlaps = True
        return updates(collective, make)

    expected, count = updates(Alone(), make)
    assert count > 2
    for size in (2, 3, 4, 8):
        assert all_of(size, run) == [(expected, count)] * size


def test_buckets_go_out_before_backward_has_ended(monkeypatch):
    """Of two layers the last one's gradients are sent before the first one's pullback runs."""
    seen: dict[int, list[str]] = defaultdict(list)  # by rank, each a thread
    send, vjp = overlap.Overlap._send, rnncore.LSTM.vjp

    def sent(self, bucket, *args):
        seen[get_ident()] += [type(part).__name__ for part in bucket.parts]
        send(self, bucket, *args)

    def told(self, *args, **options):
        output, pullback = vjp(self, *args, **options)

        def back(*gradients):
            seen[get_ident()].append("LSTM goes backward")
            return pullback(*gradients)

        return output, back

    def run(collective):
        collective.overlaps = True
        updates(collective, tied, 1)
        return seen.pop(get_ident())[-5:]

    monkeypatch.setattr(overlap.Overlap, "_send", sent)
    monkeypatch.setattr(rnncore.LSTM, "vjp", told)
    monkeypatch.setattr(overlap, "LEAST", 1)
    order = ["TiedLinear", "GRU", "LSTM goes backward", "LSTM", "Embedding"]
    assert all_of(2, run) == [order] * 2


@pytest.mark.parametrize("ends", ["first", "last"])
def test_an_error_in_backward_ends_all(ends):
    class Failing(rnncore.Tanh):
        fails = False

        def vjp(self, x):
            y, pullback = super().vjp(x)

            def back(dy):
                if self.fails:
                    raise MemoryError("no room")
                return pullback(dy)

            return y, back

    def run(collective):
        collective.overlaps = True
        x = np.ones((3, 8, 4), np.float32)
        layers = [rnncore.LSTM(4, 4, seed=0), rnncore.LSTM(4, 4, seed=1)]
        failing = Failing()
        failing.fails = collective.rank == 1
        layers.insert(1 if ends == "first" else 2, failing)
        model = rnncore.Chain(*layers)
        loss, optimiser = rnncore.MeanSquaredError(), rnncore.SGD(model)
        trainer = Trainer(model, loss, optimiser, [(x, x)], collective=collective, shards=2)
        before = model.flat_params().copy()
        try:
            trainer.update()
        finally:
            assert np.array_equal(model.flat_params(), before)
            assert not any("vjp" in vars(part) for part in layers)

    first, second = on_ranks(2, run)
    assert isinstance(second, MemoryError)
    assert isinstance(first, RankFailed)
    assert str(first) == "rank 1 of 2 failed: MemoryError: no room"


def test_a_loss_that_is_not_finite_leaves_nothing_behind():
    def run(collective):
        collective.overlaps = True
        x = np.ones((3, 4, 4), np.float32)
        model = rnncore.Chain(rnncore.LSTM(4, 4, seed=0), rnncore.Linear(4, 4, seed=1))
        model.params["1.bias"][0] = np.nan
        loss, optimiser = rnncore.MeanSquaredError(), rnncore.SGD(model)
        trainer = Trainer(model, loss, optimiser, [(x, x)], collective=collective, shards=2)
        try:
            trainer.update()
        finally:
            assert not any("vjp" in vars(part) for part in model.layers)

    for error in on_ranks(2, run):
        assert isinstance(error, Diverged)
        assert error.layer == "1"


def test_gradients_that_come_late_are_noticed():
    class Late(rnncore.Module):
        """Adds to a layer's gradients after all its pullbacks have run."""

        recurrent = True

        def __init__(self):
            super().__init__()
            self.first, self.last = rnncore.LSTM(4, 4, seed=0), rnncore.LSTM(4, 4, seed=1)

        def vjp(self, x, state=None):
            (y, _), back = self.first.vjp(x)
            (z, _), last_back = self.last.vjp(y)

            def pullback(dz):
                dx = back(last_back(dz)[0])
                self.last.grads["bias_ih_l0"] += 1
                return dx

            return (z, None), pullback

    def run(collective):
        collective.overlaps = True
        x, model = np.ones((3, 4, 4), np.float32), Late()
        loss, optimiser = rnncore.MeanSquaredError(), rnncore.SGD(model)
        Trainer(model, loss, optimiser, [(x, x)], collective=collective, shards=2).update()

    for error in on_ranks(2, run):
        assert isinstance(error, RuntimeError)
        assert "gradients changed after all its pullbacks had run" in str(error)
