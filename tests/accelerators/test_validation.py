"""Wanted figures of the TPU paper, each with its tolerance, and derivations that share nothing with ours."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest

from systolic import isa, presets
from systolic.accelerators import Check, Validation, count, stand_in, studies, tpu_v1, validate_tpu_v1
from systolic.accelerators.counters import MATRIX
from systolic.accelerators.programs import program_of, with_operands
from systolic.accelerators.tpu_v1 import APPLICATIONS, TABLE_3
from systolic.reference import machine as reference


@pytest.fixture(scope="module")
def validation() -> Validation:
    return validate_tpu_v1()


# The published figure, and the largest difference: an absolute one, or a share of the figure.
WANTED = {
    "peak": (91.75, 0.005, None),
    "ridge point": (1349, None, 0.02),
    "MLP0: weight shift, scaled": (15.9, 1, None),
    "MLP0: weight stall, scaled": (53.9, 3, None),
    "MLP0: array active, scaled": (12.7, 3, None),
    "MLP1: weight shift, scaled": (13.4, 1, None),
    "MLP1: weight stall, scaled": (44.2, 3, None),
    "MLP1: array active, scaled": (10.6, 3, None),
    "LSTM1: useful of active MACs": (0.6104, 0.0005, None),
    "600 x 600 on 256 x 256: tiles": (9, 0, None),
    "600 x 600 on 256 x 256: tiles from memory": (18, None, 0.05),
    "600 x 600 on 256 x 256: program": (18, None, 0.05),
    "600 x 600 on 512 x 512: tiles": (4, 0, None),
    "600 x 600 on 512 x 512: tiles from memory": (32, None, 0.05),
    "600 x 600 on 512 x 512: program": (32, None, 0.05),
    "exercise 7.2: weights from memory": (651.0, 0.05, None),
    "Mini-TPU: one product": (2352, 0, None),
    "Mini-TPU: three products": (5084, 0, None),
    "Mini-TPU: pooled": (2310, 0, None),
}


@pytest.mark.slow
def test_these_figures_are_wanted(validation: Validation) -> None:
    assert [check.name for check in validation.checks] == list(WANTED)
    assert validation.passed and not validation.failures


@pytest.mark.slow
@pytest.mark.parametrize("name", WANTED)
def test_wanted_figure(validation: Validation, name: str) -> None:
    published, absolute, relative = WANTED[name]
    (check,) = (check for check in validation.checks if check.name == name)
    assert check.published == pytest.approx(published, abs=5e-5)
    limit = absolute if absolute is not None else relative * published
    assert abs(check.ours - published) <= limit
    assert check.passed


@pytest.mark.parametrize("name", ["MLP0", "MLP1", "LSTM0", "LSTM1"])
def test_shares_equal_the_closed_form(name: str) -> None:
    """A tile costs the time to read it: the batch is active, 256 cycles shift, the rest waits."""
    made = count(stand_in(name))
    period = 65_536 / 34e9 * 700e6
    expected = made.batch, period - 256 - made.batch, 256
    for key, cycles in zip(("active", "weight_stall", "weight_shift"), expected, strict=True):
        # Tiles read while the first activations arrive are on time: 5 of MLP1's 100.
        assert made.scaled(key, 0) == pytest.approx(100 * cycles / period, abs=1)


@pytest.mark.parametrize("name", ["MLP0", "MLP1"])
def test_the_reference_counts_the_same_cycles(name: str) -> None:
    machine, program = presets.TPU_V1, program_of(stand_in(name), presets.TPU_V1)
    memory = machine.memory
    theirs = reference.time_program(
        program.instructions, rows=256, cols=256, double_buffered=True, tile_bytes=65_536, row_bytes=256,
        weight_bytes_per_cycle=Fraction(34_000, 700), weight_latency=0, fifo_tiles=4, lanes=256,
        activation_latency=0, host_bytes_per_cycle=Fraction(14 * 2**30, 700_000_000), host_latency=0,
        issue_cycles=memory.issue_cycles, width_factors=(1, 2, 4), rows_written=lambda item: item.rows,
    )  # fmt: skip
    ours = count(stand_in(name))
    assert (theirs.cycles, theirs.causes) == (ours.cycles, ours.causes)


def test_useful_share_of_lstm1_is_that_of_its_matrices() -> None:
    ours = count(stand_in("LSTM1")).useful_share_of_active
    assert ours == pytest.approx(600**2 / (9 * 65_536), rel=1e-12)
    # What the paper measured: 6.3 of 10.5.
    assert ours == pytest.approx(TABLE_3["useful"]["LSTM1"] / TABLE_3["active"]["LSTM1"], abs=0.011)


@pytest.mark.parametrize("name", ["LSTM0", "LSTM1"])
def test_operands_of_16_bits_explain_the_recurrent_ones(name: str) -> None:
    made = stand_in(name)
    program = with_operands(program_of(made, presets.TPU_V1), "int16", "int8")
    narrow, wide = count(made), count(made, program=program)
    non_matrix = TABLE_3["non_matrix"][name]
    for key in MATRIX:
        off = [abs(each.scaled(key, non_matrix) - TABLE_3[key][name]) for each in (narrow, wide)]
        assert off[1] <= 3 and off[1] <= off[0] + 0.1


def test_buffer_and_throughput_by_hand() -> None:
    machine = presets.TPU_V1
    rows = {row["batch"]: row for row in studies.batches(machine).to_dicts()}
    # The weights bound small batches: 20 MB of padded tiles at 34 GB/s.
    assert rows[8]["ms per batch"] == pytest.approx(320 * 65_536 / 34e6, rel=0.01)
    assert rows[200]["inferences/s"] == pytest.approx(200 / (1e-3 * rows[200]["ms per batch"]))
    # 2048 rows on 320 tiles stream longer than the tiles take to read.
    assert rows[2048]["ms per batch"] == pytest.approx(320 * 2048 / 700e3, rel=0.02 + 2048 * 16 * 12 / (320 * 2048))
    assert rows[2048]["weight stall, %"] == 0
    buffer = {row["application"]: row["ours"] for row in studies.unified_buffer({"MLP0": count(stand_in("MLP0"))}).to_dicts()}
    assert buffer["MLP0"] == 2 * 8 * 200 * 256 / 2**20


def test_where_the_time_of_the_exercise_goes_adds_up() -> None:
    rows = studies.exercise_7_2().to_dicts()
    steps = [row["cycles"] for row in rows if row["cycles"] is not None]
    assert sum(steps[:-1]) == steps[-1] and min(steps) >= 0
    # One tile: 65,536 bytes at 30 GiB/s and 700 MHz, 1424.2 cycles.
    assert steps[0] == 320 * 1425
    _, timeline = studies.exercise()
    assert timeline.cycles == steps[-1]
    assert rows[-1]["us"] == pytest.approx(steps[-1] / 700)
    # As the page says: all activations before the first product, all results behind the last.
    program, times = timeline.program, (timeline.start, timeline.end)
    reads, writes = (
        [i for i, item in enumerate(program) if isinstance(item, kind)] for kind in (isa.ReadHost, isa.WriteHost)
    )
    assert times[1][reads].max() <= timeline.swap[0] and timeline.multiplies[-1] < min(writes)
    assert times[0][writes].min() >= timeline.complete[timeline.multiplies[-1]]
    assert 651.0 + 17.4 < rows[-1]["us"] < 651.0 + 2 * 17.5


@pytest.mark.slow
def test_what_if_by_hand() -> None:
    rows = {(row["machine"], row["time"]): row for row in studies.what_if(presets.TPU_V1).to_dicts()}
    faster = rows["4x bandwidth", "program"]
    # A tile every 338 cycles instead of every 1350, of which 256 are its shift.
    assert 2.5 < faster["MLP1"] < faster["MLP0"] < faster["LSTM0"] < 4 and faster["CNN0"] == pytest.approx(1, abs=0.01)
    assert faster["all"] == pytest.approx(
        (faster["MLP0"] * faster["MLP1"] * faster["LSTM0"] * faster["LSTM1"] * faster["CNN0"] * faster["CNN1"]) ** (1 / 6)
    )
    kept = rows["4x bandwidth", "non-matrix time of table 3 kept"]
    assert kept["MLP0"] == pytest.approx(1 / (0.175 + 0.825 * 338 / 1350), rel=0.05)
    clock = rows["4x clock", "program"]
    assert clock["MLP, LSTM"] == pytest.approx(tpu_v1.WHAT_IF["4x clock, MLP and LSTM"], abs=0.02)
    larger = rows["512 x 512", "program"]
    assert larger["LSTM1"] == pytest.approx(18 / 32, abs=0.01) and larger["all"] < 1
    assert rows["GDDR5", "program"]["all"] == pytest.approx(tpu_v1.WHAT_IF["GDDR5, geometric mean"], rel=0.05)


def test_what_the_stall_and_shift_rows_say_about_a_tile() -> None:
    rows = {row["application"]: row for row in studies.cycles_per_tile({n: count(stand_in(n)) for n in APPLICATIONS}).to_dicts()}
    assert rows["MLP0"]["cycles per tile published"] == pytest.approx(256 * (53.9 + 15.9) / 15.9 + 200)
    assert rows["CNN0"]["cycles per tile published"] is None
    for name in ("MLP0", "MLP1", "LSTM0", "LSTM1"):
        assert rows[name]["cycles per tile ours"] == pytest.approx(1350, rel=0.02)


@pytest.mark.slow
def test_tables_go_through_json(validation: Validation) -> None:
    values = json.loads(json.dumps(validation.to_dict(), allow_nan=False))
    assert set(values["counters"]) == set(values["stand_ins"]) == set(APPLICATIONS)
    for name in APPLICATIONS:
        rows = values["tables"][f"table_3_{name}"]["rows"]
        assert [row["published"] for row in rows] == [row[name] for row in TABLE_3.values()]
        for row in rows:
            assert row["difference"] == pytest.approx(row["ours"] - row["published"])
    assert validation._repr_html_().count("<table") == len(validation.tables) + 1
    assert "every wanted figure is met" in validation.text()


@pytest.mark.slow
def test_a_missed_figure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = replace(presets.TPU_V1.memory, weight_bytes_per_second=30 * 2**30)
    monkeypatch.setattr(presets, "TPU_V1", replace(presets.TPU_V1, memory=slow))
    found = validate_tpu_v1()
    missed = [check.name for check in found.failures]
    assert not found.passed and "ridge point" in missed
    assert f"missed: {'; '.join(missed)}" in found.text() and "MISSED" in found.text()


@pytest.mark.parametrize(
    ("check", "difference", "passed"),
    [
        (Check("a", "us", 10, 12, 2), 2, True),
        (Check("a", "us", 10, 7.5, 2), -2.5, False),
        (Check("a", "us", 200, 210, 5, in_percent=True), 5, True),
        (Check("a", "us", 200, 189, 5, in_percent=True), -5.5, False),
        (Check("a", "tiles", 9, 9, 0), 0, True),
    ],
)
def test_checks(check: Check, difference: float, passed: bool) -> None:
    assert check.difference == pytest.approx(difference) and check.passed == passed
    assert check.to_dict()["passed"] == passed
