"""``sweep``: what models cost on many machines, on one core or through an executor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from queue import SimpleQueue
from typing import Any, Protocol

from systolic import _check
from systolic._show.progress import shown
from systolic._text import canonical, printable
from systolic._version import __version__
from systolic.config import MachineConfig
from systolic.energy import DEFAULT, EnergyTable, as_table
from systolic.stats import Stats
from systolic.sweeps.evaluation import ideal_task, program_task
from systolic.sweeps.files import JOURNAL, RowFile, suffix_of
from systolic.sweeps.grids import Grid, as_machines
from systolic.sweeps.results import Sweep
from systolic.sweeps.rows import SweepRow, identify
from systolic.sweeps.workloads import Work, as_works
from systolic.tiling.mappings import MAPPINGS

MOST_ROWS = 1_000_000
"""The most rows of a sweep, unless more are asked for."""

# (product, machine) pairs of a task in closed form: its arrays stay in cache.
_PAIRS = 1 << 16
_MOST_MACHINES = 2048
_MOST_SPLIT = 256  # if several workers share them

# Programs of a task for a worker, which share what the model takes to send; tasks are at least so many.
_MOST_PROGRAMS = 16
_TASKS = 64

# Tasks handed to an executor and not finished.
_IN_FLIGHT = 1024


class Executor(Protocol):
    """Whatever runs a function elsewhere: ``submit`` returns an object with ``result``.

    ``concurrent.futures`` defines it. ``add_done_callback`` and ``cancel`` of what it returns are used if
    they are there.
    """

    def submit(self, fn: Any, /, *args: Any) -> Any:
        """Run ``fn(*args)``."""


@dataclass(frozen=True, eq=False)
class _Point:
    """A row to compute: its place in the sweep, and its configuration."""

    number: int
    work: Work
    machine: MachineConfig
    batch: int
    mapping: str | None

    @property
    def id(self) -> str:
        machine = canonical(self.machine.to_dict())
        return identify(self.work.id, machine, self.batch, self.mapping, __version__)

    def row(self, found: Stats | str) -> SweepRow:
        stats, error = (None, printable(found)) if isinstance(found, str) else (found, None)
        return SweepRow(
            model=self.work.name, model_id=self.work.id, machine=self.machine, batch=self.batch,
            mapping=self.mapping, note=self.work.note or None, stats=stats, error=error,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Task:
    points: Sequence[_Point]
    function: Any
    arguments: tuple[Any, ...]


def sweep(
    models: Any,
    machines: Any,
    *,
    batch: int | Sequence[int] = 1,
    mapping: str | Sequence[str | None] | None = None,
    executor: Executor | None = None,
    out: str | os.PathLike[str] | None = None,
    limit: int = MOST_ROWS,
    progress: Any = None,
    energy: EnergyTable | str | None = DEFAULT,
) -> Sweep:
    """Return what models cost on machines, for every batch size and mapping, without running anything.

    Parameters
    ----------
    models : Model, Workload, Gemm or path; a list of them; or a mapping of names to them or to lists of Gemms
        A path is an .onnx file, a .zip that ``Model.save`` wrote, or a .csv topology of SCALE-Sim.
    machines : MachineConfig or ArrayConfig, a sequence of them, or a Grid
        On a machine without memories operands are always on time, and all are costed at once in closed
        form. With memories a model is compiled and its program timed.
    batch : int or sequence of int
        Sizes of the models' first axis; of a Workload or Gemm, factors of their rows.
    mapping : {"im2col", "taps", "pack", "best"}, None, or a sequence of them
        How convolutions run, as in :func:`~systolic.estimate`; None is the default.
    executor : object with ``submit``, optional
        ``concurrent.futures.ProcessPoolExecutor`` for example. Default: this process, one after the other.
    out : path, optional
        A .csv file that each row is appended to as soon as it is computed. Rows that it already holds are
        not computed again, so that an interrupted sweep resumes. A .parquet file is written in the end, and
        rows go to the file with ``.journal`` behind its name until then.
    limit : int
        The most rows that a sweep may have; known before any of them is computed.
    progress : bool or callable, optional
        True shows a bar, as for :func:`systolic.matmul`; a function is called with (done, total) rows.
    energy : EnergyTable or str, optional
        For ``energy_pj`` of the rows: a table, the name of one ("45nm", "7nm"), or a file, see
        :mod:`systolic.energy`. None leaves energy out. Files hold no energies: they follow from the counts.

    Returns
    -------
    Sweep
        A row for each model, batch, machine and mapping, in this order. A machine that cannot run a model
        has a row that says why.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, a model has no work for the array or unknown sizes, the sweep has more
        rows than `limit`, or `out` holds something else.
    RuntimeError
        If a worker of the executor fails; what was computed is in `out`.

    Examples
    --------
    >>> import systolic
    >>> from systolic.sweeps import Grid
    >>> grid = Grid(systolic.ArrayConfig(), side=[8, 16, 32], clock_mhz=[700, 940])
    >>> found = systolic.sweep(systolic.load_example().model, grid, batch=[1, 16])
    >>> found
    <Sweep of 12 rows: 1 model, 6 machines>
    >>> found[4]
    <SweepRow digits: batch 1, 32 x 32 at 700 MHz: 2,789 cycles>
    """
    if out is not None:
        suffix_of(out, "out")
    energies = as_table(energy)
    works, listed = as_works(models), as_machines(machines)
    batches = _several(batch, "batch", lambda value: _check.integer(value, "batch", minimum=1))
    mappings = _several(mapping, "mapping", _mapping)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(
            f"executor must have submit, as concurrent.futures has it, not {_check.kind(executor)}"
        )
    most = _check.integer(limit, "limit", minimum=1)
    many = listed.total if isinstance(listed, Grid) else len(listed)
    total = len(works) * len(batches) * many * len(mappings)
    if total > most:
        raise ValueError(
            f"the sweep has {total:,} rows ({_counted(len(works), 'model')} x "
            f"{_counted(len(batches), 'batch size')} x {_counted(many, 'machine')} x "
            f"{_counted(len(mappings), 'mapping')}), more than limit={most:,}; pass limit={total} to compute "
            "them"
        )
    ideal = any(machine.memory is None for machine in _bases(listed))
    products = {
        (work.name, size, name): work.products(size, name)
        for work in works for size in batches for name in (mappings if ideal else (None,))
    }  # fmt: skip
    with shown(progress, f"sweep of {total:,} rows") as report:
        file = None if out is None else RowFile(out)
        try:
            held = {} if file is None else _held(file, works)
            found: dict[int, SweepRow] = {}
            if report is not None:
                report(0, total)

            def keep(task: _Task, results: Iterable[Stats | str]) -> None:
                rows = [point.row(result) for point, result in zip(task.points, results, strict=True)]
                if file is not None:
                    file.append(rows)
                found.update((point.number, row) for point, row in zip(task.points, rows, strict=True))
                if report is not None:
                    report(len(found), total)

            def points() -> Iterator[_Point]:
                for point in _points(works, listed, batches, mappings):
                    if held and (row := held.get(point.id)) is not None:
                        found[point.number] = row
                    else:
                        yield point

            tasks = _tasks(points(), products, 0 if executor is None else total)
            if executor is None:
                for task in tasks:
                    keep(task, task.function(*task.arguments))
            else:
                try:
                    _run_elsewhere(executor, tasks, keep)
                except _WorkerError as error:
                    raise _failed(error.__cause__, len(found), total, out) from error.__cause__
            if report is not None and held:
                report(total, total)
            if file is not None:
                file.finish()
        finally:
            if file is not None:
                file.close()
    every = Sweep._of(found[number] for number in range(total))
    return every if energy == DEFAULT else every.using(energies)


def end_with_parent() -> None:
    """End this worker process when the process that started it ends; an ``initializer`` for pools.

    A pool tells its workers to end when it is closed. A parent that is killed closes nothing.
    """
    from multiprocessing import parent_process
    from threading import Thread

    parent = parent_process()
    assert parent is not None  # of a pool

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _several(value: Any, name: str, check: Any) -> tuple[Any, ...]:
    values = tuple(value) if _check.is_listed(value, arrays=True) else (value,)
    if not values:
        raise ValueError(f"{name} must hold at least one value")
    return tuple(dict.fromkeys(check(each) for each in values))


def _mapping(value: Any) -> str | None:
    return None if value is None else _check.choice(value, "mapping", MAPPINGS)


def _bases(machines: Sequence[MachineConfig]) -> Sequence[MachineConfig]:
    """Return machines of which each of a sweep has the memories of one, or none as one."""
    return [machines.base] if isinstance(machines, Grid) else machines


def _held(file: RowFile, works: Sequence[Work]) -> dict[str, SweepRow]:
    """Return the rows of a file by their identifiers; raise if one contradicts another, or the sweep."""
    names = {work.id: printable(work.name) for work in works}
    found: dict[str, SweepRow] = {}
    for row in file.rows:
        name = names.get(row.model_id, row.model)
        if row.model != name:
            raise ValueError(
                f"{file.path} holds a row of {name!r} under the name {row.model!r}; delete its line, and the "
                "sweep computes it again, or name another file"
            )
        if found.setdefault(row.id, row) != row:
            raise ValueError(
                f"{file.path} holds two rows with the id {row.id} and other values; delete both lines, and "
                "the sweep computes the row again, or name another file"
            )
    return found


def _points(
    works: Sequence[Work], machines: Sequence[MachineConfig], batches: Sequence[int], mappings: Sequence[Any]
) -> Iterator[_Point]:
    number = 0
    for work in works:
        for batch in batches:
            for machine in machines:
                for mapping in mappings:
                    yield _Point(number, work, machine, batch, mapping)
                    number += 1


def _tasks(points: Iterable[_Point], products: Any, shared: int) -> Iterator[_Task]:
    """Yield the points as tasks: machines of one model and batch, all ideal or all with memories.

    `shared` is how many points several workers share, 0 if there is one.
    """
    group: list[_Point] = []
    compiled = lru_cache(1)(Work.program_of)
    programs = min(max(shared // _TASKS, 1), _MOST_PROGRAMS)
    most = 1

    def closed() -> _Task:
        first, work = group[0], group[0].work
        if first.machine.memory is None:
            names = dict.fromkeys(point.mapping for point in group)
            sizes = {name: products[work.name, first.batch, name] for name in names}
            arrays = tuple((point.machine.array, point.mapping) for point in group)
            return _Task(tuple(group), ideal_task, (sizes, arrays))
        configurations = tuple((point.machine, point.mapping) for point in group)
        return _Task(tuple(group), program_task, (work.id, *compiled(work, first.batch), configurations))

    def kind(point: _Point) -> Any:
        return point.work, point.batch, point.machine.memory is None

    for point in points:
        if group and (kind(point) != kind(group[0]) or len(group) >= most):
            yield closed()
            group = []
        if not group:
            most = programs
            if point.machine.memory is None:
                sizes = products[point.work.name, point.batch, point.mapping]
                different = sum(len(several) for several, _ in sizes)
                most = min(max(_PAIRS // different, 16), _MOST_SPLIT if shared else _MOST_MACHINES)
        group.append(point)
    if group:
        yield closed()


class _WorkerError(Exception):
    """The executor did not return a result; its cause says why."""


def _run_elsewhere(executor: Executor, tasks: Iterator[_Task], keep: Callable[..., None]) -> None:
    """Run tasks by an executor; keep the results of each as soon as it is done."""
    done: SimpleQueue[int] = SimpleQueue()
    flying: dict[int, tuple[_Task, Any]] = {}
    numbers = count()

    def hand_out() -> None:
        while len(flying) < _IN_FLIGHT and (task := next(tasks, None)) is not None:
            number = next(numbers)
            try:
                future = executor.submit(task.function, *task.arguments)
            except Exception as error:
                raise _WorkerError from error
            flying[number] = task, future
            if hasattr(future, "add_done_callback"):
                future.add_done_callback(lambda _, number=number: done.put(number))
            else:
                done.put(number)  # result() waits

    def take() -> None:
        task, future = flying.pop(done.get())
        try:
            results = future.result()
        except Exception as error:
            raise _WorkerError from error
        keep(task, results)

    try:
        hand_out()
        while flying:
            take()
            hand_out()
    except _WorkerError:
        # What others have finished is not lost.
        while not done.empty():
            with suppress(_WorkerError):
                take()
        raise
    finally:
        for _, future in flying.values():
            if hasattr(future, "cancel"):
                future.cancel()


def _failed(error: BaseException | None, done: int, total: int, out: Any) -> RuntimeError:
    kept = "pass out= to keep them"
    if out is not None:
        path = os.fspath(out) + (JOURNAL if suffix_of(out) == ".parquet" else "")
        kept = f"they are in {path}: run again for the others"
    return RuntimeError(
        f"a worker of the executor failed after {done:,} of {total:,} rows "
        f"({type(error).__name__}: {error}); {kept}"
    )
