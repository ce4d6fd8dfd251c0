"""One product or one convolution on the array: ``matmul``, ``conv2d`` and their ``Result``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from systolic import _check
from systolic._show.progress import shown
from systolic._show.table import card, percent
from systolic.config import ArrayConfig, MachineConfig, given_array
from systolic.energy import DEFAULT, TABLES, Activity, Energy, Toggles
from systolic.formats import OPERANDS
from systolic.gemm import Gemm, Progress
from systolic.layers.conv import lower_conv2d
from systolic.lowered import Lowered, Patches, lower_matmul
from systolic.machine import Execution, run_cycles, run_wavefront
from systolic.machine.operands import zero_macs
from systolic.stats import Stats
from systolic.threads import thread_count
from systolic.tiling import Folds
from systolic.tiling.mappings import check_mapping, laid_out
from systolic.trace import Probe, Trace
from systolic.trace.recording import probes_of, trace_among

MODES = ("cycle", "wavefront")
"""The names of the modes: every register on every cycle, or the same results faster."""

ProgressArgument = bool | Progress | None


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Accumulators of a product and what it cost.

    Attributes
    ----------
    acc : ndarray of int32
        The accumulators: (M, N) from :func:`matmul`, an image from :func:`conv2d`.
    gemm : Gemm
        Sizes of the product, or of the products a convolution was lowered to, in the layout of its mapping.
    array : ArrayConfig
        As given; the operand types were those of x and w.
    stats : Stats
    mode : str
    trace : Trace or None
        What was recorded.
    typed_array : ArrayConfig or None
        The array with the operand types of x and w; None is `array`.
    toggles : dict of str to int, or None
        Bits that each register changed, if a :class:`~systolic.energy.Toggles` probe counted them.
    zero_macs : int or None
        MACs with an operand that is zero, counted together with them.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, matmul
    >>> matmul(np.int8([[1, 2]]), np.int8([[3], [4]]), array=ArrayConfig(2, 2))
    <Result (1, 1) int32 on 2 x 2: 5 cycles, 1 fold, utilization 10.0%>
    """

    acc: np.ndarray
    gemm: Gemm
    array: ArrayConfig
    stats: Stats
    mode: str
    trace: Trace | None = None
    typed_array: ArrayConfig | None = None
    toggles: dict[str, int] | None = None
    zero_macs: int | None = None

    @property
    def energy(self) -> Energy:
        """The energy of the product by the 45nm table; ``.energy.using("7nm")`` takes another.

        Registers count by their toggles if a :class:`~systolic.energy.Toggles` probe counted them.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import ArrayConfig, matmul
        >>> from systolic.energy import Toggles
        >>> x, w = np.int8([[1, 2], [0, 3]]), np.int8([[3], [4]])
        >>> counts = matmul(x, w, array=ArrayConfig(2, 2), probe=Toggles()).energy.counts
        >>> counts["macs"], counts["zero_macs"], counts["gated_pe_cycles"], counts["toggles"]["psum"]
        ({'int8 x int8, sums of 32 bits that wrap': 4}, 1, 20, 12)
        """
        activity = Activity(
            name="product", layer=repr(self.gemm), stats=self.stats, array=self.typed_array or self.array,
            toggles=self.toggles, zero_macs=self.zero_macs,
        )  # fmt: skip
        return Energy((activity,), MachineConfig(self.array), TABLES[DEFAULT])

    @property
    def cycles(self) -> int:
        """Clock edges from reset to the last psum."""
        return self.stats.cycles

    @property
    def folds(self) -> Folds:
        """The folds, in order, with the cycles of their shift and swap."""
        return Folds(self.gemm, self.array)

    @property
    def utilization(self) -> float:
        """Useful MACs over PE-cycles."""
        return self.stats.utilization

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the accumulators: ``np.asarray(result)`` is ``result.acc``.

        Examples
        --------
        >>> import numpy as np
        >>> from systolic import matmul
        >>> np.asarray(matmul(np.int8([[1, 2]]), np.int8([[3], [4]])), dtype=float)
        array([[11.]])
        """
        if copy is None:
            return np.asarray(self.acc, dtype)
        return np.array(self.acc, dtype, copy=copy)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values, as JSON can hold it."""
        return {
            "gemm": self.gemm.to_dict(),
            "array": self.array.to_dict(),
            "mode": self.mode,
            "stats": self.stats.to_dict(),
            "utilization": self.utilization,
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per fold."""
        return self.folds.to_frame()

    def plot(self) -> Any:
        """Draw the folds' shifts, streams and drains over time; returns a matplotlib Figure."""
        from systolic._show.folds import plot_timeline

        dataflow = self.array.dataflow_record
        lines = "k" if dataflow.held else "n" if dataflow.exchanged else "m"
        names = ("x", "w") if dataflow.exchanged else ("weights", "x and w" if dataflow.held else "x")
        return plot_timeline(
            [(f"fold {i}", f.shift_cycle, f.swap_cycle, getattr(f, lines)) for i, f in enumerate(self.folds)],
            rows=self.array.rows,
            cols=self.array.cols,
            held=dataflow.held,
            names=names,
        )

    def __repr__(self) -> str:
        folds = f"{self.stats.folds:,} fold{'' if self.stats.folds == 1 else 's'}"
        return (
            f"<Result {_check.shape(self.acc.shape)} {self.acc.dtype} on {self.array.rows} x "
            f"{self.array.cols}: {self.cycles:,} cycles, {folds}, utilization {percent(self.utilization)}>"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("product", repr(self.gemm)),
            ("accumulators", f"{_check.shape(self.acc.shape)} {self.acc.dtype}"),
            ("array", f"{self.array.rows} x {self.array.cols}, {self.mode} mode"),
            ("cycles", f"{self.cycles:,}"),
            ("folds", f"{self.stats.folds:,}"),
            ("MACs", f"{self.stats.macs:,}"),
            ("utilization", percent(self.utilization)),
        ]
        return card("Result", rows)


def matmul(
    x: Any,
    w: Any,
    *,
    array: ArrayConfig | MachineConfig | None = None,
    machine: MachineConfig | ArrayConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
    progress: ProgressArgument = None,
    trace: bool | Trace | None = None,
    probe: Probe | Iterable[Probe] | None = None,
) -> Result:
    """Multiply two matrices on the array.

    Parameters
    ----------
    x : array_like of int8, uint8 or another type of ``ArrayConfig``, (M, K)
        Activations, the moving operand.
    w : array_like of a type that goes with x's, (K, N)
        Weights, the stationary operand unless the array has another dataflow.
    array : ArrayConfig or MachineConfig, optional
        Default 256 x 256. The operand types are those of x and w; only the array of a machine is used.
    machine : MachineConfig or ArrayConfig, optional
        Another name of `array`; one of the two may be given.
    mode : {"cycle", "wavefront"}
        "cycle" computes every register of every PE on every cycle; "wavefront" works in local
        time, where the array is a plain product: the same sums and cycles, faster.
    threads : int, optional
        None: see :func:`systolic.set_threads`. Results do not depend on it.
    progress : bool or callable, optional
        True shows a bar on a terminal and in a notebook if tqdm is installed (``pip install
        "systolic[progress]"``), and lines elsewhere; a callable gets (done, total).
    trace : bool or Trace, optional
        Records registers, in cycle mode; True records all of them.
    probe : Probe or sequence of Probe, optional
        Look at registers or change them, in cycle mode.

    Returns
    -------
    Result
        ``.acc`` holds the sums, (M, N): of 8-bit integers the exact product modulo 2^32, int32; of floats
        float32, added in the order of the array.

    Raises
    ------
    TypeError
        If an operand has no type of the array's.
    ValueError
        If an operand is not a matrix, the two differ in K, or their types do not go together.

    Notes
    -----
    The operands become lowered work, data that both modes run: see :mod:`systolic.lowered`.

    Examples
    --------
    >>> import numpy as np
    >>> import systolic
    >>> x = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
    >>> w = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
    >>> result = systolic.matmul(x, w, array=systolic.ArrayConfig(rows=2, cols=3))
    >>> result.acc
    array([[  27,   14,  -15],
           [  61,   20,  -21],
           [  25,  106, -117]], dtype=int32)
    >>> result.cycles
    8
    """
    config = given_array(array, machine, _USUAL)
    x, w = _check.matrices(x, w, tuple(OPERANDS))
    probes = probes_for(trace, probe, mode)
    return _result(lower_matmul(x, w), config, mode, threads, progress, probes)


def conv2d(
    x: Any,
    w: Any,
    *,
    stride: int | tuple[int, int] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    layout: str = "NCHW",
    x_zero_point: int = 0,
    mapping: str | None = None,
    array: ArrayConfig | MachineConfig | None = None,
    machine: MachineConfig | ArrayConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
    progress: ProgressArgument = None,
    trace: bool | Trace | None = None,
    probe: Probe | Iterable[Probe] | None = None,
) -> Result:
    """Convolve 8-bit images with 8-bit weights on the array.

    Parameters
    ----------
    x : array_like of int8 or uint8, (batch, ic, ih, iw), or (batch, ih, iw, ic) for "NHWC"
    w : array_like of int8 or uint8, (oc, ic // groups, kh, kw)
    stride, dilation : int or (int, int)
    padding : int, (h, w), ((top, bottom), (left, right)), "same", "same_lower" or "valid"
        "same" is ONNX's SAME_UPPER.
    groups : int
        Blocks of channels convolved separately; ic for a depthwise convolution. They run as one
        sequence of folds, groups outermost.
    layout : {"NCHW", "NHWC"}
        Of x and of the result.
    x_zero_point : int
        The value of padded pixels. It is not subtracted: accumulators are sums of raw products.
    mapping : {"im2col", "taps", "pack", "best"}, optional
        How the product is laid out, which changes cycles and no result. "im2col" (default): K over (ic, kh,
        kw). "taps": one tap of the kernel at a time, K over (kh, kw, ic). "pack": several groups share a
        tile, with zeros between them. "best": what takes the fewest cycles. See ``docs/mappings.md``.
    array, machine, mode, threads, progress, trace, probe
        As for :func:`matmul`.

    Returns
    -------
    Result
        ``.acc`` holds the accumulators modulo 2^32, (batch, oc, oh, ow) int32, in the layout.

    Raises
    ------
    TypeError, ValueError
        If types, shapes, groups or geometry do not fit together, or the mapping does not fit the groups.

    Notes
    -----
    The product has M over (batch, oh, ow) and, unless mapped otherwise, K over (ic, kh, kw), first index
    outermost, for every layout of the images. The im2col matrix is lowered in pieces and never held whole.

    Examples
    --------
    >>> import numpy as np
    >>> import systolic
    >>> x = np.arange(16, dtype=np.int8).reshape(1, 1, 4, 4)
    >>> w = np.ones((1, 1, 3, 3), dtype=np.int8)
    >>> systolic.conv2d(x, w, array=systolic.ArrayConfig(16, 16)).acc
    array([[[[45, 54],
             [81, 90]]]], dtype=int32)

    Depthwise, with two mappings:

    >>> x = np.ones((1, 16, 8, 8), dtype=np.int8)
    >>> w = np.ones((16, 1, 3, 3), dtype=np.int8)
    >>> [systolic.conv2d(x, w, groups=16, mapping=name).cycles for name in ("im2col", "pack")]
    [4642, 802]
    """
    config = given_array(array, machine, _USUAL)
    lowered = lower_conv2d(
        x,
        w,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        layout=layout,
        pad_value=x_zero_point,
    )
    if mapping is not None:
        check_mapping(mapping, lowered.gemm.groups)
        lowered = with_mapping(lowered, mapping, config)
    return _result(lowered, config, mode, threads, progress, probes_for(trace, probe, mode))


_USUAL = ArrayConfig()


def _result(
    lowered: Lowered,
    config: ArrayConfig,
    mode: str,
    threads: int | None,
    progress: ProgressArgument,
    probes: tuple[Probe, ...],
) -> Result:
    workers = thread_count(threads)
    if progress is None:  # the usual case, and small products take microseconds
        done = execute(lowered, config, mode, workers, None, probes)
    else:
        with shown(progress, f"{mode} mode") as report:
            done = execute(lowered, config, mode, workers, report, probes)
    trace = trace_among(probes) if probes else None
    return Result(done.output, lowered.gemm, config, done.stats, mode, trace, *done[3:])


def with_mapping(lowered: Lowered, mapping: str, config: ArrayConfig) -> Lowered:
    """Return a convolution in the layout that a mapping chooses on an array."""
    x = lowered.x
    assert isinstance(x, Patches)
    typed = config.for_operands(x.dtype, lowered.w.dtype)
    return lowered._replace(gemm=laid_out(lowered.gemm, x.kernel[0] * x.kernel[1], mapping, typed))


def probes_for(trace: Any, probe: Any, mode: str) -> tuple[Probe, ...]:
    """Return ``trace=`` and ``probe=`` arguments as probes, checked together with the mode."""
    if trace is None and probe is None and isinstance(mode, str) and mode in MODES:
        return ()
    _check.choice(mode, "mode", MODES)
    probes = probes_of(trace, probe)
    if probes and mode != "cycle":
        if trace not in (None, False):
            raise ValueError(f"a trace needs mode='cycle': {mode} mode has no registers to record")
        raise ValueError(f"a probe needs mode='cycle': {mode} mode has no registers to look at")
    return probes


def execute(
    lowered: Lowered,
    config: ArrayConfig,
    mode: str,
    workers: int = 1,
    report: Progress | None = None,
    probes: Sequence[Probe] = (),
) -> Execution:
    """Run lowered work in a mode: the one place that chooses between the two."""
    if mode == "wavefront":
        return run_wavefront(lowered, config, workers=workers, report=report)
    counter = next((probe for probe in probes if isinstance(probe, Toggles)), None)
    before = {} if counter is None else counter.counts
    done = run_cycles(lowered, config, workers=workers, report=report, probes=probes)
    if counter is None:
        return done
    if before.keys() != counter.counts.keys():
        before = {}
    toggles = {name: count - before.get(name, 0) for name, count in counter.counts.items()}
    return done._replace(toggles=toggles, zero_macs=zero_macs(lowered))
