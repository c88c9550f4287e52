"""The transducer as a model: trained, searched, streamed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    Adam,
    Chain,
    Conv1d,
    Dropout,
    Embedding,
    Linear,
    Module,
    Transducer,
    TransducerJoint,
    TransducerLoss,
)
from rnncore.alignment.transducer_search import TimedTranscript
from rnncore.batches import Batch, padded
from rnncore.reference import transducer as reference
from rnncore.training.trainer import Trainer, evaluate

from tests.support.compare import assert_gradients_of, assert_same

Array = npt.NDArray[Any]

INPUTS, H, V = 3, 5, 4


def predictor(kind: str, dtype: str) -> Chain:
    """A prediction network: with a state, without memory, or with one that is no state."""
    options: Any = {"dtype": dtype, "seed": 3}
    parts: dict[str, tuple[Module, ...]] = {
        "lstm": (LSTM(4, 4, **options),),
        "deep": (GRU(4, 4, num_layers=2, **options), Dropout(0.2, seed=1), LSTM(4, 4, **options)),
        "label": (),
        "labels": (Conv1d(4, 4, 2, padding="causal", **options),),
    }
    return Chain(Embedding(V, 4, **options), *parts[kind], Linear(4, H, **options))


def encoder(kind: str, dtype: str) -> Module:
    """A causal encoder, one that looks ahead a little, and ones that do not stream."""
    options: Any = {"dtype": dtype, "seed": 5}
    parts: dict[str, tuple[Module, ...]] = {
        "lstm": (LSTM(INPUTS, H, **options),),
        "strided": (Conv1d(INPUTS, INPUTS, 3, 2, **options), LSTM(INPUTS, H, **options)),
        "both": (LSTM(INPUTS, 3, bidirectional=True, **options), Linear(6, H, **options)),
        "linear": (Linear(INPUTS, H, **options),),
    }
    return Chain(*parts[kind])


def model(
    reads: str = "lstm", says: str = "lstm", dtype: str = "float64", scale: float = 4.0
) -> Transducer:
    """A model that is sure of some symbols."""
    joint = TransducerJoint(H, V, dtype=dtype, seed=7)
    joint.output.params["weight"] *= scale
    for array in joint.output.params.values():
        array[1] *= 2
    return Transducer(encoder(reads, dtype), predictor(says, dtype), joint, blank=1)


def frames(T: int, B: int, dtype: str = "float64", seed: int = 0) -> Array:
    return 2 * np.random.default_rng(seed).standard_normal((T, B, INPUTS)).astype(dtype)


def same(found: TimedTranscript, want: TimedTranscript) -> None:
    assert found.score == want.score
    assert_same(
        {"labels": found.labels, "frames": found.frames},
        {"labels": want.labels, "frames": want.frames},
    )


class TestTraining:
    targets = np.array([[2, 3, 0], [3, 1, 1]])
    lengths, counts = np.array([6, 4]), np.array([3, 1])

    def test_gradients_agree_with_differences(self) -> None:
        net, x = model(says="deep", scale=1.0), frames(6, 2)
        net.predictor.layers[2].p = 0.0
        loss = TransducerLoss(blank=1)

        def value(joined: Any) -> tuple[float, Any]:
            return loss.vjp(joined, self.targets, self.lengths, self.counts)

        joined, pullback = net.vjp((x, self.targets), lengths=self.lengths)
        dx = pullback(value(joined)[1]())
        assert not dx[4:, 1].any()
        pairs = [(x, dx), *((net.params[name], net.grads[name]) for name in net.params)]
        assert_gradients_of(
            lambda: value(net((x, self.targets), lengths=self.lengths))[0],
            [pair for pair in pairs if pair[1].any()],
        )

    def test_labels_past_the_end_do_not_count(self) -> None:
        net, x, loss = model(), frames(6, 2), TransducerLoss(blank=1)
        wild = np.where(np.arange(3) < self.counts[:, None], self.targets, -5)
        got = []
        for labels in (self.targets, wild):
            joined = net((x, labels, self.counts), lengths=self.lengths)
            got.append(loss(joined, labels, self.lengths, self.counts))
        joined = net((x, self.targets), lengths=self.lengths)
        got.append(loss(joined, self.targets, self.lengths, self.counts))
        assert got[0] == got[1] == got[2]

    def test_a_trainer_teaches_it(self) -> None:
        """Each label is shown for some frames, with noise between."""
        rng = np.random.default_rng(0)
        codes = rng.standard_normal((V, INPUTS))

        def batch(rows: int) -> Batch:
            counts = rng.integers(1, 4, rows)
            targets = rng.integers(1, V, (rows, 3)) * (np.arange(3) < counts[:, None])
            shown = [
                np.concatenate(
                    [
                        part
                        for k in y[:n]
                        for part in (
                            np.repeat(codes[k : k + 1], rng.integers(1, 4), axis=0),
                            np.repeat(codes[:1], rng.integers(1, 3), axis=0),
                        )
                    ]
                )
                for y, n in zip(targets, counts, strict=True)
            ]
            x, lengths = padded(shown)
            x = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
            return Batch((x, targets), targets, lengths, target_lengths=counts)

        size = 24
        net = Transducer(
            Chain(LSTM(INPUTS, size, seed=1), Linear(size, size, seed=2)),
            Chain(Embedding(V, 8, seed=3), GRU(8, size, seed=4), Linear(size, size, seed=5)),
            TransducerJoint(size, V, seed=6),
        )
        loss, held = TransducerLoss(fastemit=0.01), batch(32)
        trainer = Trainer(
            net,
            loss,
            Adam(net, lr=1e-2),
            [batch(16) for _ in range(20)],
            validate=lambda: evaluate(net, loss, [held]),
            clip_norm=5.0,
        )
        trainer.fit(160, quiet=True)
        assert trainer.history[-1]["validation_loss"] < 0.3
        found = net.greedy(held.inputs[0], held.lengths)
        right = [
            list(one.labels) == list(y[:n])
            for one, y, n in zip(found, held.targets, held.target_lengths, strict=True)
        ]
        assert np.mean(right) > 0.9

    def test_a_strided_encoder_tells_the_loss_its_lengths(self) -> None:
        net = model("strided")
        batch = Batch(
            (frames(9, 2), self.targets), self.targets, [9, 7], target_lengths=self.counts
        )
        assert net.out_lengths([9, 7]).tolist() == [4, 3]
        loss = TransducerLoss(blank=1)
        joined = net(batch.inputs, lengths=batch.lengths)
        want = loss(joined, self.targets, [4, 3], self.counts)
        assert evaluate(net, loss, [batch]) == want
        trainer = Trainer(net, loss, Adam(net), [batch])
        assert trainer.update() == pytest.approx(want)

    def test_a_file_gives_it_back(self, tmp_path: Path) -> None:
        net, x = model(says="deep"), frames(12, 2)
        net.save(tmp_path / "model.safetensors")
        for other in (
            rnncore.load(tmp_path / "model.safetensors"),
            pickle.loads(pickle.dumps(net)),
        ):
            for found, want in zip(other.greedy(x), net.greedy(x), strict=True):
                same(found, want)


def by_hand(net: Transducer, f: Array, max_symbols: int) -> TimedTranscript:
    """The greedy search, a node at a time, the predictor reading all labels at each."""
    labels: list[int] = []
    found: list[int] = []
    score = 0.0
    for t in range(len(f)):
        emitted = 0
        while True:
            read = np.array([net.blank, *labels])[:, None]
            output = net.predictor(read)
            g = output[0] if net.predictor.recurrent else output
            z = net.joint(f[t : t + 1, None], g[-1:]).logits()[0, 0, 0]
            log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
            best = net.blank if emitted == max_symbols else int(log_p.argmax())
            score += log_p[best]
            if best == net.blank:
                break
            labels.append(best)
            found.append(t)
            emitted += 1
    return TimedTranscript(np.array(labels, int), score, np.array(found, int))


SAYS = ["lstm", "deep", "label", "labels"]


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("max_symbols", [1, 3, 10])
def test_greedy_search_is_that_by_hand(says: str, max_symbols: int) -> None:
    net, x, lengths = model("both", says), frames(40, 3), np.array([40, 1, 23])
    f = net.encoder(x, lengths=lengths)[0]
    found = net.greedy(x, lengths, max_symbols=max_symbols)
    for b, one in enumerate(found):
        want = by_hand(net, f[: lengths[b], b], max_symbols)
        assert one.score == pytest.approx(want.score, rel=1e-12)
        assert_same(
            {"labels": one.labels, "frames": one.frames},
            {"labels": want.labels, "frames": want.frames},
        )
    assert sum(len(one.labels) for one in found) > 5


@pytest.mark.parametrize("says", SAYS)
class TestBeamSearch:
    def test_without_limits_sums_over_all_alignments(self, says: str) -> None:
        """The score of labels is their probability, if the beam holds everything."""
        net, T = model(says=says, scale=1.0), 3
        x = frames(T, 1)
        f = net.encoder(x)[0]
        (found,) = net.beam(x, beam_size=2000, n_best=2000, max_symbols=2)
        scores = {tuple(one.labels.tolist()): one.score for one in found}
        assert len(scores) == len(found)
        assert [one.score for one in found] == sorted(scores.values(), reverse=True)
        labels = [k for k in range(V) if k != net.blank]
        for count in range(3):  # of which no two are at one frame by necessity
            for y in product(labels, repeat=count):
                joined = net((x, np.array([y], int).reshape(1, count)))
                want = reference.log_likelihood(joined.logits()[0], np.array(y, int), net.blank)
                assert scores[y] == pytest.approx(want, rel=1e-12)
        assert f.shape[0] == T

    def test_finds_what_is_likelier_than_greedily(self, says: str) -> None:
        net = model("both", says)
        net.joint.output.params["bias"][net.blank] += 3  # labels are few
        x = frames(25, 6)
        loss = TransducerLoss(net.blank, "none")

        def likelihoods(found: list[TimedTranscript]) -> Array:
            counts = np.array([len(one.labels) for one in found])
            labels = np.full((len(found), counts.max()), net.blank)
            for row, one in zip(labels, found, strict=True):
                row[: len(one.labels)] = one.labels
            return -loss(net((x, labels)), labels, None, counts)

        found = [best for (best,) in net.beam(x, beam_size=8, max_symbols=3)]
        exact = likelihoods(found)
        assert exact.sum() >= likelihoods(net.greedy(x, max_symbols=3)).sum() - 1e-9
        assert (np.array([one.score for one in found]) <= exact + 1e-9).all()

    def test_n_best_and_frames(self, says: str) -> None:
        net, x = model(says=says), frames(15, 2)
        for found in net.beam(x, [15, 8], beam_size=4, n_best=3):
            assert len(found) == 3
            assert len({tuple(one.labels) for one in found}) == 3
            for one in found:
                assert one.frames.shape == one.labels.shape
                assert (np.diff(one.frames) >= 0).all()
                assert one.frames.max(initial=0) < 15

    def test_pruned_it_finds_no_better(self, says: str) -> None:
        net, x = model(says=says), frames(15, 3)
        whole, narrow = net.beam(x, beam_size=5), net.beam(x, beam_size=5, prune=3.0)
        for (one,), (other,) in zip(whole, narrow, strict=True):
            assert other.score <= one.score + 1e-9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("reads", ["lstm", "strided", "linear"])
@pytest.mark.parametrize("options", [{}, {"beam_size": 3}], ids=str)
def test_a_stream_hears_what_a_call_does(
    options: dict[str, Any], reads: str, says: str, dtype: str
) -> None:
    """To the bit, however time is cut."""
    net, x = model(reads, says, dtype), frames(30, 2, dtype)
    want = [best for (best,) in net.beam(x, beam_size=3)] if options else net.greedy(x)
    rng = np.random.default_rng(1)
    stream = net.stream(2, **options)
    for _ in range(2):
        at = 0
        while at < len(x):
            step = int(rng.integers(0, 6))
            heard = stream.run(x[at : at + step])
            at += step
        found = stream.finish()
        for one, other, last in zip(found, want, heard, strict=True):
            same(one, other)
            assert len(last.labels) <= len(one.labels) or options
        stream.reset()
    assert sum(len(one.labels) for one in want) > 1


class TestStreams:
    def test_rows_begin_anew_by_themselves(self) -> None:
        net, x = model(), frames(20, 2)
        stream = net.stream(2)
        stream.run(x[:10])
        stream.reset([1])
        found = stream.run(x[10:])
        same(found[0], net.greedy(x[:, :1])[0])
        same(found[1], net.greedy(x[10:, 1:])[0])

    def test_a_single_row_comes_without_its_axis(self) -> None:
        net, x = model(), frames(20, 1)
        stream = net.stream()
        stream.run(x[:7, 0])
        (found,) = stream.run(x[7:, 0])
        same(found, net.greedy(x)[0])
        assert stream.best(1)[0][0].score == found.score

    def test_an_encoder_that_reads_from_the_end_has_none(self) -> None:
        with pytest.raises((TypeError, ValueError)):
            model("both").stream()

    def test_best_of_a_beam(self) -> None:
        net, x = model(), frames(12, 1)
        stream = net.stream(1, beam_size=4)
        stream.run(x)
        for one, other in zip(
            stream.best(3)[0], net.beam(x, beam_size=4, n_best=3)[0], strict=True
        ):
            same(one, other)


def test_searches_do_not_depend_on_threads_or_batch(set_threads: Callable[[int], None]) -> None:
    net, x, lengths = model("both", "deep"), frames(30, 5), np.array([30, 4, 17, 1, 30])
    found = {}
    for threads in (1, 3):
        set_threads(threads)
        found[threads] = net.greedy(x, lengths), net.beam(x, lengths, beam_size=3)
    for b, (one, other) in enumerate(zip(found[1][0], found[3][0], strict=True)):
        same(one, other)
        same(one, net.greedy(x[: lengths[b], b : b + 1])[0])
        same(found[1][1][b][0], found[3][1][b][0])
        same(found[1][1][b][0], net.beam(x[: lengths[b], b : b + 1], beam_size=3)[0][0])


class TestArguments:
    def test_of_a_model(self) -> None:
        joint = TransducerJoint(H, V, dtype="float64")
        reads, says = encoder("lstm", "float64"), predictor("lstm", "float64")
        with pytest.raises(TypeError, match="joint must be a TransducerJoint"):
            Transducer(reads, says, Linear(H, V))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="predictor must take labels"):
            Transducer(reads, LSTM(INPUTS, H, dtype="float64"), joint)
        with pytest.raises(ValueError, match="same dtype"):
            Transducer(reads, predictor("lstm", "float32"), joint)
        with pytest.raises(ValueError, match="encoder must give 5 features"):
            Transducer(LSTM(INPUTS, 4, dtype="float64"), says, joint)
        with pytest.raises(ValueError, match="same batch_first"):
            Transducer(LSTM(INPUTS, H, batch_first=True, dtype="float64"), says, joint)
        both = Chain(
            Embedding(V, 4, dtype="float64"),
            LSTM(4, 3, bidirectional=True, dtype="float64"),
            Linear(6, H, dtype="float64"),
        )
        with pytest.raises(ValueError, match="predictor must run in one direction"):
            Transducer(reads, both, joint)
        with pytest.raises(ValueError, match=r"blank must be in 0\.\.3"):
            Transducer(reads, says, joint, blank=4)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (frames(4, 2), "inputs must be"),
            ((frames(4, 2), [[1, 2]]), "labels must have 2 rows"),
            ((frames(4, 2), [1, 2]), "labels must have shape"),
            ((frames(4, 2), [[1], [4]]), r"labels must be in 0\.\.3, got 4"),
            ((frames(4, 2), [[1], [-1]]), r"labels must be in 0\.\.3, got -1"),
            ((frames(4, 2), [[1], [2]], [1]), "label_lengths must have shape"),
            ((frames(4, 2), [[1.0], [2.0]]), "labels must be integers"),
            ((frames(4, 2)[0, 0], [[1], [2]]), "x must have shape"),
        ],
        ids=str,
    )
    def test_of_a_call(self, inputs: Any, message: str) -> None:
        with pytest.raises((ValueError, TypeError), match=message):
            model()(inputs)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"beam_size": 0}, "beam_size"),
            ({"n_best": 0}, "n_best"),
            ({"max_symbols": 0}, "max_symbols"),
            ({"prune": -1.0}, "prune"),
        ],
        ids=str,
    )
    def test_of_a_search(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            model().beam(frames(3, 1), **options)

    def test_lengths_of_a_search(self) -> None:
        with pytest.raises(ValueError, match=r"lengths must be in 1\.\.3"):
            model().greedy(frames(3, 2), [3, 0])

    def test_nan_is_no_crash(self) -> None:
        net, x = model(), frames(8, 2)
        x[3, 0] = np.nan
        found = net.greedy(x)
        assert np.isnan(found[0].score)
        same(found[1], net.greedy(x[:, 1:])[0])
        assert len(net.beam(x, beam_size=3)) == 2
