"""Scale and zero point: quantize, dequantize, and requantize int32 accumulators by a named rounding.

A *code* is a quantized integer value; it represents ``real = scale * (code - zero_point)``.
Quantization and ``half_even`` are float32 arithmetic, every operation rounded by itself, as ONNX defines
QuantizeLinear, DequantizeLinear, QLinearMatMul and QLinearConv and as ONNX Runtime's CPU provider
(MLAS) computes them, so codes are equal bit for bit. The other roundings are those of other runtimes
and of hardware: :mod:`systolic.quant.roundings`.
"""

from systolic.quant.linear import dequantize as dequantize
from systolic.quant.linear import dequantize_linear as dequantize_linear
from systolic.quant.linear import quantize as quantize
from systolic.quant.linear import quantize_linear as quantize_linear
from systolic.quant.params import DTYPES as DTYPES
from systolic.quant.params import EIGHT_BITS as EIGHT_BITS
from systolic.quant.params import QuantParams as QuantParams
from systolic.quant.params import as_params as as_params
from systolic.quant.roundings import ROUNDINGS as ROUNDINGS
from systolic.quant.roundings import fixed_point as fixed_point
from systolic.quant.roundings import to_codes as to_codes
from systolic.quant.scaling import as_multiplier as as_multiplier
from systolic.quant.scaling import multiplier as multiplier
from systolic.quant.scaling import requantize as requantize
