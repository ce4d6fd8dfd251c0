"""Emulator and RTL agree in every register of every PE on every clock, and in the cycles taken.

The RTL is ``rtl/*.sv``. Verilator simulates it; a monitor writes all its state at every clock; numpy
compares that with the emulator's. Without Verilator these tests are skipped, unless the
environment variable SYSTOLIC_REQUIRE_RTL is set to 1: then its absence is an error.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from support.rtl import twin
from support.rtl.mutants import MUTANTS, RtlMutant, mutant_config
from support.rtl.scenarios import (
    QueuedFold,
    Scenario,
    Trace,
    compare,
    emulate,
    of_product,
    scenarios,
    stacked,
)
from systolic import Scoreboard, ports
from systolic.config import ArrayConfig
from systolic.cosim import Signal, SignalMap

REQUIRED = os.environ.get("SYSTOLIC_REQUIRE_RTL") == "1"


def _skip(reason: str, install: str, **options: bool) -> None:
    if REQUIRED:
        raise RuntimeError(f"SYSTOLIC_REQUIRE_RTL=1, but {reason}: {install}")
    pytest.skip(f"{reason}; to compare with the RTL: {install}", **options)


if (_reason := twin.missing()) is not None:
    _skip(_reason, twin.INSTALL, allow_module_level=True)


def _config(
    rows: int, cols: int, activation: str, weight: str, *, double_buffered: bool = True, held: bool = False
) -> ArrayConfig:
    # Half the accumulators hold somewhat more than `rows`, so that m below, equal to and above
    # rows all occur; an odd number, so that one accumulator row is never used.
    return ArrayConfig(
        rows, cols, activation_dtype=activation, weight_dtype=weight, double_buffered=double_buffered,
        accumulator_rows=2 * (rows + 3) + 1, dataflow="output_stationary" if held else "weight_stationary",
    )  # fmt: skip


RUNS = (
    (_config(1, 1, "uint8", "uint8"), 15_000),
    (_config(1, 1, "int8", "int8", double_buffered=False), 15_000),
    (_config(1, 4, "uint8", "int8"), 20_000),
    (_config(4, 1, "int8", "int8"), 20_000),
    (_config(2, 3, "int8", "int8"), 20_000),
    (_config(2, 3, "int8", "uint8"), 20_000),
    (_config(2, 3, "uint8", "int8", double_buffered=False), 20_000),
    (_config(2, 3, "uint8", "uint8"), 20_000),
    (_config(5, 4, "int8", "uint8", double_buffered=False), 20_000),
    (_config(8, 8, "int8", "int8"), 20_000),
    (_config(16, 16, "uint8", "int8"), 18_000),
    (_config(32, 32, "int8", "int8"), 4_000),
    (_config(1, 1, "int8", "uint8", held=True), 10_000),
    (_config(1, 4, "uint8", "int8", held=True, double_buffered=False), 10_000),
    (_config(4, 1, "int8", "int8", held=True), 10_000),
    (_config(2, 3, "int8", "int8", held=True), 20_000),
    (_config(5, 4, "uint8", "uint8", held=True, double_buffered=False), 20_000),
    (_config(8, 8, "int8", "int8", held=True), 20_000),
    (_config(16, 16, "uint8", "int8", held=True), 12_000),
)
MUTANT_CLOCKS = 2_500


def _name(config: ArrayConfig) -> str:
    overlap = "double" if config.double_buffered else "single"
    kind = "-output" if config.dataflow_record.held else ""
    return f"{config.rows}x{config.cols}-{config.activation_dtype}-{config.weight_dtype}-{overlap}{kind}"


class Builds:
    """Simulators by name, built two at a time; each is waited for when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._pool = ThreadPoolExecutor(min(2, cores or 1))
        self._futures: dict[str, Future[Path]] = {}

    def submit(self, name: str, config: ArrayConfig, mutant: RtlMutant | None = None) -> None:
        """Have a simulator built; the first one's run-time library serves for all."""
        library = self._futures[next(iter(self._futures))] if self._futures else None

        def build() -> Path:
            sources = twin.SOURCES
            if mutant is not None:
                sources = self.folder / f"{name}-sources"
                mutant.plant(sources)
            have = None if library is None else library.result().parent
            return twin.build(config, self.folder / name, sources=sources, library=have)

        self._futures[name] = self._pool.submit(build)

    def __getitem__(self, name: str) -> Path:
        return self._futures[name].result()

    def __contains__(self, name: str) -> bool:
        return name in self._futures

    def close(self) -> None:
        """Start no more builds."""
        self._pool.shutdown(cancel_futures=True)


def _mutant_folder(mutant: RtlMutant) -> str:
    return "mutant-" + "".join(letter if letter.isalnum() else "-" for letter in mutant.name)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Builds]:
    """What the selected tests need: the mutants' array first, then the large ones, which take longest."""
    builds = Builds(tmp_path_factory.mktemp("rtl"))
    selected = [item for item in request.session.items if item.path == request.path]
    wanted = [item.callspec.params for item in selected if hasattr(item, "callspec")]
    mutants = [params["mutant"] for params in wanted if "mutant" in params]
    configs = [params["config"] for params in wanted if "config" in params]
    plain = {_name(config): config for config in [mutant_config(), *configs]}
    plain.update((_name(mutant.config), mutant.config) for mutant in mutants)
    builds.submit(_name(mutant_config()), mutant_config())
    large = [name for name, config in plain.items() if config.rows * config.cols > 100]
    for name in [*reversed(large), *plain]:
        if name not in builds:
            builds.submit(name, plain[name])
    for mutant in mutants:
        if _mutant_folder(mutant) not in builds:
            builds.submit(_mutant_folder(mutant), mutant.config, mutant)
    yield builds
    builds.close()


def _compare_all(simulator: Path, config: ArrayConfig, runs: list[Scenario], folder: Path) -> int:
    accumulators = None
    clocks = 0
    for scenario, rtl in zip(runs, twin.simulate(simulator, config, runs, folder), strict=True):
        if accumulators is None:  # a memory without reset: it starts as it happens to
            accumulators = rtl.signals["accumulator"][0].copy()
        mismatch = compare(scenario, rtl, emulate(scenario, accumulators))
        assert mismatch is None, str(mismatch)
        if scenario.folds:
            counted = int(rtl.signals["controller cycles"][-1])
            assert counted == scenario.cycles, (
                f"{scenario.name}, seed {scenario.seed}: the RTL counts {counted}"
            )
        clocks += scenario.edges
    return clocks


@pytest.mark.parametrize(("config", "clocks"), RUNS, ids=[_name(config) for config, _ in RUNS])
def test_every_register_on_every_clock(builds, tmp_path, config, clocks):
    runs = list(scenarios(config, clocks, seed=10_000 * RUNS.index((config, clocks))))
    assert _compare_all(builds[_name(config)], config, runs, tmp_path) >= clocks


@pytest.mark.parametrize("held", [False, True])
def test_runs_are_many(held):
    runs = [(config, clocks) for config, clocks in RUNS if config.dataflow_record.held is held]
    assert sum(clocks for _, clocks in runs) >= 100_000 + 100_000 * (not held)
    assert sum(clocks for config, clocks in runs if min(config.rows, config.cols) >= 16) >= 12_000
    sizes = {(config.rows, config.cols) for config, _ in runs}
    assert sizes >= {(1, 1), (1, 4), (4, 1), (2, 3), (5, 4), (8, 8), (16, 16)}
    assert len({(config.activation_dtype, config.weight_dtype) for config, _ in runs}) == 4
    assert {config.double_buffered for config, _ in runs} == {True, False}


def test_output_stationary_runs_are_of_all_kinds():
    config = mutant_config(held=True)
    runs = list(scenarios(config, MUTANT_CLOCKS, seed=0))
    folds = [fold for run in runs for fold in run.folds]
    for k in (np.less, np.equal, np.greater):
        assert any(k(fold.k, config.rows) for fold in folds)
    assert any(fold.m < config.rows for fold in folds) and any(fold.n < config.cols for fold in folds)
    pairs = [(a, b) for run in runs for a, b in zip(run.folds, run.folds[1:], strict=False)]
    assert any(b.shift == a.swap and b.swap == b.shift + config.rows > b.shift + b.k for a, b in pairs), "no wait"
    assert any(b.shift == a.swap + config.rows for a, b in pairs), "no fold that waits for the drain"
    assert any(b.shift > a.swap + 2 * config.rows + config.cols for a, b in pairs), "no idle gap"
    hand = [run.ports for run in runs if run.by_hand.all()]
    assert any((ports["drain"] & ports["swap"]).any() for ports in hand)


def test_runs_are_of_all_kinds():
    config = mutant_config()
    runs = list(scenarios(config, MUTANT_CLOCKS, seed=0))
    folds = [fold for run in runs for fold in run.folds]
    for m in (np.less, np.equal, np.greater):
        assert any(m(fold.m, config.rows) for fold in folds)
    assert any(fold.k < config.rows for fold in folds) and any(fold.n < config.cols for fold in folds)
    assert any(fold.first for fold in folds) and any(not fold.first for fold in folds)
    pairs = [(a, b) for run in runs for a, b in zip(run.folds, run.folds[1:], strict=False)]
    assert any(b.shift == a.swap for a, b in pairs), "no fold right behind another"
    assert any(b.shift > a.swap + a.m + config.rows + config.cols for a, b in pairs), "no idle gap"
    hand = [run.ports for run in runs if run.by_hand.all()]
    assert any((ports["shift"] & ports["swap"]).any() for ports in hand)
    wraps = 0
    for run in runs:
        psum = emulate(run, np.zeros((config.cols, 13), np.int32)).signals["psum"].astype(np.int64)
        # A product is far smaller than this; so large a step is a wrap.
        wraps += np.count_nonzero(np.abs(psum[1:, 1:] - psum[:-1, :-1]) > 2**31)
    assert wraps >= 100


# Independent of the emulator: design section 2's example, and plain products.

X = np.int8([[1, 2], [3, 4], [-5, 6]])
W = np.int8([[7, -8, 9], [10, 11, -12]])
# psum after each edge.
PSUM = [
    "0 0 0 / 0 0 0", "0 0 0 / 0 0 0", "7 0 0 / 0 0 0", "21 -8 0 / 27 0 0", "-35 -24 9 / 61 14 0",
    "0 40 27 / 25 20 -15", "0 0 -45 / 0 106 -21", "0 0 0 / 0 0 -117",
]  # fmt: skip


@pytest.mark.parametrize("config", [_config(2, 3, "int8", "int8")], ids=_name)
def test_the_worked_example(builds, tmp_path, config):
    streamed = list(ports(X, W, array=config))
    values = stacked(streamed)
    fold = QueuedFold(X, W, half=0, first=True, arrives=0, shift=0, swap=2)
    example = Scenario("example", 0, config, values, np.zeros(len(streamed), dtype=bool), [fold], 8)
    (rtl,) = twin.simulate(builds[_name(config)], config, [example], tmp_path)
    psum = rtl.signals["psum"][1 : len(PSUM) + 1]
    assert [" / ".join(" ".join(map(str, row)) for row in grid) for grid in psum] == PSUM
    assert rtl.signals["controller cycles"][-1] == 8
    np.testing.assert_array_equal(rtl.signals["accumulator"][-1][:, :3].T, X.astype(int) @ W.astype(int))


@pytest.mark.parametrize("config", [_config(2, 3, "int8", "int8", held=True)], ids=_name)
def test_the_output_stationary_example(builds, tmp_path, config):
    x = np.int8([[1, 2, 3], [4, -5, 6]])
    w = np.int8([[7, -8, 9], [10, 11, -12], [-13, 14, 15]])
    streamed = list(ports(x, w, array=config))
    fold = QueuedFold(x, w, half=0, first=True, arrives=0, shift=0, swap=3)
    idle = np.zeros(len(streamed), dtype=bool)
    example = Scenario("example", 0, config, stacked(streamed), idle, [fold], 8)
    (rtl,) = twin.simulate(builds[_name(config)], config, [example], tmp_path)
    # After edge 5, from design section 3, and when the last sum stands.
    assert rtl.signals["acc"][6].tolist() == [[0, 0, 0], [0, 0, 186]]
    assert rtl.signals["out"][6].tolist() == [[0, 0, 30], [-12, -3, 0]]
    assert rtl.signals["out_pass"][8].tolist() == [[-12, 56, 30], [-100, -3, 186]]
    assert rtl.signals["controller cycles"][-1] == 8
    np.testing.assert_array_equal(rtl.signals["accumulator"][-1][:, :2].T, x.astype(int) @ w.astype(int))


@pytest.mark.parametrize("config", [_config(5, 4, "int8", "uint8", double_buffered=False)], ids=_name)
def test_accumulators_hold_the_product(builds, tmp_path, config):
    runs = [run for run in scenarios(config, 3000, seed=7) if run.cycles and run.name.startswith("(")]
    runs = [run for run in runs if not run.ports["psum"].any()]
    assert len(runs) >= 3
    for run, rtl in zip(runs, twin.simulate(builds[_name(config)], config, runs, tmp_path), strict=True):
        last = [i for i, fold in enumerate(run.folds) if fold.first][-1]
        y = sum(fold.x.astype(np.int64) @ fold.w.astype(np.int64) for fold in run.folds[last:])
        start = run.folds[-1].half * config.chunk_rows
        sums = rtl.signals["accumulator"][-1][: y.shape[1], start : start + len(y)].T
        np.testing.assert_array_equal(sums, y, err_msg=f"{run.name}, seed {run.seed}")


# It can fail.


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[list[Scenario], list[Trace]]]:
    """Scenarios for the mutants and what the emulator says of them, by the array's name."""
    return {}


@pytest.fixture
def sound(builds, tmp_path, expected):
    """Return a function that gives scenarios and emulated traces, having seen that the sound RTL passes."""

    def of(config: ArrayConfig) -> tuple[list[Scenario], list[Trace]]:
        name = _name(config)
        if name not in expected:
            runs = list(scenarios(config, MUTANT_CLOCKS, seed=0))
            traces = twin.simulate(builds[name], config, runs, tmp_path / "sound")
            accumulators = None
            emulated = []
            for scenario, rtl in zip(runs, traces, strict=True):
                if accumulators is None:
                    accumulators = rtl.signals["accumulator"][0].copy()
                emulated.append(emulate(scenario, accumulators))
                mismatch = compare(scenario, rtl, emulated[-1])
                assert mismatch is None, str(mismatch)
            expected[name] = runs, emulated
        return expected[name]

    return of


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_mutant_is_caught(builds, tmp_path, sound, mutant):
    runs, emulated = sound(mutant.config)
    traces = twin.simulate(builds[_mutant_folder(mutant)], mutant.config, runs, tmp_path / "mutant")
    found = (compare(*triple) for triple in zip(runs, traces, emulated, strict=True))
    first = next((mismatch for mismatch in found if mismatch is not None), None)
    assert first is not None, "not caught"
    assert first.signal in mutant.seen, str(first)
    print(first)


# The usual mistakes among them, and what a scoreboard calls each.
USUAL = {
    "the tile enters top row first": "rows loaded in the wrong order",
    "activation unsigned for signed": "signed and unsigned mixed up",
    "weight signed for unsigned": "signed and unsigned mixed up",
    "swap one beat late": "swap late",
    "psum multiplies with the old weight": "swap late",
    "psum multiplies with the old activation": "one cycle of skew too many",
    "west ports not skewed": "one cycle of skew too few",
    "north weights one row early in the last column": "one cycle of skew too few",
    "product cut to 15 bits": "missing sign extension",
    "the first k tile adds too": "accumulators not cleared",
    "sums taken one cycle early": "sums taken at the wrong time",
    "output: a sum goes on after the swap": "accumulators not cleared",
    "output: weight multiplies a beat late": "one cycle of skew too many",
    "output: weight signed for unsigned": "signed and unsigned mixed up",
}


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.name in USUAL], ids=lambda mutant: mutant.name)
def test_a_scoreboard_names_the_usual_mistake(builds, tmp_path, mutant):
    """Of one product, from psums and sums alone; the sound RTL passes."""
    config, rng = mutant.config, np.random.default_rng(5)
    x = rng.choice([-128, -127, 127, 3, -5, 64], (11, 9)).astype(np.int8)
    w = rng.choice([-128, -127, 127, 2, -7, 65], (9, 7)).astype(np.int8).view(config.weight_dtype)
    scenario = of_product(config, x, w)
    sums = "acc" if mutant.held else "psum"
    written = Signal("written", valid="writes")
    board = Scoreboard(config, map=SignalMap(signals={sums: sums, "accumulator": written}))
    for name in (_name(config), _mutant_folder(mutant)):
        (rtl,) = twin.simulate(builds[name], config, [scenario], tmp_path / name)
        writes = rtl.signals["accumulator write"][:-1]
        seen = {sums: rtl.signals[sums][1:], "written": _written(scenario, rtl), "writes": writes}
        if name == _name(config):
            assert board.check(x, w, seen)
        else:
            report = board.diagnose(x, w, seen)
            assert [each.name for each in report.findings] == [USUAL[mutant.name]], str(report)


def _written(scenario: Scenario, rtl: Trace) -> np.ndarray:
    """Return the sum that each column's memory has just written, after each edge."""
    config, writes = scenario.config, rtl.signals
    found = np.zeros((scenario.edges, config.cols), np.int64)
    half_rows = writes["accumulator"].shape[2] // 2
    for t, c in np.argwhere(writes["accumulator write"][: scenario.edges]):
        row = writes["accumulator half"][t, c] * half_rows + writes["accumulator row"][t, c]
        found[t, c] = writes["accumulator"][t + 1, c, row]
    return found


def test_there_are_enough_mutants():
    assert len(MUTANTS) >= 12
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mismatch_says_all(sound):
    runs, emulated = sound(mutant_config())
    trace = emulated[4]
    for register in mutant_config().register_dtypes:
        values = trace.signals[register].copy()
        values[7, 2, 1] = ~values[7, 2, 1] if values.dtype == bool else values[7, 2, 1] ^ 1
        values[9, 0, 0] ^= 1
        mismatch = compare(runs[4], Trace({**trace.signals, register: values}), trace)
        old, new = int(trace.signals[register][7, 2, 1]), int(values[7, 2, 1])
        assert str(mismatch) == (
            f"{register} of PE (2, 1) at cycle 7: RTL {new}, emulator {old} (seed 4, {runs[4].name})"
        )


# The sources.


@pytest.mark.parametrize(
    ("top", "files"),
    [
        (Path(files[-1]).stem, files)
        for model in twin.MODELS.values()
        for files in (model.design, model.design + model.bench)
    ],
)
def test_lint(top, files):
    assert twin.lint(top, files) == ""


# A second way, without the monitor.


@pytest.fixture
def cocotb_check() -> Path:
    if importlib.util.find_spec("cocotb") is None or shutil.which("iverilog") is None:
        _skip("no cocotb or no Icarus Verilog", twin.INSTALL_COCOTB)
    return Path(twin.__file__).with_name("cocotb_check.py")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("dataflow", twin.MODELS)
def test_under_icarus_by_cocotb(cocotb_check, dataflow):
    done = _run([sys.executable, str(cocotb_check), "--dataflow", dataflow])
    assert done.returncode == 0, done.stdout + done.stderr
    clocks = int(done.stdout.strip().splitlines()[-1].removesuffix(" clocks compared"))
    assert clocks >= 2000


@pytest.mark.parametrize("name", ["swap one beat late", "output: swap one beat late"])
def test_cocotb_catches_a_mutant(cocotb_check, tmp_path, name):
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    mutant.plant(tmp_path / "sources")
    command = [sys.executable, str(cocotb_check), "--sources", str(tmp_path / "sources")]
    done = _run([*command, "--dataflow", mutant.config.dataflow])
    assert done.returncode == 1
    assert "of PE (0, 0) at cycle" in done.stdout, done.stdout + done.stderr
