"""A cycle-exact, bit-exact emulator of a TPU's weight-stationary systolic array.

>>> import numpy as np
>>> import systolic
>>> x = np.ones((4, 8), dtype=np.int8)
>>> w = np.ones((8, 3), dtype=np.int8)
>>> systolic.matmul(x, w, array=systolic.ArrayConfig(8, 8)).cycles
26
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

try:
    from systolic import _core as _core
    from systolic import _gemm as _gemm
    from systolic import _host as _host
    from systolic import _kernels as _kernels
except ImportError as error:
    if str(error).startswith("SYSTOLIC_ISA="):  # the setting is wrong, not the installation
        import os
        import sys

        # The shell's command cannot catch this: Python imports the package before the command's module.
        started = getattr(sys, "argv", None) or [""]
        name = os.path.splitext(os.path.basename(started[0]))[0]
        if name == "-m":  # Python is still finding what to run: it stands before the arguments
            name = sys.orig_argv[-len(started)].removeprefix("-m")
        if name == "systolic":
            print(f"systolic: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        raise
    raise ImportError(
        "systolic's compiled core is missing or does not fit this Python. Installed: reinstall with "
        '"pip install --force-reinstall systolic". In a source checkout: build it with '
        '"pip install -e ." (needs a C compiler), or leave the checkout\'s folder. '
        f"({error})"
    ) from error

from systolic import layers, presets
from systolic._renamed import find as _find
from systolic._version import __version__ as __version__

# isort: split
# Workload
from systolic.calibrate import quantize_model
from systolic.example import load_example
from systolic.frontend import UnsupportedOperator, load_onnx, save_onnx
from systolic.gemm import Gemm
from systolic.model import Model, Node, TensorSpec
from systolic.quant import QuantParams, dequantize, quantize, requantize

# isort: split
# Hardware
from systolic.array import State, SystolicArray
from systolic.config import ArrayConfig, MachineConfig, MemoryConfig
from systolic.machine import PortValues, ports
from systolic.tiling import Fold, estimate_cycles, estimate_many, folds

# isort: split
# Where they meet
from systolic.engine import LayerRun, Result, Run, compare, compile, conv2d, estimate, matmul, run, summary
from systolic.isa import Program
from systolic.stats import Stats
from systolic.sweeps import sweep
from systolic.threads import set_threads
from systolic.trace import Change, Probe, Trace

# isort: split
# Proof
from systolic.cosim import Scoreboard, ScoreboardError
from systolic.info import show_config
from systolic.vectors import write_vectors
from systolic.verifier import VerificationError, verify

__all__ = [
    "ArrayConfig",
    "Change",
    "Fold",
    "Gemm",
    "LayerRun",
    "MachineConfig",
    "MemoryConfig",
    "Model",
    "Node",
    "PortValues",
    "Probe",
    "Program",
    "QuantParams",
    "Result",
    "Run",
    "Scoreboard",
    "ScoreboardError",
    "State",
    "Stats",
    "SystolicArray",
    "TensorSpec",
    "Trace",
    "UnsupportedOperator",
    "VerificationError",
    "compare",
    "compile",
    "conv2d",
    "dequantize",
    "estimate",
    "estimate_cycles",
    "estimate_many",
    "folds",
    "layers",
    "load_example",
    "load_onnx",
    "matmul",
    "ports",
    "presets",
    "quantize",
    "quantize_model",
    "requantize",
    "run",
    "save_onnx",
    "set_threads",
    "show_config",
    "summary",
    "sweep",
    "verify",
    "write_vectors",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if TYPE_CHECKING:
    from systolic import accelerators as accelerators
    from systolic import analysis as analysis
    from systolic import training as training
else:  # to type checkers an old or misspelled name is an error

    def __getattr__(name: str) -> object:
        if name in ("accelerators", "analysis", "training"):  # imported when used
            return _import_module(f"{__name__}.{name}")
        return _find(__name__, name)
