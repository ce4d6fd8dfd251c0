"""Random networks of QDQ groups, drawn step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from support.onnx_models import F
from support.qdq_models import Net, Params

KINDS = ("conv", "conv", "add", "mul", "concat", "move", "pool", "pool", "mean", "dense", "table")
SCALES = (0.05, 0.1, 0.25, 0.02, 0.0371)
ZEROS = (0, 1, 64, 127, 128, 200, 255)


class Grower:
    """A network drawn step by step; every tensor is (2, 4, 6, 6) or smaller, of one activation type."""

    def __init__(self, choose: Callable[[Sequence[Any]], Any]) -> None:
        self.choose, self.net = choose, Net(choose((13, 17, 21)))
        self.dtype = choose(("int8", "uint8"))
        self.tensors: list[tuple[str, tuple[int, ...], Params | None]] = []
        params = self.params()
        shape = (2, choose(range(1, 5)), 6, 6)
        if choose((False, True)):
            x = self.net.dq(self.net.q(self.net.input("float32", shape), params), params)
        else:
            x = self.net.codes(shape, params)
        self.tensors.append((x, shape, params))
        self.outputs: list[str] = []

    def params(self, *, clipped: bool = False) -> Params:
        zero = 0 if clipped else self.choose(ZEROS)
        return self.choose(SCALES), zero - (128 if self.dtype == "int8" else 0), self.dtype

    def pick(self) -> tuple[str, tuple[int, ...], Params | None]:
        return self.choose(self.tensors[-3:])

    def quantize(self, tensor: str, shape: tuple[int, ...], same: Params | None = None) -> None:
        """Go on behind Q and DQ, perhaps behind a Relu; rarely without, or with the tensor read elsewhere."""
        choose, net = self.choose, self.net
        relu = choose(("", "", "", "implied", "Relu", "HardSigmoid"))
        if relu:
            tensor = net.op("HardSigmoid" if relu == "HardSigmoid" else "Relu", tensor)
        if choose(range(10)) == 0:
            self.tensors.append((tensor, shape, None))
            return
        fork = choose(range(20))
        params = (
            same if same is not None and choose(range(4)) else self.params(clipped=relu == "implied")
        )
        codes = net.q(tensor, params)
        for _ in range(choose(range(1, 3))):
            self.tensors.append((net.dq(codes, params), shape, params))
        if fork < 2:
            self.outputs.append(net.op("Neg", tensor))
        elif fork < 4:
            # A second quantizer, which keeps the operator in float.
            other = self.params()
            self.tensors.append((net.dq(net.q(tensor, other), other), shape, other))

    def step(self) -> None:
        choose, net = self.choose, self.net
        x, shape, params = self.pick()
        kind = choose(KINDS)
        if kind == "conv" and len(shape) == 4:
            self.conv(x, shape)
        elif kind in ("add", "mul", "concat"):
            others = [t for t in self.tensors if t[1] == shape]
            other = choose(others)[0]
            if kind == "concat":
                joined = (shape[0] * 2, *shape[1:])
                self.quantize(net.op("Concat", x, other, axis=0), joined, params)
            else:
                self.quantize(net.op(kind.capitalize(), x, other), shape)
        elif kind == "move":
            self.move(x, shape, params)
        elif kind == "pool" and len(shape) == 4 and shape[2] > 1 and shape[3] > 1:
            op = choose(("MaxPool", "AveragePool"))
            pooled = (*shape[:2], shape[2] - 1, shape[3] - 1)
            self.quantize(net.op(op, x, kernel_shape=[2, 2]), pooled, params)
        elif kind == "mean" and len(shape) == 4:
            self.quantize(net.op("GlobalAveragePool", x), (*shape[:2], 1, 1))
        elif kind == "table":
            self.quantize(net.op(choose(("LeakyRelu", "Sigmoid", "HardSigmoid", "Softmax")), x), shape)
        elif kind == "dense":
            self.dense(x, shape)

    def conv(self, x: str, shape: tuple[int, ...]) -> None:
        choose, net = self.choose, self.net
        out, size = choose(range(1, 5)), choose((1, 3))
        weight = net.weight(
            (out, shape[1], size, size), axis=choose((None, 0)), seed=choose(range(10))
        )
        bias = []
        if choose((False, True)):
            bias = [net.const(np.random.default_rng(out).normal(size=out).astype(F))]
        tensor = net.op("Conv", x, weight, *bias, pads=[size // 2] * 4)
        self.quantize(tensor, (shape[0], out, *shape[2:]))

    def move(self, x: str, shape: tuple[int, ...], params: Params | None) -> None:
        choose, net = self.choose, self.net
        op = choose(("Reshape", "Transpose", "Flatten"))
        if op == "Transpose":
            order = choose(list(itertools.permutations(range(len(shape)))))
            tensor, moved = net.op("Transpose", x, perm=order), tuple(shape[axis] for axis in order)
        else:
            moved = (shape[0], int(np.prod(shape[1:])))
            tensor = net.op("Flatten", x) if op == "Flatten" else net.reshape(x, *moved)
        if choose((False, True)):
            self.tensors.append((tensor, moved, None))
        else:
            self.quantize(tensor, moved, params)

    def dense(self, x: str, shape: tuple[int, ...]) -> None:
        choose, net = self.choose, self.net
        n = choose(range(1, 6))
        axis = choose((None, 1))
        weight = net.weight((shape[-1], n), axis=axis, seed=choose(range(10)))
        kind = choose(("MatMul", "MatMul", "Gemm", "bias"))
        bias = net.const(np.random.default_rng(n).normal(size=n).astype(F))
        if kind == "Gemm" and len(shape) == 2:
            tensor = net.op("Gemm", x, weight, *([bias] if choose((False, True)) else []))
        else:
            tensor = net.op("MatMul", x, weight)
            if kind == "bias":
                tensor = net.op("Add", tensor, bias)
        if choose(range(3)) == 0:
            self.tensors.append((tensor, (*shape[:-1], n), None))
        else:
            self.quantize(tensor, (*shape[:-1], n))

    def finish(self) -> Any:
        used = {name for node in self.net.nodes for name in node.input}
        ends = [name for name, _, _ in self.tensors if name not in used]
        return self.net.model(*dict.fromkeys([*self.outputs, *ends]))


def draw_network(choose: Callable[[Sequence[Any]], Any]) -> Any:
    """A model of one to six steps; `choose` takes one of several."""
    grower = Grower(choose)
    for _ in range(choose(range(1, 7))):
        grower.step()
    return grower.finish()


@st.composite
def networks(draw: Any) -> Any:
    return draw_network(lambda options: draw(st.sampled_from(options)))
