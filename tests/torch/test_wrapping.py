"""Modules wrapped for PyTorch: its gradients, its optimisers, its copies and its files."""

import copy
import io
import pickle
import threading
import weakref

import numpy as np
import pytest
import rnncore
from rnncore import losses
from rnncore.module import Module, once
from rnncore.training.checkpoint import generator_states

from tests.support.gradients import leaves
from tests.support.models import MODELS

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from rnncore.torch import wrap

from tests.support.wrapped import (
    CALLED,
    CASES,
    F64,
    LENGTHS,
    REFUSED,
    H,
    X,
    as_tensors,
    pulled,
    random,
    same,
    tensors,
)


class TestGradients:
    @pytest.mark.parametrize("case", CASES)
    def test_are_those_of_differences(self, case):
        module, *args = CASES[case]
        wrapped = wrap(module)
        inputs = [*tensors(args), *wrapped.parameters()]

        def outputs(*_):
            found = tensors(wrapped(*args))
            return tuple(y for y in found if y.requires_grad)

        differentiable = [x for x in inputs if x.requires_grad]
        assert torch.autograd.gradcheck(outputs, differentiable)
        assert all(not grad.any() for grad in getattr(module, "grads", {}).values())


@pytest.mark.parametrize(("model", "args"), CALLED)
class TestEveryClass:
    def test_has_the_bits_of_its_vjp(self, model, args):
        module, wrapped = copy.deepcopy(model), wrap(copy.deepcopy(model))
        given = as_tensors(args)
        outputs, pullback = module.vjp(*args)
        found = tensors(wrapped(*given))
        same(found, leaves(outputs))

        inputs = [*(t for t in tensors(given) if t.requires_grad), *wrapped.parameters()]
        found = [y for y in found if y.requires_grad]
        grads = torch.autograd.grad(found, inputs, found, allow_unused=True) if inputs else ()
        grads = [grad for grad in grads if grad is not None]
        own = [module.grads[name] for name, _ in wrapped.named_parameters()]
        dx = leaves(pulled(module, pullback, outputs))  # and of a state that was not given
        same(grads, [*dx[: len(grads) - len(own)], *own])

    def test_in_eval_mode_has_those_of_a_call(self, model, args):
        wrapped = wrap(copy.deepcopy(model)).eval()
        before = generator_states(wrapped.module)
        expected = leaves(model(*args))
        same(tensors(wrapped(*as_tensors(args))), expected)
        wrapped.train()
        with torch.no_grad():
            found = tensors(wrapped(*as_tensors(args)))
        assert not any(y.requires_grad for y in found)
        same(found, expected)
        assert generator_states(wrapped.module) == before

    def test_has_its_parameters_names(self, model, args):
        named = wrap(model)
        assert dict(named.named_parameters(remove_duplicate=False)).keys() == model.params.keys()
        assert named.state_dict().keys() == model.stored.keys()


class TestBuffers:
    """Running statistics are the module's, both ways, and move in training alone."""

    def trained(self):
        wrapped = wrap(rnncore.Chain(rnncore.BatchNorm(3, momentum=0.5, dtype="float64")))
        wrapped(X)
        return wrapped

    def check(self, wrapped):
        mean = wrapped.module.buffers["0.running_mean"]
        assert mean.any()
        before = wrapped.eval()(X)
        mean += 1
        assert (wrapped.state_dict()["0.running_mean"].numpy() == mean).all()
        assert not torch.equal(wrapped(X), before)

    def test_are_shared(self):
        wrapped = self.trained()
        want = X.detach().numpy().reshape(-1, 3).mean(axis=0) / 2
        np.testing.assert_allclose(wrapped.module.buffers["0.running_mean"], want)
        self.check(wrapped)

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    def test_are_copied(self, again):
        self.check(again(self.trained()))

    def test_are_loaded(self):
        trained = self.trained()
        wrapped = wrap(rnncore.Chain(rnncore.BatchNorm(3, dtype="float64")))
        wrapped.load_state_dict(trained.state_dict())
        assert torch.equal(wrapped.eval()(X), trained.eval()(X))
        self.check(wrapped)

    def test_move_once_for_each_call(self):
        wrapped = self.trained()
        y = wrapped(X).square().sum()
        kept = wrapped.module.state_dict()
        first, second = (torch.autograd.grad(y, [X], retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)
        for name, array in wrapped.module.buffers.items():
            np.testing.assert_array_equal(array, kept[name])

    def test_have_no_gradient_in_eval_mode(self):
        wrapped = self.trained().eval()
        with pytest.raises(RuntimeError, match="uses running statistics: it has no gradient in ev"):
            wrapped(X).sum().backward()

    def test_elsewhere_are_refused(self):
        wrapped = self.trained()
        part = wrapped._modules["0"]
        part.running_var = part.running_var.clone()
        with pytest.raises(RuntimeError, match=r"0\.running_var does not share its memory"):
            wrapped(X)


class TestParameters:
    def wrapped(self):
        forward, backward = rnncore.GRU(3, 4, **F64), rnncore.GRU(3, 4, **F64)
        twice = rnncore.Linear(8, 8, **F64)
        head = rnncore.Chain(twice, rnncore.Tanh(), twice)
        return wrap(rnncore.Chain(rnncore.Bidirectional(forward, backward), head))

    def check(self, wrapped):
        """The parameters are the module's, both ways."""
        named = dict(wrapped.named_parameters(remove_duplicate=False))
        assert named.keys() == wrapped.module.params.keys()
        assert named["1.0.weight"] is named["1.2.weight"]
        for name, array in wrapped.module.params.items():
            with torch.no_grad():
                named[name].fill_(0.5)
            assert (array == 0.5).all()
            array[...] = 0.25
            assert (named[name] == 0.25).all()
        y, _ = wrapped(X)
        np.testing.assert_array_equal(y.detach(), wrapped.module(X.detach().numpy())[0])

    def test_are_the_modules(self):
        self.check(self.wrapped())

    def test_are_those_of_the_copy_in_a_copy(self):
        wrapped = self.wrapped()
        wrapped.get_parameter("1.0.bias").requires_grad_(False)
        head = torch.nn.Linear(8, 8, dtype=torch.float64)
        head.weight = wrapped.get_parameter("1.0.weight")
        file, expected = io.BytesIO(), wrapped(X)[0]
        both = torch.nn.ModuleList([wrapped, head])
        torch.save(both, file)
        file.seek(0)
        for made in (
            copy.deepcopy(both),
            pickle.loads(pickle.dumps(both)),
            torch.load(file, weights_only=False),
        ):
            copied, head = made
            assert head.weight is copied.get_parameter("1.2.weight")
            assert not copied.get_parameter("1.0.bias").requires_grad
            assert torch.equal(copied(X)[0], expected)
            self.check(copied)
        assert torch.equal(wrapped(X)[0], expected)

    def test_load_state_dict_reaches_the_module(self):
        wrapped, other = self.wrapped(), self.wrapped()
        for param in other.parameters():
            torch.nn.init.normal_(param)
        wrapped.load_state_dict(other.state_dict())
        for name, array in wrapped.module.params.items():
            np.testing.assert_array_equal(array, other.module.params[name])
        assert torch.equal(wrapped(X)[0], other(X)[0])

    def test_torchs_optimiser_does_what_this_librarys_does(self):
        wrapped = wrap(rnncore.Chain(rnncore.LSTM(3, 4, peephole=True, **F64)))
        module = copy.deepcopy(wrapped.module)
        theirs = torch.optim.Adam(wrapped.parameters(), 0.05)
        ours = rnncore.Adam(module, 0.05)
        for _ in range(10):
            theirs.zero_grad()
            wrapped(X)[0].square().sum().backward()
            theirs.step()
            module.zero_grad()
            (y, _), pullback = module.vjp(X.detach().numpy())
            pullback(2 * y)
            ours.step()
        for name, array in module.params.items():
            np.testing.assert_allclose(wrapped.module.params[name], array, rtol=0, atol=1e-9)

    def test_only_what_is_asked_for_has_a_gradient(self):
        wrapped = wrap(rnncore.Linear(3, 4, **F64))
        wrapped.weight.requires_grad_(False)
        wrapped(X.detach()).sum().backward()
        assert wrapped.weight.grad is None
        assert (wrapped.bias.grad == 8).all()

    @pytest.mark.parametrize(
        "change",
        [
            lambda w: w.double(),
            lambda w: w.load_state_dict(
                {n: p.clone() for n, p in w.state_dict().items()}, assign=True
            ),
            lambda w: setattr(w.module, "layers", (rnncore.Linear(3, 4),)),
            lambda w: torch.nn.utils.parametrize.register_parametrization(
                w.get_submodule("0"), "weight", torch.nn.Identity()
            ),
        ],
    )
    def test_of_other_memory_are_refused(self, change):
        wrapped = wrap(rnncore.Chain(rnncore.Linear(3, 4)))
        change(wrapped)
        with pytest.raises(RuntimeError, match=r"0\.weight does not share its memory"):
            wrapped(X.detach().float())

    def test_given_for_one_call_are_refused(self):
        wrapped = wrap(rnncore.Linear(3, 4, **F64))
        others = {name: param.detach().clone() for name, param in wrapped.named_parameters()}
        with pytest.raises(RuntimeError, match="weight does not share"):
            torch.func.functional_call(wrapped, others, X)

    def test_a_copy_of_others_takes_their_values(self):
        wrapped = wrap(rnncore.Linear(3, 4, **F64))
        wrapped.load_state_dict({n: p + 1 for n, p in wrapped.state_dict().items()}, assign=True)
        copied = copy.deepcopy(wrapped)
        assert torch.equal(copied.weight, wrapped.weight)
        np.testing.assert_array_equal(copied.module.params["weight"], wrapped.weight.detach())

    def test_there_may_be_none(self):
        wrapped = wrap(rnncore.Tanh())
        assert not list(wrapped.parameters())
        y = wrapped(X)
        y.sum().backward()
        torch.testing.assert_close(y, X.tanh())
        assert not wrapped(X.detach()).requires_grad


class TestRecording:
    def test_grads_stay_as_they_were(self):
        wrapped = wrap(rnncore.GRU(3, 4, **F64))
        wrapped.module.grads["bias_hh_l0"][...] = 3
        wrapped(X)[0].sum().backward()
        assert (wrapped.module.grads["bias_hh_l0"] == 3).all()
        assert not wrapped.module.grads["weight_ih_l0"].any()
        assert wrapped.weight_ih_l0.grad.abs().sum() > 0

    def test_a_second_backward_computes_the_call_again(self):
        wrapped = wrap(rnncore.LSTM(3, 4, **F64))
        y = wrapped(X)[0].sum()
        first = torch.autograd.grad(y, [X, *wrapped.parameters()], retain_graph=True)
        second = torch.autograd.grad(y, [X, *wrapped.parameters()])
        assert all(map(torch.equal, first, second))
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            y.backward()

    @pytest.mark.parametrize(
        "module",
        [
            rnncore.Dropout(0.5, seed=0),
            rnncore.LSTM(3, 4, zoneout=0.5, **F64),
            rnncore.DeepRNN(3, 4, num_layers=2, dropout=0.5, **F64),
        ],
    )
    def test_what_drops_has_one_backward_and_none_in_eval_mode(self, module):
        wrapped = wrap(module)
        (y, *_) = tensors(wrapped(X))
        y.sum().backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="drops at random"):
            y.sum().backward()
        before = generator_states(module)
        (y, *_) = tensors(wrapped.eval()(X))
        with pytest.raises(RuntimeError, match="no gradient in eval mode"):
            y.sum().backward()
        assert generator_states(module) == before

    def test_second_derivatives_raise(self):
        wrapped = wrap(rnncore.Linear(3, 4, **F64))
        (dx,) = torch.autograd.grad(wrapped(X).sum(), X, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivatives"):
            dx.sum().backward()

    @pytest.mark.parametrize("what", ["x", "a parameter"])
    def test_a_change_in_place_raises(self, what):
        wrapped, x = wrap(rnncore.Linear(3, 4, **F64)), random(2, 3, grad=False)
        y = wrapped(x).sum()
        with torch.no_grad():
            (x if what == "x" else wrapped.weight).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()

    def test_outputs_may_be_changed_in_place(self):
        y = wrap(rnncore.Tanh())(X)
        expected = torch.autograd.grad(X.tanh().relu().sum(), X)
        torch.testing.assert_close(torch.autograd.grad(y.relu_().sum(), X), expected)
        with torch.no_grad():
            wrap(rnncore.Identity())(X).zero_()
        assert X.all()

    def test_outputs_without_a_gradient_count_as_zero(self):
        wrapped = wrap(rnncore.LSTM(3, 4, **F64))
        _, (h, _) = wrapped(X)
        y, _ = wrapped(X)
        (dx,), (again,) = (torch.autograd.grad(last.sum(), X) for last in (h, y[-1]))
        torch.testing.assert_close(dx, again, rtol=1e-14, atol=0)

    def test_what_has_no_gradient_is_named(self):
        targets = random(4, 2, 3)
        loss = wrap(losses.MeanSquaredError())(X, targets)
        assert loss.dtype == torch.float64
        with pytest.raises(RuntimeError, match="no gradient of targets: detach it"):
            loss.backward()

    def test_weights_of_attention_have_none(self):
        wrapped = wrap(rnncore.LuongAttention(3, 5, **F64))
        contexts, weights = wrapped(X, random(5, 2, 5))
        assert (contexts.requires_grad, weights.requires_grad) == (True, False)

    def test_nothing_is_held_once_it_is_not_needed(self):
        wrapped, x = wrap(rnncore.LSTM(3, 4, **F64)), random(4, 2, 3, grad=False)
        y = wrapped(x)[0].sum()
        call, held = weakref.ref(y.grad_fn.next_functions[0][0].call), weakref.ref(x)
        del x
        assert held() is not None
        y.backward()
        assert held() is None
        del y
        assert call() is None

    def test_threads_get_what_they_computed(self):
        wrapped = wrap(rnncore.Chain(rnncore.GRU(3, 8, **F64), rnncore.Linear(8, 2, **F64)))
        inputs = [random(6, 2, 3, grad=False) * n for n in range(1, 5)]
        expected = [self.gradients(wrapped, x) for x in inputs]
        found = {}

        def work(n):
            found[n] = [self.gradients(wrapped, inputs[n]) for _ in range(50)]

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for n, grads in enumerate(expected):
            assert len(found[n]) == 50
            assert all(all(map(torch.equal, grads, again)) for again in found[n])

    def gradients(self, wrapped, x):
        return torch.autograd.grad(wrapped(x)[0].square().sum(), list(wrapped.parameters()))


class First(torch.nn.Module):
    def forward(self, both):
        return both[0]


class TestInsideTorch:
    def test_between_layers_of_torch(self):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(3, 5),
            wrap(rnncore.Chain(rnncore.LSTM(5, 4, peephole=True), rnncore.LayerNorm(4))),
            First(),
            torch.nn.ReLU(inplace=True),
            torch.nn.Linear(4, 1),
        )
        x = X.detach().float()
        target, optimiser = (
            x.sum(2, keepdim=True).cumsum(0),
            torch.optim.Adam(net.parameters(), 0.02),
        )
        values = []
        for _ in range(150):
            optimiser.zero_grad()
            loss = torch.nn.functional.mse_loss(net(x), target)
            loss.backward()
            optimiser.step()
            values.append(loss.item())
        assert values[-1] < values[0] / 20
        assert repr(net[1]).startswith("wrap(")

    @pytest.mark.filterwarnings("ignore")
    def test_compiled_around(self):
        wrapped = wrap(rnncore.LSTM(3, 4, **F64))
        compiled = torch.compile(lambda x: wrapped(2 * x)[0].sum(), backend="eager")
        expected = torch.autograd.grad(wrapped(2 * X)[0].sum(), X)
        assert torch.equal(*torch.autograd.grad(compiled(X), X), *expected)

    def test_a_users_own_module(self):
        class Twice(Module):
            def __init__(self):
                super().__init__({"scale": np.array([2.0])})

            def __call__(self, *args, **kwargs):
                return self.vjp(*args, **kwargs)[0]

            def vjp(self, *arrays, options):
                (s,) = self.params["scale"]

                def pullback(*dys):
                    self.grads["scale"] += sum(
                        (d * x).sum() for d, x in zip(dys, arrays, strict=True)
                    )
                    return tuple(s * d for d in dys)

                return tuple(s * x for x in arrays), once(pullback)

        wrapped, other = wrap(Twice()), random(3)
        inputs = [X, other, wrapped.scale]
        assert torch.autograd.gradcheck(lambda *_: wrapped(X, other, options={"a": 1}), inputs)


class TestLossesOverAlignments:
    TAGS = torch.tensor([[1, 2], [3, 0]])

    def test_ctc(self):
        loss, x = wrap(rnncore.CTCLoss()), random(6, 2, 4)
        counts = torch.tensor([6, 5]), torch.tensor([2, 1])
        assert torch.autograd.gradcheck(lambda x: loss(x, self.TAGS, *counts), (x,))

    def test_transducer_of_logits(self):
        loss, x = wrap(rnncore.TransducerLoss()), random(2, 5, 3, 4)
        counts = torch.tensor([5, 4]), torch.tensor([2, 1])
        assert torch.autograd.gradcheck(lambda x: loss(x, self.TAGS, *counts), (x,))

    def test_crf_with_its_scores(self):
        loss, x = wrap(rnncore.CRFLoss(rnncore.CRF(4, **F64))), random(2, 2, 4)
        scores = dict(loss.named_parameters())
        assert list(scores) == ["crf.transitions", "crf.start", "crf.end"]
        given = x, *scores.values()
        assert torch.autograd.gradcheck(lambda x, *_: loss(x, self.TAGS), given)


class TestArguments:
    @pytest.mark.parametrize("what", [3, None, rnncore.LSTM, torch.nn.Linear(3, 4)])
    def test_other_modules_are_refused(self, what):
        with pytest.raises(TypeError, match="module must be a Module or a loss, got a"):
            wrap(what)

    @pytest.mark.parametrize("name", sorted(REFUSED))
    def test_what_hands_on_no_tensors_is_refused(self, name):
        with pytest.raises(TypeError, match="a TransducerJoint hands itself on to its loss"):
            wrap(MODELS[name][0][0])

    def test_a_tied_layer_needs_its_embedding(self):
        with pytest.raises(ValueError, match="TiedLinear must be wrapped with its Embedding"):
            wrap(rnncore.TiedLinear(rnncore.Embedding(3, 4)))

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ((X.float(),), "x is torch.float32, but this module computes in torch.float64"),
            ((X.bfloat16(),), "x is torch.bfloat16"),
            ((X.to(torch.complex128),), "x is torch.complex128"),
            ((X.to("meta"),), "x must be a strided tensor on the CPU, got torch.strided on meta"),
            ((X.to_sparse(),), "x must be a strided tensor on the CPU, got torch.sparse_coo"),
            ((X, (H, H.float())), r"state\[1\] is torch.float32"),
            ((X, {"h": H.to("meta")}), r"state\['h'\] must be a strided tensor"),
            ((X, None, 3), "positional arguments"),
        ],
    )
    def test_others_are_refused(self, args, message):
        with pytest.raises(TypeError, match=message):
            wrap(rnncore.LSTM(3, 4, **F64))(*args)

    def test_packed_sequences_are_refused(self):
        packed = torch.nn.utils.rnn.pack_padded_sequence(X.detach(), LENGTHS)
        with pytest.raises(TypeError, match="x must be an array, got a PackedSequence"):
            wrap(rnncore.LSTM(3, 4, **F64))(packed)

    @pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS.int(), [4, 2], np.array([4, 2])])
    def test_by_name_and_lengths_of_any_kind(self, lengths):
        module = rnncore.GRU(3, 4, **F64)
        y, h = wrap(module)(x=X, lengths=lengths, state=H)
        expected = module(X.detach().numpy(), H.detach().numpy(), lengths=np.array([4, 2]))
        same([y, h], expected)
        dx, dh = torch.autograd.grad(y.sum(), [X, H])
        assert not dx[2:, 1].any()
        assert dh.shape == H.shape

    def test_an_array_is_handed_on(self):
        assert wrap(rnncore.Linear(3, 4, **F64))(X.detach().numpy()).requires_grad

    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x[::2, :, ::2],
            lambda x: x.permute(1, 0, 2)[..., :2],
            lambda x: x[:1, :, :2].expand(5, 2, 2),
            lambda x: torch._neg_view(x[..., :2]),
        ],
    )
    def test_may_lie_anyhow(self, view):
        wrapped, x = wrap(rnncore.LSTM(2, 4, **F64)), random(4, 2, 3)
        y, _ = wrapped(view(x))
        copied = view(x).detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        expected, _ = wrapped(copied)
        assert torch.equal(y, expected)
        (dx,) = torch.autograd.grad(expected.sum(), copied)
        assert torch.equal(*torch.autograd.grad(y.sum(), x), *torch.autograd.grad(view(x), x, dx))

    @pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
    @pytest.mark.parametrize("case", ["chain", "peephole", "bidirectional", "windows", "cell"])
    def test_may_be_empty(self, shape, case):
        module, x = CASES[case][0], torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        x = x if case != "cell" else x[0] if len(x) else x[:, 0]
        for y in tensors(wrap(module)(x)):
            (dx,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
            assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
            assert not dx.any()
