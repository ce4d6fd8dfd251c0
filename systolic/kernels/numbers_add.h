/* One addition in each arithmetic of numbers.h: s + a * w computed exactly, then wrapped, saturated or rounded. */
#ifndef SYSTOLIC_NUMBERS_ADD_H
#define SYSTOLIC_NUMBERS_ADD_H

#include <math.h>
#include <stdint.h>

#include "compiler.h"

INLINE int32_t wrap_32(int32_t s, int32_t a, int32_t w) {
    return (int32_t)((uint32_t)s + (uint32_t)a * (uint32_t)w);
}

/* Products of two 16-bit integers are below 2^33. */
INLINE int64_t wrap_64(int64_t s, int32_t a, int32_t w) {
    return (int64_t)((uint64_t)s + (uint64_t)((int64_t)a * w));
}

INLINE int32_t saturate_32(int32_t s, int32_t a, int32_t w, int64_t low, int64_t high) {
    const int64_t sum = s + (int64_t)a * w;
    return (int32_t)(sum < low ? low : sum > high ? high : sum);
}

/* The exact sum, or the limit beyond it. */
INLINE int64_t saturate_sum(int64_t s, int64_t t) {
    const int64_t sum = (int64_t)((uint64_t)s + (uint64_t)t);
    const int64_t limit = t < 0 ? INT64_MIN : INT64_MAX;
    return ((s ^ sum) & (t ^ sum)) < 0 ? limit : sum; /* both have the sign that the sum has not */
}

INLINE int64_t saturate_64(int64_t s, int32_t a, int32_t w) { return saturate_sum(s, (int64_t)a * w); }

/* The addition of +0 makes a +0 of a sum that is -0. */
INLINE float round_32(float s, float a, float w) { return fmaf(a, w, s) + 0.0f; }

#endif
