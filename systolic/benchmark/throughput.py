"""Wavefront mode against torch, ONNX Runtime and numpy: MACs per second."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from systolic import _gemm, engine
from systolic.benchmark.cycle import UNIT, Fold
from systolic.benchmark.timing import (
    SHORT_ROUNDS,
    Measurement,
    Section,
    Work,
    compare,
    instruction_sets,
    using,
)
from systolic.threads import thread_count

MACS = "MAC/s"
SIGNS = (("int8", "int8"), ("uint8", "int8"), ("int8", "uint8"), ("uint8", "uint8"))
THIN = tuple((m, k, n) for m in (1, 8, 49) for k in (64, 147) for n in (32, 1000))

# The block of the peak: x takes 264 KB, w 32 KB, the sums 132 KB, so that all stay in an L2 cache.
PEAK_BLOCK = (528, 512, 64)

NO_TORCH = (
    "torch is not importable, so products stand beside numpy's alone; its CPU build: "
    "pip install torch --index-url https://download.pytorch.org/whl/cpu"
)
NO_ONNXRUNTIME = (
    'ONNX Runtime or onnx is not importable, so MatMulInteger is left out: pip install "systolic[onnx]"'
)

# Seconds of a round: of what takes microseconds, and of the peak, so that its block is in cache.
_SHORT, _LONG = 1e-3, 2e-2


def operands(
    m: int, k: int, n: int, x_type: str = "int8", w_type: str = "int8"
) -> tuple[np.ndarray, np.ndarray]:
    """Return random codes (m, k) and (k, n) over the whole range of their types."""
    rng = np.random.default_rng(m + k + n)
    ends = {"int8": (-128, 128), "uint8": (0, 256)}
    x = rng.integers(*ends[x_type], (m, k), dtype=np.dtype(x_type))
    return x, rng.integers(*ends[w_type], (k, n), dtype=np.dtype(w_type))


def wavefront(x: np.ndarray, w: np.ndarray, threads: int) -> Callable[[], np.ndarray]:
    """Return ``matmul`` in wavefront mode on 256 x 256."""
    return lambda: engine.matmul(x, w, mode="wavefront", threads=threads).acc


def kernel(x: np.ndarray, w: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the package's own product with nothing around it, w packed in each call."""
    acc = np.empty((x.shape[0], w.shape[1]), dtype=np.int32)

    def work() -> np.ndarray:
        _gemm.multiply(x, w, acc)
        return acc

    return work


def peak() -> tuple[str, Work, int]:
    """Return the product that stands for the processor's int8 dot-product peak: name, work, MACs.

    It is ``_gemm.multiply``, uint8 x int8, on a block that stays in the L2 cache, packing of w and
    storing of sums included: what remains of the loop's own bound is in the comments of
    ``systolic/kernels/gemm_*.c``.
    """
    m, k, n = PEAK_BLOCK
    return f"the kernel in cache, {m} x {k} x {n}", kernel(*operands(m, k, n, "uint8")), m * k * n


def by_numpy(x: np.ndarray, w: np.ndarray) -> tuple[str, Callable[[], np.ndarray]]:
    """Return numpy's float64 product, exact below 2^53, with the conversions."""
    return "numpy float64 matmul", lambda: (x.astype(np.float64) @ w.astype(np.float64)).astype(np.int32)


@contextmanager
def torch_with(threads: int) -> Iterator[Any]:
    """Import torch, if it is there, with as many threads."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        yield None
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield torch
    finally:
        torch.set_num_threads(before)


def by_torch(torch: Any, x: np.ndarray, w: np.ndarray) -> tuple[str, Callable[[], np.ndarray]]:
    """Return ``torch._int_mm`` (oneDNN's), which takes int8 x int8 alone."""
    a, b = torch.from_numpy(x), torch.from_numpy(w)
    return "torch._int_mm int8 x int8", lambda: torch._int_mm(a, b).numpy()


def by_onnxruntime(x: np.ndarray, w: np.ndarray, threads: int) -> tuple[str, Callable[[], np.ndarray]] | None:
    """Return ONNX Runtime's MatMulInteger, w a constant; None where it or onnx is absent."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    code = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}[x.dtype.name]
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", code, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (x.shape[0], w.shape[1]))],
        [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return f"ONNX Runtime MatMulInteger {x.dtype} x {w.dtype}", lambda: session.run(None, {"x": x})[0]


def _compare_products(
    name: str, work: Callable[[], np.ndarray], macs: int,
    baseline: str, base_work: Callable[[], np.ndarray], rounds: int, same: bool = True,
) -> Measurement:  # fmt: skip
    """Compare the rates of two that compute the same, once they have shown that they do."""
    if same and not np.array_equal(work(), base_work()):
        raise RuntimeError(f"{name} differs from {baseline}; please report this")
    return compare(name, work, macs, baseline, base_work, macs, MACS, rounds, least_seconds=_SHORT)


def wavefront_section(
    rounds: int, threads: int, *, every: bool, sizes: tuple[int, ...], slow: int
) -> Section:
    """Measure square products of all signs beside torch, numpy, ONNX Runtime and the peak.

    Parameters
    ----------
    every : bool
        Also on each other instruction set.
    sizes : tuple of int
        M = K = N.
    slow : int
        The largest size that ONNX Runtime is given.
    """
    measured: list[Measurement] = []
    notes = [
        "torch and ONNX Runtime use as many threads, numpy those that its BLAS takes "
        "(OPENBLAS_NUM_THREADS); torch has no other signs than int8 x int8, so all stand beside these",
        f"{peak()[0]} stands for the dot-product peak: uint8 x int8, w packed and sums stored each time",
    ]
    with torch_with(threads) as torch:
        notes.append(NO_TORCH if torch is None else f"torch {torch.__version__}")
        for size in sizes:
            macs = size**3
            x, w = operands(size, size, size)
            beside = by_numpy(x, w) if torch is None else by_torch(torch, x, w)
            for x_type, w_type in SIGNS:
                codes = operands(size, size, size, x_type, w_type)
                name = f"{size} x {size} x {size}, {x_type} x {w_type}"
                same = (x_type, w_type) == ("int8", "int8")
                work = wavefront(*codes, threads)
                measured.append(_compare_products(name, work, macs, *beside, rounds, same))
            name, work = f"{size} x {size} x {size}, int8 x int8", wavefront(x, w, threads)
            others = [by_numpy(x, w)] if torch is not None else []
            runtime = by_onnxruntime(x, w, threads) if size <= slow else None
            if runtime is not None:
                others.append(runtime)
            measured += [_compare_products(name, work, macs, *other, rounds) for other in others]
            if threads == 1:
                block, in_cache, block_macs = peak()
                row = compare(
                    name, work, macs, block, in_cache, block_macs, MACS, rounds, least_seconds=_LONG
                )
                measured.append(row)
        size = sizes[0]
        x, w = operands(size, size, size)
        beside = by_numpy(x, w) if torch is None else by_torch(torch, x, w)
        for isa in instruction_sets(every)[1:]:
            with using(isa):
                name = f"{size} x {size} x {size}, int8 x int8, {isa}"
                work = wavefront(x, w, threads)
                measured.append(_compare_products(name, work, size**3, *beside, rounds))
    if by_onnxruntime(*operands(1, 1, 1), 1) is None:
        notes.append(NO_ONNXRUNTIME)
    return Section(f"Wavefront mode, {_threads(threads)}", tuple(measured), tuple(notes))


def thin_section(rounds: int, *, shapes: tuple[tuple[int, int, int], ...] = THIN) -> Section:
    """Measure small and thin products, by the kernel alone and by matmul, one thread."""
    measured = []
    with torch_with(1) as torch:
        for m, k, n in shapes:
            x, w = operands(m, k, n)
            beside = by_numpy(x, w) if torch is None else by_torch(torch, x, w)
            for name, work in (("the kernel", kernel(x, w)), ("matmul, wavefront", wavefront(x, w, 1))):
                what = f"{m} x {k} x {n}, {name}"
                row = _compare_products(what, work, m * k * n, *beside, SHORT_ROUNDS * rounds)
                measured.append(row)
    notes = ["the kernel is _gemm.multiply, which packs w in each call; matmul also checks and counts"]
    return Section(
        "Small and thin products, int8 x int8, one thread", tuple(measured),
        tuple(notes if torch is not None else [*notes, NO_TORCH]),
    )  # fmt: skip


def threads_section(rounds: int, *, m: int = 2048, size: int = 2048, array: int = 256) -> Section:
    """Measure two threads beside one, in both modes."""
    fold = Fold(array, array, m)
    x, w = operands(size, size, size)
    measured = (
        compare(
            f"one fold, {fold.name}, two threads", fold.run(2), fold.pe_cycles,
            "one thread", fold.run(1), fold.pe_cycles, UNIT, SHORT_ROUNDS * rounds,
        ),
        compare(
            f"one fold, {fold.name}, the kernel, two threads", fold.kernel(2), fold.pe_cycles,
            "one thread", fold.kernel(1), fold.pe_cycles, UNIT, SHORT_ROUNDS * rounds,
        ),
        compare(
            f"{size} x {size} x {size}, wavefront, two threads", wavefront(x, w, 2), size**3,
            "one thread", wavefront(x, w, 1), size**3, MACS, rounds,
        ),
    )  # fmt: skip
    notes = ["the kernel clocks what stands on the ports; a fold is queued, laid out and collected besides"]
    if thread_count() == 1:
        notes.append("this process may use one core, so two threads gain nothing")
    return Section("Two threads beside one", measured, tuple(notes))


def _threads(threads: int) -> str:
    return "one thread" if threads == 1 else f"{threads} threads"
