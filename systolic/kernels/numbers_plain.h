/* One arithmetic, PE by PE; numbers_baseline.c includes this for each. It defines OPERAND and SUM, types, ADD(run,
 * s, a, w), an addition, and NAME(function). */

#define PORT(type, ports, t, p) (((const type *)(ports).values)[(t) * (ports).cycle + (p) * (ports).port])

static void NAME(clock)(const NumbersRun *a) {
    OPERAND *const weight_of = a->weight, *const next = a->next_weight, *const pass = a->weight_pass;
    OPERAND *const activation_of = a->activation;
    SUM *const psum_of = a->psum;
    ptrdiff_t t, r, c;
    for (t = 0; t < a->cycles; ++t) {
        /* From the bottom right PE on: left and upper neighbors still hold their values from before the edge. */
        for (r = a->rows - 1; r >= 0; --r)
            for (c = a->cols - 1; c >= 0; --c) {
                const ptrdiff_t here = r * a->cols + c, left = here - 1, above = here - a->cols;
                const OPERAND activation = c ? activation_of[left] : PORT(OPERAND, a->west_activation, t, r);
                const uint8_t shift = c ? a->shift[left] : PORT(uint8_t, a->west_shift, t, r);
                const uint8_t swap = c ? a->swap[left] : PORT(uint8_t, a->west_swap, t, r);
                const OPERAND weight = r ? pass[above] : PORT(OPERAND, a->north_weight, t, c);
                const SUM psum = r ? psum_of[above] : PORT(SUM, a->north_psum, t, c);
                if (swap) weight_of[here] = next[here];
                if (shift) {
                    pass[here] = next[here];
                    next[here] = weight;
                }
                psum_of[here] = ADD(a, psum, activation, weight_of[here]);
                activation_of[here] = activation;
                a->shift[here] = shift;
                a->swap[here] = swap;
            }
        for (c = 0; c < a->cols; ++c)
            ((SUM *)a->bottom)[t * a->bottom_cycle + c * a->bottom_col] = psum_of[(a->rows - 1) * a->cols + c];
    }
}

static void NAME(clock_held)(const NumbersRun *a) {
    OPERAND *const weight_of = a->weight, *const activation_of = a->activation;
    SUM *const acc = a->psum, *const out_of = a->out, *const pass = a->out_pass;
    ptrdiff_t t, r, c;
    for (t = 0; t < a->cycles; ++t) {
        for (r = a->rows - 1; r >= 0; --r)
            for (c = a->cols - 1; c >= 0; --c) {
                const ptrdiff_t here = r * a->cols + c, left = here - 1, above = here - a->cols;
                const OPERAND activation = c ? activation_of[left] : PORT(OPERAND, a->west_activation, t, r);
                const uint8_t drain = c ? a->shift[left] : PORT(uint8_t, a->west_shift, t, r);
                const uint8_t swap = c ? a->swap[left] : PORT(uint8_t, a->west_swap, t, r);
                const OPERAND weight = r ? weight_of[above] : PORT(OPERAND, a->north_weight, t, c);
                const SUM out = r ? pass[above] : PORT(SUM, a->north_psum, t, c);
                SUM sum = acc[here];
                if (drain) pass[here] = out_of[here];
                if (swap) {
                    out_of[here] = sum;
                    sum = 0;
                } else if (drain) out_of[here] = out;
                acc[here] = ADD(a, sum, activation, weight);
                activation_of[here] = activation;
                weight_of[here] = weight;
                a->swap[here] = swap;
                a->shift[here] = drain;
            }
        for (c = 0; c < a->cols; ++c)
            ((SUM *)a->bottom)[t * a->bottom_cycle + c * a->bottom_col] = out_of[(a->rows - 1) * a->cols + c];
    }
}

#undef PORT
#undef OPERAND
#undef SUM
#undef ADD
#undef NAME
