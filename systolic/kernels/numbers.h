/* Cycle mode of number formats beyond 8-bit integers: one table of functions per instruction set.
 * numbers_reference.c clocks PE by PE and is to be read first; the others are numbers_loops.h.
 *
 * An addition is s + a * w computed exactly and then wrapped, saturated or rounded once (float: to nearest, ties to
 * even, subnormals kept; a sum that is zero is +0). Sums that wrap do so modulo the size of their type; callers
 * narrow them further.
 */
#ifndef SYSTOLIC_NUMBERS_H
#define SYSTOLIC_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

/* Types of sums, and their addition. */
typedef enum {
    WRAP_32,     /* int32 sums modulo 2^32 */
    WRAP_64,     /* int64 sums modulo 2^64 */
    SATURATE_32, /* int32 sums within low .. high */
    SATURATE_64, /* int64 sums within int64 */
    FLOAT_32     /* float operands, float sums */
} Arithmetic;

/* Types of operands as registers, ports and memory hold them. */
typedef enum {
    INTEGER_8,
    UNSIGNED_8,
    INTEGER_16,
    UNSIGNED_16,
    BFLOAT_16,
    FLOAT_16,
    FLOAT_8_E4M3FN,
    FLOAT_8_E5M2
} Stored;

/* Values on ports: that of port p on cycle t is element t * cycle + p * port. */
typedef struct {
    const void *values;
    ptrdiff_t cycle, port;
} NumberPorts;

/* An array and the values on its ports for `cycles` clock edges, as ArrayRun (array.h), whose names for an
 * output-stationary array these are too. */
typedef struct {
    ptrdiff_t rows, cols, cycles;
    Stored activation_type, weight_type;
    void *weight, *next_weight, *weight_pass, *activation;
    uint8_t *shift, *swap;
    void *psum, *out, *out_pass;
    NumberPorts west_activation, west_shift, west_swap, north_weight, north_psum;
    void *bottom;
    ptrdiff_t bottom_cycle, bottom_col;
    Arithmetic arithmetic;
    int64_t low, high;
} NumbersRun;

typedef struct {
    void (*clock)(const NumbersRun *array);      /* weight stationary */
    void (*clock_held)(const NumbersRun *array); /* output stationary */

    /* Tasks (pool.h) that do the same block by block; their context is a NumbersBlock (numbers_block.h). Each of the
     * first makes the streams of NUMBERS_LANES rows; then each of the second clocks as many columns. Only
     * numbers_reference.c sets the two above and leaves these NULL; other tables the other way round. */
    void (*make_streams)(void *block, ptrdiff_t number, int worker);
    void (*clock_strip)(void *block, ptrdiff_t number, int worker);
    void (*clock_held_strip)(void *block, ptrdiff_t number, int worker);
} NumbersKernels;

#endif
