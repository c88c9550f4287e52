"""Tokens and numbers, and sequences put together in batches."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rnncore.batches import bucketed, padded
from rnncore.seq2seq.vocabulary import Vocabulary


class TestVocabulary:
    def test_there_and_back(self) -> None:
        vocabulary = Vocabulary(["b", "a", "AH"])
        assert len(vocabulary) == 7
        assert vocabulary.encode(["AH", "b"]).tolist() == [6, 4]
        assert vocabulary.encode("ab", end=True).tolist() == [5, 4, Vocabulary.EOS]
        assert vocabulary.encode([]).shape == (0,)
        assert vocabulary.decode([1, 6, 0, 4, 2, 5]) == ["AH", "b"]

    def test_unknown_tokens_have_a_number_of_their_own(self) -> None:
        vocabulary = Vocabulary("ab")
        assert vocabulary.encode("axb").tolist() == [4, Vocabulary.UNK, 5]
        assert vocabulary.decode(vocabulary.encode("axb")) == ["a", "<unk>", "b"]
        assert "a" in vocabulary
        assert "x" not in vocabulary

    def test_of_counts(self) -> None:
        texts = ["banana", "bandana", "nab"]
        assert Vocabulary.of(texts).tokens == ("a", "n", "b", "d")
        assert Vocabulary.of(texts, least=2).tokens == ("a", "n", "b")
        with pytest.raises(ValueError, match="most must be at least 1, got -1"):
            Vocabulary.of(texts, most=-1)  # not all but the last
        assert Vocabulary.of(texts, most=2).tokens == ("a", "n")
        assert Vocabulary.of(["ba"]).tokens == ("a", "b")
        assert Vocabulary.of([]).tokens == ()
        assert Vocabulary.of([["AH", "B"], ["B"]]).tokens == ("B", "AH")

    def test_tokens_are_all_that_need_be_kept(self) -> None:
        vocabulary = Vocabulary.of(["größe"])
        again = Vocabulary(json.loads(json.dumps(vocabulary.tokens)))
        assert again == vocabulary
        assert hash(again) == hash(vocabulary)
        assert again != Vocabulary("a")

    def test_tokens_must_differ(self) -> None:
        with pytest.raises(ValueError, match=r"tokens must differ.*\['<eos>', 'a'\]"):
            Vocabulary(["a", "b", "a", "<eos>"])

    def test_a_long_list_is_checked_in_time(self) -> None:
        tokens, started = [str(n) for n in range(200_000)], time.process_time()
        with pytest.raises(ValueError, match=r"\['7'\]$"):
            Vocabulary([*tokens, "7"])
        with pytest.raises(ValueError, match=r"\['0', '1', .* and 199990 more\]$") as refusal:
            Vocabulary(tokens * 2)
        assert len(str(refusal.value)) < 500
        assert time.process_time() - started < 5

    def test_unknown_tokens_in_a_text(self) -> None:
        texts = [["the", "<unk>", "sat"], ["<unk>", "the"]]
        vocabulary = Vocabulary.of(texts, most=2)
        assert vocabulary.tokens == ("the", "sat")
        assert vocabulary.encode(texts[0]).tolist() == [4, Vocabulary.UNK, 5]
        assert vocabulary.decode(vocabulary.encode(texts[0])) == texts[0]
        with pytest.raises(ValueError, match=r"\['<eos>'\]"):
            Vocabulary.of([["the", "<eos>"]])

    @pytest.mark.parametrize("numbers", [[5], [-1]])
    def test_strange_numbers_are_refused(self, numbers: list[int]) -> None:
        with pytest.raises(ValueError, match=r"numbers must be in 0..4, got"):
            Vocabulary("a").decode(numbers)


class TestPadded:
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.sampled_from([(), (3,)]))
    def test_each_sequence_stands_in_its_column(
        self, sizes: list[int], features: tuple[int, ...]
    ) -> None:
        sequences = [np.full((size, *features), b + 1.0) for b, size in enumerate(sizes)]
        array, lengths = padded(sequences, value=-1)
        assert lengths.tolist() == sizes
        assert array.shape == (max(sizes), len(sizes), *features)
        for b, size in enumerate(sizes):
            assert np.all(array[:size, b] == b + 1)
            assert np.all(array[size:, b] == -1)

    def test_keeps_the_dtype(self) -> None:
        assert padded([[1, 2], [3]])[0].dtype == np.int64
        assert padded([np.zeros(2, np.float32)])[0].dtype == np.float32

    def test_bad_sequences_are_named(self) -> None:
        with pytest.raises(ValueError, match="at least one sequence"):
            padded([])
        with pytest.raises(ValueError, match=r"sequence 0 has \(2, 3\), sequence 1 has \(2,\)"):
            padded([np.zeros((2, 3)), np.zeros(2)])


class TestBucketed:
    @given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 7), st.integers(0, 3))
    def test_every_sequence_is_in_one_batch(self, lengths: list[int], size: int, seed: int) -> None:
        for rng in (None, np.random.default_rng(seed)):
            batches = bucketed(np.array(lengths, int), size, rng)
            assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
            assert sum(len(batch) < size for batch in batches) <= 1

    def test_lengths_of_a_batch_are_near_each_other(self) -> None:
        lengths = np.random.default_rng(0).integers(5, 100, 1000)
        for batch in bucketed(lengths, 20, np.random.default_rng(1)):
            assert lengths[batch].max() <= 1.2 * lengths[batch].min() + 5
        exact = bucketed(lengths, 20)
        assert np.all(np.diff(lengths[np.concatenate(exact)]) >= 0)

    def test_the_order_is_the_seeds(self) -> None:
        lengths = np.arange(1, 101)
        first, again, other = (
            np.concatenate(bucketed(lengths, 7, np.random.default_rng(seed))) for seed in (0, 0, 1)
        )
        assert first.tolist() == again.tolist() != other.tolist()

    @pytest.mark.parametrize(
        ("lengths", "size", "message"),
        [([[1]], 1, r"lengths must have shape \(N,\), got \(1, 1\)"), ([1], 0, "size must be")],
    )
    def test_bad_arguments_are_named(self, lengths: list[int], size: int, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            bucketed(lengths, size)
