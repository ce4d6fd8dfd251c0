"""Float products that ONNX Runtime computes where it is installed, as in a deployed model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.layers import parameters
from systolic.layers.base import HostLayer, Shape
from systolic.layers.host import session

# MACs of less than some 10 ms: such a call runs in the main thread, and Ctrl-C waits for its end.
_QUICK_MACS = 1 << 27


class FloatProduct(HostLayer):
    """A product of float tensors, in ONNX Runtime or exactly.

    A subclass names its operator in ONNX and computes the product exactly.
    """

    inputs: ClassVar[None] = None

    runtime_constants: tuple[int, ...] | None

    _last: ClassVar[int] = 2
    """The number of the last input."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runtime_constants is None:
            return
        if not _check.is_listed(self.runtime_constants):
            raise TypeError(
                "runtime_constants must be None or the numbers of inputs, such as (1,), not "
                f"{_check.kind(self.runtime_constants)}"
            )
        numbers = {
            _check.integer(number, "runtime_constants", minimum=0, maximum=self._last)
            for number in self.runtime_constants
        }
        object.__setattr__(self, "runtime_constants", tuple(sorted(numbers)))

    @property
    def delegate(self) -> str | None:
        """ONNX Runtime if `runtime_constants` asks for it and it is installed; None otherwise."""
        return session.ONNX_RUNTIME if self.runtime_constants is not None and session.installed() else None

    def evaluate_constants(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the product of constants, as ONNX Runtime folds them: it packs none of them."""
        layer: Any = self
        if self.runtime_constants:
            layer = replace(layer, runtime_constants=())
        return np.asarray(layer.apply(*inputs))

    def _held(self) -> tuple[np.ndarray, ...]:
        """Return the arrays that are held, as inputs behind those that are read."""
        fields = (getattr(self, name, None) for name in ("weight", "bias"))
        return tuple(array for array in fields if isinstance(array, np.ndarray))

    def _whole(self, inputs: Sequence[Any], of: Callable[[np.ndarray], Any] = np.asarray) -> list[Any]:
        """Return inputs, or what is said of them, and the same of what is held."""
        return [*inputs, *map(of, self._held())]

    def _kernel(self, shape: Shape, *read: np.ndarray) -> np.ndarray:
        inputs, constants, dtype = self._whole(read), self.runtime_constants, read[0].dtype.name
        shapes = [array.shape for array in inputs]
        empty = any(0 in sizes for sizes in shapes)
        operator = self._operator(inputs)
        if constants is None or dtype != "float32" or empty or operator is None or not session.installed():
            return self._exact(inputs, shape, dtype)
        arrays = [np.asarray(a, a.dtype.newbyteorder("="), order="C") for a in inputs]
        quick = math.prod(shape) * self.terms(shapes) <= _QUICK_MACS
        made = self._session(operator, inputs, arrays, constants)
        feeds = {f"i{i}": array for i, array in enumerate(arrays) if i not in constants}
        with session.naming(self.kind, session.ONNX_RUNTIME):
            (y,) = session.run(made, feeds, ["y"], quick=quick)
        return np.asarray(y)

    def _session(
        self,
        operator: tuple[str, dict[str, Any]],
        inputs: Sequence[np.ndarray],
        arrays: Sequence[np.ndarray],
        constants: tuple[int, ...],
    ) -> Any:
        """Return a session whose constants are these; keep it if they are read-only.

        Its results depend on what is constant: ONNX Runtime packs constant operands, and then sums in
        another order.
        """
        held = {i: inputs[i] for i in constants if i < len(inputs)}
        names = [f"i{i}" for i in range(len(inputs))]
        # Padding "same" depends on the sizes.
        # ONNX Runtime must know the length of a bias.
        sizes = [a.shape if i > 1 and a.ndim == 1 else None for i, a in enumerate(arrays)]
        kinds = {name: (array.dtype, shape) for name, array, shape in zip(names, arrays, sizes, strict=True)}
        node = *operator, self._names(names), [*held], kinds
        kept = self.__dict__.get("_kept")
        if kept is not None and kept[0] == node and all(kept[1][i] is array for i, array in held.items()):
            return kept[2]
        made = session.create_node(*node[:3], {names[i]: arrays[i] for i in held}, kinds)
        if not any(array.flags.writeable for array in held.values()):
            self.__dict__["_kept"] = node, held, made
        return made

    def _operator(self, inputs: Sequence[np.ndarray]) -> tuple[str, dict[str, Any]] | None:
        """Return the ONNX operator, its domain before a dot, and its attributes; None if there is none."""
        raise NotImplementedError

    def _names(self, names: Sequence[str]) -> list[str]:
        """Return the names of inputs as the operator takes them, "" for those left out."""
        return list(names)

    def terms(self, shapes: Sequence[Shape]) -> int:
        """Return how many products are summed for an output."""
        raise NotImplementedError

    def _exact(self, inputs: Sequence[np.ndarray], shape: Shape, dtype: str) -> np.ndarray:
        """Return the product, in float64 and rounded once."""
        raise NotImplementedError


def put_weights(layer: Any, *, axes: str, output_axis: int) -> None:
    """Put weights and bias, if they are held, into their stored form: float32, read-only."""
    kind, ndim = type(layer).__name__, axes.count(",") + 1
    if layer.weight is None:
        if layer.bias is not None:
            raise ValueError(f"{kind} takes no bias without a weight; it reads one as its third input")
        return
    weight = _reals(layer.weight, f"{kind}: weight")
    if weight.ndim != ndim or 0 in weight.shape:
        raise ValueError(f"{kind}: weight must be {axes}, none of them 0, not {_check.shape(weight.shape)}")
    object.__setattr__(layer, "weight", weight)
    if layer.bias is not None:
        bias = _reals(layer.bias, f"{kind}: bias")
        parameters.expect_bias(kind, bias.shape, weight.shape[output_axis])
        object.__setattr__(layer, "bias", bias)


def _reals(values: Any, name: str) -> np.ndarray:
    array = _check.as_array(values, name)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must hold floats, not {array.dtype}")
    with np.errstate(over="ignore"):
        result = np.array(array, np.float32, order="C")
    if not np.isfinite(result).all():
        raise ValueError(f"{name} must be finite in float32; it holds NaN, infinity or too large a number")
    result.flags.writeable = False
    return result
