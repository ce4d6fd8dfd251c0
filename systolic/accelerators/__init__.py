"""Machines of the literature and their published tables.

>>> from systolic.accelerators import stand_in, tpu_v1
>>> tpu_v1.TABLE_1["weights"]["CNN0"], round(stand_in("CNN0").weights / 1e6, 2)
(8, 8.02)
"""

from systolic.accelerators import tpu_v1
from systolic.accelerators.stand_ins import StandIn, Step, stand_in

__all__ = ["StandIn", "Step", "stand_in", "tpu_v1"]
