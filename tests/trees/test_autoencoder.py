"""The recursive autoencoder: against the reference, differences, and itself in other company."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rnncore import Adam, Forest, RecursiveAutoencoder
from rnncore.reference import IDENTITY, TANH, activation
from rnncore.reference.autoencoder import RecursiveAutoencoder as Reference

from tests.support.cases import TOLERANCE
from tests.support.compare import assert_close, assert_gradients_of, assert_same

NAMES = {
    "W": "encoder.0.weight",
    "b": "encoder.0.bias",
    "W'": "decoder.0.weight",
    "b'": "decoder.0.bias",
    "V": "classifier.weight",
    "v": "classifier.bias",
}
FORMS: dict[str, tuple[dict[str, Any], Reference]] = {
    "plain": ({}, Reference()),
    "not normalised": ({"normalise": False}, Reference(normalise=False)),
    "tanh restored": ({"reconstruction": "tanh"}, Reference(psi=TANH)),
    "linear": ({"nonlinearity": "identity"}, Reference(phi=IDENTITY)),
    "any activation": (
        {"nonlinearity": ("elu", 0.5), "reconstruction": "softsign"},
        Reference(phi=activation(("elu", 0.5)), psi=activation("softsign")),
    ),
    "unfolding": ({"unfolding": True}, Reference(unfolding=True)),
    "unfolding, tanh": (
        {"unfolding": True, "reconstruction": "tanh", "normalise": False},
        Reference(unfolding=True, psi=TANH, normalise=False),
    ),
}
LENGTHS = [1, 4, 2, 9, 1, 6]


def random_trees(rng: np.random.Generator, lengths: list[int]) -> list[Any]:
    """A binary tree over so many leaves for each sentence, leaves numbered from 0 in each."""

    def tree(first: int, last: int) -> Any:
        if last - first == 1:
            return first
        middle = int(rng.integers(first + 1, last))
        return tree(first, middle), tree(middle, last)

    return [tree(0, length) for length in lengths]


def sentences(x: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    return np.split(x, np.cumsum(lengths)[:-1])


def wanted(
    reference: Reference,
    layer: RecursiveAutoencoder,
    x: np.ndarray,
    trees: list[Any],
    targets: list[int],
) -> dict[str, np.ndarray]:
    """Loss, vectors, errors and gradients by the reference, in float64."""
    params = {n: layer.params[m].astype("f8") for n, m in NAMES.items() if m in layer.params}
    parts = sentences(x.astype("f8"), LENGTHS)
    found = [
        reference.loss(tree, part, label, params)
        for tree, part, label in zip(trees, parts, targets, strict=True)
    ]
    count = len(trees)
    states = [
        node.p
        for tree, part in zip(trees, parts, strict=True)
        for node in reference.fold(tree, part, params).postorder()
    ]
    grads = {NAMES[n]: sum(tree[3][n] for tree in found) / count for n in params}
    return {
        "loss": np.array(sum(tree[0] for tree in found) / count),
        "states": np.array(states),
        "errors": np.concatenate([tree[1] for tree in found]),
        "dx": np.concatenate([tree[2] for tree in found]) / count,
    } | grads


def results(
    layer: RecursiveAutoencoder, x: np.ndarray, targets: Any, **where: Any
) -> dict[str, np.ndarray]:
    """The same by the layer."""
    layer.zero_grad()
    states, forest = layer.encode(x, **where)
    loss, pullback = layer.vjp(x, **where, targets=targets)
    dx = pullback()
    np.testing.assert_equal(layer(x, **where, targets=targets), loss)
    named = {"loss": np.array(loss), "states": states, "errors": layer.errors(x, forest), "dx": dx}
    return named | dict(layer.grads)


def made(form: str, classes: int = 0, dtype: str = "float64", **options: Any) -> Any:
    return RecursiveAutoencoder(5, classes, dtype=dtype, seed=0, **FORMS[form][0], **options)


class TestAgainstTheReference:
    @pytest.mark.parametrize("dtype", TOLERANCE)
    @pytest.mark.parametrize("classes", [0, 3])
    @pytest.mark.parametrize("form", FORMS)
    def test_on_given_trees(self, form: str, classes: int, dtype: str) -> None:
        rng = np.random.default_rng(1)
        layer = made(form, classes, dtype, alpha=0.3)
        x = rng.standard_normal((sum(LENGTHS), 5)).astype(dtype)
        trees = random_trees(rng, LENGTHS)
        targets = [2, 0, -1, 1, -1, 0] if classes else [-1] * 6
        forest = Forest.from_nested(trees)
        got = results(layer, x, targets if classes else None, forest=forest)
        want = wanted(replace(FORMS[form][1], alpha=0.3), layer, x, trees, targets)
        assert_close(got, want, TOLERANCE[dtype])

    @pytest.mark.parametrize("form", FORMS)
    def test_on_found_trees(self, form: str) -> None:
        rng = np.random.default_rng(2)
        layer = made(form)
        x = rng.standard_normal((sum(LENGTHS), 5))
        params = {n: layer.params[m] for n, m in NAMES.items() if m in layer.params}
        trees = [FORMS[form][1].greedy(part, params) for part in sentences(x, LENGTHS)]
        _, forest = layer.encode(x, LENGTHS)
        np.testing.assert_array_equal(forest.parent, Forest.from_nested(trees).parent)
        got = results(layer, x, None, lengths=LENGTHS)
        assert_close(got, wanted(FORMS[form][1], layer, x, trees, [-1] * 6), 1e-12)

    @pytest.mark.parametrize("dtype", ["u1", "i2", "u8"])
    def test_classes_of_any_integers(self, dtype: str) -> None:
        rng = np.random.default_rng(5)
        layer, x = made("plain", 3), rng.standard_normal((5, 5))
        want = layer(x, [2, 3], targets=[1, 2])
        assert layer(x, [2, 3], targets=np.array([1, 2], dtype)) == want


class TestDifferences:
    @pytest.mark.parametrize("form", FORMS)
    def test_gradients_agree(self, form: str) -> None:
        rng = np.random.default_rng(3)
        layer = made(form, 3)
        forest = Forest.from_nested(random_trees(rng, LENGTHS))
        x = rng.standard_normal((sum(LENGTHS), 5))
        targets = rng.integers(-1, 3, forest.nodes)

        def loss() -> float:
            return layer(x, forest=forest, targets=targets)

        dx = layer.vjp(x, forest=forest, targets=targets)[1](2.0) / 2
        params = [(param, layer.grads[name] / 2) for name, param in layer.params.items()]
        assert all(gradient.any() for _, gradient in params)
        assert_gradients_of(loss, [(x, dx), *params])


class TestToTheBit:
    @pytest.mark.parametrize("form", FORMS)
    def test_a_sentence_alone_and_in_company(self, form: str) -> None:
        rng = np.random.default_rng(4)
        layer = made(form, dtype="float32")
        x = rng.standard_normal((sum(LENGTHS), 5)).astype("f")
        together, forest = layer.encode(x, LENGTHS)
        for n, part in enumerate(sentences(x, LENGTHS)):
            states, alone = layer.encode(part, LENGTHS[n : n + 1])
            assert_same({"states": together[forest.tree(n)]}, {"states": states})
            assert alone.to_nested() == forest.select([n]).to_nested()
            np.testing.assert_array_equal(alone.parent, forest.select([n]).parent)

    def test_rows_in_any_order(self) -> None:
        rng = np.random.default_rng(5)
        layer = made("plain")
        postorder = Forest.from_nested([((0, 1), (2, 3))])  # rows: 0 1 (01) 2 3 (23) root
        other = Forest.from_parents([[-1, 0, 0, 1, 1, 2, 2]])
        x = rng.standard_normal((4, 5))
        rows = [3, 4, 1, 5, 6, 2, 0]
        states = layer.encode(x, forest=other)[0][rows]
        assert_same({"h": states}, {"h": layer.encode(x, forest=postorder)[0]})

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
    def test_what_is_no_number_stays_in_its_sentence(self, bad: float, form: str) -> None:
        rng = np.random.default_rng(6)
        layer = made(form)
        x = rng.standard_normal((sum(LENGTHS), 5))
        before = results(layer, x, None, lengths=LENGTHS)
        x[1] = bad  # the first word of the second sentence
        after = results(layer, x, None, lengths=LENGTHS)
        _, forest = layer.encode(x, LENGTHS)
        others = np.repeat(np.arange(6) != 1, np.diff(forest.begin))
        words = np.repeat(np.arange(6) != 1, LENGTHS)
        assert_same(
            {"states": after["states"][others], "dx": after["dx"][words]},
            {"states": before["states"][others], "dx": before["dx"][words]},
        )
        assert not np.isfinite(after["loss"])

    def test_zero_stays_zero(self) -> None:
        layer = made("plain")
        layer.params["encoder.0.bias"].fill(0)
        loss, pullback = layer.vjp(np.zeros((3, 5)), [3])
        assert np.isfinite(loss)
        assert np.isfinite(pullback()).all()


class TestShapes:
    @pytest.mark.parametrize("form", ["plain", "unfolding"])
    @pytest.mark.parametrize("lengths", [[], [1], [1, 1]])
    def test_nothing_to_merge(self, form: str, lengths: list[int]) -> None:
        layer = made(form, 2)
        x = np.ones((len(lengths), 5))
        states, _ = layer.encode(x, lengths)
        assert_same({"states": states}, {"states": x})
        loss, pullback = layer.vjp(x, lengths)
        assert loss == 0
        assert not pullback().any()

    def test_long(self) -> None:
        rng = np.random.default_rng(7)
        layer = RecursiveAutoencoder(2, seed=0)
        x = rng.standard_normal((2000, 2)).astype("f")
        _, forest = layer.encode(x, [2000])
        assert forest.spans[-1].tolist() == [0, 2000]

    def test_deep(self) -> None:
        depth = 5_000  # ten thousand nodes
        forest = comb(depth)
        layer = RecursiveAutoencoder(2, seed=0)
        loss, pullback = layer.vjp(np.ones((depth + 1, 2), "f"), forest=forest)
        assert np.isfinite(loss)
        assert np.isfinite(pullback()).all()

    def test_not_contiguous(self) -> None:
        rng = np.random.default_rng(8)
        layer, x = made("plain"), rng.standard_normal((5, sum(LENGTHS)))
        strided, plain = (results(layer, v, None, lengths=LENGTHS) for v in (x.T, x.T.copy()))
        assert_same(strided, plain)

    def test_once(self) -> None:
        _, pullback = made("plain").vjp(np.ones((2, 5)), [2])
        pullback()
        with pytest.raises(RuntimeError, match="already run"):
            pullback()


def comb(depth: int) -> Forest:
    """A tree that branches to one side."""
    inner, leaves = 2 * np.arange(depth), 2 * np.arange(depth) + 1
    parent = np.zeros(2 * depth + 1, int)
    parent[leaves], parent[inner[1:]], parent[0] = inner, inner[:-1], -1
    parent[2 * depth] = inner[-1]
    return Forest.from_parents([parent])


class TestLearning:
    def test_finds_the_trees_that_it_learnt_to_restore(self) -> None:
        rng = np.random.default_rng(9)
        words = np.linalg.qr(rng.standard_normal((8, 8)))[0].astype("f")
        layer = RecursiveAutoencoder(8, seed=1)
        given = Forest.from_nested([((0, 1), (2, 3))] * 10)
        optimiser = Adam(layer, lr=0.02)
        losses = []
        for _ in range(200):
            layer.zero_grad()
            loss, pullback = layer.vjp(words[pairs_of(rng, 20)], forest=given)
            pullback()
            optimiser.step()
            losses.append(loss)
        assert losses[-1] < losses[0] / 4
        _, found = layer.encode(words[pairs_of(rng, 20)], [4] * 10)
        np.testing.assert_array_equal(found.parent, given.parent)


def pairs_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Pairs of words: word 2 k is always followed by 2 k + 1."""
    return (2 * rng.integers(0, 4, count)[:, None] + [0, 1]).reshape(-1)


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m, x: m(x), "give the lengths of the sentences, or a forest"),
            (lambda m, x: m(x, [2, 2]), r"x must have shape \(4, 5\), a row for each leaf"),
            (lambda m, x: m(x, [3, 0]), r"at least 1 each, got \[3, 0\]"),
            (lambda m, x: m(x, 3), "lengths must have one axis"),
            (lambda m, x: m(x, [3], targets=[0, 0]), r"targets must have shape \(1,\), one for"),
            (lambda m, x: m(x, [3], targets=[2]), r"targets must be in -1\.\.1, got 2\.\.2"),
            (
                lambda m, x: m(x, forest=Forest.from_nested([(0, 1, 2)])),
                "node 3 has 3",
            ),
            (
                lambda m, x: m(x, [3], forest=Forest.from_nested([((0, 1), 2)])),
                "lengths and forest both say where sentences end",
            ),
            (
                lambda m, x: m(x[:2], forest=Forest.from_nested([((0, 1), 2)])),
                r"x must have shape \(3, 5\), got \(2, 5\)",
            ),
            (lambda m, x: RecursiveAutoencoder(5, alpha=2), r"alpha must be in \[0, 1\], got 2"),
            (lambda m, x: RecursiveAutoencoder(5, nonlinearity="sin"), "nonlinearity must be one"),
            (lambda m, x: made("plain")(x, [3], targets=[0]), "targets need classes"),
        ],
    )
    def test_name_what_is_wrong(self, call: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            call(made("plain", 2), np.ones((3, 5)))

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m, x: m(x, [1.5, 1.5]), "lengths must be integers, got float64"),
            (lambda m, x: m(x, forest=[3]), "forest must be a Forest, got list"),
            (lambda m, x: m(x.astype("f8"), [3]), "x is float64, but this module computes in"),
        ],
    )
    def test_of_type(self, call: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            call(made("plain", 2, "float32"), np.ones((3, 5), "f"))
