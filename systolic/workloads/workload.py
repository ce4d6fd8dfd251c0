"""``Workload``: products with names and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from systolic import _check
from systolic._text import canonical, digest, printable
from systolic.gemm import Gemm


@dataclass(frozen=True)
class WorkloadLayer:
    """A product of a :class:`Workload`: its name, its sizes, and how often it runs."""

    name: str
    gemm: Gemm
    count: int = 1


@dataclass(frozen=True)
class Workload:
    """Products with names and counts, that run one after the other: a network without its layers' data.

    Parameters
    ----------
    name : str
    layers : sequence of WorkloadLayer, (name, Gemm), (name, Gemm, count) or Gemm; or mapping of str to Gemm

    Raises
    ------
    TypeError, ValueError
        If there are no layers, or one is of another form.

    Examples
    --------
    >>> from systolic import Gemm
    >>> from systolic.sweeps import Workload
    >>> block = Workload("block", [("qkv", Gemm(128, 768, 768), 3), ("out", Gemm(128, 768, 768))])
    >>> block.layers[0]
    WorkloadLayer(name='qkv', gemm=Gemm(128, 768, 768), count=3)
    >>> block.macs
    301989888
    """

    name: str
    layers: tuple[WorkloadLayer, ...]

    def __init__(self, name: str, layers: Any) -> None:
        if isinstance(layers, Mapping):
            layers = list(layers.items())
        if not _check.is_listed(layers):
            raise TypeError(f"layers must be a list of Gemms with names, not {_check.kind(layers)}")
        object.__setattr__(self, "name", as_name(name, "name"))
        object.__setattr__(self, "layers", tuple(_layer(layer, self.name) for layer in layers))
        if not self.layers:
            raise ValueError(f"workload {self.name!r} has no layers; give it at least one")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.gemm.macs * layer.count for layer in self.layers)

    def products(self, batch: int = 1) -> list[tuple[Gemm, int]]:
        """Return sizes and counts, with the rows of so many samples."""
        batch = _check.integer(batch, "batch", minimum=1)
        return [(replace(each.gemm, m=each.gemm.m * batch), each.count) for each in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """Return name and layers as JSON can hold them."""
        layers = [{"name": each.name, **each.gemm.to_dict(), "count": each.count} for each in self.layers]
        return {"name": self.name, "layers": layers}

    @property
    def id(self) -> str:
        """SHA-256 of name and layers."""
        return digest(canonical(self.to_dict()))

    def __repr__(self) -> str:
        count = len(self.layers)
        return f"<Workload {self.name!r}: {count} layer{'' if count == 1 else 's'}, {self.macs:,} MACs>"


def as_name(value: Any, what: str) -> str:
    """Return a name as text that fits one line of a file."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{what} must be text, not {_check.kind(value)}")
    return printable(value)


def _layer(value: Any, workload: str) -> WorkloadLayer:
    if isinstance(value, WorkloadLayer):
        value = value.name, value.gemm, value.count
    if isinstance(value, Gemm):
        return WorkloadLayer(value.text, value)
    if not _check.is_listed(value) or not 2 <= len(value) <= 3 or not isinstance(value[1], Gemm):
        raise TypeError(
            f"a layer of workload {workload!r} must be a Gemm, (name, Gemm) or (name, Gemm, count), not "
            f"{_check.kind(value)}"
        )
    name = as_name(value[0], f"a layer's name in workload {workload!r}")
    count = 1 if len(value) == 2 else value[2]
    return WorkloadLayer(name, value[1], _check.integer(count, f"count of layer {name!r}", minimum=1))
