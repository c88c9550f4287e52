"""Parameters and gradients end to end in one memory: everything else goes on as before."""

import copy
import pickle

import numpy as np
import pytest
import rnncore
from rnncore.batches import Batch
from rnncore.training import Trainer


def tied(seed=0):
    table = rnncore.Embedding(7, 6, seed=seed)
    return rnncore.Chain(
        table,
        rnncore.LSTM(6, 6, num_layers=2, bidirectional=False, seed=seed + 1),
        rnncore.LayerNorm(6),
        rnncore.PReLU(),
        rnncore.TiedLinear(table),
    )


def learn(model, optimiser, seed):
    ids = np.random.default_rng(seed).integers(7, size=(5, 3))
    model.zero_grad()
    (y, _), pullback = model.vjp(ids)
    value, loss_pullback = rnncore.SoftmaxCrossEntropy().vjp(y, ids)
    pullback(loss_pullback())
    optimiser.step()
    return value


def trained(flatten_at, flatten, steps=6):
    model = tied()
    optimiser = rnncore.AdamW(model, 1e-2)
    losses = []
    for step in range(steps):
        if step == flatten_at:
            flatten(model)
        losses.append(learn(model, optimiser, step))
    return losses, model, optimiser


def both(model):
    model.flat_params()
    model.flat_grads()


@pytest.mark.parametrize(
    "flatten",
    [
        both,
        lambda model: model.flat_params(),
        lambda model: model.flat_grads(),
        lambda model: model.layers[0].flat_params(),  # the table alone: its other user follows
        lambda model: model.layers[1].flat_grads(),
    ],
)
@pytest.mark.parametrize("at", [0, 3])
def test_training_has_the_same_bits(flatten, at):
    losses, model, optimiser = trained(at, flatten)
    expected_losses, expected, other = trained(-1, None)
    assert losses == expected_losses
    for name, param in expected.params.items():
        np.testing.assert_array_equal(model.params[name], param)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(optimiser.state_dict()[name], array)


def test_arrays_are_views_in_their_order_each_once():
    model = tied()
    for whole, arrays in ((model.flat_params(), model.params), (model.flat_grads(), model.grads)):
        assert whole.shape == (sum(array.size for array in arrays.values()),)
        whole[...] = np.arange(whole.size)
        at = 0
        for array in arrays.values():
            np.testing.assert_array_equal(array.reshape(-1), whole[at : at + array.size])
            at += array.size
        array[...] = -1
        assert (whole[-array.size :] == -1).all()
    assert list(model.params) == list(model.grads)
    assert np.shares_memory(model.flat_grads(), model.flat_grads())
    part = model.layers[1].flat_params()
    assert np.shares_memory(part, model.flat_params())
    assert part.size < model.flat_params().size


def test_calls_see_what_is_written_through_the_one_array(rng):
    model, ids = tied(), np.arange(6).reshape(3, 2) % 7
    whole = model.flat_params()
    model(ids)
    for scale in (2, 0.5):
        whole *= np.float32(scale)
        fresh = tied()
        fresh.load_state_dict(model.state_dict())
        np.testing.assert_array_equal(model(ids)[0], fresh(ids)[0])


def test_files_copies_and_pickles_have_memory_of_their_own(tmp_path):
    _, model, _ = trained(0, both)
    model.save(tmp_path / "model")
    loaded = tied(seed=5)
    both(loaded)
    loaded.load(tmp_path / "model")
    twins = [loaded, rnncore.load(tmp_path / "model"), copy.deepcopy(model)]
    twins.append(pickle.loads(pickle.dumps(model)))
    for twin in twins:
        for name, param in model.params.items():
            np.testing.assert_array_equal(twin.params[name], param)
            assert not np.shares_memory(twin.params[name], param)
        both(twin)
        twin.flat_params()[...] = 0
    assert all(param.any() for param in model.params.values())


def test_pickles_are_no_larger_than_the_weights():
    model = rnncore.Chain(rnncore.LSTM(64, 128, num_layers=2, seed=0), rnncore.Linear(128, 10))
    x = np.zeros((3, 2, 64), np.float32)
    (y, _), pullback = model.vjp(x)
    pullback(np.ones_like(y))
    weights = sum(param.nbytes for param in model.params.values())
    for flatten in (False, True):
        if flatten:
            both(model)
        assert weights < len(pickle.dumps(model)) < 1.01 * weights + 5000


def test_a_pullback_from_before_adds_to_the_new_memory():
    model = tied()
    ids = np.zeros((4, 2), int)
    (y, _), pullback = model.vjp(ids)
    whole = model.flat_grads()
    pullback(np.ones_like(y))
    assert whole.any()
    np.testing.assert_array_equal(model.grads["4.bias"], np.full(7, 8, np.float32))


def test_optimisers_still_refuse_other_parameters():
    model = rnncore.Chain(rnncore.Linear(3, 2))
    optimiser = rnncore.Adam(model)
    model.layers = (rnncore.Linear(3, 4),)
    both(model)
    with pytest.raises(RuntimeError, match="other parameters by now: make another optimiser"):
        optimiser.step()


def test_what_has_no_one_array_is_refused():
    with pytest.raises(ValueError, match="must be of one dtype, got none"):
        rnncore.Tanh().flat_params()
    mixed = rnncore.Chain(rnncore.Linear(3, 2), rnncore.Linear(2, 2, dtype="float64"))
    for flatten in (mixed.flat_params, mixed.flat_grads):
        with pytest.raises(ValueError, match="must be of one dtype, got float32, float64"):
            flatten()
    quantized = rnncore.quantize(rnncore.Chain(rnncore.Linear(3, 2, bias=False)), "bfloat16")
    with pytest.raises(TypeError, match="has no gradients"):
        quantized.flat_grads()
    with pytest.raises(ValueError, match="weights are bfloat16"):
        quantized.flat_params()


def test_a_trainer_follows(tmp_path):
    """Checkpoints of a flat model are those of any other."""
    rng = np.random.default_rng(0)
    batches = [Batch(*(rng.integers(7, size=(2, 4, 3)))) for _ in range(3)]

    def fitted(flatten, path):
        model = tied()
        if flatten:
            both(model)
        loss, optimiser = rnncore.SoftmaxCrossEntropy(), rnncore.Adam(model, 1e-2)
        trainer = Trainer(model, loss, optimiser, batches, clip_norm=0.1)
        trainer.fit(5, checkpoint=path, quiet=True)
        return trainer

    plain, flat = fitted(False, tmp_path / "plain"), fitted(True, tmp_path / "flat")
    plain.resume(tmp_path / "flat")
    for name, param in flat.model.params.items():
        np.testing.assert_array_equal(plain.model.params[name], param)
