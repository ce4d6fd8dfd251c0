"""Operations of the machine and of the host, in the order in which a program does them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from systolic.compiler.products import Weights, Window
from systolic.compiler.tensors import Storage, View
from systolic.isa import Function
from systolic.layers import Layer


class Zeros(NamedTuple):
    """An operand whose values the host does not look at."""

    shape: tuple[int, ...]
    dtype: str


BY_ROWS, BY_HOST = "by rows", "by host"
"""How a layer runs whose tensors do not fit into the unified buffer, even of one image."""

Source = View | np.ndarray | Zeros
"""A tensor, a constant, or zeros."""


@dataclass(eq=False)
class HostOperation:
    """Work of the host, on host memory.

    Attributes
    ----------
    name, kind : str
        Of the layer.
    call : {"layer", "epilogue", "patches", "copy"}
    sources : list of Source
    outputs : list of View or None
        None is an output that nothing reads.
    layer : Layer or None
    options : mapping
        Of the call, as JSON can hold them.
    cut : {"", "by rows", "by host"}
        Why it is there: the layer did not fit into the unified buffer.
    """

    name: str
    kind: str
    call: str
    sources: list[Source]
    outputs: list[View | None]
    layer: Layer | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cut: str = ""

    @property
    def reads(self) -> list[View]:
        """Tensors read."""
        return [source for source in self.sources if isinstance(source, View)]

    @property
    def writes(self) -> list[View]:
        """Tensors written."""
        return [output for output in self.outputs if output is not None]


@dataclass(eq=False)
class Product:
    """A product on the array.

    Attributes
    ----------
    x, y : View
        `x` holds codes in blocks; `y` too, or results of 4 bytes.
    weights : Weights
    operands : (str, str)
        Types of activations and weights.
    window : Window
    columns : int
        Output channels of a block.
    make_functions : callable
        Returns the function of each block of `y`, which a program needs and its time does not.
    macs : int
        Useful multiply-accumulates.
    is_matrix : bool
        Whether the rows of `x` are multiplied one by one, and `window` means nothing.
    cut : {"", "by rows"}
        Whether `x` and `y` are rows without images, which are cut anywhere.
    """

    name: str
    kind: str
    x: View
    y: View
    weights: Weights
    operands: tuple[str, str]
    window: Window
    make_functions: Callable[[], Iterable[Function]]
    macs: int
    is_matrix: bool
    cut: str = ""

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """The function of each block of `y`."""
        return tuple(self.make_functions())

    @property
    def reads(self) -> list[View]:
        """Tensors read."""
        return [self.x]

    @property
    def writes(self) -> list[View]:
        """Tensors written."""
        return [self.y]


@dataclass(eq=False)
class VectorOperation:
    """Work of the vector unit, on codes in blocks.

    Attributes
    ----------
    inputs : list of View
    output : View
    form : {"table", "pair", "concat", "max_pool", "sum_pool"}
    tables : tuple of ndarray
        Of a "table" or "concat" one for each input, (256,); of a "pair" one, (65536,); of a "sum_pool" one.
    window : Window or None
        Of a pool.
    attributes : dict
        Of a "pair": which operator it is, see :class:`~systolic.isa.Function`.
    cut : {"", "by rows"}
        Whether all tensors are rows without images, which are cut anywhere.
    """

    name: str
    kind: str
    inputs: list[View]
    output: View
    form: str
    tables: tuple[np.ndarray, ...] = ()
    window: Window | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    cut: str = ""

    @property
    def reads(self) -> list[View]:
        """Tensors read."""
        return self.inputs

    @property
    def writes(self) -> list[View]:
        """Tensors written."""
        return [self.output]


Operation = HostOperation | Product | VectorOperation


def storages(operation: Operation) -> Iterator[Storage]:
    """Yield what an operation reads and writes, each once."""
    yield from dict.fromkeys(view.storage for view in (*operation.reads, *operation.writes))
