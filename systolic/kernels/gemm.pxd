from libc.stdint cimport int32_t, uint8_t

cdef extern from "kernels/gemm.h" nogil:
    ctypedef struct GemmKernels:
        Py_ssize_t panel_cols
        Py_ssize_t unpacked_rows
        size_t (*packed_bytes)(Py_ssize_t k, Py_ssize_t n) noexcept nogil
        void (*pack)(const uint8_t *b, Py_ssize_t b_stride, Py_ssize_t k, Py_ssize_t n, int a_signed, int b_signed,
                     void *packed) noexcept nogil
        size_t (*scratch_bytes)(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n) noexcept nogil
        void (*multiply)(const uint8_t *a, Py_ssize_t a_stride, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, int a_signed,
                         int b_signed, const void *packed, int32_t *acc, Py_ssize_t acc_stride,
                         void *scratch) noexcept nogil
        void (*multiply_unpacked)(const uint8_t *a, Py_ssize_t a_stride, Py_ssize_t m, Py_ssize_t k, Py_ssize_t n,
                                  int a_signed, int b_signed, const uint8_t *b, Py_ssize_t b_stride, int32_t *acc,
                                  Py_ssize_t acc_stride, void *scratch) noexcept nogil
