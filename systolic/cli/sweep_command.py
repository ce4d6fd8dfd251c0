"""The command ``sweep``: rows of a sweep that a file describes."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from typing import Any

from systolic.cli.data import print_json
from systolic.sweeps import read_sweep, sweep
from systolic.sweeps.running import end_with_parent

_ROWS = 20  # of the table


def sweep_command(options: argparse.Namespace) -> int:
    """Compute the rows of a sweep and print the fastest."""
    described = read_sweep(options.file)
    workers = nullcontext() if options.workers == 1 else _processes(options.workers)
    with workers as executor:
        found = sweep(
            **described, out=options.out, executor=executor, limit=options.limit, progress=not options.quiet
        )
    if options.json:
        values = {"file": options.file, "out": options.out, "count": len(found), "rows": found.to_dicts()}
        print_json(values)
        return 0
    print(found.table(_ROWS if len(found) > _ROWS else None))
    if options.out is not None:
        print(f"{options.out}: the rows")
    for row in found.errors[:3]:
        print(f"note: {row!r}", file=sys.stderr)
    return 0


def _processes(count: int) -> Any:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Not by fork: threads of the kernels may run.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=end_with_parent)
