/* Number formats beyond 8-bit integers in plain C: read this before faster tables. */
#include "numbers.h"

#include "numbers_add.h"

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

const NumbersKernels numbers_baseline = {clock_array, clock_held};
