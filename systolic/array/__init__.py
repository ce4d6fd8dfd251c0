"""``SystolicArray``: load, stream, step. Validates, allocates, calls ``_core``."""

from systolic.array.state import Registers as Registers
from systolic.array.state import State as State
from systolic.array.systolic_array import Difference as Difference
from systolic.array.systolic_array import SystolicArray as SystolicArray
