"""`rnncore.torch` within torch.compile and torch.export."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import rnncore.torch as inside

# Of torch's compiler.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

MODELS = {
    "LSTM": lambda: inside.LSTM(5, 7, 2, bidirectional=True, batch_first=True),
    "LSTM, projected": lambda: inside.LSTM(5, 7, proj_size=3),
    "GRU": lambda: inside.GRU(5, 7, bias=False),
    "RNN": lambda: inside.RNN(5, 7),
}


class Model(torch.nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.output = layer, torch.nn.LazyLinear(3)

    def forward(self, x: Any) -> Any:
        y, state = self.layer(torch.relu(x))
        h = state[0] if isinstance(state, tuple) else state
        return self.output(y), h * 2


def gradients(model: Any, call: Any, x: Any) -> list[Any]:
    model.zero_grad()
    y, h = call(x)
    (y.square().sum() + h.sum()).backward()
    return [y.detach(), h.detach(), x.grad, *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_graph_gives_the_same_numbers(name: str) -> None:
    torch.manual_seed(0)
    model = Model(MODELS[name]())
    assert isinstance(model.layer, getattr(torch.nn, name.split(",")[0]))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for steps in (4, 6):
        x = torch.randn(steps, 3, 5)
        model(x)
        want, got = (
            gradients(model, call, x.clone().requires_grad_()) for call in (model, compiled)
        )
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


def test_cells() -> None:
    cell, x = inside.LSTMCell(5, 7), torch.randn(3, 5)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(x), cell(x), strict=True):
        torch.testing.assert_close(a, b)


def test_a_trace_holds_no_constants() -> None:
    for layer, shape in ((inside.GRU(5, 7), (4, 3, 5)), (inside.GRUCell(5, 7), (3, 5))):
        traced = torch.jit.trace(layer, (torch.randn(shape),))
        x = torch.randn(shape)
        torch.testing.assert_close(traced(x), layer(x))


def test_an_exported_model_takes_any_number_of_steps() -> None:
    model = Model(MODELS["LSTM"]())
    x = torch.randn(3, 6, 5)
    model(x)
    steps = torch.export.Dim("steps", min=2, max=1000)
    program = torch.export.export(model, (x,), dynamic_shapes=({1: steps},))
    longer = torch.randn(3, 11, 5)
    for a, b in zip(program.module()(longer), model(longer), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("packed", [False, True])
def test_the_operator_is_as_torch_wants_it(packed: bool) -> None:
    from rnncore.torch.kernels import Kind

    layer = inside.LSTM(5, 7, bidirectional=True)
    sizes = torch.tensor([3, 2, 1]) if packed else None
    x = torch.randn(6, 5) if packed else torch.randn(4, 3, 5)
    state = torch.randn(2, 3, 7)
    given = (sizes, x.requires_grad_(), state, state + 1, list(layer.parameters()))
    torch.library.opcheck(torch.ops.rnncore.layer, (*Kind("LSTM", 7, directions=2), *given))
