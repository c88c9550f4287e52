"""The CRF at the end of a chain: trained, stored, copied."""

import copy
import pickle

import numpy as np
import pytest
import rnncore
from rnncore import CRF, LSTM, AdamW, Chain, CRFLoss, Linear, tag_constraints
from rnncore.batches import Batch
from rnncore.training.trainer import Trainer, evaluate

from tests.support.crf import NAMES

BIO = ["O", "B-a", "I-a"]


def chain(seed=0, **options):
    return Chain(
        LSTM(4, 6, bidirectional=True, seed=seed),
        Linear(12, 3, seed=seed + 1),
        CRF(3, constraints=tag_constraints(BIO), seed=seed + 2, **options),
    )


def batches(rng, count=6):
    """Spans of a random length behind each large first feature, of two steps at least."""
    made = []
    for _ in range(count):
        x, lengths = rng.standard_normal((12, 8, 4)).astype(np.float32), rng.integers(1, 13, 8)
        begins = x[..., 0] > 0.8
        y = np.where(begins, 1, np.where(np.roll(begins, 1, axis=0), 2, 0))
        y[0] = begins[0]
        y[begins] = 1
        made.append(Batch(x, y, lengths))
    return made


def test_a_trainer_learns_it_and_goes_on_from_a_checkpoint(tmp_path, rng):
    data = batches(rng)

    def trainer():
        model = chain()
        loss = CRFLoss(model[-1], "token_mean")
        return Trainer(
            model,
            loss,
            AdamW(model, 0.02),
            data,
            validate=lambda: evaluate(model, loss, data),
            clip_norm=1.0,
        )

    whole, first, second = trainer(), trainer(), trainer()
    before = {name: whole.model[-1].params[name].copy() for name in NAMES}
    whole.fit(120, validate_every=60, quiet=True)
    assert whole.history[-1]["validation_loss"] < 0.1
    assert all((before[name] != whole.model[-1].params[name]).any() for name in NAMES)
    path = tmp_path / "run.checkpoint"
    first.fit(70, validate_every=60, checkpoint=path, quiet=True)
    second.resume(path)
    second.fit(120, validate_every=60, quiet=True)
    for name, array in whole.model.params.items():
        np.testing.assert_array_equal(second.model.params[name], array)
    batch = data[0]
    emissions, _ = whole.model(batch.inputs, lengths=batch.lengths)
    found = whole.model[-1].decode(emissions, batch.lengths)
    inside = rnncore.length_mask(batch.lengths, 12)
    assert (found == batch.targets)[inside].mean() > 0.95


def test_the_clipped_norm_counts_the_gradients_of_the_crf(rng):
    model = chain()
    trainer = Trainer(model, CRFLoss(model[-1], "sum"), AdamW(model), batches(rng), clip_norm=0.1)
    trainer.update()
    squares = {name: float((grad**2).sum()) for name, grad in model.grads.items()}
    assert sum(squares.values()) == pytest.approx(0.01, rel=1e-4)
    assert all(squares[f"2.{name}"] > 0 for name in NAMES)


def test_evaluate_is_the_mean_over_what_counts(rng):
    model, data = chain(), batches(rng, 3)
    each, counts = [], []
    for batch in data:
        y, _ = model(batch.inputs, lengths=batch.lengths)
        each.append(CRFLoss(model[-1], "sum")(y, batch.targets, batch.lengths))
        counts.append(batch.lengths.sum())
    assert evaluate(model, CRFLoss(model[-1]), data) == pytest.approx(sum(each) / 24, rel=1e-12)
    found = evaluate(model, CRFLoss(model[-1], "token_mean"), data)
    assert found == pytest.approx(sum(each) / sum(counts), rel=1e-12)


def test_a_batch_hands_over_weights_and_refuses_a_mask(rng):
    model, batch = chain(), batches(rng, 1)[0]
    loss = CRFLoss(model[-1])
    weights = rng.random(8)
    found = evaluate(model, loss, [batch._replace(weights=weights)])
    y, _ = model(batch.inputs, lengths=batch.lengths)
    each = CRFLoss(model[-1], "none")(y, batch.targets, batch.lengths).astype(np.float64)
    assert found == pytest.approx((each * weights).sum() / weights.sum(), rel=1e-6)
    with pytest.raises(ValueError, match="a batch has mask, but CRFLoss takes lengths, weights"):
        evaluate(model, loss, [batch._replace(mask=np.ones((12, 8), bool))])


class TestStored:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_file_holds_scores_and_constraints(self, dtype, tmp_path):
        crf = CRF(3, constraints=tag_constraints(BIO), batch_first=True, dtype=dtype, seed=3)
        crf.save(tmp_path / "crf.safetensors")
        back = rnncore.load(tmp_path / "crf.safetensors")
        assert (back.batch_first, back.dtype) == (True, np.dtype(dtype))
        for name in NAMES:
            np.testing.assert_array_equal(back.params[name], crf.params[name])
        for found, wanted in zip(back.constraints, crf.constraints, strict=True):
            np.testing.assert_array_equal(found, wanted)
        x = np.zeros((2, 4, 3), dtype)
        assert CRF(3, dtype=dtype).constraints is None
        np.testing.assert_array_equal(back.decode(x), crf.decode(x))

    def test_copies_and_pickles_are_apart(self, rng):
        model, x = chain(), rng.standard_normal((5, 2, 4)).astype(np.float32)
        y, _ = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            np.testing.assert_array_equal(other[-1].decode(y), model[-1].decode(y))
            np.testing.assert_array_equal(other[-1].constraints[0], model[-1].constraints[0])
            other.params["2.start"] += 1
            assert (other.params["2.start"] != model.params["2.start"]).all()

    def test_a_loss_goes_with_its_crf(self, rng):
        crf, x = CRF(4, seed=0), rng.standard_normal((3, 2, 4)).astype(np.float32)
        other, loss = pickle.loads(pickle.dumps((crf, CRFLoss(crf, "sum"))))
        assert loss.crf is other
        y = [[0, 1], [2, 3], [1, 1]]
        assert loss(x, y) == CRFLoss(crf, "sum")(x, y)

    def test_a_call_sees_what_params_hold(self, rng):
        crf, x = CRF(4, dtype="float64", seed=0), rng.standard_normal((3, 2, 4))
        before = crf.log_partition(x)
        crf.params["start"] += 1.0
        np.testing.assert_allclose(crf.log_partition(x), before + 1, rtol=1e-14)

    def test_constraints_say_no_more_than_they_hold(self):
        crf = CRF(3, constraints=tag_constraints(BIO))
        crf.constraints.transitions[:] = True
        assert not crf.constraints.transitions[0, 2]
        given = tag_constraints(BIO)
        crf = CRF(3, constraints=given)
        given.transitions[:] = True
        assert not crf.constraints.transitions[0, 2]


def test_emissions_go_through_a_stream(rng):
    model = Chain(LSTM(4, 6, seed=0), Linear(6, 3, seed=1), CRF(3, seed=2))
    x = rng.standard_normal((5, 2, 4)).astype(np.float32)
    stream = model.stream(2)
    np.testing.assert_array_equal(np.stack([stream.step(frame) for frame in x]), model(x)[0])


def test_a_chain_knows_its_width():
    with pytest.raises(ValueError, match=r"layer 1, a CRF: one gives 4 features, the next takes 5"):
        Chain(Linear(3, 4), CRF(5))
