"""PyTorch's weights: read by name and shape, against PyTorch's own outputs; and written."""

from pathlib import Path

import numpy as np
import pytest
from rnncore import (
    GRU,
    LSTM,
    MGU,
    RNN,
    BatchNorm,
    Bidirectional,
    Chain,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    MultiheadAttention,
    PReLU,
    ReLU,
    Residual,
    Tanh,
    convert,
)
from rnncore.arrays import save_arrays
from rnncore.convert import from_torch, to_torch_state_dict

from tests.support.compare import assert_close, assert_same

FILE = Path(__file__).parents[1] / "golden" / "convert_torch.npz"
OPTIONS = {
    "rnn_relu_no_bias": {"nonlinearity": "relu"},
    "lstm_batch_first": {"batch_first": True},
    "tagger": {"prefix": ["embed", "rnn", "norm", Tanh(), "out"]},
    "frontend": {
        "prefix": [
            ("depthwise", Conv1d, {"groups": 4, "padding": 1}),
            ("norm", BatchNorm, {"eps": 1e-3}),
            ("slopes", PReLU),
            ("strided", Conv1d, {"stride": 2, "dilation": 2}),
            ReLU(),
            ("up", ConvTranspose1d, {"stride": 2, "padding": 1, "output_padding": 1}),
            *("plain", "rnn", "out"),
        ]
    },
    "attention": {"prefix": ("", MultiheadAttention, {"num_heads": 3})},
    "attention_no_bias": {
        "prefix": ("", MultiheadAttention, {"num_heads": 1}),
        "batch_first": True,
    },
    "attention_tagger": {
        "prefix": [
            "rnn",
            ("attention", MultiheadAttention, {"num_heads": 4, "causal": True}),
            "out",
        ],
        "batch_first": True,
    },
    "images": {
        "prefix": [
            ("first", Conv2d, {"stride": (2, 1), "padding": (1, 0)}),
            "norm",
            Tanh(),
            ("second", Conv2d, {"padding": "same", "padding_mode": "replicate", "groups": 2}),
        ]
    },
}
CASES = (
    *("rnn", "rnn_relu_no_bias", "lstm", "lstm_deep", "lstm_batch_first", "lstm_projected"),
    *("lstm_one_unit", "gru", "gru_deep", "rnn_cell", "lstm_cell", "gru_cell", "tagger"),
    *("weight_norm", "weight_norm_old", "frontend", "images"),
    *("attention", "attention_no_bias", "attention_tagger"),
)


@pytest.fixture(scope="module")
def golden():
    with np.load(FILE) as file:
        return dict(file)


def case_of(golden, case):
    start = f"{case}/state/"
    state = {n.removeprefix(start): a for n, a in golden.items() if n.startswith(start)}
    return state, golden[f"{case}/x"], golden[f"{case}/y"]


def outputs(module, x):
    y = module(x)
    return y[0] if isinstance(y, tuple) else y


def test_every_golden_case_is_tested(golden):
    assert {name.split("/")[0] for name in golden} == {*CASES, "encoder", "torch_version"}


@pytest.mark.parametrize("case", CASES)
class TestGolden:
    def test_reads_what_torch_computes(self, golden, case):
        state, x, y = case_of(golden, case)
        module = from_torch(state, **OPTIONS.get(case, {}))
        assert_close({"y": outputs(module, x)}, {"y": y}, 2e-5)

    def test_checks_itself(self, golden, case):
        state, x, y = case_of(golden, case)
        found = []
        for verify in (True, x, (x, y)):
            from_torch(state, verify=verify, report=found.append, **OPTIONS.get(case, {}))
        references = ["the NumPy reference"] * 2 + ["the outputs given"]
        assert [check.reference for check in found] == references
        assert all(0 <= check.difference <= 2e-5 * check.largest for check in found)

    def test_comes_back_as_it_was(self, golden, case):
        if case.startswith("weight_norm"):
            return  # the weights come back, of which torch computes others
        state, _, _ = case_of(golden, case)
        options = OPTIONS.get(case, {})
        back = to_torch_state_dict(from_torch(state, **options))
        if isinstance(options.get("prefix"), list):
            names = [part[0] if isinstance(part, tuple) else part for part in options["prefix"]]
            back = {names[int(name[0])] + name[1:]: array for name, array in back.items()}
        torchs = ("num_batches_tracked", "original0", "original1")
        left = {name: array for name, array in state.items() if not name.endswith(torchs)}
        assert_same({name: back[name] for name in left}, left)
        assert back.keys() - left.keys() == ({"strided.weight"} if case == "frontend" else set())


def test_an_encoder_layer_of_its_parts(golden):
    state, x, y = case_of(golden, "encoder")
    heads = ("self_attn", MultiheadAttention, {"num_heads": 2})
    attention = Residual(from_torch(state, heads))
    dense = Residual(from_torch(state, ["linear1", ReLU(), "linear2"]))
    layer = from_torch(state, [attention, "norm1", dense, "norm2"])
    assert_close({"y": layer(x)}, {"y": y}, 2e-5)


def test_a_prefix_picks_one_of_several(golden, rng):
    state, x, y = case_of(golden, "lstm")
    whole = {f"encoder.lstm.{name}": array for name, array in state.items()}
    whole |= {f"decoder.{name}": array for name, array in case_of(golden, "gru")[0].items()}
    lstm = from_torch(whole, "encoder.lstm")
    assert_close({"y": lstm(x)[0]}, {"y": y}, 2e-5)
    assert type(from_torch(whole, "decoder")) is GRU
    with pytest.raises(ValueError, match=r"recurrent layers are 'encoder.lstm', 'decoder'"):
        from_torch(whole)
    with pytest.raises(ValueError, match=r"no entry begins with 'encode\.'"):
        from_torch(whole, "encode")


def test_a_file_and_another_dtype(golden, tmp_path):
    state, x, y = case_of(golden, "lstm_projected")
    save_arrays(tmp_path / "m.safetensors", {f"net.{n}": a for n, a in state.items()})
    module = from_torch(tmp_path / "m.safetensors", dtype="float64")
    assert module.dtype == np.float64
    assert module.proj_size == 2
    assert_close({"y": module(x)[0]}, {"y": y}, 2e-5)
    half = from_torch({n: a.astype(np.float16) for n, a in state.items()})
    assert half.dtype == np.float32


def test_what_does_not_fit_is_named(golden):
    state, x, _ = case_of(golden, "lstm")
    with pytest.raises(ValueError, match=r"other entries are 'fc.weight'"):
        from_torch(state | {"fc.weight": np.zeros((2, 5), np.float32)})
    with pytest.raises(ValueError, match=r"20 rows for 5 hidden units: no gru"):
        from_torch(state, cell="gru")
    with pytest.raises(ValueError, match="cell must be one of rnn, lstm, gru, got 'mgu'"):
        from_torch(state, cell="mgu")
    with pytest.raises(ValueError, match="missing 'bias_hh_l0'"):
        from_torch({n: a for n, a in state.items() if n != "bias_hh_l0"})
    with pytest.raises(ValueError, match="weight_hh_l0 must be there"):
        from_torch({n: a for n, a in state.items() if n != "weight_hh_l0"})
    with pytest.raises(TypeError, match="'weight_ih_l0' must be an array of floats, got int64"):
        from_torch(state | {"weight_ih_l0": np.zeros((20, 3), np.int64)})
    with pytest.raises(TypeError, match=r"source must be a state_dict, .* got LSTM"):
        from_torch(LSTM(3, 4))
    with pytest.raises(TypeError, match=r"prefix must hold prefixes, .*, got 5"):
        from_torch(state, [5])
    with pytest.raises(ValueError, match=r"cannot represent the entries net\.conv"):
        from_torch({f"net.{n}": a for n, a in state.items()} | {"net.conv": x}, "net")
    with pytest.raises(ValueError, match="does not agree"):
        from_torch(state, verify=(x, np.zeros((6, 2, 5))), report=lambda check: None)
    far = {"weight_ih_l999999999": state["weight_ih_l0"]}  # no time is spent on those in between
    with pytest.raises(ValueError, match="unknown 'weight_ih_l999999999'"):
        from_torch(state | far)


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (LSTM(3, 4, peephole=True), "LSTM with peephole=True"),
        (LSTM(3, 4, coupled=True), "LSTM with coupled=True"),
        (LSTM(3, 4, forget_gate=False), "LSTM with forget_gate=False"),
        (LSTM(3, 4, layer_norm="gate"), "LSTM with layer_norm='gate'"),
        (LSTM(3, 4, cell_clip=1.0), "LSTM with cell_clip=1.0"),
        (LSTM(3, 4, gate_clip=1.0), "LSTM with gate_clip=1.0"),
        (LSTM(3, 4, transition_depth=2), "LSTM with transition_depth=2"),
        (LSTM(3, 4, zoneout=0.1), "LSTM with zoneout="),
        (GRU(3, 4, reset_after=False), "GRU with reset_after=False"),
        (GRU(3, 4, activations=("sigmoid", "relu")), "GRU with activations="),
        (RNN(3, 4, nonlinearity="softsign"), "RNN with "),
        (MGU(3, 4), "MGU"),
        (Bidirectional(LSTM(3, 4), GRU(3, 4)), "a Bidirectional but of two equal single layers"),
        (Bidirectional(GRU(3, 4), GRU(3, 4), "sum"), "a Bidirectional but of two"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_what_torch_lacks_is_refused_by_name(module, what):
    with pytest.raises(ValueError, match=rf"torch\.nn cannot represent {what}"):
        to_torch_state_dict(module)


def test_compositions_are_named_as_torch_names_them(rng):
    parts = [GRU(4, 3, seed=seed) for seed in (1, 2)]
    chain = Chain(Embedding(5, 4), Dropout(0.5), Bidirectional(*parts), LayerNorm(6), Linear(6, 2))
    state = to_torch_state_dict(chain, "model", verify=True, report=lambda check: None)
    both = from_torch(state, "model.2")
    assert both.bidirectional
    x = rng.standard_normal((5, 2, 4)).astype(np.float32)
    assert_same({"y": both(x)[0]}, {"y": chain[2](x)[0]})
    names = ["model.0", "model.2", "model.3", "model.4"]
    again = from_torch(state, names)
    ids = rng.integers(5, size=(4, 2))
    assert_same({"y": again(ids)[0]}, {"y": chain(ids)[0]})
    state["model.4.weight"][...] = 0
    assert chain[4].params["weight"].any()


def test_the_report_is_a_sentence(golden, capsys):
    from_torch(case_of(golden, "gru")[0], verify=True)
    said = capsys.readouterr().out
    assert said.startswith("largest difference ")
    assert said.endswith("compared with the NumPy reference\n")
    assert str(convert.Check("x", 0.5, 2)).startswith("largest difference 0.5, the largest output")
