"""``Op``: a host operator that is given by its record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from systolic import _check
from systolic.layers.base import HostLayer, integers
from systolic.layers.record import REQUIRED, OperatorRecord, contrib

RECORDS: dict[str, OperatorRecord] = {}
"""The records of operators that are an :class:`Op`, by name."""


@dataclass(frozen=True, eq=False, repr=False)
class Op(HostLayer):
    """A host operator by its ONNX name; ``docs/operators.md`` lists what there is.

    Parameters
    ----------
    operation : str
        The operator's name, such as "BiasGelu"; tables show it as the layer's kind.
    attributes : dict of str to object
        ONNX attributes that differ from their defaults; kept as sorted pairs.
    absent : tuple of int
        Places of optional inputs that are left out before others that are given.

    Raises
    ------
    ValueError
        For a name or an attribute that does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import Op
    >>> Op("BiasGelu").apply(np.float32([[-1, 0, 2]]), np.float32([1, 1, 1]))
    array([[0.       , 0.8413448, 2.9959502]], dtype=float32)
    """

    inputs: ClassVar[None] = None

    operation: str
    attributes: Any = ()
    absent: Sequence[int] = ()

    def __post_init__(self) -> None:
        _check.choice(self.operation, "operation", tuple(RECORDS))
        known, given = self._record.attributes, self.attributes
        pairs: Any = tuple(given.items()) if isinstance(given, Mapping) else given
        if not _check.is_listed(pairs) or not all(_check.is_listed(p) and len(p) == 2 for p in pairs):
            raise TypeError(f"attributes must be a dict or pairs of name and value, not {_check.kind(given)}")
        for name, value in pairs:
            _check.choice(name, f"{self.operation}: an attribute", tuple(known))
            default = 0 if known[name] is REQUIRED else known[name]
            if type(value) is not type(default):
                wanted = type(default).__name__
                raise TypeError(f"{self.operation}: {name} must be {wanted}, not {_check.kind(value)}")
        object.__setattr__(self, "absent", integers(self.absent, "absent", 0))
        kept = ((name, value) for name, value in pairs if not _check.same_values(value, known[name]))
        object.__setattr__(self, "attributes", tuple(sorted(kept)))
        lacking = [name for name, value in self._options.items() if value is REQUIRED]
        if lacking:
            raise ValueError(f"{self.operation}: attribute {lacking[0]} is missing")

    @property
    def _record(self) -> OperatorRecord:
        return RECORDS[self.operation]

    @property
    def kind(self) -> str:
        """The operation."""
        return self.operation

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """How many tensors it writes."""
        return len(self._record.outputs)

    @property
    def _options(self) -> dict[str, Any]:
        return {**self._record.attributes, **dict(self.attributes)}

    @property
    def names(self) -> tuple[str, ...]:
        """What it may read, in order, without what is absent."""
        names = (name.rstrip("?") for name in self._record.inputs)
        return tuple(name for place, name in enumerate(names) if place not in self.absent)

    def _counted(self, values: Sequence[Any]) -> list[Any]:
        """Return one value for each of the operator's inputs, None for those that are absent."""
        names = self._record.inputs
        spread = list(values)
        for place in sorted(self.absent):
            spread.insert(place, None)
        spread += [None] * (len(names) - len(spread))
        lacking = [
            name for name, value in zip(names, spread, strict=False) if value is None and name[-1] != "?"
        ]
        if len(spread) > len(names) or lacking:
            raise TypeError(f"{self.operation} takes {', '.join(names)}, not {len(values)} inputs")
        return spread

    def _shape(self, *shapes: Any) -> Any:
        rule = self._record.shape
        return shapes[0] if rule is None else rule(*shapes, **self._options)

    def _dtype(self, *dtypes: Any) -> Any:
        rule = self._record.dtype
        if rule is not None:
            return rule(*dtypes, **self._options)
        strange = sorted({dtype for dtype in dtypes if dtype not in (None, "float32")})
        if strange:
            raise TypeError(f"{self.operation} takes float32, not {' and '.join(strange)}")
        return "float32"

    def _kernel(self, shape: Any, *inputs: Any) -> Any:
        assert self._record.kernel is not None
        return self._record.kernel(*inputs, **self._options)


def _read(op: Any) -> Any:
    """Return the layer of a node, and the inputs that are given."""
    record = RECORDS[op.op_type]
    op.only(*record.attributes)
    given = {name: op.attribute(name, None) for name in record.attributes if name in op.attributes}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    last = max(place for place, name in enumerate(op.inputs) if name)
    absent = tuple(place for place, name in enumerate(op.inputs[:last]) if not name)
    return Op(op.op_type, given, absent), op.given


def _write(out: Any, node: Any, layer: Op) -> None:
    """Write the operator's node."""
    record = RECORDS[layer.operation]
    names = list(node.inputs)
    for place in sorted(layer.absent):
        names.insert(place, "")
    out.node(node, record.name, names, record.domain, **dict(layer.attributes))


def define(name: str, help: str, **fields: Any) -> OperatorRecord:
    """Return the record of an operator of com.microsoft that is an :class:`Op`, and make it known to that."""
    record = RECORDS[name] = contrib(Op, help, name=name, read=_read, write=_write, **fields)
    return record
