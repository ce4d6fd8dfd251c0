"""Train, quantize and save the example network that comes with systolic.

A small convolutional network learns the 8x8 handwritten digits of scikit-learn, is quantized to
int8 by ONNX Runtime after training, and is written beside the images it never saw:

- ``digits.onnx``, the quantized network: float32 pixels (batch, 1, 8, 8) with values 0..16 in,
  float32 logits (batch, 10) out, integer operators between;
- ``digits_test.npz``, the test set: ``images`` uint8 (360, 1, 8, 8), ``labels`` uint8 (360,);
- ``digits.zip``, the same network in the format of :meth:`systolic.Model.save`.

It needs ``pip install "systolic[onnx]" onnxruntime torch scikit-learn``. The same versions on the
same machine give the same files::

    python examples/train_digits.py                # everything
    python examples/train_digits.py --native-only  # only digits.zip, from digits.onnx
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from torch import Tensor

DATA = Path(__file__).resolve().parents[1] / "systolic" / "data"
SEED = 0
MAX_PIXEL = 16
OPSET, IR_VERSION = 17, 8  # for every ONNX Runtime since 1.15


class Conv(NamedTuple):
    """One convolution of the network."""

    ic: int
    oc: int
    kernel: int
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right, as ONNX has them
    groups: int = 1
    relu: bool = True


CONVS = {
    "stem": Conv(1, 16, 3, pads=(1, 1, 1, 1)),
    "depthwise": Conv(16, 16, 3, pads=(1, 1, 1, 1), groups=16),
    "pointwise": Conv(16, 32, 1),
    "down": Conv(32, 32, 3, stride=2, pads=(0, 0, 1, 1)),
    "block1": Conv(32, 32, 3, pads=(1, 1, 1, 1)),
    "block2": Conv(32, 32, 3, pads=(1, 1, 1, 1), relu=False),
    "head": Conv(32, 64, 1),
}


def split_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return train and test images uint8 (n, 1, 8, 8), then train and test labels uint8 (n,)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images, labels = digits.images[:, None].astype(np.uint8), digits.target.astype(np.uint8)
    return train_test_split(images, labels, test_size=360, stratify=labels, random_state=SEED)


def forward(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Compute the logits (batch, 10) of pixels `x` scaled to 0..1; `float_graph` is its twin."""
    from torch.nn import functional

    def conv(name: str, x: Tensor) -> Tensor:
        spec, (top, left, bottom, right) = CONVS[name], CONVS[name].pads
        weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
        x = functional.pad(x, (left, right, top, bottom))
        x = functional.conv2d(x, weight, bias, spec.stride, groups=spec.groups)
        return x.relu() if spec.relu else x

    for name in ("stem", "depthwise", "pointwise", "down"):
        x = conv(name, x)
    x = x + conv("block2", conv("block1", x))
    x = conv("head", functional.max_pool2d(x, 2)).mean(dim=(2, 3))
    return functional.linear(x, params["classify.weight"], params["classify.bias"])


def train(images: np.ndarray, labels: np.ndarray, epochs: int) -> dict[str, np.ndarray]:
    """Return trained float32 weights by name, for pixels 0..16."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)

    shapes: dict[str, tuple[int, ...]] = {
        name: (c.oc, c.ic // c.groups, c.kernel, c.kernel) for name, c in CONVS.items()
    }
    shapes["classify"] = (10, CONVS["head"].oc)
    params = {}
    for name, shape in shapes.items():
        std = (2 / np.prod(shape[1:])) ** 0.5
        params[f"{name}.weight"] = (std * torch.randn(shape)).requires_grad_()
        params[f"{name}.bias"] = torch.zeros(shape[0], requires_grad=True)

    x, y = torch.from_numpy(images / np.float32(MAX_PIXEL)), torch.from_numpy(labels).long()
    optimizer = torch.optim.AdamW(params.values(), lr=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for index in torch.randperm(len(x)).split(32):
            down, right = torch.randint(-1, 2, (2,)).tolist()  # shifted by at most one pixel
            shifted = functional.pad(x[index], (right, -right, down, -down))
            loss = functional.cross_entropy(forward(params, shifted), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch + 1:3d} of {epochs}: last loss {loss.item():.4f}", flush=True)

    weights = {name: param.detach().numpy() for name, param in params.items()}
    weights["stem.weight"] = weights["stem.weight"] / np.float32(MAX_PIXEL)
    return weights


def float_graph(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return `forward` as a float32 ONNX model on pixels 0..16."""
    nodes = []

    def add(op: str, name: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(name: str, x: str) -> str:
        spec = CONVS[name]
        x = add(
            "Conv", name, x, f"{name}.weight", f"{name}.bias", group=spec.groups,
            kernel_shape=[spec.kernel] * 2, strides=[spec.stride] * 2, pads=spec.pads,
        )  # fmt: skip
        return add("Relu", f"{name}_relu", x) if spec.relu else x

    x = "pixels"
    for name in ("stem", "depthwise", "pointwise", "down"):
        x = conv(name, x)
    x = add("Add", "residual", x, conv("block2", conv("block1", x)))
    x = conv("head", add("MaxPool", "pool", x, kernel_shape=[2, 2], strides=[2, 2]))
    x = add("Flatten", "flatten", add("GlobalAveragePool", "average", x))
    add("Gemm", "logits", x, "classify.weight", "classify.bias", transB=1)

    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def quantize(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """Return `model` in int8, activation ranges calibrated on `images`.

    Activations are int8 with any zero point, weights int8 with one scale per output channel and
    zero point 0, in the QOperator form (QLinearConv and its kin).
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{"pixels": images.astype(np.float32)}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)  # by path: given a ModelProto, quantize_static changes it
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QOperator,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        quantized = onnx.load(target)
    del quantized.metadata_props[:], quantized.graph.value_info[:]  # of the float32 tensors
    onnx.checker.check_model(quantized)
    return quantized


def accuracy(model: onnx.ModelProto, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of `images` that ONNX Runtime classifies as `labels` say."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    (logits,) = session.run(None, {"pixels": images.astype(np.float32)})
    return float(np.mean(logits.argmax(axis=1) == labels))


def write(path: Path, save: Callable[[Path], Any]) -> None:
    """Call `save` on a temporary path, which takes the place of `path` once it is whole."""
    temporary = path.with_stem(path.stem + ".new")
    save(temporary)
    temporary.replace(path)


def save_native(out: Path) -> None:
    """Write digits.zip from digits.onnx."""
    import systolic

    write(out / "digits.zip", systolic.load_onnx(out / "digits.onnx").save)


def main() -> None:
    """Parse the command line, then train, quantize, report and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to (%(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="passes over the training images")
    parser.add_argument("--native-only", action="store_true", help="only write digits.zip")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    if not args.native_only:
        train_images, test_images, train_labels, test_labels = split_digits()
        model = float_graph(train(train_images, train_labels, args.epochs))
        quantized = quantize(model, train_images)
        for name, candidate in (("float32", model), ("int8", quantized)):
            print(f"{name} test accuracy: {accuracy(candidate, test_images, test_labels):.2%}")
        write(args.out / "digits.onnx", lambda path: onnx.save(quantized, path))
        write(
            args.out / "digits_test.npz",
            lambda path: np.savez_compressed(path, images=test_images, labels=test_labels),
        )
    save_native(args.out)


if __name__ == "__main__":
    main()
