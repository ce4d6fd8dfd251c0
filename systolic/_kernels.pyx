"""The instruction set in use: one choice for the array, the products and the host operators.

``kernels/isa_list.h`` lists the instruction sets and the tables of C functions of each. The best one that
this processor runs is chosen at import, or the one that the environment variable SYSTOLIC_ISA names.
"""

import os

from systolic.kernels.isa cimport InstructionSet, instruction_set as _set_at

cdef const InstructionSet *used = NULL


cdef const InstructionSet *in_use() noexcept nogil:
    return used


cdef _names():
    names = []
    while _set_at(<int>len(names)) != NULL:
        names.append(_set_at(<int>len(names)).name.decode())
    return tuple(names)


def _use(str name=None) -> None:
    """Use the loops of another of `instruction_sets`, None: of `instruction_set`; for tests and benchmarks."""
    global used
    name = name or instruction_set
    if name not in instruction_sets:
        raise ValueError(f"instruction set must be one of {', '.join(instruction_sets)}, not {name!r}")
    used = _set_at(<int>instruction_sets.index(name))


def _tables() -> tuple[str, str, str]:
    """Return the names of the tables in use, of the array, the products and the host operators; for tests."""
    return used.array_name.decode(), used.gemm_name.decode(), used.host_name.decode()


instruction_sets = _names()
*_, instruction_set = instruction_sets
instruction_set = os.environ.get("SYSTOLIC_ISA") or instruction_set
if instruction_set not in instruction_sets:
    raise ImportError(
        f"SYSTOLIC_ISA={instruction_set} names no instruction set that this machine and this build "
        f"have: they have {', '.join(instruction_sets)}; set it to one of these or unset it for the best"
    )
_use()
