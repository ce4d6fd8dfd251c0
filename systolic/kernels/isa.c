#include "isa.h"

#include <string.h>

#include "isa_list.h"

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif

/* Words of CPUID, and the register states that the operating system saves and restores (XCR0). */
typedef struct {
    unsigned leaf1[4], leaf7[4], leaf7_1[4], states;
} Processor;

enum { EAX, EBX, ECX, EDX };

static void cpuid(unsigned leaf, unsigned subleaf, unsigned out[4]) {
#if defined(_MSC_VER)
    int values[4];
    __cpuidex(values, (int)leaf, (int)subleaf);
    memcpy(out, values, sizeof(values));
#else
    if (!__get_cpuid_count(leaf, subleaf, &out[0], &out[1], &out[2], &out[3])) memset(out, 0, 16);
#endif
}

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

static Processor processor(void) {
    Processor p;
    cpuid(1, 0, p.leaf1);
    cpuid(7, 0, p.leaf7);
    cpuid(7, 1, p.leaf7_1);
    p.states = bit(p.leaf1[ECX], 27) ? saved_states() : 0; /* OSXSAVE: XGETBV may be executed */
    return p;
}

/* Intel SDM volume 2, CPUID: leaf 1 ECX, leaf 7.0 EBX and ECX, leaf 7.1 EAX. */
static int runs_avx2(const Processor *p) { /* AVX, FMA, F16C, AVX2 */
    return (p->states & 0x6) == 0x6 && bit(p->leaf1[ECX], 28) && bit(p->leaf1[ECX], 12) &&
           bit(p->leaf1[ECX], 29) && bit(p->leaf7[EBX], 5);
}

static int runs_avxvnni(const Processor *p) { return runs_avx2(p) && p->leaf7[EAX] >= 1 && bit(p->leaf7_1[EAX], 4); }

static int runs_avx512(const Processor *p) { /* F, DQ, BW, VL */
    return runs_avx2(p) && (p->states & 0xE0) == 0xE0 && bit(p->leaf7[EBX], 16) && bit(p->leaf7[EBX], 17) &&
           bit(p->leaf7[EBX], 30) && bit(p->leaf7[EBX], 31);
}

static int runs_avx512vnni(const Processor *p) { return runs_avx512(p) && bit(p->leaf7[ECX], 11); }

static int runs_avx512popcnt(const Processor *p) { /* VNNI, VPOPCNTDQ */
    return runs_avx512vnni(p) && bit(p->leaf7[ECX], 14);
}

#else

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

typedef struct {
    int dot_product;
} Processor;

static Processor processor(void) {
    Processor p = {0};
#if defined(__APPLE__)
    p.dot_product = 1; /* every arm64 processor that macOS runs on */
#elif defined(__aarch64__) && defined(__linux__) && defined(HWCAP_ASIMDDP)
    p.dot_product = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
    return p;
}

static int runs_neon(const Processor *p) { return p->dot_product; }

#endif

static int runs_reference(const Processor *p) { return (void)p, 1; }

static int runs_baseline(const Processor *p) { return (void)p, 1; }

/* IF(c)(tokens) are the tokens where c is 1, nothing where it is 0. setup.py defines
 * SYSTOLIC_HAVE_<name> as 1 or 0: whether the compiler could compile that set's files. */
#define IF_0(...)
#define IF_1(...) __VA_ARGS__
#define JOIN(a, b) a##b
#define IF(condition) JOIN(IF_, condition)

#define TABLES(name, processors, array, gemm, host, numbers, ordered, flags, msvc_flags)                              \
    IF(SYSTOLIC_HAVE_##name)                                                                                         \
    (extern const ArrayKernels array_##array; extern const GemmKernels gemm_##gemm; extern const HostKernels host_##host; \
     extern const NumbersKernels numbers_##numbers; extern const OrderedKernels ordered_##ordered;)
INSTRUCTION_SETS(TABLES)

typedef struct {
    InstructionSet set;
    int (*runs)(const Processor *);
} Compiled;

#define ROW(name, processors, array, gemm, host, numbers, ordered, flags, msvc_flags)                  \
    IF(SYSTOLIC_HAVE_##name)                                                                          \
    ({{#name, &array_##array, &gemm_##gemm, &host_##host, &numbers_##numbers, &ordered_##ordered,     \
       #array, #gemm, #host, #numbers, #ordered}, runs_##name}, )
static const Compiled compiled[] = {INSTRUCTION_SETS(ROW)};

const InstructionSet *instruction_set(int i) {
    /* Asked once: under a hypervisor CPUID takes microseconds. */
    static Processor p;
    static int asked = 0;
    size_t at;
    if (!asked) p = processor(), asked = 1;
    for (at = 0; at < sizeof(compiled) / sizeof(*compiled); ++at)
        if (compiled[at].runs(&p) && i-- == 0) return &compiled[at].set;
    return NULL;
}
