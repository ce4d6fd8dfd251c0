"""Scoreboards of RTL under Icarus Verilog: arrays of other times under maps, and usual mistakes by their dumps."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from support.rtl import icarus, twin
from support.rtl.mutants import MUTANTS
from support.toy_rtl import Toy, driven
from systolic import ArrayConfig, Scoreboard, ScoreboardError, write_vectors
from systolic.cosim import Signal, SignalMap, read_vcd

icarus.need_icarus()
icarus.need("vcd", 'pip install "systolic[trace]"', allow_module_level=True)

CONFIG = ArrayConfig(4, 3, accumulator_rows=10)
# Chunks of fewer rows of x than the array has rows: nothing is due on some beats between folds.
GAPS = ArrayConfig(4, 3, accumulator_rows=6)
RNG = np.random.default_rng(3)
X = RNG.choice([-128, -127, 127, 3, -5, 64], (9, 7)).astype(np.int8)
W = RNG.choice([-128, -127, 127, 2, -7, 65], (7, 5)).astype(np.int8)

BENCH = "variants_bench"
PE = f"{BENCH}.dut.row[{{r}}].col[{{c}}]"


def simulated(toy: Toy, folder: Path, source: str | None = None, config: ArrayConfig = CONFIG) -> Path:
    """Run variants.sv on the product, driven as its hops say; return its dump."""
    ports = driven(config, X, W, toy)
    for name, values in ports.items():
        raw = np.packbits(values, axis=1, bitorder="little") if values.dtype == bool else values.view(np.uint8)
        lines = [line[::-1].tobytes().hex() for line in raw]
        if name != "psum":
            (folder / f"{name}.mem").write_text("\n".join(lines) + "\n")
    design = folder / "variants.sv"
    design.write_text(source or (twin.BENCHES / "variants.sv").read_text())
    given = {
        "ROWS": 4, "COLS": 3, "HOP_DOWN": toy.hop[0], "HOP_RIGHT": toy.hop[1], "LATENCY": toy.latency,
        "HELD": int(toy.held), "LINES": len(ports["swap"]),
    }  # fmt: skip
    build = ["iverilog", "-g2012", "-s", BENCH, "-o", "bench.vvp"]
    build += [f"-P{BENCH}.{name}={value}" for name, value in given.items()]
    subprocess.run([*build, str(design), str(twin.SOURCES / "delay.sv")], cwd=folder, check=True)
    subprocess.run(["vvp", "-n", "bench.vvp"], cwd=folder, check=True, capture_output=True)
    return folder / "variants.vcd"


def board(toy: Toy, config: ArrayConfig = CONFIG, **fields: object) -> Scoreboard:
    """Return the scoreboard of an array; `fields` change its map."""
    signals = {"psum": Signal(f"{PE}.psum_q"), "weight": Signal(f"{PE}.weight", latency=0)}
    given = {"signals": signals, "hop": toy.hop, "latency": toy.latency, "held_psums": toy.held} | fields
    return Scoreboard(config, map=SignalMap(**given))  # type: ignore[arg-type]


def read(dump: Path, of: Scoreboard) -> dict[str, list[str]]:
    return read_vcd(dump, clock=f"{BENCH}.clk", signals=of.signals)


VARIANTS = {
    "as the emulator": Toy(),
    "no skew": Toy(hop=(0, 0)),
    "broadcast activations": Toy(hop=(1, 0)),
    "two cycles a hop": Toy(hop=(2, 2)),
    "pipelined": Toy(hop=(2, 1), latency=3),
    "held psums": Toy(held=True),
    "held psums without skew, one cycle late": Toy(hop=(0, 0), latency=1, held=True),
}


@pytest.mark.parametrize("toy", VARIANTS.values(), ids=[*VARIANTS])
def test_right_variants_pass_under_their_own_map_only(tmp_path: Path, toy: Toy) -> None:
    dump, right = simulated(toy, tmp_path), board(toy)
    samples = read(dump, right)
    assert right.check(X, W, samples, start=1).compared > 300
    # In lockstep: every edge, with what was driven.
    plain = {name: values for name, values in driven(CONFIG, X, W, toy).items() if name != "valid"}
    lockstep = board(toy, valid=f"{PE}.psum_valid" if toy.held else None)
    samples = read(dump, lockstep)
    weights = f"{PE}.weight"
    if toy.held:  # a weight has no valid bit
        lockstep = board(toy, signals={"psum": Signal(f"{PE}.psum_q", valid=f"{PE}.psum_valid")})
    for t in range(len(plain["swap"])):
        lockstep.edge(**{name: values[t] for name, values in plain.items()})
        lockstep.sample({name: column[t + 1] for name, column in samples.items()})
    lockstep.finish()
    assert lockstep.compared == (1 + (not toy.held)) * 12 * len(plain["swap"])
    assert weights.format(r=0, c=0) in samples or toy.held
    # By valid signals alone, whatever the times.
    valid = board(toy, signals={"psum": Signal(f"{PE}.psum_q", valid=f"{PE}.psum_valid")}, hop=(1, 1), latency=0)
    assert valid.check(X, W, read(dump, valid))
    # Under another map it fails, and the report says which fits.
    other = (toy.hop[0] + 1, toy.hop[1])
    for fields, finding in [({"hop": other}, f"all are right with hop={toy.hop} in the map"), ({"latency": toy.latency + 1}, "early")]:
        signals = {"psum": f"{PE}.psum_q"}
        wrong = board(toy, signals=signals, held_psums=False, **fields)
        padded = {name: [*column, *column[-1:] * 9] for name, column in read(dump, wrong).items()}
        with pytest.raises(ScoreboardError) as caught:
            wrong.check(X, W, padded, start=1)
        report = caught.value.report
        assert report is not None and report.findings[0].name == "values at other times"
        assert finding in report.findings[0].detail


def test_a_sum_that_does_not_hold_is_seen(tmp_path: Path) -> None:
    text = (twin.BENCHES / "variants.sv").read_text()
    old = "HELD && !valid ? psum : sum"
    assert text.count(old) == 1
    toy, signals = Toy(hop=(0, 0), held=True), {"psum": f"{PE}.psum_q"}
    (tmp_path / "right").mkdir()
    held = board(toy, GAPS, signals=signals)
    assert held.check(X, W, read(simulated(toy, tmp_path / "right", config=GAPS), held), start=1)
    samples = read(simulated(toy, tmp_path, text.replace(old, "sum"), GAPS), held)
    report = held.diagnose(X, W, samples, start=1)
    assert report.first is not None and report.first.register == "psum" and report.first.got == 0
    assert board(toy, GAPS, signals=signals, held_psums=False).check(X, W, samples, start=1)


# Of the array's own text: what the ports carry is right.
USUAL = {
    "swap one beat late": "swap late",
    "psum multiplies with the old weight": "swap late",
    "psum multiplies with the old activation": "one cycle of skew too many",
    "activation unsigned for signed": "signed and unsigned mixed up",
    "output: a sum goes on after the swap": "accumulators not cleared",
}


@pytest.mark.parametrize("name", USUAL)
def test_a_dump_names_the_usual_mistake(tmp_path: Path, name: str) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    mutant.plant(tmp_path / "design")
    config = ArrayConfig(4, 3, accumulator_rows=10, dataflow=mutant.config.dataflow)
    write_vectors(X, W, tmp_path / "vectors", array=config)
    arguments = ("vectors", tmp_path / "vectors", "--design", tmp_path / "design", "--vcd", tmp_path / "rtl.vcd")
    done = icarus.run_example(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    sums = "acc" if mutant.held else "psum"
    scores = Scoreboard(config, map=SignalMap(signals={sums: f"replay.array.row[{{r}}].col[{{c}}].pe.{sums}"}))
    samples = read_vcd(tmp_path / "rtl.vcd", clock="replay.clk", signals=scores.signals)
    report = scores.diagnose(X, W, samples, start=1)
    assert [finding.name for finding in report.findings] == [USUAL[name]], str(report)


# Of the bench: right arrays that are driven wrong.
DRIVEN = {
    "rows reversed": "rows loaded in the wrong order",
    "tile transposed": "a transposed tile",
    "activations late by row": "one cycle of skew too many",
    "activations early by row": "one cycle of skew too few",
    "weights late from a column": "one cycle of skew too many",
    "swap early": "swap early",
    "swap late": "swap late",
}


@pytest.mark.parametrize("mistake", DRIVEN)
def test_a_wrong_bench_is_named(tmp_path: Path, mistake: str) -> None:
    toy = Toy(hop=(0, 0) if mistake.startswith("activations") else (1, 1), mistake=mistake, lane=1)
    dump = simulated(toy, tmp_path)
    of = board(toy, signals={"psum": f"{PE}.psum_q"})
    report = of.diagnose(X, W, read(dump, of), start=1)
    assert [finding.name for finding in report.findings] == [DRIVEN[mistake]], str(report)


def test_unknown_values_are_named(tmp_path: Path) -> None:
    """Registers without a reset hold X; psum is X where it is due."""
    text = (twin.BENCHES / "variants.sv").read_text()
    old = "{weight, next_weight, weight_pass, psum, valid_q} <= '0;"
    assert text.count(old) == 1
    source = text.replace(old, "{weight_pass, psum, valid_q} <= '0;").replace("swap ? next_weight : weight;", "weight;")
    dump = simulated(Toy(), tmp_path, source)
    of = board(Toy(), signals={"psum": f"{PE}.psum_q"})
    with pytest.raises(ScoreboardError, match=r"^psum of PE \(0, 0\) for m 0, n 0, k 0, in sample 5, is X in the RTL, expected "):
        of.check(X, W, read(dump, of), start=1)


def test_lint() -> None:
    if twin.missing() is not None or shutil.which("verilator") is None:
        pytest.skip(f"to lint the RTL: {twin.INSTALL}")
    for top, given in (("variants", ()), (BENCH, ("-GLINES=40",))):
        assert twin.lint(top, ["variants.sv", "delay.sv"], "-Wno-MULTITOP", "-Wno-DECLFILENAME", *given) == ""
