"""QDQ graphs against ONNX Runtime: the operators that it makes of them, and its results, bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import onnx_models as om  # noqa: E402
from onnx_models import F  # noqa: E402
from oracle_cases import cpu_flags, exact_u8s8  # noqa: E402
from qdq_models import CASES, Net, Params, fused_types, integer, made_types, random_feeds, session  # noqa: E402
from strategies import examples  # noqa: E402

import systolic  # noqa: E402

pytestmark = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32),
    reason="which groups become integer operators differs from release to release; ours are those of 1.32",
)

FLOAT_SUMS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearSoftmax", "AveragePool", "GlobalAveragePool"}
"""Operators whose floats are summed in an order of ONNX Runtime's own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def check(model: Any, folder: Path, seed: int = 0, *, single: bool = True) -> None:
    """Compare operators, and results: bit for bit, or nearly where floats are summed in a single group.

    A code that is off by one there is more than one off behind the next layers.
    """
    path = om.save(model, folder)
    made = made_types(path)
    theirs = fused_types(path)
    if not single:
        # What fusions of floats and neighbouring moves make of the others does not matter.
        made, theirs = integer(made), integer(theirs)
    assert made == theirs
    exact = FLOAT_SUMS.isdisjoint(made_types(path))
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


@pytest.mark.parametrize("case", CASES)
def test_groups(folder: Path, case: str) -> None:
    if not _adds_like_ours() and "QLinearAdd" in CASES[case][1]:
        pytest.skip("ONNX Runtime adds in another order, or in fixed point, without AVX2")
    net = Net()
    check(net.model(*CASES[case][0](net)), folder)


def _adds_like_ours() -> bool:
    return "avx2" in cpu_flags()


# Graphs of many groups

scales = st.sampled_from([0.05, 0.1, 0.25, 0.02, 0.0371])
zeros = st.sampled_from([0, 1, 64, 127, 128, 200, 255])


class Grower:
    """A network drawn step by step; every tensor is (2, 4, 6, 6) or smaller, of one activation type."""

    def __init__(self, draw: Any) -> None:
        self.draw, self.net = draw, Net(draw(st.sampled_from([13, 17, 21])))
        self.dtype = draw(st.sampled_from(["int8", "uint8"]))
        self.tensors: list[tuple[str, tuple[int, ...], Params | None]] = []
        params = self.params()
        shape = (2, draw(st.integers(1, 4)), 6, 6)
        if draw(st.booleans()):
            x = self.net.dq(self.net.q(self.net.input("float32", shape), params), params)
        else:
            x = self.net.codes(shape, params)
        self.tensors.append((x, shape, params))
        self.outputs: list[str] = []

    def params(self, *, clipped: bool = False) -> Params:
        zero = 0 if clipped else self.draw(zeros)
        return self.draw(scales), zero - (128 if self.dtype == "int8" else 0), self.dtype

    def pick(self) -> tuple[str, tuple[int, ...], Params | None]:
        return self.draw(st.sampled_from(self.tensors[-3:]))

    def quantize(self, tensor: str, shape: tuple[int, ...], same: Params | None = None) -> None:
        """Go on behind Q and DQ, perhaps behind a Relu; rarely without, or with the tensor read elsewhere."""
        draw, net = self.draw, self.net
        relu = draw(st.sampled_from(["", "", "", "implied", "Relu"]))
        if relu:
            tensor = net.op("Relu", tensor)
        if draw(st.integers(0, 9)) == 0:
            self.tensors.append((tensor, shape, None))
            return
        fork = draw(st.integers(0, 9)) == 0
        params = (
            same if same is not None and draw(st.integers(0, 3)) else self.params(clipped=relu == "implied")
        )
        codes = net.q(tensor, params)
        for _ in range(draw(st.integers(1, 2))):
            self.tensors.append((net.dq(codes, params), shape, params))
        if fork:
            self.outputs.append(net.op("Neg", tensor))

    def step(self) -> None:
        draw, net = self.draw, self.net
        x, shape, params = self.pick()
        kind = draw(
            st.sampled_from(["conv", "conv", "add", "mul", "concat", "move", "pool", "mean", "dense"])
        )
        if kind == "conv" and len(shape) == 4:
            self.conv(x, shape)
        elif kind in ("add", "mul", "concat"):
            others = [t for t in self.tensors if t[1] == shape]
            other = draw(st.sampled_from(others))[0]
            if kind == "concat":
                joined = (shape[0] * 2, *shape[1:])
                self.quantize(net.op("Concat", x, other, axis=0), joined, params)
            else:
                self.quantize(net.op(kind.capitalize(), x, other), shape)
        elif kind == "move":
            self.move(x, shape, params)
        elif kind == "pool" and len(shape) == 4 and shape[2] > 1 and shape[3] > 1:
            op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
            pooled = (*shape[:2], shape[2] - 1, shape[3] - 1)
            self.quantize(net.op(op, x, kernel_shape=[2, 2]), pooled, params)
        elif kind == "mean" and len(shape) == 4:
            self.quantize(net.op("GlobalAveragePool", x), (*shape[:2], 1, 1))
        elif kind == "dense":
            self.dense(x, shape)

    def conv(self, x: str, shape: tuple[int, ...]) -> None:
        draw, net = self.draw, self.net
        out, size = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3]))
        weight = net.weight(
            (out, shape[1], size, size), axis=draw(st.sampled_from([None, 0])), seed=draw(st.integers(0, 9))
        )
        bias = []
        if draw(st.booleans()):
            bias = [net.const(np.random.default_rng(out).normal(size=out).astype(F))]
        tensor = net.op("Conv", x, weight, *bias, pads=[size // 2] * 4)
        self.quantize(tensor, (shape[0], out, *shape[2:]))

    def move(self, x: str, shape: tuple[int, ...], params: Params | None) -> None:
        draw, net = self.draw, self.net
        op = draw(st.sampled_from(["Reshape", "Transpose", "Flatten"]))
        if op == "Transpose":
            order = draw(st.permutations(range(len(shape))))
            tensor, moved = net.op("Transpose", x, perm=order), tuple(shape[axis] for axis in order)
        else:
            moved = (shape[0], int(np.prod(shape[1:])))
            tensor = net.op("Flatten", x) if op == "Flatten" else net.reshape(x, *moved)
        if draw(st.booleans()):
            self.tensors.append((tensor, moved, None))
        else:
            self.quantize(tensor, moved, params)

    def dense(self, x: str, shape: tuple[int, ...]) -> None:
        draw, net = self.draw, self.net
        n = draw(st.integers(1, 5))
        axis = draw(st.sampled_from([None, 1]))
        weight = net.weight((shape[-1], n), axis=axis, seed=draw(st.integers(0, 9)))
        kind = draw(st.sampled_from(["MatMul", "MatMul", "Gemm", "bias"]))
        bias = net.const(np.random.default_rng(n).normal(size=n).astype(F))
        if kind == "Gemm" and len(shape) == 2:
            tensor = net.op("Gemm", x, weight, *([bias] if draw(st.booleans()) else []))
        else:
            tensor = net.op("MatMul", x, weight)
            if kind == "bias":
                tensor = net.op("Add", tensor, bias)
        if draw(st.integers(0, 2)) == 0:
            self.tensors.append((tensor, (*shape[:-1], n), None))
        else:
            self.quantize(tensor, (*shape[:-1], n))

    def finish(self) -> Any:
        used = {name for node in self.net.nodes for name in node.input}
        ends = [name for name, _, _ in self.tensors if name not in used]
        return self.net.model(*dict.fromkeys([*self.outputs, *ends]))


@st.composite
def networks(draw: Any) -> Any:
    grower = Grower(draw)
    for _ in range(draw(st.integers(1, 6))):
        grower.step()
    return grower.finish()


@pytest.mark.skipif(not _adds_like_ours(), reason="ONNX Runtime adds in another order without AVX2")
@examples(60)
@given(networks(), st.integers(0, 99))
def test_random_networks(folder: Path, model: Any, seed: int) -> None:
    check(model, folder, seed, single=False)


# Whole networks

EXAMPLES = Path(__file__).parent.parent / "examples"


@contextmanager
def example_networks() -> Iterator[Any]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield __import__("networks")
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.parametrize("qdq", ("integer", "float"))
@pytest.mark.parametrize("activations", ("int8", "uint8"))
@pytest.mark.parametrize("name", ("residual", "separable", "transformer"))
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
