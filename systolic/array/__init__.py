"""``SystolicArray``: queue tiles and rows, drive ports, clock, save and restore."""

from systolic.array.state import Registers as Registers
from systolic.array.state import State as State
from systolic.array.systolic_array import Difference as Difference
from systolic.array.systolic_array import SystolicArray as SystolicArray
