"""What the host computes for a program: the functions of kind "host" as callables on rows of bytes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from systolic import _check
from systolic.isa import Function, HostTensor, Program
from systolic.layers import ArrayLayer, Layer
from systolic.lowered import Patches
from systolic.machine import operands
from systolic.machine.epilogue import apply_epilogue
from systolic.model.archive import decode_layer
from systolic.model.node import named_error

Rows = list[np.ndarray]
"""Rows of host memory, uint8 (rows, row_bytes), of each range that a HostCall reads or writes."""

RunLayer = Callable[[Layer, list[np.ndarray]], Any]
"""Returns a layer's output, or a tuple of them."""

Source = np.ndarray | HostTensor | Mapping[str, Any]


def host_calls(program: Program, row_bytes: int, run: RunLayer) -> dict[int, HostCallable]:
    """Return what to call for each function of a program that the host computes.

    Parameters
    ----------
    program : Program
        As :func:`systolic.compile` makes them.
    row_bytes : int
        Of the machine's memories.
    run : callable
        Runs a layer.
    """
    return {
        number: HostCallable(function, row_bytes, run)
        for number, function in enumerate(program.functions)
        if function.kind == "host"
    }


class HostCallable:
    """One function of kind "host".

    Its attributes are `call`, the layer's `kind`, and `inputs` and `outputs`: each a
    :class:`~systolic.isa.HostTensor` as a dict, ``{"array": name}``, ``{"zeros": shape, "dtype": name}`` or
    ``{"words": dtype, ...}``; None for an output that nothing reads. Tensors without elements have no rows.

    ========== ====================================================================
    call       computes
    ========== ====================================================================
    layer      `layer` of its inputs
    epilogue   the epilogue of `layer` of its inputs but the first, on the first: int32 sums
    patches    the rows of patches of an image, by `window` or as `layer` lowers it
    copy       its input, which lies elsewhere or in another form
    ========== ====================================================================
    """

    def __init__(self, function: Function, row_bytes: int, run: RunLayer) -> None:
        self.function, self.row_bytes, self.run = function, row_bytes, run
        self._decoded: list[Layer] = []  # none or one; shared by copies
        attributes = function.attributes
        if attributes.get("call") not in list(_CALLS):  # which need not be hashable
            raise ValueError(
                f"the function {function.name!r} of kind 'host' must have a call, {', '.join(_CALLS)}, not "
                f"{attributes.get('call')!r}; pass calls= to machine.run_program for functions of your own"
            )
        self.call = _CALLS[attributes["call"]]
        try:
            self.inputs = [self._source(source) for source in attributes["inputs"]]
            outputs = attributes["outputs"]
            self.outputs = [None if each is None else HostTensor.from_dict(each) for each in outputs]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the function {function.name!r} of kind 'host' does not say where its inputs and outputs "
                f"lie ({type(error).__name__}: {error}); compile the program again"
            ) from error

    @property
    def layer(self) -> Layer:
        """The layer that the function describes; decoded once, also for copies by :meth:`with_run`."""
        if not self._decoded:
            arrays = self.function.arrays
            count = sum(name.startswith("layer") for name in arrays)
            held = [arrays[f"layer{number}"] for number in range(count)]
            self._decoded.append(decode_layer(self.function.attributes["layer"], held))
        return self._decoded[0]

    def with_run(self, run: RunLayer, layer: Layer | None = None) -> HostCallable:
        """Return the same with another way to run layers, and perhaps with the layer that it describes."""
        other = copy.copy(self)
        other.run = run
        if layer is not None:
            other._decoded = [layer]
        return other

    def __call__(self, reads: Rows) -> Rows:
        """Return the rows to write."""
        rows = iter(reads)
        try:
            results = self.call(self, [self._input(source, rows) for source in self.inputs])
            written = []
            for target, result in zip(self.outputs, results, strict=True):
                if target is None:
                    continue
                if (result.shape, result.dtype.name) != (target.shape, target.dtype):
                    raise ValueError(
                        f"an output is {result.dtype} {_check.shape(result.shape)}, but the program was made "
                        f"for {target.dtype} {_check.shape(target.shape)}; run the model on the array alone, "
                        "machine=machine.array, if other sizes are meant"
                    )
                if 0 not in target.shape:
                    written.append(target.pack(result, self.row_bytes))
            return written
        except Exception as error:
            named = named_error(error, self.function.name, str(self.function.attributes.get("kind")))
            if named is None:
                raise
            raise named from error

    def _source(self, source: Mapping[str, Any]) -> Source:
        """Return where an input comes from: an array, a tensor in memory, or how to make it."""
        if "array" in source:
            return self.function.arrays[source["array"]]
        return source if "zeros" in source or "words" in source else HostTensor.from_dict(dict(source))

    def _input(self, source: Source, rows: Iterator[np.ndarray]) -> np.ndarray:
        if isinstance(source, np.ndarray):
            return source
        if not isinstance(source, HostTensor):
            if "zeros" in source:
                return np.zeros(source["zeros"], source["dtype"])
            return unpack_words(source, next(rows))
        if 0 in source.shape:
            return np.zeros(source.shape, source.dtype)
        return source.unpack(next(rows))

    def _layer(self, given: list[np.ndarray]) -> Sequence[Any]:
        results = self.run(self.layer, given)
        return (results,) if self.layer.outputs == 1 else tuple(results)

    def _epilogue(self, given: list[np.ndarray]) -> Sequence[Any]:
        acc, *inputs = given
        assert isinstance(self.layer, ArrayLayer)
        return (apply_epilogue(self.layer.lower(*inputs), acc),)

    def _patches(self, given: list[np.ndarray]) -> Sequence[Any]:
        window = self.function.attributes.get("window")
        if window is None:
            assert isinstance(self.layer, ArrayLayer)
            x = self.layer.lower(*given).x
            assert isinstance(x, Patches)
        else:
            images = np.moveaxis(given[0], -1, 1) if window["channels_last"] else given[0]
            if images.ndim == 3:
                images = images[:, :, np.newaxis]
            pairs: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in window.items()}
            x = Patches(images, **pairs)
        k = x.images.shape[1] // x.groups * math.prod(x.kernel)
        m = x.images.shape[0] * math.prod(x.out)
        (target,) = self.outputs
        assert target is not None
        parts = [operands.rows(x, group, 0, m, 0, k) for group in range(x.groups)]
        return (np.concatenate(parts, axis=1).reshape(target.shape),)


# Not bound to an instance: with_run makes copies.
_CALLS: dict[str, Callable[[HostCallable, list[np.ndarray]], Sequence[Any]]] = {
    "layer": HostCallable._layer,
    "epilogue": HostCallable._epilogue,
    "patches": HostCallable._patches,
    "copy": lambda self, given: given,
}


def unpack_words(source: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
    """Return results of 4 bytes from rows of memory: blocks of columns, each row over some rows of memory."""
    shape, axis, width, parts = source["shape"], source["axis"], source["width"], source["parts"]
    channels = shape[axis]
    others = [size for place, size in enumerate(shape) if place != axis % len(shape)]
    dtype = np.dtype(source["words"]).newbyteorder("<")
    blocks = -(-channels // width)
    whole = np.ascontiguousarray(rows).reshape(blocks, math.prod(others), parts * rows.shape[1])
    values = np.ascontiguousarray(whole[:, :, : width * dtype.itemsize]).view(dtype)
    joined = values.swapaxes(0, 1).reshape(*others, blocks * width)[..., :channels]
    return np.ascontiguousarray(np.moveaxis(joined, -1, axis), source["words"])


