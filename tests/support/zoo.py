"""One model with many kinds of layers; ``layer_examples`` has the others."""

from __future__ import annotations

import numpy as np

import systolic
from support.strategies import codes
from systolic import Model, Node, QuantParams, TensorSpec
from systolic.layers import Conv2d, Dense, DepthwiseConv2d, QLinearAdd, Relu

ONE = QuantParams(1.0)
U8 = QuantParams(0.25, 100, "uint8")


def dense(k: int, n: int, **options) -> Dense:
    weight = codes(np.random.default_rng(k * n), (k, n), "int8")
    return Dense(weight, **({"x": ONE, "w": ONE, "y": QuantParams(99.0, 3)} | options))


def zoo() -> Model:
    """A model with a layer of every kind, several inputs and outputs, and a constant."""
    rng = np.random.default_rng(0)
    nodes = [
        systolic.layers.QuantizeLinear(U8),
        Conv2d(
            codes(rng, (4, 1, 3, 3), "int8"),
            x=U8,
            w=QuantParams([0.1, 0.2, 0.3, 0.4], [0, 1, -2, 3], axis=0),
            y=U8,
            bias=np.array([1, -2, 3, 2**31 - 1], np.int32),
            stride=2,
            padding="same_lower",
        ),
        DepthwiseConv2d(
            codes(rng, (8, 1, 3, 3), "uint8"), x=U8, w=U8, y=U8, multiplier=2, padding=((1, 0), (2, 1))
        ),
        Relu(100),
        systolic.layers.MaxPool((2, 2), padding=(0, 1), ceil_mode=True),
        systolic.layers.QLinearAveragePool((2, 2), U8, U8, stride=2, count_include_pad=True),
        Node(QLinearAdd(a=U8, b=U8, y=U8), ("t5", "offset"), "sum", "addition"),
        Node(systolic.layers.QLinearGlobalAveragePool(U8, U8), ("sum",), "pooled"),
        systolic.layers.Flatten(),
        systolic.layers.Identity(),
        systolic.layers.Reshape((-1, 2, 4)),
        Node(dense(4, 3, x=U8, y=None), ("t10",), "logits"),
        Node(systolic.layers.DequantizeLinear(QuantParams(0.5, 3)), ("second",), "real"),
    ]
    return Model(
        nodes,
        inputs={"image": ((None, 1, 9, 8), "float32"), "second": TensorSpec((2,), "int8")},
        outputs=["logits", "real", "sum"],
        constants={"offset": codes(rng, (8, 1, 1), "uint8")},
        name="zoo, Ж",
    )


def zoo_inputs(batch: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "image": rng.normal(size=(batch, 1, 9, 8)).astype(np.float32) * 20,
        "second": np.array([1, -128], np.int8),
    }
