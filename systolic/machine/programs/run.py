"""``run_program``: a program's outputs and times, from bytes in the memories to bytes in the memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check
from systolic.config import MachineConfig
from systolic.gemm import Progress
from systolic.isa import Program
from systolic.machine.programs.cycle import run_by_clock
from systolic.machine.programs.memories import HostFunction, Memories
from systolic.machine.programs.plan import plan_of
from systolic.machine.programs.progress import ClockProgress
from systolic.machine.programs.steps import Steps, check_calls
from systolic.machine.programs.wavefront import Hook, run_in_order
from systolic.machine.timeline import Timeline

MODES = ("cycle", "wavefront")


@dataclass(frozen=True, eq=False, repr=False)
class ProgramRun:
    """What a program computed, and when.

    Attributes
    ----------
    outputs : dict of str to ndarray
        The tensors of ``program.outputs``.
    host, ub : ndarray of uint8, (rows, row_bytes)
        The memories as the program leaves them, up to the highest row that it touches; all others are 0.
    acc : ndarray of int32, (rows, cols)
    timeline : Timeline
    array_seconds : float
        How long the emulation of the array took.
    """

    outputs: dict[str, np.ndarray]
    host: np.ndarray
    ub: np.ndarray
    acc: np.ndarray
    timeline: Timeline
    array_seconds: float

    def __repr__(self) -> str:
        plural = "" if len(self.outputs) == 1 else "s"
        return f"<ProgramRun: {len(self.outputs)} output{plural}, {self.timeline.cycles:,} cycles>"


def run_program(
    program: Program,
    machine: MachineConfig,
    inputs: Mapping[str, Any] | None = None,
    *,
    host: Any = None,
    mode: str = "cycle",
    threads: int = 1,
    report: Progress | None = None,
    calls: Mapping[int, HostFunction] | None = None,
    memory_hook: Hook | None = None,
) -> ProgramRun:
    """Run a program on a machine with memories.

    All memories are 0 at first, but for the weight image and what is passed here.

    Parameters
    ----------
    program : Program
    machine : MachineConfig
        With a :class:`~systolic.MemoryConfig`.
    inputs : mapping of str to array_like, optional
        The tensors of ``program.inputs``, each of its shape and type.
    host : array_like of uint8, (rows, row_bytes), optional
        The first rows of host memory.
    mode : {"cycle", "wavefront"}
        "cycle" emulates the array edge by edge, and reads and writes the memories when the clock gets there;
        "wavefront" computes instruction after instruction. Results are equal.
    threads : int
        Results do not depend on it.
    report : callable, optional
        Gets (done, total) cycles as work goes on.
    calls : mapping of int to callable, optional
        What a ``HostCall`` computes, by the number of its function: gets the rows of each range that it
        reads, a list of uint8 (rows, row_bytes), and returns those that it writes.
    memory_hook : callable, optional
        Called as ``memory_hook(number, memories)`` before each instruction that moves or computes data: by
        number, or, in cycle mode, in the order in which they start. It may change the arrays `ub`, `acc`,
        `host` and `weights`; put a ``Sync`` where a change is to come between two instructions.

    Raises
    ------
    TypeError, ValueError
        Before anything runs, if an address lies beyond a memory, a multiply has no tile, a function does not
        fit its instruction or the machine, operands have 16 bits, or inputs do not fit: the message names
        the instruction, the address and the limit.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, MachineConfig, MemoryConfig
    >>> from systolic.isa import Program
    >>> from systolic.machine import run_program
    >>> memory = MemoryConfig(
    ...     weight_bytes=2**20, weight_bytes_per_second=10**9, unified_buffer_rows=64, host_rows=64,
    ...     host_bytes_per_second=10**9,
    ... )
    >>> machine = MachineConfig(ArrayConfig(2, 3), clock_mhz=700, memory=memory)
    >>> program = Program('''
    ...     read_weights w#0, 1
    ...     read_host u#0, 2
    ...     matmul a#0, u#0, 2
    ...     activate u#2, a#0, 2
    ...     write_host u#2, 2
    ... ''', weights=np.int8([[[7, -8, 9], [10, 11, -12]]]))
    >>> run = run_program(program, machine, host=np.uint8([[1, 2, 0], [3, 4, 0]]))
    >>> run.acc
    array([[ 27,  14, -15],
           [ 61,  20, -21]], dtype=int32)
    >>> run.host[2:4].view(np.int8)
    array([[ 27,  14, -15],
           [ 61,  20, -21]], dtype=int8)
    """
    if not isinstance(program, Program):
        raise TypeError(f"program must be a Program, not {_check.kind(program)}")
    _check.choice(mode, "mode", MODES)
    threads = _check.integer(threads, "threads", minimum=1)
    plan = plan_of(program, machine)
    timeline, steps = plan.timeline, plan.steps
    calls = _callables({} if calls is None else calls)
    check_calls(steps, calls)
    memories = _memories(steps, host, calls, changeable=memory_hook is not None)
    _place(steps, memories, {} if inputs is None else inputs)
    progress = ClockProgress(timeline, report)
    if mode == "wavefront":
        seconds = run_in_order(plan, memories, threads, progress, memory_hook)
    else:
        seconds = run_by_clock(steps, memories, timeline, threads, progress, memory_hook)
    progress.up_to(timeline.cycles)
    outputs = {
        name: tensor.unpack(memories.host[tensor.first : tensor.first + tensor.rows(steps.row_bytes)])
        for name, tensor in program.outputs.items()
    }
    return ProgramRun(outputs, memories.host, memories.ub, memories.acc, timeline, seconds)


def _callables(calls: Any) -> Mapping[int, HostFunction]:
    if not isinstance(calls, Mapping):
        raise TypeError(f"calls must map numbers of functions to callables, not {_check.kind(calls)}")
    for number, call in calls.items():
        if not callable(call):
            raise TypeError(f"calls[{number!r}] must be callable, not {_check.kind(call)}")
    return calls


def _memories(
    steps: Steps, host: Any, calls: Mapping[int, HostFunction], *, changeable: bool
) -> Memories:
    """Return the memories at the beginning; the weight image is copied if it is `changeable`."""
    rows, size = dict(steps.rows), steps.row_bytes
    given = np.zeros((0, size), np.uint8) if host is None else _check.as_array(host, "host")
    if given.ndim != 2 or given.shape[1] != size or given.dtype != np.uint8:
        raise ValueError(
            f"host must be rows of {size} bytes, uint8 (rows, {size}), not {given.dtype} "
            f"{_check.shape(given.shape)}"
        )
    assert steps.machine.memory is not None
    limit = steps.machine.memory.host_rows
    if len(given) > limit:
        raise ValueError(f"host has {len(given):,} rows, but host memory only {limit:,}")
    rows["host"] = max(rows["host"], len(given))
    array, weights = steps.machine.array, steps.program.weights
    if weights is None:
        weights = np.zeros((0, array.rows, array.cols), np.uint8)
    memories = Memories(
        ub=np.zeros((rows["ub"], size), np.uint8),
        host=np.zeros((rows["host"], size), np.uint8),
        acc=np.zeros((rows["acc"], array.cols), np.int32),
        weights=np.array(weights.view(np.uint8)) if changeable else weights.view(np.uint8),
        calls=calls,
    )
    memories.host[: len(given)] = given
    return memories


def _place(steps: Steps, memories: Memories, inputs: Any) -> None:
    """Check the inputs and put them into host memory."""
    wanted = steps.program.inputs
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs must map names to arrays, not {_check.kind(inputs)}")
    if inputs.keys() != wanted.keys():
        raise ValueError(
            f"the program takes the inputs {', '.join(map(repr, wanted)) or '(none)'}, not "
            f"{', '.join(map(repr, inputs)) or 'none'}"
        )
    arrays = {}
    for name, tensor in wanted.items():
        array = arrays[name] = _check.as_array(inputs[name], f"input {name!r}")
        if array.shape != tensor.shape or array.dtype != np.dtype(tensor.dtype):
            raise ValueError(
                f"input {name!r} must be {tensor.dtype} {_check.shape(tensor.shape)}, not {array.dtype} "
                f"{_check.shape(array.shape)}"
            )
    for name, tensor in wanted.items():
        rows = tensor.pack(arrays[name], steps.row_bytes)
        memories.host[tensor.first : tensor.first + len(rows)] = rows
