"""The instructions of a TPU v1-like machine: as values, bytes and text.

>>> from systolic import isa
>>> program = isa.Program('''
...     read_weights w#0, 1
...     read_host u#0, 16        ; host rows count up from 0
...     matmul a#0, u#0, 16
...     activate u#16, a#0, 16
...     write_host u#16, 16
... ''')
>>> program[2]
MatrixMultiply(ub=0, acc=0, rows=16, new_weights=True, accumulate=False)
>>> len(program.encode())
69
"""

from systolic.isa.functions import Function, Window
from systolic.isa.instructions import (
    INSTRUCTIONS,
    Activate,
    Convolve,
    Halt,
    HostCall,
    Instruction,
    MatrixMultiply,
    Nop,
    Pattern,
    Patterns,
    ReadHost,
    ReadWeights,
    SetConfiguration,
    Sync,
    Vector,
    WriteHost,
    decode,
    encode,
    pattern_range,
    pattern_rows,
    row_ranges,
)
from systolic.isa.program import Program, Section, Symbol
from systolic.isa.tensors import HostTensor
from systolic.isa.text import assemble, disassemble

__all__ = [
    "INSTRUCTIONS", "Activate", "Convolve", "Function", "Halt", "HostCall", "HostTensor", "Instruction",
    "MatrixMultiply", "Nop", "Pattern", "Patterns", "Program", "ReadHost", "ReadWeights", "Section",
    "SetConfiguration", "Symbol", "Sync", "Vector", "Window", "WriteHost", "assemble", "decode",
    "disassemble", "encode", "pattern_range", "pattern_rows", "row_ranges",
]  # fmt: skip
