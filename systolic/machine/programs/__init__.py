"""Programs with data: what each instruction reads, computes and writes, in either mode."""

from systolic.machine.programs.memories import Memories as Memories
from systolic.machine.programs.run import ProgramRun as ProgramRun
from systolic.machine.programs.run import run_program as run_program
