"""The machine: it runs lowered work in cycle mode or in wavefront mode, with equal outputs and cycles.

``cycle`` feeds folds to the array, clocks it and drains the accumulators; ``wavefront`` computes plain
products. Both read the operands by ``operands`` and end with ``epilogue``. ``programs`` runs instructions
on a machine with memories, and ``timeline`` says when each of them runs.
"""

from systolic.machine.cycle import run_cycles as run_cycles
from systolic.machine.execution import Execution as Execution
from systolic.machine.port_values import PortValues as PortValues
from systolic.machine.port_values import ports as ports
from systolic.machine.programs import ProgramRun as ProgramRun
from systolic.machine.programs import run_program as run_program
from systolic.machine.timeline import Timeline as Timeline
from systolic.machine.timeline import time_program as time_program
from systolic.machine.trace_file import TraceFile as TraceFile
from systolic.machine.trace_file import read_trace as read_trace
from systolic.machine.wavefront import run_wavefront as run_wavefront
