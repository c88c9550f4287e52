"""What is found in the logits of CTC, against all labels and all paths."""

import itertools
import pickle
import re

import numpy as np
import pytest
from rnncore import CharacterNGram, CTCBeamSearch, ctc_align, ctc_best_path
from rnncore.reference import ctc as reference

from tests.alignment.test_ctc import by_paths, labels_of


def all_labels(x, blank=0):
    """Every sequence of labels that frames (T, C) may say, with its log-probability."""
    classes = [k for k in range(x.shape[1]) if k != blank]
    for size in range(len(x) + 1):
        for labels in itertools.product(classes, repeat=size):
            log_prob = -by_paths(x, labels, blank)
            if log_prob > -np.inf:
                yield labels, log_prob


class Bigram:
    """Two labels rarely follow one another; the end is likely behind a 2."""

    context = 1

    def __call__(self, labels):
        p = np.array([0.2, 0.4, 0.4])
        if labels:
            p = np.array([0.1, 0.8, 0.1]) if labels[-1] == 1 else np.array([0.6, 0.1, 0.3])
        return np.log(p)


class TestBestPath:
    def test_says_the_likeliest_path(self, rng):
        x = rng.standard_normal((6, 4)).astype(np.float32)
        log_p = reference.log_softmax(x.astype(np.float64))
        best = max(
            itertools.product(range(4), repeat=6), key=lambda path: log_p[range(6), path].sum()
        )
        (found,) = ctc_best_path(x)
        assert tuple(found.labels) == labels_of(best)
        assert found.log_prob == pytest.approx(log_p[range(6), best].sum(), rel=1e-14)

    def test_batches(self, rng):
        x = rng.standard_normal((9, 3, 4))
        found = ctc_best_path(x, [9, 0, 4], blank=3)
        turned = ctc_best_path(x.transpose(1, 0, 2), [9, 0, 4], blank=3, batch_first=True)
        for b, length in enumerate([9, 0, 4]):
            (alone,) = ctc_best_path(x[:length, b], blank=3)
            for other in (found[b], turned[b]):
                assert other.labels.tolist() == alone.labels.tolist()
                assert other.log_prob == alone.log_prob
        assert found[1].labels.size == found[1].log_prob == 0

    def test_refused(self):
        with pytest.raises(ValueError, match="blank is 3, but logits have 3 classes"):
            ctc_best_path(np.zeros((4, 3)), blank=3)
        with pytest.raises(TypeError, match="logits must be float32 or float64"):
            ctc_best_path(np.zeros((4, 3), int))


class TestBeamSearch:
    @pytest.mark.parametrize("blank", [0, 2])
    def test_all_labels(self, blank, rng):
        """A beam that holds every prefix finds every sequence, in order, with its probability."""
        x = 2 * rng.standard_normal((5, 3))
        expected = sorted(all_labels(x, blank), key=lambda pair: -pair[1])
        (found,) = CTCBeamSearch(500, n_best=500, blank=blank)(x)
        assert [tuple(t.labels) for t in found] == [labels for labels, _ in expected]
        np.testing.assert_allclose(
            [t.log_prob for t in found], [p for _, p in expected], rtol=1e-12
        )
        assert np.exp([t.score for t in found]).sum() == pytest.approx(1, rel=1e-12)

    def test_better_than_the_best_path(self):
        """Graves 2006, figure 2: the likeliest labels need not be those of the likeliest path."""
        x = np.log([[0.6, 0.4], [0.6, 0.4]])
        assert not ctc_best_path(x)[0].labels.size
        (found,) = CTCBeamSearch()(x)
        assert found[0].labels.tolist() == [1]
        assert found[0].log_prob == pytest.approx(np.log(1 - 0.36))

    @pytest.mark.parametrize(("weight", "bonus"), [(1.0, 0.0), (0.5, 1.0), (0.0, -2.0)])
    def test_language_model(self, weight, bonus, rng):
        x, model = rng.standard_normal((4, 3)), Bigram()
        expected = {}
        for labels, log_prob in all_labels(x):
            lm = [model(labels[:at])[k] for at, k in enumerate([*labels, 0])]
            expected[labels] = log_prob + weight * sum(lm) + bonus * len(labels)
        search = CTCBeamSearch(
            200, n_best=200, language_model=model, lm_weight=weight, label_bonus=bonus
        )
        (found,) = search(x)
        assert [tuple(t.labels) for t in found] == sorted(expected, key=lambda k: -expected[k])
        for transcript in found:
            assert transcript.score == pytest.approx(expected[tuple(transcript.labels)], rel=1e-12)

    def test_all_the_labels_are_given_without_a_context(self, rng):
        asked = []
        search = CTCBeamSearch(3, language_model=lambda labels: asked.append(labels) or np.zeros(3))
        search(20 * rng.standard_normal((200, 3)))
        assert max(map(len, asked)) > 30
        assert all(labels == () or labels[:-1] in asked for labels in asked)

    @pytest.mark.parametrize("context", [0, 1, 3])
    def test_context(self, context, rng):
        """Labels that are settled are part of what the model is given."""

        class Model:
            def __call__(self, labels):
                seen.append(labels)
                return np.log(np.full(4, 0.25))

        seen, model = [], Model()
        model.context = context
        CTCBeamSearch(4, language_model=model)(10 * rng.standard_normal((300, 4)))
        assert max(map(len, seen)) == context
        if context:
            assert sum(len(labels) < context for labels in seen) < 20

    @pytest.mark.parametrize("beam_size", [1, 4, 16])
    @pytest.mark.parametrize("chunk", [1, 7, 100])
    def test_stream(self, beam_size, chunk, rng):
        x = (5 * rng.standard_normal((300, 6))).astype(np.float32)
        search = CTCBeamSearch(beam_size, n_best=3, language_model=CharacterNGram("abcde", 2))
        (whole,) = search(x)
        stream = search.stream()
        for at in range(0, 300, chunk):
            stream.feed(x[at : at + chunk])
            assert stream.best[0].labels.size <= at + chunk
        for got, expected in zip(stream.finish(), whole, strict=True):
            assert got.labels.tolist() == expected.labels.tolist()
            assert (got.score, got.log_prob) == (expected.score, expected.log_prob)

    def test_settling_changes_nothing(self, rng, monkeypatch):
        from rnncore.alignment import ctc_search

        x = 3 * rng.standard_normal((150, 5))
        (often,) = CTCBeamSearch(8, n_best=8)(x)
        monkeypatch.setattr(ctc_search, "_FRAMES", 10**9)
        (never,) = CTCBeamSearch(8, n_best=8)(x)
        assert [t.labels.tolist() for t in often] == [t.labels.tolist() for t in never]
        assert [t.score for t in often] == [t.score for t in never]

    def test_wide_enough_a_beam_is_exact(self, rng):
        """The probability of what is found is that of all its paths."""
        x = 6 * rng.standard_normal((20, 4))
        (found,) = CTCBeamSearch(400, n_best=5)(x)
        for transcript in found:
            exact = -reference.loss(x, transcript.labels)
            assert transcript.log_prob <= exact * (1 - 1e-12)
            assert transcript.log_prob == pytest.approx(exact, abs=1e-3)

    def test_batches(self, rng):
        x = rng.standard_normal((9, 3, 4)).astype(np.float32)
        found = CTCBeamSearch(n_best=2)(x, [9, 0, 4])
        assert [len(t) for t in found] == [2, 1, 2]
        assert not found[1][0].labels.size
        (alone,) = CTCBeamSearch(n_best=2)(x[:4, 2])
        assert [t.labels.tolist() for t in found[2]] == [t.labels.tolist() for t in alone]

    def test_no_frames(self):
        stream = CTCBeamSearch().stream()
        assert stream.finish()[0].labels.size == 0
        stream.feed(np.zeros((0, 3)))
        assert stream.finish()[0].score == 0

    def test_refused(self, rng):
        x = rng.standard_normal((4, 3))
        with pytest.raises(TypeError, match="beam_size must be an integer"):
            CTCBeamSearch(1.5)
        with pytest.raises(TypeError, match="language_model must be a function of labels, got str"):
            CTCBeamSearch(language_model="words")
        with pytest.raises(ValueError, match=re.escape("array of shape (3,), got (2,)")):
            CTCBeamSearch(language_model=lambda labels: np.zeros(2))(x)
        with pytest.raises(ValueError, match="returned NaN behind the labels"):
            CTCBeamSearch(language_model=lambda labels: np.full(3, np.nan))(x)
        x[2] = np.nan
        with pytest.raises(ValueError, match="no class is possible at frame 2"):
            CTCBeamSearch()(x)
        stream = CTCBeamSearch().stream()
        stream.feed(np.zeros((1, 3)))
        with pytest.raises(ValueError, match="logits must have 3 classes, got 4"):
            stream.feed(np.zeros((1, 4)))
        with pytest.raises(ValueError, match=r"logits must have shape \(T, C\), got \(1, 1, 3\)"):
            stream.feed(np.zeros((1, 1, 3)))


class TestAlign:
    @pytest.mark.parametrize("labels", [(), (1,), (2, 1), (1, 1), (1, 2, 1)])
    def test_all_paths(self, labels, rng):
        x = rng.standard_normal((6, 3))
        log_p = reference.log_softmax(x)
        paths = [p for p in itertools.product(range(3), repeat=6) if labels_of(p) == labels]
        best = max(paths, key=lambda path: log_p[range(6), path].sum())
        (found,) = ctc_align(x, np.array(labels, int))
        assert tuple(found.path) == best
        assert found.log_prob == pytest.approx(log_p[range(6), best].sum(), rel=1e-14)
        path, score = reference.align(x, labels)
        assert tuple(path) == best
        assert found.log_prob == pytest.approx(score, rel=1e-14)

    def test_time_stamps(self):
        """Labels lie where their frames are."""
        path = [0, 0, 2, 2, 2, 0, 2, 1, 1, 0]
        x = np.full((10, 3), -8.0)
        x[np.arange(10), path] = 0
        (found,) = ctc_align(x, [2, 2, 1])
        assert found.path.tolist() == path
        assert found.labels.tolist() == [2, 2, 1]
        assert found.starts.tolist() == [2, 6, 7]
        assert found.ends.tolist() == [5, 7, 9]
        np.testing.assert_allclose(found.scores, -np.log(1 + 2 * np.exp(-8)), rtol=1e-12)

    def test_batches(self, rng):
        x = rng.standard_normal((20, 3, 5)).astype(np.float32)
        targets, lengths, counts = rng.integers(1, 5, (3, 6)), [20, 15, 9], [6, 2, 0]
        found = ctc_align(x, targets, lengths, counts)
        turned = ctc_align(x.transpose(1, 0, 2), targets, lengths, counts, batch_first=True)
        for b in range(3):
            own = targets[b, : counts[b]]
            path, score = reference.align(x[: lengths[b], b].astype(float), own)
            assert found[b].path.tolist() == turned[b].path.tolist() == path.tolist()
            assert found[b].log_prob == pytest.approx(score, rel=1e-12)
            assert labels_of(found[b].path) == tuple(own)

    def test_refused(self):
        x = np.zeros((4, 3))
        with pytest.raises(ValueError, match=r"has 4 frames, but its 3 labels, 2 .* need 5$"):
            ctc_align(x, [1, 1, 1])
        with pytest.raises(ValueError, match="other than the blank 0"):
            ctc_align(x, [0])
        x[:, 1] = -np.inf
        with pytest.raises(ValueError, match="no path of the labels of sequence 0 is possible"):
            ctc_align(x, [1])


class TestCharacterNGram:
    TEXTS = ("abracadabra", "banana", "", "cab")

    def model(self, order=3, **options):
        return CharacterNGram("abcdnr", order, **options).fit(self.TEXTS)

    @pytest.mark.parametrize("order", [1, 2, 5])
    @pytest.mark.parametrize("blank", [0, 3, 6])
    def test_is_a_distribution(self, order, blank):
        model = self.model(order, blank=blank)
        for text in ("", "a", "abra", "ddd", "banana"):
            assert np.exp(model(model.encode(text))).sum() == pytest.approx(1, rel=1e-12)

    def test_counts(self):
        """By hand: of 'ab' and 'a', order 2, over a, b and the end."""
        model = CharacterNGram("ab", 2).fit(["ab", "a"])
        end, a, b = (2 + 1) / 8, (2 + 1) / 8, (1 + 1) / 8  # 5 characters, 3 kinds, 1/3 each
        np.testing.assert_allclose(np.exp(model([])), [end, a, b], rtol=1e-14)
        behind_a = np.array([1 + 2 * end, 2 * a, 1 + 2 * b]) / 4
        np.testing.assert_allclose(np.exp(model([2, 1])), behind_a, rtol=1e-14)
        expected = np.log(a) + np.log(behind_a[0])
        assert model.log_prob("a") == pytest.approx(expected, rel=1e-14)

    def test_likes_what_it_has_seen(self):
        model = self.model()
        assert model.log_prob("banana") > model.log_prob("bnnaaa")
        assert CharacterNGram("abcdnr").log_prob("ab") == pytest.approx(3 * np.log(1 / 7))

    def test_symbols(self):
        model = CharacterNGram(["one", "two"], 2, blank=1).fit([["one", "two", "two"]])
        assert model.encode(["two", "one"]) == [2, 0]
        assert model.decode([0, 2]) == ["one", "two"]
        assert pickle.loads(pickle.dumps(model)).log_prob(["one"]) == model.log_prob(["one"])

    def test_helps_a_search(self, rng):
        """Of two words that sound alike the known one is found."""
        model = CharacterNGram("abn", 3).fit(["banana"] * 5)
        x = np.zeros((11, 4))
        x[np.arange(11), [2, 0, 1, 0, 3, 0, 1, 0, 3, 0, 1]] = 5
        x[2] = 0
        x[2, 3] = 0.1  # an n rather than an a, by sound alone
        (alone,) = CTCBeamSearch()(x)
        (found,) = CTCBeamSearch(language_model=model)(x)
        assert "".join(model.decode(alone[0].labels)) != "banana"
        assert "".join(model.decode(found[0].labels)) == "banana"

    def test_refused(self):
        with pytest.raises(ValueError, match="alphabet must hold different symbols, got 'aa'"):
            CharacterNGram("aa")
        with pytest.raises(TypeError, match="texts must be a list of texts, got a str"):
            self.model().fit("abc")
        with pytest.raises(ValueError, match=re.escape("not in the alphabet: ['x']")):
            self.model().fit(["axb"])
        with pytest.raises(ValueError, match=r"blank must be in 0\.\.2, got 3"):
            CharacterNGram("ab", blank=3)
