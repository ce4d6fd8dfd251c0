"""``Node``: a layer with the names of the tensors it reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from systolic import _check
from systolic.layers import Layer


@dataclass(frozen=True, init=False)
class Node:
    """One layer of a model with the names of the tensors it reads and writes.

    Parameters
    ----------
    layer : Layer
    inputs : tuple of str
    output : str or tuple of str
        A name for each of the layer's outputs; "" if it is not used.
    name : str
        Shown in tables and errors; default the output's name.

    Attributes
    ----------
    outputs : tuple of str
        All names, including "".

    Examples
    --------
    >>> from systolic import Node
    >>> from systolic.layers import Relu
    >>> Node(Relu(), ("x",), "y").name
    'y'
    """

    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str

    def __init__(
        self, layer: Layer, inputs: str | Sequence[str], output: str | Sequence[str], name: str = ""
    ) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"a node holds a Layer, not {type(layer).__name__}")
        if not isinstance(name, str):
            raise TypeError(f"a node's name must be a str, not {_check.kind(name)}")
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "inputs", as_names(inputs, "inputs"))
        object.__setattr__(self, "outputs", as_names(output, "output"))
        for verb, names, count in (
            ("writes", self.outputs, layer.outputs),
            ("reads", self.inputs, layer.inputs),
        ):
            if len(names) != count and (count is not None or not names):
                wanted = "at least 1" if count is None else count
                raise ValueError(
                    f"{type(layer).__name__} {verb} {wanted} tensors, but {name or self.output!r} names "
                    f"{len(names)}: {', '.join(names) or 'none'}"
                )
        if not any(self.outputs):
            raise ValueError(f"{type(layer).__name__} {name!r} names no output")
        object.__setattr__(self, "name", name or self.output)

    @cached_property
    def output(self) -> str:
        """The first output in use."""
        return next((name for name in self.outputs if name), "")

    def named(self, results: Any) -> dict[str, Any]:
        """Return a dict from the names of the outputs in use to one result, or to those of a tuple."""
        each = (results,) if self.layer.outputs == 1 else results
        return {name: result for name, result in zip(self.outputs, each, strict=True) if name}


def as_names(names: Any, what: str) -> tuple[str, ...]:
    """Return one tensor's name or several as a tuple; TypeError for anything else."""
    several = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    for name in several:
        if not isinstance(name, str):
            raise TypeError(f"{what} must be a tensor's name, or a tuple of names, not {_check.kind(name)}")
    return several


def parameters(node: Node, constants: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Return elements and bytes of the arrays that a node holds and of the constants it reads."""
    elements, size = node.layer.held
    for tensor in dict.fromkeys(node.inputs):
        if tensor in constants:
            elements, size = elements + constants[tensor].size, size + constants[tensor].nbytes
    return elements, size


def named_error(error: Exception, name: str, kind: str) -> Exception | None:
    """Return a layer's error as one that names its node and operator.

    None for errors that name it already, and for classes that are neither Python's nor numpy's: a caller's
    progress function may raise its own.
    """
    if type(error).__module__.partition(".")[0] not in ("builtins", "numpy"):
        return None
    if str(error).startswith(f"node {name!r}"):
        return None
    kinds = (MemoryError, ImportError, TypeError, ValueError, AssertionError)  # the last: of a probe
    found = next((each for each in kinds if isinstance(error, each)), RuntimeError)
    what = str(error) if found is not RuntimeError else f"{type(error).__name__}: {error}"
    what = what or ("there is not enough memory" if found is MemoryError else type(error).__name__)
    return found(f"node {name!r} ({kind}): {what}")
