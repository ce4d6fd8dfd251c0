# Whole convolutions in wavefront mode, part of _gemm.pyx: patches, their product with the filters and, on
# request, the requantization of its sums, piece by piece, so that a piece stays in cache from step to step.
#
# A piece is some pixels of one image and one group of channels. With channels first the filters are the left
# operand, (n, k), and patches are columns, (k, pixels), so that each channel's sums are contiguous, as in the
# output. With channels last patches are rows and the filters are (k, n).
#
# Threads take whole pieces if there are enough. Late layers have few pixels and many filters: there all threads
# make and pack the patches of one piece together, then share its filters.

cdef enum:
    PIECE_BYTES = 384 << 10     # patches and sums of a piece: they stay in the L2 cache
    PIECES_EACH = 8             # per thread, so that all end at about the same time
    TILE_ROWS = 12              # filters are shared in multiples of the products' tiles


cdef struct Convolution:
    const GemmKernels *gemm
    const HostKernels *table
    HostWindow window
    const uint8_t *weights      # (groups, n, k), or (groups, k, n) with channels last
    Py_ssize_t groups, n, k
    bint x_signed, w_signed, channels_last
    bint direct                 # the image is its own patches: 1 x 1 filters, no padding or strides
    uint8_t pad_value
    int32_t *acc                # receives the sums; NULL: they are requantized to codes
    uint8_t *codes
    int codes_signed
    int32_t zero
    const float *scale
    const int32_t *constant
    Py_ssize_t first_image, first_pixel, pixels, pieces, length
    long long *spent            # nanoseconds of patches, product, codes; or NULL
    # A piece that all threads share: its number, patches and packed patches; filters and rows of a task.
    Py_ssize_t piece, filters_each, rows_each, columns_stride
    const uint8_t *columns
    uint8_t *patches
    uint8_t *packed
    # Of every worker: patches, sums, scratch of the product.
    uint8_t *memory
    size_t memory_each, sums_at, product_at, packed_at


cdef struct Piece:
    Py_ssize_t image, group, first, count


cdef Piece _piece(const Convolution *c, Py_ssize_t number) noexcept nogil:
    cdef Piece piece
    piece.first = c.first_pixel + number % c.pieces * c.length
    piece.count = min(c.length, c.first_pixel + c.pixels - piece.first)
    piece.group = number // c.pieces % c.groups
    piece.image = c.first_image + number // c.pieces // c.groups
    return piece


cdef const uint8_t *_patches(const Convolution *c, Piece piece, uint8_t *to, Py_ssize_t *stride) noexcept nogil:
    # Make the patches of a piece, (k, count) or (count, k), or find them in the image; their rows are `stride` apart.
    cdef const HostWindow *window = &c.window
    cdef const uint8_t *image = window.pixels + piece.image * window.batch_stride
    cdef Py_ssize_t channel = piece.group * c.k
    cdef Py_ssize_t m = piece.image * window.out[0] * window.out[1] + piece.first
    if c.direct:
        image += channel * window.channel_stride + piece.first * window.pixel_stride
        stride[0] = window.pixel_stride if c.channels_last else window.channel_stride
        return image
    if c.channels_last:
        stride[0] = c.k
        c.table.im2col(window, to, c.k, channel, c.k, m, piece.count, c.pad_value)
    else:
        stride[0] = piece.count
        c.table.im2col_transposed(window, to, piece.count, channel, c.k, m, piece.count, c.pad_value)
    return to


cdef int32_t *_sums_of(const Convolution *c, Piece piece, Py_ssize_t first, Py_ssize_t filters, uint8_t *memory,
                       Py_ssize_t *stride) noexcept nogil:
    # Where the sums of some filters of a piece go, in rows `stride` apart.
    cdef Py_ssize_t all_pixels = c.window.out[0] * c.window.out[1], channels = c.groups * c.n
    cdef Py_ssize_t channel = piece.group * c.n + first
    if c.acc == NULL:
        stride[0] = filters if c.channels_last else piece.count
        return <int32_t *>memory
    if c.channels_last:
        stride[0] = channels
        return c.acc + (piece.image * all_pixels + piece.first) * channels + channel
    stride[0] = all_pixels
    return c.acc + (piece.image * channels + channel) * all_pixels + piece.first


cdef void _requantize_piece(const Convolution *c, Piece piece, Py_ssize_t first, Py_ssize_t filters,
                            const int32_t *acc) noexcept nogil:
    # Turn the sums of some filters of a piece into codes, if codes are asked for.
    cdef Py_ssize_t all_pixels = c.window.out[0] * c.window.out[1], channels = c.groups * c.n
    cdef Py_ssize_t channel = piece.group * c.n + first
    cdef HostSums sums
    cdef uint8_t *codes = c.codes
    if c.acc != NULL:
        return
    sums.acc, sums.constant, sums.scale = acc, c.constant + channel, c.scale + channel
    sums.row_sums = sums.weight_zero = NULL
    sums.groups, sums.channels = 1, filters
    if c.channels_last:
        sums.outer, sums.inner = piece.count, 1
        sums.acc_outer, sums.acc_channel = filters, 1
        sums.out_outer, sums.out_channel = channels, 1
        codes += (piece.image * all_pixels + piece.first) * channels + channel
    else:
        sums.outer, sums.inner = 1, piece.count
        sums.acc_outer, sums.acc_channel = 0, piece.count
        sums.out_outer, sums.out_channel = 0, all_pixels
        codes += (piece.image * channels + channel) * all_pixels + piece.first
    c.table.requantize(&sums, codes, c.codes_signed, c.zero)


cdef void _whole_piece(void *context, Py_ssize_t number, int worker) noexcept nogil:
    cdef const Convolution *c = <const Convolution *>context
    cdef Piece piece = _piece(c, number)
    cdef uint8_t *memory = c.memory + worker * c.memory_each
    cdef const uint8_t *weights = c.weights + piece.group * c.n * c.k
    cdef Py_ssize_t stride, sums_stride
    cdef const uint8_t *patches
    cdef int32_t *sums
    cdef long long began = 0
    if c.spent != NULL:
        began = spin_clock()
    patches = _patches(c, piece, memory, &stride)
    _spend(c, 0, &began)
    sums = _sums_of(c, piece, 0, c.n, memory + c.sums_at, &sums_stride)
    if c.channels_last:
        multiply_once(c.gemm, patches, stride, piece.count, c.k, c.n, c.x_signed, c.w_signed, weights, c.n,
                      sums, sums_stride, memory + c.product_at)
    else:
        multiply_once(c.gemm, weights, c.k, c.n, c.k, piece.count, c.w_signed, c.x_signed, patches, stride,
                      sums, sums_stride, memory + c.product_at)
    _spend(c, 1, &began)
    _requantize_piece(c, piece, 0, c.n, sums)
    _spend(c, 2, &began)


cdef void _spend(const Convolution *c, int stage, long long *began) noexcept nogil:
    cdef long long now
    if c.spent != NULL:
        now = spin_clock()
        c.spent[stage] += now - began[0]
        began[0] = now


cdef void _make_rows(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Make some rows of the patches that all threads share.
    cdef const Convolution *c = <const Convolution *>context
    cdef Piece piece = _piece(c, c.piece)
    cdef Py_ssize_t first = number * c.rows_each, m = piece.image * c.window.out[0] * c.window.out[1] + piece.first
    c.table.im2col_transposed(&c.window, c.patches + first * piece.count, piece.count, piece.group * c.k + first,
                              min(c.rows_each, c.k - first), m, piece.count, c.pad_value)


cdef void _pack_columns(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Pack one panel of the patches that all threads share.
    cdef const Convolution *c = <const Convolution *>context
    cdef Py_ssize_t first = number * c.gemm.panel_cols
    c.gemm.pack(c.columns + first, c.columns_stride, c.k, min(c.gemm.panel_cols, _piece(c, c.piece).count - first),
                c.w_signed, c.x_signed, c.packed + c.gemm.packed_bytes(c.k, first))


cdef void _multiply_filters(void *context, Py_ssize_t number, int worker) noexcept nogil:
    # Multiply the patches that all threads share by some filters.
    cdef const Convolution *c = <const Convolution *>context
    cdef Piece piece = _piece(c, c.piece)
    cdef Py_ssize_t first = number * c.filters_each, filters = min(c.filters_each, c.n - first), sums_stride
    cdef uint8_t *memory = c.memory + worker * c.memory_each
    cdef int32_t *sums = _sums_of(c, piece, first, filters, memory + c.sums_at, &sums_stride)
    c.gemm.multiply(c.weights + (piece.group * c.n + first) * c.k, c.k, filters, c.k, piece.count, c.w_signed,
                    c.x_signed, c.packed, sums, sums_stride, memory + c.product_at)
    _requantize_piece(c, piece, first, filters, sums)


cdef int _convolve(Convolution *c, Py_ssize_t images, int workers) except -1 nogil:
    cdef Py_ssize_t blocks = images * c.groups, size = c.k + (4 * c.n if c.acc == NULL else 0)
    cdef size_t shared, borrowed
    cdef uint8_t *memory
    cdef bint is_long = c.n * c.pixels >= LONG_MACS // c.k // blocks
    c.length = max(PIECE_BYTES // size, 64)
    if workers > 1:
        c.length = min(c.length, max(c.pixels * blocks // (PIECES_EACH * workers), 64))
    c.length = min((c.length + 31) // 32 * 32, c.pixels)
    c.pieces = (c.pixels + c.length - 1) // c.length
    c.filters_each = c.n
    if workers > 1 and blocks * c.pieces < 2 * workers and not c.channels_last and c.n > TILE_ROWS:
        c.filters_each = (c.n + PIECES_EACH * workers // 2 - 1) // (PIECES_EACH * workers // 2)
        c.filters_each = (c.filters_each + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    shared = _divide_memory(c, c.filters_each != c.n)
    memory = borrow(shared + workers * c.memory_each, &borrowed)
    if memory == NULL:
        with gil:
            raise MemoryError()
    c.memory = memory + shared
    if shared:
        c.patches, c.packed = memory, memory + c.packed_at
        _share_pieces(c, blocks * c.pieces, workers, is_long)
    else:
        share(_whole_piece, c, blocks * c.pieces, workers, is_long)
    give_back(memory, borrowed)
    return 0


cdef size_t _divide_memory(Convolution *c, bint shared) noexcept nogil:
    # Set the parts of each worker's memory; return the bytes of what all share, if they share pieces.
    cdef size_t patches = 0 if c.direct else whole_lines(c.k * c.length)
    c.sums_at = 0 if shared else patches
    c.product_at = c.sums_at + whole_lines(4 * c.filters_each * c.length if c.acc == NULL else 0)
    if shared:
        c.memory_each = c.product_at + whole_lines(c.gemm.scratch_bytes(c.filters_each, c.k, c.length))
        c.packed_at = patches
        return patches + whole_lines(c.gemm.packed_bytes(c.k, c.length))
    if c.channels_last:
        c.memory_each = c.product_at + once_bytes(c.gemm, c.length, c.k, c.n)
    else:
        c.memory_each = c.product_at + once_bytes(c.gemm, c.n, c.k, c.length)
    return 0


cdef void _share_pieces(Convolution *c, Py_ssize_t pieces, int workers, bint is_long) noexcept nogil:
    # Compute piece after piece, all threads together.
    cdef Py_ssize_t number, count
    c.rows_each = (c.k + 4 * workers - 1) // (4 * workers)
    for number in range(pieces):
        c.piece = number
        count = _piece(c, number).count
        if c.direct:
            c.columns = _patches(c, _piece(c, number), NULL, &c.columns_stride)
        else:
            share(_make_rows, c, (c.k + c.rows_each - 1) // c.rows_each, workers, is_long)
            c.columns, c.columns_stride = c.patches, count
        share(_pack_columns, c, (count + c.gemm.panel_cols - 1) // c.gemm.panel_cols, workers, is_long)
        share(_multiply_filters, c, (c.n + c.filters_each - 1) // c.filters_each, workers, is_long)


def convolve(x, weights, acc, kernel, stride, dilation, pad, out_size, pad_value, *, images, pixels,
             bint channels_last=False, codes=None, scale=None, zero_point=0, constant=None, Py_ssize_t threads=1,
             long long[::1] spent=None) -> None:
    """Convolve quantized values: put the sums into `acc`, or requantized into `codes`.

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
        Layout of the result; x is fastest as a transposed view of images with channels last.
    codes : ndarray of int8 or uint8, or None
        Of the shape that acc would have, C-contiguous; requantized as by ``_host.requantize``.
    scale : ndarray of float32, (groups * n,)
    zero_point : int
    constant : ndarray of int32, (groups * n,)
        Added to the sums.
    threads : int
        Most threads to use; results do not depend on it.
    spent : ndarray of int64, (3,), or None
        Receives the nanoseconds spent on patches, product and requantization; for one thread. Used by
        ``bench/resnet50.py`` only.
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
    c.channels_last = channels_last
    c.gemm, c.table = in_use().gemm, in_use().host
    c.x_signed, c.w_signed = _is_signed(x), _is_signed(weights)
    c.pad_value = <uint8_t>(_zero(pad_value, c.x_signed) & 0xFF)
    _window(&c.window, image, kernel, stride, dilation, pad, out_size)
    c.groups, c.n, c.k = matrix.shape[0], matrix.shape[1], matrix.shape[2]
    if c.channels_last:
        c.n, c.k = c.k, c.n
    all_pixels = c.window.out[0] * c.window.out[1]
    c.first_image, c.first_pixel, c.pixels = images[0], pixels[0], last_pixel - pixels[0]
    if c.groups * c.k != image.shape[1] * c.window.kernel[0] * c.window.kernel[1]:
        raise ValueError(f"weights {weights.shape} do not fit images {x.shape} and kernel {kernel}")
    if not 0 <= c.first_image <= last_image <= batch or not 0 <= c.first_pixel <= last_pixel <= all_pixels:
        raise ValueError(f"images {images} and pixels {pixels} must lie within {batch} and {all_pixels}")
    shape = (batch, *out_size, c.groups * c.n) if c.channels_last else (batch, c.groups * c.n, *out_size)
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
        and (c.window.channel_stride if c.channels_last else c.window.pixel_stride) == 1
    )
    # At least some microseconds for each.
    values = (last_image - c.first_image) * c.groups * c.pixels * (c.k + c.n + c.k * c.n // 256)
    workers = hire(min(threads, 1 + values // 1024))
    with nogil:
        _convolve(&c, last_image - c.first_image, workers)
