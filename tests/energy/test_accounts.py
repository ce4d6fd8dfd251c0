"""Counts of what happens against runs, and their energies by component and layer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import systolic
from support import compiled
from support.compiled import machine as small_machine
from support.naive_tiling import naive_folds
from support.strategies import codes, examples, problems, raises, seeds
from systolic import ArrayConfig, Gemm, MachineConfig, Model, Node, Stats, conv2d, estimate, matmul
from systolic.dataflows import register_bits
from systolic.energy import COMPONENTS, TABLES, Activity, Energy, Toggles, total_pj
from systolic.isa import Activate, Convolve, MatrixMultiply, Program, ReadHost, ReadWeights, Vector, WriteHost
from systolic.layers import ArrayMatMul, DynamicQuantizeLSTM
from systolic.machine.timeline import row_bytes


@examples(40)
@given(problems(max_m=12))
def test_register_writes_are_those_of_a_run(problem: tuple[ArrayConfig, int, int, int]) -> None:
    """With ones for all operands, registers show where a real value is."""
    array, m, k, n = problem
    x, w = np.ones((m, k), array.activation_dtype), np.ones((k, n), array.weight_dtype)
    result = matmul(x, w, array=array, trace=True)
    trace = {name: result.trace[name].astype(np.int64) for name in array.register_dtypes}
    works = int(((trace["activation"] == 1) & (trace["weight"] == 1)).sum())
    gemm = Gemm(m, k, n)
    # Swaps that open a product, or a single-buffered fold, carry no sum out.
    openings = (1 if array.double_buffered else len(naive_folds(gemm, array))) * array.rows * array.cols
    ones = {name: int(trace[name].sum()) for name in trace}
    if array.dataflow == "output_stationary":
        swaps = ones["swap"] - openings
        expected = {"activation": works, "weight": works, "acc": works, "out": swaps + ones["drain"],
                    "out_pass": ones["drain"], "swap": swaps, "drain": ones["drain"]}  # fmt: skip
    else:
        expected = {
            "weight": ones["swap"], "next_weight": ones["shift"], "weight_pass": ones["shift"], "activation": works,
            "psum": int((trace["psum"] != 0).sum()), "shift": ones["shift"], "swap": ones["swap"],
        }  # fmt: skip
    (activity,) = result.energy.activities
    assert activity.register_writes == expected
    assert activity.gated_pe_cycles == array.rows * array.cols * result.cycles - works
    bits = register_bits(array.dataflow_record, array.format)
    assert activity.written_bits == {name: count * bits[name] for name, count in expected.items()}
    moving = {register.name for register in array.dataflow_record.registers if register.moves}
    assert activity.hop_bits == {name: count for name, count in activity.written_bits.items() if name in moving}


@examples(20)
@given(problems(max_m=12), seeds)
def test_zero_macs_are_counted_with_toggles(problem: tuple[ArrayConfig, int, int, int], seed: int) -> None:
    array, m, k, n = problem
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (m, k)).astype(array.activation_dtype)
    w = rng.integers(0, 3, (k, n)).astype(array.weight_dtype)
    assert matmul(x, w, array=array).energy.counts["zero_macs"] is None
    result = matmul(x, w, array=array, probe=Toggles())
    zeros = sum(int(x[i, j]) * int(w[j, c]) == 0 for i in range(m) for j in range(k) for c in range(n))
    assert result.zero_macs == result.energy.counts["zero_macs"] == zeros


def test_zero_macs_of_a_convolution() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 2, (2, 4, 5, 6)).astype(np.uint8), rng.integers(-1, 2, (6, 2, 3, 3)).astype(np.int8)
    options: dict[str, Any] = {"padding": 1, "stride": 2, "groups": 2, "array": ArrayConfig(5, 4)}
    result = conv2d(x, w, **options, probe=Toggles())
    # Products of zeros and ones: one for each MAC without a zero, a padded pixel included.
    nonzero = conv2d((x != 0).astype(np.uint8), (w != 0).astype(np.int8), **options).acc.sum()
    assert result.zero_macs == result.stats.macs - nonzero


def accesses(program: Program, on: MachineConfig) -> Stats:
    """Accesses of a program, instruction by instruction."""
    array, memory = on.array, on.memory
    assert memory is not None
    row, tile = row_bytes(on, memory), array.rows * array.cols
    sums, acc, ub, fifo, fetched, host, vector = 0, 0, 0, 0, 0, 0, 0
    loaded = sum(getattr(item, "new_weights", False) for item in program)
    left = loaded + memory.fifo_tiles
    for item in program:
        match item:
            case ReadHost() | WriteHost():
                host, ub = host + item.rows * row, ub + item.rows * row
            case ReadWeights():
                taken = min(item.count, left)
                left -= taken
                fetched, fifo = fetched + taken * tile, fifo + taken * tile
            case MatrixMultiply() | Convolve():
                sums += item.rows * array.cols
                ub += item.rows * array.rows
                acc += 4 * item.rows * array.cols * (2 if item.accumulate else 1)
                fifo += tile if item.new_weights else 0
            case Activate() | Vector():
                written = program.function_of(item).rows_written(item.rows)
                reads = 1 if isinstance(item, Activate) else len(item.inputs)
                ub += written * row
                vector += reads * item.rows * array.cols
                if isinstance(item, Activate):
                    acc += 4 * item.rows * array.cols
                else:
                    ub += reads * item.rows * row
    return Stats(
        partial_sums=sums, accumulator_bytes=acc, unified_buffer_bytes=ub, weight_fifo_bytes=fifo,
        weight_memory_bytes=fetched, host_bytes=host, vector_operations=vector,
    )  # fmt: skip


NAMES = ("partial_sums", "accumulator_bytes", "unified_buffer_bytes", "weight_fifo_bytes", "weight_memory_bytes",
         "host_bytes", "vector_operations")  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_accesses_of_programs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = compiled.residual(rng) if seed % 2 else compiled.flat(rng, "NHWC" if seed else "NCHW")
    on = small_machine(rows=int(rng.integers(4, 12)), cols=int(rng.integers(4, 12)))
    (spec,) = model.inputs.values()
    x = codes(rng, (3, *spec.shape[1:]), "int8")
    run = systolic.run(model, x, machine=on, mode=("wavefront", "cycle")[seed // 2])
    found = accesses(run.program, on)
    for field in NAMES:
        assert getattr(run.stats, field) == getattr(found, field), field
    assert run.stats == estimate(model, machine=on, batch=3) == sum((layer.stats for layer in run.layers), Stats())
    assert run.energy.total_pj == pytest.approx(total_pj(run.stats, on, TABLES["45nm"]))
    parts = run.energy.components_pj
    assert all(parts[part] > 0 for part in COMPONENTS) and sum(parts.values()) == pytest.approx(run.energy.total_pj)


def test_tiles_that_no_multiply_makes_room_for_are_not_fetched() -> None:
    on = small_machine(fifo_tiles=2)
    program = Program("read_weights w#0, 5 \n read_host u#0, 8 \n matmul a#0, u#0, 8")
    stats = estimate(program, machine=on)
    assert stats.weight_memory_bytes == 3 * 64 and stats.weight_fifo_bytes == 4 * 64


# Energies


STATS = Stats(cycles=100, macs=1000, pe_cycles=1600, folds=3, partial_sums=50, accumulator_bytes=400,
              unified_buffer_bytes=300, weight_fifo_bytes=200)  # fmt: skip
FLAT = TABLES["45nm"].replace(
    name="flat", sram_pj_per_byte={1: 2}, register_pj_per_bit=0.5, hop_pj_per_bit=0.25, leakage_pj_per_pe_cycle=0.01,
    idle_pj_per_pe_cycle=0.1, vector_operation_pj=7,
)  # fmt: skip


def activity(**options: Any) -> Activity:
    return Activity(**{"name": "a", "layer": "Dense", "stats": STATS, "array": ArrayConfig(4, 4), **options})


def test_components() -> None:
    on = MachineConfig(ArrayConfig(4, 4))
    parts = activity().components_pj(FLAT, on)
    assert tuple(parts) == COMPONENTS
    bits = activity().written_bits
    assert parts == pytest.approx({
        "macs": 1000 * (0.2 + 0.1), "registers": 0.5 * sum(bits.values()),
        "hops": 0.25 * sum(bits[name] for name in ("weight_pass", "activation", "psum", "shift", "swap")),
        "accumulators": 400 * 2 + 50 * 0.1, "unified_buffer": 600, "weight_fifo": 400, "weight_memory": 0,
        "host_link": 0, "vector_unit": 0, "idle": 600 * 0.1 + 1600 * 0.01,
    })  # fmt: skip


def test_data_dependent_components() -> None:
    on = MachineConfig(ArrayConfig(4, 4))
    toggles = {"weight": 10, "next_weight": 20, "weight_pass": 30, "activation": 40, "psum": 50, "shift": 60, "swap": 70}
    given = activity(toggles=toggles, zero_macs=250)
    parts = given.components_pj(FLAT, on)
    # Energies per bit are for bits of which half change.
    assert parts["registers"] == pytest.approx(2 * 280 * 0.5) and parts["hops"] == pytest.approx(2 * 250 * 0.25)
    assert parts["macs"] == activity().components_pj(FLAT, on)["macs"]
    gating = FLAT.replace(zero_mac_share=0.2)
    assert given.components_pj(gating, on)["macs"] == pytest.approx((750 + 50) * 0.3)


def test_formats_take_their_entries() -> None:
    on = MachineConfig(ArrayConfig(4, 4))
    wide = ArrayConfig(4, 4, activation_dtype="int16", psum_bits=64)
    parts = activity(array=wide).components_pj(FLAT, on)
    assert parts["macs"] == pytest.approx(1000 * (1.0 + 0.2)) and parts["accumulators"] == pytest.approx(810)
    half = ArrayConfig(4, 4, activation_dtype="float16", weight_dtype="float16")
    assert activity(array=half).components_pj(FLAT, on)["macs"] == pytest.approx(1000 * (1.1 + 0.9))


def test_larger_memories_cost_more() -> None:
    small, large = small_machine(ub=64), small_machine(ub=4096)
    stats = Stats(unified_buffer_bytes=100)
    table = TABLES["45nm"]
    assert total_pj(stats, small, table) < total_pj(stats, large, table)
    # The ideal machine's buffer has no size: that of the largest memory there is.
    assert total_pj(stats, MachineConfig(small.array), table) == 100 * table.sram(2**60)
    assert total_pj(stats, small.array, table) == total_pj(stats, MachineConfig(small.array), table)
    with raises(TypeError, "machine must be a MachineConfig or an ArrayConfig, not str"):
        total_pj(stats, "tpu-v1", table)  # type: ignore[arg-type]


def test_energy_of_layers() -> None:
    on = MachineConfig(ArrayConfig(4, 4))
    idle = Activity(name="relu", layer="Relu", stats=Stats(), array=on.array)
    energy = Energy([activity(), activity(name="b"), idle], on, FLAT)
    one, other, nothing = energy.rows()
    assert one["node"] == "a" and one["energy_pj"] == other["energy_pj"] > 0 == nothing["energy_pj"]
    assert one["energy_pj"] == pytest.approx(sum(one[f"{name}_pj"] for name in COMPONENTS))
    assert energy.total_pj == pytest.approx(2 * one["energy_pj"]) and energy.stats == STATS + STATS
    assert energy.counts["macs"] == {on.array.format.text: 2000} and energy.counts["gated_pe_cycles"] == 1200
    assert energy.counts["toggles"] is None and energy.counts["zero_macs"] is None
    text = str(energy.counts_table())
    assert "not counted" in text and "none: ideal machine" in text and "idle and leakage" in text
    assert "relu" in str(energy) and "45nm" in repr(energy.using("45nm"))
    data = json.loads(json.dumps(energy.to_dict()))
    assert data["energy_pj"] == energy.total_pj and len(data["layers"]) == 3
    frame = pytest.importorskip("pandas") and energy.to_frame()
    assert frame["energy_pj"].sum() == pytest.approx(energy.total_pj)
    with raises(TypeError, "energies must be a table, its name, or a file"):
        energy.using(None)  # type: ignore[arg-type]


def test_equal_runs_have_equal_energy() -> None:
    example, array = systolic.load_example(), ArrayConfig(16, 16)
    first, second = (
        systolic.run(example.model, example.images[:1], mode="wavefront", machine=array).energy for _ in range(2)
    )
    assert first == second and first.using("7nm") != first
    other = systolic.run(example.model, example.images[:2], mode="wavefront", machine=array).energy
    assert other != first


def test_drawing() -> None:
    pytest.importorskip("matplotlib")
    on = MachineConfig(ArrayConfig(4, 4))
    figure = Energy([activity(), activity(name="a name that is far too long for an axis")], on, FLAT).plot()
    (ax,) = figure.axes
    assert len(ax.containers) == 7 and [text.get_text() for text in ax.get_yticklabels()] == ["a", "a name that…or an axis"]
    widths = sum(bar.get_width() for bars in ax.containers for bar in bars)
    assert widths == pytest.approx(2 * sum(activity().components_pj(FLAT, on).values()))
    with raises(ValueError, "there is nothing to draw: no layer took any energy on the machine"):
        Energy([], on, FLAT).plot()


def test_runs_reports_and_summaries() -> None:
    example = systolic.load_example()
    array = ArrayConfig(16, 16)
    run = systolic.run(example.model, example.images[:1], machine=array, mode="wavefront")
    report, summary = run.report(), systolic.summary(example.model, machine=array)
    assert run.energy.total_pj == pytest.approx(total_pj(run.stats, run.machine, TABLES["45nm"]))
    assert report.totals["energy_pj"] == run.to_dict()["energy_pj"] == run.energy.total_pj
    assert summary.totals["energy_pj"] == pytest.approx(run.energy.total_pj)
    assert sum(row["energy_pj"] or 0 for row in report.rows) == pytest.approx(run.energy.total_pj)
    assert [row["energy_pj"] for row in report.rows] == [row["energy_pj"] for row in summary.rows]
    assert all(row["macs_pj"] > 0 for row in report.rows if row["on"] == "array")
    assert "energy" in str(run.table()) and "energy" in str(report) and "energy" in str(summary)
    assert "Energy by table 45nm" in report.html()
    if pytest.importorskip("pandas"):
        assert run.to_frame()["energy_pj"].sum() == pytest.approx(run.energy.total_pj)
    modern = systolic.run(example.model, example.images[:1], machine=array, mode="wavefront", energy="7nm")
    assert modern.energy.energies == TABLES["7nm"] and modern.energy.total_pj < run.energy.total_pj
    none = systolic.run(example.model, example.images[:1], machine=array, mode="wavefront", energy=None)
    assert none.energy is None and "energy" not in str(none.report()) and "energy_pj" not in none.report().rows[0]
    assert systolic.summary(example.model, machine=array, energy=None).energy is None
    with raises(ValueError, "energy must be a table's name, a .json or .yaml file of one, or None, not '7 nm'; did you mean '7nm'?"):
        systolic.run(example.model, example.images[:1], energy="7 nm")


def test_a_run_counts_the_toggles_of_every_layer() -> None:
    example = systolic.load_example()
    array, toggles = ArrayConfig(16, 16), Toggles()
    run = systolic.run(example.model, example.images[:1], machine=array, probe=toggles)
    counted = [layer.toggles for layer in run.layers if layer.gemm is not None]
    assert all(each is not None for each in counted) and all(layer.toggles is None for layer in run.layers if layer.gemm is None)
    total = {name: sum(each[name] for each in counted) for name in toggles.counts}
    assert total == toggles.counts == run.energy.counts["toggles"]
    assert 0 < run.energy.counts["zero_macs"] < run.stats.macs
    estimated = systolic.run(example.model, example.images[:1], machine=array, mode="wavefront").energy
    assert run.energy.components_pj["registers"] != estimated.components_pj["registers"]
    assert run.energy.components_pj["idle"] == estimated.components_pj["idle"]
    # One layer alone.
    name = run.layers[1].name
    only = Toggles(name)
    one = systolic.run(example.model, example.images[:1], machine=array, probe=only)
    assert only.counts == counted[0] and [layer.name for layer in one.layers if layer.toggles] == [name]
    assert one.energy.counts["toggles"] is None


def test_all_products_of_a_layer_are_counted() -> None:
    # A product for each time step.
    rng = np.random.default_rng(5)
    constants = {
        "w": codes(rng, (1, 3, 8), "int8"), "r": codes(rng, (1, 2, 8), "int8"),
        "w_scale": np.float32([0.01]), "w_zero": np.int8([0]), "r_scale": np.float32([0.02]), "r_zero": np.int8([0]),
    }  # fmt: skip
    node = Node(DynamicQuantizeLSTM(2), ("x", "w", "r", "w_scale", "w_zero", "r_scale", "r_zero"), ("y", "h", "c"))
    model = Model([node], inputs={"x": ((3, 2, 3), "float32")}, outputs=["y"], constants=constants)
    toggles = Toggles()
    x = rng.standard_normal((3, 2, 3)).astype(np.float32)
    run = systolic.run(model, x, machine=ArrayConfig(4, 4), probe=toggles)
    (layer,) = run.layers
    assert layer.products > 1 and layer.toggles == toggles.counts and layer.zero_macs is not None
    # Every product starts on an idle array, where its tiles toggle the weights.
    first = Toggles()
    matmul(np.zeros((2, 3), np.uint8), constants["w"][0], array=ArrayConfig(4, 4), probe=first)
    assert toggles.counts["weight"] > first.counts["weight"] > 0


def test_layers_are_priced_in_their_own_format() -> None:
    rng = np.random.default_rng(6)
    weights = rng.standard_normal((20, 7)).astype(np.float32)
    x = rng.standard_normal((5, 20)).astype(np.float32)
    for compute in ("bfloat16", "float16"):
        node = Node(ArrayMatMul(compute), ("x", "w"), "y")
        model = Model([node], inputs={"x": ((None, 20), "float32")}, constants={"w": weights})
        run = systolic.run(model, x, machine=ArrayConfig(4, 4), mode="wavefront", energy="7nm")
        summary = systolic.summary(model, machine=ArrayConfig(4, 4), batch=5, energy="7nm")
        table = TABLES["7nm"]
        expected = 5 * 20 * 7 * (table[f"mul_{compute}_pj"] + table["add_float32_pj"])
        assert run.energy.components_pj["macs"] == pytest.approx(expected)
        assert summary.energy.components_pj == pytest.approx(run.energy.components_pj)
