"""The networks of examples/networks.py: published structure, ranges in use, both forms, equal bytes."""

from __future__ import annotations

import functools
import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from support.naive_tiling import RESNET_50

onnx = pytest.importorskip("onnx")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "networks.py"
IMAGE_NETWORKS = ("residual", "separable", "resnet50", "mobilenet_v2")

Products = Counter[tuple[int, int, int, int]]
"""How many convolutions and matrices there are of (groups, M, K, N)."""


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    if not SCRIPT.exists():
        pytest.skip("needs the sources")
    spec = importlib.util.spec_from_file_location("networks", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(networks: ModuleType) -> Callable[..., Any]:
    """Networks on images of 32 x 32: quick, and of the same weights, strides and paddings as larger ones.

    Made once for all tests, which must not change them.
    """

    @functools.cache
    def build(name: str, **options: Any) -> Any:
        return networks.build(name, **({} if name == "transformer" else {"image": 32}), **options)

    return build


def run(model: Any, feeds: dict[str, np.ndarray], *outputs: str) -> dict[str, np.ndarray]:
    """ONNX Runtime's results, all optimizations on, of a model's outputs or of tensors inside."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if outputs:
        del copy.graph.output[:]
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    session = runtime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([y.name for y in session.get_outputs()], session.run(None, feeds), strict=True))


def attributes(node: Any) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def products(model: Any, image: int) -> Products:
    """The products of a network on one image of this size, read off its nodes."""
    constants = {t.name: tuple(t.dims) for t in model.graph.initializer}
    shapes = {"image": (3, image, image)}
    found: Products = Counter()

    def window(x: tuple[int, ...], node: Any) -> tuple[int, int]:
        a = attributes(node)
        return tuple(
            (size + a["pads"][i] + a["pads"][i + 2] - a["kernel_shape"][i]) // a["strides"][i] + 1
            for i, size in enumerate(x[1:])
        )

    for node in model.graph.node:
        if node.input[0] in constants:  # a weight, dequantized
            constants[node.output[0]] = constants[node.input[0]]
            continue
        x = y = shapes[node.input[0]]
        weight = next((constants[n] for n in node.input if len(constants.get(n, ())) > 1), None)
        if node.op_type in ("Conv", "QLinearConv"):
            groups = attributes(node)["group"]
            oc, depth, kh, kw = weight
            y = (oc, *window(x, node))
            assert depth * groups == x[0] and attributes(node)["kernel_shape"] == [kh, kw]
            found[groups, y[1] * y[2], depth * kh * kw, oc // groups] += 1
        elif node.op_type in ("Gemm", "QGemm"):
            assert weight[0] == x[0]
            y = weight[1:]
            found[1, 1, *weight] += 1
        elif node.op_type == "MaxPool":
            y = (x[0], *window(x, node))
        elif node.op_type in ("GlobalAveragePool", "QLinearGlobalAveragePool"):
            y = (x[0], 1, 1)
        elif node.op_type == "Flatten":
            y = (x[0] * x[1] * x[2],)
        elif node.op_type in ("Add", "QLinearAdd"):
            assert x == shapes[node.input[1 if node.op_type == "Add" else 3]]
        else:
            assert node.op_type in ("QuantizeLinear", "DequantizeLinear")
        shapes[node.output[0]] = y
    return found


def macs(found: Products) -> int:
    return sum(count * int(np.prod(sizes)) for sizes, count in found.items())


def parameters(model: Any) -> int:
    """Weights and biases."""
    names = [t for t in model.graph.initializer if t.name.endswith(("_weight", "_bias"))]
    return sum(int(np.prod(t.dims)) for t in names)


# Structure


@pytest.mark.slow
def test_resnet50_is_the_published_one(small: Callable[..., Any]) -> None:
    model = small("resnet50")
    found = products(model, 224)
    assert found == Counter({(1, *sizes): count for count, sizes in RESNET_50})
    assert found.total() == 54 and macs(found) == 4_089_184_256
    # torchvision's 25,557,032 parameters hold gain and shift for each of 26,560 normalized channels;
    # folded into the convolutions, one bias is left of the two.
    assert parameters(model) == 25_557_032 - 26_560


@pytest.mark.slow
@pytest.mark.parametrize("form", ("qoperator", "qdq"))
def test_mobilenet_v2_is_the_published_one(small: Callable[..., Any], form: str) -> None:
    model = small("mobilenet_v2", form=form)
    found = products(model, 224)
    depthwise: Products = Counter({sizes: count for sizes, count in found.items() if sizes[0] > 1})
    assert (found.total(), depthwise.total()) == (53, 17)
    # Sandler et al., arXiv:1801.04381, table 4: 300 M multiply-adds, 3.4 M parameters.
    assert macs(found) == 300_774_272 and macs(depthwise) == 20_716_416
    # torchvision's 3,504,872, less one of the two parameters of each of 17,056 normalized channels.
    assert parameters(model) == 3_504_872 - 17_056
    adds = [node for node in model.graph.node if node.op_type in ("Add", "QLinearAdd")]
    assert len(adds) == 10


@pytest.mark.slow
def test_small_networks_have_what_they_are_for(small: Callable[..., Any]) -> None:
    residual = small("residual")
    kinds = Counter(node.op_type for node in residual.graph.node)
    assert (kinds["QLinearConv"], kinds["QLinearAdd"], kinds["QGemm"]) == (9, 3, 1)
    found = products(residual, 32)
    assert {(1, 256, 16, 32), (1, 64, 32, 64)} <= set(found)  # projections, in half of each direction
    separable = products(small("separable"), 32)
    assert {groups for groups, *_ in separable} == {1, 16, 32, 64}


@pytest.mark.parametrize(("form", "op", "count"), [("qoperator", "MatMulInteger", 16), ("qdq", "MatMul", 16)])
def test_transformer_multiplies_in_integers(
    small: Callable[..., Any], form: str, op: str, count: int
) -> None:
    # Query, key, value, scores, mixture, output, up, down; twice.
    kinds = Counter(node.op_type for node in small("transformer", form=form).graph.node)
    assert kinds[op] == count and kinds["MatMul"] + kinds["MatMulInteger"] == count
    assert (kinds["LayerNormalization"], kinds["Softmax"], kinds["Erf"]) == (4, 2, 2)


# Values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in IMAGE_NETWORKS]
    + [(name, {"activations": "int8"}) for name in IMAGE_NETWORKS[:2]],
)
def test_codes_are_used(
    networks: ModuleType, small: Callable[..., Any], name: str, options: dict[str, str]
) -> None:
    model = small(name, **options)
    tensors = [n.output[0] for n in model.graph.node if n.op_type in ("QLinearConv", "QLinearAdd")]
    # Enough images that the last tensors of networks that halve five times hold more than a few pixels.
    values = run(model, networks.sample(model, 16), *tensors)
    activations = options.get("activations", "uint8")
    limits = np.iinfo(activations)
    zeros = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    activated = 0
    for tensor, codes in values.items():
        assert codes.dtype == activations and len(np.unique(codes)) > 100, tensor
        assert np.mean(codes == limits.max) < 0.03, f"{tensor} saturates"
        if zeros[f"{tensor}_zero_point"] == limits.min:  # negative values are cut off here
            activated += 1
            assert 0.1 < np.mean(codes == limits.min) < 0.9, f"{tensor} collapses"
        else:
            assert np.mean(codes == limits.min) < 0.02, f"{tensor} saturates"
        # Hardly a channel is constant over all images; a few are, where an image is one pixel at the end.
        channels = np.moveaxis(codes, 1, 0).reshape(codes.shape[1], -1)
        assert np.mean(channels.min(axis=1) == channels.max(axis=1)) < 0.05, tensor
    assert activated >= len(tensors) / 3


@pytest.mark.slow
@pytest.mark.parametrize("activations", ("uint8", "int8"))
@pytest.mark.parametrize("name", ("residual", "separable"))
def test_forms_are_one_network(
    networks: ModuleType, small: Callable[..., Any], name: str, activations: str
) -> None:
    options = {} if activations == "uint8" else {"activations": activations}
    models = {"qoperator": small(name, **options), "qdq": small(name, form="qdq", **options)}
    assert not any(n.domain or n.op_type.startswith("QLinear") for n in models["qdq"].graph.node)
    feeds = networks.sample(models["qdq"], 3)
    logits = [run(model, feeds)["logits"] for model in models.values()]
    assert logits[0].shape == (3, 10) and logits[0].dtype == np.float32
    assert len(np.unique(logits[0])) > 10 and len(np.unique(logits[0], axis=0)) == 3
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("activations", ("uint8", "int8"))
def test_transformers_are_near_each_other(networks: ModuleType, activations: str) -> None:
    dynamic = networks.build("transformer")
    static = networks.build("transformer", activations=activations, form="qdq")
    feeds = networks.sample(dynamic, 3)
    states = [run(model, feeds)["states"] for model in (dynamic, static)]
    assert states[0].shape == (3, 16, 64)
    assert 0.9 < states[0].std() < 1.2
    # By about a hundredth each: 8 bits of a range of some eight deviations, through two blocks.
    assert 0 < np.sqrt(np.mean((states[0] - states[1]) ** 2)) < 0.1


# Arguments


@pytest.mark.slow
@pytest.mark.parametrize("name", ("residual", "separable", "transformer"))
def test_batch_is_symbolic_or_fixed(networks: ModuleType, small: Callable[..., Any], name: str) -> None:
    symbolic, fixed = small(name), small(name, batch=2)
    assert symbolic.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for end in (*fixed.graph.input, *fixed.graph.output):
        assert end.type.tensor_type.shape.dim[0].dim_value == 2
    assert list(symbolic.graph.node) == list(fixed.graph.node)
    assert list(symbolic.graph.initializer) == list(fixed.graph.initializer)
    feeds = networks.sample(fixed, 2)
    (output,) = (y.name for y in fixed.graph.output)
    np.testing.assert_array_equal(run(symbolic, feeds)[output], run(fixed, feeds)[output])


@pytest.mark.slow
@pytest.mark.parametrize("form", ("qoperator", "qdq"))
@pytest.mark.parametrize("name", ("residual", "separable", "transformer"))
def test_equal_seeds_give_equal_bytes(
    networks: ModuleType, small: Callable[..., Any], name: str, form: str
) -> None:
    first, other = (small(name, form=form, seed=seed).SerializeToString() for seed in (3, 4))
    again = networks.build(name, form=form, seed=3).SerializeToString()
    assert first == again != other


def test_sizes_are_free(networks: ModuleType) -> None:
    model = networks.build("residual", image=19, batch=1)
    assert (1, 5 * 5, 32, 64) in products(model, 19)  # 19, 10, 5
    assert run(model, networks.sample(model))["logits"].shape == (1, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vgg"}, "^name must be one of residual, separable, resnet50, mobilenet_v2, transformer, not 'vgg'$"),
        ({"activations": "int16"}, "^activations must be one of uint8, int8, not 'int16'$"),
        ({"form": "qops"}, "^form must be one of qoperator, qdq, not 'qops'$"),
        ({"batch": 0}, "^batch must be at least 1, not 0$"),
        ({"image": 7}, "^image must be at least 8, not 7$"),
        ({"name": "transformer", "image": 32}, "^the transformer has no image: leave image out$"),
        ({"name": "transformer", "activations": "int8"}, "^DynamicQuantizeLinear writes uint8: take activations='uint8' or form='qdq'$"),
    ],
)  # fmt: skip
def test_bad_arguments(networks: ModuleType, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        networks.build(**{"name": "residual", **options})


@pytest.mark.slow
def test_command_line(networks: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.onnx"
    networks.main(
        ["separable", str(path), "--activations", "int8", "--form", "qdq", "--seed", "5", "--batch", "2"]
    )
    expected = networks.build("separable", activations="int8", form="qdq", seed=5, batch=2)
    assert onnx.load(path) == expected
    assert capsys.readouterr().out == f"{path}: separable, {len(expected.graph.node)} nodes, 0.0 MB\n"
    networks.main(["separable", str(path), "--batch", "symbolic", "--image", "16"])
    assert onnx.load(path) == networks.build("separable", image=16)
    with pytest.raises(SystemExit):
        networks.main(["transformer", str(path), "--activations", "int8"])
    assert "take activations='uint8' or form='qdq'" in capsys.readouterr().err
