"""The instruction set in use: one choice for the array, the products and the host operators.

``kernels/isa_list.h`` lists the instruction sets and the tables of C functions of each. The best one that
this processor runs is chosen at import, or the one that the environment variable SYSTOLIC_ISA names.

``reference`` can be chosen like an instruction set: the array is then clocked by the plain
``kernels/array_reference.c``, everything else by the baseline. It is not among `instruction_sets`, which
users compare for speed.
"""

import os

from systolic.kernels.isa cimport InstructionSet, instruction_set as _set_at

cdef const InstructionSet *used = NULL


cdef const InstructionSet *in_use() noexcept nogil:
    return used


cdef _all_names():
    names = []
    while _set_at(<int>len(names)) != NULL:
        names.append(_set_at(<int>len(names)).name.decode())
    return names


def _use(str name=None) -> None:
    """Use the loops of another instruction set, None: of `instruction_set`; for tests and benchmarks."""
    global used
    name = name or instruction_set
    if name not in _names:
        raise ValueError(f"instruction set must be one of {_listed}, not {name!r}")
    used = _set_at(<int>_names.index(name))


def _tables() -> tuple[str, ...]:
    """Return the names of the tables in use: of array, products, host operators, number formats and their products; for tests."""
    names = used.array_name, used.gemm_name, used.host_name, used.numbers_name, used.ordered_name
    return tuple(name.decode() for name in names)


_names = _all_names()
instruction_sets = tuple(name for name in _names if name != "reference")
_listed = ", ".join((*instruction_sets, "reference"))
*_, _best = instruction_sets
instruction_set = os.environ.get("SYSTOLIC_ISA") or _best
if instruction_set not in _names:
    raise ImportError(
        f"SYSTOLIC_ISA={instruction_set} names no instruction set that this machine and this build "
        f"have: they have {_listed}; set it to one of these or unset it for the best"
    )
_use()
