/* Which instruction sets this processor has, and which of them the package uses. */
#ifndef SYSTOLIC_ISA_H
#define SYSTOLIC_ISA_H

/* In order of preference; a higher one runs everything that a lower one of its kind runs. */
enum {
    SYSTOLIC_ISA_BASELINE = 0, /* what the compiler targets: SSE2 on x86-64, else plain C */
    SYSTOLIC_ISA_AVX2 = 1,
    SYSTOLIC_ISA_AVXVNNI = 2,    /* AVX2 with VPDPBUSD and VPDPWSSD on 256 bits */
    SYSTOLIC_ISA_AVX512 = 3,     /* F, BW, DQ, VL */
    SYSTOLIC_ISA_AVX512VNNI = 4,
    SYSTOLIC_ISA_NEON = 10       /* arm64 with the dot-product instructions */
};

/* Bit i is set if instruction set i was compiled in and this processor, with its operating
 * system, runs it. Bit 0 always is. */
unsigned systolic_isa_available(void);

/* The name of an instruction set, in lower case; NULL if there is none of that number. */
const char *systolic_isa_name(int isa);

/* The instruction set in use: the best one available, or the one that the environment variable
 * SYSTOLIC_ISA names; -1 if that names none that is available. Read once, at the first call. */
int systolic_isa(void);

#endif
