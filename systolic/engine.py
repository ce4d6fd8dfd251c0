"""Where a model meets a machine: ``matmul``, ``conv2d``, ``run`` and ``estimate``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic import _check
from systolic._show.progress import shown
from systolic._show.table import Column, Table, card, percent, seconds
from systolic.config import ArrayConfig, MachineConfig, as_array_config, as_machine_config
from systolic.gemm import DenseProduct, Gemm, Product, Progress
from systolic.layers import ArrayLayer, HostLayer, Layer, lower_conv2d
from systolic.machine.control import MODES, run_product
from systolic.machine.ports import product_size
from systolic.model import Model, Node
from systolic.presets import TPU_V1
from systolic.stats import Stats
from systolic.threads import thread_count
from systolic.tiling import Folds, estimate_gemm
from systolic.trace import Trace
from systolic.trace.recording import as_trace

ProgressArgument = bool | Progress | None


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a product gave and what it cost.

    Attributes
    ----------
    acc : ndarray of int32
        The sums: (M, N) from :func:`matmul`, an image from :func:`conv2d`.
    gemm : Gemm
        Sizes of the product, or of the products a convolution was lowered to.
    array : ArrayConfig
    stats : Stats
    mode : str
    trace : Trace or None
        What was recorded.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, matmul
    >>> matmul(np.int8([[1, 2]]), np.int8([[3], [4]]), array=ArrayConfig(2, 2))
    <Result (1, 1) int32 on 2 x 2: 5 cycles, 1 folds, utilization 10.0%>
    """

    acc: np.ndarray
    gemm: Gemm
    array: ArrayConfig
    stats: Stats
    mode: str
    trace: Trace | None = None

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
        from systolic._show.draw import plot_timeline

        bars = [(f"fold {i}", f.shift_cycle, f.swap_cycle, f.m) for i, f in enumerate(self.folds)]
        return plot_timeline(bars, rows=self.array.rows, cols=self.array.cols)

    def __repr__(self) -> str:
        return (
            f"<Result {_check.shape(self.acc.shape)} int32 on {self.array.rows} x {self.array.cols}: "
            f"{self.cycles:,} cycles, {self.stats.folds:,} folds, utilization {percent(self.utilization)}>"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("product", repr(self.gemm)),
            ("sums", f"{_check.shape(self.acc.shape)} int32"),
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
    mode: str = "cycle",
    threads: int | None = None,
    progress: ProgressArgument = None,
    trace: bool | Trace | None = None,
) -> Result:
    """Multiply two 8-bit matrices on the array.

    Parameters
    ----------
    x : array_like of int8 or uint8, (M, K)
        Activations, the moving operand.
    w : array_like of int8 or uint8, (K, N)
        Weights, the stationary operand.
    array : ArrayConfig, optional
        Sizes; default 256 x 256. The operand types are those of x and w.
    mode : {"cycle", "wavefront"}
        "cycle" computes every register of every PE on every cycle; "wavefront" works in local
        time, where the array is a plain product: the same sums and cycles, faster.
    threads : int, optional
        None: see :func:`systolic.set_threads`. Results do not depend on it.
    progress : bool or callable, optional
        True shows a bar; a callable gets (done, total).
    trace : bool or Trace, optional
        Records registers, in cycle mode; True records all of them.

    Returns
    -------
    Result
        ``.acc`` holds the exact product modulo 2^32, (M, N) int32.

    Raises
    ------
    TypeError
        If an operand is not int8 or uint8.
    ValueError
        If an operand is not a matrix or the two differ in K.

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
    x = _check.operand(x, "x", ndim=2, axes="(M, K)")
    w = _check.operand(w, "w", ndim=2, axes="(K, N)")
    product_size(x, w)
    return _result(DenseProduct(x, w), array, mode, threads, progress, trace)


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
    array: ArrayConfig | MachineConfig | None = None,
    mode: str = "cycle",
    threads: int | None = None,
    progress: ProgressArgument = None,
    trace: bool | Trace | None = None,
) -> Result:
    """Convolve 8-bit images with 8-bit kernels on the array, by im2col.

    Parameters
    ----------
    x : array_like of int8 or uint8, (batch, ic, ih, iw), or (batch, ih, iw, ic) for "NHWC"
    w : array_like of int8 or uint8, (oc, ic // groups, kh, kw)
    stride, dilation : int or (int, int)
    padding : int, (h, w), ((top, bottom), (left, right)), "same", "same_lower" or "valid"
        "same" is ONNX's SAME_UPPER.
    groups : int
        Blocks of channels convolved apart; as many as ic for a depthwise convolution. They run
        as one sequence of folds, groups outermost.
    layout : {"NCHW", "NHWC"}
        Of x and of the result.
    x_zero_point : int
        The code that padded pixels carry. The sums are those of raw codes.
    array, mode, threads, progress, trace
        As for :func:`matmul`.

    Returns
    -------
    Result
        ``.acc`` holds the sums modulo 2^32, (batch, oc, oh, ow) int32, in the layout.

    Raises
    ------
    TypeError, ValueError
        If types, shapes, groups or geometry do not fit together.

    Notes
    -----
    The product has M over (batch, oh, ow) and K over (ic, kh, kw), first index outermost, for
    every layout. The im2col matrix is lowered in pieces and never held whole.

    Examples
    --------
    >>> import numpy as np
    >>> import systolic
    >>> x = np.arange(16, dtype=np.int8).reshape(1, 1, 4, 4)
    >>> w = np.ones((1, 1, 3, 3), dtype=np.int8)
    >>> systolic.conv2d(x, w, array=systolic.ArrayConfig(16, 16)).acc
    array([[[[45, 54],
             [81, 90]]]], dtype=int32)
    """
    product = lower_conv2d(
        x,
        w,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        layout=layout,
        pad_value=x_zero_point,
    )
    return _result(product, array, mode, threads, progress, trace)


def _result(
    product: Product,
    array: ArrayConfig | MachineConfig | None,
    mode: str,
    threads: int | None,
    progress: ProgressArgument,
    trace: bool | Trace | None,
) -> Result:
    config = ArrayConfig() if array is None else as_array_config(array)
    recorder = _recorder(trace, mode)
    workers = thread_count(threads)
    with shown(progress, f"{mode} mode") as report:
        stats = _clock(product, config, mode, workers, report, recorder)
    return Result(product.acc, product.gemm, config, stats, mode, recorder)


def _recorder(trace: bool | Trace | None, mode: str) -> Trace | None:
    """Check mode and trace together."""
    _check.choice(mode, "mode", MODES)
    recorder = as_trace(trace)
    if recorder is not None and mode != "cycle":
        raise ValueError(f"a trace needs mode='cycle': {mode} mode has no registers to record")
    return recorder


def _clock(
    product: Product,
    config: ArrayConfig,
    mode: str,
    workers: int,
    report: Progress | None,
    trace: Trace | None = None,
) -> Stats:
    """Run a product; its cycles are those counted, the rest follows from its sizes."""
    cycles = run_product(product, config, mode=mode, workers=workers, report=report, trace=trace)
    rest = estimate_gemm(product.gemm, config).to_dict()
    rest |= {"cycles": cycles, "pe_cycles": config.rows * config.cols * cycles}
    return Stats(**rest)


def estimate(work: Gemm | Model, *, machine: MachineConfig | ArrayConfig = TPU_V1, batch: int = 1) -> Stats:
    """Return what a product or a model costs, in closed form, without data.

    Parameters
    ----------
    work : Gemm or Model
    machine : MachineConfig or ArrayConfig
    batch : int
        Size of the first axis where a model takes any.

    Returns
    -------
    Stats
        Every field equal to that of a run.

    Examples
    --------
    >>> from systolic import Gemm, estimate
    >>> estimate(Gemm(1, 2048, 1000)).cycles
    8703
    """
    config = as_machine_config(machine).array
    if isinstance(work, Gemm):
        return estimate_gemm(work, config)
    if not isinstance(work, Model):
        raise TypeError(f"estimate takes a Gemm or a Model, not {type(work).__name__}")
    shapes = work.trace(work.input_shapes(_check.integer(batch, "batch", minimum=0)))
    gemms = [
        node.layer.products(*(shapes[tensor][0] for tensor in node.inputs))
        for node in work.nodes
        if isinstance(node.layer, ArrayLayer)
    ]
    return sum((estimate_gemm(gemm, config) for gemm in gemms), Stats())


@dataclass(frozen=True)
class LayerRun:
    """One layer of a run.

    Attributes
    ----------
    name, layer : str
        The node's name and the kind of layer.
    shape, dtype : tuple of int, str
        Of the output.
    gemm : Gemm or None
        The product that ran on the array; None for a layer beside it.
    stats : Stats
        Zeros for a layer beside the array.
    wall_seconds : float
        What the emulation took here.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> layer = systolic.run(example.model, example.images[:1], mode="wavefront").layers[1]
    >>> layer.name, layer.gemm, layer.stats.cycles
    ('stem_quant', Gemm(64, 9, 16), 830)
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    gemm: Gemm | None
    stats: Stats
    wall_seconds: float = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {
            "name": self.name,
            "layer": self.layer,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "gemm": None if self.gemm is None else self.gemm.to_dict(),
            "stats": self.stats.to_dict(),
            "utilization": self.stats.utilization,
            "wall_seconds": self.wall_seconds,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """What a model gave and what it cost.

    Attributes
    ----------
    outputs : dict of str to ndarray
        The model's outputs.
    layers : tuple of LayerRun
        A row per layer, in the order they ran.
    machine : MachineConfig
    mode : str
    trace : Trace or None
        What was recorded.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> systolic.run(example.model, example.images[:1], mode="wavefront")
    <Run logits (1, 10) float32: 10,981 cycles (15.7 µs at 700 MHz), utilization 0.07%>
    """

    outputs: dict[str, np.ndarray]
    layers: tuple[LayerRun, ...]
    machine: MachineConfig
    mode: str
    trace: Trace | None = None

    @property
    def stats(self) -> Stats:
        """Totals."""
        return sum((layer.stats for layer in self.layers), Stats())

    @property
    def seconds(self) -> float:
        """Time on the machine at its clock, array cycles only, in seconds."""
        return self.machine.seconds(self.stats.cycles)

    def table(self) -> Table:
        """Return a row per layer: shape, folds, cycles, utilization, time and share of time."""
        total = self.stats
        columns: list[str | Column] = ["layer", "kind", "output", "product", "folds", "cycles"]
        columns += [Column("utilization", format=percent), Column("time", format=seconds)]
        columns += [Column("share", format=percent)]
        rows: list[tuple[Any, ...]] = []
        for layer in self.layers:
            stats, gemm = layer.stats, layer.gemm
            head = (layer.name, layer.layer, _check.shape(layer.shape))
            if gemm is None:
                rows.append((*head, None, None, None, None, None, None))
                continue
            groups = f" x {gemm.groups}" if gemm.groups > 1 else ""
            product = f"{gemm.m} x {gemm.k} x {gemm.n}{groups}"
            time_seconds = self.machine.seconds(stats.cycles)
            share = stats.cycles / total.cycles if total.cycles else 0.0
            rows.append((*head, product, stats.folds, stats.cycles, stats.utilization, time_seconds, share))
        footer = ("total", None, None, None, total.folds, total.cycles, total.utilization, self.seconds, None)
        array = self.machine.array
        title = f"{array.rows} x {array.cols} array at {self.machine.clock_mhz:g} MHz, {self.mode} mode"
        return Table(columns, rows, title=title, footer=footer)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values, as JSON can hold it."""
        return {
            "machine": self.machine.to_dict(),
            "mode": self.mode,
            "stats": self.stats.to_dict(),
            "utilization": self.stats.utilization,
            "machine_seconds": self.seconds,
            "layers": [layer.to_dict() for layer in self.layers],
            "outputs": {name: list(value.shape) for name, value in self.outputs.items()},
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per layer."""
        return self.table().to_frame()

    def __repr__(self) -> str:
        outputs = ", ".join(f"{n} {_check.shape(v.shape)} {v.dtype}" for n, v in self.outputs.items())
        stats = self.stats
        return (
            f"<Run {outputs}: {stats.cycles:,} cycles "
            f"({seconds(self.seconds)} at {self.machine.clock_mhz:g} MHz), "
            f"utilization {percent(stats.utilization)}>"
        )

    def _repr_html_(self) -> str:
        return self.table().html()


Observer = Callable[[Node, list[np.ndarray], np.ndarray], None]
"""Called after each layer with its node, its inputs and its output."""


def run(
    model: Model,
    x: np.ndarray | Mapping[str, np.ndarray],
    *,
    machine: MachineConfig | ArrayConfig = TPU_V1,
    mode: str = "cycle",
    threads: int | None = None,
    progress: ProgressArgument = None,
    trace: bool | Trace | None = None,
    observe: Observer | None = None,
) -> Run:
    """Run a quantized model: dense and convolutional layers on the array, the rest beside it.

    Parameters
    ----------
    model : Model
    x : ndarray or mapping of str to ndarray
        The input, or one for each of the model's inputs by name.
    machine : MachineConfig or ArrayConfig
        What to run on; default the TPU v1 preset.
    mode, threads, progress, trace
        As for :func:`matmul`; a trace records one layer, the one it names or the first on the array.
    observe : callable, optional
        Called as ``observe(node, inputs, output)`` after each layer.

    Returns
    -------
    Run
        ``.outputs`` by name, ``.stats`` in all, ``.layers`` one by one. A layer's product starts
        on an idle array.

    Raises
    ------
    TypeError, ValueError
        If an input is missing, unknown or of the wrong type or shape; before anything runs.

    Examples
    --------
    >>> import systolic
    >>> example = systolic.load_example()
    >>> run = systolic.run(example.model, example.images[:1], mode="wavefront")
    >>> run.outputs["logits"].argmax(), example.labels[0]
    (np.int64(7), np.uint8(7))
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a Model, not {type(model).__name__}; "
            "load_onnx and Model.load read one from a file"
        )
    machine = as_machine_config(machine)
    recorder = _recorder(trace, mode)
    traced = _traced_layer(model, recorder)
    workers = thread_count(threads)
    tensors = _inputs(model, x)
    shapes = model.trace({name: value.shape for name, value in tensors.items()})
    tensors |= model.constants
    readers = _count_readers(model)
    total = sum(
        estimate_gemm(node.layer.products(*(shapes[t][0] for t in node.inputs)), machine.array).cycles
        for node in model.nodes
        if isinstance(node.layer, ArrayLayer)
    )
    done = 0
    rows: list[LayerRun] = []
    with shown(progress, "cycles") as report:
        for node in model.nodes:
            started = time.perf_counter()
            read = [tensors[tensor] for tensor in node.inputs]
            part = _offset(report, done, total, mode)
            record = recorder if node is traced else None
            output, gemm, stats = _run_layer(node.layer, read, machine.array, mode, workers, part, record)
            wall = time.perf_counter() - started
            done += stats.cycles
            if report is not None and gemm is not None:
                report(done, total)
            if observe is not None:
                observe(node, read, output)
            kind = type(node.layer).__name__
            rows.append(LayerRun(node.name, kind, output.shape, output.dtype.name, gemm, stats, wall))
            if readers.get(node.output):
                tensors[node.output] = output
            for tensor in node.inputs:
                readers[tensor] -= 1
                if not readers[tensor]:
                    del tensors[tensor]
    return Run({name: tensors[name] for name in model.outputs}, tuple(rows), machine, mode, recorder)


def _run_layer(
    layer: Layer,
    inputs: list[np.ndarray],
    config: ArrayConfig,
    mode: str,
    workers: int,
    report: Progress | None,
    trace: Trace | None,
) -> tuple[np.ndarray, Gemm | None, Stats]:
    if isinstance(layer, HostLayer):
        return layer.apply(*inputs), None, Stats()
    assert isinstance(layer, ArrayLayer)
    product = layer.lower(inputs[0])
    stats = _clock(product, config, mode, workers, report, trace)
    return layer.finish(product, inputs[0]), product.gemm, stats


def _traced_layer(model: Model, trace: Trace | None) -> Node | None:
    """Return the node that a trace records: the one it names, or the first on the array."""
    if trace is None:
        return None
    nodes = [node for node in model.nodes if isinstance(node.layer, ArrayLayer)]
    for node in nodes:
        if trace.layer in (None, node.name):
            return node
    names = ", ".join(node.name for node in nodes) or "none"
    raise ValueError(f"no layer {trace.layer!r} runs on the array; those that do are {names}")


def _inputs(model: Model, x: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = ", ".join(map(repr, model.inputs))
    if not isinstance(x, Mapping):
        if len(model.inputs) != 1:
            raise ValueError(
                f"the model has {len(model.inputs)} inputs ({names}); pass a mapping from names to arrays"
            )
        x = {next(iter(model.inputs)): x}
    if set(x) != set(model.inputs):
        raise ValueError(f"the model's inputs are {names}, not {', '.join(map(repr, x)) or 'none'}")
    arrays = {name: np.asarray(value) for name, value in x.items()}
    for name, spec in model.inputs.items():
        spec.check(name, arrays[name])
    return {name: arrays[name].astype(spec.dtype, copy=False) for name, spec in model.inputs.items()}


def _count_readers(model: Model) -> dict[str, int]:
    """Return how often each tensor is read, an output once more: it is freed after its last reader."""
    readers: dict[str, int] = {}
    for node in model.nodes:
        for tensor in node.inputs:
            readers[tensor] = readers.get(tensor, 0) + 1
    for name in (*model.outputs, *model.constants):
        readers[name] = readers.get(name, 0) + 1
    return readers


def _offset(report: Progress | None, done: int, total: int, mode: str) -> Progress | None:
    """Report one layer's cycles as part of the whole run's."""
    if report is None or mode != "cycle":
        return None
    return lambda part, _: report(done + part, total)
