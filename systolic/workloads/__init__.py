"""Products with names and counts: what a network costs without the network.

>>> from systolic import Gemm, estimate
>>> from systolic.workloads import Workload
>>> block = Workload("block", [("qkv", Gemm(128, 768, 768), 3), ("out", Gemm(128, 768, 768))])
>>> estimate(block).macs == block.macs
True
"""

from systolic.workloads.files import read_workload as read_workload
from systolic.workloads.topologies import read_topology as read_topology
from systolic.workloads.workload import Workload as Workload
from systolic.workloads.workload import WorkloadLayer as WorkloadLayer
