"""What limits a program or a model on a machine: rooflines, and what each parameter is worth.

>>> from systolic import Gemm, presets
>>> from systolic.analysis import roofline
>>> machine = presets.TPU_V1
>>> roofline({"fc": Gemm(200, 2048, 2048)}, machine)
<Roofline of 1 layer: peak 91.8 Tops/s, ridge point 1,349 MACs per weight byte>
"""

from systolic.analysis.limits import Effect, Explanation, explain
from systolic.analysis.rooflines import Roofline, RooflinePoint, roofline

__all__ = ["Effect", "Explanation", "Roofline", "RooflinePoint", "explain", "roofline"]
