from libc.stdint cimport uint8_t

cdef extern from "kernels/scratch.h" nogil:
    uint8_t *scratch_borrow(size_t size, size_t *borrowed)
    void scratch_give_back(uint8_t *memory, size_t borrowed)
