"""Calls the compiled kernels: those for bytes, and those for other number formats; narrows their sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from systolic import _core
from systolic.dataflows.record import Register, as_bytes
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


def clock_bytes(
    run: Callable[..., None], values: Sequence[np.ndarray], registers: Mapping[str, np.ndarray],
    bottom: np.ndarray, threads: int, toggles: np.ndarray | None,
) -> None:  # fmt: skip
    """Clock registers of 8-bit integers in place by a compiled function; `values` are in its order."""
    run(
        *map(as_bytes, values), bottom,
        activation_signed=registers["activation"].dtype.char == "b",
        weight_signed=registers["weight"].dtype.char == "b",
        threads=threads, toggles=toggles,
    )  # fmt: skip


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
