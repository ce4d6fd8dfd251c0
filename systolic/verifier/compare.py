"""What differs between results and what defines them, and at which stage it went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from systolic.config import ArrayConfig
from systolic.engine.products import execute, with_mapping
from systolic.gemm import Gemm
from systolic.layers import ArrayLayer, Layer
from systolic.lowered import RAW, Lowered, Patches
from systolic.model import Node
from systolic.reference import (
    Layout,
    Operands,
    expected_cycles,
    expected_layout,
    expected_sums,
    laid_out,
    matmul_sums,
    summation_bound,
    tile_length,
    tolerance_of,
)
from systolic.verifier.difference import difference, first_difference
from systolic.verifier.locate import locate
from systolic.verifier.mismatch import Mismatch

PLAIN = Layout()


def compare_product(
    case: str,
    lowered: Lowered,
    operands: Operands,
    got: np.ndarray,
    expected: np.ndarray,
    config: ArrayConfig,
    mode: str,
) -> list[Mismatch]:
    """Return what differs in a product's sums, and where on the array it went wrong."""
    wrong = first_difference(got, expected)
    if wrong is None:
        return []
    if "note" in wrong:
        return [Mismatch(case=case, stage="shape", **wrong)]
    where = locate(lowered, operands, wrong["index"], config, mode)
    return [Mismatch(case=case, **wrong, **where)]


def compare_cycles(
    case: str, cycles: int, gemm: Gemm, config: ArrayConfig, layout: Layout = PLAIN
) -> list[Mismatch]:
    """Return a mismatch if a product's cycles are not those of the clock convention."""
    expected = expected_cycles(gemm, config, layout)
    if cycles == expected:
        return []
    return [Mismatch(case=case, stage="cycles", got=cycles, expected=expected)]


def compare_layer(
    case: str,
    node: Node,
    inputs: list[np.ndarray],
    output: Any,
    expected: Mapping[str, np.ndarray],
    config: ArrayConfig,
    mode: str,
    mapping: str | None = None,
) -> tuple[Mismatch | None, float]:
    """Return what differs first in a layer's outputs, and whether its sums or its epilogue is wrong.

    The second value is the largest relative difference of a float output that was accepted: see
    ``tolerance_of``.
    """
    within = 0.0
    for name, got in node.named(output).items():
        wrong = first_difference(got, expected[name])
        if wrong is None:
            continue
        found = None if "note" in wrong else difference(got, expected[name])
        tolerance = tolerance_of(node.layer, got.dtype)
        if found is not None and (
            found.within(tolerance) or sums_within(node.layer, inputs, got, expected[name])
        ):
            within = max(within, found.relative or 0.0)
            continue
        if len(expected) > 1:
            case = f"{case}, output {name!r}"
        if "note" in wrong:
            return Mismatch(case=case, stage="shape", **wrong), within
        if not isinstance(node.layer, ArrayLayer):
            return Mismatch(case=case, stage="host", **wrong), within
        # Are the sums wrong, or what is made of them?
        if type(node.layer).steps is not ArrayLayer.steps:
            product = _wrong_product(case, node.layer, inputs, config, mode)
            return product or Mismatch(case=case, stage="finish", **wrong), within
        sums, operands = expected_sums(node.layer, inputs, tile_length(config))
        lowered = node.layer.lower(*inputs)
        end = lowered.epilogue
        lowered = lowered._replace(epilogue=RAW._replace(shape=end.shape, planes=end.planes))
        if mapping is not None:
            lowered = with_mapping(lowered, mapping, config)
            operands = mapped_operands(operands, lowered, mapping, config)[0]
        wrong_sum = first_difference(execute(lowered, config, mode).output.reshape(sums.shape), sums)
        if wrong_sum is None:
            return Mismatch(case=case, stage="finish", **wrong), within
        where = locate(lowered, operands, wrong_sum["index"], config, mode)
        return Mismatch(case=case, **wrong_sum, **where), within
    return None, within


def mapped_operands(
    operands: Operands, lowered: Lowered, mapping: str, config: ArrayConfig
) -> tuple[Operands, Layout]:
    """Return a convolution's operands as a mapping lays them out, and the layout, derived independently."""
    assert isinstance(lowered.x, Patches)
    taps = lowered.x.kernel[0] * lowered.x.kernel[1]
    layout = expected_layout(lowered.gemm, config, mapping, taps)
    return laid_out(operands, lowered.gemm, layout, taps), layout


def _wrong_product(
    case: str, layer: ArrayLayer, inputs: list[np.ndarray], config: ArrayConfig, mode: str
) -> Mismatch | None:
    """Run a layer of several products, of matrices, again; return the first whose sums are wrong, if any."""
    steps, number, output = layer.steps(*inputs), 0, None
    while True:
        try:
            lowered = steps.send(output)
        except StopIteration:
            return None
        assert isinstance(lowered.x, np.ndarray)
        sums, operands = matmul_sums(lowered.x, lowered.w)
        got = execute(lowered._replace(epilogue=RAW), config, mode).output
        found = compare_product(f"{case}, product {number}", lowered, operands, got, sums, config, mode)
        if found:
            return found[0]
        number, output = number + 1, execute(lowered, config, mode).output


def sums_within(layer: Layer, inputs: list[np.ndarray], got: np.ndarray, exact: np.ndarray) -> bool:
    """Whether a delegated product of float32 is one that some order of summation may give."""
    if layer.delegate is None:
        return False
    with np.errstate(invalid="ignore"):
        near = np.abs(got.astype(np.float64) - exact) <= summation_bound(layer, inputs)
    return bool((near | (got == exact) | (np.isnan(got) & np.isnan(exact))).all())
