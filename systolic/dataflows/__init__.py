"""Dataflows as records: registers, ports, clock rules, closed forms, kernel and reference of an array.

Everything that names a register or a port loops over the record of its array's dataflow: states,
traces, drawings, vectors, scoreboards and the verifier. Only the reference, which must not share it,
and the compiled kernels name them again.
"""

from systolic.dataflows.output_stationary import OUTPUT_STATIONARY as OUTPUT_STATIONARY
from systolic.dataflows.record import OPERANDS as OPERANDS
from systolic.dataflows.record import Beat as Beat
from systolic.dataflows.record import Dataflow as Dataflow
from systolic.dataflows.record import Line as Line
from systolic.dataflows.record import Port as Port
from systolic.dataflows.record import Register as Register
from systolic.dataflows.record import Role as Role
from systolic.dataflows.record import Sizes as Sizes
from systolic.dataflows.record import port_dtypes as port_dtypes
from systolic.dataflows.record import register_dtypes as register_dtypes
from systolic.dataflows.record import register_limits as register_limits
from systolic.dataflows.toggles import clock_counting as clock_counting
from systolic.dataflows.toggles import differing_bits as differing_bits
from systolic.dataflows.toggles import register_bits as register_bits
from systolic.dataflows.weight_stationary import INPUT_STATIONARY as INPUT_STATIONARY
from systolic.dataflows.weight_stationary import WEIGHT_STATIONARY as WEIGHT_STATIONARY

DATAFLOWS = {dataflow.name: dataflow for dataflow in (WEIGHT_STATIONARY, OUTPUT_STATIONARY, INPUT_STATIONARY)}
"""Every dataflow, by name."""
