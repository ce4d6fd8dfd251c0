"""Random nodes of every standard operator, for comparing onnx's reference evaluator with ONNX Runtime.

One generator per operator or family: it draws inputs and attributes, given a source of random choices that
knows the operator's schema. Attributes that a schema lacks are dropped, so that one generator serves all
operator sets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper

from systolic.model import DTYPES

Array = np.ndarray
Inputs = list[Array | None]
Drawn = tuple[Inputs, dict[str, Any]]
FLOATS = ("float32", "float64", "float16")


@dataclass
class Case:
    """A node, what it reads, and the operator sets."""

    node: Any
    feeds: dict[str, Array]
    opsets: dict[str, int]

    @property
    def dtypes(self) -> dict[str, str]:
        return {name: x.dtype.name for name, x in self.feeds.items()}


class Source:
    """Random choices for one node of an operator."""

    def __init__(
        self,
        name: str,
        domain: str,
        opset: int,
        rng: np.random.Generator,
        *,
        finite: bool = False,
        bounded: bool = False,
        filled: bool = False,
    ) -> None:
        self.name, self.domain, self.opset, self.rng = name, domain, opset, rng
        self.schema = defs.get_schema(name, opset, domain)
        self.outputs: tuple[bool, ...] = (True,)
        self.dtypes: dict[str, str] = {}
        self.finite, self.bounded, self.filled = finite, bounded, filled

    def draw(self, generate: Callable[[Source], Drawn]) -> Case:
        arrays, attributes = generate(self)
        while arrays and arrays[-1] is None:
            arrays.pop()
        names = [f"i{place}" if x is not None else "" for place, x in enumerate(arrays)]
        feeds = {name: np.asarray(x) for name, x in zip(names, arrays, strict=True) if x is not None}
        known = {k: v for k, v in attributes.items() if v is not None and k in self.schema.attributes}
        writes = [f"o{place}" if used else "" for place, used in enumerate(self.outputs)]
        node = helper.make_node(self.name, names, writes, name="n", domain=self.domain, **known)
        return Case(node, feeds, {self.domain: self.opset, "": self.opset if not self.domain else 21})

    # Choices

    def one(self, *values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def chance(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    def int(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def ints(self, count: int, low: int, high: int) -> list[int]:
        return [self.int(low, high) for _ in range(count)]

    def maybe(self, value: Any, p: float = 0.5) -> Any:
        return value if self.chance(p) else None

    def real(self, low: float, high: float) -> float:
        return float(np.float32(self.rng.uniform(low, high)))

    def shape(self, low: int = 0, high: int = 4, empty: bool = True) -> tuple[int, ...]:
        sizes = [self.int(1, 4) for _ in range(self.int(low, high))]
        if empty and sizes and self.chance(0.06) and not self.filled:
            sizes[self.int(0, len(sizes) - 1)] = 0
        return tuple(sizes)

    def axis(self, rank: int) -> int:
        return self.int(-rank, rank - 1) if rank else 0

    def axes(self, rank: int, least: int = 0, positive: bool = False) -> list[int]:
        chosen = self.rng.permutation(rank)[: self.int(min(least, rank), rank)]
        return [int(a) if positive or self.chance() else int(a) - rank for a in chosen]

    def broadcast(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts to another."""
        some = [1 if self.chance(0.3) else size for size in shape]
        return tuple(some[self.int(0, len(some)) :])

    # Types and values

    def reads(self, name: str) -> bool:
        """Whether the operator has an input of this name in this operator set."""
        return any(value.name == name for value in self.schema.inputs)

    def types(self, of: str) -> list[str]:
        for constraint in self.schema.type_constraints:
            if constraint.type_param_str == of:
                names = [t[7:-1] for t in constraint.allowed_type_strs if t.startswith("tensor(")]
                swap = {"float": "float32", "double": "float64"}
                return [swap.get(n, n) for n in names if swap.get(n, n) in DTYPES]
        return []

    def dtype(self, of: str = "T", *among: str) -> str:
        """A type that a constraint of the schema allows, the same for one constraint; often float32."""
        if of not in self.dtypes:
            known = [t for t in self.types(of) if not among or t in among]
            if not known:
                raise LookupError(f"{self.name} has no type among {among} for {of}")
            self.dtypes[of] = "float32" if "float32" in known and self.chance(0.5) else self.one(*known)
        return self.dtypes[of]

    def array(self, shape: Sequence[int], dtype: str | None = None, special: float = 0.0) -> Array:
        """Values of a type: small ones, sometimes all there are, with infinities and NaN on demand."""
        dtype, shape = dtype or self.dtype(), tuple(shape)
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        if dtype in FLOATS:
            x = np.asarray(self.rng.normal(size=shape) * self.one(0.5, 2, 10)).astype(dtype)
            if self.chance(0.2):
                x = np.asarray(np.round(x))
            if special and not self.finite and self.chance(special):
                places = self.rng.random(shape) < 0.3
                values = self.rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
                x = np.where(places, values, x).astype(dtype)
            return x
        info = np.iinfo(dtype)
        if special and not self.bounded and self.chance(0.3):
            return self.rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        return self.rng.integers(0 if info.min == 0 else -9, 10, shape).astype(dtype)

    def spread(self, shape: Sequence[int]) -> Array:
        """Numbers no axis of which is nearly constant: normalized, those would show rounding alone."""
        x = np.clip(self.array(shape), -1, 1)
        steps = sum(np.arange(n).reshape(-1, *[1] * (len(shape) - i - 1)) for i, n in enumerate(shape))
        return np.asarray(x + 3 * (steps % 3)).astype(x.dtype)

    def indices(self, shape: Sequence[int], below: int, dtype: str = "int64") -> Array:
        low = -below if self.chance(0.4) else 0
        return self.rng.integers(low, max(below, 1), shape).astype(dtype)


def i64(values: Any) -> Array:
    return np.array(values, np.int64)


CASES: dict[tuple[str, str], Callable[[Source], Drawn]] = {}


def generates(*names: str, domain: str = "") -> Callable[[Callable[[Source], Drawn]], Callable[[Source], Drawn]]:
    def enter(function: Callable[[Source], Drawn]) -> Callable[[Source], Drawn]:
        CASES.update({(domain, name): function for name in names})
        return function

    return enter


# Element by element


@generates(
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Cos", "Cosh", "Elu", "Erf",
    "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg",
    "NonZero", "Not", "Reciprocal", "Relu", "Round", "Selu", "Celu", "Sigmoid", "Sign", "Sin", "Sinh", "Size",
    "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Gelu", "Shrink", "Dropout",
)  # fmt: skip
def unary(s: Source) -> Drawn:
    of = s.schema.inputs[0].type_str
    if s.name == "Dropout":
        s.outputs = s.one((True,), (True, True))
    x = s.array(s.shape(), s.dtype(of) if s.types(of) else of[7:-1], 0.3)
    if s.name == "Dropout" and s.reads("ratio"):
        return [x, s.maybe(np.array(s.real(0, 1), s.one("float32", x.dtype.name)))], {}
    bound = 0.0 if s.name == "Shrink" else -1.5
    return [x], {
        "alpha": s.maybe(s.real(bound, 2)),
        "beta": s.maybe(s.real(-1, 1)),
        "gamma": s.maybe(s.real(0.5, 2)),
        "bias": s.maybe(s.real(-1, 1)),
        "lambd": s.maybe(s.real(0, 1)),
        "approximate": s.maybe(s.one("none", "tanh")),
        "detect_negative": s.maybe(s.int(0, 1)),
        "detect_positive": s.maybe(s.int(0, 1)),
    }


@generates(
    "Add", "Sub", "Mul", "Div", "Pow", "PRelu", "And", "Or", "Xor", "Equal", "Greater", "Less", "GreaterOrEqual",
    "LessOrEqual", "Mod", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
)  # fmt: skip
def binary(s: Source) -> Drawn:
    first, second = (value.type_str for value in s.schema.inputs)
    shape = s.shape()
    special = 0.0 if s.name in ("BitShift", "Div", "Mod") else 0.2
    a = s.array(shape, s.dtype(first), special)
    b = s.array(s.broadcast(shape), s.dtype(second), special)
    if s.chance(0.3) and s.name != "PRelu":
        b = s.array(shape, b.dtype.name, special)
        a = s.array(s.broadcast(shape), a.dtype.name, special)
    if s.name in ("Div", "Mod") and b.dtype.kind in "iu":
        b[b == 0] = 3
    fmod = 1 if s.name == "Mod" and a.dtype.kind == "f" else s.maybe(s.int(0, 1))
    return [a, b], {"fmod": fmod, "direction": s.one("LEFT", "RIGHT")}


@generates("Max", "Min", "Mean", "Sum")
def variadic(s: Source) -> Drawn:
    shape = s.shape()
    return [s.array(s.broadcast(shape), None, 0.1) for _ in range(s.int(1, 3))], {}


@generates("Clip")
def clip(s: Source) -> Drawn:
    x = s.array(s.shape(), None, 0.1)
    if not s.reads("min"):
        return [x], {"min": s.maybe(s.real(-2, 2)), "max": s.maybe(s.real(-1, 3))}
    return [x, s.maybe(s.array((), x.dtype.name)), s.maybe(s.array((), x.dtype.name))], {}


@generates("Where")
def where(s: Source) -> Drawn:
    shape = s.shape()
    return [s.array(s.broadcast(shape), "bool"), s.array(shape), s.array(s.broadcast(shape))], {}


@generates("Cast")
def cast(s: Source) -> Drawn:
    to = s.one(*DTYPES)
    x = s.array(s.shape(), s.dtype("T1"), 0.1)
    if np.dtype(to).kind in "iu" and x.dtype.kind == "f":
        # What does not fit is undefined.
        x = np.clip(np.nan_to_num(x), 0 if np.dtype(to).kind == "u" else -100, 100).astype(x.dtype)
    return [x], {"to": kind(to), "saturate": s.maybe(s.int(0, 1))}


def kind(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


@generates("CastLike")
def cast_like(s: Source) -> Drawn:
    (x,), attributes = cast(s)
    return [x, np.zeros(s.shape(), helper.tensor_dtype_to_np_dtype(attributes["to"]))], {
        "saturate": attributes["saturate"]
    }  # fmt: skip


@generates("BitCast")
def bit_cast(s: Source) -> Drawn:
    x = s.array(s.shape(), s.dtype("T1"))
    same = [d for d in DTYPES if np.dtype(d).itemsize == x.dtype.itemsize and d != "bool"]
    return [x], {"to": kind(s.one(*same))}


# Reductions


@generates(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
def reduce(s: Source) -> Drawn:
    shape = s.shape()
    axes = s.maybe(s.axes(len(shape), 0 if s.reads("axes") else 1), 0.8)
    attributes = {"keepdims": s.maybe(s.int(0, 1)), "noop_with_empty_axes": s.maybe(s.int(0, 1))}
    x = s.array(shape, None, 0.1)
    if s.name == "ReduceProd" and x.dtype.kind == "f":
        # Overflow and a zero make a NaN in one order of factors and not in another.
        x = np.clip(x, -1.5, 1.5)
    elif s.name == "ReduceProd" and s.bounded:
        x = np.clip(x, 0, 1) + np.array(1, x.dtype) * (x == 5)
    if s.reads("axes"):
        return [x, None if axes is None else i64(axes)], attributes
    return [x], attributes | {"axes": axes or None}


@generates("ArgMax", "ArgMin")
def arg(s: Source) -> Drawn:
    shape = s.shape(1)
    return [s.array(shape, None, 0.1)], {
        "axis": s.maybe(s.axis(len(shape)), 0.7), "keepdims": s.maybe(s.int(0, 1)),
        "select_last_index": s.maybe(s.int(0, 1)),
    }  # fmt: skip


@generates("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def along(s: Source) -> Drawn:
    shape = s.shape(1)
    x = s.array(shape, None, 0.1) * (s.one(1, 20) if s.name != "LpNormalization" else 1)
    return [x.astype(s.dtype())], {"axis": s.maybe(s.axis(len(shape)), 0.7), "p": s.maybe(s.one(1, 2))}


@generates("CumSum", "CumProd")
def cumulative(s: Source) -> Drawn:
    shape = s.shape(1)
    axis = np.array(s.axis(len(shape)), s.one("int32", "int64"))
    return [s.array(shape), axis if s.chance(0.8) else axis.reshape(1)], {
        "exclusive": s.maybe(s.int(0, 1)), "reverse": s.maybe(s.int(0, 1))
    }  # fmt: skip


# Products


@generates("MatMul")
def matmul(s: Source) -> Drawn:
    a, b = factors(s)
    return [s.array(a), s.array(b)], {}


def factors(s: Source) -> tuple[tuple[int, ...], tuple[int, ...]]:
    m, k, n = s.ints(3, 1, 4)
    batch = s.shape(0, 2)
    a, b = (*s.broadcast(batch), m, k), (*batch, k, n)
    if s.chance(0.1) and not s.filled:
        k = 0
        a, b = (m, 0), (0, n)
    return s.one((a, b), (a, b), ((k,), b), (a[-2:], (k,)), ((k,), (k,)))


@generates("Gemm")
def gemm(s: Source) -> Drawn:
    m, k, n = s.ints(3, 1, 4)
    ta, tb = s.int(0, 1), s.int(0, 1)
    a, b = s.array((k, m) if ta else (m, k)), s.array((n, k) if tb else (k, n))
    return [a, b, s.maybe(s.array(s.broadcast((m, n))))], {
        "transA": ta, "transB": tb, "alpha": s.maybe(s.real(-2, 2)), "beta": s.maybe(s.real(-2, 2))
    }  # fmt: skip


@generates("Einsum")
def einsum(s: Source) -> Drawn:
    equation = s.one(
        "ij,jk->ik", "ij,jk", "bij,bjk->bik", "ij->ji", "ij->i",
        "ii->i", "ii", "i,i->", "i,j->ij", "bhid,bhjd->bhij",
        "...ij,...jk->...ik", "ij,kj,k->i", " i j , j k -> i k ",
        "ij,ij->ij", "...i->...", "bij,j->bi",
    )  # fmt: skip
    sizes = {letter: s.int(1, 4) for letter in "ijkbhd"} | {".": s.int(1, 3)}
    terms = equation.split("->")[0].replace(" ", "").replace("...", ".").split(",")
    return [s.array([sizes[letter] for letter in term]) for term in terms], {"equation": equation}


@generates("MatMulInteger")
def matmul_integer(s: Source) -> Drawn:
    a, b = factors(s)
    first, second = s.dtype("T1"), s.dtype("T2")
    zero_a, zero_b = s.array((), first), s.array(s.one((), b[-1:]) if len(b) == 2 else (), second)
    return [s.array(a, first, 1), s.array(b, second, 1), s.maybe(zero_a), s.maybe(zero_b)], {}


@generates("QLinearMatMul")
def qlinear_matmul(s: Source) -> Drawn:
    a, b = factors(s)
    types = [s.one("int8", "uint8")] * 3
    scale = lambda: np.array(s.real(0.01, 0.2), np.float32)  # noqa: E731
    return [
        s.array(a, types[0], 1), scale(), s.array((), types[0]), s.array(b, types[1], 1), scale(),
        s.array((), types[1]), scale(), s.array((), types[2]),
    ], {}  # fmt: skip


# Windows


def window(s: Source, rank: int, kernel: list[int], pooled: bool = False) -> dict[str, Any]:
    auto = s.one(*["NOTSET"] * 5, "SAME_UPPER", "SAME_LOWER", "VALID")
    most = min(min(kernel) - 1, 2) if pooled else 2
    pads = s.ints(2 * rank, 0, max(most, 0)) if auto == "NOTSET" and s.chance() else None
    return {
        "kernel_shape": kernel, "auto_pad": None if auto == "NOTSET" and s.chance() else auto, "pads": pads,
        "strides": s.maybe(s.ints(rank, 1, 3)), "dilations": s.maybe(s.ints(rank, 1, 2), 0.2),
    }  # fmt: skip


@generates("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv")
def conv(s: Source) -> Drawn:
    rank = {"DeformConv": 2, "Conv": s.int(1, 4)}.get(s.name) or s.one(1, 2, 2, 3)
    group, ic, oc = s.one(1, 1, 2), s.int(1, 2), s.int(1, 2)
    kernel = s.ints(rank, 1, 3)
    attributes = window(s, rank, kernel) | {"group": s.maybe(group) if group == 1 else group}
    x, w = (s.int(1, 2), group * ic, *s.ints(rank, 3, 6)), (group * oc, ic, *kernel)
    if s.name == "ConvTranspose":
        w, out = (group * ic, oc, *kernel), group * oc
        strides = attributes["strides"] or [1] * rank
        attributes["output_padding"] = s.maybe([s.int(0, stride - 1) for stride in strides], 0.3)
        return [s.array(x), s.array(w), s.maybe(s.array((out,)))], attributes
    if s.name == "Conv":
        return [s.array(x), s.array(w), s.maybe(s.array((group * oc,)))], attributes
    if s.name == "DeformConv":
        attributes |= {"auto_pad": None, "offset_group": 1}
        pads, strides = attributes["pads"] or [0] * 4, attributes["strides"] or [1, 1]
        dilations = attributes["dilations"] or [1, 1]
        out = [
            max((x[2 + i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1, 0)
            for i in (0, 1)
        ]
        taps = kernel[0] * kernel[1]
        mask = s.maybe(s.array((x[0], taps, *out)))
        return [s.array(x), s.array(w), s.array((x[0], 2 * taps, *out)), s.maybe(s.array((group * oc,))), mask], attributes
    first, second = s.one("int8", "uint8"), s.one("int8", "uint8")
    if s.name == "ConvInteger":
        return [
            s.array(x, first, 1), s.array(w, second, 1), s.maybe(s.array((), first)), s.maybe(s.array((), second))
        ], attributes  # fmt: skip
    scale = lambda: np.array(s.real(0.01, 0.2), np.float32)  # noqa: E731
    bias = s.maybe(s.array((group * oc,), "int32"))
    return [
        s.array(x, first, 1), scale(), s.array((), first), s.array(w, second, 1), scale(), s.array((), second),
        scale(), s.array((), first), bias,
    ], attributes  # fmt: skip


@generates("MaxPool", "AveragePool", "LpPool")
def pool(s: Source) -> Drawn:
    rank = s.one(1, 2, 2, 3)
    kernel = s.ints(rank, 1, 3)
    if s.name == "MaxPool":
        s.outputs = s.one((True,), (True, True))
    return [s.array((s.int(1, 2), s.int(1, 3), *s.ints(rank, 3, 6)))], window(s, rank, kernel, True) | {
        "ceil_mode": s.maybe(s.int(0, 1)), "count_include_pad": s.maybe(s.int(0, 1)), "p": s.maybe(s.int(1, 3)),
        "storage_order": s.maybe(s.int(0, 1)) if s.name == "MaxPool" and s.outputs == (True, True) else None,
    }  # fmt: skip


@generates("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(s: Source) -> Drawn:
    return [s.array((s.int(1, 2), s.int(1, 3), *s.ints(s.int(1, 3), 1, 4)))], {"p": s.maybe(s.int(1, 3))}


@generates("MaxUnpool")
def max_unpool(s: Source) -> Drawn:
    shape = (1, 1, *s.ints(2, 1, 3))
    full = [2 * n for n in shape[2:]]
    count = shape[2] * shape[3]
    index = s.rng.permutation(full[0] * full[1])[:count].reshape(shape)
    extra = s.maybe(i64([1, 1, full[0] + s.int(0, 1), full[1] + s.int(0, 1)]), 0.3)
    return [s.array(shape, s.dtype("T1")), i64(index), extra], {"kernel_shape": [2, 2], "strides": [2, 2]}


@generates("Col2Im")
def col2im(s: Source) -> Drawn:
    rank = 2
    block, image = s.ints(rank, 1, 3), s.ints(rank, 3, 6)
    pads, strides = s.ints(2 * rank, 0, 1), s.ints(rank, 1, 2)
    dilations = s.ints(rank, 1, 2)
    count = 1
    for i in range(rank):
        count *= max((image[i] + pads[i] + pads[i + rank] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1, 0)
    x = s.array((s.int(1, 2), s.int(1, 2) * block[0] * block[1], count))
    return [x, i64(image), i64(block)], {"pads": pads, "strides": strides, "dilations": dilations}


@generates("CausalConvWithState")
def causal_conv(s: Source) -> Drawn:
    batch, channels, length, k = s.int(1, 2), s.int(1, 3), s.int(1, 5), s.int(1, 4)
    x, w = s.array((batch, channels, length)), s.array((channels, 1, k))
    s.outputs = s.one((True,), (True, True))
    return [x, w, s.maybe(s.array((channels,))), s.maybe(s.array((batch, channels, k - 1)))], {
        "activation": s.maybe(s.one("none", "silu", "swish"))
    }  # fmt: skip


# Normalizations


@generates("BatchNormalization", "InstanceNormalization")
def batch_normalization(s: Source) -> Drawn:
    shape = (s.int(1, 3), s.int(1, 3), *s.ints(s.int(0 if s.name[0] == "B" else 1, 3), 2, 4))
    (x, *others) = s.schema.inputs
    s.dtypes["T"] = s.dtype(x.type_str)
    arrays: Inputs = [s.spread(shape)]
    arrays += [s.array(shape[1:2], s.dtype(other.type_str)) for other in others]
    if s.name[0] == "B":
        arrays[4] = np.abs(arrays[4]) + arrays[4].dtype.type(0.1)  # type: ignore[operator, union-attr]
    training = s.maybe(s.int(0, 1), 0.2)
    if training == 1:
        s.outputs = (True, True, True)
    return arrays, {"epsilon": s.maybe(1e-3), "momentum": s.maybe(0.7), "training_mode": training}


@generates("LRN")
def lrn(s: Source) -> Drawn:
    return [s.array((1, s.int(1, 5), *s.ints(2, 1, 3)))], {
        "size": s.one(1, 3, 5), "alpha": s.maybe(s.real(0.1, 1)), "beta": s.maybe(s.real(0.3, 1)),
        "bias": s.maybe(s.real(0.5, 2)),
    }  # fmt: skip


@generates("LayerNormalization", "RMSNormalization")
def layer_normalization(s: Source) -> Drawn:
    shape = s.shape(1, 4, empty=False)
    axis = s.axis(len(shape))
    rest = shape[axis:] if axis else shape
    if s.types("T"):
        s.dtype("T")
    scale = s.schema.inputs[1].type_str
    bias = s.name == "LayerNormalization" and s.chance()
    if s.name == "LayerNormalization":
        s.outputs = s.one((True,), (True,), (True, True, True))
    return [s.spread(shape), s.array(rest, s.dtype(scale)), s.array(rest, s.dtype(scale)) if bias else None], {
        "axis": axis, "epsilon": s.maybe(1e-3), "stash_type": s.maybe(1)
    }  # fmt: skip


@generates("GroupNormalization")
def group_normalization(s: Source) -> Drawn:
    groups, each = s.int(1, 3), s.int(1, 2)
    shape = (s.int(1, 2), groups * each, *s.shape(1, 2, empty=False))
    count = groups * each if s.opset >= 21 else groups
    return [s.spread(shape), s.array((count,)), s.array((count,))], {
        "num_groups": groups, "epsilon": s.maybe(1e-3), "stash_type": s.maybe(1)
    }  # fmt: skip


@generates("MeanVarianceNormalization")
def mean_variance(s: Source) -> Drawn:
    return [s.spread((2, *s.ints(3, 2, 4)))], {"axes": s.maybe(s.axes(4, 1, positive=True))}


# Recurrent and attention


@generates("RNN", "GRU", "LSTM")
def recurrent(s: Source) -> Drawn:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[s.name]
    direction = s.one("forward", "forward", "reverse", "bidirectional")
    d = 2 if direction == "bidirectional" else 1
    layout = s.int(0, 1) if "layout" in s.schema.attributes and s.chance(0.3) else 0
    length, batch, size, hidden = s.int(1, 4), s.int(1, 3), s.int(1, 3), s.int(1, 3)
    states, acts = {"RNN": (1, 1), "GRU": (1, 2), "LSTM": (2, 3)}[s.name]
    x = (batch, length, size) if layout else (length, batch, size)
    state = (batch, d, hidden) if layout else (d, batch, hidden)
    rare = lambda value: s.maybe(value, 0.3)  # noqa: E731
    arrays = [
        s.array(x), s.array((d, gates * hidden, size)), s.array((d, gates * hidden, hidden)),
        s.maybe(s.array((d, 2 * gates * hidden))), rare(s.rng.integers(1, length + 1, batch).astype("int32")),
        rare(s.array(state)),
    ]  # fmt: skip
    if s.name == "LSTM":
        arrays += [rare(s.array(state)), rare(s.array((d, 3 * hidden)))]
    s.outputs = s.one((True,), (True, True), (False, True), (True, True, True)[: states + 1])
    names = ["Relu", "Tanh", "Sigmoid", "Softsign", "HardSigmoid", "Softplus"]
    activations = rare([str(s.one(*names)) for _ in range(acts * d)])
    return arrays, {
        "hidden_size": hidden, "direction": s.maybe(direction) if direction == "forward" else direction,
        "layout": layout or None, "activations": activations, "clip": s.maybe(s.real(0.2, 1), 0.15),
        "input_forget": s.maybe(1, 0.15), "linear_before_reset": s.maybe(s.int(0, 1)),
    }  # fmt: skip


@generates("Attention")
def attention(s: Source) -> Drawn:
    batch, groups, each = s.int(1, 2), s.int(1, 2), s.int(1, 2)
    heads, size, q, k, v = groups * each, s.int(1, 3), s.int(1, 4), s.int(1, 4), s.int(1, 3)
    flat = s.chance(0.3)
    past = s.int(1, 3) if s.chance(0.2) else 0
    shape = lambda h, n, d: (batch, n, h * d) if flat else (batch, h, n, d)  # noqa: E731
    mask = s.array(s.broadcast((batch, heads, q, k + past)), s.one("bool", s.dtype("T1")))
    if mask.ndim < 2 or mask.shape[-2:] != (q, k + past):
        mask = s.array((q, k + past), mask.dtype.name)
    if mask.dtype == bool:
        # A row of which all is masked is undefined.
        mask[..., 0] = True
    t, u = s.dtype("T1"), s.dtype("T1")
    s.outputs = (True, True, True) if past else s.one((True,), (True, False, False, True))
    # Small ones, since the exponential of a large product makes much of its rounding in float16.
    small = lambda sizes: np.clip(s.array(sizes, t), -1.5, 1.5)  # noqa: E731
    arrays = [
        small(shape(heads, q, size)), small(shape(groups, k, size)), s.array(shape(groups, k, v), u),
        s.maybe(mask),
        small((batch, groups, past, size)) if past else None,
        s.array((batch, groups, past, v), u) if past else None,
    ]  # fmt: skip
    return arrays, {
        "q_num_heads": heads if flat else None, "kv_num_heads": groups if flat else None,
        "is_causal": s.maybe(s.int(0, 1)), "scale": s.maybe(s.real(0.1, 1)), "softcap": s.maybe(s.real(0.5, 2), 0.2),
        "qk_matmul_output_mode": s.int(0, 3) if len(s.outputs) == 4 else None,
    }  # fmt: skip


@generates("LinearAttention")
def linear_attention(s: Source) -> Drawn:
    batch, length, heads, size = s.int(1, 2), s.int(1, 4), s.int(1, 2), s.int(1, 3)
    rule = s.one("linear", "gated", "delta", "gated_delta")
    x = [s.array((batch, length, heads * size)) for _ in range(3)]
    decay = -np.abs(s.array((batch, length, heads * size))) if rule.startswith("gated") else None
    beta = s.array((batch, length, heads)) if rule.endswith("delta") else None
    past = s.maybe(s.array((batch, heads, size, size), s.dtype("S")))
    s.outputs = (True, True)
    return [*x, past, decay, beta], {
        "update_rule": rule, "q_num_heads": heads, "kv_num_heads": heads, "scale": s.maybe(s.real(0.1, 1)),
        "chunk_size": s.maybe(s.int(1, 4)),
    }  # fmt: skip


@generates("SwiGLU")
def swiglu(s: Source) -> Drawn:
    shape = s.shape()
    return [s.array(shape), s.array(shape)], {"alpha": s.maybe(s.real(0.5, 2))}


@generates("RotaryEmbedding")
def rotary(s: Source) -> Drawn:
    batch, heads, length, size = s.int(1, 2), s.int(1, 3), s.int(1, 4), 2 * s.int(1, 3)
    partial = s.chance(0.2)
    half = size // 2 if not partial else s.int(1, size // 2)
    flat = s.chance(0.4)
    x = s.array((batch, length, heads * size) if flat else (batch, heads, length, size))
    ids = s.maybe(s.rng.integers(0, 6, (batch, length)))
    cache = (6, half) if ids is not None else (batch, length, half)
    return [x, s.array(cache), s.array(cache), ids], {
        "num_heads": heads if flat else None, "interleaved": s.maybe(s.int(0, 1)),
        "rotary_embedding_dim": 2 * half if partial else None,
    }  # fmt: skip


@generates("TensorScatter")
def tensor_scatter(s: Source) -> Drawn:
    batch, most, length = s.int(1, 3), s.int(2, 5), s.int(1, 2)
    circular = s.one(None, "linear", "circular")
    where = s.rng.integers(0, most if circular == "circular" else most - length + 1, batch)
    return [s.array((batch, 2, most, 3)), s.array((batch, 2, length, 3)), s.maybe(where)], {
        "mode": circular, "axis": s.maybe(-2)
    }  # fmt: skip


# Shapes and pieces


@generates("Reshape")
def reshape(s: Source) -> Drawn:
    shape = s.shape()
    to = list(s.rng.permutation(shape)) if s.chance(0.6) else [int(np.prod(shape))]
    if to and s.chance() and 0 not in shape:
        to[s.int(0, len(to) - 1)] = -1
    return [s.array(shape), i64(to)], {"allowzero": s.maybe(s.int(0, 1)) if 0 not in shape else s.maybe(1)}


@generates("Squeeze", "Unsqueeze")
def squeeze(s: Source) -> Drawn:
    shape = s.shape(0, 3)
    if s.name == "Squeeze":
        shape = tuple(s.one(1, n) for n in shape)
        ones = [i - s.one(0, len(shape)) for i, n in enumerate(shape) if n == 1]
        axes = ones[: s.int(1, len(ones))] if ones and s.chance(0.7) else None
    else:
        more = s.int(1, 2)
        axes = s.axes(len(shape) + more)[:more] or [0]
        if s.opset < 11:
            axes = [a % (len(shape) + len(axes)) for a in axes]
    x = s.array(shape)
    if s.reads("axes"):
        return [x, None if axes is None else i64(axes)], {}
    return [x], {"axes": axes}


@generates("Shape", "Flatten", "Transpose", "Trilu", "DepthToSpace", "SpaceToDepth", "Det", "EyeLike")
def shaped(s: Source) -> Drawn:
    shape: Sequence[int] = s.shape(2 if s.name in ("Trilu",) else 0)
    b = s.int(1, 2)
    if s.name in ("DepthToSpace", "SpaceToDepth"):
        shape = (s.int(1, 2), b * b * s.int(1, 2), *s.ints(2, 1, 2)) if s.name[0] == "D" else (1, s.int(1, 2), 2 * b, 2 * b)
    if s.name == "Det":
        n = s.int(1, 3)
        shape = (*s.shape(0, 2, empty=False), n, n)
    if s.name == "EyeLike":
        shape = s.ints(2, 1, 4)
    of = s.schema.inputs[0].type_str
    rank = len(shape)
    inputs: Inputs = [s.array(shape, s.dtype(of))]
    attributes = {
        "start": s.maybe(s.int(-5, 5)), "end": s.maybe(s.int(-5, 5)), "upper": s.maybe(s.int(0, 1)),
        "mode": s.maybe(s.one("DCR", "CRD")), "blocksize": b,
        "perm": s.maybe([int(a) for a in s.rng.permutation(rank)] or None, 0.8), "k": s.maybe(s.int(-3, 3)),
        "axis": s.int(0 if s.opset < 11 else -rank, rank), "dtype": s.maybe(kind(s.one("float32", "int64", "int32", "float64"))),
    }  # fmt: skip
    if s.name == "Trilu":
        inputs.append(s.maybe(np.array(s.int(-3, 3))))
    return inputs, attributes


@generates("Concat")
def concat(s: Source) -> Drawn:
    shape = list(s.shape(1))
    axis = s.axis(len(shape))
    arrays = []
    for _ in range(s.int(1, 3)):
        shape[axis] = s.int(0, 3)
        arrays.append(s.array(shape))
    return arrays, {"axis": axis if s.opset >= 11 else axis % len(shape)}


@generates("Split")
def split(s: Source) -> Drawn:
    shape = list(s.shape(1))
    axis = s.axis(len(shape))
    sizes = s.ints(s.int(1, 3), 0, 3)
    s.outputs = (True,) * len(sizes)
    equal = s.chance(0.4)
    shape[axis] = sum(sizes) if not equal else len(sizes) * s.int(1, 2) + (s.int(0, 1) if s.opset >= 18 else 0)
    attributes: dict[str, Any] = {"axis": axis if axis or s.chance() else None}
    if equal:
        return [s.array(shape)], attributes | {"num_outputs": len(sizes)}
    if s.reads("split"):
        return [s.array(shape), i64(sizes)], attributes
    return [s.array(shape)], attributes | {"split": sizes}


@generates("Slice")
def slice_(s: Source) -> Drawn:
    shape = s.shape(1)
    index = s.one("int32", "int64")
    axes = s.axes(len(shape), 1)
    n = len(axes)
    starts, ends = s.ints(n, -6, 6), [s.one(s.int(-6, 6), 2**31 - 1, -(2**31)) for _ in range(n)]
    steps = [s.one(1, 1, 2, -1, -2, 3) for _ in range(n)]
    if s.chance(0.2):
        axes = list(range(n))
        axes_input = None
    else:
        axes_input = np.array(axes, index)
    return [s.array(shape), np.array(starts, index), np.array(ends, index), axes_input, s.maybe(np.array(steps, index))], {}


@generates("Gather")
def gather(s: Source) -> Drawn:
    shape = s.shape(1, empty=False)
    axis = s.axis(len(shape))
    return [s.array(shape), s.indices(s.shape(0, 2), shape[axis], s.one("int32", "int64"))], {"axis": axis if axis or s.chance() else None}


@generates("GatherElements")
def gather_elements(s: Source) -> Drawn:
    shape = s.shape(1, empty=False)
    axis = s.axis(len(shape))
    other = [s.int(1, n) for n in shape]
    return [s.array(shape), s.indices(other, shape[axis], s.one("int32", "int64"))], {"axis": axis if axis or s.chance() else None}


@generates("GatherND")
def gather_nd(s: Source) -> Drawn:
    shape = s.shape(1, empty=False)
    batch = s.int(0, len(shape) - 1) if s.opset >= 12 else 0
    deep = s.int(1, len(shape) - batch)
    lead = (*shape[:batch], *s.shape(0, 2, empty=False))
    columns = [s.indices(lead, n) for n in shape[batch : batch + deep]]
    return [s.array(shape), np.stack(columns, -1)], {"batch_dims": batch or None}


@generates("Scatter", "ScatterElements")
def scatter_elements(s: Source) -> Drawn:
    shape = s.shape(1, empty=False)
    axis = s.axis(len(shape))
    other = [s.int(1, n) for n in shape]
    reduction = s.maybe(s.one("none", "add", "mul", "max", "min"))
    index = s.indices(other, shape[axis], s.one("int32", "int64"))
    if reduction in (None, "none"):
        # Of equal indices any may win.
        other[axis] = min(other[axis], shape[axis])
        moved = [n for i, n in enumerate(other) if i != axis % len(shape)]
        rows = [s.rng.permutation(shape[axis])[: other[axis]] for _ in range(int(np.prod(moved)))]
        index = np.moveaxis(np.array(rows).reshape(*moved, other[axis]), -1, axis).astype(index.dtype)
    return [s.array(shape), index, s.array(index.shape)], {"axis": axis if axis or s.chance() else None, "reduction": reduction}


@generates("ScatterND")
def scatter_nd(s: Source) -> Drawn:
    shape = s.shape(1, empty=False)
    deep = s.int(1, len(shape))
    count = int(np.prod(shape[:deep]))
    reduction = s.maybe(s.one("none", "add", "mul", "max", "min"))
    n = s.int(1, count)
    flat = s.rng.permutation(count)[:n] if reduction in (None, "none") else s.rng.integers(0, count, n)
    index = np.stack(np.unravel_index(flat, shape[:deep]), -1).astype(np.int64)
    if s.chance(0.3):
        index -= np.array(shape[:deep])
    return [s.array(shape), index, s.array((n, *shape[deep:]))], {"reduction": reduction}


@generates("Expand", "Tile")
def expand(s: Source) -> Drawn:
    shape = s.shape()
    if s.name == "Tile":
        return [s.array(shape), i64(s.ints(len(shape), 0, 3))], {}
    return [s.array(s.broadcast(shape)), i64(s.broadcast(shape) if s.chance() else shape)], {}


@generates("Pad")
def pad(s: Source) -> Drawn:
    shape = s.shape(1, empty=False)
    mode = s.one(None, "constant", "reflect", "edge", "wrap")
    low, high = (-1, 2) if mode in (None, "constant", "edge") else (0, min(shape) - 1)
    axes = s.axes(len(shape), 1) if s.reads("axes") and s.chance(0.3) else None
    pads = s.ints(2 * (len(axes) if axes else len(shape)), low, high)
    x = s.array(shape)
    if not s.reads("pads"):
        return [x], {"mode": mode, "pads": pads, "value": s.maybe(s.real(-2, 2))}
    value = s.maybe(s.array((), x.dtype.name)) if mode in (None, "constant") else None
    return [x, i64(pads), value, None if axes is None else i64(axes)], {"mode": mode}


@generates("Resize", "Upsample")
def resize(s: Source) -> Drawn:
    rank = s.int(1, 4)
    mode = s.one("nearest", "linear", "cubic") if s.name == "Resize" and s.opset >= 11 else s.one("nearest", "linear")
    shape = [s.int(1, 6) for _ in range(rank)]
    if mode != "nearest" and rank > 2 and s.chance(0.7):
        shape = [s.int(1, 2), s.int(1, 2), *s.ints(2, 2, 6)]
    if mode == "cubic":
        shape = [1, s.int(1, 2), *s.ints(2, 2, 6)]
    rank = len(shape)
    still = rank - 2 if mode != "nearest" and rank > 2 else 0
    x = s.array(shape, s.dtype(s.schema.inputs[0].type_str))
    scales = np.array([1.0] * still + [s.one(0.5, 1, 1.5, 2, 0.6, 3) for _ in range(rank - still)], np.float32)
    if s.name == "Upsample":
        scales = np.maximum(scales, 1)
        return [x, scales], {"mode": s.maybe(mode) if mode == "nearest" else mode}
    if s.opset < 11:
        return [x, scales], {"mode": s.maybe(mode) if mode == "nearest" else mode}
    coordinates = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"]
    coordinates += ["half_pixel_symmetric"] if s.opset >= 19 else ["tf_half_pixel_for_nn"] if s.opset < 13 else []
    how = s.one(None, *coordinates)
    roi = np.float32([0.1] * rank + [0.9] * rank) if how == "tf_crop_and_resize" else None
    sizes = i64([n if i < still else s.int(1, 9) for i, n in enumerate(shape)])
    by_size = s.chance(0.4)
    if roi is None and s.opset < 13:
        roi = np.zeros(0, np.float32)
    arrays: Inputs = [x, roi, scales, None]
    if by_size:
        arrays[2:] = [np.zeros(0, np.float32) if s.opset < 13 else None, sizes]
    return arrays, {
        "mode": s.maybe(mode) if mode == "nearest" else mode, "coordinate_transformation_mode": how,
        "nearest_mode": s.maybe(s.one("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")),
        "cubic_coeff_a": s.maybe(-0.5, 0.3), "exclude_outside": s.maybe(s.int(0, 1), 0.3) if mode == "cubic" else None,
        "extrapolation_value": s.maybe(s.real(0, 1), 0.3), "antialias": s.maybe(s.int(0, 1), 0.3) if mode != "nearest" else None,
        "keep_aspect_ratio_policy": s.maybe(s.one("stretch", "not_larger", "not_smaller"), 0.3) if by_size else None,
    }  # fmt: skip


@generates("OneHot")
def one_hot(s: Source) -> Drawn:
    shape, depth = s.shape(0, 3), s.int(1, 4)
    # The types that ONNX Runtime has.
    known = ("float32", "int32", "int64")
    x = s.rng.integers(-depth - 1, depth + 2, shape).astype(s.dtype("T1", *known))
    values, many = s.array((2,), s.dtype("T3", *known)), np.array(depth, s.dtype("T2", *known))
    return [x, many if s.chance(0.8) else many.reshape(1), values], {
        "axis": s.maybe(s.int(-len(shape) - 1, len(shape)))
    }  # fmt: skip


@generates("Compress")
def compress(s: Source) -> Drawn:
    shape = s.shape(1)
    axis = s.maybe(s.axis(len(shape)))
    most = int(np.prod(shape)) if axis is None else shape[axis]
    return [s.array(shape), s.array((s.int(0, most),), "bool")], {"axis": axis}


@generates("Range")
def range_(s: Source) -> Drawn:
    dtype = s.dtype()
    step = s.one(1, 2, -1, 3, -2) if np.dtype(dtype).kind != "f" else s.one(0.5, -0.25, 1.0, 0.3)
    if np.dtype(dtype).kind == "u":
        step = abs(step)
    return [np.array(s.int(0, 5), dtype), np.array(s.int(0, 12), dtype), np.array(step, dtype)], {
        "stash_type": s.maybe(1)
    }  # fmt: skip


@generates("Constant")
def constant(s: Source) -> Drawn:
    value = onnx.numpy_helper.from_array(s.array(s.shape(), s.one(*DTYPES)))
    if s.opset < 12 or s.chance(0.4):
        return [], {"value": value}
    return [], s.one(
        {"value_float": 1.5}, {"value_int": -3}, {"value_floats": [1.0, 2.5]}, {"value_ints": [1, -2, 3]}
    )


@generates("ConstantOfShape")
def constant_of_shape(s: Source) -> Drawn:
    value = s.maybe(onnx.numpy_helper.from_array(s.array((1,), s.one(*DTYPES))))
    return [i64(s.shape())], {"value": value}


@generates("ReverseSequence")
def reverse_sequence(s: Source) -> Drawn:
    shape = s.shape(2, 4, empty=False)
    batch = s.int(0, 1)
    lengths = s.rng.integers(1, shape[1 - batch] + 1, shape[batch])
    return [s.array(shape), lengths], {"batch_axis": batch, "time_axis": 1 - batch}


@generates("TopK")
def top_k(s: Source) -> Drawn:
    shape = s.shape(1, empty=False)
    axis = s.maybe(s.axis(len(shape)))
    s.outputs = (True, True)
    x = s.array(shape, None, 0.1)
    return [x, i64([s.int(0, shape[-1 if axis is None else axis])])], {
        "axis": axis, "largest": s.maybe(s.int(0, 1)), "sorted": s.maybe(1)
    }  # fmt: skip


@generates("Unique")
def unique(s: Source) -> Drawn:
    shape = s.shape(1, 3, empty=False)
    s.outputs = s.one((True,), (True, True, True, True), (True, False, True))
    x = s.array(shape)
    return [(x % 4).astype(x.dtype) if x.dtype.kind != "b" else x], {
        "axis": s.maybe(s.axis(len(shape))), "sorted": s.maybe(s.int(0, 1))
    }  # fmt: skip


@generates("CenterCropPad")
def center_crop_pad(s: Source) -> Drawn:
    shape = s.shape(1, empty=False)
    axes = s.maybe(s.axes(len(shape), 1))
    return [s.array(shape), i64(s.ints(len(axes) if axes else len(shape), 1, 6))], {"axes": axes}


# Boxes and images


@generates("NonMaxSuppression")
def non_max_suppression(s: Source) -> Drawn:
    batch, classes, n = s.int(1, 2), s.int(1, 2), s.int(1, 6)
    corner = s.rng.random((batch, n, 2)) * 3
    boxes = np.concatenate([corner, corner + s.rng.random((batch, n, 2)) * 2 + 0.1], -1).astype(np.float32)
    if s.chance(0.2):
        boxes = boxes[..., [2, 3, 0, 1]]
    arrays: Inputs = [
        boxes, s.rng.random((batch, classes, n)).astype(np.float32), s.maybe(i64([s.int(0, 4)]), 0.7),
        s.maybe(np.float32([s.real(0.1, 0.9)]), 0.7), s.maybe(np.float32([s.real(0, 0.8)])),
    ]  # fmt: skip
    return arrays, {"center_point_box": s.maybe(s.int(0, 1))}


@generates("RoiAlign", "MaxRoiPool")
def roi_align(s: Source) -> Drawn:
    n, count, dtype = s.int(1, 2), s.int(1, 3), s.dtype(s.schema.inputs[0].type_str)
    x = s.array((n, s.int(1, 2), *s.ints(2, 3, 6)), dtype)
    corner = s.rng.random((count, 2)) * 3
    boxes = np.concatenate([corner, corner + s.rng.random((count, 2)) * 4], -1)
    batch = s.rng.integers(0, n, count)
    if s.name == "MaxRoiPool":
        rois = np.concatenate([batch[:, None], np.round(boxes)], -1).astype(dtype)
        return [x, rois], {"pooled_shape": s.ints(2, 1, 3), "spatial_scale": s.maybe(s.one(0.5, 1.0))}
    return [x, boxes.astype(dtype), i64(batch)], {
        "mode": s.maybe(s.one("avg", "max")), "output_height": s.maybe(s.int(1, 3)), "output_width": s.maybe(s.int(1, 3)),
        "sampling_ratio": s.maybe(s.int(0, 3)), "spatial_scale": s.maybe(s.one(0.5, 1.0)),
        "coordinate_transformation_mode": s.maybe(s.one("half_pixel", "output_half_pixel")),
    }  # fmt: skip


@generates("GridSample")
def grid_sample(s: Source) -> Drawn:
    rank = 2 if s.opset < 20 else s.one(2, 2, 3)
    n = s.int(1, 2)
    x = s.array((n, s.int(1, 2), *s.ints(rank, 1, 5)), s.dtype("T1"))
    grid = (s.rng.random((n, *s.ints(rank, 1, 4), rank)) * 2.6 - 1.3).astype(s.dtype("T2"))
    modes = ("bilinear", "nearest", "bicubic") if s.opset < 20 else ("linear", "nearest", "cubic")
    return [x, grid], {
        "mode": s.maybe(s.one(*modes)), "padding_mode": s.maybe(s.one("zeros", "border", "reflection")),
        "align_corners": s.maybe(s.int(0, 1)),
    }  # fmt: skip


@generates("AffineGrid")
def affine_grid(s: Source) -> Drawn:
    rank, n = s.one(2, 3), s.int(1, 2)
    theta = s.array((n, rank, rank + 1), s.dtype("T1"))
    return [theta, i64([n, 1, *s.ints(rank, 1, 4)])], {"align_corners": s.maybe(s.int(0, 1))}


# Signals


@generates("DFT")
def dft(s: Source) -> Drawn:
    shape = (s.int(1, 2), *s.ints(s.int(1, 2), 2, 5), s.int(1, 2))
    axis = s.int(1, len(shape) - 2)
    length = s.maybe(np.array(s.int(2, 6)), 0.3)
    inverse, onesided = s.maybe(s.int(0, 1)), s.maybe(s.int(0, 1)) if shape[-1] == 1 else None
    x = s.array(shape, s.dtype("T1"))
    if s.reads("axis"):
        return [x, length, s.maybe(np.array(axis))], {"inverse": inverse, "onesided": onesided}
    return [x, length], {"axis": axis, "inverse": inverse, "onesided": onesided}


@generates("STFT")
def stft(s: Source) -> Drawn:
    dtype, frame = s.dtype("T1"), s.int(2, 5)
    x = s.array((s.int(1, 2), s.int(6, 12), 1), dtype)
    window = s.maybe(s.array((frame,), dtype))
    return [x, np.array(s.int(1, 3)), window, np.array(frame) if window is None else s.maybe(np.array(frame))], {
        "onesided": s.maybe(s.int(0, 1))
    }  # fmt: skip


@generates("BlackmanWindow", "HammingWindow", "HannWindow")
def windows(s: Source) -> Drawn:
    return [np.array(s.int(0, 9), s.dtype("T1"))], {
        "periodic": s.maybe(s.int(0, 1)), "output_datatype": s.maybe(kind(s.one("float32", "float64")))
    }  # fmt: skip


@generates("MelWeightMatrix")
def mel(s: Source) -> Drawn:
    dtype, rate = s.dtype("T1"), s.one(8000, 16000)
    lower = s.real(0, 300)
    values = [np.array(s.int(3, 8), dtype), np.array(s.one(16, 32), dtype), np.array(rate, dtype)]
    return [*values, np.array(lower, "float32"), np.array(rate / 2, "float32")], {
        "output_datatype": s.maybe(kind(s.one("float32", "float64")))
    }  # fmt: skip


# Losses


@generates("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def losses(s: Source) -> Drawn:
    n, classes, rest = s.int(1, 3), s.int(1, 4), s.shape(0, 2, empty=False)
    x = s.array((n, classes, *rest))
    target = s.rng.integers(0, classes, (n, *rest)).astype(s.one("int32", "int64"))
    if s.name[0] == "S":
        s.outputs = s.one((True,), (True, True))
    weights = s.maybe(np.abs(s.array((classes,))) + x.dtype.type(0.5))
    return [x, target, weights], {
        "ignore_index": s.maybe(s.int(0, classes), 0.3), "reduction": s.maybe(s.one("none", "sum", "mean"))
    }  # fmt: skip


# Quantization


@generates("QuantizeLinear", "DequantizeLinear")
def quantize(s: Source) -> Drawn:
    shape = s.shape(1, 3, empty=False)
    axis = s.axis(len(shape))
    per_axis = s.chance(0.4) and s.opset >= 13
    blocked = "block_size" in s.schema.attributes and s.chance(0.2)
    size: tuple[int, ...] = (shape[axis],) if per_axis else ()
    block = None
    if blocked:
        block = s.int(1, shape[axis])
        listed = list(shape)
        listed[axis] = -(-shape[axis] // block)
        size = tuple(listed)
    wide = ("int8", "uint8", "int16", "uint16") if s.opset >= 21 else ("int8", "uint8")
    code = s.one(*wide)
    scale = (s.rng.random(size) * 0.3 + 0.01).astype("float32")
    zero = s.maybe(s.array(size, code, 1))
    attributes = {"axis": axis if per_axis or blocked else None, "block_size": block}
    if s.name == "QuantizeLinear":
        return [s.array(shape, "float32", 0.1), scale, zero], attributes
    if zero is None and s.chance(0.2):
        return [s.array(shape, "int32"), scale, None], attributes
    return [s.array(shape, code, 1), scale, zero], attributes


@generates("DynamicQuantizeLinear")
def dynamic_quantize(s: Source) -> Drawn:
    s.outputs = (True, True, True)
    return [s.array(s.shape(1, 3, empty=False), "float32")], {}


# Subgraphs


def body(nodes: list[Any], inputs: dict[str, tuple[str, Any]], outputs: dict[str, tuple[str, Any]]) -> Any:
    def values(entries: dict[str, tuple[str, Any]]) -> list[Any]:
        return [helper.make_tensor_value_info(n, kind(d), None if s is None else list(s)) for n, (d, s) in entries.items()]

    return helper.make_graph(nodes, "body", values(inputs), values(outputs))


@generates("If")
def if_(s: Source) -> Drawn:
    values = [onnx.numpy_helper.from_array(s.array((2,), "float32")) for _ in "te"]
    then, other = (
        body([helper.make_node("Constant", [], [name], value=value)], {}, {name: ("float32", (2,))})
        for name, value in zip("te", values, strict=True)
    )
    return [s.array(s.one((), (1,)), "bool")], {"then_branch": then, "else_branch": other}


@generates("Loop")
def loop(s: Source) -> Drawn:
    shape = s.shape(0, 2)
    inputs = {"i": ("int64", ()), "go": ("bool", ()), "x": ("float32", shape)}
    outputs = {"more": ("bool", ()), "z": ("float32", shape), "k": ("float32", shape)}
    nodes = [
        helper.make_node("Identity", ["go"], ["more"]), helper.make_node("Add", ["x", "x"], ["z"]),
        helper.make_node("Neg", ["z"], ["k"]),
    ]  # fmt: skip
    s.outputs = (True, True)
    count = np.array(s.int(0, 3)) if s.chance(0.9) else i64([2])
    return [count, s.maybe(np.array(s.chance(0.8))), s.array(shape, "float32")], {"body": body(nodes, inputs, outputs)}


@generates("Scan")
def scan(s: Source) -> Drawn:
    shape, length = s.shape(0, 2, empty=False), s.int(1, 3)
    inputs = {"x": ("float32", shape), "y": ("float32", shape)}
    outputs = {"z": ("float32", shape), "k": ("float32", shape)}
    nodes = [helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Neg", ["z"], ["k"])]
    s.outputs = (True, True)
    back, forth = s.maybe([1], 0.2), s.maybe([1], 0.2)
    return [s.array(shape, "float32"), s.array((length, *shape), "float32")], {
        "body": body(nodes, inputs, outputs), "num_scan_inputs": 1, "scan_input_directions": back,
        "scan_output_directions": forth,
    }  # fmt: skip


# ai.onnx.ml

ml = functools.partial(generates, domain="ai.onnx.ml")


@ml("ArrayFeatureExtractor", "Binarizer", "Normalizer", "Scaler", "Imputer", "OneHotEncoder")
def features(s: Source) -> Drawn:
    rows, columns = s.int(1, 3), s.int(1, 4)
    x = s.array((rows, columns), s.dtype("T"))
    if s.name == "ArrayFeatureExtractor":
        return [x, s.rng.integers(0, columns, (1, s.int(1, 3)))], {}
    real = x.dtype.kind == "f"
    if s.name == "Imputer" and real:
        x[s.rng.random(x.shape) < 0.3] = np.nan
    count = s.one(1, columns)
    imputed = [s.real(-2, 2) for _ in range(count)]
    return [x], {
        "threshold": s.maybe(s.real(-1, 1)), "norm": s.maybe(s.one("MAX", "L1", "L2")),
        "offset": [s.real(-1, 1) for _ in range(count)], "scale": [s.real(0.5, 2) for _ in range(count)],
        "imputed_value_floats": imputed if real else None, "replaced_value_float": s.one(np.nan, 1.0) if real else None,
        "imputed_value_int64s": s.ints(count, -3, 3) if not real else None, "replaced_value_int64": None if real else 1,
        "cats_int64s": [1, 2, 5], "zeros": s.maybe(1),
    }  # fmt: skip


@ml("FeatureVectorizer")
def feature_vectorizer(s: Source) -> Drawn:
    rows, sizes = s.int(1, 3), s.ints(2, 1, 3)
    return [s.array((rows, n), s.dtype("T1")) for n in sizes], {"inputdimensions": sizes}


@ml("LabelEncoder")
def label_encoder(s: Source) -> Drawn:
    keys = [s.one("keys_int64s", "keys_floats"), s.one("values_int64s", "values_floats")]
    real = [name.endswith("floats") for name in keys]
    x = s.rng.integers(0, 6, s.shape(1, 2)).astype("float32" if real[0] else "int64")
    default = s.maybe(s.real(-2, 2) if real[1] else s.int(-5, 5))
    numbers = [[float(n) if r else n for n in (1, 3, 4)] for r in real]
    return [x], {keys[0]: numbers[0], keys[1]: numbers[1], "default_float" if real[1] else "default_int64": default}


@ml("LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor")
def linear(s: Source) -> Drawn:
    columns, classes = s.int(1, 3), s.int(2, 3)
    dtype = s.dtype("T1" if s.name.endswith("Classifier") else "T")
    reals = lambda n: [s.real(-2, 2) for _ in range(n)]  # noqa: E731
    post = s.maybe(s.one("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"))
    attributes: dict[str, Any] = {"post_transform": post}
    x = s.array((s.int(1, 3), columns), dtype)
    if s.name == "LinearClassifier":
        s.outputs = (True, True)
        attributes |= {"coefficients": reals(classes * columns), "intercepts": reals(classes), "classlabels_ints": [3, 5, 7][:classes], "multi_class": s.maybe(1)}
    elif s.name == "LinearRegressor":
        attributes |= {"coefficients": reals(classes * columns), "intercepts": s.maybe(reals(classes)), "targets": classes}
    else:
        n = s.int(2, 4)
        kernel = s.one("LINEAR", "POLY", "RBF", "SIGMOID")
        attributes |= {"kernel_type": kernel, "kernel_params": [0.5, 0.25, 2.0], "support_vectors": reals(n * columns), "rho": reals(1)}
        if s.name == "SVMRegressor":
            attributes |= {"n_supports": n, "coefficients": reals(n), "one_class": s.maybe(1, 0.2)}
        else:
            s.outputs = (True, True)
            attributes |= {"vectors_per_class": [1, n - 1], "coefficients": reals(n), "classlabels_ints": [3, 5]}
            if s.chance(0.4):
                attributes |= {"prob_a": reals(1), "prob_b": reals(1)}
    return [x], attributes


MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


@ml("TreeEnsembleRegressor", "TreeEnsembleClassifier")
def trees(s: Source) -> Drawn:
    """Trees of three inner nodes and four leaves."""
    count, columns, targets = s.int(1, 3), s.int(1, 3), s.int(1, 3)
    regressor = s.name.endswith("Regressor")
    leaves = ("target" if regressor else "class") + "_{}"
    one = s.one(*MODES)
    attributes: dict[str, Any] = {
        "nodes_treeids": [t for t in range(count) for _ in range(7)], "nodes_nodeids": list(range(7)) * count,
        "nodes_featureids": [s.int(0, columns - 1) if n < 3 else 0 for _ in range(count) for n in range(7)],
        "nodes_modes": [one if n < 3 else "LEAF" for _ in range(count) for n in range(7)],
        "nodes_values": [s.real(-2, 2) if n < 3 else 0.0 for _ in range(count) for n in range(7)],
        "nodes_truenodeids": [1, 3, 5, 0, 0, 0, 0] * count, "nodes_falsenodeids": [2, 4, 6, 0, 0, 0, 0] * count,
        "nodes_missing_value_tracks_true": s.maybe([s.int(0, 1) for _ in range(7 * count)], 0.3),
        "nodes_hitrates": s.maybe([1.0] * 7 * count, 0.2),
        leaves.format("treeids"): [t for t in range(count) for _ in range(4)],
        leaves.format("nodeids"): [3, 4, 5, 6] * count,
        leaves.format("ids"): [s.int(0, targets - 1) for _ in range(4 * count)],
        leaves.format("weights"): [s.real(-1, 1) for _ in range(4 * count)],
        "post_transform": s.maybe(s.one("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")),
        "base_values": s.maybe([s.real(-1, 1) for _ in range(targets)], 0.3),
    }  # fmt: skip
    if regressor:
        attributes |= {"n_targets": targets, "aggregate_function": s.maybe(s.one("SUM", "AVERAGE", "MIN", "MAX"))}
    else:
        s.outputs = (True, True)
        attributes["classlabels_int64s"] = [3, 5, 7][:targets]
    return [s.array((s.int(1, 4), columns), s.dtype("T" if regressor else "T1"))], attributes


@ml("TreeEnsemble")
def tree_ensemble(s: Source) -> Drawn:
    columns, targets, dtype = s.int(1, 3), s.int(1, 2), s.dtype("T")
    tensor = lambda values, kind: onnx.numpy_helper.from_array(np.array(values, kind))  # noqa: E731
    return [s.array((s.int(1, 4), columns), dtype)], {
        "tree_roots": [0], "nodes_featureids": [s.int(0, columns - 1) for _ in range(3)],
        "nodes_modes": tensor(s.ints(3, 0, 5), "uint8"), "nodes_splits": tensor([s.real(-2, 2) for _ in range(3)], dtype),
        "nodes_truenodeids": [1, 0, 2], "nodes_trueleafs": [0, 1, 1], "nodes_falsenodeids": [2, 1, 3],
        "nodes_falseleafs": [0, 1, 1], "leaf_targetids": [s.int(0, targets - 1) for _ in range(4)],
        "leaf_weights": tensor([s.real(-1, 1) for _ in range(4)], dtype), "n_targets": targets,
        "aggregate_function": s.maybe(s.int(0, 3)), "post_transform": s.maybe(s.int(0, 4)),
    }  # fmt: skip
