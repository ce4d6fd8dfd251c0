"""Real machines as ``MachineConfig`` values, with a source beside each number."""

from __future__ import annotations

from systolic import _check
from systolic.config import ArrayConfig, MachineConfig, MemoryConfig, machine_text

# Jouppi et al., "In-Datacenter Performance Analysis of a Tensor Processing Unit", ISCA 2017,
# arXiv:1704.04760. Nothing here is fitted to its measurements; where it is silent, the reason stands beside
# the number, and docs/tpu-v1.md shows how much each one matters.
TPU_V1 = MachineConfig(
    ArrayConfig(
        rows=256,  # section 2: 256 x 256 MACs, weight stationary
        cols=256,
        activation_dtype="int8",  # section 2: 8-bit multiply-and-adds on signed or unsigned integers
        weight_dtype="int8",
        double_buffered=True,  # section 2: one 64 KiB tile of weights plus one for double-buffering
        accumulator_rows=4096,  # section 2: 4096 256-element 32-bit accumulators, 4 MiB
    ),
    clock_mhz=700,  # table 2
    memory=MemoryConfig(
        weight_bytes=8 * 2**30,  # section 2: 8 GiB off-chip DRAM
        weight_bytes_per_second=34_000_000_000,  # table 2: 34 GB/s; the label of figure 1 says 30 GiB/s
        # Open: the paper gives no DRAM latency. Read_Weights is posted ahead of the data, so it only delays a
        # program's first tiles; 0 leaves a lower bound.
        weight_latency_cycles=0,
        fifo_tiles=4,  # section 2: the weight FIFO is four tiles deep
        unified_buffer_rows=24 * 2**20 // 256,  # section 2: 24 MiB
        row_bytes=256,  # section 2: internal paths are 256 bytes wide
        # Open: the paper gives no width of the activation unit. It lies between accumulators that deliver 256
        # sums in a cycle and paths 256 bytes wide; a narrower one could not keep up with the array.
        lanes=256,
        # Open: depth of the activation unit's pipeline. 0 leaves a lower bound; the array's own fill and
        # drain, 510 cycles, are counted where a layer waits for the one before.
        activation_latency_cycles=0,
        # Open: the host's memory is as large as the server makes it. 1 GiB holds all that programs here
        # exchange.
        host_rows=2**22,
        host_bytes_per_second=14 * 2**30,  # figure 1: 14 GiB/s, PCIe Gen3 x16
        # Open: latency of the link. The paper reports the time with the host apart, in table 5; 0 leaves it
        # out.
        host_latency_cycles=0,
        # Section 2: the average clock cycles per instruction are 10 to 20. An average cannot lie below the
        # interval between two instructions, so that 10 is the longest interval that all of them allow.
        issue_cycles=10,
        width_factors=(1, 2, 4),  # section 2: half speed with one operand of 16 bits, a quarter with two
    ),
)
"""Google's TPU v1, with its memories, vector unit and host link."""



def _tpu(clock_mhz: int) -> MachineConfig:
    # One matrix unit of a later TPU. Norrie et al., IEEE Micro 41(2), 2021, and Jouppi et al., ISCA 2021 and
    # 2023: 128 x 128, bfloat16 products, float32 sums; 8 rows by 128 x 128 every 8 cycles, so a row a cycle.
    array = ArrayConfig(
        rows=128,
        cols=128,
        activation_dtype="bfloat16",
        weight_dtype="bfloat16",
        double_buffered=True,
        # Open: where sums of k tiles are kept, and how many. Unlimited leaves a lower bound.
        accumulator_rows=None,
    )
    # Memories are not described in enough detail to time programs.
    return MachineConfig(array, clock_mhz=clock_mhz)


TPU_V2 = _tpu(700)  # Norrie et al. 2021
"""A matrix unit of Google's TPU v2, which has two: one in each core."""

TPU_V3 = _tpu(940)  # Norrie et al. 2021
"""A matrix unit of Google's TPU v3, which has four: two in each core."""

TPU_V4I = _tpu(1050)  # Jouppi et al., ISCA 2021
"""A matrix unit of Google's TPU v4i, which has four.

Sums are those of this package: one rounding for each product, in order. The chip adds products in groups of
four, without rounding between them, and then chains the groups, so that its last bits differ.
"""

TPU_V4 = _tpu(1050)  # Jouppi et al., ISCA 2023
"""A matrix unit of Google's TPU v4, which has eight: four in each core. For its sums see :data:`TPU_V4I`."""

# AWS Neuron SDK documentation, NKI architecture guides for Trainium and Inferentia2.
NEURONCORE_V2 = MachineConfig(
    ArrayConfig(
        rows=128,
        cols=128,
        activation_dtype="bfloat16",
        weight_dtype="bfloat16",
        double_buffered=True,
        # A bank of PSUM holds 512 sums for each column, the most rows that one instruction moves. The core
        # has eight banks; two halves here are two of them.
        accumulator_rows=2 * 512,
    ),
    clock_mhz=2800,
)
"""The tensor engine of a NeuronCore-v2, without its memories."""

_PRESETS = {
    "tpu-v1": TPU_V1,
    "tpu-v2": TPU_V2,
    "tpu-v3": TPU_V3,
    "tpu-v4i": TPU_V4I,
    "tpu-v4": TPU_V4,
    "neuroncore-v2": NEURONCORE_V2,
}


def names() -> tuple[str, ...]:
    """Return the presets' names.

    Examples
    --------
    >>> from systolic import presets
    >>> presets.names()
    ('tpu-v1', 'tpu-v2', 'tpu-v3', 'tpu-v4i', 'tpu-v4', 'neuroncore-v2')
    """
    return tuple(_PRESETS)


def described(machine: MachineConfig) -> str:
    """Return a machine in one line with each of its parameters, and the name of the preset that it is.

    Examples
    --------
    >>> from systolic import presets
    >>> presets.described(presets.TPU_V1)[:41]
    'preset tpu-v1: 256 x 256 array at 700 MHz'
    """
    name = next((f"preset {name}: " for name, preset in _PRESETS.items() if preset == machine), "")
    return f"{name}{machine_text(machine, full=True)}"


def get(name: str) -> MachineConfig:
    """Return a preset by its name.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists them.

    Examples
    --------
    >>> from systolic import presets
    >>> presets.get("tpu-v1").clock_mhz
    700
    """
    return _PRESETS[_check.choice(name, "preset", names())]
