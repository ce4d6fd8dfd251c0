"""Write what was measured into docs/quantize.md: python docs/write_quantize.py

The networks are those of tests/data/torch, exported by torch; the accuracies are of the 360 test images of
``systolic.load_example()``. Needs ``pip install "systolic[onnx]" onnxruntime``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import systolic
from systolic import Model, cli
from systolic.calibrate import plan_quantization

PAGE = Path(__file__).with_name("quantize.md")
FILES = Path(__file__).resolve().parents[1] / "tests" / "data" / "torch"
BEGIN = "<!-- begin {}: docs/write_quantize.py writes this -->"
END = "<!-- end {} -->"
METHODS = (("minmax", True), ("minmax", False), ("percentile", True), ("percentile", False))


def _calibration() -> np.ndarray:
    with np.load(FILES / "calibration.npz") as file:
        images: np.ndarray = file["images"] / np.float32(16)
    return images


def command() -> str:
    """Return what the shell prints for the convolutional network, between its two marks."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copy(FILES / "cnn_dynamo.onnx", "digits.onnx")
        np.save("images.npy", _calibration())
        arguments = ["quantize", "digits.onnx", "--calibration", "images.npy", "--out", "int8.onnx"]
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert cli.main(arguments) == 0
    shown = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    lines = [BEGIN.format("command"), "", "```", f"$ systolic {' '.join(arguments)}", shown, "```"]
    return "\n".join([*lines, "", END.format("command")])


def _static(source: Path, method: str, per_channel: bool) -> Model:
    """Return a network that ONNX Runtime's tool quantized."""
    from onnxruntime import quantization as tool

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc]
        batches = iter([{"x": _calibration()}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    chosen = {"minmax": tool.CalibrationMethod.MinMax, "percentile": tool.CalibrationMethod.Percentile}
    logging.disable(logging.WARNING)
    try:
        tool.quantize_static(
            source, "static.onnx", Reader(), quant_format=tool.QuantFormat.QOperator,
            per_channel=per_channel, activation_type=tool.QuantType.QInt8, weight_type=tool.QuantType.QInt8,
            calibrate_method=chosen[method],
            nodes_to_exclude=[n.name for n in onnx.load(source).graph.node if n.op_type == "Softmax"],
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return systolic.load_onnx("static.onnx")


def _logits(model: Model) -> np.ndarray:
    """Return what a network writes for the test images, before a Softmax."""
    last = model.nodes[-1]
    if last.layer.kind == "Softmax":
        model = Model(
            model.nodes[:-1], inputs=model.inputs, outputs=last.inputs, constants=model.constants
        )
    x = systolic.load_example().images / np.float32(16)
    (found,) = systolic.run(model, x, mode="wavefront").outputs.values()
    return found  # type: ignore[no-any-return]


def _accuracy(logits: np.ndarray) -> str:
    return f"{np.mean(logits.argmax(axis=1) == systolic.load_example().labels):.2%}"


def _error(logits: np.ndarray, exact: np.ndarray) -> str:
    return f"{np.sqrt(np.mean((logits - exact) ** 2) / np.mean(exact**2)):.1%}"


def accuracies() -> str:
    """Return accuracies and errors as a table in Markdown, between its two marks."""
    lines = [
        "| network | ranges | weight scales | float32 | `quantize_model` | `quantize_static` | error | "
        "its error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("cnn", "mlp"):
        source = FILES / f"{name}_dynamo.onnx"
        floats = systolic.load_onnx(source)
        exact = _logits(floats)
        for method, per_channel in METHODS:
            found = plan_quantization(floats, _calibration(), method=method, per_channel=per_channel)
            ours = _logits(found.model)
            with (
                tempfile.TemporaryDirectory() as folder,
                contextlib.chdir(folder),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                theirs = _logits(_static(source, method, per_channel))
            cells = name, method, "per channel" if per_channel else "per tensor"
            measured = (*map(_accuracy, (exact, ours, theirs)), _error(ours, exact), _error(theirs, exact))
            lines.append(f"| {' | '.join((*cells, *measured))} |")
    return "\n".join([BEGIN.format("accuracies"), "", *lines, "", END.format("accuracies")])


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for mark, section in (("command", command), ("accuracies", accuracies)):
        made = section()
        pattern = f"{re.escape(BEGIN.format(mark))}.*{re.escape(END.format(mark))}"
        text = re.sub(pattern, lambda _, made=made: made, text, flags=re.S)
    PAGE.write_text(text, encoding="utf-8")
