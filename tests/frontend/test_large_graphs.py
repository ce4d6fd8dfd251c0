"""Graphs of many nodes load in time that grows with them, not with their square."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import onnx_models as om
from systolic import load_onnx
from systolic.frontend.qdq.editing import Chain

Q = {"s": np.float32(0.5), "z": np.int8(0), "w": np.eye(3, dtype=np.int8)}


def relus(count: int) -> Any:
    nodes = [om.node("Relu", [f"t{i}"], f"t{i + 1}") for i in range(count)]
    return om.model(nodes, {"t0": ("float32", (3, 3))}, [f"t{count}"])


def products(count: int) -> Any:
    """Every scale and zero point has as many readers as there are nodes."""
    nodes = []
    for i in range(count // 5):
        nodes += [
            om.node("DequantizeLinear", [f"t{i}", "s", "z"], f"d{i}"),
            om.node("DequantizeLinear", ["w", "s", "z"], f"w{i}"),
            om.node("MatMul", [f"d{i}", f"w{i}"], f"p{i}"),
            om.node("QuantizeLinear", [f"p{i}", "s", "z"], f"q{i}"),
            om.node("Identity", [f"q{i}"], f"t{i + 1}"),
        ]
    return om.model(nodes, {"t0": ("int8", (3, 3))}, [f"t{count // 5}"], Q)


def spread(count: int) -> Any:
    """One DequantizeLinear with many Reshapes behind it."""
    nodes = [om.node("DequantizeLinear", ["x", "s", "z"], "d"), om.node("Reshape", ["d", "flat"], "r")]
    nodes += [om.node("Flatten", ["r"], f"f{i}") for i in range(count)]
    return om.model(nodes, {"x": ("int8", (3, 3))}, [f"f{count - 1}"], {**Q, "flat": np.array([9, 1])})


def one_reader(count: int) -> Any:
    nodes = [om.node("DequantizeLinear", ["x", "s", "z"], "d"), om.node("Identity", ["d"], "e")]
    nodes += [om.node("Concat", ["e"] * count, "y", axis=0)]
    return om.model(nodes, {"x": ("int8", (3, 3))}, ["y"], Q)


def outputs(count: int) -> Any:
    nodes = [om.node("DequantizeLinear", ["x", "s", "z"], f"d{i}") for i in range(count)]
    return om.model(nodes, {"x": ("int8", (3, 3))}, [f"d{i}" for i in range(count)], Q)


def moved(count: int) -> Any:
    """Products of what lies behind a long chain of Reshapes."""
    half = count // 2
    nodes = [om.node("Reshape", [f"t{i}", "flat"], f"t{i + 1}") for i in range(half)]
    nodes += [om.node("MatMul", [f"t{half}", f"t{half}"], f"p{i}") for i in range(half)]
    nodes += [om.node("QuantizeLinear", [f"p{half - 1}", "s", "z"], "y")]
    return om.model(nodes, {"t0": ("float32", (3, 3))}, ["y"], {**Q, "flat": np.array([3, 3])})


GRAPHS: dict[str, Callable[[int], Any]] = {
    function.__name__: function for function in (relus, products, spread, one_reader, outputs, moved)
}


@pytest.mark.slow
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.exhaustive
def test_time_grows_with_the_nodes(tmp_path: Path, graph: str) -> None:
    times = []
    for count in (1000, 8000):
        path = om.save(GRAPHS[graph](count), tmp_path)
        load_onnx(path)  # what is done once
        best = []
        for _ in range(2):
            started = time.process_time()
            load_onnx(path)
            best.append(time.process_time() - started)
        times.append(min(best))
    # 8 times as many nodes; a quadratic loader takes 64 times as long.
    assert times[1] < 24 * max(times[0], 0.02), times


@pytest.mark.parametrize("gap", [2, 1 << 256])
def test_a_chain_of_operators_is_a_list(monkeypatch: pytest.MonkeyPatch, gap: int) -> None:
    """Against a list, with insertions at one place until all must be numbered again."""
    monkeypatch.setattr(Chain, "_GAP", gap)
    rng = np.random.default_rng(0)
    made = iter(range(10**6))
    chain: Any = Chain(items := [next(made) for _ in range(5)])
    place = 2
    for _ in range(2000):
        kind = rng.integers(4)
        if kind < 2 or len(items) < 4:
            new = [next(made) for _ in range(int(rng.integers(1, 4)))]
            chain.put(items[place], *new, after=bool(kind))
            items[place + bool(kind) : place + bool(kind)] = new
        elif kind == 2:
            chain.put(None, item := next(made))
            items.append(item)
        else:
            chain.remove(items.pop(int(rng.integers(3, len(items)))))
        assert len(chain) == len(items)
    assert list(chain) == items
    numbers = [chain.index(item) for item in items]
    assert all(a < b for a, b in itertools.pairwise(numbers))
