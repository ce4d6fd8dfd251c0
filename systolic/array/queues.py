"""Tiles and rows queued at the ports, the rules for their cycles, and the psums below the array."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from systolic import _check
from systolic.config import ArrayConfig
from systolic.dataflows import OPERANDS


class Rows(Protocol):
    """A matrix that is read some rows at a time: an ndarray, or one built on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(lines, values of a line)."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return some consecutive rows."""
        ...


class Sink(Protocol):
    """Where a stream's finished sums go instead of the array's outputs."""

    def __call__(self, row: int, psums: np.ndarray, /) -> None:
        """Take sums, (m, cols), of rows row..row + m - 1; they are valid only during the call.

        Rows come in order; last ones first where sums are held until a fold ends.
        """
        ...


@dataclass(frozen=True, eq=False)
class QueuedTile:
    """A weight tile; `start` is the local time of its first beat, `beats` how many it takes."""

    start: int
    w: np.ndarray
    beats: int

    @property
    def stop(self) -> int:
        """Local time after the last beat."""
        return self.start + self.beats


@dataclass(frozen=True, eq=False)
class QueuedStream:
    """Lines of x from local time `start` on, rows or columns of it, with swaps or without.

    Its sums leave in so many `lines`, counted from local time `leaves` on. `done` collects them, unless a
    `sink` takes them.
    """

    start: int
    x: Rows
    swap: bool
    leaves: int
    lines: int
    done: tuple[np.ndarray, ...] = ()
    sink: Sink | None = None

    @property
    def stop(self) -> int:
        """Local time after the last line of sums, and after the last beat."""
        return self.leaves + self.lines


@dataclass(frozen=True, eq=False)
class Queues:
    """Work in flight at the ports and below the array, in local time.

    Attributes
    ----------
    tiles, streams : tuple
        Tiles that have not left the array, streams whose psums have not all left it.
    shift_stop, swap_at, stream_stop : int
        When the last shift ends, the last swap happens, the last stream ends: see
        :data:`systolic.dataflows.Line`.
    loaded, swap_waiting : bool
        Whether a tile was shifted in since the last swap; whether a swap waits for a row.
    swap_not_before : int
        The earliest cycle of the waiting swap.
    below : ndarray of the sums' type, (cols - 1, cols)
        Psums that left the bottom row, of the rows of x that have not left in all columns.
    outputs : tuple of ndarray of the sums' type, (m, cols)
        Finished streams.
    """

    below: np.ndarray
    tiles: tuple[QueuedTile, ...] = ()
    streams: tuple[QueuedStream, ...] = ()
    shift_stop: int = 0
    swap_at: int = 0
    stream_stop: int = 0
    loaded: bool = False
    swap_waiting: bool = False
    swap_not_before: int = 0
    outputs: tuple[np.ndarray, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Queues):
            return NotImplemented
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]

    # The array's rules for cycles

    def shifted(self, config: ArrayConfig, now: int, w: np.ndarray, not_before: int) -> Queues:
        """Return these queues and a tile: after the last shift and the last swap."""
        start, _ = self._next_starts(config, now, 0, not_before, 0)
        tile = QueuedTile(start, w, config.rows)
        return replace(self, tiles=(*self.tiles, tile), shift_stop=tile.stop, loaded=True)

    def swapped(self, not_before: int) -> Queues:
        """Return these queues and a swap, which happens with the next row."""
        if not self.loaded:
            raise ValueError("no weights were shifted in since the last swap: call shift(w) first")
        return replace(self, swap_waiting=True, swap_not_before=not_before, loaded=False)

    def streamed(self, now: int, x: Rows, not_before: int, sink: Sink | None = None) -> Queues:
        """Return these queues and rows: after the last rows, and with a swap once its tile is shifted in."""
        start, queues = max(now, self.stream_stop, not_before), self
        if self.swap_waiting:
            start = max(start, self.shift_stop, self.swap_not_before)
            queues = replace(self, swap_at=start, swap_waiting=False)
        stream = QueuedStream(start, x, self.swap_waiting, start, x.shape[0], sink=sink)
        return replace(queues, streams=(*self.streams, stream), stream_stop=stream.stop)

    def folded(
        self, config: ArrayConfig, now: int, w: np.ndarray, x: Rows, sink: Sink | None, shift: int, swap: int
    ) -> Queues:
        """Return these queues, a tile, its swap and its rows, not before two cycles; in one copy."""
        tile, stream = queued_fold(config, w, x, *self._next_starts(config, now, len(w), shift, swap), sink)
        # replace() takes as long as all the rest.
        return Queues(
            below=self.below,
            tiles=(*self.tiles, tile),
            streams=(*self.streams, stream),
            shift_stop=tile.stop,
            swap_at=stream.leaves,
            stream_stop=stream.stop,
            outputs=self.outputs,
        )

    def _next_starts(
        self, config: ArrayConfig, now: int, k: int, not_before: int, swap_not_before: int
    ) -> tuple[int, int]:
        # The two times of a fold of w of k rows that is queued next.
        if self.swap_waiting:
            raise ValueError("a swap waits for its first row of x: call stream(x) before the next shift(w)")
        earliest = max(now, not_before)
        if not config.double_buffered:
            earliest = max(earliest, self.drained_at(config, now))
        line = self.shift_stop, self.swap_at, self.stream_stop
        return config.dataflow_record.starts(line, config.rows, k, earliest, max(now, swap_not_before))

    def drained_at(self, config: ArrayConfig, now: int) -> int:
        """Return the cycle at which the last queued beat has left the last PE."""
        # They stop in the order in which they are queued.
        beats = [queued[-1].stop for queued in (self.tiles, self.streams) if queued]
        if not beats:
            return now
        return max(now, max(beats) + config.rows + config.cols - 2)

    def ports_free_at(self, config: ArrayConfig, psums: bool) -> int:
        """Return the cycle from which on no queued value passes a port.

        With `psums`, streams count until their last row has passed the north psum ports as well.
        """
        rows, longer = config.rows, max(config.rows, config.cols)
        due = [tile.stop + longer - 1 for tile in self.tiles]
        return max([0, *due, *(stream.stop + (longer if psums else rows) - 1 for stream in self.streams)])

    def check(self, config: ArrayConfig, now: int) -> None:
        """Raise ValueError if these are the queues of another array, or of another cycle than `now`."""
        rows, cols, numbers = config.rows, config.cols, config.format
        tiles, streams = [tile.w for tile in self.tiles], [stream.x for stream in self.streams]
        fits = self.below.shape == (cols - 1, cols) and self.below.dtype == numbers.sum
        dataflow, types = config.dataflow_record, config.register_dtypes
        fits = fits and all(w.shape[0] <= dataflow.steps(0, len(w), 0, rows, cols, 0)[1] for w in tiles)
        fits = fits and all(w.shape[1] <= cols for w in tiles)
        fits = fits and all(x.shape[1] <= rows for x in streams)
        north, west = (types[dataflow.register_of(role).name] for role in OPERANDS)
        fits = fits and all(w.dtype == north for w in tiles)
        fits = fits and all(x.dtype == west for x in streams if isinstance(x, np.ndarray))
        if not (fits and self._times_fit(config)):
            raise ValueError(
                "the queues of this state belong to an array of another size, dataflow or types; restore it "
                "into an array of the configuration that it comes from, or drop the queues with "
                "replace(queues=None)"
            )
        first = now - (rows - 1) - (cols - 1)
        for stream in self.streams:
            left = min(max(first - stream.leaves, 0), stream.lines)
            if stream.sink is None and sum(map(len, stream.done)) != left:
                raise ValueError(
                    f"the queues of this state belong to another cycle than {now}, or to another number of "
                    "rows: a stream is in flight; leave them as they were, or drop the queues with "
                    "replace(queues=None)"
                )

    def _times_fit(self, config: ArrayConfig) -> bool:
        """Return whether every tile and stream takes the beats that this array gives it."""
        if not config.dataflow_record.held:
            return all(tile.beats == config.rows for tile in self.tiles) and all(
                (s.leaves, s.lines) == (s.start, s.x.shape[0]) for s in self.streams
            )
        # A tile and a stream are queued together, and the tile is dropped first.
        lengths = {s.start: s.x.shape[0] for s in self.streams}
        return (
            not (self.loaded or self.swap_waiting)
            and all(tile.beats == len(tile.w) == lengths.get(tile.start) for tile in self.tiles)
            and all(s.lines == config.rows and s.leaves >= s.start + s.x.shape[0] for s in self.streams)
        )

    def collected(self, config: ArrayConfig, now: int, below: np.ndarray, cycles: int) -> Queues:
        """Return these queues after so many edges from `now`.

        `below`, (cycles + cols - 1, cols), holds the psums that left the array, by rows of x. Complete rows
        go to their stream's sink or, once the stream ends, to the outputs.
        """
        rows, cols = config.rows, config.cols
        dataflow = config.dataflow_record
        # The first `cycles` rows have left in all columns.
        first = now - (rows - 1) - (cols - 1)
        streams: list[QueuedStream] = []
        outputs = self.outputs
        last = first + cycles
        for stream in self.streams:
            start, stop = max(stream.leaves, first), min(stream.stop, last)
            if start < stop:
                out = below[start - first : stop - first]
                if stream.sink is not None:
                    row = start - stream.leaves
                    if dataflow.held:
                        row, out = dataflow.by_rows(row, out, stream.x.shape[1], rows)
                    if len(out):
                        stream.sink(row, out)
                else:
                    # A view would keep the whole buffer alive; copy a few rows.
                    kept = out if 2 * len(out) > cycles + cols else out.copy()
                    stream = replace(stream, done=(*stream.done, kept))
            if stream.stop <= last:
                if stream.sink is None:
                    output = stream.done[0] if len(stream.done) == 1 else np.concatenate(stream.done)
                    if dataflow.held:
                        _, output = dataflow.by_rows(0, output, stream.x.shape[1], rows)
                    output.flags.writeable = False
                    outputs = (*outputs, output)
            else:
                streams.append(stream)
        # A tile is kept until its last beat has left the last PE.
        oldest = now + cycles - (rows + cols - 2)
        tiles = tuple(tile for tile in self.tiles if tile.stop > oldest)
        # No stream needs them.
        left = no_psums(cols, below.dtype)
        if streams:
            left = np.empty((cols - 1, cols), below.dtype)
            copy(left, below[cycles:])
        return replace(self, tiles=tiles, streams=tuple(streams), outputs=outputs, below=left)

    @classmethod
    def empty(cls, cols: int, sum_dtype: Any, now: int = 0) -> Queues:
        """Return queues with nothing in them at cycle `now`, above sums of this type."""
        return cls(no_psums(cols, sum_dtype), shift_stop=now, swap_at=now, stream_stop=now)


def queued_fold(
    config: ArrayConfig, w: np.ndarray, x: Rows, shift: int, swap: int, sink: Sink | None = None
) -> tuple[QueuedTile, QueuedStream]:
    """Return the tile and the stream of a fold whose two times are these: :attr:`Dataflow.fold_times`."""
    if config.dataflow_record.held:
        return QueuedTile(shift, w, len(w)), QueuedStream(shift, x, True, swap, config.rows, sink=sink)
    return QueuedTile(shift, w, config.rows), QueuedStream(swap, x, True, swap, x.shape[0], sink=sink)


@lru_cache(maxsize=16)
def no_psums(cols: int, sum_dtype: Any) -> np.ndarray:
    """Return the psums below an array of so many columns when no stream is in flight: zeros."""
    return np.broadcast_to(np.zeros((), sum_dtype), (cols - 1, cols))


def _same(a: Any, b: Any) -> bool:
    """Whether two queues, or two things in them, are equal, arrays by their values."""
    if isinstance(a, np.ndarray):
        return _check.same_values(a, b)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, QueuedStream) and isinstance(b, QueuedStream):
        # However a run was cut into bursts.
        a, b = (replace(s, done=(np.concatenate(s.done),) if s.done else ()) for s in (a, b))
    if isinstance(a, Queues | QueuedTile | QueuedStream):
        return type(a) is type(b) and all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)


def copy(target: np.ndarray, source: np.ndarray) -> None:
    """Copy a matrix in parts: it takes gigabytes below a wide array, and Ctrl-C waits for one part only."""
    rows = max(1, _COPIED // max(source.shape[1], 1))
    for first in range(0, len(source), rows):
        target[first : first + rows] = source[first : first + rows]


# Elements copied between two checks for Ctrl-C.
_COPIED = 1 << 23
