"""Programs and models of stand-ins: what they multiply, which rows they read, when they run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from support.strategies import raises
from systolic import isa, presets
from systolic.accelerators import StandIn, Step, count, stand_in
from systolic.accelerators.counters import tpu
from systolic.accelerators.models import model_of
from systolic.accelerators.programs import program_of, unified_buffer_rows, with_operands, with_syncs
from systolic.accelerators.studies import square_array
from systolic.accelerators.tpu_v1 import APPLICATIONS
from systolic.machine import time_program

MACHINES = {
    "preset": tpu(),
    "4x clock": replace(tpu(), clock_mhz=2800),
    "512 x 512": square_array(tpu(), 512),
    "128 x 128": square_array(tpu(), 128),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_multiplies_are_those_of_the_tiled_matrices(name: str, machine: str) -> None:
    made, of = stand_in(name), MACHINES[machine]
    rows, cols = of.array.rows, of.array.cols
    multiplies = [i for i in program_of(made, of) if isinstance(i, isa.MatrixMultiply | isa.Convolve)]
    streamed = sum(
        -(-step.inputs // rows) * -(-step.outputs // cols) * step.kernel**2 * made.batch * step.pixels
        for step in made.steps
        if step.weights
    )
    assert sum(item.rows for item in multiplies) == streamed
    half = of.array.accumulator_rows // 2
    assert max(item.rows for item in multiplies) <= half
    assert {item.acc for item in multiplies} <= {0, half}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_each_layer_reads_what_the_layers_before_it_wrote(name: str, machine: str) -> None:
    """Each row of the unified buffer has the layer that wrote it last."""
    made, of = stand_in(name), MACHINES[machine]
    program = program_of(made, of)
    names = ["nothing", "input", "output", *dict.fromkeys(step.layer for step in made.steps)]
    writers: dict[str, set[str]] = {"output": {made.steps[-1].layer}}
    for step in made.steps:
        before = {made.steps[tensor - 1].layer if tensor else "input" for tensor in step.reads}
        writers.setdefault(step.layer, set()).update(before)
    owner = np.zeros(of.memory.unified_buffer_rows, np.int16)
    layer = {n: section.name for section in program.sections for n in range(section.first, section.stop)}
    read: dict[str, set[str]] = {}
    convolutions: list[isa.Convolve] = []
    for number, item in enumerate(program):
        here = layer.get(number, "output")
        reads: list[np.ndarray] = []
        match item:
            case isa.ReadHost():
                owner[item.ub : item.ub + item.rows] = names.index("input")
            case isa.MatrixMultiply():
                reads = [owner[item.ub : item.ub + item.rows]]
            case isa.Convolve():
                convolutions.append(item)
            case isa.Vector():
                step = next(step for step in made.steps if step.layer == here)
                height, width = (size + 2 * step.border for size in step.image)
                image = (made.batch, height * width), (step.image[0], width), (step.image[1], 1)
                corner = step.border * (width + 1)
                assert item.rows == made.batch * height * width
                reads = [owner[places(first + corner, image)] for first in item.inputs]
                owner[item.ub : item.ub + program.function_of(item).rows_written(item.rows)] = names.index(here)
            case isa.Activate():
                # The tap in the middle reads the image alone; others read its border too.
                taps = [each for each in convolutions if each.acc == item.acc]
                convolutions = [each for each in convolutions if each.acc != item.acc]
                middle = taps[len(taps) // 9 * 4 : len(taps) // 9 * 5]
                reads = [owner[places(each.ub, each.pattern)] for each in middle]
                owner[places(item.ub, item.pattern or ((item.rows, 1),))] = names.index(here)
            case isa.WriteHost():
                reads = [owner[item.ub : item.ub + item.rows]]
        for rows in reads:
            read.setdefault(here, set()).update(names[each] for each in np.unique(rows))
    assert read == writers


def places(first: int, pattern: isa.Pattern) -> np.ndarray:
    """The rows of a pattern."""
    rows = np.array([first])
    for size, stride in pattern:
        rows = (rows[:, None] + np.arange(size) * stride).ravel()
    return rows


@pytest.mark.parametrize("name", APPLICATIONS)
def test_transfers_are_the_input_and_the_result(name: str) -> None:
    made = stand_in(name)
    first, last = made.steps[0], made.steps[-1]
    moved: Counter[str] = Counter()
    for item in program_of(made, tpu()):
        if isinstance(item, isa.ReadHost | isa.WriteHost):
            moved[type(item).__name__] += item.rows
    pixels = (first.image[0] + 2 * first.border) * (first.image[1] + 2 * first.border)
    assert moved == {
        "ReadHost": made.batch * pixels * -(-first.inputs // 256),
        "WriteHost": made.batch * last.pixels * -(-last.outputs // 256),
    }


@pytest.mark.parametrize("name", APPLICATIONS)
def test_causes_add_up_and_useful_macs_fit_into_the_active_cycles(name: str) -> None:
    made = count(stand_in(name))
    assert sum(made.causes.values()) == made.cycles
    assert 0 < made.useful_share_of_active <= 1
    shares = [made.row(key) for key in ("active", "weight_stall", "weight_shift", "non_matrix")]
    assert sum(shares) == pytest.approx(100)
    assert made.row("useful") + made.row("unused") == pytest.approx(made.row("active"))
    scaled = [made.scaled(key, 12.5) for key in ("active", "weight_stall", "weight_shift")]
    assert sum(scaled) == pytest.approx(87.5)
    assert made.scaled("non_matrix", 12.5) is None and made.scaled("raw_stall", 12.5) is None


@pytest.mark.parametrize("name", APPLICATIONS)
def test_models_multiply_as_much_as_table_1_says(name: str) -> None:
    made, model = stand_in(name), model_of(stand_in(name))
    assert model.summary(batch=made.batch).totals["macs"] == made.macs
    held = {id(node.layer.weight): node.layer.weight for node in model.nodes if hasattr(node.layer, "weight")}
    assert sum(weight.size for weight in held.values()) <= 5_000_000


def test_a_program_and_its_model_read_and_write_alike() -> None:
    model = model_of(stand_in("CNN1"))
    shapes = model.infer_shapes({"x": (32, 382, 7, 8)})
    assert shapes[model.outputs[0]] == ((32, 1262), "int8")


def test_weights_stay_where_a_tile_takes_longer_than_a_group() -> None:
    def reads(machine):
        return sum(i.count for i in program_of(stand_in("CNN0"), machine) if isinstance(i, isa.ReadWeights))

    # 9 taps in 16 layers, for two groups of 4 images.
    assert reads(MACHINES["preset"]) == 2 * 9 * 16
    assert reads(MACHINES["4x clock"]) == reads(MACHINES["512 x 512"]) == 9 * 16


def test_syncs_and_operands_change_the_time_and_nothing_else() -> None:
    made = stand_in("MLP1")
    program = program_of(made, tpu())
    synced, wide = with_syncs(program), with_operands(program, "int16", "int8")
    assert [i for i in synced if not isinstance(i, isa.Sync)] == list(program)
    assert len(synced) - len(program) == 3 and wide[0] == isa.SetConfiguration("int16", "int8")
    for other in (synced, wide):
        assert [section.name for section in other.sections] == [section.name for section in program.sections]
        for a, b in zip(program.sections, other.sections, strict=True):
            assert [i for i in other.instructions[b.first : b.stop] if not isinstance(i, isa.Sync | isa.SetConfiguration)] == list(
                program.instructions[a.first : a.stop]
            )
    plain, slow = time_program(program, tpu()), time_program(wide, tpu())
    assert slow.causes["active"] == 2 * plain.causes["active"]
    assert time_program(synced, tpu()).cycles > plain.cycles


def test_unified_buffer() -> None:
    # Input and result of a layer of MLP0: 200 rows for each of 8 blocks of channels.
    assert unified_buffer_rows(program_of(stand_in("MLP0"), tpu())) == 2 * 8 * 200
    # Images of 19 x 19 with their border.
    assert unified_buffer_rows(program_of(stand_in("CNN0"), tpu())) == 2 * 8 * 21 * 21


def test_program_of_refuses() -> None:
    made = stand_in("MLP0")
    with raises(ValueError, "a program needs a machine with memories; pass memory=presets.TPU_V1_MEMORY"):
        program_of(made, replace(presets.TPU_V1, memory=None))
    small = replace(tpu(), memory=replace(tpu().memory, unified_buffer_rows=3000))
    with raises(
        ValueError,
        "fc 1 needs 1,600 rows of the unified buffer from row 1,600 on, which has 3,000; take a smaller batch",
    ):
        program_of(made, small)
    image = Step(layer="conv 1", kind="conv", reads=(0,), inputs=3, outputs=3, kernel=3, image=(64, 64), result=(64, 64))
    with raises(ValueError, "conv 1 has images of 4,096 pixels, but half the accumulators hold 2,048 rows"):
        program_of(StandIn(name="large", batch=1, steps=(image,), reasoning=""), tpu())
