"""Character models: the vocabulary, the text in streams, the loss of a text, samples, files."""

import math
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rnncore import Dropout
from rnncore.arrays import load_arrays, save_arrays
from rnncore.losses import SoftmaxCrossEntropy
from rnncore.text import CharConfig, CharModel, Vocabulary, draw, split, streams
from rnncore.training.trainer import evaluate

TEXT = "the cat sat on the mat; the dog — a große Überraschung — sat on the cat 🐈\n" * 8


def small_model(cell: str = "lstm", **options: Any) -> CharModel:
    sizes = {"hidden": 12, "layers": 2, "embedding": 6, "dropout": 0.2, "dtype": "float64"}
    return CharModel(Vocabulary.of(TEXT), CharConfig(cell, **{**sizes, **options}), seed=3)


class TestVocabulary:
    def test_there_and_back(self) -> None:
        vocabulary = Vocabulary.of(TEXT)
        ids = vocabulary.encode(TEXT)
        assert vocabulary.decode(ids) == TEXT
        assert (ids.min(), ids.max()) == (0, len(vocabulary) - 1)
        assert Vocabulary("ace").encode("cae").tolist() == [1, 0, 2]
        assert Vocabulary("ace").encode("").shape == (0,)

    @pytest.mark.parametrize("stranger", ["\x00", "Q", "z", "🦊"])
    def test_unknown_characters_are_named(self, stranger: str) -> None:
        with pytest.raises(
            ValueError, match=f"does not know these characters: {stranger!r}".replace("\\", r"\\")
        ):
            Vocabulary.of(TEXT).encode(f"the {stranger} cat {stranger}")

    @pytest.mark.parametrize("characters", ["", "ba", "aab"])
    def test_must_be_different_characters_in_order(self, characters: str) -> None:
        with pytest.raises(ValueError, match="different characters, in order"):
            Vocabulary(characters)


def test_split_loses_nothing() -> None:
    first, rest = split(TEXT)
    assert first + rest == TEXT
    assert len(first) == int(0.9 * len(TEXT))


class TestStreams:
    @given(
        batch=st.integers(1, 9),
        length=st.integers(1, 12),
        overlap=st.integers(0, 15),
        more=st.integers(0, 60),
    )
    def test_count_every_target_exactly_once(
        self, batch: int, length: int, overlap: int, more: int
    ) -> None:
        ids = np.arange(batch + overlap + 1 + more)
        counted: list[int] = []
        for chunk in streams(ids, batch, length, overlap):
            assert chunk.inputs.shape == chunk.targets.shape
            assert chunk.inputs.shape[1] == batch
            assert 1 <= len(chunk.inputs) <= length
            np.testing.assert_array_equal(chunk.targets, chunk.inputs + 1)
            counted += chunk.targets[... if chunk.mask is None else chunk.mask].ravel().tolist()
        assert sorted(counted) == list(range(1, len(ids)))

    def test_go_on_from_chunk_to_chunk(self) -> None:
        chunks = streams(np.arange(100), 3, 10)
        assert [chunk.carry for chunk in chunks] == [False, True, True, True]
        columns = np.concatenate([chunk.inputs for chunk in chunks])
        np.testing.assert_array_equal(np.diff(columns, axis=0), 1)
        np.testing.assert_array_equal(columns[0], [0, 33, 66])

    def test_overlap_reads_before_it_counts(self) -> None:
        (chunk,) = streams(np.arange(22), 3, 20, overlap=3)
        np.testing.assert_array_equal(chunk.inputs[:, 1], range(6, 15))
        np.testing.assert_array_equal(chunk.mask[:, 1], [False] * 3 + [True] * 6)
        assert chunk.mask[:, 0].all()

    def test_too_short_a_text(self) -> None:
        with pytest.raises(ValueError, match="too short: 4 characters, but 4 streams need 5"):
            streams(np.arange(4), 4, 1)
        with pytest.raises(ValueError, match="4 streams that overlap by 2 need 7"):
            streams(np.arange(4), 4, 1, overlap=2)


class TestLoss:
    def test_is_the_mean_over_all_characters_but_the_first(self) -> None:
        model = small_model()
        ids = model.vocabulary.encode(TEXT)
        logits, _ = model(ids[:-1, np.newaxis])
        shifted = logits[:, 0] - logits[:, 0].max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        expected = -np.mean(log_p[np.arange(len(ids) - 1), ids[1:]])
        assert model.evaluate(TEXT) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("length", [1, 7, 64, 10_000])
    def test_does_not_depend_on_the_chunks(self, length: int) -> None:
        model = small_model()
        ids = model.vocabulary.encode(TEXT)
        loss = evaluate(model, SoftmaxCrossEntropy(), streams(ids, 1, length))
        assert loss == pytest.approx(model.evaluate(TEXT), rel=1e-12)

    @pytest.mark.parametrize("batch", [2, 5])
    def test_hardly_depends_on_the_number_of_streams_that_are_warmed_up(self, batch: int) -> None:
        model = small_model()
        ids = model.vocabulary.encode(TEXT)
        exact = model.evaluate(TEXT)
        cold, warm = (
            evaluate(model, SoftmaxCrossEntropy(), streams(ids, batch, 32, overlap))
            for overlap in (0, 90)
        )
        assert warm == pytest.approx(exact, rel=1e-9)
        assert cold != pytest.approx(exact, rel=1e-6)

    def test_of_a_text_without_a_second_character(self) -> None:
        with pytest.raises(ValueError, match="too short"):
            small_model().evaluate("t")


class TestSample:
    @pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
    def test_is_told_by_its_seed(self, cell: str) -> None:
        model = small_model(cell)
        first = model.sample("the ", 60, seed=5)
        assert len(first) == 60
        assert model.sample("the ", 60, seed=5) == first
        assert model.sample("the ", 60, seed=6) != first

    def test_step_by_step_sees_what_the_whole_text_would_show(self) -> None:
        model = small_model()
        text = "the "
        for character in islice(model.generate(text, temperature=0), 30):
            logits, _ = model(model.vocabulary.encode(text)[:, np.newaxis])
            assert character == model.vocabulary.characters[int(np.argmax(logits[-1, 0]))]
            text += character

    def test_draws_with_the_right_probabilities(self) -> None:
        logits, rng = np.log(np.array([0.5, 0.125, 0.375])), np.random.default_rng(0)
        for temperature, expected in (
            (1.0, [0.5, 0.125, 0.375]),
            (0.5, [8 / 13, 0.5 / 13, 4.5 / 13]),
        ):
            drawn = [draw(logits, temperature, rng) for _ in range(20_000)]
            shares = np.bincount(drawn, minlength=3) / len(drawn)
            np.testing.assert_allclose(shares, expected, atol=0.015)

    def test_of_nothing(self) -> None:
        assert small_model().sample("the", 0) == ""

    @pytest.mark.parametrize("length", [None, 2.5, -1, 2**70])
    def test_of_no_length(self, length: object) -> None:
        with pytest.raises((TypeError, ValueError), match="length must be"):
            small_model().sample("the", length)

    def test_needs_a_prompt_that_it_knows(self) -> None:
        with pytest.raises(ValueError, match="prompt is empty"):
            small_model().generate("")
        with pytest.raises(ValueError, match="does not know these characters: 'Q'"):
            small_model().generate("Q")

    @pytest.mark.parametrize("temperature", [-1.0, float("nan")])
    def test_needs_a_temperature(self, temperature: float) -> None:
        with pytest.raises(ValueError, match="temperature must be at least 0"):
            small_model().generate("the", temperature)


class TestModel:
    def test_refuses_an_unknown_cell(self) -> None:
        with pytest.raises(ValueError, match="cell must be one of lstm, gru, rnn, got 'lsmt'"):
            CharConfig("lsmt")

    def test_dropout_acts_in_training_only(self) -> None:
        model, ids = small_model(), np.zeros((5, 2), int)
        (first, _), _ = model.vjp(ids)
        (second, _), _ = model.vjp(ids)
        assert np.any(first != second)
        np.testing.assert_array_equal(model(ids)[0], model(ids)[0])

    def test_starts_as_its_seed_says(self) -> None:
        one, same = small_model(), small_model()
        for name, array in one.params.items():
            np.testing.assert_array_equal(array, same.params[name])
        other = CharModel(one.vocabulary, one.config, seed=4)
        assert all(np.any(array != other.params[name]) for name, array in one.params.items())


class TestFile:
    @pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_gives_the_same_model_back(self, cell: str, dtype: str, tmp_path: Path) -> None:
        model = small_model(cell, dtype=dtype)
        model.save(tmp_path / "model", {"note": "kept"})
        again = CharModel.from_file(tmp_path / "model")
        assert again.config == model.config
        assert again.vocabulary.characters == model.vocabulary.characters
        for name, array in model.params.items():
            np.testing.assert_array_equal(array, again.params[name])
        assert again.sample("the", 20, seed=1) == model.sample("the", 20, seed=1)
        assert load_arrays(tmp_path / "model")[1]["note"] == "kept"

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no such model file: .*nowhere"):
            CharModel.from_file(tmp_path / "nowhere")

    @pytest.mark.parametrize("keep", [0, 7, 200, -1])
    def test_truncated(self, keep: int, tmp_path: Path) -> None:
        path = tmp_path / "model"
        small_model().save(path)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ValueError, match="model is not a readable safetensors file"):
            CharModel.from_file(path)

    @pytest.mark.parametrize(
        ("characters", "config", "message"),
        [
            ("ab", {"cel": "lstm"}, "CharConfig has no argument 'cel'"),
            ("ab", {"cell": "lsmt"}, "CharConfig: cell must be one of lstm, gru, rnn"),
            ("ab", {"cell": "lstm", "hidden": -1}, "CharModel: hidden_size must be at least 1"),
            ("ab", {"cell": "lstm", "hidden": "12"}, "CharModel: .*'str'"),
            (3, {}, "Vocabulary: characters must be a str, got a int"),
            ("ba", {}, "Vocabulary: a vocabulary is a string of different characters"),
            ("ab", {"hidden": 4}, "these entries do not fit"),
        ],
    )
    def test_foreign(self, characters: Any, config: Any, message: str, tmp_path: Path) -> None:
        vocabulary = {"class": "Vocabulary", "arguments": {"characters": characters}}
        arguments = {
            "vocabulary": vocabulary,
            "config": {"class": "CharConfig", "arguments": config},
        }
        described = {"class": "CharModel", "arguments": arguments}
        save_arrays(tmp_path / "other", {"w": np.ones(3)}, {"rnncore": {"module": described}})
        with pytest.raises(ValueError, match=f"other: {message}"):
            CharModel.from_file(tmp_path / "other")

    def test_of_another_class(self, tmp_path: Path) -> None:
        Dropout().save(tmp_path / "other")
        with pytest.raises(ValueError, match="other is no character model: Dropout"):
            CharModel.from_file(tmp_path / "other")


@pytest.mark.skipif(
    "RNNCORE_TINYSHAKESPEARE" not in os.environ,
    reason="RNNCORE_TINYSHAKESPEARE does not name the file input.txt of tinyshakespeare",
)
def test_the_published_split_of_tinyshakespeare() -> None:
    text = Path(os.environ["RNNCORE_TINYSHAKESPEARE"]).read_text(encoding="utf-8")
    vocabulary = Vocabulary.of(text)
    assert len(vocabulary) == 65
    assert [len(part) for part in split(text)] == [1_003_854, 111_540]
    assert sum(chunk.counted for chunk in streams(vocabulary.encode(text), 32, 64)) == 1_115_393


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Vocabulary(3.5), TypeError, "characters must be a str, got a float"),
        (lambda: Vocabulary.of(None), TypeError, "text must be a str, got a NoneType"),
        (lambda: Vocabulary("ab").encode(1), TypeError, "text must be a str, got a int"),
        (lambda: Vocabulary("ab").decode([0, 2]), ValueError, r"ids must be in 0..1, got 2"),
        (lambda: Vocabulary("ab").decode([[0]]), ValueError, r"ids must have shape \(N,\)"),
        (lambda: Vocabulary("ab").decode([0.5]), TypeError, "ids must be integers, got float64"),
        (lambda: CharModel(Vocabulary("ab"), 3), TypeError, "config must be a CharConfig"),
        (lambda: CharModel("ab"), TypeError, "vocabulary must be a Vocabulary, got a str"),
        (lambda: streams(np.zeros(9), 2, 3), TypeError, "ids must be integers, got float64"),
        (lambda: streams(np.zeros((9, 1), int), 2, 3), ValueError, r"ids must have shape \(N,\)"),
        (lambda: split("abc", math.inf), ValueError, "share must be in 0..1, got inf"),
        (lambda: streams(np.zeros(9, int), 2, 3, -1), ValueError, "overlap must be at least 0"),
    ],
)
def test_wrong_kinds_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
