"""Programs and models of stand-ins: what they multiply, which rows they read, when they run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import systolic
from support import stand_in_programs
from support.strategies import raises
from systolic import isa, presets
from systolic.accelerators import count, stand_in
from systolic.accelerators.counters import MATRIX
from systolic.accelerators.models import model_of
from systolic.accelerators.programs import (
    layer_of,
    program_of,
    unified_buffer_rows,
    with_operands,
    with_syncs,
)
from systolic.accelerators.stand_ins import KINDS
from systolic.accelerators.studies import square_array
from systolic.accelerators.tpu_v1 import APPLICATIONS

MACHINES = {
    "preset": presets.TPU_V1,
    "4x clock": replace(presets.TPU_V1, clock_mhz=2800),
    "512 x 512": square_array(presets.TPU_V1, 512),
    "128 x 128": square_array(presets.TPU_V1, 128),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_multiplies_are_those_of_the_tiled_matrices(name: str, machine: str) -> None:
    made, of = stand_in(name), MACHINES[machine]
    rows, cols = of.array.rows, of.array.cols
    program = program_of(made, of)
    multiplies = [i for i in program if isinstance(i, isa.MatrixMultiply | isa.Convolve)]
    streamed = sum(
        -(-step.inputs // rows) * -(-step.outputs // cols) * step.kernel**2 * made.batch * step.pixels
        for step in made.steps
        if step.weights
    )
    assert sum(item.rows for item in multiplies) == streamed
    assert max(item.rows for item in multiplies) <= of.array.accumulator_rows // 2
    assert sum(section.macs or 0 for section in program.sections) == made.macs


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_another_scheduler_gets_the_same_shares(name: str, machine: str) -> None:
    """Counters of the compiled program and of one that shares nothing with the compiler."""
    made, of = stand_in(name), MACHINES[machine]
    ours, theirs = count(made, of), count(made, of, stand_in_programs.program_of(made, of))
    assert ours.causes["active"] == theirs.causes["active"]
    for key in MATRIX:
        assert ours.scaled(key, 0) == pytest.approx(theirs.scaled(key, 0), abs=1)
    # The compiler moves whole tensors where the other moves blocks, and multiplies gates pair by pair.
    transfers = ours.causes["input_stall"] + ours.causes["other_stall"]
    assert abs(ours.cycles - theirs.cycles) <= max(0.03 * theirs.cycles, 1.1 * transfers)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_transfers_are_the_input_and_the_result(name: str) -> None:
    made = stand_in(name)
    first, last = made.steps[0], made.steps[-1]
    moved: Counter[str] = Counter()
    for item in program_of(made, presets.TPU_V1):
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


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_with_data_programs_and_models_give_the_same_bits(name: str) -> None:
    model = model_of(stand_in(name))
    x = np.random.default_rng(1).integers(-128, 128, (2, *model.inputs["x"].shape[1:]), dtype=np.int8)
    alone, fed = (
        systolic.run(model, x, machine=machine, mode="wavefront").outputs[model.outputs[0]]
        for machine in (replace(presets.TPU_V1, memory=None), presets.TPU_V1)
    )
    assert np.array_equal(alone, fed) and len(np.unique(alone)) > 4


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


@pytest.mark.parametrize("name", APPLICATIONS)
def test_syncs_stand_between_the_layers_of_table_1(name: str) -> None:
    made = stand_in(name)
    program = program_of(made, presets.TPU_V1)
    synced = with_syncs(program)
    assert [item for item in synced if not isinstance(item, isa.Sync)] == list(program)
    layers = [layer_of(section) for section in synced.sections]
    changes = [number for number in range(1, len(layers)) if layers[number] != layers[number - 1]]
    assert len(changes) == sum(made.layers(kind) for kind in KINDS) - 1
    assert [synced[synced.sections[number].first] for number in changes] == [isa.Sync()] * len(changes)
    assert count(made, program=synced).causes["active"] == count(made).causes["active"]


def test_wide_operands_stream_at_half_speed() -> None:
    program = program_of(stand_in("MLP1"), presets.TPU_V1)
    wide = with_operands(program, "int16", "int8")
    assert wide[0] == isa.SetConfiguration("int16", "int8") and wide.instructions[1:] == program.instructions
    for before, after in zip(program.sections, wide.sections, strict=True):
        assert wide.instructions[after.first : after.stop][-3:] == program.instructions[before.first : before.stop][-3:]
    assert count(stand_in("MLP1"), program=wide).causes["active"] == 2 * count(stand_in("MLP1")).causes["active"]


def test_unified_buffer() -> None:
    # Input and result of a layer of MLP0: 200 rows for each of 8 blocks of channels.
    assert unified_buffer_rows(program_of(stand_in("MLP0"), presets.TPU_V1)) == 2 * 8 * 200
    # Images of 19 x 19 with their border.
    assert unified_buffer_rows(program_of(stand_in("CNN0"), presets.TPU_V1)) == 2 * 8 * 21 * 21


def test_program_of_refuses() -> None:
    made = stand_in("MLP0")
    with raises(ValueError, "a program needs a machine with memories: MachineConfig(..., memory=MemoryConfig(...))"):
        program_of(made, replace(presets.TPU_V1, memory=None))
