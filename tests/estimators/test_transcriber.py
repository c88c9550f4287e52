"""Labels of sequences without alignment: what is learnt, the forms of y, scikit-learn's tools."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the estimators need scikit-learn")

from rnncore import CTCBeamSearch, edit_distance, error_rate
from rnncore.estimators import SequenceTranscriber
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score

SMALL = {"hidden_size": 8, "max_iter": 2, "batch_size": 5, "random_state": 0}
LEARNS = {"hidden_size": 24, "max_iter": 60, "batch_size": 8, "learning_rate": 0.02}


@pytest.fixture
def spelt(rng):
    """Sequences that show the letters of words for some steps each, and the words."""
    words = ["".join(rng.choice(list("abc"), rng.integers(1, 5))) for _ in range(40)]
    sequences = []
    for word in words:
        rows = []
        for letter in word:
            rows += ["abc".index(letter)] * rng.integers(2, 5) + [3] * rng.integers(1, 3)
        sequences.append(np.eye(4)[rows] + 0.1 * rng.standard_normal((len(rows), 4)))
    return sequences, words


class TestEdits:
    @pytest.mark.parametrize(
        ("found", "expected", "distance"),
        [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
            ("ca", "abc", 3),
            ([1, 2, 3], (1, 3), 1),
            (np.array([1, 1]), [1], 1),
        ],
    )
    def test_distance(self, found, expected, distance):
        assert edit_distance(found, expected) == distance
        assert edit_distance(expected, found) == distance

    def test_rate(self):
        assert error_rate(["ab", "c"], ["abc", "d"]) == 0.5
        with pytest.raises(ValueError, match="found must have 2 sequences, got 1"):
            error_rate(["a"], ["a", "b"])
        with pytest.raises(ValueError, match="expected must have at least one label"):
            error_rate(["a"], [""])


class TestTranscriber:
    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_learns(self, spelt, bidirectional):
        x, words = spelt
        model = SequenceTranscriber(**LEARNS, bidirectional=bidirectional, random_state=0)
        model.fit(x[:30], words[:30])
        assert model.classes_.tolist() == ["a", "b", "c"]
        assert model.score(x[30:], words[30:]) > 0.9
        found = model.predict(x[30:])
        assert all(isinstance(word, str) for word in found)
        assert model.score(x[30:], words[30:]) == 1 - error_rate(found, words[30:])

    def test_search(self, spelt):
        """A beam, and what it is made of."""
        x, words = spelt
        model = SequenceTranscriber(**SMALL, beam_size=4).fit(x, words)
        search = CTCBeamSearch(4)
        by_hand = [search(row)[0][0].labels for row in model.predict_log_proba(x)]
        assert model.predict(x) == ["".join(model.classes_[row - 1]) for row in by_hand]
        probabilities = np.exp(model.predict_log_proba(x)[3])
        assert probabilities.shape == (len(x[3]), 4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)

    @pytest.mark.parametrize(
        "form", [list, tuple, lambda word: np.array(list(word)), lambda word: list(map(ord, word))]
    )
    def test_forms_of_y(self, spelt, form):
        x, words = spelt
        expected = SequenceTranscriber(**SMALL).fit(x, words).predict(x)
        found = SequenceTranscriber(**SMALL).fit(x, [form(word) for word in words]).predict(x)
        names = [row.tolist() for row in found]
        assert names == [[form(letter)[0] for letter in word] for word in expected]

    def test_sequences_without_steps_or_labels(self, spelt):
        x, words = spelt
        x, words = [*x, np.zeros((0, 4)), np.zeros((3, 4))], [*words, "", ""]
        model = SequenceTranscriber(**SMALL).fit(x, words)
        assert model.predict(x)[-2] == ""
        assert len(model.predict(x)) == len(x)

    def test_weights(self, spelt):
        """No weight is as if absent; the score counts by weight."""
        x, words = spelt
        weights = np.arange(40) % 2
        some = SequenceTranscriber(**SMALL).fit(x, words, weights)
        assert np.isfinite(some.history_[-1]["train_loss"])
        wrong = [word if weight else "ccc" for word, weight in zip(words, weights, strict=True)]
        other = SequenceTranscriber(**SMALL).fit(x, wrong, weights)
        assert some.predict(x) == other.predict(x)
        kept = [(a, b) for a, b, weight in zip(x, words, weights, strict=True) if weight]
        assert some.score(x, words, weights) == pytest.approx(some.score(*zip(*kept, strict=True)))

    def test_tools(self, spelt):
        x, words = spelt
        model = SequenceTranscriber(**SMALL)
        assert clone(model).get_params() == model.get_params()
        assert cross_val_score(model, x, words, cv=3).shape == (3,)
        assert len(cross_val_predict(model, x, words, cv=3)) == 40
        search = GridSearchCV(model, {"hidden_size": [4, 6]}, cv=2).fit(x, words)
        assert search.best_params_["hidden_size"] in (4, 6)
        fitted = model.fit(x, words)
        assert pickle.loads(pickle.dumps(fitted)).predict(x) == fitted.predict(x)
        stopped = SequenceTranscriber(**SMALL, early_stopping=True).fit(x, words)
        assert stopped.n_iter_ == 2

    def test_refused(self, spelt):
        x, words = spelt
        model = SequenceTranscriber(**SMALL)
        with pytest.raises(ValueError, match="requires y to be passed"):
            model.fit(x, None)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            model.fit(x, words[1:])
        with pytest.raises(ValueError, match=r"sequence 1 has 3 frames, but its 3 labels, 1 of"):
            model.fit([x[0][:3], x[1][:3]], ["abc", "aab"])
        with pytest.raises(ValueError, match="a string, list or array of labels for each sequence"):
            model.fit(x, np.arange(40))
        with pytest.raises(ValueError, match="y must be labels of one kind"):
            model.fit(x, [[["a"], "b"]] * 40)
        with pytest.raises(ValueError, match="beam_size must be at least 1, got 0"):
            SequenceTranscriber(**SMALL, beam_size=0).fit(x, words).predict(x)
