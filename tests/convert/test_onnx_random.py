"""Graphs of nodes drawn at random: a plan has the numbers of the nodes one by one."""

import numpy as np
import pytest
from rnncore.convert import from_onnx

from tests.support.onnx_nodes import by_node, f32, graph, near, steps_of

#: All values have this shape.
SHAPE = (2, 3, 6, 5)
#: What a value is added to or multiplied by.
OTHERS = ((), (1,), (3, 1, 1), (1, 3, 1, 1), (5,), (6, 1), (2, 1, 1, 1), SHAPE)
NODES = 12


class Drawing:
    """A graph that grows: each node reads values that there are, late ones more often."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.values, self.nodes, self.constants = ["x"], [], {}

    def value(self):
        return self.values[-1 - min(int(self.rng.geometric(0.5)) - 1, len(self.values) - 1)]

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, op, inputs, attributes=None, outputs=None):
        made = outputs or f"v{len(self.nodes)}"
        self.nodes.append((op, inputs, made, attributes or {}))
        return made.split()[0]

    def convolution(self):
        size = int(self.rng.choice([1, 3]))
        weight = self.constant(f32(self.rng, 3, 3, size, size) * np.float32(0.3))
        bias = f" {self.constant(f32(self.rng, 3))}" if self.rng.random() < 0.5 else ""
        pads = [size // 2] * 4
        return self.add("Conv", f"{self.value()} {weight}{bias}", {"pads": pads})

    def activation(self):
        names = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "HardSigmoid", "LeakyRelu", "Identity"]
        return self.add(str(self.rng.choice(names)), self.value())

    def gate(self):
        x = self.value()
        return self.add("Mul", f"{x} {self.add('Sigmoid', x)}")

    def of_two(self):
        op = str(self.rng.choice(["Add", "Mul", "Sub", "Max", "Min"]))
        return self.add(op, f"{self.value()} {self.value()}")

    def with_constant(self):
        shape = OTHERS[self.rng.integers(len(OTHERS))]
        both = [self.value(), self.constant(np.asarray(f32(self.rng, *shape)))]
        self.rng.shuffle(both)
        return self.add(str(self.rng.choice(["Add", "Mul", "Sub"])), " ".join(both))

    def normalisation(self):
        names = [self.constant(np.abs(f32(self.rng, 3)) + np.float32(0.5)) for _ in range(4)]
        return self.add("BatchNormalization", f"{self.value()} {' '.join(names)}")

    def pool(self):
        op = str(self.rng.choice(["MaxPool", "AveragePool"]))
        return self.add(op, self.value(), {"kernel_shape": [3, 3], "pads": [1] * 4})

    def turned(self):
        there = self.add("Transpose", self.value(), {"perm": [0, 2, 3, 1]})
        return self.add("Transpose", self.add("Tanh", there), {"perm": [0, 3, 1, 2]})

    def in_parts(self):
        joined = self.add("Concat", f"{self.value()} {self.value()}", {"axis": 1})
        first, last = (self.constant(np.array([n])) for n in (2, 5))
        return self.add("Slice", f"{joined} {first} {last} {self.constant(np.array([1]))}")

    def draw(self):
        kinds = [
            *(self.convolution, self.activation, self.gate, self.of_two, self.with_constant),
            *(self.normalisation, self.pool, self.turned, self.in_parts),
        ]
        weights = np.array([4, 3, 2, 3, 4, 2, 1, 1, 1])
        for kind in self.rng.choice(len(kinds), NODES, p=weights / weights.sum()):
            self.values.append(kinds[kind]())
        more = self.rng.choice(self.values[1:], self.rng.integers(3), replace=False)
        outputs = dict.fromkeys([self.values[-1], *map(str, more)])
        return graph(self.nodes, {"x": ("f", SHAPE)}, " ".join(outputs), self.constants)


@pytest.mark.parametrize("seed", range(150))
def test_drawn(seed):
    model, rng = from_onnx(Drawing(seed).draw()), np.random.default_rng(seed + 1000)
    for _ in range(2):
        x = f32(rng, *SHAPE)
        near(model.run(x), by_node(model, {"x": x}), 1e-5)
    assert steps_of(model) <= 1
