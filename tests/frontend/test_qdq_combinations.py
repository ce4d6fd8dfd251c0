"""Every combination of absent zero points, foreign scales and one-element vectors around an operator.

Against ONNX Runtime: which integer operator a QDQ group becomes, if any, and the numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support import onnx_models as om
from support.onnx_models import F, Shape
from support.oracle_cases import cpu_flags, exact_u8s8
from support.qdq_models import Net, fused_types, integer, made_types, random_feeds, session

onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = [
    pytest.mark.skipif(
        tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32),
        reason="which groups become integer operators differs from release to release; ours are those of 1.32",
    ),
    pytest.mark.skipif("avx2" not in cpu_flags(), reason="ONNX Runtime adds in another order without AVX2"),
]

Case = tuple[str, Callable[[Net], list[str]]]
"""What is combined, as text; what builds it."""

TYPES = (("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8"))
IMAGE, KERNEL, ROWS, MATRIX = (2, 3, 2, 2), (4, 3, 1, 1), (2, 3), (3, 4)
PRODUCT = float(F(F(0.1) * F(0.02)))


def params(n: Net, scale: Any, zero: int | None, dtype: str, form: Shape = ()) -> list[str]:
    zeros = [] if zero is None else [n.const(np.full(form, zero, dtype))]
    return [n.const(np.full(form, scale, F)), *zeros]


def codes(n: Net, shape: Shape, scale: float, zero: int | None, dtype: str, form: Shape = ()) -> str:
    return n.op("DequantizeLinear", n.input(dtype, shape), *params(n, scale, zero, dtype, form))


def constant(n: Net, values: np.ndarray, scale: Any, zero: int | None, form: Shape = (), **attributes: Any) -> str:
    given = params(n, scale, zero, values.dtype.name, form)
    return n.op("DequantizeLinear", n.const(values), *given, **attributes)


def weight(n: Net, op: str, dtype: str, zero: int | None, form: Shape = ()) -> str:
    shape = KERNEL if op == "Conv" else MATRIX
    values = np.random.default_rng(0).integers(0, 64, shape).astype(dtype)
    return constant(n, values, 0.02, zero, form, axis=0 if op == "Conv" else 1)


def quantized(n: Net, tensor: str, zero: int | None, dtype: str, form: Shape = (), scale: float = 0.3) -> list[str]:
    return [n.op("QuantizeLinear", tensor, *params(n, scale, zero, dtype, form))]


def compare(cases: Iterator[Case], folder: Path) -> None:
    """Collect every case that differs, so that a failure shows which combinations do."""
    wrong, count = [], 0
    for text, build in cases:
        net = Net()
        model = net.model(*build(net))
        path = om.save(model, folder)
        made, theirs = made_types(path), fused_types(path)
        feeds = random_feeds(model, count)
        expected = session(path).run(None, dict(feeds))
        outputs = systolic.run(systolic.load_onnx(path), feeds, mode="wavefront").outputs.values()
        # Floats are summed in an order of ONNX Runtime's own; close to a tie a code is one off.
        close = 1 if not made.keys().isdisjoint(("Conv", "Gemm", "MatMul", "AveragePool")) else 0
        if integer(made) != integer(theirs):
            wrong.append(f"{text}: {sorted(made)} instead of {sorted(theirs)}")
        for mine, their in zip(outputs, expected, strict=True):
            same = mine.dtype == their.dtype and (
                np.allclose(mine, their, rtol=1e-5, atol=1e-5)
                if their.dtype == np.float32
                else np.abs(mine.astype(int) - their).max(initial=0) <= close
            )
            if not same:
                wrong.append(f"{text}: {mine.ravel()[:4]} instead of {their.ravel()[:4]}")
        count += 1
    assert not wrong, f"{len(wrong)} of {count}\n" + "\n".join(wrong[:20])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


ABSENT = (None, 3)
BIASES: dict[str, Callable[[Net], list[str]]] = {
    "no bias": lambda n: [],
    "float bias": lambda n: [n.const(np.linspace(-2, 2, 4).astype(F))],
    **{
        f"bias scale x {factor}, zero {zero}": lambda n, factor=factor, zero=zero: [
            constant(n, np.int32([-900, 0, 700, 2001]), PRODUCT * factor, zero)
        ]
        for factor in (1, 1.009, 0.98, 7)
        for zero in (None, 0, 5)
    },
    "bias of int8": lambda n: [constant(n, np.int8([-9, 0, 7, 20]), 0.1, 0)],
}  # fmt: skip


def products(op: str) -> Iterator[Case]:
    """A product with all kinds of biases."""
    biases = BIASES if op != "MatMul" else ("no bias",)
    for (x, w), xz, wz, yz, bias in itertools.product(TYPES, ABSENT, ABSENT, (None, 3, "float"), biases):

        def build(n: Net, x=x, w=w, xz=xz, wz=wz, yz=yz, bias=bias) -> list[str]:  # type: ignore[no-untyped-def]
            read = codes(n, IMAGE if op == "Conv" else ROWS, 0.1, xz, x)
            tensor = n.op(op, read, weight(n, op, w, wz), *BIASES[bias](n))
            if yz == "float":
                return [tensor]
            return quantized(n, tensor, yz, "uint8" if yz is None else x)

        yield f"{x} {xz}, {w} {wz}, {bias}, output {yz}", build


@pytest.mark.slow
@pytest.mark.parametrize("op", ("Conv", "Gemm", "MatMul"))
@pytest.mark.exhaustive
def test_products(folder: Path, op: str) -> None:
    compare(products(op), folder)


def pairs(op: str) -> Iterator[Case]:
    """Two tensors of one type or two, with scales that are equal or not."""
    attributes = {"axis": 0} if op == "Concat" else {}
    types = (("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8"))
    for (a, b), az, bz, yz, scale in itertools.product(types, ABSENT, ABSENT, ABSENT, (0.1, 0.3)):

        def build(n: Net, a=a, b=b, az=az, bz=bz, yz=yz, scale=scale) -> list[str]:  # type: ignore[no-untyped-def]
            tensors = codes(n, ROWS, 0.1, az, a), codes(n, ROWS, 0.1, bz, b)
            tensor = n.op(op, *tensors, **attributes)
            return quantized(n, tensor, yz, "uint8" if yz is None else a, scale=scale)

        yield f"{a} {az}, {b} {bz}, output {yz}, scale {scale}", build


@pytest.mark.slow
@pytest.mark.parametrize("op", ("Add", "Mul", "Concat"))
@pytest.mark.exhaustive
def test_pairs(folder: Path, op: str) -> None:
    compare(pairs(op), folder)


SINGLE: dict[str, dict[str, Any]] = {
    "AveragePool": {"kernel_shape": [2, 2]}, "GlobalAveragePool": {}, "LeakyRelu": {}, "Sigmoid": {}, "Softmax": {},
    "MaxPool": {"kernel_shape": [2, 2]}, "Transpose": {}, "Flatten": {}, "DepthToSpace": {"blocksize": 1},
    "Relu": {}, "HardSigmoid": {}, "Identity": {}, "ArgMax": {"axis": 1},
}  # fmt: skip


def single(op: str) -> Iterator[Case]:
    for x, xz, yz, scale in itertools.product(("uint8", "int8"), ABSENT, (*ABSENT, "float"), (0.1, 0.3)):
        if op == "ArgMax" and yz != "float":
            continue

        def build(n: Net, x=x, xz=xz, yz=yz, scale=scale) -> list[str]:  # type: ignore[no-untyped-def]
            tensor = n.op(op, codes(n, IMAGE, 0.1, xz, x), **SINGLE[op])
            return (
                [tensor] if yz == "float" else quantized(n, tensor, yz, "uint8" if yz is None else x, scale=scale)
            )

        yield f"{x} {xz}, output {yz}, scale {scale}", build


@pytest.mark.slow
@pytest.mark.parametrize("op", SINGLE)
@pytest.mark.exhaustive
def test_single(folder: Path, op: str) -> None:
    compare(single(op), folder)


FORMS: tuple[tuple[Shape, Shape], ...] = (((), ()), ((1,), (1,)), ((), (1,)), ((1,), ()))
"""Shapes of a scale and of its zero point."""


def forms(op: str) -> Iterator[Case]:
    """One-element vectors where a number does."""
    biases = ("no bias", "float bias", "bias scale x 1, zero None") if op in ("Conv", "Gemm") else ("no bias",)
    for x, w, y, bias in itertools.product(FORMS, FORMS, FORMS, biases):

        def build(n: Net, x=x, w=w, y=y, bias=bias) -> list[str]:  # type: ignore[no-untyped-def]
            def tensor(values: str, scale: float, form: tuple[Shape, Shape], **attributes: Any) -> str:
                given = n.const(np.full(form[0], scale, F)), n.const(np.full(form[1], 3, "uint8"))
                return n.op("DequantizeLinear", values, *given, **attributes)

            read = tensor(n.input("uint8", IMAGE if op == "Conv" else ROWS), 0.1, x)
            if op in ("Add", "Mul", "Concat"):
                other = tensor(n.input("uint8", ROWS), 0.02, w)
            else:
                shape = KERNEL if op == "Conv" else MATRIX
                other = tensor(n.const(np.arange(12, dtype=np.uint8).reshape(shape)), 0.02, w)
            made = n.op(op, read, other, *BIASES[bias](n), **({"axis": 0} if op == "Concat" else {}))
            scale, zero = n.const(np.full(y[0], 0.3, F)), n.const(np.full(y[1], 9, "uint8"))
            return [n.op("QuantizeLinear", made, scale, zero)]

        yield f"x {x}, other {w}, y {y}, {bias}", build


@pytest.mark.slow
@pytest.mark.parametrize("op", ("Conv", "Gemm", "MatMul", "Add", "Mul", "Concat"))
@pytest.mark.exhaustive
def test_one_element_vectors(folder: Path, op: str) -> None:
    compare(forms(op), folder)


CLIPS: dict[str, Callable[[Net, str], str]] = {
    "R": lambda n, t: n.op("Relu", t),
    "C": lambda n, t: n.op("Clip", t, n.const(F(-100)), n.const(F(200))),
    "S": lambda n, t: n.op("Clip", t, n.const(F(0)), n.const(F(200))),
    "T": lambda n, t: n.op("Clip", t, n.const(F(-100)), n.const(F(6))),
    "M": lambda n, t: n.op("MaxPool", t, kernel_shape=[1, 1]),
}


def chains(op: str) -> Iterator[Case]:
    """Relu, Clip and what codes are carried past, between the operator and a Q that implies them or not."""
    words = ("R", "C", "S", "T", "RR", "RS", "RC", "SR", "CT", "RM", "MR", "RRM", "RRR", "CCC", "RRS", "SCR")
    outputs = (("uint8", None), ("uint8", 0), ("int8", -128), ("int8", 3))
    for word, (y, zero), form in itertools.product(words, outputs, ((), (1,))):
        if "M" in word and op in ("Gemm", "MatMul"):
            continue

        def build(n: Net, word=word, y=y, zero=zero, form=form) -> list[str]:  # type: ignore[no-untyped-def]
            tensor = codes(n, ROWS if op in ("Gemm", "MatMul") else IMAGE, 0.1, 3, y)
            other = [codes(n, IMAGE, 0.1, 3, y)] if op == "Add" else []
            if op in ("Conv", "Gemm", "MatMul"):
                other = [weight(n, op, y, 0)]
            tensor = n.op(op, tensor, *other)
            for letter in word:
                tensor = CLIPS[letter](n, tensor)
            return quantized(n, tensor, zero, y, form)

        yield f"{word}, {y} {zero}, {form}", build


@pytest.mark.slow
@pytest.mark.parametrize("op", ("Conv", "Gemm", "MatMul", "Add", "LeakyRelu"))
@pytest.mark.exhaustive
def test_chains_of_clips(folder: Path, op: str) -> None:
    compare(chains(op), folder)


def carried(op: str) -> Iterator[Case]:
    """A Reshape in front of the operator: codes without a zero point are carried past it as they are."""
    outputs = (None, 3, "float")
    for x, xz, yz, form in itertools.product(("uint8", "int8"), ABSENT, outputs, ((), (1,))):

        def build(n: Net, x=x, xz=xz, yz=yz, form=form) -> list[str]:  # type: ignore[no-untyped-def]
            shape = {"Conv": IMAGE, "Gemm": ROWS, "MatMul": ROWS}.get(op, ROWS)
            tensor = n.reshape(codes(n, (int(np.prod(shape)),), 0.1, xz, x, form), *shape)
            other = [weight(n, op, x, 0)] if op in ("Conv", "Gemm", "MatMul") else [codes(n, ROWS, 0.1, 3, x)]
            tensor = n.op(op, tensor, *other)
            return [tensor] if yz == "float" else quantized(n, tensor, yz, "uint8" if yz is None else x)

        yield f"{x} {xz} {form}, output {yz}", build


@pytest.mark.slow
@pytest.mark.parametrize("op", ("Conv", "Gemm", "MatMul", "Add"))
def test_codes_carried_past_a_reshape(folder: Path, op: str) -> None:
    compare(carried(op), folder)


def weights(op: str) -> Iterator[Case]:
    """Weights as floats, transposed or per channel; a bias added behind a MatMul."""
    kinds: tuple[str, ...] = ("float", "float, transposed", "per channel", "transposed", "transposed, per channel")
    if not exact_u8s8():
        kinds = kinds[2:]  # ONNX Runtime quantizes floats to 8 bits, whose sums saturate here
    added = ("", "float", "float first", "int32") if op == "MatMul" else ("", "bias")
    for kind, bias, xz, form, yz in itertools.product(kinds, added, ABSENT, ((), (1,)), (0, "float")):

        def build(n: Net, kind=kind, bias=bias, xz=xz, form=form, yz=yz) -> list[str]:  # type: ignore[no-untyped-def]
            read = codes(n, IMAGE if op == "Conv" else ROWS, 0.1, xz, "uint8", form)
            shape, axis, order = (KERNEL, 0, [1, 0, 2, 3]) if op == "Conv" else (MATRIX, 1, [1, 0])
            if "transposed" in kind:
                shape, axis = (shape[1], shape[0], *shape[2:]), 1 - axis
            values = np.random.default_rng(0).integers(-64, 64, shape).astype(np.int8)
            if "float" in kind:
                w = n.const(values.astype(F) / 50)
            else:
                w = constant(n, values, 0.02, 0, (4,) if "per channel" in kind else (), axis=axis)
            if "transposed" in kind:
                w = n.op("Transpose", w, perm=order)
            floats = n.const(np.linspace(-2, 2, 4).astype(F))
            tensor = n.op(op, read, w, *([floats] if bias == "bias" else []))
            if op == "MatMul" and bias:
                addend = constant(n, np.int32([-900, 0, 700, 2001]), 0.004, None) if bias == "int32" else floats
                tensor = n.op("Add", *((addend, tensor) if bias == "float first" else (tensor, addend)))
            return [tensor] if yz == "float" else quantized(n, tensor, yz, "uint8")

        yield f"{kind}, {bias}, {xz} {form}, output {yz}", build


@pytest.mark.slow
@pytest.mark.parametrize("op", ("Conv", "Gemm", "MatMul"))
@pytest.mark.exhaustive
def test_weights(folder: Path, op: str) -> None:
    compare(weights(op), folder)
