"""The joint network of a transducer: what it hands on, its gradients, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from rnncore import Linear, TransducerJoint, TransducerLoss, quantize

from tests.support.compare import assert_same, near
from tests.support.transducer import SIZES, case


class TestTheJointNetwork:
    def test_hands_on_what_it_is_given(self) -> None:
        c = case(SIZES[3])
        joined = c.joined
        assert joined.joint is c.joint
        want = np.tanh(c.f.transpose(1, 0, 2)[:, :, None] + c.g.transpose(1, 0, 2)[:, None])
        weight, bias = c.joint.params["output.weight"], c.joint.params["output.bias"]
        inside = np.isfinite(want)[..., 0]
        near(joined.logits()[inside], (want @ weight.T + bias)[inside], 1e-12)

    def test_adds_to_its_gradients(self) -> None:
        c = case(SIZES[3])
        joined, pullback = c.joint.vjp(c.f, c.g)
        d = c.vjp(TransducerLoss(c.blank), joined)[1]()
        df, dg = pullback(d)
        assert_same({"f": df, "g": dg}, {"f": d.f, "g": d.g})
        grads = c.joint.grads
        assert_same(
            {name: grads[f"output.{name}"] for name in ("weight", "bias")},
            {"weight": d.weight, "bias": d.bias},
        )
        with pytest.raises(RuntimeError, match="already run"):
            pullback(d)

    def test_refuses_what_is_no_gradient(self) -> None:
        c = case(SIZES[3])
        joined, pullback = c.joint.vjp(c.f, c.g)
        d = c.vjp(TransducerLoss(c.blank), joined)[1]()
        with pytest.raises(TypeError, match="d must be a JointGradients"):
            pullback(d.f)
        with pytest.raises(ValueError, match=r"d\.bias must have shape"):
            pullback(d._replace(bias=d.bias[1:]))
        assert not c.joint.grads["output.weight"].any()
        pullback(d)

    def test_without_a_bias(self) -> None:
        joint = TransducerJoint(4, 5, bias=False, dtype="float64", seed=0)
        rng = np.random.default_rng(0)
        (joined, pullback) = joint.vjp(
            rng.standard_normal((6, 1, 4)), rng.standard_normal((3, 1, 4))
        )
        d = TransducerLoss().vjp(joined, [[1, 2]])[1]()
        assert d.bias is None
        pullback(d)
        assert list(joint.grads) == ["output.weight"]

    def test_quantized_it_has_a_loss_but_no_gradient(self) -> None:
        c = case(SIZES[4], "float32")
        small = c._replace(joint=quantize(c.joint))
        loss = TransducerLoss(c.blank)
        value, pullback = small.vjp(loss)
        assert value == pytest.approx(c.vjp(loss)[0], rel=0.05)
        with pytest.raises(TypeError, match="no gradients"):
            pullback()

    @pytest.mark.parametrize("name", ["f", "g"])
    def test_names_what_is_wrong(self, name: str) -> None:
        given = {"f": np.zeros((6, 2, 4), np.float32), "g": np.zeros((3, 2, 4), np.float32)}
        joint = TransducerJoint(4, 5, seed=0)
        with pytest.raises(ValueError, match=f"{name} must have shape"):
            joint(**given | {name: given[name][..., :3]})
        with pytest.raises(TypeError, match=f"{name} is float64"):
            joint(**given | {name: given[name].astype(np.float64)})
        with pytest.raises(ValueError, match="g must have 2 rows"):
            joint(given["f"], given["g"][:, :1])

    def test_is_seeded_as_a_linear_layer(self) -> None:
        joint, linear = TransducerJoint(4, 5, seed=3), Linear(4, 5, seed=3)
        assert_same({"weight": joint.params["output.weight"]}, {"weight": linear.params["weight"]})
