"""ONNX files damaged in many ways, for frontend/test_loader_fuzz.py: ``python tests/support/loader_fuzz.py SEED FIRST COUNT``.

Each case must end in a clean error, or in a model that runs and that the reference agrees with. Cases run
one after the other in a process whose memory is limited; the number of the one under way stands in the
output, so that one that takes the process along is known.
"""

from __future__ import annotations

import collections
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import systolic
from support import onnx_models as om
from support import qdq_models
from systolic.frontend import UnsupportedOperator

Rng = Any
ARRAY = systolic.ArrayConfig(256, 256)
CLEAN = (ValueError, TypeError, UnsupportedOperator, FileNotFoundError, MemoryError)
SECONDS = 20
MEGABYTES = 768
"""How long a case may take, and what all together may add to the memory of the process."""

HUGE = (0, -1, 1, 3, 2**20, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)
TEXTS = ("", "\0", "x", "y", "../x", "i0", "Ж" * 40, "a" * 100_000)
SIZED = ("ConstantOfShape", "Expand", "Tile", "Pad", "Range", "Resize", "OneHot", "Reshape", "Loop", "Einsum")


def sources() -> list[Any]:
    """Return small models of many kinds."""
    rng = np.random.default_rng(0)
    subgraph = helper.make_graph([om.node("Relu", ["x"], "t")], "then", [], [om.value("t", "int8", (2, 3))])
    branch = om.node("If", ["b"], "y", then_branch=subgraph, else_branch=subgraph)
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("s", TensorProto.FLOAT, (1,), [1.0]),
        helper.make_tensor("at", TensorProto.INT64, (1,), [2]),
        [2**40],
    )
    return [
        om.conv(rng, "int8", "int8", per_channel=True, pads=[1, 1, 1, 1])[0],
        om.conv(rng, "uint8", "uint8", group=2, strides=[2, 1])[0],
        om.gemm(rng, "int8", "int8")[0],
        om.matmul(rng, "uint8", "uint8", per_column=True)[0],
        om.average(rng, "int8", kernel_shape=[3, 2])[0],
        om.max_pool(rng, "int8", kernel_shape=[2, 2])[0],
        om.quantize(rng, "int8", axis=1)[0],
        om.constants(rng)[0],
        om.reshape(rng, [0, -1])[0],
        om.model([branch], {"x": ("int8", (2, 3)), "b": ("bool", ())}, ["y"]),
        om.model([om.node("Constant", [], "y", sparse_value=sparse)], {"x": ("int8", (2,))}, ["y"]),
        onnx.load(Path(systolic.__file__).parent / "data" / "digits.onnx"),
        *quantized(),
    ]


def quantized() -> list[Any]:
    """Return a small QDQ model of every group."""
    models = []
    for build, *_ in qdq_models.CASES.values():
        net = qdq_models.Net()
        outputs = build(net)
        models.append(om.model(net.nodes, net.inputs, outputs, net.constants))
    return models


def pick(rng: Rng, items: Sequence[Any]) -> Any:
    return items[int(rng.integers(len(items)))] if len(items) else None


# Damage to bytes


def flip_bits(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(rng: Rng, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data)))]


def splice(rng: Rng, data: bytes) -> bytes:
    a, b, c = sorted(int(rng.integers(len(data))) for _ in range(3))
    return pick(
        rng, [data[:a] + data[b:], data[:b] + data[a:c] + data[b:], data[:a] + b"\xff" * 9 + data[a:]]
    )


def noise(rng: Rng, data: bytes) -> bytes:
    return rng.bytes(int(rng.integers(200)))


# Damage to fields


def sizes(rng: Rng, model: Any) -> None:
    tensor = pick(rng, model.graph.initializer)
    if tensor is None:
        return
    dims = [*tensor.dims]
    if dims and rng.random() < 0.7:
        dims[int(rng.integers(len(dims)))] = pick(rng, HUGE)
    else:
        dims += [pick(rng, HUGE)] * int(rng.integers(1, 70))
    tensor.dims[:] = dims


def ranks(rng: Rng, model: Any) -> None:
    """The first numbers of a tensor in another shape."""
    tensor = pick(rng, model.graph.initializer)
    if tensor is None:
        return
    array = numpy_helper.to_array(tensor).reshape(-1)
    shape = pick(rng, ((), (1,), (0,), (1, 1), (2,), (1, 2, 1), (2, 2), (1,) * 5))
    if int(np.prod(shape)) <= array.size:
        tensor.CopyFrom(numpy_helper.from_array(array[: int(np.prod(shape))].reshape(shape), tensor.name))


def types(rng: Rng, model: Any) -> None:
    what = pick(rng, [*model.graph.initializer, *model.graph.input])
    if isinstance(what, TensorProto):
        what.data_type = int(rng.integers(-1, 30))
    else:
        what.type.tensor_type.elem_type = int(rng.integers(-1, 30))


def storage(rng: Rng, model: Any) -> None:
    tensor = pick(rng, model.graph.initializer)
    if tensor is None:
        return
    if rng.random() < 0.5:
        tensor.raw_data = tensor.raw_data[:-1] if rng.random() < 0.5 else tensor.raw_data + b"\0" * 7
    else:
        tensor.ClearField("raw_data")
        tensor.int32_data.extend([1] * int(rng.integers(0, 9)))


def values(rng: Rng, model: Any) -> None:
    real = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT] or model.graph.initializer
    tensor = pick(rng, real)
    if tensor is None:
        return
    array = numpy_helper.to_array(tensor).copy()
    if array.size:
        with np.errstate(all="ignore"):
            array.flat[int(rng.integers(array.size))] = np.asarray(
                pick(rng, (0.0, -1.0, np.nan, np.inf, -np.inf, 1e-45, 3e38))
            ).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def names(rng: Rng, model: Any) -> None:
    graph = model.graph
    kind = int(rng.integers(4))
    if kind == 0 and graph.initializer:
        pick(rng, graph.initializer).name = pick(rng, TEXTS)
    elif kind == 1:
        pick(rng, [*graph.input, *graph.output]).name = pick(rng, TEXTS)
    elif kind == 2 and graph.node:
        node = pick(rng, graph.node)
        field = pick(rng, ("name", "domain", "op_type"))
        setattr(node, field, pick(rng, TEXTS))
    elif graph.node:
        node = pick(rng, graph.node)
        side = node.input if rng.random() < 0.5 else node.output
        if len(side):
            side[int(rng.integers(len(side)))] = pick(rng, TEXTS)


def attributes(rng: Rng, model: Any) -> None:
    node = pick(rng, [n for n in model.graph.node if n.attribute] or model.graph.node)
    if node is None:
        return
    attribute = pick(rng, node.attribute)
    kind = int(rng.integers(6))
    if attribute is None or kind == 0:
        name = pick(
            rng, ("axis", "pads", "strides", "group", "dilations", "kernel_shape", "alpha", "unknown")
        )
        value = pick(rng, (pick(rng, HUGE), [pick(rng, HUGE)] * int(rng.integers(1, 6)), 0.5, "text"))
        node.attribute.append(helper.make_attribute(name, value))
    elif kind == 1:
        node.attribute.remove(attribute)
    elif kind == 2:
        node.attribute.append(attribute)
    elif kind == 3:
        attribute.type = pick(rng, [k for k in AttributeProto.AttributeType.values() if k])
    elif attribute.ints:
        place = int(rng.integers(len(attribute.ints)))
        attribute.ints[place] = pick(rng, HUGE)
    else:
        attribute.i, attribute.f = pick(rng, HUGE), float(pick(rng, (np.nan, np.inf, 0, -1)))


def wiring(rng: Rng, model: Any) -> None:
    graph = model.graph
    written = [name for node in graph.node for name in node.output]
    node = pick(rng, [node for node in graph.node if node.input])
    if node is None:
        return
    place = int(rng.integers(len(node.input)))
    kind = int(rng.integers(4))
    if kind == 0:
        node.input[place] = pick(rng, written)
    elif kind == 1:
        del node.input[place]
    elif kind == 2:
        node.input.extend([node.input[place]] * 9)
    else:
        node.input[place] = pick(rng, [t.name for t in graph.initializer] or written)


def order(rng: Rng, model: Any) -> None:
    graph = model.graph
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    kind = int(rng.integers(3))
    if kind == 0:
        nodes.reverse()
    elif kind == 1 and nodes:
        nodes.append(pick(rng, nodes))
    elif nodes:
        nodes.pop(int(rng.integers(len(nodes))))
    del graph.node[:]
    graph.node.extend(nodes)


def initializers(rng: Rng, model: Any) -> None:
    tensor = pick(rng, model.graph.initializer)
    if tensor is None:
        return
    if rng.random() < 0.5:
        model.graph.initializer.append(tensor)
    else:
        model.graph.initializer.remove(tensor)


def operators(rng: Rng, model: Any) -> None:
    node = pick(rng, model.graph.node)
    if node is not None:
        node.op_type = pick(rng, (*SIZED, "Relu", "Add", "MaxPool", "QLinearConv", "DequantizeLinear"))


def opsets(rng: Rng, model: Any) -> None:
    kind = int(rng.integers(4))
    if kind == 0:
        del model.opset_import[:]
    elif kind == 1:
        model.opset_import.append(helper.make_opsetid("", int(rng.integers(1, 30))))
    elif kind == 2 and model.opset_import:
        pick(rng, model.opset_import).version = pick(rng, HUGE)
    else:
        model.ir_version = pick(rng, HUGE)


def inputs(rng: Rng, model: Any) -> None:
    tensor = pick(rng, model.graph.input).type.tensor_type
    kind = int(rng.integers(4))
    if kind == 0:
        tensor.ClearField("shape")
    elif kind == 1:
        model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    elif kind == 2:
        tensor.shape.dim.add().dim_value = pick(rng, HUGE)
    elif tensor.shape.dim:
        pick(rng, tensor.shape.dim).dim_value = pick(rng, HUGE)


def external(rng: Rng, model: Any) -> None:
    """Data in another file: `secret` lies outside the model's folder, `link` points to it."""
    tensor = pick(rng, model.graph.initializer)
    if tensor is None:
        return
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    places = ("../secret", "link", "/etc/passwd", "weights", "sub/../../secret", "sub", "", "absent", "C:\\x")
    for key, choices in (
        ("location", places),
        ("offset", ("0", "1", "-1", "99999999999", "x", "")),
        ("length", ("0", "1", str(len(tensor.raw_data)), "-1", "9" * 30, "1e3")),
    ):
        if key == "location" or rng.random() < 0.5:
            entry = tensor.external_data.add()
            entry.key, entry.value = key, pick(rng, choices)


def blown_up(rng: Rng, model: Any) -> None:
    """A few numbers that ask for a tensor of terabytes."""
    graph = model.graph
    shape = [2**20, 2 ** int(rng.integers(0, 40))]
    graph.initializer.append(numpy_helper.from_array(np.array(shape), "blow_shape"))
    graph.initializer.append(numpy_helper.from_array(np.float32([[1.0]]), "blow_one"))
    graph.initializer.append(numpy_helper.from_array(np.array([0, *shape, 0]), "blow_pads"))
    graph.node.append(
        pick(
            rng,
            [
                om.node("ConstantOfShape", ["blow_shape"], "blown"),
                om.node("Expand", ["blow_one", "blow_shape"], "blown"),
                om.node("Tile", ["blow_one", "blow_shape"], "blown"),
                om.node("Pad", ["blow_one", "blow_pads"], "blown"),
            ],
        )
    )
    graph.output.append(om.value("blown", "float32", ("a", "b")))


def nested(rng: Rng, model: Any) -> None:
    for _ in range(int(rng.integers(1, 60))):
        graph = helper.make_graph([], "g", [], [om.value("x", "int8", ())])
        graph.node.extend(model.graph.node)
        try:
            inner = om.node("If", ["b"], "y", then_branch=graph)
        except DecodeError:  # as deep as protobuf allows
            return
        del model.graph.node[:]
        model.graph.node.append(inner)


BYTES: tuple[Callable[[Rng, bytes], bytes], ...] = (flip_bits, truncate, splice, noise)
FIELDS: tuple[Callable[[Rng, Any], None], ...] = (
    sizes, ranks, types, storage, values, names, attributes, wiring, order, initializers, operators, opsets, inputs,
    external, blown_up, nested,
)  # fmt: skip


def damaged(seed: int, number: int, models: Sequence[Any]) -> tuple[str, bytes]:
    """Return the kind of damage and the file of a case; kinds take turns."""
    rng = np.random.default_rng((seed, number))
    model = type(models[0])()
    model.CopyFrom(pick(rng, models))
    kinds = (*BYTES, *FIELDS)
    kind: Any = kinds[number % len(kinds)]
    if kind in BYTES:
        return kind.__name__, kind(rng, model.SerializeToString())
    for _ in range(int(rng.integers(1, 3))):
        kind(rng, model)
    return kind.__name__, model.SerializeToString()


def outcome(path: Path) -> str:
    """Load a file, and run what was loaded if it is small; return how that ended."""
    try:
        model = systolic.load_onnx(path)
    except CLEAN as error:
        assert type(error) in CLEAN and len(str(error)) > 10, repr(error)
        assert "secret" not in str(error) or "external data" in str(error), repr(error)
        return "refused"
    shapes = {
        name: tuple(2 if size is None else size for size in spec.shape) for name, spec in model.inputs.items()
    }
    try:
        traced = model.infer_shapes(shapes)
        work = [
            node.layer.products(*(traced[tensor][0] for tensor in node.inputs))
            for node in model.nodes
            if isinstance(node.layer, systolic.layers.ArrayLayer)
        ]
        elements = sum(
            int(np.prod([0 if s is None else s for s in shape or ()], dtype=float))
            for shape, _ in traced.values()
        )
        if (
            elements > 2**22
            or sum(gemm.macs for gemm in work) > 2**22
            or any(s is None for s, _ in traced.values())
        ):
            return "large"
        machine = systolic.ArrayConfig(16, 16)
        found = systolic.verify(model, machine=machine, mode="wavefront")
    except CLEAN as error:
        assert type(error) in CLEAN and len(str(error)) > 10, repr(error)
        return "refused later"
    # What a bound of NaN means is not defined.
    assert not found.mismatches or any(np.isnan(array).any() for array in floats(path)), found
    return compared(path, model, shapes)


def floats(path: Path) -> list[np.ndarray]:
    """Return a model's float32 initializers."""
    graph = onnx.load(path).graph
    return [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.FLOAT]


def compared(path: Path, model: systolic.Model, shapes: dict[str, tuple[int, ...]]) -> str:
    """Assert that outputs equal ONNX Runtime's, if it is there and takes the model."""
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.integers(0, 2 if spec.dtype == "bool" else 100, shapes[name]).astype(spec.dtype)
        for name, spec in model.inputs.items()
    }
    operators = {node.op_type for node in onnx.load(path).graph.node}
    if operators >= {"DequantizeLinear", "QuantizeLinear"}:
        return "right"  # where a group stays float, the two may round a sum differently
    if any(((array < 1e-6) | (array > 1e6)).any() for array in floats(path)):
        return "right"  # where a mean exceeds 2^31 codes ONNX Runtime overflows
    try:
        theirs = om.onnxruntime_outputs(path, feeds)
    except Exception:  # it has a class of its own for each kind of error
        return "right"
    ours = systolic.run(model, feeds, machine=ARRAY, mode="wavefront").outputs
    for (name, array), other in zip(ours.items(), theirs, strict=True):
        np.testing.assert_array_equal(array, other, err_msg=name)
    return "right, says ONNX Runtime"


def limit_memory() -> None:
    """Let the process take so many megabytes more than it has; only Linux holds to it."""
    import resource

    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(seed: int, first: int, count: int) -> None:
    """Run cases; print what happened to how many, or the number of a case before the error."""
    models = sources()

    def too_long(*_: Any) -> None:
        raise RuntimeError(f"more than {SECONDS} seconds")

    signal.signal(signal.SIGALRM, too_long)
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "models"
        (folder / "sub").mkdir(parents=True)
        (Path(outer) / "secret").write_bytes(bytes(4096))
        (folder / "link").symlink_to(Path(outer) / "secret")
        (folder / "weights").write_bytes(bytes(4096))
        # What is imported on first use does not count.
        path = folder / "case.onnx"
        for model in models:
            path.write_bytes(model.SerializeToString())
            outcome(path)
        limit_memory()
        for number in range(first, first + count):
            kind, data = damaged(seed, number, models)
            path.write_bytes(data)
            print(f"case {number} {kind}", end=": ", flush=True)
            signal.alarm(SECONDS)
            ended = outcome(path)
            signal.alarm(0)
            print(ended, flush=True)
            found[ended] += 1
    print(", ".join(f"{ended}: {times}" for ended, times in sorted(found.items())))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(*map(int, sys.argv[1:]))
