"""Convolutions of graphs, and the nodes that are one step with them: the numbers of all of them."""

import numpy as np
import pytest
from rnncore.convert import from_onnx

from tests.support.onnx_graphs import onnx, run_by_runtime
from tests.support.onnx_nodes import IMAGE, by_node, conv, f32, graph, near, plans, steps_of

TensorProto = onnx.TensorProto


class TestFusing:
    """A convolution takes what follows it; what is read elsewhere as well stays."""

    def check(self, nodes, constants, outputs="y", steps=1, opset=17):
        rng = np.random.default_rng(3)
        proto = graph(nodes, {"x": ("f", IMAGE)}, outputs, constants, opset)
        model, x = from_onnx(proto), f32(rng, *IMAGE)
        near(model.run(x), by_node(model, {"x": x}), 1e-5)
        assert steps_of(model) == steps
        return plans(model)[0]

    @pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Tanh", "HardSigmoid", "Elu"])
    def test_activations(self, rng, op):
        nodes = [("Conv", "x w w_b", "a", {"pads": [1, 1, 1, 1]}), (op, "a", "y", {})]
        self.check(nodes, conv(rng))

    @pytest.mark.parametrize("ends", ["y", "y a", "y s"])
    def test_a_gate(self, rng, ends):
        nodes = [("Conv", "x w w_b", "a", {}), ("Sigmoid", "a", "s", {}), ("Mul", "a s", "y", {})]
        self.check(nodes, conv(rng), ends)

    @pytest.mark.parametrize("order", ["a b", "b a"])
    def test_a_sum_with_another_convolution(self, rng, order):
        nodes = [
            ("Conv", "x w w_b", "a", {"strides": [2, 2]}),
            ("Conv", "x v v_b", "b", {"strides": [2, 2]}),
            ("Add", order, "c", {}),
            ("Relu", "c", "y", {}),
        ]
        self.check(nodes, conv(rng) | conv(rng, "v"))
        self.check(nodes, conv(rng) | conv(rng, "v"), "y b")

    def test_a_sum_with_itself(self, rng):
        self.check([("Conv", "x w w_b", "a", {}), ("Add", "a a", "y", {})], conv(rng))

    @pytest.mark.parametrize("shape", [(1, 5, 1, 1), (5, 1, 1), (1, 1, 1), ()])
    def test_numbers_for_each_channel(self, rng, shape):
        constants = conv(rng) | {"m": f32(rng, *shape), "n": f32(rng, *shape)}
        nodes = [("Conv", "x w", "a", {}), ("Mul", "m a", "b", {}), ("Add", "b n", "y", {})]
        self.check(nodes, constants)

    @pytest.mark.parametrize("shape", [(1, 5, 1, 5), (5, 7, 1), (2, 5, 1, 1), (5,)])
    def test_numbers_for_other_axes(self, rng, shape):
        nodes = [("Conv", "x w w_b", "a", {}), ("Mul", "a m", "y", {})]
        self.check(nodes, conv(rng) | {"m": f32(rng, *shape)})

    def test_normalisation(self, rng):
        names = ("scale", "shift", "mean", "variance")
        constants = conv(rng) | {n: np.abs(f32(rng, 5)) for n in names}
        nodes = [
            ("Conv", "x w w_b", "a", {}),
            ("BatchNormalization", f"a {' '.join(names)}", "b", {"epsilon": 1e-3}),
            ("Relu", "b", "y", {}),
        ]
        self.check(nodes, constants)

    def test_what_comes_after_the_activation_stays(self, rng):
        nodes = [
            ("Conv", "x w w_b", "a", {}),
            ("Relu", "a", "b", {}),
            ("Add", "b m", "c", {}),
            ("Tanh", "c", "y", {}),
        ]
        self.check(nodes, conv(rng) | {"m": f32(rng, 5, 1, 1)})

    @pytest.mark.parametrize("then", ["Relu", "Identity"])
    def test_a_sum_with_a_constant(self, rng, then):
        """Of the size of the image, as an encoding of places."""
        nodes = [("Conv", "x w w_b", "a", {}), ("Add", "m a", "b", {}), (then, "b", "y", {})]
        self.check(nodes, conv(rng) | {"m": f32(rng, 2, 5, 7, 5)})

    def test_a_weight_that_is_computed(self, rng):
        """It is no constant: the node runs as it is."""
        nodes = [("ReduceMean", "x", "s", {}), ("Mul", "w s", "v", {}), ("Conv", "x v", "y", {})]
        self.check(nodes, conv(rng), steps=2)


class TestConvolutions:
    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"pads": [1, 0, 2, 1]},
            {"strides": [2, 3], "dilations": [2, 1]},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {"auto_pad": "SAME_LOWER"},
        ],
    )
    @pytest.mark.parametrize("outputs", [1, 17])
    def test_images(self, rng, attributes, outputs):
        constants = conv(rng, outputs=outputs)
        proto = graph([("Conv", "x w w_b", "y", attributes)], {"x": ("f", IMAGE)}, "y", constants)
        model, x = from_onnx(proto), f32(rng, *IMAGE)
        near(model.run(x), run_by_runtime(proto, {"x": x}), 1e-5)
        assert steps_of(model) == 1

    def test_groups_and_sequences(self, rng):
        constants = {"w": f32(rng, 6, 2, 3), "v": f32(rng, 3, 6, 1)}
        nodes = [("Conv", "x w", "a", {"group": 2, "pads": [2, 1]}), ("Conv", "a v", "y", {})]
        proto = graph(nodes, {"x": ("f", ("n", 4, "t"))}, "y", constants)
        model = from_onnx(proto)
        for shape in ((1, 4, 8), (3, 4, 5), (2, 4, 1)):
            x = f32(rng, *shape)
            near(model.run(x), run_by_runtime(proto, {"x": x}), 1e-5)
        assert len(plans(model)) == 3
        assert len(model._plans._layers) == 2, "the plans share their weights"

    @pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
    @pytest.mark.parametrize(
        "attributes",
        [
            {"kernel_shape": [2, 3]},
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
            {"kernel_shape": [2, 2], "ceil_mode": 1, "strides": [2, 2]},
        ],
    )
    def test_pools(self, rng, op, attributes):
        nodes = [(op, "x", "a", attributes), ("GlobalAveragePool", "a", "y", {})]
        proto = graph(nodes, {"x": ("f", IMAGE)}, "a y")
        model, x = from_onnx(proto), f32(rng, *IMAGE)
        near(model.run(x), run_by_runtime(proto, {"x": x}), 1e-6)
        assert steps_of(model) == 1

    @pytest.mark.parametrize("images", [2, 0])
    def test_weights_in_8_bits(self, rng, images):
        """As ONNX Runtime's quantiser writes a convolution with a bias."""
        whole = rng.integers(-127, 128, (8, 16, 3, 3)).astype(np.int8)
        constants = {
            "q": whole,
            "s": np.float32(0.02),
            "z": np.int8(3),
            "b": f32(rng, 8),
            "shape": np.array([1, 8, 1, 1]),
        }
        nodes = [
            ("DynamicQuantizeLinear", "x", "u us uz", {}),
            ("Mul", "us s", "both", {}),
            ("Div", "b both", "b1", {}),
            ("Floor", "b1", "b2", {}),
            ("Cast", "b2", "b3", {"to": TensorProto.INT32}),
            ("Reshape", "b3 shape", "b4", {}),
            ("ConvInteger", "u q uz z", "c", {"pads": [1, 1, 1, 1]}),
            ("Add", "c b4", "d", {}),
            ("Cast", "d", "e", {"to": TensorProto.FLOAT}),
            ("Mul", "us s", "again", {}),
            ("Mul", "e again", "a", {}),
            ("Relu", "a", "y", {}),
        ]
        proto = graph(nodes, {"x": ("f", ("n", 16, 6, 5))}, "y", constants)
        model, x = from_onnx(proto), f32(rng, images, 16, 6, 5)
        if images:
            near(model.run(x), run_by_runtime(proto, {"x": x}), 2e-2)
            assert steps_of(model) == 1
        else:
            assert model.run(x)[0].shape == (0, 8, 6, 5)
