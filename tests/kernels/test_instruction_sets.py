"""Modes, instruction sets, numbers of threads and types: whatever computes, the sums are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support.naive_tiling import naive_cycles
from support.strategies import (
    SIGN_MIXES,
    around,
    array_configs,
    codes,
    examples,
    limits,
    product,
    seeds,
    sign_mixes,
)
from systolic import ArrayConfig, QuantParams, _gemm, _kernels
from systolic.layers import Conv2d, Dense
from systolic.machine import wavefront
from systolic.reference import conv_sums, expected_output, oracle

MODES = ("cycle", "wavefront")
THREADS = (1, 2, 3, 7)


@pytest.fixture(autouse=True)
def threads_are_worth_it() -> Iterator[None]:
    """Let small products, too, be shared among threads."""
    array_room = sys.modules["systolic.array.systolic_array"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array_room, "_WORTH_A_THREAD", 0)
        patch.setattr(wavefront, "_WORTH_A_THREAD", 0)
        yield


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    _kernels._use()


def everywhere(compute: Callable[[str, int], Any]) -> Iterator[tuple[str, Any]]:
    """Compute in each mode, with the reference and each instruction set, with each number of threads."""
    for isa in ("reference", *_kernels.instruction_sets):
        _kernels._use(isa)
        for mode in MODES:
            for threads in THREADS:
                yield f"{isa}, {mode}, {threads} threads", compute(mode, threads)


@pytest.mark.slow
@examples(12)
@given(
    array_configs(max_rows=20, max_cols=70),
    around(16, 40),
    around(16, 60),
    around(32, 140),
    sign_mixes,
    seeds,
)
def test_matmul(array: ArrayConfig, m: int, k: int, n: int, types: tuple[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = codes(rng, (m, k), types[0]), codes(rng, (k, n), types[1])
    array = ArrayConfig(
        array.rows,
        array.cols,
        activation_dtype=types[0],
        weight_dtype=types[1],
        double_buffered=array.double_buffered,
        accumulator_rows=array.accumulator_rows,
        dataflow=array.dataflow,
    )
    expected, cycles = product(x, w), naive_cycles(systolic.Gemm(m, k, n), array)
    np.testing.assert_array_equal(oracle.matmul(x, w), expected)

    def compute(mode: str, threads: int) -> systolic.Result:
        return systolic.matmul(x, w, array=array, mode=mode, threads=threads)

    for where, result in everywhere(compute):
        np.testing.assert_array_equal(result.acc, expected, err_msg=where)
        assert result.cycles == cycles, where


@st.composite
def convolutions(draw: st.DrawFn):
    """Images, kernels and options: plain, grouped, depthwise, pointwise, padded, with steps."""
    rng = np.random.default_rng(draw(seeds))
    types = draw(sign_mixes)
    kind = draw(st.sampled_from(["plain", "grouped", "depthwise", "pointwise"]))
    groups = {"plain": 1, "pointwise": 1, "grouped": draw(st.integers(2, 3)), "depthwise": draw(st.integers(2, 9))}[kind]
    channels = 1 if kind == "depthwise" else draw(st.integers(1, 5))
    kernels = draw(st.integers(1, 2)) if kind == "depthwise" else draw(st.sampled_from([1, 3, 11, 12, 13, 33]))
    kernel = (1, 1) if kind == "pointwise" else (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    layout = draw(st.sampled_from(["NCHW", "NHWC"]))
    batch, ih, iw = draw(st.integers(1, 2)), draw(st.integers(5, 12)), draw(st.integers(5, 12))
    x = codes(rng, (batch, groups * channels, ih, iw), types[0])
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    w = codes(rng, (groups * kernels, channels, *kernel), types[1])
    pads = tuple((draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))) for size in kernel)
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), 1)
    zero = int(draw(st.sampled_from([*limits(types[0]), 3])))
    return x, w, {"stride": stride, "dilation": dilation, "groups": groups, "layout": layout}, pads, zero


@examples(12)
@given(convolutions())
def test_conv2d(convolution) -> None:
    x, w, options, pads, zero = convolution
    expected, _ = conv_sums(SimpleNamespace(padding=pads, **options), x, w, zero)
    array = ArrayConfig(8, 20, activation_dtype=x.dtype.name, weight_dtype=w.dtype.name)

    def compute(mode: str, threads: int) -> systolic.Result:
        return systolic.conv2d(
            x, w, padding=pads, x_zero_point=zero, array=array, mode=mode, threads=threads, **options
        )

    cycles = set()
    for where, result in everywhere(compute):
        np.testing.assert_array_equal(result.acc, expected, err_msg=where)
        cycles.add(result.cycles)
    assert len(cycles) == 1


@pytest.mark.parametrize("types", SIGN_MIXES)
def test_layers_with_requantization(types: tuple[str, str]) -> None:
    """Whole layers: patches, products and codes, with zero points of both operands."""
    rng = np.random.default_rng(SIGN_MIXES.index(types))
    scales, zeros = rng.uniform(0.001, 0.02, 14).astype(np.float32), rng.integers(0, 9, 14).astype(types[1])
    x, y = QuantParams(0.02, 5, types[0]), QuantParams(0.05, 3, "int8")
    kernels, columns = codes(rng, (14, 3, 3, 3), types[1]), codes(rng, (50, 14), types[1])
    conv = Conv2d(kernels, x=x, w=QuantParams(scales, zeros, types[1], axis=0), y=y, padding=1, groups=2)
    dense = Dense(columns, x=x, w=QuantParams(scales, zeros, types[1], axis=1), y=y)
    images, rows = codes(rng, (2, 6, 9, 11), types[0]), codes(rng, (13, 50), types[0])
    expected = expected_output(conv, [images]), expected_output(dense, [rows])
    models = (
        systolic.Model([conv], inputs={"x": ((None, 6, 9, 11), types[0])}),
        systolic.Model([dense], inputs={"x": ((None, 50), types[0])}),
    )

    def compute(mode: str, threads: int) -> list[np.ndarray]:
        runs = [
            systolic.run(model, inputs, machine=ArrayConfig(9, 33), mode=mode, threads=threads)
            for model, inputs in zip(models, (images, rows), strict=True)
        ]
        return [output for run in runs for output in run.outputs.values()]

    for where, outputs in everywhere(compute):
        for got, wanted in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=where)


# Which instruction set is used


def python(*arguments: str, isa: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SYSTOLIC_ISA"}
    environment["PYTHONPATH"] = str(Path(systolic.__file__).parents[1])
    if isa is not None:
        environment["SYSTOLIC_ISA"] = isa
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60)


def test_baseline_is_always_there_and_sets_are_in_order() -> None:
    known = ["baseline", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512popcnt", "neon"]
    assert _kernels.instruction_sets[0] == "baseline" and "reference" not in _kernels.instruction_sets
    assert [name for name in known if name in _kernels.instruction_sets] == list(_kernels.instruction_sets)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reference", *_kernels.instruction_sets])
@pytest.mark.exhaustive
def test_the_environment_chooses(name: str) -> None:
    code = """
import numpy as np, systolic
from systolic import _kernels
x, w = np.full((9, 70), -128, np.int8), np.full((70, 20), 255, np.uint8)
sums = {int(s) for mode in ("cycle", "wavefront") for s in systolic.matmul(x, w, mode=mode).acc.flat}
print(_kernels.instruction_set, _kernels._tables()[2], sums == {-128 * 255 * 70})
"""
    done = python("-c", code, isa=name)
    core, host, right = done.stdout.split()
    assert (core, right) == (name, "True"), done.stderr
    # There are fewer tables of host operators.
    assert name.startswith(host) or (name, host) in {
        ("avxvnni", "avx2"), ("neon", "baseline"), ("reference", "baseline")
    }  # fmt: skip
    shown = python("-m", "systolic", "info", "--json", isa=name)
    assert json.loads(shown.stdout)["kernel"] == name, shown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("isa", [None, ""])
def test_without_a_choice_the_best_is_used(isa: str | None) -> None:
    done = python("-c", "from systolic import _kernels; print(_kernels.instruction_set)", isa=isa)
    assert done.stdout.strip() == _kernels.instruction_sets[-1], done.stderr


@pytest.mark.parametrize("isa", ["avx1024", "AVX2", " avx2", "neon" if "neon" not in _kernels.instruction_sets else "avx2"])
def test_a_name_that_is_not_available_is_refused(isa: str) -> None:
    done = python("-c", "import systolic", isa=isa)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ImportError: ")][-1:]
    assert f"SYSTOLIC_ISA={isa} names no instruction set" in line
    assert ", ".join(_kernels.instruction_sets) in line


def test_use_refuses_other_names_and_changes_nothing() -> None:
    before = _kernels._tables()
    with pytest.raises(ValueError, match="^instruction set must be one of baseline.*, not 'avx1024'$"):
        _kernels._use("avx1024")
    assert _kernels._tables() == before
    x = np.full((1, 2, 3), 5, np.uint8)
    out = np.zeros((1, 2, 2), np.int32)
    _gemm.multiply(x, x.reshape(1, 3, 2), out)
    assert (out == 75).all()
