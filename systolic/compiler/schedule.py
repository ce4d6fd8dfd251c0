"""Steps of a program, and which rows of the unified buffer each tensor has meanwhile.

Work is cut along the first axis of its tensors, the batch. A *region* is a run of operations between two of
the host; its *units* are the parts that all its tensors can be cut into, and each operation has a *group*,
how many units it handles at once. Groups only grow along a region: small ones are repeated
until they fill the next larger one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from systolic.compiler.allocation import Lifetime, Limit, most_in_use, plan
from systolic.compiler.operations import HostOperation, Operation, storages
from systolic.compiler.tensors import Storage, View


@dataclass(eq=False)
class Instance:
    """Rows of the unified buffer that hold units start..stop of a tensor, of `units` in all."""

    storage: Storage
    start: int
    stop: int
    units: int
    address: int = -1

    @property
    def unit_rows(self) -> int:
        """Rows of a unit of one block."""
        return self.storage.block_rows // self.units

    @property
    def block_rows(self) -> int:
        """Rows of one block."""
        return (self.stop - self.start) * self.unit_rows

    @property
    def rows(self) -> int:
        """Rows in all."""
        return self.storage.blocks * self.block_rows


@dataclass(eq=False)
class Step:
    """Units start..stop of one operation, or of a transfer between host and unified buffer.

    Attributes
    ----------
    operation : Operation
        Of a transfer, that it is for.
    kind : {"compute", "host", "load", "store"}
    reads, writes : dict of Storage to Instance
        Of a load what it writes, of a store what it reads.
    spilled : bool
        Whether a transfer is there only because the unified buffer is too small.
    """

    operation: Operation
    kind: str
    start: int
    stop: int
    units: int
    region: int
    reads: dict[Storage, Instance] = field(default_factory=dict)
    writes: dict[Storage, Instance] = field(default_factory=dict)
    spilled: bool = False


@dataclass(eq=False)
class Region:
    """Operations between two of the host.

    Attributes
    ----------
    operations : list of Operation
    units : int
    groups : list of int
        Units that each operation handles at once.
    """

    operations: list[Operation]
    units: int
    groups: list[int]

    @property
    def levels(self) -> list[int]:
        """The number of each operation's group size, in the order of their sizes."""
        found, level = [], -1
        last = 0
        for group in self.groups:
            if group != last:
                level, last = level + 1, group
            found.append(level)
        return found

    @property
    def sizes(self) -> list[int]:
        """The group size of each level."""
        return [group for number, group in enumerate(self.groups) if group not in self.groups[:number]]

    def halve(self, operation: Operation) -> bool:
        """Make the groups of an operation and of those before it half as large.

        If they are of one unit, halve the largest groups behind them, whose inputs are collected meanwhile;
        return False if all are of one unit.
        """
        place = self.operations.index(operation)
        most, last = self.groups[place], place
        if most == 1:
            most, last = max(self.groups), len(self.groups) - 1
        if most == 1:
            return False
        for number in range(last + 1):
            self.groups[number] = min(self.groups[number], -(-most // 2))
        return True


def regions_of(operations: Sequence[Operation], wanted: dict[Operation, int]) -> list[Region | HostOperation]:
    """Return the operations of the host, and the regions between them.

    `wanted` holds rows of a product that a tile should see, where the batch follows from them. Layers that
    are cut by rows have regions of their own, whose units are rows, as many at once as fit.
    """
    found: list[Region | HostOperation] = []
    run: list[Operation] = []
    for operation in (*operations, None):
        on_machine = operation is not None and not isinstance(operation, HostOperation)
        if operation is not None and on_machine and (not run or _cut_alike(run[-1], operation)):
            run.append(operation)
            continue
        if run:
            units = _units(*run)
            groups: list[int] = []
            for each in run:
                group = units
                if wanted and not each.cut:
                    rows = wanted.get(each)
                    group = 1 if rows is None else min(units, -(-rows * units // max(_rows(each), 1)))
                groups.append(max([group, *groups[-1:]]))
            found.append(Region(run, units, groups))
            run = []
        if isinstance(operation, HostOperation):
            found.append(operation)
        elif operation is not None:
            run = [operation]
    return found


def _units(*run: Operation) -> int:
    """Return how many parts all tensors of some operations can be cut into."""
    return math.gcd(*(view.leading for each in run for view in (*each.reads, *each.writes)))


def _cut_alike(one: Operation, other: Operation) -> bool:
    """Whether two operations can be in one region."""
    if not one.cut and not other.cut:
        return True
    return one.cut == other.cut and _units(one) == _units(other)


def too_large(
    parts: Sequence[Region | HostOperation], limit: Limit, *, borders: bool = True
) -> list[Operation]:
    """Return the operations whose tensors take more than `limit` rows, even of one unit: the largest first.

    `borders` is whether those of images count.
    """
    found: dict[Operation, int] = {}
    for part in parts:
        if isinstance(part, Region):
            for each in part.operations:
                rows = 0
                for storage in storages(each):
                    block = storage.block_rows if borders else math.prod(storage.others) * storage.parts
                    rows += storage.blocks * block // part.units
                if not limit.holds(rows):
                    found[each] = rows
    return sorted(found, key=lambda each: -found[each])


def _rows(operation: Operation) -> int:
    """Return the rows that each tile of a product sees in all."""
    storage = operation.writes[0].storage
    return math.prod(storage.others)


class Schedule:
    """Steps and instances for given groups.

    Parameters
    ----------
    parts : list of Region or HostOperation
    kept : set of Storage
        What the host needs in the end: the model's outputs.

    Attributes
    ----------
    steps : list of Step
    """

    def __init__(self, parts: Sequence[Region | HostOperation], kept: set[Storage]) -> None:
        self.parts = parts
        self.steps: list[Step] = []
        self.stored = self._stored(kept)
        self.whole: dict[Storage, Instance] = {}  # in the unified buffer since an earlier region
        for number, part in enumerate(parts):
            if isinstance(part, HostOperation):
                self.steps.append(Step(part, "host", 0, 1, 1, number))
            else:
                _RegionSteps(self, part, number).build()

    def _stored(self, kept: set[Storage]) -> set[Storage]:
        """Return the tensors that the machine writes and the host, or a later region, reads there."""
        stored = set(kept)
        resident: set[Storage] = set()  # in the unified buffer from one region to the next
        for part in self.parts:
            if isinstance(part, HostOperation):
                stored |= {view.storage for view in part.reads}
                continue
            written = {view.storage for each in part.operations for view in each.writes}
            sizes = part.sizes
            for storage, level in _last_levels(part).items():
                is_whole = sizes[level] == part.units
                if storage not in written and not (is_whole and storage in resident):
                    stored.add(storage)
                if is_whole:
                    resident.add(storage)
                else:
                    resident.discard(storage)
        return stored


def _last_levels(region: Region) -> dict[Storage, int]:
    """Return the last level at which each tensor is in use."""
    found = {}
    for operation, level in zip(region.operations, region.levels, strict=True):
        for storage in storages(operation):
            found[storage] = level
    return found


class _RegionSteps:
    """Makes the steps of one region."""

    def __init__(self, schedule: Schedule, region: Region, number: int) -> None:
        self.schedule, self.region, self.number = schedule, region, number
        levels = region.levels
        self.by_level: list[list[Operation]] = [[] for _ in range(levels[-1] + 1)]
        for operation, level in zip(region.operations, levels, strict=True):
            self.by_level[level].append(operation)
        self.sizes = region.sizes
        self.last = _last_levels(region)
        self.written = {view.storage for each in region.operations for view in each.writes}
        self.instances: dict[tuple[Storage, int], Instance] = {}
        self.loaded: dict[Instance, set[tuple[int, int]]] = {}
        self.spans: list[tuple[int, int]] = [(0, region.units)] * len(self.by_level)

    def build(self) -> None:
        self._run(len(self.by_level) - 1, 0, self.region.units)
        for (storage, _), instance in self.instances.items():
            if instance.stop - instance.start == instance.units:
                self.schedule.whole[storage] = instance
            else:
                self.schedule.whole.pop(storage, None)

    def _run(self, level: int, start: int, stop: int) -> None:
        for first in range(start, stop, self.sizes[level]):
            span = first, min(first + self.sizes[level], stop)
            self.spans[level] = span
            if level:
                self._run(level - 1, *span)
            for operation in self.by_level[level]:
                self._step(operation, span)

    def _step(self, operation: Operation, span: tuple[int, int]) -> None:
        step = Step(operation, "compute", *span, self.region.units, self.number)
        for view in operation.reads:
            step.reads[view.storage] = self._instance(view, operation, span)
        for view in operation.writes:
            step.writes[view.storage] = self._instance(view, None, span)
        steps = self.schedule.steps
        steps.append(step)
        for storage, instance in step.writes.items():
            if storage in self.schedule.stored:
                store = Step(operation, "store", *span, self.region.units, self.number)
                store.reads[storage] = instance
                steps.append(store)

    def _instance(self, view: View, reader: Operation | None, span: tuple[int, int]) -> Instance:
        """Return the rows that hold a tensor, loaded first if they are not there."""
        storage, units = view.storage, self.region.units
        here = self.spans[self.last[storage]]
        instance = self.instances.get((storage, here[0]))
        if instance is None:
            stayed = self.schedule.whole.get(storage)
            if stayed is not None and storage not in self.written and here == (0, units):
                instance = stayed
                self.loaded[instance] = {here}
            else:
                instance = Instance(storage, *here, units)
                self.loaded[instance] = set()
            self.instances[storage, here[0]] = instance
        if reader is not None and storage not in self.written:
            done = self.loaded[instance]
            if not any(low <= span[0] and span[1] <= high for low, high in done):
                load = Step(reader, "load", *span, units, self.number)
                load.writes[storage] = instance
                self.schedule.steps.append(load)
                done.add(span)
        return instance


def lifetimes(steps: Sequence[Step]) -> dict[Instance, Lifetime]:
    """Return when each instance is in use."""
    first: dict[Instance, int] = {}
    last: dict[Instance, int] = {}
    for number, step in enumerate(steps):
        for instance in (*step.reads.values(), *step.writes.values()):
            first.setdefault(instance, number)
            last[instance] = number
    return {instance: Lifetime(instance.rows, start, last[instance]) for instance, start in first.items()}


def fit(
    parts: Sequence[Region | HostOperation], kept: set[Storage], limit: Limit
) -> list[Step]:
    """Return the steps of a program whose tensors fit into `limit` rows, with the addresses of all.

    What does not fit is cut along the batch: the groups of the layer that does not fit, and of those before
    it, are halved. Where all are of one unit, the tensor that is not needed for the longest time is written
    to host memory and read back, until all fits.

    Raises
    ------
    ValueError
        If one step's own tensors do not fit: names its layer, the rows that it needs, and the limit.
    """
    while True:
        schedule = Schedule(parts, kept)
        steps, stored = schedule.steps, set(schedule.stored)
        while True:
            found = lifetimes(steps)
            instances = list(found)
            spans = [found[instance] for instance in instances]
            at, most = most_in_use(spans)
            near = Lifetime(0, at, at)
            has_rows = limit.holds(most)
            if has_rows:
                addresses, height = plan(spans, limit)
                if limit.holds(height):
                    for instance, address in zip(instances, addresses, strict=True):
                        instance.address = address
                    return steps
                beyond = [
                    span
                    for span, first in zip(spans, addresses, strict=True)
                    if not limit.holds(first + span.rows)
                ]
                near = min(beyond, key=lambda span: span.stop - span.start)
                at = _fullest(spans, near)
            part = parts[steps[at].region]
            if isinstance(part, Region) and part.halve(steps[at].operation):
                break
            if _spill(steps, found, at, stored) or (has_rows and _relocate(steps, found, near, stored)):
                continue
            _refuse(steps, at, limit.rows)


def _fullest(spans: Sequence[Lifetime], within: Lifetime) -> int:
    """Return the step of one lifetime at which the most rows are in use."""
    cut = [
        Lifetime(each.rows, max(each.start, within.start), min(each.stop, within.stop))
        for each in spans
        if each.start <= within.stop and each.stop >= within.start
    ]
    return most_in_use(cut)[0]


def _used(steps: Sequence[Step], at: int) -> dict[Instance, None]:
    """Return what a step uses, and what the operation does that it loads something for."""
    used: dict[Instance, None] = {}
    for step in steps[at:]:
        used |= dict.fromkeys((*step.reads.values(), *step.writes.values()))
        if step.kind != "load":
            break
    return used


def _refuse(steps: Sequence[Step], at: int, limit: int) -> None:
    needed, step = _used(steps, at), steps[at]
    rows = sum(instance.rows for instance in needed)
    names = ", ".join(f"{each.storage.name!r} {each.rows:,}" for each in needed)
    raise ValueError(
        f"layer {step.operation.name!r} ({step.operation.kind}) needs {rows:,} rows of the unified buffer at "
        f"once ({names}), and there are {limit:,}; use a machine with a larger unified buffer, smaller "
        "inputs, or the array alone: machine.array"
    )


def _spill(steps: list[Step], found: dict[Instance, Lifetime], at: int, stored: set[Storage]) -> bool:
    """Write one instance that step `at` does not use to host memory before it, and read it back later."""
    used = _used(steps, at)
    best: tuple[int, int, Instance] | None = None
    for instance, span in found.items():
        if span.start < at < span.stop and instance not in used:
            after = next(_uses(steps, instance, at + 1))
            if best is None or (after, span.rows) > best[:2]:
                best = after, span.rows, instance
    if best is None:
        return False
    _split(steps, best[2], at, stored)
    return True


def _relocate(
    steps: list[Step], found: dict[Instance, Lifetime], near: Lifetime, stored: set[Storage]
) -> bool:
    """Have one instance come back from host memory at another address, between two steps that use it.

    That is the way out where all rows that are in use at once would fit, but not in one piece each. In
    the end each operation loads what it reads, and that fits if the operation's own tensors do.
    """
    best: tuple[int, int, int, Instance] | None = None
    for instance, span in found.items():
        if span.start > near.stop or span.stop < near.start:
            continue
        uses = list(_uses(steps, instance, 0))
        for place in range(1, len(uses)):
            before = [steps[number].kind for number in uses[:place]]
            if set(before) == {"load"} or steps[uses[place]].kind == "store":
                continue  # it would be read back at once, or not be written before
            gap = uses[place] - uses[place - 1]
            if best is None or (gap, span.rows) > best[:2]:
                best = gap, span.rows, uses[place - 1], instance
    if best is None:
        return False
    _split(steps, best[3], best[2], stored)
    return True


def _split(steps: list[Step], instance: Instance, after: int, stored: set[Storage]) -> None:
    """Give what uses an instance behind step `after` another one, which is read from host memory."""
    storage = instance.storage
    later = Instance(storage, instance.start, instance.stop, instance.units)
    parts: dict[tuple[int, int, int], Step] = {}
    for number in list(_uses(steps, instance, 0)):
        step = steps[number]
        if number > after:
            for held in (step.reads, step.writes):
                if storage in held:
                    held[storage] = later
        elif storage in step.writes:
            parts[step.start, step.stop, step.units] = step
    inserted: list[tuple[int, Step]] = []
    reader = next((n for n in _uses(steps, later, after + 1) if storage in steps[n].reads), None)
    for (start, stop, units), writer in parts.items():
        number = steps.index(writer)
        if storage not in stored and writer.kind == "compute" and not _is_stored(steps, number, instance):
            store = Step(writer.operation, "store", start, stop, units, writer.region, spilled=True)
            store.reads[storage] = instance
            inserted.append((number + 1, store))
        if reader is not None:
            target = steps[reader]
            load = Step(target.operation, "load", start, stop, units, target.region, spilled=True)
            load.writes[storage] = later
            inserted.append((reader, load))
    for place, step in sorted(inserted, key=lambda pair: -pair[0]):
        steps.insert(place, step)


def _is_stored(steps: Sequence[Step], number: int, instance: Instance) -> bool:
    """Whether what a step writes is stored right behind it."""
    for step in steps[number + 1 :]:
        if step.kind != "store":
            return False
        if instance in step.reads.values():
            return True
    return False


def _uses(steps: Sequence[Step], instance: Instance, first: int) -> Iterator[int]:
    """Yield the steps from `first` on that use an instance."""
    storage = instance.storage
    for number in range(first, len(steps)):
        step = steps[number]
        if step.reads.get(storage) is instance or step.writes.get(storage) is instance:
            yield number
