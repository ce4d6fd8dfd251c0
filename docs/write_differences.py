"""Write the list of differences from ONNX Runtime into docs/onnx.md: python docs/write_differences.py

They are the intended ones of our own layers on the CPU. In all other cases a test of random graphs finds
equal shapes, types and integers, and floats within a stated tolerance
(``tests/operators/test_random_operators.py``);
another test shows that each row below still holds.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).with_name("onnx.md")
BEGIN, END = "<!-- begin differences: docs/write_differences.py writes this -->", "<!-- end differences -->"

DIFFERENCES = {
    "approximations": (
        "Erf, Exp, Gelu, Log, Sigmoid, Tanh and Softmax are the true value rounded once. ONNX Runtime's "
        "float32 polynomials lie within 2e-6 of it, relative to the larger of 1 and the value: far below "
        "zero its Sigmoid stays near 1e-8 while the true value falls further. Its bits depend on the "
        "instruction set."
    ),
    "sums of floats": (
        "Means, sums and transposed convolutions are computed in float64 and rounded once. ONNX Runtime "
        "sums in the type itself, in an order that depends on sizes, threads and instruction set, and "
        "intermediate sums may overflow."
    ),
    "products of floats": (
        "Conv, Gemm and MatMul of float32 run in ONNX Runtime where it is installed, each node alone: the "
        "bits differ where it fuses a product with what follows (MatMul and Add, Conv and Add or "
        "BatchNormalization). Those of other types, and all of them without ONNX Runtime or with "
        "float_products='exact', are computed in float64 and rounded once."
    ),
    "Gelu with approximate='tanh' of float64": (
        "Computed in float64. ONNX Runtime's constants are float32 numbers, so that it is off by up to "
        "1e-7."
    ),
    "NaN in ReduceMax and ReduceMin": (
        "NaN propagates. In ONNX Runtime it propagates or is ignored, depending on its position in a vector."
    ),
    "NaN in MaxPool": (
        "NaN propagates. In ONNX Runtime it is ignored or wins, depending on its place in the window and on "
        "the instruction set."
    ),
    "minus infinity in MaxPool": (
        "The maximum of minus infinities is minus infinity. Some of ONNX Runtime's loops start from the "
        "smallest finite number and return that."
    ),
    "means of infinity in LayerNormalization": (
        "The mean of values that include infinity is infinite. ONNX Runtime's is infinite or NaN, depending "
        "on sizes."
    ),
    "a bound of NaN in Clip": (
        "Everything becomes NaN. ONNX Runtime ignores such a bound."
    ),
    "int64 beyond 2^53 in ReduceSum and ReduceProd": (
        "Both are computed in float64, as in ONNX Runtime. Its order of operations differs, so the last bits "
        "may differ."
    ),
    "halves in Resize by half_pixel_symmetric": (
        "Positions are computed with float32 and float64 steps as in ONNX Runtime. With scales that do not "
        "divide the size, some positions at a half are rounded to the other side."
    ),
    "a pool's kernel larger than the padded image": (
        "Refused where no window fits. ONNX Runtime returns a tensor without elements, or crashes "
        "(QLinearAveragePool)."
    ),
    "auto_pad SAME in MaxPool of float32 with strides beyond the kernel": (
        "Crops, as for every other type. ONNX Runtime refuses it for float32 alone."
    ),
    "integers divided by 0": (
        "Refused when it happens. In C, and so in ONNX Runtime, it ends the process."
    ),
}
"""Reason for each difference."""


def section() -> str:
    """Return the list as Markdown, between its two marks."""
    rows = [
        textwrap.fill(f"- **{name}**: {reason}", 110, subsequent_indent="  ", break_on_hyphens=False)
        for name, reason in DIFFERENCES.items()
    ]
    return "\n".join([BEGIN, "", *rows, "", END])


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: section(), text, flags=re.S), encoding="utf-8")
