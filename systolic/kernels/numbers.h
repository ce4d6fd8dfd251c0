/* Cycle mode of number formats beyond 8-bit integers: one table of functions per instruction set.
 *
 * Operands are int32 or float, whichever type they were stored in; sums are int32, int64 or float. An addition
 * is s + a * w computed exactly and then wrapped, saturated or rounded once (float: to nearest, ties to even;
 * a sum that is zero is +0). Sums that wrap do so modulo the size of their type; callers narrow them further.
 */
#ifndef SYSTOLIC_NUMBERS_H
#define SYSTOLIC_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

/* Types of operands and sums, and their addition. */
typedef enum {
    WRAP_32,     /* int32 sums modulo 2^32 */
    WRAP_64,     /* int64 sums modulo 2^64 */
    SATURATE_32, /* int32 sums within low .. high */
    SATURATE_64, /* int64 sums within int64 */
    FLOAT_32     /* float operands, float sums */
} Arithmetic;

/* Values on ports: that of port p on cycle t is element t * cycle + p * port. */
typedef struct {
    const void *values;
    ptrdiff_t cycle, port;
} NumberPorts;

/* An array and the values on its ports for `cycles` clock edges, as ArrayRun (array.h), whose names for an
 * output-stationary array these are too. */
typedef struct {
    ptrdiff_t rows, cols, cycles;
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
} NumbersKernels;

#endif
