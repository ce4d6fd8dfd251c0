"""Threads that help the compiled functions: one pool for the whole process, below the GIL.

Work comes in *tasks*, numbered from 0. Each thread has a part of the numbers to itself, the same one in
each job of that size, so that what it has in its caches is what it needs; when it is through, it takes
what others have left. The caller works too, so that nothing depends on whether helpers come. Helpers are
threads of the operating system that never touch Python: they need no GIL, and nothing has to be ended
with the interpreter. Where a compiler has no atomic operations (``kernels/spin.h``), there are none.

A helper that has finished looks for more work for a moment before it sleeps (SPIN_NANOSECONDS):
waking a sleeping core takes tens of microseconds, a good part of what a layer of a network takes.
It gives its core away while it looks, if anyone wants it, and sleeps at once then.

The pool serves one caller at a time. Another one that comes meanwhile does its tasks by itself:
however many threads of a user call at once, the package adds no more than the pool's helpers. A
forked child has no helpers and starts its own.

How a job is passed on. The *ticket* holds the job's number, for how many helpers it is, and how many of
them have not come. One that is meant takes itself off by a compare-and-exchange, which fails if the job
has changed meanwhile; the caller closes the ticket when all tasks are taken, and so knows for how many it
has to wait. Helper and caller each write first and look at the other's word then (`asleep`, `ticket`), so that one of
them sees the other: a helper sleeps only if no job is there for it, and is rung if one comes then.
"""

from libc.stdint cimport uint8_t, uintptr_t
from libc.stdlib cimport free, malloc

import os

cdef extern from "Python.h" nogil:
    ctypedef void *PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait)
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible)
    void PyThread_release_lock(PyThread_type_lock lock)
    unsigned long PyThread_start_new_thread(void (*work)(void *) noexcept nogil, void *argument)

cdef extern from "kernels/spin.h" nogil:
    enum: ATOMIC_WORDS
    ctypedef long long Word
    void spin_block_signals()
    Word word_load(Word *word)
    void word_store(Word *word, Word value)
    Word word_exchange(Word *word, Word value)
    Word word_add(Word *word, Word value)
    bint word_replace(Word *word, Word expected, Word value)
    void spin_pause()
    void spin_yield()

cdef enum:
    MOST_HELPERS = 1023
    COUNT = 0xFFFF              # of the ticket: who has not come; above it: who is meant; above that: which job
    MEANT = 16
    NUMBER = 32
    SPIN_NANOSECONDS = 300000
    AWAY_NANOSECONDS = 50000    # much more than it takes from one look at the clock to the next
    PAUSES = 64                 # between two looks at the clock
    NAP_MICROSECONDS = 50

cdef struct Helper:
    PyThread_type_lock bell     # held, so that who takes it sleeps; released to wake it
    Word asleep
    Word last                   # job

cdef struct Part:
    # Of the tasks of a job: the next one, and a cache line for it.
    Word next
    char rest[56]

cdef struct Job:
    Task task
    void *context
    Py_ssize_t count
    int workers
    Word finished               # helpers that came and are through

# Of more threads than cores, each one that looks for work keeps another from working.
cdef int cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
cdef Helper each[MOST_HELPERS]
cdef Part parts[MOST_HELPERS + 1]
cdef int helpers = 0
cdef Job job
cdef Word ticket = 0
cdef Word taken = 0             # whether a caller has the pool
cdef Word hiring = 0            # whether someone starts helpers
cdef PyThread_type_lock never = NULL


cdef Py_ssize_t _begin_of(int part) noexcept nogil:
    return part * job.count // job.workers


cdef void _work(int worker) noexcept nogil:
    cdef Py_ssize_t number, end
    cdef int i, part
    for i in range(job.workers):
        part = (worker + i) % job.workers
        end = _begin_of(part + 1)
        number = word_add(&parts[part].next, 1)
        while number < end:
            job.task(job.context, number, worker)
            number = word_add(&parts[part].next, 1)


cdef bint _look(Helper *me) noexcept nogil:
    # Work if there is a job that we are meant for; False if there is none.
    cdef Word seen = word_load(&ticket)
    cdef int worker = <int>(me - each) + 1
    if not seen & COUNT or worker > (seen >> MEANT & COUNT) or seen >> NUMBER == me.last:
        return False
    if word_replace(&ticket, seen, seen - 1):
        # The caller waits for us from here on: the job stands still.
        me.last = seen >> NUMBER
        _work(worker)
        word_add(&job.finished, 1)
    return True


cdef void _help(void *argument) noexcept nogil:
    cdef Helper *me = <Helper *>argument
    cdef long long since, looked, now
    cdef int i
    spin_block_signals()
    while True:
        since = looked = spin_clock()
        while True:
            for i in range(PAUSES):
                if _look(me):
                    since = looked = spin_clock()
                spin_pause()
            spin_yield()
            now = spin_clock()
            # Someone else had this core meanwhile, perhaps the caller itself: a thread that never sleeps may
            # stay on a busy core for long, one that is woken is put on an idle one.
            if now - looked > AWAY_NANOSECONDS or now - since > SPIN_NANOSECONDS or helpers >= cores:
                break
            looked = now
        word_store(&me.asleep, 1)
        # Unless work has come meanwhile; then the caller may have rung as well.
        if not _look(me) or not word_exchange(&me.asleep, 0):
            PyThread_acquire_lock(me.bell, 1)


cdef int hire(Py_ssize_t workers) except -1:
    # Have workers - 1 helpers, or as many as the system gives; return how many may work at once.
    global helpers
    cdef Helper *new
    if helpers >= workers - 1 or word_exchange(&hiring, 1):
        return <int>min(workers, helpers + 1)
    while helpers < workers - 1 and helpers < MOST_HELPERS and ATOMIC_WORDS:
        new = &each[helpers]
        new.asleep, new.last = 0, -1
        new.bell = PyThread_allocate_lock()
        if new.bell == NULL:
            break
        PyThread_acquire_lock(new.bell, 1)
        if PyThread_start_new_thread(_help, new) == <unsigned long>-1:
            PyThread_free_lock(new.bell)
            break
        helpers += 1
    word_store(&hiring, 0)
    return <int>min(workers, helpers + 1)


cdef void share(Task task, void *context, Py_ssize_t count, int workers, bint is_long) noexcept nogil:
    # Do all tasks in this thread and in at most workers - 1 helpers; workers is what hire() returned.
    # Sleeping helpers are rung only for what is long (a tenth of a millisecond or more).
    cdef Py_ssize_t number
    cdef Word mine
    cdef int i, came, naps = 0
    if workers > count:
        workers = <int>count
    if workers <= 1 or word_exchange(&taken, 1):
        for number in range(count):
            task(context, number, 0)
        return
    job.task, job.context, job.count, job.workers = task, context, count, workers
    for i in range(workers):
        word_store(&parts[i].next, _begin_of(i))
    word_store(&job.finished, 0)
    # The number wraps after 2^31 jobs: only a helper that slept through all of them could be misled.
    mine = (word_load(&ticket) >> NUMBER) + 1 & 0x7FFFFFFF
    mine = mine << NUMBER | <Word>(workers - 1) << MEANT
    word_store(&ticket, mine | workers - 1)
    if is_long:
        for i in range(workers - 1):
            if word_load(&each[i].asleep) and word_exchange(&each[i].asleep, 0):
                PyThread_release_lock(each[i].bell)
    _work(0)
    came = workers - 1 - <int>(word_exchange(&ticket, mine) & COUNT)
    while word_load(&job.finished) < came:
        naps += 1
        if naps < 20 * PAUSES:
            spin_pause()
        elif naps < 40 * PAUSES:
            spin_yield()
        else:  # it does something long, or does not get its core
            PyThread_acquire_lock_timed(never, NAP_MICROSECONDS, 0)
    word_store(&taken, 0)


# Memory that is new to a process costs more than what small products compute in it: the last piece of a few
# megabytes is kept for the next who asks.
cdef enum:
    KEPT_BYTES = 1 << 23
    SHOWN_BYTES = 1 << 22

cdef Word spare = 0             # an address or 0: who takes it out owns it


cdef uint8_t *borrow(size_t size, size_t *borrowed) noexcept nogil:
    # Return at least `size` bytes that begin on a cache line, or NULL; *borrowed tells how many.
    cdef uint8_t *memory = <uint8_t *><uintptr_t>word_exchange(&spare, 0) if ATOMIC_WORDS else NULL
    if memory != NULL:
        # Its size stands in its first bytes: nobody writes there before it is given back.
        borrowed[0] = (<size_t *>memory)[0]
        if borrowed[0] >= size:
            return memory
        _free(memory)
    borrowed[0] = (size + 4095) // 4096 * 4096
    return _allocate(borrowed[0])


cdef void give_back(uint8_t *memory, size_t size) noexcept nogil:
    # Keep it for the next one, or free it.
    cdef uint8_t *other = memory
    if memory != NULL and size <= KEPT_BYTES and ATOMIC_WORDS:
        (<size_t *>memory)[0] = size
        other = <uint8_t *><uintptr_t>word_exchange(&spare, <Word><uintptr_t>memory)
    _free(other)


cdef uint8_t *_allocate(size_t size) noexcept nogil:
    # The address that malloc gave stands before what is returned.
    cdef uint8_t *memory = <uint8_t *>malloc(size + 64 + sizeof(void *))
    cdef uint8_t *aligned
    if memory == NULL:
        return NULL
    aligned = memory + sizeof(void *)
    aligned += -<uintptr_t>aligned & 63
    (<void **>(aligned - sizeof(void *)))[0] = memory
    return aligned


cdef void _free(uint8_t *memory) noexcept nogil:
    if memory != NULL:
        free((<void **>(memory - sizeof(void *)))[0])


def _helpers() -> int:
    """Return how many helpers this process has started; for tests."""
    return helpers


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
        [0] is how long each task turns. Task i adds 1 to [2 + 2 * i] and puts its worker beside it.
    """
    cdef int most = hire(workers)
    if rows.shape[0] != 2 + 2 * count:
        raise ValueError(f"rows must hold {2 + 2 * count} numbers, not {rows.shape[0]}")
    with nogil:
        share(_count, &rows[0], count, most, is_long)


def _forget() -> None:
    """Forget the helpers, which a forked child has not, and whom they worked for."""
    global helpers, never
    helpers = 0
    never = PyThread_allocate_lock()  # another thread may have been at the old one
    PyThread_acquire_lock(never, 1)
    word_store(&hiring, 0)
    word_store(&ticket, word_load(&ticket) & ~COUNT)
    word_store(&taken, 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
never = PyThread_allocate_lock()
PyThread_acquire_lock(never, 1)


cdef void _keep_pages() noexcept:
    # Arrays come and go through malloc. That of glibc gives every block from 128 kB on back to the system, and
    # fetches new pages for the next one, until it has seen a larger one freed: from then on it keeps blocks up to
    # that size. Programs that use numpy on large arrays come to that by themselves; one that begins with this
    # package would spend a quarter of a fold's time on pages. So it is shown a block as large as a run's largest,
    # of which no page is touched. MALLOC_MMAP_THRESHOLD_ in the environment keeps it from learning.
    cdef Word shown = 0
    word_store(&shown, <Word><uintptr_t>malloc(SHOWN_BYTES))  # a compiler may drop what nobody can see
    free(<void *><uintptr_t>word_load(&shown))


_keep_pages()
