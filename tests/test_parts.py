"""Parts of a user's own module in lists, tuples and dicts: found, trained, stored, named."""

import copy
import pickle

import numpy as np
import pytest
import rnncore
from rnncore import LSTM, Adam, Chain, Dropout, Linear
from rnncore.init import set_forget_bias
from rnncore.module import Module, modules, once
from rnncore.training.checkpoint import generators


class Net(Module):
    """A recurrent layer and a head in a list; a constructor adds to what it has made."""

    recurrent = True

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.layers = [LSTM(3, 4, seed=seed)]
        self.layers.append(Linear(4, 2, seed=seed))

    def __call__(self, x, state=None):
        y, state = self.layers[0](x, state)
        return self.layers[1](y), state

    def vjp(self, x, state=None):
        (y, after), back = self.layers[0].vjp(x, state)
        logits, head_back = self.layers[1].vjp(y)
        return (logits, after), once(lambda dy, d=None: back(head_back(dy), d))


class Holder(Module):
    def __init__(self, **parts):
        super().__init__()
        vars(self).update(parts)


X = np.ones((5, 2, 3), np.float32)
NAMES = [f"layers.0.{kind}_{part}_l0" for kind in ("weight", "bias") for part in ("ih", "hh")]


def test_a_list_of_layers_is_walked():
    net = Net(seed=0)
    assert list(net.params) == [*NAMES, "layers.1.weight", "layers.1.bias"]
    assert net.grads.keys() == net.params.keys()
    assert [type(part) for part in modules(net)] == [Net, LSTM, Linear]
    set_forget_bias(net, 2.0)
    assert net.layers[0].params["bias_ih_l0"][4] == 2
    assert generators(net)["layers.0.rng"] is net.layers[0].rng


def test_it_is_trained():
    net = Net(seed=0)
    before, optimiser = net.state_dict(), Adam(net)
    (y, _), pullback = net.vjp(X)
    pullback(np.ones_like(y))
    optimiser.step()
    for name, param in net.params.items():
        assert (param != before[name]).any(), name
    net.zero_grad()
    assert not any(grad.any() for grad in net.grads.values())


def test_it_is_stored_and_copied(tmp_path):
    net = Net(seed=0)
    net.save(tmp_path / "net")
    again = rnncore.load(tmp_path / "net", classes=[Net])
    for other in (again, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(X)[0], net(X)[0])
        assert other.params.keys() == net.params.keys()


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"a": (Linear(2, 2),)}, "a.0"),
        ({"a": {"b": Linear(2, 2), 3: Linear(2, 2)}}, "a.b a.3"),
        ({"a": [[Linear(2, 2)], {"b": (Linear(2, 2),)}]}, "a.0.0 a.1.b.0"),
        ({"a": [None, Linear(2, 2), 3.0, "text"]}, "a.1"),
        ({"a": [Holder(b=[Linear(2, 2)])], "c": Linear(2, 2)}, "a.0.b.0 c"),
        ({"a": {(1, 2), 3}, "b": [[1, 2], [3]], "c": Linear(2, 2)}, "c"),
    ],
)
def test_names(parts, names):
    wanted = [f"{name}.{kind}" for name in names.split() for kind in ("weight", "bias")]
    assert list(Holder(**parts).params) == wanted


def test_what_stands_there_later_counts():
    net, new = Net(seed=0), Linear(4, 7, seed=1)
    net.layers[1] = new
    assert net.params["layers.1.weight"] is new.params["weight"]
    assert net(X)[0].shape == (5, 2, 7)
    chain = type("Own", (Chain,), {})(Linear(3, 2, seed=0))
    chain.heads = [Linear(2, 2, seed=1)]
    assert list(chain.params) == ["0.weight", "0.bias", "heads.0.weight", "heads.0.bias"]


def test_a_shared_part_is_updated_once():
    layer = Linear(2, 2, seed=0)
    net, before = Holder(a=[layer], b={"c": layer}), layer.params["weight"].copy()
    assert list(net.params) == ["a.0.weight", "a.0.bias", "b.c.weight", "b.c.bias"]
    layer.grads["weight"][...] = 1
    rnncore.SGD(net, lr=1.0).step()
    np.testing.assert_allclose(layer.params["weight"], before - 1, rtol=1e-6)


def test_circles_and_sets_and_equal_names_are_refused():
    circle = Holder(a=Linear(2, 2))
    circle.a.parent = [circle]
    lists: list = [Linear(2, 2)]
    lists += [lists, lists]
    for net, message in (
        (circle, r"a\.parent\.0 is the Holder that it lies in"),
        (Holder(a=lists), r"a\.1 lies in itself"),
        (Holder(a={1: lists[0], "1": lists[0]}), r"two parts .* called 'a\.1'"),
    ):
        with pytest.raises(ValueError, match=message):
            _ = net.params
    with pytest.raises(TypeError, match="a is a set, whose parts have no order"):
        _ = Holder(a={Linear(2, 2)}).params


def test_walks_see_them():
    model = Holder(parts=[LSTM(3, 4, bidirectional=True), Dropout(0.5, seed=0)])
    model.recurrent = True
    with pytest.raises(ValueError, match="forward must run in one direction, but its LSTM"):
        rnncore.Windowed(model, None, 2)
    with pytest.raises(ValueError, match="all layers must have the same batch_first"):
        Chain(Holder(parts=[LSTM(3, 4, batch_first=True)]), LSTM(4, 4))


class Forgetful(Module):
    def __init__(self):
        self.a = Linear(2, 2)


class ForgetfulLayer(LSTM):
    def __init__(self):
        self.size = 3


@pytest.mark.parametrize(
    "use",
    [
        lambda: Forgetful().params,
        lambda: Forgetful().grads,
        lambda: Forgetful().zero_grad(),
        lambda: Forgetful().save("/nowhere/at/all"),
        lambda: Forgetful().state_dict(),
        lambda: Adam(Forgetful()),
        lambda: Holder(a=[Forgetful()]).params,
        lambda: ForgetfulLayer().params,
        lambda: ForgetfulLayer().grads,
    ],
)
def test_a_forgotten_constructor_is_named(use):
    with pytest.raises(AttributeError, match=r"its __init__ must call super\(\)\.__init__\(\)"):
        use()


def test_other_attributes_are_missed_as_ever():
    class Own(Module):
        @property
        def wrong(self):
            return self.nothing

    with pytest.raises(AttributeError, match="'Own' object has no attribute 'nothing'"):
        _ = Own().wrong
    assert not hasattr(Own(), "other")
