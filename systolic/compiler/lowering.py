"""From a model's layers to operations: what runs on the array, on the vector unit and on the host."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from systolic.compiler import vectors
from systolic.compiler.operations import (
    BY_HOST,
    BY_ROWS,
    HostOperation,
    Operation,
    Product,
    Source,
    VectorOperation,
    Zeros,
)
from systolic.compiler.products import (
    POINT,
    Weights,
    Window,
    column_terms,
    epilogue_functions,
    window_of,
)
from systolic.compiler.tensors import CODES, Border, Storage, View, by_rows, same_rows, whole
from systolic.layers import (
    ArrayLayer,
    Flatten,
    Identity,
    Layer,
    Reshape,
    Squeeze,
    Transpose,
    Unsqueeze,
)  # fmt: skip
from systolic.layers.base import Shape
from systolic.lowered import RAW, Lowered, Patches
from systolic.model import Model, Node
from systolic.model.node import named_error

_T = TypeVar("_T")


@dataclass(frozen=True)
class Sizes:
    """What of a machine decides where tensors lie."""

    rows: int
    cols: int
    row_bytes: int

    @property
    def width(self) -> int:
        """Channels of a block: what both the array's inputs and its outputs hold."""
        return min(self.rows, self.cols, self.row_bytes)

    @property
    def parts(self) -> int:
        """Rows of memory that a row of results of 4 bytes takes."""
        return -(-4 * self.cols // self.row_bytes)


class Lowering:
    """Turns nodes into operations, one after the other.

    Parameters
    ----------
    model : Model
    known : mapping
        Shape and dtype of each tensor.
    sizes : Sizes
    mapping : mapping of str to {"taps", "im2col", "pack"}
        How convolutions run, by their outputs; others as :func:`~systolic.compile` says.
    cut : mapping of int to {"by rows", "by host"}
        How nodes run, by their numbers, that do not fit into the unified buffer otherwise.
    kept : dict
        What of layers depends on no size, from one lowering of the model to the next.

    Attributes
    ----------
    operations : list of Operation
    nodes : dict of Operation to int
        The number of the node that each is for.
    views : dict of str to View or ndarray
        Each tensor by its name in the model; constants as they are.
    array_rows : range
        Rows of arrays for which the operations are the same, but for the sizes of blocks.
    """

    def __init__(
        self, model: Model, known: Mapping[str, tuple[Shape, str]], sizes: Sizes,
        mapping: Mapping[str, str], cut: Mapping[int, str], kept: dict[Any, Any],
    ) -> None:  # fmt: skip
        self.known, self.sizes, self.mapping, self.cut = known, sizes, mapping, cut
        self._kept = kept
        self.operations: list[Operation] = []
        self.array_rows = range(1, sys.maxsize)
        self.nodes: dict[Operation, int] = {}
        self.views: dict[str, View | np.ndarray] = dict(model.constants)
        self._flat: dict[Storage, tuple[View, HostOperation]] = {}
        for name in model.inputs:
            self.views[name] = self._plain(name, *known[name])
        for number, node in enumerate(model.nodes):
            first = len(self.operations)
            self._cut = cut.get(number, "")
            try:
                self._node(node)
            except Exception as error:  # of a layer that is lowered, or computes its table
                named = named_error(error, node.name, node.layer.kind)
                if named is None:
                    raise
                raise named from error
            own = self.operations[first:]
            self.nodes |= dict.fromkeys(own, number)
            if self._cut and all(isinstance(operation, HostOperation) for operation in own):
                self._cut = BY_HOST
            for operation in own:
                if (operation.name, operation.kind) == (node.name, node.layer.kind):
                    operation.cut = self._cut
        for name in model.outputs:
            self._written(name)

    def cut_further(self, operations: Sequence[Operation]) -> dict[int, str]:
        """Return how the nodes of operations that do not fit run instead; products by rows are left out."""
        found = {}
        for operation in operations:
            number = self.nodes[operation]
            is_pool = isinstance(operation, VectorOperation) and operation.window is not None
            if number not in self.cut and not is_pool:
                found[number] = BY_ROWS
            elif isinstance(operation, VectorOperation):
                found[number] = BY_HOST
        return found

    def _once(self, make: Callable[..., _T], node: Node, *args: Any) -> _T:
        """Return what a function makes of a node; it is called once for all lowerings."""
        key = make, node.output
        if key not in self._kept:
            self._kept[key] = make(*args)
        found: _T = self._kept[key]
        return found

    def _written(self, name: str) -> None:
        """Have the host write a constant, or images as rows, that the model returns."""
        value = self.views[name]
        self._flatten([value])
        if isinstance(value, np.ndarray):
            view = self._plain(name, value.shape, value.dtype.name)
            self.operations.append(HostOperation(name, "Constant", "copy", [value], [view]))
            self.views[name] = view

    def _plain(self, name: str, shape: Shape, dtype: str) -> View:
        return whole(Storage(name, dtype, shape))

    def _node(self, node: Node) -> None:
        shape, _ = self.known[node.output]
        sources: list[Source] = [self.views[tensor] for tensor in node.inputs]
        runtime = [source for source in sources if isinstance(source, View)]
        sized = bool(runtime and all(view.elements for view in runtime) and math.prod(shape))
        sized = sized and self._cut != BY_HOST
        placed = False
        if sized and isinstance(node.layer, ArrayLayer):
            placed = self._product(node, node.layer, sources)
        elif sized and len(list(filter(None, node.outputs))) == 1:
            self._flatten(sources)
            placed = self._same_rows(node, node.layer, sources)
            placed = placed or self._vector(node, node.layer, sources)
        if not placed:
            self._flatten(sources)
            self._host(node, sources)

    def _flatten(self, sources: Sequence[Source]) -> None:
        """Have the host lay out images as rows, where no product has read them as images yet."""
        for source in sources:
            if isinstance(source, View) and source.storage in self._flat:
                self.operations.append(self._flat.pop(source.storage)[1])

    def _host(self, node: Node, sources: list[Source]) -> None:
        outputs: list[View | None] = []
        for name in node.outputs:
            view = self._plain(name, *self.known[name]) if name else None
            outputs.append(view)
            if view is not None:
                self.views[name] = view
        self.operations.append(
            HostOperation(node.name, node.layer.kind, "layer", sources, outputs, node.layer)
        )

    # Where tensors lie

    def _blocks(self, name: str, source: Source, axis: int | None, window: Window | None = None,
                fill: int = 0) -> View | None:  # fmt: skip
        """Return a tensor in blocks of channels along an axis, with the border that a window reads.

        None for an axis is the tensor's own. None is returned if it cannot be.
        """
        if not isinstance(source, View) or source.dtype not in CODES:
            return None
        storage, rank = source.storage, len(source.shape)
        if rank == 0 or (rank != 4 and window is not None and any(window.sides)):
            return None
        if storage.form == "plain":
            if axis is None:
                axis = 1 if rank > 3 else -1
            storage.form, storage.axis, storage.width = "blocks", axis, self.sizes.width
        elif axis is not None and axis % rank != source.axis % rank:
            return self._blocks(name, self._copy(name, source), axis, window, fill)
        if window is not None and not storage.take_border(window.sides, fill):
            if storage.border.found().by_rows:
                return self._blocks(name, self._copy(name, source), source.axis, window, fill)
            return None
        return source

    def _copy(self, name: str, source: View) -> View:
        """Have the host lay out a tensor once more, in another form."""
        copy = self._plain(f"{name} input", source.shape, source.dtype)
        self.operations.append(HostOperation(name, "Copy", "copy", [source], [copy]))
        return copy

    def _rows(self, name: str, source: View) -> View:
        """Return a tensor in blocks as rows that are cut anywhere, laid out anew if it has a border."""
        if not source.storage.border.refuse(by_rows=True):
            copy = self._blocks(name, self._copy(name, source), source.axis)
            assert copy is not None
            return self._rows(name, copy)
        return by_rows(source)

    def _output(self, name: str, axis: int, shape: Shape, dtype: str) -> View:
        storage = Storage(
            name, dtype, shape, "blocks", axis, width=self.sizes.width, by_host=False
        )  # fmt: skip
        return whole(storage)

    def _output_rows(self, name: str, axis: int, shape: Shape, dtype: str) -> View:
        """Return an output as rows that are cut anywhere; the model reads it in its own shape."""
        channels = shape[axis]
        view = self._output(name, -1, (math.prod(shape) // channels, channels), dtype)
        view.storage.border.refuse(by_rows=True)
        self.views[name] = View(view.storage, shape, axis)
        return view

    def _words(self, name: str, axis: int, shape: Shape, dtype: str) -> View:
        sizes = self.sizes
        storage = Storage(
            name, dtype, shape, "words", axis, width=sizes.cols, parts=sizes.parts, by_host=False
        )
        return whole(storage)

    def _same_rows(self, node: Node, layer: Layer, sources: list[Source]) -> bool:
        """Read the same rows in another shape, where that is all a layer does."""
        source = sources[0]
        if not isinstance(layer, Flatten | Identity | Reshape | Squeeze | Transpose | Unsqueeze):
            return False
        if not isinstance(source, View) or source.storage.form != "blocks":
            return False
        shape, _ = self.known[node.output]
        perm = None
        if isinstance(layer, Transpose):
            rank = len(shape)
            perm = tuple(range(rank))[::-1] if layer.perm is None else tuple(layer.perm)
        axis = same_rows(source, shape, perm)
        if axis is None:
            return perm is None and self._rows_of_images(node, layer, source, sources)
        view = View(source.storage, shape, axis)
        if (len(shape) != 4 or _image(source) != _image(view)) and not source.storage.border.refuse():
            return False
        self.views[node.output] = view
        return True

    def _rows_of_images(self, node: Node, layer: Layer, source: View, sources: list[Source]) -> bool:
        """Put off the flattening of images: a product with them reads each pixel by a tap of its own."""
        shape, dtype = self.known[node.output]
        if len(source.shape) not in (3, 4) or len(shape) != 2 or shape[0] != source.shape[0]:
            return False
        view = self._plain(node.output, shape, dtype)
        call = HostOperation(node.name, layer.kind, "layer", sources, [view], layer)
        self._flat[view.storage] = source, call
        self.views[node.output] = view
        return True

    # The vector unit

    def _vector(self, node: Node, layer: Layer, sources: list[Source]) -> bool:
        shape, dtype = self.known[node.output]
        if dtype not in CODES or any(isinstance(s, View) and s.dtype not in CODES for s in sources):
            return False
        found = self._once(vectors.recognized, node, layer, sources, shape)
        if found is None:
            return False
        first = next(source for source in sources if isinstance(source, View))
        axis = found.axis
        if axis is None and first.storage.form == "plain":
            others = [s for s in sources if isinstance(s, View) and s.storage.form == "blocks"]
            axis = others[0].axis if others else None
        inputs = []
        for source in (each for each in sources if isinstance(each, View)):
            view = self._blocks(node.name, source, axis)
            if view is None:
                return False
            axis = view.axis
            inputs.append(view)
        assert axis is not None
        if self._cut:
            inputs = [self._rows(node.name, view) for view in inputs]
            output = self._output_rows(node.output, axis, shape, dtype)
        else:
            output = self._output(node.output, axis, shape, dtype)
            self.views[node.output] = output
        if found.window is None and not self._one_border(node.name, inputs, output):
            return False
        self.operations.append(
            VectorOperation(
                node.name, layer.kind, inputs, output, found.form, found.tables, found.window,
                found.attributes or {},
            )
        )
        return True

    def _one_border(self, name: str, inputs: list[View], output: View) -> bool:
        """Have all tensors of an element-wise layer share a border; False if they cannot."""
        borders = [view.storage.border for view in (*inputs, output)]
        if Border.join(borders):
            return True
        for place, view in enumerate(inputs):
            if view.storage.border.found().by_rows:
                copy = self._blocks(name, self._copy(name, view), view.axis)
                assert copy is not None
                inputs[place] = copy
        return Border.join([view.storage.border for view in (*inputs, output)])

    # The array

    def _product(self, node: Node, layer: ArrayLayer, sources: list[Source]) -> bool:
        lowered, place = self._once(lowered_work, node, layer, sources)
        if lowered is None or not isinstance(source := sources[place], View):
            return False
        gemm, shape = lowered.gemm, self.known[node.output][0]
        if not gemm.m * gemm.k * gemm.n:
            return False
        w = lowered.w[np.newaxis] if lowered.w.ndim == 2 else lowered.w
        if isinstance(lowered.x, Patches):
            axis, found = lowered.channel_axis, self._patches(node, layer, lowered, sources, place)
        elif source.storage in self._flat and lowered.w.ndim == 2 and not self._cut:
            axis, found = -1, self._pixels(node, lowered, source)
            w = self._weights_of_pixels(w, source)
        else:
            self._flatten(sources)
            axis, found = -1, self._matrix(node, lowered, source)
        if found is None:
            return False
        x, window, taps = found
        assert not self._cut or x.leading == gemm.m
        others = [
            each for number, each in enumerate(sources) if isinstance(each, View) and number != place
        ]
        terms = None if others else self._once(column_terms, node, lowered)
        e = lowered.epilogue
        sizes, dtype = self.sizes, e.dtype
        channels = gemm.groups * gemm.n
        size = shape[axis] if shape else 0
        fits = size == channels and math.prod(shape) == gemm.m * channels
        known = terms is not None and fits and (e.planes == 1 or len(shape) == 5)
        if not known:
            terms, e, dtype = {"constant": np.zeros(channels, np.int32)}, RAW, "int32"
        codes = known and dtype in CODES
        columns = sizes.width if codes else sizes.cols
        acc_shape = shape
        if codes and self._cut:
            y = self._output_rows(node.output, axis, shape, dtype)
        elif codes:
            y = self._output(node.output, axis, shape, dtype)
            self.views[node.output] = y
        else:
            if not known:
                acc_shape = _accumulators(lowered)
            name = f"{node.output} results"
            y = self._words(name, *((-1, (gemm.m, channels)) if self._cut else (axis, acc_shape)), dtype)
        weights = Weights(w, taps, sizes.width, columns)
        parts = 1 if codes else sizes.parts
        functions = partial(epilogue_functions, node.name, e, terms or {}, columns, sizes.cols, parts)
        operands = (lowered.x.dtype.name, lowered.w.dtype.name)
        macs = gemm.m * gemm.k * channels
        self.operations.append(
            Product(
                node.name, layer.kind, x, y, weights, operands, window, functions, macs, window is POINT
            )
        )
        if not codes:
            results = View(y.storage, acc_shape, axis)
            self._results(node, layer, sources, place, results, lowered, known)
        return True

    def _matrix(self, node: Node, lowered: Lowered, source: View) -> tuple[View, Window, int] | None:
        if lowered.w.ndim != 2 or source.shape[-1] != lowered.gemm.k:
            return None
        x = self._blocks(node.name, source, -1)
        if x is not None and self._cut:
            return self._rows(node.name, x), POINT, 1
        # Rows that are multiplied one by one have no border between them.
        return (x, POINT, 1) if x is not None and x.storage.border.refuse() else None

    def _pixels(self, node: Node, lowered: Lowered, source: View) -> tuple[View, Window, int] | None:
        """Return images that are multiplied as rows: a convolution whose kernel is the whole image."""
        images = self._flat[source.storage][0]
        axis = images.axis % len(images.shape)
        sizes = [size for place, size in enumerate(images.shape) if place not in (0, axis)]
        size = (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
        window = Window(size, (1, 1), (1, 1), (0, 0), (1, 1), size)
        x = self._blocks(node.name, images, images.axis, window)
        return None if x is None else (x, window, math.prod(size))

    def _weights_of_pixels(self, w: np.ndarray, source: View) -> np.ndarray:
        """Return weights (1, K, N) with K over channels first, whose images may have their channels last."""
        images = self._flat[source.storage][0]
        axis = images.axis % len(images.shape)
        if axis == 1:
            return w
        channels, columns = images.shape[axis], w.shape[-1]
        return w.reshape(1, -1, channels, columns).swapaxes(1, 2).reshape(1, -1, columns)

    def _patches(
        self, node: Node, layer: ArrayLayer, lowered: Lowered, sources: list[Source], place: int
    ) -> tuple[View, Window, int] | None:
        """Return what a convolution streams: the image by taps, or patches that the host lays out."""
        patches, source = lowered.x, sources[place]
        assert isinstance(patches, Patches) and isinstance(source, View)
        self._flatten(sources)
        window, taps = window_of(patches), patches.kernel[0] * patches.kernel[1]
        axis = -1 if patches.channels_last else 1
        direct = len(source.shape) in (3, 4) and source.shape[0] == patches.images.shape[0]
        if any(window.sides) and any(isinstance(each, View) and each is not source for each in sources):
            # The padding is a zero point that only the host knows.
            direct &= with_ones(layer, sources, place).x.pad_value == patches.pad_value  # type: ignore[union-attr]
        wanted = self.mapping.get(node.output) or self._default(source, patches.images.shape[1])
        if self._cut:
            if direct and window.plain:
                x = self._blocks(node.name, source, axis)
                if x is not None:
                    return self._rows(node.name, x), POINT, 1
        elif direct and (wanted == "taps" or window.plain):
            x = self._blocks(node.name, source, axis, window, patches.pad_value)
            if x is not None:
                return x, window, taps
        batch, (oh, ow) = patches.images.shape[0], patches.out
        shape = (batch, oh * ow, lowered.gemm.groups * lowered.gemm.k)
        options: dict[str, Any] = {}
        read: list[Source] = [source]
        if direct:
            options["window"] = {
                **{name: list(getattr(patches, name)) for name in _WINDOW}, "groups": patches.groups,
                "pad_value": int(patches.pad_value), "channels_last": patches.channels_last,
            }  # fmt: skip
        else:
            read = list(sources)
        laid = self._plain(f"{node.name} patches", shape, source.dtype)
        self.operations.append(
            HostOperation(
                node.name, layer.kind, "patches", read, [laid], None if direct else layer, options
            )
        )
        x = self._blocks(node.name, laid, -1)
        if x is None:
            return None
        return (self._rows(node.name, x) if self._cut else x), POINT, 1

    def _default(self, source: View, channels: int) -> str:
        """Return how a convolution runs that may run in any way."""
        if not source.storage.by_host:
            return "taps"
        least, rows = 4 * channels + 1, self.array_rows
        if self.sizes.rows >= least:
            self.array_rows = range(max(rows.start, least), rows.stop)
            return "im2col"
        self.array_rows = range(rows.start, min(rows.stop, least))
        return "taps"

    def _results(
        self, node: Node, layer: ArrayLayer, sources: list[Source], place: int, y: View, lowered: Lowered,
        known: bool,
    ) -> None:  # fmt: skip
        """Have the host make the layer's output from results of 4 bytes."""
        output = self._plain(node.output, *self.known[node.output])
        self.views[node.output] = output
        if known:
            self.operations.append(HostOperation(node.name, layer.kind, "copy", [y], [output]))
            return
        read = list(sources)
        source = read[place]
        assert isinstance(source, View)
        if with_ones(layer, sources, place).epilogue.w_zero is None:
            read[place] = Zeros(source.shape, source.dtype)
        self._flatten(read)
        self.operations.append(
            HostOperation(node.name, layer.kind, "epilogue", [y, *read], [output], layer)
        )


_WINDOW = ("kernel", "stride", "dilation", "before", "out")


def _image(view: View) -> Shape:
    axis = view.axis % len(view.shape)
    return tuple(size for place, size in enumerate(view.shape) if place != axis)


def _accumulators(lowered: Lowered) -> Shape:
    """Return the shape of a lowered product's accumulators."""
    gemm, x = lowered.gemm, lowered.x
    if not isinstance(x, Patches):
        return gemm.m, gemm.n
    batch, channels = x.images.shape[0], gemm.groups * gemm.n
    return (batch, *x.out, channels) if x.channels_last else (batch, channels, *x.out)


def lowered_work(layer: ArrayLayer, sources: Sequence[Source]) -> tuple[Lowered | None, int]:
    """Return the lowered work of a layer whose weights are known, without data, and which input is x.

    Tensors are zeros, whose memory is never touched unless a layer reads them. None for several products, for
    weights that are computed at run time, and for x in other forms than the layer's input has.
    """
    if type(layer).steps is not ArrayLayer.steps:
        return None, 0
    operands = [
        source if isinstance(source, np.ndarray) else np.zeros(source.shape, source.dtype)
        for source in sources
    ]
    with np.errstate(all="ignore"):
        lowered = layer.lower(*operands)
    runtime = [i for i, source in enumerate(sources) if isinstance(source, View)]
    constants = [operand for i, operand in enumerate(operands) if i not in runtime]
    if (held := getattr(layer, "weight", None)) is not None:
        constants.append(held)
    if held is None and not any(np.may_share_memory(lowered.w, array) for array in constants):
        return None, 0
    images = lowered.x.images if isinstance(lowered.x, Patches) else lowered.x
    for place in runtime:
        if _address(images) == _address(operands[place]) and _rows_kept(lowered, operands[place]):
            return lowered, place
    if isinstance(lowered.x, Patches) and runtime and runtime[0] == 0:
        return lowered, 0  # planes of a volume, which only the host can take
    return None, 0


def with_ones(layer: ArrayLayer, sources: Sequence[Source], place: int) -> Lowered:
    """Return the lowered work where all tensors but x are ones: zero points that are not known are not 0."""
    operands = [
        source if isinstance(source, np.ndarray)
        else np.zeros(source.shape, source.dtype) if number == place
        else np.ones(source.shape, source.dtype)
        for number, source in enumerate(sources)
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        return layer.lower(*operands)


def _address(values: np.ndarray) -> int:
    address: int = values.__array_interface__["data"][0]
    return address


def _rows_kept(lowered: Lowered, x: np.ndarray) -> bool:
    """Whether x is multiplied as it lies, not transposed."""
    if not isinstance(lowered.x, Patches):
        return lowered.x.ndim == 2 and lowered.x.flags.c_contiguous and lowered.x.size == x.size
    images, last = lowered.x.images, lowered.x.channels_last
    kept = np.moveaxis(images, 1, -1) if last else images
    return kept.flags.c_contiguous and images.size == x.size
