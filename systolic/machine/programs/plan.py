"""Everything about a program on a machine that does not depend on data, kept from run to run."""

from __future__ import annotations

from functools import cached_property

from systolic.config import MachineConfig
from systolic.isa import Program
from systolic.machine.programs.fused import Product, fused
from systolic.machine.programs.steps import Step, Steps
from systolic.machine.timeline import Timeline, time_program

# Machines for which a program's plan is kept.
_MOST_KEPT = 2


class Plan:
    """A program's times and steps on a machine.

    Attributes
    ----------
    timeline : Timeline
    steps : Steps

    Raises
    ------
    ValueError
        As :func:`~systolic.machine.time_program` and :class:`Steps`.
    """

    def __init__(self, program: Program, machine: MachineConfig) -> None:
        self.timeline: Timeline = time_program(program, machine)
        self.steps = Steps(program, machine)

    @cached_property
    def fused(self) -> list[Step | Product]:
        """The steps of wavefront mode."""
        return fused(self.steps)


def plan_of(program: Program, machine: MachineConfig) -> Plan:
    """Return the plan of a program on a machine; a program keeps those of the last few machines."""
    if not isinstance(machine, MachineConfig):
        return Plan(program, machine)  # which says what is wrong
    plans: dict[MachineConfig, Plan] = vars(program).setdefault("_plans", {})
    plan = plans.get(machine)
    if plan is None:
        plan = Plan(program, machine)
        while len(plans) >= _MOST_KEPT:
            plans.pop(next(iter(plans)))
        plans[machine] = plan
    return plan
