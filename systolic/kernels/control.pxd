from libc.stdint cimport int32_t, int64_t, uint8_t

from systolic.kernels.array cimport LaneWeights

cdef extern from "kernels/control.h" nogil:
    void copy_bytes(uint8_t *to, const uint8_t *source, Py_ssize_t count)
    void copy_ints(int32_t *to, const int32_t *source, Py_ssize_t count)
    void blend(uint8_t *to, const uint8_t *source, const uint8_t *mask)
    int64_t count_bits(const void *one, const void *other, Py_ssize_t size)
    int any_lane(const uint8_t *mask)
    int any_byte(const uint8_t *bytes, Py_ssize_t count)
    void as_masks(uint8_t *to, const uint8_t *source, Py_ssize_t count)
    void as_bits(uint8_t *to, const uint8_t *masks, Py_ssize_t count)
    Py_ssize_t find_last(const uint8_t *masks, Py_ssize_t count)
    Py_ssize_t find_stretches(int32_t *since, const uint8_t *shifts, const uint8_t *swaps, Py_ssize_t count,
                              Py_ssize_t most)
    void find_set(int32_t *range, const uint8_t *masks, Py_ssize_t count)
    void shift_some(uint8_t *chain, const uint8_t *shift, LaneWeights *weights)
    void shift_none(uint8_t *chain, Py_ssize_t first, Py_ssize_t last, const uint8_t *weight_pass)
    void shift_all(uint8_t *chain, Py_ssize_t cycles, LaneWeights *weights)
