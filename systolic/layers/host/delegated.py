"""Float products that ONNX Runtime computes where it is installed, as in a deployed model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np

from systolic import _check
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

    def __post_init__(self) -> None:
        if self.runtime_constants is None:
            return
        if not _check.is_listed(self.runtime_constants):
            raise TypeError(
                "runtime_constants must be None or the numbers of inputs, such as (1,), not "
                f"{_check.kind(self.runtime_constants)}"
            )
        numbers = {
            _check.integer(number, "runtime_constants", minimum=0, maximum=2)
            for number in self.runtime_constants
        }
        object.__setattr__(self, "runtime_constants", tuple(sorted(numbers)))

    @property
    def delegate(self) -> str | None:
        """ONNX Runtime if `runtime_constants` asks for it and it is installed; None otherwise."""
        return session.ONNX_RUNTIME if self.runtime_constants is not None and session.installed() else None

    def apply(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the product."""
        return self._applied(inputs, self.runtime_constants)

    def evaluate_constants(self, *inputs: np.ndarray) -> np.ndarray:
        """Return the product of constants, as ONNX Runtime folds them: it packs none of them."""
        return self._applied(inputs, None if self.runtime_constants is None else ())

    def _applied(self, inputs: Sequence[np.ndarray], constants: tuple[int, ...] | None) -> np.ndarray:
        shapes = [array.shape for array in inputs]
        shape: Any = self.output_shape(*shapes)
        dtype: Any = self.output_dtype(*(array.dtype.name for array in inputs))
        empty = any(0 in sizes for sizes in shapes)
        if constants is None or dtype != "float32" or empty or not session.installed():
            return self._exact(inputs, shape, dtype)
        arrays = [np.asarray(array, np.float32, order="C") for array in inputs]
        quick = math.prod(shape) * self.terms(shapes) <= _QUICK_MACS
        made = self._session(inputs, arrays, constants)
        feeds = {f"i{i}": array for i, array in enumerate(arrays) if i not in constants}
        with session.naming(self.kind, session.ONNX_RUNTIME):
            (y,) = session.run(made, feeds, ["y"], quick=quick)
        return np.asarray(y)

    def _session(
        self, inputs: Sequence[np.ndarray], arrays: Sequence[np.ndarray], constants: tuple[int, ...]
    ) -> Any:
        """Return a session whose constants are these; keep it if they are read-only.

        Its results depend on what is constant: ONNX Runtime packs constant operands, and then sums in
        another order.
        """
        held = {i: inputs[i] for i in constants if i < len(inputs)}
        names = [f"i{i}" for i in range(len(inputs))]
        # Padding "same" depends on the sizes.
        node = *self._operator(inputs), names, [*held]
        kept = self.__dict__.get("_kept")
        if kept is not None and kept[0] == node and all(kept[1][i] is array for i, array in held.items()):
            return kept[2]
        made = session.create_node(*node[:3], {names[i]: arrays[i] for i in held})
        if not any(array.flags.writeable for array in held.values()):
            self.__dict__["_kept"] = node, held, made
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields: a session cannot be copied or pickled; it is created again when needed."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def _operator(self, inputs: Sequence[np.ndarray]) -> tuple[str, dict[str, Any]]:
        """Return the ONNX operator and its attributes."""
        raise NotImplementedError

    def terms(self, shapes: Sequence[Shape]) -> int:
        """Return how many products are summed for an output."""
        raise NotImplementedError

    def _exact(self, inputs: Sequence[np.ndarray], shape: Shape, dtype: str) -> np.ndarray:
        """Return the product, in float64 and rounded once."""
        raise NotImplementedError
