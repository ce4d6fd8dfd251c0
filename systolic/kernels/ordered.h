/* Products in the number formats of numbers.h: one table of functions per instruction set, all of the same bits.
 *
 * Each sum is one chain of additions, from zero, in the order of k, within each `step` of k; where there are more
 * steps, their sums are then added in order, as accumulators do. Sums that wrap do so modulo the size of their
 * type, so that no bit depends on `step`; callers narrow them further.
 */
#ifndef SYSTOLIC_ORDERED_H
#define SYSTOLIC_ORDERED_H

#include "host.h"
#include "numbers.h"

typedef struct {
    const void *values;
    ptrdiff_t line; /* bytes from one line to the next */
    int lines_are_columns;
    ptrdiff_t first_row, first_col; /* of the part */
    Stored type;
    const float *table; /* (256), of float8 */
    const HostWindow *window;
    uint16_t pad; /* what pixels outside the image are */
} StoredMatrix;

/* acc (m, n) = a (m, k) @ b (k, n). */
typedef struct {
    ptrdiff_t m, k, n, step; /* step >= 1 */
    StoredMatrix a, b;       /* both integers or both floats */
    void *acc;
    ptrdiff_t acc_row; /* sums from one row to the next */
    Arithmetic arithmetic;
    int64_t low, high;
} OrderedProduct;

typedef struct {
    /* Work is best shared in multiples of these. */
    ptrdiff_t rows, cols;

    /* Bytes of memory that a product needs, aligned to a cache line. */
    size_t (*scratch_bytes)(const OrderedProduct *product);

    /* Compute a product, in the floating-point mode of float_mode.h whatever the thread's is. */
    void (*multiply)(const OrderedProduct *product, void *scratch);
} OrderedKernels;

#endif
