"""``Function``: an entry of a program's table of functions, as data that the machine computes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from systolic import _check

_MOST_ROWS = 2**32 - 1  # as the rows of an instruction
KINDS = ("identity", "epilogue", "lanes", "pair", "max_pool", "sum_pool", "host")


@dataclass(frozen=True, eq=False)
class Function:
    """An entry of a program's table of functions.

    Parameters
    ----------
    name : str
        Shown in listings.
    pool : int
        Rows read for each result: more than 1 for the largest of so many rows that follow each other.
    parts : int
        Rows written for each result: more than 1 for results of 4 bytes, which take several rows of the
        unified buffer.
    outputs : int or None
        Rows written, where that does not follow from the number of rows read.
    kind : str
        What is computed, see below.
    attributes : mapping of str to values that JSON can hold
    arrays : mapping of str to ndarray

    Notes
    -----
    A row of results begins at the row's first byte; bytes behind it become 0. ``n`` is the number of columns.

    ========== ========= ============================================================================
    kind       of        computes
    ========== ========= ============================================================================
    identity   Activate  sums, clamped to int8
    identity   Vector    its first input; with `pool`, the largest codes of int8
    epilogue   Activate  the formula of :class:`systolic.lowered.Epilogue`: arrays `constant` (int32, n),
                         `scale`, `late_scale`, `float_bias` (n), `table` (256); attributes `dtype`,
                         `zero_point`, `rounding`, `clamp`. Results of 4 bytes are little-endian.
    lanes      Vector    byte c of a row is ``tables[source[c], inputs[source[c]][lane[c]]]``: arrays `source`
                         (int16, lanes; -1 for 0), `lane` (int32, lanes), `tables` (uint8, inputs, 256)
    pair       Vector    ``table[256 * a + b]`` for each byte a of its first and b of its second input: array
                         `table` (uint8, 65536). Attributes may say which operator has this table, so that it
                         need not be looked up: `operator` ("add" or "mul", as QLinearAdd and QLinearMul),
                         `dtype`, and of both inputs and the output `scales` and `zero_points`
    max_pool   Vector    the largest code of each window of images: attributes as :class:`Window`, `dtype`
    sum_pool   Vector    ``table[taps, sum - low * taps]`` of the `taps` codes of a window that lie inside the
                         image: array `table` (uint8, taps + 1, sums); attributes as :class:`Window`, `dtype`;
                         `low` is the lowest code of `dtype`
    host       HostCall  work of the host, described by `attributes`
    ========== ========= ============================================================================

    Examples
    --------
    >>> from systolic.isa import Function
    >>> Function("max of 2 x 2", pool=4).rows_written(36)
    9
    """

    name: str = "identity"
    pool: int = field(default=1, kw_only=True)
    parts: int = field(default=1, kw_only=True)
    outputs: int | None = field(default=None, kw_only=True)
    kind: str = field(default="identity", kw_only=True)
    attributes: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a function's name must be a str, not {_check.kind(self.name)}")
        for name in ("pool", "parts", "outputs"):
            if name != "outputs" or self.outputs is not None:
                value = _check.integer(getattr(self, name), name, minimum=1, maximum=_MOST_ROWS)
                object.__setattr__(self, name, value)
        _check.choice(self.kind, "kind", KINDS)
        for name in ("attributes", "arrays"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} must be a mapping, not {_check.kind(getattr(self, name))}")
        arrays = {name: np.array(values) for name, values in self.arrays.items()}
        for values in arrays.values():
            values.flags.writeable = False
        object.__setattr__(self, "arrays", MappingProxyType(arrays))
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))

    def rows_written(self, rows: int) -> int:
        """Return how many rows are written if `rows` are read."""
        return self.outputs or -(-rows // self.pool) * self.parts

    def _values(self) -> tuple[Any, ...]:
        own = (self.name, self.pool, self.parts, self.outputs, self.kind)
        return (*own, dict(self.attributes), dict(self.arrays))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Function):
            return NotImplemented
        return _check.same_values(self._values(), other._values())

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> tuple[Any, ...]:
        return self._values()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        name, pool, parts, outputs, kind, attributes, arrays = state
        Function.__init__(
            self, name, pool=pool, parts=parts, outputs=outputs, kind=kind, attributes=attributes,
            arrays=arrays,
        )  # fmt: skip

    def __repr__(self) -> str:
        options = [
            f"{name}={value!r}"
            for name, value in zip(("pool", "parts", "outputs", "kind"), self._values()[1:5], strict=True)
            if value != getattr(IDENTITY, name)
        ]
        return f"Function({', '.join([repr(self.name), *options])})"

    def to_dict(self) -> dict[str, Any]:
        """Return all but the arrays as a dict that JSON can hold."""
        names = ("name", "pool", "parts", "outputs", "kind")
        return {**{name: getattr(self, name) for name in names}, "attributes": dict(self.attributes)}


IDENTITY = Function()


@dataclass(frozen=True, kw_only=True)
class Window:
    """Windows that slide over images whose pixels are rows of the unified buffer.

    Parameters
    ----------
    batch : int
    stored : (int, int)
        Height and width of an image with its border, in rows.
    corner : (int, int)
        Where the image itself begins.
    size : (int, int)
        Height and width of the image itself: windows see nothing else.
    kernel, stride, dilation, before, out : (int, int)
        As in :class:`systolic.lowered.Patches`; `before` is padding above and to the left of the image.
    """

    batch: int
    stored: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    out: tuple[int, int]
