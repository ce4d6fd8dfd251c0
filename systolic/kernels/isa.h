/* The instruction sets that this processor runs, and the tables of functions of each. */
#ifndef SYSTOLIC_ISA_H
#define SYSTOLIC_ISA_H

#include "array.h"
#include "gemm.h"
#include "host.h"
#include "numbers.h"
#include "ordered.h"

typedef struct {
    const char *name;
    const ArrayKernels *array;
    const GemmKernels *gemm;
    const HostKernels *host;
    const NumbersKernels *numbers;
    const OrderedKernels *ordered;
    const char *array_name, *gemm_name, *host_name, *numbers_name, *ordered_name; /* of the tables, for tests */
} InstructionSet;

/* Number i, in the order of isa_list.h, of the sets that were compiled in and that the processor,
 * with its operating system, runs; NULL beyond the last. There is always one. */
const InstructionSet *instruction_set(int i);

#endif
