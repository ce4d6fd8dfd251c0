"""Arguments of models, nodes, runs and estimates that are of another kind: said before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.strategies import raises
from systolic import Model, Node, estimate_cycles, estimate_many, run
from systolic.layers import Relu

INPUTS: Any = {"x": ((2, 2), "int8")}
NODES = (Relu(),)


def model(nodes: Any = NODES, **arguments: Any) -> Model:
    return Model(nodes, **{"inputs": INPUTS, **arguments})


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "no nodes": (lambda: model(None), "nodes must be layers or Nodes in a list, not NoneType None"),
    "one layer": (lambda: model(Relu()), "nodes must be layers or Nodes in a list, not Relu Relu()"),
    "constants": (lambda: model(constants=3), "constants must be arrays by name, in a dict, not int 3"),
    "outputs": (lambda: model(outputs=3), "outputs must be a tensor's name, or a tuple of names, not int 3"),
    "an output": (lambda: model(outputs=[3]), "outputs must be a tensor's name, or a tuple of names, not int 3"),
    "input's name": (lambda: model(inputs={3: ((2,), "int8")}), "a tensor's name must be a str, not int 3"),
    "constant's name": (lambda: model(constants={3: np.ones(1)}), "a tensor's name must be a str, not int 3"),
    "name": (lambda: model(name=3), "a model's name must be a str, not int 3"),
    "no name": (lambda: model(name=None), "a model's name must be a str, not NoneType None"),
    "node reads": (lambda: Node(Relu(), 3, "y"), "inputs must be a tensor's name, or a tuple of names, not int 3"),  # type: ignore[arg-type]
    "node reads one of": (lambda: Node(Relu(), (3,), "y"), "inputs must be a tensor's name, or a tuple of names, not int 3"),  # type: ignore[arg-type]
    "node writes": (lambda: Node(Relu(), "x", 3), "output must be a tensor's name, or a tuple of names, not int 3"),  # type: ignore[arg-type]
    "node's name": (lambda: Node(Relu(), "x", "y", 3), "a node's name must be a str, not int 3"),  # type: ignore[arg-type]
    "observe": (
        lambda: run(model(), np.ones((2, 2), np.int8), observe=3),  # type: ignore[arg-type]
        "observe must be a function of (node, inputs, output), or None, not int 3",
    ),
    "m": (lambda: estimate_cycles(True, 2, 3, rows=2, cols=2), "m must hold integers, not bool True"),
    "rows": (lambda: estimate_many(1, 2, 3, rows=True, cols=2), "rows must hold integers, not bool True"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_other_kinds(case: str) -> None:
    call, message = CASES[case]
    with raises(TypeError, message):
        call()


def test_lists_of_flags_are_no_sizes() -> None:
    with pytest.raises(TypeError, match=r"^k must hold integers, not "):
        estimate_cycles(1, [True, False], 3, rows=2, cols=2)


def test_ragged_constants() -> None:
    with pytest.raises(ValueError, match=r"^constant 'c' must be an array, its rows of one length: "):
        model(constants={"c": [[1], [2, 3]]})


def test_a_generator_of_outputs_is_one_of_names() -> None:
    assert model(outputs=(name for name in ("x", "t0"))).outputs == ("x", "t0")
