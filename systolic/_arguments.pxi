# Checks of arguments that _gemm.pyx and _host.pyx share; included in both.

# Sizes of windows are at most this, so that no product of two of them and no sum overflows.
cdef enum:
    MOST = 0x3FFFFFFF

cdef uint8_t no_pixel = 0


cdef int _is_signed(array) except -1:
    # Whether an array of codes is int8; uint8 else.
    dtype = array.dtype
    if dtype == np.int8:
        return 1
    if dtype == np.uint8:
        return 0
    raise ValueError(f"codes must be int8 or uint8, not {dtype}")


cdef int32_t _zero(value, int is_signed) except? -1:
    cdef int32_t zero = value
    if is_signed and not -128 <= zero <= 127 or not is_signed and not 0 <= zero <= 255:
        raise ValueError(f"zero point {zero} does not fit the codes' type")
    return zero


cdef int _window(HostWindow *window, const uint8_t[:, :, :, :] image, kernel, stride, dilation, pad,
                 out_size) except -1:
    window.batch, window.channels = image.shape[0], image.shape[1]
    window.image[0], window.image[1] = image.shape[2], image.shape[3]
    if window.batch and window.channels and window.image[0] and window.image[1]:
        window.pixels = &image[0, 0, 0, 0]
        window.batch_stride, window.channel_stride = image.strides[0], image.strides[1]
        window.line_stride, window.pixel_stride = image.strides[2], image.strides[3]
    else:
        # Nothing is read, but the pointer must be valid; all strides are 0.
        window.pixels = &no_pixel
        window.batch_stride = window.channel_stride = window.line_stride = window.pixel_stride = 0
    _pair(window.kernel, kernel, 1)
    _pair(window.stride, stride, 1)
    _pair(window.dilation, dilation, 1)
    _pair(window.pad, pad, -MOST)
    _pair(window.out, out_size, 0)
    return 0


cdef int _pair(Py_ssize_t *to, values, Py_ssize_t least) except -1:
    cdef int i
    if len(values) != 2:
        raise ValueError(f"expected a pair (height, width), not {values!r}")
    for i in range(2):
        if not least <= values[i] <= MOST:
            raise ValueError(f"sizes of windows must be in {least}..{MOST}, not {values!r}")
        to[i] = values[i]
    return 0
