"""QDQ graphs against ONNX Runtime: the operators that it makes of them, and its results, bit for bit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support import onnx_models as om
from support.oracle_cases import cpu_flags, exact_u8s8
from support.qdq_models import CASES, Net, fused_types, integer, made_types, random_feeds, session
from support.qdq_networks import draw_network, networks
from support.strategies import examples
from systolic.frontend.qdq import to_integers
from systolic.frontend.read import read

onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32),
    reason="which groups become integer operators differs from release to release; ours are those of 1.32",
)

FLOAT_SUMS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "GlobalAveragePool"}
"""Operators whose floats are summed in an order of ONNX Runtime's own."""

FLOATS = FLOAT_SUMS | {"Sigmoid", "Softmax"}
"""Those and the ones that ONNX Runtime approximates: a quantizer behind one may be a code off."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def check(model: Any, folder: Path, seed: int = 0, *, single: bool = True) -> None:
    """Compare operators, and results: bit for bit, or nearly where floats are summed in a single group.

    A code that is off by one there is more than one off behind the next layers.
    """
    path = om.save(model, folder)
    made, theirs = made_types(path), fused_types(path)
    exact = (FLOAT_SUMS if single else FLOATS).isdisjoint(made)
    if not single:
        # What fusions of floats and neighbouring moves make of the others does not matter.
        made, theirs = integer(made), integer(theirs)
    assert made == theirs
    if not exact and not single:
        return
    feeds = random_feeds(model, seed)
    expected = session(path).run(None, dict(feeds))
    outputs = list(systolic.run(systolic.load_onnx(path), feeds, mode="wavefront").outputs.values())
    for mine, their in zip(outputs, expected, strict=True):
        assert (mine.dtype, mine.shape) == (their.dtype, their.shape)
        if exact:
            np.testing.assert_array_equal(mine, their)
        elif their.dtype == np.float32:
            np.testing.assert_allclose(mine, their, rtol=1e-5, atol=1e-5)
        else:
            assert np.abs(mine.astype(int) - their).max(initial=0) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_groups(folder: Path, case: str) -> None:
    if not _adds_like_ours() and "QLinearAdd" in CASES[case][1]:
        pytest.skip("ONNX Runtime adds in another order, or in fixed point, without AVX2")
    net = Net()
    check(net.model(*CASES[case][0](net)), folder)


def behind_floats(path: Path) -> set[str]:
    """The tensors that an operator of FLOATS leads to."""
    graph = read(path)
    to_integers(graph)
    found: set[str] = set()
    for op in graph.operators:
        if op.op_type in FLOATS or not found.isdisjoint(op.inputs):
            found |= {*op.outputs}
    return found


def _adds_like_ours() -> bool:
    return "avx2" in cpu_flags()


# Graphs of many groups


@pytest.mark.slow
@pytest.mark.skipif(not _adds_like_ours(), reason="ONNX Runtime adds in another order without AVX2")
@examples(60)
@given(networks(), st.integers(0, 99))
def test_random_networks(folder: Path, model: Any, seed: int) -> None:
    check(model, folder, seed, single=False)


COUNT = int(os.environ.get("SYSTOLIC_FUZZ", "2000"))
SEED = int(os.environ.get("SYSTOLIC_FUZZ_SEED", "0"))


@pytest.mark.slow
@pytest.mark.skipif(not _adds_like_ours(), reason="ONNX Runtime adds in another order without AVX2")
@pytest.mark.exhaustive
def test_many_networks(folder: Path) -> None:
    """What no operator of FLOATS leads to is equal in every bit; behind one, few graphs differ by more than
    the last bits of floats."""
    wrong, rounded, regrouped = [], set(), set()
    for seed in range(SEED, SEED + COUNT):
        rng = np.random.default_rng([seed])
        model = draw_network(lambda options, rng=rng: options[rng.integers(len(options))])
        path = om.save(model, folder)
        feeds = random_feeds(model, seed)
        expected = session(path).run(None, dict(feeds))
        outputs = systolic.run(systolic.load_onnx(path), feeds, mode="wavefront").outputs
        inexact = behind_floats(path)
        for (name, mine), their in zip(outputs.items(), expected, strict=True):
            if (mine.dtype, mine.shape) != (their.dtype, their.shape):
                wrong.append(f"seed {seed}, {name}: {mine.dtype} {mine.shape}")
            elif name in inexact:
                if not np.allclose(mine, their, rtol=1e-5, atol=1e-5):
                    rounded.add(seed)
            elif not np.array_equal(mine, their):
                if "Transpose" in made_types(path) and integer(made_types(path)) != integer(fused_types(path)):
                    regrouped.add(seed)  # ONNX Runtime moved the Transpose
                else:
                    wrong.append(f"seed {seed}, {name}")
    assert len(regrouped) <= COUNT / 1000, f"other groups in {sorted(regrouped)}"
    assert not wrong, f"{len(wrong)} outputs differ: {wrong[:20]}"
    assert len(rounded) <= COUNT * 0.08, f"{len(rounded)} graphs differ behind floats: {sorted(rounded)[:20]}"


# Whole networks

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@contextmanager
def example_networks() -> Iterator[Any]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield __import__("networks")
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.slow
@pytest.mark.parametrize("qdq", ("integer", "float"))
@pytest.mark.parametrize("activations", ("int8", "uint8"))
@pytest.mark.parametrize("name", ("residual", "separable", "transformer"))
@pytest.mark.exhaustive
def test_example_networks(folder: Path, name: str, activations: str, qdq: str) -> None:
    if (activations, qdq) == ("uint8", "integer") and not exact_u8s8():
        pytest.skip("ONNX Runtime's own uint8 x int8 saturates on this CPU")
    if not (EXAMPLES / "networks.py").exists():
        pytest.skip("examples/networks.py is not in this tree")
    with example_networks() as networks:
        model = networks.build(name, activations=activations, form="qdq")
        feeds = networks.sample(model, 2)
    path = om.save(model, folder)
    expected = session(path, level="ALL" if qdq == "integer" else "NONE").run(None, dict(feeds))
    model = systolic.load_onnx(path, qdq=qdq)
    outputs = list(systolic.run(model, feeds, mode="wavefront").outputs.values())
    for mine, their in zip(outputs, expected, strict=True):
        if name == "transformer":
            # LayerNormalization and Softmax are of floats: the last bits are each library's own.
            np.testing.assert_allclose(mine, their, rtol=1e-5, atol=1e-5)
        elif qdq == "float":
            # So are the sums of its convolutions: a code may be off by one, and what follows from it.
            np.testing.assert_allclose(mine, their, atol=0.03 * np.ptp(their))
        else:
            np.testing.assert_array_equal(mine, their)


# The other meaning

WRITTEN = [
    case
    for case, (_, types_) in CASES.items()
    if not {"QLinearSoftmax", "QLinearSigmoid"} & set(types_.split())
]


@pytest.mark.slow
@pytest.mark.parametrize("case", WRITTEN)
def test_as_written(folder: Path, case: str) -> None:
    net = Net()
    model = net.model(*CASES[case][0](net))
    path = om.save(model, folder)
    feeds = random_feeds(model, 3)
    expected = session(path, level="NONE").run(None, dict(feeds))
    outputs = list(
        systolic.run(systolic.load_onnx(path, qdq="float"), feeds, mode="wavefront").outputs.values()
    )
    exact = FLOAT_SUMS.isdisjoint(node.op_type for node in model.graph.node)
    for mine, their in zip(outputs, expected, strict=True):
        assert (mine.dtype, mine.shape) == (their.dtype, their.shape)
        if exact:
            np.testing.assert_array_equal(mine, their)
        elif their.dtype == np.float32:
            np.testing.assert_allclose(mine, their, rtol=1e-5, atol=1e-4)
        else:
            assert np.abs(mine.astype(int) - their).max(initial=0) <= 1
