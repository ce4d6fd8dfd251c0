"""Real machines as ``MachineConfig`` values, with a source beside each number."""

from __future__ import annotations

from systolic import _check
from systolic.config import ArrayConfig, MachineConfig, MemoryConfig

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

_PRESETS = {"tpu-v1": TPU_V1}


def names() -> tuple[str, ...]:
    """Return the presets' names.

    Examples
    --------
    >>> from systolic import presets
    >>> presets.names()
    ('tpu-v1',)
    """
    return tuple(_PRESETS)


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
