"""Threads and memory that the compiled modules share: one pool and one scratch buffer for the whole process.

``kernels/pool.h`` and ``kernels/scratch.h`` are the contracts; ``kernels/pool.c`` explains how a job is
passed to threads. How many threads a call may use is decided in :mod:`systolic.threads`.
"""

from libc.stdint cimport uint8_t

from systolic.kernels.pool cimport PoolTask, pool_forget, pool_helpers, pool_hire, pool_set_cores, pool_share
from systolic.kernels.scratch cimport scratch_borrow, scratch_give_back
from systolic.kernels.spin cimport spin_clock

import os


cdef int hire(Py_ssize_t workers) noexcept nogil:
    return pool_hire(workers)


cdef void share(PoolTask task, void *context, Py_ssize_t count, int workers, bint is_long) noexcept nogil:
    pool_share(task, context, count, workers, is_long)


cdef uint8_t *borrow(size_t size, size_t *borrowed) noexcept nogil:
    return scratch_borrow(size, borrowed)


cdef void give_back(uint8_t *memory, size_t borrowed) noexcept nogil:
    scratch_give_back(memory, borrowed)


def _helpers() -> int:
    """Return how many helpers this process has started; for tests."""
    return pool_helpers()


cdef void _count(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Number, worker and the time of a task, and some work that takes about a microsecond a turn.
    cdef long long *rows = <long long *>context
    cdef long long *row = rows + 2 + 2 * number
    cdef Py_ssize_t i
    row[0] += 1
    row[1] = worker
    for i in range(rows[0]):
        spin_clock()


def _try(long long[::1] rows, Py_ssize_t count, Py_ssize_t workers, bint is_long) -> None:
    """Share `count` tasks that count themselves in `rows`; for tests.

    Parameters
    ----------
    rows : memoryview of int64, (2 + 2 * count,)
        [0] is how long each task turns. Task i adds 1 to [2 + 2 * i] and puts its worker with it.
    """
    cdef int most = hire(workers)
    if rows.shape[0] != 2 + 2 * count:
        raise ValueError(f"rows must hold {2 + 2 * count} numbers, not {rows.shape[0]}")
    with nogil:
        share(_count, &rows[0], count, most, is_long)


def _forget() -> None:
    """Forget the helpers; a forked child does not have them."""
    pool_forget()


pool_set_cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
