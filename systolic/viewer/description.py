"""Descriptions of what the page shows, as JSON can hold them: an array and the values on its ports."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from systolic import _check
from systolic.config import ArrayConfig

SCHEMA = 1

# Larger outputs are not shown.
_OUTPUT_ELEMENTS = 1 << 18


class Stay(NamedTuple):
    """A fold as the page names its values. Cycles are in local time, counted from reset.

    Attributes
    ----------
    shift : int or None
        When its weights begin to arrive; None if they were there before.
    start, lines : int
        When its stream begins, and for how many cycles.
    leaves : int
        The swap from which its sums leave.
    m, k, n : (int, int)
        Its part of the product, first and behind the last.
    group : int
    output : int
        Which of the outputs takes its sums, -1 if none does.
    adds : bool
        Whether they are added to what is there.
    """

    shift: int | None
    start: int
    lines: int
    leaves: int
    m: tuple[int, int]
    k: tuple[int, int]
    n: tuple[int, int]
    group: int = 0
    output: int = -1
    adds: bool = False

    def to_list(self) -> list[Any]:
        """Return the fields in the order that the page expects."""
        return [self.shift, self.start, self.lines, self.leaves, *self.m, *self.k, *self.n, self.group,
                self.output, self.adds]  # fmt: skip


def describe_array(
    config: ArrayConfig,
    *,
    cycle: int,
    cycles: int,
    registers: Mapping[str, np.ndarray],
    ports: Mapping[str, np.ndarray],
    stays: Sequence[Stay] = (),
    changes: Mapping[int, Sequence[tuple[str, int, Any]]] | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return an array and what passes its ports, as JSON can hold it.

    Parameters
    ----------
    config : ArrayConfig
    cycle : int
        The first to show, in edges done.
    cycles : int
        How many edges follow.
    registers : mapping of str to ndarray, (rows, cols)
        Their values at the first cycle.
    ports : mapping of str to ndarray, (lines, rows) or (lines, cols)
        A line for each edge from the first cycle on, as it is: skewed. Ports that are left out, and
        edges beyond the lines, carry zeros.
    stays : sequence of Stay
        Folds, from which values get their names. Their outputs are counted from 0.
    changes : mapping of int to sequence of (str, int, number), optional
        Registers that something else changed at an edge: cycle to (register, row * cols + col, new value).
    title : str
    notes : sequence of str
        Lines to show below the title.

    Raises
    ------
    ValueError
        If sums have 64 bits, which the page cannot add.
    """
    numbers, dataflow = config.format, config.dataflow_record
    if numbers.psum_bits > 32:
        raise ValueError(
            f"the viewer adds sums of 16 to 32 bits, or float32, but this array has {numbers.text}; look at "
            "array.registers or Trace.to_text() instead"
        )
    register_types, port_types = config.register_dtypes, config.port_dtypes
    shapes = _output_shapes(stays)
    return {
        "schema": SCHEMA,
        "kind": "array",
        "title": title or f"{config.rows} x {config.cols} systolic array",
        "about": f"{config.rows} x {config.cols} PEs, {dataflow.name.replace('_', ' ')}, {numbers.text}",
        "notes": list(notes),
        "rows": config.rows,
        "cols": config.cols,
        "dataflow": dataflow.name,
        "held": dataflow.held,
        "exchanged": dataflow.exchanged,
        "leaves": dataflow.leaves,
        "rules": list(dataflow.rules),
        "sum": {"type": numbers.sum, "bits": numbers.psum_bits, "overflow": numbers.overflow},
        "registers": [
            {"name": r.name, "role": r.role, "moves": r.moves, "type": _page_type(register_types[r.name])}
            for r in dataflow.registers
        ],
        "ports": [
            {"name": p.name, "side": p.side, "feeds": p.feeds, "type": _page_type(port_types[p.name])}
            for p in dataflow.ports
        ],
        "first_cycle": cycle,
        "cycles": cycles,
        "initial": {name: _base64(_as_page(v)) for name, v in registers.items() if _as_page(v).any()},
        "streams": {name: _stream(v) for name, v in ports.items() if _as_page(v).any()},
        "folds": [stay.to_list() for stay in stays],
        "outputs": shapes,
        "changes": {str(at): [list(change) for change in some] for at, some in (changes or {}).items()},
    }  # fmt: skip


def _output_shapes(stays: Sequence[Stay]) -> list[list[int]]:
    shapes = [[0, 0] for _ in range(1 + max((stay.output for stay in stays), default=-1))]
    for stay in stays:
        if stay.output >= 0:
            m, n = shapes[stay.output]
            shapes[stay.output] = [max(m, stay.m[1]), max(n, stay.n[1])]
    return shapes if sum(m * n for m, n in shapes) <= _OUTPUT_ELEMENTS else []


def _page_type(dtype: np.dtype) -> str:
    """Return the type in which the page holds values: floats as float32, which holds them exactly."""
    return dtype.name if dtype.kind in "iub" else "float32"


def _as_page(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind in "iub" else values.astype(np.float32)


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def _stream(values: np.ndarray) -> dict[str, str]:
    """Return the lines of port values that are not all 0, and at which edge they come; bits packed."""
    values = _as_page(values)
    busy = np.flatnonzero(values.any(axis=1))
    values = values[busy]
    packed = np.packbits(values.ravel(), bitorder="little") if values.dtype.kind == "b" else values
    return {"at": _base64(busy.astype(np.int32)), "data": _base64(packed)}


def stays_of(config: ArrayConfig, folds: Iterable[Any], first: int, last: int) -> list[Stay]:
    """Return folds of a schedule up to a cycle as stays; those of one group add to one output.

    Sums of which a part left before the cycle `first` have no output.
    """
    dataflow = config.dataflow_record
    stays = []
    partial = set()
    if not isinstance(folds, Iterable):
        raise TypeError(f"folds must be Folds, such as result.folds, not {_check.kind(folds)}")
    for fold in folds:
        if not hasattr(fold, "shift_cycle"):
            raise TypeError(f"folds must hold Folds, as result.folds does, not {_check.kind(fold)}")
        rows, cols = fold.m if dataflow.held else fold.k, fold.m if dataflow.exchanged else fold.n
        if rows > config.rows or cols > config.cols:
            raise ValueError(
                f"folds are of another array: {fold} takes {rows} x {cols} PEs, and here are "
                f"{config.rows} x {config.cols}; pass the folds of the result that was recorded"
            )
        if fold.shift_cycle > last:
            break
        m, k, n = (fold.m_start, fold.m_stop), (fold.k_start, fold.k_stop), (fold.n_start, fold.n_stop)
        lines = fold.k if dataflow.held else fold.n if dataflow.exchanged else fold.m
        start = fold.shift_cycle if dataflow.held else fold.swap_cycle
        part = (fold.group, m, n)
        if fold.swap_cycle + config.rows <= first:
            partial.add(part)
        output = -1 if part in partial else fold.group
        stays.append(
            Stay(fold.shift_cycle, start, lines, fold.swap_cycle, m, k, n, fold.group, output, k[0] > 0)
        )
    return stays


def describe_timeline(
    *,
    cycles: int,
    texts: Sequence[str],
    lanes: Mapping[str, Sequence[np.ndarray]],
    causes: Sequence[str],
    spans: Sequence[np.ndarray],
    totals: Sequence[int],
    memories: Sequence[tuple[str, str, np.ndarray, np.ndarray, int | None]],
    title: str,
    about: str,
) -> dict[str, Any]:
    """Return a program's timeline as JSON can hold it.

    Parameters
    ----------
    cycles : int
        Of the program.
    texts : sequence of str
        Its instructions.
    lanes : mapping of str to (instruction, start, end, complete)
        What each unit does, in the order of time.
    causes : sequence of str
        What the array may do or wait for.
    spans : (start, end, cause)
        What it does from when until when; `cause` counts in `causes`.
    totals : sequence of int
        The cycles of each cause.
    memories : sequence of (memory, unit, cycle, used, limit)
        How many rows or tiles are in use, from each cycle on.
    title, about : str
    """
    start, end, cause = spans
    return {
        "schema": SCHEMA,
        "kind": "timeline",
        "title": title,
        "about": about,
        "notes": [],
        "first_cycle": 0,
        "cycles": cycles,
        "texts": list(texts),
        "lanes": [
            {"unit": unit, "instruction": _base64(number.astype(np.int32)),
             **_times(start=s, end=e, complete=c)}
            for unit, (number, s, e, c) in lanes.items()
        ],
        "cause_names": list(causes),
        "totals": [int(count) for count in totals],
        "causes": {**_times(start=start, end=end), "cause": _base64(cause.astype(np.uint8))},
        "memories": [
            {"memory": memory, "unit": unit, "limit": limit, "most": int(used.max(initial=0)),
             **_times(cycle=cycle, used=used)}
            for memory, unit, cycle, used, limit in memories
        ],
    }  # fmt: skip


def _times(**times: np.ndarray) -> dict[str, str]:
    # JavaScript's numbers are doubles, which hold every cycle up to 2^53.
    return {name: _base64(values.astype(np.float64)) for name, values in times.items()}
