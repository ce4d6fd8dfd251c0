"""What limits a program or a model on a machine: rooflines, and what each parameter is worth.

>>> from systolic import Gemm, MachineConfig, presets
>>> from systolic.analysis import roofline
>>> machine = MachineConfig(presets.TPU_V1.array, clock_mhz=700, memory=presets.TPU_V1_MEMORY)
>>> roofline({"fc": Gemm(200, 2048, 2048)}, machine)
<Roofline of 1 layer: peak 91.8 Tops/s, ridge point 1,349 MACs per weight byte>
"""

from systolic.analysis.limits import Effect, Explanation, explain
from systolic.analysis.rooflines import Roofline, RooflinePoint, roofline

__all__ = ["Effect", "Explanation", "Roofline", "RooflinePoint", "explain", "roofline"]
