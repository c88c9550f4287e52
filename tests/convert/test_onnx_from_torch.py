"""Ten modules as people write them, through both of PyTorch's exporters, against PyTorch."""

import io
import logging
import warnings
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed, which writes the files")
pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

import onnx
from rnncore.convert import from_onnx
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.support.compare import near

WORDS, INPUTS, HIDDEN, CLASSES, STEPS = 20, 4, 8, 3, 4
OLD, NEW = "torchscript", "dynamo"


class PackedTagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, INPUTS)
        self.lstm = nn.LSTM(INPUTS, HIDDEN, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x, lengths):
        x = self.embed(x)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.out(y)


class LSTMCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTMCell(INPUTS, HIDDEN), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        h = c = x.new_zeros(x.shape[1], HIDDEN)
        ys = []
        for t in range(x.shape[0]):
            h, c = self.cell(x[t], (h, c))
            ys.append(self.out(h))
        return torch.stack(ys)


class GRUCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(INPUTS, HIDDEN)

    def forward(self, x, h):
        ys = []
        for t in range(x.shape[0]):
            h = self.cell(x[t], h)
            ys.append(h)
        return torch.stack(ys), h


class AdditiveAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(INPUTS, HIDDEN, batch_first=True)
        self.query, self.key = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.score = nn.Linear(HIDDEN, 1, bias=False)

    def forward(self, x):
        y, h = self.encoder(x)
        mixed = torch.tanh(self.query(h[-1]).unsqueeze(1) + self.key(y))
        weights = torch.softmax(self.score(mixed).squeeze(-1), -1)
        return torch.bmm(weights.unsqueeze(1), y).squeeze(1), weights


class DotAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(INPUTS, HIDDEN, batch_first=True)
        self.query = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x, lengths):
        y, _ = self.encoder(x)
        scores = self.query(y) @ y.transpose(1, 2) / HIDDEN**0.5
        outside = torch.arange(x.shape[1])[None] >= lengths[:, None]
        return torch.softmax(scores.masked_fill(outside[:, None], float("-inf")), -1) @ y


class SelfAttention(nn.Module):
    """A recurrence under attention, or attention alone."""

    def __init__(self, recurrent=False):
        super().__init__()
        self.rnn = nn.GRU(INPUTS, INPUTS, batch_first=True) if recurrent else None
        self.attention = nn.MultiheadAttention(INPUTS, 1, batch_first=True)

    def forward(self, x, lengths):
        x = x if self.rnn is None else self.rnn(x)[0]
        outside = torch.arange(x.shape[1])[None] >= lengths[:, None]
        return self.attention(x, x, x, key_padding_mask=outside)[0]


class Convolved(nn.Module):
    """Frames: convolution, normalisation, a recurrence in both directions."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(INPUTS, 6, 3, 2, 1), nn.BatchNorm1d(6)
        self.lstm = nn.LSTM(6, HIDDEN, bidirectional=True)
        self.out = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x):
        frames = torch.relu(self.norm(self.conv(x))).permute(2, 0, 1)
        return self.out(self.lstm(frames)[0]).log_softmax(-1)


class Pictures(nn.Module):
    """Columns of pictures, read as text is."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1))),
        )
        self.lstm = nn.LSTM(6 * 4, HIDDEN, bidirectional=True)
        self.out = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x):
        y = self.features(x)
        batch, channels, height, width = y.shape
        columns = y.reshape(batch, channels * height, width).permute(2, 0, 1)
        return self.out(self.lstm(columns)[0])


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.gru = nn.Embedding(WORDS, 6), nn.GRU(6, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        return self.out(self.gru(self.embed(x))[1][-1])


class NormalisedCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.x, self.h = nn.Linear(INPUTS, 4 * HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(n * HIDDEN) for n in (4, 4, 1))

    def forward(self, x, h, c):
        ys = []
        for t in range(x.shape[0]):
            gates = self.norms[0](self.x(x[t])) + self.norms[1](self.h(h))
            i, f, g, o = gates.chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(self.norms[2](c))
            ys.append(h)
        return torch.stack(ys), h, c


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(INPUTS, HIDDEN, 2, bidirectional=True, batch_first=True)

    def forward(self, x, h):
        return self.gru(x, h)


def lengths(batch, steps):
    return torch.arange(steps, steps - batch, -1).clamp(1)


def words(batch, steps):
    return torch.randint(WORDS, (batch, steps))


#: A module; what it is given of a batch and a number of steps; which axes of that are open.
MODULES = {
    "packed tagger": (PackedTagger, lambda b, t: (words(b, t), lengths(b, t)), ((0, 1), (0,))),
    "LSTM cells": (LSTMCells, lambda b, t: (torch.randn(t, b, INPUTS),), ((1,),)),
    "GRU cells": (
        *(GRUCells, lambda b, t: (torch.randn(t, b, INPUTS), torch.randn(b, HIDDEN))),
        ((1,), (0,)),
    ),
    "additive attention": (
        *(AdditiveAttention, lambda b, t: (torch.randn(b, t, INPUTS),)),
        ((0, 1),),
    ),
    "dot attention": (
        *(DotAttention, lambda b, t: (torch.randn(b, t, INPUTS), lengths(b, t))),
        ((0, 1), (0,)),
    ),
    "Conv1d": (Convolved, lambda b, t: (torch.randn(b, INPUTS, t),), ((0, 2),)),
    "Conv2d": (Pictures, lambda b, t: (torch.randn(b, 1, 16, 4 * t),), ((0, 3),)),
    "classifier": (Classifier, lambda b, t: (words(b, t),), ((0, 1),)),
    "normalised cells": (
        NormalisedCells,
        lambda b, t: (torch.randn(t, b, INPUTS), torch.randn(b, HIDDEN), torch.randn(b, HIDDEN)),
        ((1,), (0,), (0,)),
    ),
    "two layers": (
        *(TwoLayers, lambda b, t: (torch.randn(b, t, INPUTS), torch.randn(4, b, HIDDEN))),
        ((0, 1), (1,)),
    ),
}
#: The exporters unroll loops over steps: the file has as many as the example had.
UNROLLED = {"LSTM cells", "GRU cells", "normalised cells"}


def exported(module, example, axes, exporter):
    """The file that an exporter writes."""
    names = [f"in{at}" for at in range(len(example))]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == NEW:
            free = torch.export.Dim.AUTO
            shapes = tuple(dict.fromkeys(own, free) for own in axes)
            program = torch.onnx.export(
                module, example, dynamo=True, dynamic_shapes=shapes, verbose=False
            )
            return program.model_proto
        file = io.BytesIO()
        open_axes = {
            name: {axis: f"size{axis}_{name}" for axis in own}
            for name, own in zip(names, axes, strict=True)
        }
        torch.onnx.export(
            module, example, file, dynamo=False, input_names=names, dynamic_axes=open_axes
        )
        return onnx.load_model_from_string(file.getvalue())


@pytest.fixture(autouse=True)
def quiet():
    """What the exporters say."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("exporter", [OLD, NEW])
@pytest.mark.parametrize("name", MODULES)
def test_modules_as_pytorch_computes_them(name, exporter):
    if exporter == NEW and not find_spec("onnxscript"):
        pytest.skip("onnxscript is not installed, which PyTorch's new exporter needs")
    if exporter == NEW and name == "packed tagger":
        pytest.skip("torch.export does not trace pack_padded_sequence")
    torch.manual_seed(0)
    made, example, axes = MODULES[name]
    module = made().eval()
    for norm in module.modules():  # statistics and weights that say something
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    model = from_onnx(exported(module, example(3, STEPS), axes, exporter))
    for batch, steps in ((3, STEPS), (1, STEPS), (2, 5), (4, 9), (1, 1)):
        if name in UNROLLED and steps != STEPS:
            continue
        given = example(batch, steps)
        with torch.no_grad():
            want = module(*given)
        got = model.run(*(value.numpy() for value in given))
        for mine, theirs in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
            near(mine, theirs.numpy(), 2e-5)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("exporter", [OLD, NEW])
def test_attention_keeps_the_steps_of_the_example(exporter, recurrent):
    """But where the new exporter sees no recurrence before it."""
    if exporter == NEW and not find_spec("onnxscript"):
        pytest.skip("onnxscript is not installed, which PyTorch's new exporter needs")
    torch.manual_seed(0)
    module = SelfAttention(recurrent).train()

    def example(batch, steps):
        return torch.randn(batch, steps, INPUTS), lengths(batch, steps)

    model = from_onnx(exported(module, example(3, STEPS), ((0, 1), (0,)), exporter))
    free = exporter == NEW and not recurrent
    for batch, steps in ((3, STEPS), (2, STEPS), *([(2, 9)] if free else [])):
        given = example(batch, steps)
        with torch.no_grad():
            want = module(*given).numpy()
        near(model.run(*(value.numpy() for value in given))[0], want, 2e-5)
    if not free:
        with pytest.raises(ValueError, match="Reshape"):
            model.run(*(value.numpy() for value in example(2, 9)))


def test_a_scripted_loop_takes_any_number_of_steps():
    """TorchScript keeps the loop: Loop around an LSTM, with a list of outputs."""

    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.LSTMCell(INPUTS, HIDDEN), nn.Linear(HIDDEN, CLASSES)

        def forward(self, x):
            h = torch.zeros(x.shape[1], self.cell.hidden_size)
            c = torch.zeros(x.shape[1], self.cell.hidden_size)
            ys: list[torch.Tensor] = []
            for t in range(x.shape[0]):
                h, c = self.cell(x[t], (h, c))
                ys.append(self.out(h))
            return torch.stack(ys)

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(Looped().eval())
    model = from_onnx(exported(module, (torch.randn(STEPS, 3, INPUTS),), ((0, 1),), OLD))
    assert any("Loop" in node.op for node in model._body.nodes)
    for steps, batch in ((STEPS, 3), (1, 2), (30, 1)):
        x = torch.randn(steps, batch, INPUTS)
        near(model.run(x.numpy())[0], module(x).detach().numpy(), 2e-5)


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *given):
        return self.function(*given)


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda x: torch.stft(x, 16, 4, window=torch.ones(16), return_complex=False), "STFT"),
        (torch.unique, "the operator Unique"),
        (lambda x: x + torch.randn_like(x), "the operator RandomNormalLike"),
        (lambda x: nn.functional.max_pool1d(x, 2, return_indices=True), "MaxPool .*the output"),
    ],
)
def test_what_does_not_run_is_named(function, what):
    example = (torch.randn(2, 64),)
    with pytest.raises(ValueError, match=f"rnncore cannot represent .*{what}"):
        from_onnx(exported(Calls(function), example, ((),), OLD))


def test_what_does_not_run_is_named_when_it_runs():
    for function, shape, what in (
        (nn.Upsample(scale_factor=2, mode="bicubic"), (1, 2, 3, 3), "mode='cubic'"),
        (lambda x: torch.einsum("bi,bj,bk->bijk", x, x, x), (2, 3), "Einsum of 3 arrays"),
    ):
        x = torch.randn(shape)
        with pytest.raises(ValueError, match=f"rnncore cannot represent .*{what}"):
            from_onnx(exported(Calls(function), (x,), ((),), OLD)).run(x.numpy())
