"""The rows of ``systolic bench``: what is timed beside what, section by section."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from systolic import _check, _core, _gemm, _kernels, engine, tiling
from systolic.array import SystolicArray
from systolic.array.skew import port_window, skewed
from systolic.array.workspace import Workspace
from systolic.benchmark.stepping import FloatStepping, NumpyStepping, OutputStepping
from systolic.benchmark.timing import (
    SHORT_ROUNDS,
    Measurement,
    Section,
    Work,
    added_seconds,
    compare,
    instruction_sets,
    using,
)
from systolic.config import ArrayConfig
from systolic.formats import dtype_of
from systolic.gemm import Gemm, Progress
from systolic.machine.port_values import ports
from systolic.threads import thread_count

Product = Callable[[], np.ndarray]
Task = tuple[str, Work, float]
"""A name, what one call runs, and how many units it does."""

EXTENTS = ("quick", "usual", "full")
PE_CYCLES, MACS = "PE-cycles/s", "MAC/s"
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


# Cycle mode


class Fold:
    """One fold of m rows of x on an array of its size: what cycle mode and the yardstick do of it."""

    def __init__(self, rows: int, cols: int, m: int) -> None:
        rng = np.random.default_rng(0)
        self.config = ArrayConfig(rows, cols, accumulator_rows=None)
        self.x = rng.integers(-128, 128, (m, rows), dtype=np.int8)
        self.w = rng.integers(-128, 128, (rows, cols), dtype=np.int8)
        self.name = f"m = {m}, {rows} x {cols}"
        self.cycles = self.run(1)().cycle
        self.pe_cycles = rows * cols * self.cycles
        self.stepping: Task = ("numpy stepping", NumpyStepping(self.x, self.w).run, rows * cols * m)

    def run(self, threads: int) -> Callable[[], SystolicArray]:
        """Return what runs the fold from reset to its last psum."""
        return lambda: SystolicArray(self.config).fold(x=self.x, w=self.w).run(threads=threads)

    def kernel(self, threads: int) -> Product:
        """Return what clocks the fold's cycles with its values on the ports: the kernel alone.

        It returns what left the bottom PEs, as rows of x; registers go on from where they are.
        """
        rows, cols = self.config.rows, self.config.cols
        state = SystolicArray(self.config).fold(x=self.x, w=self.w).state()
        assert state.queues is not None  # an array fills it in
        window = port_window(state.queues, self.config, 0, self.cycles, Workspace())
        arrays = {name: values.copy() for name, values in state.registers.items()}
        clock = self.config.dataflow_record.kernels[self.config.format.kernel]
        below = np.zeros((self.cycles + cols - 1, cols), dtype=np.int32)
        # The first row of x is swapped in at local time `rows` and leaves rows - 1 cycles later.
        first = cols - 1 + 2 * rows - 1

        def work() -> np.ndarray:
            clock(arrays, window, skewed(below, self.cycles, cols), threads, self.config.format)
            return below[first : first + len(self.x)]

        return work

    def rows(self, rounds: int, threads: int, end: str) -> list[Measurement]:
        """Measure the fold, and as large an array under random control bits, beside numpy stepping."""
        cycles, size = 256, self.config.rows * self.config.cols
        name = f"random control bits, {cycles} cycles, {self.config.rows} x {self.config.cols}"
        tasks: list[Task] = [
            (f"one fold, {self.name}", self.run(threads), self.pe_cycles),
            (name, random_control(self.config, cycles), size * cycles),
        ]
        return [
            compare(name + end, work, amount, *self.stepping, PE_CYCLES, rounds)
            for name, work, amount in tasks
        ]


def output_fold(rows: int, cols: int, k: int, threads: int = 1) -> tuple[Task, Task]:
    """Return one fold of an output-stationary array, over k, and its yardstick."""
    rng = np.random.default_rng(0)
    config = ArrayConfig(rows, cols, dataflow="output_stationary")
    x = rng.integers(-128, 128, (rows, k), dtype=np.int8)
    w = rng.integers(-128, 128, (k, cols), dtype=np.int8)

    def work() -> SystolicArray:
        return SystolicArray(config).fold(x=x, w=w).run(threads=threads)

    pes = rows * cols
    name = f"one fold, k = {k}, {rows} x {cols}, output stationary"
    return (name, work, pes * work().cycle), ("numpy stepping", OutputStepping(x, w).run, pes * k)


def random_control(config: ArrayConfig, cycles: int) -> Work:
    """Return what clocks an array with random values on every port, half of all control bits set."""
    rng = np.random.default_rng(0)
    values = {}
    for port in config.dataflow_record.ports:
        dtype = config.port_dtypes[port.name]
        size = (cycles, config.rows if port.side == "west" else config.cols)
        values[port.name] = rng.random(size) < 0.5 if dtype.kind == "b" else rng.integers(
            np.iinfo(dtype).min, np.iinfo(dtype).max, size, dtype=dtype, endpoint=True
        )  # fmt: skip
    array = SystolicArray(config)
    return lambda: array.clock(threads=1, **values)


def add_int32(rows: int, cols: int) -> Task:
    """Return numpy.add of int32 over the array, the last step of the yardstick."""
    p, q = np.ones((2, rows, cols), dtype=np.int32)

    def work() -> None:
        for _ in range(200):
            np.add(p, q, out=q)

    return "numpy.add of int32, elements", work, 200 * p.size


def cycle_section(rounds: int, every: bool, *, size: int = 256, m: int = 2048) -> Section:
    """Measure one fold, random control bits and an output-stationary fold on each instruction set.

    All are beside numpy stepping of such an array.
    """
    fold, (held, yardstick) = Fold(size, size, m), output_fold(size, size, m)
    name, work, amount = held
    measured = [compare(*fold.stepping, *add_int32(size, size), PE_CYCLES, rounds)]
    for isa in instruction_sets(every):
        with using(isa):
            measured += fold.rows(rounds, 1, f", {isa}")
            measured.append(compare(f"{name}, {isa}", work, amount, *yardstick, PE_CYCLES, rounds))
    note = (
        "numpy stepping slides activations, of an output-stationary array weights too, multiplies and adds; "
        "nothing is shifted, swapped or drained. "
        f"{_kernels.instruction_set} is in use."
    )
    return Section("Cycle mode, one thread", tuple(measured), (note,))


def float_fold(
    rows: int, cols: int, m: int, dataflow: str, dtype: Any = np.float16, threads: int = 1
) -> tuple[Task, Task]:
    """Return one fold of floats, over m if output stationary, and its yardstick."""
    rng = np.random.default_rng(0)
    types = dict.fromkeys(("activation_dtype", "weight_dtype"), np.dtype(dtype).name)
    config = ArrayConfig(rows, cols, dataflow=dataflow, accumulator_rows=None, **types)
    held = config.dataflow_record.held
    x = rng.standard_normal((rows, m) if held else (m, rows)).astype(dtype)
    w = rng.standard_normal((m, cols) if held else (rows, cols)).astype(dtype)

    def work() -> SystolicArray:
        return SystolicArray(config).fold(x=x, w=w).run(threads=threads)

    pes = rows * cols
    name = f"one fold, {'k' if held else 'm'} = {m}, {rows} x {cols}, {dataflow.replace('_', ' ')}"
    yardstick = FloatStepping(x.T if held else x, np.ones((rows, cols)))
    return (name, work, pes * work().cycle), ("numpy stepping of float32", yardstick.run, pes * m)


def float_cycle_section(rounds: int, every: bool, *, size: int = 256, m: int = 2048) -> Section:
    """Measure folds of float16 on each instruction set that has fused multiply-adds."""
    measured = []
    for isa in instruction_sets(every):
        with using(isa):
            if isa == "baseline":  # calls a function for each addition
                continue
            for dataflow in ("weight_stationary", "output_stationary"):
                (name, work, amount), yardstick = float_fold(size, size, m, dataflow)
                measured.append(compare(f"{name}, {isa}", work, amount, *yardstick, PE_CYCLES, rounds))
    note = "numpy stepping slides activations, multiplies and adds; nothing is shifted, swapped or drained"
    return Section("Cycle mode of float16, one thread", tuple(measured), (note,))


def bench(
    *, rows: int = 256, cols: int = 256, m: int = 2048, rounds: int = 7, threads: int = 1
) -> list[Measurement]:
    """Measure cycle mode beside numpy stepping, and both modes of matmul beside numpy's matmul.

    Parameters
    ----------
    rows, cols : int
        Size of the array.
    m : int
        Rows of x; k of the output-stationary fold.
    rounds : int
        Pairs of runs; medians are returned.
    threads : int
        Threads of systolic; numpy's own are not limited.
    """
    for name, value in (("rows", rows), ("cols", cols), ("m", m), ("rounds", rounds), ("threads", threads)):
        _check.integer(value, name, minimum=1)
    fold = Fold(rows, cols, m)
    first, second = fold.rows(rounds, threads, "")
    held, yardstick = output_fold(rows, cols, m, threads)
    measured = [replace(first, name=f"{first.name}, cycle mode"), second]
    measured.append(compare(*held, *yardstick, PE_CYCLES, rounds))
    macs = m * rows * cols
    beside = "numpy float64 matmul", lambda: fold.x.astype(np.float64) @ fold.w.astype(np.float64), macs
    for mode in ("cycle", "wavefront"):
        work = partial(engine.matmul, fold.x, fold.w, array=fold.config, mode=mode, threads=threads)
        name = f"matmul {m} x {rows} x {cols}, {mode} mode"
        measured.append(compare(name, work, macs, *beside, MACS, rounds))
    return measured


# Products


def operands(
    m: int, k: int, n: int, x_type: str = "int8", w_type: str = "int8"
) -> tuple[np.ndarray, np.ndarray]:
    """Return random codes (m, k) and (k, n) over the whole range of their types."""
    rng = np.random.default_rng(m + k + n)
    ends = {"int8": (-128, 128), "uint8": (0, 256)}
    x = rng.integers(*ends[x_type], (m, k), dtype=np.dtype(x_type))
    return x, rng.integers(*ends[w_type], (k, n), dtype=np.dtype(w_type))


def wavefront(x: np.ndarray, w: np.ndarray, threads: int) -> Product:
    """Return ``matmul`` in wavefront mode on 256 x 256."""
    return lambda: engine.matmul(x, w, mode="wavefront", threads=threads).acc


def kernel(x: np.ndarray, w: np.ndarray) -> Product:
    """Return the package's own product with nothing around it, w packed in each call."""
    acc = np.empty((x.shape[0], w.shape[1]), dtype=np.int32)

    def work() -> np.ndarray:
        _gemm.multiply(x, w, acc)
        return acc

    return work


def peak() -> Task:
    """Return the product that stands for the processor's int8 dot-product peak.

    It is ``_gemm.multiply``, uint8 x int8, on a block that stays in the L2 cache, packing of w and
    storing of sums included: what remains of the loop's own bound is in the comments of
    ``systolic/kernels/gemm_*.c``.
    """
    m, k, n = PEAK_BLOCK
    return f"the kernel in cache, {m} x {k} x {n}", kernel(*operands(m, k, n, "uint8")), m * k * n


def by_numpy(x: np.ndarray, w: np.ndarray) -> tuple[str, Product]:
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


def by_torch(torch: Any, x: np.ndarray, w: np.ndarray) -> tuple[str, Product]:
    """Return ``torch._int_mm`` (oneDNN's), which takes int8 x int8 alone; numpy's product without torch."""
    if torch is None:
        return by_numpy(x, w)
    a, b = torch.from_numpy(x), torch.from_numpy(w)
    return "torch._int_mm int8 x int8", lambda: torch._int_mm(a, b).numpy()


def by_onnxruntime(x: np.ndarray, w: np.ndarray, threads: int) -> tuple[str, Product] | None:
    """Return ONNX Runtime's MatMulInteger, w a constant; None where it or onnx is absent."""
    try:
        import onnxruntime
        from onnx import helper, numpy_helper
    except ImportError:
        return None

    def value(name: str, dtype: Any, shape: tuple[int, int]) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "product",
        [value("x", x.dtype, x.shape)], [value("y", np.int32, (len(x), w.shape[1]))],
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
    name: str, work: Product, macs: int, baseline: str, base_work: Product, rounds: int, same: bool = True
) -> Measurement:
    """Compare the rates of two that compute the same, once they have shown that they do."""
    if same and not np.array_equal(work(), base_work()):
        raise RuntimeError(f"{name} differs from {baseline}; please report this")
    return compare(name, work, macs, baseline, base_work, macs, MACS, rounds, least_seconds=_SHORT)


def wavefront_section(
    rounds: int, threads: int, *, every: bool, sizes: tuple[int, ...], slow: int
) -> Section:
    """Measure square products of all signs beside torch, numpy, ONNX Runtime and the peak.

    `every` adds the other instruction sets; `slow` is the largest size that ONNX Runtime is given.
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
            name, macs = f"{size} x {size} x {size}", size**3
            x, w = operands(size, size, size)
            beside = by_torch(torch, x, w)
            for types in SIGNS:
                work = wavefront(*operands(size, size, size, *types), threads)
                same = types == ("int8", "int8")
                what = f"{name}, {' x '.join(types)}"
                measured.append(_compare_products(what, work, macs, *beside, rounds, same))
            name, work = f"{name}, int8 x int8", wavefront(x, w, threads)
            others = [by_numpy(x, w) if torch is not None else None]
            others.append(by_onnxruntime(x, w, threads) if size <= slow else None)
            measured += [_compare_products(name, work, macs, *other, rounds) for other in others if other]
            if threads == 1:
                measured.append(compare(name, work, macs, *peak(), MACS, rounds, least_seconds=_LONG))
        size = sizes[0]
        x, w = operands(size, size, size)
        beside, work = by_torch(torch, x, w), wavefront(x, w, threads)
        for isa in instruction_sets(every)[1:]:
            with using(isa):
                name = f"{size} x {size} x {size}, int8 x int8, {isa}"
                measured.append(_compare_products(name, work, size**3, *beside, rounds))
    if by_onnxruntime(*operands(1, 1, 1), 1) is None:
        notes.append(NO_ONNXRUNTIME)
    used = "one thread" if threads == 1 else f"{threads} threads"
    return Section(f"Wavefront mode, {used}", tuple(measured), tuple(notes))


def float_operands(m: int, k: int, n: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return normal random numbers (m, k) and (k, n)."""
    rng = np.random.default_rng(m + k + n)
    x, w = (rng.standard_normal(shape).astype(dtype_of(dtype)) for shape in ((m, k), (k, n)))
    return x, w


def by_float32(torch: Any, x: np.ndarray, w: np.ndarray) -> tuple[str, Product]:
    """Return torch's float32 product of the same numbers, converted before; numpy's without torch."""
    x, w = x.astype(np.float32), w.astype(np.float32)
    if torch is None:
        return "numpy float32 matmul", lambda: x @ w
    a, b = torch.from_numpy(x), torch.from_numpy(w)
    return "torch float32 matmul", lambda: torch.matmul(a, b).numpy()


def float_section(rounds: int, *, sizes: tuple[int, ...]) -> Section:
    """Measure square products of float formats beside torch's float32 matmul, one thread."""
    notes = [
        "each sum is added in the array's order, in tiles of 256 along k; its operands are converted in each "
        "call, those beside it before"
    ]
    formats: tuple[str, ...] = ("bfloat16", "float16", "float8_e4m3fn")
    if importlib.util.find_spec("ml_dtypes") is None:
        formats = ("float16",)
        notes.append('ml_dtypes is not importable, so float16 stands alone: pip install "systolic[formats]"')
    measured = []
    with torch_with(1) as torch:
        notes.append(NO_TORCH if torch is None else f"torch {torch.__version__}")
        for size in sizes:
            for dtype in formats:
                x, w = float_operands(size, size, size, dtype)
                name, macs = f"{size} x {size} x {size}, {dtype}", size**3
                ours, (baseline, theirs) = wavefront(x, w, 1), by_float32(torch, x, w)
                measured.append(
                    compare(name, ours, macs, baseline, theirs, macs, MACS, rounds, least_seconds=_SHORT)
                )
    return Section("Wavefront mode of float formats, one thread", tuple(measured), tuple(notes))


def thin_section(rounds: int, *, shapes: tuple[tuple[int, int, int], ...] = THIN) -> Section:
    """Measure small and thin products, by the kernel alone and by matmul, one thread."""
    measured = []
    notes = ["the kernel is _gemm.multiply, which packs w in each call; matmul also checks and counts"]
    with torch_with(1) as torch:
        for m, k, n in shapes:
            x, w = operands(m, k, n)
            beside = by_torch(torch, x, w)
            for name, work in (("the kernel", kernel(x, w)), ("matmul, wavefront", wavefront(x, w, 1))):
                what = f"{m} x {k} x {n}, {name}"
                row = _compare_products(what, work, m * k * n, *beside, SHORT_ROUNDS * rounds)
                measured.append(row)
        notes += [NO_TORCH] if torch is None else []
    return Section("Small and thin products, int8 x int8, one thread", tuple(measured), tuple(notes))


def threads_section(rounds: int, *, m: int = 2048, size: int = 2048, array: int = 256) -> Section:
    """Measure two threads beside one, in both modes."""
    fold = Fold(array, array, m)
    short, product = SHORT_ROUNDS * rounds, partial(wavefront, *operands(size, size, size))
    rows: list[tuple[str, Callable[[int], Work], float, str, int]] = [
        (f"one fold, {fold.name}", fold.run, fold.pe_cycles, PE_CYCLES, short),
        (f"one fold, {fold.name}, the kernel", fold.kernel, fold.pe_cycles, PE_CYCLES, short),
        (f"{size} x {size} x {size}, wavefront", product, size**3, MACS, rounds),
    ]
    measured = [
        compare(f"{name}, two threads", make(2), amount, "one thread", make(1), amount, unit, count)
        for name, make, amount, unit, count in rows
    ]
    notes = ["the kernel clocks what stands on the ports; a fold is queued, laid out and collected besides"]
    if thread_count() == 1:
        notes.append("this process may use one core, so two threads gain nothing")
    return Section("Two threads beside one", tuple(measured), tuple(notes))


# Calls


def calls_section(rounds: int, *, estimates: int = 100_000) -> Section:
    """Measure what calls cost: an 8 x 8 x 8 product, estimates, the import."""
    size, config = 8, ArrayConfig(8, 8)
    x, w = operands(size, size, size)
    sizes = f"{size} x {size} x {size}"
    direct: Task = ("_core.run on prepared buffers", direct_run(x, w, config), 1)
    wide = partial(np.matmul, x.astype(np.int32), w.astype(np.int32))
    by_numpy: Task = (f"numpy.matmul int32, {size} x {size}", wide, 1)
    calls = {mode: partial(engine.matmul, x, w, array=config, mode=mode) for mode in ("cycle", "wavefront")}
    measured = [
        compare(
            f"matmul {sizes} on {size} x {size}, {mode}", calls[mode], 1, *beside, "calls/s",
            SHORT_ROUNDS * rounds, least_seconds=_SHORT,
        )
        for mode, beside in (("cycle", direct), ("cycle", by_numpy), ("wavefront", by_numpy))
    ]  # fmt: skip
    measured.append(_estimates(rounds, estimates))
    microseconds = 1e6 * added_seconds(calls["cycle"], direct[1], SHORT_ROUNDS * rounds)
    own, numpy_alone = _import_seconds(rounds)
    notes = (
        f"matmul {sizes} takes {microseconds:.1f} µs more than _core.run "
        "on the same cycles with prepared buffers",
        f"python -c 'import systolic' takes {own:.3f} s, python -c 'import numpy' {numpy_alone:.3f} s",
    )
    return Section("Calls", tuple(measured), notes)


def direct_run(x: np.ndarray, w: np.ndarray, config: ArrayConfig) -> Product:
    """Return a function that clocks a product of one fold through the kernel, all buffers made before.

    It returns what left the bottom PEs after each edge, (cycles, cols) int32. Registers are not
    reset between calls: a second one clocks on from where the first ended.
    """
    # The last one is of the write that follows the last counted edge.
    values = list(ports(x, w, array=config))[:-1]

    def raw(array: np.ndarray) -> np.ndarray:
        return array.view(np.uint8) if array.itemsize == 1 else array

    size = config.rows, config.cols
    registers = [raw(np.zeros(size, dtype)) for dtype in config.register_dtypes.values()]
    driven = [raw(np.ascontiguousarray([each.ports[name] for each in values])) for name in config.port_dtypes]
    bottom = np.empty((len(values), config.cols), dtype=np.int32)
    arguments: list[Any] = [*registers, *driven, bottom]
    x_signed, w_signed = x.dtype == np.int8, w.dtype == np.int8

    def work() -> np.ndarray:
        _core.run(*arguments, activation_signed=x_signed, weight_signed=w_signed)
        return bottom

    return work


def _estimates(rounds: int, count: int) -> Measurement:
    rng = np.random.default_rng(0)
    gemms = rng.integers(1, 4096, (3, count))
    arrays = 2 ** rng.integers(3, 10, (2, count))
    few = min(count, 500)
    each = [
        (Gemm(*gemm), ArrayConfig(*array))
        for gemm, array in zip(gemms[:, :few].T.tolist(), arrays[:, :few].T.tolist(), strict=True)
    ]

    def one_by_one() -> list[int]:
        return [engine.estimate(gemm, machine=array).cycles for gemm, array in each]

    at_once = partial(tiling.estimate_cycles, *gemms, rows=arrays[0], cols=arrays[1])
    name = f"estimate_cycles, {count:,} at once"
    return compare(name, at_once, count, "estimate, one by one", one_by_one, few, "estimates/s", rounds)


def _import_seconds(rounds: int) -> tuple[float, float]:
    """Return medians of the seconds that an interpreter takes to import systolic, and numpy alone.

    With bytecode at hand, as an installed package has it.
    """
    import subprocess
    import tempfile

    times: dict[str, list[float]] = {"systolic": [], "numpy": []}
    with tempfile.TemporaryDirectory() as folder:
        variables = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for number in range(rounds + 1):
            for name, taken in times.items():
                started = time.perf_counter()
                # Elsewhere: this folder may be a checkout whose sources are not built.
                command = [sys.executable, "-c", f"import {name}"]
                subprocess.run(command, check=True, env=variables, cwd=folder)
                if number:  # the first one writes it
                    taken.append(time.perf_counter() - started)
    return median(times["systolic"]), median(times["numpy"])


# All


def suite(
    *, rounds: int = 7, threads: int = 1, extent: str = "usual", report: Progress | None = None
) -> list[Section]:
    """Measure everything that the documentation states, section by section.

    Parameters
    ----------
    rounds : int
        Pairs of runs of each row; medians are returned.
    threads : int
        Of whole products in wavefront mode and what they are compared with.
    extent : {"quick", "usual", "full"}
        Quick leaves out products of 2048, the other instruction sets and two threads; full gives
        the largest product to ONNX Runtime too, which takes a second a time.
    report : callable, optional
        Called as report(done, total) with sections.
    """
    _check.integer(rounds, "rounds", minimum=1)
    _check.integer(threads, "threads", minimum=1)
    _check.choice(extent, "extent", EXTENTS)
    every = extent != "quick"
    sizes, slow = (1024, 2048) if every else (1024,), 2048 if extent == "full" else 1024
    steps: list[Callable[[], Section]] = [
        partial(cycle_section, rounds, every),
        partial(float_cycle_section, rounds, every),
        partial(wavefront_section, rounds, threads, every=every, sizes=sizes, slow=slow),
        *([partial(threads_section, rounds)] if every else []),
        partial(float_section, rounds, sizes=sizes),
        partial(thin_section, rounds),
        partial(calls_section, rounds),
    ]
    sections = []
    for done, step in enumerate(steps):
        if report is not None:
            report(done, len(steps))
        sections.append(step())
    if report is not None:
        report(len(steps), len(steps))
    return sections
