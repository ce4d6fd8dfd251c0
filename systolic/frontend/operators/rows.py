"""``ROWS``: operators whose attributes are fields of their layer; reader and writer follow from a row."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from systolic import layers
from systolic.frontend.operators._operator import Converted, Operator
from systolic.layers import Layer

_REQUIRED: Any = object()
_NONE: Mapping[str, Any] = MappingProxyType({})


class Row(NamedTuple):
    """An operator and its layer.

    Attributes
    ----------
    layer : type of Layer
    attributes : dict of str to object
        Defaults by the attribute's name; a bool is a flag, written as a number.
    inputs : int, optional
        How many the layer reads; all if None.
    fields : dict of str to str
        Names of fields that differ from the attribute's.
    terse : tuple of str
        Attributes that files leave out where they have their default.
    params : tuple of str
        Fields with the scale and zero point of each input, which follow it, and last of the output.
    """

    layer: type[Layer]
    attributes: Mapping[str, Any] = _NONE
    inputs: int | None = 1
    fields: Mapping[str, str] = _NONE
    terse: tuple[str, ...] = ()
    params: tuple[str, ...] = ()

    def field(self, attribute: str) -> str:
        """Return the field that an attribute is."""
        return self.fields.get(attribute, attribute)


ROWS: dict[tuple[str, str], Row] = {
    ("", "ArgMax"): Row(
        layers.ArgMax,
        {"axis": 0, "keepdims": True, "select_last_index": False},
        fields={"select_last_index": "last"},
    ),
    ("", "BatchNormalization"): Row(layers.BatchNormalization, {"epsilon": 1e-5}, terse=("epsilon",)),
    ("", "Concat"): Row(layers.Concat, {"axis": _REQUIRED}, inputs=None),
    ("", "DynamicQuantizeLinear"): Row(layers.DynamicQuantize),
    ("", "Expand"): Row(layers.Expand, inputs=2),
    ("", "Flatten"): Row(layers.Flatten, {"axis": 1}),
    ("", "Gather"): Row(layers.Gather, {"axis": 0}, inputs=2),
    ("", "GlobalAveragePool"): Row(layers.GlobalAveragePool),
    ("", "Identity"): Row(layers.Identity),
    # A stored attribute is float32; the operator's default is not.
    ("", "LayerNormalization"): Row(
        layers.LayerNormalization, {"axis": -1, "epsilon": 1e-5}, terse=("epsilon",)
    ),
    ("", "MatMulInteger"): Row(layers.MatMulInteger),
    ("", "Reshape"): Row(layers.ReshapeTo, {"allowzero": False}, terse=("allowzero",)),
    ("", "Shape"): Row(layers.ShapeOf, {"start": 0, "end": None}, terse=("start",)),
    ("", "Transpose"): Row(layers.Transpose, {"perm": None}),
    ("", "Where"): Row(layers.Where, inputs=3),
    ("com.microsoft", "MatMulIntegerToFloat"): Row(layers.MatMulIntegerToFloat),
    ("com.microsoft", "QLinearAdd"): Row(layers.Add, params=("a", "b", "y")),
    ("com.microsoft", "QLinearLeakyRelu"): Row(layers.QLinearLeakyRelu, {"alpha": 0.01}, params=("x", "y")),
    ("com.microsoft", "QLinearMul"): Row(layers.QLinearMul, params=("a", "b", "y")),
    ("com.microsoft", "QLinearSigmoid"): Row(layers.QLinearSigmoid, params=("x", "y")),
    ("com.microsoft", "QLinearWhere"): Row(layers.QLinearWhere, params=("a", "b", "y")),
}
"""Rows by (domain, operator). Some have a reader or a writer of their own beside the one that follows."""


def from_row(op: Operator) -> Converted:
    """Return the layer of an operator's row."""
    row, given = ROWS[op.key], {}
    op.only(*row.attributes)
    for name, default in row.attributes.items():
        if default is _REQUIRED and name not in op.attributes:
            raise ValueError(f"attribute {name} is missing")
        value = op.attribute(name, default)
        if default is None and isinstance(value, list):
            value = op.integers(name, ())
        given[row.field(name)] = bool(value) if isinstance(default, bool) else value
    make: Any = row.layer
    if not row.params:
        return make(**given), op.inputs[: row.inputs]
    end = 3 * (len(row.params) - 1)
    dtype = op.dtypes.get(op.inputs[0], "uint8")
    params = [op.params(place, place + 1, dtype=dtype) for place in (*range(1, end, 3), end)]
    return make(*params, **given), op.inputs[:end:3]
