"""Random valid programs and the machines they are timed on: edges first, collisions of rows likely."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import strategies as st

from systolic import isa

LIMITS = {"ub": 64, "acc": 32, "host": 64, "tiles": 12}
FUNCTIONS = (isa.Function(), isa.Function("pool of 2", pool=2), isa.Function("pool of 4", pool=4))
RATES = tuple(map(Fraction, ("1", "1/3", "7/2", "16/5", "22", "1000")))


class Case(NamedTuple):
    """A program and its machine.

    Attributes
    ----------
    instructions : tuple of Instruction
        None goes beyond `LIMITS`; `FUNCTIONS` is their table.
    machine : dict
        Keyword arguments of ``reference.machine.time_program`` but for `rows_written`.
    """

    instructions: tuple[isa.Instruction, ...]
    machine: dict[str, Any]

    @property
    def program(self) -> isa.Program:
        return isa.Program(self.instructions, FUNCTIONS)


def rows_written(instruction: Any) -> int:
    """How many rows an Activate or a Vector writes."""
    return FUNCTIONS[instruction.function].rows_written(instruction.rows)


def counts(limit: int) -> st.SearchStrategy[int]:
    """Numbers of rows or tiles: small ones and their neighbors first, then any up to `limit`."""
    return st.sampled_from([n for n in (1, 2, 3, 4, 8, 9, limit) if n <= limit]) | st.integers(1, limit)


def firsts(limit: int, count: int) -> st.SearchStrategy[int]:
    """Where so many rows may begin: few addresses, whose ranges meet, first; then any."""
    last = limit - count
    return st.sampled_from([a for a in (0, 1, 7, 8, 9, 16, last) if a <= last]) | st.integers(0, last)


@st.composite
def ranges(draw: Callable, memory: str) -> tuple[int, int]:
    """First row and number of rows in a memory."""
    count = draw(counts(LIMITS[memory]))
    return draw(firsts(LIMITS[memory], count)), count


@st.composite
def patterns(draw: Callable, most: int) -> tuple[int, isa.Pattern]:
    """Address and pattern in the unified buffer, of at most so many rows; strides of either sign and 0."""
    pattern: list[tuple[int, int]] = []
    for _ in range(draw(st.integers(1, isa.instructions.MOST_AXES))):
        left = most // math.prod(count for count, _ in pattern)
        count = draw(st.sampled_from([n for n in (1, 2, 3, 4) if n <= left]) | st.integers(1, min(left, 8)))
        stride = draw(st.sampled_from((1, -1, 2, -2, 5, -8, 8, 0)) | st.integers(-12, 12))
        pattern.append((count, stride))
    limit = LIMITS["ub"]
    if isa.pattern_range(0, tuple(pattern))[1] > limit:
        pattern = [(count, max(-1, min(stride, 1))) for count, stride in pattern]
    low, span = isa.pattern_range(0, tuple(pattern))
    return draw(firsts(limit, span)) - low, tuple(pattern)


@st.composite
def _multiply(draw: Callable, new_weights: bool) -> isa.Instruction:
    accumulate = draw(st.booleans())
    if draw(st.booleans()):
        ub, rows = draw(ranges("ub").filter(lambda found: found[1] <= LIMITS["acc"]))
        acc = draw(firsts(LIMITS["acc"], rows))
        return isa.MatrixMultiply(ub, acc, rows, new_weights, accumulate)
    ub, pattern = draw(patterns(LIMITS["acc"]))
    acc = draw(firsts(LIMITS["acc"], isa.pattern_rows(pattern)))
    return isa.Convolve(ub, acc, pattern, new_weights, accumulate)


@st.composite
def _vector(draw: Callable, limit: int) -> tuple[int, int, int, isa.Pattern | None]:
    """Rows read, of at most `limit`; address, function and pattern of what is written."""
    function = draw(st.sampled_from(range(len(FUNCTIONS))))
    pool = FUNCTIONS[function].pool
    if draw(st.integers(0, 2)):
        rows = draw(counts(limit))
        return rows, draw(firsts(LIMITS["ub"], FUNCTIONS[function].rows_written(rows))), function, None
    ub, pattern = draw(patterns(limit // pool))
    written = isa.pattern_rows(pattern)
    return draw(st.integers((written - 1) * pool + 1, written * pool)), ub, function, pattern


@st.composite
def _instruction(draw: Callable, kind: str) -> isa.Instruction:
    match kind:
        case "ReadHost" | "WriteHost":
            ub, rows = draw(ranges("ub"))
            host = draw(firsts(LIMITS["host"], rows))
            return isa.ReadHost(host, ub, rows) if kind == "ReadHost" else isa.WriteHost(ub, host, rows)
        case "ReadWeights":
            count = draw(st.integers(1, 3) | counts(LIMITS["tiles"]))
            return isa.ReadWeights(draw(firsts(LIMITS["tiles"], count)), count)
        case "Activate":
            rows, ub, function, pattern = draw(_vector(LIMITS["acc"]))
            return isa.Activate(draw(firsts(LIMITS["acc"], rows)), ub, rows, function, pattern)
        case "Vector":
            rows, ub, function, pattern = draw(_vector(LIMITS["ub"]))
            inputs = draw(st.lists(firsts(LIMITS["ub"], rows), min_size=1, max_size=3))
            return isa.Vector(tuple(inputs), ub, rows, function, pattern)
        case "HostCall":
            lists = st.lists(ranges("host"), max_size=2).map(tuple)
            return isa.HostCall(draw(st.sampled_from(range(len(FUNCTIONS)))), draw(lists), draw(lists))
        case "SetConfiguration":
            operands = st.sampled_from(("int8", "int16", "uint8", "uint16"))
            return isa.SetConfiguration(draw(operands), draw(operands))
        case _:
            return isa.Sync() if kind == "Sync" else isa.Nop()


# Multiplies and what feeds them are drawn most often.
_KINDS = (
    "multiply", "multiply", "multiply", "keep", "Activate", "Activate", "ReadHost", "ReadWeights", "Vector",
    "WriteHost", "SetConfiguration", "HostCall", "Sync", "Nop",
)  # fmt: skip


@st.composite
def machines(draw: Callable) -> dict[str, Any]:
    """Machine parameters by the names that ``reference.machine.time_program`` gives them."""
    rows, cols = (draw(st.sampled_from((1, 2, 3, 4, 8, 16)) | st.integers(1, 20)) for _ in range(2))
    latencies = st.sampled_from((0, 1, 5, 40)) | st.integers(0, 60)
    return {
        "rows": rows,
        "cols": cols,
        "double_buffered": draw(st.booleans()),
        "tile_bytes": rows * cols * draw(st.sampled_from((1, 2))),
        "row_bytes": draw(st.sampled_from((max(rows, cols), 1, 7)) | st.integers(1, 40)),
        "weight_bytes_per_cycle": draw(st.sampled_from(RATES) | st.fractions(Fraction(1, 8), 64)),
        "weight_latency": draw(latencies),
        "fifo_tiles": draw(st.integers(1, 4)),
        "lanes": draw(st.sampled_from((None, 1, 2, cols, cols + 1))),
        "activation_latency": draw(latencies),
        "host_bytes_per_cycle": draw(st.sampled_from(RATES) | st.fractions(Fraction(1, 8), 64)),
        "host_latency": draw(latencies),
        "issue_cycles": draw(st.sampled_from((1, 2, 17)) | st.integers(1, 40)),
        "width_factors": draw(st.sampled_from(((1, 1, 1), (1, 2, 4), (3, 1, 2)))),
    }


@st.composite
def programs(draw: Callable, most: int = 24) -> Case:
    """A valid program of at most so many instructions, perhaps with a Halt behind them, and a machine."""
    instructions: list[isa.Instruction] = []
    asked = taken = 0
    kinds = st.sampled_from(_KINDS)
    for kind in draw(st.lists(kinds, max_size=3) | st.lists(kinds, min_size=min(6, most), max_size=most)):
        # A multiply whose weights nothing has read asks for them itself, one instruction earlier.
        if kind == "keep" and not taken:
            kind = "multiply"
        if kind == "multiply" and asked == taken:
            instructions.append(draw(_instruction("ReadWeights")))
            asked += instructions[-1].count
        if kind in ("multiply", "keep"):
            instructions.append(draw(_multiply(kind == "multiply")))
            taken += kind == "multiply"
        else:
            instructions.append(draw(_instruction(kind)))
            asked += instructions[-1].count if kind == "ReadWeights" else 0
    if draw(st.booleans()):
        instructions.append(isa.Halt())
    return Case(tuple(instructions), draw(machines()))
