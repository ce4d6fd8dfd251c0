/* Number formats beyond 8-bit integers in plain C: read this before faster tables. */
#include "numbers.h"

#include <math.h>

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

INLINE int64_t saturate_64(int64_t s, int32_t a, int32_t w) {
    const int64_t product = (int64_t)a * w, sum = wrap_64(s, a, w);
    if (product >= 0) return sum < s ? INT64_MAX : sum;
    return sum > s ? INT64_MIN : sum;
}

/* The addition of +0 makes a +0 of a sum that is -0. */
INLINE float round_32(float s, float a, float w) { return fmaf(a, w, s) + 0.0f; }

#define OPERAND int32_t
#define SUM int32_t
#define ADD(run, s, a, w) wrap_32(s, a, w)
#define NAME(function) function##_wrap_32
#include "numbers_plain.h"

#define OPERAND int32_t
#define SUM int64_t
#define ADD(run, s, a, w) wrap_64(s, a, w)
#define NAME(function) function##_wrap_64
#include "numbers_plain.h"

#define OPERAND int32_t
#define SUM int32_t
#define ADD(run, s, a, w) saturate_32(s, a, w, (run)->low, (run)->high)
#define NAME(function) function##_saturate_32
#include "numbers_plain.h"

#define OPERAND int32_t
#define SUM int64_t
#define ADD(run, s, a, w) saturate_64(s, a, w)
#define NAME(function) function##_saturate_64
#include "numbers_plain.h"

#define OPERAND float
#define SUM float
#define ADD(run, s, a, w) round_32(s, a, w)
#define NAME(function) function##_float_32
#include "numbers_plain.h"

/* Call a function of the arithmetic at hand. */
#define OF_ARITHMETIC(function, of)                                \
    switch (of->arithmetic) {                                      \
        case WRAP_32: function##_wrap_32(of); break;               \
        case WRAP_64: function##_wrap_64(of); break;               \
        case SATURATE_32: function##_saturate_32(of); break;       \
        case SATURATE_64: function##_saturate_64(of); break;       \
        case FLOAT_32: function##_float_32(of); break;             \
    }

static void clock_array(const NumbersRun *array) { OF_ARITHMETIC(clock, array) }

static void clock_held(const NumbersRun *array) { OF_ARITHMETIC(clock_held, array) }

static void multiply(const NumbersProduct *product) { OF_ARITHMETIC(multiply, product) }

const NumbersKernels numbers_baseline = {clock_array, clock_held, multiply};
