"""Weight stationary: weights stay in the PEs, activations stream through, psums move down.

Input stationary is the same hardware with the operands exchanged: x stays, w streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from systolic import _core
from systolic.dataflows.numbers import clock_bytes, clock_numbers, narrow_sums
from systolic.dataflows.record import Beat, Dataflow, Holds, Line, Port, Register, Sizes, larger
from systolic.formats import Format
from systolic.reference.pe import ReferenceArray

_REGISTERS = (
    Register("weight", "north operand", "weight"),
    Register("next_weight", "shadow", "weight"),
    Register("weight_pass", "pass", "weight", moves="down"),
    Register("activation", "west operand", "activation", moves="right"),
    Register("psum", "sum", "sum", moves="down"),
    Register("shift", "control", "control", moves="right"),
    Register("swap", "control", "control", moves="right"),
)

_PORTS = (
    Port("activation", "west", feeds="activation"),
    Port("shift", "west", feeds="shift"),
    Port("swap", "west", feeds="swap"),
    Port("weight", "north", feeds="next_weight"),
    Port("psum", "north", feeds="psum"),
)

_RULES = (
    "`activation`, `shift` and `swap` arrive from the left neighbor (or row r's west ports); a weight "
    "arrives from the `weight_pass` of the PE above (or column c's north weight port); a psum arrives from "
    "the `psum` of the PE above (or the north psum port).",
    "`used = next_weight` if `swap` arrives, else `weight`; then `weight <- used`.",
    "If `shift` arrives: `weight_pass <- next_weight`, then `next_weight <- arriving weight`.",
    "`psum <- arriving psum + used * arriving activation`.",
    "`activation`, `shift` and `swap` take what arrived.",
)


def _steps(m: Any, k: Any, n: Any, rows: Any, cols: Any, half: Any) -> tuple[Any, Any, Any]:
    return half, rows, cols


def _cycles(s: Sizes) -> Any:
    tiles = s.groups * s.k_tiles * s.n_tiles
    last = larger(s.last, s.rows)
    around = 2 * s.rows + s.cols - 2
    double = around + tiles * ((s.chunks - 1) * larger(s.chunk, s.rows) + last) - last + s.last
    single = tiles * (s.chunks * around + s.m)
    # Conditions are factors, so that integers and arrays take the same formula.
    cycles = double * s.double_buffered + single * (1 - s.double_buffered)
    return cycles * ((s.m != 0) & (tiles != 0))


def _fold_times(s: Sizes, number: int) -> tuple[int, int]:
    # swap_i - rows is what the folds before i take: a full cycle of k tiles over all chunks
    # per n tile, then whole chunks, then single folds.
    def stay(m: int) -> int:
        return max(m, s.rows) if s.double_buffered else 2 * s.rows + s.cols + m - 2

    whole, rest = divmod(number, s.chunks * s.k_tiles)
    chunk, k_tile = divmod(rest, s.k_tiles)
    full, last = stay(s.chunk), stay(s.last)
    here = last if chunk == s.chunks - 1 else full
    before = (whole * ((s.chunks - 1) * full + last) + chunk * full) * s.k_tiles + k_tile * here
    swap = before + s.rows
    if not s.double_buffered:
        return before, swap
    if number == 0:
        return 0, swap
    # The shift began on the previous fold's swap.
    chunk = (number - 1) % (s.chunks * s.k_tiles) // s.k_tiles
    return swap - (last if chunk == s.chunks - 1 else full), swap


def _starts(line: Line, rows: int, k: int, shift: int, swap: int) -> tuple[int, int]:
    shift_stop, swap_at, stream_stop = line
    shift = max(shift, swap_at, shift_stop)
    return shift, max(swap, stream_stop, shift + rows)


def _writes(macs: int, folds: int, sums: int, rows: int, cols: int) -> dict[str, int]:
    swaps = folds * rows * cols
    # Each beat of a shift passes all PEs; a sum passes all rows.
    return {
        "weight": swaps, "next_weight": rows * swaps, "weight_pass": rows * swaps, "activation": macs,
        "psum": rows * sums, "shift": rows * swaps, "swap": swaps,
    }  # fmt: skip


def _shift_beats(start: int, w: np.ndarray, rows: int) -> Iterator[Beat]:
    yield "shift", start, rows
    # The bottom row enters first, on the beat that takes it all the way down.
    yield "weight", start + rows - len(w), w[::-1]


def _stream_beats(start: int, leaves: int, x: Any, swap: bool, rows: int) -> Iterator[Beat]:
    yield "activation", start, x
    if swap:
        yield "swap", start, 1


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
    clock_bytes(_core.run, values, registers, bottom, threads, toggles)
    narrow_sums(registers, bottom, _REGISTERS, numbers)


def _clock_numbers(
    registers: Mapping[str, np.ndarray],
    ports: Mapping[str, np.ndarray],
    bottom: np.ndarray,
    threads: int,
    numbers: Format,
) -> None:
    clock_numbers(dict(registers), dict(ports), bottom, threads, numbers, held=False)
    narrow_sums(registers, bottom, _REGISTERS, numbers)


WEIGHT_STATIONARY = Dataflow(
    name="weight_stationary",
    registers=_REGISTERS,
    ports=_PORTS,
    leaves="psum",
    held=False,
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
    reference=ReferenceArray,
)
"""Weights stay in the PEs; activations stream from the west, psums move down."""

# The registers and ports keep their names: `weight` holds x, `activation` carries w.
_EXCHANGED: dict[Holds, Holds] = {
    "weight": "activation",
    "activation": "weight",
    "sum": "sum",
    "control": "control",
}

INPUT_STATIONARY = replace(
    WEIGHT_STATIONARY,
    name="input_stationary",
    registers=tuple(replace(register, holds=_EXCHANGED[register.holds]) for register in _REGISTERS),
    exchanged=True,
)
"""Activations stay in the PEs; weights stream from the west, psums move down."""
