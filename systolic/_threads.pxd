from libc.stdint cimport uint8_t

cdef extern from "kernels/spin.h" nogil:
    long long spin_clock()

# What is shared: called with the caller's context, the number of a task and that of the thread that does it,
# from 0 (the caller) to workers - 1: for memory of its own.
ctypedef void (*Task)(void *context, Py_ssize_t number, int worker) noexcept nogil

cdef int hire(Py_ssize_t workers) except -1
cdef void share(Task task, void *context, Py_ssize_t count, int workers, bint is_long) noexcept nogil
cdef uint8_t *borrow(size_t size, size_t *borrowed) noexcept nogil
cdef void give_back(uint8_t *memory, size_t size) noexcept nogil


cdef inline size_t whole_lines(size_t size) noexcept nogil:
    # Bytes of the cache lines that so many bytes fill.
    return (size + 63) // 64 * 64
