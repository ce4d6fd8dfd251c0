"""Progress of a program in cycles of its timeline."""

from __future__ import annotations

from systolic.gemm import Progress
from systolic.machine.timeline import Timeline


class ClockProgress:
    """Reports cycles, each time more than before.

    Parameters
    ----------
    timeline : Timeline
    report : callable, optional
        Gets (done, total) cycles.
    """

    def __init__(self, timeline: Timeline, report: Progress | None) -> None:
        self._complete = [] if report is None else timeline.complete.tolist()
        self._total, self._report, self._last = timeline.cycles, report, 0

    def instruction(self, number: int) -> None:
        """Report that an instruction is done, and all before it."""
        if self._report is not None:
            self.up_to(self._complete[number])

    def up_to(self, cycle: int) -> None:
        """Report that all is done up to a cycle."""
        if self._report is not None and cycle > self._last:
            self._last = cycle
            self._report(cycle, self._total)
