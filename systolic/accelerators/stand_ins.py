"""Stand-ins for the six applications of the TPU paper, fixed from its table 1 alone.

The applications are not public. Table 1 says how many layers of each kind they have, how many weights, how
often each weight byte is used, and their batch size. The rules below turn that into layers with sizes. They
were fixed before anything was timed, and none looks at a measurement.

1. **Equal layers.** All layers with weights hold the same number of them; a fully connected layer is
   square. So MLP0's five layers with 20 million weights are 2000 x 2000.
2. **Convolutions** are 3 x 3 with as many channels out as in, at stride 1 and padded, so that images keep
   their size. All images of an application have the same size: the one nearest to a square that gives the
   published MACs per weight byte. CNN0: 2888 = 8 x 19 x 19.
3. **One chain.** Each layer reads the result of the one before. Vector layers are spread evenly. Where there
   are fewer vector layers than fully connected ones, the layers between two vector layers read the same
   tensor, as the gates of a recurrent cell do, and the vector layer combines their results.
4. **Pooling** layers are 3 x 3 at stride 1, spread evenly over the convolutions; the last one averages each
   image to a single pixel, which the fully connected layers need. The first of these takes the channels that
   are there, so that all four together hold their share of the weights.
5. **A shape that the paper names is used.** It names one: LSTM1's 600 x 600 matrices, which the array
   multiplies one by one. 34 million weights are 94 of them, two or three to each of the 37 layers.
6. Weights and activations have 8 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from systolic import _check
from systolic.accelerators.tpu_v1 import APPLICATIONS, TABLE_1

KINDS = ("fc", "conv", "vector", "pool")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation of a stand-in: a matrix product, a convolution, element-wise work or pooling.

    Parameters
    ----------
    layer : str
        The layer of table 1 that it belongs to, such as "fc 3". A layer of several matrices has a step for
        each.
    kind : {"fc", "conv", "vector", "pool"}
    reads : tuple of int
        Tensors: 0 is the application's input, n the result of step n - 1.
    inputs, outputs : int
        Channels read and written.
    kernel : int
        Height and width of a window.
    image, result : (int, int)
        Height and width of the images read and written; (1, 1) for matrices.
    """

    layer: str
    kind: str
    reads: tuple[int, ...]
    inputs: int
    outputs: int
    kernel: int = 1
    image: tuple[int, int] = (1, 1)
    result: tuple[int, int] = (1, 1)

    @property
    def weights(self) -> int:
        """How many weights it holds; each is a byte."""
        return self.inputs * self.outputs * self.kernel**2 if self.kind in ("fc", "conv") else 0

    @property
    def pixels(self) -> int:
        """Positions of a result, for one example: how often each weight is used."""
        return math.prod(self.result)

    @property
    def border(self) -> int:
        """Rows and columns of padding around an image."""
        return self.kernel // 2 if self.result == self.image else 0


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """An application made up from its row of table 1.

    Parameters
    ----------
    name : str
    batch : int
    steps : tuple of Step
    reasoning : str
        How its sizes follow from table 1.
    """

    name: str
    batch: int
    steps: tuple[Step, ...]
    reasoning: str

    def layers(self, kind: str) -> int:
        """Return how many layers of a kind it has."""
        return len({step.layer for step in self.steps if step.kind == kind})

    @property
    def weights(self) -> int:
        """Weights, each of one byte."""
        return sum(step.weights for step in self.steps)

    @property
    def macs(self) -> int:
        """MACs of one batch."""
        return self.batch * sum(step.weights * step.pixels for step in self.steps)

    @property
    def macs_per_weight_byte(self) -> float:
        """How often each weight is used, on average."""
        return self.macs / self.weights

    def to_dict(self) -> dict[str, Any]:
        """Return sizes and reasoning as a dict that JSON can hold."""
        return {
            "batch": self.batch,
            **{kind: self.layers(kind) for kind in KINDS},
            "weights": self.weights,
            "macs": self.macs,
            "macs_per_weight_byte": self.macs_per_weight_byte,
            "reasoning": self.reasoning,
        }


@cache
def stand_in(name: str) -> StandIn:
    """Return the stand-in of an application.

    Parameters
    ----------
    name : str
        One of `tpu_v1.APPLICATIONS`.

    Examples
    --------
    >>> from systolic.accelerators import stand_in
    >>> mlp = stand_in("MLP0")
    >>> mlp.batch, mlp.weights, mlp.macs_per_weight_byte
    (200, 20000000, 200.0)
    >>> mlp.steps[0].inputs, mlp.steps[0].outputs, len(mlp.steps)
    (2000, 2000, 5)
    """
    _check.choice(name, "application", APPLICATIONS)
    batch = int(TABLE_1["batch"][name])
    if TABLE_1["conv"][name]:
        steps, reasoning = _images(name, batch)
    elif name in _NAMED_MATRICES:
        steps, reasoning = _named_matrices(name, _NAMED_MATRICES[name])
    else:
        side = round(math.sqrt(_weights_of_a_layer(name)))
        count = int(TABLE_1["fc"][name])
        steps = _chain(name, [1] * count, side)
        reasoning = (
            f"{count} square layers with {TABLE_1['weights'][name]:g} million weights: {side} x {side} each."
        )
    return StandIn(name=name, batch=batch, steps=tuple(steps), reasoning=reasoning)


# Section 7 of the paper: matrices that it names.
_NAMED_MATRICES = {"LSTM1": 600}


def _weights_of_a_layer(name: str) -> float:
    layers = TABLE_1["fc"][name] + TABLE_1["conv"][name]
    return TABLE_1["weights"][name] * 1e6 / layers


def _named_matrices(name: str, side: int) -> tuple[list[Step], str]:
    """Return layers of several square matrices each."""
    layers = int(TABLE_1["fc"][name])
    matrices = round(TABLE_1["weights"][name] * 1e6 / side**2)
    sizes = [(i + 1) * matrices // layers - i * matrices // layers for i in range(layers)]
    reasoning = (
        f"The paper names {side} x {side} matrices. {TABLE_1['weights'][name]:g} million weights are "
        f"{matrices} of them, {min(sizes)} or {max(sizes)} in each of {layers} layers, multiplied one by one."
    )
    return _chain(name, sizes, side), reasoning


def _chain(name: str, matrices: list[int], side: int) -> list[Step]:
    """Return a chain of layers of square matrices, vector layers spread evenly among them."""
    vectors, layers = int(TABLE_1["vector"][name]), len(matrices)
    groups = min(vectors, layers) or layers
    steps: list[Step] = []
    source, made = 0, 0
    for group in range(groups):
        results = []
        for layer in range(-(-group * layers // groups), -(-(group + 1) * layers // groups)):
            for _ in range(matrices[layer]):
                steps.append(
                    Step(layer=f"fc {layer + 1}", kind="fc", reads=(source,), inputs=side, outputs=side)
                )
                results.append(len(steps))
        while made * groups < vectors * (group + 1):
            made += 1
            layer_name = f"vector {made}"
            steps.append(
                Step(layer=layer_name, kind="vector", reads=tuple(results), inputs=side, outputs=side)
            )
            results = [len(steps)]
        (source,) = results
    return steps


def _images(name: str, batch: int) -> tuple[list[Step], str]:
    """Return convolutions on images of one size, pooling layers, and fully connected layers."""
    each = _weights_of_a_layer(name)
    convolutions, dense, pools = (int(TABLE_1[kind][name]) for kind in ("conv", "fc", "pool"))
    channels = round(math.sqrt(each / 9))
    wanted = TABLE_1["macs_per_weight_byte"][name] / batch * (convolutions + dense) - dense
    image = _image(wanted / convolutions)
    steps: list[Step] = []
    for layer in range(convolutions):
        steps.append(
            Step(
                layer=f"conv {layer + 1}", kind="conv", reads=(len(steps),), inputs=channels,
                outputs=channels, kernel=3, image=image, result=image,
            )
        )  # fmt: skip
        done = sum(step.kind == "pool" for step in steps)
        if done * convolutions < (pools - 1) * (layer + 1):
            steps.append(_pool(done, len(steps), channels, 3, image, image))
    reasoning = (
        f"{convolutions + dense} layers with {TABLE_1['weights'][name]:g} million weights: 3 x 3 "
        f"convolutions of {channels} channels"
    )
    if dense:
        steps.append(_pool(pools - 1, len(steps), channels, max(image), image, (1, 1)))
        # side * channels + (dense - 1) * side**2 = dense * each
        side = round((math.sqrt(channels**2 + 4 * (dense - 1) * dense * each) - channels) / (2 * (dense - 1)))
        for layer in range(dense):
            steps.append(
                Step(
                    layer=f"fc {layer + 1}", kind="fc", reads=(len(steps),), outputs=side,
                    inputs=side if layer else channels,
                )
            )  # fmt: skip
        reasoning += f", and fully connected layers of {channels} -> {side} and {side} x {side}"
    height, width = image
    reasoning += (
        f". {TABLE_1['macs_per_weight_byte'][name]:g} MACs per weight byte in a batch of {batch} ask for "
        f"{wanted / convolutions:.4g} pixels: images of {height} x {width}."
    )
    return steps, reasoning


def _pool(
    done: int, source: int, channels: int, kernel: int, image: tuple[int, int], result: tuple[int, int]
) -> Step:
    return Step(
        layer=f"pool {done + 1}", kind="pool", reads=(source,), inputs=channels, outputs=channels,
        kernel=kernel, image=image, result=result,
    )  # fmt: skip


def _image(pixels: float) -> tuple[int, int]:
    """Return height and width of the image with about so many pixels: a square, or one longer by 1."""
    low = math.floor(math.sqrt(pixels))
    sizes = [(low, low), (low, low + 1), (low + 1, low + 1)]
    return min(sizes, key=lambda size: abs(math.prod(size) - pixels))
