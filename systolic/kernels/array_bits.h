/* Bits that differ between successive values of registers: toggles. Part of array_loops.h.
 *
 * Besides the macros of array_loops.h an x86 file defines XOR, and either COUNTS_BITS, if the processor counts bits
 * in vectors, or CARRY_SAVE(sum, carry, a, b, c), the bitwise sum of three vectors; ADD of int32; bit_counts(v), whose
 * int32 sum to the bits of v; and byte_bits(v) of 16 bytes, two counts of 64 bits.
 */
#define COUNTED(to, call)        \
    do {                         \
        Bits bits = NO_BITS;     \
        call;                    \
        (to) += sum_bits(&bits); \
    } while (0)

/* Bits of a word: https://graphics.stanford.edu/~seander/bithacks.html#CountBitsSetParallel */
INLINE int32_t bits_of(uint32_t v) {
    v = v - ((v >> 1) & 0x55555555u);
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    return (int32_t)((((v + (v >> 4)) & 0x0F0F0F0Fu) * 0x01010101u) >> 24);
}

#if defined(VEC)

#define BYTES(p) _mm_loadu_si128((const __m128i *)(p))
#define PUT_BYTES(p, v) _mm_storeu_si128((__m128i *)(p), v)

INLINE int64_t sum_lanes(VEC v) {
    int32_t lanes[VEC_LANES];
    int64_t sum = 0;
    int i;
    STORE(lanes, v);
    for (i = 0; i < VEC_LANES; ++i) sum += lanes[i];
    return sum;
}

/* Counts of at most a block and a group, which fit int32. */
#if defined(COUNTS_BITS)

typedef struct {
    VEC total, more;
} Bits;

#define NO_BITS {ZERO, ZERO}

INLINE void add_bits(Bits *bits, VEC v) { bits->total = ADD(bits->total, bit_counts(v)); }

INLINE void add_group(Bits *bits, const VEC *v) {
    int g;
    UNROLLED for (g = 0; g < ROW_GROUP; g += 2) {
        bits->total = ADD(bits->total, bit_counts(v[g]));
        bits->more = ADD(bits->more, bit_counts(v[g + 1]));
    }
}

INLINE int64_t sum_bits(const Bits *bits) { return sum_lanes(bits->total) + sum_lanes(bits->more); }

#else

/* Counters whose digits are whole vectors (Harley and Seal): of eight vectors, bits are counted in one. */
typedef struct {
    VEC ones, twos, fours, eights, total;
} Bits;

#define NO_BITS {ZERO, ZERO, ZERO, ZERO, ZERO}

INLINE void add_bits(Bits *bits, VEC v) { bits->total = ADD(bits->total, bit_counts(v)); }

INLINE void add_group(Bits *bits, const VEC *v) {
    VEC a, b, c, d;
    CARRY_SAVE(bits->ones, a, bits->ones, v[0], v[1]);
    CARRY_SAVE(bits->ones, b, bits->ones, v[2], v[3]);
    CARRY_SAVE(bits->twos, c, bits->twos, a, b);
    CARRY_SAVE(bits->ones, a, bits->ones, v[4], v[5]);
    CARRY_SAVE(bits->ones, b, bits->ones, v[6], v[7]);
    CARRY_SAVE(bits->twos, d, bits->twos, a, b);
    CARRY_SAVE(bits->fours, a, bits->fours, c, d);
    bits->eights = ADD(bits->eights, bit_counts(a));
}

INLINE int64_t sum_bits(const Bits *bits) {
    return sum_lanes(bits->total) + 8 * sum_lanes(bits->eights) + 4 * sum_lanes(bit_counts(bits->fours)) +
           2 * sum_lanes(bit_counts(bits->twos)) + sum_lanes(bit_counts(bits->ones));
}

#endif

typedef struct {
    __m128i weight, next_weight, weight_pass;
} WeightBits;

#define NO_WEIGHT_BITS {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()}

INLINE void add_byte_bits(__m128i *bits, __m128i v) { *bits = _mm_add_epi64(*bits, byte_bits(v)); }

INLINE int64_t sum_halves(__m128i v) {
    int64_t halves[2];
    PUT_BYTES(halves, v);
    return halves[0] + halves[1];
}

INLINE void note_weight_bits(int64_t *toggles, const WeightBits *counted) {
    toggles[T_WEIGHT] += sum_halves(counted->weight);
    toggles[T_NEXT_WEIGHT] += sum_halves(counted->next_weight);
    toggles[T_WEIGHT_PASS] += sum_halves(counted->weight_pass);
}

static int64_t count_changes(const uint8_t *values, ptrdiff_t count, ptrdiff_t distance) {
    const ptrdiff_t size = VEC_LANES * (ptrdiff_t)sizeof(int32_t);
    __m128i bits = _mm_setzero_si128();
    ptrdiff_t i = 0;
    Bits wide = NO_BITS;
    for (; i + size <= count; i += size)
        add_bits(&wide, XOR(LOAD((const int32_t *)(values + i)), LOAD((const int32_t *)(values + i + distance))));
    for (; i < count; i += 16) add_byte_bits(&bits, _mm_xor_si128(BYTES(values + i), BYTES(values + i + distance)));
    return sum_bits(&wide) + sum_halves(bits);
}

static int64_t count_lines(const uint8_t *lines, ptrdiff_t count, const int32_t *times) {
    __m128i bits = _mm_setzero_si128();
    ptrdiff_t i;
    for (i = 0; i < count; ++i, lines += LANES) {
        const __m128i counts = byte_bits(_mm_xor_si128(BYTES(lines), BYTES(lines + LANES)));
        bits = _mm_add_epi64(bits, _mm_mul_epu32(counts, _mm_set1_epi64x(times[i])));
    }
    return sum_halves(bits);
}

#else

typedef struct {
    int32_t lanes[LANES];
} Bits;

typedef struct {
    int64_t weight, next_weight, weight_pass;
} WeightBits;

#define NO_BITS {{0}}
#define NO_WEIGHT_BITS {0, 0, 0}

INLINE int64_t sum_bits(const Bits *bits) {
    int64_t sum = 0;
    int lane;
    for (lane = 0; lane < LANES; ++lane) sum += bits->lanes[lane];
    return sum;
}

INLINE void note_weight_bits(int64_t *toggles, const WeightBits *counted) {
    toggles[T_WEIGHT] += counted->weight;
    toggles[T_NEXT_WEIGHT] += counted->next_weight;
    toggles[T_WEIGHT_PASS] += counted->weight_pass;
}

static int64_t count_changes(const uint8_t *values, ptrdiff_t count, ptrdiff_t distance) {
    int64_t sum = 0;
    ptrdiff_t i;
    for (i = 0; i < count; ++i) sum += bits_of(values[i] ^ values[i + distance]);
    return sum;
}

static int64_t count_lines(const uint8_t *lines, ptrdiff_t count, const int32_t *times) {
    int64_t sum = 0;
    ptrdiff_t i;
    for (i = 0; i < count; ++i, lines += LANES) sum += times[i] * count_changes(lines, LANES, LANES);
    return sum;
}

#endif

static int64_t count_stream(const uint8_t *stream, ptrdiff_t count, const int32_t *times) {
    int64_t total = 0;
    ptrdiff_t j = 0;
    while (j < count) {
        /* So that a sum of at most 8 bits, BLOCK times each, fits int32. */
        const ptrdiff_t stop = count - j > 1 << 16 ? j + (1 << 16) : count;
        int32_t sum = 0;
        for (; j < stop; ++j) {
            uint32_t v = (uint32_t)(stream[j] ^ stream[j + 1]);
            v = v - ((v >> 1) & 0x55u);
            v = (v & 0x33u) + ((v >> 2) & 0x33u);
            sum += (int32_t)((v + (v >> 4)) & 0x0Fu) * times[j];
        }
        total += sum;
    }
    return total;
}
