"""``Dataflow``: registers, ports, rules, closed forms and kernel of an array as one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from systolic.formats import OPERANDS as OPERAND_TYPES
from systolic.formats import Format

Holds = Literal["activation", "weight", "sum", "control"]
"""Contents of a register: an operand or a sum of the format, or one control bit."""

Role = Literal["west operand", "north operand", "shadow", "pass", "sum", "control"]
"""Purpose of a register: the operand from the west or from the north, the value waiting behind it, a
delay on the way down, the running sum, or control. Drawings place registers by it."""


OPERANDS: tuple[Role, Role] = ("north operand", "west operand")
"""The roles of the registers that take a fold's operands."""


@dataclass(frozen=True)
class Register:
    """A register of every PE.

    Parameters
    ----------
    name : str
    role : str
        See :data:`Role`.
    holds : str
        See :data:`Holds`; with a format it gives the type.
    moves : {"right", "down"}, optional
        The neighbour that reads it at the next edge; None: none does.
    """

    name: str
    role: Role
    holds: Holds
    moves: Literal["right", "down"] | None = None


@dataclass(frozen=True)
class Port:
    """A port of every row (west) or of every column (north).

    Parameters
    ----------
    name : str
    side : {"west", "north"}
    feeds : str
        The register of the first PE that takes its value, and whose type it has.
    """

    name: str
    side: Literal["west", "north"]
    feeds: str


class Sizes(NamedTuple):
    """A product, an array and how one cuts the other: Python integers, or numpy arrays that broadcast.

    Here x is what streams and w what enters from the north: see :attr:`Dataflow.exchanged`. Groups that share
    tiles are one group, of all their columns of x and columns of w.
    """

    m: Any
    k: Any
    n: Any
    rows: Any
    cols: Any
    groups: Any
    double_buffered: Any
    chunk: Any  # rows of x that a fold takes, at most
    k_step: Any  # columns of x, rows of w
    n_step: Any  # columns of w
    chunks: Any
    last: Any  # rows of x in the last chunk
    k_tiles: Any
    n_tiles: Any
    taps: Any  # parts of k, each cut by itself
    pack: Any  # groups of the product in each group here


def larger(a: Any, b: Any) -> Any:
    """Return the larger of two Python integers of any size, or of two arrays element by element."""
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


Beat = tuple[str, int, Any]
"""(port, first cycle in local time, a matrix with a line for each cycle, or how many cycles a control bit
is 1)."""

Line = tuple[int, int, int]
"""When what was queued last is done at PE (0, 0), in local time: after the last beat of weights; the last
swap, output stationary the one that ends the last fold; after the last line of sums that leave from it on."""


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Return registers or port values as compiled code takes them: those of one byte as uint8."""
    return values if values.itemsize > 1 else values.view(np.uint8)


Kernel = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray], np.ndarray, int, Format], None]
"""Clocks registers in place: (registers, port values, leaving values to fill in, threads, format)."""

CountingKernel = Callable[
    [Mapping[str, np.ndarray], Mapping[str, np.ndarray], np.ndarray, int, Format, np.ndarray], None
]
"""The same, and adds to the last argument, int64 in the order of the registers, how many bits of each
change."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataflow:
    """An array's dataflow.

    Parameters
    ----------
    name : str
    registers, ports : tuple of Register, tuple of Port
    leaves : str
        The register whose bottom row leaves the array, into the accumulators.
    held : bool
        Whether sums stay in their PEs: then x streams column by column, and the sums of all rows leave once
        a swap has ended the fold, the last row's first. Else x streams row by row, and the sums of each row
        of x leave as they are complete.
    exchanged : bool
        Whether x and w change places: x stays, w streams, and rows of sums are columns of the product.
    rules : tuple of str
        The events at a clock edge, everywhere at once, from the values before it.
    steps : callable
        (m, k, n, rows, cols, half) -> rows of x, columns of x and columns of w that a fold takes, at
        most; `half` is half the accumulators.
    fold_times : callable
        (Sizes, number of a fold) -> when its weights begin to arrive at PE (0, 0), and the swap from which
        its sums leave: weight stationary, the one that begins its stream; output stationary, the one that
        ends it.
    cycles : callable
        Sizes -> cycles of the whole product. Like `fold_times` a closed form; this one takes arrays too.
    starts : callable
        (Line, rows, k, earliest, earliest swap) -> the same two times for a fold that is queued next.
    shift_beats : callable
        (start, w, rows) -> port values of a tile of weights, in local time.
    stream_beats : callable
        (start, the swap from which sums leave, lines of x, whether there is a swap, rows) -> port values of x
        and of the control that goes with it.
    writes : callable
        (useful MACs, folds, sums that leave, rows, cols) -> how often a PE writes a value that a later result
        needs into each register, in all PEs of a whole product.
    kernels : mapping of str to callable
        The function that clocks the registers, by ``Format.kernel``.
    counting : mapping of str to callable
        Likewise those that count toggles, of formats that use all bits of their types; for others toggles are
        counted edge by edge.
    reference : type
        The same array PE by PE in Python numbers, which defines the kernel.

    Examples
    --------
    >>> from systolic.dataflows import WEIGHT_STATIONARY
    >>> [port.name for port in WEIGHT_STATIONARY.ports], WEIGHT_STATIONARY.leaves
    (['activation', 'shift', 'swap', 'weight', 'psum'], 'psum')
    """

    name: str
    registers: tuple[Register, ...]
    ports: tuple[Port, ...]
    leaves: str
    held: bool
    exchanged: bool
    rules: tuple[str, ...]
    steps: Callable[[Any, Any, Any, Any, Any, Any], tuple[Any, Any, Any]]
    fold_times: Callable[[Sizes, int], tuple[int, int]]
    cycles: Callable[[Sizes], Any]
    starts: Callable[[Line, int, int, int, int], tuple[int, int]]
    shift_beats: Callable[[int, np.ndarray, int], Iterable[Beat]]
    stream_beats: Callable[[int, int, Any, bool, int], Iterable[Beat]]
    writes: Callable[[int, int, int, int, int], dict[str, int]]
    kernels: Mapping[str, Kernel]
    reference: type
    counting: Mapping[str, CountingKernel] = field(default_factory=dict)

    def row_of(self, line: Any, rows: int) -> Any:
        """Return the row of x whose sums leave on a line, or on each of several; there is none from m on."""
        return rows - 1 - line if self.held else line

    def by_rows(self, first: int, sums: np.ndarray, m: int, rows: int) -> tuple[int, np.ndarray]:
        """Return lines of held sums from number `first` on as rows of x: the first one's number, and they."""
        # The last row of PEs comes first; those from m on hold no row of x.
        return rows - first - len(sums), sums[max(rows - m - first, 0) :][::-1]

    def register_of(self, role: Role) -> Register:
        """Return the first register of a role."""
        return next(register for register in self.registers if register.role == role)

    def operands(self, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tile that enters from the north and the lines that stream from the west, of a fold.

        x is (m, k) and w (k, n). Weight stationary these are w and x, output stationary w and the columns of
        x, (k, m), input stationary the transposes of x and of w.
        """
        if self.exchanged:
            return x.T, w.T
        return w, x.T if self.held else x

    def oriented(self, sums: np.ndarray) -> np.ndarray:
        """Return rows of sums, as they leave, as a part of the product, (m, n)."""
        return sums.T if self.exchanged else sums

    def cut(
        self, m: Any, k: Any, n: Any, rows: Any, cols: Any, groups: Any, double_buffered: Any, half: Any,
        taps: Any = 1, pack: Any = 1,
    ) -> Sizes:  # fmt: skip
        """Return how products are cut for arrays, in integers or in arrays that broadcast.

        Where x and w change places, m and n of the result have changed places too.
        """
        k, n, groups = k * pack, n * pack, groups // pack
        if self.exchanged:
            m, n = n, m
        if self.held:  # k is never cut
            taps = 1
        chunk, k_step, n_step = self.steps(m, k, n, rows, cols, half)
        chunks = -(-m // chunk)
        last = m - larger(chunks - 1, 0) * chunk
        tiles = taps * -(-(k // taps) // k_step), -(-n // n_step)
        return Sizes(
            m, k, n, rows, cols, groups, double_buffered, chunk, k_step, n_step, chunks, last, *tiles, taps,
            pack,
        )  # fmt: skip


@cache
def register_dtypes(dataflow: Dataflow, numbers: Format) -> dict[str, np.dtype]:
    """Return the type of each register, by name."""
    types = {
        "activation": OPERAND_TYPES[numbers.activation].dtype,
        "weight": OPERAND_TYPES[numbers.weight].dtype,
        "sum": np.dtype(numbers.sum),
        "control": np.dtype(bool),
    }
    return {register.name: types[register.holds] for register in dataflow.registers}


@cache
def register_limits(dataflow: Dataflow, numbers: Format) -> dict[str, tuple[int, int]]:
    """Return the lowest and the highest value of each register that does not use all of its type, by name."""
    limits = {
        "activation": OPERAND_TYPES[numbers.activation].limits if numbers.activation_bits == 4 else None,
        "weight": OPERAND_TYPES[numbers.weight].limits if numbers.weight_bits == 4 else None,
        "sum": numbers.sum_limits if numbers.psum_bits < 32 else None,
        "control": None,
    }
    found = ((register.name, limits[register.holds]) for register in dataflow.registers)
    return {name: each for name, each in found if each is not None}


@cache
def port_dtypes(dataflow: Dataflow, numbers: Format) -> dict[str, np.dtype]:
    """Return the type of each port, by name."""
    types = register_dtypes(dataflow, numbers)
    return {port.name: types[port.feeds] for port in dataflow.ports}
