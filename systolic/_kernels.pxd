from systolic.kernels.isa cimport InstructionSet

cdef const InstructionSet *in_use() noexcept nogil
