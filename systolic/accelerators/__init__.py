"""Machines of the literature and their published tables.

>>> from systolic.accelerators import stand_in, tpu_v1
>>> tpu_v1.TABLE_1["weights"]["CNN0"], round(stand_in("CNN0").weights / 1e6, 2)
(8, 8.02)
"""

from systolic.accelerators import tpu_v1
from systolic.accelerators.chips import CHIPS, Chip, neuroncore_cycles
from systolic.accelerators.counters import Counters, count
from systolic.accelerators.models import model_of
from systolic.accelerators.programs import program_of, with_operands
from systolic.accelerators.stand_ins import StandIn, Step, stand_in
from systolic.accelerators.studies import square_array
from systolic.accelerators.validation import Check, Validation, validate_tpu_v1

__all__ = [
    "CHIPS", "Check", "Chip", "Counters", "StandIn", "Step", "Validation", "count", "model_of",
    "neuroncore_cycles", "program_of", "square_array", "stand_in", "tpu_v1", "validate_tpu_v1",
    "with_operands",
]  # fmt: skip
