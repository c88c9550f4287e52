"""Several arrays made into one, and arrays put into other shapes: NumPy's own, and gradients."""

import numpy as np
import pytest
from rnncore import (
    AdditiveAttention,
    Dot,
    DotAttention,
    Merge,
    Module,
    Permute,
    RepeatVector,
    Reshape,
    ZeroPad,
)

from tests.support.compare import assert_same, near
from tests.support.gradients import check_layer

WANTED = {
    "sum": lambda *a: np.sum(a, axis=0),
    "mean": lambda *a: np.mean(a, axis=0),
    "mul": lambda *a: np.prod(a, axis=0),
    "max": lambda *a: np.max(a, axis=0),
    "min": lambda *a: np.min(a, axis=0),
    "concat": lambda *a: np.concatenate(a, axis=-1),
}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("how", WANTED)
def test_merge_is_what_it_says(rng, how, count):
    arrays = [rng.standard_normal((4, 2, 3)) for _ in range(count)]
    arrays[0][0, 0] = 0  # a product of nothing but the other factors
    near(Merge(how)(*arrays), WANTED[how](*arrays), 1e-15)
    if count > 1:
        check_layer(Merge(how), *arrays)


def test_subtract(rng):
    a, b = rng.standard_normal((2, 4, 3))
    assert_same({"y": Merge("subtract")(a, b)}, {"y": a - b})
    check_layer(Merge("subtract"), a, b)
    with pytest.raises(ValueError, match="how='subtract' takes two arrays, got 3"):
        Merge("subtract")(a, b, b)


@pytest.mark.parametrize("how", ["sum", "mean", "mul", "max", "subtract"])
def test_axes_of_size_one_broadcast(rng, how):
    a, b = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 1, 3))
    assert Merge(how)(a, b).shape == (2, 4, 3)
    check_layer(Merge(how), a, b)
    check_layer(Merge(how), b, a)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_concatenated_along_any_axis(rng, axis):
    arrays = [rng.standard_normal(np.where(np.arange(3) == axis % 3, n, 2)) for n in (1, 3, 0)]
    merge = Merge("concat", axis)
    assert_same({"y": merge(*arrays)}, {"y": np.concatenate(arrays, axis)})
    check_layer(merge, *arrays[:2])
    assert merge.pointwise == (axis == -1)


def test_of_equal_numbers_the_first_has_the_gradient():
    a = np.array([[1.0, 2.0]])
    for how in ("max", "min"):
        _, back = Merge(how).vjp(a, a, a)
        for d, want in zip(back(np.ones_like(a)), (1, 0, 0), strict=True):
            assert (d == want).all()


def test_a_row_that_is_not_a_number_stays_in_its_row(rng):
    a, b = rng.standard_normal((2, 4, 3))
    a[1] = np.nan
    for how in (*WANTED, "subtract"):
        assert np.isnan(Merge(how)(a, b)).any(axis=1).tolist() == [False, True, False, False]


def test_merge_refuses(rng):
    a = rng.standard_normal((2, 3))
    with pytest.raises(ValueError, match=r"how must be one of sum, .* got 'add'"):
        Merge("add")
    with pytest.raises(TypeError, match="axis must be an integer"):
        Merge("concat", 1.5)
    with pytest.raises(ValueError, match="at least one array"):
        Merge()()
    with pytest.raises(TypeError, match="one dtype, got float64, float32"):
        Merge()(a, a.astype("f4"))
    with pytest.raises(TypeError, match="array 1 must be float32 or float64, got int"):
        Merge()(a, np.arange(3))
    with pytest.raises(ValueError, match="same number of axes"):
        Merge("mul")(a, a[0])
    with pytest.raises(ValueError, match="shapes that go together"):
        Merge("mul")(a, a[:, :2])
    for axis, other in ((0, a[:, :2]), (5, a), (0, a[0])):
        with pytest.raises(ValueError, match=f"must agree but for axis {axis}"):
            Merge("concat", axis)(a, other)
    with pytest.raises(ValueError, match=r"dy must have shape \(2, 3\), got \(3,\)"):
        Merge().vjp(a, a)[1](a[0])


CONTRACTIONS = [
    ((2, 5), (2, 5), 1, "bk,bk->b"),
    ((2, 4, 5), (2, 3, 5), 2, "bik,bjk->bij"),
    ((2, 5, 4), (2, 3, 5), (1, 2), "bki,bjk->bij"),
    ((2, 4, 5), (2, 5), (-1, 1), "bik,bk->bi"),
    ((2, 3, 4, 5), (2, 4, 2), (2, 1), "bikl,bkj->bilj"),
]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("one", "other", "axes", "sums"), CONTRACTIONS)
def test_dot_is_what_it_says(rng, one, other, axes, sums, normalize):
    a, b = rng.standard_normal(one), rng.standard_normal(other)
    x, y, dot = a, b, Dot(axes, normalize)
    if normalize:
        first, second = axes if isinstance(axes, tuple) else (axes, axes)
        x = a / np.linalg.norm(a, axis=first, keepdims=True)
        y = b / np.linalg.norm(b, axis=second, keepdims=True)
    want = np.einsum(sums, x, y)
    near(dot(a, b), want if want.ndim > 1 else want[:, None], 1e-14)
    check_layer(dot, a, b)
    assert dot(a[:0], b[:0]).shape == (0, *dot(a, b).shape[1:])


def test_dot_of_nothing_and_refusals(rng):
    a = rng.standard_normal((2, 4, 5))
    assert not Dot(1, normalize=True)(np.zeros((2, 3)), np.zeros((2, 3))).any()
    tiny = 1e-9 * a[:1, :1]  # shorter than 1e-6, by which they are then divided
    y, back = Dot(2, True).vjp(tiny, a[:1])
    unit = a[:1] / np.linalg.norm(a[:1], axis=2, keepdims=True)
    near(y, 1e6 * tiny @ unit.swapaxes(1, 2), 1e-14)
    near(back(np.ones_like(y))[0], 1e6 * unit.sum(axis=1, keepdims=True), 1e-14)
    with pytest.raises(
        ValueError, match=r"axes must be an axis or a pair of axes, got \(1, 2, 3\)"
    ):
        Dot((1, 2, 3))
    with pytest.raises(ValueError, match="x1 must have an axis 0 behind the batch's"):
        Dot(0)(a, a)
    with pytest.raises(ValueError, match=r"must agree along the batch and axes \(1, 2\)"):
        Dot((1, 2))(a, a)
    with pytest.raises(ValueError, match="must agree along the batch"):
        Dot(1)(a, a[:1])


SHAPES = {
    "row": (Reshape(-1), lambda x: x.reshape(len(x), -1)),
    "shape": (Reshape(2, -1, 3), lambda x: x.reshape(len(x), 2, 2, 3)),
    "swap": (Permute(2, 1), lambda x: x.transpose(0, 2, 1)),
    "pad": (ZeroPad((2, 1)), lambda x: np.pad(x, ((0, 0), (2, 1), (0, 0)))),
    "pad both": (ZeroPad((0, 1), (1, 0)), lambda x: np.pad(x, ((0, 0), (0, 1), (1, 0)))),
    "pad none": (ZeroPad(), lambda x: x),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(rng, name):
    module, wanted = SHAPES[name]
    x = rng.standard_normal((2, 3, 4))
    assert_same({"y": np.ascontiguousarray(module(x))}, {"y": np.ascontiguousarray(wanted(x))})
    assert module(x.astype("f4")).dtype == np.float32
    check_layer(module, x)
    check_layer(module, x.transpose(0, 2, 1).copy().transpose(0, 2, 1))
    assert module(x[:0]).shape == (0, *module(x).shape[1:])


def test_rows_repeated(rng):
    x = rng.standard_normal((2, 3))
    y = RepeatVector(4)(x)
    assert y.shape == (2, 4, 3)
    assert (y == x[:, None]).all()
    check_layer(RepeatVector(4), x)


@pytest.mark.parametrize(
    ("module", "shape", "what"),
    [
        (Reshape(5, -1), (2, 3, 4), r"items that fill \(5, -1\), got shape \(2, 3, 4\)"),
        (Reshape(5), (2, 3), r"items that fill \(5,\), got shape"),
        (Permute(2, 1), (2, 3), r"3 axes, got shape \(2, 3\)"),
        (RepeatVector(2), (2, 3, 4), r"shape \(B, F\), got \(2, 3, 4\)"),
        (ZeroPad((1, 1), (1, 1)), (2, 3), r"more than 2 axes, got shape \(2, 3\)"),
    ],
)
def test_shapes_refuse(module, shape, what):
    with pytest.raises(ValueError, match=f"x must .*{what}"):
        module(np.zeros(shape))


def test_shapes_that_are_none():
    for shape in ((-2,), (-1, -1)):
        with pytest.raises(ValueError, match="shape must be sizes, of which one may be -1"):
            Reshape(*shape)
    with pytest.raises(ValueError, match=r"axes must be 1\.\.2 in some order, got \(0, 1\)"):
        Permute(0, 1)
    with pytest.raises(ValueError, match="n must be at least 1"):
        RepeatVector(0)
    with pytest.raises(ValueError, match=r"pads must be pairs \(before, after\), got 2"):
        ZeroPad(2)
    with pytest.raises(ValueError, match="pads must be at least 0"):
        ZeroPad((1, -1))


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (Merge("sum"), [(2, 40, 30), (2, 1, 30)]),
        (Dot((2, 2), normalize=True), [(2, 40, 30), (2, 50, 30)]),
        (DotAttention(), [(2, 40, 30), (2, 50, 30)]),
        (AdditiveAttention(30), [(2, 40, 30), (2, 50, 30)]),
        (RepeatVector(7), [(40, 30)]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Module) else "",
)
def test_bits_do_not_depend_on_how_arrays_lie(rng, module, shapes):
    xs = [rng.standard_normal(shape).astype("f4") for shape in shapes]
    found = []
    for order in "CF":
        y, back = module.vjp(*(np.asarray(x, order=order) for x in xs))
        dy = rng.standard_normal(y.shape).astype("f4") if not found else found[0]["dy"]
        dx = back(np.asarray(dy, order=order))
        dxs = dx if isinstance(dx, tuple) else (dx,)
        arrays = {"y": y, "dy": dy, **{f"dx{at}": d for at, d in enumerate(dxs)}}
        found.append({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    assert_same(found[1], found[0])
