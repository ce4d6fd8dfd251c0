"""Train a digit classifier in bfloat16 on the emulated array, and show what a training step costs.

A convolution of 8 filters, a Relu and a dense layer learn 300 of the bundled 8 x 8 digits by stochastic
gradient descent. Forward, backward-data and backward-weight products run on the array; biases, the Relu, the
softmax and the update of the float32 weights run in numpy. Every product is compared, bit for bit, with the
reference, which adds in the array's order. It needs ``pip install "systolic[formats]"``::

    python examples/train_bfloat16.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

import systolic
from systolic import ArrayConfig, Stats, training

TRAINED = 300  # of the 360 bundled images; the others are for the test
ARRAY = ArrayConfig(32, 32)
FILTERS, KERNEL, PIXELS, CLASSES = 8, (3, 3), 8 * 8, 10


class Network:
    """A convolution, a Relu and a dense layer, with the costs of its products by pass."""

    def __init__(self, array: ArrayConfig, mode: str, compute: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.how = {"array": array, "mode": mode, "compute": compute}
        features = FILTERS * PIXELS
        self.filters = (rng.normal(size=(FILTERS, 1, *KERNEL)) / 3).astype(np.float32)
        self.bias = np.zeros(FILTERS, np.float32)
        self.weights = (rng.normal(size=(features, CLASSES)) / np.sqrt(features)).astype(np.float32)
        self.offset = np.zeros(CLASSES, np.float32)
        self.costs = dict.fromkeys(training.PASSES, Stats())
        self.checked = 0

    def product(self, name: str, done: training.Pass) -> np.ndarray:
        """Return a product's value, checked against the reference, and count its cost."""
        np.testing.assert_array_equal(done.value, done.expected())
        self.costs[name] += done.stats
        self.checked += 1
        return done.value

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features behind the Relu, and the logits."""
        sums = self.product("forward", training.conv2d(x, self.filters, self.bias, padding=1, **self.how))
        features = np.maximum(sums, 0).reshape(len(x), -1)
        logits = training.dense(features, self.weights, self.offset, **self.how)
        return features, self.product("forward", logits)

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float) -> float:
        """Learn from a batch, and return its loss: the mean cross-entropy."""
        features, logits = self.forward(x)
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        rows = np.arange(len(x))
        loss = float(-np.log(chances[rows, labels]).mean())
        gradient = chances
        gradient[rows, labels] -= 1
        gradient /= len(x)
        of_weights = training.dense_backward_weight(features, gradient, **self.how)
        of_features = training.dense_backward_data(gradient, self.weights, **self.how)
        back = self.product("backward_data", of_features) * (features > 0)
        back = back.reshape(len(x), FILTERS, 8, 8)
        # Nothing before the convolution learns: its input needs no gradient.
        of_filters = training.conv2d_backward_weight(x, back, KERNEL, padding=1, **self.how)
        self.weights -= rate * self.product("backward_weight", of_weights)
        self.filters -= rate * self.product("backward_weight", of_filters)
        self.offset -= rate * gradient.sum(axis=0)
        self.bias -= rate * back.sum(axis=(0, 2, 3))
        return loss


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the numbers of the images of each step; all images are seen before one is again."""
    rng, left = np.random.default_rng(seed), np.array([], int)
    for _ in range(steps):
        if len(left) < size:
            left = rng.permutation(count)
        yield left[:size]
        left = left[size:]


def train(
    steps: int = 60,
    batch: int = 50,
    rate: float = 0.5,
    *,
    compute: str = "bfloat16",
    mode: str = "wavefront",
    array: ArrayConfig = ARRAY,
    seed: int = 0,
) -> tuple[Network, list[float], float]:
    """Train a network; return it, the loss of each step, and the share of test images that it knows."""
    _, images, labels = systolic.load_example()
    x = images / np.float32(16)
    network = Network(array, mode, compute, seed)
    losses = [network.step(x[some], labels[some], rate) for some in batches(TRAINED, batch, steps, seed)]
    costs = dict(network.costs)  # of the steps, without the test
    _, logits = network.forward(x[TRAINED:])
    network.costs = costs
    return network, losses, float((logits.argmax(axis=1) == labels[TRAINED:]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--compute", default="bfloat16", help="a float format (default: bfloat16)")
    parser.add_argument("--mode", choices=("cycle", "wavefront"), default="wavefront")
    options = parser.parse_args()
    network, losses, known = train(options.steps, options.batch, compute=options.compute, mode=options.mode)
    for number in range(0, len(losses), max(len(losses) // 6, 1)):
        print(f"step {number:3}   loss {losses[number]:.3f}")
    print(f"last step  loss {losses[-1]:.3f}")
    print(f"{known:.0%} of {360 - TRAINED} test images known")
    print(f"{network.checked} products in {options.compute}, all equal to the reference bit for bit")
    print(f"\na step on a batch of {options.batch}, array {ARRAY.rows} x {ARRAY.cols}:")
    for name, stats in network.costs.items():
        cycles = stats.cycles // len(losses)
        print(f"  {name.replace('_', '-'):16}{cycles:8,} cycles   utilization {stats.utilization:.1%}")


if __name__ == "__main__":
    main()
