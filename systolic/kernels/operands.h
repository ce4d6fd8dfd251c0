/* Operands of number formats as registers and ports hold them, codes of 8 or 16 bits, and their values. */
#ifndef SYSTOLIC_OPERANDS_H
#define SYSTOLIC_OPERANDS_H

#include "compiler.h"
#include "numbers.h"

INLINE ptrdiff_t code_bytes(Stored type) { return INTEGER_16 <= type && type <= FLOAT_16 ? 2 : 1; }

INLINE uint16_t code_at(const void *codes, ptrdiff_t i, ptrdiff_t bytes) {
    return bytes == 1 ? ((const uint8_t *)codes)[i] : ((const uint16_t *)codes)[i];
}

INLINE void put_code(void *codes, ptrdiff_t i, ptrdiff_t bytes, uint16_t code) {
    if (bytes == 1) ((uint8_t *)codes)[i] = (uint8_t)code;
    else ((uint16_t *)codes)[i] = code;
}

/* A code on a port, as NumberPorts. */
INLINE uint16_t port_code(NumberPorts ports, ptrdiff_t t, ptrdiff_t p, ptrdiff_t bytes) {
    return code_at(ports.values, t * ports.cycle + p * ports.port, bytes);
}

INLINE int32_t integer_of(Stored type, uint16_t code) {
    switch (type) {
        case INTEGER_8: return (int8_t)code;
        case INTEGER_16: return (int16_t)code;
        default: return code;
    }
}

INLINE float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* The value of a float of `bits` bits, `exponent` of them exponent. Its highest exponent is that of infinities and
 * NaN, or if `finite` of numbers, and of NaN where all other bits are set. */
INLINE float small_float(uint32_t code, int bits, int exponent, int finite) {
    const uint32_t bias = (1u << (exponent - 1)) - 1, up = (127 - bias) << 23, smallest = (128 - bias) << 23;
    const uint32_t most = (1u << (bits - 1)) - 1, sign = code >> (bits - 1) << 31;
    const uint32_t magnitude = (code & most) << (24 + exponent - bits);
    /* A subnormal number is what 1.mantissa exceeds 1 by, both times the smallest normal number. */
    const float below = float_of_bits(magnitude + smallest) - float_of_bits(smallest);
    uint32_t found;
    memcpy(&found, &below, sizeof(found));
    if (magnitude >> 23 != 0) found = magnitude + up;
    if (!finite && magnitude >> 23 == (1u << exponent) - 1) found = magnitude + 2 * up;
    if (finite && (code & most) == most) found = 0x7FC00000;
    return float_of_bits(found | sign);
}

INLINE float float_of(Stored type, uint16_t code) {
    switch (type) {
        case FLOAT_8_E4M3FN: return small_float(code, 8, 4, 1);
        case FLOAT_8_E5M2: return small_float(code, 8, 5, 0);
        case FLOAT_16: return small_float(code, 16, 5, 0);
        default: return float_of_bits((uint32_t)code << 16); /* BFLOAT_16 */
    }
}

#endif
