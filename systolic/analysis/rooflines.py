"""``roofline``: what memory bandwidth and array allow each layer, and what it attains."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from systolic import _check
from systolic._show.columns import columns
from systolic._show.table import Table, si
from systolic.config import ArrayConfig, MachineConfig, as_machine_config
from systolic.frontend import costed
from systolic.gemm import Gemm
from systolic.isa import Program
from systolic.layers import ArrayLayer
from systolic.machine import Timeline, time_program
from systolic.machine.timeline import transfer_cycles
from systolic.model import Model
from systolic.model.inference import array_of, products_of
from systolic.stats import Stats
from systolic.tiling import estimate_gemm
from systolic.workloads import Workload


@dataclass(frozen=True)
class RooflinePoint:
    """One layer under a roofline.

    Attributes
    ----------
    name : str
    macs, weight_bytes : int
        Useful MACs, and bytes of weights without padding, counted each time they are loaded.
    cycles : int
    seconds : float
    roof : float
        Operations per second that bandwidth and array allow at this intensity.
    bound : {"memory", "array"}
        Which of the two is lower.
    """

    name: str
    macs: int
    weight_bytes: int
    cycles: int
    seconds: float
    roof: float
    bound: str

    @property
    def intensity(self) -> float:
        """Operational intensity: MACs per byte of weights."""
        return self.macs / self.weight_bytes

    @property
    def ops_per_second(self) -> float:
        """Useful operations per second; 1 MAC is 2."""
        return 2 * self.macs / self.seconds

    @property
    def attained(self) -> float:
        """The part of the roof that is attained."""
        return self.ops_per_second / self.roof


@dataclass(frozen=True, repr=False)
class Roofline:
    """Layers under the roof of a machine, as in Figure 5 of the TPU paper: the result of :func:`roofline`.

    Attributes
    ----------
    machine : MachineConfig
    points : tuple of RooflinePoint
        The layers that load weights and multiply on the array, in their order.
    total : RooflinePoint or None
        All of them together, over the whole time; None if nothing multiplies.
    timed : bool
        Whether the times are those of a program; otherwise they are estimates.
    """

    machine: MachineConfig
    points: tuple[RooflinePoint, ...]
    total: RooflinePoint | None
    timed: bool

    @property
    def peak_ops_per_second(self) -> float:
        """Operations per second of an array that is always full."""
        return _peak(self.machine)

    @property
    def ridge(self) -> float | None:
        """MACs per weight byte from which on the array is the limit; None without a weight memory."""
        return _ridge(self.machine)

    def table(self) -> Table:
        """Return a row per layer: intensity, attained and possible operations per second, and the limit."""
        heads = columns(
            "node", "macs", "weight_bytes", "macs_per_weight_byte", "seconds", "ops_per_second",
            "roof_ops_per_second", "roof_share", "bound",
        )  # fmt: skip
        rows = [_row(point) for point in self.points]
        footer = None if self.total is None else _row(self.total)
        return Table(heads, rows, title=repr(self)[1:-1], footer=footer)

    def to_frame(self) -> Any:
        """Return :meth:`table` as a pandas frame; needs ``pip install "systolic[pandas]"``."""
        return self.table().to_frame()

    def to_dict(self) -> dict[str, Any]:
        """Return machine, peak, ridge point and points as JSON can hold them."""
        named = (*self.points, *(() if self.total is None else (self.total,)))
        return {
            "machine": self.machine.to_dict(),
            "timed": self.timed,
            "peak_ops_per_second": self.peak_ops_per_second,
            "ridge": self.ridge,
            "points": [
                {"name": p.name, "macs": p.macs, "weight_bytes": p.weight_bytes, "cycles": p.cycles,
                 "seconds": p.seconds, "intensity": p.intensity, "ops_per_second": p.ops_per_second,
                 "roof": p.roof, "bound": p.bound}
                for p in named
            ],
        }  # fmt: skip

    def plot(self) -> Any:
        """Draw roof and points with logarithmic axes; returns a matplotlib Figure.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from systolic._show.rooflines import plot_roofline

        array = self.machine.array
        points = [(p.name, p.intensity, p.ops_per_second) for p in self.points]
        total = None if self.total is None else (self.total.intensity, self.total.ops_per_second)
        title = f"{array.rows} × {array.cols} at {self.machine.clock_mhz:g} MHz"
        how = "" if self.timed else ", estimated"
        return plot_roofline(
            points, total, peak=self.peak_ops_per_second, ridge=self.ridge, title=f"Roofline: {title}{how}"
        )

    def __repr__(self) -> str:
        count = len(self.points)
        peak, ridge = si(self.peak_ops_per_second, "ops/s"), "no weight memory"
        if self.ridge is not None:
            ridge = f"ridge point {self.ridge:,.0f} MACs per weight byte"
        return f"<Roofline of {count} layer{'' if count == 1 else 's'}: peak {peak}, {ridge}>"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def _peak(machine: MachineConfig) -> float:
    return 2 * machine.array.rows * machine.array.cols * machine.clock_mhz * 1e6


def _ridge(machine: MachineConfig) -> float | None:
    if machine.memory is None:
        return None
    return _peak(machine) / 2 / float(machine.memory.weight_bytes_per_second)


def _row(point: RooflinePoint) -> tuple[Any, ...]:
    return (
        point.name, point.macs, point.weight_bytes, point.intensity, point.seconds, point.ops_per_second,
        point.roof, point.attained, point.bound,
    )  # fmt: skip


def _point(name: str, macs: int, weight_bytes: int, cycles: int, machine: MachineConfig) -> RooflinePoint:
    peak, ridge = _peak(machine), _ridge(machine)
    intensity = macs / weight_bytes
    bound = "memory" if ridge is not None and intensity < ridge else "array"
    roof = peak * intensity / ridge if ridge is not None and bound == "memory" else peak
    return RooflinePoint(name, macs, weight_bytes, cycles, machine.seconds(cycles), roof, bound)


Work = Program | Model | Gemm | Mapping[str, Gemm] | Sequence[Gemm]


class Result(Protocol):
    """What a run is: layers with names and counts, on a machine."""

    @property
    def machine(self) -> MachineConfig: ...
    @property
    def layers(self) -> Any: ...


def roofline(
    work: Work | Workload | Stats | Timeline | Result | str | os.PathLike[str],
    machine: MachineConfig | ArrayConfig | None = None,
    *,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Roofline:
    """Return what each layer attains under the roof of bandwidth and array.

    Parameters
    ----------
    work : Program, Model, Gemm, Workload, Gemms in a sequence or by name, or path; Run, Timeline or Stats
        A program is timed, and each of its sections is a layer. Runs and timelines are taken as they are,
        Stats are one point. Everything else is estimated, as :func:`systolic.estimate` takes it.
    machine : MachineConfig or ArrayConfig
        A program needs one with memories. Without a weight memory the roof is flat. Leave it out for runs and
        timelines, which have one.
    batch, shapes
        Of a model's inputs, as for :func:`systolic.estimate`.

    Returns
    -------
    Roofline

    Raises
    ------
    TypeError, ValueError
        If `work` is of another kind, a program does not fit the machine, or the size of a model's product
        depends on runtime values: the message names the node.

    Notes
    -----
    Intensity is that of the TPU paper: MACs per byte of weights that are read, where weights that are
    read for every chunk of rows count each time. The paper counts a MAC as two operations in rates, and as
    one here. Of a program, a layer's time is what it adds to the total (``Timeline.layers``); if its tiles
    are fetched while an earlier layer runs, it may lie above the roof. An estimate is the longer of the
    array's cycles and the transfer of the weight tiles, padding included: the time of a machine that
    overlaps them perfectly.

    Examples
    --------
    Layers with the intensities of two applications of the paper; rows that do not fit half the accumulators
    need the weights twice:

    >>> from systolic import Gemm, presets
    >>> from systolic.analysis import roofline
    >>> machine = presets.TPU_V1
    >>> found = roofline({"MLP0": Gemm(200, 2048, 2048), "CNN0": Gemm(2888, 2048, 256)}, machine)
    >>> [(p.name, p.intensity, p.bound, round(p.attained, 2)) for p in found.points]
    [('MLP0', 200.0, 'memory', 1.0), ('CNN0', 1444.0, 'array', 0.97)]
    >>> round(found.peak_ops_per_second / 1e12, 2), round(found.ridge)
    (91.75, 1349)
    """
    if isinstance(work, Timeline) or (hasattr(work, "layers") and hasattr(work, "machine")):
        return _of_result(work, machine)
    machine = as_machine_config(machine)
    if isinstance(work, Stats):
        total = "total", work.macs, work.weight_bytes, work.cycles
        return _roofline(machine, [total], work.cycles, timed=True)
    if isinstance(work, Program):
        return _of_result(time_program(work, machine), None)
    if isinstance(work, Gemm):
        work = [work]
    elif isinstance(work, Model | Workload | str | os.PathLike):
        work = costed(work)
    layers: list[tuple[str, Stats]]
    given: Any = work
    if isinstance(work, Model):
        layers = _of_model(work, machine, batch, shapes)
    elif isinstance(work, Workload):
        layers = []
        for layer, (gemm, count) in zip(work.layers, work.products(batch), strict=True):
            each = _estimated(gemm, machine)
            counts = {name: count * getattr(each, name) for name in ("macs", "weight_bytes", "cycles")}
            layers.append((layer.name, Stats(**counts)))
    elif isinstance(work, Mapping):
        layers = [(str(name), _estimated(gemm, machine)) for name, gemm in work.items()]
    elif _check.is_listed(work):
        layers = [(gemm.text if isinstance(gemm, Gemm) else "", _estimated(gemm, machine)) for gemm in given]
    else:
        raise TypeError(
            "roofline takes a Program, a Model, a Gemm, several Gemms, a Run or Stats, not "
            f"{_check.kind(work)}"
        )
    counted = [(name, stats.macs, stats.weight_bytes, stats.cycles) for name, stats in layers]
    return _roofline(machine, counted, sum(cycles for *_, cycles in counted), timed=False)


def _roofline(
    machine: MachineConfig, layers: Iterable[tuple[str, int, int, int]], cycles: int, *, timed: bool
) -> Roofline:
    layers = list(layers)
    # A layer whose weights an earlier one has loaded has no intensity of its own, but counts in the total.
    points = tuple(_point(*layer, machine) for layer in layers if all(layer[1:]))
    total = None
    if points:
        macs, weight_bytes = sum(m for _, m, *_ in layers), sum(b for _, _, b, _ in layers)
        total = _point("total", macs, weight_bytes, cycles, machine)
    return Roofline(machine, points, total, timed)


def _of_result(result: Any, machine: MachineConfig | ArrayConfig | None) -> Roofline:
    """Return the roofline of a run or a timeline; a run's layers are an attribute."""
    if machine is not None and as_machine_config(machine) != result.machine:
        raise ValueError(f"{_check.kind(result)} has a machine, which is another one; leave machine out")
    layers = result.layers() if isinstance(result, Timeline) else result.layers
    counted = [
        (layer.name, layer.stats.macs, layer.stats.weight_bytes, layer.stats.cycles) for layer in layers
    ]
    return _roofline(result.machine, counted, sum(cycles for *_, cycles in counted), timed=True)


def _estimated(gemm: Any, machine: MachineConfig, array: ArrayConfig | None = None) -> Stats:
    """Return the ideal machine's counts, with the cycles of the transfers where these are longer."""
    if not isinstance(gemm, Gemm):
        raise TypeError(f"roofline takes Gemms, as Gemm(m, k, n), not {_check.kind(gemm)}")
    array = machine.array if array is None else array
    stats = estimate_gemm(gemm, array)
    if machine.memory is None:
        return stats
    tile = array.rows * array.cols * array.format.weight_bytes
    transfers = stats.folds * transfer_cycles(tile, machine.memory.weight_bytes_per_second, machine)
    return Stats(macs=stats.macs, weight_bytes=stats.weight_bytes, cycles=max(stats.cycles, transfers))


def _of_model(
    model: Model, machine: MachineConfig, batch: int, shapes: Mapping[str, Sequence[int]] | None
) -> list[tuple[str, Stats]]:
    known = model.infer_shapes(model.input_shapes(batch, shapes=shapes))
    layers = []
    for node in model.nodes:
        if not isinstance(node.layer, ArrayLayer):
            continue
        gemms = products_of(node, known)
        if gemms is None:
            raise ValueError(
                f"cannot estimate node {node.name!r} without data: the size of its product depends on "
                "runtime values, or on a size that shapes= can state"
            )
        typed = array_of(node, known, machine.array)
        layers.append((node.name, sum((_estimated(gemm, machine, typed) for gemm in gemms), Stats())))
    return layers
