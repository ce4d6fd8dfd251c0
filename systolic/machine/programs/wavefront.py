"""Programs in wavefront mode: instruction after instruction, multiplies as plain products."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from systolic import _gemm
from systolic.array.workspace import workspace
from systolic.machine.programs.fused import Product
from systolic.machine.programs.memories import Memories
from systolic.machine.programs.plan import Plan
from systolic.machine.programs.progress import ClockProgress
from systolic.machine.programs.steps import Fetch, Multiply, Task

Hook = Callable[[int, Memories], Any]
"""Called as hook(number, memories) before an instruction; it may change what they hold."""


def run_in_order(
    plan: Plan, memories: Memories, threads: int, progress: ClockProgress, hook: Hook | None
) -> float:
    """Run a program's instructions in their order, and return the seconds that multiplies took.

    Parameters
    ----------
    plan : Plan
    memories : Memories
        Changed in place.
    threads : int
    progress : ClockProgress
    hook : callable, optional
        With it, each multiply is computed by itself; without, several are one product.
    """
    if hook is None:
        return _run_fused(plan, memories, threads, progress)
    seconds = 0.0
    tiles: list[np.ndarray] = []
    for step in plan.steps.steps:
        hook(step.number, memories)
        if isinstance(step, Multiply):
            started = perf_counter()
            _multiply(step, tiles[step.order], memories, threads)
            seconds += perf_counter() - started
        elif isinstance(step, Fetch):
            tiles += [tile.copy() for tile in memories.weights[step.tile : step.tile + step.count]]
        else:
            assert isinstance(step, Task)
            step.run(memories)
        progress.instruction(step.number)
    return seconds


def _run_fused(plan: Plan, memories: Memories, threads: int, progress: ClockProgress) -> float:
    seconds = 0.0
    with workspace() as memory:
        for step in plan.fused:
            if isinstance(step, Product):
                started = perf_counter()
                step.run(memories, threads, memory)
                seconds += perf_counter() - started
            else:
                assert isinstance(step, Task)
                step.run(memories)
            progress.instruction(step.number)
    return seconds


def _multiply(step: Multiply, tile: np.ndarray, memories: Memories, threads: int) -> None:
    """Multiply rows of the unified buffer by a tile, into the accumulators."""
    rows = step.rows.gather(memories.ub, slice(0, tile.shape[0])).view(step.activation)
    sums = memories.acc[step.acc : step.acc + step.count]
    out = np.empty(sums.shape, np.int32) if step.accumulate else sums
    _gemm.multiply(rows, tile.view(step.weight), out, threads=threads)
    if step.accumulate:
        sums += out
