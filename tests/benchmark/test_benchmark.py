"""The benchmarks' arithmetic, and that what is compared computes the same; no times are asserted."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import systolic
from support.oracle_cases import exact_u8s8
from systolic import ArrayConfig, QuantParams, SystolicArray, _gemm, _kernels, benchmark, cli, matmul
from systolic.benchmark import sections as parts
from systolic.benchmark import timing
from systolic.reference import OutputStationaryArray, ReferenceArray

ROOT = Path(__file__).resolve().parents[2]
ONE = QuantParams(1.0)


@pytest.mark.parametrize("rows, cols, m", ((1, 1, 1), (2, 3, 1), (3, 2, 4), (5, 7, 12)))
def test_numpy_stepping_steps_the_array(rows: int, cols: int, m: int) -> None:
    """It computes the psums that the array has, by its own ports' values as they are, weights standing still."""
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (m, rows), dtype=np.int8)
    w = rng.integers(-128, 128, (rows, cols), dtype=np.int8)
    stepping = benchmark.NumpyStepping(x, w)
    stepping.run()
    reference = ReferenceArray(rows, cols, {"weight": w.tolist()})
    state = SystolicArray(ArrayConfig(rows, cols)).state()
    array = SystolicArray(ArrayConfig(rows, cols)).restore(
        type(state)(**{**dict(state.registers), "weight": w})
    )
    for row in x:
        reference.step(activation=row.tolist())
        array.step(activation=row)
    for ours in (reference.registers(), array.registers):
        np.testing.assert_array_equal(stepping.p, ours["psum"])
        np.testing.assert_array_equal(stepping.a16, ours["activation"])
    # A second run goes on from there.
    stepping.run()
    for row in x:
        reference.step(activation=row.tolist())
    np.testing.assert_array_equal(stepping.p, reference.psum)


@pytest.mark.parametrize("rows, cols, k", ((1, 1, 1), (2, 3, 1), (3, 2, 4), (5, 7, 12)))
def test_output_stepping_steps_the_array(rows: int, cols: int, k: int) -> None:
    """It computes the sums that the array has, by its own ports' values as they are, without a swap."""
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (rows, k), dtype=np.int8)
    w = rng.integers(-128, 128, (k, cols), dtype=np.int8)
    stepping = benchmark.OutputStepping(x, w)
    reference, array = OutputStationaryArray(rows, cols), SystolicArray(ArrayConfig(rows, cols, dataflow="output_stationary"))
    for _ in range(2):  # a second run goes on from there
        stepping.run()
        for west, north in zip(x.T, w, strict=True):
            reference.step(activation=west.tolist(), weight=north.tolist())
            array.step(activation=west, weight=north)
        for ours in (reference.registers(), array.registers):
            np.testing.assert_array_equal(stepping.acc, ours["acc"])
            np.testing.assert_array_equal(stepping.a16, ours["activation"])
            np.testing.assert_array_equal(stepping.w16, ours["weight"])


@pytest.mark.parametrize("rows, cols, m", ((1, 1, 1), (2, 3, 1), (3, 2, 4), (5, 7, 12)))
def test_float_stepping_steps_the_array(rows: int, cols: int, m: int) -> None:
    """It computes the psums of float32 that the array has; of small integers, so that nothing is rounded."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 8, (m, rows)).astype(np.float16)
    w = rng.integers(-8, 8, (rows, cols)).astype(np.float16)
    stepping = benchmark.FloatStepping(x, w)
    config = ArrayConfig(rows, cols, activation_dtype="float16", weight_dtype="float16")
    state = SystolicArray(config).state()
    array = SystolicArray(config).restore(state.replace(weight=w))
    for _ in range(2):  # a second run goes on from there
        stepping.run()
        for row in x:
            array.step(activation=row)
        np.testing.assert_array_equal(stepping.p, array.registers.psum)
        np.testing.assert_array_equal(stepping.a, array.registers.activation)


class Clock:
    """A clock that only work moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: self.now))


def test_compare_is_medians_of_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    # One warm-up each, then in turn: what each call takes, in seconds.
    took = iter([1.0, 2.0, 4.0, 4.0, 2.0, 8.0])
    clock = Clock(monkeypatch)

    def work(name: str) -> None:
        turns.append(name)
        if len(turns) > 2:
            clock.now += next(took)

    measured = benchmark.compare("a", lambda: work("a"), 12, "b", lambda: work("b"), 8, "u/s", 3)
    assert turns == ["a", "b"] * 4
    # a: 12, 3, 6 per second; b: 4, 2, 1; pair by pair 3, 1.5, 6.
    assert (measured.rate, measured.baseline_rate, measured.ratio) == (6.0, 2.0, 3.0)
    assert (measured.name, measured.baseline, measured.unit) == ("a", "b", "u/s")
    assert json.loads(json.dumps(measured.to_dict())) == {
        "name": "a", "baseline": "b", "unit": "u/s", "rate": 6.0, "baseline_rate": 2.0, "ratio": 3.0
    }  # fmt: skip


def test_compare_repeats_short_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    count = {0.001: 0, 0.5: 0, 7.0: 0}

    def taking(seconds: float):  # type: ignore[no-untyped-def]
        def work() -> None:
            count[seconds] += 1
            clock.now += seconds

        return work

    measured = benchmark.compare("a", taking(0.001), 3, "b", taking(0.5), 1, "u/s", 2, least_seconds=1.0)
    assert (measured.rate, measured.baseline_rate) == (pytest.approx(3000), pytest.approx(2))
    # Two rounds of 1 s each, and a warm-up of no more than that.
    assert 2000 <= count[0.001] <= 4000 and 4 <= count[0.5] <= 8
    benchmark.compare("a", taking(7.0), 3, "b", taking(0.5), 1, "u/s", 2, least_seconds=1.0)
    assert count[7.0] <= 4


def test_added_seconds_is_the_median_difference_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    # Warm-up, then three pairs of two calls.
    ours, theirs = iter([9.0, 3, 5, 8, 8, 1, 1]), iter([9.0, 1, 1, 7, 7, 3, 3])

    def taking(seconds: Iterator[float]) -> Callable[[], None]:
        return lambda: vars(clock).update(now=clock.now + next(seconds))

    # Pair by pair 3, 1 and -2 seconds a call.
    assert timing.added_seconds(taking(ours), taking(theirs), 3, calls=2) == 1
    assert next(ours, None) is None and next(theirs, None) is None


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Run each of a pair once, and note what was compared instead of timing it."""
    seen: list[dict[str, Any]] = []

    def compare(name, work, amount, baseline, base_work, base_amount, unit, rounds, **options):  # type: ignore[no-untyped-def]
        ours, theirs = work(), base_work()
        seen.append(
            {"name": name, "amounts": (amount, base_amount), "results": (ours, theirs), "rounds": rounds}
        )
        return benchmark.Measurement(name, baseline, unit, 4.0, 2.0, 2.0)

    monkeypatch.setattr(parts, "compare", compare)
    return seen


def test_bench_measures_what_it_says() -> None:
    measured = benchmark.bench(rows=4, cols=5, m=6, rounds=2)
    assert [m.unit for m in measured] == ["PE-cycles/s"] * 3 + ["MAC/s"] * 2
    for m in measured:
        for value in (m.rate, m.baseline_rate, m.ratio):
            assert math.isfinite(value) and value > 0
    text = str(benchmark.table(measured))
    for m in measured:
        assert m.name in text and m.baseline in text
    assert "m = 6" in measured[0].name and "4 x 5" in measured[0].name and "6 x 4 x 5" in measured[3].name
    assert measured[2].name == "one fold, k = 6, 4 x 5, output stationary"


def test_bench_counts_the_kernels_cycles(untimed: list[dict[str, Any]]) -> None:
    benchmark.bench(rows=4, cols=5, m=6, rounds=2)
    amounts = [row["amounts"] for row in untimed]
    fold = 2 * 4 + 5 + 6 - 2
    assert amounts[0] == (4 * 5 * fold, 4 * 5 * 6)
    assert amounts[1] == (4 * 5 * 256, 4 * 5 * 6)
    assert amounts[2] == (4 * 5 * (2 * 4 + 5 + 6 - 2), 4 * 5 * 6)
    assert amounts[3] == amounts[4] == (6 * 4 * 5, 6 * 4 * 5)


@pytest.mark.parametrize("name", ("rows", "cols", "m", "rounds", "threads"))
def test_bench_checks_sizes(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a positive integer, not 0$"):
        benchmark.bench(**{name: 0})
    with pytest.raises(TypeError, match=f"^{name} must be an integer"):
        benchmark.bench(**{name: 2.5})


def test_random_control_clocks_what_it_says() -> None:
    """All of its cycles pass, and half of all control bits are set."""
    config = ArrayConfig(3, 4)
    clock = parts.random_control(config, 40)
    array = clock.__closure__ and next(
        c.cell_contents for c in clock.__closure__ if isinstance(c.cell_contents, SystolicArray)
    )
    assert array is not None and array.cycle == 0
    clock()
    assert array.cycle == 40
    assert np.abs(array.registers.psum.astype(np.int64)).max() > 2**20  # north psums of all bits came down


# The suite's sections


def test_cycle_section_goes_through_the_instruction_sets(
    untimed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str | None] = []
    use = _kernels._use
    monkeypatch.setattr(_kernels, "_use", lambda name=None: (used.append(name), use(name)))
    section = parts.cycle_section(2, True, size=4, m=6)
    names = timing.instruction_sets(True)
    assert names[0] == _kernels.instruction_set and sorted(names) == sorted(_kernels.instruction_sets)
    assert [name for name in used if name] == list(names) and used[-1] is None
    assert [m.name.rpartition(", ")[2] for m in section.measurements[1:]] == [
        n for n in names for _ in range(3)
    ]
    assert "numpy.add of int32" in section.measurements[0].baseline
    fold = 4 * 4 * (3 * 4 + 6 - 2)
    assert [row["amounts"] for row in untimed[1:4]] == [(fold, 96), (4 * 4 * 256, 96), (fold, 96)]
    assert section.measurements[3].name.startswith("one fold, k = 6, 4 x 4, output stationary, ")
    quick = parts.cycle_section(2, False, size=4, m=6)
    assert len(quick.measurements) == 4


def test_float_cycle_section_has_both_dataflows(untimed: list[dict[str, Any]]) -> None:
    section = parts.float_cycle_section(2, False, size=4, m=6)
    fold = 4 * 4 * (3 * 4 + 6 - 2)
    quick = timing.instruction_sets(False)
    assert [row["amounts"] for row in untimed] == [(fold, 96), (fold, 96)] * (quick != ("baseline",))
    assert [m.name for m in section.measurements] == [
        f"one fold, {sizes}, 4 x 4, {dataflow} stationary, {isa}"
        for isa in quick
        if isa != "baseline"
        for sizes, dataflow in (("m = 6", "weight"), ("k = 6", "output"))
    ]


def fake_torch() -> SimpleNamespace:
    class Tensor:
        def __init__(self, values: np.ndarray) -> None:
            assert values.dtype in (np.int8, np.float32)
            self.values = values

        def numpy(self) -> np.ndarray:
            return self.values

    def int_mm(a: Tensor, b: Tensor) -> SimpleNamespace:
        product = a.values.astype(np.int32) @ b.values.astype(np.int32)
        return SimpleNamespace(numpy=lambda: product)

    def matmul(a: Tensor, b: Tensor) -> Tensor:
        return Tensor(a.values @ b.values)

    torch = SimpleNamespace(__version__="9.8+cpu", threads=5, from_numpy=Tensor, _int_mm=int_mm, matmul=matmul)
    torch.get_num_threads = lambda: torch.threads
    torch.set_num_threads = lambda count: vars(torch).update(threads=count)
    return torch


@pytest.mark.parametrize("present", (True, False), ids=("torch", "no torch"))
def test_wavefront_section(
    present: bool, untimed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = fake_torch()
    monkeypatch.setitem(sys.modules, "torch", torch if present else None)
    monkeypatch.setattr(parts, "PEAK_BLOCK", (3, 8, 4))
    section = parts.wavefront_section(2, 1, every=True, sizes=(8, 16), slow=8)
    rows = [(m.name, m.baseline) for m in section.measurements]
    beside = "torch._int_mm int8 x int8" if present else "numpy float64 matmul"
    for size in (8, 16):
        for x_type, w_type in parts.SIGNS:
            assert (f"{size} x {size} x {size}, {x_type} x {w_type}", beside) in rows
        assert (f"{size} x {size} x {size}, int8 x int8", "the kernel in cache, 3 x 8 x 4") in rows
    assert (f"8 x 8 x 8, int8 x int8, {timing.instruction_sets(True)[-1]}", beside) in rows
    assert ("8 x 8 x 8, int8 x int8", "numpy float64 matmul") in rows
    assert torch.threads == 5  # as it was
    assert ("torch 9.8+cpu" in section.notes) is present
    assert any("pip install torch --index-url" in note for note in section.notes) is not present
    # What stands beside each other computes the same, where the types are the same.
    same = 0
    for row, (name, baseline) in zip(untimed, rows, strict=True):
        if "int8 x int8" in name and "uint8" not in name and "in cache" not in baseline:
            np.testing.assert_array_equal(*row["results"])
            same += 1
    assert same >= 4


@pytest.mark.parametrize("present", (True, False), ids=("torch", "no torch"))
def test_float_section(
    present: bool, untimed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = fake_torch()
    monkeypatch.setitem(sys.modules, "torch", torch if present else None)
    section = parts.float_section(2, sizes=(8, 300))
    beside = "torch float32 matmul" if present else "numpy float32 matmul"
    assert [(m.name, m.baseline) for m in section.measurements] == [
        (f"{size} x {size} x {size}, {dtype}", beside)
        for size in (8, 300) for dtype in ("bfloat16", "float16", "float8_e4m3fn")
    ]  # fmt: skip
    assert ("torch 9.8+cpu" in section.notes) is present
    for row, size in zip(untimed, (8, 8, 8, 300, 300, 300), strict=True):
        np.testing.assert_allclose(*row["results"], rtol=0, atol=1e-4)
        assert row["amounts"] == (size**3, size**3)


def test_onnxruntime_gets_the_same_product() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    for types in parts.SIGNS:
        x, w = parts.operands(5, 7, 3, *types)
        if types == ("uint8", "int8") and not exact_u8s8():
            x //= 2  # seven bits, which its sums of pairs hold
        beside = parts.by_onnxruntime(x, w, 1)
        assert beside is not None and str(x.dtype) in beside[0]
        np.testing.assert_array_equal(beside[1](), parts.kernel(x, w)())


def test_a_wrong_product_is_not_timed() -> None:
    x, w = parts.operands(2, 3, 4)
    with pytest.raises(RuntimeError, match="^ours differs from theirs; please report this$"):
        parts._compare_products("ours", parts.kernel(x, w), 24, "theirs", lambda: x @ w + 1, 1)


@pytest.mark.parametrize("types", parts.SIGNS)
def test_operands_have_their_whole_range(types: tuple[str, str]) -> None:
    for operand, name in zip(parts.operands(200, 30, 200, *types), types, strict=True):
        limits = np.iinfo(name)
        assert operand.dtype == name and (operand.min(), operand.max()) == (limits.min, limits.max)


@pytest.mark.parametrize("types", parts.SIGNS)
def test_kernel_is_the_product(types: tuple[str, str]) -> None:
    x, w = parts.operands(5, 7, 3, *types)
    np.testing.assert_array_equal(parts.kernel(x, w)(), x.astype(np.int64) @ w)
    np.testing.assert_array_equal(parts.wavefront(x, w, 2)(), x.astype(np.int64) @ w)


def test_thin_section(untimed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    section = parts.thin_section(2, shapes=((1, 3, 2), (4, 5, 6)))
    assert [m.name for m in section.measurements] == [
        "1 x 3 x 2, the kernel", "1 x 3 x 2, matmul, wavefront", "4 x 5 x 6, the kernel", "4 x 5 x 6, matmul, wavefront",
    ]  # fmt: skip
    assert parts.NO_TORCH in section.notes
    for row in untimed:
        np.testing.assert_array_equal(*row["results"])
    assert untimed[2]["amounts"] == (120, 120)


def test_threads_section(untimed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "thread_count", lambda: 1)
    section = parts.threads_section(2, m=5, size=9, array=4)
    assert [m.baseline for m in section.measurements] == ["one thread"] * 3
    assert section.notes and "one core" in section.notes[1]
    folds, kernels, sums = (row["results"] for row in untimed)
    np.testing.assert_array_equal(folds[0].outputs[0], folds[1].outputs[0])
    for kernel in kernels:
        np.testing.assert_array_equal(kernel, folds[0].outputs[0])
    np.testing.assert_array_equal(*sums)
    assert untimed[0]["amounts"] == untimed[1]["amounts"] == (16 * (3 * 4 + 5 - 2),) * 2
    assert untimed[2]["amounts"] == (729, 729)


def test_direct_run_clocks_the_same_product() -> None:
    """The kernel on prepared buffers gives what matmul gives on as many cycles."""
    config = ArrayConfig(3, 4)
    x, w = parts.operands(5, 3, 4, "uint8", "int8")
    result = matmul(x, w, array=config)
    bottom = parts.direct_run(x, w, config)()
    assert bottom.shape == (result.cycles, 4)
    for i, c in np.ndindex(5, 4):
        # Shifted in for `rows` cycles; row r of x's i-th row reaches column c at the bottom after r + c more.
        assert bottom[3 + i + 3 - 1 + c, c] == result.acc[i, c]


def test_calls_section(untimed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_import_seconds", lambda rounds: (0.25, 0.125))
    monkeypatch.setattr(parts, "added_seconds", lambda work, base_work, rounds: 12.5e-6)
    section = parts.calls_section(2, estimates=40)
    assert [m.unit for m in section.measurements] == ["calls/s"] * 3 + ["estimates/s"]
    assert "takes 12.5 µs more than _core.run" in section.notes[0] and "0.250 s" in section.notes[1]
    assert untimed[3]["amounts"] == (40, 40)
    np.testing.assert_array_equal(*untimed[3]["results"])
    np.testing.assert_array_equal(untimed[1]["results"][0].acc, untimed[1]["results"][1])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_import_is_timed_in_new_interpreters() -> None:
    assert all(seconds > 0 for seconds in parts._import_seconds(1))


def section(name: str) -> Any:
    def made(*arguments: object, **options: object) -> benchmark.Section:
        row = benchmark.Measurement(f"row of {name}", "base", "MAC/s", 2e9, 1e9, 2.0)
        return benchmark.Section(name, (row,), (f"{arguments}", f"{sorted(options.items())}"))

    return made


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cycle", "float_cycle", "wavefront", "threads", "float", "thin", "calls"):
        monkeypatch.setattr(parts, f"{name}_section", section(name))


@pytest.mark.usefixtures("sections")
def test_suite_is_cut_to_its_extent() -> None:
    done: list[tuple[int, int]] = []
    usual = benchmark.suite(rounds=3, threads=2, report=lambda *at: done.append(at))
    assert [s.title for s in usual] == ["cycle", "float_cycle", "wavefront", "threads", "float", "thin", "calls"]
    assert done == [(i, 7) for i in range(8)]
    assert usual[0].notes[0] == usual[1].notes[0] == "(3, True)" and usual[2].notes[0] == "(3, 2)"
    assert "('sizes', (1024, 2048)), ('slow', 1024)" in usual[2].notes[1]
    assert "('slow', 2048)" in benchmark.suite(extent="full")[2].notes[1]
    quick = benchmark.suite(extent="quick")
    assert [s.title for s in quick] == ["cycle", "float_cycle", "wavefront", "float", "thin", "calls"]
    assert quick[0].notes[0] == "(7, False)" and "('sizes', (1024,))" in quick[2].notes[1]


@pytest.mark.parametrize("name", ("rounds", "threads"))
def test_suite_checks_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a positive integer, not 0$"):
        benchmark.suite(**{name: 0})  # type: ignore[arg-type]


def test_suite_checks_extent() -> None:
    with pytest.raises(ValueError, match="extent must be one of 'quick', 'usual', 'full', not 'all'"):
        benchmark.suite(extent="all")


# What is shown


def test_title_names_the_machine_and_the_instruction_set() -> None:
    text = benchmark.title()
    assert f"{_kernels.instruction_set} in use" in text and " cores; " in text
    for name in _kernels.instruction_sets:
        assert name in text


def test_markdown() -> None:
    text = benchmark.markdown(section("cycle")(1))
    assert text.splitlines()[:5] == [
        "### cycle", "", "| measured | rate | beside | its rate | ratio |", "|---|---|---|---|---|",
        "| row of cycle | 2.00 GMAC/s | base | 1.00 GMAC/s | 2.00 |",
    ]  # fmt: skip
    assert text.splitlines()[-2] == "- (1,)"


@pytest.mark.usefixtures("sections")
def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--json", "--quiet", "--threads", "2"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["title"] == benchmark.title() or "load average" in values["title"]
    assert [m["section"] for m in values["measurements"]] == [
        "cycle",
        "float_cycle",
        "wavefront",
        "threads",
        "float",
        "thin",
        "calls",
    ]
    assert values["measurements"][0]["ratio"] == 2.0 and values["notes"]["wavefront"][0] == "(7, 2)"
    assert cli.main(["bench", "--quick", "--rounds", "4"]) == 0
    captured = capsys.readouterr()
    assert (
        captured.out.count("row of ") == 6 and "(4, False)" in captured.out and "bench: 100" in captured.err
    )
    assert cli.main(["bench", "--markdown", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert "### thin" in captured.out and captured.err == ""


@pytest.mark.parametrize("more", (["--quick"], ["--full"], ["--markdown"]))
@pytest.mark.parametrize("array", (["--array", "4x4"], ["--m", "4"], ["--preset", "tpu-v1"]))
def test_rows_of_one_array_take_no_extent(
    array: list[str], more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *array, *more]) == 2
    assert "--preset and --m measure other rows" in capsys.readouterr().err


def test_each_is_called_once_more_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(timing, "_timed", lambda work, count: (work(), calls.append("timed"), 1.0)[-1])
    timing.compare(
        "a", lambda: calls.append("a"), 1, "b", lambda: calls.append("b"), 1, "x/s", 2, settle=True
    )
    assert calls == ["a", "b", *["a", "a", "timed", "b", "b", "timed"] * 2]


# bench/resnet50.py


@pytest.fixture
def resnet50(monkeypatch: pytest.MonkeyPatch) -> Any:
    if not (ROOT / "bench").is_dir():
        pytest.skip("reads the sources")
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    yield importlib.import_module("resnet50")
    for name in ("resnet50", "networks"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_whole_networks_are_timed(resnet50: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of the script, on a network that is small: bench_resnet50.py builds the large one."""
    if not exact_u8s8():
        pytest.skip("ONNX Runtime's uint8 x int8 saturates on this processor, so the script prints no times")
    common = ["--network", "residual", "--image", "32", "--rounds", "1", "--threads", "1"]
    resnet50.main([*common, "--out", str(tmp_path), "--json"])
    values = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "residual_int8_32.onnx", "residual_uint8_32.onnx",
    ]  # fmt: skip
    assert len(values["measurements"]) == 4
    for taken in values["stages"].values():
        total = taken.pop("total")
        assert {
            "im2col",
            "product",
            "requantize",
            "Python around convolutions",
            "QLinearAdd",
            "between layers",
        } <= set(taken)
        assert sum(taken.values()) == pytest.approx(total)
    assert sum(cycles for _, _, cycles, _, _ in values["kinds"]) == values["cycles"]
    assert all(10 < size < 600 for size in values["peak_megabytes"].values())
    written = [path.stat().st_mtime_ns for path in tmp_path.iterdir()]
    resnet50.main([*common, "--out", str(tmp_path), "--markdown"])
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == written  # used again
    text = capsys.readouterr().out
    assert "| product |" in text and "outputs equal ONNX Runtime's in every bit" in text


@pytest.mark.slow
def test_no_time_of_what_differs(resnet50: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = resnet50.write(tmp_path, 32, "residual")["int8"]
    network = resnet50.Network(path, 32)
    right = network.onnxruntime(1)()
    monkeypatch.setattr(network, "onnxruntime", lambda threads: lambda: right + (np.arange(right.size) == 3))
    with pytest.raises(
        SystemExit, match="wavefront mode: 1 of 10 outputs differ from ONNX Runtime's, so no time"
    ):
        network.check("wavefront")


def test_timer_leaves_no_trace(resnet50: Any) -> None:
    before = _gemm.convolve
    layer = systolic.layers.Conv2d(np.ones((4, 3, 2, 2), np.int8), x=ONE, w=ONE, y=ONE)
    model = systolic.Model([layer], inputs={"x": ((1, 3, 9, 9), "int8")})
    with pytest.raises(KeyError), resnet50.timed() as spent:
        x = np.ones((1, 3, 9, 9), np.int8)
        systolic.run(model, x, machine=systolic.ArrayConfig(8, 8), mode="wavefront", threads=1)
        raise KeyError
    assert len(resnet50.STAGES) == 3 and (spent > 0).all()
    assert _gemm.convolve is before
