/* The instruction sets: the only list of them. setup.py reads it too.
 *
 * X(name, processors, array, gemm, host, numbers, ordered, flags, msvc_flags)
 *
 *   name              for users: SYSTOLIC_ISA
 *   processors        X86_64, ARM64 or ANY: where it is compiled
 *   array, gemm, host, numbers, ordered   the tables array_<array>, gemm_<gemm>, host_<host>,
 *                     numbers_<numbers> and ordered_<ordered>
 *   flags, msvc_flags of GCC and Clang, of Microsoft's compiler, for the sources named *_<name>.c
 *
 * In order of preference: the last one that was compiled and that the processor runs is used, so
 * that `reference` (array_reference.c, numbers_reference.c) is used only on request.
 */
#ifndef SYSTOLIC_ISA_LIST_H
#define SYSTOLIC_ISA_LIST_H

#define INSTRUCTION_SETS(X)                                                                            \
    X(reference, ANY, reference, baseline, baseline, reference, baseline, "", "")                      \
    X(baseline, ANY, baseline, baseline, baseline, baseline, baseline, "", "")                         \
    X(avx2, X86_64, avx2, avx2, avx2, avx2, avx2, "-mavx2 -mfma -mf16c", "/arch:AVX2")                 \
    X(avxvnni, X86_64, avxvnni, avxvnni, avx2, avx2, avx2,                                             \
      "-mavx2 -mfma -mf16c -mavxvnni", "/arch:AVX2")                                                   \
    X(avx512, X86_64, avx512, avx512, avx512, avx512, avx512,                                          \
      "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma", "/arch:AVX512")                              \
    X(avx512vnni, X86_64, avx512vnni, avx512vnni, avx512, avx512, avx512,                              \
      "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mavx512vnni", "/arch:AVX512")                 \
    X(avx512popcnt, X86_64, avx512popcnt, avx512vnni, avx512, avx512, avx512,                        \
      "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mavx512vnni -mavx512vpopcntdq", "/arch:AVX512") \
    X(neon, ARM64, baseline, neon, baseline, baseline, baseline, "-march=armv8.2-a+dotprod", "")

#endif
