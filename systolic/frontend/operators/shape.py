"""Converters of operators that move elements without changing them."""

from __future__ import annotations

import numpy as np

from systolic import layers
from systolic.frontend.operators._operator import Converted, Converter, Operator
from systolic.frontend.operators.delegated import evaluated
from systolic.layers.host.resample import COORDINATES, ROUNDINGS


def _squeeze(op: Operator) -> Converted:
    """Squeeze and Unsqueeze: the axes were an attribute and became an input."""
    op.only("axes")
    layer = layers.Squeeze if op.op_type == "Squeeze" else layers.Unsqueeze
    if op.computed(1):
        return layer(), op.inputs[:2]
    axes = op.listed("axes", 1)
    if op.op_type == "Squeeze":
        axes = axes or None  # no list and an empty one both mean all axes of size 1
    return layer(axes), op.inputs[:1]


def _split(op: Operator) -> Converted:
    op.only("axis", "num_outputs", "split")
    axis = op.attribute("axis", 0)
    if op.computed(1):
        return evaluated(op)
    sizes = op.listed("split", 1)
    if sizes is None:
        shape = op.shape(0)
        size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
        if size is None:
            return evaluated(op)
        count = len(op.outputs)
        step = -(-size // count)
        sizes = tuple(max(min(step, size - step * place), 0) for place in range(count))
    if len(sizes) != len(op.outputs):
        raise ValueError(f"{len(op.outputs)} outputs but {len(sizes)} sizes")
    return layers.Split(sizes, axis), op.inputs[:1]


def _slice(op: Operator) -> Converted:
    op.only()
    for index, what in ((1, "starts"), (2, "ends")):
        if not op.has(index):
            raise ValueError(f"the {what} are missing")
    inputs = list(op.inputs)
    if op.has(4) and not op.has(3):
        # Steps but no axes, which are the first ones then; a layer's inputs have no gaps.
        count = op.shape(1)
        if count is None or count[0] is None:
            return evaluated(op)
        inputs[3] = op.add_constant("/axes", np.arange(count[0], dtype=np.int64))
    return layers.Slice(), tuple(filter(None, inputs))


def _pad(op: Operator) -> Converted:
    op.only("mode", "pads", "value")
    layer = layers.Pad(op.attribute("mode", "constant"))
    dtype = op.dtypes[op.inputs[0]]
    if op.opset < 11:
        pads = op.add_constant("/pads", np.array(op.integers("pads", ()), np.int64))
        value = op.add_constant("/value", np.array(op.attribute("value", 0.0), dtype))
        return layer, (op.inputs[0], pads, value)
    inputs = list(op.inputs)
    if op.has(3) and not op.has(2):
        inputs[2] = op.add_constant("/value", np.zeros((), dtype))
    return layer, tuple(filter(None, inputs))


def _resize(op: Operator) -> Converted:
    op.only(
        "antialias", "axes", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside",
        "extrapolation_value", "keep_aspect_ratio_policy", "mode", "nearest_mode",
    )  # fmt: skip
    coordinates = op.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = op.attribute("nearest_mode", "round_prefer_floor")
    if op.opset < 11:
        coordinates, rounding = "asymmetric", "simple"
    nearest = op.attribute("mode", "nearest") == "nearest" and not op.attribute("antialias", 0)
    if not nearest or coordinates not in COORDINATES or rounding not in ROUNDINGS:
        return evaluated(op)
    place = 1 if op.opset < 11 else 2
    sizes = op.has(3)
    if not sizes and not op.has(place):
        raise ValueError("it has neither scales nor sizes")
    layer = layers.Resize(
        "sizes" if sizes else "scales",
        coordinates=coordinates,
        rounding=rounding,
        axes=op.listed("axes"),
        policy=op.attribute("keep_aspect_ratio_policy", "stretch"),
    )
    return layer, (op.inputs[0], op.inputs[3 if sizes else place])


SHAPE: dict[tuple[str, str], Converter] = {
    ("", "Pad"): _pad,
    ("", "Resize"): _resize,
    ("", "Slice"): _slice,
    ("", "Split"): _split,
    ("", "Squeeze"): _squeeze,
    ("", "Unsqueeze"): _squeeze,
}
"""Converters by (domain, operator)."""
