"""What passes the ports of an array during a product, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from systolic.config import ArrayConfig
from systolic.gemm import Gemm
from systolic.tiling.estimates import estimate_gemm
from systolic.tiling.fold import sizes_of


@dataclass(frozen=True)
class PortBytes:
    """Bytes at the edges of an array, each time they pass one, without the zeros that pad a short tile.

    They add up with ``+`` and ``sum``.

    Parameters
    ----------
    west : int
        Of the operand that streams through the rows: activations; input stationary, weights.
    north : int
        Of the operand that enters the columns: weights; input stationary, activations.
    south : int
        Of the sums that leave the bottom row. Where sums do not stay in the PEs, every k tile of an output
        has one, which the accumulators add up.
    """

    west: int = 0
    north: int = 0
    south: int = 0

    @property
    def total(self) -> int:
        """Bytes at all three edges."""
        return self.west + self.north + self.south

    def __add__(self, other: PortBytes) -> PortBytes:
        if not isinstance(other, PortBytes):
            return NotImplemented
        return PortBytes(self.west + other.west, self.north + other.north, self.south + other.south)


def port_bytes(gemm: Gemm, array: ArrayConfig) -> PortBytes:
    """Return what a product moves through the ports of an array.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm
    >>> from systolic.tiling import port_bytes
    >>> port_bytes(Gemm(100, 512, 64), ArrayConfig(64, 64))
    PortBytes(west=51200, north=32768, south=204800)
    >>> port_bytes(Gemm(100, 512, 64), ArrayConfig(64, 64, dataflow="output_stationary"))
    PortBytes(west=51200, north=65536, south=25600)
    """
    stats = estimate_gemm(gemm, array)
    west, north = stats.activation_bytes, stats.weight_bytes
    if array.dataflow_record.exchanged:
        west, north = north, west
    return PortBytes(west, north, sizes_of(gemm, array).k_tiles * stats.output_bytes)
