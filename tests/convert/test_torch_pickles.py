"""Files that torch wrote, and tensors: with torch itself."""

import pickle
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch reads its own files")

from rnncore.convert import from_torch
from torch import nn

from tests.support.compare import assert_same


@pytest.fixture
def lstm():
    torch.manual_seed(1)
    return nn.LSTM(3, 4)


def params_of(lstm):
    return {name: tensor.numpy() for name, tensor in lstm.state_dict().items()}


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_state_dict_of_torch(lstm, tmp_path, suffix, packed):
    path = tmp_path / f"m.{suffix}"
    torch.save(lstm.state_dict(), path, _use_new_zipfile_serialization=packed)
    assert_same(from_torch(path).params, params_of(lstm))


def test_one_in_a_checkpoint(lstm, tmp_path):
    optimiser = torch.optim.Adam(lstm.parameters())
    state = {f"module.rnn.{name}": tensor for name, tensor in lstm.state_dict().items()}
    whole = {"epoch": 3, "model": state, "optimizer": optimiser.state_dict(), "note": "best"}
    torch.save(whole, tmp_path / "m.pt")
    assert_same(from_torch(tmp_path / "m.pt", "model.module.rnn").params, params_of(lstm))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_widened_exactly(lstm, tmp_path, dtype):
    half = lstm.to(dtype)
    torch.save(half.state_dict(), tmp_path / "m.pt")
    want = {name: tensor.float().numpy() for name, tensor in half.state_dict().items()}
    assert_same(from_torch(tmp_path / "m.pt").params, want)
    assert_same(from_torch(dict(half.named_parameters())).params, want)  # which require gradients


class Evil:
    def __reduce__(self):
        return print, ("code has run",)


def test_code_is_not_run(lstm, tmp_path, capsys):
    path = tmp_path / "m.pt"
    for packed in (True, False):
        torch.save({"a": Evil()}, path, _use_new_zipfile_serialization=packed)
        with pytest.raises(ValueError, match=r"m\.pt cannot be read as a state_dict: .*eights"):
            from_torch(path)
    path.write_bytes(pickle.dumps(Evil(), 2))
    with pytest.raises(ValueError, match=r"m\.pt cannot be read as a state_dict"):
        from_torch(path)
    torch.save(lstm, path)
    with pytest.raises(ValueError, match=r"m\.pt cannot be read as a state_dict"):
        from_torch(path)
    assert capsys.readouterr().out == ""


def test_what_is_no_state_dict(lstm, tmp_path):
    path = tmp_path / "m.pt"
    torch.save([torch.ones(2)], path)
    with pytest.raises(ValueError, match="it holds a list, and no arrays by their names"):
        from_torch(path)
    torch.save(lstm.state_dict(), path)
    whole = path.read_bytes()
    for data in (b"", b"none", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"m\.pt cannot be read as a state_dict") as caught:
            from_torch(path)
        assert "\n" not in str(caught.value)


def test_an_archive_of_code(lstm, tmp_path):
    path = tmp_path / "m.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(lstm).save(path)
        with pytest.raises(ValueError, match=r"m\.pt .*it is a TorchScript archive"):
            from_torch(path)
        assert_same(from_torch(torch.jit.load(path).state_dict()).params, params_of(lstm))


def test_other_tensors_are_refused():
    with pytest.raises(TypeError, match="'weight' must be an array, got Tensor"):
        from_torch({"weight": torch.eye(2).to_sparse()}, "")
