"""Random cases: registers, products, convolutions and layers, each against what defines it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from systolic import _check, engine
from systolic._check import shape as shape_text
from systolic.array import SystolicArray
from systolic.array.state import State
from systolic.config import ArrayConfig
from systolic.engine import MODES
from systolic.engine.networks import run_layer
from systolic.engine.products import with_mapping
from systolic.formats import as_numbers, differ, stored
from systolic.gemm import Progress
from systolic.layers import ArrayLayer
from systolic.layers.conv import ArrayConvolution, lower_conv2d
from systolic.layers.float_products import RoundedProduct
from systolic.lowered import Lowered, lower_matmul
from systolic.model import Node
from systolic.reference import Layout, Operands, conv_sums, expected_output, matmul_sums, ordered_sums
from systolic.tiling import sizes_of
from systolic.tiling.mappings import MAPPINGS
from systolic.verifier.cases import Draw, draw_conv2d, draw_layer, draw_matmul
from systolic.verifier.compare import (
    PLAIN,
    compare_cycles,
    compare_layer,
    compare_product,
    mapped_operands,
)
from systolic.verifier.locate import arithmetic, causes
from systolic.verifier.mismatch import Mismatch, VerificationReport


def verify_cases(numbers: Iterable[int], seed: int, report: Progress | None) -> VerificationReport:
    """Check the random cases of these numbers; see ``verify``."""
    numbers = [_check.integer(number, "case", minimum=0) for number in numbers]
    if not numbers:
        raise ValueError("cases must hold the number of at least one case, or be how many to draw")
    mismatches: list[Mismatch] = []
    checked = dict.fromkeys(_KINDS, 0)
    for done, number in enumerate(numbers):
        kind = list(_KINDS)[number % len(_KINDS)]
        try:
            found = _KINDS[kind](Draw(seed, number))
        except Exception as error:  # what is checked may do anything
            found = [
                Mismatch(case=f"{kind} case {number}", stage="error", note=f"{type(error).__name__}: {error}")
            ]
        line = f"systolic verify --seed {seed} --case {number}"
        mismatches += [replace(mismatch, reproduce=line) for mismatch in found]
        checked[kind] += 1
        if report is not None:
            report(done + 1, len(numbers))
    return VerificationReport(tuple(mismatches), checked, seed=seed)


def _registers(draw: Draw) -> list[Mismatch]:
    """From any state, under any ports, many cycles in one call: every register."""
    config = draw.config()
    if draw.number % 3 == 0:
        config = replace(config, **draw.format())
    dataflow, rows, cols = config.dataflow_record, config.rows, config.cols
    cycles = draw.one_of(1, 2, 3, 5, draw.size(30), draw.size(30))
    numbers, holds = config.format, {register.name: register.holds for register in dataflow.registers}

    def values(size: tuple[int, int], register: str) -> np.ndarray:
        if holds[register] == "control":
            return draw.bits(size)
        if holds[register] == "sum":
            return draw.sums(size, numbers)
        return stored(draw.operand(size, getattr(numbers, holds[register])))

    registers: dict[str, Any] = {name: values((rows, cols), name) for name in holds}
    state = State(**registers)
    ports: dict[str, Any] = {}
    for port in dataflow.ports:
        size = cycles, rows if port.side == "west" else cols
        ports[port.name] = values(size, port.feeds)
        if holds[port.feeds] == "sum" and not numbers.is_float:  # none, or such that they wrap
            _, high = numbers.sum_limits
            near = draw.rng.integers(high - 20_000, high, size, numbers.sum)
            ports[port.name] = draw.one_of(np.zeros(size, numbers.sum), near)
    reference = dataflow.reference(rows, cols, state.registers, arithmetic(config))
    order = causes(config)
    for t in range(cycles):
        reference.step(**{name: each[t] for name, each in ports.items()})
        # Each prefix in one call: the first cycle at which a register differs is the error's.
        array = SystolicArray(config).restore(state)
        array.clock(threads=1, **{name: each[: t + 1] for name, each in ports.items()})
        expected = reference.registers()
        different = {
            name: np.argwhere(differ(as_numbers(got), expected[name]))
            for name, got in array.registers.items()
        }
        places = [(*d[0].tolist(), order.index(name)) for name, d in different.items() if len(d)]
        if places:
            row, col, cause = min(places)
            name = order[cause]
            return [
                Mismatch(
                    case=f"registers {config!r}, {cycles} cycles",
                    stage="array",
                    register=name,
                    pe=(row, col),
                    cycle=t,
                    register_got=as_numbers(array.registers[name])[row, col].item(),
                    register_expected=expected[name][row, col].item(),
                    count=sum(map(len, different.values())),
                )
            ]
    return []


def _matmul(draw: Draw) -> list[Mismatch]:
    if draw.number % 3 == 0:
        return _product_of_a_format(draw)
    x, w, config = draw_matmul(draw)
    case = f"matmul {shape_text(x.shape)} {x.dtype} x {shape_text(w.shape)} {w.dtype} on {config!r}"
    expected, operands = matmul_sums(x, w)
    run, lowered = partial(engine.matmul, x, w), lower_matmul(x, w)
    return _in_modes(case, run, lowered, operands, expected, config)


def _product_of_a_format(draw: Draw) -> list[Mismatch]:
    config = replace(draw.config(12), **draw.format())
    numbers = config.format
    shape = draw.size(17), draw.size(12), draw.size(9)
    x = draw.operand(shape[:2], numbers.activation)
    w = draw.operand(shape[1:], numbers.weight)
    lowered = lower_matmul(x, w)
    case = f"matmul {shape_text(x.shape)} x {shape_text(w.shape)} on {config!r}"
    sums, operands = ordered_sums(x, w, arithmetic(config), sizes_of(lowered.gemm, config).k_step)
    expected = sums.astype(numbers.sum)
    return _in_modes(case, partial(engine.matmul, x, w), lowered, operands, expected, config)


def _in_modes(
    case: str,
    run: Callable[..., Any],
    lowered: Lowered,
    operands: Operands,
    expected: np.ndarray,
    config: ArrayConfig,
    layout: Layout = PLAIN,
) -> list[Mismatch]:
    """Compare cycles and sums of a product that runs in every mode."""
    found: list[Mismatch] = []
    for mode in MODES:
        result, here = run(array=config, mode=mode), f"{case}, {mode}"
        found += compare_cycles(here, result.cycles, lowered.gemm, config, layout) or compare_product(
            here, lowered, operands, result.acc, expected, config, mode
        )
    return found


def _conv2d(draw: Draw) -> list[Mismatch]:
    x, w, options, config = draw_conv2d(draw)
    case = (
        f"conv2d {shape_text(x.shape)} {x.dtype}, w {shape_text(w.shape)} {w.dtype}, {options} on {config!r}"
    )

    geometry = dict(options)
    zero, mapping = geometry.pop("x_zero_point"), geometry.pop("mapping")
    expected, operands = conv_sums(SimpleNamespace(**geometry), x, w, zero)
    lowered = with_mapping(lower_conv2d(x, w, pad_value=zero, **geometry), mapping, config)
    operands, layout = mapped_operands(operands, lowered, mapping, config)
    run = partial(engine.conv2d, x, w, **options)
    return _in_modes(case, run, lowered, operands, expected, config, layout)


def _layer(draw: Draw) -> list[Mismatch]:
    layer, inputs, config = draw_layer(draw)
    mapping = draw.one_of(*MAPPINGS) if isinstance(layer, ArrayConvolution) else None
    if isinstance(layer, RoundedProduct):  # float sums have no other layout
        mapping = None
    found: list[Mismatch] = []
    for mode in MODES if isinstance(layer, ArrayLayer) else MODES[:1]:
        read = ", ".join(f"{shape_text(i.shape)} {i.dtype}" for i in inputs)
        case = f"layer {layer!r} of {read} on {config!r}, {mode}{f', {mapping}' if mapping else ''}"
        output: Any = run_layer(layer, inputs, config, mode, mapping=mapping)[0]
        names = "y" if layer.outputs == 1 else tuple(f"y{i}" for i in range(len(output)))
        node = Node(layer, ("x",) * len(inputs), names)
        expected = node.named(expected_output(layer, inputs, config))
        mismatch, _ = compare_layer(case, node, inputs, output, expected, config, mode, mapping)
        if mismatch is not None:
            found.append(mismatch)
    return found


_KINDS: dict[str, Callable[[Draw], list[Mismatch]]] = {
    "registers": _registers,
    "matmul": _matmul,
    "conv2d": _conv2d,
    "layer": _layer,
}
