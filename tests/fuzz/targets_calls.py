"""Calls of every public class and function, with arguments that nobody should give them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rnncore
import seq2seq_models
import streams
from rnncore import Module, batches, brackets, convert, init, losses, optim, schedules, search, text
from rnncore.configuration import Builder, describe
from rnncore.order import Order, grid
from rnncore.training import Trainer, evaluate

from .child import MEGABYTE, Target
from .hostile import AskedForMuch, Hostile, same
from .targets_files import all_models, redraw

#: What one input does: calls, through `Hostile.call` above all.
Program = Callable[[Hostile], Any]

#: What any call may raise, by its documentation: a wrong kind, a wrong value.
_ALWAYS = (TypeError, ValueError)
#: And what the documentation of some says besides.
_USED = (RuntimeError,)  # a pullback that has run, a stream that is finished
_NOT_FINITE = (FloatingPointError,)  # a training loss that is not finite
_NO_FILE = (OSError,)


def targets() -> list[Target]:
    """One for each family of calls."""
    made = [
        _target("layers", [_layer], *_USED, share=4),
        _target("constructors", [_constructor], share=2),
        _target("streams", [_stream], *_USED, share=3),
        _target("losses", _LOSSES, *_USED, share=2),
        _target("optimisers", [_optimiser]),
        _target("values", _VALUES),
        _target("forests", _FORESTS, *_USED, share=2),
        _target("searches", _SEARCHES, share=0.5),
        _target("texts", _TEXTS),
        _target("batches", _BATCHES),
        _target("training", [_training], *_USED, *_NOT_FINITE, share=0.5),
        _target("parameters_of", [_parameters], KeyError),
        _target("conversions", [_conversion], *_NO_FILE, share=0.3),
    ]
    if find_spec("sklearn"):
        from . import targets_estimators

        made.append(_target("estimators", targets_estimators.PROGRAMS, *_NOT_FINITE, share=0.2))
    return made


class Different(AssertionError):
    """A call whose outcome depends on how its arrays lie in memory."""


def _target(
    name: str, programs: list[Program], *more: type[BaseException], share: float = 1.0
) -> Target:
    documented = _ALWAYS + more
    refused = (*documented, MemoryError, AskedForMuch)

    def outcome(program: Program, seed: int, plain: bool) -> Any:
        hostile = Hostile(seed, plain)
        try:
            program(hostile)
        except refused as error:
            return error
        return hostile.results

    def prepare(luck: Random, path: Path) -> Callable[[], Any]:
        program, seed = luck.choice(programs), luck.getrandbits(64)

        def action() -> None:
            got = outcome(program, seed, False)
            want = outcome(program, seed, True)
            beyond = (MemoryError, AskedForMuch)
            if not isinstance(got, beyond) and not isinstance(want, beyond):
                _compare(got, want)
            if isinstance(got, BaseException):
                raise got

        return action

    memory = 512 * MEGABYTE
    return Target(
        name, prepare, (*documented, AskedForMuch), share=share, memory=memory, may_ask=True
    )


def _compare(got: Any, want: Any) -> None:
    if isinstance(got, BaseException):
        if type(got) is not type(want):
            raise Different(f"got {got!r}, arrays in one piece give {want!r:.500}") from got
    elif isinstance(want, BaseException):
        raise Different(f"accepted, but arrays in one piece give {want!r}") from want
    elif not same(got, want):
        raise Different(f"got {got!r:.1000}, arrays in one piece give {want!r:.1000}")


# Modules


class Twisted:
    """Stands for a module where it is called; what it is given is changed before it gets there."""

    def __init__(self, module: Module, hostile: Hostile) -> None:
        self._module, self._hostile = module, hostile

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return partial(self._hostile.call, value) if inspect.ismethod(value) else value

    def __call__(self, *args: Any, **options: Any) -> Any:
        module, hostile = self._module, self._hostile
        if module.recurrent and hostile.maybe(0.3):
            options["state"] = copy.deepcopy(module(*args, **options)[1])
        if module.recurrent and np.ndim(args[0]) == 3 and hostile.maybe(0.3):
            options["lengths"] = np.array([4, 2])
        if hostile.maybe(0.4):
            return hostile.call(module, *args, **options)
        out, pullback = hostile.call(module.vjp, *args, **options)
        grads = out if module.recurrent or hostile.maybe(0.1) else (out,)
        hostile.call(pullback, *grads)
        hostile.results.append(dict(module.grads))
        if hostile.maybe(0.1):
            pullback(*grads)
        return out


def _layer(hostile: Hostile) -> None:
    """A model of any class, called as the tests call it."""
    model, call = hostile.luck.choice(all_models())
    call(Twisted(copy.deepcopy(model), hostile))


def _constructor(hostile: Hostile) -> None:
    """A class made with other arguments than those of a model, and called if it lets itself."""
    model, call = hostile.luck.choice(all_models())
    hostile.rate = 0.3
    given = describe(model)["arguments"]
    arguments = {name: Builder().build(value) for name, value in given.items()}
    if isinstance(arguments.get("layers"), tuple) and type(model) is rnncore.Chain:
        made = hostile.call(type(model), *arguments["layers"])
    else:
        names = list(inspect.signature(type(model).__init__).parameters)[1:]
        if names and hostile.maybe(0.3):
            arguments[hostile.luck.choice(names)] = hostile.value()
        made = hostile.call(type(model), **arguments)
    hostile.results.clear()  # weights drawn without a seed
    repr(made)
    call(made)


def _parameters(hostile: Hostile) -> None:
    """Parameters set, replaced and read."""
    model = copy.deepcopy(hostile.luck.choice(all_models())[0])
    state = model.state_dict()
    if not state:
        return
    name, array = hostile.luck.choice(list(state.items()))
    match hostile.luck.randrange(4):
        case 0:
            hostile.call(model.load_state_dict, state)
        case 1:
            hostile.call(model.params.__setitem__, name, array)
        case 2:
            hostile.call(model.params.update, {name: array})
        case 3:
            hostile.call(model.load_state_dict, {name: array, hostile.luck.choice("ab"): array})
    hostile.results.append(model.state_dict())


def _stream(hostile: Hostile) -> None:
    """Everything that a stream does, in any order."""
    luck = hostile.luck
    module = luck.choice([*streams.PROMPT.values(), *streams.DELAYED.values()])
    x = streams.frames(module, 6, 3, seed=1)
    stream = hostile.call(module.stream, 3)
    hostile.results.clear()
    kept = stream.snapshot()
    for _ in range(luck.randint(1, 8)):
        batch = np.arange(stream.batch) % 3
        match luck.randrange(10):
            case 0 | 1 if not stream.looks_ahead:
                hostile.call(stream.step, x[0, batch])
            case 0 | 1 | 2 | 3:
                hostile.call(stream.run, x[: luck.randint(0, 6), batch])
            case 4 if not stream.looks_ahead:
                frame, out = _in_and_out(hostile, stream, x[0, batch])
                hostile.results.append(np.copy(stream.step(frame, out=out)))
            case 4 | 5:
                rows = luck.choice((None, [0], np.array([1]), np.arange(stream.batch) == 1))
                hostile.call(stream.reset, rows)
            case 6 if stream.batch < 40 and not stream.looks_ahead:
                hostile.call(stream.join, luck.randint(1, 3))
            case 7:
                hostile.call(stream.leave, np.array([luck.randrange(4)]))
            case 8:
                if hostile.maybe():
                    kept = stream.snapshot()
                else:
                    hostile.call(stream.restore, kept)
            case _:
                stream.state = hostile.twisted(stream.state, hostile.rate)
    hostile.results.append(stream.snapshot())
    if hostile.maybe(0.2):
        hostile.call(stream.finish)


def _in_and_out(hostile: Hostile, stream: Any, frame: np.ndarray) -> tuple[Any, Any]:
    """A frame, and an array for the outputs that may be the frame, overlap it or not be fit."""
    before = stream.snapshot()
    out = np.zeros_like(stream.step(frame))
    stream.restore(before)
    held = np.zeros(2 * out.size + frame.size, out.dtype)
    match hostile.luck.randrange(6):
        case 0 if out.shape == frame.shape and out.dtype == frame.dtype:
            return frame, frame
        case 1 if out.dtype == frame.dtype:
            over = held[: frame.size].reshape(frame.shape)
            over[...] = frame
            return over, held[frame.size // 2 :][: out.size].reshape(out.shape)
        case 2:
            return frame, held[: 2 * out.size : 2].reshape(out.shape)
        case 3:
            out.flags.writeable = False
        case 4:
            return frame, hostile.other_array(out)
    return hostile.twisted(frame, hostile.rate), out


# Losses, optimisers, training


def _loss(make: Callable[[], losses.Loss], targets: Callable[[Hostile], np.ndarray]) -> Program:
    def program(hostile: Hostile) -> None:
        mask = hostile.luck.choice((None, np.array([[True, False], [True, True], [False, True]])))
        value, pullback = hostile.call(make().vjp, hostile.normal(3, 2, 4), targets(hostile), mask)
        hostile.results.pop()
        hostile.results += [value, hostile.call(pullback, 1.0)]

    return program


_LOSSES = [
    _loss(losses.SoftmaxCrossEntropy, lambda h: h.rng.integers(0, 4, (3, 2))),
    _loss(lambda: losses.SoftmaxCrossEntropy(0.1, "sum"), lambda h: h.rng.integers(0, 4, (3, 2))),
    _loss(losses.BinaryCrossEntropy, lambda h: (h.normal(3, 2, 4) > 0).astype("float32")),
    _loss(losses.MeanSquaredError, lambda h: h.normal(3, 2, 4)),
    lambda h: h.call(losses.length_mask, np.array([2, 1]), 3),
    lambda h: h.call(losses.length_mask, np.array([2, 1]), 3, batch_first=True),
    lambda h: h.call(losses.SoftmaxCrossEntropy, 0.1, "mean"),
    lambda h: h.call(losses.BinaryCrossEntropy, "mean"),
]

_OPTIMISERS = [optim.SGD, optim.Adagrad, optim.Adam, optim.AdamW, optim.RMSprop]


def _optimiser(hostile: Hostile) -> None:
    """An optimiser with any options, its steps, and its state given back."""
    layer = rnncore.GRU(3, 4, dtype=hostile.luck.choice(("float32", "float64")), seed=1)
    kind = hostile.luck.choice(_OPTIMISERS)
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is not parameter.empty and hostile.maybe()
    }
    optimiser = hostile.call(kind, layer, **options)
    for _ in range(2):
        for grad in layer.grads.values():
            grad[...] = hostile.rng.standard_normal(grad.shape)
        hostile.call(optim.clip_grad_norm, layer, 1.0)
        optimiser.step()
    hostile.call(optimiser.load_state_dict, optimiser.state_dict())
    optimiser.step()
    hostile.results.append(optimiser.state_dict())


_INITS = [
    name for name, value in vars(init).items() if inspect.isfunction(value) and name[0] != "_"
]


def _initial(hostile: Hostile) -> None:
    """A function that draws initial values."""
    function = getattr(init, hostile.luck.choice(_INITS))
    known = {"rng": np.random.default_rng(1), "shape": (3, 4), "bound": 0.5, "std": 0.5}
    wanted = inspect.signature(function).parameters.values()
    options = {p.name: known[p.name] for p in wanted if p.name in known}
    hostile.call(function, **options)


def _rate(hostile: Hostile) -> None:
    made = hostile.luck.choice(
        [
            (schedules.constant, 0.1),
            (schedules.step_decay, 0.1, 3, 0.5),
            (schedules.exponential, 0.1, 0.9),
            (schedules.warmup_cosine, 0.1, 10, 3, 0.01),
        ]
    )
    hostile.call(made[0], *made[1:])(hostile.luck.choice((0, 1, 5, 10, 100)))
    hostile.results.clear()


_VALUES: list[Program] = [
    _initial,
    _rate,
    lambda h: h.call(rnncore.GRU, 3, 4, init="orthogonal", seed=1) and h.results.clear(),
    lambda h: h.call(rnncore.set_num_threads, 2),
]


def _training(hostile: Hostile) -> None:
    """A trainer with batches of any kind."""
    model = rnncore.Chain(rnncore.LSTM(2, 3, seed=1), rnncore.Linear(3, 2, seed=2))
    batch = hostile.twisted(
        (hostile.normal(4, 2, 2), np.zeros((4, 2), int), np.array([4, 2]), np.ones((4, 2), bool)),
        hostile.rate,
    )
    loss = losses.SoftmaxCrossEntropy()
    adam = optim.Adam(model)
    made = hostile.call(Trainer, model, loss, adam, [batch], clip_norm=1.0, seed=1)
    hostile.results.clear()
    made.fit(2, quiet=True)
    hostile.results += [model.state_dict(), evaluate(model, loss, [batch])]


# Trees


def _forest(hostile: Hostile) -> None:
    """A forest from arrays, all that is read from it, and a layer over it."""
    parent, begin = np.array([2, 2, 4, 4, -1, 1, -1]), np.array([0, 5, 7])
    forest = hostile.call(rnncore.Forest, parent, begin)
    hostile.results.clear()
    names = ("roots", "leaves", "children", "waves", "levels", "spans", "child_count", "position")
    hostile.results += [getattr(forest, name) for name in names]
    hostile.call(forest.select, np.array([0]))
    hostile.call(forest.rows, np.array([0]))
    layer = hostile.luck.choice((rnncore.ChildSumTreeLSTM, rnncore.TreeGRU))(3, 4, seed=1)
    x = hostile.normal(forest.nodes, 3)
    hostile.call(layer, x, forest)


def _nested(hostile: Hostile) -> None:
    forest = hostile.call(rnncore.Forest.from_nested, [((1, 2), 3), (1, (2, (3, 4)))])
    forest.to_nested()


_FORESTS: list[Program] = [
    _forest,
    _nested,
    lambda h: h.call(rnncore.Forest.from_parents, [np.array([1, -1]), np.array([-1])]),
    lambda h: h.call(rnncore.Forest.join, [rnncore.Forest([-1], [0, 1])] * 2),
    lambda h: h.call(Order.of, np.array([0, 3]), np.array([[-1, 0, 1], [-1, -1, 0]]).T),
    lambda h: h.call(grid, 2, 3, 2),
    lambda h: h.call(brackets.read, ["(S (NP the cat) sat)", "((a b) c)"], labelled=True),
    lambda h: h.call(
        rnncore.Parser(3, 4, seed=1).parse, h.normal(5, 3), [3, 2], method="beam", width=2, best=2
    ),
    lambda h: h.call(
        rnncore.Parser(3, 4, seed=1).margin,
        h.normal(3, 3),
        [3],
        rnncore.Forest.from_nested([((1, 2), 3)]),
        kappa=0.1,
    ),
    lambda h: h.call(
        rnncore.RecursiveAutoencoder(3, 2, seed=1),
        h.normal(5, 3),
        [3, 2],
        targets=np.array([0, 1]),
    ),
    lambda h: h.call(
        rnncore.bracketing, *[rnncore.Forest.from_nested([((1, 2), 3)]) for _ in range(2)]
    ),
]


# Searches, text, batches


def _search(function: Callable[..., Any], **rules: Any) -> Program:
    def program(hostile: Hostile) -> None:
        build = hostile.luck.choice(list(seq2seq_models.MODELS.values()))
        source, _ = seq2seq_models.tokens()
        lengths = hostile.luck.choice((None, seq2seq_models.SOURCE_LENGTHS))
        known = {"bos": 1, "eos": 2, "max_length": 6} | rules
        hostile.call(function, redraw(build("float32")), source, lengths, **known)

    return program


_SEARCHES = [
    _search(search.greedy, min_length=2, no_repeat=2),
    _search(search.sample, count=2, temperature=0.7, top_k=3, top_p=0.9, seed=1),
    _search(search.beam, width=3, n_best=2, length_penalty=0.6, coverage_penalty=0.2, prune=5.0),
    _search(search.beam, width=2, prefix=np.array([[3, 4]] * 4)),
]


def _character_model() -> text.CharModel:
    config = text.CharConfig(hidden=3, layers=2, embedding=2)
    return text.CharModel(text.Vocabulary("abc"), config, seed=1)


_TEXTS: list[Program] = [
    lambda h: h.call(text.Vocabulary, "abé"),
    lambda h: h.call(text.Vocabulary.of, "hello"),
    lambda h: h.call(text.Vocabulary("abé").encode, "abba"),
    lambda h: h.call(text.Vocabulary("abé").decode, np.array([0, 2, 1])),
    lambda h: h.call(_character_model().sample, "ab", 3, temperature=0.5, seed=1),
    lambda h: h.call(_character_model().evaluate, "abcabc"),
    lambda h: h.call(text.CharConfig, hidden=3, layers=2, embedding=2, dropout=0.1),
    lambda h: h.call(text.split, "abcdefghij", 0.9),
    lambda h: h.call(text.streams, np.arange(40), 2, 5, 3),
    lambda h: h.call(rnncore.Vocabulary, ["a", "b", "<unk>"], unknown="<unk>"),
    lambda h: h.call(rnncore.Vocabulary.of, [["a", "b"], ["a"]]),
    lambda h: h.call(rnncore.shifted, np.array([[3, 4], [5, 6]]), 1),
]

_BATCHES: list[Program] = [
    lambda h: h.call(batches.padded, [h.normal(3, 2), h.normal(1, 2)], 0),
    lambda h: h.call(batches.bucketed, np.array([3, 1, 4, 1, 5]), 2),
    lambda h: h.call(batches.bucketed, np.array([3, 1, 4, 1, 5]), 2, np.random.default_rng(1), 0.2),
    lambda h: [*h.call(batches.chunked, h.normal(7, 2, 3), np.zeros((7, 2), int), 3)],
]


# Conversions

_JUDGED: list[tuple[Callable[..., Any], Callable[..., Any], str]] = [
    (convert.to_rtneural, convert.from_rtneural, "model.json")
]
if find_spec("onnx"):
    _JUDGED.append((convert.to_onnx, lambda path: convert.from_onnx(path).module(), "model.onnx"))


def _conversion(hostile: Hostile) -> None:
    """A model written and read back: refused by name, or the same within the project's bounds."""
    model = copy.deepcopy(hostile.luck.choice(all_models())[0])
    hostile.rate /= 4
    with TemporaryDirectory() as folder:
        if hostile.maybe(0.3):
            state = hostile.call(convert.to_torch_state_dict, model)
            hostile.call(convert.from_torch, state)
        else:
            write, read, name = hostile.luck.choice(_JUDGED)
            path = f"{folder}/{name}"
            hostile.call(write, model, path, verify=True, report=lambda check: None)
            read(path)
    hostile.results.clear()
