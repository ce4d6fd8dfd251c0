/* Which table of host operators is used: the one for the instruction set in use. */
#include "host.h"
#include "isa.h"

extern const HostKernels systolic_host_baseline;
#ifdef SYSTOLIC_HAVE_AVX2
extern const HostKernels systolic_host_avx2;
#endif
#ifdef SYSTOLIC_HAVE_AVX512
extern const HostKernels systolic_host_avx512;
#endif

const HostKernels *systolic_host_kernels_at(int isa) {
    switch (isa) {
    case SYSTOLIC_ISA_BASELINE:
    case SYSTOLIC_ISA_NEON: /* every arm64 has it: it is that compiler's baseline */
        return &systolic_host_baseline;
#ifdef SYSTOLIC_HAVE_AVX2
    case SYSTOLIC_ISA_AVX2:
    case SYSTOLIC_ISA_AVXVNNI:
        return &systolic_host_avx2;
#endif
#ifdef SYSTOLIC_HAVE_AVX512
    case SYSTOLIC_ISA_AVX512:
    case SYSTOLIC_ISA_AVX512VNNI:
        return &systolic_host_avx512;
#endif
    default:
        return NULL;
    }
}

const HostKernels *systolic_host_kernels(void) {
    const HostKernels *table = systolic_host_kernels_at(systolic_isa());
    return table ? table : &systolic_host_baseline;
}
