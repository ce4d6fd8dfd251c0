"""The code that defines the results: slow, obvious, and shared with nothing that it checks.

``pe`` and ``output_stationary`` step an array PE by PE in Python integers, ``cycles`` counts what a product
must take, ``oracle`` computes what each layer should give, ``operands`` what the array should be fed for
a product, and ``mappings`` how that of a convolution is laid out.
"""

from systolic.reference import oracle as oracle
from systolic.reference.cycles import Layout as Layout
from systolic.reference.cycles import expected_cycles as expected_cycles
from systolic.reference.mappings import expected_layout as expected_layout
from systolic.reference.mappings import laid_out as laid_out
from systolic.reference.numbers import Numbers as Numbers
from systolic.reference.numbers import tile_length as tile_length
from systolic.reference.operands import Operands as Operands
from systolic.reference.operands import conv_sums as conv_sums
from systolic.reference.operands import expected_sums as expected_sums
from systolic.reference.operands import matmul_sums as matmul_sums
from systolic.reference.operands import ordered_sums as ordered_sums
from systolic.reference.oracle import expected_output as expected_output
from systolic.reference.oracle import has_oracle as has_oracle
from systolic.reference.oracle import summation_bound as summation_bound
from systolic.reference.oracle import tolerance_of as tolerance_of
from systolic.reference.output_stationary import OutputStationaryArray as OutputStationaryArray
from systolic.reference.pe import ReferenceArray as ReferenceArray
from systolic.reference.pe import fold_times as fold_times
