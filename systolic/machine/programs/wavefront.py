"""Programs in wavefront mode: instruction after instruction, multiplies as plain products."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from systolic import _gemm
from systolic.machine.programs.memories import Memories
from systolic.machine.programs.steps import Fetch, Multiply, Steps, Work

Hook = Callable[[int, Memories], Any]
"""Called as hook(number, memories) before an instruction; it may change what they hold."""


def run_in_order(
    steps: Steps, memories: Memories, threads: int, done: Callable[[int], Any], hook: Hook | None
) -> float:
    """Run a program's instructions in their order, and return the seconds that multiplies took.

    Parameters
    ----------
    steps : Steps
    memories : Memories
        Changed in place.
    threads : int
    done : callable
        Called with the number of each instruction that is done.
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
        done(step.number)
    return seconds


def multiply(step: Multiply, tile: np.ndarray, memories: Memories, threads: int) -> None:
    """Multiply rows of the unified buffer by a tile, into the accumulators."""
    rows = step.rows.gather(memories.ub, slice(0, tile.shape[0])).view(step.activation)
    sums = memories.acc[step.acc : step.acc + step.count]
    out = np.empty(sums.shape, np.int32) if step.accumulate else sums
    _gemm.multiply(rows, tile.view(step.weight), out, threads=threads)
    if step.accumulate:
        sums += out
