"""Random graphs of one operator each, over all operators that have layers of their own.

A generator returns a :class:`Single`: the node's arguments, which of them are constants, its attributes, and
how far floats may lie from ONNX Runtime's. ``draw(key, rng)`` draws one for an operator of the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper

from support import onnx_models as om

F = np.float32
Rng = np.random.Generator
Shape = tuple[int, ...]

FLOATS = ("float32", "float32", "float32", "float64", "float16")
CODES = ("int8", "uint8")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, np.inf, -np.inf, np.nan, 1e-42, -1e-45, 3e38, -3e38, 88.0, -104.0, 710.0)
NUMBERS = tuple(value for value in SPECIAL if value == value)
# What sums take: in float32 the order decides where large numbers overflow.
MILD = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-42)


@dataclass
class Single:
    """One node, what it reads, and how its floats are compared.

    Attributes
    ----------
    op : str
        With its domain before it, unless that is the standard one.
    arguments : list of ndarray or None
        None is an optional input left out.
    attributes : dict
    constants : set of int
        Places of the arguments that are initializers; others are inputs of the graph.
    opset : int
    outputs : int
    near : float
        Floats may differ by this, relative to the larger of 1 (or `scale`) and the value; 0: bit for bit,
        but for the sign of NaN.
    scale : float
        The magnitude that rounding errors grow with, such as that of a sum's terms.
    """

    op: str
    arguments: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: set[int] = field(default_factory=set)
    opset: int = 21
    outputs: int = 1
    near: float = 0.0
    scale: float = 1.0

    def model(self) -> tuple[Any, dict[str, np.ndarray]]:
        """Return the graph and what to feed it; its outputs have no types, as ONNX Runtime allows."""
        names = ["" if value is None else f"i{index}" for index, value in enumerate(self.arguments)]
        while names and not names[-1]:
            names.pop()
        arrays = {name: np.asarray(self.arguments[i]) for i, name in enumerate(names) if name}
        feeds = {name: array for i, name in enumerate(names) if name and i not in self.constants for array in [arrays.pop(name)]}
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = om.node(self.op, names, outputs, name="the_node", **self.attributes)
        inputs = {name: (array.dtype.name, array.shape) for name, array in feeds.items()}
        graph = om.model([node], inputs, outputs, arrays, opset=self.opset)
        for output in graph.graph.output:
            output.ClearField("type")
        return graph, feeds


# Drawing numbers


def chance(rng: Rng, p: float = 0.5) -> bool:
    return bool(rng.random() < p)


def pick(rng: Rng, values: Sequence[Any]) -> Any:
    return values[int(rng.integers(len(values)))]


def shape(rng: Rng, least: int = 0, most: int = 4, *, low: int = 1, high: int = 5, empty: float = 0.03) -> Shape:
    """A shape; now and then a size is 0."""
    sizes = [int(size) for size in rng.integers(low, high, int(rng.integers(least, most + 1)), endpoint=True)]
    if sizes and chance(rng, empty):
        sizes[int(rng.integers(len(sizes)))] = 0
    return tuple(sizes)


def floats(rng: Rng, size: Shape, dtype: str = "float32", special: Sequence[float] = SPECIAL) -> np.ndarray:
    """Normal numbers, whole ones (ties), or all alike; half of the arrays have special numbers among them."""
    kind = rng.integers(4)
    x = rng.normal(size=size) * pick(rng, (0.01, 1, 3, 100))
    x = np.round(x) if kind == 0 else np.full(size, float(rng.normal())) if kind == 1 else x
    if special and x.size and chance(rng):
        places = rng.random(size) < pick(rng, (0.05, 0.3, 1.0))
        x = np.where(places, rng.choice(np.array(special), size), x)
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(dtype)


def integers(rng: Rng, size: Shape, dtype: str) -> np.ndarray:
    """Small numbers, any numbers, or the type's ends among others."""
    info = np.iinfo(dtype)
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(max(info.min, -4), 5, size).astype(dtype)
    x = rng.integers(info.min, info.max, size, dtype=dtype, endpoint=True)
    if kind == 1 and x.size:
        x = np.where(rng.random(size) < 0.4, rng.choice(np.array([info.min, info.max, 0, 1], dtype), size), x)
    return np.asarray(x, dtype)


def numbers(rng: Rng, size: Shape, dtype: str, special: Sequence[float] = SPECIAL) -> np.ndarray:
    if dtype == "bool":
        return np.asarray(rng.random(size) < 0.5)
    return floats(rng, size, dtype, special) if dtype.startswith("float") else integers(rng, size, dtype)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def opset(rng: Rng, least: int = 10) -> int:
    """An opset from `least` to the newest that ONNX Runtime loads, the ends more often."""
    return int(pick(rng, (least, NEWEST, rng.integers(least, NEWEST, endpoint=True))))


NEWEST = 21
"""The newest opset that is drawn; the test sets what ONNX Runtime has."""


def broadcasting(rng: Rng, count: int) -> list[Shape]:
    """Shapes that broadcast together."""
    whole = shape(rng, 0, 4)
    found = []
    for _ in range(count):
        part = whole[int(rng.integers(len(whole) + 1)) if whole and chance(rng, 0.3) else 0 :]
        found.append(tuple(1 if chance(rng, 0.2) else size for size in part))
    return found


def computed(rng: Rng, count: int, *, first: bool = True) -> set[int]:
    """Which arguments are constants: often all but the first, sometimes none, or any."""
    kind = rng.integers(3)
    rest = set(range(1, count))
    if kind == 0:
        return rest
    return set() if kind == 1 else {i for i in rest if chance(rng)}


# Generators


Maker = Callable[[str, Rng], Single]

# Functions whose bits are not fixed, and how far ONNX Runtime's float32 lies from the true value.
APPROXIMATE = {"Erf": 1e-6, "Exp": 2e-6, "Gelu": 2e-6, "Log": 2e-6, "Sigmoid": 1e-6, "Tanh": 1e-6}


def near(dtype: str, float32: float) -> float:
    return {"float32": float32, "float64": 1e-12, "float16": 2e-3}.get(dtype, 0.0)


def unary(op: str, rng: Rng) -> Single:
    dtype = pick(rng, ("bool",)) if op == "Not" else pick(rng, FLOATS)
    if op in ("Abs", "Neg", "Relu") and chance(rng, 0.4):
        dtype = pick(rng, INTEGERS)
    attributes = {}
    if op == "Gelu" and chance(rng):
        attributes["approximate"] = pick(rng, ("none", "tanh"))
    x = numbers(rng, shape(rng), dtype)
    tolerance = near(dtype, APPROXIMATE[op]) if op in APPROXIMATE else 0.0
    if attributes.get("approximate") == "tanh":
        tolerance = max(tolerance, 1e-7)  # ONNX Runtime's constants are float32
    return Single(op, [x], attributes, opset=opset(rng, 20 if op == "Gelu" else 10), near=tolerance)


def binary(op: str, rng: Rng) -> Single:
    dtype = "bool" if op in ("And", "Or", "Xor") else pick(rng, (*FLOATS, *INTEGERS))
    if op == "Equal" and chance(rng, 0.2):
        dtype = "bool"
    a, b = (numbers(rng, size, dtype) for size in broadcasting(rng, 2))
    if op == "Div" and dtype in INTEGERS:
        b = np.where(b == 0, np.array(3, dtype), b)
        if np.iinfo(dtype).min:
            # The quotient that no integer type holds traps in C.
            b = np.where((b == -1), np.array(1, dtype), b)
    tolerance = 0.0
    if op == "Pow":
        if chance(rng, 0.3):
            b = numbers(rng, b.shape, pick(rng, ("float32", "float64", "int32", "int64")))
        if chance(rng, 0.3):
            b = np.full(b.shape, pick(rng, (2, 3, 0.5 if b.dtype.kind == "f" else 1)), b.dtype)
        if a.dtype.kind != "f" or b.dtype.kind != "f":
            b = np.clip(b, 0, 6) if b.dtype.kind != "f" else b
        tolerance = near(dtype, 1e-6)
    return Single(op, [a, b], opset=opset(rng), constants=computed(rng, 2), near=tolerance)


def many(op: str, rng: Rng) -> Single:
    dtype = pick(rng, (*FLOATS, *INTEGERS))
    count = int(rng.integers(1, 4))
    return Single(op, [numbers(rng, size, dtype) for size in broadcasting(rng, count)], opset=opset(rng, 12 if chance(rng, 0.8) else 10), constants=computed(rng, count))  # fmt: skip


def clip(op: str, rng: Rng) -> Single:
    version = opset(rng)
    dtype = pick(rng, (*FLOATS, *INTEGERS))
    x = numbers(rng, shape(rng), "float32" if version < 11 else dtype)
    bounds = [None if chance(rng, 0.3) else numbers(rng, (), x.dtype.name, SPECIAL[:8]) for _ in range(2)]
    if version < 11:
        return Single(op, [x], {k: float(v) for k, v in zip(("min", "max"), bounds, strict=True) if v is not None}, opset=version)  # fmt: skip
    return Single(op, [x, *bounds], opset=version, constants=computed(rng, 3))


def where(op: str, rng: Rng) -> Single:
    c, a, b = broadcasting(rng, 3)
    dtype = pick(rng, (*FLOATS, *INTEGERS))
    return Single(op, [numbers(rng, c, "bool"), numbers(rng, a, dtype), numbers(rng, b, dtype)], opset=opset(rng), constants=computed(rng, 3))  # fmt: skip


def cast(op: str, rng: Rng) -> Single:
    types = (*FLOATS, *INTEGERS, "bool")
    x, to = numbers(rng, shape(rng), pick(rng, types)), pick(rng, types)
    return Single(op, [x], {"to": int(helper.np_dtype_to_tensor_dtype(np.dtype(to)))}, opset=opset(rng))


def axes_of(rng: Rng, rank: int, *, least: int = 0) -> list[int]:
    count = int(rng.integers(min(least, rank), rank, endpoint=True))
    found = rng.choice(rank, count, replace=False).tolist() if rank else []
    return [axis - rank if chance(rng, 0.3) else axis for axis in found]


def reduce(op: str, rng: Rng) -> Single:
    version = opset(rng)
    dtype = pick(rng, ("float32", "float32", "float64", "int32", "int64", "int8", "uint8"))
    mild = op in ("ReduceMean", "ReduceSum", "ReduceProd")
    x = numbers(rng, shape(rng, 0, 4, empty=0.1), dtype, MILD if mild else NUMBERS)
    if dtype == "int64" and mild:
        x = x % (1 << 40) if op == "ReduceSum" else np.clip(x, -9, 9)
    if dtype.startswith("float") and op == "ReduceProd":
        x = np.clip(x, -2, 2)  # the order decides where a product overflows on its way
    attributes: dict[str, Any] = {} if chance(rng, 0.3) else {"keepdims": int(chance(rng))}
    arguments: list[Any] = [x]
    if chance(rng, 0.8):
        axes = axes_of(rng, x.ndim)
        if version >= (13 if op == "ReduceSum" else 18):
            arguments.append(i64(*axes))
            if chance(rng, 0.3):
                attributes["noop_with_empty_axes"] = int(chance(rng))
        elif axes:
            attributes["axes"] = axes
    with np.errstate(all="ignore"):
        terms = np.abs(x.astype(np.float64))[np.isfinite(x.astype(np.float64))]
        scale = float(terms.sum() if op != "ReduceProd" else np.prod(np.maximum(terms, 1))) if terms.size else 1.0
    return Single(op, arguments, attributes, opset=version, constants=computed(rng, 2), near=near(dtype, 2e-6) if mild and dtype.startswith("f") else 0.0, scale=max(1.0, scale))  # fmt: skip


def arg_max(op: str, rng: Rng) -> Single:
    x = numbers(rng, shape(rng, 1, 4), pick(rng, ("float32", "float64", "float16", "int8", "uint8", "int32", "int64")))  # fmt: skip
    version = opset(rng)
    attributes: dict[str, Any] = {"axis": int(rng.integers(-x.ndim, x.ndim)), "keepdims": int(chance(rng))}
    if version >= 12 and chance(rng):
        attributes["select_last_index"] = int(chance(rng))
    return Single(op, [x], attributes, opset=version)


def softmax(op: str, rng: Rng) -> Single:
    dtype = pick(rng, ("float32", "float32", "float64", "float16"))
    x = floats(rng, shape(rng, 1, 4), dtype)
    attributes = {"axis": int(rng.integers(-x.ndim, x.ndim))} if x.ndim == 1 or chance(rng, 0.8) else {}
    return Single(op, [x], attributes, opset=opset(rng), near=near(dtype, 2e-6))


def layer_normalization(op: str, rng: Rng) -> Single:
    # Of infinity ONNX Runtime's means are infinite or NaN, by its way through the sizes.
    x = floats(rng, shape(rng, 1, 4, high=8), special=[v for v in MILD if not np.isinf(v)])
    axis = int(rng.integers(-x.ndim, x.ndim))
    tail = x.shape[axis:]
    arguments = [x, floats(rng, tail, special=())]
    if chance(rng):
        arguments.append(floats(rng, tail, special=()))
    return Single(op, arguments, {"axis": axis, "epsilon": float(pick(rng, (1e-5, 0.1)))}, opset=opset(rng, 17), outputs=int(pick(rng, (1, 1, 3))), constants=computed(rng, 3), near=2e-4, scale=100.0)  # fmt: skip


def batch_normalization(op: str, rng: Rng) -> Single:
    x = floats(rng, shape(rng, 2, 5, high=6))
    channels = (x.shape[1],)
    statistics = [floats(rng, channels) for _ in range(3)]
    arguments = [x, *statistics, np.abs(floats(rng, channels))]
    return Single(op, arguments, {"epsilon": float(pick(rng, (1e-5, 0.1)))}, opset=opset(rng), constants=computed(rng, 5))  # fmt: skip


def magnitude(a: np.ndarray, b: np.ndarray, k: int) -> float:
    """The largest sum of magnitudes of k products, infinities and NaN left out."""
    def largest(x: np.ndarray) -> float:
        x = np.abs(x.astype(np.float64))
        return float(x[np.isfinite(x)].max(initial=0.0))

    return max(1.0, largest(a) * largest(b) * k)


def matmul(op: str, rng: Rng) -> Single:
    dtype = pick(rng, ("float32", "float32", "float64", "int32", "uint32", "int64"))
    m, k, n = (int(v) for v in rng.integers(0 if chance(rng, 0.05) else 1, 6, 3))
    stacks = [tuple(s) for s in broadcasting(rng, 2)]
    a, b = (*stacks[0][-2:], m, k), (*stacks[1][-2:], k, n)
    a = (k,) if chance(rng, 0.1) else a
    b = (k,) if chance(rng, 0.1) else b
    x, y = (numbers(rng, size, dtype, MILD) for size in (a, b))
    return Single(op, [x, y], opset=opset(rng), constants=computed(rng, 2), near=near(dtype, 1e-6) if dtype[0] == "f" else 0.0, scale=magnitude(x, y, k))  # fmt: skip


def gemm(op: str, rng: Rng) -> Single:
    dtype = pick(rng, ("float32", "float32", "float64"))
    m, k, n = (int(v) for v in rng.integers(1, 6, 3))
    ta, tb = (int(chance(rng)) for _ in range(2))
    a = floats(rng, (k, m) if ta else (m, k), dtype, MILD)
    b = floats(rng, (n, k) if tb else (k, n), dtype, MILD)
    c = floats(rng, pick(rng, ((), (1,), (n,), (m, 1), (1, n), (m, n))), dtype, MILD)
    arguments = [a, b, *([c] if chance(rng, 0.7) else [])]
    attributes: dict[str, Any] = {"transA": ta, "transB": tb}
    for name in ("alpha", "beta"):
        if chance(rng):
            attributes[name] = float(pick(rng, (0.0, 0.5, 1.0, -2.0)))
    scale = 2 * magnitude(a, b, k) + float(np.abs(c[np.isfinite(c)]).max(initial=0)) * 2
    return Single(op, arguments, attributes, opset=opset(rng, 11), constants=computed(rng, 3), near=near(dtype, 1e-6), scale=scale)  # fmt: skip


# Windows


def window(rng: Rng, kernel: Shape, image: Shape, *, pool: bool = False, dilated: bool = True) -> dict[str, Any]:
    """Strides, dilations and pads or auto_pad, strides beyond the kernel among them."""
    rank = len(kernel)
    attributes: dict[str, Any] = {}
    if chance(rng, 0.7):
        attributes["strides"] = [int(v) for v in rng.integers(1, pick(rng, (3, 6)), rank)]
    if dilated and chance(rng, 0.4):
        attributes["dilations"] = [int(v) for v in rng.integers(1, 4, rank)]
    kind = rng.integers(4)
    if kind == 0:
        attributes["auto_pad"] = pick(rng, ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"))
    elif kind == 1 or kind == 2:
        attributes["auto_pad"] = pick(rng, ("SAME_UPPER", "SAME_LOWER")) if kind == 1 else "NOTSET"
        if kind == 2:
            high = [k - 1 if pool else 3 for k in kernel]
            attributes["pads"] = [int(rng.integers(0, h, endpoint=True)) for _ in range(2) for h in high]
    return attributes


def image(rng: Rng, rank: int, high: int = 8) -> Shape:
    return tuple(int(v) for v in rng.integers(1, high, rank, endpoint=True))


def conv_operands(rng: Rng, rank: int) -> tuple[Shape, Shape, int]:
    """Shapes of x and w, and the groups."""
    groups = int(pick(rng, (1, 1, 2, 3)))
    icg, ocg = (int(v) for v in rng.integers(1, 4, 2))
    kernel = image(rng, rank, 3)
    x = (int(rng.integers(1, 3)), groups * icg, *image(rng, rank, {1: 20, 2: 9, 3: 6}[rank]))
    return x, (groups * ocg, icg, *kernel), groups


def conv_rank(rng: Rng) -> int:
    return int(pick(rng, (1, 2, 2, 2, 3)))


def conv(op: str, rng: Rng) -> Single:
    x, w, groups = conv_operands(rng, conv_rank(rng))
    attributes = {"group": groups, **window(rng, w[2:], x[2:])}
    special = MILD if chance(rng, 0.3) else ()
    arguments = [floats(rng, x, special=special), floats(rng, w, special=())]
    if chance(rng):
        arguments.append(floats(rng, (w[0],), special=()))
    scale = magnitude(arguments[0], arguments[1], math.prod(w[1:])) + (float(np.abs(arguments[2]).max()) if len(arguments) > 2 else 0)  # fmt: skip
    return Single(op, arguments, attributes, opset=opset(rng), constants=computed(rng, 3), near=1e-6, scale=scale)  # fmt: skip


def conv_transpose(op: str, rng: Rng) -> Single:
    x, w, groups = conv_operands(rng, conv_rank(rng))
    w = (x[1], w[0] // groups, *w[2:])
    attributes = {"group": groups, **window(rng, w[2:], x[2:], pool=True)}
    rank = len(x) - 2
    if chance(rng, 0.3):
        most = [max(s, d) for s, d in zip(attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank), strict=True)]  # fmt: skip
        attributes["output_padding"] = [int(rng.integers(0, v)) for v in most]
    elif chance(rng, 0.2):
        strides = attributes.get("strides", [1] * rank)
        attributes["output_shape"] = [int(size * step + rng.integers(-1, 2)) for size, step in zip(x[2:], strides, strict=True)]  # fmt: skip
        attributes.pop("pads", None)
    arguments = [floats(rng, x, special=MILD if chance(rng, 0.2) else ()), floats(rng, w, special=())]
    if chance(rng):
        arguments.append(floats(rng, (w[1] * groups,), special=()))
    scale = magnitude(arguments[0], arguments[1], math.prod(w[1:]) * w[0])
    return Single(op, arguments, attributes, opset=opset(rng, 11), constants=computed(rng, 3), near=1e-6, scale=scale)  # fmt: skip


def pool(op: str, rng: Rng) -> Single:
    rank = conv_rank(rng)
    size = image(rng, rank, {1: 20, 2: 9, 3: 6}[rank])
    kernel = image(rng, rank, 3)
    version = opset(rng)
    attributes: dict[str, Any] = {"kernel_shape": kernel, **window(rng, kernel, size, pool=True, dilated=op == "MaxPool" or version >= 19)}  # fmt: skip
    if chance(rng, 0.4):
        attributes["ceil_mode"] = int(chance(rng, 0.8))
    outputs = 1
    full = (int(rng.integers(1, 3)), int(rng.integers(1, 4)), *size)
    if op == "MaxPool":
        # NaN, and windows of minus infinity alone: see DIFFERENCES.
        dtype = pick(rng, ("float32", "float32", "float64", "int8", "uint8", "float16"))
        if version < 12 and dtype in CODES:
            version = 12
        if chance(rng, 0.2):
            outputs = 2
            attributes["storage_order"] = int(chance(rng))
        return Single(op, [numbers(rng, full, dtype, [v for v in NUMBERS if v != -np.inf])], attributes, opset=version, outputs=outputs)  # fmt: skip
    if chance(rng):
        attributes["count_include_pad"] = int(chance(rng))
    x = floats(rng, full, special=MILD)
    return Single(op, [x], attributes, opset=version, near=1e-6, scale=magnitude(x, np.ones(1), math.prod(kernel)))  # fmt: skip


def global_average_pool(op: str, rng: Rng) -> Single:
    x = floats(rng, (*shape(rng, 2, 2), *image(rng, int(rng.integers(1, 4)))), special=MILD)
    return Single(op, [x], opset=opset(rng), near=2e-6, scale=magnitude(x, np.ones(1), 1))


# Shapes


def any_tensor(rng: Rng, size: Shape) -> np.ndarray:
    return numbers(rng, size, pick(rng, (*FLOATS, *INTEGERS, "bool")))


def plain_shape(op: str, rng: Rng) -> Single:
    """Operators that take x alone."""
    x = any_tensor(rng, shape(rng))
    attributes: dict[str, Any] = {}
    version = opset(rng)
    if op == "Flatten" and chance(rng, 0.8):
        attributes["axis"] = int(rng.integers(-x.ndim if version > 10 else 0, x.ndim, endpoint=True))
    if op == "Transpose" and x.ndim and chance(rng, 0.8):
        attributes["perm"] = rng.permutation(x.ndim).tolist()
    if op == "Shape" and version >= 15:
        for name in ("start", "end"):
            if chance(rng):
                attributes[name] = int(rng.integers(-6, 7))
    return Single(op, [x], attributes, opset=version)


def concat(op: str, rng: Rng) -> Single:
    whole = shape(rng, 1, 4)
    axis = int(rng.integers(len(whole)))
    dtype = pick(rng, (*FLOATS, *INTEGERS, "bool"))
    count = int(rng.integers(1, 5))
    parts = [numbers(rng, (*whole[:axis], int(rng.integers(0, 4)), *whole[axis + 1 :]), dtype) for _ in range(count)]  # fmt: skip
    return Single(op, parts, {"axis": axis - (len(whole) if chance(rng) and NEWEST > 10 else 0)}, opset=opset(rng, 11), constants=computed(rng, count))  # fmt: skip


def expand(op: str, rng: Rng) -> Single:
    a, b = broadcasting(rng, 2)
    return Single(op, [any_tensor(rng, a), i64(*b)], opset=opset(rng), constants=computed(rng, 2))


def fill(op: str, rng: Rng) -> Single:
    attributes = {}
    if chance(rng, 0.8):
        attributes["value"] = om.onnx.numpy_helper.from_array(any_tensor(rng, (1,)))
    return Single(op, [i64(*shape(rng, 0, 4))], attributes, opset=opset(rng))


def gather(op: str, rng: Rng) -> Single:
    x = any_tensor(rng, shape(rng, 1, 3, empty=0))
    axis = int(rng.integers(-x.ndim, x.ndim))
    indices = rng.integers(-x.shape[axis], x.shape[axis], shape(rng, 0, 2)).astype(pick(rng, ("int64", "int32")))
    return Single(op, [x, indices], {"axis": axis}, opset=opset(rng, 11), constants=computed(rng, 2))


def pad(op: str, rng: Rng) -> Single:
    x = any_tensor(rng, shape(rng, 1, 4, low=2, empty=0.02))
    version = opset(rng)
    mode = pick(rng, ("constant", "reflect", "edge", *(("wrap",) if version >= 19 else ())))
    axes = axes_of(rng, x.ndim, least=1) if version >= 18 and chance(rng) else None
    count = x.ndim if axes is None else len(axes)
    pads = rng.integers(-1 if mode == "constant" and chance(rng, 0.3) else 0, 3 if mode == "constant" else 2, 2 * count)
    if version < 11:
        x = x.astype(F) if x.dtype.kind != "f" else x
        return Single(op, [x], {"mode": mode, "pads": pads.tolist(), "value": float(rng.normal())}, opset=version)
    value = None if chance(rng) else numbers(rng, (), x.dtype.name)
    arguments = [x, pads.astype(np.int64), value, None if axes is None else i64(*axes)]
    return Single(op, arguments, {"mode": mode}, opset=version, constants=computed(rng, 4))


def reshape(op: str, rng: Rng) -> Single:
    x = any_tensor(rng, shape(rng))
    sizes = list(rng.permutation(np.array(x.shape, np.int64)))
    if sizes and chance(rng, 0.3):
        sizes = [int(np.prod(sizes)), *([1] * int(rng.integers(3)))]
    if sizes and x.size and chance(rng):
        sizes[int(rng.integers(len(sizes)))] = -1
    if chance(rng, 0.2) and x.shape and sizes:
        sizes[0] = 0
    version = opset(rng)
    attributes = {"allowzero": int(chance(rng))} if version >= 14 and chance(rng, 0.3) else {}
    return Single(op, [x, i64(*sizes)], attributes, opset=version, constants=computed(rng, 2))


def resize(op: str, rng: Rng) -> Single:
    version = opset(rng)
    x = numbers(rng, shape(rng, 1, 4, high=7), pick(rng, ("float32", "float32", "uint8", "int8", "int32")))
    scales = pick(rng, (rng.uniform(0.3, 3, x.ndim), rng.integers(1, 4, x.ndim), np.full(x.ndim, 2.0))).astype(F)
    if version < 11:
        return Single(op, [x, scales], {"mode": "nearest"}, opset=version, constants=computed(rng, 2))
    attributes: dict[str, Any] = {"mode": "nearest"}
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"] + (["half_pixel_symmetric"] if version >= 19 else [])  # fmt: skip
    if chance(rng, 0.8):
        attributes["coordinate_transformation_mode"] = pick(rng, modes)
    if chance(rng, 0.8):
        attributes["nearest_mode"] = pick(rng, ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"))
    axes = None
    if version >= 18 and chance(rng):
        axes = axes_of(rng, x.ndim, least=1)
        attributes["axes"] = axes
    picked = range(x.ndim) if axes is None else axes
    # By scales that do not divide the size, halves fall either way: see DIFFERENCES.
    symmetric = attributes.get("coordinate_transformation_mode") == "half_pixel_symmetric"
    if symmetric or chance(rng):
        sizes = i64(*(max(1, int(x.shape[axis] * scales[axis])) for axis in picked))
        if version >= 18 and not symmetric and chance(rng):
            attributes["keep_aspect_ratio_policy"] = pick(rng, ("stretch", "not_larger", "not_smaller"))
        return Single(op, [x, None, None, sizes] if version > 11 else [x, np.zeros(0, F), np.zeros(0, F), sizes], attributes, opset=version, constants={1, 2} | computed(rng, 4))  # fmt: skip
    return Single(op, [x, None if version > 11 else np.zeros(0, F), scales[list(picked)]], attributes, opset=version, constants={1} | computed(rng, 3))  # fmt: skip


def slice_(op: str, rng: Rng) -> Single:
    x = any_tensor(rng, shape(rng, 1, 4))
    axes = axes_of(rng, x.ndim, least=1)
    far = (-(2**31), 2**31 - 1, -(2**63), 2**63 - 1)
    starts, ends = ([int(pick(rng, far)) if chance(rng, 0.1) else int(rng.integers(-7, 8)) for _ in axes] for _ in range(2))  # fmt: skip
    arguments = [x, i64(*starts), i64(*ends)]
    if chance(rng, 0.8):
        arguments.append(i64(*axes))
        if chance(rng):
            arguments.append(i64(*(int(pick(rng, (-3, -2, -1, 1, 2, 3))) for _ in axes)))
    return Single(op, arguments, opset=opset(rng), constants=computed(rng, len(arguments)))


def split(op: str, rng: Rng) -> Single:
    version = opset(rng)
    whole = shape(rng, 1, 3)
    axis = int(rng.integers(len(whole)))
    count = int(rng.integers(1, 4))
    sizes = [int(v) for v in rng.integers(0, 4, count)]
    attributes: dict[str, Any] = {"axis": axis}
    x = any_tensor(rng, (*whole[:axis], sum(sizes), *whole[axis + 1 :]))
    arguments: list[Any] = [x]
    if version < 13:
        attributes["split"] = sizes
    elif version >= 18 and chance(rng, 0.3):
        attributes["num_outputs"] = count
    else:
        arguments.append(i64(*sizes))
    return Single(op, arguments, attributes, opset=version, outputs=count, constants=computed(rng, 2))


def squeeze(op: str, rng: Rng) -> Single:
    version = opset(rng)
    ones = [1 if chance(rng, 0.4) else size for size in shape(rng)]
    x = any_tensor(rng, tuple(ones))
    places = [axis for axis, size in enumerate(ones) if size == 1]
    axes = [axis - (len(ones) if chance(rng) and version > 10 else 0) for axis in places if chance(rng, 0.7)]
    if op == "Unsqueeze":
        rank = x.ndim + int(rng.integers(1, 3))
        axes = rng.choice(rank, rank - x.ndim, replace=False).tolist()
    elif chance(rng, 0.2):
        return Single(op, [x], opset=version)
    if version < 13:
        return Single(op, [x], {"axes": axes} if axes else {}, opset=version)
    return Single(op, [x, i64(*axes)], opset=version, constants=computed(rng, 2))


# Codes


def scale(rng: Rng, size: Shape = ()) -> np.ndarray:
    return (2.0 ** rng.uniform(-8, 2, size)).astype(F)


def zero_point(rng: Rng, dtype: str, size: Shape = ()) -> np.ndarray:
    return integers(rng, size, dtype) if chance(rng, 0.8) else np.zeros(size, dtype)


def weights(rng: Rng, size: Shape, x: str, w: str) -> np.ndarray:
    """Codes that no instruction set saturates on the way: uint8 by int8 without VNNI takes 7 bits."""
    return om.codes(rng, size, w, bits=om.weight_bits(x, w))


def quantize_linear(op: str, rng: Rng) -> Single:
    x = floats(rng, shape(rng, 1, 4, empty=0), special=SPECIAL)
    version = opset(rng, 13)
    dtype = pick(rng, CODES if version < 21 else (*CODES, "int16", "uint16"))
    if chance(rng, 0.7) or x.ndim < 2:
        return Single(op, [x, scale(rng), *([zero_point(rng, dtype)] if chance(rng, 0.8) else [])], opset=version, constants=computed(rng, 3))  # fmt: skip
    axis = int(rng.integers(x.ndim))
    size = (x.shape[axis],)
    return Single(op, [x, scale(rng, size), zero_point(rng, dtype, size)], {"axis": axis}, opset=version, constants=computed(rng, 3))  # fmt: skip


def dequantize_linear(op: str, rng: Rng) -> Single:
    version = opset(rng, 13)
    dtype = pick(rng, (*CODES, "int32") if version < 21 else (*CODES, "int16", "uint16", "int32"))
    x = integers(rng, shape(rng, 1, 4, empty=0), dtype)
    none = dtype == "int32"
    if chance(rng, 0.7) or x.ndim < 2:
        zero = [] if none or chance(rng, 0.2) else [zero_point(rng, dtype)]
        return Single(op, [x, scale(rng), *zero], opset=version, constants=computed(rng, 3))
    axis = int(rng.integers(x.ndim))
    size = (x.shape[axis],)
    return Single(op, [x, scale(rng, size), np.zeros(size, dtype) if none else zero_point(rng, dtype, size)], {"axis": axis}, opset=version, constants=computed(rng, 3))  # fmt: skip


def qlinear_binary(op: str, rng: Rng) -> Single:
    dtype = pick(rng, CODES)
    a, b = (integers(rng, size, dtype) for size in broadcasting(rng, 2))
    pairs = [value for _ in range(3) for value in (scale(rng), zero_point(rng, dtype))]
    arguments = [a, *pairs[:2], b, *pairs[2:]]
    return Single(f"com.microsoft.{op}", arguments, opset=opset(rng), constants={1, 2, 4, 5, 6, 7} | ({3} if chance(rng) else set()))  # fmt: skip


def qlinear_unary(op: str, rng: Rng) -> Single:
    dtype = pick(rng, CODES)
    attributes: dict[str, Any] = {"alpha": float(rng.uniform(0, 1))} if op == "QLinearLeakyRelu" and chance(rng) else {}
    x = integers(rng, shape(rng, 1, 3), dtype)
    return Single(f"com.microsoft.{op}", [x, scale(rng), zero_point(rng, dtype), scale(rng), zero_point(rng, dtype)], attributes, constants={1, 2, 3, 4}, opset=opset(rng))  # fmt: skip


def qlinear_softmax(op: str, rng: Rng) -> Single:
    dtype = pick(rng, CODES)
    x = integers(rng, shape(rng, 1, 3, high=12, empty=0), dtype)
    attributes = {"axis": int(rng.integers(-x.ndim, x.ndim)), "opset": int(pick(rng, (12, 13)))}
    return Single(f"com.microsoft.{op}", [x, scale(rng), zero_point(rng, dtype), F(1 / 256), np.array(0 if dtype == "uint8" else -128, dtype)], attributes, constants={1, 2, 3, 4}, opset=opset(rng))  # fmt: skip


def qlinear_concat(op: str, rng: Rng) -> Single:
    whole = shape(rng, 1, 4, empty=0)
    axis = int(rng.integers(len(whole)))
    dtype = pick(rng, CODES)
    arguments: list[Any] = [scale(rng), zero_point(rng, dtype)]
    constants = {0, 1}
    for _ in range(int(rng.integers(1, 4))):
        constants |= {len(arguments) + 1, len(arguments) + 2}
        part = (*whole[:axis], int(rng.integers(1, 4)), *whole[axis + 1 :])
        arguments += [integers(rng, part, dtype), scale(rng), zero_point(rng, dtype)]
    return Single(f"com.microsoft.{op}", arguments, {"axis": axis}, constants=constants, opset=opset(rng))


def qlinear_where(op: str, rng: Rng) -> Single:
    dtype = pick(rng, CODES)
    c, a, b = broadcasting(rng, 3)
    pairs = [value for _ in range(3) for value in (scale(rng), zero_point(rng, dtype))]
    arguments = [numbers(rng, c, "bool"), integers(rng, a, dtype), *pairs[:2], integers(rng, b, dtype), *pairs[2:]]
    return Single(f"com.microsoft.{op}", arguments, constants={2, 3, 5, 6, 7, 8}, opset=opset(rng))


def qlinear_pool(op: str, rng: Rng) -> Single:
    rank = conv_rank(rng)
    size, kernel = image(rng, rank, {1: 20, 2: 9, 3: 6}[rank]), image(rng, rank, 3)
    # ONNX Runtime dies (SIGFPE) of a kernel that is larger than the image.
    kernel = tuple(min(k, s) for k, s in zip(kernel, size, strict=True))
    last = int(chance(rng, 0.4))
    attributes: dict[str, Any] = {"channels_last": last}
    if op == "QLinearAveragePool":
        attributes |= {"kernel_shape": kernel, **window(rng, kernel, size, pool=True, dilated=False)}
        for name in ("ceil_mode", "count_include_pad"):
            if chance(rng, 0.4):
                attributes[name] = int(chance(rng))
    batch, channels = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    dtype = pick(rng, CODES)
    x = integers(rng, (batch, *size, channels) if last else (batch, channels, *size), dtype)
    sx = scale(rng)
    arguments = [x, sx, zero_point(rng, dtype), F(sx * rng.uniform(0.3, 3)), zero_point(rng, dtype)]
    return Single(f"com.microsoft.{op}", arguments, attributes, constants={1, 2, 3, 4}, opset=opset(rng))


# The array


def qlinear_conv(op: str, rng: Rng) -> Single:
    ours = op.startswith("com.microsoft")
    xt, wt = pick(rng, CODES), pick(rng, CODES)
    x, w, groups = conv_operands(rng, conv_rank(rng))
    attributes = {"group": groups, **window(rng, w[2:], x[2:])}
    if ours:
        xt = wt if chance(rng, 0.9) else xt
        if chance(rng, 0.5):
            attributes["channels_last"] = 1
            x = (x[0], *x[2:], x[1])
    channels = (w[0],) if chance(rng) else ()
    zw = zero_point(rng, wt, channels) if chance(rng, 0.5) else np.zeros(channels, wt)
    if channels and chance(rng, 0.8):
        zw[...] = zw.reshape(-1)[0]
    arguments = [integers(rng, x, xt), scale(rng), zero_point(rng, xt), weights(rng, w, xt, wt), scale(rng, channels), zw, F(2.0 ** rng.uniform(2, 8)), zero_point(rng, xt)]  # fmt: skip
    if chance(rng):
        arguments.append(rng.integers(-3000, 3000, w[0], dtype=np.int32))
    constants = set(range(1, 9)) if chance(rng, 0.7) else computed(rng, 9)
    return Single(op, arguments, attributes, constants=constants, opset=opset(rng))


def conv_integer(op: str, rng: Rng) -> Single:
    xt, wt = pick(rng, CODES), pick(rng, CODES)
    x, w, groups = conv_operands(rng, conv_rank(rng))
    arguments: list[Any] = [integers(rng, x, xt), weights(rng, w, xt, wt)]
    if chance(rng, 0.7):
        arguments.append(zero_point(rng, xt))
        if chance(rng, 0.5):
            arguments.append(zero_point(rng, wt))
    return Single(op, arguments, {"group": groups, **window(rng, w[2:], x[2:])}, constants=computed(rng, 4), opset=opset(rng))  # fmt: skip


def matrices(rng: Rng, xt: str, wt: str) -> tuple[np.ndarray, np.ndarray]:
    m, k, n = (int(v) for v in rng.integers(1, 12, 3))
    stacks = broadcasting(rng, 2) if chance(rng, 0.4) else [(), ()]
    return integers(rng, (*stacks[0][-2:], m, k), xt), weights(rng, (*stacks[1][-2:], k, n), xt, wt)


def qlinear_matmul(op: str, rng: Rng) -> Single:
    xt, wt = pick(rng, CODES), pick(rng, CODES)
    x, w = matrices(rng, xt, wt)
    columns = (w.shape[-1],) if chance(rng) and w.ndim == 2 else ()
    arguments = [x, scale(rng), zero_point(rng, xt), w, scale(rng, columns), zero_point(rng, wt, columns), F(2.0 ** rng.uniform(2, 8)), zero_point(rng, xt)]  # fmt: skip
    constants = set(range(1, 8)) if chance(rng, 0.7) else computed(rng, 8)
    return Single(op, arguments, constants=constants, opset=opset(rng))


def matmul_integer(op: str, rng: Rng) -> Single:
    xt, wt = pick(rng, CODES), pick(rng, CODES)
    x, w = matrices(rng, xt, wt)
    arguments: list[Any] = [x, w]
    if chance(rng, 0.7):
        arguments.append(zero_point(rng, xt))
        if chance(rng, 0.7):
            arguments.append(zero_point(rng, wt, (w.shape[-1],) if chance(rng) and w.ndim == 2 else ()))
    return Single(op, arguments, constants=computed(rng, 4), opset=opset(rng))


def matmul_integer_to_float(op: str, rng: Rng) -> Single:
    xt, wt = "uint8", pick(rng, CODES)
    x, w = matrices(rng, xt, wt)
    columns = (w.shape[-1],) if chance(rng) and w.ndim == 2 else ()
    arguments: list[Any] = [x, w, scale(rng), scale(rng, columns)]
    if chance(rng, 0.7):
        arguments.append(zero_point(rng, xt))
        if chance(rng, 0.7):
            arguments.append(zero_point(rng, wt, columns))
            if chance(rng):
                arguments.append(floats(rng, (w.shape[-1],), special=()))
    terms = 255 * 255 * x.shape[-1] * float(arguments[2]) * float(np.max(arguments[3]))
    return Single("com.microsoft.MatMulIntegerToFloat", arguments, constants=computed(rng, 7), opset=opset(rng), near=3e-7, scale=max(1.0, terms))  # fmt: skip


def dynamic_quantize_matmul(op: str, rng: Rng) -> Single:
    wt = pick(rng, CODES)
    x, w = matrices(rng, "uint8", wt)
    columns = (w.shape[-1],) if chance(rng) and w.ndim == 2 else ()
    real = floats(rng, x.shape, special=())
    arguments: list[Any] = [real, w, scale(rng, columns)]
    if chance(rng, 0.7):
        arguments.append(zero_point(rng, wt, columns))
        if chance(rng):
            arguments.append(floats(rng, (w.shape[-1],), special=()))
    terms = float(np.abs(real).max(initial=0)) * 255 * x.shape[-1] * float(np.max(arguments[2])) * 2
    return Single("com.microsoft.DynamicQuantizeMatMul", arguments, constants=computed(rng, 5), opset=opset(rng), near=3e-7, scale=max(1.0, terms))  # fmt: skip


def dynamic_quantize_linear(op: str, rng: Rng) -> Single:
    return Single(op, [floats(rng, shape(rng, 1, 3, empty=0), special=())], opset=opset(rng, 11), outputs=3)


def qgemm(op: str, rng: Rng) -> Single:
    xt = pick(rng, CODES)
    wt = pick(rng, CODES) if xt == "uint8" else "int8"
    m, k, n = (int(v) for v in rng.integers(1, 12, 3))
    ta, tb = (int(chance(rng, 0.3)) for _ in range(2))
    columns = (n,) if chance(rng) else ()
    zw = np.full(columns, zero_point(rng, wt))
    bias = rng.integers(-3000, 3000, pick(rng, ((n,), (1, n), (m, n))), dtype=np.int32) if chance(rng) else None
    arguments: list[Any] = [integers(rng, (k, m) if ta else (m, k), xt), scale(rng), zero_point(rng, xt), weights(rng, (n, k) if tb else (k, n), xt, wt), scale(rng, columns), zw, bias]  # fmt: skip
    real = chance(rng, 0.3)
    if not real:
        arguments += [F(2.0 ** rng.uniform(2, 8)), zero_point(rng, xt)]
    terms = 255.0 * 255 * k * float(arguments[1]) * float(np.max(arguments[4])) * 2
    attributes = {"transA": ta, "transB": tb, **({"alpha": float(rng.uniform(0.2, 2))} if chance(rng, 0.3) else {})}
    constants = set(range(1, 9)) if chance(rng, 0.7) else computed(rng, 9)
    return Single("com.microsoft.QGemm", arguments, attributes, constants=constants, opset=opset(rng), near=3e-7 if real else 0.0, scale=max(1.0, terms))  # fmt: skip


UNARY = ("Abs", "Ceil", "Erf", "Exp", "Floor", "Gelu", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sqrt", "Tanh")  # fmt: skip
BINARY = ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mul", "Or", "Pow", "Sub", "Xor")  # fmt: skip
REDUCE = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")

MAKERS: dict[tuple[str, str], Maker] = {
    **{("", op): unary for op in UNARY},
    **{("", op): binary for op in BINARY},
    **{("", op): many for op in ("Max", "Min")},
    **{("", op): reduce for op in REDUCE},
    **{("", op): plain_shape for op in ("Flatten", "Identity", "Shape", "Transpose")},
    **{("", op): pool for op in ("AveragePool", "MaxPool")},
    **{("", op): squeeze for op in ("Squeeze", "Unsqueeze")},
    ("", "ArgMax"): arg_max,
    ("", "BatchNormalization"): batch_normalization,
    ("", "Cast"): cast,
    ("", "Clip"): clip,
    ("", "Concat"): concat,
    ("", "ConstantOfShape"): fill,
    ("", "Conv"): conv,
    ("", "ConvInteger"): conv_integer,
    ("", "ConvTranspose"): conv_transpose,
    ("", "DequantizeLinear"): dequantize_linear,
    ("", "DynamicQuantizeLinear"): dynamic_quantize_linear,
    ("", "Expand"): expand,
    ("", "Gather"): gather,
    ("", "Gemm"): gemm,
    ("", "GlobalAveragePool"): global_average_pool,
    ("", "LayerNormalization"): layer_normalization,
    ("", "MatMul"): matmul,
    ("", "MatMulInteger"): matmul_integer,
    ("", "Pad"): pad,
    ("", "QLinearConv"): qlinear_conv,
    ("", "QLinearMatMul"): qlinear_matmul,
    ("", "QuantizeLinear"): quantize_linear,
    ("", "Reshape"): reshape,
    ("", "Resize"): resize,
    ("", "Slice"): slice_,
    ("", "Softmax"): softmax,
    ("", "Split"): split,
    ("", "Where"): where,
    **{("com.microsoft", op): qlinear_binary for op in ("QLinearAdd", "QLinearMul")},
    **{("com.microsoft", op): qlinear_unary for op in ("QLinearLeakyRelu", "QLinearSigmoid")},
    **{("com.microsoft", op): qlinear_pool for op in ("QLinearAveragePool", "QLinearGlobalAveragePool")},
    ("com.microsoft", "DequantizeLinear"): lambda op, rng: dequantize_linear(f"com.microsoft.{op}", rng),
    ("com.microsoft", "DynamicQuantizeMatMul"): dynamic_quantize_matmul,
    ("com.microsoft", "MatMulIntegerToFloat"): matmul_integer_to_float,
    ("com.microsoft", "QGemm"): qgemm,
    ("com.microsoft", "QLinearConcat"): qlinear_concat,
    ("com.microsoft", "QLinearConv"): lambda op, rng: qlinear_conv(f"com.microsoft.{op}", rng),
    ("com.microsoft", "QLinearSoftmax"): qlinear_softmax,
    ("com.microsoft", "QLinearWhere"): qlinear_where,
    ("com.microsoft", "QuantizeLinear"): lambda op, rng: quantize_linear(f"com.microsoft.{op}", rng),
}
"""A generator for each (domain, operator) of the converters' tables; Constant has nothing to draw."""


def draw(key: tuple[str, str], rng: Rng) -> Single:
    """Return a random graph of an operator."""
    return MAKERS[key](key[1], rng)
