"""The compiled products in fixed order, on every instruction set: all formats, sizes, layouts and threads.

The plain table is compared with the reference's exact arithmetic, and every other table with the plain one.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support.number_formats import (
    EVERY_FORMAT,
    assert_same,
    drawn_operand,
    finite_operand,
    formats,
    name_of,
    reference_of,
    type_of,
)
from support.strategies import examples, raises, seeds, sizes
from systolic import _core, _gemm, _kernels
from systolic.formats import FORMATS, OPERANDS, Format, stored

NUMBERS = [f for f in EVERY_FORMAT if OPERANDS[f.activation].bits > 4 < OPERANDS[f.weight].bits]
FLOATS = [f for f in FORMATS.values() if f.is_float]
EDGES = (0, 1, 2, 5, 6, 7, 8, 11, 12, 13, 15, 16, 17, 31, 32, 33, 64, 65, 96, 97)


def options(numbers: Format, step: int) -> dict[str, int]:
    low, high = numbers.sum_limits
    arithmetic = _core.ARITHMETICS[numbers.sum, numbers.overflow]
    return {"step": step, "arithmetic": arithmetic, "low": low, "high": high}


def multiply(
    x: np.ndarray, w: np.ndarray, numbers: Format, step: int, threads: int = 1, out: np.ndarray | None = None
) -> np.ndarray:
    if out is None:
        out = np.full((x.shape[0], w.shape[1]), 99, numbers.sum)
    _gemm.multiply_in_order(x, w, out, threads=threads, **options(numbers, step))
    return out


def plainly(x: np.ndarray, w: np.ndarray, numbers: Format, step: int) -> np.ndarray:
    """The plain table's product."""
    used = _kernels._tables()
    before = next(name for name in _kernels.instruction_sets[::-1] if _uses(name, used))
    try:
        _kernels._use("baseline")
        return multiply(x, w, numbers, step)
    finally:
        _kernels._use(before)


def _uses(name: str, tables: tuple[str, ...]) -> bool:
    _kernels._use(name)
    return _kernels._tables() == tables


@pytest.mark.parametrize("numbers", NUMBERS, ids=name_of)
def test_plain_products_equal_the_reference(numbers: Format) -> None:
    rng = np.random.default_rng(1)
    try:
        _kernels._use("baseline")
        for m, k, n, step in [(3, 9, 4, 9), (2, 12, 5, 4), (1, 7, 33, 3)]:
            x, w = drawn_operand(rng, numbers.activation, (m, k)), drawn_operand(rng, numbers.weight, (k, n))
            got = multiply(x, w, numbers, step)
            numbers.narrow(got)
            rows, columns = x.astype(float).tolist(), w.astype(float).tolist()
            assert_same(got, reference_of(numbers).product(rows, columns, step if numbers.ordered else k))
    finally:
        _kernels._use()


@examples(120)
@given(st.sampled_from(NUMBERS), *[sizes(100, EDGES, least=0)] * 3, st.integers(1, 110), st.integers(1, 3), seeds)
def test_any_size(isa: str, numbers: Format, m: int, k: int, n: int, step: int, threads: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    draw = finite_operand if seed % 3 else drawn_operand
    x, w = draw(rng, numbers.activation, (m, k)), draw(rng, numbers.weight, (k, n))
    assert_same(multiply(x, w, numbers, step, threads), plainly(x, w, numbers, step))


@pytest.mark.parametrize(
    ("m", "k", "n", "step"),
    [
        # Tails after blocks of rows (96), of K (512) and columns (512); steps that blocks cut, alone and followed.
        (97, 513, 33, 513), (13, 1030, 17, 1030), (25, 1300, 40, 600), (3, 2000, 545, 513), (7, 1600, 9, 100),
        (200, 64, 600, 7), (1, 1100, 1025, 256),
    ],
)  # fmt: skip
def test_tails_of_blocks(isa: str, m: int, k: int, n: int, step: int) -> None:
    rng = np.random.default_rng(m + k)
    names = [("bfloat16", "bfloat16"), ("float8_e5m2", "float8_e4m3fn"), ("int16", "int16")]
    saturating = next(f for f in NUMBERS if f.saturates and f.psum_bits == 32 and f.activation == "uint16")
    wide = next(f for f in NUMBERS if f.saturates and f.psum_bits == 64 and f.activation == "uint16")
    for numbers in (*(FORMATS[pair] for pair in names), saturating, wide):
        x, w = finite_operand(rng, numbers.activation, (m, k)), finite_operand(rng, numbers.weight, (k, n))
        for threads in (1, 2):
            assert_same(multiply(x, w, numbers, step, threads), plainly(x, w, numbers, step))


@pytest.mark.parametrize("numbers", FLOATS, ids=name_of)
def test_special_values(isa: str, numbers: Format) -> None:
    rng = np.random.default_rng(2)
    x, w = drawn_operand(rng, numbers.activation, (40, 70), 0.6), drawn_operand(rng, numbers.weight, (70, 50), 0.6)
    assert_same(multiply(x, w, numbers, 16), plainly(x, w, numbers, 16))


@pytest.mark.parametrize("name", [name for name in OPERANDS if OPERANDS[name].bits > 4])
def test_every_code_is_widened(isa: str, name: str) -> None:
    codes = np.arange(2 ** OPERANDS[name].bits, dtype=f"uint{OPERANDS[name].bits}").view(type_of(name))[:, np.newaxis]
    one = np.ones((1, 1), codes.dtype)
    with np.errstate(invalid="ignore"):  # signaling NaN
        expected = codes.astype(FORMATS[name, name].sum) + 0
    for left, right in ((codes, one), (one, codes.T)):
        assert_same(multiply(left, right, FORMATS[name, name], 1).reshape(-1, 1), expected)


def test_a_zero_is_positive(isa: str) -> None:
    """Whether no, one or all products of a chain are -0 or round to it."""
    numbers = FORMATS["bfloat16", "bfloat16"]
    x = np.array([[-0.0, 0.0, -1e-30, -0.0]]).astype(type_of("bfloat16"))
    w = np.array([[1.0], [-1.0], [1e-30], [1.0]]).astype(type_of("bfloat16"))
    for k in range(1, 5):
        for step in range(1, 5):
            assert_same(multiply(x[:, :k], w[:k], numbers, step), np.zeros((1, 1), np.float32))


def test_sums_of_integers_are_exact(isa: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2**16, (30, 300), dtype=np.uint16)
    w = rng.integers(-(2**15), 2**15, (300, 70), dtype=np.int16)
    expected = x.astype(np.int64) @ w.astype(np.int64)
    narrow, wide = (next(f for f in NUMBERS if name_of(f) == f"uint16-int16-{bits}-wrap") for bits in (32, 64))
    np.testing.assert_array_equal(multiply(x, w, wide, 300), expected)
    np.testing.assert_array_equal(multiply(x, w, narrow, 300), expected.astype(np.int32))


@pytest.mark.parametrize("step", [100, 512, 513, 600, 1300])
def test_long_chains_are_added_in_order(isa: str, step: int) -> None:
    """Blocks cut chains and go on with them: numpy adds one product after the other, all exact in float32."""
    rng = np.random.default_rng(step)
    x, w = (finite_operand(rng, "float16", shape) for shape in ((13, 1300), (1300, 34)))
    total = np.zeros((13, 34), np.float32)
    for start in range(0, 1300, step):
        part = np.zeros_like(total)
        for k in range(start, min(start + step, 1300)):
            part = part + x[:, k, np.newaxis].astype(np.float32) * w[k].astype(np.float32)
        total = total + part
    assert_same(multiply(x, w, FORMATS["float16", "float16"], step), total)


# How operands lie


def laid(values: np.ndarray, how: str) -> np.ndarray:
    """Return the values in an array with other strides."""
    rows, cols = values.shape
    view = {
        "whole": lambda: np.zeros(values.shape, values.dtype),
        "gaps": lambda: np.ones((2 * rows + 1, cols + 3), values.dtype)[1::2, 1 : cols + 1],
        "backwards": lambda: np.zeros(values.shape, values.dtype)[::-1],
        "columns": lambda: np.zeros((cols, rows + 5), values.dtype)[:, :rows].T,
        "columns backwards": lambda: np.zeros((cols, rows), values.dtype)[::-1].T,
    }[how]()
    view[...] = values
    return view


@examples(60)
@given(
    formats(), *[sizes(70, EDGES[1:])] * 3, st.tuples(*[st.sampled_from(["whole", "gaps", "backwards"])] * 3),
    st.tuples(st.booleans(), st.booleans()), seeds,
)  # fmt: skip
def test_any_strides(
    isa: str, numbers: Format, m: int, k: int, n: int, hows: tuple[str, ...], columns: tuple[bool, bool], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, w = stored(drawn_operand(rng, numbers.activation, (m, k))), stored(drawn_operand(rng, numbers.weight, (k, n)))
    if numbers.kernel == "8-bit integers":
        return
    expected = plainly(x, w, numbers, 9)
    a, b = (
        laid(values, how.replace("whole", "columns").replace("gaps", "columns backwards") if turned else how)
        for values, how, turned in zip((x, w), hows, columns, strict=False)
    )
    out = laid(np.zeros((m, n), numbers.sum), hows[2])
    assert_same(multiply(a, b, numbers, 9, 1 + seed % 2, out), expected)
    if hows[2] == "gaps":  # what lies between was not written
        around = out.base.copy()
        around[1::2, 1 : n + 1] = 1
        assert (around == 1).all()


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Images and windows over them, with borders that are cropped or padded."""
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return {
        "batch": draw(st.integers(1, 3)), "groups": draw(st.integers(1, 2)), "channels": draw(st.integers(1, 5)),
        "size": (draw(st.integers(1, 9)), draw(st.integers(1, 20))), "n": draw(st.integers(1, 40)), "kernel": kernel,
        "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "pad": (draw(st.integers(-1, 4)), draw(st.integers(-1, 25))),
        "out_size": (draw(st.integers(1, 8)), draw(st.integers(1, 12))),
    }  # fmt: skip


@examples(120)
@given(windows(), st.sampled_from(NUMBERS), st.booleans(), st.booleans(), st.integers(1, 2), seeds)
def test_convolutions(
    isa: str, v: dict[str, Any], numbers: Format, last: bool, turned: bool, threads: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    k, (oh, ow) = v["channels"] * v["kernel"][0] * v["kernel"][1], v["out_size"]
    x = finite_operand(rng, numbers.activation, (v["batch"], *v["size"], v["groups"] * v["channels"]))
    x = x.transpose(0, 3, 1, 2) if seed % 2 else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    w = laid(finite_operand(rng, numbers.weight, (k, v["n"])), "columns" if turned else "whole")
    pad_value = 0 if numbers.is_float else 5
    group, pixels = int(rng.integers(v["groups"])), v["batch"] * oh * ow
    first = int(rng.integers(pixels))
    count = int(rng.integers(1, pixels - first + 1))
    places = [np.arange(size) for size in (v["batch"], oh, ow, v["channels"], *v["kernel"])]
    image, y, u, channel, i, j = np.meshgrid(*places, indexing="ij")
    row = y * v["stride"][0] + i * v["dilation"][0] - v["pad"][0]
    col = u * v["stride"][1] + j * v["dilation"][1] - v["pad"][1]
    inside = (row >= 0) & (row < v["size"][0]) & (col >= 0) & (col < v["size"][1])
    patches = x[image, group * v["channels"] + channel, np.where(inside, row, 0), np.where(inside, col, 0)]
    patches[~inside] = pad_value
    expected = plainly(np.ascontiguousarray(patches.reshape(pixels, k)[first : first + count]), w, numbers, 7)
    out = np.full((count, v["n"]) if last else (v["n"], count), 99, numbers.sum)
    _gemm.convolve_in_order(
        x, w, out, v["kernel"], v["stride"], v["dilation"], v["pad"], v["out_size"], pad_value, group=group,
        first=first, channels_last=last, threads=threads, **options(numbers, 7),
    )  # fmt: skip
    assert_same(out if last else out.T, expected)


# What is refused


def test_operands_that_do_not_fit_are_refused() -> None:
    x, w, out = np.zeros((4, 6), np.int16), np.zeros((6, 8), np.int16), np.zeros((4, 8), np.int32)
    wrap = {"step": 6, "arithmetic": _core.ARITHMETICS["int32", "wrap"]}
    fits = "int16 x int16, sums of int32, arithmetic "
    for operands, changed, message in (
        ((x, w[:5], out), {}, "shapes (4, 6) and (5, 8) do not make (4, 8)"),
        ((x, w, out[:3]), {}, "shapes (4, 6) and (6, 8) do not make (3, 8)"),
        ((x[:, ::2], w[:3], out), {}, "rows or columns of operands must be contiguous"),
        ((x[0], w, out), {}, "operands must be matrices, not 1-d"),
        ((x.astype(np.int32), w, out), {}, "operands must be of int8, uint8, int16, uint16, bfloat16"),
        ((x, w, out[:, ::-1]), {}, "rows of acc must be contiguous, whole sums apart and writeable"),
        ((x, w, np.broadcast_to(out, out.shape)), {}, "rows of acc must be contiguous, whole sums apart and writeable"),
        ((x, w, out), {"step": 0}, f"{fits}0 and steps of 0 do not fit"),
        ((x, w, out), {"arithmetic": 4}, f"{fits}4 and steps of 6 do not fit"),
        ((x, w, out), {"arithmetic": 1}, f"{fits}1 and steps of 6 do not fit"),
        ((x, w, out), {"arithmetic": 77}, f"{fits}77 and steps of 6 do not fit"),
        ((x.astype(np.float16), w, out), {}, "float16 x int16, sums of int32, arithmetic 0 and steps of 6 do not fit"),
    ):
        with pytest.raises(ValueError) as raised:
            _gemm.multiply_in_order(*operands, **{**wrap, **changed})
        assert str(raised.value).startswith(message)
    odd = np.zeros(4 * 6 * 2 + 1, np.uint8)[1:].view(np.int16).reshape(4, 6)
    with raises(ValueError, "operands must be aligned"):
        _gemm.multiply_in_order(odd, w, out, **wrap)
    with pytest.raises(ValueError, match="^group 1 of weights"):
        window = (3, 2), (1, 1), (1, 1), (0, 0), (2, 4)
        _gemm.convolve_in_order(np.zeros((1, 1, 4, 5), np.int16), w, out, *window, 0, group=1, first=0, **wrap)
    with pytest.raises(ValueError, match="^pixels from 1 on of 8 and 8 channels"):
        _gemm.convolve_in_order(np.zeros((1, 1, 4, 5), np.int16), w, out.reshape(8, 4)[:, ::1].repeat(2, 1), *window, 0,
                                group=0, first=1, **wrap)  # fmt: skip
    assert not out.any()


# The floating-point mode of the thread

_FLUSHING = """
import ctypes, numpy as np
from systolic import _core, _gemm, _kernels

x = np.full((300, 40), 2.0**-14, np.float16)
w = np.full((40, 300), 2.0**-24, np.float16)
tiny = np.full((300, 40), 2, np.uint16).view(np.float16)

def products(threads):
    import ml_dtypes
    out = []
    for isa in _kernels.instruction_sets:
        _kernels._use(isa)
        low = np.full((300, 40), 3, np.uint16).view(ml_dtypes.bfloat16)  # subnormal
        one = np.full((40, 300), 0.5).astype(ml_dtypes.bfloat16)
        for a, b in ((low, one), (tiny, w)):
            acc = np.empty((300, 300), np.float32)
            _gemm.multiply_in_order(a, b, acc, step=16, arithmetic=_core.ARITHMETICS["float32", "wrap"], threads=threads)
            out.append(acc.tobytes())
    return out

libm = ctypes.CDLL("libm.so.6")
mode = (ctypes.c_uint32 * 8)()  # fenv_t: 28 bytes of the x87, MXCSR
expected = products(1)
libm.fegetenv(mode)
mode[7] |= 0x8040  # flush results and operands to zero
libm.fesetenv(mode)
assert (np.full(9, 1e-38, np.float32) * np.float32(0.5) == 0).all(), "this thread does not flush"
got = [products(threads) for threads in (1, 2, 2)]
after = (ctypes.c_uint32 * 8)()
libm.fegetenv(after)
print([result == expected for result in got], hex(after[7] & 0x8040), {any(bits) for bits in expected})
"""


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc", reason="sets the mode through glibc's fenv_t"
)
def test_subnormals_are_kept_in_threads_that_flush_them() -> None:
    """Helper threads, started later, take the mode over; the caller's is as before."""
    environment = {**os.environ, "PYTHONPATH": str(Path(systolic.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", _FLUSHING], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[True, True, True] 0x8040 {True}", done.stdout + done.stderr
