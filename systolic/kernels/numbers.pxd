from libc.stdint cimport int32_t, int64_t, uint8_t

from systolic.kernels.pool cimport PoolTask

cdef extern from "kernels/numbers.h" nogil:
    ctypedef enum Arithmetic:
        WRAP_32
        WRAP_64
        SATURATE_32
        SATURATE_64
        FLOAT_32

    ctypedef enum Stored:
        INTEGER_8
        UNSIGNED_8
        INTEGER_16
        UNSIGNED_16
        BFLOAT_16
        FLOAT_16
        FLOAT_8_E4M3FN
        FLOAT_8_E5M2

    ctypedef struct NumberPorts:
        const void *values
        Py_ssize_t cycle, port

    ctypedef struct NumbersRun:
        Py_ssize_t rows, cols, cycles
        Stored activation_type, weight_type
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
        PoolTask make_streams
        PoolTask clock_strip
        PoolTask clock_held_strip

cdef extern from "kernels/numbers_block.h" nogil:
    enum:
        NUMBERS_LANES

    ctypedef struct NumbersBlock:
        NumbersRun array
        size_t work_bytes

    size_t numbers_begin(NumbersBlock *block)
    void numbers_place(NumbersBlock *block, uint8_t *memory, int workers)
    int numbers_next(NumbersBlock *block)
