"""``Grid``: machines that differ in a few fields, made as they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any, overload

from systolic import _check
from systolic._hints import nearest
from systolic.config import ArrayConfig, MachineConfig, MemoryConfig, as_machine_config

ARRAY_FIELDS = tuple(f.name for f in fields(ArrayConfig))
MEMORY_FIELDS = tuple(f.name for f in fields(MemoryConfig))
AXES = ("side", "format", *ARRAY_FIELDS, "clock_mhz", *MEMORY_FIELDS)

# Fields that not every combination of values fits; "format" stands for two of them.
_FORMAT = ("format", "activation_dtype", "weight_dtype", "psum_bits", "overflow")


class Grid(Sequence[MachineConfig]):
    """Machines that differ in some fields: every combination of the values given, as a sequence.

    Parameters
    ----------
    base : MachineConfig or ArrayConfig
        Every other field.
    **axes : value or sequence of values
        Fields of :class:`~systolic.ArrayConfig`, ``clock_mhz``, fields of
        :class:`~systolic.MemoryConfig` if `base` has memories, ``side``, which is rows and cols, and
        ``format``, which is the type of both operands, such as ``"int8"``, or a pair of types, (activations,
        weights). The last axis varies fastest.

    Raises
    ------
    TypeError, ValueError
        If there is no such field, with the nearest name, or a value does not fit it.

    Examples
    --------
    >>> from systolic import ArrayConfig
    >>> from systolic.sweeps import Grid
    >>> grid = Grid(ArrayConfig(), side=[64, 128], clock_mhz=[700, 940])
    >>> grid
    <Grid of 4 machines: 2 side x 2 clock_mhz>
    >>> grid[1]
    MachineConfig(array=ArrayConfig(rows=64, cols=64), clock_mhz=940, memory=None)
    """

    def __init__(self, base: MachineConfig | ArrayConfig, **axes: Any) -> None:
        self.base = as_machine_config(base, "base")
        self.axes: dict[str, tuple[Any, ...]] = {}
        for name, values in axes.items():
            self._check_axis(name, axes)
            listed = tuple(values) if _check.is_listed(values, arrays=True) else (values,)
            if name == "width_factors" and listed and not _check.is_listed(listed[0]):
                listed = (listed,)
            if not listed:
                raise ValueError(f"axis {name!r} of the grid has no values")
            self.axes[name] = listed if name in _FORMAT else self._plain(name, listed, {})
        formats = {name: values for name, values in self.axes.items() if name in _FORMAT}
        for name, values in formats.items():
            others = [other for other in formats if other != name]
            for rest in product(*(formats[other] for other in others)):
                self.axes[name] = self._plain(name, values, dict(zip(others, rest, strict=True)))

    def _plain(self, name: str, values: Sequence[Any], others: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the values of an axis as a machine has them, each once; `others` are set beside them."""
        found = []
        for value in values:
            try:
                found.append(_value(_changed(self.base, {**others, name: value}), name))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"axis {name!r} of the grid: {error}") from error
        return tuple(dict.fromkeys(found))

    def _check_axis(self, name: str, axes: Mapping[str, Any]) -> None:
        if name not in AXES:
            raise ValueError(f"a machine has no field {name!r}; {nearest(name, AXES)}")
        if name in MEMORY_FIELDS and self.base.memory is None:
            raise ValueError(f"axis {name!r} of the grid is a field of the memories, and base has none")
        if "side" in axes and name in ("rows", "cols"):
            raise ValueError(f"the grid has axes 'side' and {name!r}: side is rows and cols")
        if "format" in axes and name in ("activation_dtype", "weight_dtype"):
            raise ValueError(f"the grid has axes 'format' and {name!r}: format is the type of both operands")

    def __len__(self) -> int:
        return self.total

    @property
    def total(self) -> int:
        """How many machines; unlike ``len``, of any size."""
        return math.prod(map(len, self.axes.values()))

    @overload
    def __getitem__(self, index: int) -> MachineConfig: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[MachineConfig, ...]: ...
    def __getitem__(self, index: int | slice) -> MachineConfig | tuple[MachineConfig, ...]:
        """Return a machine by its number, or a tuple of machines by a slice."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self.total)))
        index = _check.integer(index, "a machine's number")
        if not -self.total <= index < self.total:
            raise IndexError(f"machine {index} of {self.total}")
        index %= self.total
        values = {}
        for name, axis in reversed(self.axes.items()):
            index, place = divmod(index, len(axis))
            values[name] = axis[place]
        return _combined(self.base, values)

    def __iter__(self) -> Iterator[MachineConfig]:
        return map(self.__getitem__, range(self.total))

    def __repr__(self) -> str:
        axes = " x ".join(f"{len(values):,} {name}" for name, values in self.axes.items())
        machines = "machine" if self.total == 1 else "machines"
        return f"<Grid of {self.total:,} {machines}{f': {axes}' if axes else ''}>"


def _value(machine: MachineConfig, name: str) -> Any:
    """Return a field of a machine by the name of its axis."""
    if name == "clock_mhz":
        return machine.clock_mhz
    if name in MEMORY_FIELDS:
        return getattr(machine.memory, name)
    if name == "format":
        types = machine.array.activation_dtype, machine.array.weight_dtype
        return types[0] if types[0] == types[1] else types
    return getattr(machine.array, "rows" if name == "side" else name)


def _operands(value: Any) -> dict[str, Any]:
    """Return the types of operands that a format is."""
    types = tuple(value) if _check.is_listed(value) else (value, value)
    if len(types) != 2:
        raise ValueError(f"a format is a type, or a pair of them for activations and weights, not {value!r}")
    return {"activation_dtype": types[0], "weight_dtype": types[1]}


def _changed(base: MachineConfig, values: Mapping[str, Any]) -> MachineConfig:
    """Return a machine with other fields, each checked."""
    array: dict[str, Any] = {name: values[name] for name in ARRAY_FIELDS if name in values}
    if "side" in values:
        array |= {"rows": values["side"], "cols": values["side"]}
    if "format" in values:
        array |= _operands(values["format"])
    memory: dict[str, Any] = {name: values[name] for name in MEMORY_FIELDS if name in values}
    changes: dict[str, Any] = {}
    if array:
        changes["array"] = replace(base.array, **array)
    if memory and base.memory is not None:
        changes["memory"] = replace(base.memory, **memory)
    if "clock_mhz" in values:
        changes["clock_mhz"] = values["clock_mhz"]
    return replace(base, **changes)


def _combined(base: MachineConfig, values: Mapping[str, Any]) -> MachineConfig:
    """Return :func:`_changed` of values that were checked one by one."""
    if base.memory is not None:
        return _changed(base, values)
    # The grid has checked the combinations of formats, no other check of an array looks at two of its fields,
    # and checking takes most of the time of a row.
    array = ArrayConfig.__new__(ArrayConfig)
    fields_of = array.__dict__
    fields_of.update(base.array.__dict__)
    for name, value in values.items():
        if name == "side":
            fields_of["rows"] = fields_of["cols"] = value
        elif name == "format":
            fields_of.update(_operands(value))
        elif name != "clock_mhz":
            fields_of[name] = value
    return MachineConfig(array, clock_mhz=values.get("clock_mhz", base.clock_mhz))


def as_machines(machines: Any) -> Sequence[MachineConfig]:
    """Return the machines of a sweep, each once."""
    if isinstance(machines, Grid):
        return machines
    listed = machines if _check.is_listed(machines) else (machines,)
    found = dict.fromkeys(as_machine_config(each, "a machine of a sweep") for each in listed)
    if not found:
        raise ValueError("machines must hold at least one machine")
    return tuple(found)
