#include "select.h"

#include "isa.h"

const ArrayKernels *systolic_array_kernels(int isa) {
    switch (isa) {
    case SYSTOLIC_ISA_BASELINE:
    case SYSTOLIC_ISA_NEON: /* every arm64 has NEON: the compiler's own vectors */
        return &array_baseline;
#if defined(SYSTOLIC_HAVE_AVX2)
    case SYSTOLIC_ISA_AVX2: return &array_avx2;
#endif
#if defined(SYSTOLIC_HAVE_AVXVNNI)
    case SYSTOLIC_ISA_AVXVNNI: return &array_avxvnni;
#endif
#if defined(SYSTOLIC_HAVE_AVX512)
    case SYSTOLIC_ISA_AVX512: return &array_avx512;
#endif
#if defined(SYSTOLIC_HAVE_AVX512VNNI)
    case SYSTOLIC_ISA_AVX512VNNI: return &array_avx512vnni;
#endif
    default: return NULL;
    }
}

const Gemm *systolic_gemm(int isa) {
    switch (isa) {
    case SYSTOLIC_ISA_BASELINE: return &gemm_baseline;
#if defined(SYSTOLIC_HAVE_AVX2)
    case SYSTOLIC_ISA_AVX2: return &gemm_avx2;
#endif
#if defined(SYSTOLIC_HAVE_AVXVNNI)
    case SYSTOLIC_ISA_AVXVNNI: return &gemm_avxvnni;
#endif
#if defined(SYSTOLIC_HAVE_AVX512)
    case SYSTOLIC_ISA_AVX512: return &gemm_avx512;
#endif
#if defined(SYSTOLIC_HAVE_AVX512VNNI)
    case SYSTOLIC_ISA_AVX512VNNI: return &gemm_avx512vnni;
#endif
#if defined(SYSTOLIC_HAVE_NEON)
    case SYSTOLIC_ISA_NEON: return &gemm_neon;
#endif
    default: return NULL;
    }
}
