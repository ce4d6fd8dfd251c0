"""``Plan``: what runs in which order and where all tensors lie, which programs of equal sizes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from systolic.compiler.allocation import Lifetime, Limit, plan
from systolic.compiler.lowering import Lowering, Sizes
from systolic.compiler.operations import BY_HOST, HostOperation, Product
from systolic.compiler.schedule import Region, Step, regions_of, too_large
from systolic.compiler.summary import Summary
from systolic.compiler.tensors import Storage, View
from systolic.isa import Symbol
from systolic.layers.base import Shape
from systolic.model import Model

MOST_ADDRESSED = {"ub": 1 << 24, "acc": 1 << 16, "host": 1 << 32}
"""Rows that instructions can address."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What programs of equal sizes share.

    Attributes
    ----------
    steps : list of Step
    views : dict of str to View
        The model's inputs and outputs.
    held : dict of Storage to (int, int)
        The first and the last step at which host memory holds each tensor; -1 is before all of them.
    host : dict of Storage to int
        The first row of each tensor in host memory.
    least, most : int
        Rows of unified buffers for which the plan is the same.
    array_rows : range
        Of arrays for which the steps are the same if all tensors fit; empty if some did not.
    """

    steps: list[Step]
    views: dict[str, View]
    held: dict[Storage, tuple[int, int]]
    host: dict[Storage, int]
    least: int
    most: int
    array_rows: range

    @cached_property
    def summary(self) -> Summary:
        """The steps, to be timed without instructions."""
        return Summary(self.steps, self.held)

    @property
    def addresses(self) -> list[int]:
        """The first row of each of the summary's instances."""
        return [instance.address for instance in self.summary.instances]


def lowered(
    model: Model, known: Mapping[str, tuple[Shape, str]], sizes: Sizes, mapping: Mapping[str, str],
    reuse: int, limit: Limit, kept: dict[Any, Any],
) -> tuple[Lowering, list[Region | HostOperation]]:  # fmt: skip
    """Return operations and regions, with layers by rows, or by the host, that do not fit for one image.

    What does not fit by rows either is left to `fit`, which says so.
    """
    cut: dict[int, str] = {}
    while True:
        lowering = Lowering(model, known, sizes, mapping, cut, kept)
        products = [each for each in lowering.operations if reuse and isinstance(each, Product)]
        parts = regions_of(lowering.operations, dict.fromkeys(products, reuse))
        more = lowering.cut_further(too_large(parts, limit, borders=False))
        if not more:
            # One at a time, the host last: without the border that it reads others may fit.
            some = lowering.cut_further(too_large(parts, limit))
            more = dict(sorted(some.items(), key=lambda pair: pair[1] == BY_HOST)[:1])
        if not more:
            return lowering, parts
        cut |= more


def view_of(lowering: Lowering, name: str) -> View:
    view = lowering.views[name]
    assert isinstance(view, View)
    return view


def held_by_host(
    steps: Sequence[Step], views: Mapping[str, View], model: Model
) -> dict[Storage, tuple[int, int]]:
    """Return from when until when the host holds each tensor that it holds at some time."""
    spans: dict[Storage, tuple[int, int]] = {}

    def used(storage: Storage, at: int) -> None:
        spans[storage] = spans.get(storage, (at, at))[0], at

    for name in model.inputs:
        used(views[name].storage, -1)
    for number, step in enumerate(steps):
        # Not sets, whose order differs from process to process.
        held = [*step.reads, *step.writes] if step.kind in ("load", "store") else []
        if isinstance(step.operation, HostOperation):
            held = [view.storage for view in (*step.operation.reads, *step.operation.writes)]
        for storage in held:
            used(storage, number)
    for name in model.outputs:
        used(views[name].storage, len(steps))
    return spans


def host_rows(held: Mapping[Storage, tuple[int, int]], size: int, limit: int) -> dict[Storage, int]:
    """Return the first row in host memory of each tensor."""
    addresses, height = plan([Lifetime(storage.rows(size), *span) for storage, span in held.items()])
    check_host("the model's tensors take", height, limit)
    return dict(zip(held, addresses, strict=True))


def check_host(what: str, rows: int, limit: int) -> None:
    if rows > limit:
        raise ValueError(
            f"{what} {rows:,} rows of host memory, and there are {limit:,}; use a machine with more "
            "host_rows, a smaller batch, or the array alone (machine=machine.array, or --ideal in the shell)"
        )


def symbols_of(steps: Sequence[Step], host: Mapping[Storage, int], size: int) -> dict[str, Symbol]:
    """Return names for the rows of tensors, in the unified buffer as they are first there."""
    symbols: dict[str, Symbol] = {}
    for step in steps:
        for storage, instance in {**step.reads, **step.writes}.items():
            symbols.setdefault(storage.name, Symbol("ub", instance.address, instance.rows))
    for storage, first in host.items():
        symbols.setdefault(f"{storage.name} (host)", Symbol("host", first, storage.rows(size)))
    return symbols
