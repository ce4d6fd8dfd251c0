"""Train small networks and export them as torch does: the float models of the tests of ``quantize_model``.

It writes ``NAME_legacy.onnx`` by ``torch.onnx.export(dynamo=False)`` and ``NAME_dynamo.onnx`` by the default
exporter, without their notes on where in a source file a node comes from:

- ``cnn`` and ``mlp``, trained on scikit-learn's 8 x 8 digits, pixels 0..1, with the split of
  ``examples/train_digits.py``, so that the test images are those of ``systolic.load_example()``;
- ``encoder``, a layer of a transformer, and ``mixed``, activations, pads, pools and branches, untrained.

``calibration.npz`` holds 200 training images, uint8 (200, 1, 8, 8). It needs
``pip install torch onnx onnxscript scikit-learn``; torch 2.13 on a CPU made the files here::

    python tests/data/torch/export.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / "examples"))
from train_digits import split_digits  # noqa: E402

EPOCHS = 30
CALIBRATION = 200


class Cnn(nn.Module):
    """Convolutions with batch normalization, a residual block, pools, a Linear and a Softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6()
        )
        self.first = nn.Conv2d(12, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Conv2d(12, 24, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.1)
        self.classify = nn.Linear(24, 10)

    def forward(self, x: Any) -> Any:
        """Return probabilities."""
        x = self.depthwise(self.stem(x))
        x = torch.relu(x + self.norm(self.second(torch.relu(self.first(x)))))
        x = torch.relu(self.head(functional.max_pool2d(x, 2)))
        x = self.drop(torch.flatten(self.pool(x), 1))
        return torch.softmax(self.classify(x), 1)


class Mlp(nn.Module):
    """Three Linear layers, one with batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, 48), nn.BatchNorm1d(48)
        self.second, self.classify = nn.Linear(48, 32), nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        """Return logits."""
        x = x.view(x.size(0), -1)
        x = torch.relu(self.norm(self.first(x)))
        return self.classify(torch.relu(self.second(x)))


class Encoder(nn.Module):
    """A layer of a transformer and a Linear on the mean of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.classify = nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        """Return logits."""
        return self.classify(self.layer(x).mean(1))


class Mixed(nn.Module):
    """What has an int8 form and what has none, with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3, padding="same")
        self.c, self.d = nn.Conv2d(8, 6, 3, stride=2), nn.ConvTranspose2d(6, 3, 2, stride=2)
        self.e = nn.Linear(6, 5, bias=False)

    def forward(self, x: Any) -> Any:
        """Return logits and an image."""
        a = functional.pad(functional.leaky_relu(self.a(x), 0.1), (1, 1, 1, 1))
        y = torch.cat([a, functional.silu(self.b(x))], 1)
        y = functional.avg_pool2d(functional.interpolate(y, scale_factor=2), 2, ceil_mode=True)
        y = functional.hardtanh(self.c(y))
        return torch.tanh(self.e(y.mean(dim=(2, 3)))), self.d(functional.hardswish(y))


def train(model: nn.Module) -> None:
    """Train a network on the digits."""
    images, tests, labels, expected = split_digits()
    x, y = torch.from_numpy(images / np.float32(16)), torch.from_numpy(labels).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(x)).split(32):
            out = model(x[index])
            loss = (
                functional.nll_loss(out.log(), y[index])
                if isinstance(model, Cnn)
                else functional.cross_entropy(out, y[index])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        found = model(torch.from_numpy(tests / np.float32(16))).argmax(1).numpy()
    print(f"{type(model).__name__}: {np.mean(found == expected):.2%} of {len(tests)} test images")
    np.savez_compressed(HERE / "calibration.npz", images=images[:CALIBRATION])


def export(name: str, model: nn.Module, x: Any) -> None:
    """Export a model by both exporters."""
    model.eval()
    for exporter in ("legacy", "dynamo"):
        path = HERE / f"{name}_{exporter}.onnx"
        options: Any = {"input_names": ["x"], "verbose": False}
        if exporter == "dynamo":
            options |= {"dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}, "external_data": False}
        else:
            options["dynamic_axes"] = {"x": {0: "batch"}}
        torch.onnx.export(model, (x,), path, dynamo=exporter == "dynamo", **options)
        proto = onnx.load(path)
        del proto.metadata_props[:], proto.graph.metadata_props[:], proto.graph.value_info[:]
        for item in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
            item.doc_string = ""
            del item.metadata_props[:]
        onnx.save(proto, path)


def main() -> None:
    """Write all files."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, made, shape in (
        ("cnn", Cnn, (1, 8, 8)),
        ("mlp", Mlp, (1, 8, 8)),
        ("encoder", Encoder, (5, 16)),
        ("mixed", Mixed, (2, 7, 7)),
    ):
        torch.manual_seed(0)
        model = made()
        if name in ("cnn", "mlp"):
            train(model)
        export(name, model, torch.randn(2, *shape))


if __name__ == "__main__":
    main()
