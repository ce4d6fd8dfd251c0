"""One-operator int8 models for LiteRT, and the stored table of what it makes of them.

``python tests/support/litert_models.py`` writes tests/data/litert_roundings.csv again; it needs the package
ai-edge-litert. Output channel c is its bias alone: weights and input are zero codes, so that any
int32 sum reaches the requantization.
"""

from __future__ import annotations

import csv
import importlib.metadata
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).parents[1] / "data" / "litert_roundings.csv"
KERNELS = ("conv_reference", "dense_reference", "conv_default", "dense_default")
FIELDS = ("x_scale", "w_scale", "y_scale", "y_zero_point", "acc", *KERNELS)

# (x_scale, w_scale, y_scale): exact ties in each power of two, in 0.75, none in the decimals; sums
# beyond float32; multipliers at which int32 arithmetic wraps; the least multiplier, and one below.
SCALES = (
    (1.0, 0.5, 1.0),
    (1.0, 0.25, 1.0),
    (0.5, 0.5, 2.0),
    (1.0, 0.75, 1.0),
    (0.02, 0.129, 0.05),
    (0.0039, 0.011, 1.7),
    (0.02, 0.016954023, 0.05),
    (2.0**-10, 2.0**-10, 1.0),
    (2.0**-12, 2.0**-13, 1.0),
    (1 - 2.0**-15, 1 + 2.0**-15, 1.0),
    (1.0, 1.0, 1.0),
    (1.0, 3.0, 1.0),
    (2.0**-16, 2.0**-16, 1.0),
    (2.0**-16, 2.0**-16, 1.001),
)
EXTREMES = (-(2**31), -(2**31) + 1, -(2**30), -(2**24) - 1, 2**24 + 1, 2**30 - 1, 2**30, 2**31 - 2, 2**31 - 1)


def around_ties(multiplier: Fraction, codes: Sequence[int], reach: int = 1) -> list[int]:
    """Return the int32 sums within `reach` of the tie above each code, and the extremes."""
    sums = set(EXTREMES)
    for code in codes:
        tie = math.floor((code + Fraction(1, 2)) / multiplier)
        sums |= set(range(tie - reach, tie + reach + 2))
    return sorted(acc for acc in sums if -(2**31) <= acc < 2**31)


def model(
    kind: str, sums: Sequence[int], x_scale: float, w_scale: Any, y_scale: float, zero_point: int
) -> bytes:
    """Return a FULLY_CONNECTED ("dense") or CONV_2D ("conv") model with one channel per sum.

    `w_scale` is a number, or for "conv" one per channel.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: tuple[int, ...], dtype: int, buffer: int, scale: Any, zero: int) -> Any:
        result = schema.TensorT()
        result.name, result.shape, result.type, result.buffer = name, list(shape), dtype, buffer
        result.quantization = schema.QuantizationParametersT()
        result.quantization.scale = np.atleast_1d(np.float32(scale))
        result.quantization.zeroPoint = np.full(result.quantization.scale.size, zero, np.int64)
        result.quantization.quantizedDimension = 0
        return result

    def buffer(values: np.ndarray | None = None) -> Any:
        result = schema.BufferT()
        result.data = None if values is None else np.frombuffer(values.tobytes(), np.uint8)
        return result

    count = len(sums)
    dense = kind == "dense"
    weight = np.zeros((count, 1) if dense else (count, 1, 1, 1), np.int8)
    x_shape, y_shape = ((1, 1), (1, count)) if dense else ((1, 1, 1, 1), (1, 1, 1, count))
    int8, int32 = schema.TensorType.INT8, schema.TensorType.INT32
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", x_shape, int8, 0, x_scale, 0),
        tensor("w", weight.shape, int8, 1, w_scale, 0),
        tensor("b", (count,), int32, 2, np.float32(x_scale) * np.float32(w_scale), 0),
        tensor("y", y_shape, int8, 0, y_scale, zero_point),
    ]
    node = schema.OperatorT()
    node.opcodeIndex, node.inputs, node.outputs = 0, [0, 1, 2], [3]
    code = schema.OperatorCodeT()
    if dense:
        builtin, code.version = schema.BuiltinOperator.FULLY_CONNECTED, 5
        node.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        node.builtinOptions = schema.FullyConnectedOptionsT()
    else:
        builtin, code.version = schema.BuiltinOperator.CONV_2D, 3
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
        node.builtinOptionsType, node.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    graph.operators, graph.inputs, graph.outputs, graph.name = [node], [0], [3], "main"
    whole = schema.ModelT()
    whole.version, whole.operatorCodes, whole.subgraphs = 3, [code], [graph]
    whole.buffers = [buffer(), buffer(weight), buffer(np.array(sums, np.int32))]
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(
    kernel: str, sums: Sequence[int], x_scale: float, w_scale: Any, y_scale: float, zero_point: int
) -> np.ndarray:
    """Return the codes, int8, that a kernel of KERNELS makes of the sums."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind, which = kernel.split("_")
    resolver = {"reference": OpResolverType.BUILTIN_REF, "default": OpResolverType.AUTO}[which]
    interpreter = Interpreter(
        model_content=model(kind, sums, x_scale, w_scale, y_scale, zero_point),
        experimental_op_resolver_type=resolver,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    x = interpreter.get_input_details()[0]
    interpreter.set_tensor(x["index"], np.zeros(x["shape"], np.int8))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).reshape(-1).copy()


def rows() -> list[tuple[str | int, ...]]:
    """Return the table's rows, computed by the LiteRT that is installed."""
    result: list[tuple[str | int, ...]] = []
    for scales in SCALES:
        x_scale, w_scale, y_scale = (np.float32(scale) for scale in scales)
        product = Fraction(float(x_scale)) * Fraction(float(w_scale)) / Fraction(float(y_scale))
        for zero_point in (0, 7, -128):
            codes = [*range(-6, 6), -129 - zero_point, -128 - zero_point, 126 - zero_point, 127 - zero_point]
            sums = around_ties(product, codes)
            by_kernel = [run(kernel, sums, x_scale, w_scale, y_scale, zero_point) for kernel in KERNELS]
            for acc, *made in zip(sums, *by_kernel, strict=True):
                shown = (str(scale) for scale in (x_scale, w_scale, y_scale))
                result.append((*shown, zero_point, acc, *map(int, made)))
    return result


def stored() -> list[dict[str, Any]]:
    """Return the stored table's rows, numbers as numbers."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [
        {name: np.float32(text) if name.endswith("_scale") else int(text) for name, text in row.items()}
        for row in csv.DictReader(lines)
    ]


def write() -> None:
    """Write the table."""
    version = importlib.metadata.version("ai-edge-litert")
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("w", encoding="utf-8", newline="\n") as file:
        file.write(
            f"# What LiteRT (ai-edge-litert {version}, x86-64) makes of an int32 sum, kernel by kernel.\n"
        )
        file.write("# Made by tests/support/litert_models.py; scales are float32 numbers.\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(rows())


if __name__ == "__main__":
    write()
