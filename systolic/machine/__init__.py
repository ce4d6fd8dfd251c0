"""The machine: lowered work to outputs and cycles, in cycle mode and in wavefront mode."""

from systolic.machine.cycle import run_cycles as run_cycles
from systolic.machine.execution import Execution as Execution
from systolic.machine.port_values import PortValues as PortValues
from systolic.machine.port_values import ports as ports
from systolic.machine.wavefront import run_wavefront as run_wavefront
