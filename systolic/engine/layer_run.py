"""``LayerRun``: what one layer of a run cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from systolic._show.report import values_of
from systolic.config import ArrayConfig, MachineConfig
from systolic.energy import Activity
from systolic.gemm import Gemm
from systolic.model.placement import OffArray
from systolic.stats import Stats

# What a report adds up over the layers.
SUMMED = (
    "parameters", "parameter_bytes", "read_bytes", "written_bytes",
    "wall_seconds", "array_wall_seconds", "host_wall_seconds",
)  # fmt: skip
HELD = SUMMED[:4]


@dataclass(frozen=True)
class LayerRun:
    """One layer of a run.

    Attributes
    ----------
    name, layer : str
        The node's name and the kind of layer; "by rows" or "by host" behind it if the layer does not fit
        into the unified buffer, see :func:`systolic.compile`.
    shape, dtype : tuple of int, str
        Of the output, the first in use if there are several.
    gemm : Gemm or None
        The product that ran on the array, the first if there were several; None for a host layer.
    stats : Stats
        Of all its products; zeros for a host layer.
    wall_seconds : float
        Time to emulate the layer.
    parameters, parameter_bytes : int
        Elements and bytes of the arrays that the layer holds (weights, bias) and of the constants it
        reads; scales and zero points are not counted.
    read_bytes, written_bytes : int
        Bytes of the tensors between layers that it read and wrote, each counted once.
    array_wall_seconds : float
        The part of `wall_seconds` that emulates the array; the rest is work on the host.
    products : int
        How many products ran on the array.
    array_cycles : int or None
        What the products take on an ideal machine; None of a machine without memories, where `stats` says
        it, and of a program whose model is not known.
    limit : str
        What limits the layer on a machine with memories, such as "weight memory"; "-" if it costs no cycles.
    largest_difference, mean_difference : float or None
        Of a product of float32 in a narrower format: how far its output is from that of the same product in
        float32 on the same inputs, in ONNX Runtime if it is installed, else exact; None of other layers.
    array : ArrayConfig or None
        The array with the operand types of the layer; None is the machine's.
    toggles : dict of str to int, or None
        Bits that each register changed, if a :class:`~systolic.energy.Toggles` probe counted them.
    zero_macs : int or None
        MACs with an operand that is zero, counted together with them.
    off_array : OffArray or None
        Why the layer's MACs did not run on the array, and how many; None if it has none or they did.

    Notes
    -----
    On a machine with memories layers overlap: `stats` has the cycles by which a layer completes later than
    all before it, and `wall_seconds` is 0, since nothing tells whose work it was.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> layer = systolic.run(example.model, example.images[:1], mode="wavefront").layers[1]
    >>> layer.name, layer.gemm, layer.stats.cycles
    ('stem_quant', Gemm(64, 9, 16), 2235)
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    gemm: Gemm | None
    stats: Stats
    wall_seconds: float = field(compare=False)
    parameters: int = 0
    parameter_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    array_wall_seconds: float = field(default=0.0, compare=False)
    products: int = 0
    array_cycles: int | None = None
    limit: str = ""
    largest_difference: float | None = field(default=None, compare=False)
    mean_difference: float | None = field(default=None, compare=False)
    array: ArrayConfig | None = None
    toggles: dict[str, int] | None = None
    zero_macs: int | None = None
    off_array: OffArray | None = None

    def activity(self, machine: MachineConfig) -> Activity:
        """Return what the machine did for the layer, for its energy."""
        return Activity(
            name=self.name, layer=self.layer, stats=self.stats, array=self.array or machine.array,
            toggles=self.toggles, zero_macs=self.zero_macs,
        )  # fmt: skip

    @property
    def host_wall_seconds(self) -> float:
        """Time spent on the host: a host layer, or lowering and the epilogue of an array layer."""
        return self.wall_seconds - self.array_wall_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {
            "name": self.name,
            "layer": self.layer,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "gemm": None if self.gemm is None else self.gemm.to_dict(),
            "products": self.products,
            "stats": self.stats.to_dict(),
            "utilization": self.stats.utilization,
            **values_of(self, *SUMMED[:-1]),
            **({} if self.off_array is None else {"off_array": self.off_array.to_dict()}),
            **({"array_cycles": self.array_cycles, "limit": self.limit} if self.limit else {}),
            **differences(self),
        }


DIFFERENCES = ("largest_difference", "mean_difference")


def difference_columns(layers: Sequence[LayerRun]) -> tuple[str, ...]:
    """Return the names of the columns of differences from float32, if some layer has one."""
    return () if all(layer.largest_difference is None for layer in layers) else DIFFERENCES


def unknown_macs(layer: LayerRun) -> dict[str, str]:
    """Return "?" for the MACs of a layer that are not known."""
    return {"host_macs": "?"} if layer.off_array is not None and layer.off_array.macs is None else {}


def differences(layer: LayerRun) -> dict[str, Any]:
    """Return how far a layer's output is from float32, if it is known, as JSON can hold it."""
    if layer.largest_difference is None:
        return {}
    values = {name: getattr(layer, name) for name in DIFFERENCES}
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
