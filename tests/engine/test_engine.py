"""``matmul``, ``conv2d``, ``run`` and ``estimate``: values, stats, memory, progress, errors."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
import weakref
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate

import systolic
from support.naive_tiling import naive_cycles, naive_stats
from support.number_formats import OPERAND_NAMES, QUANTIZE, ROUND
from support.strategies import (
    SIGN_MIXES,
    codes,
    dtypes,
    examples,
    limits,
    problems,
    product,
    raises,
    seeds,
    sign_mixes,
    wrap32,
)
from support.toy_layers import Both, Halves, Power
from systolic import (
    ArrayConfig,
    Gemm,
    MachineConfig,
    Model,
    Node,
    QuantParams,
    Stats,
    conv2d,
    estimate,
    matmul,
    presets,
    run,
)
from systolic.isa import Program
from systolic.layers import Conv2d, Dense, Flatten, QLinearAdd, Relu
from systolic.machine import time_program
from systolic.machine.epilogue import apply_epilogue

MODES = ("cycle", "wavefront")
ONE = QuantParams(1.0)


# Oracles


def pads_of(padding, image, kernel, stride, dilation) -> list[tuple[int, int]]:
    """((top, bottom), (left, right)) as ONNX defines auto_pad."""
    if padding == "valid":
        return [(0, 0), (0, 0)]
    if isinstance(padding, str):
        pads = []
        for size, k, s, d in zip(image, kernel, stride, dilation, strict=True):
            outputs = -(-size // s)
            total = max((outputs - 1) * s + (k - 1) * d + 1 - size, 0)
            one, other = total // 2, total - total // 2
            pads.append((one, other) if padding == "same" else (other, one))
        return pads
    if isinstance(padding, int):
        return [(padding, padding)] * 2
    return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]


def naive_conv(x, w, *, stride, padding, dilation, groups, layout, x_zero_point) -> np.ndarray:
    """Correlate each image channel with each dilated kernel, then take every stride-th sum."""
    if layout == "NHWC":
        x = x.transpose(0, 3, 1, 2)
    batch, oc, icg = len(x), w.shape[0], w.shape[1]
    stride, dilation = ((v, v) if isinstance(v, int) else v for v in (stride, dilation))
    pads = pads_of(padding, x.shape[2:], w.shape[2:], stride, dilation)
    image = np.pad(x.astype(np.int64), [(0, 0), (0, 0), *pads], constant_values=x_zero_point)
    kernel = np.zeros(
        (oc, icg, *((k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True))), np.int64
    )
    kernel[:, :, :: dilation[0], :: dilation[1]] = w
    out = [[
        sum(
            correlate(image[b, o // (oc // groups) * icg + c], kernel[o, c], "valid", "direct")
            for c in range(icg)
        )[:: stride[0], :: stride[1]]
        for o in range(oc)] for b in range(batch)]  # fmt: skip
    if not batch:
        size = [(i - k) // s + 1 for i, k, s in zip(image.shape[2:], kernel.shape[2:], stride, strict=True)]
        out = np.zeros((0, oc, *size), np.int64)
    y = wrap32(np.array(out))
    return y.transpose(0, 2, 3, 1) if layout == "NHWC" else y


@st.composite
def convolutions(draw: st.DrawFn):
    """Operands and arguments of a convolution whose kernel fits its padded image."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    icg, ocg = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 5]))
    kernel = draw(st.tuples(*[st.sampled_from([1, 2, 3])] * 2))
    dilation = draw(st.just(1) | st.tuples(*[st.sampled_from([1, 2, 3])] * 2))
    stride = draw(st.sampled_from([1, 2, 3]) | st.tuples(*[st.sampled_from([1, 2, 3])] * 2))
    padding = draw(
        st.sampled_from(["same", "same_lower", "valid", 0, 1, (0, 2), ((1, 0), (0, 2)), ((0, 3), (1, 1))])
    )
    extents = [
        (k - 1) * d + 1
        for k, d in zip(kernel, (dilation, dilation) if dilation == 1 else dilation, strict=True)
    ]
    image = [draw(st.integers(e, e + 5)) for e in extents]
    types = draw(sign_mixes)
    layout = draw(st.sampled_from(["NCHW", "NHWC"]))
    low, high = limits(types[0])
    rng = np.random.default_rng(draw(seeds))
    batch = draw(st.sampled_from([1, 1, 2, 3, 0]))
    channels = groups * icg
    x = codes(rng, (batch, channels, *image) if layout == "NCHW" else (batch, *image, channels), types[0])
    w = codes(rng, (groups * ocg, icg, *kernel), types[1])
    return (
        x,
        w,
        {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "layout": layout,
            "x_zero_point": draw(st.sampled_from([0, low, high, 3])),
        },
    )


# Products


@examples(60)
@given(problems(), sign_mixes, seeds)
def test_matmul_equals_numpy_and_its_estimate(problem, types: tuple[str, str], seed: int) -> None:
    array, m, k, n = problem
    rng = np.random.default_rng(seed)
    x, w = codes(rng, (m, k), types[0]), codes(rng, (k, n), types[1])
    results = [matmul(x, w, array=array, mode=mode) for mode in MODES]
    for mode, result in zip(MODES, results, strict=True):
        np.testing.assert_array_equal(result.acc, product(x, w))
        assert result.acc.dtype == np.int32 and result.mode == mode and result.array == array
        assert result.gemm == Gemm(m, k, n)
        assert result.stats == estimate(Gemm(m, k, n), machine=array) == naive_stats(Gemm(m, k, n), array)
        assert result.cycles == result.stats.cycles == naive_cycles(Gemm(m, k, n), array)
        assert len(result.folds) == result.stats.folds
        assert result.utilization == m * k * n / (result.cycles * array.rows * array.cols)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("types", SIGN_MIXES)
def test_matmul_at_full_size(mode: str, types: tuple[str, str]) -> None:
    rng = np.random.default_rng(2)
    x, w = codes(rng, (37, 600), types[0]), codes(rng, (600, 270), types[1])
    result = matmul(x, w, mode=mode)
    np.testing.assert_array_equal(result.acc, product(x, w))
    assert result.array == ArrayConfig() and result.stats == estimate(Gemm(37, 600, 270))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_empty_matmul(mode: str, sizes: tuple[int, int, int]) -> None:
    m, k, n = sizes
    result = matmul(np.zeros((m, k), np.int8), np.zeros((k, n), np.int8), mode=mode)
    assert result.acc.shape == (m, n) and not result.acc.any()
    assert result.cycles == 0 and len(result.folds) == 0 and result.utilization == 0.0
    assert result.stats == estimate(Gemm(m, k, n))


@pytest.mark.parametrize("mode", MODES)
def test_any_layout_is_taken_and_left_alone(mode: str) -> None:
    rng = np.random.default_rng(0)
    x, w = codes(rng, (30, 24), "int8")[::-2, ::3], codes(rng, (11, 16), "uint8").T[::2]
    x.flags.writeable = w.flags.writeable = False
    before = x.copy(), w.copy()
    np.testing.assert_array_equal(matmul(x, w, array=ArrayConfig(3, 4), mode=mode).acc, product(x, w))
    assert (x == before[0]).all() and (w == before[1]).all()


@pytest.mark.parametrize("mode", MODES)
def test_threads_do_not_change_results(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systolic.array.systolic_array, "_WORTH_A_THREAD", 0)
    rng = np.random.default_rng(1)
    x, w = codes(rng, (300, 40), "int8"), codes(rng, (40, 90), "int8")
    for threads in (1, 2, 3, None):
        result = matmul(x, w, array=ArrayConfig(16, 48), mode=mode, threads=threads)
        np.testing.assert_array_equal(result.acc, product(x, w))


def test_a_result_is_an_array() -> None:
    result = matmul(np.int8([[1, 2], [3, 4]]), np.int8([[3], [4]]))
    assert np.asarray(result) is result.acc
    assert np.array_equal(result, [[11], [25]])
    floats = np.asarray(result, dtype=np.float32)
    assert floats.dtype == np.float32 and np.array_equal(floats, result.acc)
    copied = np.array(result)
    assert np.array_equal(copied, result.acc) and not np.shares_memory(copied, result.acc)
    assert np.shares_memory(result.__array__(copy=False), result.acc)
    assert not np.shares_memory(result.__array__(copy=True), result.acc)
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with pytest.raises(ValueError, match="copy"):
            np.asarray(result, dtype=np.float32, copy=False)


def test_outputs_of_a_run_by_name() -> None:
    model = Model([Node(Relu(), ("x",), "Hidden"), Node(Relu(), ("Hidden",), "y")], inputs={"x": ((2,), "int8")},
                  outputs=("Hidden", "y"))  # fmt: skip
    found = run(model, np.int8([-1, 3]))
    assert found["y"] is found.outputs["y"]
    assert list(found) == ["Hidden", "y"] and "y" in found and "x" not in found and 3 not in found
    with pytest.raises(KeyError, match="the run has no tensor 'hiden'; did you mean 'Hidden'?"):
        found["hiden"]
    with pytest.raises(KeyError, match="the run has no tensor 0; known are Hidden, y"):
        found[0]  # type: ignore[index]


def test_array_and_machine_are_either_given() -> None:
    x, w, small = np.ones((4, 3), np.int8), np.ones((3, 5), np.int8), ArrayConfig(2, 2)
    image, kernel = np.ones((1, 1, 4, 4), np.int8), np.ones((1, 1, 3, 3), np.int8)
    whole = MachineConfig(small)
    model, pixels = network(), np.zeros((1, 1, 6, 6), np.uint8)
    calls = [
        partial(estimate, Gemm(4, 3, 5)), partial(estimate, model), partial(systolic.summary, model),
        partial(systolic.compare, Gemm(4, 3, 5)), partial(run, model, pixels, mode="wavefront"), partial(matmul, x, w),
        partial(conv2d, image, kernel), partial(conv2d, image, kernel, mapping="taps"),
    ]  # fmt: skip
    for call in calls:
        found = [call(array=small), call(machine=small), call(machine=whole)]
        costs = [each if isinstance(each, Stats) else each.to_dict() for each in found]
        for cost in costs:
            if isinstance(cost, dict):  # times of the emulation
                cost.pop("layers", None)
        assert costs[0] == costs[1] == costs[2]
        with raises(ValueError, "array and machine are both given; pass machine= alone, which has an array, or "
                    "array= alone, for an array without memories"):  # fmt: skip
            call(array=small, machine=whole)
        with raises(TypeError, "machine must be a MachineConfig or an ArrayConfig, not int"):
            call(machine=3)
        with pytest.raises(TypeError, match="array must be an ArrayConfig, not int"):
            call(array=3)
    with raises(TypeError, "array must be an ArrayConfig, not a MachineConfig; pass it as machine="):
        run(model, pixels, array=presets.TPU_V1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a program needs a machine with memories"):
        systolic.compile(model, array=small)
    with pytest.raises(ValueError, match="array and machine are both given"):
        systolic.compile(model, array=small, machine=presets.TPU_V1)


def test_a_machine_is_taken_for_an_array() -> None:
    machine = MachineConfig(ArrayConfig(2, 3), clock_mhz=1)
    assert matmul(np.ones((1, 2), np.int8), np.ones((2, 3), np.int8), array=machine).array == ArrayConfig(
        2, 3
    )


# Convolutions


@pytest.mark.slow
@examples(150)
@given(convolutions(), st.sampled_from(MODES))
def test_conv2d_equals_correlation(case, mode: str) -> None:
    x, w, options = case
    array = ArrayConfig(5, 4, accumulator_rows=14)
    result = conv2d(x, w, array=array, mode=mode, **options)
    expected = naive_conv(x, w, **options)
    assert result.acc.dtype == np.int32
    np.testing.assert_array_equal(result.acc, expected)
    groups = options["groups"]
    gemm = Gemm(expected.size // len(w), w[0].size, len(w) // groups, groups=groups)
    assert result.gemm == gemm
    assert result.stats == estimate(gemm, machine=array) == naive_stats(gemm, array)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("padding", ["same", "same_lower", "valid", 1, (2, 0), ((0, 1), (2, 3))])
def test_conv2d_paddings_with_a_zero_point(mode: str, layout: str, padding) -> None:
    rng = np.random.default_rng(4)
    size = (2, 6, 7, 8) if layout == "NCHW" else (2, 7, 8, 6)
    x, w = codes(rng, size, "uint8"), codes(rng, (4, 3, 3, 2), "int8")
    options = {
        "stride": 2,
        "padding": padding,
        "dilation": (1, 2),
        "groups": 2,
        "layout": layout,
        "x_zero_point": 200,
    }
    result = conv2d(x, w, array=ArrayConfig(16, 16), mode=mode, **options)
    np.testing.assert_array_equal(result.acc, naive_conv(x, w, **options))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_depthwise_conv2d(mode: str, layout: str) -> None:
    rng = np.random.default_rng(4)
    x = codes(rng, (2, 5, 9, 9) if layout == "NCHW" else (2, 9, 9, 5), "int8")
    w = codes(rng, (10, 1, 3, 3), "int8")
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": 5, "layout": layout, "x_zero_point": -7}
    result = conv2d(x, w, array=ArrayConfig(4, 4), mode=mode, **options)
    np.testing.assert_array_equal(result.acc, naive_conv(x, w, **options))
    assert result.gemm == Gemm(50, 9, 2, groups=5)


def test_folds_see_im2col_in_the_order_of_the_convention() -> None:
    # M over (batch, oh, ow) and K over (ic, kh, kw), first index outermost, for every layout: the
    # register values of a run depend on it.
    from systolic.layers.conv import lower_conv2d
    from systolic.machine import operands

    rng = np.random.default_rng(0)
    x, w = codes(rng, (2, 4, 5, 6), "int8"), codes(rng, (6, 2, 2, 3), "int8")
    for layout, image in (("NCHW", x), ("NHWC", x.transpose(0, 2, 3, 1))):
        lowered = lower_conv2d(
            image, w, stride=(2, 1), padding=0, dilation=1, groups=2, layout=layout, pad_value=0
        )
        for group in range(2):
            rows = [
                x[b, 2 * group : 2 * group + 2, 2 * i : 2 * i + 2, j : j + 3].ravel()
                for b in range(2) for i in range(2) for j in range(4)
            ]  # fmt: skip
            np.testing.assert_array_equal(operands.rows(lowered.x, group, 0, 16, 0, 12), rows)
            np.testing.assert_array_equal(operands.rows(lowered.x, group, 3, 14, 5, 11), np.array(rows)[3:14, 5:11])
            np.testing.assert_array_equal(
                operands.tile(lowered.w, group, 0, 12, 0, 3), w[3 * group :][:3].reshape(3, 12).T
            )


@pytest.mark.parametrize("mode", MODES)
def test_empty_convolutions(mode: str) -> None:
    w = np.zeros((3, 2, 3, 3), np.int8)
    no_batch = conv2d(np.zeros((0, 2, 5, 6), np.int8), w, mode=mode)
    assert no_batch.acc.shape == (0, 3, 3, 4) and no_batch.cycles == 0 and len(no_batch.folds) == 0
    no_channels = conv2d(np.ones((2, 0, 5, 6), np.int8), w[:, :0], mode=mode)
    assert no_channels.acc.shape == (2, 3, 3, 4) and not no_channels.acc.any() and no_channels.cycles == 0
    assert no_channels.stats == estimate(Gemm(24, 0, 3))


@pytest.mark.parametrize("mode", MODES)
def test_convolution_without_output_channels(mode: str) -> None:
    result = conv2d(np.zeros((1, 2, 5, 6), np.int8), np.zeros((0, 2, 3, 3), np.int8), mode=mode)
    assert result.acc.shape == (1, 0, 3, 4) and result.cycles == 0


# Memory


def peak_above(size: int, call) -> int:
    """Bytes in use at the peak of a call, beyond what stood before and `size`."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before - size
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_of_a_wavefront_convolution() -> None:
    x = np.ones((8, 256, 112, 112), np.int8)
    w = np.ones((64, 256, 3, 3), np.int8)
    result = []
    # As im2col matrix x would take 220 MiB.
    extra = peak_above(
        8 * 64 * 112 * 112 * 4, lambda: result.append(conv2d(x, w, padding=1, mode="wavefront"))
    )
    assert extra <= 64 * 2**20
    assert result[0].acc[0, 0, 1, 1] == 2304 and result[0].acc[7, 63, 0, 0] == 1024


def test_memory_of_a_cycle_convolution() -> None:
    # Its im2col matrix would take 9 x 1.5 MiB; x is copied once, with its padding.
    x = np.ones((1, 64, 160, 160), np.int8)
    w = np.ones((16, 64, 3, 3), np.int8)
    array = ArrayConfig(64, 16)
    extra = peak_above(16 * 160 * 160 * 4, lambda: conv2d(x, w, padding=1, array=array))
    assert extra <= 9 * 2**20 < 9 * x.nbytes


def test_memory_of_a_long_matmul_in_cycle_mode() -> None:
    # Ports and psums are held for a stretch of cycles, not for all.
    x, w = np.ones((300_000, 4), np.int8), np.ones((4, 4), np.int8)
    array = ArrayConfig(4, 4, accumulator_rows=4096)
    assert peak_above(300_000 * 16, lambda: matmul(x, w, array=array)) <= 4 * 2**20


# Results


def test_result_shows_itself() -> None:
    x, w = np.ones((4, 8), np.int8), np.ones((8, 3), np.int8)
    result = matmul(x, w, array=ArrayConfig(8, 8))
    assert repr(result) == "<Result (4, 3) int32 on 8 x 8: 26 cycles, 1 fold, utilization 5.8%>"
    html = result._repr_html_()
    assert "Gemm(4, 8, 3)" in html and "8 x 8, cycle mode" in html and "26" in html
    data = json.loads(json.dumps(result.to_dict()))
    assert Stats.from_dict(data["stats"]) == result.stats
    assert ArrayConfig.from_dict(data["array"]) == result.array
    assert Gemm(**data["gemm"]) == result.gemm
    assert data["mode"] == "cycle" and data["utilization"] == result.utilization == 96 / (64 * 26)
    for same in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert same.to_dict() == result.to_dict() and (same.acc == result.acc).all()


@pytest.mark.slow
def test_frames() -> None:
    pytest.importorskip("pandas")
    result = matmul(np.ones((4, 8), np.int8), np.ones((8, 3), np.int8), array=ArrayConfig(4, 2))
    frame = result.to_frame()
    assert frame["swap_cycle"].tolist() == [4, 8, 12, 16] == [f.swap_cycle for f in result.folds]
    frame = run(network(), np.ones((1, 1, 6, 6), np.uint8), machine=ArrayConfig(4, 4)).to_frame()
    assert len(frame) == 5 and frame["node"].tolist() == ["t0", "t1", "sum", "t3", "y"]


# Progress and interrupts


def test_progress_of_matmul_counts_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systolic.machine.cycle, "_AHEAD_CYCLES", 10)
    calls: list[tuple[int, int]] = []
    x, w = np.ones((40, 9), np.int8), np.ones((9, 9), np.int8)
    result = matmul(x, w, array=ArrayConfig(4, 4), progress=lambda *call: calls.append(call))
    done = [d for d, _ in calls]
    assert {total for _, total in calls} == {result.cycles}
    assert done == sorted(set(done)) and done[-1] == result.cycles and len(done) >= result.cycles // 10


@pytest.mark.parametrize("mode", MODES)
def test_progress_true_shows_a_line(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    matmul(
        np.ones((4, 9), np.int8), np.ones((9, 9), np.int8), array=ArrayConfig(4, 4), mode=mode, progress=True
    )
    out, err = capsys.readouterr()
    assert not out and "100.0%" in err


@pytest.mark.parametrize("mode", MODES)
def test_interrupts_from_progress_propagate(mode: str) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        matmul(np.ones((4, 9), np.int8), np.ones((9, 9), np.int8), mode=mode, progress=interrupt)
    model = network()
    before = copy.deepcopy(model)
    with pytest.raises(KeyboardInterrupt):
        run(model, np.ones((1, 1, 6, 6), np.uint8), mode=mode, progress=interrupt)
    assert model == before and run(model, np.ones((1, 1, 6, 6), np.uint8), mode=mode).outputs


# Arguments


EIGHT = np.zeros((3, 4), np.int8)
IMAGE = np.zeros((1, 4, 5, 6), np.int8)
KERNELS = np.zeros((6, 4, 3, 3), np.int8)


@pytest.mark.parametrize(
    ("x", "w", "options", "error", "message"),
    [
        (EIGHT, EIGHT, {}, ValueError, "x and w must share K, but x is (3, 4) and w is (3, 4); w.T fits"),
        (EIGHT[0], EIGHT.T, {}, ValueError, "x must have 2 axes (M, K), not 1 (4,)"),
        (EIGHT, EIGHT.T[np.newaxis], {}, ValueError, "w must have 2 axes (K, N), not 3 (1, 4, 3)"),
        (
            EIGHT.astype(np.float32),
            EIGHT.T,
            {},
            TypeError,
            f"x must hold {OPERAND_NAMES}, not float32; {ROUND}",
        ),
        (
            EIGHT,
            EIGHT.T.astype(np.float16),
            {},
            ValueError,
            "activations of int8 cannot be multiplied with weights of float16: with int8 go weights of int8, uint8, "
            "int4, uint4, int16, uint16",
        ),
        (
            [[1, 2]],
            EIGHT,
            {},
            TypeError,
            f"x must hold {OPERAND_NAMES}, not int64; {QUANTIZE}",
        ),
        (
            EIGHT,
            EIGHT.T,
            {"mode": "fast"},
            ValueError,
            "mode must be one of 'cycle', 'wavefront', not 'fast'",
        ),
        (
            EIGHT,
            EIGHT.T,
            {"array": (2, 2)},
            TypeError,
            "array must be an ArrayConfig, not tuple; try ArrayConfig(rows=256, cols=256)",
        ),
        (EIGHT, EIGHT.T, {"threads": 0}, ValueError, "threads must be a positive integer, not 0"),
        (
            EIGHT,
            EIGHT.T,
            {"progress": "bar"},
            TypeError,
            "progress must be True, False, None or a function (done, total), not str 'bar'",
        ),
    ],
)
def test_matmul_rejects_arguments(x, w, options, error: type[Exception], message: str) -> None:
    with raises(error, message):
        matmul(x, w, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": IMAGE[0]}, ValueError, "x must have 4 axes (batch, ic, ih, iw), not 3 (4, 5, 6)"),
        (
            {"x": IMAGE[0], "layout": "NHWC"},
            ValueError,
            "x must have 4 axes (batch, ih, iw, ic), not 3 (4, 5, 6)",
        ),
        ({"w": KERNELS[0]}, ValueError, "w must have 4 axes (oc, ic // groups, kh, kw), not 3 (4, 3, 3)"),
        (
            {"x": IMAGE.astype(np.float64)},
            TypeError,
            f"x must hold {OPERAND_NAMES}, not float64; {ROUND}",
        ),
        (
            {"w": KERNELS.astype(np.int32)},
            TypeError,
            f"w must hold {OPERAND_NAMES}, not int32; {QUANTIZE}",
        ),
        (
            {"groups": 2},
            ValueError,
            "x has 4 channels, but w (6, 4, 3, 3) takes 4 in each of 2 groups, 8 in all; w is "
            "(oc, ic // groups, kh, kw)",
        ),
        (
            {"w": KERNELS[:5, :1], "groups": 4},
            ValueError,
            "w has 5 output channels, which 4 groups do not divide",
        ),
        ({"groups": 0}, ValueError, "groups must be a positive integer, not 0"),
        ({"groups": 1.0}, TypeError, "groups must be an integer, not float 1.0"),
        ({"w": KERNELS[:, :, :0]}, ValueError, "w must have a kernel of at least 1 x 1, not 0 x 3"),
        (
            {"x": IMAGE[:, :, :2]},
            ValueError,
            "the kernel spans 3 pixels of the height, more than the padded image's 2; use "
            "a smaller kernel or more padding",
        ),
        (
            {"dilation": (1, 3), "padding": ((0, 0), (0, 0))},
            ValueError,
            "the kernel spans 7 pixels of the width, more than "
            "the padded image's 6; use a smaller kernel or more padding",
        ),
        ({"stride": 0}, ValueError, "stride must be a positive integer, not 0"),
        ({"stride": (1, 0)}, ValueError, "stride must be a positive integer, not 0"),
        (
            {"stride": (1, 1, 1)},
            ValueError,
            "stride must be an integer or a pair (height, width), not (1, 1, 1)",
        ),
        ({"dilation": 0}, ValueError, "dilation must be a positive integer, not 0"),
        ({"padding": -1}, ValueError, "padding must be a non-negative integer, not -1"),
        ({"padding": ((0, 0), (0, -2))}, ValueError, "padding must be a non-negative integer, not -2"),
        (
            {"padding": (1, 1, 1, 1)},
            ValueError,
            "padding must be an int, (height, width), ((top, bottom), (left, right)), "
            "'same', 'same_lower' or 'valid', not (1, 1, 1, 1)",
        ),
        ({"padding": "full"}, ValueError, "padding must be one of 'same', 'same_lower', 'valid', not 'full'"),
        ({"padding": 0.5}, TypeError, "padding must be an integer, not float 0.5"),
        ({"layout": "CHWN"}, ValueError, "layout must be one of 'NCHW', 'NHWC', not 'CHWN'"),
        ({"x_zero_point": 128}, ValueError, "x_zero_point must fit int8 (-128..127), but holds 128"),
        ({"x_zero_point": -129}, ValueError, "x_zero_point must fit int8 (-128..127), but holds -129"),
        ({"x_zero_point": 0.0}, TypeError, "x_zero_point must hold integers, not float64"),
        ({"mode": "slow"}, ValueError, "mode must be one of 'cycle', 'wavefront', not 'slow'"),
        ({"array": None, "threads": -1}, ValueError, "threads must be a positive integer, not -1"),
    ],
)
def test_conv2d_rejects_arguments(options, error: type[Exception], message: str) -> None:
    with raises(error, message):
        conv2d(**({"x": IMAGE, "w": KERNELS} | options))


def test_zero_point_must_fit_the_type_of_x() -> None:
    x = IMAGE.view(np.uint8)
    conv2d(x, KERNELS, x_zero_point=255, array=ArrayConfig(8, 8))
    with raises(ValueError, "x_zero_point must fit uint8 (0..255), but holds -1"):
        conv2d(x, KERNELS, x_zero_point=-1)


def test_arrays_that_are_none() -> None:
    w = np.ones((2, 2), np.int8)
    for x, error, words in (
        (np.ma.masked_array(w, w > 0), TypeError, r"x must be a plain array, but is a masked one; fill it: "),
        ([[1, 2], [3]], ValueError, "x must be an array with rows of one length"),
        (None, TypeError, f"x must be an array of {OPERAND_NAMES}, not NoneType None"),
        ("abc", TypeError, f"x must be an array of {OPERAND_NAMES}, not str 'abc'"),
    ):
        with pytest.raises(error, match=words):
            matmul(x, w)


def test_padding_beyond_any_image() -> None:
    with pytest.raises(
        ValueError, match=r"padding makes the height 2,000,000,00\d pixels; at most 1,048,576"
    ):
        conv2d(IMAGE, KERNELS, padding=10**9)


def test_zero_point_must_be_one() -> None:
    with pytest.raises((TypeError, ValueError), match="x_zero_point"):
        conv2d(IMAGE, KERNELS, x_zero_point=np.array([1, 2]))  # type: ignore[arg-type]


# Models


def network() -> Model:
    """Two convolutions whose outputs are added, and a dense layer; uint8 in, float32 out."""
    rng = np.random.default_rng(0)
    u8 = QuantParams(0.5, 128, "uint8")
    first = Conv2d(codes(rng, (3, 1, 3, 3), "int8"), x=u8, w=QuantParams(0.1), y=QuantParams(4.0, 1))
    second = Conv2d(
        codes(rng, (3, 3, 3, 3), "int8"),
        x=QuantParams(4.0, 1),
        w=QuantParams(0.1),
        y=QuantParams(4.0, 1),
        padding=1,
    )
    dense = Dense(codes(rng, (48, 5), "int8"), x=QuantParams(8.0), w=QuantParams(0.1), y=None)
    add = QLinearAdd(a=QuantParams(4.0, 1), b=QuantParams(4.0, 1), y=QuantParams(8.0))
    return Model(
        [first, second, Node(add, ("t0", "t1"), "sum"), Flatten(), Node(dense, ("t3",), "y")],
        inputs={"x": ((None, 1, 6, 6), "uint8")},
    )


@pytest.mark.parametrize("machine", [presets.TPU_V1, ArrayConfig(8, 8)])
def test_kept_tensors_are_those_that_nodes_write(machine) -> None:
    model, x = network(), np.random.default_rng(0).integers(0, 256, (2, 1, 6, 6), np.uint8)
    seen: dict[str, np.ndarray] = {}
    arguments = {"machine": machine, "mode": "wavefront"}
    plain = run(model, x, observe=lambda node, read, y: seen.update(node.named(y)), **arguments)
    assert plain.tensors == {} and "t0" not in plain
    everything = run(model, x, keep=True, **arguments)
    assert list(everything.tensors) == list(everything.tensors | everything.outputs) == ["t0", "t1", "sum", "t3", "y"]
    assert list(everything) == ["y", "t0", "t1", "sum", "t3"]
    for name, value in seen.items():
        np.testing.assert_array_equal(everything[name], value)
    assert everything.stats == plain.stats
    for names in (["sum", "t0"], iter(["sum", "t0", "t0"])):
        some = run(model, x, keep=names, **arguments)
        assert list(some.tensors) == ["t0", "sum"]
        np.testing.assert_array_equal(some["sum"], seen["sum"])
    assert list(run(model, x, keep="t1", **arguments).tensors) == ["t1"]
    assert run(model, x, keep=[], **arguments).tensors == {}


def test_tensors_to_keep_are_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((1, 1, 6, 6), np.uint8)
    monkeypatch.setattr(systolic.engine.networks, "run_layer", lambda *a: pytest.fail("ran"))
    with raises(ValueError, "no node writes a tensor 'sun' to keep; did you mean 'sum'?"):
        run(network(), x, keep=["sun"])
    with raises(ValueError, "no node writes a tensor 'x' to keep; known are t0, t1, sum, t3, y"):
        run(network(), x, keep="x")
    with raises(TypeError, "keep must be names of tensors, True or False, not int 3"):
        run(network(), x, keep=3)  # type: ignore[arg-type]
    with raises(TypeError, "keep must be names of tensors, not int 3"):
        run(network(), x, keep=[3])  # type: ignore[list-item]
    monkeypatch.setattr(systolic._memory, "SMALL_BYTES", 0)
    monkeypatch.setattr(systolic._memory, "available_bytes", lambda: 100)
    with pytest.raises(MemoryError, match="keeping 5 tensors takes "):
        run(network(), x, keep=True)


def test_a_program_keeps_no_tensors() -> None:
    program = systolic.compile(network())
    with raises(ValueError, "a program has no layers to trace, probe, observe or keep; run its Model"):
        run(program, np.zeros((1, 1, 6, 6), np.uint8), keep=True)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_run_equals_its_layers_one_by_one(batch: int) -> None:
    model = network()
    x = codes(np.random.default_rng(1), (batch, 1, 6, 6), "uint8")
    machine = MachineConfig(ArrayConfig(5, 4), clock_mhz=100)
    seen = {}
    results = [
        run(model, x, machine=machine, mode=mode, observe=lambda n, i, o: seen.update({n.output: o}))
        for mode in MODES
    ]
    c1, c2, add, flatten, dense = (node.layer for node in model.nodes)

    def on_array(layer, value: np.ndarray) -> np.ndarray:
        return systolic.machine.run_wavefront(layer.lower(value), ArrayConfig()).output

    t0 = on_array(c1, x)
    t1 = on_array(c2, t0)
    t2 = add.apply(t0, t1)
    y = on_array(dense, flatten.apply(t2))
    for mode, result in zip(MODES, results, strict=True):
        assert list(result.outputs) == ["y"] and result.mode == mode and result.machine == machine
        np.testing.assert_array_equal(result.outputs["y"], y)
        assert result.outputs["y"].dtype == np.float32 and result.outputs["y"].shape == (batch, 5)
        gemms = [Gemm(batch * 16, 9, 3), Gemm(batch * 16, 27, 3), None, None, Gemm(batch, 48, 5)]
        assert [layer.gemm for layer in result.layers] == gemms
        expected = [Stats() if g is None else naive_stats(g, machine.array) for g in gemms]
        assert [layer.stats for layer in result.layers] == expected
        assert result.stats == sum(expected, Stats()) == estimate(model, machine=machine, batch=batch)
        assert result.seconds == result.stats.cycles / 100e6
        assert [layer.layer for layer in result.layers] == ["QLinearConv", "QLinearConv", "QLinearAdd", "Flatten", "QLinearMatMul"]
        assert [layer.shape[0] for layer in result.layers] == [batch] * 5
    np.testing.assert_array_equal(seen["t1"], t1)


def test_estimate_of_a_program() -> None:
    machine = MachineConfig(ArrayConfig(4, 4), memory=presets.TPU_V1.memory)
    program = Program("read_weights w#0, 1\nread_host u#0, 8\nmatmul a#0, u#0, 8\nactivate u#8, a#0, 8")
    stats = estimate(program, machine=machine)
    assert stats == time_program(program, machine).stats and stats.active_cycles == 8
    assert stats.cycles == stats.active_cycles + stats.weight_stall_cycles + stats.weight_shift_cycles + stats.non_matrix_cycles
    with raises(
        ValueError, "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"
    ):
        estimate(program, machine=ArrayConfig(4, 4))


def test_estimate_of_a_model_on_the_default_machine() -> None:
    assert estimate(network()) == run(network(), np.zeros((1, 1, 6, 6), np.uint8), mode="wavefront").stats
    assert estimate(network(), batch=3) != estimate(network())
    assert estimate(Gemm(3, 4, 5)) == estimate(Gemm(3, 4, 5), machine=presets.TPU_V1)
    assert estimate(Gemm(3, 4, 5), batch=7) == estimate(Gemm(21, 4, 5))
    with raises(ValueError, "batch must be a positive integer, not 0"):
        estimate(Gemm(3, 4, 5), batch=0)
    for products in (Gemm(2, 3, 4), [Gemm(2, 3, 4)]):
        with raises(ValueError, "shapes are of a model's inputs; products have their sizes: leave shapes out"):
            estimate(products, shapes={"x": (2, 3)})
    with raises(ValueError, "the shapes of a program were chosen when it was compiled; pass its Model"):
        estimate(systolic.compile(network(), machine=presets.TPU_V1), batch=2)
    with pytest.raises(TypeError, match="estimate takes a Gemm, several in a list or by name, .*, not int 3"):
        estimate(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a layer of workload 'products' must be a Gemm, \(name, Gemm\)"):
        estimate((1, 2, 3))  # type: ignore[arg-type]
    with raises(TypeError, "machine must be a MachineConfig or an ArrayConfig, not str"):
        estimate(Gemm(1, 1, 1), machine="tpu-v1")  # type: ignore[arg-type]
    with raises(ValueError, "batch must be a non-negative integer, not -1"):
        estimate(network(), batch=-1)


def test_run_shows_itself() -> None:
    result = run(network(), np.ones((2, 1, 6, 6), np.uint8), machine=ArrayConfig(4, 4), mode="wavefront")
    assert repr(result).startswith(f"<Run y (2, 5) float32: {result.stats.cycles:,} cycles (")
    text = str(result.table())
    assert (
        "Gemm" not in text and "32 x 27 x 3" in text and "total" in text and "4 x 4 array at 700 MHz" in text
    )
    assert "<table" in result._repr_html_()
    data = json.loads(json.dumps(result.to_dict()))
    assert Stats.from_dict(data["stats"]) == result.stats
    assert MachineConfig.from_dict(data["machine"]) == result.machine
    assert [layer["name"] for layer in data["layers"]] == ["t0", "t1", "sum", "t3", "y"]
    assert data["outputs"] == {"y": [2, 5]} and data["layers"][2]["gemm"] is None
    for same in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert same.to_dict() == result.to_dict()


@pytest.mark.parametrize("mode", MODES)
def test_progress_of_a_run_is_monotonic_to_the_end(mode: str) -> None:
    calls: list[tuple[int, int]] = []
    result = run(
        network(),
        np.ones((1, 1, 6, 6), np.uint8),
        machine=ArrayConfig(4, 4),
        mode=mode,
        progress=lambda *call: calls.append(call),
    )
    done = [d for d, _ in calls]
    assert done == sorted(done) and done[0] > 0 and calls[-1] == (result.stats.cycles, result.stats.cycles)
    assert {total for _, total in calls} == {result.stats.cycles} and len(set(done)) >= 3


@pytest.mark.slow
@examples(20)
@given(dtypes, seeds, st.sampled_from(MODES))
def test_several_inputs_outputs_and_constants(dtype: str, seed: int, mode: str) -> None:
    rng = np.random.default_rng(seed)
    q = QuantParams(1.0, 0 if dtype == "int8" else 100, dtype)
    dense = Dense(codes(rng, (4, 4), "int8"), x=q, w=ONE, y=QuantParams(64.0))
    add = QLinearAdd(a=q, b=q, y=q)
    constant = codes(rng, (1, 4), dtype)
    model = Model(
        [
            Node(add, ("a", "b"), "sum"),
            Node(add, ("sum", "c"), "shifted"),
            Node(add, ("sum", "sum"), "double"),
            Node(dense, ("shifted",), "y"),
        ],
        inputs={"a": ((None, 4), dtype), "b": ((None, 4), dtype)},
        outputs=("y", "sum", "a"),
        constants={"c": constant},
    )
    a, b = codes(rng, (3, 4), dtype), codes(rng, (3, 4), dtype)
    result = run(model, {"b": b, "a": a}, machine=ArrayConfig(2, 2), mode=mode)
    assert list(result.outputs) == ["y", "sum", "a"]
    total = add.apply(a, b)
    np.testing.assert_array_equal(result.outputs["sum"], total)
    np.testing.assert_array_equal(result.outputs["a"], a)
    work = dense.lower(add.apply(total, constant))
    y = apply_epilogue(work, product(add.apply(total, constant), dense.weight))
    np.testing.assert_array_equal(result.outputs["y"], y)
    np.testing.assert_array_equal(model.constants["c"], constant)


def chain(*layers) -> Model:
    return Model(layers, inputs={"x": ((None, 4), "int8")})


def alive_at_each_layer(model: Model) -> list[list[str]]:
    """Tensors that still exist when each layer has run."""
    references: dict[str, weakref.ref] = {}
    alive: list[list[str]] = []

    def observe(node: Node, inputs: list[np.ndarray], output: np.ndarray) -> None:
        while isinstance(output.base, np.ndarray):  # a view keeps the buffer, not the other view
            output = output.base
        references[node.output] = weakref.ref(output)
        alive.append([name for name, ref in references.items() if ref() is not None])

    run(model, np.ones((2, 4), np.int8), mode="wavefront", observe=observe)
    return alive


def test_tensors_are_freed_after_their_last_reader() -> None:
    dense = Dense(np.eye(4, dtype=np.int8), x=ONE, w=ONE, y=ONE)
    assert alive_at_each_layer(chain(dense, dense, dense)) == [["t0"], ["t0", "t1"], ["t1", "t2"]]
    relus = alive_at_each_layer(chain(Relu(), Relu(), Relu(), Relu()))
    assert relus[-1] == ["t2", "t3"]


def test_a_product_is_freed_when_its_layer_is_done() -> None:
    dense = Dense(np.eye(4, dtype=np.int8), x=ONE, w=ONE, y=ONE)
    assert alive_at_each_layer(chain(dense, dense, Relu(), Relu()))[-1] == ["t2", "t3"]


def test_each_of_several_outputs_is_freed_after_its_last_reader() -> None:
    alive: list[list[str]] = []
    references: dict[str, weakref.ref] = {}

    def observe(node: Node, inputs: list[np.ndarray], output) -> None:
        references.update({name: weakref.ref(array) for name, array in node.named(output).items()})
        alive.append([name for name, ref in references.items() if ref() is not None])

    nodes = [
        Node(Halves(), "x", ("a", "unread")),
        Node(Relu(), "a", "b"),
        Node(Relu(), "b", "c"),
        Node(Relu(), "c", "d"),
    ]
    run(Model(nodes, inputs={"x": ((None, 4), "int8")}), np.ones((2, 4), np.int8), observe=observe)
    assert alive == [["a", "unread"], ["a", "b"], ["b", "c"], ["c", "d"]]


@pytest.mark.parametrize("mode", MODES)
def test_both_operands_computed_at_run_time(mode: str) -> None:
    inputs = {"a": ((None, 5), "int8"), "b": ((5, None), "uint8")}
    model = Model([Relu(), Node(Both(), ("t0", "b"), "y", "scores")], inputs=inputs)
    rng = np.random.default_rng(0)
    a, b = codes(rng, (7, 5), "int8"), codes(rng, (5, 3), "uint8")
    result = run(model, {"a": a, "b": b}, machine=ArrayConfig(2, 2), mode=mode)
    np.testing.assert_array_equal(result.outputs["y"], np.maximum(a, 0).astype(np.int32) @ b.astype(np.int32))
    shapes = {"a": (7, 5), "b": (5, 3)}
    assert result.layers[1].gemm == Gemm(7, 5, 3)
    assert estimate(model, machine=ArrayConfig(2, 2), shapes=shapes) == result.stats


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_of_several_products(mode: str) -> None:
    model = Model([Node(Power(), ("x", "w"), "y")], inputs={"x": ((None, 4), "int8"), "w": ((4, 4), "int8")})
    machine, shapes = ArrayConfig(3, 2), {"x": (5, 4), "w": (4, 4)}
    rng = np.random.default_rng(0)
    x, w = codes(rng, (5, 4), "int8"), codes(rng, (4, 4), "int8")
    reports: list[tuple[int, int]] = []
    result = run(
        model, {"x": x, "w": w}, machine=machine, mode=mode, progress=lambda *call: reports.append(call)
    )
    sums = [a.astype(np.int32) @ w.astype(np.int32) for a in (x, (x.astype(np.int32) @ w).astype(np.int8))]
    np.testing.assert_array_equal(result.outputs["y"], sums[1])
    (layer,) = result.layers
    one = estimate(Gemm(5, 4, 4), machine=machine)
    assert (layer.gemm, layer.products, layer.stats) == (Gemm(5, 4, 4), 2, one + one)
    assert estimate(model, machine=machine, shapes=shapes) == result.stats
    (node,) = systolic.summary(model, machine=machine, shapes=shapes).nodes
    assert (node.gemm, node.products, node.stats) == (Gemm(5, 4, 4), 2, one + one)
    for table in (result.table(), result.report().table(), systolic.summary(model, shapes=shapes).table()):
        assert "5 x 4 x 4, 1 more" in str(table)
    assert "5 x 4 x 4, 1 more" in str(model.table(shapes=shapes))
    assert reports == sorted(reports) and {total for _, total in reports} == {result.stats.cycles}
    assert reports[-1][0] == result.stats.cycles


def test_the_wrong_product_of_several_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    from systolic.verifier import compare

    x, w, config = np.ones((5, 4), np.int8), np.ones((4, 4), np.int8), ArrayConfig(3, 2)
    node, good = Node(Power(), ("x", "w"), "y"), np.full((5, 4), 16, np.int32)

    def found(output: np.ndarray) -> compare.Mismatch | None:
        return compare.compare_layer("case", node, [x, w], output, {"y": good}, config, "wavefront")[0]

    assert found(good) is None
    wrong = found(good + 1)
    assert wrong is not None and (wrong.stage, wrong.index) == ("finish", (0, 0))
    true, calls = compare.execute, iter(range(4))  # raw and as lowered, of each product

    def faulty(*arguments):
        done = true(*arguments)
        return done._replace(output=done.output + (next(calls) == 2))

    monkeypatch.setattr(compare, "execute", faulty)
    wrong = found(good + 1)
    assert wrong is not None and wrong.case == "case, product 1" and wrong.stage == "wavefront product"


def test_tensors_without_readers_are_freed() -> None:
    dense = Dense(np.eye(4, dtype=np.int8), x=ONE, w=ONE, y=ONE)
    nodes = [
        Node(dense, ("x",), "a"),
        Node(dense, ("x",), "b"),
        Node(dense, ("b",), "c"),
        Node(dense, ("c",), "d"),
    ]
    alive = alive_at_each_layer(Model(nodes, inputs={"x": ((None, 4), "int8")}))
    assert "a" not in alive[-1]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            np.zeros((1, 1, 6, 6), np.float32),
            TypeError,
            "input 'x' must hold uint8, not float32; convert with .astype('uint8')",
        ),
        (
            np.zeros((1, 1, 6, 5), np.uint8),
            ValueError,
            "input 'x' must have shape (?, 1, 6, 6) (? is any batch), not (1, 1, 6, 5)",
        ),
        (
            np.zeros((1, 6, 6), np.uint8),
            ValueError,
            "input 'x' must have shape (?, 1, 6, 6) (? is any batch), not (1, 6, 6); x[None] fits, a batch of one",
        ),
        ({"z": np.zeros((1, 1, 6, 6), np.uint8)}, ValueError, "the model's inputs are 'x', not 'z'"),
        ({}, ValueError, "the model's inputs are 'x', not none"),
    ],
)
def test_run_rejects_inputs(x, error: type[Exception], message: str) -> None:
    with raises(error, message):
        run(network(), x)


def test_run_rejects_arguments_before_anything_runs() -> None:
    x = np.zeros((1, 1, 6, 6), np.uint8)
    with raises(TypeError, "model must be a Model, a Program or the path of one, not int 5"):
        run(5, x)  # type: ignore[arg-type]
    with raises(ValueError, "mode must be one of 'cycle', 'wavefront', not 'fast'"):
        run(network(), x, mode="fast")
    with raises(TypeError, "machine must be a MachineConfig or an ArrayConfig, not int"):
        run(network(), x, machine=256)  # type: ignore[arg-type]
    two = Model([Node(QLinearAdd(a=ONE, b=ONE, y=ONE), ("a", "b"), "y")], inputs=dict.fromkeys("ab", ((1,), "int8")))
    with raises(ValueError, "the model has 2 inputs ('a', 'b'); pass a mapping from names to arrays"):
        run(two, np.zeros(1, np.int8))
    ran = []
    bad = chain(Relu(), Dense(np.zeros((5, 2), np.int8), x=ONE, w=ONE, y=ONE))
    with raises(ValueError, "node 't1': QLinearMatMul takes inputs (..., 5), as its weight has 5 rows, not (2, 4)"):
        run(bad, np.ones((2, 4), np.int8), observe=lambda *a: ran.append(a))
    assert not ran


@pytest.mark.parametrize(
    "raised, kind, words",
    (
        (ValueError("too far"), ValueError, "node 'n' (Relu): too far"),
        (TypeError("no number"), TypeError, "node 'n' (Relu): no number"),
        (MemoryError(), MemoryError, "node 'n' (Relu): there is not enough memory"),
        (np.exceptions.AxisError("axis 3"), ValueError, "node 'n' (Relu): axis 3"),
        (ZeroDivisionError("by 0"), RuntimeError, "node 'n' (Relu): ZeroDivisionError: by 0"),
        (KeyError("k"), RuntimeError, "node 'n' (Relu): KeyError: 'k'"),
        (ImportError("no onnx"), ImportError, "node 'n' (Relu): no onnx"),
        (ValueError("node 'n' is at fault"), ValueError, "node 'n' is at fault"),
    ),
)
def test_what_a_layer_raises_names_node_and_operator(
    raised: Exception, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, *inputs: np.ndarray) -> np.ndarray:
        raise raised

    monkeypatch.setattr(Relu, "apply", fail)
    model = Model([Node(Relu(), "x", "y", "n")], inputs={"x": ((2,), "int8")})
    with pytest.raises(kind) as caught:
        systolic.run(model, np.int8([1, 2]))
    assert str(caught.value) == words and type(caught.value) is kind


def test_interrupts_and_what_a_caller_raises_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    model = Model([Node(Relu(), "x", "y", "n")], inputs={"x": ((2,), "int8")})
    for error in (KeyboardInterrupt(), Stop("enough")):

        def fail(self: object, *inputs: np.ndarray, error: BaseException = error) -> np.ndarray:
            raise error

        monkeypatch.setattr(Relu, "apply", fail)
        with pytest.raises(type(error)) as caught:
            systolic.run(model, np.int8([1, 2]))
        assert caught.value is error


@pytest.mark.parametrize("kind", (TimeoutError, KeyError, ValueError, RuntimeError))
def test_what_a_progress_function_raises_is_the_callers(kind: type[Exception]) -> None:
    example = systolic.load_example()

    def stop(done: int, total: int) -> None:
        if done:
            raise kind("stop")

    with pytest.raises(kind) as caught:
        systolic.run(example.model, example.images[:1], progress=stop)
    assert type(caught.value) is kind and caught.value.args == ("stop",)


def test_an_error_that_is_its_own_cause_ends() -> None:
    def observe(*_: object) -> None:
        error = ValueError("mine")
        raise error from error

    example = systolic.load_example()
    with pytest.raises(ValueError, match="mine"):
        systolic.run(example.model, example.images[:1], mode="wavefront", observe=observe)


def test_exceptions_of_a_caller_are_left_alone() -> None:
    class Mine(Exception):
        pass

    def observe(*_: object) -> None:
        raise Mine("one\ntwo")

    example = systolic.load_example()
    with pytest.raises(Mine) as caught:
        systolic.run(example.model, example.images[:1], mode="wavefront", observe=observe)
    assert caught.value.args == ("one\ntwo",)
