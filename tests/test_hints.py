"""Habits of other libraries fail with an error that says what to write here."""

import copy
import importlib
import inspect
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import hints
from rnncore.layers.activations import Identity
from rnncore.recurrent.registry import LAYERS, STEPS
from rnncore.training import Trainer

X = np.zeros((5, 2, 3), np.float32)


def model() -> rnncore.Chain:
    return rnncore.Chain(rnncore.GRU(3, 4, seed=0), rnncore.Linear(4, 2, seed=1))


@pytest.mark.parametrize("name", hints.TOP_LEVEL)
def test_names_of_the_package(name: str) -> None:
    if name in hints.SUBMODULES:
        return
    assert not hasattr(rnncore, name)
    with pytest.raises(AttributeError, match=re.escape(hints.TOP_LEVEL[name])):
        getattr(rnncore, name)
    with pytest.raises(ImportError, match=re.escape(hints.TOP_LEVEL[name])):
        exec(f"from rnncore import {name}", {})


def test_modules_that_are_imported_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(hints.SUBMODULES) - {"torch", "estimators"}:  # which need more than NumPy
        module = importlib.import_module(f"rnncore.{name}")
        monkeypatch.delattr(rnncore, name)
        with pytest.raises(AttributeError, match=f"import rnncore.{name}"):
            getattr(rnncore, name)
        monkeypatch.undo()
        scope: dict[str, Any] = {}
        exec(f"from rnncore import {name}", scope)
        assert scope[name] is module is sys.modules[f"rnncore.{name}"]


def test_other_names_are_as_python_has_them() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        rnncore.nothing_of_the_kind  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing_of_the_kind'"):
        exec("from rnncore import nothing_of_the_kind", {})
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        model().nothing  # noqa: B018


def test_every_name_of_ours_in_a_hint_is_there() -> None:
    """`rnncore.X` and `rnncore.package.X`, and what stands after `import`."""
    tables = [table for table in vars(hints).values() if isinstance(table, dict)]
    text = "\n".join(hint for table in tables for hint in table.values() if isinstance(hint, str))
    names = set(re.findall(r"rnncore((?:\.[A-Za-z]\w*)+)", text))
    names |= {f".{a}.{b}" for a, b in re.findall(r"from rnncore\.(\w+) import (\w+)", text)}
    assert {".Chain", ".batches.padded", ".training.Trainer", ".estimators.Forecaster"} <= names
    for name in names - {".torch"}:
        module, *parts = name[1:].split(".")
        if module in ("estimators", "torch"):
            pytest.importorskip({"estimators": "sklearn", "torch": "torch"}[module])
        found = getattr(rnncore, module, None) or importlib.import_module(f"rnncore.{module}")
        for part in parts:
            found = getattr(found, part)


@pytest.mark.parametrize("name", hints.MODULE)
def test_attributes_of_modules(name: str) -> None:
    for module in (model(), rnncore.LSTM(3, 4), Identity()):
        kind = type(module).__name__
        with pytest.raises(AttributeError, match=f"'{kind}' object has no '{name}': ") as raised:
            getattr(module, name)
        assert hints.MODULE[name] in str(raised.value)
        assert not hasattr(module, name)
        assert not hasattr(type(module), name)
        assert name not in dir(module)


def trainer(**options: Any) -> Trainer:
    made = model()
    return Trainer(made, rnncore.SoftmaxCrossEntropy(), rnncore.Adam(made), [], **options)


VOCABULARY = rnncore.Vocabulary(["a"])
OTHERS = [
    *((model().stream(), name, hint) for name, hint in hints.STREAM.items()),
    *((rnncore.RowConvolution(3, 2).stream(), name, hint) for name, hint in hints.STREAM.items()),
    *((VOCABULARY, name, hint) for name, hint in hints.WORDBOOK.items()),
    *((trainer(), name, hint) for name, hint in hints.TRAINED.items()),
    *((rnncore.CRF(3), name, hint) for name, hint in hints.CRF.items()),
]


@pytest.mark.parametrize(("made", "name", "hint"), OTHERS)
def test_attributes_of_others(made: Any, name: str, hint: str) -> None:
    kind = type(made).__name__
    with pytest.raises(AttributeError, match=re.escape(f"'{kind}' object has no '{name}': {hint}")):
        getattr(made, name)
    assert not hasattr(made, name)
    assert name not in dir(made)
    assert {"decode", "snapshot", "fit"} & set(dir(made))


def test_attributes_and_keywords_of_estimators() -> None:
    estimators = pytest.importorskip("rnncore.estimators")
    for kind in (estimators.SequenceClassifier, estimators.SequenceLabeller, estimators.Forecaster):
        for name, hint in hints.FITTED.items():
            with pytest.raises(AttributeError, match=re.escape(f"has no {name!r}: {hint}")):
                getattr(kind(), name)
            assert name not in dir(kind())
        for name, hint in hints.ESTIMATOR.items():
            with pytest.raises(
                TypeError, match=re.escape(f"{kind.__name__} takes no {name!r}: {hint}")
            ):
                kind(**{name: 1})
            assert name not in inspect.signature(kind).parameters
        assert "max_iter" in inspect.signature(kind).parameters
        with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
            kind(nothing=1)
    for name, hint in hints.FORECASTER.items():
        with pytest.raises(AttributeError, match=re.escape(hint)):
            getattr(estimators.Forecaster(), name)
    assert hasattr(estimators.SequenceClassifier, "predict_proba")


@pytest.mark.parametrize(
    ("package", "needs", "names"),
    [("estimators", "sklearn", hints.ESTIMATORS), ("torch", "torch", hints.TORCH)],
)
def test_names_of_packages(package: str, needs: str, names: dict[str, str]) -> None:
    pytest.importorskip(needs)
    module = importlib.import_module(f"rnncore.{package}")
    for name, hint in names.items():
        with pytest.raises(AttributeError, match=re.escape(hint)):
            getattr(module, name)
        message = re.escape(f"rnncore.{package} has no {name!r}: {hint}")
        with pytest.raises(ImportError, match=message):
            exec(f"from rnncore.{package} import {name}", {})
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from rnncore.{package} import nothing", {})


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (trainer, hints.TRAINER),
        (lambda **given: trainer().fit(1, **given), hints.FIT),
        (rnncore.Vocabulary.of, hints.OF),
        (lambda **given: model().stream(**given), hints.ROWS),
        (rnncore.CRF(3).decode, hints.DECODE),
    ],
)
def test_keywords_of_others(call: Any, names: dict[str, str]) -> None:
    for name, hint in names.items():
        with pytest.raises(TypeError, match=re.escape(f" takes no {name!r}: {hint}")):
            call(**{name: 1})
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        call(nothing=1)


def test_signatures_are_kept() -> None:
    assert "patience" in inspect.signature(Trainer.fit).parameters
    assert "validate" in inspect.signature(Trainer).parameters
    assert list(inspect.signature(rnncore.Vocabulary.of).parameters) == [
        "sequences",
        "least",
        "most",
    ]
    assert list(inspect.signature(model().stream).parameters) == ["batch"]


def test_words_in_the_place_of_numbers() -> None:
    estimators = pytest.importorskip("rnncore.estimators")
    tags = [["D", "N"], ["D", "N"]]
    for words in (["the", "dog"], ("the", "dog"), np.array(["the", "dog"])):
        with pytest.raises(
            TypeError, match=re.escape(f"X must hold numbers, got strings: {hints.WORDS}")
        ):
            estimators.SequenceLabeller().fit([words, words], tags)
    with pytest.raises(TypeError, match="X must hold numbers, got strings"):
        estimators.SequenceClassifier().fit(["the dog", "a cat"], [0, 1])
    with pytest.raises(
        TypeError, match=re.escape(f"tokens must be strings, got a list: {hints.VOCABULARY}")
    ):
        rnncore.Vocabulary([["the", "dog"]])
    with pytest.raises(TypeError, match="tokens must be one sequence of strings"):
        VOCABULARY.encode([["a"], ["a"]])


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_not_copied(take: Any) -> None:
    for stream in (model().stream(), rnncore.RowConvolution(3, 2).stream()):
        with pytest.raises(TypeError, match=re.escape(f"copied or pickled: {hints.COPIED}")):
            take(stream)


def test_a_module_of_ones_own_may_have_them() -> None:
    class Mine(rnncore.Module):
        train = True

        def __init__(self) -> None:
            super().__init__()
            self.to = rnncore.Linear(3, 4, seed=0)

        def forward(self, x: Any) -> Any:
            return self.to(x)

    mine = Mine()
    assert mine.train
    assert mine.forward(X).shape == (5, 2, 4)
    assert {"train", "to", "forward"} <= set(dir(mine))
    assert "eval" not in dir(mine)
    assert list(mine.params) == ["to.weight", "to.bias"]
    with pytest.raises(NotImplementedError, match="Mine must define __call__"):
        mine(X)
    with pytest.raises(NotImplementedError, match="Mine must define vjp"):
        mine.vjp(X)


@pytest.mark.parametrize("name", hints.CONSTRUCTOR)
def test_keywords_of_constructors(name: str) -> None:
    for kind in (*LAYERS.values(), *STEPS.values(), rnncore.Embedding):
        if name in inspect.signature(kind).parameters:
            continue
        message = re.escape(f"{kind.__name__} takes no '{name}': {hints.CONSTRUCTOR[name]}")
        with pytest.raises(TypeError, match=message):
            kind(3, 4, **{name: 1})


def test_keywords_of_optimisers_and_losses() -> None:
    for make, said in (
        (lambda: rnncore.AdamW(model(), learning_rate=1e-3), "AdamW takes no 'learning_rate': w"),
        (lambda: rnncore.SGD(params=model().params), "SGD takes no 'params': give the module"),
        (lambda: rnncore.SoftmaxCrossEntropy(weight=[1, 2]), "no 'weight': write class_weight"),
        (lambda: rnncore.BinaryCrossEntropy(from_logits=True), "no 'from_logits': losses take"),
    ):
        with pytest.raises(TypeError, match=said):
            make()
    optimiser = pickle.loads(pickle.dumps(rnncore.Adam(model(), lr=0.5)))
    assert optimiser.lr == 0.5
    for kind in (rnncore.AdamW, rnncore.optim.Optimiser):
        assert "lr" in inspect.signature(kind).parameters


def test_keywords_that_are_handed_on() -> None:
    with pytest.raises(TypeError, match="LSTM takes no 'units': write hidden_size"):
        rnncore.DeepRNN(3, 4, cell="lstm", units=3)


def test_a_class_of_ones_own_may_take_them() -> None:
    class Mine(rnncore.Module):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.units = units

    assert Mine(units=3).units == 3


@pytest.mark.parametrize("name", hints.CALL)
def test_keywords_of_calls(name: str) -> None:
    step = rnncore.GRUCell(3, 4, seed=0)
    calls = [step] + [call for m in (model(), rnncore.LSTM(3, 4)) for call in (m, m.vjp)]
    for call in calls:
        with pytest.raises(TypeError, match=f"takes no '{name}': {re.escape(hints.CALL[name])}"):
            call(X[0] if call is step else X, **{name: None})
        assert "others" not in inspect.signature(call).parameters
    with pytest.raises(TypeError, match=r"a call of Chain takes no 'speed'$"):
        model()(X, speed=2)


def test_an_optimiser_takes_the_module() -> None:
    for wrong in (model().params, [*model().params.values()], iter([model()])):
        with pytest.raises(TypeError, match=r"give the module itself, as in Adam\(model\)"):
            rnncore.Adam(wrong)
        with pytest.raises(TypeError, match=r"give the module itself"):
            rnncore.clip_grad_norm(wrong, 1.0)


def test_a_chain_takes_layers_one_by_one() -> None:
    with pytest.raises(
        TypeError, match=r"layer 0 must be a Module, got list: write Chain\(\*layer"
    ):
        rnncore.Chain([rnncore.Linear(3, 4)])


def test_arrays_of_another_dtype() -> None:
    wide = X.astype(np.float64)
    said = r'x is float64, .* float32: write x\.astype\(np\.float32\), or .* dtype="float64"$'
    with pytest.raises(TypeError, match=said):
        model()(wide)
    with pytest.raises(TypeError, match=r"write np\.asarray\(x, np\.float32\), or build"):
        model()([*wide])
    y, _ = model()(np.asarray([*wide], np.float32))
    with pytest.raises(TypeError, match=r"float32: write targets\.astype\(np\.float32\)$"):
        rnncore.MeanSquaredError()(y, wide[..., :2])
    with pytest.raises(TypeError, match=r"int64: write logits\.astype\(np\.float32\)$"):
        rnncore.BinaryCrossEntropy()(np.zeros(3, np.int64), np.zeros(3))


def test_rows_of_a_one_in_place_of_classes() -> None:
    logits, rows = np.zeros((3, 4), np.float32), np.eye(4)[[0, 2, 1]]
    with pytest.raises(ValueError, match=r"write targets\.argmax\(-1\)"):
        rnncore.SoftmaxCrossEntropy()(logits, rows)
    rnncore.SoftmaxCrossEntropy()(logits, rows.argmax(-1))


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.zeros((5, 3)), columns=["a", "b", "c"])
    with pytest.raises(TypeError, match=r"x is float64, .*: write x\.astype\(np\.float32\)"):
        model()(frame)
    y, _ = model()(frame.astype(np.float32))
    assert y.shape == (5, 2)
    with pytest.raises(TypeError, match=r"x is DataFrame of .*: give an array of numbers"):
        model()(frame.assign(c="x"))


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.zeros(5, 2, 3)
    assert np.array_equal(model()(x)[0], model()(X)[0])
    with pytest.raises(TypeError, match=r"write np\.asarray\(x, np\.float32\)"):
        model()(x.double())
    with pytest.raises(TypeError, match=r"x must be an array, got Tensor: .*detach\(\)"):
        model()(x.requires_grad_())
    packed = torch.nn.utils.rnn.pack_padded_sequence(x.detach(), torch.tensor([5, 2]))
    with pytest.raises(TypeError, match=r"got a PackedSequence: .*lengths=lengths"):
        model()(packed)


def test_files_of_others(tmp_path: Path) -> None:
    for end, reader in (
        (".pt", "torch"),
        (".ckpt", "torch"),
        (".keras", "keras"),
        (".h5", "keras"),
    ):
        path = tmp_path / f"model{end}"
        path.write_bytes(b"something else")
        for load in (rnncore.load, model().load):
            with pytest.raises(ValueError, match=rf"rnncore\.convert\.from_{reader} reads"):
                load(path)


def test_words_in_place_of_numbers() -> None:
    embedding = rnncore.Embedding(4, 2, seed=0)
    with pytest.raises(TypeError, match=r"x must be integers, got <U3: rnncore\.Vocabulary\.of"):
        embedding(["the", "dog"])
    with pytest.raises(TypeError, match=r"x must be integers, got float64$"):
        embedding(np.zeros(2))


def test_a_reading_as_a_stream() -> None:
    readout = rnncore.Readout(rnncore.GRU(3, 4, seed=0))
    chain = rnncore.Chain(readout, rnncore.Linear(4, 2, seed=1))
    with pytest.raises(
        TypeError, match=r"Readout cannot .*no output for each frame.*\(readout\.lay"
    ):
        chain.stream()
    stream = rnncore.Chain(readout.layer, chain[1]).stream(batch=2)
    assert np.array_equal([stream.step(frame) for frame in X][-1], chain(X)[0])
