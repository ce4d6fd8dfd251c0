from libc.stdint cimport int64_t, uint16_t

from systolic.kernels.host cimport HostWindow
from systolic.kernels.numbers cimport Arithmetic, Stored

cdef extern from "kernels/ordered.h" nogil:
    ctypedef struct StoredMatrix:
        const void *values
        Py_ssize_t line
        int lines_are_columns
        Py_ssize_t first_row, first_col
        Stored type
        const float *table
        const HostWindow *window
        uint16_t pad

    ctypedef struct OrderedProduct:
        Py_ssize_t m, k, n, step
        StoredMatrix a, b
        void *acc
        Py_ssize_t acc_row
        Arithmetic arithmetic
        int64_t low, high

    ctypedef struct OrderedKernels:
        Py_ssize_t rows, cols
        size_t (*scratch_bytes)(const OrderedProduct *product) noexcept nogil
        void (*multiply)(const OrderedProduct *product, void *scratch) noexcept nogil
