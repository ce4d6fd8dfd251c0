"""Clocks arrays of number formats that the kernels for 8-bit integers do not know, and narrows their sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from systolic import _core
from systolic.dataflows.record import Register
from systolic.formats import Format


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
    registers: Mapping[str, np.ndarray], ports: Mapping[str, np.ndarray], bottom: np.ndarray, numbers: Format,
    *, held: bool,
) -> None:  # fmt: skip
    """Clock registers in place, given by the names of ``kernels/numbers.h``; arguments as of a kernel."""
    wide = np.float32 if numbers.is_float else np.int32

    def operand_or_bit(values: np.ndarray) -> np.ndarray:
        if values.dtype == bool:
            return values.view(np.uint8)
        return values if values.dtype == numbers.sum else values.astype(wide)

    given = {name: operand_or_bit(values) for name, values in registers.items()}
    fed = {name: operand_or_bit(values) for name, values in ports.items()}
    low, high = numbers.sum_limits
    _core.run_numbers(
        given, fed, bottom, held=held, arithmetic=_core.ARITHMETICS[numbers.sum, numbers.overflow],
        low=low, high=high,
    )  # fmt: skip
    for name, values in registers.items():
        if values.dtype != bool and given[name] is not values:
            values[...] = given[name]
