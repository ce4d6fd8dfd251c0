/* One arithmetic, PE by PE; numbers_arithmetics.h includes it for each. It defines OPERAND and SUM, types, ADD(run, s, a,
 * w), an addition, VALUE_OF(type, code), and NAME(function). */

static void NAME(clock)(const NumbersRun *a) {
    const ptrdiff_t bytes = code_bytes(a->weight_type), activation_bytes = code_bytes(a->activation_type);
    SUM *const psum_of = (SUM *)a->psum;
    ptrdiff_t t, r, c;
    for (t = 0; t < a->cycles; ++t) {
        /* From the bottom right PE on: left and upper neighbors still hold their values from before the edge. */
        for (r = a->rows - 1; r >= 0; --r)
            for (c = a->cols - 1; c >= 0; --c) {
                const ptrdiff_t here = r * a->cols + c, left = here - 1, above = here - a->cols;
                const uint16_t activation = c ? code_at(a->activation, left, activation_bytes)
                                              : port_code(a->west_activation, t, r, activation_bytes);
                const uint8_t shift = c ? a->shift[left] : PORT(uint8_t, a->west_shift, t, r);
                const uint8_t swap = c ? a->swap[left] : PORT(uint8_t, a->west_swap, t, r);
                const uint16_t weight = r ? code_at(a->weight_pass, above, bytes) : port_code(a->north_weight, t, c, bytes);
                const SUM psum = r ? psum_of[above] : PORT(SUM, a->north_psum, t, c);
                const uint16_t next = code_at(a->next_weight, here, bytes);
                if (swap) put_code(a->weight, here, bytes, next);
                if (shift) {
                    put_code(a->weight_pass, here, bytes, next);
                    put_code(a->next_weight, here, bytes, weight);
                }
                psum_of[here] = ADD(a, psum, VALUE_OF(a->activation_type, activation),
                                    VALUE_OF(a->weight_type, code_at(a->weight, here, bytes)));
                put_code(a->activation, here, activation_bytes, activation);
                a->shift[here] = shift;
                a->swap[here] = swap;
            }
        for (c = 0; c < a->cols; ++c) BOTTOM(SUM, a, t, c) = psum_of[(a->rows - 1) * a->cols + c];
    }
}

static void NAME(clock_held)(const NumbersRun *a) {
    const ptrdiff_t bytes = code_bytes(a->weight_type), activation_bytes = code_bytes(a->activation_type);
    SUM *const acc = (SUM *)a->psum, *const out_of = (SUM *)a->out, *const pass = (SUM *)a->out_pass;
    ptrdiff_t t, r, c;
    for (t = 0; t < a->cycles; ++t) {
        for (r = a->rows - 1; r >= 0; --r)
            for (c = a->cols - 1; c >= 0; --c) {
                const ptrdiff_t here = r * a->cols + c, left = here - 1, above = here - a->cols;
                const uint16_t activation = c ? code_at(a->activation, left, activation_bytes)
                                              : port_code(a->west_activation, t, r, activation_bytes);
                const uint8_t drain = c ? a->shift[left] : PORT(uint8_t, a->west_shift, t, r);
                const uint8_t swap = c ? a->swap[left] : PORT(uint8_t, a->west_swap, t, r);
                const uint16_t weight = r ? code_at(a->weight, above, bytes) : port_code(a->north_weight, t, c, bytes);
                const SUM out = r ? pass[above] : PORT(SUM, a->north_psum, t, c);
                SUM sum = acc[here];
                if (drain) pass[here] = out_of[here];
                if (swap) {
                    out_of[here] = sum;
                    sum = 0;
                } else if (drain) out_of[here] = out;
                acc[here] = ADD(a, sum, VALUE_OF(a->activation_type, activation), VALUE_OF(a->weight_type, weight));
                put_code(a->activation, here, activation_bytes, activation);
                put_code(a->weight, here, bytes, weight);
                a->swap[here] = swap;
                a->shift[here] = drain;
            }
        for (c = 0; c < a->cols; ++c) BOTTOM(SUM, a, t, c) = out_of[(a->rows - 1) * a->cols + c];
    }
}
