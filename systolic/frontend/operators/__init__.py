"""The table of ONNX operators: each converter turns one node into layers."""

from systolic.frontend.operators._operator import Converted as Converted
from systolic.frontend.operators._operator import Converter as Converter
from systolic.frontend.operators._operator import Graph as Graph
from systolic.frontend.operators._operator import Operator as Operator
from systolic.frontend.operators._operator import Sizes as Sizes
from systolic.frontend.operators._operator import UnsupportedOperator as UnsupportedOperator
from systolic.frontend.operators._operator import circle as circle
from systolic.frontend.operators._operator import fresh as fresh
from systolic.frontend.operators.delegated import evaluated, known
from systolic.layers.dequantized import DOMAIN as DEQUANTIZED
from systolic.layers.dequantized import read as read_dequantized
from systolic.layers.table import OPERATORS as RECORDS

OPERATORS: dict[tuple[str, str], Converter] = {key: record.read_node for key, record in RECORDS.items()}
"""Converters by (domain, operator)."""


def find(operator: Operator) -> Converter | None:
    """Return the converter of an operator, None if it is not supported."""
    if operator.domain == DEQUANTIZED:
        return read_dequantized
    return OPERATORS.get(operator.key) or (evaluated if known(operator) else None)
