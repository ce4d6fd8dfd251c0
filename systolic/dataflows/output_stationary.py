"""Output stationary: sums stay in the PEs, activations and weights stream through, finished sums drain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from systolic import _core
from systolic.dataflows.numbers import clock_bytes, clock_numbers, narrow_sums
from systolic.dataflows.record import Beat, Dataflow, Line, Port, Register, Sizes, larger
from systolic.formats import Format
from systolic.reference.output_stationary import OutputStationaryArray

_REGISTERS = (
    Register("activation", "west operand", "activation", moves="right"),
    Register("weight", "north operand", "weight", moves="down"),
    Register("acc", "sum", "sum"),
    Register("out", "shadow", "sum"),
    Register("out_pass", "pass", "sum", moves="down"),
    Register("swap", "control", "control", moves="right"),
    Register("drain", "control", "control", moves="right"),
)

_PORTS = (
    Port("activation", "west", feeds="activation"),
    Port("swap", "west", feeds="swap"),
    Port("drain", "west", feeds="drain"),
    Port("weight", "north", feeds="weight"),
    Port("out", "north", feeds="out"),
)

_RULES = (
    "`activation`, `swap` and `drain` arrive from the left neighbor (or row r's west ports); a weight "
    "arrives from the `weight` of the PE above (or column c's north weight port); an out value arrives from "
    "the `out_pass` of the PE above (or the north out port).",
    "If `drain` arrives: `out_pass <- out`.",
    "If `swap` arrives: `out <- acc`; else, if `drain` arrives: `out <- arriving out`.",
    "`acc <- acc + arriving activation * arriving weight`, from 0 instead of `acc` if `swap` arrives.",
    "`activation`, `weight`, `swap` and `drain` take what arrived.",
)


def _steps(m: Any, k: Any, n: Any, rows: Any, cols: Any, half: Any) -> tuple[Any, Any, Any]:
    return rows, larger(k, 1), cols


def _cycles(s: Sizes) -> Any:
    folds = s.groups * s.chunks * s.k_tiles * s.n_tiles
    around = 2 * s.rows + s.cols - 2
    double = s.k + (folds - 1) * larger(s.k, s.rows) + around
    single = folds * (around + s.k)
    # Conditions are factors, so that integers and arrays take the same formula.
    cycles = double * s.double_buffered + single * (1 - s.double_buffered)
    return cycles * (folds != 0)


def _fold_times(s: Sizes, number: int) -> tuple[int, int]:
    if not s.double_buffered:
        begins = number * (2 * s.rows + s.cols + s.k - 2)
        return begins, begins + s.k
    stay = max(s.k, s.rows)
    return s.k + (number - 1) * stay if number else 0, s.k + number * stay


def _starts(line: Line, rows: int, k: int, begins: int, ends: int) -> tuple[int, int]:
    # The swap that ends a fold may begin the next one. One that comes later would take sums that still drain.
    _, swap_at, stream_stop = line
    begins = max(begins, swap_at)
    if begins > swap_at:
        begins = max(begins, stream_stop)
    return begins, max(ends, begins + k, stream_stop)


def _writes(macs: int, folds: int, sums: int, rows: int, cols: int) -> dict[str, int]:
    # The swap that ends a fold, and the drain beats behind it, pass all PEs.
    swaps, drains = folds * rows * cols, folds * (rows - 1) * rows * cols
    return {
        "activation": macs, "weight": macs, "acc": macs, "out": swaps + drains, "out_pass": drains,
        "swap": swaps, "drain": drains,
    }  # fmt: skip


def _shift_beats(start: int, w: np.ndarray, rows: int) -> Iterator[Beat]:
    yield "weight", start, w


def _stream_beats(start: int, leaves: int, x: Any, swap: bool, rows: int) -> Iterator[Beat]:
    yield "activation", start, x
    yield "swap", start, 1
    yield "swap", leaves, 1
    yield "drain", leaves + 1, rows - 1


def _clock(
    registers: Mapping[str, np.ndarray],
    ports: Mapping[str, np.ndarray],
    bottom: np.ndarray,
    threads: int,
    numbers: Format,
    toggles: np.ndarray | None = None,
) -> None:
    # The kernel takes registers and ports in the order of the record.
    values = [*(registers[r.name] for r in _REGISTERS), *(ports[p.name] for p in _PORTS)]
    clock_bytes(_core.run_output_stationary, values, registers, bottom, threads, toggles)
    narrow_sums(registers, bottom, _REGISTERS, numbers)


# In the kernels of other formats these have the names of their counterparts.
_COUNTERPARTS = {"acc": "psum", "drain": "shift"}


def _clock_numbers(
    registers: Mapping[str, np.ndarray],
    ports: Mapping[str, np.ndarray],
    bottom: np.ndarray,
    threads: int,
    numbers: Format,
) -> None:
    named = {_COUNTERPARTS.get(name, name): values for name, values in registers.items()}
    fed = {"psum" if name == "out" else _COUNTERPARTS.get(name, name): v for name, v in ports.items()}
    clock_numbers(named, fed, bottom, threads, numbers, held=True)
    narrow_sums(registers, bottom, _REGISTERS, numbers)


OUTPUT_STATIONARY = Dataflow(
    name="output_stationary",
    registers=_REGISTERS,
    ports=_PORTS,
    leaves="out",
    held=True,
    exchanged=False,
    rules=_RULES,
    steps=_steps,
    fold_times=_fold_times,
    cycles=_cycles,
    starts=_starts,
    shift_beats=_shift_beats,
    stream_beats=_stream_beats,
    writes=_writes,
    kernels={"8-bit integers": _clock, "numbers": _clock_numbers},
    counting={"8-bit integers": _clock},
    reference=OutputStationaryArray,
)
"""Sums stay in the PEs; activations stream from the west, weights from the north."""
