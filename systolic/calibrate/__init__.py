"""Float models to int8 models: what is folded, what becomes int8, and ranges from calibration data."""

from systolic.calibrate.quantization import (
    METHODS,
    FloatNodesWarning,
    NodeQuantization,
    Quantization,
    plan_quantization,
    quantize_model,
)

__all__ = [
    "METHODS",
    "FloatNodesWarning",
    "NodeQuantization",
    "Quantization",
    "plan_quantization",
    "quantize_model",
]
