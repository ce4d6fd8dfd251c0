"""The slow, obvious execution of a machine's program: one instruction after another, byte by byte.

Nothing here is clever, and nothing is shared with what it checks: instructions and functions are recognized
by their names, sums are Python integers, memories are bytearrays. There is no clock: a program means what its
instructions do in their order. Where the rules leave a choice:

- All rows that an instruction reads are read before it writes any.
- A row that a pattern visits twice keeps what is written there last.
- An `Activate` or a `Vector` writes whole rows: bytes behind the results become 0.
- A tile is what weight memory holds when its `ReadWeights` is reached.
- A window that lies in the padding alone has the lowest code as its largest, and table[0, 0] as its sum's.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from systolic.reference.oracle._numbers import rounded_code

Row = bytearray
Codes = list[int]


class Images(NamedTuple):
    """What the memories hold after a program.

    Attributes
    ----------
    ub, host : list of bytearray
        Rows of bytes.
    acc : list of list of int
        Rows of sums.
    """

    ub: list[Row]
    host: list[Row]
    acc: list[list[int]]


def run_program(
    instructions: Sequence[Any],
    functions: Sequence[Any],
    weights: Sequence[bytes],
    host: Sequence[bytes],
    *,
    rows: int,
    cols: int,
    row_bytes: int,
    ub_rows: int,
    acc_rows: int,
    host_rows: int,
    activation: str = "int8",
    weight: str = "int8",
    calls: Mapping[int, Callable[[list[list[bytes]]], list[list[bytes]]]] | None = None,
) -> Images:
    """Run a program.

    Parameters
    ----------
    instructions : sequence of Instruction
    functions : sequence of Function
        The program's table.
    weights : sequence of bytes
        The weight image: the rows * cols bytes of each tile, row by row.
    host : sequence of bytes
        The first rows of host memory; all others are 0.
    rows, cols : int
        Size of the array.
    row_bytes, ub_rows, acc_rows, host_rows : int
        Sizes of the memories.
    activation, weight : {"int8", "uint8"}
        Operand types until a `SetConfiguration`.
    calls : mapping of int to callable
        Of each host function: from the rows of each range read to those of each range written.

    Returns
    -------
    Images

    Examples
    --------
    >>> from systolic.isa import Activate, Function, MatrixMultiply, ReadHost, ReadWeights
    >>> from systolic.reference.program_data import run_program
    >>> program = [ReadWeights(0), ReadHost(0, 0, 1), MatrixMultiply(0, 0, 1), Activate(0, 1, 1)]
    >>> images = run_program(
    ...     program, [Function()], [bytes([7, 10])], [bytes([3, 4])], rows=2, cols=1, row_bytes=2, ub_rows=2,
    ...     acc_rows=1, host_rows=1,
    ... )
    >>> images.acc, images.ub
    ([[61]], [bytearray(b'\\x03\\x04'), bytearray(b'=\\x00')])
    """
    ub = [bytearray(row_bytes) for _ in range(ub_rows)]
    host_memory = [bytearray(row_bytes) for _ in range(host_rows)]
    for number, row in enumerate(host):
        host_memory[number][:] = row
    acc = [[0] * cols for _ in range(acc_rows)]
    fifo: list[bytes] = []
    tile = b""

    for item in instructions:
        kind = type(item).__name__
        if kind == "ReadHost":
            for i, row in enumerate([bytes(host_memory[item.host + i]) for i in range(item.rows)]):
                ub[item.ub + i][:] = row
        elif kind == "WriteHost":
            for i, row in enumerate([bytes(ub[item.ub + i]) for i in range(item.rows)]):
                host_memory[item.host + i][:] = row
        elif kind == "ReadWeights":
            fifo += [bytes(weights[item.tile + i]) for i in range(item.count)]
        elif kind in ("MatrixMultiply", "Convolve"):
            if item.new_weights:
                tile = fifo.pop(0)
            taps = [[_value(tile[k * cols + n], weight) for n in range(cols)] for k in range(rows)]
            pattern = item.pattern if kind == "Convolve" else [(item.rows, 1)]
            for i, source in enumerate(_visited(item.ub, pattern)):
                x = [_value(byte, activation) for byte in ub[source][:rows]]
                for n in range(cols):
                    total = sum(x[k] * taps[k][n] for k in range(rows))
                    if item.accumulate:
                        total += acc[item.acc + i][n]
                    acc[item.acc + i][n] = _int32(total)
        elif kind == "Activate":
            sums = [list(acc[item.acc + i]) for i in range(item.rows)]
            _place(ub, item, _activated(functions[item.function], sums, row_bytes))
        elif kind == "Vector":
            inputs = [[bytes(ub[first + i]) for i in range(item.rows)] for first in item.inputs]
            _place(ub, item, _vector(functions[item.function], inputs, row_bytes))
        elif kind == "HostCall":
            given = [[bytes(host_memory[first + i]) for i in range(count)] for first, count in item.reads]
            results = (calls or {})[item.function](given)
            for (first, count), written in zip(item.writes, results, strict=True):
                for i in range(count):
                    host_memory[first + i][:] = written[i]
        elif kind == "SetConfiguration":
            activation, weight = item.activation, item.weight
    return Images(ub, host_memory, acc)


def _visited(first: int, pattern: Sequence[tuple[int, int]]) -> list[int]:
    return [
        first + sum(index * stride for index, (_, stride) in zip(indices, pattern, strict=True))
        for indices in itertools.product(*(range(count) for count, _ in pattern))
    ]


def _place(ub: list[Row], item: Any, results: list[bytes]) -> None:
    pattern = [(len(results), 1)] if item.pattern is None else item.pattern
    for target, row in zip(_visited(item.ub, pattern), results, strict=True):
        ub[target][:] = row + bytes(len(ub[target]) - len(row))


def _value(byte: int, dtype: str) -> int:
    """Return the code that a byte is."""
    return byte - 256 if dtype == "int8" and byte >= 128 else byte


def _int32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def _limits(dtype: str) -> tuple[int, int]:
    return (-128, 127) if dtype == "int8" else (0, 255)


def _f32(value: float) -> float:
    """Return the nearest float32; exact products and sums of two of them are rounded once."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def _groups(values: list[Any], size: int) -> list[list[Any]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def _activated(function: Any, sums: list[list[int]], row_bytes: int) -> list[bytes]:
    """Return the rows that an Activate writes."""
    attributes = function.attributes
    dtype = "int8" if function.kind == "identity" else attributes.get("dtype", "int8")
    results = [[_result(function, total, n) for n, total in enumerate(row)] for row in sums]
    written = []
    for group in _groups(results, function.pool):
        largest = [max(column) for column in zip(*group, strict=True)]
        if dtype == "float32":
            data = b"".join(struct.pack("<f", value) for value in largest)
        elif dtype == "int32":
            data = b"".join(value.to_bytes(4, "little", signed=True) for value in largest)
        else:
            data = bytes(value % 256 for value in largest)
        for part in range(function.parts):
            written.append(data[part * row_bytes : (part + 1) * row_bytes])
    return written


def _result(function: Any, total: int, n: int) -> Any:
    """Return what an Activate makes of a sum of column n."""
    if function.kind == "identity":
        return min(max(total, -128), 127)
    attributes, arrays = function.attributes, function.arrays
    dtype = attributes.get("dtype", "int8")
    if "constant" in arrays:
        total = _int32(total + int(arrays["constant"][n]))
    if dtype == "int32":
        return total
    scale = float(arrays["scale"][n])
    if dtype == "float32":
        value = _f32(_f32(float(total)) * _f32(scale))
        if "late_scale" in arrays:
            value = _f32(value * float(arrays["late_scale"][n]))
        if "float_bias" in arrays:
            value = _f32(value + float(arrays["float_bias"][n]))
        return value
    low, high = _limits(dtype)
    zero_point, rounding = attributes.get("zero_point", 0), attributes.get("rounding", "half_even")
    if rounding in ("half_even", "gemmini"):
        value = _f32(_f32(float(total)) * _f32(scale))
        code = low
        if value == math.inf or value > 2**31:
            code = high
        elif value > -(2**31):  # not a NaN
            code = min(max(round(value) + zero_point, low), high)
    else:
        code = rounded_code(rounding, total, Fraction(scale), zero_point, low, high)
    if attributes.get("clamp") is not None:
        least, most = attributes["clamp"]
        code = min(max(code, least), most)
    if "table" in arrays:
        code = _value(int(arrays["table"][code % 256]) % 256, dtype)
    return code


def _vector(function: Any, inputs: list[list[bytes]], row_bytes: int) -> list[bytes]:
    """Return the rows that a Vector writes."""
    if function.kind == "identity":
        written = []
        for group in _groups(inputs[0], function.pool):
            if function.pool == 1:
                written.append(group[0])
            else:
                signed = [[_value(byte, "int8") for byte in column] for column in zip(*group, strict=True)]
                written.append(bytes(max(column) % 256 for column in signed))
        return written
    arrays = function.arrays
    if function.kind == "pair":
        return [
            bytes(int(arrays["table"][256 * a + b]) for a, b in zip(first, second, strict=True))
            for first, second in zip(*inputs, strict=True)
        ]
    if function.kind == "lanes":
        written = []
        for number in range(len(inputs[0])):
            row = bytearray(row_bytes)
            for c in range(row_bytes):
                source = int(arrays["source"][c])
                if source >= 0:
                    byte = inputs[source][number][int(arrays["lane"][c])]
                    row[c] = int(arrays["tables"][source][byte])
            written.append(bytes(row))
        return written
    return _pooled(function, inputs[0], row_bytes)


def _pooled(function: Any, rows: list[bytes], row_bytes: int) -> list[bytes]:
    """Return a row for each window of images whose pixels are rows."""
    of = function.attributes
    dtype, low = of["dtype"], _limits(of["dtype"])[0]
    written = []
    for image, y, x in itertools.product(range(of["batch"]), range(of["out"][0]), range(of["out"][1])):
        seen = []
        for i, j in itertools.product(range(of["kernel"][0]), range(of["kernel"][1])):
            down = y * of["stride"][0] + i * of["dilation"][0] - of["before"][0]
            across = x * of["stride"][1] + j * of["dilation"][1] - of["before"][1]
            if 0 <= down < of["size"][0] and 0 <= across < of["size"][1]:
                line = image * of["stored"][0] + of["corner"][0] + down
                seen.append(rows[line * of["stored"][1] + of["corner"][1] + across])
        result = bytearray(row_bytes)
        for c in range(row_bytes):
            codes = [_value(row[c], dtype) for row in seen]
            if function.kind == "max_pool":
                result[c] = max(codes, default=low) % 256
            else:
                result[c] = int(function.arrays["table"][len(codes)][sum(codes) - low * len(codes)])
        written.append(bytes(result))
    return written
