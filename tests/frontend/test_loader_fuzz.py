"""Damaged and hostile ONNX files: refused in words that name what is wrong, never a crash or a hang."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import systolic
from support import onnx_models as om
from systolic import UnsupportedOperator, load_onnx

pytest.importorskip("resource", reason="limits a process's memory")

COUNT = int(os.environ.get("SYSTOLIC_FUZZ", "300"))
SEED = int(os.environ.get("SYSTOLIC_FUZZ_SEED", "0"))
TESTS = Path(__file__).resolve().parents[1]
SCRIPT = TESTS / "support" / "loader_fuzz.py"
NEWEST = onnx.defs.onnx_opset_version()


def fuzz(*arguments: int) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(systolic.__file__).parents[1]), str(TESTS), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=60 + COUNT,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.exhaustive
def test_damaged_files() -> None:
    done = fuzz(SEED, 0, COUNT)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{lines[-1] if lines else 'no case'}\n{done.stderr}"
    assert len(lines) == COUNT + 1
    # Every kind of damage was done, and some of it left a model that runs.
    kinds = {line.split()[2].rstrip(":") for line in lines[:-1]}
    assert len(kinds) == min(COUNT, 20)
    assert "refused" in lines[-1] and "right" in lines[-1], lines[-1]


# One by one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(range(16)))
    return tmp_path / "models"


def refused(model: Any, folder: Path, message: str, error: type[Exception] = ValueError) -> None:
    """Assert that a model is refused with exactly this message, after the file's name."""
    path = om.save(model, folder) if not isinstance(model, Path) else model
    with pytest.raises(error) as caught:
        load_onnx(path)
    assert type(caught.value) is error
    prefix = f"{path}: " if error is UnsupportedOperator else f"{path} is not a valid ONNX model: "
    assert str(caught.value).removeprefix(prefix) == message


def graph(*nodes: Any, outputs: tuple[str, ...] = ("y",), **constants: Any) -> Any:
    return om.model(nodes, {"x": ("int8", (2, 3))}, outputs, constants)


def relu(x: str, y: str, **options: Any) -> Any:
    return om.node("Relu", [x], y, **options)


NOTHING = "neither an input, an initializer, nor written by a node"
BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "cycle of two": (
        lambda: graph(om.node("Add", ["x", "b"], "a"), relu("a", "b"), outputs=("b",)),
        "the graph has a cycle: 'a' -> 'b' -> 'a'",
    ),
    "cycle of one": (
        lambda: graph(om.node("Add", ["x", "y"], "y", name="adder")),
        "the graph has a cycle: 'adder' -> 'adder'",
    ),
    "cycle through a subgraph": (
        lambda: graph(
            om.node("If", ["x"], "a", then_branch=helper.make_graph([relu("y", "t")], "g", [], [om.value("t", "int8", ())])),
            relu("a", "y"),
        ),
        "the graph has a cycle: 'a' -> 'y' -> 'a'",
    ),
    "a cycle, nodes out of order": (
        lambda: graph(
            om.node("Add", ["late", "b"], "y"), relu("b", "a"), relu("x", "late"), relu("a", "b"),
        ),
        "the graph has a cycle: 'b' -> 'a' -> 'b'",
    ),
    "missing initializer": (
        lambda: graph(om.node("Add", ["x", "w"], "y", name="the sum")),
        f"node 'the sum' (Add) reads 'w', which is {NOTHING}",
    ),
    "missing output": (lambda: graph(relu("x", "y"), outputs=("z",)), f"output 'z' is {NOTHING}"),
    "written twice": (
        lambda: graph(relu("x", "y", name="a"), relu("x", "y", name="b")),
        "node 'b' (Relu) writes 'y', which node 'a' writes as well",
    ),
    "input overwritten": (
        lambda: graph(relu("x", "x", name="a"), outputs=("x",)),
        "node 'a' (Relu) writes 'x', which is an input or an initializer",
    ),
    "two initializers of a name": (
        lambda: edited(graph(relu("x", "y"), c=np.int8([1])), lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "it has two initializers 'c'",
    ),
    "two outputs of a name": (lambda: graph(relu("x", "y"), outputs=("y", "y")), "it has two outputs 'y'"),
    "input without a name": (
        lambda: edited(graph(relu("x", "y")), lambda m: m.graph.input.add()),
        "an input has no name",
    ),
    "two attributes of a name": (
        lambda: edited(
            graph(om.node("Flatten", ["x"], "y", axis=1)),
            lambda m: m.graph.node[0].attribute.append(helper.make_attribute("axis", 0)),
        ),
        "node 'y' (Flatten) has two attributes 'axis'",
    ),
    "huge stride": (
        lambda: om.conv(np.random.default_rng(0), strides=[2**62, 1])[0],
        "node 'the_node' (QLinearConv): strides must hold sizes up to 2,147,483,647, not 4,611,686,018,427,387,904",
    ),
    "negative size": (
        lambda: tensor_edited(lambda t: t.dims.__setitem__(0, -3)),
        "initializer 'c' has the shape (-3,); sizes must not be negative",
    ),
    "huge size": (
        lambda: tensor_edited(lambda t: t.dims.extend([2**62])),
        "initializer 'c' has the shape (3, 4611686018427387904), 13835058055282163712 bytes, but holds 3",
    ),
    "too little data": (
        lambda: tensor_edited(lambda t: t.ClearField("raw_data") or setattr(t, "raw_data", b"\1\2")),
        "initializer 'c' has the shape (3,), 3 bytes, but holds 2",
    ),
    "unknown type": (
        lambda: tensor_edited(lambda t: setattr(t, "data_type", 77)),
        "initializer 'c' holds elements of the unknown type 77",
    ),
    "a shape of real numbers": (
        lambda: graph(om.node("Reshape", ["x", "c"], "y"), c=np.float32([3, 2])),
        "node 'y' (Reshape) takes no float for its input 1 (shape), which is 'c'",
    ),
    "opset twice": (
        lambda: edited(graph(relu("x", "y")), lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 20))),
        "it imports the operator set '' in two versions",
    ),
    "opset 0": (
        lambda: edited(graph(relu("x", "y")), lambda m: setattr(m.opset_import[0], "version", 0)),
        "the operator set '' has no version 0",
    ),
}  # fmt: skip


def edited(model: Any, change: Callable[[Any], Any]) -> Any:
    change(model)
    return model


def tensor_edited(change: Callable[[Any], Any]) -> Any:
    model = graph(om.node("Add", ["x", "c"], "y"), c=np.int8([1, 2, 3]))
    return edited(model, lambda m: change(m.graph.initializer[0]))


@pytest.mark.parametrize("case", BROKEN)
def test_broken_models(folder: Path, case: str) -> None:
    make, message = BROKEN[case]
    refused(make(), folder, message)


def test_a_deep_graph_is_no_cycle(folder: Path) -> None:
    nodes = [relu(f"t{i}", f"t{i + 1}") for i in range(3000)]
    refused(graph(*nodes, outputs=("t3000",)), folder, f"node 't1' (Relu) reads 't0', which is {NOTHING}")
    # The search for a cycle goes all the way down, without recursion.
    late = [om.node("Add", ["x", "t3000"], "y"), om.node("Add", ["x", "t3000"], "t0"), *nodes]
    with pytest.raises(ValueError, match="the graph has a cycle: 't3000' -> 't0' -> 't1' -> .*-> 't3000'$"):
        load_onnx(om.save(graph(*late), folder))


UNSUPPORTED: dict[str, tuple[Callable[[], Any], str]] = {
    "newer opset": (
        lambda: om.model([relu("x", "y")], {"x": ("int8", (2,))}, ["y"], opset=NEWEST + 1),
        f"it is of operator set {NEWEST + 1}, and onnx {onnx.__version__} knows up to {NEWEST}; "
        "install a newer onnx package, or convert the model (onnx.version_converter)",
    ),
    "older opset": (
        lambda: om.model([relu("x", "y")], {"x": ("int8", (2,))}, ["y"], opset=9),
        f"it is of operator set 9; supported are 10 to {NEWEST}: convert the model (onnx.version_converter)",
    ),
    "sparse initializer": (
        lambda: edited(
            graph(om.node("Add", ["x", "s"], "y")),
            lambda m: m.graph.sparse_initializer.append(
                helper.make_sparse_tensor(
                    helper.make_tensor("s", TensorProto.INT8, (1,), [1]),
                    helper.make_tensor("at", TensorProto.INT64, (1,), [0]),
                    [2**40],
                )
            ),
        ),
        "the sparse initializer 's' is not supported; store it densely",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_is_not_supported(folder: Path, case: str) -> None:
    make, message = UNSUPPORTED[case]
    refused(make(), folder, message, UnsupportedOperator)


def test_domain_without_a_version(folder: Path) -> None:
    model = graph(om.node("QGemm", ["x"], "y", domain="com.microsoft"))
    del model.opset_import[1]
    with pytest.raises(ValueError, match=r"(?s)model\.onnx is not a valid ONNX model: .*com\.microsoft"):
        load_onnx(om.save(model, folder))


@pytest.mark.parametrize(
    ("kind", "words"),
    [("folder", "is a folder; load_onnx reads"), ("pipe", "is not a plain file; load_onnx reads")],
)
def test_what_is_no_file(folder: Path, kind: str, words: str) -> None:
    path = folder / kind
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path} {words}')} one .onnx file$"):
        load_onnx(path)


def test_a_file_larger_than_protobuf_can_hold(folder: Path) -> None:
    path = folder / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # a hole: it takes no room
    with pytest.raises(
        ValueError, match=r"has 2,147,483,648 bytes, and an ONNX file has at most 2,147,483,647"
    ):
        load_onnx(path)


def test_wrong_inputs_at_run_time(folder: Path) -> None:
    model = load_onnx(om.save(graph(relu("x", "y")), folder))
    x = np.zeros((2, 3), np.int8)
    for feeds, error, words in (
        ({"z": x}, ValueError, "'x'"),
        ({"x": x, "z": x}, ValueError, "'z'"),
        ({"x": x[0]}, ValueError, r"input 'x' must have shape \(2, 3\), not \(3,\)"),
        ({"x": x.astype(np.float32)}, TypeError, "input 'x' must hold int8, not float32"),
    ):
        with pytest.raises(error, match=words):
            systolic.run(model, feeds)


# External data


def with_external(folder: Path, **entries: str) -> Any:
    """A model whose 6 bytes lie elsewhere; `secret` is in the folder above."""
    model = graph(om.node("Add", ["x", "c"], "y"), c=np.int8([[1, 2, 3], [4, 5, 6]]))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model


def test_external_data_is_read(folder: Path) -> None:
    (folder / "sub" / "weights").write_bytes(bytes(range(16)))
    (folder / "six").write_bytes(bytes(range(6)))
    x = np.zeros((2, 3), np.int8)
    for entries, first in (
        ({"location": "sub/weights", "offset": "4", "length": "6"}, 4),
        ({"location": "sub/weights", "length": "6"}, 0),
        ({"location": "six"}, 0),
        ({"location": "sub/weights", "offset": "10"}, 10),
    ):
        model = load_onnx(om.save(with_external(folder, **entries), folder))
        assert systolic.run(model, x).outputs["y"].ravel().tolist() == list(range(first, first + 6))


def test_external_data_beside_a_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "six").write_bytes(bytes(range(6)))
    om.save(with_external(folder, location="six"), folder)
    monkeypatch.chdir(folder)
    assert load_onnx("model.onnx").constants["c"].tolist() == [[0, 1, 2], [3, 4, 5]]


INSIDE = "a location must be a path inside the model's folder"
HOSTILE = {
    "above": ({"location": "../secret"}, f"is external data at '../secret'; {INSIDE}"),
    "down and up": (
        {"location": "sub/../../secret"},
        f"is external data at 'sub/../../secret'; {INSIDE}",
    ),
    "absolute": ({"location": "/etc/passwd"}, f"is external data at '/etc/passwd'; {INSIDE}"),
    "a drive": ({"location": "C:secret"}, f"is external data at 'C:secret'; {INSIDE}"),
    "a share": (
        {"location": r"\\host\secret"},
        rf"is external data at '\\\\host\\secret'; {INSIDE}",
    ),
    "back slashes": ({"location": r"..\secret"}, rf"is external data at '..\\secret'; {INSIDE}"),
    "link": (
        {"location": "link"},
        "is external data at 'link', a symbolic link out of the model's folder; copy the file there",
    ),
    "linked folder": (
        {"location": "out/secret"},
        "is external data at 'out/secret', a symbolic link out of the model's folder; copy the file there",
    ),
    "folder": ({"location": "sub"}, "is external data at 'sub', which is no plain file"),
    "a folder by its path": ({"location": "sub/"}, "is external data at 'sub/', which is no plain file"),
    "the folder itself": ({"location": "."}, "is external data at '.', which is no plain file"),
    "pipe": ({"location": "pipe"}, "is external data at 'pipe', which is no plain file"),
    "within a file": (
        {"location": "data/x"}, "is external data at 'data/x', which is not there; keep it by the model"
    ),
    "a name too long": (
        {"location": "n" * 300}, f"is external data at '{'n' * 200}...', which cannot be opened: File name too long"
    ),
    "a path too long": (
        {"location": "n/" * 3000},
        f"is external data at '{'n/' * 100}...', which cannot be opened: File name too long",
    ),
    "absent": ({"location": "gone"}, "is external data at 'gone', which is not there; keep it by the model"),
    "nowhere": ({"offset": "3"}, "is external data without a location"),
    "zero byte": ({"location": "a\0b"}, "is external data without a location"),
    "offset negative": (
        {"location": "data", "offset": "-6"},
        ": the offset of its external data must be a number, not '-6'",
    ),
    "offset beyond": (
        {"location": "data", "offset": "11", "length": "6"},
        "reads 6 bytes at 11 of data, which has 16; the file is truncated, or another one",
    ),
    "length unlike the shape": (
        {"location": "data", "length": "7"},
        "takes 6 bytes, but its external data has 7",
    ),
    "all of a longer file": ({"location": "data"}, "takes 6 bytes, but its external data has 16"),
    "length huge": (
        {"location": "data", "length": "9" * 30},
        f": the length of its external data must be a number, not '{'9' * 30}'",
    ),
    "unknown key": (
        {"location": "data", "basepath": "/etc"},
        ": its external data has the unknown key 'basepath'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_external_data_refused(folder: Path, case: str) -> None:
    (folder / "data").write_bytes(bytes(16))
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "out").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe")
    entries, message = HOSTILE[case]
    refused(with_external(folder, **entries), folder, f"initializer 'c'{' ' * (message[0] != ':')}{message}")


def test_external_data_at_links_in_a_circle(folder: Path) -> None:
    (folder / "round").symlink_to("circle")
    (folder / "circle").symlink_to("round")
    path = om.save(with_external(folder, location="round"), folder)
    # Python 3.13 takes them for links to nothing.
    with pytest.raises(
        ValueError, match="'round', which (cannot be opened: its symbolic links|is not there)"
    ):
        load_onnx(path)


def test_external_data_of_an_attribute(folder: Path) -> None:
    tensor = with_external(folder, location="../secret").graph.initializer[0]
    refused(
        graph(om.node("Constant", [], "y", value=tensor, name="k")), folder,
        f"attribute value of node 'k' is external data at '../secret'; {INSIDE}",
    )  # fmt: skip


def test_external_data_is_not_read_over_and_over(folder: Path) -> None:
    (folder / "data").write_bytes(bytes(1000))
    model = graph(relu("x", "y"))
    for number in range(3):
        tensor = model.graph.initializer.add(name=f"w{number}", data_type=TensorProto.INT8, dims=[1000])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="data")
    refused(
        model, folder,
        "its tensors read 3,000 bytes from external files that have 1,000; at most 2 tensors may share data",
    )  # fmt: skip
    del model.graph.initializer[2]
    load_onnx(om.save(model, folder))


# Files of a few bytes that ask for terabytes


@pytest.mark.parametrize("op", ("ConstantOfShape", "Expand", "Tile", "Pad"))
@pytest.mark.parametrize("sizes", ([2**14, 2**14], [2**20, 2**20], [2**12] * 3, [2**62, 2**62]))
@pytest.mark.slow
def test_constants_that_blow_up(folder: Path, op: str, sizes: list[int]) -> None:
    one = np.ones((1,) * len(sizes), np.float32)
    pads = np.int64([*[0] * len(sizes), *sizes])
    inputs = ["shape"] if op == "ConstantOfShape" else ["one", "pads" if op == "Pad" else "shape"]
    constants = {"shape": np.int64(sizes), "one": one, "pads": pads}
    model = om.model([om.node(op, inputs, "y")], {"x": ("int8", (2,))}, ["y"], constants)
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    assert len(model.SerializeToString()) < 300
    path = om.save(model, folder)
    if sizes == [2**14, 2**14]:
        # 1 GiB may be there, when it is run.
        assert [node.output for node in load_onnx(path).nodes] == ["y"]
    else:
        with pytest.raises(ValueError, match="'y'"):
            load_onnx(path)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_subgraphs_are_as_deep_as_protobuf_allows(folder: Path) -> None:
    inner: Any = relu("x", "t0")
    for depth in range(1, 30):
        branch = helper.make_graph([inner], "g", [], [om.value(f"t{depth - 1}", "int8", ())])
        try:
            inner = om.node("If", ["c"], f"t{depth}", then_branch=branch, else_branch=branch)
        except Exception:
            break
        if len(inner.SerializeToString()) > 1_000_000:
            break
    model = graph(inner, outputs=(inner.output[0],), c=np.array(True))
    try:
        load_onnx(om.save(model, folder))
    except ValueError as error:
        assert str(error)


def test_numbers_come_whole(folder: Path) -> None:
    """What the checks let through is read as it was written, for every way of storing it."""
    values = np.int32([[1, -2, 3]])
    for raw in (True, False):
        tensor = helper.make_tensor(
            "c", TensorProto.INT32, (1, 3), values.tobytes() if raw else values.ravel(), raw=raw
        )
        model = om.model([om.node("Add", ["x", "c"], "y")], {"x": ("int32", (2, 3))}, ["y"])
        model.graph.initializer.append(tensor)
        np.testing.assert_array_equal(load_onnx(om.save(model, folder)).constants["c"], values)
