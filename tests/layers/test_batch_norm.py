"""Batch normalisation: its formula, running statistics, what is past the end of a row, files."""

import copy
import pickle

import numpy as np
import pytest
import rnncore
from rnncore import GRU, BatchNorm, Chain, Linear
from rnncore.parameters import Arrays

from tests.support.compare import assert_close, assert_same, near
from tests.support.gradients import check_layer
from tests.support.windows import Ragged


def scrambled(layer, seed=5):
    """Give parameters and buffers values that tell them apart."""
    rng = np.random.default_rng(seed)
    for array in layer.stored.values():
        array[...] = rng.uniform(0.5, 2, array.shape)
    return layer


def formula(x, mean, variance, layer):
    weight, bias = (layer.params.get(n, d) for n, d in (("weight", 1.0), ("bias", 0.0)))
    return (x - mean) / np.sqrt(variance + layer.eps) * weight + bias


class TestFormula:
    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3), (5, 2, 3), (2, 3, 4, 3), (0, 3)])
    def test_a_call_uses_running_statistics(self, affine, shape, rng):
        layer = scrambled(BatchNorm(3, 0.1, affine=affine, dtype="float64"))
        x, kept = rng.standard_normal(shape), layer.state_dict()
        near(layer(x), formula(x, kept["running_mean"], kept["running_var"], layer), 1e-12)
        assert_same(layer.state_dict(), kept)
        scale, shift = layer.folded()
        near(x * scale + shift, layer(x), 1e-12)

    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("shape", [(2, 3), (5, 2, 3), (2, 3, 4, 3)])
    def test_training_uses_those_of_x(self, affine, shape, rng):
        layer = scrambled(BatchNorm(3, 0.1, 0.3, affine, dtype="float64"))
        x, kept = 3 + rng.standard_normal(shape), layer.state_dict()
        rows = x.reshape(-1, 3)
        near(layer.vjp(x)[0], formula(x, rows.mean(0), rows.var(0), layer), 1e-12)
        want = {"running_mean": rows.mean(0), "running_var": rows.var(0, ddof=1)}
        want = {n: kept[n] + 0.3 * (new - kept[n]) for n, new in want.items()}
        assert_close(layer.buffers, want, 1e-12)

    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("shape", [(2, 3), (5, 2, 3), (2, 3, 2, 3)])
    def test_gradients(self, affine, shape, rng):
        check_layer(
            scrambled(BatchNorm(3, affine=affine, dtype="float64")), rng.standard_normal(shape)
        )

    def test_float32_is_near_float64(self, rng):
        x = (5 + rng.standard_normal((1000, 7))).astype("f")
        narrow, wide = scrambled(BatchNorm(7)), BatchNorm(7, dtype="float64")
        wide.load_state_dict(narrow.state_dict())
        (y, pullback), (wide_y, wide_pullback) = narrow.vjp(x), wide.vjp(x.astype("float64"))
        near(y, wide_y, 2e-5)
        dy = rng.standard_normal(x.shape).astype("f")
        near(pullback(dy), wide_pullback(dy.astype("float64")), 2e-5)
        assert_close(narrow.grads, wide.grads, 2e-5)
        assert_close(narrow.buffers, wide.buffers, 2e-5)

    def test_long_sums_keep_their_digits(self, rng):
        """A running sum of a million float32 numbers would lose four digits."""
        x = (10 + rng.standard_normal((400_000, 2))).astype("f")
        layer = BatchNorm(2, momentum=1)
        y, _ = layer.vjp(x)
        wide = x.astype("float64")
        assert_close(
            layer.buffers, {"running_mean": wide.mean(0), "running_var": wide.var(0, ddof=1)}, 2e-6
        )
        near(y, (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5), 2e-5)

    def test_starts_as_torchs_does(self):
        ones, zeros = np.ones(3, "f"), np.zeros(3, "f")
        want = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones}
        assert_same(BatchNorm(3).state_dict(), want)
        assert BatchNorm(3, affine=False).params == {}
        assert BatchNorm(3, affine=False).grads == {}

    def test_memory_order_does_not_matter(self, rng):
        whole = rng.standard_normal((3, 40, 50)).astype("f")
        for x in (whole.T, whole.T[::-1], np.asfortranarray(whole.T)[::2]):
            found = []
            for given in (x, x.copy()):
                layer = scrambled(BatchNorm(3))
                y, pullback = layer.vjp(given)
                found.append({"y": y, "dx": pullback(np.asfortranarray(y)), **layer.grads})
                found[-1] |= {**layer.buffers, "call": layer(given)}
            assert_same(*found)


class TestRows:
    def test_a_single_one_cannot_be_trained_on(self):
        layer = BatchNorm(3)
        for shape in ((3,), (1, 3), (1, 1, 3)):
            with pytest.raises(
                ValueError, match="x must have at least two rows to train on, got sh"
            ):
                layer.vjp(np.zeros(shape, "f"))
        with pytest.raises(ValueError, match="at least two rows"):
            BatchNorm(3, batch_first=False).vjp(np.zeros((5, 1, 3), "f"), lengths=[1])
        assert_same(layer.state_dict(), BatchNorm(3).state_dict())

    @pytest.mark.parametrize("shape", [(0, 3), (0, 2, 3), (5, 0, 3)])
    def test_of_none_leave_the_statistics(self, shape):
        layer = BatchNorm(3)
        y, pullback = layer.vjp(np.zeros(shape, "f"))
        assert y.shape == pullback(y).shape == layer(y).shape == shape
        assert_same(layer.state_dict(), BatchNorm(3).state_dict())
        assert not any(grad.any() for grad in layer.grads.values())

    def test_nan_stays_in_its_row_of_a_call(self, rng):
        layer, x = scrambled(BatchNorm(3)), rng.standard_normal((5, 2, 3)).astype("f")
        clean = layer(x)
        x[2, 1] = np.nan
        y = layer(x)
        assert np.isnan(y[2, 1]).all()
        y[2, 1] = clean[2, 1]
        np.testing.assert_array_equal(y, clean)

    def test_streams(self, rng):
        model = Chain(GRU(3, 4, seed=1), scrambled(BatchNorm(4)), Linear(4, 2, seed=2))
        x = rng.standard_normal((9, 2, 3)).astype("f")
        stream = model.stream(2)
        y = np.concatenate([stream.run(x[:4]), stream.step(x[4])[None], stream.run(x[5:])])
        np.testing.assert_array_equal(y, model(x)[0])


class TestLengths:
    @pytest.mark.parametrize("first", [False, True])
    def test_what_is_past_them_does_not_count(self, first, rng):
        lengths, x = np.array([6, 2, 4]), rng.standard_normal((6, 3, 5))
        alive = np.arange(6)[:, None] < lengths
        x[~alive] = np.nan
        swap = (lambda a: a.swapaxes(0, 1)) if first else (lambda a: a)
        ragged = scrambled(BatchNorm(5, batch_first=first, dtype="float64"))
        plain = scrambled(BatchNorm(5, dtype="float64"))
        np.testing.assert_array_equal(
            swap(ragged(swap(x), lengths=lengths))[alive], plain(x[alive])
        )
        assert not swap(ragged(swap(x), lengths=lengths))[~alive].any()
        (y, pullback), (want, back) = ragged.vjp(swap(x), lengths=lengths), plain.vjp(x[alive])
        near(swap(y)[alive], want, 1e-12)
        dy = rng.standard_normal((6, 3, 5))
        dx = swap(pullback(swap(dy)))
        near(dx[alive], back(dy[alive]), 1e-12)
        assert not swap(y)[~alive].any()
        assert not dx[~alive].any()
        assert_close(ragged.grads, plain.grads, 1e-12)
        assert_close(ragged.buffers, plain.buffers, 1e-12)

    @pytest.mark.parametrize("affine", [True, False])
    def test_gradients(self, affine, rng):
        layer = scrambled(BatchNorm(2, affine=affine, batch_first=False, dtype="float64"))
        check_layer(Ragged(layer, [5, 1, 3]), rng.standard_normal((5, 3, 2)))

    def test_of_a_single_sequence(self, rng):
        layer, x = scrambled(BatchNorm(3)), rng.standard_normal((6, 3)).astype("f")
        y = layer(x, lengths=[4])
        np.testing.assert_array_equal(y[:4], layer(x[:4]))
        assert not y[4:].any()

    def test_need_to_know_the_axis_of_time(self):
        """A batch of as many rows as steps would be normalised by the wrong frames."""
        layer = Chain(GRU(3, 4, batch_first=True), BatchNorm(4))
        for call in (layer, layer.vjp):
            with pytest.raises(ValueError, match="lengths need batch_first, True or False"):
                call(np.zeros((2, 2, 3), "f"), lengths=[2, 1])
        with pytest.raises(ValueError, match="all layers must have the same batch_first"):
            Chain(GRU(3, 4, batch_first=True), BatchNorm(4, batch_first=False))

    def test_need_sequences(self):
        for shape in ((3,), (2, 2, 2, 3)):
            with pytest.raises(ValueError, match="lengths need x of two or three axes, got shape"):
                BatchNorm(3)(np.zeros(shape, "f"), lengths=[1])


class TestBuffers:
    def test_are_no_parameters(self):
        model = Chain(Linear(3, 4), BatchNorm(4))
        assert list(model.params) == ["0.weight", "0.bias", "1.weight", "1.bias"]
        assert list(model.buffers) == ["1.running_mean", "1.running_var"]
        assert model.grads.keys() == model.params.keys()
        assert model.stored.keys() == model.state_dict().keys() == {*model.params, *model.buffers}
        assert Linear(3, 4).buffers == {}

    def test_can_be_written_to(self):
        model = Chain(BatchNorm(2, eps=0))
        model.buffers["0.running_mean"] = [1, 2]
        model.buffers["0.running_var"][...] = 4
        np.testing.assert_array_equal(model(np.zeros((1, 2), "f")), [[-0.5, -1]])
        with pytest.raises(KeyError, match="no array named 'mean'"):
            model.buffers["mean"] = 1
        assert isinstance(model.buffers, Arrays)

    @pytest.mark.parametrize(
        "again",
        [
            copy.deepcopy,
            lambda m: pickle.loads(pickle.dumps(m)),
            lambda m: Chain(Linear(3, 4, seed=2), BatchNorm(4)),
        ],
    )
    def test_go_into_copies_and_state_dicts(self, again, rng):
        model = scrambled(Chain(Linear(3, 4, seed=1), BatchNorm(4)))
        twin = again(model)
        twin.load_state_dict(model.state_dict())
        x = rng.standard_normal((5, 3)).astype("f")
        assert_same({"y": twin(x)}, {"y": model(x)})
        twin.vjp(x)
        assert (twin.buffers["1.running_mean"] != model.buffers["1.running_mean"]).any()

    def test_go_into_files(self, tmp_path, rng):
        model = scrambled(Chain(Linear(3, 4, seed=1), BatchNorm(4, 1e-3, 0.2)))
        model.save(tmp_path / "model")
        twin = rnncore.load(tmp_path / "model")
        assert_same(twin.state_dict(), model.state_dict())
        other = Chain(Linear(3, 4, seed=2), BatchNorm(4, 1e-3))
        other.load(tmp_path / "model")
        x = rng.standard_normal((5, 3)).astype("f")
        assert_same({"y": other(x)}, {"y": model(x)})

    def test_that_are_missing_are_named(self):
        layer = BatchNorm(3)
        with pytest.raises(ValueError, match="missing 'running_mean'; missing 'running_var'"):
            layer.load_state_dict(layer.params)
        with pytest.raises(ValueError, match="unknown 'num_batches_tracked'"):
            layer.load_state_dict({**layer.state_dict(), "num_batches_tracked": 0})

    @pytest.mark.filterwarnings("ignore:Setting the dtype")
    @pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
    @pytest.mark.parametrize("change", ["resize", "retype"])
    def test_changed_in_place_are_refused(self, name, change):
        """NumPy would spread one number over all features without a word."""
        layer, x = BatchNorm(3), np.ones((4, 3), "f")
        array = layer.stored[name]
        if change == "resize":
            array.resize(1, refcheck=False)
        else:
            array.dtype = np.int32
        with pytest.raises(ValueError, match=f"{name} must stay the array that it was"):
            layer(x)
        with pytest.raises(ValueError, match=f"{name} must stay the array that it was"):
            layer.vjp(x)

    def test_are_quantized_with_the_others(self, rng):
        model = scrambled(Chain(Linear(3, 64, seed=1), BatchNorm(64), Linear(64, 2, seed=2)))
        small = rnncore.quantize(model)
        assert_same(small.buffers, model.buffers)
        small.buffers["1.running_mean"][...] = 0
        assert model.buffers["1.running_mean"].any()
        x = rng.standard_normal((5, 3)).astype("f")
        near(rnncore.quantize(model)(x), model(x), 0.02)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features must be at least 1, got 0"),
        ({"num_features": True}, TypeError, "num_features must be an integer"),
        ({"num_features": 2.0}, TypeError, "num_features must be an integer"),
        ({"eps": -1}, ValueError, "eps must be at least 0, got -1"),
        ({"eps": np.nan}, ValueError, "eps must be at least 0, got nan"),
        ({"eps": "small"}, TypeError, "eps must be a number"),
        ({"momentum": 1.5}, ValueError, r"momentum must be in \[0, 1\], got 1.5"),
        ({"momentum": None}, TypeError, "momentum must be a number"),
        ({"affine": 2}, TypeError, "affine must be True or False"),
        ({"batch_first": 2}, TypeError, "batch_first must be True or False"),
        ({"dtype": "int32"}, ValueError, "dtype must be float32 or float64"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        BatchNorm(**{"num_features": 3} | options)


def test_wrong_inputs():
    layer = BatchNorm(3)
    for call in (layer, layer.vjp):
        with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 3\), got \(2, 4\)"):
            call(np.zeros((2, 4), "f"))
        with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 3\), got \(\)"):
            call(np.float32(1))
        with pytest.raises(TypeError, match="x is float64, but this module computes in float32"):
            call(np.zeros((2, 3)))
    y, pullback = layer.vjp(np.zeros((2, 3), "f"))
    with pytest.raises(ValueError, match=r"dy must have shape \(2, 3\), got \(3,\)"):
        pullback(y[0])
    pullback(y)
    with pytest.raises(RuntimeError, match="already run"):
        pullback(y)
    with pytest.raises(ValueError, match="one gives 4 features, the next takes 3"):
        Chain(Linear(2, 4), layer)
