"""A cycle-exact, bit-exact emulator of a TPU's weight-stationary systolic array.

>>> import numpy as np
>>> import systolic
>>> x = np.ones((4, 8), dtype=np.int8)
>>> w = np.ones((8, 3), dtype=np.int8)
>>> systolic.matmul(x, w, array=systolic.ArrayConfig(8, 8)).cycles
26
"""

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

from systolic import presets as presets
from systolic._version import __version__ as __version__

# isort: split
# Workload
from systolic.calibrate import quantize_model as quantize_model
from systolic.example import load_example as load_example
from systolic.frontend import UnsupportedOperator as UnsupportedOperator
from systolic.frontend import load_onnx as load_onnx
from systolic.frontend import save_onnx as save_onnx
from systolic.gemm import Gemm as Gemm
from systolic.layers import Add as Add
from systolic.layers import ArgMax as ArgMax
from systolic.layers import AveragePool as AveragePool
from systolic.layers import AveragePool2d as AveragePool2d
from systolic.layers import BatchNormalization as BatchNormalization
from systolic.layers import Binary as Binary
from systolic.layers import Cast as Cast
from systolic.layers import Clip as Clip
from systolic.layers import Concat as Concat
from systolic.layers import Conv1d as Conv1d
from systolic.layers import Conv2d as Conv2d
from systolic.layers import Conv3d as Conv3d
from systolic.layers import ConvInteger as ConvInteger
from systolic.layers import Dense as Dense
from systolic.layers import DepthwiseConv2d as DepthwiseConv2d
from systolic.layers import Dequantize as Dequantize
from systolic.layers import DequantizeLinear as DequantizeLinear
from systolic.layers import DynamicQuantize as DynamicQuantize
from systolic.layers import Expand as Expand
from systolic.layers import Fill as Fill
from systolic.layers import Flatten as Flatten
from systolic.layers import FloatConv as FloatConv
from systolic.layers import FloatConv2d as FloatConv2d
from systolic.layers import FloatConvTranspose as FloatConvTranspose
from systolic.layers import FloatDense as FloatDense
from systolic.layers import FloatMatMul as FloatMatMul
from systolic.layers import Gather as Gather
from systolic.layers import GlobalAveragePool as GlobalAveragePool
from systolic.layers import GlobalAveragePool2d as GlobalAveragePool2d
from systolic.layers import Identity as Identity
from systolic.layers import LayerNormalization as LayerNormalization
from systolic.layers import MatMul as MatMul
from systolic.layers import MatMulInteger as MatMulInteger
from systolic.layers import MatMulIntegerToFloat as MatMulIntegerToFloat
from systolic.layers import MaxPool as MaxPool
from systolic.layers import MaxPool2d as MaxPool2d
from systolic.layers import MaxPoolIndices as MaxPoolIndices
from systolic.layers import OnnxNode as OnnxNode
from systolic.layers import Pad as Pad
from systolic.layers import QLinearAveragePool as QLinearAveragePool
from systolic.layers import QLinearConcat as QLinearConcat
from systolic.layers import QLinearConv as QLinearConv
from systolic.layers import QLinearGlobalAveragePool as QLinearGlobalAveragePool
from systolic.layers import QLinearLeakyRelu as QLinearLeakyRelu
from systolic.layers import QLinearMatMul as QLinearMatMul
from systolic.layers import QLinearMul as QLinearMul
from systolic.layers import QLinearSigmoid as QLinearSigmoid
from systolic.layers import QLinearSoftmax as QLinearSoftmax
from systolic.layers import QLinearWhere as QLinearWhere
from systolic.layers import Quantize as Quantize
from systolic.layers import QuantizeLinear as QuantizeLinear
from systolic.layers import Reduce as Reduce
from systolic.layers import Relu as Relu
from systolic.layers import Reshape as Reshape
from systolic.layers import ReshapeTo as ReshapeTo
from systolic.layers import Resize as Resize
from systolic.layers import ShapeOf as ShapeOf
from systolic.layers import Slice as Slice
from systolic.layers import Softmax as Softmax
from systolic.layers import Split as Split
from systolic.layers import Squeeze as Squeeze
from systolic.layers import Transpose as Transpose
from systolic.layers import Unary as Unary
from systolic.layers import Unsqueeze as Unsqueeze
from systolic.layers import Where as Where
from systolic.model import Model as Model
from systolic.model import Node as Node
from systolic.model import TensorSpec as TensorSpec
from systolic.quant import QuantParams as QuantParams
from systolic.quant import dequantize as dequantize
from systolic.quant import quantize as quantize
from systolic.quant import requantize as requantize

# isort: split
# Hardware
from systolic.array import State as State
from systolic.array import SystolicArray as SystolicArray
from systolic.config import ArrayConfig as ArrayConfig
from systolic.config import MachineConfig as MachineConfig
from systolic.machine import PortValues as PortValues
from systolic.machine import ports as ports
from systolic.tiling import Fold as Fold
from systolic.tiling import estimate_cycles as estimate_cycles
from systolic.tiling import estimate_many as estimate_many
from systolic.tiling import folds as folds

# isort: split
# Where they meet
from systolic.engine import LayerRun as LayerRun
from systolic.engine import Result as Result
from systolic.engine import Run as Run
from systolic.engine import RunReport as RunReport
from systolic.engine import conv2d as conv2d
from systolic.engine import estimate as estimate
from systolic.engine import matmul as matmul
from systolic.engine import run as run
from systolic.engine import summary as summary
from systolic.model import Summary as Summary
from systolic.stats import Stats as Stats
from systolic.threads import set_threads as set_threads
from systolic.trace import Change as Change
from systolic.trace import Probe as Probe
from systolic.trace import Trace as Trace

# isort: split
# Proof
from systolic.cosim import Scoreboard as Scoreboard
from systolic.cosim import ScoreboardError as ScoreboardError
from systolic.info import show_config as show_config
from systolic.vectors import write_vectors as write_vectors
from systolic.verifier import Mismatch as Mismatch
from systolic.verifier import NodeVerdict as NodeVerdict
from systolic.verifier import VerificationError as VerificationError
from systolic.verifier import VerificationReport as VerificationReport
from systolic.verifier import verify as verify
