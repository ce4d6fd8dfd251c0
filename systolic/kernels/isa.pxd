from systolic.kernels.array cimport ArrayKernels
from systolic.kernels.gemm cimport GemmKernels
from systolic.kernels.host cimport HostKernels
from systolic.kernels.numbers cimport NumbersKernels
from systolic.kernels.ordered cimport OrderedKernels

cdef extern from "kernels/isa.h" nogil:
    ctypedef struct InstructionSet:
        const char *name
        const ArrayKernels *array
        const GemmKernels *gemm
        const HostKernels *host
        const NumbersKernels *numbers
        const OrderedKernels *ordered
        const char *array_name
        const char *gemm_name
        const char *host_name
        const char *numbers_name
        const char *ordered_name

    const InstructionSet *instruction_set(int i)
