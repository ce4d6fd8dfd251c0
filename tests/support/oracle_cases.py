"""Cases for the tests of the oracle: codes, scales and geometries that find mistakes."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from systolic.reference import conv_sums
from systolic.reference.oracle import ORACLES

fixed = settings(max_examples=30, deadline=None, derandomize=True)
many = settings(fixed, max_examples=100)

DTYPES = ("int8", "uint8")
# What ONNX Runtime's QLinear products take: (activations and outputs, weights).
PAIRS = (("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8"))

dtypes = st.sampled_from(DTYPES)
pairs = st.sampled_from(PAIRS)
seeds = st.integers(0, 2**32 - 1)
# Powers of two and their small multiples make ties, the others make roundings of the product.
scales = st.one_of(
    st.sampled_from([1.0, 0.5, 0.25, 2.0**-6, 2.0**-9, 0.75, 1.5]),
    st.sampled_from([0.02, 0.05, 0.1, 0.12902696]),
    st.floats(2.0**-12, 2.0, width=32),
).map(np.float32)


# What fields of layers are if a test does not say.
_FIELDS = dict(stride=1, padding=0, dilation=1, groups=1, ceil_mode=False, count_include_pad=False, alpha=1.0,
               block_size=0, axis=0, x=None, y=None, weight=None, indices=None)  # fmt: skip


def oracle(kind: str, *inputs, **fields) -> np.ndarray:
    """Call the oracle of a kind of layer with these fields."""
    with np.errstate(all="ignore"):
        return ORACLES[kind](SimpleNamespace(**(_FIELDS | fields)), *map(np.asarray, inputs))


def sums(x, w, pad_value=0, **fields) -> np.ndarray:
    """Return the exact sums of a convolution."""
    return conv_sums(SimpleNamespace(**(_FIELDS | fields)), x, w, pad_value)[0]


def params(scale, zero_point) -> SimpleNamespace:
    """Parameters as a layer has them, of the type of their zero point."""
    return SimpleNamespace(scale=scale, zero_point=zero_point, dtype=np.asarray(zero_point).dtype.name, axis=None)


def oracle_matmul(a, sa, za, b, sb, zb, sy, zy, bias=None) -> np.ndarray:
    """Call the oracle of QLinearMatMul, or of QGemm with a bias; without sy it gives float32."""
    rest = [*([] if sy is None else [sy, zy]), *([] if bias is None else [bias])]
    return oracle("QLinearMatMul", a, sa, za, b, sb, zb, *rest)


def oracle_conv(x, sx, zx, w, sw, zw, sy, zy, bias=None, **fields) -> np.ndarray:
    """Call the oracle of QLinearConv; without sy it gives float32."""
    if sy is None:
        held = dict(x=params(sx, zx), w=params(sw, zw), y=None, weight=w, bias=bias, rounding="half_even")
        return oracle("QLinearConv", x, **held, **fields)
    fields |= {"weight": None, "rounding": "half_even"}
    return oracle("QLinearConv", x, sx, zx, w, sw, zw, sy, zy, *([] if bias is None else [bias]), **fields)


def oracle_add(a, sa, za, b, sb, zb, sy, zy) -> np.ndarray:
    """Call the oracle of QLinearAdd in the order of its inputs."""
    return oracle("QLinearAdd", a, b, a=params(sa, za), b=params(sb, zb), y=params(sy, zy))


def oracle_pool(kind: str, x, sx, zx, sy, zy, **fields) -> np.ndarray:
    """Call the oracle of a pool of codes in the order of its ONNX inputs."""
    return oracle(kind, x, x=params(sx, zx), y=params(sy, zy), **fields)


def zero_points(dtype: str) -> st.SearchStrategy[np.integer]:
    """Any zero point of a type, its ends and odd ones near 0 more often."""
    limits = np.iinfo(dtype)
    ends = st.sampled_from([limits.min, limits.max, limits.min + 128, limits.min + 129])
    return st.one_of(ends, st.integers(limits.min, limits.max)).map(np.dtype(dtype).type)


def draw_codes(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], *, bits: int = 8) -> np.ndarray:
    """Codes over the whole type, a third of them at its ends; with 7 bits -64..63 or 0..127."""
    limits = np.iinfo(dtype)
    low, high = (limits.min, limits.max) if bits == 8 else (limits.min // 2, limits.max // 2)
    codes = rng.integers(low, high, size=shape, endpoint=True)
    ends = rng.choice([low, high], size=shape)
    return np.where(rng.random(shape) < 1 / 3, ends, codes).astype(dtype)


def draw_scales(rng: np.random.Generator, scale: np.float32, count: int) -> np.ndarray:
    """Scales per channel: multiples and fractions of one, by powers of two and by other numbers."""
    factors = np.where(rng.random(count) < 0.5, 2.0 ** rng.integers(-3, 3, count), rng.uniform(0.3, 3, count))
    return (factors.astype(np.float32) * scale).astype(np.float32)


def same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Assert equal types, shapes and values."""
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_array_equal(ours, theirs)


def exact_u8s8() -> bool:
    """Whether ONNX Runtime's u8 x s8 sums are exact with full-range codes on this processor.

    Without VNNI, x86 adds two products in saturating int16.
    """
    return platform.machine().lower() not in ("x86_64", "amd64") or "vnni" in cpu_flags()


@functools.cache
def cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


all_pairs = st.tuples(dtypes, dtypes)


@st.composite
def convolutions(draw, pairs=all_pairs):
    """A convolution's operands and geometry, the kernel fitting the padded image."""
    x_dtype, w_dtype = draw(pairs)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    ic, oc = (groups * draw(st.integers(1, 3)) for _ in range(2))
    kernel, stride, dilation, pads, image = [], [], [], [], []
    for _ in range(2):
        kernel.append(draw(st.integers(1, 4)))
        stride.append(draw(st.integers(1, 3)))
        dilation.append(draw(st.integers(1, 2)))
        pads.append((draw(st.integers(0, 2)), draw(st.integers(0, 2))))
        extent = (kernel[-1] - 1) * dilation[-1] + 1
        image.append(draw(st.integers(max(1, extent - sum(pads[-1])), 9)))
    rng = np.random.default_rng(draw(seeds))
    weights = (oc, ic // groups, *kernel)
    # ConvInteger's weights are the left operand: int8 images are then the s8 of u8 x s8.
    bits = 7 if x_dtype != w_dtype and not exact_u8s8() else 8
    return SimpleNamespace(
        x=draw_codes(rng, x_dtype, (draw(st.integers(1, 2)), ic, *image)),
        w=draw_codes(rng, w_dtype, weights, bits=bits),
        geometry=dict(stride=tuple(stride), padding=tuple(pads), dilation=tuple(dilation), groups=groups),
        rng=rng,
    )


@st.composite
def poolings(draw, dilations=None):
    """An image and a window over it; ONNX wants pads smaller than the kernel."""
    kernel, stride, dilation, pads, image = [], [], [], [], []
    for _ in range(2):
        kernel.append(draw(st.integers(1, 4)))
        stride.append(draw(st.integers(1, 3)))
        dilation.append(1 if dilations is None else draw(dilations))
        pads.append((draw(st.integers(0, kernel[-1] - 1)), draw(st.integers(0, kernel[-1] - 1))))
        extent = (kernel[-1] - 1) * dilation[-1] + 1
        image.append(draw(st.integers(max(1, extent - sum(pads[-1])), 9)))
    rng = np.random.default_rng(draw(seeds))
    x = draw_codes(rng, draw(dtypes), (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *image))
    geometry = dict(kernel=tuple(kernel), stride=tuple(stride), padding=tuple(pads))
    return SimpleNamespace(x=x, geometry=geometry, dilation=tuple(dilation), ceil_mode=draw(st.booleans()))


def fine(op, arguments, window) -> np.ndarray:
    """Call the oracle of one of :func:`fine_cases`."""
    return oracle_add(*arguments) if op == "QLinearAdd" else oracle_pool(op, *arguments, **window)


# The real sum is -112.500008. Which side goes first into the sum decides about the last bit.
NEAR_TIE = (
    (-114, np.float32(0.02534690499305725), np.int8(-106)),
    (-122, np.float32(0.035809919238090515), np.int8(-120)),
    (np.float32(0.0365859717130661), np.int8(-105)),
)
NEAR_TIE_SHAPES = [
    ((1,), (1,), -112),  # single elements: the sides swap
    ((), (), -112),
    ((8,), (8,), -113),
    ((8,), (1,), -113),
    ((1,), (8,), -112),
    ((2, 1), (1, 1), -113),
    ((1, 1), (2, 1), -112),
    ((2, 1), (1, 3), -112),
    ((1, 3), (2, 1), -113),
]


def fine_cases():
    """Cases (op, arguments, window, expected) where a rounding more or fewer changes the code."""
    column = np.ones((2, 1), np.int8)
    return [
        (
            "QLinearAdd",
            (-125 * column, 0.011, np.int8(81), -97 * column, 0.04, np.int8(-44), 0.068, np.int8(-13)),
            {},
            -78 * column,
        ),
        (
            "QLinearAdd",
            (-122 * column, 0.021, np.int8(-21), -87 * column, 0.016, np.int8(4), 0.098, np.int8(-54)),
            {},
            -91 * column,
        ),
        (
            "QLinearGlobalAveragePool",
            (np.full((1, 1, 2, 19), -35, np.int8), 0.166, np.int8(0), 0.14, np.int8(0)),
            {},
            np.full((1, 1, 1, 1), -41, np.int8),
        ),
        (
            "QLinearAveragePool",
            (np.int8([[[[-13, 18, 34]] * 2]]), 0.196, np.int8(0), 0.056, np.int8(0)),
            {"kernel": (1, 3)},
            np.full((1, 1, 2, 1), 46, np.int8),
        ),
    ]
