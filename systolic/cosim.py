"""A scoreboard for RTL: step the emulator in lockstep and name the first difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic import _check
from systolic._text import moment
from systolic.array import Registers, SystolicArray
from systolic.config import ArrayConfig, as_array_config
from systolic.formats import as_numbers, differ
from systolic.formats import bits as bits_of

# Largest number of rows or columns of an array that is simulated as RTL.
_MOST = 1 << 14


class ScoreboardError(AssertionError):
    """RTL and emulator disagree in a register.

    Attributes
    ----------
    register : str
    row, col, cycle : int
        The PE, and after which edge, counted from 0.
    got, expected : int or float
        The RTL's value and the emulator's.

    Examples
    --------
    >>> from systolic import ScoreboardError
    >>> print(ScoreboardError("psum", 1, 2, 40, got=7, expected=8, count=1))
    psum of PE (1, 2) after the edge of cycle 40 is 7 in the RTL, expected 8
    """

    def __init__(
        self, register: str, row: int, col: int, cycle: int, got: float, expected: float, count: int
    ) -> None:
        more = f" ({count} PEs differ in it)" if count > 1 else ""
        super().__init__(
            f"{register} of PE ({row}, {col}) {moment(cycle + 1)} is {got} in the RTL, "
            f"expected {expected}{more}"
        )
        self.register, self.row, self.col, self.cycle = register, row, col, cycle
        self.got, self.expected, self.count = got, expected, count

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        fields = (self.register, self.row, self.col, self.cycle, self.got, self.expected, self.count)
        return type(self), fields


class Scoreboard:
    """Steps an emulated array with the ports an RTL array is driven with, and compares registers.

    It knows no simulator: call :meth:`edge` with the port values of each clock edge and
    :meth:`compare` with the values of the RTL's registers after it. ``examples/rtl`` does so under
    cocotb.

    Parameters
    ----------
    config : ArrayConfig
        Size and operand types.

    Examples
    --------
    >>> from systolic import ArrayConfig, Scoreboard
    >>> board = Scoreboard(ArrayConfig(rows=1, cols=2))
    >>> board.edge(activation=[3], shift=[1], weight=[5, 0])
    >>> board.compare(next_weight=[[5, 0]], activation=[[3, 0]])
    >>> try:
    ...     board.compare(activation=[[3, 1]])
    ... except AssertionError as error:
    ...     print(error)
    activation of PE (0, 1) after the edge of cycle 0 is 1 in the RTL, expected 0
    """

    def __init__(self, config: ArrayConfig) -> None:
        self.config = as_array_config(config, "config")
        self.array = SystolicArray(self.config)
        self.compared = 0
        """Register values compared so far."""

    @property
    def expected(self) -> Registers:
        """The values that the registers must hold now."""
        return self.array.registers

    def edge(self, **ports: Any) -> None:
        """Do one clock edge; ports as for :meth:`SystolicArray.step`."""
        self.array.step(**ports)

    def reset(self) -> None:
        """All registers 0, cycle 0."""
        self.array.reset()

    def compare(self, **registers: Any) -> None:
        """Compare the RTL's registers after the last edge.

        Parameters
        ----------
        **registers : array_like of int, (rows, cols), or int
            By the names of :attr:`expected`; an int is a packed vector, see :func:`unpack`.

        Raises
        ------
        ScoreboardError
            If a value differs; it names register, PE, cycle and both values.
        TypeError, ValueError
            If a register is unknown or its values have another shape.
        """
        rows, cols = self.config.rows, self.config.cols
        compared = 0
        for name, values in registers.items():
            dtype = self.config.register_dtypes[_check.choice(name, "register", tuple(self.expected))]
            if isinstance(values, int):
                values = unpack(values, rows, cols, dtype=dtype)
            got = _check.numbers(values, name, dtype)
            if got.shape != (rows, cols):
                raise ValueError(
                    f"{name} must be {_check.shape((rows, cols))}, not {_check.shape(got.shape)}"
                )
            expected = self.expected[name]
            wrong = np.argwhere(differ(got, expected))
            if len(wrong):
                row, col = wrong[0].tolist()
                values = as_numbers(got)[row, col].item(), as_numbers(expected)[row, col].item()
                raise ScoreboardError(name, row, col, self.array.cycle - 1, *values, len(wrong))
            compared += got.size
        self.compared += compared


def unpack(word: int, rows: int, cols: int, *, dtype: Any) -> np.ndarray:
    """Return a packed vector's elements, (rows, cols): PE (r, c) in the bits from (r * cols + c) * width on.

    Parameters
    ----------
    word : int
        Not negative, as a simulator gives a vector of bits.
    dtype : dtype
        Type of the elements: 1 bit wide for bool, else its own width.

    Examples
    --------
    >>> from systolic.cosim import unpack
    >>> unpack(0x04_03_FF_01, 2, 2, dtype="int8")
    array([[ 1, -1],
           [ 3,  4]], dtype=int8)
    """
    kind = _check.dtype_or_none(dtype)
    if kind is None or kind.hasobject or kind.names is not None:
        raise TypeError(f"dtype must be a type of numbers or bool, not {_check.kind(dtype)}")
    rows = _check.integer(rows, "rows", minimum=1, maximum=_MOST)
    cols = _check.integer(cols, "cols", minimum=1, maximum=_MOST)
    bits = bits_of(kind)
    word = _check.integer(word, "word", minimum=0)
    if word >> (bits * rows * cols):
        raise ValueError(f"word is wider than {rows} x {cols} elements of {bits} bits")
    if bits == 1:
        text = format(word, f"0{rows * cols}b")[::-1]
        return np.array([bit == "1" for bit in text]).reshape(rows, cols)
    data = word.to_bytes(rows * cols * kind.itemsize, "little")
    return np.frombuffer(data, dtype=kind.newbyteorder("<")).astype(kind).reshape(rows, cols)
