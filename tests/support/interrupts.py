"""Interrupts at chosen bytecodes: what Ctrl-C, which comes between any two, may do to a call."""

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


def interrupted(call: Callable[[], Any], at: int, within: str = "") -> bool:
    """Call a function, with KeyboardInterrupt before its bytecode number `at`; return whether it has so many.

    Parameters
    ----------
    call : callable
        Whatever it raises comes out, except for the interrupt itself.
    at : int
        From 0 on, counted in every Python frame below the call, those of libraries too.
    within : str
        Count only bytecodes of files whose path holds this.
    """
    left = at

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if within not in frame.f_code.co_filename or finalizing(frame):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        if left >= 0:
            raise
    else:
        assert left >= 0, "the interrupt was lost"
    finally:
        sys.settrace(before)
    return left < 0


def finalizing(frame: FrameType | None) -> bool:
    """Whether a frame runs for a ``__del__``: Python drops what is raised there, interrupts too."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def every_interrupt(call: Callable[[], Any], within: str = "", step: int = 1) -> Iterator[int]:
    """Interrupt calls at one bytecode after the other, yielding after each, until one ends by itself."""
    at = 0
    while interrupted(call, at, within):
        yield at
        at += step
