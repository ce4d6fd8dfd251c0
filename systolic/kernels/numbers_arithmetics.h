/* Include the file NUMBERS_FILE once for each arithmetic. It is given OPERAND and SUM, types of values and sums;
 * ADD(run, s, a, w), an addition; MAC(run, s, a, w), one of a chain whose last sum s counts as FINISH(s);
 * VALUE_OF(type, code) of an operand and VALUES_OF(type, values, codes, count); NAME(function). Where the file that
 * includes this one defines FLOAT_VEC or INT_VEC, a vector of FLOAT_LANES or INT_LANES sums, and what goes with it,
 * it is given VEC, VEC_LANES, LOAD, STORE, SPLAT and VEC_MAC(s, a, w).
 */
#include "float_mode.h"
#include "numbers_add.h"
#include "operands.h"

#define PORT(type, ports, t, p) (((const type *)(ports).values)[(t) * (ports).cycle + (p) * (ports).port])
#define BOTTOM(type, run, t, c) (((type *)(run)->bottom)[(t) * (run)->bottom_cycle + (c) * (run)->bottom_col])

#define MAC ADD
#define FINISH(s) (s)
#define OPERAND int32_t
#define VALUE_OF integer_of
#define VALUES_OF integers_of

#define SUM int64_t
#define ADD(run, s, a, w) wrap_64(s, a, w)
#define NAME(function) function##_wrap_64
#include NUMBERS_FILE
#undef ADD
#undef NAME

#define ADD(run, s, a, w) saturate_64(s, a, w)
#define NAME(function) function##_saturate_64
#include NUMBERS_FILE
#undef SUM
#undef ADD
#undef NAME

#define SUM int32_t
#define ADD(run, s, a, w) saturate_32(s, a, w, (run)->low, (run)->high)
#define NAME(function) function##_saturate_32
#include NUMBERS_FILE
#undef ADD
#undef NAME

#if defined(INT_VEC)
#define VEC INT_VEC
#define VEC_LANES INT_LANES
#define LOAD INT_LOAD
#define STORE INT_STORE
#define SPLAT INT_SPLAT
#define VEC_MAC INT_MAC
#endif
#define ADD(run, s, a, w) wrap_32(s, a, w)
#define NAME(function) function##_wrap_32
#include NUMBERS_FILE
#undef VEC
#undef VEC_LANES
#undef LOAD
#undef STORE
#undef SPLAT
#undef VEC_MAC
#undef SUM
#undef ADD
#undef NAME
#undef MAC
#undef FINISH
#undef OPERAND
#undef VALUE_OF
#undef VALUES_OF

#if defined(FLOAT_VEC)
#define VEC FLOAT_VEC
#define VEC_LANES FLOAT_LANES
#define LOAD FLOAT_LOAD
#define STORE FLOAT_STORE
#define SPLAT FLOAT_SPLAT
#define VEC_MAC FLOAT_MAC
#endif
#define OPERAND float
#define SUM float
#define VALUE_OF float_of
#define VALUES_OF floats_of
#define ADD(run, s, a, w) round_32(s, a, w)
#define MAC(run, s, a, w) fmaf(a, w, s)
#define FINISH(s) ((s) + 0.0f)
#define NAME(function) function##_float_32
#include NUMBERS_FILE

/* A function for each Arithmetic, in the order of the enum. */
#define OF_ARITHMETIC(function) \
    {function##_wrap_32, function##_wrap_64, function##_saturate_32, function##_saturate_64, function##_float_32}
