/* The floating-point mode that sums are computed in: round to nearest, subnormals kept, nothing trapped.
 *
 * Libraries change a thread's mode (-ffast-math programs flush subnormals to zero); float_mode() sets ours and
 * returns the mode before, which restore_float_mode() sets again. Compute in functions that are called between
 * the two through a pointer: a compiler may move arithmetic across them, not calls.
 */
#ifndef SYSTOLIC_FLOAT_MODE_H
#define SYSTOLIC_FLOAT_MODE_H

#include <stdint.h>

#include "compiler.h"

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>

INLINE uint64_t float_mode(void) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(0x1F80); /* as after reset */
    return before;
}

INLINE void restore_float_mode(uint64_t mode) { _mm_setcsr((unsigned)mode); }

#elif defined(__aarch64__) && defined(__GNUC__)

INLINE void restore_float_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }

INLINE uint64_t float_mode(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    restore_float_mode(0);
    return before;
}

#else

INLINE uint64_t float_mode(void) { return 0; }

INLINE void restore_float_mode(uint64_t mode) { (void)mode; }

#endif

#endif
