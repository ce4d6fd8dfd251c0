"""In which order a product's tiles and chunks pass: the cheaper one of two, by the machine's own rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_BLOCKS, _CHUNKS = 4, 8
"""What is timed of a product: a few blocks of columns and chunks repeat themselves."""


@dataclass(frozen=True)
class Costs:
    """What decides the order of a product's tiles, in cycles.

    Attributes
    ----------
    rows, cols : int
        Of the array.
    double_buffered : bool
    half : int
        Rows of half the accumulators.
    load, latency : int
        From weight memory to the FIFO: the transfer of a tile, and how much later it arrives.
    fifo : int
        Tiles in the FIFO.
    passes, after : int
        Cycles of the vector unit for each row, and until its results are there.
    """

    rows: int
    cols: int
    double_buffered: bool
    half: int
    load: int
    latency: int
    fifo: int
    passes: int
    after: int


def shares(chunks: Sequence[int], tiles: int, blocks: int, costs: Costs) -> int:
    """Return how many chunks see a tile during one stay of it: 1 or 2.

    With 1, a chunk keeps its half of the accumulators while all tiles pass. With 2, two chunks in both
    halves see each tile one after the other: half the tiles are loaded, but the first chunk's half cannot be
    filled again until it has been read.

    Parameters
    ----------
    chunks : sequence of int
        Rows of each.
    tiles : int
        That add to the same sums.
    blocks : int
        Of output columns.
    costs : Costs
    """
    if len(chunks) == 1:
        return 1
    known = tuple(chunks[:_CHUNKS]), tiles, min(blocks, _BLOCKS), costs
    return 2 if cycles(2, *known) < cycles(1, *known) else 1


@lru_cache(maxsize=1024)
def cycles(together: int, chunks: tuple[int, ...], tiles: int, blocks: int, costs: Costs) -> int:
    """Return when the last sums have been read, if operands are there and tiles come one after the other.

    The rules are those of :mod:`systolic.machine.timeline` for tiles, streams and accumulators.

    Examples
    --------
    >>> array = dict(rows=8, cols=8, double_buffered=True, half=16, fifo=4, latency=0, passes=1, after=0)
    >>> [cycles(n, (16, 16), 4, 2, Costs(load=40, **array)) for n in (1, 2)]
    [695, 391]
    """
    fetched = 0  # end of the last tile's transfer
    shifted: list[int] = []  # end of each tile's shift
    swap = stream_end = vector_free = 0
    read_end, half = [0, 0], 0
    for _ in range(blocks):
        for first in range(0, len(chunks), together):
            some = chunks[first : first + together]
            complete = [0] * len(some)
            for _ in range(tiles):
                room = shifted[-costs.fifo] if len(shifted) >= costs.fifo else 0
                fetched = max(fetched, room) + costs.load
                start = max(fetched + costs.latency, swap)
                if not costs.double_buffered:
                    start = max(start, stream_end + costs.rows + costs.cols - 2)
                shifted.append(start + costs.rows)
                ready = shifted[-1]
                for place, rows in enumerate(some):
                    here = (half + place) % 2
                    begin = max(ready, stream_end, read_end[here] - costs.rows)
                    if not place:
                        swap = begin
                    stream_end = begin + rows
                    complete[place] = stream_end + costs.rows + costs.cols - 1
            for place, rows in enumerate(some):
                vector_free = max(vector_free, complete[place]) + rows * costs.passes
                read_end[(half + place) % 2] = vector_free
            half = (half + len(some)) % 2
    return vector_free + costs.after
