"""Random models of every kind of layer that ``save_onnx`` writes, spelled as ONNX spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from systolic import Model, Node, QuantParams, layers

F = np.float32
CODES = ("int8", "uint8")
ODD = (
    "x", "y", "t0", "t1", "x/low", "x/1", "y.weight", "y.x_scale", "t0.axes", "t0.numbers", "t0.guard", "x.zero0",
    "a b", "Ж", "None", "1", ".", "/", "a\nb", "c.2", "n", "n.2", "model", "sub.in", "sub.out", "'", "\\", "x:0",
)  # fmt: skip
"""Names of tensors and nodes: like those that writers, readers and subgraphs make, and unlike any."""

Shape = tuple[int, ...]


class Unfit(Exception):
    """No tensor fits what was drawn."""


class Grown:
    """A model that grows layer by layer, with data for its inputs."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[Node] = []
        self.inputs: dict[str, tuple[Shape, str]] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.feeds: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[Shape, str]] = {}
        self.odd = self.flip(0.5)
        self.exact = self.flip(0.5)  # scales are powers of two: no sum of floats is rounded
        self._count = 0

    def flip(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.rng.integers(len(items))]

    def size(self, most: int = 4, least: int = 1) -> int:
        return int(self.rng.integers(least, most + 1))

    def name(self) -> str:
        known = {*self.inputs, *self.constants, *(t for node in self.nodes for t in node.outputs)}
        if self.odd:
            free = [name for name in ODD if name not in known]
            if free:
                return self.pick(free)
        self._count += 1
        return f"tensor{self._count}"

    def data(self, shape: Shape, dtype: str) -> np.ndarray:
        if dtype in ("float32", "float64", "float16"):
            return (self.rng.integers(-300, 300, shape) / 64).astype(dtype)
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        least, most = {"int8": (-64, 64), "uint8": (0, 128)}.get(dtype, (0, 100))
        return self.rng.integers(least, most, shape).astype(dtype)

    def given(self, array: Any, constant: bool | None = None) -> str:
        """Add a tensor of these values, an input or a constant."""
        array, name = np.asarray(array), self.name()
        if self.flip() if constant is None else constant:
            self.constants[name] = array
        else:
            self.inputs[name] = (array.shape, array.dtype.name)
            self.feeds[name] = array
        self.shapes[name] = (array.shape, array.dtype.name)
        return name

    def tensor(self, dtypes: Sequence[str], ranks: Sequence[int], shape: Shape | None = None) -> str:
        """Return a tensor of one of these types and ranks, mostly one that is there."""
        fits = [
            name
            for name, (of, dtype) in self.shapes.items()
            if dtype in dtypes and len(of) in ranks and of and min(of) and (shape is None or of == shape)
        ]
        if fits and self.flip(0.8):
            return self.pick(fits[-3:])
        rank = self.pick(ranks)
        new = shape if shape is not None else tuple(self.size(5, 2) for _ in range(rank))
        return self.given(self.data(new, self.pick(dtypes)), constant=self.flip(0.15))

    def shape(self, tensor: str) -> Shape:
        return self.shapes[tensor][0]

    def dtype(self, tensor: str) -> str:
        return self.shapes[tensor][1]

    def scale(self) -> float:
        return float(F(self.pick([0.25, 0.5, 1, 2] if self.exact else [0.25, 0.1, 0.037, 1])))

    def params(self, dtype: str, channels: int = 0, axis: int = 0) -> QuantParams:
        def zero() -> int:
            return int(self.rng.integers(-20, 20)) + (128 if dtype == "uint8" else 0) if dtype != "int32" else 0

        if channels < 2 or self.flip():
            return QuantParams(self.scale(), zero(), dtype)
        scales = [self.scale() for _ in range(channels)]
        return QuantParams(scales, [zero() for _ in scales], dtype, axis=axis)

    def add(self, layer: Any, inputs: Sequence[str], outputs: int = 1) -> None:
        """Put a layer behind those that are there, if it takes what it is to read."""
        names = []
        for _ in range(outputs):
            name = self.name()
            while name in names:
                name = f"{name}'"
            names.append(name)
        if outputs > 1 and self.flip(0.2):
            names[self.rng.integers(outputs)] = ""
        label = self.pick(["", "", "n", "n.2", *ODD]) if self.odd else ""
        node = Node(layer, inputs, names, label)
        inputs = self.inputs or {"no input yet": ((), "float32")}
        model = Model([*self.nodes, node], inputs=inputs, constants=self.constants, outputs=[node.output])
        known = model.infer_shapes(model.input_shapes())
        self.nodes.append(node)
        for name in filter(None, names):
            shape, dtype = known[name]
            if shape is not None:
                self.shapes[name] = (shape, dtype)

    def finish(self) -> tuple[Model, dict[str, np.ndarray]]:
        """Return the model, perhaps of an open batch, and what to feed it."""
        if not self.inputs:
            self.given(self.data((2, 3), "float32"), constant=False)
        rng = self.rng
        written = [name for node in self.nodes for name in node.outputs if name]
        read = {name for node in self.nodes for name in node.inputs}
        outputs = [name for name in written if name not in read or self.flip(0.2)]
        if self.flip(0.2):
            outputs.append(self.pick([*self.inputs]))
        if self.constants and self.flip(0.2):
            outputs.append(self.pick([*self.constants]))
        if self.flip(0.2):
            self.given(self.data((2,), self.pick(["float32", "int64", "int8"])), constant=True)
        rng.shuffle(outputs)
        model = self.model(outputs, {})
        for name, (shape, _) in self.inputs.items():
            if shape and self.flip(0.3):
                opened = {name: (None, *shape[1:])}
                try:
                    made = self.model(outputs, opened)
                    made.infer_shapes({n: (1, *s[1:]) if n == name else s for n, (s, _) in self.inputs.items()})
                    made.infer_shapes({n: (2, *s[1:]) if n == name else s for n, (s, _) in self.inputs.items()})
                except ValueError:
                    continue
                return made, self.feeds
        return model, self.feeds

    def model(self, outputs: Sequence[str], opened: dict[str, Any]) -> Model:
        inputs = {n: (opened.get(n, shape), dtype) for n, (shape, dtype) in self.inputs.items()}
        name = "net" if not self.odd else self.pick(["", "net", "Ж b"])
        return Model(self.nodes, inputs=inputs, outputs=outputs, constants=self.constants, name=name)


def window(g: Grown, rank: int, *, auto: bool = True, ceil: bool = False) -> dict[str, Any]:
    """Stride and padding of a window over so many axes.

    None where sizes are rounded up: onnx's shape inference counts a last window that begins in the padding.
    """
    if ceil:
        return {"stride": tuple(g.size(2) for _ in range(rank)), "padding": ((0, 0),) * rank}
    padding: Any = tuple((g.size(1, 0), g.size(1, 0)) for _ in range(rank))
    if auto and g.flip(0.3):
        padding = g.pick(["same", "same_lower", "valid"])
    return {"stride": tuple(g.size(2) for _ in range(rank)), "padding": padding}


def quantize(g: Grown) -> None:
    x = g.tensor(["float32"], [1, 2, 3, 4])
    axis = g.size(len(g.shape(x)) - 1, -len(g.shape(x)))
    g.add(layers.QuantizeLinear(g.params(g.pick(CODES), g.shape(x)[axis], axis)), [x])


def dequantize(g: Grown) -> None:
    x = g.tensor(["int8", "uint8", "int32"], [1, 2, 3, 4])
    axis = g.size(len(g.shape(x)) - 1, -len(g.shape(x)))
    g.add(layers.DequantizeLinear(g.params(g.dtype(x), g.shape(x)[axis], axis)), [x])


def quantize_by_tensors(g: Grown) -> None:
    x = g.tensor(["float32"], [1, 2])
    dtype = g.pick(["int8", "uint8", "int16", "uint16"])
    zero = [g.given(np.array(3, dtype))] if g.flip() else []
    g.add(layers.QuantizeLinear(dtype=dtype, axis=0), [x, g.given(F(0.25)), *zero])


def dequantize_by_tensors(g: Grown) -> None:
    x = g.tensor(["int8", "uint8", "int16", "uint16"], [1, 2])
    zero = [g.given(np.array(3, g.dtype(x)))] if g.flip() else []
    g.add(layers.DequantizeLinear(axis=0), [x, g.given(F(0.25)), *zero])


def dense(g: Grown) -> None:
    plain = g.flip(0.3)
    x = g.tensor(CODES, [1, 2, 3] if plain else [2])
    k, n, dtype = g.shape(x)[-1], g.size(4), g.dtype(x)
    y = g.params(dtype) if plain or g.flip() else None
    bias = g.rng.integers(-500, 500, n, dtype=np.int32) if not plain and g.flip() else None
    g.add(
        layers.Dense(g.data((k, n), dtype), x=g.params(dtype), w=g.params(dtype, n, 1), y=y, bias=bias), [x]
    )


def convolution(g: Grown) -> None:
    rank = g.pick([1, 2, 2, 3])
    x = g.tensor(CODES, [rank + 2])
    last = g.flip(0.2)
    ic, dtype = g.shape(x)[-1 if last else 1], g.dtype(x)
    groups = g.pick([1, 1, ic])
    oc = groups * g.size(2)
    bias = g.rng.integers(-500, 500, oc, dtype=np.int32) if g.flip() else None
    weight = g.data((oc, ic // groups, *(g.size(2) for _ in range(rank))), dtype)
    g.add(
        layers.QLinearConv(
            weight, x=g.params(dtype), w=g.params(dtype, oc), y=g.params(dtype), bias=bias,
            dilation=(1,) * rank, **window(g, rank), groups=groups, channels_last=last,
        ),
        [x],
    )  # fmt: skip


def product(g: Grown) -> None:
    y = g.flip(0.7)
    a = g.tensor(CODES, [2, 3] if y else [2])
    dtype, k = g.dtype(a), g.shape(a)[-1]
    b = g.tensor([dtype], [2], (k, 3))
    g.add(layers.QLinearMatMul(x=g.params(dtype), w=g.params(dtype), y=g.params(dtype) if y else None), [a, b])


def product_of_integers(g: Grown) -> None:
    a = g.tensor(CODES, [2, 3])
    b = g.given(g.data((g.shape(a)[-1], 3), g.pick(CODES)))
    zeros = [g.given(np.array(3, g.dtype(a))), g.given(np.array(5, g.dtype(b)))][: g.size(2, 0)]
    g.add(layers.MatMulInteger(), [a, b, *zeros])


def product_to_float(g: Grown) -> None:
    a = g.tensor(CODES, [2])
    b = g.given(g.data((g.shape(a)[-1], 3), g.dtype(a)))
    scales = [g.given(F(0.5)), g.given(F(0.25))]
    zeros = [g.given(np.array(3, g.dtype(a))), g.given(np.array(5, g.dtype(b)))]
    bias = [g.given(g.data((3,), "float32"))] if g.flip() else []
    g.add(layers.MatMulIntegerToFloat(), [a, b, *scales, *zeros, *bias])


def product_by_tensors(g: Grown) -> None:
    a = g.tensor(CODES, [2])
    dtype = g.dtype(a)
    b = g.given(g.data((g.shape(a)[-1], 3), dtype))

    def params() -> list[str]:
        return [g.given(F(g.scale())), g.given(np.array(3, dtype))]

    read = [a, *params(), b, *params()]
    kind = g.size(2, 0)
    if kind == 0:
        g.add(layers.QLinearMatMul(), [*read, *params()])
    elif kind == 1:
        g.add(layers.QLinearMatMul(alpha=0.5), [*read, *params()])
    else:
        g.add(layers.QLinearMatMul(), [*read, *params(), g.given(np.int32([1, 2, 3]))])


def convolution_by_tensors(g: Grown) -> None:
    rank = g.pick([1, 2])
    x = g.tensor(CODES, [rank + 2])
    dtype = g.dtype(x)
    w = g.given(g.data((3, g.shape(x)[1], *(2,) * rank), dtype))
    options = {"dilation": (1,) * rank, **window(g, rank, auto=False)}
    if g.flip():
        g.add(layers.ConvInteger(**options), [x, w, g.given(np.array(3, dtype)), g.given(np.array(4, dtype))])
        return

    def params() -> list[str]:
        return [g.given(F(g.scale())), g.given(np.array(3, dtype))]

    bias = [g.given(np.int32([1, 2, 3]))] if g.flip() else []
    g.add(layers.QLinearConv(**options), [x, *params(), w, *params(), *params(), *bias])


def dynamic(g: Grown) -> None:
    g.add(layers.DynamicQuantize(), [g.tensor(["float32"], [1, 2, 3, 4])], 3)


def two(g: Grown) -> None:
    """Two tensors of codes."""
    a = g.tensor(CODES, [1, 2, 3, 4])
    dtype = g.dtype(a)
    b = g.tensor([dtype], [len(g.shape(a))], g.shape(a))
    kind = g.pick(["QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearWhere"])
    of = [g.params(dtype) for _ in range(3)]
    if kind == "QLinearConcat":
        g.add(layers.QLinearConcat(tuple(of[:2]), of[2], axis=g.size(0, -1)), [a, b])
    elif kind == "QLinearWhere":
        g.add(layers.QLinearWhere(*of), [g.given(g.data(g.shape(a), "bool")), a, b])
    else:
        g.add(getattr(layers, kind)(*of), [a, b])


def one(g: Grown) -> None:
    """A tensor of codes."""
    x = g.tensor(CODES, [2, 3, 4])
    x_, y = g.params(g.dtype(x)), g.params(g.dtype(x))
    axis = g.size(len(g.shape(x)) - 1, 0)
    g.add(
        g.pick([
            layers.QLinearSigmoid(x_, y), layers.QLinearLeakyRelu(x_, y, alpha=0.25),
            layers.QLinearSoftmax(x_, y, axis=axis, flatten=g.flip()),
        ]),
        [x],
    )  # fmt: skip


def pool_of_codes(g: Grown) -> None:
    rank = g.pick([1, 2, 3])
    x = g.tensor(CODES, [rank + 2])
    of = g.params(g.dtype(x)), g.params(g.dtype(x))
    last = g.flip(0.3)
    if g.flip(0.3):
        g.add(layers.QLinearGlobalAveragePool(*of, channels_last=last), [x])
        return
    ceil = g.flip(0.3)
    options = {**window(g, rank, ceil=ceil), "count_include_pad": g.flip(), "ceil_mode": ceil}
    g.add(layers.QLinearAveragePool((2,) * rank, *of, channels_last=last, **options), [x])


def pool(g: Grown) -> None:
    rank = g.pick([1, 2, 2, 3])
    x = g.tensor(["float32", "int8", "uint8"], [rank + 2])
    ceil = g.flip(0.3)
    options = {**window(g, rank, ceil=ceil), "dilation": (1,) * rank, "ceil_mode": ceil}
    kind = g.size(3, 0)
    if kind == 0:
        g.add(layers.MaxPool((2,) * rank, indices=g.pick(["row", "column"]), **options), [x], 2)
    elif kind == 1 and g.dtype(x) == "float32":
        g.add(layers.AveragePool((2,) * rank, count_include_pad=g.flip(), **options), [x])
    elif kind == 2 and g.dtype(x) == "float32":
        g.add(layers.GlobalAveragePool(), [x])
    else:
        g.add(layers.MaxPool((2,) * rank, **options), [x])


def numbers(g: Grown) -> None:
    x = g.tensor(["float32"], [1, 2, 3, 4])
    kind = g.size(7, 0)
    shape = g.shape(x)
    axis = g.size(len(shape) - 1, -len(shape))
    if kind == 0:
        g.add(layers.Unary(g.pick(["Neg", "Abs", "Floor", "Tanh", "Erf", "Sigmoid", "Exp"])), [x])
    elif kind == 1:
        other = g.tensor(["float32"], [len(shape)], shape)
        g.add(layers.Binary(g.pick(["Sub", "Mul", "Max", "Min", "Less"])), [x, other])
    elif kind == 2:
        low, high = g.pick([(None, 2.5), (-1.0, None), (-1.0, 2.5), (0.0, 6.0)])
        g.add(layers.Clip(low, high), [x])
    elif kind == 3:
        g.add(layers.Softmax(axis), [x])
    elif kind == 4:
        g.add(layers.Reduce(g.pick(["ReduceMax", "ReduceSum", "ReduceMean"]), (axis,), keepdims=g.flip()), [x])
    elif kind == 5:
        scale = g.given(g.data(shape[-1:], "float32"))
        g.add(layers.LayerNormalization(-1, 0.5), [x, scale, g.given(g.data(shape[-1:], "float32"))], 3)
    elif kind == 6:
        g.add(layers.Relu(), [x])
    else:
        other = g.tensor(["float32"], [len(shape)], shape)
        g.add(layers.Binary("Add"), [x, other])


def float_product(g: Grown) -> None:
    a = g.tensor(["float32"], [2])
    b = g.tensor(["float32"], [2], (g.shape(a)[1], 3))
    if g.flip():
        g.add(layers.FloatMatMul(), [a, b])
    else:
        more = [g.given(g.data((3,), "float32"))] if g.flip() else []
        g.add(layers.FloatMatMul(alpha=0.5, beta=2.0 if more else 1.0), [a, b, *more])


def float_convolution(g: Grown) -> None:
    rank = g.pick([1, 2, 2, 3])
    x = g.tensor(["float32"], [rank + 2])
    ic, options = g.shape(x)[1], {"dilation": (1,) * rank, **window(g, rank, auto=False)}
    bias = [g.given(g.data((3,), "float32"))] if g.flip() else []
    if g.flip(0.7):
        w = g.tensor(["float32"], [rank + 2], (3, ic, *(2,) * rank))
        g.add(layers.FloatConv(**options), [x, w, *bias])
    else:
        w = g.given(g.data((ic, 3, *(2,) * rank), "float32"))
        g.add(layers.FloatConvTranspose(output_padding=(0,) * rank, **options), [x, w, *bias])


def group(g: Grown) -> None:
    """Float operators between Dequantize and Quantize, which a reader may take for one integer operator."""
    x = g.tensor(CODES, [2, 4])
    dtype = g.dtype(x)
    a, w = g.params(dtype), g.params(g.pick([dtype, "int8"]))
    g.add(layers.DequantizeLinear(a), [x])
    numbers_ = g.nodes[-1].output
    shape = g.shape(x)
    bias = []
    if g.flip():
        if g.flip():
            bias = [g.given(g.data((3,), "float32"), constant=True)]
        else:
            factor = g.pick([1, 1, 1.02, 3])
            codes = g.given(g.rng.integers(-500, 500, 3, dtype=np.int32), constant=True)
            g.add(layers.DequantizeLinear(QuantParams(float(F(a.scales * w.scales * factor)), 0, "int32")), [codes])
            bias = [g.nodes[-1].output]
    weights = (shape[1], 3) if len(shape) == 2 else (3, shape[1], 1, 1)
    if g.flip(0.8):
        weight = g.given(g.data(weights, w.dtype), constant=True)
        g.add(layers.DequantizeLinear(w), [weight])
        weight = g.nodes[-1].output
    else:
        weight = g.given(g.data(weights, "float32"), constant=True)
    kind = g.size(4, 0)
    if kind == 0:
        g.add(layers.Unary("Sigmoid"), [numbers_])
    elif kind == 1:
        g.add(layers.Binary("Add"), [numbers_, numbers_])
    elif kind == 2:
        g.add(layers.Transpose(tuple(range(len(shape)))[::-1]), [numbers_])
    elif len(shape) == 2:
        g.add(layers.FloatMatMul(), [numbers_, weight, *bias])
    else:
        options = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
        g.add(layers.FloatConv(**options), [numbers_, weight, *bias])
    if g.flip(0.3):
        g.add(layers.Relu(), [g.nodes[-1].output])
    if g.flip(0.9):
        g.add(layers.QuantizeLinear(g.params(dtype)), [g.nodes[-1].output])


def moves(g: Grown) -> None:
    """What moves numbers of any type."""
    x = g.tensor(["float32", "int8", "uint8", "int16", "int64", "float16", "bool"], [1, 2, 3, 4])
    shape = g.shape(x)
    rank = len(shape)
    axis = g.size(rank - 1, -rank)
    kind = g.size(13, 0)
    count = int(np.prod(shape))
    if kind == 0:
        g.add(layers.Transpose(tuple(int(a) for a in g.rng.permutation(rank))), [x])
    elif kind == 1:
        g.add(layers.Unsqueeze((0,)), [x])
    elif kind == 2:
        g.add(layers.Concat(axis), [x] * g.size(3))
    elif kind == 3:
        g.add(layers.Split((1, shape[axis] - 1), axis), [x], 2)
    elif kind == 4:
        g.add(layers.Gather(axis), [x, g.given(np.int64([0, -1]))])
    elif kind == 5:
        g.add(layers.Expand(), [x, g.given(np.int64([2, *shape]), constant=g.flip(0.8))])
    elif kind == 6:
        g.add(layers.Reshape((-1,) if g.flip() else (1, count)), [x])
    elif kind == 7:
        g.add(layers.Reshape(), [x, g.given(np.int64([-1, 1]), constant=g.flip(0.8))])
    elif kind == 8:
        g.add(layers.ShapeOf(), [x])
    elif kind == 9:
        g.add(layers.Flatten(g.size(rank, 0)), [x])
    elif kind == 10:
        g.add(layers.Identity(), [x])
    elif kind == 11:
        g.add(layers.Cast(g.pick(["float32", "int32", "int64", "float16"])), [x])
    elif kind == 12:
        read = [g.given(np.int64([value]), constant=g.flip(0.8)) for value in (0, 2, axis)]
        g.add(layers.Slice(), [x, *read])
    else:
        g.add(layers.Squeeze(), [x])


def others(g: Grown) -> None:
    x = g.tensor(["float32"], [2, 3, 4])
    shape = g.shape(x)
    kind = g.size(5, 0)
    if kind == 5:
        of = [g.given(np.abs(g.data(shape[1:2], "float32")) + F(0.5)) for _ in range(4)]
        g.add(layers.BatchNormalization(0.5), [x, *of])
    elif kind == 0:
        pads = g.given(np.int64([1] * len(shape) + [0] * len(shape)), constant=g.flip(0.8))
        g.add(layers.Pad(g.pick(["constant", "edge", "reflect"])), [x, pads])
    elif kind == 1:
        scales = g.given(F([1] * (len(shape) - 1) + [2]), constant=g.flip(0.8))
        g.add(layers.Resize("scales", coordinates="asymmetric", rounding="floor"), [x, scales])
    elif kind == 2:
        g.add(layers.Fill(np.int8([7])), [g.given(np.int64([2, 2]), constant=g.flip(0.8))])
    elif kind == 3:
        g.add(layers.ArgMax(0, keepdims=g.flip()), [x])
    else:
        g.add(layers.Where(), [g.given(g.data(shape, "bool")), x, g.tensor(["float32"], [len(shape)], shape)])


def evaluated(g: Grown) -> None:
    """A node that is evaluated, perhaps one with subgraphs."""
    from onnx import TensorProto, helper, numpy_helper

    x = g.tensor(["float32"], [2])
    output = g.name()
    opsets = (("", g.pick([17, 17, 17, 17, 21])),)
    label = g.pick(["", "n", "other"])
    if g.flip():
        axis = g.given(np.array(0, np.int64))
        proto, reads, types = helper.make_node("CumSum", [x, axis], [output]), (x, axis), ("float32", "int64")
    else:
        condition = g.given(np.array(True))
        inner = [
            helper.make_graph(
                [helper.make_node("Mul", [x, "sub.in"], ["sub.out"], name="n")], "branch", [],
                [helper.make_tensor_value_info("sub.out", TensorProto.FLOAT, None)],
                [numpy_helper.from_array(F(factor), "sub.in")],
            )
            for factor in (2, 3)
        ]  # fmt: skip
        proto = helper.make_node("If", [condition], [output], then_branch=inner[0], else_branch=inner[1])
        reads, types = (condition, x), ("bool", "float32")
    if {"sub.in", "sub.out"} & {*g.inputs, *g.constants, *g.shapes} and proto.op_type == "If":
        raise Unfit
    data = np.frombuffer(proto.SerializeToString(), np.uint8)
    layer = layers.OnnxNode(proto.op_type, data, reads, types, ("float32",), opsets)
    node = Node(layer, reads, (output,), label)
    Model([*g.nodes, node], inputs=g.inputs, constants=g.constants)
    g.nodes.append(node)
    if proto.op_type == "CumSum":
        g.shapes[output] = (g.shape(x), "float32")


STEPS: tuple[Callable[[Grown], None], ...] = (
    quantize, quantize, dequantize, dequantize, quantize_by_tensors, dequantize_by_tensors, dense, dense, convolution,
    convolution, product, product_of_integers, product_to_float, product_by_tensors, convolution_by_tensors, dynamic,
    two, two, one, pool_of_codes, pool, numbers, numbers, float_product, float_convolution, group, group, group, moves,
    moves, moves, others, evaluated,
)  # fmt: skip


def random_model(seed: int, most: int = 8) -> tuple[Model, dict[str, np.ndarray]]:
    """Return a model of a few layers, and what to feed it."""
    g = Grown(np.random.default_rng(seed))
    for _ in range(g.size(most)):
        try:
            g.pick(STEPS)(g)
        except (Unfit, ValueError, TypeError):
            continue  # it does not take what was drawn for it
    if not g.nodes:
        g.add(layers.Identity(), [g.given(g.data((2, 3), "float32"), constant=False)])
    return g.finish()
