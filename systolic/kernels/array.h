/* Cycle mode: one table of functions per instruction set. array_reference.c computes everything in one
 * function and is to be read first; the others are the inner loops of _core.pyx, which clock LANES
 * neighboring columns at a time.
 *
 * Psums are kept by diagonal (see _core.pyx): psums[i] holds the LANES psums that pass a row on
 * cycle i. A row's streams are reversed: the element of the next cycle is the one before.
 *
 * Two rows share a *pair stream*: the low half (16 bits) of its element j is the upper row's
 * activation at j, the high half the lower row's at j - 1, which is on the same diagonal. One load
 * then serves two PEs, each by its own multiply-add, whose weight vector is zero in the other
 * row's half: every psum of every PE is computed by an instruction of its own.
 *
 * In an output-stationary array sums stay, by row, while weights move down: they are kept by diagonal instead.
 *
 * int32 sums wrap modulo 2^32. Operands are bytes; `is_signed` says what they stand for.
 */
#ifndef SYSTOLIC_ARRAY_H
#define SYSTOLIC_ARRAY_H

#include <stddef.h>
#include <stdint.h>

#define LANES 16
#define ROW_GROUP 8
#define ROW_PAIRS (ROW_GROUP / 2)

/* The registers of one row's LANES PEs that hold weights. */
typedef struct {
    uint8_t weight[LANES];
    uint8_t next_weight[LANES];
    uint8_t weight_pass[LANES];
} LaneWeights;

/* Values on ports: that of port p on cycle t is values[t * cycle + p * port]. */
typedef struct {
    const uint8_t *values;
    ptrdiff_t cycle, port;
} BytePorts;

typedef struct {
    const int32_t *values;
    ptrdiff_t cycle, port;
} PsumPorts;

/* Counters of the bits that registers change from edge to edge, in all PEs: one for each register. Those of an
 * output-stationary array are named as in ArrayRun, and its out and out_pass take the place of next_weight and
 * weight_pass. */
enum {
    T_WEIGHT,
    T_NEXT_WEIGHT,
    T_WEIGHT_PASS,
    T_ACTIVATION,
    T_PSUM,
    T_SHIFT,
    T_SWAP,
    TOGGLES = 8, /* a cache line */
    T_OUT = T_NEXT_WEIGHT,
    T_OUT_PASS = T_WEIGHT_PASS
};

/* An array and the values on its ports for `cycles` clock edges. Registers are (rows, cols) and are
 * clocked in place; bits are bytes 0 or 1. An output-stationary array has its `drain` as shift, its `acc` as
 * psum and its north out port as north_psum, no next_weight and no weight_pass, but `out` and `out_pass`, and
 * the bottom row's `out` leaves it. */
typedef struct {
    ptrdiff_t rows, cols, cycles;
    uint8_t *weight, *next_weight, *weight_pass, *activation, *shift, *swap;
    int32_t *psum, *out, *out_pass;
    int activation_signed, weight_signed;
    BytePorts west_activation, west_shift, west_swap, north_weight;
    PsumPorts north_psum;
    int32_t *bottom; /* receives the bottom row's psums after each edge: bottom[t * bottom_cycle + c * bottom_col] */
    ptrdiff_t bottom_cycle, bottom_col;
    int64_t *toggles; /* TOGGLES counters to add to, or NULL: nothing is counted */
} ArrayRun;

/* Tables that count add toggles to the counters `toggles`; `before` then holds the psums that the rows put out a
 * cycle before, LANES each, and receives the last ones. Others do not look at either. */
typedef struct ArrayKernels {
    /* Clock the whole array, weight stationary or output stationary. Only array_reference.c sets these, which
     * count if the run has counters, and leaves the rest NULL; other tables set the rest and leave these NULL. */
    void (*clock)(const ArrayRun *array);
    void (*clock_held)(const ArrayRun *array);

    /* The table that counts toggles too. */
    const struct ArrayKernels *counting;

    /* LANES codes as multipliers for a row that stands in half 0 (low) or 1 (high) of its pair. */
    void (*multipliers)(int32_t *to, const uint8_t *codes, int is_signed, int half);

    /* pairs[j] from the two rows' streams: first[j], and second[j - 1] or 0 for j = 0. second
     * may be NULL. */
    void (*pair_up)(int32_t *pairs, const uint8_t *first, const uint8_t *second, ptrdiff_t length,
                    int is_signed);

    /* Clock one row for `cycles` cycles under one set of multipliers. pairs is at lane 0 of cycle
     * 0, counted in this row's own half: the pair stream's element j, or j + 1 for half 1. */
    void (*mac_row)(int32_t *psums, ptrdiff_t cycles, const int32_t *pairs, const int32_t *multipliers, int half,
                    int32_t *before, int64_t *toggles);

    /* Clock ROW_GROUP rows, the first standing in half 0, on the diagonals that cross row 0 of
     * the group on cycles 0..cycles-1; pairs[q] is at lane 0 of the cycle in which diagonal 0
     * crosses row 2q. */
    void (*mac_rows)(int32_t *psums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *multipliers,
                     int32_t *before, int64_t *toggles);

    /* The same with what a block cuts off: on the ROW_GROUP - 1 diagonals before cycle 0 only the
     * lower rows, on the last ROW_GROUP - 1 only the upper rows are clocked, so that each row
     * sees cycles 0..cycles-1; cycles >= ROW_GROUP. */
    void (*mac_block)(int32_t *psums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *multipliers,
                      int32_t *before, int64_t *toggles);

    /* mac_block for rows past which one swap comes: on diagonal at + c the multipliers of lane c
     * change from `old` to `after`; 0 <= at <= cycles - LANES - (ROW_GROUP - 1). */
    void (*mac_swap)(int32_t *psums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *old,
                     const int32_t *after, ptrdiff_t at, int32_t *before, int64_t *toggles);

    /* Clock the weights of one row under any control: on cycle i the bytes shifts[-i..] and
     * swaps[-i..] (0 or 0xFF per lane) arrive, chain[i * LANES..] holds the weight_pass above
     * before the edge and receives this row's. */
    void (*step_weights)(ptrdiff_t cycles, const uint8_t *shifts, const uint8_t *swaps, uint8_t *chain,
                         LaneWeights *weights, int64_t *toggles);

    /* The same with its psums. */
    void (*step_row)(int32_t *psums, ptrdiff_t cycles, const int32_t *pairs, int half, const uint8_t *shifts,
                     const uint8_t *swaps, uint8_t *chain, LaneWeights *weights, int is_signed, int32_t *before,
                     int64_t *toggles);

    /* to[r * to_stride + cycles - 1 - t] = from[t * t_stride + r * r_stride]: ports, (cycles,
     * rows), as reversed streams. */
    void (*reverse_ports)(uint8_t *to, ptrdiff_t to_stride, const uint8_t *from, ptrdiff_t t_stride,
                          ptrdiff_t r_stride, ptrdiff_t cycles, ptrdiff_t rows);

    /* bottom[t * t_stride + c * c_stride] = psums[t * LANES + c] for c < valid; psums is
     * overwritten. */
    void (*put_bottom)(int32_t *bottom, ptrdiff_t t_stride, ptrdiff_t c_stride, int32_t *psums,
                       ptrdiff_t cycles, ptrdiff_t valid);

    /* Output stationary: sums are held, LANES a row, and weights[i * LANES..] are the multipliers, for half 0,
     * that pass the row on cycle i. */

    /* codes[t * LANES + c] = from[t * cycle + c * port] for c < valid. */
    void (*take_ports)(uint8_t *codes, const uint8_t *from, ptrdiff_t cycle, ptrdiff_t port, ptrdiff_t cycles,
                       ptrdiff_t valid);

    /* LANES multipliers for half 0 from each line of codes. */
    void (*widen)(int32_t *to, const uint8_t *codes, ptrdiff_t lines, int is_signed);

    /* Clock one row's sums for `cycles` cycles. On cycle i the bytes swaps[-i..] (0 or 0xFF per lane) arrive: where
     * one is set, the sum starts again from 0; captured[i * LANES..] receives the sums before the edge. Without
     * swaps both are NULL. */
    void (*hold_row)(int32_t *sums, ptrdiff_t cycles, const int32_t *pairs, int half, const int32_t *weights,
                     const uint8_t *swaps, int32_t *captured, int64_t *toggles);

    /* Clock the sums of ROW_GROUP rows, LANES each, on the diagonals that cross row 0 of the group on cycles
     * 0..cycles-1; weights are those of the diagonals. */
    void (*hold_rows)(int32_t *sums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *weights,
                      int64_t *toggles);

    /* The same so that each row sees cycles 0..cycles-1, as mac_block; cycles >= ROW_GROUP. */
    void (*hold_block)(int32_t *sums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *weights,
                       int64_t *toggles);

    /* hold_rows under any swaps, one stream and one place for sums before each edge for every row. */
    void (*hold_swaps)(int32_t *sums, ptrdiff_t cycles, const int32_t *const *pairs, const int32_t *weights,
                       const uint8_t *const *swaps, int32_t *const *captured, int64_t *toggles);

    /* Clock out and out_pass of one row, LANES each, under any control: above[i * LANES..] holds the out_pass above
     * before the edge, above[(i - 2) * LANES..] receives this row's, and `outs` its out after the edge unless it
     * is NULL. captured is read only where a swap arrives. */
    void (*step_out)(ptrdiff_t cycles, const uint8_t *drains, const uint8_t *swaps, int32_t *above,
                     const int32_t *captured, int32_t *out, int32_t *out_pass, int32_t *outs, int64_t *toggles);

    /* Toggles of values that move: how many bits differ. NULL where none are counted. */

    /* Of stream[j] and stream[j + 1], times[j] times, for j < count. */
    int64_t (*count_stream)(const uint8_t *stream, ptrdiff_t count, const int32_t *times);

    /* Of line i and line i + 1 of LANES bytes, times[i] times, for i < count. */
    int64_t (*count_lines)(const uint8_t *lines, ptrdiff_t count, const int32_t *times);

    /* Of each of `count` bytes, a multiple of LANES, and the byte so far behind it. */
    int64_t (*count_changes)(const uint8_t *values, ptrdiff_t count, ptrdiff_t distance);
} ArrayKernels;

#endif
