/* Exact products of 8-bit matrices, int32 sums modulo 2^32: one table of functions per instruction set.
 *
 * Every table computes the same numbers; they differ in speed and in the layout of a packed b. No
 * function allocates, keeps state or reads a byte outside its operands, so that any number of
 * threads may call them on buffers of their own (packed b may be shared by readers).
 *
 * a is (m, k) and b is (k, n), bytes, each int8 (signed nonzero) or uint8; m, k and n are at least
 * 1. Rows are contiguous; strides count from row to row, in bytes for a and b, in sums for acc.
 * `packed` and `scratch` are 64-byte aligned and the caller's.
 */
#ifndef SYSTOLIC_GEMM_H
#define SYSTOLIC_GEMM_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    /* Columns of b that are packed together. The columns from j on, j a multiple of it, may be
     * packed and multiplied by themselves; in a packed b they begin packed_bytes(k, j) bytes in. */
    ptrdiff_t panel_cols;

    /* Up to this m, multiply_unpacked is the faster of the two for a b that is used once. */
    ptrdiff_t unpacked_rows;

    /* Bytes of a packed b; packed_bytes(k, 0) is 0. */
    size_t (*packed_bytes)(ptrdiff_t k, ptrdiff_t n);

    /* Pack b for multiply with the same k, n and signs. */
    void (*pack)(const uint8_t *b, ptrdiff_t b_stride, ptrdiff_t k, ptrdiff_t n, int a_signed, int b_signed,
                 void *packed);

    /* Bytes of scratch for multiply and for multiply_unpacked; never more than about 1 MB. */
    size_t (*scratch_bytes)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n);

    /* acc[i, j] = sum over k of a[i, k] * b[k, j]. */
    void (*multiply)(const uint8_t *a, ptrdiff_t a_stride, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n,
                     int a_signed, int b_signed, const void *packed, int32_t *acc, ptrdiff_t acc_stride,
                     void *scratch);

    /* The same from b itself: it is packed piece by piece into scratch, in cache. Any m. */
    void (*multiply_unpacked)(const uint8_t *a, ptrdiff_t a_stride, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n,
                              int a_signed, int b_signed, const uint8_t *b, ptrdiff_t b_stride, int32_t *acc,
                              ptrdiff_t acc_stride, void *scratch);
} GemmKernels;

#endif
