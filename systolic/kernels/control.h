/* The shift chain and the swaps of one row of LANES PEs, where control comes in stretches. */
#ifndef SYSTOLIC_CONTROL_H
#define SYSTOLIC_CONTROL_H

#include "array.h"

#include <string.h>

/* Copies of up to LANES elements; a whole strip's are a few instructions. */
static inline void copy_bytes(uint8_t *to, const uint8_t *from, ptrdiff_t count) {
    if (count == LANES) memcpy(to, from, LANES);
    else memcpy(to, from, (size_t)count);
}

static inline void copy_ints(int32_t *to, const int32_t *from, ptrdiff_t count) {
    if (count == LANES) memcpy(to, from, LANES * sizeof(int32_t));
    else memcpy(to, from, (size_t)count * sizeof(int32_t));
}

/* Where mask is 0xFF take `from`, where it is 0 keep `to`. */
static inline void blend(uint8_t *to, const uint8_t *from, const uint8_t *mask) {
    uint64_t a[LANES / 8], b[LANES / 8], m[LANES / 8];
    int i;
    memcpy(a, to, LANES);
    memcpy(b, from, LANES);
    memcpy(m, mask, LANES);
    for (i = 0; i < LANES / 8; ++i) a[i] ^= (a[i] ^ b[i]) & m[i];
    memcpy(to, a, LANES);
}

/* How many bits of `size` bytes differ, a multiple of 8. */
static inline int64_t count_bits(const void *one, const void *other, ptrdiff_t size) {
    const char *a = (const char *)one, *b = (const char *)other;
    uint64_t x, y;
    int64_t sum = 0;
    ptrdiff_t i;
    for (i = 0; i < size; i += 8) {
        memcpy(&x, a + i, 8);
        memcpy(&y, b + i, 8);
        x ^= y;
        x = x - ((x >> 1) & 0x5555555555555555u);
        x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
        sum += (int64_t)((((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u) >> 56);
    }
    return sum;
}

/* Whether any lane's mask is set. */
static inline int any_lane(const uint8_t *mask) {
    uint64_t low, high;
    memcpy(&low, mask, 8);
    memcpy(&high, mask + 8, 8);
    return (low | high) != 0;
}

/* Whether any of `count` bytes is set. */
static inline int any_byte(const uint8_t *bytes, ptrdiff_t count) {
    uint8_t seen = 0;
    ptrdiff_t i;
    for (i = 0; i < count; ++i) seen |= bytes[i];
    return seen != 0;
}

/* Bytes 0 and other than 0 as 0 and 0xFF. */
static inline void as_masks(uint8_t *to, const uint8_t *from, ptrdiff_t count) {
    ptrdiff_t i;
    for (i = 0; i < count; ++i) to[i] = (uint8_t)-(from[i] != 0);
}

/* Masks as bytes 0 and 1. */
static inline void as_bits(uint8_t *to, const uint8_t *masks, ptrdiff_t count) {
    ptrdiff_t i;
    for (i = 0; i < count; ++i) to[i] = masks[i] & 1;
}

/* For each of `count` elements, where the stretch of equal (shift, swap) that it is in begins;
 * returns how many there are, or most + 1 as soon as there are more than `most`. */
static inline ptrdiff_t find_stretches(int32_t *since, const uint8_t *shifts, const uint8_t *swaps, ptrdiff_t count,
                                       ptrdiff_t most) {
    ptrdiff_t start = 0, stop, stretches = 0, i;
    for (; start < count && stretches <= most; start = stop, ++stretches) {
        for (stop = start + 1; stop < count; ++stop) {
            /* Eight elements that each equal the one before. */
            while (stop + 8 <= count && memcmp(shifts + stop, shifts + stop - 1, 8) == 0 &&
                   memcmp(swaps + stop, swaps + stop - 1, 8) == 0)
                stop += 8;
            if (stop == count || shifts[stop] != shifts[start] || swaps[stop] != swaps[start]) break;
        }
        for (i = start; i < stop; ++i) since[i] = (int32_t)start;
    }
    return stretches;
}

/* The last of `count` elements that is set; -1 if none is. */
static inline ptrdiff_t find_last(const uint8_t *masks, ptrdiff_t count) {
    ptrdiff_t i = count;
    for (; i >= 8; i -= 8) {
        uint64_t word;
        memcpy(&word, masks + i - 8, 8);
        if (word != 0) break;
    }
    while (i > 0 && masks[i - 1] == 0) --i;
    return i - 1;
}

/* The first and the last element that is set; count and -1 if none is. */
static inline void find_set(int32_t range[2], const uint8_t *masks, ptrdiff_t count) {
    const uint8_t *found = (const uint8_t *)memchr(masks, 0xFF, (size_t)count);
    range[0] = (int32_t)(found == NULL ? count : found - masks);
    range[1] = (int32_t)find_last(masks, count);
}

/* The shift chain, clocked by the three functions below. chain[i] holds the weight_pass of the
 * PEs above before the i-th edge and becomes this row's own weight_pass before that edge, which
 * is what the row below needs. Where a shift arrives, weight_pass takes the old next_weight and
 * next_weight the arriving weight. */

/* One edge on which shift (0 or 0xFF) arrives in some lanes. */
static inline void shift_some(uint8_t *chain, const uint8_t *shift, LaneWeights *weights) {
    uint8_t arriving[LANES];
    memcpy(arriving, chain, LANES);
    memcpy(chain, weights->weight_pass, LANES);
    blend(weights->weight_pass, weights->next_weight, shift);
    blend(weights->next_weight, arriving, shift);
}

/* Edges first..last-1, on which it arrives in no lane: weight_pass keeps its value. */
static inline void shift_none(uint8_t *chain, ptrdiff_t first, ptrdiff_t last, const uint8_t *weight_pass) {
    ptrdiff_t i;
    for (i = first; i < last; ++i) memcpy(chain + i * LANES, weight_pass, LANES);
}

/* Edges on which it arrives in all lanes. The chain delays by two edges per row. */
static inline void shift_all(uint8_t *chain, ptrdiff_t cycles, LaneWeights *weights) {
    uint8_t last[2 * LANES];
    if (cycles == 1) {
        memcpy(last, chain, LANES);
        memcpy(chain, weights->weight_pass, LANES);
        memcpy(weights->weight_pass, weights->next_weight, LANES);
        memcpy(weights->next_weight, last, LANES);
        return;
    }
    memcpy(last, chain + (cycles - 2) * LANES, 2 * LANES);
    memmove(chain + 2 * LANES, chain, (size_t)(cycles - 2) * LANES);
    memcpy(chain, weights->weight_pass, LANES);
    memcpy(chain + LANES, weights->next_weight, LANES);
    memcpy(weights->weight_pass, last, LANES);
    memcpy(weights->next_weight, last + LANES, LANES);
}

#endif
