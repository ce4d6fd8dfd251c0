"""Each record of the table of operators agrees with the schema of its operator, and is complete."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import onnx
import pytest

from systolic import layers
from systolic.layers import ArrayLayer
from systolic.layers.record import REQUIRED, OperatorRecord
from systolic.layers.table import OPERATORS

RECORDS = pytest.mark.parametrize(
    "record", OPERATORS.values(), ids=lambda record: f"{record.domain}{record.name}"
)
NEWEST = onnx.defs.onnx_opset_version()


@functools.cache
def _contrib() -> dict[str, Any]:
    pytest.importorskip("onnxruntime")
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return {
        schema.name: schema for schema in state.get_all_operator_schema() if schema.domain == "com.microsoft"
    }


def _schema(record: OperatorRecord, version: int = NEWEST) -> Any:
    if record.domain:
        return _contrib()[record.name]
    return onnx.defs.get_schema(record.name, version, "")


@RECORDS
def test_inputs_and_outputs_are_the_schema_s(record: OperatorRecord) -> None:
    schema = _schema(record)
    for what, names, formal in (
        ("inputs", record.inputs, schema.inputs),
        ("outputs", record.outputs, schema.outputs),
    ):
        assert len(names) <= len(formal) or names[-1].endswith("..."), what
        for name, given in zip(names, formal, strict=False):
            option = str(given.option).rpartition(".")[2]
            mark = {"Single": "", "Optional": "?", "Variadic": "..."}[option]
            assert name.endswith(mark) and (mark or name[-1] not in "?."), f"{what}: {name} is {option}"
        needed = sum(str(given.option).endswith("Single") for given in formal)
        assert len(names) >= needed, what


@RECORDS
def test_attributes_are_the_schema_s(record: OperatorRecord) -> None:
    schema, first = _schema(record), _schema(record, record.since)
    known = {*schema.attributes, *first.attributes}
    for name, default in record.attributes.items():
        assert name in known, name
        attribute = schema.attributes.get(name) or first.attributes[name]
        stated = attribute.default_value if hasattr(attribute, "default_value") else attribute._default_value
        assert attribute.required == (default is REQUIRED), name
        if getattr(stated, "name", "") and default is not None:
            value = onnx.helper.get_attribute_value(stated)
            value = value.decode() if isinstance(value, bytes) else value
            assert default == pytest.approx(value) if isinstance(value, float) else default == value, name


@RECORDS
@pytest.mark.slow
def test_history_is_the_schema_s(record: OperatorRecord) -> None:
    if record.domain:
        assert record.since == 1 and not record.history and not record.became_inputs
        return
    versions = {
        s.since_version
        for s in onnx.defs.get_all_schemas_with_history()
        if s.name == record.name and not s.domain
    }
    assert record.since in versions
    assert set(record.history) <= versions
    for name, (since, place) in record.became_inputs.items():
        assert since in versions
        assert name in _schema(record, since - 1).attributes
        assert name not in _schema(record, since).attributes
        assert _schema(record, since).inputs[place].name == name


@RECORDS
def test_a_record_is_complete(record: OperatorRecord) -> None:
    assert record.help.endswith(".") and "\n" not in record.help and len(record.help) < 100
    kind = record.layer
    assert kind or record.name == "Constant"
    if kind and kind is not layers.Op and record.read is None:
        assert set(map(record.field_of, record.attributes)) <= set(inspect.signature(kind).parameters)
    assert record.runs_on == ("array" if kind and issubclass(kind, ArrayLayer) else "host")
