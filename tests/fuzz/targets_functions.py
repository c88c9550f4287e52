"""Calls of functions, and of classes that are no modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import rnncore
from rnncore import batches, init, losses, optim, schedules, search, text
from rnncore.training.trainer import Trainer, evaluate
from rnncore.trees import brackets
from rnncore.trees.order import Order, grid

from tests.support import seq2seq_models

from .hostile import Hostile, Program
from .seeds import redraw

# Losses, optimisers, training


def _loss(make: Callable[[], losses.Loss], targets: Callable[[Hostile], np.ndarray]) -> Program:
    def program(hostile: Hostile) -> None:
        mask = hostile.luck.choice((None, np.array([[True, False], [True, True], [False, True]])))
        value, pullback = hostile.call(make().vjp, hostile.normal(3, 2, 4), targets(hostile), mask)
        hostile.results.pop()
        hostile.results += [value, hostile.call(pullback, 1.0)]

    return program


def _weighted_loss(hostile: Hostile) -> None:
    """Weights of classes, and targets that are ignored."""
    weight = np.array([1.0, 0.5, 2.0, 0.0])
    loss = hostile.call(losses.SoftmaxCrossEntropy, 0.1, class_weight=weight, ignore_index=-1)
    repr(hostile.results.pop())
    targets = hostile.rng.integers(-1, 4, (3, 2))
    value, pullback = hostile.call(loss.vjp, hostile.normal(3, 2, 4), targets)
    hostile.results.pop()
    hostile.results += [value, hostile.call(pullback, 1.0)]


LOSSES = [
    _weighted_loss,
    _loss(losses.SoftmaxCrossEntropy, lambda h: h.rng.integers(0, 4, (3, 2))),
    _loss(lambda: losses.SoftmaxCrossEntropy(0.1, "sum"), lambda h: h.rng.integers(0, 4, (3, 2))),
    _loss(losses.BinaryCrossEntropy, lambda h: (h.normal(3, 2, 4) > 0).astype("float32")),
    _loss(losses.MeanSquaredError, lambda h: h.normal(3, 2, 4)),
    lambda h: h.call(losses.length_mask, np.array([2, 1]), 3),
    lambda h: h.call(losses.length_mask, np.array([2, 1]), 3, batch_first=True),
    lambda h: h.call(losses.SoftmaxCrossEntropy, 0.1, "mean"),
    lambda h: h.call(losses.BinaryCrossEntropy, "mean"),
]

_KINDS = [optim.SGD, optim.Adagrad, optim.Adam, optim.AdamW, optim.RMSprop]


def _optimiser(hostile: Hostile) -> None:
    """An optimiser with any options, its steps, and its state given back."""
    layer = rnncore.GRU(3, 4, dtype=hostile.luck.choice(("float32", "float64")), seed=1)
    kind = hostile.luck.choice(_KINDS)
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


OPTIMISERS: list[Program] = [_optimiser]

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


VALUES: list[Program] = [
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
    if hostile.maybe() and len(batch) == 4:
        batch = (*batch, False, None, hostile.twisted(np.array([0.5, 2.0]), hostile.rate))
    loss = losses.SoftmaxCrossEntropy()
    adam = optim.Adam(model)
    made = hostile.call(Trainer, model, loss, adam, [batch], clip_norm=1.0, seed=1)
    hostile.results.clear()
    made.fit(2, quiet=True)
    hostile.results += [model.state_dict(), evaluate(model, loss, [batch])]


TRAINING: list[Program] = [_training]


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


FORESTS: list[Program] = [
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


SEARCHES = [
    _search(search.greedy, min_length=2, no_repeat=2),
    _search(search.sample, count=2, temperature=0.7, top_k=3, top_p=0.9, seed=1),
    _search(search.beam, width=3, n_best=2, length_penalty=0.6, coverage_penalty=0.2, prune=5.0),
    _search(search.beam, width=2, prefix=np.array([[3, 4]] * 4)),
]


def _character_model() -> text.CharModel:
    config = text.CharConfig(hidden=3, layers=2, embedding=2)
    return text.CharModel(text.Vocabulary("abc"), config, seed=1)


def _sample(prompt: Any, length: Any, **options: Any) -> str:
    """A text of ten thousand million characters may be had, in an hour."""
    length = min(length, 1000) if isinstance(length, (int, np.integer)) else length
    return _character_model().sample(prompt, length, **options)


TEXTS: list[Program] = [
    lambda h: h.call(text.Vocabulary, "abé"),
    lambda h: h.call(text.Vocabulary.of, "hello"),
    lambda h: h.call(text.Vocabulary("abé").encode, "abba"),
    lambda h: h.call(text.Vocabulary("abé").decode, np.array([0, 2, 1])),
    lambda h: h.call(_sample, "ab", 3, temperature=0.5, seed=1),
    lambda h: h.call(_character_model().evaluate, "abcabc"),
    lambda h: h.call(text.CharConfig, hidden=3, layers=2, embedding=2, dropout=0.1),
    lambda h: h.call(text.split, "abcdefghij", 0.9),
    lambda h: h.call(text.streams, np.arange(40), 2, 5, 3),
    lambda h: h.call(rnncore.Vocabulary, ["a", "b", "<unk>"], unknown="<unk>"),
    lambda h: h.call(rnncore.Vocabulary.of, [["a", "b"], ["a"]]),
    lambda h: h.call(rnncore.shifted, np.array([[3, 4], [5, 6]]), 1),
]

BATCHES: list[Program] = [
    lambda h: h.call(batches.padded, [h.normal(3, 2), h.normal(1, 2)], 0),
    lambda h: h.call(batches.bucketed, np.array([3, 1, 4, 1, 5]), 2),
    lambda h: h.call(batches.bucketed, np.array([3, 1, 4, 1, 5]), 2, np.random.default_rng(1), 0.2),
    lambda h: [*islice(h.call(batches.chunked, h.normal(7, 2, 3), np.zeros((7, 2), int), 3), 100)],
]
