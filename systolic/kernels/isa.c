#include "isa.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#define SYSTOLIC_X86_64 1
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#if defined(SYSTOLIC_X86_64)

static void cpuid(unsigned leaf, unsigned subleaf, unsigned out[4]) {
#if defined(_MSC_VER)
    int values[4];
    __cpuidex(values, (int)leaf, (int)subleaf);
    memcpy(out, values, sizeof(values));
#else
    if (!__get_cpuid_count(leaf, subleaf, &out[0], &out[1], &out[2], &out[3])) memset(out, 0, 16);
#endif
}

/* The register states that the operating system saves and restores: XCR0. */
static unsigned saved_states(void) {
#if defined(_MSC_VER)
    return (unsigned)_xgetbv(0);
#else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
#endif
}

static int bit(unsigned word, int number) { return (word >> number) & 1; }

/* Intel SDM volume 2, CPUID: leaf 1 ECX, leaf 7.0 EBX and ECX, leaf 7.1 EAX. */
static unsigned processor(void) {
    enum { EAX, EBX, ECX, EDX };
    unsigned leaf1[4], leaf7[4], leaf7_1[4], states, found = 1;
    int avx2, avx512;
    cpuid(1, 0, leaf1);
    if (!bit(leaf1[ECX], 27)) return found; /* OSXSAVE: XGETBV may be asked */
    states = saved_states();
    cpuid(7, 0, leaf7);
    cpuid(7, 1, leaf7_1);
    avx2 = (states & 0x6) == 0x6 && bit(leaf1[ECX], 28) && bit(leaf1[ECX], 12) && bit(leaf1[ECX], 29) &&
           bit(leaf7[EBX], 5); /* AVX, FMA, F16C, AVX2 */
    avx512 = avx2 && (states & 0xE0) == 0xE0 && bit(leaf7[EBX], 16) && bit(leaf7[EBX], 17) &&
             bit(leaf7[EBX], 30) && bit(leaf7[EBX], 31); /* F, DQ, BW, VL */
    if (avx2) found |= 1u << SYSTOLIC_ISA_AVX2;
    if (avx2 && leaf7[EAX] >= 1 && bit(leaf7_1[EAX], 4)) found |= 1u << SYSTOLIC_ISA_AVXVNNI;
    if (avx512) found |= 1u << SYSTOLIC_ISA_AVX512;
    if (avx512 && bit(leaf7[ECX], 11)) found |= 1u << SYSTOLIC_ISA_AVX512VNNI;
    return found;
}

#elif defined(__aarch64__) || defined(_M_ARM64)

static unsigned processor(void) {
#if defined(__APPLE__)
    return 1u | 1u << SYSTOLIC_ISA_NEON; /* every arm64 processor that macOS runs on */
#elif defined(__linux__) && defined(HWCAP_ASIMDDP)
    return 1u | (getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? 1u << SYSTOLIC_ISA_NEON : 0);
#else
    return 1u;
#endif
}

#else

static unsigned processor(void) { return 1u; }

#endif

unsigned systolic_isa_available(void) {
    /* Asked once: under a hypervisor CPUID takes microseconds. */
    static unsigned found = 0;
    /* setup.py defines one of these for each file that the compiler could compile. */
    unsigned compiled = 1u;
#if defined(SYSTOLIC_HAVE_AVX2)
    compiled |= 1u << SYSTOLIC_ISA_AVX2;
#endif
#if defined(SYSTOLIC_HAVE_AVXVNNI)
    compiled |= 1u << SYSTOLIC_ISA_AVXVNNI;
#endif
#if defined(SYSTOLIC_HAVE_AVX512)
    compiled |= 1u << SYSTOLIC_ISA_AVX512;
#endif
#if defined(SYSTOLIC_HAVE_AVX512VNNI)
    compiled |= 1u << SYSTOLIC_ISA_AVX512VNNI;
#endif
#if defined(SYSTOLIC_HAVE_NEON)
    compiled |= 1u << SYSTOLIC_ISA_NEON;
#endif
    if (found == 0) found = processor();
    return compiled & found;
}

const char *systolic_isa_name(int isa) {
    switch (isa) {
    case SYSTOLIC_ISA_BASELINE: return "baseline";
    case SYSTOLIC_ISA_AVX2: return "avx2";
    case SYSTOLIC_ISA_AVXVNNI: return "avxvnni";
    case SYSTOLIC_ISA_AVX512: return "avx512";
    case SYSTOLIC_ISA_AVX512VNNI: return "avx512vnni";
    case SYSTOLIC_ISA_NEON: return "neon";
    default: return NULL;
    }
}

static int choose(void) {
    unsigned available = systolic_isa_available();
    const char *wanted = getenv("SYSTOLIC_ISA");
    int isa;
    for (isa = SYSTOLIC_ISA_NEON; isa > 0; --isa)
        if (available >> isa & 1u) break;
    if (wanted == NULL || *wanted == '\0') return isa;
    for (isa = SYSTOLIC_ISA_NEON; isa >= 0; --isa) {
        const char *name = systolic_isa_name(isa);
        if ((available >> isa & 1u) && name != NULL && strcmp(name, wanted) == 0) return isa;
    }
    return -1;
}

int systolic_isa(void) {
    /* Threads that come here together find the same. */
    static int chosen = -2;
    if (chosen == -2) chosen = choose();
    return chosen;
}
