"""Programs in wavefront mode: instruction after instruction, multiplies as plain products."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from systolic import _gemm
from systolic.machine.programs.memories import Memories
from systolic.machine.programs.progress import ClockProgress
from systolic.machine.programs.steps import Fetch, Multiply, Steps, Work

Hook = Callable[[int, Memories], Any]
"""Called as hook(number, memories) before an instruction; it may change what they hold."""

# MACs between two looks for Ctrl-C: a tenth of a second or less.
_PIECE_WORK = 1 << 32


def run_in_order(
    steps: Steps, memories: Memories, threads: int, progress: ClockProgress, hook: Hook | None
) -> float:
    """Run a program's instructions in their order, and return the seconds that multiplies took.

    Parameters
    ----------
    steps : Steps
    memories : Memories
        Changed in place.
    threads : int
    progress : ClockProgress
    hook : callable, optional
    """
    seconds = 0.0
    tiles: list[np.ndarray] = []
    for step in steps.steps:
        if hook is not None:
            hook(step.number, memories)
        if isinstance(step, Multiply):
            started = perf_counter()
            multiply(step, tiles[step.order], memories, threads)
            seconds += perf_counter() - started
        elif isinstance(step, Fetch):
            tiles += [tile.copy() for tile in memories.weights[step.tile : step.tile + step.count]]
        else:
            assert isinstance(step, Work)
            step.write(memories, step.read(memories))
        progress.instruction(step.number)
    return seconds


def multiply(step: Multiply, tile: np.ndarray, memories: Memories, threads: int) -> None:
    """Multiply rows of the unified buffer by a tile, into the accumulators."""
    rows = step.rows.gather(memories.ub, slice(0, tile.shape[0])).view(step.activation)
    sums = memories.acc[step.acc : step.acc + step.count]
    piece = max(1, _PIECE_WORK // tile.size)
    for first in range(0, step.count, piece):
        some = slice(first, first + piece)
        out = np.empty(sums[some].shape, np.int32) if step.accumulate else sums[some]
        _gemm.multiply(rows[some], tile.view(step.weight), out, threads=threads)
        if step.accumulate:
            sums[some] += out
