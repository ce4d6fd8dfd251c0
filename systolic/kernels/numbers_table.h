/* A table of numbers_loops.h for one instruction set, NUMBERS_TABLE. */
#include "numbers_block.h"

/* The values of codes; the type is a constant in each loop. */
APART void integers_of(Stored type, int32_t *RESTRICT to, const uint16_t *RESTRICT codes, ptrdiff_t count) {
    ptrdiff_t i;
    switch (type) {
        case INTEGER_8: for (i = 0; i < count; ++i) to[i] = integer_of(INTEGER_8, codes[i]); break;
        case INTEGER_16: for (i = 0; i < count; ++i) to[i] = integer_of(INTEGER_16, codes[i]); break;
        default: for (i = 0; i < count; ++i) to[i] = codes[i];
    }
}

APART void floats_of(Stored type, float *RESTRICT to, const uint16_t *RESTRICT codes, ptrdiff_t count) {
    ptrdiff_t i;
    switch (type) {
        case FLOAT_8_E4M3FN: for (i = 0; i < count; ++i) to[i] = float_of(FLOAT_8_E4M3FN, codes[i]); break;
        case FLOAT_8_E5M2: for (i = 0; i < count; ++i) to[i] = float_of(FLOAT_8_E5M2, codes[i]); break;
        case FLOAT_16: for (i = 0; i < count; ++i) to[i] = float_of(FLOAT_16, codes[i]); break;
        default: for (i = 0; i < count; ++i) to[i] = float_of(BFLOAT_16, codes[i]);
    }
}

#define NUMBERS_FILE "numbers_loops.h"
#include "numbers_arithmetics.h"

/* A task of the arithmetic at hand, in the package's floating-point mode, whichever thread does it. */
#define TASK(name)                                                                      \
    static void name(void *block, ptrdiff_t number, int worker) {                       \
        static void (*const tasks[])(void *, ptrdiff_t, int) = OF_ARITHMETIC(name);     \
        const uint64_t mode = float_mode();                                             \
        tasks[((const NumbersBlock *)block)->array.arithmetic](block, number, worker);  \
        restore_float_mode(mode);                                                       \
    }

TASK(make_streams)
TASK(clock_strip)
TASK(clock_held_strip)

const NumbersKernels NUMBERS_TABLE = {NULL, NULL, make_streams, clock_strip, clock_held_strip};
