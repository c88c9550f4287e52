"""Batch normalisation folded into the layer before it."""

import numpy as np
import pytest
import rnncore
from rnncore import BatchNorm, Chain, Conv1d, Conv2d, ConvTranspose1d, Linear, fold_batch_norm


def settled(rng, count, affine=True):
    """Normalisation with statistics that training has left."""
    norm = BatchNorm(count, affine=affine, dtype="float64")
    for array in (*norm.params.values(), *norm.buffers.values()):
        array[...] = rng.uniform(0.5, 2, array.shape)
    return norm


LAYERS = {
    "linear": lambda bias: Linear(4, 6, bias, dtype="float64", seed=0),
    "sequences": lambda bias: Conv1d(4, 6, 3, 2, groups=2, bias=bias, dtype="float64", seed=0),
    "images": lambda bias: Conv2d(4, 6, (3, 2), 1, 1, bias=bias, dtype="float64", seed=0),
    "transposed": lambda bias: ConvTranspose1d(
        4, 6, 3, 2, groups=2, bias=bias, dtype="float64", seed=0
    ),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_call_is_the_same(rng, kind, bias, affine):
    chain = Chain(LAYERS[kind](bias), settled(rng, 6, affine), rnncore.ReLU())
    x = rng.standard_normal((2, 5, 7, 4) if kind == "images" else (9, 2, 4))
    before, names = chain(x), chain.state_dict()
    folded = fold_batch_norm(chain)
    assert len(folded) == 2
    np.testing.assert_allclose(folded(x), before, rtol=1e-13, atol=1e-13)
    assert all(np.array_equal(names[name], array) for name, array in chain.state_dict().items())


def test_what_is_folded(rng):
    """What follows something else stays; a chain within a chain is a chain."""
    inner = Chain(Linear(4, 4, dtype="float64"), settled(rng, 4), settled(rng, 4))
    chain = Chain(settled(rng, 4), rnncore.GRU(4, 4, dtype="float64"), settled(rng, 4), inner)
    folded = fold_batch_norm(chain)
    kinds = [type(layer).__name__ for layer in folded.layers]
    assert kinds == ["BatchNorm", "GRU", "BatchNorm", "Chain"]
    assert [type(layer).__name__ for layer in folded.layers[3].layers] == ["Linear"]
    x = rng.standard_normal((5, 2, 4))
    np.testing.assert_allclose(folded(x)[0], chain(x)[0], rtol=1e-12, atol=1e-12)


def test_files(rng, tmp_path):
    folded = fold_batch_norm(Chain(Conv1d(4, 6, 3, bias=False, seed=0), BatchNorm(6)))
    folded.save(tmp_path / "m.safetensors")
    x = rng.standard_normal((9, 2, 4)).astype(np.float32)
    assert np.array_equal(rnncore.load(tmp_path / "m.safetensors")(x), folded(x))


def test_wrong_arguments():
    with pytest.raises(TypeError, match="chain must be"):
        fold_batch_norm(BatchNorm(3))
    own = type("Own", (Chain,), {"__call__": lambda self, x: x})
    with pytest.raises(TypeError, match="chain must be a Chain, and a Own calls otherwise"):
        fold_batch_norm(own(Linear(4, 6), BatchNorm(6)))
    light = rnncore.quantize(Chain(Linear(4, 6), BatchNorm(6)))
    with pytest.raises(ValueError, match="the weights of a Linear are int8: fold first"):
        fold_batch_norm(light)
