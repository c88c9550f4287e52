"""`rnncore.torch`'s layers against torch's own: outputs, states, gradients, errors."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
import warnings
from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import rnncore.torch as inside
from torch.nn.utils.rnn import pack_sequence

from tests.support.torch_layers import (
    FORMS,
    HIDDEN,
    INPUT,
    PAIRS,
    TOLERANCE,
    Case,
    close,
    table,
)

# torch's own, of its layers.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")


def test_of_any_two_options_all_are_there() -> None:
    """With each pair and form."""
    seen = Counter(
        (case.pair, case.form, *two)
        for case in table()
        for two in itertools.combinations(
            [*case.options, ("state", case.state), ("dtype", case.dtype)], 2
        )
    )
    assert len(seen) == len(PAIRS) * len(FORMS) * math.comb(6, 2) * 4


@pytest.mark.parametrize("case", list(table()), ids=str)
def test_results_and_gradients(case: Case) -> None:
    theirs, ours = case.layers()
    for got, want in zip(case.run(ours), case.run(theirs), strict=True):
        close(got, want, case.dtype)


@pytest.mark.parametrize("pair", PAIRS)
class TestAsTorch:
    def make(self, pair: str, *args: Any, **options: Any) -> tuple[Any, Any]:
        theirs, ours, own = PAIRS[pair]
        first, second = theirs(*args, **own, **options), ours(*args, **own, **options)
        second.load_state_dict(first.state_dict())
        return first, second

    def test_is_one_of_torchs(self, pair: str) -> None:
        theirs, ours = self.make(pair, INPUT, HIDDEN, 2)
        assert isinstance(ours, type(theirs))
        assert isinstance(ours, PAIRS[pair][1])
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        ours.flatten_parameters()
        torch.manual_seed(0)
        ours.reset_parameters()
        torch.manual_seed(0)
        theirs.reset_parameters()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_draws_the_same_dropout(self, pair: str) -> None:
        theirs, ours = self.make(pair, INPUT, HIDDEN, 3, dropout=0.4)
        x, found = torch.randn(6, 4, INPUT), []
        for layer in (theirs, ours):
            torch.manual_seed(11)
            found.append(layer(x)[0])
        close(found[1:], found[:1], torch.float32)
        ours.eval()
        assert not torch.allclose(ours(x)[0], found[1])

    @pytest.mark.parametrize("shape", [(0, 2, 5), (0, 5), (3, 2, 4), (3,), (3, 2, 5, 5)])
    def test_refuses_what_torch_refuses(self, pair: str, shape: tuple[int, ...]) -> None:
        said = []
        for layer in self.make(pair, INPUT, HIDDEN):
            with pytest.raises((RuntimeError, ValueError)) as error:
                layer(torch.zeros(shape))
            said.append((type(error.value), str(error.value)))
        assert said[0] == said[1]

    def test_refuses_other_states_as_torch(self, pair: str) -> None:
        x, wrong = torch.zeros(3, 2, INPUT), torch.zeros(1, 3, HIDDEN)
        for state in (wrong, (wrong, wrong), (wrong[0], wrong[0]), wrong[0]):
            said = []
            for layer in self.make(pair, INPUT, HIDDEN):
                with pytest.raises(Exception) as error:  # noqa: PT011  (torch has several)
                    layer(x, state)
                said.append((type(error.value), str(error.value)))
            assert said[0] == said[1]

    def test_no_rows(self, pair: str) -> None:
        theirs, ours = self.make(pair, INPUT, HIDDEN, bidirectional=True)
        x = torch.zeros(3, 0, INPUT)
        assert ours(x)[0].shape == theirs(x)[0].shape

    def test_expanded_and_strided(self, pair: str) -> None:
        theirs, ours = self.make(pair, INPUT, HIDDEN)
        x = torch.randn(4, 1, INPUT).expand(4, 3, INPUT)
        close(ours(x)[:1], theirs(x)[:1], torch.float32)
        wide = torch.randn(4, 3, 2 * INPUT)[..., ::2]
        close(ours(wide)[:1], theirs(wide)[:1], torch.float32)

    def test_copies(self, pair: str) -> None:
        _, ours = self.make(pair, INPUT, HIDDEN, 2)
        x = torch.randn(4, 3, INPUT)
        want, buffer = ours(x)[0], io.BytesIO()
        torch.save(ours, buffer)
        buffer.seek(0)
        copies = [
            copy.deepcopy(ours),
            pickle.loads(pickle.dumps(ours)),
            torch.load(buffer, weights_only=False),
        ]
        for made in copies:
            assert type(made) is type(ours)
            assert torch.equal(made(x)[0], want)
            with torch.no_grad():
                made.weight_hh_l0.mul_(2)
            assert not torch.equal(made(x)[0], want)
        assert torch.equal(ours(x)[0], want)

    def test_changed_weights_are_seen(self, pair: str) -> None:
        theirs, ours = self.make(pair, INPUT, HIDDEN)
        x = torch.randn(4, 3, INPUT)
        changes = [
            lambda w: w.data.mul_(-1),
            lambda w: w.detach().numpy().__imul__(-2),
            lambda w: setattr(w, "data", w.data * 3),
            lambda w: setattr(w, "data", w.data.t().contiguous().t()),
        ]
        for change in changes:
            ours(x)
            for layer in (theirs, ours):
                change(layer.weight_hh_l0)
            close(ours(x)[:1], theirs(x)[:1], torch.float32)

    def test_other_dtypes_are_torchs(self, pair: str) -> None:
        theirs, ours = self.make(pair, INPUT, HIDDEN)
        theirs, ours = theirs.bfloat16(), ours.bfloat16()
        x = torch.randn(3, 2, INPUT).bfloat16()
        with pytest.warns(UserWarning, match="torch.bfloat16: torch's own layer is used"):
            got = ours(x)[0]
        assert torch.equal(got, theirs(x)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours(x)  # says so once
        ours.fallback = "raise"
        with pytest.raises(TypeError, match=r"but the weights are torch\.bfloat16"):
            ours(x)

    def test_meta_tensors_are_torchs(self, pair: str) -> None:
        _, ours = self.make(pair, INPUT, HIDDEN, device="meta")
        with pytest.warns(UserWarning, match="a tensor is on meta"):
            assert ours(torch.zeros(3, 2, INPUT, device="meta"))[0].device.type == "meta"

    def test_autocast_computes_in_float32(self, pair: str) -> None:
        _, ours = self.make(pair, INPUT, HIDDEN)
        x = torch.randn(3, 2, INPUT)
        with torch.autocast("cpu"):
            y, _ = ours(x.bfloat16())
        assert torch.equal(y, ours(x.bfloat16().float())[0])
        ours.double()
        with torch.autocast("cpu"):  # which leaves float64 as it is
            assert ours(x.double())[0].dtype == torch.float64


def test_packed_results_are_packed_alike() -> None:
    layer = inside.GRU(INPUT, HIDDEN)
    packed = pack_sequence([torch.randn(n, INPUT) for n in (2, 5, 1)], enforce_sorted=False)
    y, h = layer(packed)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(y, name), getattr(packed, name))
    alone = [layer(part)[0] for part in (x for x in torch.nn.utils.rnn.unpack_sequence(packed))]
    for got, want in zip(torch.nn.utils.rnn.unpack_sequence(y), alone, strict=True):
        assert torch.equal(got, want)  # in any batch, to the bit
    for got, want in zip(h[0], alone, strict=True):
        assert torch.equal(got, want[-1])


CELLS = {
    "LSTMCell": (torch.nn.LSTMCell, inside.LSTMCell, {}),
    "GRUCell": (torch.nn.GRUCell, inside.GRUCell, {}),
    "RNNCell": (torch.nn.RNNCell, inside.RNNCell, {}),
    "RNNCell, relu": (torch.nn.RNNCell, inside.RNNCell, {"nonlinearity": "relu"}),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CELLS)
class TestCells:
    def test_results_and_gradients(self, name: str, bias: bool, dtype: Any) -> None:
        theirs, ours, own = CELLS[name]
        first, second = (c(INPUT, HIDDEN, bias=bias, dtype=dtype, **own) for c in (theirs, ours))
        second.load_state_dict(first.state_dict())
        assert isinstance(second, theirs)
        for batch in ((), (3,)):
            leaves = [torch.randn(*batch, n, dtype=dtype) for n in (INPUT, HIDDEN, HIDDEN)]
            for state in (False, True):
                found = []
                for cell in (second, first):
                    x, *hc = (leaf.clone().requires_grad_() for leaf in leaves)
                    hx = (tuple(hc) if "LSTM" in name else hc[0]) if state else None
                    results = cell(x, hx)
                    results = results if isinstance(results, tuple) else (results,)
                    loss = sum((part * part).sum() for part in results)
                    wanted = [x, *hc[: len(results) if state else 0], *cell.parameters()]
                    found.append((results, torch.autograd.grad(loss, wanted)))
                for got, want in zip(*found, strict=True):
                    close(got, want, dtype)

    def test_refuses_other_states_as_torch(self, name: str, bias: bool, dtype: Any) -> None:
        theirs, ours, own = CELLS[name]
        x, h = torch.zeros(2, INPUT, dtype=dtype), torch.zeros(2, HIDDEN, dtype=dtype)
        for state in (h, (h, h)):
            if isinstance(state, tuple) == ("LSTM" in name):
                continue
            said = []
            for kind in (theirs, ours):
                with pytest.raises(Exception) as error:  # noqa: PT011  (torch has several)
                    kind(INPUT, HIDDEN, bias, dtype=dtype, **own)(x, state)
                said.append((type(error.value), str(error.value)))
            assert said[0] == said[1]

    def test_weights_that_are_computed(self, name: str, bias: bool, dtype: Any) -> None:
        theirs, ours, own = CELLS[name]
        pair = [kind(INPUT, HIDDEN, bias, dtype=dtype, **own) for kind in (theirs, ours)]
        pair[1].load_state_dict(pair[0].state_dict())
        norm, x = torch.nn.utils.parametrizations.weight_norm, torch.randn(2, INPUT, dtype=dtype)
        found = []
        for cell in pair:
            result = norm(cell, "weight_hh")(x)
            found.append(result if isinstance(result, tuple) else (result,))
        close(*found, dtype)

    def test_refuses_what_torch_refuses(self, name: str, bias: bool, dtype: Any) -> None:
        theirs, ours, own = CELLS[name]
        for shape in ((2, 4), (2, 2, INPUT)):
            said = []
            for kind in (theirs, ours):
                with pytest.raises((RuntimeError, ValueError)) as error:
                    kind(INPUT, HIDDEN, bias, dtype=dtype, **own)(torch.zeros(shape, dtype=dtype))
                said.append(str(error.value))
            assert said[0] == said[1]


def test_inputs_and_outputs_are_not_copied() -> None:
    """What torch does not see changed, backward reads as it is now."""
    layer = inside.RNN(INPUT, HIDDEN, bias=False)
    for changed in ("input", "output"):
        x = torch.randn(4, 3, INPUT)
        y, _ = layer(x)
        (x if changed == "input" else y.detach()).numpy()[...] = 0
        of_input, of_state = torch.autograd.grad(y.sum(), list(layer.parameters()))
        assert (changed == "input") != bool(of_input.any())
        assert (changed == "output") != bool(of_state.any())
