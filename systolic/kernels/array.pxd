from libc.stdint cimport int32_t, int64_t, uint8_t

cdef extern from "kernels/array.h" nogil:
    enum: LANES
    enum: ROW_GROUP
    enum: ROW_PAIRS
    enum: TOGGLES, T_WEIGHT, T_NEXT_WEIGHT, T_WEIGHT_PASS, T_ACTIVATION, T_PSUM, T_SHIFT, T_SWAP, T_OUT, T_OUT_PASS

    ctypedef struct LaneWeights:
        uint8_t weight[LANES]
        uint8_t next_weight[LANES]
        uint8_t weight_pass[LANES]

    ctypedef struct BytePorts:
        const uint8_t *values
        Py_ssize_t cycle, port

    ctypedef struct PsumPorts:
        const int32_t *values
        Py_ssize_t cycle, port

    ctypedef struct ArrayRun:
        Py_ssize_t rows, cols, cycles
        uint8_t *weight
        uint8_t *next_weight
        uint8_t *weight_pass
        uint8_t *activation
        uint8_t *shift
        uint8_t *swap
        int32_t *psum
        int32_t *out
        int32_t *out_pass
        int activation_signed, weight_signed
        BytePorts west_activation, west_shift, west_swap, north_weight
        PsumPorts north_psum
        int32_t *bottom
        Py_ssize_t bottom_cycle, bottom_col
        int64_t *toggles

    ctypedef struct ArrayKernels:
        void (*clock)(const ArrayRun *array) noexcept nogil
        void (*clock_held)(const ArrayRun *array) noexcept nogil
        const ArrayKernels *counting
        void (*multipliers)(int32_t *to, const uint8_t *codes, int is_signed, int half) noexcept nogil
        void (*pair_up)(int32_t *pairs, const uint8_t *first, const uint8_t *second, Py_ssize_t length,
                        int is_signed) noexcept nogil
        void (*mac_row)(int32_t *psums, Py_ssize_t cycles, const int32_t *pairs, const int32_t *multipliers,
                        int half, int32_t *before, int64_t *toggles) noexcept nogil
        void (*mac_rows)(int32_t *psums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *multipliers,
                         int32_t *before, int64_t *toggles) noexcept nogil
        void (*mac_block)(int32_t *psums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *multipliers,
                          int32_t *before, int64_t *toggles) noexcept nogil
        void (*mac_swap)(int32_t *psums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *old,
                         const int32_t *after, Py_ssize_t at, int32_t *before, int64_t *toggles) noexcept nogil
        void (*step_weights)(Py_ssize_t cycles, const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain,
                             LaneWeights *weights, int64_t *toggles) noexcept nogil
        void (*step_row)(int32_t *psums, Py_ssize_t cycles, const int32_t *pairs, int half, const uint8_t *shifts,
                         const uint8_t *swaps, uint8_t *chain, LaneWeights *weights, int is_signed, int32_t *before,
                         int64_t *toggles) noexcept nogil
        void (*reverse_ports)(uint8_t *to, Py_ssize_t to_stride, const uint8_t *source, Py_ssize_t t_stride,
                              Py_ssize_t r_stride, Py_ssize_t cycles, Py_ssize_t rows) noexcept nogil
        void (*put_bottom)(int32_t *bottom, Py_ssize_t t_stride, Py_ssize_t c_stride, int32_t *psums,
                           Py_ssize_t cycles, Py_ssize_t valid) noexcept nogil
        void (*take_ports)(uint8_t *codes, const uint8_t *source, Py_ssize_t cycle, Py_ssize_t port, Py_ssize_t cycles,
                           Py_ssize_t valid) noexcept nogil
        void (*widen)(int32_t *to, const uint8_t *codes, Py_ssize_t lines, int is_signed) noexcept nogil
        void (*hold_row)(int32_t *sums, Py_ssize_t cycles, const int32_t *pairs, int half, const int32_t *weights,
                         const uint8_t *swaps, int32_t *captured, int64_t *toggles) noexcept nogil
        void (*hold_rows)(int32_t *sums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *weights,
                          int64_t *toggles) noexcept nogil
        void (*hold_block)(int32_t *sums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *weights,
                           int64_t *toggles) noexcept nogil
        void (*hold_swaps)(int32_t *sums, Py_ssize_t cycles, const int32_t *const *pairs, const int32_t *weights,
                           const uint8_t *const *swaps, int32_t *const *captured, int64_t *toggles) noexcept nogil
        void (*step_out)(Py_ssize_t cycles, const uint8_t *drains, const uint8_t *swaps, int32_t *above,
                         const int32_t *captured, int32_t *out, int32_t *out_pass, int32_t *outs,
                         int64_t *toggles) noexcept nogil
        int64_t (*count_stream)(const uint8_t *stream, Py_ssize_t count, const int32_t *times) noexcept nogil
        int64_t (*count_lines)(const uint8_t *lines, Py_ssize_t count, const int32_t *times) noexcept nogil
        int64_t (*count_changes)(const uint8_t *values, Py_ssize_t count, Py_ssize_t distance) noexcept nogil
