"""The hardware as plain data: validated once, frozen, round-tripping through JSON."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, replace
from fractions import Fraction
from typing import Any

import numpy as np

from systolic import _check, _hints
from systolic._show.table import card
from systolic.dataflows import DATAFLOWS, Dataflow, port_dtypes, register_dtypes, register_limits
from systolic.formats import OPERANDS, OVERFLOWS, Format, format_of


def _load(cls: type, data: dict[str, Any]) -> dict[str, Any]:
    """Return `data` as keyword arguments of dataclass `cls`, refusing unknown fields."""
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__}.from_dict takes a dict, not {type(data).__name__}")
    known = {f.name: f for f in fields(cls)}
    for name in data:
        if name not in known:
            hint = _hints.meant(name, list(known)) or f"its fields are {', '.join(known)}"
            raise ValueError(f"{cls.__name__} has no field {name!r}; {hint}")
    missing = [name for name, f in known.items() if f.default is MISSING and name not in data]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise ValueError(f"{cls.__name__} needs the field{plural} {', '.join(map(repr, missing))}")
    return dict(data)


@dataclass(frozen=True)
class ArrayConfig:
    """A systolic array: its size, dataflow, operand types and accumulators.

    Parameters
    ----------
    rows : int
    cols : int, optional
        Number of processing elements (PEs); without `cols` the array is square. Weight stationary, rows take
        the contraction and columns the columns of w; output stationary, rows of x and columns of w; input
        stationary, the contraction and rows of x.
    activation_dtype, weight_dtype : str
        Operand types of a :class:`~systolic.SystolicArray`: int8, uint8, int4, uint4, int16, uint16,
        bfloat16, float16, float8_e4m3fn or float8_e5m2. ``matmul`` and ``conv2d`` take these types from
        their operands, and everything else from here. See ``docs/formats.md``.
    psum_bits : int
        Bits of an integer psum and accumulator: 16 to 32, or 64. Sums of floats are float32.
    overflow : {"wrap", "saturate"}
        What becomes of an integer sum that does not fit, at every addition.
    double_buffered : bool
        Whether the next weight tile is shifted in behind the current one; output stationary, whether the
        next fold begins while sums drain.
    accumulator_rows : int or None
        Rows of `cols` int32 sums below the array, in two halves: a fold streams at most
        ``accumulator_rows // 2`` rows. None means unlimited. Not used where sums stay in the PEs.
    dataflow : {"weight_stationary", "output_stationary", "input_stationary"}
        What stays in the PEs. Input stationary is the weight-stationary hardware with the operands exchanged.

    Raises
    ------
    TypeError, ValueError
        If a field has the wrong kind, a size is below 1 or `accumulator_rows` below 2.

    Examples
    --------
    >>> from systolic import ArrayConfig
    >>> ArrayConfig(128)
    ArrayConfig(rows=128, cols=128)
    >>> ArrayConfig.from_dict(ArrayConfig(4, 4).to_dict()) == ArrayConfig(4, 4)
    True
    """

    rows: int = 256
    cols: int = None  # type: ignore[assignment]  # as many as rows
    activation_dtype: str = field(default="int8", kw_only=True)
    weight_dtype: str = field(default="int8", kw_only=True)
    double_buffered: bool = field(default=True, kw_only=True)
    accumulator_rows: int | None = field(default=4096, kw_only=True)
    dataflow: str = field(default="weight_stationary", kw_only=True)
    psum_bits: int = field(default=32, kw_only=True)
    overflow: str = field(default="wrap", kw_only=True)

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("rows", _check.integer(self.rows, "rows", minimum=1, maximum=_MAX_SIZE))
        cols = self.rows if self.cols is None else self.cols
        put("cols", _check.integer(cols, "cols", minimum=1, maximum=_MAX_SIZE))
        for name in ("activation_dtype", "weight_dtype"):
            put(name, _check.operand_dtype(getattr(self, name), name, tuple(OPERANDS)))
        put("psum_bits", _check.integer(self.psum_bits, "psum_bits", minimum=1))
        put("overflow", _check.choice(self.overflow, "overflow", OVERFLOWS))
        format_of(self.activation_dtype, self.weight_dtype, self.psum_bits, self.overflow)
        put("double_buffered", _check.flag(self.double_buffered, "double_buffered"))
        put("dataflow", _check.choice(self.dataflow, "dataflow", tuple(DATAFLOWS)))
        if self.accumulator_rows is not None:
            try:
                put("accumulator_rows", _check.integer(self.accumulator_rows, "accumulator_rows", minimum=2))
            except ValueError:
                raise ValueError(
                    "accumulator_rows must be at least 2 (two halves, one filling while the other "
                    f"drains) or None for unlimited, not {self.accumulator_rows}"
                ) from None

    @property
    def chunk_rows(self) -> int | None:
        """Rows of x that one fold may stream: half the accumulators; None if unlimited."""
        return None if self.accumulator_rows is None else self.accumulator_rows // 2

    @property
    def format(self) -> Format:
        """Types of operands, products and sums."""
        return format_of(self.activation_dtype, self.weight_dtype, self.psum_bits, self.overflow)

    @property
    def dataflow_record(self) -> Dataflow:
        """Registers, ports, rules and kernel of the array."""
        return DATAFLOWS[self.dataflow]

    # Not cached here: hashing a configuration, as each estimate does, is slower once its dict was written to.

    @property
    def register_dtypes(self) -> dict[str, np.dtype]:
        """The type of each register, by name."""
        return register_dtypes(self.dataflow_record, self.format)

    @property
    def port_dtypes(self) -> dict[str, np.dtype]:
        """The type of each port, by name."""
        return port_dtypes(self.dataflow_record, self.format)

    @property
    def register_limits(self) -> dict[str, tuple[int, int]]:
        """The lowest and the highest value of each register that does not use all of its type, by name."""
        return register_limits(self.dataflow_record, self.format)

    def for_operands(self, x: np.dtype, w: np.dtype) -> ArrayConfig:
        """Return this configuration with the types of two operands."""
        return self.with_types(x.name, w.name)

    def with_types(self, activation: str, weight: str) -> ArrayConfig:
        """Return this configuration with the named types of operands."""
        return replace(self, activation_dtype=activation, weight_dtype=weight)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ArrayConfig:
        """Return the config that :meth:`to_dict` described."""
        return cls(**_load(cls, data))

    def _repr_html_(self) -> str:
        return card("ArrayConfig", self.to_dict())

    def __repr__(self) -> str:
        shown = [f"{n}={getattr(self, n)!r}" for n in ("rows", "cols")]
        shown += [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)[2:]
            if getattr(self, f.name) != f.default
        ]
        return f"ArrayConfig({', '.join(shown)})"


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """The memories and units around an array, and how fast they are.

    Parameters
    ----------
    weight_bytes : int
        Size of the weight memory.
    weight_bytes_per_second, host_bytes_per_second : int, Fraction, float or str
        Bandwidths of the weight memory and of the host link, kept as exact rationals.
    weight_latency_cycles, host_latency_cycles, activation_latency_cycles : int
        Cycles from the end of a transfer, or of a vector operation, until its result is there.
    fifo_tiles : int
        Weight tiles that the FIFO holds between weight memory and array.
    unified_buffer_rows, host_rows : int
        Rows of the unified buffer and of the host memory that programs address.
    row_bytes : int or None
        Bytes of such a row; None is what one row of activations, or one row of outputs of their type, takes.
    lanes : int or None
        Elements that the vector unit handles in a cycle; None is one row of the accumulators.
    issue_cycles : int
        Cycles between the dispatch of two instructions.
    width_factors : (int, int, int)
        Cycles for each row of a multiply with no, one and two operands of 16 bits.

    Examples
    --------
    >>> from systolic import MemoryConfig
    >>> memory = MemoryConfig(
    ...     weight_bytes=2**33, weight_bytes_per_second=34_000_000_000, unified_buffer_rows=98_304,
    ...     host_rows=2**20, host_bytes_per_second=14 * 2**30,
    ... )
    >>> MemoryConfig.from_dict(memory.to_dict()) == memory
    True
    """

    weight_bytes: int
    weight_bytes_per_second: int | Fraction
    weight_latency_cycles: int = 0
    fifo_tiles: int = 4
    unified_buffer_rows: int
    row_bytes: int | None = None
    lanes: int | None = None
    activation_latency_cycles: int = 0
    host_rows: int
    host_bytes_per_second: int | Fraction
    host_latency_cycles: int = 0
    issue_cycles: int = 1
    width_factors: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        for f in fields(self):
            value: Any = getattr(self, f.name)
            if f.name == "width_factors":
                if not _check.is_listed(value) or len(value) != 3:
                    raise TypeError(f"width_factors must hold three integers, not {_check.kind(value)}")
                value = tuple(_check.integer(each, "width_factors", minimum=1) for each in value)
            elif f.name.endswith("_per_second"):
                value = _rational(value, f.name)
            elif value is not None or f.default is not None:
                least = 0 if f.name.endswith("latency_cycles") else 1
                most = _MAX_ROW_BYTES if f.name == "row_bytes" else None
                value = _check.integer(value, f.name, minimum=least, maximum=most)
            object.__setattr__(self, f.name, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold; a bandwidth that is no integer as "a/b"."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["width_factors"] = list(self.width_factors)
        return {name: str(v) if isinstance(v, Fraction) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MemoryConfig:
        """Return the config that :meth:`to_dict` described."""
        return cls(**_load(cls, data))

    def _repr_html_(self) -> str:
        return card("MemoryConfig", self.to_dict())


def _rational(value: Any, name: str) -> int | Fraction:
    """Return a number above zero exactly, as an int if it is one."""
    try:
        exact = Fraction(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise TypeError(
            f"{name} must be a number, such as 34_000_000_000 or Fraction(100, 3), not {_check.kind(value)}"
        ) from None
    if exact <= 0:
        raise ValueError(f"{name} must be above zero, not {value}")
    return int(exact) if exact.denominator == 1 else exact


# Far beyond any machine; functions have an entry for each byte of a row.
_MAX_ROW_BYTES = 1 << 20

# Far beyond any machine. The psums in flight below the array take cols * cols * 4 bytes.
_MAX_SIZE = 16384


@dataclass(frozen=True)
class MachineConfig:
    """An array and the machine around it.

    Parameters
    ----------
    array : ArrayConfig
        The matrix unit.
    clock_mhz : float
        Clock frequency, in MHz; turns cycles into time.
    memory : MemoryConfig or None
        What feeds the array when it runs a :class:`~systolic.Program`. None is the ideal machine:
        operands are always on time.

    Examples
    --------
    >>> from systolic import ArrayConfig, MachineConfig
    >>> MachineConfig(ArrayConfig(128, 128), clock_mhz=940).seconds(940_000)
    0.001
    """

    array: ArrayConfig = ArrayConfig()
    clock_mhz: float = field(default=700, kw_only=True)
    memory: MemoryConfig | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.array, ArrayConfig):
            raise TypeError(f"array must be an ArrayConfig, not {type(self.array).__name__}")
        clock = _check.positive_real(self.clock_mhz, "clock_mhz")
        object.__setattr__(self, "clock_mhz", int(clock) if clock.is_integer() else clock)
        if self.memory is not None and not isinstance(self.memory, MemoryConfig):
            raise TypeError(f"memory must be a MemoryConfig or None, not {type(self.memory).__name__}")
        if self.memory is not None and self.array.dataflow != "weight_stationary":
            raise ValueError(
                f"a machine with memories is weight stationary, but its array is {self.array.dataflow}; "
                "leave memory out for the ideal machine"
            )
        if self.memory is not None and not self.array.format.is_plain:
            raise ValueError(
                "a machine with memories has int8 or uint8 operands and sums of 32 bits that wrap, but its "
                f"array has {self.array.format.text}; leave memory out for the ideal machine"
            )

    def _repr_html_(self) -> str:
        memory = {} if self.memory is None else self.memory.to_dict()
        return card("MachineConfig", {"clock_mhz": self.clock_mhz, **self.array.to_dict(), **memory})

    def seconds(self, cycles: int) -> float:
        """Return how long `cycles` take at this clock, in seconds."""
        return _check.real(cycles, "cycles") / (self.clock_mhz * 1e6)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        memory = {} if self.memory is None else {"memory": self.memory.to_dict()}
        return {"array": self.array.to_dict(), "clock_mhz": self.clock_mhz, **memory}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MachineConfig:
        """Return the config that :meth:`to_dict` described."""
        values = _load(cls, data)
        if "array" in values:
            values["array"] = ArrayConfig.from_dict(values["array"])
        if values.get("memory") is not None:
            values["memory"] = MemoryConfig.from_dict(values["memory"])
        return cls(**values)


def machine_text(machine: MachineConfig, *, full: bool = False) -> str:
    """Return a machine in one line; `full` with each of its parameters.

    Examples
    --------
    >>> from systolic.config import ArrayConfig, MachineConfig, machine_text
    >>> machine_text(MachineConfig(ArrayConfig(16, 8)))
    '16 x 8 array at 700 MHz'
    """
    array = machine.array
    short = f"{array.rows} x {array.cols} array at {machine.clock_mhz:g} MHz"
    if not full:
        return short
    values = {**array.to_dict(), **({} if machine.memory is None else machine.memory.to_dict())}
    shown = [
        f"{name} {f'{value:,}' if isinstance(value, int) and not isinstance(value, bool) else value}"
        for name, value in values.items()
        if value is not None and name not in ("rows", "cols")
    ]
    return f"{short}; {', '.join(shown)}" + ("" if machine.memory is not None else "; no memories")


def as_array_config(value: Any, name: str = "array") -> ArrayConfig:
    """Return the ArrayConfig that `value` is or holds."""
    if isinstance(value, MachineConfig):
        return value.array
    if isinstance(value, ArrayConfig):
        return value
    raise TypeError(
        f"{name} must be an ArrayConfig, not {type(value).__name__}; try ArrayConfig(rows=256, cols=256)"
    )


def as_machine_config(value: Any, name: str = "machine") -> MachineConfig:
    """Return the MachineConfig that `value` is, or one around an ArrayConfig."""
    if isinstance(value, MachineConfig):
        return value
    if isinstance(value, ArrayConfig):
        return MachineConfig(value)
    raise TypeError(f"{name} must be a MachineConfig or an ArrayConfig, not {type(value).__name__}")


_BOTH = (
    "array and machine are both given; pass machine= alone, which has an array, or array= alone, for an "
    "array without memories"
)


def given_machine(machine: Any, array: Any, default: MachineConfig) -> MachineConfig:
    """Return the machine of two arguments of which one may be given.

    Examples
    --------
    >>> from systolic.config import ArrayConfig, MachineConfig, given_machine
    >>> given_machine(None, ArrayConfig(8, 8), MachineConfig()) == MachineConfig(ArrayConfig(8, 8))
    True
    """
    if array is None:
        return as_machine_config(default if machine is None else machine)
    if machine is not None:
        raise ValueError(_BOTH)
    if isinstance(array, MachineConfig):
        raise TypeError("array must be an ArrayConfig, not a MachineConfig; pass it as machine=")
    return MachineConfig(as_array_config(array))


def given_array(array: Any, machine: Any, default: ArrayConfig) -> ArrayConfig:
    """Return the array of two arguments of which one may be given, either of them an array or a machine."""
    if machine is None:
        return default if array is None else as_array_config(array)
    if array is not None:
        raise ValueError(_BOTH)
    return as_machine_config(machine).array
