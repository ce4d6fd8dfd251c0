"""``Folds``: a Gemm's folds on an array, in order, with their cycles; ``Schedule``: folds as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

from systolic import _check
from systolic._show.columns import columns
from systolic._show.table import Table
from systolic.config import ArrayConfig, MachineConfig, as_array_config
from systolic.dataflows import Sizes
from systolic.gemm import Gemm


@dataclass(frozen=True, slots=True)
class Fold:
    """One tile's stay on the array: of weights, or of sums if output stationary.

    Parameters
    ----------
    n_start, n_stop, m_start, m_stop, k_start, k_stop : int
        w[k_start:k_stop, n_start:n_stop] is multiplied by x[m_start:m_stop, k_start:k_stop], which streams
        through the tile.
    shift_cycle, swap_cycle : int
        When its first weights and its swap arrive at PE (0, 0), in cycles from the start. Weight stationary,
        the swap that begins the stream; output stationary, the swap that ends the fold, from which its sums
        leave. Input stationary, the first activations, for they stay.
    group : int
        Which of a Gemm's groups it belongs to; where several share tiles, their number in sequence.
    zeros : int
        Elements of its part of w that are zeros between groups that share a tile.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm, folds
    >>> folds(Gemm(3, 2, 3), array=ArrayConfig(2, 3))[0]
    Fold(n 0:3, m 0:3, k 0:2, shift 0, swap 2)
    """

    n_start: int
    n_stop: int
    m_start: int
    m_stop: int
    k_start: int
    k_stop: int
    shift_cycle: int
    swap_cycle: int
    group: int = 0
    zeros: int = 0

    @property
    def m(self) -> int:
        """Rows of x streamed."""
        return self.m_stop - self.m_start

    @property
    def k(self) -> int:
        """Columns of x, rows of w."""
        return self.k_stop - self.k_start

    @property
    def n(self) -> int:
        """Columns of w."""
        return self.n_stop - self.n_start

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return self.m * (self.k * self.n - self.zeros)

    def to_dict(self) -> dict[str, int]:
        """Return the fields as a dict that JSON can hold."""
        return asdict(self)

    def __repr__(self) -> str:
        group = f"group {self.group}, " if self.group else ""
        return (
            f"Fold({group}n {self.n_start}:{self.n_stop}, m {self.m_start}:{self.m_stop}, "
            f"k {self.k_start}:{self.k_stop}, shift {self.shift_cycle}, swap {self.swap_cycle})"
        )


class Folds(Sequence[Fold]):
    """The folds of one Gemm on one array, in order; computed as they are asked for.

    Behaves as a tuple of :class:`Fold`; prints as a table.
    """

    def __init__(self, gemm: Gemm, array: ArrayConfig) -> None:
        self.gemm, self.array = gemm, array
        self.sizes = sizes_of(gemm, array)
        self._dataflow = array.dataflow_record

    @property
    def total(self) -> int:
        """How many folds; unlike ``len``, of any size."""
        s = self.sizes
        return s.groups * s.n_tiles * s.chunks * s.k_tiles

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> Fold: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Fold, ...]: ...
    def __getitem__(self, index: int | slice) -> Fold | tuple[Fold, ...]:
        """Return a fold by its number, or a tuple of folds by a slice."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self.total)))
        index = _check.integer(index, "a fold's number")
        if index < 0:
            index += self.total
        if not 0 <= index < self.total:
            raise IndexError(f"fold {index} of {self.total}")
        s = self.sizes
        rest, k_tile = divmod(index, s.k_tiles)
        rest, chunk = divmod(rest, s.chunks)
        group, n_tile = divmod(rest, s.n_tiles)
        m_start, n_start = chunk * s.chunk, n_tile * s.n_step
        m_stop, n_stop = min(m_start + s.chunk, s.m), min(n_start + s.n_step, s.n)
        tap, k_tile = divmod(k_tile, s.k_tiles // s.taps)
        k_start = tap * (s.k // s.taps) + k_tile * s.k_step
        k_stop = min(k_start + s.k_step, (tap + 1) * (s.k // s.taps))
        if self._dataflow.exchanged:
            m_start, m_stop, n_start, n_stop = n_start, n_stop, m_start, m_stop
        times = self._dataflow.fold_times(s, index)
        zeros = self._zeros(k_start, k_stop, n_start, n_stop) if s.pack > 1 else 0
        return Fold(n_start, n_stop, m_start, m_stop, k_start, k_stop, *times, group, zeros)

    def _zeros(self, k_start: int, k_stop: int, n_start: int, n_stop: int) -> int:
        """Return how many elements of a part of w belong to the rows of one group and columns of another."""
        gemm, held = self.gemm, 0
        channels = gemm.k // gemm.taps
        taps = range(k_start // (gemm.pack * channels), -(-k_stop // (gemm.pack * channels)))
        for group in range(n_start // gemm.n, -(-n_stop // gemm.n)):
            columns = min(n_stop, (group + 1) * gemm.n) - max(n_start, group * gemm.n)
            for tap in taps:
                first = (tap * gemm.pack + group) * channels
                held += columns * max(min(k_stop, first + channels) - max(k_start, first), 0)
        return (k_stop - k_start) * (n_stop - n_start) - held

    def __iter__(self) -> Iterator[Fold]:
        return (self[i] for i in range(self.total))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Folds):
            return self.gemm == other.gemm and self.array == other.array
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def table(self) -> Table:
        """Return a row per fold: its slices, its times, how full it keeps the array."""
        size, dataflow = self.array.rows * self.array.cols, self.array.dataflow_record

        def stays(f: Fold) -> int:
            # PEs that hold something: sums, activations or weights.
            return f.m * f.n if dataflow.held else f.k * f.m if dataflow.exchanged else f.k * f.n - f.zeros

        names = ["fold", "n_range", "m_range", "k_range", "shift_cycle", "swap_cycle", "macs"]
        names.append("mapping_efficiency")
        rows: list[tuple[Any, ...]] = [
            (
                i,
                f"{f.n_start}:{f.n_stop}",
                f"{f.m_start}:{f.m_stop}",
                f"{f.k_start}:{f.k_stop}",
                f.shift_cycle,
                f.swap_cycle,
                f.macs,
                stays(f) / size,
            )
            for i, f in enumerate(self)
        ]
        if self.gemm.groups > 1:
            names.insert(1, "group")
            rows = [(i, f.group, *rest) for f, (i, *rest) in zip(self, rows, strict=True)]
        title = f"{self.total} fold{'s' * (self.total != 1)} of {self.gemm!r}"
        return Table(columns(*names), rows, title=title)

    def to_frame(self) -> Any:
        """Return the folds as a pandas DataFrame, a row each."""
        names = list(Fold.__dataclass_fields__)
        return Table(columns(*names), [tuple(f.to_dict().values()) for f in self]).to_frame()

    def __repr__(self) -> str:
        if self.total <= 6:
            return f"Folds({', '.join(map(repr, self))})"
        return f"Folds({self[0]!r}, {self[1]!r}, ... {self.total - 3} more ..., {self[-1]!r})"

    def _repr_html_(self) -> str:
        return self.table().html()


def sizes_of(gemm: Gemm, array: ArrayConfig) -> Sizes:
    """Return how a product is cut for an array, in Python's integers."""
    dataflow = array.dataflow_record
    half = array.chunk_rows
    if half is None:
        half = max(gemm.n * gemm.pack if dataflow.exchanged else gemm.m, 1)
    return dataflow.cut(
        gemm.m, gemm.k, gemm.n, array.rows, array.cols, gemm.groups, array.double_buffered, half,
        gemm.taps, gemm.pack,
    )  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """Folds of a product and the cycles at which they start.

    Parameters
    ----------
    folds : sequence of Fold
        In the order of their cycles. :func:`schedule` gives the earliest cycles.
    k_tiles : int
        How many successive folds add to the same sums.
    cycles : int
        Edges from reset until the last sum has left the array.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm
    >>> from systolic.tiling import schedule
    >>> plan = schedule(Gemm(5, 3, 2), ArrayConfig(2, 2, accumulator_rows=6))
    >>> [(fold.swap_cycle, plan.half(i)) for i, fold in enumerate(plan.folds)], plan.cycles
    ([(2, 0), (5, 0), (8, 1), (10, 1)], 14)
    """

    folds: Sequence[Fold]
    k_tiles: int
    cycles: int

    def half(self, number: int) -> int:
        """Return which half of the accumulators takes a fold's sums, by its number."""
        return number // self.k_tiles % 2


def schedule(gemm: Gemm, array: ArrayConfig) -> Schedule:
    """Return the folds of a product on an ideal machine, each as early as the array can take it."""
    folds = Folds(gemm, array)
    return Schedule(folds, folds.sizes.k_tiles, array.dataflow_record.cycles(folds.sizes))


def folds(gemm: Gemm, *, array: ArrayConfig | MachineConfig | None = None) -> Folds:
    """Return the folds of a Gemm on an array, without running anything.

    Raises
    ------
    TypeError
        If `gemm` is not a Gemm or `array` no configuration.

    Examples
    --------
    >>> from systolic import ArrayConfig, Gemm, folds
    >>> for fold in folds(Gemm(5, 3, 2), array=ArrayConfig(2, 2)):
    ...     print(fold)
    Fold(n 0:2, m 0:5, k 0:2, shift 0, swap 2)
    Fold(n 0:2, m 0:5, k 2:3, shift 2, swap 7)
    """
    if not isinstance(gemm, Gemm):
        raise TypeError(f"gemm must be a Gemm, not {_check.kind(gemm)}; try Gemm(m, k, n)")
    return Folds(gemm, ArrayConfig() if array is None else as_array_config(array))
