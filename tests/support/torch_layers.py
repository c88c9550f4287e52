"""Pairs of a layer of torch's and the same of rnncore's, over one table of options."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import rnncore.torch as inside
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

PAIRS = {
    "LSTM": (torch.nn.LSTM, inside.LSTM, {}),
    "LSTM, projected": (torch.nn.LSTM, inside.LSTM, {"proj_size": 3}),
    "GRU": (torch.nn.GRU, inside.GRU, {}),
    "RNN, tanh": (torch.nn.RNN, inside.RNN, {}),
    "RNN, relu": (torch.nn.RNN, inside.RNN, {"nonlinearity": "relu"}),
}
LENGTHS = {
    "sorted": [6, 4, 4, 1],
    "unsorted": [1, 6, 4, 2],
    "equal": [5, 5, 5, 5],
    "of one": [1, 1, 1, 1],
}
FORMS = ("batched", "unbatched", *LENGTHS)
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
INPUT, HIDDEN, TIME, BATCH = 5, 7, 6, 4


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    pair: str
    options: tuple[tuple[str, Any], ...]
    form: str  # "batched", "unbatched", or one of LENGTHS
    state: bool
    dtype: Any

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options if value is True or value > 1]
        return "-".join([self.pair, *options, self.form, *["state"] * self.state, f"{self.dtype}"])

    def layers(self) -> tuple[Any, Any]:
        """torch's and ours with the same weights."""
        theirs, ours, own = PAIRS[self.pair]
        torch.manual_seed(3)
        options = dict(self.options) | own | {"dtype": self.dtype}
        first, second = theirs(INPUT, HIDDEN, **options), ours(INPUT, HIDDEN, **options)
        second.load_state_dict(first.state_dict())
        return first, second

    def given(self) -> tuple[Any, Any]:
        """Input and state."""
        torch.manual_seed(5)
        options = dict(self.options)
        layers = options["num_layers"] * (1 + options["bidirectional"])
        batch = () if self.form == "unbatched" else (BATCH,)
        shape = (TIME, *batch, INPUT)
        x = torch.randn(shape, dtype=self.dtype)
        if options["batch_first"] and batch:
            x = x.transpose(0, 1)  # not contiguous
        widths = [PAIRS[self.pair][2].get("proj_size", HIDDEN), HIDDEN]
        widths = widths[: 2 if "LSTM" in self.pair else 1]
        state = [torch.randn(layers, *batch, width, dtype=self.dtype) for width in widths]
        return x, state if self.state else None

    def packed(self, x: Any) -> Any:
        if self.form not in LENGTHS:
            return x
        lengths, first = LENGTHS[self.form], dict(self.options)["batch_first"]
        return pack_padded_sequence(
            x, lengths, batch_first=first, enforce_sorted=self.form == "sorted"
        )

    def run(self, layer: Any) -> tuple[list[Any], list[Any]]:
        """All results, and the gradients of everything."""
        x, state = self.given()
        leaves = [x.clone().requires_grad_()]
        leaves += [part.clone().requires_grad_() for part in state or ()]
        hx = None if state is None else leaves[1] if len(leaves) == 2 else tuple(leaves[1:])
        y, final = layer(self.packed(leaves[0]), hx)
        results = [y.data] if isinstance(y, PackedSequence) else [y]
        results += final if isinstance(final, tuple) else [final]
        torch.manual_seed(7)
        loss = sum((part * torch.randn(part.shape, dtype=self.dtype)).sum() for part in results)
        return results, list(torch.autograd.grad(loss, [*leaves, *layer.parameters()]))


def table() -> Iterator[Case]:
    """A quarter of all combinations: of any two options, with each pair and form, all are there."""
    for pair, (number, form), layers, both, bias, first in itertools.product(
        PAIRS, enumerate(FORMS), (1, 3), (False, True), (False, True), (False, True)
    ):
        options = {"num_layers": layers, "bidirectional": both, "bias": bias, "batch_first": first}
        state = bool((number + (layers > 1) + both + first) % 2)
        dtype = list(TOLERANCE)[(number + both + bias + first) % 2]
        yield Case(pair, tuple(options.items()), form, state, dtype)


def close(got: Any, want: Any, dtype: Any) -> None:
    """Within the project's bound, of the largest magnitude."""
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        largest = max(1.0, float(b.detach().abs().max()) if b.numel() else 0.0)
        assert float((a - b).detach().abs().max()) <= TOLERANCE[dtype] * largest
