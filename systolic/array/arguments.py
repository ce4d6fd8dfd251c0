"""Arguments of a ``SystolicArray``: tiles, rows and port values, checked and as registers hold them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from systolic import _check
from systolic.array.skew import Ports
from systolic.config import ArrayConfig
from systolic.dataflows import Role
from systolic.formats import OPERANDS, operand_name, stored

ANY_SIZE = 1 << 62
"""Of an axis that nothing limits."""

TypeOf = tuple[str, str]
"""An operand's type, and the field of the configuration that gives it."""


def tile_of(w: Any, numbers: TypeOf, most: Mapping[str, int]) -> np.ndarray:
    """Return w as a copy; `most` has the names of its axes, and how long they may be."""
    tile = _operand(w, "w", numbers, most)
    if 0 in tile.shape:
        raise ValueError(f"w must hold at least one value, but is {_check.shape(tile.shape)}")
    return tile


def rows_of(x: Any, numbers: TypeOf, most: Mapping[str, int]) -> np.ndarray:
    """Return x as a copy, likewise."""
    rows = _operand(x, "x", numbers, most)
    if rows.shape[0] == 0:
        raise ValueError(f"x must have at least one row, but is {_check.shape(rows.shape)}")
    return rows


def _operand(value: Any, name: str, numbers: TypeOf, most: Mapping[str, int]) -> np.ndarray:
    axes = f"({', '.join(most)})"
    matrix = _check.operand(value, name, ndim=2, axes=axes, known=tuple(OPERANDS))
    matrix = _as_stored(matrix, name, *numbers)
    _check_size(matrix, name, *most.items())
    return matrix.copy()


def _as_stored(values: np.ndarray, name: str, dtype: str, field: str) -> np.ndarray:
    """Return an operand of this type, as registers hold it."""
    operand, found = OPERANDS[dtype], operand_name(values)
    if found == dtype:
        return stored(values)
    if found == operand.storage:  # 4 bits in lanes of 8
        return _check.integers(values, name, found, operand.limits)
    raise TypeError(
        f"{name} must hold {dtype}, as the array's config says, not {values.dtype}; "
        f"make the array with ArrayConfig({field}={found!r})"
    )


def _check_size(values: np.ndarray, name: str, *axes: tuple[str, int]) -> None:
    for (axis, most), size in zip(axes, values.shape, strict=True):
        if size > most:
            (_, first), (_, second) = axes
            larger = f", larger than the array's {first} x {second}"
            where = "columns" if axis == "n" else "rows"
            if max(first, second) == ANY_SIZE:
                larger = f": {axis} is larger than the array's {most} {where}"
            raise ValueError(
                f"{name} is {_check.shape(values.shape)}{larger}; systolic.matmul cuts a larger product "
                "into folds"
            )


def largest_fold(config: ArrayConfig) -> tuple[int, int, int]:
    """Return how large m, k and n of a fold may be: ANY_SIZE where nothing limits them."""
    dataflow = config.dataflow_record
    m, k, n = dataflow.steps(ANY_SIZE, ANY_SIZE, ANY_SIZE, config.rows, config.cols, ANY_SIZE)
    return (n, k, m) if dataflow.exchanged else (m, k, n)


def type_of(config: ArrayConfig, role: Role) -> TypeOf:
    """Return the type of the register of a role, and the field of the configuration that gives it."""
    field = f"{config.dataflow_record.register_of(role).holds}_dtype"
    return getattr(config, field), field


def require_moving_sums(config: ArrayConfig, caller: str) -> None:
    """Raise ValueError if sums stay in the PEs."""
    if config.dataflow_record.held:
        raise ValueError(
            f"{caller}() queues work for weights that stay, but this array is "
            f"{config.dataflow_record.name}; fold(x=x, w=w) queues all that it does for a product"
        )


def port_values(config: ArrayConfig, ports: Mapping[str, Any]) -> Ports:
    """Return the values of ``step``, a line for each port."""
    given = {}
    for name, value in ports.items():
        size, dtype, limits = _port(config, name, "step")
        values = _check.numbers(value, name, dtype, limits)
        if values.ndim > 1 or (values.ndim == 1 and values.shape != (size,)):
            raise ValueError(
                f"{name} must be a scalar or have shape ({size},), not {_check.shape(values.shape)}"
            )
        given[name] = np.broadcast_to(values, (1, size))
    return given


def port_lines(config: ArrayConfig, ports: Mapping[str, Any]) -> tuple[Ports, int]:
    """Return the values of ``clock``, a line for each edge, and how many edges."""
    given = {}
    for name, value in ports.items():
        size, dtype, limits = _port(config, name, "clock")
        values = _check.numbers(value, name, dtype, limits)
        if values.ndim != 2 or values.shape[1] != size:
            raise ValueError(
                f"{name} must have shape (cycles, {size}), a line for each edge, not "
                f"{_check.shape(values.shape)}"
            )
        given[name] = np.require(values, requirements="A")
    lengths = {name: len(values) for name, values in given.items()}
    if not given:
        raise ValueError(
            "clock() takes the values of at least one port, a line for each edge; run(cycles) clocks "
            "idle ports"
        )
    if len(set(lengths.values())) > 1:
        raise ValueError(
            "the ports must have one number of cycles, but have "
            + ", ".join(f"{name} {length}" for name, length in lengths.items())
        )
    return given, next(iter(lengths.values()))


def _port(
    config: ArrayConfig, name: str, caller: str
) -> tuple[int, np.dtype, tuple[int, int] | None]:
    for port in config.dataflow_record.ports:
        if port.name == name:
            size = config.rows if port.side == "west" else config.cols
            return size, config.port_dtypes[name], config.register_limits.get(port.feeds)
    known = ", ".join(config.port_dtypes)
    raise TypeError(f"{caller}() has no port {name!r}; the ports are {known}")


def in_old_order(operands: tuple[Any, ...], x: Any, w: Any) -> tuple[Any, Any]:
    """Return x and w of a fold whose operands came without names: w, then x."""
    warnings.warn(
        "fold(w, x) is deprecated: write fold(x=x, w=w); without names, a later release takes x first, as "
        "matmul does",
        DeprecationWarning,
        stacklevel=3,
    )
    old = dict(zip(("w", "x"), operands, strict=False))
    named = {name: value for name, value in (("x", x), ("w", w)) if value is not None}
    if len(operands) > 2 or old.keys() & named.keys():
        raise TypeError("fold takes x and w once each: write fold(x=x, w=w)")
    both = old | named
    return both.get("x"), both.get("w")
