"""Chains of a state_dict: which layer a prefix names, and where its class is asked for."""

import numpy as np
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    BatchNorm,
    Chain,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    LSTMCell,
    MultiheadAttention,
    PReLU,
    Tanh,
)
from rnncore.convert import from_torch, to_torch_state_dict

from tests.support.compare import assert_close, assert_same


def state_of(**layers):
    return {f"{name}.{n}": a for name, m in layers.items() for n, a in m.state_dict().items()}


def kinds(chain):
    return [type(layer) for layer in chain]


class TestATableOrALinear:
    """A matrix without bias at the front."""

    def test_the_layers_after_it_tell(self):
        state = state_of(first=Embedding(5, 3), rnn=GRU(3, 4))
        assert kinds(from_torch(state, ["first", "rnn"])) == [Embedding, GRU]
        assert kinds(from_torch(state, ["first", Dropout(), "rnn"])) == [Embedding, Dropout, GRU]
        state = state_of(first=Linear(5, 3, bias=False), rnn=GRU(3, 4))
        assert kinds(from_torch(state, ["first", Tanh(), "rnn"])) == [Linear, Tanh, GRU]

    @pytest.mark.parametrize(
        "prefix", [["first", "rnn"], ["first"], "first", ["first", Tanh(), "rnn"]]
    )
    def test_a_square_one_is_asked_for(self, prefix):
        state = state_of(first=Linear(3, 3, bias=False, seed=1), rnn=GRU(3, 4, seed=2))
        what = (
            r"the shapes of first\.weight fit Embedding and Linear alike: put the class beside "
            r"the prefix, as \('first', rnncore\.Embedding\)"
        )
        with pytest.raises(ValueError, match=what):
            from_torch(state, prefix)

    @pytest.mark.parametrize("kind", [Linear, Embedding])
    def test_it_is_what_is_said(self, kind, rng):
        state = state_of(first=Linear(3, 3, bias=False, seed=1), rnn=GRU(3, 4, seed=2))
        both = from_torch(state, [("first", kind), "rnn"], verify=True, report=lambda check: None)
        assert kinds(both) == [kind, GRU]
        assert type(from_torch(state, ("first", kind))) is kind
        assert_same(both[0].params, {"weight": state["first.weight"]})

    def test_where_neither_fits(self):
        state = state_of(first=Linear(5, 3, bias=False), rnn=GRU(7, 4))
        with pytest.raises(ValueError, match=r"fit Embedding and Linear alike"):
            from_torch(state, ["first", "rnn"])

    def test_later_ones_are_linear(self):
        state = state_of(rnn=GRU(3, 4), out=Linear(4, 4, bias=False))
        assert kinds(from_torch(state, ["rnn", "out"])) == [GRU, Linear]


class TestConvolutions:
    """Three axes are taps of a convolution or of its transpose, four those of images."""

    def test_a_bias_tells(self):
        state = state_of(a=Conv1d(3, 5, 2), b=ConvTranspose1d(5, 3, 2), c=Conv2d(3, 5, (2, 1)))
        assert kinds(from_torch(state, ["a", "b"])) == [Conv1d, ConvTranspose1d]
        image = from_torch(state, "c", verify=True, report=lambda check: None)
        assert (type(image), image.params["weight"].shape) == (Conv2d, (5, 3, 2, 1))

    def test_the_layers_after_it_tell(self):
        state = state_of(a=Conv1d(3, 5, 2, bias=False), b=BatchNorm(5))
        assert kinds(from_torch(state, ["a", "b"])) == [Conv1d, BatchNorm]
        state = state_of(a=ConvTranspose1d(3, 5, 2, bias=False), b=BatchNorm(5))
        assert kinds(from_torch(state, ["a", "b"])) == [ConvTranspose1d, BatchNorm]

    @pytest.mark.parametrize(
        ("layer", "what"),
        [
            (Conv1d(4, 4, 3), r"a\.weight, a\.bias fit Conv1d and ConvTranspose1d alike"),
            (Conv1d(2, 4, 3, bias=False), r"a\.weight fit Conv1d and ConvTranspose1d alike"),
            (Conv2d(4, 4, 3), r"also those of a transposed .* as \('a', rnncore\.Conv2d\)"),
            (Conv2d(2, 4, 3, bias=False), "are also those of a transposed convolution"),
        ],
    )
    def test_else_it_is_asked_for(self, layer, what):
        state = state_of(a=layer)
        with pytest.raises(ValueError, match=what):
            from_torch(state, "a")
        assert_same(from_torch(state, ("a", type(layer))).params, layer.params)

    def test_images_transposed_are_refused(self):
        state = {"a.weight": np.ones((3, 5, 2, 2)), "a.bias": np.ones(5)}
        with pytest.raises(ValueError, match=r"cannot represent the layer of a\.weight, a\.bias"):
            from_torch(state, "a")
        with pytest.raises(ValueError, match=r"'bias' must have shape \(3,\), got \(5,\)"):
            from_torch(state, ("a", Conv2d))

    def test_batch_first_is_handed_on(self, rng):
        state = state_of(a=Conv1d(3, 5, 2, seed=1), b=BatchNorm(5), c=GRU(5, 2, seed=2))
        turned, plain = (from_torch(state, ["a", "b", "c"], batch_first=b) for b in (True, False))
        x = rng.standard_normal((6, 2, 3)).astype("f")
        y = turned(x.swapaxes(0, 1))[0].swapaxes(0, 1)
        assert_close({"y": y}, {"y": plain(x)[0]}, 1e-6)

    def test_statistics_in_another_dtype(self):
        norm = from_torch(state_of(a=BatchNorm(3, dtype=float)), "a", dtype="float32")
        assert norm.buffers["running_var"].dtype == np.float32
        plain = from_torch({"running_mean": np.ones(2), "running_var": np.ones(2)}, "")
        assert not plain.affine


class TestVectors:
    def test_slopes_and_norms(self, rng):
        layers = {"a": PReLU(), "b": LayerNorm(3), "c": PReLU(3), "d": LayerNorm((2, 3))}
        for layer in layers.values():
            for array in layer.params.values():
                array[...] = rng.standard_normal(array.shape)
        state = state_of(**layers)
        assert type(from_torch(state, "a")) is PReLU
        assert type(from_torch(state, "b")) is LayerNorm
        assert from_torch(state, "d").normalized_shape == (2, 3)
        with pytest.raises(ValueError, match=r"c\.weight fit PReLU and LayerNorm alike"):
            from_torch(state, "c")
        chain = from_torch(state, ["b", ("c", PReLU), "a"], verify=True, report=lambda check: None)
        x = rng.standard_normal((4, 2, 3)).astype("f")
        assert_same({"y": chain(x)}, {"y": layers["a"](layers["c"](layers["b"](x)))})

    def test_a_norm_without_bias(self):
        norm = from_torch({"n.weight": np.ones(3, "f")}, ("n", LayerNorm, {"eps": 1e-3}))
        assert norm.eps == 1e-3
        assert_same(norm.params, {"weight": np.ones(3, "f"), "bias": np.zeros(3, "f")})


class TestClassesBesidePrefixes:
    def test_options_are_of_one_layer_alone(self, rng):
        state = state_of(a=LSTM(3, 4, seed=1), b=LSTM(4, 2, seed=2))
        parts = ["a", ("b", LSTM, {"activations": ("hard_sigmoid", "tanh", "tanh")})]
        chain = from_torch(state, parts)
        assert [layer.cell.options() != {} for layer in chain] == [False, True]

    def test_what_torchs_class_lacks(self, rng):
        layer = LSTM(3, 4, peephole=True, proj_size=2, seed=1)
        state = state_of(rnn=layer)
        assert_same(from_torch(state, ("rnn", LSTM, {"peephole": True})).params, layer.params)
        assert_same(from_torch(state, "rnn", peephole=True).params, layer.params)
        with pytest.raises(ValueError, match=r"cannot represent the entries rnn\.weight_ch_l0"):
            from_torch(state, "rnn")

    @pytest.mark.parametrize(
        ("part", "what"),
        [
            (("rnn", GRU), r"the entries rnn\.weight_ih_l0, .* are not those of a GRU"),
            (("rnn", LSTMCell), "are not those of a LSTMCell"),
            (("rnn", Linear), "rnn.weight of a Linear must have 2 axes; it is not there"),
            (("out", Embedding), "unknown 'bias'"),
            (("out", LayerNorm), r"'bias' must have shape \(2, 4\), got \(2,\)"),
            (("out", PReLU), r"out\.weight of a PReLU must have 1 axes; it has shape \(2, 4\)"),
            (("out", LSTM), "the entries out.weight, out.bias are not those of a LSTM"),
            (("out", Chain), "of a state_dict come Linear, Embedding, .*; not Chain"),
            (("out", BatchNorm), "out.running_mean of a BatchNorm must be there, a vector"),
            (("none", Linear), r"no entry begins with 'none\.'"),
            ("odd", r"cannot represent the layer of odd\.weight, odd\.running"),
            ("deep", r"cannot represent the layer of deep\.weight"),
        ],
    )
    def test_what_does_not_fit(self, part, what):
        state = state_of(rnn=LSTM(3, 4), out=Linear(4, 2))
        state |= {
            "odd.weight": np.ones((2, 2)),
            "odd.running": np.ones(2),
            "deep.weight": np.ones((2, 2, 2, 2, 2)),
        }
        with pytest.raises(ValueError, match=what):
            from_torch(state, part)
        with pytest.raises(ValueError, match=what):
            from_torch(state, [Tanh(), part])

    def test_unknown_options_are_pythons_error(self):
        with pytest.raises(TypeError, match="epsilon"):
            from_torch({"weight": np.ones(3), "bias": np.ones(3)}, ("", LayerNorm, {"epsilon": 1}))


class TestAttention:
    def state(self, prefix="a.", **options):
        made = MultiheadAttention(6, 3, seed=1, **options)
        return made, {f"{prefix}{name}": array for name, array in made.params.items()}

    def test_in_a_chain_with_a_prefix(self, rng):
        made, state = self.state("module.net.a.")
        state |= {f"module.net.rnn.{n}": a for n, a in GRU(6, 4, seed=2).params.items()}
        part = ("net.a", MultiheadAttention, {"num_heads": 3, "causal": True})
        chain = from_torch(state, [part, "net.rnn"], batch_first=True, dtype="float64")
        assert kinds(chain) == [MultiheadAttention, GRU]
        assert chain[0].causal
        assert chain[0].batch_first
        assert chain[0].dtype == np.float64
        assert_close(chain[0].params, made.params, 0)

    def test_the_number_of_heads_is_asked_for(self):
        _, state = self.state()
        what = (
            r"the shapes of a\.in_proj_weight, .*, a\.out_proj\.bias do not tell num_heads: put it "
            r"beside the prefix, as \('a', rnncore\.MultiheadAttention, \{'num_heads': 8\}\)"
        )
        for part in ("a", ["a"], ("a", MultiheadAttention), ("a", MultiheadAttention, {})):
            with pytest.raises(ValueError, match=what):
                from_torch(state, part)
        with pytest.raises(ValueError, match="multiple of num_heads, got 6 and 4"):
            from_torch(state, ("a", MultiheadAttention, {"num_heads": 4}))

    @pytest.mark.parametrize(
        ("entries", "options", "what"),
        [
            ({"q_proj_weight": (6, 6), "k_proj_weight": (6, 4)}, {}, "kdim or vdim"),
            ({"bias_k": (1, 1, 6), "bias_v": (1, 1, 6)}, {}, "add_bias_kv=True"),
            ({}, {"add_zero_attn": True}, "add_zero_attn=True"),
            ({}, {"kdim": 5}, "kdim=5"),
        ],
    )
    def test_what_ours_lacks_is_named(self, entries, options, what):
        _, state = self.state()
        state |= {f"a.{name}": np.ones(shape, "f") for name, shape in entries.items()}
        if "q_proj_weight" in entries:
            del state["a.in_proj_weight"]
        options = {"num_heads": 3, "add_zero_attn": False} | options
        with pytest.raises(ValueError, match=rf"torch's MultiheadAttention with {what}, of a\."):
            from_torch(state, [("a", MultiheadAttention, options)])
        if entries:
            with pytest.raises(
                ValueError, match=rf"torch's MultiheadAttention with {what}, of a\."
            ):
                from_torch(state, "a")

    @pytest.mark.parametrize(
        ("prefix", "names", "what"),
        [
            ("net", ["self_attn"], "TransformerEncoderLayer by one prefix: .* 'net.self_attn'"),
            ("net", ["self_attn", "multihead_attn"], "TransformerDecoderLayer by one prefix"),
            ("net", ["layers.1.self_attn"], "EncoderLayer by one prefix: .* 'net.layers.1.self_"),
        ],
    )
    def test_whole_layers_of_transformers_are_named(self, prefix, names, what):
        state = state_of(**{f"{prefix}.linear1": Linear(6, 4)})
        for name in names:
            state |= self.state(f"{prefix}.{name}.")[1]
        with pytest.raises(ValueError, match=what):
            from_torch(state, prefix)
        part = (f"{prefix}.{names[0]}", MultiheadAttention, {"num_heads": 3})
        assert type(from_torch(state, part)) is MultiheadAttention

    def test_what_does_not_fit(self):
        _, state = self.state()
        part = ("a", MultiheadAttention, {"num_heads": 3})
        with pytest.raises(ValueError, match=r"a\.in_proj_weight of a .* must have 2 axes; it has"):
            from_torch(state | {"a.in_proj_weight": np.ones(6, "f")}, part)
        with pytest.raises(ValueError, match=r"in_proj_weight of a .* it is not there"):
            from_torch({"a.out_proj.weight": np.ones((6, 6), "f")}, part)
        with pytest.raises(ValueError, match=r"must have shape \(6, 6\), got \(6, 5\)"):
            from_torch(state | {"a.out_proj.weight": np.ones((6, 5), "f")}, part)
        with pytest.raises(ValueError, match=r"missing 'out_proj\.bias'"):
            from_torch({n: a for n, a in state.items() if n != "a.out_proj.bias"}, part)


def test_prelu_comes_back(rng):
    chain = Chain(Linear(3, 4, seed=1), PReLU(4, 0.5), Linear(4, 2, seed=2), PReLU())
    state = to_torch_state_dict(chain, verify=True, report=lambda check: None)
    names = ("0.weight", "0.bias", "1.weight", "2.weight", "2.bias", "3.weight")
    assert tuple(state) == names
    again = from_torch(state, ["0", ("1", PReLU), "2", "3"])
    x = rng.standard_normal((5, 3)).astype("f")
    assert_close({"y": again(x)}, {"y": chain(x)}, 0)
    assert rnncore.PReLU is PReLU
