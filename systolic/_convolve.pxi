# Whole convolutions in wavefront mode, part of _gemm.pyx: patches, their product with the kernels and, where
# they are asked for, codes, piece by piece, each while it is in cache.
#
# In images with channels outermost the kernels stand on the left, (n, k), and patches are columns, so that sums
# come out as they lie, a line of memory per channel; with channels innermost patches are rows.
#
# Where there are enough pieces, threads take whole ones. Late layers have few pixels and many kernels: there all
# threads lower and pack one piece together, then share its kernels.

cdef enum:
    PIECE_BYTES = 384 << 10     # patches and sums of a piece: they stay in the L2 cache
    PIECES_EACH = 8             # per thread, so that all end at about the same time
    ROWS_OF_TILES = 12          # kernels are shared out in multiples of the products' tiles


cdef struct Convolution:
    const GemmKernels *gemm
    const HostKernels *table
    HostWindow window
    const uint8_t *weights      # (groups, n, k), or (groups, k, n) with channels innermost
    Py_ssize_t groups, n, k
    bint x_signed, w_signed, innermost
    bint direct                 # patches are pixels as they lie
    uint8_t pad_value
    int32_t *acc                # where sums go; NULL: they become codes
    uint8_t *codes
    int codes_signed
    int32_t zero
    const float *scale
    const int32_t *constant
    Py_ssize_t first_image, first_pixel, pixels, pieces, length
    long long *spent            # nanoseconds of patches, product, codes; or NULL
    # A piece that all threads share: which, its patches, packed, and how many kernels are taken at a time.
    Py_ssize_t piece, kernels_each, rows_each, columns_stride
    const uint8_t *columns
    uint8_t *lowered
    uint8_t *packed
    # Of every worker: patches, sums, what the product needs.
    uint8_t *memory
    size_t memory_each, sums_at, product_at


cdef struct Place:
    # A piece: which image and group, which pixels of the image.
    Py_ssize_t image, group, first, count


cdef Place _place(const Convolution *c, Py_ssize_t number) noexcept nogil:
    cdef Place place
    place.first = c.first_pixel + number % c.pieces * c.length
    place.count = min(c.length, c.first_pixel + c.pixels - place.first)
    place.group = number // c.pieces % c.groups
    place.image = c.first_image + number // c.pieces // c.groups
    return place


cdef const uint8_t *_patches(const Convolution *c, Place place, uint8_t *to, Py_ssize_t *stride) noexcept nogil:
    # The patches of a piece, (k, count), or (count, k) with channels innermost, whose rows lie `stride` apart.
    cdef const HostWindow *window = &c.window
    cdef const uint8_t *image = window.pixels + place.image * window.batch_stride
    cdef Py_ssize_t channel = place.group * c.k
    cdef Py_ssize_t m = place.image * window.out[0] * window.out[1] + place.first
    if c.direct:
        image += channel * window.channel_stride + place.first * window.pixel_stride
        stride[0] = window.pixel_stride if c.innermost else window.channel_stride
        return image
    if c.innermost:
        stride[0] = c.k
        c.table.im2col(window, to, c.k, channel, c.k, m, place.count, c.pad_value)
    else:
        stride[0] = place.count
        c.table.im2col_transposed(window, to, place.count, channel, c.k, m, place.count, c.pad_value)
    return to


cdef int32_t *_sums_of(const Convolution *c, Place place, Py_ssize_t kernel, Py_ssize_t kernels, uint8_t *memory,
                       Py_ssize_t *stride) noexcept nogil:
    # Where the sums of some kernels of a piece go, and how far apart their rows lie.
    cdef Py_ssize_t all_pixels = c.window.out[0] * c.window.out[1], channels = c.groups * c.n
    cdef Py_ssize_t channel = place.group * c.n + kernel
    if c.acc == NULL:
        stride[0] = kernels if c.innermost else place.count
        return <int32_t *>memory
    if c.innermost:
        stride[0] = channels
        return c.acc + (place.image * all_pixels + place.first) * channels + channel
    stride[0] = all_pixels
    return c.acc + (place.image * channels + channel) * all_pixels + place.first


cdef void _finish_piece(const Convolution *c, Place place, Py_ssize_t kernel, Py_ssize_t kernels,
                        const int32_t *sums) noexcept nogil:
    cdef Py_ssize_t all_pixels = c.window.out[0] * c.window.out[1], channels = c.groups * c.n
    cdef Py_ssize_t channel = place.group * c.n + kernel
    cdef HostSums finished
    cdef uint8_t *codes = c.codes
    if c.acc != NULL:
        return
    finished.acc, finished.constant, finished.scale = sums, c.constant + channel, c.scale + channel
    finished.row_sums = finished.weight_zero = NULL
    finished.groups, finished.channels = 1, kernels
    if c.innermost:
        finished.outer, finished.inner = place.count, 1
        finished.acc_outer, finished.acc_channel = kernels, 1
        finished.out_outer, finished.out_channel = channels, 1
        codes += (place.image * all_pixels + place.first) * channels + channel
    else:
        finished.outer, finished.inner = 1, place.count
        finished.acc_outer, finished.acc_channel = 0, place.count
        finished.out_outer, finished.out_channel = 0, all_pixels
        codes += (place.image * channels + channel) * all_pixels + place.first
    c.table.requantize(&finished, codes, c.codes_signed, c.zero)


cdef void _whole_piece(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const Convolution *c = <const Convolution *>context
    cdef Place place = _place(c, number)
    cdef uint8_t *memory = c.memory + worker * c.memory_each
    cdef const uint8_t *weights = c.weights + place.group * c.n * c.k
    cdef Py_ssize_t stride, sums_stride
    cdef const uint8_t *patches
    cdef int32_t *sums
    cdef long long began = 0
    if c.spent != NULL:
        began = spin_clock()
    patches = _patches(c, place, memory, &stride)
    _spend(c, 0, &began)
    sums = _sums_of(c, place, 0, c.n, memory + c.sums_at, &sums_stride)
    if c.innermost:
        multiply_once(c.gemm, patches, stride, place.count, c.k, c.n, c.x_signed, c.w_signed, weights, c.n,
                      sums, sums_stride, memory + c.product_at)
    else:
        multiply_once(c.gemm, weights, c.k, c.n, c.k, place.count, c.w_signed, c.x_signed, patches, stride,
                      sums, sums_stride, memory + c.product_at)
    _spend(c, 1, &began)
    _finish_piece(c, place, 0, c.n, sums)
    _spend(c, 2, &began)


cdef void _spend(const Convolution *c, int stage, long long *began) noexcept nogil:
    cdef long long now
    if c.spent != NULL:
        now = spin_clock()
        c.spent[stage] += now - began[0]
        began[0] = now


cdef void _lower_rows(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Some rows of the patches of the piece that all threads share.
    cdef const Convolution *c = <const Convolution *>context
    cdef Place place = _place(c, c.piece)
    cdef Py_ssize_t first = number * c.rows_each, m = place.image * c.window.out[0] * c.window.out[1] + place.first
    c.table.im2col_transposed(&c.window, c.lowered + first * place.count, place.count, place.group * c.k + first,
                              min(c.rows_each, c.k - first), m, place.count, c.pad_value)


cdef void _pack_columns(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # A panel of the patches of the piece that all threads share.
    cdef const Convolution *c = <const Convolution *>context
    cdef Py_ssize_t first = number * c.gemm.panel_cols
    c.gemm.pack(c.columns + first, c.columns_stride, c.k, min(c.gemm.panel_cols, _place(c, c.piece).count - first),
                c.w_signed, c.x_signed, c.packed + c.gemm.packed_bytes(c.k, first))


cdef void _some_kernels(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Some kernels on the piece that all threads share.
    cdef const Convolution *c = <const Convolution *>context
    cdef Place place = _place(c, c.piece)
    cdef Py_ssize_t kernel = number * c.kernels_each, kernels = min(c.kernels_each, c.n - kernel), sums_stride
    cdef uint8_t *memory = c.memory + worker * c.memory_each
    cdef int32_t *sums = _sums_of(c, place, kernel, kernels, memory + c.sums_at, &sums_stride)
    c.gemm.multiply(c.weights + (place.group * c.n + kernel) * c.k, c.k, kernels, c.k, place.count, c.w_signed,
                    c.x_signed, c.packed, sums, sums_stride, False, memory + c.product_at)
    _finish_piece(c, place, kernel, kernels, sums)


cdef int _convolve(Convolution *c, Py_ssize_t images, int workers) except -1 nogil:
    cdef Py_ssize_t blocks = images * c.groups, each = c.n, number, count, rows
    cdef Py_ssize_t size = c.k + (4 * c.n if c.acc == NULL else 0)
    cdef size_t shared = 0, lowered = 0, borrowed
    cdef uint8_t *memory
    cdef bint is_long = c.n * c.pixels >= LONG_MACS // c.k // blocks
    c.length = max(PIECE_BYTES // size, 64)
    if workers > 1:
        c.length = min(c.length, max(c.pixels * blocks // (PIECES_EACH * workers), 64))
    c.length = min((c.length + 31) // 32 * 32, c.pixels)
    c.pieces = (c.pixels + c.length - 1) // c.length
    if workers > 1 and blocks * c.pieces < 2 * workers and not c.innermost and c.n > ROWS_OF_TILES:
        each = (c.n + PIECES_EACH * workers // 2 - 1) // (PIECES_EACH * workers // 2)
        each = (each + ROWS_OF_TILES - 1) // ROWS_OF_TILES * ROWS_OF_TILES
        c.kernels_each = each
        lowered = 0 if c.direct else whole_lines(c.k * c.length)
        shared = lowered + whole_lines(c.gemm.packed_bytes(c.k, c.length))
        c.sums_at = 0
        c.product_at = whole_lines(4 * each * c.length if c.acc == NULL else 0)
        c.memory_each = c.product_at + whole_lines(c.gemm.scratch_bytes(each, c.k, c.length))
    else:
        c.sums_at = 0 if c.direct else whole_lines(c.k * c.length)
        c.product_at = c.sums_at + whole_lines(4 * c.n * c.length if c.acc == NULL else 0)
        if c.innermost:
            c.memory_each = c.product_at + once_bytes(c.gemm, c.length, c.k, c.n)
        else:
            c.memory_each = c.product_at + once_bytes(c.gemm, c.n, c.k, c.length)
    memory = borrow(shared + workers * c.memory_each, &borrowed)
    if memory == NULL:
        with gil:
            raise MemoryError()
    c.memory = memory + shared
    if not shared:
        share(_whole_piece, c, blocks * c.pieces, workers, is_long)
    else:
        c.lowered, c.packed = memory, memory + lowered
        c.rows_each = (c.k + 4 * workers - 1) // (4 * workers)
        rows = (c.k + c.rows_each - 1) // c.rows_each
        for number in range(blocks * c.pieces):
            c.piece = number
            count = _place(c, number).count
            if c.direct:
                c.columns = _patches(c, _place(c, number), NULL, &c.columns_stride)
            else:
                share(_lower_rows, c, rows, workers, is_long)
                c.columns, c.columns_stride = c.lowered, count
            share(_pack_columns, c, (count + c.gemm.panel_cols - 1) // c.gemm.panel_cols, workers, is_long)
            share(_some_kernels, c, (c.n + each - 1) // each, workers, is_long)
    give_back(memory, borrowed)
    return 0


def convolve(x, weights, acc, kernel, stride, dilation, pad, out_size, pad_value, *, images, pixels,
             bint channels_last=False, codes=None, scale=None, zero_point=0, constant=None, Py_ssize_t threads=1,
             long long[::1] spent=None) -> None:
    """Convolve codes: put sums into `acc`, or the sums' codes into `codes`, as :func:`requantize` makes them.

    Parameters
    ----------
    x : ndarray of int8 or uint8, (batch, channels, ih, iw)
        Any strides.
    weights : ndarray of int8 or uint8, (groups, n, k), or (groups, k, n) with `channels_last`
        C-contiguous; k runs over (channels of a group, kh, kw).
    acc : ndarray of int32, or None
        (batch, groups * n, oh, ow), or (batch, oh, ow, groups * n) with `channels_last`, C-contiguous.
    kernel, stride, dilation, pad, out_size, pad_value
        As for :func:`im2col_transposed`.
    images, pixels : (int, int)
        From which to which image, and pixel of each, to go.
    channels_last : bool
        Of the result; x is best a transposed view of pixels whose channels are neighbours.
    codes : ndarray of int8 or uint8, or None
        In the shape that acc would have, C-contiguous.
    scale : ndarray of float32, (groups * n,)
    zero_point : int
    constant : ndarray of int32, (groups * n,)
        Added to the sums.
    threads : int
        How many may work; results do not depend on it.
    spent : ndarray of int64, (3,), or None
        Gets the nanoseconds spent on patches, product and codes, added up; for one thread.
    """
    cdef Convolution c
    cdef const uint8_t[:, :, :, :] image = x.view(np.uint8)
    cdef const uint8_t[:, :, ::1] matrix = weights.view(np.uint8)
    cdef int32_t[:, :, :, ::1] sums
    cdef uint8_t[:, :, :, ::1] finished
    cdef const float[::1] scales
    cdef const int32_t[::1] constants
    cdef Py_ssize_t last_image = images[1], last_pixel = pixels[1], batch = image.shape[0], all_pixels, values
    cdef int workers
    if (acc is None) == (codes is None):
        raise ValueError("either acc or codes must be given")
    out = codes if acc is None else acc
    c.innermost = channels_last
    c.gemm, c.table = in_use().gemm, in_use().host
    c.x_signed, c.w_signed = _is_signed(x), _is_signed(weights)
    c.pad_value = <uint8_t>(_zero(pad_value, c.x_signed) & 0xFF)
    _window(&c.window, image, kernel, stride, dilation, pad, out_size)
    c.groups, c.n, c.k = matrix.shape[0], matrix.shape[1], matrix.shape[2]
    if c.innermost:
        c.n, c.k = c.k, c.n
    all_pixels = c.window.out[0] * c.window.out[1]
    c.first_image, c.first_pixel, c.pixels = images[0], pixels[0], last_pixel - pixels[0]
    if c.groups * c.k != image.shape[1] * c.window.kernel[0] * c.window.kernel[1]:
        raise ValueError(f"weights {weights.shape} do not fit images {x.shape} and kernel {kernel}")
    if not 0 <= c.first_image <= last_image <= batch or not 0 <= c.first_pixel <= last_pixel <= all_pixels:
        raise ValueError(f"images {images} and pixels {pixels} must lie within {batch} and {all_pixels}")
    shape = (batch, *out_size, c.groups * c.n) if c.innermost else (batch, c.groups * c.n, *out_size)
    if out.shape != shape:
        raise ValueError(f"acc or codes must be {shape}, not {out.shape}")
    if 0 in (c.first_image - last_image, c.pixels, c.groups, c.n, c.k):
        return
    c.spent = NULL
    if spent is not None:
        if threads > 1 or spent.shape[0] != 3:
            raise ValueError("spent must hold three numbers, and is for one thread")
        c.spent = &spent[0]
    c.acc = NULL
    c.codes = NULL
    if acc is not None:
        sums = acc
        c.acc = &sums[0, 0, 0, 0]
    else:
        finished, scales, constants = codes.view(np.uint8), scale, constant
        if scales.shape[0] != c.groups * c.n or constants.shape[0] != c.groups * c.n:
            raise ValueError(f"scale and constant must hold one number per channel ({c.groups * c.n})")
        c.codes_signed = _is_signed(codes)
        c.zero = _zero(zero_point, c.codes_signed)
        c.codes, c.scale, c.constant = &finished[0, 0, 0, 0], &scales[0], &constants[0]
    c.weights = &matrix[0, 0, 0]
    c.direct = (
        tuple(kernel) == tuple(stride) == (1, 1) and tuple(pad) == (0, 0) and tuple(out_size) == x.shape[2:]
        and c.window.line_stride == c.window.pixel_stride * c.window.image[1]
        and (c.window.channel_stride if c.innermost else c.window.pixel_stride) == 1
    )
    # At least some microseconds for each.
    values = (last_image - c.first_image) * c.groups * c.pixels * (c.k + c.n + c.k * c.n // 256)
    workers = hire(min(threads, 1 + values // 1024))
    with nogil:
        _convolve(&c, last_image - c.first_image, workers)
