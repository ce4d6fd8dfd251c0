"""``Toggles``: count the bits that registers change."""

from __future__ import annotations

from collections.abc import Mapping

from systolic import _check
from systolic.config import ArrayConfig
from systolic.trace.probe import Change, Probe


class Toggles(Probe):
    """Counts the bits that each register changes from edge to edge, in all PEs.

    Parameters
    ----------
    layer : str, optional
        For ``run``: the node whose products are counted; None: those of every node on the array.

    Attributes
    ----------
    counts : dict of str to int
        By the names of the registers: Hamming distances between successive values, summed over all PEs and
        edges. They add up over arrays of one dataflow, such as the layers of a run; :meth:`reset
        <systolic.SystolicArray.reset>` of an array sets them to 0, and so does ``restore``.

    Notes
    -----
    Arrays of 8-bit integers with sums of 32 bits count in compiled code, at a third to a half of the usual
    speed. Other formats are counted edge by edge in numpy, far slower; only the bits that a register has in
    hardware count.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, matmul
    >>> from systolic.energy import Toggles
    >>> toggles = Toggles()
    >>> _ = matmul(np.int8([[1, 2]]), np.int8([[3], [4]]), array=ArrayConfig(2, 2), probe=toggles)
    >>> toggles.counts["psum"], toggles.counts["activation"], toggles.counts["swap"]
    (10, 7, 7)
    """

    counts_toggles = True

    def __init__(self, layer: str | None = None) -> None:
        if layer is not None and not isinstance(layer, str):
            raise TypeError(f"layer must be the name of a node, or None, not {_check.kind(layer)}")
        self.layer = layer
        self.counts: dict[str, int] = {}

    def attach(self, config: ArrayConfig) -> None:
        """Go on counting; from 0 if the registers have other names."""
        names = config.register_dtypes.keys()
        if self.counts.keys() != names:
            self.counts = dict.fromkeys(names, 0)

    def next_stop(self, now: int, stop: int) -> int | None:
        """Return None: no edge needs to be looked at."""
        return None

    def toggled(self, cycle: int, toggles: Mapping[str, int]) -> Change:
        """Add the toggles of the last edges."""
        return Change(probe={"counts": {name: count + toggles[name] for name, count in self.counts.items()}})

    def rewound(self, cycle: int) -> Change:
        """Start over."""
        return Change(probe={"counts": dict.fromkeys(self.counts, 0)})

    def __repr__(self) -> str:
        return f"Toggles({'' if self.layer is None else repr(self.layer)})"
