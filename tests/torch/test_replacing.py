"""`replace` and `restore`: the same parameters, names and losses."""

from __future__ import annotations

import copy
import io
import logging
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import rnncore.torch as inside


class Tagger(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 6)
        self.encoder = torch.nn.ModuleList(
            [
                torch.nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True),
                torch.nn.GRU(16, 8, batch_first=True),
                torch.nn.RNN(8, 8, batch_first=True, nonlinearity="relu"),
            ]
        )
        self.output = torch.nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        y = self.embedding(x)
        for layer in self.encoder:
            y, _ = layer(y)
        return self.output(y)


class Own(torch.nn.LSTM):
    pass


def data(seed: int = 0) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 11, (4, 9), generator=generator)
    return x, x % 5


def train(model: Any, optimiser: Any, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        x, want = data(step)
        loss = torch.nn.functional.cross_entropy(model(x).transpose(1, 2), want)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_training_is_the_same_before_and_after() -> None:
    torch.manual_seed(0)
    model = Tagger()
    again = copy.deepcopy(model)
    optimisers = [torch.optim.Adam(m.parameters(), 1e-2) for m in (model, again)]
    params = list(again.parameters())
    assert inside.replace(again) is again
    assert all(a is b for a, b in zip(params, again.parameters(), strict=True))
    want, got = (train(m, o, 200) for m, o in zip((model, again), optimisers, strict=True))
    assert want[-1] < want[0] / 2
    assert max(abs(a - b) for a, b in zip(want, got, strict=True)) <= 1e-4


def test_names_what_it_replaces_and_leaves(caplog: Any) -> None:
    model = Tagger()
    model.own = Own(3, 4)
    model.half = torch.nn.GRU(3, 4).bfloat16()
    with caplog.at_level(logging.INFO, "rnncore.torch"):
        inside.replace(model)
    found = {entry.name: entry for entry in inside.survey(model)}
    assert [entry.replaced for entry in found.values()] == [True] * 3 + [False] * 2
    assert found["encoder.0"].kind == "LSTM"
    assert "Own derives from torch's class" in found["own"].reason
    assert found["half"].reason == "its weights are torch.bfloat16"
    assert "encoder.1: replaced by rnncore" in caplog.text
    assert "nothing is replaced" not in caplog.text
    assert "half: left to torch, because its weights are torch.bfloat16" in caplog.text
    inside.replace(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LSTMCell(2, 2)))
    assert "the model has no nn.LSTM, nn.GRU or nn.RNN: nothing is replaced" in caplog.text
    for name in ("encoder.0", "encoder.1", "encoder.2"):
        assert isinstance(model.get_submodule(name), torch.nn.RNNBase)
        assert type(model.get_submodule(name)).__module__ == "rnncore.torch.layers"


def test_restore_undoes_it() -> None:
    torch.manual_seed(0)
    model = Tagger()
    x, want = data()[0], None
    want, kinds = model(x), [type(module) for module in model.modules()]
    keys = [sorted(vars(module)) for module in model.modules()]
    inside.replace(model)(x).sum().backward()
    assert inside.restore(model) is model
    assert [type(module) for module in model.modules()] == kinds
    assert [sorted(vars(module)) for module in model.modules()] == keys
    assert torch.equal(model(x), want)


def test_a_model_that_is_a_layer() -> None:
    layer = torch.nn.GRU(3, 4)
    inside.replace(layer)
    assert type(layer) is inside.GRU
    assert inside.survey(layer) == [inside.replacing.Found("", "GRU", True)]
    inside.restore(layer)
    assert type(layer) is torch.nn.GRU


def test_state_dicts_and_whole_models_go_both_ways() -> None:
    torch.manual_seed(0)
    first, second, x = Tagger(), inside.replace(Tagger()), data()[0]
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(x), first(x))
    torch.manual_seed(1)
    third = Tagger()
    third.load_state_dict(second.state_dict())
    torch.testing.assert_close(third(x), first(x))
    buffer = io.BytesIO()
    torch.save(second, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(loaded(x), second(x))
    assert torch.equal(copy.deepcopy(second)(x), second(x))


def test_moved_layers_compute_on() -> None:
    layer, x = inside.replace(torch.nn.LSTM(3, 4)), torch.randn(5, 2, 3)
    layer(x)
    layer.double()
    assert layer(x.double())[0].dtype == torch.float64
    layer.float()
    assert layer(x)[0].dtype == torch.float32


@pytest.mark.parametrize("function", [inside.replace, inside.restore, inside.survey])
def test_refuses_what_is_no_module(function: Any) -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got int"):
        function(3)


def test_refuses_another_fallback() -> None:
    with pytest.raises(ValueError, match="fallback must be 'warn' or 'raise', got 'quiet'"):
        inside.replace(Tagger(), "quiet")
    model = inside.replace(torch.nn.GRU(3, 4), "raise")
    with pytest.raises(TypeError, match="GRU: rnncore computes dense float32 and float64 tensors"):
        model(torch.zeros(2, 1, 3).half())
