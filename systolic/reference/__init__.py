"""The code that defines the results: slow, obvious, and shared with nothing that it checks.

``pe`` steps the array PE by PE in Python integers; ``oracle`` computes exact products and
quantized operators in numpy.
"""

from systolic.reference import oracle as oracle
from systolic.reference.pe import ReferenceArray as ReferenceArray
from systolic.reference.pe import fold_times as fold_times
