"""A cycle-exact, bit-exact emulator of a TPU's weight-stationary systolic array."""

try:
    from systolic import _core as _core
except ImportError as error:
    raise ImportError(
        "systolic's compiled core is missing or does not fit this Python. Installed: reinstall with "
        '"pip install --force-reinstall systolic". In a source checkout: build it with '
        '"pip install -e ." (needs a C compiler), or leave the checkout\'s folder. '
        f"({error})"
    ) from error

from systolic._version import __version__ as __version__

# isort: split
# Workload
from systolic.gemm import Gemm as Gemm

# isort: split
# Hardware
from systolic.array import State as State
from systolic.array import SystolicArray as SystolicArray
from systolic.config import ArrayConfig as ArrayConfig
from systolic.config import MachineConfig as MachineConfig
from systolic.tiling import Fold as Fold
from systolic.tiling import estimate_cycles as estimate_cycles
from systolic.tiling import folds as folds

# isort: split
# Where they meet
from systolic.stats import Stats as Stats
from systolic.threads import set_threads as set_threads
from systolic.trace import Trace as Trace
