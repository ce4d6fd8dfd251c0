/* The array, PE by PE and cycle by cycle. Read this first: every other kernel computes the same registers, faster. */
#include "array.h"

extern const ArrayKernels array_reference;

static uint8_t arriving(const BytePorts *ports, ptrdiff_t cycle, ptrdiff_t port) {
    return ports->values[cycle * ports->cycle + port * ports->port];
}

static int32_t number(uint8_t code, int is_signed) { return is_signed ? (int8_t)code : code; }

/* How many bits of a register change. */
static void count(const ArrayRun *a, int toggled, uint32_t before, uint32_t after) {
    uint32_t changed;
    if (a->toggles == NULL) return;
    for (changed = before ^ after; changed; changed &= changed - 1) ++a->toggles[toggled];
}

static void clock_array(const ArrayRun *a) {
    ptrdiff_t t, r, c;
    for (t = 0; t < a->cycles; ++t) {
        /* From the bottom right PE to the top left one: the left and upper neighbors of the current
         * PE still hold their values from before the edge. */
        for (r = a->rows - 1; r >= 0; --r)
            for (c = a->cols - 1; c >= 0; --c) {
                const ptrdiff_t here = r * a->cols + c, left = here - 1, above = here - a->cols;
                /* 1. Values arrive from the left PE or row r's west ports, and from the PE above or
                 *    column c's north ports. */
                const uint8_t activation = c ? a->activation[left] : arriving(&a->west_activation, t, r);
                const uint8_t shift = c ? a->shift[left] : arriving(&a->west_shift, t, r);
                const uint8_t swap = c ? a->swap[left] : arriving(&a->west_swap, t, r);
                const uint8_t weight = r ? a->weight_pass[above] : arriving(&a->north_weight, t, c);
                const PsumPorts *north = &a->north_psum;
                const int32_t psum = r ? a->psum[above] : north->values[t * north->cycle + c * north->port];
                const uint8_t old_weight = a->weight[here], old_next = a->next_weight[here];
                const uint8_t old_pass = a->weight_pass[here];
                const int32_t old_psum = a->psum[here];
                /* 2. A swap puts the next weight to use, on this very edge. */
                if (swap) a->weight[here] = a->next_weight[here];
                /* 3. A shift moves the chain of next weights on, through the delay of weight_pass. */
                if (shift) {
                    a->weight_pass[here] = a->next_weight[here];
                    a->next_weight[here] = weight;
                }
                /* 4. Multiply and add, modulo 2^32. */
                a->psum[here] = (int32_t)((uint32_t)psum + (uint32_t)(number(a->weight[here], a->weight_signed) *
                                                                      number(activation, a->activation_signed)));
                count(a, T_WEIGHT, old_weight, a->weight[here]);
                count(a, T_NEXT_WEIGHT, old_next, a->next_weight[here]);
                count(a, T_WEIGHT_PASS, old_pass, a->weight_pass[here]);
                count(a, T_PSUM, (uint32_t)old_psum, (uint32_t)a->psum[here]);
                count(a, T_ACTIVATION, a->activation[here], activation);
                count(a, T_SHIFT, a->shift[here], shift);
                count(a, T_SWAP, a->swap[here], swap);
                /* 5. What arrived from the left stands here for the right PE. */
                a->activation[here] = activation;
                a->shift[here] = shift;
                a->swap[here] = swap;
            }
        for (c = 0; c < a->cols; ++c)
            a->bottom[t * a->bottom_cycle + c * a->bottom_col] = a->psum[(a->rows - 1) * a->cols + c];
    }
}

/* The same of an output-stationary array: `shift` is its drain, `psum` its acc (array.h). */
static void clock_held(const ArrayRun *a) {
    ptrdiff_t t, r, c;
    for (t = 0; t < a->cycles; ++t) {
        for (r = a->rows - 1; r >= 0; --r)
            for (c = a->cols - 1; c >= 0; --c) {
                const ptrdiff_t here = r * a->cols + c, left = here - 1, above = here - a->cols;
                /* 1. Values arrive from the left PE or row r's west ports, and from the PE above or
                 *    column c's north ports. */
                const uint8_t activation = c ? a->activation[left] : arriving(&a->west_activation, t, r);
                const uint8_t drain = c ? a->shift[left] : arriving(&a->west_shift, t, r);
                const uint8_t swap = c ? a->swap[left] : arriving(&a->west_swap, t, r);
                const uint8_t weight = r ? a->weight[above] : arriving(&a->north_weight, t, c);
                const PsumPorts *north = &a->north_psum;
                const int32_t out = r ? a->out_pass[above] : north->values[t * north->cycle + c * north->port];
                const int32_t old_sum = a->psum[here], old_out = a->out[here], old_pass = a->out_pass[here];
                int32_t sum = old_sum;
                /* 2. A drain moves the chain of finished sums on, through the delay of out_pass. */
                if (drain) a->out_pass[here] = a->out[here];
                /* 3. A swap hands the sum to the chain, and the next one starts from 0. */
                if (swap) {
                    a->out[here] = sum;
                    sum = 0;
                } else if (drain) a->out[here] = out;
                a->psum[here] = (int32_t)((uint32_t)sum + (uint32_t)(number(weight, a->weight_signed) *
                                                                     number(activation, a->activation_signed)));
                count(a, T_WEIGHT, a->weight[here], weight);
                count(a, T_OUT, (uint32_t)old_out, (uint32_t)a->out[here]);
                count(a, T_OUT_PASS, (uint32_t)old_pass, (uint32_t)a->out_pass[here]);
                count(a, T_PSUM, (uint32_t)old_sum, (uint32_t)a->psum[here]);
                count(a, T_ACTIVATION, a->activation[here], activation);
                count(a, T_SHIFT, a->shift[here], drain);
                count(a, T_SWAP, a->swap[here], swap);
                /* 4. What arrived stands here for the right PE and for the one below. */
                a->activation[here] = activation;
                a->weight[here] = weight;
                a->swap[here] = swap;
                a->shift[here] = drain;
            }
        for (c = 0; c < a->cols; ++c)
            a->bottom[t * a->bottom_cycle + c * a->bottom_col] = a->out[(a->rows - 1) * a->cols + c];
    }
}

const ArrayKernels array_reference = {
    .clock = clock_array, .clock_held = clock_held, .counting = &array_reference};
