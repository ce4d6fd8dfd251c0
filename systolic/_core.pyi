from typing import Any

import numpy as np
from numpy.typing import NDArray

lanes: int
ARITHMETICS: dict[tuple[str, str], int]
OPERAND_TYPES: dict[str, int]

def run(
    weight: NDArray[np.uint8],
    next_weight: NDArray[np.uint8],
    weight_pass: NDArray[np.uint8],
    activation: NDArray[np.uint8],
    psum: NDArray[np.int32],
    shift: NDArray[np.uint8],
    swap: NDArray[np.uint8],
    west_activation: NDArray[np.uint8],
    west_shift: NDArray[np.uint8],
    west_swap: NDArray[np.uint8],
    north_weight: NDArray[np.uint8],
    north_psum: NDArray[np.int32],
    bottom: NDArray[np.int32],
    *,
    activation_signed: bool,
    weight_signed: bool,
    threads: int = 1,
    toggles: NDArray[np.int64] | None = None,
) -> None: ...
def run_output_stationary(
    activation: NDArray[np.uint8],
    weight: NDArray[np.uint8],
    acc: NDArray[np.int32],
    out: NDArray[np.int32],
    out_pass: NDArray[np.int32],
    swap: NDArray[np.uint8],
    drain: NDArray[np.uint8],
    west_activation: NDArray[np.uint8],
    west_swap: NDArray[np.uint8],
    west_drain: NDArray[np.uint8],
    north_weight: NDArray[np.uint8],
    north_out: NDArray[np.int32],
    bottom: NDArray[np.int32],
    *,
    activation_signed: bool,
    weight_signed: bool,
    threads: int = 1,
    toggles: NDArray[np.int64] | None = None,
) -> None: ...
def run_numbers(
    registers: dict[str, NDArray[Any]],
    ports: dict[str, NDArray[Any]],
    bottom: NDArray[Any],
    *,
    held: bool,
    arithmetic: int,
    activation: int,
    weight: int,
    low: int = 0,
    high: int = 0,
    threads: int = 1,
) -> None: ...
