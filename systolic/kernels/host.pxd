from libc.stdint cimport int32_t, uint8_t

cdef extern from "kernels/host.h" nogil:
    ctypedef struct HostSums:
        Py_ssize_t outer, channels, inner
        const int32_t *acc
        Py_ssize_t acc_outer, acc_channel
        Py_ssize_t out_outer, out_channel
        const int32_t *constant
        const int32_t *row_sums
        const int32_t *weight_zero
        Py_ssize_t groups
        const float *scale

    ctypedef struct HostWindow:
        const uint8_t *pixels
        Py_ssize_t batch, channels
        Py_ssize_t image[2]
        Py_ssize_t batch_stride, channel_stride, line_stride, pixel_stride
        Py_ssize_t kernel[2]
        Py_ssize_t stride[2]
        Py_ssize_t dilation[2]
        Py_ssize_t pad[2]
        Py_ssize_t out[2]

    ctypedef struct HostKernels:
        void (*requantize)(const HostSums *, uint8_t *, int, int32_t) noexcept nogil
        void (*scale_sums)(const HostSums *, float *) noexcept nogil
        void (*quantize)(const float *, uint8_t *, Py_ssize_t, float, int, int32_t) noexcept nogil
        void (*dequantize)(const uint8_t *, float *, Py_ssize_t, float, int, int32_t) noexcept nogil
        void (*add)(const uint8_t *, const uint8_t *, uint8_t *, Py_ssize_t, const float *, int,
                    const int32_t *) noexcept nogil
        void (*mul)(const uint8_t *, const uint8_t *, uint8_t *, Py_ssize_t, const float *, int,
                    const int32_t *) noexcept nogil
        void (*sum_rows)(const uint8_t *, int32_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t, int) noexcept nogil
        void (*max_pool)(const HostWindow *, uint8_t *, uint8_t *, int) noexcept nogil
        void (*im2col_transposed)(const HostWindow *, uint8_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                                  Py_ssize_t, Py_ssize_t, uint8_t) noexcept nogil
        void (*im2col)(const HostWindow *, uint8_t *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                       Py_ssize_t, Py_ssize_t, uint8_t) noexcept nogil
