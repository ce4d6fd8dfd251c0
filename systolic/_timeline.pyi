from numpy import int64, uint8
from numpy.typing import NDArray

def run(
    opcode: NDArray[uint8],
    busy: NDArray[int64],
    new_weights: NDArray[uint8],
    tile_dispatcher: NDArray[int64],
    first_range: NDArray[int64],
    memory: NDArray[uint8],
    is_write: NDArray[uint8],
    low: NDArray[int64],
    high: NDArray[int64],
    segments: NDArray[int64],
    rows: int,
    cols: int,
    double_buffered: bool,
    tile_transfer: int,
    weight_latency: int,
    fifo_tiles: int,
    host_latency: int,
    activation_latency: int,
    issue: int,
    times: NDArray[int64],
    multiplies: NDArray[int64],
    fetches: NDArray[int64],
) -> int: ...
