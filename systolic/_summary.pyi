from collections.abc import Mapping

from numpy import int64
from numpy.typing import NDArray

KINDS: dict[str, int]
COUNTS: tuple[str, ...]

def expand(
    steps: NDArray[int64],
    tensors: tuple[NDArray[int64], ...],
    instances: tuple[NDArray[int64], ...],
    half: int,
    operands: int,
    products: int,
) -> tuple[NDArray[int64], NDArray[int64], NDArray[int64], NDArray[int64], dict[str, int]]: ...
def times(
    work: NDArray[int64],
    ub: NDArray[int64],
    ub_segments: int,
    host: NDArray[int64],
    host_segments: int,
    busy: NDArray[int64],
    counts: Mapping[str, int],
    rows: int,
    cols: int,
    double_buffered: bool,
    factor: int,
    tile_transfer: int,
    weight_latency: int,
    fifo_tiles: int,
    ahead: int,
    host_latency: int,
    activation_latency: int,
    issue: int,
    passes: int,
) -> tuple[int, ...]: ...
def first_fit(
    rows: NDArray[int64], starts: NDArray[int64], stops: NDArray[int64], order: NDArray[int64]
) -> list[int]: ...
