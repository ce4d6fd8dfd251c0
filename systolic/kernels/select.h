/* The tables of functions of an instruction set; NULL for one that was not compiled in. */
#ifndef SYSTOLIC_SELECT_H
#define SYSTOLIC_SELECT_H

#include "array.h"
#include "gemm.h"

const ArrayKernels *systolic_array_kernels(int isa);
const Gemm *systolic_gemm(int isa);

#endif
