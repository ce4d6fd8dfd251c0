"""Models to programs: what runs where, tiles, addresses, instructions. Runs nothing."""

from systolic.compiler.program import NoProgram as NoProgram
from systolic.compiler.program import Programs as Programs
from systolic.compiler.program import RuntimeShape as RuntimeShape
from systolic.compiler.program import compile as compile
