"""Counts the bits that registers change: in compiled code, or step by step where the kernel cannot."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from systolic.dataflows.record import Dataflow
from systolic.formats import Format


@cache
def register_bits(dataflow: Dataflow, numbers: Format) -> dict[str, int]:
    """Return the bits of each register in hardware, by name.

    Examples
    --------
    >>> from systolic.dataflows import OUTPUT_STATIONARY, register_bits
    >>> from systolic.formats import format_of
    >>> register_bits(OUTPUT_STATIONARY, format_of("int8", "int4"))
    {'activation': 8, 'weight': 4, 'acc': 32, 'out': 32, 'out_pass': 32, 'swap': 1, 'drain': 1}
    """
    bits = {
        "activation": numbers.activation_bits,
        "weight": numbers.weight_bits,
        "sum": numbers.psum_bits,
        "control": 1,
    }
    return {register.name: bits[register.holds] for register in dataflow.registers}


def clock_counting(
    dataflow: Dataflow,
    registers: Mapping[str, np.ndarray],
    ports: Mapping[str, np.ndarray],
    bottom: np.ndarray,
    threads: int,
    numbers: Format,
) -> dict[str, int]:
    """Clock registers in place, as a kernel, and return how many bits of each changed at these edges."""
    if numbers.is_plain and numbers.kernel in dataflow.counting:
        toggles = np.zeros(len(dataflow.registers), np.int64)
        dataflow.counting[numbers.kernel](registers, ports, bottom, threads, numbers, toggles)
        return {part.name: int(count) for part, count in zip(dataflow.registers, toggles, strict=True)}
    sizes, counts = register_bits(dataflow, numbers), dict.fromkeys(registers, 0)
    for t in range(len(bottom)):
        before = {name: values.copy() for name, values in registers.items()}
        here = {name: values[t : t + 1] for name, values in ports.items()}
        dataflow.kernels[numbers.kernel](registers, here, bottom[t : t + 1], threads, numbers)
        for name, values in registers.items():
            counts[name] += differing_bits(before[name], values, sizes[name])
    return counts


def differing_bits(one: np.ndarray, other: np.ndarray, bits: int) -> int:
    """Return in how many of their lowest bits the elements of two arrays differ.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.dataflows import differing_bits
    >>> differing_bits(np.int8([0, 0]), np.int8([3, -1]), bits=4)
    6
    """
    unsigned = np.dtype(f"u{one.itemsize}")
    changed = (one.view(unsigned) ^ other.view(unsigned)) & unsigned.type(2**bits - 1)
    return int(np.unpackbits(changed.view(np.uint8)).sum())
