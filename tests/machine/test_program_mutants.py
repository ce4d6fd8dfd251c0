"""Bugs planted in what times and executes programs: the comparison with the reference catches each."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import Phase, given, settings

from support.planted import planted
from support.program_data import DataCase, check, data_programs
from systolic.machine import spans, work
from systolic.machine.programs import cycle, fused, memories, of_rows, of_sums, steps

Mutant = tuple[ModuleType, str, str, str]
"""A module, its text, the text that replaces it, and what finds it: "bytes" or "times"."""

MUTANTS: dict[str, Mutant] = {
    "readers do not wait for writers of the unified buffer": (
        work,
        "= memory, is_write\n",
        "= memory, is_write and memory != _UB\n",
        "bytes",
    ),
    "writers do not wait for readers of host memory": (
        work,
        "= memory, is_write\n",
        "= memory, is_write or memory == _HOST\n",
        "times",
    ),
    "a stall is charged twice": (
        spans,
        "int(cycles[self.cause == code].sum())",
        "int(cycles[self.cause == code].sum()) * (1 + (cause == 'weight_stall'))",
        "times",
    ),
    "a tile is off by one": (steps, "order = self._taken - 1", "order = max(self._taken - 2, 0)", "bytes"),
    "halves of the accumulators change places": (
        steps,
        "number, place, item.acc, item.rows,",
        "number, place, (item.acc + 16) % 32 if item.rows <= 16 and item.acc % 16 == 0 else item.acc, item.rows,",
        "bytes",
    ),
    "rows stream before their time": (
        cycle,
        "        self._read = 0\n",
        "        self._read = 0\n        self[: step.count * factor]\n",
        "bytes",
    ),
    "rows of two cycles take the wrong one": (cycle, "skipped = -row % factor", "skipped = row % factor", "bytes"),
    "tiles are queued out of turn": (cycle, "first = queued = min(queued, ", "first = max(0, ", "bytes"),
    "sums are added where they replace": (
        cycle,
        "        if step.accumulate:\n",
        "        if True:\n",
        "bytes",
    ),
    "sums replace where they are added": (
        fused,
        "sums[some] += out",
        "sums[some] = out",
        "bytes",
    ),
    "columns of an earlier tile stay": (fused, "clear = 0 if first.accumulate else ", "clear = 0 * ", "bytes"),
    "tiles of a sum begin a row late": (
        fused,
        "inside = slice(int(rows[0]), ",
        "inside = slice(min(int(rows[0]) + 1, int(rows[-1])), ",
        "bytes",
    ),
    "sums that do not follow each other are one product": (
        fused,
        "            else:\n                self._close()\n",
        "            else:\n",
        "bytes",
    ),
    "the first visit of a row wins": (memories, "self.count - 1 - from_behind", "from_behind", "bytes"),
    "bytes behind results stay": (memories, "view[..., width:] = 0", "pass", "bytes"),
    "padding counts as zero": (of_rows, "images.shape[-1]), low, dtype)", "images.shape[-1]), 0, dtype)", "bytes"),
    "a pool reaches into the next group": (
        of_sums,
        "np.arange(0, len(values), pool)",
        "np.arange(0, len(values), max(pool - 1, 1))",
        "bytes",
    ),
}


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    module, old, new, by = MUTANTS[name]

    @settings(max_examples=400, database=None, derandomize=True, phases=[Phase.generate])
    @given(data_programs())
    def compared(case: DataCase) -> None:
        check(case, by)

    with planted(module, old, new), pytest.raises((AssertionError, IndexError, ValueError, RuntimeError)):
        compared()
