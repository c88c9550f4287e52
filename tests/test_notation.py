"""`repr` of modules: Python that makes them again."""

import copy
import pickle

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
    Readout,
    SoftmaxCrossEntropy,
    Tanh,
    text,
)

from tests.support.models import MODELS

NAMES = {name: getattr(rnncore, name) for name in rnncore.__all__} | {
    name: getattr(text, name) for name in ("CharConfig", "CharModel", "Vocabulary")
}
NAMES |= vars(rnncore.cells.shelf)  # a cell of one's own is written by its name
CASES = [(name, at) for name, (models, _) in MODELS.items() for at in range(len(models))]


def shapes(module):
    return {name: array.shape for name, array in module.stored.items()}


def squeezed(said):
    """Without comments on shared objects, which stand alone once made again, and line breaks."""
    return "".join(said.replace("  # shared 1", "").split()).replace(",)", ")")


@pytest.mark.parametrize(("name", "at"), CASES)
def test_it_makes_the_module_again(name, at):
    module = MODELS[name][0][at]
    said = repr(module)
    if "..." in said:
        assert name == "CRF"  # whose constraints are long
        return
    again = eval(said, dict(NAMES))
    assert type(again) is type(module)
    assert squeezed(repr(again)) == squeezed(said)
    if "# shared" not in said:
        assert repr(again) == said
        assert again.dtypes() == module.dtypes()
        assert shapes(again) == shapes(module)


class TestForm:
    def test_a_leaf_is_one_line(self):
        assert repr(Linear(3, 2)) == "Linear(3, 2)"
        assert repr(Linear(in_features=3, out_features=2, bias=False, seed=1)) == (
            "Linear(3, 2, bias=False)"
        )
        layer = LSTM(np.int64(3), 4, num_layers=1, dtype=np.float64, batch_first=True, proj_size=2)
        assert repr(layer) == "LSTM(3, 4, batch_first=True, proj_size=2, dtype='float64')"
        assert repr(Dropout(0.25, seed=3)) == "Dropout(p=0.25)"

    def test_neighbours_have_lines(self):
        assert repr(Chain(GRU(3, 4, seed=0), Linear(4, 2))) == (
            "Chain(\n    GRU(3, 4),\n    Linear(4, 2),\n)"
        )
        model = Chain(Readout(Chain(GRU(3, 4), Tanh()), "mean"), Linear(4, 2))
        assert repr(model).splitlines() == [
            "Chain(",
            "    Readout(",
            "        Chain(",
            "            GRU(3, 4),",
            "            Tanh(),",
            "        ),",
            "        reading='mean',",
            "    ),",
            "    Linear(4, 2),",
            ")",
        ]

    def test_what_wraps_one_module_is_one_line_while_it_fits(self):
        model = Chain(Readout(GRU(3, 4), "mean"))
        assert repr(model) == "Chain(Readout(GRU(3, 4), reading='mean'))"
        for _ in range(9):
            model = Chain(model)
        assert repr(model).count("\n") > 1
        assert max(map(len, repr(model).splitlines())) <= 100

    def test_one_object_in_several_places(self):
        both = Chain(Embedding(5, 3), Tanh())
        model = Chain(Chain(both, Linear(3, 3)), Chain(Linear(3, 3), Dropout()))
        twice = rnncore.Parallel(both, both)
        assert "shared" not in repr(model)
        assert repr(twice).splitlines() == [
            "Parallel(",
            "    Chain(  # shared 1",
            "        Embedding(5, 3),",
            "        Tanh(),",
            "    ),",
            "    Chain(...),  # shared 1",
            ")",
        ]
        module = Tanh()
        for _ in range(10):  # 1024 places
            module = Chain(module, module)
        assert repr(module).count("\n") < 50

    def test_weights_in_fewer_bits(self):
        model = rnncore.quantize(Chain(GRU(3, 4), Tanh(), Linear(4, 2)), "int8")
        assert repr(model).splitlines()[1:-1] == [
            "    GRU(3, 4),  # int8 weights",
            "    Tanh(),",
            "    Linear(4, 2),  # int8 weights",
        ]
        deep = rnncore.quantize(rnncore.DeepRNN(3, 4, num_layers=2), "bfloat16")
        assert repr(deep) == "DeepRNN(3, 4, num_layers=2)  # bfloat16 weights"

    def test_copies_have_it_too(self):
        model = Chain(GRU(3, 4), Linear(4, 2))
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert repr(other) == repr(model)


class TestLosses:
    def test_are_written_as_modules_are(self):
        loss = SoftmaxCrossEntropy(0.1, class_weight=[1, 2.5], ignore_index=np.int64(-1))
        said = "SoftmaxCrossEntropy(label_smoothing=0.1, class_weight=(1, 2.5), ignore_index=-1)"
        assert repr(loss) == said
        again = eval(said, NAMES)
        x, targets = np.array([[0.5, 1.0], [2.0, 3.0], [0.0, 1.0]]), [0, -1, 1]
        assert again(x, targets) == loss(x, targets)
        assert repr(rnncore.BinaryCrossEntropy(pos_weight=np.ones(2))) == (
            "BinaryCrossEntropy(pos_weight=<ndarray>)"
        )
        assert repr(rnncore.CRFLoss(rnncore.CRF(3), "sum")) == "CRFLoss(CRF(3), reduction='sum')"
        assert repr(pickle.loads(pickle.dumps(loss))) == said

    def test_torchs_word_gets_a_hint(self):
        with pytest.raises(TypeError, match="takes no 'weight': write class_weight"):
            SoftmaxCrossEntropy(weight=[1.0, 2.0])


class Tagger(Module):
    """A class of somebody's own, with a part that it is given and parts that it makes."""

    def __init__(self, encoder, classes=2, scores=None, bound=1.0):
        super().__init__()
        self.encoder, self.heads = encoder, {"a": Linear(4, classes), "b": Chain(Tanh(), Tanh())}


class Refuses(Module):
    def __init__(self, size):
        self.said = repr(self)
        raise ValueError(self.said)


class TestClassesOfOnesOwn:
    def test_the_parts_that_they_make(self):
        shared = GRU(3, 4)
        assert repr(Tagger(shared, bound=-np.inf)).splitlines() == [
            "Tagger(",
            "    GRU(3, 4),",
            "    bound=float('-inf'),",
            "    # heads.a: Linear(4, 2)",
            "    # heads.b: Chain(",
            "    #     Tanh(),",
            "    #     Tanh(),",
            "    # )",
            ")",
        ]
        eval(repr(Tagger(shared, bound=-np.inf)), NAMES | {"Tagger": Tagger})

    def test_what_no_file_holds(self):
        said = repr(Tagger(GRU(3, 4), scores=np.zeros(3)))
        assert "    scores=<ndarray>," in said
        assert "    scores=...," in repr(Tagger(GRU(3, 4), scores=[0.1] * 99))

    def test_before_they_are_made(self):
        with pytest.raises(ValueError, match=r"^Refuses\(3\)$"):
            Refuses(3)
        assert repr(Linear.__new__(Linear)) == "Linear(...)"
        assert repr(object.__new__(Tagger)) == "Tagger(...)"

    def test_a_function_of_another_name(self):
        class Sum(Module):
            def __init__(self, *parts: Module, how: str = "add", **named: int):
                super().__init__()
                self.parts = parts

        made = Sum(Linear(3, 3), how="mul", left=1)
        assert repr(made) == "Sum(Linear(3, 3), how='mul', left=1)"
        assert repr(Sum()) == "Sum()"
