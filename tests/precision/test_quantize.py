"""`quantize`: every module of the library, what it leaves alone, and what it says no to."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import (
    GRU,
    LSTM,
    Chain,
    Dropout,
    Embedding,
    Linear,
    Module,
    Tanh,
    TiedLinear,
    losses,
    quantize,
    search,
    text,
)
from rnncore.batches import Batch
from rnncore.convert import to_rtneural, to_torch_state_dict
from rnncore.module import named_modules
from rnncore.precision import MOST_COLUMNS, dequantized
from rnncore.recurrent.registry import LAYERS, STEPS
from rnncore.training import Trainer

from tests.support.models import MODELS
from tests.support.parsing import REGIONS, SEARCHES, both_ways, parser, rows
from tests.support.quantized import (
    WEIGHTS,
    arrays,
    assert_same_bits,
    each_model,
    each_type,
    farthest,
    holding,
)
from tests.support.seq2seq_models import MODELS as SEQ2SEQ
from tests.support.seq2seq_models import SOURCE_LENGTHS, lengths, tokens

#: The parts with weights, by class: what `quantize` must turn around.
HOLDERS = (*LAYERS.values(), *STEPS.values(), Linear, Embedding, rnncore.RecursiveNet)


class Trains:
    """Called, it calls vjp."""

    def __init__(self, module: Any) -> None:
        self.module, self.dtype = module, module.dtype

    def __call__(self, *args: Any) -> Any:
        return self.module.vjp(*args)


def two() -> Chain:
    return Chain(GRU(3, 4, seed=0), Chain(Tanh(), Linear(4, 4, seed=1)), Linear(4, 2, seed=2))


X = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4")


class TestEveryModule:
    @each_type
    @pytest.mark.parametrize(("model", "call"), each_model(MODELS))
    def test_computes_with_rounded_weights_or_is_refused(
        self, model: Module, call: Any, weights: Any
    ) -> None:
        parts = holding(model)
        wide = [part for part in parts if part.dtype != np.float32]
        if not parts or wide:
            message = "computes in float64, not in float32" if wide else "no weights to quantize"
            with pytest.raises(ValueError, match=message):
                quantize(model, weights)
            return
        exact, before = call(model), {n: a.copy() for n, a in model.params.items()}
        held = quantize(model, weights)
        assert type(held) is type(model)
        assert {part.weight_type for part in holding(held)} == {weights}
        got, plain = call(held), call(dequantized(held))
        assert {part.weight_type for _, part in named_modules(dequantized(held))} == {None}
        if weights == "bfloat16":
            assert farthest(got, plain) <= 2e-6
        assert farthest(got, plain) < 0.1
        assert farthest(got, exact) < 0.15
        assert not all(map(np.array_equal, arrays(got), arrays(exact)))
        assert_same_bits(call(held), got)
        assert_same_bits(call(model), exact)  # which is untouched
        assert {part.weight_type for _, part in named_modules(model)} == {None}
        assert_same_bits(list(before.values()), list(model.params.values()))
        assert all(array.flags.writeable for array in model.params.values())

    def test_every_class_with_weights_is_among_them(self) -> None:
        found = {type(part) for models, _ in MODELS.values() for m in models for part in holding(m)}
        assert found >= set(HOLDERS)

    @each_type
    def test_what_belongs_to_a_unit_stays_float32(self, weights: Any) -> None:
        """Peepholes, gains and an IndRNN's own weights are in no product."""
        for layer, name in (
            (LSTM(3, 4, peephole=True), "weight_ch_l0"),
            (LSTM(3, 4, layer_norm=True), "norm_l0"),
            (rnncore.IndRNN(3, 4), "weight_hh_l0"),
            (rnncore.IndRNNCell(3, 4), "weight_hh"),
            (LSTM(3, 4), "bias_ih_l0"),
        ):
            held = quantize(layer, weights)
            assert held.params[name].dtype == np.float32
            assert_same_bits([held.params[name]], [layer.params[name]])
            ih = next(n for n in held.params if n.startswith("weight_ih"))
            assert held.params[ih].dtype == {"int8": np.int8, "bfloat16": np.uint16}[weights]

    @each_type
    @pytest.mark.parametrize("name", SEQ2SEQ)
    @pytest.mark.parametrize("ragged", [False, True])
    def test_sequence_to_sequence(self, name: str, ragged: bool, weights: Any) -> None:
        model, (source, target) = SEQ2SEQ[name]("float32"), tokens()
        held, given = quantize(model, weights), lengths(ragged)
        got = held(source, target, **given)
        plain = dequantized(held)(source, target, **given)
        assert farthest(got, plain) <= (2e-6 if weights == "bfloat16" else 0.1)
        assert farthest(got, model(source, target, **given)) < 0.2
        for b in (0, 3):  # a row alone
            own = {n: [v[b]] for n, v in given.items()}
            alone = held(source[:, b : b + 1], target[:, b : b + 1], **own)
            assert_same_bits([alone], [got[:, b : b + 1]])

    @each_type
    @pytest.mark.parametrize(
        "name", ["dot", "feeding, local concat", "bahdanau", "tied", "context"]
    )
    def test_searches(self, name: str, weights: Any) -> None:
        held, (source, _) = quantize(SEQ2SEQ[name]("float32"), weights), tokens()
        options = {"bos": 0, "eos": 1, "max_length": 6}
        found = search.beam(held, source, SOURCE_LENGTHS, width=3, n_best=3, **options)
        plain = search.beam(dequantized(held), source, SOURCE_LENGTHS, width=3, n_best=3, **options)
        for b, best in enumerate(found):
            (alone,) = search.beam(
                held, source[:, b : b + 1], SOURCE_LENGTHS[b : b + 1], width=3, n_best=3, **options
            )
            for one, other in zip(best, alone, strict=True):
                assert (one.tokens.tolist(), one.log_prob) == (
                    other.tokens.tolist(),
                    other.log_prob,
                )
            if weights == "bfloat16":
                assert [h.tokens.tolist() for h in best] == [h.tokens.tolist() for h in plain[b]]
        (greedy,) = search.greedy(held, source[:, :1], [5], **options)
        ((narrow,),) = search.beam(held, source[:, :1], [5], width=1, **options)
        assert greedy.log_prob == narrow.log_prob

    @each_type
    @pytest.mark.parametrize("options", SEARCHES, ids=lambda options: options["method"])
    def test_a_parser(self, options: dict[str, Any], weights: Any) -> None:
        """The search scores merges as the parser scores trees."""
        model = parser("float32")
        held, x = quantize(model, weights), rows(9, "float32")
        found = held.parse(x, [4, 5], **options)
        scores = held(x[found.leaves], found.forest)
        np.testing.assert_allclose(found.score, scores, rtol=1e-5, atol=1e-6)
        alone = held.parse(x[4:], [5], **options)
        assert found.score[found.sentence == 1].tolist() == alone.score.tolist()
        if weights == "bfloat16":
            plain = dequantized(held).parse(x, [4, 5], **options)
            np.testing.assert_allclose(found.score, plain.score, rtol=2e-6)
        count, edges = REGIONS["fan"]
        if options["method"] != "chart":
            at = np.array(sorted(both_ways(edges)))
            regions = held.parse(x[:count], [count], adjacency=at, **options)
            assert len(regions.score)
        with pytest.raises(TypeError, match="no gradients"):
            held.margin(x, [4, 5], model.parse(x[::-1].copy(), [4, 5], method="greedy").forest)

    @each_type
    @pytest.mark.parametrize("unfolding", [False, True])
    def test_an_autoencoder(self, unfolding: bool, weights: Any) -> None:
        model = rnncore.RecursiveAutoencoder(4, 3, unfolding=unfolding, seed=0)
        held, x = quantize(model, weights), rows(9, "float32")
        x = np.concatenate([x, x[:, :1]], axis=1)
        states, forest = held.encode(x, [4, 5])
        plain = dequantized(held)
        near = 2e-6 if weights == "bfloat16" else 0.1
        assert farthest(states, plain.encode(x, forest=forest)[0]) <= near
        assert farthest(held.errors(x, forest), plain.errors(x, forest)) <= near
        loss = held(x, forest=forest, targets=[1, 2])
        assert loss == pytest.approx(plain(x, forest=forest, targets=[1, 2]), rel=near)
        assert held(x, [4, 5], targets=[1, 2]) == pytest.approx(loss)
        with pytest.raises(TypeError, match="no gradients"):
            held.vjp(x, [4, 5])

    @each_type
    def test_a_character_model(self, weights: Any) -> None:
        vocabulary = text.Vocabulary("abcdef")
        model = text.CharModel(vocabulary, text.CharConfig(hidden=20, layers=2), seed=0)
        held = quantize(model, weights)
        assert held.sample("abc", 30, seed=1) == held.sample("abc", 30, seed=1)
        assert held.evaluate("abcdef" * 9) == pytest.approx(model.evaluate("abcdef" * 9), abs=0.02)
        if weights == "bfloat16":
            assert held.sample("abc", 30, seed=1) == dequantized(held).sample("abc", 30, seed=1)


class TestTies:
    @each_type
    def test_a_part_in_two_places_is_one(self, weights: Any) -> None:
        twice = Linear(3, 3, seed=0)
        held = quantize(Chain(twice, Tanh(), twice), weights)
        assert held.layers[0] is held.layers[2]
        assert twice.weight_type is None

    @each_type
    def test_a_tied_linear_reads_the_rounded_table(self, weights: Any) -> None:
        embedding = Embedding(7, 4, seed=0)
        model = Chain(embedding, LSTM(4, 4, seed=1), TiedLinear(embedding))
        held = quantize(model, weights)
        table = held.layers[0].weights()
        x = np.random.default_rng(0).standard_normal((9, 4)).astype("f4")
        assert held.layers[2].embedding is held.layers[0]
        plain = dequantized(held).layers[2]
        assert_same_bits([plain.embedding.weights()], [table])
        assert_same_bits([held.layers[0](np.arange(7))], [table])
        assert not any(array.flags.writeable for array in held.params.values())
        assert plain.params["bias"].flags.writeable
        near = 2e-6 if weights == "bfloat16" else 0.02
        assert farthest(held.layers[2](x), plain(x)) <= near
        assert np.abs(table - embedding.weights()).max() > 1e-4
        for exclude in ("0", ["0", "1"]):
            kept = quantize(Chain(embedding, Linear(4, 4), TiedLinear(embedding)), weights, "0")
            assert_same_bits([kept.layers[2](x)], [model.layers[2](x)])
            assert kept.layers[1].weight_type == weights, exclude

    @each_type
    def test_an_embedding_gives_the_rows_that_it_holds(self, weights: Any) -> None:
        embedding = Embedding(7, 5, seed=0)
        held, ids = quantize(embedding, weights), np.array([[6, 0], [3, 3]])
        assert_same_bits([held(ids)], [dequantized(held)(ids)])
        stream = held.stream(2)
        assert_same_bits([np.stack([stream.step(row) for row in ids])], [held(ids)])
        with pytest.raises(ValueError, match=r"x must be in 0\.\.6, got 7"):
            held(np.array([7]))


class TestExclude:
    @pytest.mark.parametrize(
        ("exclude", "types"),
        [
            ((), ["int8", "int8", "int8"]),
            ("2", ["int8", "int8", None]),
            (["0", "2"], [None, "int8", None]),
            (("1",), ["int8", None, "int8"]),  # with all that is in it
            (iter(["1.1"]), ["int8", None, "int8"]),
            ({"1.0": 1}, ["int8", "int8", "int8"]),
        ],
    )
    def test_parts_by_name(self, exclude: Any, types: list[str | None]) -> None:
        model = two()
        held = quantize(model, exclude=exclude)
        assert [part.weight_type for part in holding(held)] == types
        for part, own in zip(holding(held), holding(model), strict=True):
            if part.weight_type is None:
                assert_same_bits(list(part.params.values()), list(own.params.values()))
                assert all(array.flags.writeable for array in part.params.values())

    def test_names_are_whole(self) -> None:
        """ "1" is no part of "10"."""
        model = Chain(*[Linear(2, 2) for _ in range(11)])
        held = quantize(model, exclude="1")
        assert [n for n, part in enumerate(held.layers) if part.weight_type is None] == [1]

    def test_wherever_else_it_is(self) -> None:
        twice = Linear(3, 3)
        held = quantize(Chain(twice, Linear(3, 3), twice), exclude="2")
        assert [part.weight_type for part in held.layers] == [None, "int8", None]

    @pytest.mark.parametrize("exclude", ["3", "", ["0", "1.2"], "weight", [3], ["0."]])
    def test_names_that_there_are_not(self, exclude: Any) -> None:
        with pytest.raises(
            ValueError, match=r"exclude: there is no part .*; there are '0', '1', '1\.0'"
        ):
            quantize(two(), exclude=exclude)

    @pytest.mark.parametrize("exclude", [3, None])
    def test_no_names(self, exclude: Any) -> None:
        with pytest.raises(TypeError, match="exclude must be names of parts, got a"):
            quantize(two(), exclude=exclude)

    def test_everything(self) -> None:
        with pytest.raises(ValueError, match="no weights to quantize, but for what is excluded"):
            quantize(two(), exclude=["0", "1", "2"])

    def test_two_types_in_one_model(self) -> None:
        held = quantize(quantize(two(), "int8", ["1", "2"]), "bfloat16", "0")
        assert [part.weight_type for part in holding(held)] == ["int8", "bfloat16", "bfloat16"]
        assert farthest(held(X)[0], two()(X)[0]) < 0.1

    def test_a_part_in_float64(self) -> None:
        model = Chain(Linear(3, 3, dtype="float64"), Linear(3, 3, dtype="float64"))
        with pytest.raises(
            ValueError, match=r"^0: this Linear computes in float64, not in float32"
        ):
            quantize(model)


class TestRefusals:
    def test_rows_that_are_too_long(self) -> None:
        linear = Linear(MOST_COLUMNS + 1, 1, bias=False, seed=0)
        with pytest.raises(ValueError, match=r"weight has 133,001 columns.*exclude it"):
            quantize(linear)
        assert quantize(linear, "bfloat16").weight_type == "bfloat16"

    def test_types_of_weights(self) -> None:
        with pytest.raises(
            ValueError, match="weights must be one of int8, bfloat16, bfloat16_dot, got 'int4'"
        ):
            quantize(two(), "int4")  # type: ignore[arg-type]

    @pytest.mark.parametrize("model", [3, None, LSTM, losses.MeanSquaredError()])
    def test_what_is_no_module(self, model: Any) -> None:
        with pytest.raises(TypeError, match="model must be a Module, got a"):
            quantize(model)

    @pytest.mark.parametrize("first", WEIGHTS)
    @pytest.mark.parametrize("second", WEIGHTS)
    def test_twice(self, first: Any, second: Any) -> None:
        with pytest.raises(ValueError, match=f"0: the weights of this GRU are {first}"):
            quantize(quantize(two(), first), second)

    @each_type
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_weights_that_are_not_finite(self, value: float, weights: Any) -> None:
        model = two()
        model.params["1.1.weight"][2, 3] = value
        with pytest.raises(ValueError, match=r"^1\.1: weight holds numbers that are not finite"):
            quantize(model, weights)
        quantize(model, weights, exclude="1")

    @each_type
    def test_without_weights(self, weights: Any) -> None:
        for model in (Chain(), Chain(Tanh(), Dropout()), rnncore.LayerNorm(3), Module()):
            with pytest.raises(ValueError, match=f"this {type(model).__name__} has no weights to"):
                quantize(model, weights)


class TestNoGradients:
    WORDS = r"are (int8|bfloat16): it has no gradients; train the module that it was made from"

    @each_type
    @pytest.mark.parametrize(("model", "call"), each_model(MODELS, held=True))
    def test_in_any_module(self, model: Module, call: Any, weights: Any) -> None:
        held = quantize(model, weights)
        with pytest.raises(TypeError, match=self.WORDS):
            _ = held.grads
        with pytest.raises(TypeError, match=self.WORDS):
            held.zero_grad()

        if "Attention" not in type(model).__name__ and type(model).__name__[:9] != "Recursive":
            with pytest.raises(TypeError, match=self.WORDS):
                call(Trains(held))

    @each_type
    def test_with_regularisers(self, weights: Any) -> None:
        layer = quantize(LSTM(3, 4, weight_drop=0.5, variational_dropout=0.5), weights)
        with pytest.raises(TypeError, match=self.WORDS):
            layer.vjp(X)

    def test_in_training(self) -> None:
        model = two()
        (y, _), pullback = model.vjp(X)
        pullback(np.ones_like(y))
        held = quantize(model)
        assert "_grads" not in vars(held.layers[0])  # they would take more than the weights
        for wants in (
            lambda: rnncore.SGD(held, 0.1),
            lambda: rnncore.Adam(held, 0.1),
            lambda: rnncore.clip_grad_norm(held, 1.0),
        ):
            with pytest.raises(TypeError, match=self.WORDS):
                wants()
        batches = [Batch(X, np.zeros((5, 2, 2), "f4"))]
        trainer = Trainer(held, losses.MeanSquaredError(), rnncore.SGD(model, 0.1), batches)
        with pytest.raises(TypeError, match=self.WORDS):
            trainer.update()

    @each_type
    def test_parameters_are_read_only(self, weights: Any) -> None:
        held = quantize(two(), weights)
        want, _ = held(X)
        for name, array in held.params.items():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
            with pytest.raises(ValueError, match="read-only"):
                held.params[name] = np.zeros_like(array)
        assert_same_bits([held(X)[0]], [want])
        assert all(array.flags.writeable for array in held.state_dict().values())
        again = copy.copy(held.layers[0])
        assert not any(array.flags.writeable for array in again.params.values())
        assert_same_bits(again(X), held.layers[0](X))

    def test_torch_is_told(self) -> None:
        torch = pytest.importorskip("rnncore.torch", reason="PyTorch is not installed")
        with pytest.raises(TypeError, match="wrap it before `quantize`"):
            torch.wrap(quantize(two()))


@each_type
def test_other_formats_are_given_float32(weights: Any, tmp_path: Any) -> None:
    held = quantize(Chain(LSTM(3, 4, seed=0), Linear(4, 2, seed=1)), weights)
    plain = dequantized(held)
    got, want = to_torch_state_dict(held), to_torch_state_dict(plain)
    assert got.keys() == want.keys()
    assert_same_bits(list(got.values()), list(want.values()))
    for name, model in (("held", held), ("plain", plain)):
        to_rtneural(model, tmp_path / name, verify=True, report=lambda *_: None)
    assert (tmp_path / "held").read_bytes() == (tmp_path / "plain").read_bytes()


def test_a_model_without_rounded_weights_is_dequantized_already() -> None:
    model = two()
    assert dequantized(model) is model
