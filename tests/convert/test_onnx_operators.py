"""Operators of ONNX around recurrences: the standard's own cases, direct sums, ONNX Runtime."""

import itertools
import re

import numpy as np
import pytest
from rnncore.convert import from_onnx

from tests.support.compare import assert_close, near

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

from onnx import helper

from tests.support.onnx_graphs import graph_of, node_tests, run_by_runtime

make = helper.make_node

#: Modules of the standard's tests, by kind, with how many cases there are at least.
KINDS = {
    "arithmetic": (
        "abs acos acosh add asin asinh atan atanh ceil cos cosh div exp floor log mean mod mul neg "
        "reciprocal round sign sin sinh sqrt sub sum tan",
        95,
    ),
    "logic": (
        "and_ bitwiseand bitwisenot bitwiseor bitwisexor equal greater greater_or_equal isinf "
        "isnan less less_or_equal not_ or_ where xor",
        80,
    ),
    "activations": (
        "celu clip elu erf gelu hardsigmoid hardswish leakyrelu mish prelu relu selu shrink "
        "sigmoid softplus softsign swish tanh thresholdedrelu",
        45,
    ),
    "normalisation": (
        "batch_normalization groupnormalization instance_normalization logsoftmax lpnormalization "
        "rmsnormalization softmax",
        45,
    ),
    "shapes": (
        "concat constantofshape depthtospace expand eyelike flatten identity pad rangeop reshape "
        "shape size slice spacetodepth split squeeze tile transpose trilu unsqueeze",
        110,
    ),
    "indexing": (
        "argmax argmin compress gather gatherelements gathernd nonzero onehot reversesequence "
        "scatter scatterelements scatternd topk",
        70,
    ),
    "reductions": (
        "cumprod cumsum reduce_log_sum reduce_log_sum_exp reducel1 reducel2 reducemax reducemean "
        "reducemin reduceprod reducesum reducesumsquare",
        100,
    ),
    "products": ("einsum gemm matmul", 20),
    "convolution": ("conv convinteger convtranspose", 18),
    "pooling": ("averagepool globalaveragepool globalmaxpool maxpool", 35),
    "resizing": ("resize upsample", 17),
    "control": ("if_ loop scan", 5),
    "sequences": ("splittosequence", 3),
}

#: What is refused, or is no computation in float32 or float64.
REFUSED = (
    "bfloat16|float16|FLOAT|training_mode|with_argmax|_cubic|crop_and_resize|antialias|not_larger|"
    "not_smaller|identity_opt|identity_sequence|if_opt|loop13_seq|loop16_seq|dcr_mode|crd_mode|"
    "test_scan_sum$|"
    # The input's length times the scale is no whole number: ONNX Runtime and PyTorch align the
    # corners of the output that there is, the standard those of one that there is not.
    "resize_downsample_scales_linear_align_corners|"
    # Its numbers are rounded to four digits.
    "ceil_last_window_starts_on_pad"
)


def outputs_agree(got, want, name):
    if isinstance(want, list):
        assert len(got) == len(want), name
        for mine, theirs in zip(got, want, strict=True):
            outputs_agree(mine, theirs, name)
        return
    assert (got.shape, got.dtype) == (want.shape, want.dtype), name
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_standards_own_node_tests_pass(kind):
    names, count = KINDS[kind]
    cases = [
        case
        for case in node_tests(*names.split())
        if not re.search(rf"_expanded|{REFUSED}", case.name)
    ]
    assert len(cases) >= count
    for case in cases:
        model = from_onnx(case.model)
        for inputs, outputs in case.data_sets:
            for got, want in zip(model.run(*inputs), outputs, strict=True):
                outputs_agree(got, want, case.name)


def ran(op, inputs, options, opset=20):
    """What we make of one node, and its graph."""
    node = make(op, list(inputs), ["y"], **options)
    proto = graph_of([node], inputs, {"y": None}, opset=opset)
    return from_onnx(proto).run(*inputs.values())[0], proto


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def direct_conv(x, w, strides, dilations, pads, group):
    """Conv by its definition, number by number, in float64."""
    space = x.ndim - 2
    around = [(0, 0), (0, 0), *zip(pads[:space], pads[space:], strict=True)]
    x, w = np.pad(x.astype(np.float64), around), w.astype(np.float64)
    counts = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, d, s in zip(x.shape[2:], w.shape[2:], dilations, strides, strict=True)
    ]
    y = np.zeros((len(x), len(w), *counts))
    for m, at, tap in itertools.product(
        range(len(w)), np.ndindex(*counts), np.ndindex(*w.shape[2:])
    ):
        places = [a * s + t * d for a, s, t, d in zip(at, strides, tap, dilations, strict=True)]
        first = m // (len(w) // group) * w.shape[1]
        for c in range(w.shape[1]):
            y[(slice(None), m, *at)] += x[(slice(None), first + c, *places)] * w[(m, c, *tap)]
    return y


#: Sizes, kernel, strides, dilations, pads; channels in and out, groups.
CONVOLUTIONS = [
    ((9,), (3,), (1,), (1,), (1, 1), 4, 6, 1),
    ((9,), (3,), (2,), (2,), (2, 0), 4, 6, 2),
    ((7,), (1,), (3,), (1,), (0, 0), 3, 3, 3),
    ((1,), (1,), (1,), (1,), (0, 0), 1, 1, 1),
    ((5,), (5,), (1,), (1,), (0, 3), 2, 4, 2),
    ((6, 5), (3, 2), (1, 1), (1, 1), (1, 0, 1, 1), 2, 3, 1),
    ((6, 7), (2, 3), (2, 1), (1, 2), (0, 2, 1, 2), 4, 4, 4),
    ((1, 8), (1, 3), (1, 2), (1, 1), (0, 1, 0, 1), 3, 2, 1),
    ((3, 4, 3), (2, 2, 2), (1, 2, 1), (1, 1, 1), (0, 0, 1, 0, 1, 0), 2, 2, 1),
]


class TestConvolutions:
    @pytest.mark.parametrize("case", CONVOLUTIONS)
    @pytest.mark.parametrize("batch", [0, 1, 3])
    @pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2e-6), (np.float64, 1e-12)])
    def test_conv_is_what_it_says(self, rng, case, batch, dtype, bound):
        """Of an input with gaps between its numbers, too."""
        sizes, kernel, strides, dilations, pads, channels, outputs, group = case
        x = rng.standard_normal((*sizes, channels, 2 * batch)).astype(dtype).T[::2]
        x = x.transpose(0, 1, *range(x.ndim - 1, 1, -1))
        w = rng.standard_normal((outputs, channels // group, *kernel)).astype(dtype)
        b = rng.standard_normal(outputs).astype(dtype)
        options = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
        y, _ = ran("Conv", {"x": x, "w": w, "b": b}, options)
        want = direct_conv(x, w, strides, dilations, pads, group)
        near(y, want + b.reshape(-1, *[1] * len(sizes)), bound)

    @pytest.mark.parametrize("case", CONVOLUTIONS[:-1])
    def test_conv_transpose_is_the_transpose(self, rng, case):
        """The product of y with Conv(x) is that of ConvTranspose(y) with x."""
        sizes, kernel, strides, dilations, pads, channels, outputs, group = case
        options = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
        x, w = draw(rng, 2, channels, *sizes), draw(rng, outputs, channels // group, *kernel)
        y, _ = ran("Conv", {"x": x, "w": w}, options)
        dy, none = draw(rng, *y.shape), [0] * 2 * len(sizes)
        back, _ = ran("ConvTranspose", {"x": dy, "w": w}, options | {"pads": none})
        padded = np.zeros(back.shape)  # what is beyond the last window meets nothing
        front = [slice(first, first + size) for first, size in zip(pads, sizes, strict=False)]
        seen = padded[(..., *front)]
        seen[...] = x[tuple(map(slice, seen.shape))]
        near(np.vdot(dy, y), np.vdot(back, padded), 1e-5)

    @pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
    @pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MaxPool", "AveragePool"])
    def test_pads_by_themselves_as_onnx_runtime(self, rng, op, auto_pad):
        for size, kernel, stride in itertools.product((4, 7), (2, 3), (1, 2, 3)):
            inputs = {"x": draw(rng, 2, 4, size, 6)}
            options = {"auto_pad": auto_pad, "strides": [stride, 2], "kernel_shape": [kernel, 2]}
            if "Conv" in op:
                inputs["w"] = draw(rng, 4, 4, kernel, 2)
            y, proto = ran(op, inputs, options)
            near(y, run_by_runtime(proto, inputs)[0], 2e-6)

    @pytest.mark.parametrize("space", [1, 2])
    def test_conv_transpose_as_onnx_runtime(self, rng, space):
        choices = itertools.product((1, 2), (1, 2, 3), (1, 3), (1, 2), (0, 1), (0, 1), (0, 1))
        for group, kernel, stride, dilation, first, last, more in choices:
            x = draw(rng, 2, 4, 5, 3)[..., : space + 2].reshape(2, 4, 5, -1)
            x = x[..., 0] if space == 1 else x
            inputs = {"x": x, "w": draw(rng, 4, 3, *[kernel] * space), "b": draw(rng, 3 * group)}
            options = {"strides": [stride] * space, "dilations": [dilation] * space}
            options |= {"group": group, "pads": [first] * space + [last] * space}
            if more < stride:
                options["output_padding"] = [more] * space
            if (x.shape[2] - 1) * stride + (kernel - 1) * dilation + 1 <= first + last:
                continue
            y, proto = ran("ConvTranspose", inputs, options)
            near(y, run_by_runtime(proto, inputs)[0], 2e-6)

    def test_a_row_with_nan_stays_alone(self, rng):
        x, w = draw(rng, 3, 2, 6), draw(rng, 4, 2, 3)
        whole, _ = ran("Conv", {"x": x, "w": w}, {})
        x[1, 0, 2] = np.nan
        some, _ = ran("Conv", {"x": x, "w": w}, {})
        np.testing.assert_array_equal(whole[[0, 2]], some[[0, 2]])
        assert np.isnan(some[1]).any()

    @pytest.mark.parametrize(
        ("op", "options", "what"),
        [
            ("Conv", {"strides": [0]}, "strides must be 1 numbers of at least 1"),
            ("Conv", {"dilations": [-1]}, "dilations must be"),
            ("Conv", {"pads": [1]}, "pads must be 2 numbers"),
            ("Conv", {"pads": [-1, 0]}, "pads must be 2 numbers"),
            ("Conv", {"group": 0}, r"W \(4, 2, 3\) in 0 groups does not fit X \(1, 2, 5\)"),
            ("Conv", {"group": 2}, r"W \(4, 2, 3\) in 2 groups does not fit X"),
            ("Conv", {"kernel_shape": [4]}, r"kernel_shape is \(4,\), but W has shape"),
            ("Conv", {"dilations": [3]}, "a kernel that spans 7 does not fit 5"),
            ("Conv", {"auto_pad": "SAME"}, "auto_pad='SAME'"),
            ("Conv", {"other": 1}, "other"),
            ("ConvTranspose", {"pads": [9, 9]}, "leave nothing"),
            ("MaxPool", {"kernel_shape": [9]}, "does not fit"),
            ("MaxPool", {"kernel_shape": [2, 2]}, "kernel_shape must be 1 numbers"),
        ],
    )
    def test_what_does_not_fit_is_named(self, rng, monkeypatch, op, options, what):
        import onnx

        monkeypatch.setattr(onnx.checker, "check_model", lambda *_: None)
        inputs = {"x": draw(rng, 1, 2, 5), "w": draw(rng, 4, 2, 3)}
        if op == "ConvTranspose":
            inputs["w"] = draw(rng, 2, 4, 3)
        if op == "MaxPool":
            inputs.pop("w")
        with pytest.raises(ValueError, match=what):
            ran(op, inputs, options)


def test_pools_as_onnx_runtime(rng):
    """Every way to round up and to count pads, over lengths where the last window matters."""
    for size, kernel, stride, first, last in itertools.product(
        (3, 5, 6), (1, 2, 3), (1, 2, 3), (0, 1), (0, 1)
    ):
        if max(first, last) >= kernel:
            continue
        options = {"kernel_shape": [kernel], "strides": [stride], "pads": [first, last]}
        x = {"x": draw(rng, 2, 3, size)}
        for up, counted in itertools.product((0, 1), (0, 1)):
            y, proto = ran(
                "AveragePool", x, options | {"ceil_mode": up, "count_include_pad": counted}
            )
            near(y, run_by_runtime(proto, x)[0], 2e-6)
        y, proto = ran("MaxPool", x, options | {"ceil_mode": up})
        near(y, run_by_runtime(proto, x)[0], 0)


class TestResize:
    @pytest.mark.parametrize("mode", ["nearest", "linear"])
    @pytest.mark.parametrize(
        "places", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
    )
    def test_as_onnx_runtime(self, rng, mode, places):
        x = {"x": draw(rng, 1, 2, 5, 4)}
        rounded = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        for scale, nearest in itertools.product(
            (0.4, 0.5, 1.0, 1.6, 2.0, 3.0), rounded if mode == "nearest" else rounded[:1]
        ):
            options = {"mode": mode, "coordinate_transformation_mode": places}
            options["nearest_mode"] = nearest
            node = make("Resize", ["x", "", "scales"], ["y"], **options)
            scales = {"scales": np.array([1, 1, scale, 2], np.float32)}
            proto = graph_of([node], x, {"y": None}, scales, opset=18)
            near(from_onnx(proto).run(**x)[0], run_by_runtime(proto, x)[0], 2e-6)

    @pytest.mark.parametrize("opset", [9, 10])
    def test_before_version_11(self, rng, opset):
        x = {"x": draw(rng, 1, 2, 5, 4)}
        op = "Upsample" if opset == 9 else "Resize"
        for mode in ("nearest", "linear"):
            scales = {"scales": np.array([1, 1, 2, 3], np.float32)}
            proto = graph_of(
                [make(op, ["x", "scales"], ["y"], mode=mode)], x, {"y": None}, scales, opset
            )
            near(from_onnx(proto).run(**x)[0], run_by_runtime(proto, x)[0], 2e-6)


class TestPad:
    @pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
    def test_modes_axes_and_negative_pads(self, rng, mode):
        x = draw(rng, 4, 5, 3)
        for pads in ([1, 0, 2, 1], [-1, 2, 0, -2], [0, -1, -2, 3]):
            given = {"x": x, "p": np.array(pads)} | {"v": np.array(1.5, np.float32)}
            axes = {"a": np.array([1, -3])}
            proto = graph_of(
                [make("Pad", ["x", "p", "v", "a"], ["y"], mode=mode)],
                {"x": x},
                {"y": None},
                {"p": given["p"], "v": given["v"]} | axes,
                opset=19,
            )
            (y,) = from_onnx(proto).run(x)
            cut = x[max(0, -pads[1]) : 4 + min(0, pads[3]), max(0, -pads[0]) : 5 + min(0, pads[2])]
            around = [(max(0, pads[1]), max(0, pads[3])), (max(0, pads[0]), max(0, pads[2]))]
            options = {"constant_values": 1.5} if mode == "constant" else {}
            np.testing.assert_array_equal(y, np.pad(cut, [*around, (0, 0)], mode, **options))

    def test_attributes_of_earlier_versions(self, rng):
        x = draw(rng, 2, 3)
        node = make("Pad", ["x"], ["y"], pads=[0, 1, 0, 2], value=0.5)
        (y,) = from_onnx(graph_of([node], {"x": x}, {"y": None}, opset=2)).run(x)
        np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (1, 2)), constant_values=0.5))


def test_sequences(rng):
    """Built, changed and put together; the list that was there stays as it was."""
    x = draw(rng, 3, 2)
    nodes = [
        make("SequenceEmpty", [], ["none"]),
        make("SequenceInsert", ["none", "x"], ["one"]),
        make("SequenceConstruct", ["x", "x"], ["two"]),
        make("Neg", ["x"], ["minus"]),
        make("SequenceInsert", ["two", "minus", "at"], ["three"]),
        make("SequenceErase", ["three", "at"], ["again"]),
        make("SequenceErase", ["three"], ["front"]),
        make("SequenceAt", ["three", "at"], ["picked"]),
        *(
            make("SequenceLength", [name], [f"n_{name}"])
            for name in ("none", "one", "two", "three", "again")
        ),
        make("ConcatFromSequence", ["front"], ["joined"], axis=-1),
        make("ConcatFromSequence", ["three"], ["stacked"], axis=0, new_axis=1),
    ]
    names = ["picked", "joined", "stacked", "n_none", "n_one", "n_two", "n_three", "n_again"]
    proto = graph_of(nodes, {"x": x}, dict.fromkeys(names), {"at": np.array(-1)})
    picked, joined, stacked, *lengths = from_onnx(proto).run(x)
    np.testing.assert_array_equal(picked, x)
    np.testing.assert_array_equal(joined, np.concatenate((x, -x), -1))
    np.testing.assert_array_equal(stacked, np.stack((x, -x, x)))
    assert list(map(int, lengths)) == [0, 1, 2, 3, 2]
    proto = graph_of(nodes, {"x": x}, {"picked": None}, {"at": np.array(-3)})
    with pytest.raises(ValueError, match=r"SequenceInsert 4: position must be in -2\.\.2, got -3"):
        from_onnx(proto).run(x)


def test_einsums(rng):
    parts = {"a": draw(rng, 2, 3, 4), "b": draw(rng, 2, 5, 4)}
    for equation in ("bid,bjd->bij", "b i d , b j d -> i j", "...d,...d", "bid,bjd", "bid,bjd->"):
        given = parts | ({"b": parts["a"]} if equation == "...d,...d" else {})
        y, _ = ran("Einsum", given, {"equation": equation})
        wide = [array.astype(np.float64) for array in given.values()]
        assert_close({"y": y}, {"y": np.einsum(equation, *wide)}, 1e-6)
    with pytest.raises(ValueError, match="Einsum of 3 arrays"):
        ran("Einsum", parts | {"c": parts["a"]}, {"equation": "bid,bjd,bid->bj"})
