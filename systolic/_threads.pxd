from libc.stdint cimport uint8_t

from systolic.kernels.pool cimport PoolTask

cdef int hire(Py_ssize_t workers) noexcept nogil
cdef void share(PoolTask task, void *context, Py_ssize_t count, int workers, bint is_long) noexcept nogil
cdef uint8_t *borrow(size_t size, size_t *borrowed) noexcept nogil
cdef void give_back(uint8_t *memory, size_t borrowed) noexcept nogil


cdef inline size_t whole_lines(size_t size) noexcept nogil:
    # Bytes of the cache lines that so many bytes fill.
    return (size + 63) // 64 * 64
