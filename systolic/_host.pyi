from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8] | NDArray[np.uint8] | NDArray[Any]

def requantize(
    acc: NDArray[np.int32],
    out: Codes,
    scale: NDArray[np.float32],
    zero_point: int,
    *,
    constant: NDArray[np.int32] | None = None,
    weight_zero: NDArray[np.int32] | None = None,
    row_sums: NDArray[np.int32] | None = None,
) -> None: ...
def scale_sums(
    acc: NDArray[np.int32],
    out: NDArray[np.float32],
    scale: NDArray[np.float32],
    *,
    constant: NDArray[np.int32] | None = None,
    weight_zero: NDArray[np.int32] | None = None,
    row_sums: NDArray[np.int32] | None = None,
) -> None: ...
def quantize(
    x: NDArray[np.float32], out: Codes, scale: float, zero_point: int, *, threads: int = 1
) -> None: ...
def dequantize(
    q: Codes, out: NDArray[np.float32], scale: float, zero_point: int, *, threads: int = 1
) -> None: ...
def add(
    a: Codes,
    b: Codes,
    out: Codes,
    scales: Sequence[float],
    zero_points: Sequence[int],
    *,
    threads: int = 1,
) -> None: ...
def mul(
    a: Codes,
    b: Codes,
    out: Codes,
    scales: Sequence[float],
    zero_points: Sequence[int],
    *,
    threads: int = 1,
) -> None: ...
def sum_rows(x: Codes, out: NDArray[np.int32]) -> None: ...
def max_pool(
    x: Codes,
    out: Codes,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
    *,
    threads: int = 1,
) -> None: ...
