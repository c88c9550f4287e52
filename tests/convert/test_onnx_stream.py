"""Graphs whose states are inputs and outputs, as streams."""

import numpy as np
import pytest
from rnncore.convert import from_onnx

from tests.support.onnx_nodes import f32, graph

#: The states of the graph.
STATES = {"h": "hn", "c": "cn"}


class TestStream:
    """A graph whose states are inputs and outputs."""

    def model(self, rng):
        constants = {"w": f32(rng, 1, 12, 2), "r": f32(rng, 1, 12, 3), "b": f32(rng, 1, 24)}
        nodes = [
            ("Unsqueeze", "x front", "u", {}),
            ("Mul", "u k", "v", {}),
            ("LSTM", "v w r b none h c", "a hn cn", {"hidden_size": 3}),
            ("Squeeze", "a front2", "y", {}),
        ]
        constants |= {"front": np.array([0]), "front2": np.array([0, 1])}
        state = ("f", (1, "n", 3))
        inputs = {"x": ("f", ("n", 2)), "h": state, "c": state, "k": ("f", ())}
        proto = graph(nodes, inputs, "y hn cn", constants)
        proto.graph.node[2].input[4] = ""
        return from_onnx(proto)

    @pytest.mark.parametrize("batch", [1, 3])
    def test_as_states_carried_by_hand(self, rng, batch):
        model = self.model(rng)
        stream = model.stream(STATES, batch, k=np.float32(0.5))
        assert (stream.inputs, stream.outputs) == (("x",), ("y",))
        h = c = np.zeros((1, batch, 3), np.float32)
        for _ in range(5):
            x = f32(rng, batch, 2)
            y, h, c = model.run(x, h, c, np.float32(0.5))
            assert np.array_equal(stream.step(x), y)
        assert np.array_equal(stream.state["h"], h)
        stream.reset()
        assert not stream.state["c"].any()
        stream.state = {"h": h, "c": c}
        assert np.array_equal(stream.step(x=x), model.run(x, h, c, np.float32(0.5))[0])
        stream.state = None
        assert not stream.state["h"].any()

    def test_what_the_caller_writes_later(self, rng):
        """Neither a fixed input nor a state is the caller's array."""
        nodes = [("Identity", "x", "sn", {}), ("Mul", "s k", "a", {}), ("NonZero", "x", "y", {})]
        inputs = {"x": ("f", (2,)), "s": ("f", (2,)), "k": ("f", ())}
        model = from_onnx(graph(nodes, inputs, "a sn y"))
        k, x = np.array(2, np.float32), np.float32([1, 2])
        stream = model.stream({"s": "sn"}, k=k)
        stream.step(x)
        x[:], k[...] = 7, 9
        assert stream.step(x)[0].tolist() == [2, 4]

    def test_inputs_that_are_left(self, rng):
        stream = self.model(rng).stream(STATES)
        assert stream.inputs == ("x", "k")
        x = f32(rng, 1, 2)
        y = stream.step(x, np.float32(2))
        stream.reset()
        assert np.array_equal(stream.step(k=np.float32(2), x=x), y)

    def test_a_refused_step_leaves_the_state(self, rng):
        stream = self.model(rng).stream(STATES, k=np.float32(1))
        stream.step(f32(rng, 1, 2))
        before = stream.state
        for wrong in (f32(rng, 2, 2), f32(rng, 1, 3)):
            with pytest.raises(ValueError, match=r"must have shape"):
                stream.step(wrong)
        for args, named in (((), {}), ((1, 2), {}), ((1,), {"x": 1}), ((), {"z": 1})):
            with pytest.raises(ValueError, match="a step takes x"):
                stream.step(*args, **named)
        assert all(np.array_equal(before[n], stream.state[n]) for n in before)

    @pytest.mark.parametrize(
        ("states", "fixed", "words"),
        [
            ({"g": "hn"}, {}, "no input 'g'"),
            ({"h": "gn"}, {}, "no output 'gn'"),
            ({"h": "hn"}, {"z": 1}, "no input 'z'"),
            ({"h": "hn"}, {"h": np.zeros((1, 1, 3), np.float32)}, "'h' is a state"),
        ],
    )
    def test_names(self, rng, states, fixed, words):
        with pytest.raises(ValueError, match=words):
            self.model(rng).stream(states, **fixed)

    def test_states(self, rng):
        stream = self.model(rng).stream(STATES)
        for state in ({"h": np.zeros((1, 1, 3), np.float32)}, 3):
            with pytest.raises(ValueError, match="state must have the entries h, c"):
                stream.state = state
        wrong = np.zeros((1, 2, 3), np.float32)
        with pytest.raises(ValueError, match=r"the state 'h' must be float32 of shape \(1, 1, 3\)"):
            stream.state = {"h": wrong, "c": wrong}
        with pytest.raises(ValueError, match="batch"):
            self.model(rng).stream(STATES, 0)
