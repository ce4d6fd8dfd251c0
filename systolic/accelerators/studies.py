"""Smaller comparisons with the TPU paper, each a table: rates, batches, buffer, variants, open choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from systolic import isa, presets
from systolic._show.table import Column, Table
from systolic.accelerators.counters import Counters, count
from systolic.accelerators.programs import program_of, with_operands, with_syncs
from systolic.accelerators.stand_ins import StandIn, Step, stand_in
from systolic.accelerators.tpu_v1 import (
    APPLICATIONS,
    EXAMPLE_600,
    EXAMPLE_600_TILES,
    PEAK_TERA_OPS,
    RIDGE_POINT,
    TABLE_1,
    TABLE_3,
    TABLE_4_LATENCY,
    TABLE_4_THROUGHPUT,
    TABLE_5,
    TABLE_7,
    TABLE_8,
    THROUGHPUT,
    WHAT_IF,
)
from systolic.config import MachineConfig, MemoryConfig
from systolic.machine.timeline import Timeline, time_program, transfer_cycles

SHARE_600 = 600**2 / (9 * 256**2)
"""What a 600 x 600 matrix fills of its 9 tiles: 0.610."""


def figure(value: float) -> str:
    """Return a number with the digits that a comparison needs: whole ones in full, others to 4 digits."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _percent_of(ours: float, published: float) -> float:
    return 100 * (ours / published - 1)


def memory_of(machine: MachineConfig) -> MemoryConfig:
    """Return a machine's memories."""
    assert machine.memory is not None
    return machine.memory


def with_memory(machine: MachineConfig, **changes: Any) -> MachineConfig:
    """Return a machine with other memories."""
    return replace(machine, memory=replace(memory_of(machine), **changes))


def square_array(machine: MachineConfig, size: int) -> MachineConfig:
    """Return a machine with a square array of another size, the paths and vector unit as wide as it.

    Bytes of the unified buffer and of host memory stay; the FIFO holds as many tiles, which are larger.

    Examples
    --------
    >>> from systolic.accelerators.studies import square_array
    >>> from systolic import presets
    >>> square_array(presets.TPU_V1, 512).memory.unified_buffer_rows * 512 == 24 * 2**20
    True
    """
    memory, old = memory_of(machine), machine.array.rows
    array = replace(machine.array, rows=size, cols=size)
    return replace(
        machine,
        array=array,
        memory=replace(
            memory,
            row_bytes=size,
            lanes=size,
            unified_buffer_rows=memory.unified_buffer_rows * old // size,
            host_rows=memory.host_rows * old // size,
        ),
    )


def rates(counters: Mapping[str, Counters]) -> Table:
    """Return operations per second beside those of table 3, and the error of the designers' own model."""
    rows = []
    for name, each in counters.items():
        published, ours = TABLE_3["tera_ops"][name], each.row("tera_ops")
        scaled = each.scaled("tera_ops", TABLE_3["non_matrix"][name])
        assert scaled is not None
        rows.append(
            (name, 1e3 * each.seconds, published, ours, _percent_of(ours, published), scaled,
             _percent_of(scaled, published), TABLE_7[name], 100 * published / PEAK_TERA_OPS["8 bit"],
             TABLE_3["useful"][name])
        )  # fmt: skip
    columns = (
        "application", Column("ms per batch", ">", ".3f"), Column("TeraOps/s published", ">", ".1f"),
        Column("ours", ">", ".1f"), Column("difference, %", ">", "+.1f"), Column("scaled", ">", ".1f"),
        Column("scaled difference, %", ">", "+.1f"), Column("designers' model, %", ">", ".1f"),
        Column("published, % of peak", ">", ".1f"), Column("useful MACs published, %", ">", ".1f"),
    )  # fmt: skip
    return Table(columns, rows, title="Operations per second, and table 7")


def non_matrix(counters: Mapping[str, Counters]) -> Table:
    """Return non-matrix shares, also of programs that wait between layers until everything is done."""
    rows = []
    for name, each in counters.items():
        made = stand_in(name)
        waits = count(made, each.machine, with_syncs(program_of(made, each.machine)))
        rows.append(
            (name, TABLE_3["non_matrix"][name], each.row("non_matrix"), waits.row("non_matrix"),
             TABLE_3["active"][name], each.row("active"), waits.row("active"),
             _percent_of(waits.cycles, each.cycles))
        )  # fmt: skip
    shares = (
        "non-matrix published", "ours", "with a Sync", "active published", "active ours",
        "active with a Sync",
    )  # fmt: skip
    columns: list[str | Column] = ["application", *(Column(name, ">", ".1f") for name in shares)]
    columns.append(Column("time with a Sync, %", ">", "+.1f"))
    return Table(columns, rows, title="Non-matrix shares, % of cycles, and with a Sync between all layers")


def cycles_per_tile(counters: Mapping[str, Counters]) -> Table:
    """Return what table 3 says about the time for a weight tile, which it does not list."""
    rows = []
    for name, each in counters.items():
        published = _tile({key: row[name] for key, row in TABLE_3.items()}, each.batch)
        ours = _tile({key: each.row(key) for key in TABLE_3}, each.batch)
        rows.append((name, *published, *ours))
    columns = (
        "application", Column("cycles per tile published", ">", ".0f"), Column("GB/s", ">", ".1f"),
        Column("weight-bound published, %", ">", ".1f"), Column("cycles per tile ours", ">", ".0f"),
        Column("GB/s ours", ">", ".1f"), Column("weight-bound ours, %", ">", ".1f"),
    )  # fmt: skip
    note = (
        "A tile whose weights the array waits for costs its stall, 256 cycles of shift and as many as\n"
        "the batch: 256 (stall + shift) / shift + batch. Weight-bound: such tiles' share of the time in\n"
        "which the array is active or waits for weights."
    )
    return Table(columns, rows, title="Weight-bound tiles, from the stall and shift rows", footer=note)


def _tile(row: Mapping[str, float], batch: int) -> tuple[float | None, float | None, float]:
    """Return cycles per weight-bound tile, the bandwidth they mean in GB/s, and the share of such tiles."""
    stall, shift = row["weight_stall"], row["weight_shift"]
    if not shift:
        return None, None, 0.0
    cycles = 256 * (stall + shift) / shift + batch
    share = (stall + shift + shift * batch / 256) / (100 - row["non_matrix"])
    return cycles, 256 * 256 / cycles * 0.7, 100 * share


def closed_form_600(machine: MachineConfig) -> float:
    """Return the time to read the tiles of a 600 x 600 matrix, in us."""
    side = machine.array.rows
    size = (-(-600 // side)) ** 2 * side**2
    return 1e6 * float(size / memory_of(machine).weight_bytes_per_second)


def program_600(machine: MachineConfig) -> tuple[isa.Program, float]:
    """Return a program of one 600 x 600 matrix, as LSTM1 has them, and its time in us.

    The activations, a batch of 96, lie in the unified buffer, and the result stays there.
    """
    layer = Step(layer="fc 1", kind="fc", reads=(0,), inputs=600, outputs=600)
    one = StandIn(name="600 x 600", batch=stand_in("LSTM1").batch, steps=(layer,), reasoning="")
    transfers = isa.ReadHost, isa.WriteHost
    whole = program_of(one, machine)
    kept = tuple(item for item in whole if not isinstance(item, transfers))
    program = isa.Program(kept, whole.functions)
    return program, 1e6 * machine.seconds(time_program(program, machine).cycles)


def example_600(machine: MachineConfig) -> Table:
    """Return the paper's example of a larger array that is slower."""
    rows = []
    for size in (256, 512):
        of_size, published = square_array(machine, size), EXAMPLE_600[str(size)]
        closed, (_, timed) = closed_form_600(of_size), program_600(of_size)
        rows.append(
            (f"{size} x {size}", EXAMPLE_600_TILES[str(size)], published, closed,
             _percent_of(closed, published), timed, _percent_of(timed, published))
        )  # fmt: skip
    columns = (
        "array", Column("tiles", ">", "g"), Column("published, us", ">", "g"),
        Column("tiles from memory, us", ">", ".2f"), Column("difference, %", ">", "+.1f"),
        Column("program, us", ">", ".2f"), Column("program's difference, %", ">", "+.1f"),
    )  # fmt: skip
    return Table(columns, rows, title="A 600 x 600 matrix")


def batches(machine: MachineConfig) -> Table:
    """Return MLP0's time and throughput by batch size, beside table 4."""
    rows = []
    for batch in (8, 16, 32, 64, 128, 200, 250, 512, 1024, 1350, 2048):
        counters = count(replace(stand_in("MLP0"), batch=batch), machine)
        rows.append(
            (batch, 1e3 * counters.seconds, batch / counters.seconds, counters.row("weight_stall"),
             TABLE_4_LATENCY.get(str(batch)), TABLE_4_THROUGHPUT.get(str(batch)))
        )  # fmt: skip
    columns = (
        "batch", Column("ms per batch", ">", ".3f"), Column("inferences/s", ">", ",.0f"),
        Column("weight stall, %", ">", ".1f"), Column("response published, ms", ">", ".1f"),
        Column("inferences/s published", ">", ",.0f"),
    )  # fmt: skip
    return Table(columns, rows, title="Table 4: MLP0 by batch size")


def throughput(counters: Mapping[str, Counters]) -> Table:
    """Return inferences per second where the paper states them, and the operations that they mean."""
    machine = counters["MLP0"].machine
    published = [("MLP0", int(batch), rate) for batch, rate in TABLE_4_THROUGHPUT.items()]
    published += [(name, counters[name].batch, rate) for name, rate in THROUGHPUT.items()]
    rows = []
    for name, batch, rate in published:
        ours = batch / count(replace(stand_in(name), batch=batch), machine).seconds
        with_host = ours / (1 + TABLE_5[name] / 100)
        # 2 operations for each use of a weight; table 1's uses are of a whole batch.
        macs = TABLE_1["weights"][name] * TABLE_1["macs_per_weight_byte"][name] / TABLE_1["batch"][name]
        rows.append(
            (name, batch, rate, ours, _percent_of(ours, rate), TABLE_5[name], with_host,
             _percent_of(with_host, rate), 2 * macs * rate / 1e6, TABLE_3["tera_ops"][name])
        )  # fmt: skip
    columns = (
        "application", "batch", Column("published, inferences/s", ">", ",.0f"), Column("ours", ">", ",.0f"),
        Column("difference, %", ">", "+.1f"), Column("host time, % (table 5)", ">", "g"),
        Column("ours with host", ">", ",.0f"), Column("its difference, %", ">", "+.1f"),
        Column("TeraOps/s they mean by table 1", ">", ".1f"), Column("TeraOps/s in table 3", ">", ".1f"),
    )  # fmt: skip
    return Table(columns, rows, title="Inferences per second")


def unified_buffer(counters: Mapping[str, Counters]) -> Table:
    """Return the unified buffer used, beside table 8."""
    rows = [
        (name, TABLE_8[name], each.unified_buffer_bytes / 2**20,
         each.unified_buffer_bytes / 2**20 - TABLE_8[name])
        for name, each in counters.items()
    ]  # fmt: skip
    columns = (
        "application", Column("published, MiB", ">", ".1f"), Column("ours", ">", ".1f"),
        Column("difference", ">", "+.1f"),
    )  # fmt: skip
    return Table(columns, rows, title="Table 8: unified buffer used at most")


def _variants(machine: MachineConfig) -> dict[str, MachineConfig]:
    array, memory = machine.array, memory_of(machine)
    gddr5 = array.rows * array.cols * machine.clock_mhz * 1_000_000 / RIDGE_POINT["GDDR5"]
    return {
        "4x bandwidth": with_memory(machine, weight_bytes_per_second=4 * memory.weight_bytes_per_second),
        "4x clock": replace(machine, clock_mhz=4 * machine.clock_mhz),
        "512 x 512": square_array(machine, 512),
        "GDDR5": with_memory(machine, weight_bytes_per_second=int(gddr5)),
    }


_SAID = {
    "4x bandwidth": "3 (weighted mean)",
    "4x clock": "about 1 for MLP and LSTM, 2 for CNN",
    "512 x 512": "slightly slower",
    "GDDR5": f"{WHAT_IF['GDDR5, geometric mean']:g} (geometric mean), "
    f"{WHAT_IF['GDDR5, weighted mean']:g} (weighted mean)",
}


def what_if(machine: MachineConfig) -> Table:
    """Return how much faster other machines run the stand-ins, beside the paper's design study."""
    base = {name: count(stand_in(name), machine) for name in APPLICATIONS}
    rows = []
    for what, variant in _variants(machine).items():
        speed, kept = [], []
        for name, before in base.items():
            after = count(stand_in(name), variant)
            speed.append(before.seconds / after.seconds)
            fixed = TABLE_3["non_matrix"][name] / 100
            kept.append(1 / (fixed + (1 - fixed) * after.matrix_seconds / before.matrix_seconds))
        for how, values in (("program", speed), ("non-matrix time of table 3 kept", kept)):
            means = [_mean(values[:4]), _mean(values[4:]), _mean(values)]
            rows.append((what, how, *values, *means, _SAID[what]))
    names = (*APPLICATIONS, "MLP, LSTM", "CNN", "all")
    times = (Column(name, ">", ".2f") for name in names)
    columns: list[str | Column] = ["machine", "time", *times, "published"]
    note = (
        "Times as fast as the preset; means are geometric. The paper's weighted mean follows how often each\n"
        "application runs, which is not used here."
    )
    return Table(columns, rows, title="What if", footer=note)


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


_EXERCISE_RATE = 30 * 2**30


def exercise_weights_us() -> float:
    """Return the time to read the weights of exercise 7.2, in us: five 2048 x 2048 layers at 30 GiB/s."""
    return 1e6 * 5 * 2048**2 / _EXERCISE_RATE


def exercise() -> tuple[isa.Program, Timeline]:
    """Return the program of Hennessy and Patterson's exercise 7.2, and its timeline."""
    machine = with_memory(presets.TPU_V1, weight_bytes_per_second=_EXERCISE_RATE)
    layers = tuple(
        Step(layer=f"fc {i + 1}", kind="fc", reads=(i,), inputs=2048, outputs=2048) for i in range(5)
    )
    program = program_of(StandIn(name="exercise 7.2", batch=128, steps=layers, reasoning=""), machine)
    return program, time_program(program, machine)


def exercise_7_2() -> Table:
    """Return where the time of exercise 7.2 goes: the book's answer, the closed form, the program."""
    program, timeline = exercise()
    machine = timeline.machine
    tile = transfer_cycles(256 * 256, _EXERCISE_RATE, machine)
    transfer = 128 * 2048 / (memory_of(machine).host_bytes_per_second / 1e6)
    multiply, last = int(timeline.multiplies[-1]), len(program) - 1
    arrival, shift = int(timeline.fetch_arrival[-1]), int(timeline.shift_start[-1])
    activate = multiply + 1
    write = program[last]
    assert isinstance(program[activate], isa.Activate) and isinstance(write, isa.WriteHost)
    steps = (
        ("320 tiles, each rounded up to whole cycles", 320 * tile),
        ("the FIFO is full while the first activations arrive", arrival - 320 * tile),
        ("the last tile waits for the multiply before it", shift - arrival),
        ("its shift, and its stream of 128 rows", int(timeline.end[multiply]) - shift),
        ("the array drains", int(timeline.complete[multiply] - timeline.end[multiply])),
        ("Activate, 128 rows", int(timeline.complete[activate] - timeline.complete[multiply])),
        (f"{write.rows:,} rows of results to the host", timeline.cycles - int(timeline.complete[activate])),
    )
    rows: list[tuple[Any, ...]] = [
        ("book: weights and products", None, 670.0),
        ("book: activations in and out, 20 us each", None, 40.0),
        ("weights in closed form: 5 x 2048 x 2048 bytes at 30 GiB/s", None, exercise_weights_us()),
        ("activations in closed form, each way: 128 x 2048 bytes at 14 GiB/s", None, float(transfer)),
        *((f"program: {what}", cycles, 1e6 * machine.seconds(cycles)) for what, cycles in steps),
        ("program: together", timeline.cycles, 1e6 * machine.seconds(timeline.cycles)),
    ]
    columns = "time", Column("cycles", ">", ",d"), Column("us", ">", ".2f")
    return Table(columns, rows, title="Exercise 7.2: five 2048 x 2048 layers, batch 128")


def open_choices(machine: MachineConfig) -> Table:
    """Return how much each application's time changes with what the paper leaves open."""
    memory = memory_of(machine)
    machines = {
        "issue_cycles=1, not 10": with_memory(machine, issue_cycles=1),
        "issue_cycles=20": with_memory(machine, issue_cycles=20),
        "weight_latency_cycles=100, not 0": with_memory(machine, weight_latency_cycles=100),
        "activation_latency_cycles=100, not 0": with_memory(machine, activation_latency_cycles=100),
        "host_latency_cycles=700 (1 us), not 0": with_memory(machine, host_latency_cycles=700),
        "lanes=128, not 256": with_memory(machine, lanes=(memory.lanes or machine.array.cols) // 2),
        "30 GiB/s of weights (figure 1), not 34 GB/s": with_memory(
            machine, weight_bytes_per_second=30 * 2**30
        ),
    }
    programs = {name: program_of(stand_in(name), machine) for name in APPLICATIONS}
    base = {name: count(stand_in(name), machine, programs[name]).cycles for name in APPLICATIONS}
    rows = []
    for what, variant in machines.items():
        rows.append((what, *_changes(base, programs, variant)))
    for what, change in _CHANGES.items():
        changed = {name: change(program) for name, program in programs.items()}
        rows.append((what, *_changes(base, changed, machine)))
    columns: list[str | Column] = ["choice", *(Column(name, ">", "+.2f") for name in APPLICATIONS)]
    return Table(columns, rows, title="What the paper leaves open: change of the time, %")


_CHANGES: dict[str, Callable[[isa.Program], isa.Program]] = {
    "activations of 16 bits": lambda program: with_operands(program, "int16", "int8"),
}


def _changes(
    base: Mapping[str, int], programs: Mapping[str, isa.Program], machine: MachineConfig
) -> list[float]:
    return [_percent_of(time_program(programs[name], machine).cycles, base[name]) for name in base]
