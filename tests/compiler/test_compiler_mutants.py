"""Bugs planted in the compiler: comparing programs with their models catches each."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from support.compiled import bordered, check, conv, flat, integers, integers_inputs, machine, residual
from support.planted import planted
from support.strategies import codes
from systolic import Model, Node, QuantParams
from systolic.compiler import allocation, emission, lowering, products, schedule, tensors, vectors
from systolic.layers import MatMulInteger, MaxPool, QLinearGlobalAveragePool

MUTANTS: dict[str, tuple[ModuleType, str, str]] = {
    "borders are not filled": (emission, "if storage.fill is None or not any(storage.sides):", "if True:"),
    "borders are 0, not the zero point": (emission, "np.array(storage.fill, storage.dtype)", "np.array(0, storage.dtype)"),
    "a function is taken to keep borders": (emission, '    if None in fills or op.form == "concat":', "    if True:\n        return True\n    if False:"),
    "sums of taps replace each other": (emission, "piece.read, accumulate=True)", "piece.read, accumulate=False)"),
    "a tile is off by one": (emission, "first_tile + k))", "first_tile + max(k - 1, 0)))"),
    "chunks are written over each other": (emission, "target + piece.write * op.y.storage.parts", "target"),
    "later groups of images are read as the first": (emission, "- instance.start * instance.unit_rows", ""),
    "outputs are written into the border": (emission, "y_first += top * op.y.storage.stored[1] + left", "pass"),
    "lanes of a concatenation are off by a block": (emission, "channels[block * width : (block + 1) * width]", "channels[:width]"),
    "a tap is off by the padding": (products, "- self.before[axis] + sides[axis]", "+ sides[axis]"),
    "a dilation is left out": (products, "tap[axis] * self.dilation[axis]", "tap[axis]"),
    "tiles of other groups are taken": (products, "group, k_low - k : k_high - k", "0, k_low - k : k_high - k"),
    "every block has the first one's epilogue": (products, "values[first : first + columns]", "values[:columns]"),
    "the inputs' zero point is left out": (products, "constant = constant - operands.column_sums(lowered) * e.x_zero", "pass"),
    "spilled rows are not read back": (schedule, "inserted.append((reader, load))", "pass"),
    "spilled rows are not written": (schedule, "inserted.append((number + 1, store))", "pass"),
    "rows are given away one step early": (schedule, "start, last[instance])", "start, max(last[instance] - 1, start))"),
    "a window is moved by one": (vectors, "_pair_of(win.before, 0)", "_pair_of(win.before, 0)[::-1]"),
    "means are of one code more": (vectors, "np.divmod(sums, taps)", "np.divmod(sums + 1, taps)"),
    "channels of rows are taken to be last": (lowering, "self.views[name] = View(view.storage, shape, axis)", "self.views[name] = View(view.storage, shape, -1)"),
    "rows get a border later": (tensors, "border.refused = True", "pass"),
    "results of rows keep their shape": (lowering, "results = View(y.storage, acc_shape, axis)", "results = whole(y.storage)"),
    "plans overlap, and the check sees it": (allocation, "best, height = found, needed", "best, height = [at // 2 for at in found], needed"),
}  # fmt: skip


def compare() -> None:
    """Programs of a few networks beside their models: cut, spilled, grouped, dilated, with large chunks."""
    rng = np.random.default_rng(8)
    shortcuts = residual(rng)
    x = {"x": codes(rng, (3, 2, 6, 6), "int8")}
    one = {"x": x["x"][:1]}
    for on in (machine(8, 8), machine(8, 8, 300), machine(4, 6, accumulator_rows=20)):
        check(shortcuts, x, on, modes=("wavefront",))
    check(shortcuts, one, machine(8, 8, 255), modes=("wavefront",))
    check(shortcuts, x, machine(8, 8, 45), modes=("wavefront",))
    check(flat(rng, "NCHW"), {"x": codes(rng, (2, 4, 5, 3), "int8")}, machine(8, 8, 300), modes=("wavefront",))
    pools = Model(
        [MaxPool((3, 2), padding=((1, 1), (0, 1))), QLinearGlobalAveragePool(QuantParams(1.0), QuantParams(1.0))],
        inputs={"x": ((None, 2, 6, 6), "int8")},
    )
    below = rng.integers(-128, 40, (3, 2, 6, 6)).astype(np.int8)
    check(pools, {"x": below}, machine(8, 8), modes=("wavefront",))
    w, zero = codes(rng, (9, 5), "int8"), np.array(7, np.uint8)
    product = Model(
        [Node(MatMulInteger(), ("a", "w", "zero"), "y")],
        inputs={"a": ((None, 9), "uint8")},
        constants={"w": w, "zero": zero},
    )
    check(product, {"a": codes(rng, (3, 9), "uint8")}, machine(8, 8), modes=("wavefront",))
    layer = conv(rng, 8, 12, (3, 3), "uint8", groups=4, dilation=2, padding=((2, 1), (1, 3)))
    grouped = Model(
        [conv(rng, 8, 8, (1, 1), "uint8"), layer], inputs={"x": ((None, 8, 6, 6), "uint8")}
    )
    feeds = {"x": codes(rng, (2, 8, 6, 6), "uint8")}
    check(grouped, feeds, machine(8, 8, accumulator_rows=30), modes=("wavefront",), reuse=1)
    by_rows = bordered(rng)
    feeds = {name: codes(rng, (2, 4, 6, 6), "int8") for name in ("x", "u", "z")}
    for ub in (90, 150):
        check(by_rows, feeds, machine(8, 8, ub), modes=("wavefront",), mapping="taps")
    check(integers(rng), integers_inputs(rng), machine(8, 8, 20), modes=("wavefront",))


def test_without_mutants_all_agree() -> None:
    compare()


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    module, old, new = MUTANTS[name]
    with planted(module, old, new), pytest.raises((AssertionError, ValueError, IndexError)):
        compare()
