from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8] | NDArray[np.uint8] | NDArray[Any]

def _table() -> str: ...
def _use(isa: int | None = None) -> None: ...
def _available() -> list[int]: ...
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
def im2col_transposed(
    x: Codes,
    out: Codes,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
    out_size: tuple[int, int],
    pad_value: int,
    k_start: int,
    m_start: int,
) -> None: ...
def im2col(
    x: Codes,
    out: Codes,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
    out_size: tuple[int, int],
    pad_value: int,
    k_start: int,
    m_start: int,
) -> None: ...
def convolve(
    x: Codes,
    weights: Codes,
    acc: NDArray[np.int32] | None,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
    out_size: tuple[int, int],
    pad_value: int,
    *,
    images: tuple[int, int],
    pixels: tuple[int, int],
    channels_last: bool = False,
    codes: Codes | None = None,
    scale: NDArray[np.float32] | None = None,
    zero_point: int = 0,
    constant: NDArray[np.int32] | None = None,
    threads: int = 1,
    spent: NDArray[np.int64] | None = None,
) -> None: ...
