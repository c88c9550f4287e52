"""The error of a run that diverges names the layer and the time step where that began."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import Chain, DeepRNN, Dropout, Linear, MeanSquaredError, Module
from rnncore.arrays import Array
from rnncore.optim import SGD
from rnncore.training import Diverged, Trainer
from rnncore.training.checkpoint import generator_states, restore_generators

T, B, H = 60, 4, 6


def explode(layer: Module, name: str = "weight_hh_l0", by: float = 1e3) -> None:
    """Let states grow a thousandfold with each time step."""
    weights = layer.params[name]
    weights[...] = by * np.eye(*weights.shape)


def growing(**options: Any) -> Any:
    return rnncore.RNN(3, H, nonlinearity="relu", seed=0, **options)


def error_of(model: Module, x: Array, clip_norm: float | None = None, **batch: Any) -> Diverged:
    y = model(x)[0] if model.recurrent else model(x)
    y[...] = 0
    batches: list[Any] = [rnncore.batches.Batch(x, y, **batch)]
    trainer = Trainer(model, MeanSquaredError(), SGD(model, 0.0), batches, clip_norm=clip_norm)
    before = model.state_dict()
    with np.errstate(all="ignore"), pytest.raises(Diverged) as caught:
        trainer.update()
    for name, array in model.params.items():
        np.testing.assert_array_equal(array, before[name])
    assert all("vjp" not in vars(part) for part in rnncore.module.modules(model))
    return caught.value


def first_infinite(layer: Module, x: Array) -> int:
    """The same by running the layer alone."""
    y, _ = layer(x)
    return int(np.flatnonzero(~np.isfinite(y).all(axis=(1, 2)))[0])


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(0).standard_normal((T, B, 3), dtype=np.float32)


class TestForward:
    def test_names_layer_and_time_step(self, x: Array) -> None:
        layer = growing()
        explode(layer)
        step = first_infinite(layer, x)
        assert 0 < step < T
        error = error_of(Chain(layer, Linear(H, 2, seed=0)), x)
        assert (error.layer, error.step, error.updates) == ("0", step, 0)
        assert str(error).startswith("the training loss is ")
        assert str(error).endswith(f"not finite is in time step {step} of layer 0 (RNN)")

    def test_a_layer_alone(self, x: Array) -> None:
        layer = growing()
        explode(layer)
        error = error_of(layer, x)
        assert (error.layer, error.step) == ("", first_infinite(layer, x))
        assert "of the model (RNN)" in str(error)

    def test_batch_first(self, x: Array) -> None:
        layer, same = growing(batch_first=True), growing()
        explode(layer)
        explode(same)
        error = error_of(Chain(layer, Linear(H, 2, seed=0)), x.swapaxes(0, 1).copy())
        assert error.step == first_infinite(same, x)

    def test_dropout_draws_the_same_masks_again(self, x: Array) -> None:
        """Which units are dropped decides when the first number overflows."""
        steps = set()
        for seed in range(6):
            drop = Dropout(0.7, seed=seed)
            layer = growing(variational_dropout=0.8)
            explode(layer, by=1.0)  # what is kept grows fivefold
            model = Chain(drop, layer, Linear(H, 2, seed=0))
            states = generator_states(model)
            dropped, _ = drop.vjp(x)
            with np.errstate(all="ignore"):
                (seen, _), _ = layer.vjp(dropped)
            restore_generators(model, states)
            expected = int(np.flatnonzero(~np.isfinite(seen).all(axis=(1, 2)))[0])
            error = error_of(model, x)
            assert (error.layer, error.step) == ("1", expected)
            steps.add(expected)
        assert len(steps) > 1

    def test_names_the_stacked_layer(self, x: Array) -> None:
        layer = growing(num_layers=3)
        explode(layer, "weight_hh_l1")
        error = error_of(Chain(layer, Linear(H, 2, seed=0)), x)
        assert f"time step {first_infinite(layer, x)} of stacked layer 1 of layer 0" in str(error)

    def test_within_a_deep_network(self, x: Array) -> None:
        options: dict[str, Any] = {"input_depth": 2, "output_depth": 2, "nonlinearity": "relu"}
        model = DeepRNN(3, H, seed=0, **options)
        explode(model.layers[0])
        error = error_of(Chain(model, Linear(H, 2, seed=0)), x)
        assert error.layer == "0.recurrent.0"
        assert error.step == first_infinite(model.layers[0], model.input(x))

    def test_backwards_in_time_the_last_step_comes_first(self, x: Array) -> None:
        layer = growing()
        explode(layer)
        error = error_of(Chain(rnncore.Reversed(layer), Linear(H, 2, seed=0)), x)
        assert (error.layer, error.step) == ("0", T - 1 - first_infinite(layer, x[::-1].copy()))

    def test_in_both_directions(self, x: Array) -> None:
        layer = growing(bidirectional=True)
        model = Chain(layer, Linear(2 * H, 2, seed=0))
        explode(layer, "weight_hh_l0_reverse")
        y, _ = layer(x)
        last = int(np.flatnonzero(~np.isfinite(y).all(axis=(1, 2)))[-1])
        assert last < T - 1
        assert error_of(model, x).step == last
        explode(layer)
        y, _ = layer(x)
        first = int(np.flatnonzero(~np.isfinite(y[..., :H]).all(axis=(1, 2)))[0])
        assert error_of(model, x).step == first

    def test_without_time(self) -> None:
        model = Chain(Linear(3, 4, seed=0), Linear(4, 2, seed=0))
        model[1].params["weight"][...] = np.inf
        error = error_of(model, np.ones((5, 3), np.float32))
        assert (error.layer, error.step) == ("1", None)
        assert str(error).endswith("is in layer 1 (Linear)")

    def test_inputs(self, x: Array) -> None:
        x[7, 1, 0] = np.nan
        error = error_of(Chain(growing(), Linear(H, 2, seed=0)), x)
        assert (error.layer, error.step) == (None, None)
        assert str(error).endswith("in time step 7 of the inputs")


class TestBackward:
    def test_names_where_gradients_overflow(self, x: Array) -> None:
        """States stay small where all sums are negative but at the end; gradients grow from it."""
        layer = rnncore.RNN(3, H, seed=0)
        for name, array in layer.params.items():
            array[...] = 1e4 * np.eye(H) if name == "weight_hh_l0" else 0
        model = Chain(layer, Linear(H, 2, seed=0))
        y, _ = model(x)
        batch = rnncore.batches.Batch(x, np.ones_like(y))
        trainer = Trainer(model, MeanSquaredError(), SGD(model, 0.0), [batch], clip_norm=1.0)
        with np.errstate(all="ignore"), pytest.raises(Diverged, match="the gradient's norm") as got:
            trainer.update()
        assert got.value.layer == "0"
        assert "in the backward pass of time step" in str(got.value)
        assert got.value.step is not None
        assert 0 < got.value.step < T - 5  # gradients grow from the end


def test_goes_from_process_to_process() -> None:
    error = Diverged("the loss is nan", 20, "0.layer", 1203)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.updates, copy.layer, copy.step) == (
        *("the loss is nan", 20, "0.layer", 1203),
    )
