"""What every layer is: frozen data with a shape rule, that compares and describes itself."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

import numpy as np

from systolic.gemm import Gemm, Product

Shape = tuple[int, ...]


class Layer:
    """One operator of a model, with its constants and quantization parameters.

    Subclasses are frozen dataclasses whose fields hold None, bool, int, float, str, tuples of
    these, :class:`~systolic.QuantParams` or ndarrays: so a model can be saved, compared and
    copied without knowing its layers.
    """

    inputs: ClassVar[int] = 1
    """How many tensors the layer reads."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the output's shape for inputs of these shapes; ValueError if they do not fit."""
        raise TypeError(f"{type(self).__name__} does not define output_shape")

    def output_dtype(self, *dtypes: str) -> str:
        """Return the output's type name for inputs of these types; TypeError if they do not fit."""
        raise TypeError(f"{type(self).__name__} does not define output_dtype")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(same_values(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies and unpickled layers keep their arrays read-only; numpy drops the flag.
        for value in state.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        self.__dict__.update(state)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = []
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                shown.append(f"{f.name}=<{value.dtype} {value.shape}>")
            elif not same_values(value, f.default):
                shown.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class HostLayer(Layer):
    """A layer computed beside the array; it costs no array cycles."""

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the layer's output, a new array."""
        raise TypeError(f"{type(self).__name__} does not define apply")


class ArrayLayer(Layer):
    """A layer whose products run on the array: :meth:`lower`, then :meth:`finish`."""

    def products(self, *shapes: Shape) -> Gemm:
        """Return the product's sizes for inputs of these shapes, without data."""
        raise TypeError(f"{type(self).__name__} does not define products")

    def lower(self, x: np.ndarray) -> Product:
        """Return the product to run, checked against the layer, with room for its sums."""
        raise TypeError(f"{type(self).__name__} does not define lower")

    def finish(self, product: Product, x: np.ndarray) -> np.ndarray:
        """Return the output from the raw sums: zero-point corrections, bias, requantization.

        The sums in the product are used up.
        """
        raise TypeError(f"{type(self).__name__} does not define finish")


def same_values(a: Any, b: Any) -> bool:
    """Whether two fields are equal: arrays by type and values, NaN equal to NaN."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray)
            and isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        )
    return type(a) is type(b) and bool(a == b)
