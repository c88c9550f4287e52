"""Optimisers, clipping and schedules against PyTorch's numbers, and exact resume."""

import math
import pickle
import tracemalloc

import numpy as np
import pytest
from rnncore import optim, schedules
from rnncore.compositions.chain import Chain
from rnncore.layers.activations import Identity
from rnncore.layers.linear import Linear
from rnncore.module import Module
from rnncore.optim import SGD, Adagrad, Adam, AdamW, RMSprop, clip_grad_norm
from rnncore.schedules import constant, exponential, step_decay, warmup_cosine

from tests.golden.make_training_golden import FILE, OPTIMISERS, SCHEDULES, STEPS, optimiser_inputs

GOLDEN = dict(np.load(FILE))
KINDS = [SGD, Adam, AdamW, RMSprop, Adagrad]


class Numbers(Module):
    """A module that is nothing but its parameters."""

    def __init__(self, *shapes, dtype="float64", seed=0):
        rng = np.random.default_rng(seed)
        super().__init__(
            {f"p{i}": rng.standard_normal(shape).astype(dtype) for i, shape in enumerate(shapes)}
        )

    def draw_gradients(self, rng):
        for grad in self.grads.values():
            grad[...] = rng.standard_normal(grad.shape)


def split_start(module, start):
    """Fill the parameters, end to end, from one vector."""
    at = 0
    for array in module.values():
        array[...] = start[at : at + array.size].reshape(array.shape)
        at += array.size


def joined(arrays):
    return np.concatenate([array.reshape(-1) for array in arrays.values()])


def build(name, module):
    case = OPTIMISERS[name]
    return getattr(optim, case.name)(module, **case.ours)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("block", [optim.BLOCK, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_golden(name, block, dtype, tolerance, monkeypatch):
    """Eleven numbers in four parameters; in blocks of 4, some share a block and some span two."""
    monkeypatch.setattr(optim, "BLOCK", block)
    module, given = Numbers((2, 3), (), (1, 1), (3,), dtype=dtype), optimiser_inputs()
    split_start(module.params, given["start"])
    params = dict(module.params)
    optimiser = build(name, module)
    for step, gradient in enumerate(given["gradients"]):
        optimiser.zero_grad()
        split_start(module.grads, gradient)
        optimiser.step()
        expected = GOLDEN[name][step]
        assert np.abs(joined(module.params) - expected).max() <= tolerance * np.abs(expected).max()
        np.testing.assert_array_equal(joined(module.grads), gradient.astype(dtype))
    assert optimiser.steps == STEPS
    for key, param in params.items():
        assert module.params[key] is param
        assert param.dtype == dtype


@pytest.mark.parametrize("name", OPTIMISERS)
def test_block_size_does_not_change_a_bit(name, monkeypatch):
    results = []
    for block in (1, 7, 32768):
        monkeypatch.setattr(optim, "BLOCK", block)
        module, rng = Numbers((5, 7), (11,), dtype="float32"), np.random.default_rng(3)
        optimiser = build(name, module)
        for _ in range(3):
            module.draw_gradients(rng)
            optimiser.step()
        results.append(joined(module.params))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_exact_resume(name):
    whole, first, second = (Numbers((5, 7), (11,), dtype="float32") for _ in range(3))
    rng = np.random.default_rng(3)
    gradients = [rng.standard_normal(46).astype("float32") for _ in range(8)]

    def train(module, optimiser, part):
        for gradient in part:
            split_start(module.grads, gradient)
            optimiser.step()

    train(whole, build(name, whole), gradients)
    before, after = build(name, first), build(name, second)
    train(first, before, gradients[:5])
    state = before.state_dict()
    train(first, before, gradients[5:])  # the state is a copy
    second.load_state_dict(Numbers((5, 7), (11,), dtype="float32").params)
    train(second, build(name, second), gradients[:5])
    after.load_state_dict(state)
    assert after.steps == 5
    train(second, after, gradients[5:])
    np.testing.assert_array_equal(joined(first.params), joined(whole.params))
    np.testing.assert_array_equal(joined(second.params), joined(whole.params))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_pair_of_module_and_optimiser_goes_on(kind):
    module = Numbers((2, 3), (4,))
    optimiser, rng = kind(module, 0.1), np.random.default_rng(0)
    module.draw_gradients(rng)
    optimiser.step()
    twin, its_optimiser = pickle.loads(pickle.dumps((module, optimiser)))
    for one, steps in ((module, optimiser), (twin, its_optimiser)):
        one.draw_gradients(np.random.default_rng(1))
        steps.step()
    for name, param in module.params.items():
        np.testing.assert_array_equal(twin.params[name], param)


def test_state_dict_is_named_after_the_parameters():
    chain = Chain(Linear(3, 2), Identity(), Linear(2, 1))
    optimiser = Adam(chain)
    state = optimiser.state_dict()
    params = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(state) == ["steps"] + [
        f"{s}.{p}" for s in ("exp_avg", "exp_avg_sq") for p in params
    ]
    for name in params:
        assert state[f"exp_avg.{name}"].shape == chain.params[name].shape
        assert state[f"exp_avg.{name}"].dtype == np.float32
    assert SGD(chain).state_dict().keys() == {"steps"}


def test_load_state_dict_refuses_and_changes_nothing():
    module = Numbers((2, 3))
    optimiser = Adam(module)
    module.grads["p0"].fill(1)
    optimiser.step()
    before = optimiser.state_dict()
    wrong = before | {"exp_avg.p0": np.zeros((3, 2)), "more": np.zeros(1), "steps": np.array([9])}
    del wrong["exp_avg_sq.p0"]
    with pytest.raises(ValueError, match=r"missing 'exp_avg_sq.p0'.*unknown 'more'.*'exp_avg.p0'"):
        optimiser.load_state_dict(wrong)
    with pytest.raises(TypeError, match="steps is float64"):
        optimiser.load_state_dict(before | {"steps": np.array([1.0])})
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        optimiser.load_state_dict(
            {name: array + 1 for name, array in before.items()} | {"steps": np.array([-1])}
        )
    for name, array in optimiser.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_allocated(kind):
    """100,000 float32 parameters; a step may not need a tenth of that."""
    module = Numbers((100, 300), (70_000,), dtype="float32")
    options = {"weight_decay": 0.1} | ({"momentum": 0.9} if kind in (SGD, RMSprop) else {})
    optimiser = kind(module, 1e-3, **options)
    optimiser.step()
    tracemalloc.start()
    try:
        for _ in range(3):
            optimiser.zero_grad()
            optimiser.step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40_000


@pytest.mark.parametrize("kind", KINDS)
def test_shared_parameters_move_once(kind):
    layer, twin = (Linear(3, 3, dtype="float64", seed=1) for _ in range(2))
    tied = Chain(layer, Identity(), layer)
    for module in (tied, twin):
        for grad in module.grads.values():
            grad.fill(0.5)
        optimiser = kind(module)
        optimiser.step()
    for name, param in twin.params.items():
        np.testing.assert_array_equal(layer.params[name], param)
    assert clip_grad_norm(tied, 1e9) == clip_grad_norm(twin, 1e9)
    assert all(not name.endswith("2.weight") for name in kind(tied).state_dict())


def test_sees_parameters_written_from_outside():
    module = Numbers((3,))
    optimiser = SGD(module, 0.5)
    module.params["p0"] = [1, 2, 3]
    module.grads["p0"] = [2, 2, 2]
    optimiser.step()
    np.testing.assert_array_equal(module.params["p0"], [0, 1, 2])


def test_nan_stays_in_its_element():
    for kind in KINDS:
        module = Numbers((5,))
        optimiser = kind(module)
        module.grads["p0"][...] = [1, np.nan, 1, 1, 1]
        optimiser.step()
        np.testing.assert_array_equal(np.isnan(module.params["p0"]), [0, 1, 0, 0, 0])


def test_module_without_parameters():
    for kind in KINDS:
        with pytest.raises(ValueError, match="must have parameters to optimise: this Identity has"):
            kind(Identity())
        with pytest.raises(TypeError, match=r"must be a Module, got list: give.* several go in a"):
            kind([Linear(2, 2)])
    with pytest.raises(TypeError, match="module must be a Module, got list"):
        clip_grad_norm([], 1.0)
    assert clip_grad_norm(Identity(), 1.0) == 0


def test_refused_modules():
    mixed = Chain(Linear(2, 2), Linear(2, 2, dtype="float64"))
    with pytest.raises(ValueError, match=r"one dtype, got \['float32', 'float64'\]"):
        SGD(mixed)
    turned = Module({"weight": np.zeros((3, 2)).T})
    with pytest.raises(ValueError, match=r"parameter 'weight' .* C-contiguous"):
        SGD(turned)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SGD, {"lr": -1}, "lr must be at least 0, got -1"),
        (SGD, {"lr": math.nan}, "lr must be at least 0, got nan"),
        (SGD, {"momentum": -1}, "momentum must be at least 0"),
        (SGD, {"nesterov": True}, "nesterov needs a momentum"),
        (Adam, {"weight_decay": -1}, "weight_decay must be at least 0"),
        (Adam, {"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\), got 1.0"),
        (AdamW, {"eps": -1}, "eps must be at least 0"),
        (RMSprop, {"alpha": 1}, r"alpha must be in \[0, 1\), got 1"),
        (RMSprop, {"momentum": -1}, "momentum must be at least 0"),
        (Adagrad, {"lr_decay": -1}, "lr_decay must be at least 0"),
        (Adagrad, {"initial_accumulator_value": -1}, "initial_accumulator_value must be at"),
    ],
)
def test_refused_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(Numbers((2,)), **options)


# Clipping


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_clipping_golden(dtype, tolerance):
    module = Numbers((4,), (7,), dtype=dtype)
    cases = zip(optimiser_inputs()["gradients"], GOLDEN["clipped"], GOLDEN["norms"], strict=True)
    for gradient, expected, norm in cases:
        split_start(module.grads, gradient)
        result = clip_grad_norm(module, 2.5)
        assert type(result) is float
        assert result == pytest.approx(norm, rel=tolerance)
        np.testing.assert_allclose(joined(module.grads), expected, rtol=tolerance)
    assert (GOLDEN["norms"] < 2.5).any()
    assert (GOLDEN["norms"] > 2.5).any()


def test_clipping_large_arrays(rng):
    module = Numbers((300, 301), (5,), dtype="float32")
    module.draw_gradients(rng)
    exact = math.sqrt(sum(np.sum(np.square(g, dtype="float64")) for g in module.grads.values()))
    assert clip_grad_norm(module, 1.0) == pytest.approx(exact, rel=1e-6)
    assert clip_grad_norm(module, 1.0) == pytest.approx(1, rel=1e-6)


def test_clipping_gradients_whose_squares_overflow():
    module = Numbers((4,), dtype="float32")
    module.grads["p0"].fill(1e30)
    assert clip_grad_norm(module, 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(module.grads["p0"], 0.5, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_clipping_leaves_gradients_that_are_not_finite(bad):
    module = Numbers((3,), (2,))
    module.grads["p0"][...] = [1, bad, 3]
    module.grads["p1"].fill(100)
    norm = clip_grad_norm(module, 1.0)
    assert not math.isfinite(norm)
    np.testing.assert_array_equal(module.grads["p0"], [1, bad, 3])
    np.testing.assert_array_equal(module.grads["p1"], [100, 100])


def test_clipping_refuses():
    with pytest.raises(ValueError, match="max_norm must be at least 0, got -1"):
        clip_grad_norm(Numbers((2,)), -1)


# Schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_golden(name):
    rate = getattr(schedules, name)(0.5, **SCHEDULES[name].ours)
    np.testing.assert_allclose([rate(step) for step in range(STEPS)], GOLDEN[name], rtol=1e-12)


def test_warmup_cosine():
    rate = warmup_cosine(0.6, total=10, warmup=2, final=0.1)
    assert [rate(0), rate(1), rate(2)] == pytest.approx([0.2, 0.4, 0.6])
    assert rate(6) == pytest.approx(0.35)
    assert [rate(10), rate(11), rate(1000)] == pytest.approx([0.1] * 3)
    rates = [rate(step) for step in range(2, 11)]
    assert rates == sorted(rates, reverse=True)


def test_constant():
    assert {constant(0.3)(step) for step in (0, 1, 1000)} == {0.3}


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimiser_follows_its_schedule(kind):
    scheduled, by_hand = Numbers((3,), dtype="float32"), Numbers((3,), dtype="float32")
    rate = exponential(0.5, 0.5)
    first, second = kind(scheduled, lr=lambda step: np.float64(rate(step))), kind(by_hand)
    for step in range(4):
        for module in (scheduled, by_hand):
            module.draw_gradients(np.random.default_rng(step))
        assert first.learning_rate == 0.5**step * 0.5
        second.lr = rate(step)
        first.step()
        second.step()
    np.testing.assert_array_equal(scheduled.params["p0"], by_hand.params["p0"])
    resumed = kind(scheduled, lr=rate)
    resumed.load_state_dict(first.state_dict())
    assert resumed.learning_rate == rate(4)


def test_schedules_refuse():
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        step_decay(0.1, 0)
    with pytest.raises(ValueError, match="total must be at least 1, got 0"):
        warmup_cosine(0.1, 0)
    for warmup in (-1, 10):
        with pytest.raises(ValueError, match=r"warmup must be in 0\.\.9 for total=10"):
            warmup_cosine(0.1, 10, warmup)


def test_more_steps_than_can_be():
    optimiser = Adam(Linear(2, 2))
    state = optimiser.state_dict() | {"steps": np.array([np.iinfo(np.int64).max])}
    with pytest.raises(ValueError, match="steps must be below"):
        optimiser.load_state_dict(state)


def test_rates_beyond_all_numbers_are_infinite():
    assert exponential(0.1, 1e300)(2) == math.inf
    assert step_decay(0.1, 1, 1e300)(5) == math.inf


def test_centered_is_true_or_false():
    with pytest.raises(TypeError, match="centered must be True or False, got 3"):
        RMSprop(Linear(2, 2), centered=3)
