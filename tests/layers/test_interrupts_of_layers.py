"""Ctrl-C within a layer on large tensors: honored within a moment, not when the layer is done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import layers
from systolic.layers.host import _parts

if not hasattr(signal, "setitimer"):
    pytest.skip("needs an interval timer", allow_module_level=True)

F = np.float32


def longest_wait(call: Callable[[], Any]) -> tuple[float, float]:
    """Run to the end and return the longest time that a signal has to wait, and the whole, of the processor.

    A timer fires twice a millisecond; handlers run when Python is back, so that the longest time
    between two of them is what Ctrl-C would wait. Processor time, for others use the machine too.
    """
    times: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        times.append(time.process_time())

    before = signal.signal(signal.SIGALRM, note)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        times.append(time.process_time())
        call()
        times.append(time.process_time())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return float(np.diff(times).max()), times[-1] - times[0]


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, F)


# Seconds of processor time; a tenth on an idle machine, several times that where the cores are shared.
MOST = 0.5

SIDE = 3000  # 9 million elements: the layers below take 0.03 to 2 s

CASES: dict[str, tuple[Any, Callable[[], list[np.ndarray]]]] = {
    "ArgMax": (layers.ArgMax(0), lambda: [ones(SIDE, SIDE)]),
    "AveragePool": (layers.AveragePool((3, 3)), lambda: [ones(8, 16, 256, 256)]),
    "BatchNormalization": (layers.BatchNormalization(), lambda: [ones(8, 16, 256, 256), *[ones(16)] * 4]),
    "Binary": (layers.Binary("Pow"), lambda: [ones(SIDE, SIDE), ones(SIDE, 1)]),
    "Cast": (layers.Cast("float16"), lambda: [ones(SIDE, SIDE)]),
    "Clip": (layers.Clip(0, 1), lambda: [ones(SIDE, SIDE)]),
    "Concat": (layers.Concat(1), lambda: [ones(SIDE, SIDE), ones(SIDE, SIDE)]),
    "DynamicQuantize": (layers.DynamicQuantize(), lambda: [ones(SIDE, SIDE)]),
    "Expand": (layers.Expand(), lambda: [ones(SIDE, 1), np.array([SIDE, 2 * SIDE])]),
    "FloatConv": (layers.FloatConv(padding=1), lambda: [ones(1, 64, 128, 128), ones(64, 64, 3, 3)]),
    "FloatMatMul": (layers.FloatMatMul(), lambda: [ones(2048, 2048), ones(2048, 2048)]),
    "FloatMatMul of a stack": (layers.FloatMatMul(), lambda: [ones(64, 512, 512), ones(512, 512)]),
    "FloatMatMul of integers": (layers.FloatMatMul(), lambda: [np.ones((512, 512), np.int64), np.ones((512, 512), np.int64)]),
    "Gather": (layers.Gather(1), lambda: [ones(SIDE, SIDE), np.arange(SIDE)[::-1]]),
    "GlobalAveragePool": (layers.GlobalAveragePool(), lambda: [ones(8, 16, 256, 256)]),
    "LayerNormalization": (layers.LayerNormalization(), lambda: [ones(SIDE, SIDE), ones(SIDE)]),
    "MaxPool": (layers.MaxPool((3, 3)), lambda: [ones(8, 16, 256, 256)]),
    "Pad": (layers.Pad("reflect"), lambda: [ones(SIDE, SIDE), np.array([2, 2, 2, 2])]),
    "Reduce": (layers.Reduce("ReduceMean", (0,)), lambda: [ones(SIDE, SIDE)]),
    "Reshape": (layers.Reshape((-1,)), lambda: [ones(SIDE, SIDE).T]),
    "Resize": (layers.Resize(), lambda: [ones(1, 16, 256, 256), F([1, 1, 3, 3])]),
    "Softmax": (layers.Softmax(), lambda: [ones(SIDE, SIDE)]),
    "Transpose": (layers.Transpose(), lambda: [ones(SIDE, SIDE)]),
    "Unary": (layers.Unary("Erf"), lambda: [ones(SIDE, SIDE)]),
    "Where": (layers.Where(), lambda: [np.ones((SIDE, SIDE), bool), ones(SIDE, 1), ones(SIDE)]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.exhaustive
def test_layers_are_interruptible(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert threading.current_thread() is threading.main_thread()
    layer, inputs = CASES[name]
    arrays = inputs()
    longest, _ = min(longest_wait(lambda: layer.apply(*arrays)) for _ in range(2))
    assert longest < MOST, f"a signal waited {longest:.2f} s of processor time"
    # With parts an eighth as large, no step is most of the work. Again where another process got in the way.
    monkeypatch.setattr(_parts, "PART", _parts.PART >> 3)
    monkeypatch.setattr(_parts, "MOVED", _parts.MOVED >> 4)
    shares = []
    for _ in range(6):
        longest, total = longest_wait(lambda: layer.apply(*arrays))
        shares.append(longest / total)
        if shares[-1] < 0.6:
            return
    pytest.fail(f"a signal waited {min(shares):.0%} of the time or more")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_parts_give_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors cut into parts of a few elements, against the same in one part."""
    rng = np.random.default_rng(0)
    layer, inputs = CASES[name]

    def small(array: np.ndarray) -> np.ndarray:
        if (array.dtype.kind in "iu" and array.ndim == 1 and array.size < 5) or array.shape == (4,):
            return array if name in ("Pad", "Resize") else np.array([7, 11])
        shape = [min(size, (7, 5, 11, 12)[axis] if array.ndim > 2 else 7) for axis, size in enumerate(array.shape)]
        if array.dtype == bool:
            return rng.random(shape) < 0.5
        if name == "Gather" and array.ndim == 1:
            return rng.integers(-7, 7, 9)
        values = rng.integers(1, 9, shape).astype(array.dtype)
        return values.T.copy().T if array.flags.f_contiguous and array.ndim > 1 else values

    arrays = [small(array) for array in inputs()]
    if name == "BatchNormalization":
        arrays = [arrays[0], *(array[: arrays[0].shape[1]] for array in arrays[1:])]
    if name == "FloatConv":
        arrays = [rng.normal(size=(2, 3, 9, 8)).astype(F), rng.normal(size=(4, 3, 3, 3)).astype(F)]
    if name == "FloatMatMul of a stack":
        arrays = [arrays[0], rng.integers(1, 9, (arrays[0].shape[-1], 6)).astype(F)]
    whole = layer.apply(*arrays)
    for size in (1, 7, 40):
        for name_of in ("PART", "MOVED"):
            monkeypatch.setattr(_parts, name_of, size)
        monkeypatch.setattr("systolic.layers.host.matmul._MACS", 32 * size)
        monkeypatch.setattr("systolic.layers.host.matmul._ROWS", 2)
        cut = layer.apply(*arrays)
        for a, b in zip(*(each if isinstance(each, tuple) else (each,) for each in (whole, cut)), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
            assert b.flags.c_contiguous


@pytest.mark.slow
@pytest.mark.exhaustive
def test_wide_arrays_are_interruptible() -> None:
    """What is below them, psums that have left some columns, takes cols * cols numbers."""
    x, w = np.ones((300, 1), np.int8), np.ones((1, 12288), np.int8)
    array = systolic.ArrayConfig(1, 12288)
    longest, _ = longest_wait(lambda: systolic.matmul(x, w, array=array, threads=1))
    assert longest < 2 * MOST, f"a signal waited {longest:.2f} s of processor time"


@pytest.mark.slow
@pytest.mark.parametrize("constants", [None, (), (1,)])  # here, or in ONNX Runtime
def test_a_run_ends_with_keyboardinterrupt(constants: tuple[int, ...] | None) -> None:
    layer = layers.FloatMatMul(runtime_constants=constants)
    model = systolic.Model([systolic.Node(layer, ("x", "x"), "y")], inputs={"x": ((None, None), "float32")})  # fmt: skip

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    x = ones(4000, 4000)  # 64 GMACs: two seconds or more
    started = time.process_time()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            systolic.run(model, x, mode="wavefront")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - started < 1.5
