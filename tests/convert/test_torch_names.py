"""State_dicts under other names: maps of names, wrappers, counters, weight_norm, one bias."""

import numpy as np
import pytest
from rnncore import GRU, LSTM, Linear, LSTMCell
from rnncore.arrays import save_arrays
from rnncore.convert import from_torch

from tests.support.compare import assert_close, assert_same


@pytest.fixture
def lstm():
    return LSTM(3, 4, seed=1)


def under(start, state):
    return {start + name: array for name, array in state.items()}


THEIRS = {
    "weight_ih_l0": "W_x",
    "weight_hh_l0": "cell/W_h",
    "bias_ih_l0": "b.0",
    "bias_hh_l0": "b.1",
}


class TestNames:
    def test_a_mapping_of_ours_to_theirs(self, lstm, tmp_path):
        theirs = {THEIRS[name]: array for name, array in lstm.state_dict().items()}
        assert_same(from_torch(theirs, names=THEIRS).params, lstm.params)
        np.savez(tmp_path / "m.npz", **theirs)
        assert_same(from_torch(tmp_path / "m.npz", names=THEIRS).params, lstm.params)

    def test_entries_without_another_name_keep_theirs(self, lstm):
        state = under("rnn.", lstm.state_dict()) | {"head": np.ones((2, 4), np.float32)}
        both = from_torch(state, ["rnn", "out"], names={"out.weight": "head"}, verify=True)
        assert_same({"weight": both[1].params["weight"]}, {"weight": state["head"]})
        assert "bias" not in both[1].params

    def test_a_function_of_their_names(self, lstm):
        state = under("cell_", lstm.state_dict()) | {"ema_decay": np.array(0.9)}

        def names(theirs):
            return theirs.removeprefix("cell_") if theirs.startswith("cell_") else None

        assert_same(from_torch(state, names=names).params, lstm.params)

    def test_what_does_not_fit(self, lstm):
        state = lstm.state_dict()
        for names, what in (
            ({"weight_ih_l0": "W"}, r"names: there is no 'W'; there are 'weight_ih_l0', "),
            ({"a": "bias_ih_l0", "b": "bias_ih_l0"}, "must not give one entry .* two names"),
            ({"bias_hh_l0": "bias_ih_l0"}, "two entries of the source are called 'bias_hh_l0'"),
            (lambda name: "same", "two entries of the source are called 'same'"),
        ):
            with pytest.raises(ValueError, match=what):
                from_torch(state, names=names)
        for names, what in (
            (lambda name: 5, "names must give a name or None, got 5 for 'weight_ih_l0'"),
            (["weight_ih_l0"], "names must be a mapping of names, or a function .* got list"),
        ):
            with pytest.raises(TypeError, match=what):
                from_torch(state, names=names)


class TestWrappers:
    @pytest.mark.parametrize(
        "wrap", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}"]
    )
    def test_are_taken_off(self, lstm, wrap):
        state = {wrap.format(name): array for name, array in lstm.state_dict().items()}
        assert_same(from_torch(state).params, lstm.params)
        state = {wrap.format(n): a for n, a in under("enc.lstm.", lstm.state_dict()).items()}
        for prefix in ("enc.lstm", wrap.format("enc.lstm"), wrap.format("enc.lstm.")):
            assert_same(from_torch(state, prefix).params, lstm.params)

    def test_of_a_part_that_was_compiled(self, lstm):
        state = under("enc._orig_mod.lstm.", lstm.state_dict())
        for prefix in ("enc.lstm", "enc._orig_mod.lstm"):
            assert_same(from_torch(state, prefix).params, lstm.params)

    def test_a_module_called_so_is_no_wrapper(self, lstm):
        state = under("module.", lstm.state_dict()) | {"head.weight": np.ones((2, 4), "f")}
        assert_same(from_torch(state, "module").params, lstm.params)
        both = from_torch(state, ["module", "head"])
        assert [type(layer) for layer in both] == [LSTM, Linear]

    def test_entries_that_become_one_are_refused(self, lstm):
        state = lstm.state_dict() | under("_orig_mod.", lstm.state_dict())
        with pytest.raises(ValueError, match="two entries of the source are called 'weight_ih"):
            from_torch(state)


class TestCounters:
    @pytest.mark.parametrize("name", ["num_batches_tracked", "n_averaged", "norm.n_averaged"])
    @pytest.mark.parametrize("start", ["", "net.", "module."])
    def test_are_passed_over(self, lstm, tmp_path, name, start):
        state = under(start, lstm.state_dict()) | {start + name: np.array(3)}
        if "norm" not in name:
            assert_same(from_torch(state, start).params, lstm.params)
        whole = state | {f"{start}norm.num_batches_tracked": np.array(3)}
        assert_same(from_torch(whole, start).params, lstm.params)
        save_arrays(tmp_path / "m.safetensors", whole)
        assert_same(from_torch(tmp_path / "m.safetensors", start).params, lstm.params)

    def test_one_beside_a_wrapper_does_not_hide_it(self, lstm):
        state = under("module.", lstm.state_dict()) | {"n_averaged": np.array(7)}
        assert_same(from_torch(state).params, lstm.params)

    def test_other_integers_are_refused(self, lstm):
        with pytest.raises(TypeError, match="'step' must be an array of floats, got int64"):
            from_torch(lstm.state_dict() | {"step": np.array(3)}, "")


def old(name, part):
    return f"{name}_{'gv'[part]}"


def new(name, part):
    start, _, weight = name.rpartition(".")
    return f"{start}.parametrizations.{weight}.original{part}"


class TestWeightNorm:
    def test_lengths_of_any_axis(self, rng):
        v = rng.standard_normal((6, 5))
        for axes, shape in (((1,), (6, 1)), ((0,), (1, 5)), ((0, 1), ())):
            g = rng.uniform(1, 2, shape)
            want = g * v / np.sqrt((v**2).sum(axis=axes, keepdims=True))
            for called in (old, new):
                state = {called("out.weight", 0): g, called("out.weight", 1): v}
                got = from_torch(state, ("out", Linear))
                assert_close({"weight": got.params["weight"]}, {"weight": want}, 1e-12)

    def test_of_numbers_whose_squares_overflow(self):
        v = np.array([[3e30, 4e30]], np.float32)
        got = from_torch({"weight_g": np.float32([[5]]), "weight_v": v}, ("", Linear))
        np.testing.assert_allclose(got.params["weight"], [[3, 4]], rtol=1e-6)
        got = from_torch({"weight_g": np.ones((1, 1)), "weight_v": v.astype(float)}, ("", Linear))
        np.testing.assert_allclose(got.params["weight"], [[0.6, 0.8]], rtol=1e-6)

    def test_what_does_not_belong_together(self, lstm):
        state = lstm.state_dict()
        v = state.pop("weight_hh_l0")
        bad = state | {"weight_hh_l0_g": np.ones((5, 1), "f"), "weight_hh_l0_v": v}
        with pytest.raises(ValueError, match=r"'weight_hh_l0' is of weight_norm: its length has "):
            from_torch(bad)

    @pytest.mark.parametrize("start", ["", "net.rnn."])
    @pytest.mark.parametrize(
        "parts",
        [
            ["weight_hh_l0_g"],
            ["weight_hh_l0_orig", "weight_hh_l0_u", "weight_hh_l0_v"],
            ["parametrizations.weight_hh_l0.original", "parametrizations.weight_hh_l0.0._u"],
            [f"parametrizations.weight_hh_l0.{name}" for name in ("original0", "original1", "1.a")],
        ],
        ids=["half", "spectral_old", "spectral", "two"],
    )
    def test_other_parametrizations_are_named(self, lstm, parts, start):
        state = lstm.state_dict()
        v = state.pop("weight_hh_l0")
        state = under(start, state | dict.fromkeys(parts, v))
        what = r"weight_hh_l0.* are of a parametrization other than weight_norm: before state_dict"
        with pytest.raises(ValueError, match=what):
            from_torch(state, start)
        if not start:
            with pytest.raises(ValueError, match=what):
                from_torch(state)

    def test_a_layer_without_them_is_read_beside(self, lstm):
        state = under("rnn.", lstm.state_dict())
        state |= {"fc.weight_orig": np.ones((2, 2)), "fc.weight_v": np.ones(2)}
        assert_same(from_torch(state, "rnn").params, lstm.params)


class TestOneBias:
    @pytest.mark.parametrize("kind", [LSTM, GRU])
    @pytest.mark.parametrize("twice", [False, True], ids=["one", "cudnn"])
    def test_of_a_layer(self, kind, twice):
        layer = kind(3, 4, 2, bidirectional=True, seed=1)
        state = layer.state_dict()
        for end in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
            both = [state.pop(f"bias_{name}{end}") for name in ("ih", "hh")]
            state[f"bias{end}"] = np.concatenate(both) if twice else both[0]
            if not twice:
                layer.params[f"bias_hh{end}"] = np.zeros_like(both[1])
        assert_same(from_torch(state, verify=True).params, layer.params)

    def test_of_a_cell(self):
        cell = LSTMCell(3, 4, seed=1)
        state = cell.state_dict()
        state["bias"] = np.stack([state.pop(f"bias_{name}") for name in ("ih", "hh")])
        assert_same(from_torch(state, "").params, cell.params)

    @pytest.mark.parametrize(("kind", "numbers"), [(LSTM, 32), (GRU, 24)])
    def test_cudnns_is_named(self, kind, numbers):
        state = kind(3, 4, seed=1).state_dict()
        state["bias_ih_l0"] = np.zeros(numbers, np.float32)
        what = rf"bias_ih_l0 has {numbers} numbers .* as cuDNN keeps both .* call it bias_l0"
        with pytest.raises(ValueError, match=what):
            from_torch(state)
        state["bias_l0"] = state.pop("bias_ih_l0")
        with pytest.raises(ValueError, match="bias_l0 gives bias_hh_l0, which is there"):
            from_torch(state)

    def test_of_another_size(self, lstm):
        state = lstm.state_dict()
        state["bias_l0"] = np.zeros(5, np.float32)
        with pytest.raises(ValueError, match=r"bias_l0 must have 16 numbers, or twice as many, g"):
            from_torch(state)


class TestFirstStates:
    """Parameters of somebody's own module, beside those of torch's."""

    @pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"proj_size": 2}], ids=str)
    def test_whole_as_torch_takes_them(self, options, rng):
        layer = LSTM(3, 4, 2, learned_state=True, seed=1, **options)
        rows = 4 if options.get("bidirectional") else 2
        h0, c0 = (rng.standard_normal((rows, 1, n)).astype("f") for n in (layer.output_size, 4))
        for end, h, c in zip(layer._suffixes, h0, c0, strict=True):
            layer.params[f"initial_h{end}"], layer.params[f"initial_c{end}"] = h[0], c[0]
        state = {n: a for n, a in layer.state_dict().items() if "initial" not in n}
        whole = state | {"h0": h0, "c0": c0}
        names = {"initial_h": "h0", "initial_c": "c0"}
        again = from_torch(whole, "", names=names, verify=True, report=lambda check: None)
        assert_same(again.params, layer.params)
        with pytest.raises(ValueError, match=r"initial_c must have a row for each of \d layers"):
            from_torch(whole | {"c0": c0[0, 0, :3]}, "", names=names)
        with pytest.raises(ValueError, match="missing 'initial_c_l0'"):
            from_torch(state | {"h0": h0}, "", names={"initial_h": "h0"})

    def test_of_a_cell_and_of_each_layer(self):
        for module in (LSTMCell(3, 4, learned_state=True), GRU(3, 4, 2, learned_state=True)):
            for name, array in module.params.items():
                array[...] = len(name)
            found = []
            again = from_torch(module.state_dict(), "", verify=True, report=found.append)
            assert_same(again.params, module.params)
            assert len(found) == 1


def test_lists_have_no_dtype():
    state = {name: array.tolist() for name, array in Linear(2, 3, seed=1).state_dict().items()}
    assert from_torch(state, "").dtype == np.float32
    assert from_torch(state, "", dtype="float64").dtype == np.float64
    state["bias"][0] = 1e300
    with pytest.raises(ValueError, match="'bias' has numbers too large for float32"):
        from_torch(state, "")
    for wrong in (["a"], [None], [[1.0], [2.0, 3.0]]):
        with pytest.raises(ValueError, match=r"'bias': weights must be numbers"):
            from_torch(state | {"bias": wrong}, "")
