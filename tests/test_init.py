"""Initial values: their distributions, shapes, blocks and seeds."""

import math

import numpy as np
import pytest
from rnncore import GRU, LSTM, Chain, init

H, I = 32, 48  # noqa: E741
SHAPES = {
    "weight_ih_l0": (4 * H, I),
    "weight_hh_l0": (4 * H, H),
    "bias_ih_l0": (4 * H,),
    "bias_hh_l0": (4 * H,),
    "weight_hr_l0": (8, H),
}
DRAWS = {
    "uniform": lambda rng, shape, **options: init.uniform(rng, shape, 0.5, **options),
    "normal": lambda rng, shape, **options: init.normal(rng, shape, 0.5, **options),
    "xavier_uniform": init.xavier_uniform,
    "xavier_normal": init.xavier_normal,
    "orthogonal": init.orthogonal,
}


def seeded():
    return np.random.default_rng(11)


@pytest.mark.parametrize("name", DRAWS)
def test_one_seed_gives_one_model_in_both_precisions(name):
    draw = DRAWS[name]
    wide, narrow = (draw(seeded(), (6, 4), dtype=dtype) for dtype in ("float64", "float32"))
    assert (wide.dtype, narrow.dtype) == (np.float64, np.float32)
    assert wide.shape == narrow.shape == (6, 4)
    assert wide.flags.c_contiguous
    np.testing.assert_array_equal(wide.astype("float32"), narrow)
    rng = seeded()
    assert (draw(rng, (6, 4)) != draw(rng, (6, 4))).all()


def test_uniform_and_normal():
    flat = init.uniform(seeded(), (200, 300), 0.5)
    assert 0.499 < np.abs(flat).max() <= 0.5
    assert abs(flat.std() - 0.5 / math.sqrt(3)) < 2e-3
    bell = init.normal(seeded(), (200, 300), 0.5)
    assert abs(bell.std() - 0.5) < 3e-3
    assert abs(bell.mean()) < 5e-3
    assert np.abs(bell).max() > 1.5


@pytest.mark.parametrize("blocks", [1, 4])
def test_xavier(blocks):
    deviation = 3 * math.sqrt(2 / (400 / blocks + 300))
    for draw in (init.xavier_uniform, init.xavier_normal):
        array = draw(seeded(), (400, 300), blocks=blocks, gain=3.0)
        assert abs(array.std() / deviation - 1) < 0.01
        assert abs(array.mean()) < 0.01 * deviation * 3
    assert np.abs(init.xavier_uniform(seeded(), (40, 30))).max() <= math.sqrt(6 / 70)


@pytest.mark.parametrize("shape", [(5, 5), (5, 3), (3, 5), (1, 1)])
@pytest.mark.parametrize("blocks", [1, 3])
def test_orthogonal(shape, blocks):
    rows, columns = shape
    array = init.orthogonal(seeded(), (blocks * rows, columns), blocks=blocks, dtype="float64")
    for part in array.reshape(blocks, rows, columns):
        product = part @ part.T if rows <= columns else part.T @ part
        np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-14)
    doubled = init.orthogonal(
        seeded(), (blocks * rows, columns), blocks=blocks, gain=2.0, dtype="float64"
    )
    np.testing.assert_array_equal(doubled, 2 * array)


def test_orthogonal_has_no_preferred_sign():
    entries = [init.orthogonal(np.random.default_rng(seed), (3, 3))[0, 0] for seed in range(200)]
    assert 70 < np.sum(np.array(entries) > 0) < 130


@pytest.mark.parametrize("draw", [init.xavier_uniform, init.xavier_normal, init.orthogonal])
@pytest.mark.parametrize(("shape", "blocks"), [((4,), 1), ((4, 3), 3), ((4, 3), 0), ((2, 2, 2), 1)])
def test_blocks_must_fit(draw, shape, blocks):
    with pytest.raises(ValueError, match=r"shape must be . matrices stacked along the rows, got"):
        draw(seeded(), shape, blocks=blocks)


def test_torch_default():
    params = init.recurrent_params("torch", seeded(), SHAPES, H)
    assert {name: param.shape for name, param in params.items()} == SHAPES
    assert list(params) == list(SHAPES)
    for param in params.values():
        assert param.dtype == np.float32
        assert 0.9 / math.sqrt(H) < np.abs(param).max() <= np.float32(1 / math.sqrt(H))


@pytest.mark.parametrize("name", ["xavier_uniform", "xavier_normal", "orthogonal"])
def test_named_inits(name):
    params = init.recurrent_params(name, seeded(), SHAPES, H, "float64")
    assert {key: param.shape for key, param in params.items()} == SHAPES
    assert not params["bias_ih_l0"].any()
    assert not params["bias_hh_l0"].any()
    for gate in params["weight_ih_l0"].reshape(4, H, I):
        assert abs(gate.std() / math.sqrt(2 / (H + I)) - 1) < 0.1
    assert abs(params["weight_hr_l0"].std() / math.sqrt(2 / (H + 8)) - 1) < 0.1
    for gate in params["weight_hh_l0"].reshape(4, H, H):
        if name == "orthogonal":
            np.testing.assert_allclose(gate @ gate.T, np.eye(H), atol=1e-14)
        else:
            assert abs(gate.std() * math.sqrt(H) - 1) < 0.1


def test_own_init():
    def identity(rng, name, shape, hidden_size, dtype):
        return np.eye(*shape) if name.startswith("weight_hh") else np.zeros(shape, dtype)

    shapes = {"weight_ih": (3, 2), "weight_hh": (3, 3), "bias_ih": (3,)}
    params = init.recurrent_params(identity, seeded(), shapes, 3, "float32")
    np.testing.assert_array_equal(params["weight_hh"], np.eye(3))
    assert params["weight_hh"].dtype == np.float32
    assert not params["weight_ih"].any()


def test_refused_inits():
    with pytest.raises(ValueError, match=r"init must be a function or one of torch, .* got 'he'"):
        init.recurrent_params("he", seeded(), SHAPES, H)
    with pytest.raises(ValueError, match=r"init gave weight_ih_l0 shape \(2,\), expected"):
        init.recurrent_params(lambda *_: np.zeros(2), seeded(), SHAPES, H)


@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True, "num_layers": 2}, {"peephole": True}, {"input_gate": False}],
)
def test_forget_bias(options):
    lstm = LSTM(3, H, seed=0, **options)
    before = lstm.state_dict()
    init.set_forget_bias(lstm, 2.0)
    gate = lstm.cell.gate_names.index("f")
    for name, param in lstm.params.items():
        kept = np.ones(param.shape, bool)
        if name.startswith("bias"):
            forget = slice(gate * H, (gate + 1) * H)
            assert (param[forget] == (2 if "_ih" in name else 0)).all()
            kept[forget] = False
        np.testing.assert_array_equal(param[kept], before[name][kept])


def test_forget_bias_of_deeper_transitions_and_normalised_gates():
    deep = LSTM(3, H, transition_depth=2)
    init.set_forget_bias(Chain(GRU(3, 3), deep), 2.0)
    assert (deep.params["bias_hh_l0_t2"][H : 2 * H] == 2).all()
    normalised = LSTM(3, H, layer_norm=True)
    init.set_forget_bias(normalised, 2.0)
    assert (normalised.params["norm_l0"][:, 0] == [1] * 8 + [0, 2, 0, 0, 1, 0]).all()


@pytest.mark.parametrize("model", [GRU(3, 4), LSTM(3, 4, bias=False), LSTM(3, 4, coupled=True)])
def test_forget_bias_needs_biases(model):
    with pytest.raises(ValueError, match="set_forget_bias needs an LSTM with biases and a forget"):
        init.set_forget_bias(model)


def test_bounds_are_finite(rng):
    for bound in (np.inf, np.nan, 1e308):
        with pytest.raises(ValueError, match="bound must be finite"):
            init.uniform(rng, (2, 2), bound)


@pytest.mark.parametrize("draw", [init.xavier_uniform, init.xavier_normal])
def test_nothing_to_draw(draw):
    assert draw(np.random.default_rng(0), (0, 0)).shape == (0, 0)
