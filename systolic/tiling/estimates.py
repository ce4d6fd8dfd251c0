"""Costs of products in closed form: one in Python's integers, many at once in numpy's int64."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from systolic import _check
from systolic.config import ArrayConfig
from systolic.dataflows import DATAFLOWS, Dataflow, Sizes
from systolic.formats import Format, packed_bytes
from systolic.gemm import Gemm
from systolic.stats import Stats
from systolic.tiling.fold import sizes_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def estimate_cycles(
    m: ArrayLike,
    k: ArrayLike,
    n: ArrayLike,
    *,
    rows: ArrayLike,
    cols: ArrayLike,
    double_buffered: ArrayLike = True,
    accumulator_rows: ArrayLike | None = 4096,
    groups: ArrayLike = 1,
    taps: ArrayLike = 1,
    pack: ArrayLike = 1,
    dataflow: str = "weight_stationary",
) -> np.ndarray:
    """Return the cycles of products (m, k) x (k, n) in closed form, without data.

    All arguments broadcast: one call takes any number of products on any number of arrays.

    Parameters
    ----------
    m, k, n : array_like of int
        Sizes; a product with a size of 0 takes 0 cycles.
    rows, cols : array_like of int
        Sizes of the array.
    double_buffered : array_like of bool
        Whether the next tile is shifted in behind the current one.
    accumulator_rows : array_like of int, or None
        Accumulators below the array; a fold streams at most half of them. None, also among
        integers in a list, means unlimited.
    groups : array_like of int
        Equal products run as one sequence.
    taps, pack : array_like of int
        Their layout: see :class:`~systolic.Gemm`.
    dataflow : {"weight_stationary", "output_stationary", "input_stationary"}
        Of all arrays.

    Returns
    -------
    ndarray of int64
        Of the shape the arguments broadcast to.

    Raises
    ------
    TypeError
        If a size is not an integer or `double_buffered` not True or False.
    ValueError
        If a size is negative (or zero for rows, cols, groups), `accumulator_rows` below 2, the
        shapes do not broadcast, or some cycles do not fit int64.

    See Also
    --------
    estimate_many : All counts of ``Stats`` at once.
    estimate : One product or model, of any size.

    Notes
    -----
    Weight stationary, with chunks of ``h = accumulator_rows // 2`` rows of x there are ``T = groups
    ceil(k/rows) ceil(n/cols)`` tiles, each loaded once per chunk; ``q = ceil(m/h) - 1`` chunks are full and
    the last holds ``z = m - q h`` rows. Double-buffered:
    ``rows + T (q max(h, rows) + max(z, rows)) - max(z, rows) + z + rows + cols - 2``;
    otherwise ``T ((q + 1) (2 rows + cols - 2) + m)``, for one chunk SCALE-Sim's formula (its
    tool prints one less: the index of the last cycle). Input stationary is the same with m and n exchanged.
    Output stationary there are ``F = groups ceil(m/rows) ceil(n/cols)`` folds: double-buffered
    ``k + (F - 1) max(k, rows) + 2 rows + cols - 2``, otherwise ``F (2 rows + cols + k - 2)``.

    Examples
    --------
    >>> from systolic import estimate_cycles
    >>> estimate_cycles(3, 2, 3, rows=2, cols=3)
    array(8)
    >>> estimate_cycles([1, 1024], 256, 256, rows=256, cols=256)
    array([ 767, 1790])
    >>> estimate_cycles([1, 1024], 256, 256, rows=256, cols=256, dataflow="output_stationary")
    array([1022, 1790])

    Two products (down) on three arrays (across):

    >>> estimate_cycles([[1], [3136]], 576, 64, rows=[64, 128, 256], cols=[64, 128, 256])
    array([[  703,   895,  1279],
           [28414, 16062, 10174]])
    """
    record = DATAFLOWS[_check.choice(dataflow, "dataflow", tuple(DATAFLOWS))]
    sizes, _ = _sizes(
        record, m, k, n, rows, cols, groups, taps, pack, double_buffered, accumulator_rows
    )  # fmt: skip
    return np.asarray(_fitting(sizes, lambda s: {"cycles": record.cycles(s)})["cycles"])


def estimate_many(
    m: ArrayLike,
    k: ArrayLike,
    n: ArrayLike,
    *,
    rows: ArrayLike,
    cols: ArrayLike,
    double_buffered: ArrayLike = True,
    accumulator_rows: ArrayLike | None = 4096,
    groups: ArrayLike = 1,
    taps: ArrayLike = 1,
    pack: ArrayLike = 1,
    dataflow: str = "weight_stationary",
    numbers: Format | None = None,
) -> dict[str, np.ndarray]:
    """Return the counts of ``Stats`` for many products and arrays at once, for sweeps.

    Parameters and errors are those of :func:`estimate_cycles`; every count must fit int64. Bytes are those of
    `numbers`, ``ArrayConfig.format``; by default of int8.

    Returns
    -------
    dict of str to ndarray
        The fields of :class:`~systolic.Stats` as int64, without those that the ideal machine does not have
        (cycles by cause, weight memory, host, vector unit), and ``utilization`` as float64, all of the shape
        the arguments broadcast to.
        ``pandas.DataFrame`` takes it if that has one axis.

    Examples
    --------
    >>> from systolic import estimate_many
    >>> sides = [64, 128, 256]
    >>> result = estimate_many(3136, 576, 64, rows=sides, cols=sides)
    >>> result["cycles"], result["folds"]
    (array([28414, 16062, 10174]), array([18, 10,  6]))
    >>> result["utilization"].round(3)
    array([0.993, 0.439, 0.173])
    """
    record = DATAFLOWS[_check.choice(dataflow, "dataflow", tuple(DATAFLOWS))]
    sizes, shape = _sizes(
        record, m, k, n, rows, cols, groups, taps, pack, double_buffered, accumulator_rows
    )  # fmt: skip
    counts = _fitting(sizes, lambda s: _counts(s, record, numbers or _DEFAULT_FORMAT))
    # Those that do not depend on the array have fewer axes than the others.
    result = {name: np.broadcast_to(count, shape).copy() for name, count in counts.items()}
    result["utilization"] = result["macs"] / np.maximum(result["pe_cycles"], 1)
    return result


def _sizes(
    dataflow: Dataflow, m: Any, k: Any, n: Any, rows: Any, cols: Any, groups: Any, taps: Any, pack: Any,
    double_buffered: Any, accumulator_rows: Any,
) -> tuple[Sizes, tuple[int, ...]]:  # fmt: skip
    """Return checked arguments and how they cut x and w, and the shape they broadcast to."""
    given = {
        "m": m, "k": k, "n": n, "rows": rows, "cols": cols, "groups": groups, "taps": taps, "pack": pack,
    }  # fmt: skip
    sizes = {name: _check.as_array(value, name) for name, value in given.items()}
    for name, size in sizes.items():
        if size.dtype.kind == "b":
            raise TypeError(f"{name} must hold integers, not {_check.kind(given[name])}")
    sizes = {name: _check.integers(size, name, "int64") for name, size in sizes.items()}
    for name, size in sizes.items():
        least = 0 if name in "mkn" else 1
        if size.size and size.min() < least:
            raise ValueError(f"{name} must be at least {least}, not {size.min()}")
    double = _check.as_array(double_buffered, "double_buffered")
    if double.dtype.kind != "b":
        raise TypeError(f"double_buffered must be True or False, not {_check.kind(double_buffered)}")
    half = _half(accumulator_rows)
    arguments = sizes | {"double_buffered": double, "accumulator_rows": half}
    try:
        shape = np.broadcast_shapes(*(value.shape for value in arguments.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {_check.shape(value.shape)}" for name, value in arguments.items())
        raise ValueError(f"the arguments must broadcast together, but are {shapes}") from None
    m, k, n, rows, cols, groups, taps, pack = sizes.values()
    for part, whole in (("taps", "k"), ("pack", "groups")):
        if np.any(sizes[whole] % sizes[part]):
            raise ValueError(f"{part} must divide {whole}")
    for name in "kn" if np.any(pack > 1) else "":
        if np.any(sizes[name] * pack.astype(float) > _LARGEST):
            raise ValueError(f"{name} * pack must fit int64")
    half = np.where(half == 0, np.maximum(n * pack if dataflow.exchanged else m, 1), half)
    return dataflow.cut(m, k, n, rows, cols, groups, double, half, taps, pack), shape


def _half(accumulator_rows: Any) -> np.ndarray:
    """Return half of the accumulators, the rows of x that a chunk may have; 0 for unlimited ones."""
    given = _check.as_array(accumulator_rows, "accumulator_rows")
    unlimited = np.zeros(given.shape, dtype=bool)
    if given.dtype.kind == "O":
        unlimited = np.array([value is None for value in given.flat], dtype=bool).reshape(given.shape)
        # Through a list: numpy finds the type of what is left.
        given = np.array(np.where(unlimited, 2, given).tolist())
    rows = _check.integers(given, "accumulator_rows", "int64")
    if rows.size and rows.min() < 2:
        raise ValueError(
            "accumulator_rows must be at least 2 (two halves, one filling while the other drains) or None "
            f"for unlimited, not {rows.min()}"
        )
    return np.where(unlimited, 0, rows // 2)


def _counts(s: Sizes, dataflow: Dataflow, numbers: Format) -> dict[str, Any]:
    """Return the fields of ``Stats`` on the ideal machine, of integers or of arrays."""
    cycles = dataflow.cycles(s)
    outputs = s.groups * s.m * s.n
    enters = s.groups * s.chunks * s.n
    streams = s.groups * s.n_tiles * s.m
    weights, activations = (streams, enters) if dataflow.exchanged else (enters, streams)
    own = s.k // s.pack  # elements that are no zeros between groups
    weight_bytes = packed_bytes(weights * own, numbers.weight_bits)
    activation_bytes = packed_bytes(activations * s.k, numbers.activation_bits)
    partial_sums = outputs * s.k_tiles
    return {
        "cycles": cycles,
        "macs": outputs * own,
        "pe_cycles": s.rows * s.cols * cycles,
        "folds": s.groups * s.chunks * s.k_tiles * s.n_tiles,
        "weight_bytes": weight_bytes,
        "activation_bytes": activation_bytes,
        "output_bytes": outputs * numbers.sum_bytes,
        "partial_sums": partial_sums,
        # Each is written, and read as the next k tile is added to it or as it is drained.
        "accumulator_bytes": 2 * partial_sums * numbers.sum_bytes,
        "unified_buffer_bytes": activation_bytes + packed_bytes(outputs, numbers.activation_bits),
        "weight_fifo_bytes": 2 * weight_bytes,
    }


_DEFAULT_FORMAT = ArrayConfig().format

# The largest count returned: 2^63 minus a margin for float64 rounding.
_LARGEST = 2.0**63 - 2.0**16


def _fitting(sizes: Sizes, formulas: Callable[[Sizes], dict[str, Any]]) -> dict[str, Any]:
    """Return the values of closed forms in int64; ValueError if one does not fit."""
    # int64 wraps silently, so the size of the result is taken from float64. A result that fits is
    # right even if a part of it wrapped on the way: the arithmetic is modulo 2^64.
    for name, count in formulas(Sizes(*(np.asarray(value, dtype=float) for value in sizes))).items():
        if np.any(count > _LARGEST):
            raise ValueError(
                f"these sizes take more {name} than int64 holds; estimate(Gemm(m, k, n)) counts in Python's "
                "integers"
            )
    with np.errstate(over="ignore"):
        return formulas(sizes)


@lru_cache(maxsize=4096)
def estimate_gemm(gemm: Gemm, array: ArrayConfig) -> Stats:
    """Return the stats of a product on an array in closed form: every field equal to a run's."""
    sizes = sizes_of(gemm, array)
    return Stats(**_counts(sizes, array.dataflow_record, array.format))
