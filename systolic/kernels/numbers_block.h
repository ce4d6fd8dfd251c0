/* One block of a run of numbers_loops.h: its streams, and the memory of a strip. */
#ifndef SYSTOLIC_NUMBERS_BLOCK_H
#define SYSTOLIC_NUMBERS_BLOCK_H

#include "compiler.h"
#include "numbers.h"
#include "operands.h"

#define NUMBERS_LANES 16
#define NUMBERS_ROWS 8    /* of a group */
#define NUMBERS_BLOCK 256 /* the most times of a block: sums of a strip stay in L1 */

/* A block, as all threads see it. */
typedef struct {
    NumbersRun array;
    ptrdiff_t start, stop; /* its times, without the edges of the run */
    ptrdiff_t moved;       /* times of the block before it; 0 in the first */
    int is_last;
    /* Streams: element i of a row's arrives in lane 0 of column 0's strip at time start - span + i. */
    ptrdiff_t span;   /* columns, rounded up to whole strips */
    ptrdiff_t stride; /* from one row's stream to the next, in elements */
    void *values;     /* activations, int32 or float */
    uint8_t *bits;    /* control: SHIFT_BIT | SWAP_BIT */
    int32_t *ranges;  /* of each row: first and last element with any bit, first and last with SHIFT_BIT */
    uint8_t *memory;  /* what each worker needs for a strip */
    size_t work_bytes;
} NumbersBlock;

enum { SHIFT_BIT = 1, SWAP_BIT = 2, RANGES = 4 };

/* Lines of LANES elements of up to 8 bytes: sums, outs and captured sums; values, codes and a chain. */
static inline size_t numbers_work_bytes(const NumbersRun *array) {
    const size_t lines = (size_t)array->rows + NUMBERS_BLOCK + 1, captured = NUMBERS_ROWS * NUMBERS_BLOCK;
    const size_t chain = 2 * (size_t)array->rows + NUMBERS_BLOCK;
    return (NUMBERS_LANES * (lines * (8 + 4 + 2) + (captured + chain + NUMBERS_BLOCK) * 8) + 63) / 64 * 64;
}

/* Where the last edge of a run begins, in which lanes come to its last cycle one by one. */
static inline ptrdiff_t numbers_end(const NumbersRun *array) { return array->cycles - (NUMBERS_LANES - 1); }

/* Prepare for a run, except for its memory; return how much streams need. */
static inline size_t numbers_begin(NumbersBlock *block) {
    const NumbersRun *const array = &block->array;
    const ptrdiff_t cols = (array->cols + NUMBERS_LANES - 1) / NUMBERS_LANES * NUMBERS_LANES;
    block->start = block->stop = array->cycles < NUMBERS_LANES ? numbers_end(array) : 1;
    block->is_last = 0;
    block->span = cols;
    /* An odd number of cache lines, to spread rows over L1's sets. */
    block->stride = (cols + NUMBERS_BLOCK + 2 * NUMBERS_LANES - 1) / NUMBERS_LANES * NUMBERS_LANES | NUMBERS_LANES;
    block->work_bytes = numbers_work_bytes(array);
    return (size_t)array->rows * ((size_t)block->stride * 5 + RANGES * sizeof(int32_t));
}

/* Place the memory: what each worker needs, then the streams. */
static inline void numbers_place(NumbersBlock *block, uint8_t *memory, int workers) {
    uint8_t *const streams = memory + (size_t)workers * block->work_bytes;
    block->memory = memory;
    block->values = streams;
    block->ranges = (int32_t *)(void *)(streams + 4 * (size_t)(block->array.rows * block->stride));
    block->bits = (uint8_t *)(block->ranges + RANGES * block->array.rows);
}

/* Advance to the next block; return 0 after the last. */
static inline int numbers_next(NumbersBlock *block) {
    const ptrdiff_t end = numbers_end(&block->array);
    if (block->is_last) return 0;
    block->moved = block->stop - block->start;
    block->start = block->stop;
    block->stop = end - block->start > NUMBERS_BLOCK ? block->start + NUMBERS_BLOCK : end;
    block->is_last = block->stop == end;
    return 1;
}

/* Set `bit` of the elements whose bytes, `step` apart, are not 0. */
INLINE void add_bits(uint8_t *RESTRICT bits, const uint8_t *RESTRICT from, ptrdiff_t step, ptrdiff_t count, uint8_t bit) {
    ptrdiff_t i;
    if (step == 1)
        for (i = 0; i < count; ++i) bits[i] |= (uint8_t)(from[i] != 0 ? bit : 0);
    else
        for (i = 0; i < count; ++i) bits[i] |= (uint8_t)(from[i * step] != 0 ? bit : 0);
}

/* The first and the last of `count` elements with one of these bits; count and -1 if none has. */
INLINE void find_range(int32_t range[2], const uint8_t *bits, ptrdiff_t count, uint8_t which) {
    ptrdiff_t i = 0, last = count - 1;
    uint64_t eight;
    for (; i + 8 <= count; i += 8) {
        memcpy(&eight, bits + i, 8);
        if (eight) break;
    }
    while (i < count && !(bits[i] & which)) ++i;
    while (last >= i && !(bits[last] & which)) --last;
    range[0] = (int32_t)i, range[1] = (int32_t)(i < count ? last : -1);
}

/* Where the elements from `first` on that are like it end, at most at `stop`. */
INLINE ptrdiff_t end_of_stretch(const uint8_t *bits, ptrdiff_t first, ptrdiff_t stop) {
    ptrdiff_t i = first + 1;
    while (i + 8 <= stop && memcmp(bits + i, bits + i - 1, 8) == 0) i += 8;
    while (i < stop && bits[i] == bits[first]) ++i;
    return i;
}

/* The codes of a line of registers, 0 in lanes from `valid` on; and back. */
INLINE void take_codes(uint16_t *to, const void *codes, ptrdiff_t first, ptrdiff_t step, ptrdiff_t bytes, ptrdiff_t valid) {
    ptrdiff_t l;
    if (step == 1 && valid == NUMBERS_LANES) {
        if (bytes == 2) memcpy(to, (const uint16_t *)codes + first, NUMBERS_LANES * 2);
        else
            for (l = 0; l < NUMBERS_LANES; ++l) to[l] = ((const uint8_t *)codes)[first + l];
        return;
    }
    for (l = 0; l < NUMBERS_LANES; ++l) to[l] = l < valid ? code_at(codes, first + l * step, bytes) : 0;
}

INLINE void put_codes(void *codes, ptrdiff_t first, ptrdiff_t bytes, ptrdiff_t valid, const uint16_t *from) {
    ptrdiff_t l;
    for (l = 0; l < valid; ++l) put_code(codes, first + l, bytes, from[l]);
}

/* `count` edges with a shift, of a chain with lines of so many bytes: next moves to pass, what arrives to next. The
 * chain below lies two lines before, so that what is passed on stays where it is. */
INLINE void shift_chain(uint8_t *chain, ptrdiff_t count, void *next, void *pass, size_t line) {
    memcpy(chain - 2 * line, pass, line);
    if (count > 1) memcpy(chain - line, next, line);
    memcpy(pass, count > 1 ? chain + (size_t)(count - 2) * line : next, line);
    memcpy(next, chain + (size_t)(count - 1) * line, line);
}

/* Lines first .. last - 1 alike: where nothing is shifted. */
INLINE void repeat_line(void *lines, ptrdiff_t first, ptrdiff_t last, const void *from, size_t line) {
    for (; first < last; ++first) memcpy((uint8_t *)lines + (size_t)first * line, from, line);
}

#endif
