"""Gradients of `rnncore.torch` as torch's autograd asks for them."""

from __future__ import annotations

import gc
import resource
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import rnncore.torch as inside
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils.rnn import PackedSequence
from torch.utils.checkpoint import checkpoint

from tests.support.torch_layers import HIDDEN, INPUT, PAIRS

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")


def make(pair: str, dtype: Any = torch.float32, **options: Any) -> Any:
    torch.manual_seed(0)
    return PAIRS[pair][1](INPUT, HIDDEN, dtype=dtype, **PAIRS[pair][2], **options)


def flat(result: Any) -> tuple[Any, ...]:
    y, state = result
    return (y, *state) if isinstance(state, tuple) else (y, state)


@pytest.mark.parametrize("pair", PAIRS)
class TestGradients:
    def test_gradcheck(self, pair: str) -> None:
        layer = make(pair, torch.float64, num_layers=2, bidirectional=True)
        x = torch.randn(3, 2, INPUT, dtype=torch.float64, requires_grad=True)
        names = list(dict(layer.named_parameters()))

        def call(x: Any, *weights: Any) -> Any:
            return flat(functional_call(layer, dict(zip(names, weights, strict=True)), (x,)))

        assert torch.autograd.gradcheck(call, (x, *layer.parameters()), fast_mode=True)

    def test_gradcheck_of_packed_steps(self, pair: str) -> None:
        layer = make(pair, torch.float64, bidirectional=True)
        sizes = torch.tensor([3, 2, 1])
        x = torch.randn(6, INPUT, dtype=torch.float64, requires_grad=True)

        def call(x: Any) -> Any:
            packed, state = layer(PackedSequence(x, sizes))
            return flat((packed.data, state))

        assert torch.autograd.gradcheck(call, (x,), fast_mode=True)

    def test_second_derivatives_are_refused(self, pair: str) -> None:
        layer, x = make(pair), torch.randn(3, 2, INPUT, requires_grad=True)
        (dx,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivatives"):
            dx.sum().backward()

    def test_only_those_that_are_asked_for(self, pair: str) -> None:
        layer, x = make(pair), torch.randn(3, 2, INPUT)
        layer.weight_ih_l0.requires_grad_(False)
        layer(x)[0].sum().backward()
        assert layer.weight_ih_l0.grad is None
        assert layer.weight_hh_l0.grad is not None
        before = layer.weight_hh_l0.grad.clone()
        layer.requires_grad_(False)
        x.requires_grad_()
        layer(x)[0].sum().backward()
        assert x.grad is not None
        assert torch.equal(layer.weight_hh_l0.grad, before)

    def test_nothing_is_recorded_without_need(self, pair: str) -> None:
        layer, x = make(pair), torch.randn(3, 2, INPUT, requires_grad=True)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                assert all(part.grad_fn is None for part in flat(layer(x)))
        layer.requires_grad_(False)
        assert layer(x.detach())[0].grad_fn is None

    def test_a_kept_graph_gives_the_same_bits_again(self, pair: str) -> None:
        layer, x = make(pair, num_layers=2), torch.randn(3, 2, INPUT, requires_grad=True)
        y, wanted = layer(x)[0].sum(), [x, *layer.parameters()]
        first = torch.autograd.grad(y, wanted, retain_graph=True)
        for got, want in zip(torch.autograd.grad(y, wanted), first, strict=True):
            assert torch.equal(got, want)

    def test_accumulation_and_hooks(self, pair: str) -> None:
        layer, x = make(pair), torch.randn(3, 2, INPUT)
        layer(x)[0].sum().backward()
        once = [p.grad.clone() for p in layer.parameters()]
        layer.weight_hh_l0.register_hook(lambda g: g * 3)
        layer(x)[0].sum().backward()
        for (name, p), want in zip(layer.named_parameters(), once, strict=True):
            torch.testing.assert_close(p.grad, want * (4 if name == "weight_hh_l0" else 2))

    def test_what_is_changed_in_place_is_refused(self, pair: str) -> None:
        layer, x = make(pair), torch.randn(3, 2, INPUT)
        for change in (
            lambda y: x.mul_(2),
            lambda y: y.mul_(2),
            lambda y: layer.weight_hh_l0.detach().mul_(2),
        ):
            y, _ = layer(x)
            loss = y.sum()
            change(y.detach())
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()

    def test_checkpoint_and_anomaly_mode(self, pair: str) -> None:
        layer, x = make(pair), torch.randn(3, 2, INPUT, requires_grad=True)
        (want,) = torch.autograd.grad(layer(x)[0].sum(), x)
        with (
            pytest.warns(UserWarning, match="Anomaly Detection"),
            torch.autograd.detect_anomaly(check_nan=True),
        ):
            (got,) = torch.autograd.grad(layer(x)[0].sum(), x)
        assert torch.equal(got, want)
        for reentrant in (False, True):
            y = checkpoint(lambda x: layer(x)[0], x, use_reentrant=reentrant)
            x.grad = None
            y.sum().backward()
            assert torch.equal(x.grad, want)

    def test_func_grad(self, pair: str) -> None:
        layer, x = make(pair), torch.randn(3, 2, INPUT)
        params = dict(layer.named_parameters())

        def loss(params: Any) -> Any:
            return functional_call(layer, params, (x,))[0].square().sum()

        got = grad(loss)(params)
        want = torch.autograd.grad(layer(x)[0].square().sum(), list(params.values()))
        for name, gradient in zip(params, want, strict=True):
            torch.testing.assert_close(got[name], gradient)

    @pytest.mark.filterwarnings("ignore:.*jit.script:DeprecationWarning")  # torch's own use
    def test_forward_mode_is_refused(self, pair: str) -> None:
        layer, x = make(pair).requires_grad_(False), torch.randn(3, 2, INPUT)
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            torch.func.jvp(lambda x: layer(x)[0], (x,), (x,))
        with (
            torch.autograd.forward_ad.dual_level(),
            pytest.raises((NotImplementedError, RuntimeError), match="forward mode AD"),
        ):
            layer(torch.autograd.forward_ad.make_dual(x, x))

    def test_vmap_over_models(self, pair: str) -> None:
        layers = [make(pair) for _ in range(3)]
        for layer in layers:
            layer.reset_parameters()
        x = torch.randn(3, 2, INPUT)
        params, buffers = stack_module_state(layers)

        def call(params: Any, buffers: Any) -> Any:
            return functional_call(layers[0], (params, buffers), (x,))[0]

        together = vmap(call)(params, buffers)
        for got, layer in zip(together, layers, strict=True):
            assert torch.equal(got, layer(x)[0])
        gradients = vmap(grad(lambda p, b: call(p, b).square().sum()))(params, buffers)
        for n, layer in enumerate(layers):
            layer(x)[0].square().sum().backward()
            for name, p in layer.named_parameters():
                torch.testing.assert_close(gradients[name][n], p.grad)


def test_memory_stays_the_same() -> None:
    """No step leaves an object behind, nor an array: the smallest has 2 KiB."""
    layer = inside.GRU(16, 64)
    optimiser = torch.optim.SGD(layer.parameters(), 1e-3)
    x = torch.randn(5, 8, 16)

    def steps(count: int) -> tuple[int, int]:
        for _ in range(count):
            optimiser.zero_grad()
            layer(x)[0].square().mean().backward()
            optimiser.step()
        gc.collect()
        return sys.getallocatedblocks(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = steps(200)
    grown = []
    for _ in range(3):  # what others in this process leave meanwhile does not come each time
        after = steps(1000)
        grown.append([more - less for more, less in zip(after, before, strict=True)])
        before = after
    blocks, kibibytes = map(min, zip(*grown, strict=True))
    assert blocks <= 200
    assert kibibytes <= 1024
