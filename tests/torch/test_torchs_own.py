"""torch's own inputs and references for these classes (`common_modules`), ours in their place."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import rnncore.torch as inside

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    common = pytest.importorskip(
        "torch.testing._internal.common_modules", reason="torch's test helpers do not load"
    )

from tests.support.torch_layers import close

# torch's own, of its layers.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")

PLACES = {
    getattr(torch.nn, name): getattr(inside, name)
    for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
}
INFOS = {
    f"{info.module_cls.__name__}-{'training' if training else 'eval'}": (info, training)
    for info in common.module_db
    if info.module_cls in PLACES
    for training in (True, False)
}


def inputs(name: str, dtype: Any, **options: Any) -> list[Any]:
    info, training = INFOS[name]
    torch.manual_seed(0)
    return info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training, **options
    )


def made(name: str, given: Any, dtype: Any) -> tuple[Any, Any]:
    """torch's module and ours of the same weights."""
    info, training = INFOS[name]
    args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
    pair = [kind(*args, **kwargs) for kind in (info.module_cls, PLACES[info.module_cls])]
    for module in pair:
        module.to("cpu", dtype).train(training)
    pair[1].load_state_dict(pair[0].state_dict())
    return pair[0], pair[1]


def tensors(value: Any) -> list[Any]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return [value.data]
    return [t for part in value for t in tensors(part)] if isinstance(value, (tuple, list)) else []


def test_all_six_are_there() -> None:
    assert {info.module_cls for info, _ in INFOS.values()} == set(PLACES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", INFOS)
class TestModules:
    def test_forward(self, name: str, dtype: Any) -> None:
        for given in inputs(name, dtype):
            theirs, ours = made(name, given, dtype)
            args, kwargs = given.forward_input.args, given.forward_input.kwargs
            got, want = tensors(ours(*args, **kwargs)), tensors(theirs(*args, **kwargs))
            torch.testing.assert_close(got, want)
            if given.reference_fn:
                reference = given.reference_fn(ours, *args, **kwargs)
                torch.testing.assert_close(got, tensors(reference))

    def test_gradients(self, name: str, dtype: Any) -> None:
        for given in inputs(name, dtype):
            theirs, ours = made(name, given, dtype)
            args, kwargs = given.forward_input.args, given.forward_input.kwargs
            leaves = [t for t in tensors([*args, *kwargs.values()]) if t.requires_grad]
            found = []
            for module in (ours, theirs):
                loss = sum(t.square().sum() for t in tensors(module(*args, **kwargs)))
                found.append(torch.autograd.grad(loss, [*leaves, *module.parameters()]))
            close(*found, dtype)

    def test_copies_repr_and_state(self, name: str, dtype: Any) -> None:
        for given in inputs(name, dtype):
            theirs, ours = made(name, given, dtype)
            args, kwargs = given.forward_input.args, given.forward_input.kwargs
            want = tensors(ours(*args, **kwargs))
            for module in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
                assert repr(module) == repr(theirs)
                torch.testing.assert_close(tensors(module(*args, **kwargs)), want)

    def test_changes_no_input(self, name: str, dtype: Any) -> None:
        for given in inputs(name, dtype):
            _, ours = made(name, given, dtype)
            args, kwargs = given.forward_input.args, given.forward_input.kwargs
            before = [t.detach().clone() for t in tensors([*args, *kwargs.values()])]
            sum(t.sum() for t in tensors(ours(*args, **kwargs))).backward()
            for was, now in zip(before, tensors([*args, *kwargs.values()]), strict=True):
                assert torch.equal(was, now)

    def test_moves_and_casts(self, name: str, dtype: Any) -> None:
        for given in inputs(name, dtype):
            _, ours = made(name, given, dtype)
            for other in (torch.float64, torch.float32):
                ours.to(other)
                assert {p.dtype for p in ours.parameters()} == {other}
