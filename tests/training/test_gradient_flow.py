"""Gradient statistics: against powers of a matrix, central differences and whole-sequence vjps."""

import numpy as np
import pytest
import rnncore
from rnncore.compositions.deep import DeepRNN
from rnncore.training.gradient_flow import (
    GradientNorms,
    gradient_flow,
    plot_gradient_flow,
    plot_gradient_norms,
)
from rnncore.training.trainer import Trainer

T, B, N, H = 7, 3, 2, 4


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, B, N))


def test_linear_rnn_is_powers_of_its_matrix(rng, x):
    layer = rnncore.RNN(N, H, nonlinearity="identity", dtype="float64", seed=0)
    dy, expected = rng.standard_normal((B, H)), []
    d = dy
    for _ in range(T):
        d = d @ layer.params["weight_hh_l0"]
        expected.append(np.linalg.norm(d, axis=1).mean())
    flow = gradient_flow(layer, x, dy)
    assert flow.shape == (T, 1)
    np.testing.assert_allclose(flow[::-1, 0], expected, rtol=1e-12)


def test_without_dy_every_sequence_has_a_gradient_of_length_one(x):
    layer = rnncore.RNN(N, H, nonlinearity="identity", dtype="float64", seed=0)
    layer.params["weight_hh_l0"][...] = np.eye(H)
    np.testing.assert_allclose(gradient_flow(layer, x), 1, rtol=1e-12)


@pytest.mark.parametrize("kind", [rnncore.RNN, rnncore.LSTM, rnncore.GRU])
@pytest.mark.parametrize("start", [0, 3])
def test_equals_the_gradient_of_the_state_given_to_the_rest(kind, start, rng, x):
    layer = kind(N, H, num_layers=2, dtype="float64", seed=1)
    _, state = layer(x[:start] if start else x[:0])
    dy = np.zeros((T - start, B, H))
    dy[-1] = rng.standard_normal((B, H))
    _, pullback = layer.vjp(x[start:], state)
    _, dstate = pullback(dy)
    joint = np.concatenate(dstate, axis=-1) if kind is rnncore.LSTM else dstate
    expected = np.linalg.norm(joint, axis=-1).mean(axis=1)
    flow = gradient_flow(layer, x, dy[-1])
    assert flow.shape == (T, 2)
    np.testing.assert_allclose(flow[start], expected, rtol=1e-12)


def test_chain_counts_all_its_layers_and_grads_are_left_alone(x):
    model = rnncore.Chain(
        rnncore.GRU(N, H, dtype="float64", seed=0),
        rnncore.Linear(H, N, dtype="float64", seed=1),
        rnncore.Chain(rnncore.LSTM(N, H, num_layers=2, dtype="float64", seed=2)),
    )
    for grad in model.grads.values():
        grad.fill(3)
    flow = gradient_flow(model, x)
    assert flow.shape == (T, 3)
    # The last state is given to nobody but the last step, which only the top layer's y reads.
    assert (flow > 0).all()
    assert all((grad == 3).all() for grad in model.grads.values())


def test_deep_rnn_counts_its_layers(x):
    options = {"num_layers": 2, "dtype": "float64"}
    plain = rnncore.LSTM(N, H, **options)
    deep = DeepRNN(N, H, cell="lstm", **options)
    for name, value in deep.params.items():
        value[...] = plain.params[name.rpartition(".")[2]]
    np.testing.assert_array_equal(gradient_flow(deep, x), gradient_flow(plain, x))
    with pytest.raises(ValueError, match="this DeepRNN looks ahead"):
        gradient_flow(DeepRNN(N, H, cell="lstm", bidirectional=True, **options), x)


def test_what_mixes_frames_is_refused_and_buffers_are_left_alone(x):
    """A step at a time, a convolution would see padding where there are frames."""
    gru = rnncore.GRU(N, H, dtype="float64", seed=0)
    for layer in (rnncore.Conv1d(N, N, 2, padding="causal", dtype="float64"), rnncore.MaxPool1d(1)):
        with pytest.raises(ValueError, match="mixes frames: put that before it"):
            gradient_flow(rnncore.Chain(layer, gru), x)
    model = rnncore.Chain(gru, rnncore.BatchNorm(H, dtype="float64"))
    before = model.state_dict()
    gradient_flow(model, x)
    for name, array in model.stored.items():
        np.testing.assert_array_equal(array, before[name])


def test_layouts_agree(x):
    layers = [rnncore.GRU(N, H, dtype="float64", seed=0, batch_first=b) for b in (False, True)]
    flow = gradient_flow(layers[0], x)
    np.testing.assert_array_equal(gradient_flow(layers[1], x.swapaxes(0, 1)), flow)
    alone = [gradient_flow(layer, x[:, 1], np.ones(H)) for layer in layers]
    np.testing.assert_array_equal(*alone)
    np.testing.assert_allclose(
        alone[0], gradient_flow(layers[0], x[:, 1:2], np.ones((1, H))), rtol=1e-12
    )


def test_what_has_no_flow_is_refused(x):
    with pytest.raises(TypeError, match="Linear is not recurrent"):
        gradient_flow(rnncore.Linear(N, H), x)
    with pytest.raises(ValueError, match="this GRU looks ahead"):
        gradient_flow(rnncore.Chain(rnncore.GRU(N, H, bidirectional=True)), x)
    with pytest.raises(ValueError, match=r"one output step \(3, 4\), got \(3, 5\)"):
        gradient_flow(rnncore.GRU(N, H, dtype="float64"), x, np.zeros((B, H + 1)))
    with pytest.raises(ValueError, match="at least one step"):
        gradient_flow(rnncore.GRU(N, H, dtype="float64"), x[:0])


def test_gradient_norms_over_training(rng, tmp_path):
    model = rnncore.Chain(rnncore.GRU(N, H, seed=0), rnncore.Linear(H, 1, seed=1))
    inputs = rng.standard_normal((T, B, N)).astype(np.float32)
    batches = [(inputs, np.zeros((T, B, 1), np.float32))]
    trainer = Trainer(model, rnncore.MeanSquaredError(), rnncore.SGD(model), batches)
    each = GradientNorms(model)
    parts = GradientNorms(model, lambda name: name.split(".")[0])
    for _ in range(3):
        trainer.update()
        each.record(trainer.progress.step)
        now = parts.record()
    assert each.steps == parts.steps == [1, 2, 3]
    assert list(each.norms) == list(model.params)
    assert list(parts.norms) == ["0", "1"]
    grads = model.grads
    assert each.norms["1.weight"][-1] == pytest.approx(np.linalg.norm(grads["1.weight"]))
    joint = np.hypot(each.norms["1.weight"], each.norms["1.bias"])
    np.testing.assert_allclose(parts.norms["1"], joint)
    assert now == {name: norms[-1] for name, norms in parts.norms.items()}
    pytest.importorskip("matplotlib")
    plot_gradient_norms(parts, tmp_path / "norms.png")
    assert (tmp_path / "norms.png").stat().st_size > 0


def test_plot_has_a_line_per_cell_and_layer(x, tmp_path):
    pytest.importorskip("matplotlib")
    flows = {
        "RNN": gradient_flow(rnncore.RNN(N, H, dtype="float64", seed=0), x),
        "GRU": gradient_flow(rnncore.GRU(N, H, 2, dtype="float64", seed=0), x),
        "nothing": np.zeros((T, 1)),
    }
    plot_gradient_flow(flows, tmp_path / "flow.svg", title="fading")
    picture = (tmp_path / "flow.svg").read_text(encoding="utf-8")
    for label in ("RNN", "GRU, layer 0", "GRU, layer 1", "nothing", "fading"):
        assert f"<!-- {label} -->" in picture
