/* What the loops ask of a compiler beyond C99 and intrinsics; each has a plain fallback. */
#ifndef SYSTOLIC_COMPILER_H
#define SYSTOLIC_COMPILER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#define RESTRICT __restrict
#define INLINE static __forceinline
#define APART static __declspec(noinline)
#elif defined(__GNUC__)
#define RESTRICT restrict
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))
#else
#define RESTRICT restrict
#define INLINE static inline
#define APART static
#endif

/* Before a loop of at most 8 turns. */
#if defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 8")
#else
#define UNROLLED
#endif

/* A hint: the cache line at p will be needed; to L2, for L1 is full of what is needed now. */
#if defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p, 0, 2)
#elif defined(_MSC_VER) && defined(_M_X64)
#include <immintrin.h>
#define PREFETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#else
#define PREFETCH(p) (void)0
#endif

/* A vector of int32. GCC copies and spills a loop's sums where their type is not the one its own
 * builtins return (__m512i counts as a vector of long long); MSVC knows no other type and no cast. */
#if defined(__GNUC__)
#define INT32_VECTOR(type, bytes) int32_t __attribute__((vector_size(bytes)))
#define AS(type, v) ((type)(v))
#else
#define INT32_VECTOR(type, bytes) type
#define AS(type, v) (v)
#endif

/* Hide pointer relations from the compiler, which would otherwise keep one pointer per row: a tile
 * has more of them than there are registers. */
#if defined(__GNUC__)
#define KEEP_POINTER(p) __asm__("" : "+r"(p))
#else
#define KEEP_POINTER(p) (void)0
#endif

#endif
