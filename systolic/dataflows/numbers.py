"""Clocks arrays of number formats that the kernels for 8-bit integers do not know, and narrows their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from systolic import _core
from systolic.dataflows.record import Register
from systolic.formats import Format, operand_name


def narrow_sums(
    registers: Mapping[str, np.ndarray], bottom: np.ndarray, parts: Iterable[Register], numbers: Format
) -> None:
    """Wrap registers that hold sums, and what left the bottom row, to the format's bits, in place.

    Sums modulo 2^32 wrap to those modulo a smaller power of two, so that this gives the same bits after many
    additions as after each of them.
    """
    if numbers.psum_bits < 32:
        for part in parts:
            if part.holds == "sum":
                numbers.narrow(registers[part.name])
        numbers.narrow(bottom)


def clock_numbers(
    registers: dict[str, np.ndarray], ports: dict[str, np.ndarray], bottom: np.ndarray, threads: int,
    numbers: Format, *, held: bool,
) -> None:  # fmt: skip
    """Clock registers in place, given by the names of ``kernels/numbers.h``; arguments as of a kernel."""
    low, high = numbers.sum_limits
    _core.run_numbers(
        registers, ports, bottom, held=held, arithmetic=_core.ARITHMETICS[numbers.sum, numbers.overflow],
        activation=_core.OPERAND_TYPES[operand_name(registers["activation"])],
        weight=_core.OPERAND_TYPES[operand_name(registers["weight"])],
        low=low, high=high, threads=threads,
    )  # fmt: skip
