"""MultiheadAttention against torch's, the NumPy reference and differences; what it promises."""

from pathlib import Path

import numpy as np
import pytest
import rnncore
from rnncore import GRU, Chain, Conv1d, Linear, MultiheadAttention, Residual
from rnncore.reference.multihead import multihead, multihead_backward

from tests.support.compare import assert_close, assert_same
from tests.support.gradients import check_layer

FILE = Path(__file__).parents[1] / "golden" / "multihead.npz"
HEADS = {"plain": 2, "no_bias": 4, "ragged": 3, "causal": 2, "causal_ragged": 1}
each_kind = pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
each_case = pytest.mark.parametrize("case", HEADS)


def golden(case):
    with np.load(FILE) as file:
        found = {n.removeprefix(f"{case}/"): file[n] for n in file if n.startswith(f"{case}/")}
    state = {n.removeprefix("state/"): a for n, a in found.items() if n.startswith("state/")}
    return found, state


def layer(size=6, heads=2, dtype="float64", **options):
    """A layer whose biases are not zero."""
    made = MultiheadAttention(size, heads, dtype=dtype, seed=1, **options)
    rng = np.random.default_rng(2)
    for array in made.params.values():
        array += rng.uniform(-0.3, 0.3, array.shape).astype(dtype)
    return made


def of_case(case, found, state, dtype):
    made = MultiheadAttention(
        found["x"].shape[2],
        HEADS[case],
        "in_proj_bias" in state,
        causal="causal" in case,
        dtype=dtype,
    )
    made.load_state_dict({name: array.astype(dtype) for name, array in state.items()})
    return made


def passes(made, x, dy, **options):
    """Outputs and all gradients, by name."""
    made.zero_grad()
    y, pullback = made.vjp(x, **options)
    return {"y": y, "dx": pullback(dy)} | {n: g.copy() for n, g in made.grads.items()}


@each_case
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_is_torchs(case, dtype, tolerance):
    found, state = golden(case)
    made = of_case(case, found, state, dtype)
    x, dy = found["x"].astype(dtype), found["dy"].astype(dtype)
    lengths = found["lengths"] if "ragged" in case else None
    want = {name: found[name] for name in ("y", "dx")} | {n: found[f"grad/{n}"] for n in state}
    # The rows of W_in and b_in for q, k and v have gradients of their own sizes.
    got = passes(made, x, dy, lengths=lengths)
    bias, wanted = (a.pop("in_proj_bias", np.zeros(3)) for a in (got, want))
    assert_close(got, want, tolerance)
    np.testing.assert_allclose(bias, wanted, atol=tolerance * np.abs(wanted).max(), rtol=0)
    assert_close({"y": made(x, lengths=lengths)}, {"y": found["y"]}, tolerance)


@each_case
def test_the_reference_is_torchs(case):
    found, state = golden(case)
    y, tape = multihead(state, found["x"], HEADS[case], found["lengths"], "causal" in case)
    dx, gradients = multihead_backward(tape, found["dy"])
    want = {"y": found["y"], "dx": found["dx"]} | {n: found[f"grad/{n}"] for n in state}
    assert_close({"y": y, "dx": dx} | gradients, want, 1e-12)


@each_kind
@pytest.mark.parametrize("lengths", [None, (5, 1, 3)], ids=["even", "ragged"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_gradients_are_those_of_differences(rng, causal, lengths, batch_first):
    made = layer(4, 2, causal=causal, batch_first=batch_first)
    x = rng.standard_normal((5, 3, 4))
    check_layer(made, x.swapaxes(0, 1) if batch_first else x, lengths=lengths)


@each_kind
@pytest.mark.parametrize("time", [1, 31, 32, 33, 100])
def test_is_the_reference_at_the_edges_of_tiles(rng, causal, time):
    made = layer(6, 3, causal=causal)
    x, dy = rng.standard_normal((2, time, 2, 6))
    lengths = np.array([time, max(1, time - 2)])
    y, tape = multihead(dict(made.params), x, 3, lengths, causal)
    dx, gradients = multihead_backward(tape, dy)
    assert_close(passes(made, x, dy, lengths=lengths), {"y": y, "dx": dx} | gradients, 1e-12)


class TestRows:
    @each_kind
    def test_what_is_past_the_end_may_be_anything(self, rng, causal):
        made, (x, dy) = layer(causal=causal), rng.standard_normal((2, 6, 3, 6))
        lengths = [6, 2, 4]
        want = passes(made, x, dy, lengths=lengths)
        past = np.arange(6)[:, None] >= lengths
        assert not want["y"][past].any()
        assert not want["dx"][past].any()
        x[past], dy[past] = np.nan, np.inf
        assert_same(passes(made, x, dy, lengths=lengths), want)

    @each_kind
    def test_each_is_as_it_is_by_itself(self, rng, causal):
        made, (x, dy) = layer(causal=causal), rng.standard_normal((2, 40, 3, 6))
        lengths = [40, 3, 35]
        y, pullback = made.vjp(x, lengths=lengths)
        dx = pullback(dy)
        for row, n in enumerate(lengths):
            alone, back = made.vjp(x[:n, row : row + 1])
            assert_same({"y": y[:n, row : row + 1]}, {"y": alone})
            assert_same({"dx": dx[:n, row : row + 1]}, {"dx": back(dy[:n, row : row + 1])})
            assert_same({"y": made(x[:n, row])}, {"y": alone[:, 0]})

    @each_kind
    def test_nan_stays_in_its_row(self, rng, causal):
        made, x = layer(causal=causal), rng.standard_normal((5, 3, 6))
        want = made(x)
        x[3, 1, 2] = np.nan
        y = made(x)
        assert_same({"y": y[:, ::2]}, {"y": want[:, ::2]})
        assert np.isnan(y[3:, 1]).all()
        assert np.isnan(y[:3, 1]).all() != causal

    def test_causal_ones_do_not_see_later_steps(self, rng):
        made, x = layer(causal=True), rng.standard_normal((100, 2, 6))
        want = made(x)
        for cut in (1, 31, 32, 50, 99):
            later = x.copy()
            later[cut:] = np.nan
            assert_same({"y": made(later)[:cut]}, {"y": want[:cut]})
            assert_same({"y": made(x[:cut])}, {"y": want[:cut]})


@each_kind
def test_has_the_same_bits_for_any_number_of_threads(rng, causal):
    made = layer(64, 4, "float32", causal=causal)
    x, dy = rng.standard_normal((2, 50, 17, 64)).astype("f4")
    lengths = rng.integers(1, 51, 17)
    kept, found = rnncore.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            rnncore.set_num_threads(threads)
            found.append(passes(made, x, dy, lengths=lengths))
    finally:
        rnncore.set_num_threads(kept)
    for other in found[1:]:
        assert_same(other, found[0])


@each_kind
def test_layouts_agree(rng, causal):
    made, (x, dy) = layer(causal=causal), rng.standard_normal((2, 7, 3, 6))
    turned = MultiheadAttention(6, 2, causal=causal, batch_first=True, dtype="float64")
    turned.load_state_dict(made.state_dict())
    want = passes(made, x, dy, lengths=[7, 2, 5])
    got = passes(turned, x.swapaxes(0, 1), dy.swapaxes(0, 1), lengths=[7, 2, 5])
    for name in ("y", "dx"):
        got[name] = got[name].swapaxes(0, 1)
    assert_same(got, want)
    for spaced in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=2)[..., ::2]):
        assert_same(passes(made, spaced(x), spaced(dy), lengths=[7, 2, 5]), want)
    one = passes(made, x[:, 0], dy[:, 0])
    alone = passes(made, x[:, :1], dy[:, :1])
    assert_same(one, alone | {name: alone[name][:, 0] for name in ("y", "dx")})


@each_kind
@pytest.mark.parametrize("shape", [(0, 3, 6), (5, 0, 6), (0, 0, 6), (0, 6)])
def test_nothing_is_legal(causal, shape):
    made = layer(causal=causal)
    x = np.zeros(shape)
    got = passes(made, x, x)
    assert got["y"].shape == got["dx"].shape == shape
    assert not any(got[name].any() for name in made.params)


def test_a_single_step_is_two_products(rng):
    made, x = layer(), rng.standard_normal((1, 3, 6))
    p = made.params
    v = x @ p["in_proj_weight"][12:].T + p["in_proj_bias"][12:]
    want = v @ p["out_proj.weight"].T + p["out_proj.bias"]
    assert_close({"y": made(x)}, {"y": want}, 1e-14)


def test_starts_as_torchs_does():
    made = MultiheadAttention(50, 5, seed=0)
    shapes = {"in_proj_weight": (150, 50), "in_proj_bias": (150,)}
    shapes |= {"out_proj.weight": (50, 50), "out_proj.bias": (50,)}
    assert {name: array.shape for name, array in made.params.items()} == shapes
    assert list(MultiheadAttention(4, 2, bias=False).params) == [
        "in_proj_weight",
        "out_proj.weight",
    ]
    for name, bound in (("in_proj_weight", (6 / 200) ** 0.5), ("out_proj.weight", 50**-0.5)):
        largest = np.abs(made.params[name]).max()
        assert 0.9 * bound < largest <= bound
    assert not made.params["in_proj_bias"].any()
    assert not made.params["out_proj.bias"].any()
    assert_same(MultiheadAttention(50, 5, seed=0).params, made.params)


def test_changed_weights_are_seen(rng):
    made, x = layer(), rng.standard_normal((4, 2, 6))
    before = made(x)
    for name in made.params:
        made.params[name][...] *= -1
        after = made(x)
        assert not np.array_equal(before, after), name
        before = after


class TestBesideOthers:
    def test_a_chain_hands_lengths_on(self, rng):
        conv = Conv1d(3, 6, 3, padding=1, dtype="float64", seed=1)
        parts = conv, layer(), GRU(6, 4, dtype="float64", seed=3), Linear(4, 2, dtype="float64")
        chain, x = Chain(*parts), rng.standard_normal((6, 3, 3))
        y, _ = chain(x, lengths=[6, 2, 4])
        for row, n in enumerate([6, 2, 4]):
            alone, _ = chain(x[:n, row : row + 1])
            assert_close({"y": y[:n, row : row + 1]}, {"y": alone}, 1e-12)
        assert Chain(layer(), Linear(6, 2)).out_width(6) == 2
        with pytest.raises(ValueError, match="one gives 4 features, the next takes 6"):
            Chain(Linear(3, 4), layer())

    @pytest.mark.parametrize("weights", ["int8", "bfloat16"])
    def test_weights_in_fewer_bits(self, rng, weights, tmp_path):
        chain = Chain(layer(64, 4, "float32"), Linear(64, 3, seed=1))
        x = rng.standard_normal((9, 4, 64)).astype("f4")
        light = rnncore.quantize(chain, weights)
        assert light[0].weight_type == weights
        want, got = chain(x), light(x)
        assert 0 < np.abs(got - want).max() < 0.05 * np.abs(want).max()
        assert_same({"y": light(x[:, 1:2])}, {"y": got[:, 1:2]})
        light.save(tmp_path / "light.safetensors")
        assert_same({"y": rnncore.load(tmp_path / "light.safetensors")(x)}, {"y": got})
        with pytest.raises(TypeError, match="it has no gradients"):
            light.vjp(x)

    @pytest.mark.parametrize("wrap", [lambda m: m, Residual, Chain])
    def test_there_is_no_stream(self, wrap):
        with pytest.raises(TypeError, match="as a stream: attention reads all later frames"):
            wrap(layer()).stream()
        with pytest.raises(TypeError, match="causal attention reads all earlier frames again"):
            wrap(layer(causal=True)).stream(2)

    def test_pieces_of_time_refuse_it(self):
        for causal, why in ((True, "mixes frames"), (False, "looks ahead")):
            inner = Chain(layer(causal=causal), GRU(6, 4, dtype="float64"))
            with pytest.raises(ValueError, match=f"its MultiheadAttention {why}"):
                rnncore.Windowed(inner, GRU(6, 4, dtype="float64"), past=1, future=1)
        with pytest.raises(ValueError, match="its MultiheadAttention mixes frames"):
            rnncore.Reversed(inner)


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "what"),
        [
            ((6, 4), "embed_dim must be a multiple of num_heads, got 6 and 4"),
            ((0, 1), "embed_dim must be at least 1"),
            ((4, 0), "num_heads must be at least 1"),
        ],
    )
    def test_sizes(self, given, what):
        with pytest.raises(ValueError, match=what):
            MultiheadAttention(*given)

    def test_torchs_dropout(self):
        with pytest.raises(TypeError, match=r"bias must be True or False, got 0\.1"):
            MultiheadAttention(4, 2, 0.1)

    def test_arrays(self, rng):
        made, x = layer(), rng.standard_normal((4, 2, 6))
        for wrong in (x[..., :5], x[0, 0], x[None]):
            with pytest.raises(ValueError, match=r"x must have shape \(T, B, 6\) or \(T, 6\), got"):
                made(wrong)
        with pytest.raises(TypeError, match="x is float64, but this module computes in float32"):
            layer(dtype="float32")(x)
        for lengths in ([4], [0, 4], [5, 1]):
            with pytest.raises(ValueError, match="lengths must"):
                made(x, lengths=lengths)
        with pytest.raises(ValueError, match=r"dy must have shape \(4, 2, 6\), got \(4, 1, 6\)"):
            made.vjp(x)[1](x[:, :1])
        pullback = made.vjp(x)[1]
        pullback(x)
        with pytest.raises(RuntimeError):
            pullback(x)
