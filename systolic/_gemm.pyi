from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8] | NDArray[np.uint8] | NDArray[Any]

def multiply(a: Codes, b: Codes, acc: NDArray[np.int32], *, threads: int = 1) -> None: ...
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
def multiply_in_order(
    a: NDArray[Any],
    b: NDArray[Any],
    acc: NDArray[Any],
    *,
    step: int,
    arithmetic: int,
    low: int = 0,
    high: int = 0,
    threads: int = 1,
) -> None: ...
def convolve_in_order(
    x: NDArray[Any],
    weights: NDArray[Any],
    acc: NDArray[Any],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
    out_size: tuple[int, int],
    pad_value: int,
    *,
    group: int,
    first: int,
    step: int,
    arithmetic: int,
    low: int = 0,
    high: int = 0,
    channels_last: bool = False,
    threads: int = 1,
) -> None: ...
