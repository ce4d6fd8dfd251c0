from libc.stdint cimport int64_t, uint8_t

cdef extern from "kernels/numbers.h" nogil:
    ctypedef enum Arithmetic:
        WRAP_32
        WRAP_64
        SATURATE_32
        SATURATE_64
        FLOAT_32

    ctypedef struct NumberPorts:
        const void *values
        Py_ssize_t cycle, port

    ctypedef struct NumbersRun:
        Py_ssize_t rows, cols, cycles
        void *weight
        void *next_weight
        void *weight_pass
        void *activation
        uint8_t *shift
        uint8_t *swap
        void *psum
        void *out
        void *out_pass
        NumberPorts west_activation, west_shift, west_swap, north_weight, north_psum
        void *bottom
        Py_ssize_t bottom_cycle, bottom_col
        Arithmetic arithmetic
        int64_t low, high

    ctypedef struct NumbersKernels:
        void (*clock)(const NumbersRun *array) noexcept nogil
        void (*clock_held)(const NumbersRun *array) noexcept nogil
