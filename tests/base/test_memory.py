"""How much memory there is, and refusals before anything is allocated."""

from __future__ import annotations

import os
import sys
import tracemalloc

import numpy as np
import pytest

import systolic
from systolic import Model, Node, QuantParams, _memory
from systolic.layers import Binary, Conv2d, Expand

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that writes files of a made-up machine: /proc and /sys/fs/cgroup."""
    monkeypatch.setattr(_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(_memory, "_CGROUPS", tmp_path / "cgroup")

    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


MEMINFO = "MemTotal: 8388608 kB\nMemFree: 1024 kB\nMemAvailable: 4194304 kB\nSwapFree: 1048576 kB\nHugePages_Total: 0\n"


def test_available_is_what_the_kernel_estimates_and_free_swap(machine):
    machine(proc__meminfo=MEMINFO)
    assert _memory.available_bytes() == 5 * GIB


@pytest.mark.parametrize("text", [None, "", "MemTotal: 8388608 kB\n", "MemAvailable: many kB\n"])
def test_available_without_meminfo_is_physical_memory_or_unknown(machine, monkeypatch, text):
    if text is not None:
        machine(proc__meminfo=text)
    monkeypatch.setattr(_memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__, raising=False)
    assert _memory.available_bytes() == 4096000
    monkeypatch.delattr(_memory.os, "sysconf")
    assert _memory.available_bytes() is None
    _memory.require(1 << 80, "anything")


@pytest.mark.parametrize("path", ["/", "/user/job", "/not/mounted/here"])
def test_available_is_within_the_limit_of_the_control_group(machine, path):
    # Version 2; a container sees its own group as the root, whatever its name outside.
    machine(
        proc__meminfo=MEMINFO,
        proc__self__cgroup=f"0::{path}\n",
    )
    assert _memory.available_bytes() == 5 * GIB
    group = "cgroup__user" if path == "/user/job" else "cgroup"
    machine(**{
        f"{group}__memory.max": f"{3 * GIB}\n",
        f"{group}__memory.current": f"{2 * GIB}\n",
        f"{group}__memory.stat": f"anon 5\nactive_file 7\ninactive_file {GIB // 2}\n",
    })  # fmt: skip
    assert _memory.available_bytes() == GIB + GIB // 2
    machine(**{f"{group}__memory.max": "max\n"})
    assert _memory.available_bytes() == 5 * GIB


def test_available_is_within_the_limit_of_a_control_group_of_version_1(machine):
    machine(
        proc__meminfo=MEMINFO,
        proc__self__cgroup="5:cpu:/\n4:hugetlb,memory:/job\n0::/\n",
    )
    machine(**{
        "cgroup__memory__job__memory.limit_in_bytes": str(GIB),
        "cgroup__memory__job__memory.usage_in_bytes": str(2 * GIB),
        "cgroup__memory__job__memory.stat": "inactive_file 1\ntotal_inactive_file 2\n",
    })  # fmt: skip
    assert _memory.available_bytes() == 0  # over its limit, which the kernel allows for a moment
    machine(**{"cgroup__memory__job__memory.usage_in_bytes": "0"})
    assert _memory.available_bytes() == GIB + 2


def test_the_name_of_a_control_group_is_any_bytes(machine, tmp_path):
    machine(proc__meminfo=MEMINFO, proc__self__cgroup="")
    (tmp_path / "proc" / "self" / "cgroup").write_bytes(b"0::/a\xffb\n")
    assert _memory.available_bytes() == 5 * GIB
    machine(**{f"cgroup__memory.{name}": text for name, text in (("max", f"{GIB}"), ("current", "0"), ("stat", ""))})
    assert _memory.available_bytes() == GIB


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of Unix")
def test_available_is_within_the_limit_of_the_address_space(machine, monkeypatch):
    import resource

    limits = (3 * GIB, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits if which == resource.RLIMIT_AS else None)
    machine(proc__meminfo=MEMINFO)
    assert _memory.available_bytes() == 5 * GIB, "what the process has is not known"
    machine(proc__self__statm=f"{GIB // os.sysconf('SC_PAGE_SIZE')} 5 3 1 0 2 0\n")
    assert _memory.available_bytes() == 2 * GIB
    limits = (GIB // 2, GIB // 2)
    assert _memory.available_bytes() == 0
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert _memory.available_bytes() == 5 * GIB


def test_this_machine_says_something_sensible():
    there = _memory.available_bytes()
    assert there is None or 1 << 20 < there < 1 << 50


def test_require(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 3 * GIB)
    _memory.require(3 * GIB, "just so")
    message = r"Conv: the output takes 3,221,225,473 bytes \(3\.0 GiB\), but 3,221,225,472 \(3\.0 GiB\) are available; use smaller"
    with pytest.raises(MemoryError, match=message):
        _memory.require(3 * GIB + 1, "Conv: the output")
    _memory.require_array((GIB, 3), "int8", "x")
    with pytest.raises(MemoryError, match=r"^Conv: the output \(1073741824, 3\) int16 takes 6,442,450,944 bytes"):
        _memory.require_array(np.array([GIB, 3]), "int16", "Conv: the output")
    # Sizes beyond 64 bits are counted, not wrapped.
    with pytest.raises(MemoryError, match=f"{1 << 83:,} bytes"):
        _memory.require_array((1 << 40, 1 << 40), np.dtype("float64"), "x")


def test_small_sizes_do_not_look(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: pytest.fail("looked"))
    _memory.require(1 << 26, "little")
    _memory.require_array((1 << 26,), "int8", "little")


# Where it is asked


def refused(model: Model, feeds: dict[str, np.ndarray], message: str) -> list[str]:
    """The nodes that ran before a run was refused."""
    ran: list[str] = []
    with pytest.raises(MemoryError, match=message):
        systolic.run(model, feeds, mode="wavefront", observe=lambda node, *_: ran.append(node.name))
    return ran


def test_run_refuses_outputs_larger_than_memory_before_anything_runs(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: GIB)
    nodes = [Node(Binary("Add"), ("x", "x"), "y"), Node(Binary("Mul"), ("y", "z"), "outer", "the outer product")]
    model = Model(nodes, inputs={"x": ((None, 1), "float32"), "z": ((None,), "float32")})
    feeds = {"x": np.zeros((1 << 15, 1), np.float32), "z": np.zeros(1 << 15, np.float32)}
    message = r"^node 'the outer product' \(Mul\): the output \(32768, 32768\) float32 takes 4,294,967,296 bytes"
    assert refused(model, feeds, message) == []


def test_run_counts_sums_of_the_array_as_int32(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 1 << 28)
    one = QuantParams(1.0)
    model = Model(
        [Conv2d(np.ones((1, 1, 1, 1), np.int8), x=one, w=one, y=one, padding=5000)], inputs={"x": ((1, 1, 1, 1), "int8")}
    )
    assert refused(model, {"x": np.zeros((1, 1, 1, 1), np.int8)}, r"\(QLinearConv\): .* int8 takes 400,080,004 bytes") == []


def test_run_refuses_outputs_whose_shape_it_computes_when_it_knows_it(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: GIB)
    nodes = [Node(Binary("Add"), ("n", "n"), "shape"), Node(Expand(), ("x", "shape"), "y", "large")]
    model = Model(nodes, inputs={"x": ((1,), "int8"), "n": ((2,), "int64")})
    feeds = {"x": np.int8([1]), "n": np.int64([1 << 15, 1 << 15])}
    assert refused(model, feeds, r"^node 'large' \(Expand\): the output \(65536, 65536\) int8 takes") == ["shape"]


def test_run_names_the_node_that_found_no_memory(monkeypatch):
    def apply(*_):
        raise MemoryError("Unable to allocate 9 GiB")

    layer = Binary("Add")
    object.__setattr__(layer, "apply", apply)
    model = Model([Node(layer, ("x", "x"), "y", "greedy")], inputs={"x": ((1,), "int8")})
    assert refused(model, {"x": np.int8([1])}, r"^node 'greedy' \(Add\): Unable to allocate 9 GiB$") == []


@pytest.mark.parametrize("mode", ["cycle", "wavefront"])
def test_padding_takes_no_memory(mode):
    one = QuantParams(1.0, 3, "uint8")
    # Weights with a zero point need the sum of each patch, too.
    layer = Conv2d(np.ones((1, 1, 1, 1), np.uint8), x=one, w=one, y=one, stride=39999, padding=20000)
    model = Model([layer], inputs={"x": ((1, 1, 1, 1), "uint8")})
    systolic.run(model, np.uint8([[[[7]]]]), mode=mode)  # what is imported or made once is not counted
    tracemalloc.start()
    try:
        run = systolic.run(model, np.uint8([[[[7]]]]), mode=mode)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert run.outputs[model.outputs[0]].shape == (1, 1, 2, 2) and peak < 1 << 22


HUGE = 1 << 18


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (systolic.layers.FloatConv(stride=HUGE, padding=HUGE), [(1, 1, 1, 1), (1, 1, 1, 1)]),
        (systolic.layers.FloatConvTranspose(stride=HUGE, padding=HUGE // 2, output_padding=1), [(1, 1, 2, 2), (1, 1, 1, 1)]),
        (systolic.layers.FloatConv(np.ones((1, 1, 1, 1)), stride=HUGE, padding=HUGE), [(1, 1, 1, 1)]),
        (systolic.layers.MaxPool((HUGE, HUGE), stride=(HUGE, HUGE), padding=((HUGE - 1, 0),) * 2), [(1, 1, 1, 1)]),
        (systolic.layers.AveragePool((HUGE, HUGE), stride=(HUGE, HUGE), padding=((HUGE - 1, 0),) * 2), [(1, 1, 1, 1)]),
        (systolic.layers.MaxPool((HUGE, HUGE), stride=(HUGE, HUGE), padding=((HUGE - 1, 0),) * 2, indices="row"), [(1, 1, 1, 1)]),
        (systolic.layers.MaxPool((HUGE, HUGE), stride=HUGE, padding=((HUGE - 1, 0),) * 2, channels_last=True), [(1, 1, 1, 1)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_padding_of_host_layers_takes_no_memory(layer, shapes):
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    tracemalloc.start()
    try:
        layer.apply(*arrays)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 22
