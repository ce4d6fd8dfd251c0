"""The onnx package's own node tests, of every operator that the README lists, on the emulator.

Which of them run by a layer of ours, which by onnx's reference evaluator and which not at all is written
down here, and checked in both directions: a test that is missing from the package, that starts to pass
or that changes sides fails.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import systolic
from systolic.layers import OnnxNode

pytestmark = pytest.mark.slow

# The version whose tests the lists below name; others have other tests.
LISTED = "1.23"

# Operators by the module of onnx.backend.test.case.node that holds their tests.
MODULES = {
    "add": "Add", "argmax": "ArgMax", "averagepool": "AveragePool",
    "batch_normalization": "BatchNormalization", "cast": "Cast", "clip": "Clip",
    "concat": "Concat", "constant": "Constant", "constantofshape": "ConstantOfShape", "conv": "Conv",
    "convinteger": "ConvInteger", "convtranspose": "ConvTranspose", "dequantizelinear": "DequantizeLinear",
    "div": "Div", "dynamicquantizelinear": "DynamicQuantizeLinear", "erf": "Erf", "expand": "Expand",
    "flatten": "Flatten", "gather": "Gather", "gelu": "Gelu", "gemm": "Gemm",
    "globalaveragepool": "GlobalAveragePool", "identity": "Identity", "if_": "If",
    "layernormalization": "LayerNormalization", "loop": "Loop", "matmul": "MatMul",
    "matmulinteger": "MatMulInteger", "maxpool": "MaxPool", "mul": "Mul", "pad": "Pad", "pow": "Pow",
    "qlinearconv": "QLinearConv", "qlinearmatmul": "QLinearMatMul", "quantizelinear": "QuantizeLinear",
    "reducemean": "ReduceMean", "relu": "Relu", "reshape": "Reshape", "resize": "Resize", "scan": "Scan",
    "shape": "Shape", "sigmoid": "Sigmoid", "slice": "Slice", "softmax": "Softmax", "split": "Split",
    "sqrt": "Sqrt", "squeeze": "Squeeze", "sub": "Sub", "tanh": "Tanh", "transpose": "Transpose",
    "unsqueeze": "Unsqueeze", "where": "Where",
}  # fmt: skip


def collected() -> dict[str, Any]:
    """The node tests of these modules: name to TestCase."""
    import onnx.backend.test.case.node as node

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # The package's own: overflow in its casts.
        warnings.simplefilter("ignore")
        for module in MODULES:
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
    operators = set(MODULES.values())
    return {
        case.name: case
        for case in node._NodeTestCases
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in operators
    }


CASES = collected()

_SMALL = "{} is of a type that numpy, and so a tensor here, does not have"
_TYPES = (
    "BFLOAT16", "FLOAT4E2M1", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0",
    "INT2", "INT4", "UINT2", "UINT4",
)  # fmt: skip

# Tests that do not run, and why.
NOT_RUN = {
    "test_constant": "a model here reads at least one input",
    "test_identity_opt": "optionals are not supported",
    "test_identity_sequence": "sequences are not supported",
    "test_if_opt": "optionals are not supported",
    "test_if_seq": "sequences are not supported",
    "test_loop13_seq": "sequences are not supported",
    "test_loop16_seq_none": "sequences are not supported",
    "test_scan_sum": "of operator set 8; supported are those from 10 on",
    "test_scan9_sum": "of operator set 9; supported are those from 10 on",
    "test_scan9_multi_state": "of operator set 9; supported are those from 10 on",
    "test_scan9_scalar": "of operator set 9; supported are those from 10 on",
    **{
        f"test_{op}quantizelinear_{kind}": _SMALL.format(kind)
        for op, kinds in {
            "": ("e4m3fn", "e5m2", "uint4", "int4", "uint2", "int2", "float4e2m1"),
            "de": (
                "e4m3fn", "e4m3fn_float16", "e4m3fn_zero_point", "e5m2", "uint4", "int4", "uint2", "int2",
                "float4e2m1",
            ),
        }.items()
        for kind in kinds
    },
    **{name: _SMALL.format("one side") for name in CASES if "_cast_" in name and name.split("_")[-1] in _TYPES},
    **{name: _SMALL.format("one side") for name in CASES if "_cast_" in name and name.split("_")[-3] in _TYPES},
}  # fmt: skip

# Operators left to ONNX Runtime, and why; others run by layers of ours.
EVALUATED_OPERATORS = {
    "If": "subgraphs run on the host",
    "Loop": "subgraphs run on the host",
    "Scan": "subgraphs run on the host",
}

# Single tests that it runs.
EVALUATED = {
    **{
        name: "Resize that interpolates, or extrapolates"
        for name in CASES
        if name.startswith("test_resize")
        and any(word in name for word in ("linear", "cubic", "tf_crop"))
    },
    **{
        name: "BatchNormalization that trains" for name in CASES
        if name.startswith("test_batchnorm") and "training_mode" in name
    },
    **{name: "sizes that are computed" for name in CASES if name.startswith("test_split_") and ("variable" in name or "zero_size" in name)},
}  # fmt: skip

# Tests whose expected values ONNX Runtime does not give.
DIFFERENT = {
    f"test_resize_downsample_scales_{mode}_align_corners": "it aligns corners to the scaled size before that "
    "is rounded down"
    for mode in ("linear", "cubic")
}

RUN = sorted(set(CASES) - set(NOT_RUN))


def array(value: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def saved(case: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(case.model.SerializeToString())
    return path


@pytest.mark.parametrize("name", RUN)
def test_node(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    operator = case.model.graph.node[0].op_type
    model = systolic.load_onnx(saved(case, tmp_path))
    foreign = operator in EVALUATED_OPERATORS or name in EVALUATED
    assert any(isinstance(node.layer, OnnxNode) for node in model.nodes) == foreign
    assert case.data_sets
    for inputs, expected in case.data_sets:
        x = {value.name: array(given) for value, given in zip(case.model.graph.input, inputs, strict=True)}
        run = systolic.run(model, x, mode="wavefront", machine=systolic.ArrayConfig(8, 8))
        for ours, theirs in zip(run.outputs.values(), map(array, expected), strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            if name in DIFFERENT:
                assert not np.allclose(ours, theirs, rtol=case.rtol, atol=case.atol)
            elif ours.dtype.kind == "f":
                np.testing.assert_allclose(ours, theirs, rtol=case.rtol, atol=case.atol)
            else:
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", NOT_RUN)
def test_what_does_not_run_is_refused(name: str, tmp_path: Path) -> None:
    if name not in CASES:
        pytest.skip(f"this onnx ({onnx.__version__}) has no such test")
    with pytest.raises(ValueError):
        systolic.load_onnx(saved(CASES[name], tmp_path))


def test_lists_are_of_tests_that_exist() -> None:
    if not onnx.__version__.startswith(LISTED):
        pytest.skip(f"the lists are of onnx {LISTED}")
    assert set(NOT_RUN) | set(EVALUATED) | set(DIFFERENT) <= set(CASES)
    assert {case.model.graph.node[0].op_type for case in CASES.values()} == set(MODULES.values())
    # A floor, so that a change in the package cannot empty the list.
    assert len(RUN) >= 370
