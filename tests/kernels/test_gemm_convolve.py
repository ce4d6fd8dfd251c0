"""Convolutions lowered, multiplied and requantized in one call, against the parts of which each is tested alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import SIGN_MIXES, codes, examples, product, seeds, sign_mixes
from systolic import Model, QuantParams, _gemm, _host, _kernels, run
from systolic.layers import Conv2d
from systolic.layers.geometry import window as window_of

UNTOUCHED = 0x5A


class Case:
    """A convolution, what its sums are, and the arguments of the compiled function."""

    def __init__(
        self, seed: int, *, batch: int = 1, groups: int = 1, channels: int, n: int, image: tuple[int, int],
        kernel: tuple[int, int] = (1, 1), stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1),
        pads: Any = ((0, 0), (0, 0)), types: tuple[str, str] = ("int8", "int8"), last: bool = False,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        self.batch, self.groups, self.n, self.last = batch, groups, n, last
        self.x = codes(rng, (batch, groups * channels, *image), types[0])
        self.k = channels * kernel[0] * kernel[1]
        self.weights = codes(rng, (groups, n, self.k), types[1])
        self.pad_value = int(rng.choice(self.x.ravel()))
        self.window = window_of(image, kernel, stride, dilation, pads)
        self.scale = (rng.random(groups * n) / (1 + self.k * 200)).astype(np.float32)
        self.constant = rng.integers(-9999, 9999, groups * n, dtype=np.int32)

    def sums(self) -> np.ndarray:
        """(batch, groups * n, oh, ow), by im2col and an exact product."""
        oh, ow = self.window.out
        w = self.window
        patches = np.empty((self.groups * self.k, self.batch * oh * ow), self.x.dtype)
        pad = (w.pads[0][0], w.pads[1][0])
        _gemm.im2col_transposed(
            self.x, patches, w.kernel, w.stride, w.dilation, pad, w.out, self.pad_value, 0, 0
        )
        each = [
            product(kernels, patches[g * self.k : (g + 1) * self.k]) for g, kernels in enumerate(self.weights)
        ]
        return np.concatenate(each).reshape(-1, self.batch, oh, ow).transpose(1, 0, 2, 3)

    def codes(self, sums: np.ndarray, dtype: str) -> np.ndarray:
        acc = np.ascontiguousarray(sums).reshape(self.batch, self.groups * self.n, -1)
        out = np.empty(acc.shape, dtype)
        _host.requantize(acc, out, self.scale, 5, constant=self.constant)
        return out.reshape(sums.shape)

    def convolve(self, dtype: str | None = None, threads: int = 1, **options: Any) -> np.ndarray:
        """What the compiled function makes of it: sums, or codes of a type."""
        w, x, weights = self.window, self.x, self.weights
        shape: tuple[int, ...] = (self.batch, self.groups * self.n, *w.out)
        if self.last:
            shape = (self.batch, *w.out, self.groups * self.n)
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
            weights = np.ascontiguousarray(weights.transpose(0, 2, 1))
        out = np.full(shape, UNTOUCHED, np.int32 if dtype is None else dtype)
        if dtype is not None:
            options |= {"codes": out, "scale": self.scale, "zero_point": 5, "constant": self.constant}
        options = {"images": (0, self.batch), "pixels": (0, w.out[0] * w.out[1])} | options
        _gemm.convolve(
            x, weights, out if dtype is None else None, w.kernel, w.stride, w.dilation,
            (w.pads[0][0], w.pads[1][0]), w.out, self.pad_value, channels_last=self.last, threads=threads, **options,
        )  # fmt: skip
        return out.transpose(0, 3, 1, 2) if self.last else out


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@pytest.mark.slow
@examples(80)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 40), st.tuples(*[st.integers(1, 12)] * 2),
    pairs, pairs, st.tuples(*[st.integers(1, 2)] * 2), st.integers(0, 2), st.booleans(), st.integers(1, 4),
    sign_mixes, st.sampled_from(["int8", "uint8"]), seeds,
)  # fmt: skip
def test_any_convolution(batch, groups, channels, n, image, kernel, stride, dilation, pad, last, threads, types, dtype, seed):
    room = [size + 2 * pad - (k - 1) * d for size, k, d in zip(image, kernel, dilation, strict=True)]
    if min(room) < 1:
        kernel = (1, 1)
    case = Case(
        seed, batch=batch, groups=groups, channels=channels, n=n, image=image, kernel=kernel, stride=stride,
        dilation=dilation, pads=((pad, pad), (pad, pad)), types=types, last=last,
    )  # fmt: skip
    sums = case.sums()
    np.testing.assert_array_equal(case.convolve(threads=threads), sums)
    np.testing.assert_array_equal(case.convolve(dtype, threads), case.codes(sums, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "sizes",
    [
        # Many pieces, the last one short; and such that threads share each piece: few pixels, many kernels.
        dict(channels=64, n=24, image=(53, 61), kernel=(3, 3), pads=((1, 1), (1, 1))),
        dict(channels=40, n=300, image=(31, 33)),
        dict(channels=30, n=205, image=(7, 7), kernel=(3, 3), pads=((1, 1), (1, 1))),
        dict(channels=257, n=131, image=(5, 7)),
        dict(channels=12, n=100, image=(9, 9), stride=(2, 2), batch=2),
        dict(groups=33, channels=1, n=1, image=(19, 18), kernel=(3, 3), pads=((1, 1), (1, 1))),
        dict(channels=3000, n=13, image=(1, 1)),
    ],
    ids=lambda sizes: ", ".join(f"{name} {value}" for name, value in sizes.items()),
)
def test_pieces_and_threads(sizes, threads: int, last: bool) -> None:
    case = Case(threads, types=SIGN_MIXES[threads % 4], last=last, **sizes)
    sums = case.sums()
    np.testing.assert_array_equal(case.convolve(threads=threads), sums)
    for dtype in ("int8", "uint8"):
        np.testing.assert_array_equal(case.convolve(dtype, threads), case.codes(sums, dtype))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_some_images_and_pixels(threads: int, last: bool) -> None:
    case = Case(0, batch=3, channels=20, n=70, image=(6, 7), kernel=(3, 2), last=last)
    sums = case.sums().reshape(3, 70, -1)
    for images, pixels in (((1, 3), (0, 24)), ((0, 3), (5, 17)), ((2, 2), (0, 24)), ((0, 1), (9, 9)), ((1, 2), (23, 24))):
        expected = np.full(sums.shape, UNTOUCHED, np.int32)
        expected[slice(*images), :, slice(*pixels)] = sums[slice(*images), :, slice(*pixels)]
        got = case.convolve(threads=threads, images=images, pixels=pixels)
        np.testing.assert_array_equal(got.reshape(sums.shape), expected)


@pytest.mark.parametrize("name", _kernels.instruction_sets)
def test_each_instruction_set(name: str) -> None:
    case = Case(1, channels=17, n=30, image=(14, 15), kernel=(3, 3), types=("uint8", "int8"))
    sums = case.sums()
    _kernels._use(name)
    try:
        np.testing.assert_array_equal(case.convolve(threads=2), sums)
    finally:
        _kernels._use()


def test_where_the_time_goes() -> None:
    spent = np.zeros(3, np.int64)
    case = Case(0, channels=64, n=64, image=(40, 40), kernel=(3, 3))
    case.convolve("int8", spent=spent)
    assert (spent > 0).all() and spent[1] > spent[2]


def test_sums_wrap() -> None:
    case = Case(0, channels=140_000, n=2, image=(1, 2), types=("uint8", "uint8"))
    case.x[...], case.weights[...] = 255, 255
    assert (case.convolve() == np.int64(140_000 * 255 * 255 - 2 * 2**32)).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o.update(weights=o["weights"][:, :, :-1].copy()),
        lambda o: o.update(weights=o["weights"].astype(np.int16)),
        lambda o: o.update(acc=o["acc"][:, :-1].copy()),
        lambda o: o.update(acc=o["acc"].astype(np.int64)),
        lambda o: o.update(acc=None),
        lambda o: o.update(codes=np.empty(o["acc"].shape, np.int8)),
        lambda o: o.update(acc=None, codes=np.empty(o["acc"].shape, np.int8), scale=np.ones(3, np.float32)),
        lambda o: o.update(images=(0, 2)),
        lambda o: o.update(images=(-1, 1)),
        lambda o: o.update(pixels=(0, 37)),
        lambda o: o.update(pixels=(5, 4)),
        lambda o: o.update(pad_value=128),
        lambda o: o.update(spent=np.zeros(3, np.int64), threads=2),
        lambda o: o.update(spent=np.zeros(2, np.int64)),
    ],
)  # fmt: skip
def test_what_would_reach_outside_is_refused(change) -> None:
    case = Case(0, channels=3, n=4, image=(6, 6))
    options: dict[str, Any] = dict(
        x=case.x, weights=case.weights, acc=np.full((1, 4, 6, 6), UNTOUCHED, np.int32), kernel=(1, 1), stride=(1, 1),
        dilation=(1, 1), pad=(0, 0), out_size=(6, 6), pad_value=0, images=(0, 1), pixels=(0, 36), zero_point=0,
        constant=np.zeros(4, np.int32),
    )  # fmt: skip
    acc = options["acc"]
    change(options)
    with pytest.raises(ValueError):
        _gemm.convolve(**options)
    assert (acc == UNTOUCHED).all()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("zero_point", [0, 3])
@pytest.mark.parametrize("rounding", ["half_even", "gemmini"])
def test_fused_layers_equal_those_of_cycle_mode(layout: str, zero_point: int, rounding: str) -> None:
    """In cycle mode sums are requantized as a whole; weights with a zero point and other roundings are so in both."""
    rng = np.random.default_rng(0)
    shape = (2, 6, 9, 8) if layout == "NCHW" else (2, 9, 8, 6)
    w = QuantParams(rng.uniform(0.001, 0.01, 10), [zero_point] * 10, "int8", axis=0)
    layer = Conv2d(
        codes(rng, (10, 3, 3, 3), "int8"), x=QuantParams(0.5, 7, "uint8"), w=w, y=QuantParams(0.9, 4, "uint8"),
        bias=rng.integers(-500, 500, 10, dtype=np.int32), padding=1, groups=2, layout=layout, rounding=rounding,
    )  # fmt: skip
    model = Model([layer], inputs={"x": (shape, "uint8")})
    x = codes(rng, shape, "uint8")
    by_cycle = run(model, x, mode="cycle", machine=_small()).outputs
    for threads in (1, 2):
        by_wavefront = run(model, x, mode="wavefront", machine=_small(), threads=threads).outputs
        np.testing.assert_array_equal(next(iter(by_wavefront.values())), next(iter(by_cycle.values())))


def _small():
    from systolic import ArrayConfig

    return ArrayConfig(8, 8)
