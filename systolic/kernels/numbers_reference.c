/* Number formats beyond 8-bit integers in plain C, PE by PE: read this before faster tables. */
#define NUMBERS_FILE "numbers_plain.h"
#include "numbers_arithmetics.h"

/* Call a function of the arithmetic at hand, in the package's floating-point mode. */
#define CLOCK(name, function)                                                            \
    static void name(const NumbersRun *array) {                                          \
        static void (*const functions[])(const NumbersRun *) = OF_ARITHMETIC(function);  \
        const uint64_t mode = float_mode();                                              \
        functions[array->arithmetic](array);                                             \
        restore_float_mode(mode);                                                        \
    }

CLOCK(clock_array, clock)
CLOCK(clock_held, clock_held)

const NumbersKernels numbers_reference = {clock_array, clock_held, NULL, NULL, NULL};
