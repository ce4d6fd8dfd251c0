"""``compare``: cycles and bytes at the ports against what an array does in cycle mode."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import systolic
from support.strategies import around, array_configs, examples, raises
from systolic import ArrayConfig, Gemm, MachineConfig, Model, Node, QuantParams, Trace, presets
from systolic.dataflows import DATAFLOWS
from systolic.formats import dtype_of, packed_bytes
from systolic.layers import Dense, MatMulInteger, Relu
from systolic.tiling import PortBytes, port_bytes
from systolic.workloads import Workload

DIGITS = systolic.load_example().model


def counted(trace: Trace, config: ArrayConfig) -> PortBytes:
    """The bytes of values other than zero that entered the first PEs and left the last ones, edge by edge."""
    west = trace["activation"][:, :, 0]
    if config.dataflow_record.held:
        north = trace["weight"][:, 0]
        south = np.where((trace["swap"] | trace["drain"])[:, -1], trace["out"][:, -1], 0)
    else:
        # A value has arrived where the shift bit has.
        north = np.where(trace["shift"][:, 0], trace["next_weight"][:, 0], 0)
        south = trace["psum"][:, -1]
    bits = [config.format.activation_bits, config.format.weight_bits]
    if config.dataflow == "input_stationary":
        bits.reverse()
    entered = [packed_bytes(np.count_nonzero(each), b) for each, b in zip((west, north), bits, strict=True)]
    return PortBytes(*entered, np.count_nonzero(south) * config.format.sum_bytes)


@examples(60)
@given(array_configs(max_rows=4, max_cols=4), around(4, 9), around(4, 9), around(4, 9))
def test_counts_are_those_of_cycle_mode(array: ArrayConfig, m: int, k: int, n: int) -> None:
    # Above zero, so that padding and idle beats differ from values; small, so that no sum wraps.
    x, w = np.arange(m * k).reshape(m, k) % 9 + 1, np.arange(k * n).reshape(k, n) % 7 + 1
    trace = Trace()
    result = systolic.matmul(
        x.astype(array.activation_dtype), w.astype(array.weight_dtype), array=array, trace=trace
    )
    cost = systolic.compare(Gemm(m, k, n), machine=array)[array.dataflow]
    assert cost.cycles == result.cycles and cost.stats == result.stats
    assert cost.ports == counted(trace, array)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("double_buffered", [True, False])
def test_counts_of_a_grouped_convolution(dataflow: str, double_buffered: bool) -> None:
    array = ArrayConfig(5, 4, accumulator_rows=14, double_buffered=double_buffered, dataflow=dataflow)
    x, w = np.ones((2, 6, 9, 7), np.int8), np.ones((9, 2, 3, 2), np.int8)
    trace = Trace()
    result = systolic.conv2d(x, w, array=array, groups=3, stride=2, trace=trace)
    assert result.gemm.groups == 3
    cost = systolic.compare(result.gemm, machine=array)[dataflow]
    assert cost.stats == result.stats and cost.ports == counted(trace, array)


def test_each_dataflow_moves_what_it_must() -> None:
    # Two k tiles, three n tiles, one chunk of rows: x enters for each n tile, sums leave for each k tile.
    gemm, array = Gemm(10, 8, 12), ArrayConfig(4, 4)
    x, w, sums = 10 * 8, 8 * 12, 4 * 10 * 12
    ports = {name: port_bytes(gemm, replace(array, dataflow=name)) for name in DATAFLOWS}
    assert ports == {
        "weight_stationary": PortBytes(3 * x, w, 2 * sums),
        "output_stationary": PortBytes(3 * x, 3 * w, sums),
        "input_stationary": PortBytes(3 * w, x, 2 * sums),
    }


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize(
    "numbers",
    [
        {"activation_dtype": "int8", "weight_dtype": "int4"},
        {"activation_dtype": "uint8", "weight_dtype": "int8", "psum_bits": 20},
        {"activation_dtype": "int16", "weight_dtype": "uint8", "psum_bits": 64, "overflow": "saturate"},
        {"activation_dtype": "bfloat16", "weight_dtype": "bfloat16"},
    ],
    ids=lambda numbers: "-".join(map(str, numbers.values())),
)
def test_counts_in_other_formats(dataflow: str, numbers: dict[str, Any]) -> None:
    pytest.importorskip("ml_dtypes")
    config = ArrayConfig(4, 3, dataflow=dataflow, accumulator_rows=8, **numbers)
    x, w = np.arange(35).reshape(5, 7) % 6 + 1, np.arange(49).reshape(7, 7) % 5 + 1
    trace = Trace()
    result = systolic.matmul(
        x.astype(dtype_of(config.activation_dtype)), w.astype(dtype_of(config.weight_dtype)), array=config,
        trace=trace,
    )  # fmt: skip
    cost = systolic.compare(Gemm(5, 7, 7), machine=config)[dataflow]
    assert cost.stats == result.stats and cost.ports == counted(trace, config)


@pytest.mark.parametrize("sizes", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_empty_products(sizes: tuple[int, int, int]) -> None:
    found = systolic.compare(Gemm(*sizes), machine=ArrayConfig(2, 2))
    for cost in found.values():
        assert cost.cycles == 0 and cost.ports.total == 0 and cost.utilization == 0


def test_a_model_is_the_sum_of_its_layers() -> None:
    machine = MachineConfig(ArrayConfig(16, 8), clock_mhz=940)
    found = systolic.compare(DIGITS, machine=machine, batch=3)
    assert list(found) == list(DATAFLOWS) and len(found) == 3
    for name, cost in found.items():
        assert cost.stats == systolic.estimate(DIGITS, machine=ArrayConfig(16, 8, dataflow=name), batch=3)
        assert cost.ports.total == sum(costs[name].ports.total for _, costs in found.layers)
    products = {"a": Gemm(2, 3, 60), "b": Gemm(100, 8, 8)}
    larger = {"a": Gemm(6, 3, 60), "b": Gemm(300, 8, 8)}
    of_three = systolic.compare(products, machine=machine, batch=3)
    assert dict(of_three) == dict(systolic.compare(larger, machine=machine))
    assert of_three["weight_stationary"].stats == systolic.estimate(products, machine=machine, batch=3)
    few = systolic.compare(products, machine=machine)
    assert [name for name, _ in few.layers] == ["a", "b"] and few.name == "2 products"
    assert few.mixed_cycles == sum(min(cost.cycles for cost in costs.values()) for _, costs in few.layers)
    assert few.mixed_cycles < few[few.fastest].cycles == min(cost.cycles for cost in few.values())
    assert few != systolic.compare(list(products.values()), machine=machine)
    assert few == systolic.compare(products, machine=replace(presets.TPU_V1, array=machine.array, clock_mhz=940))


def test_paths_and_workloads(tmp_path: Path) -> None:
    array = ArrayConfig(8, 8)
    block = Workload("block", [("qkv", Gemm(6, 8, 8), 3), ("out", Gemm(6, 8, 8))])
    found = systolic.compare(block, array=array)
    assert found.name == "block" and [name for name, _ in found.layers] == ["qkv", "out"]
    for name, cost in found.items():
        assert cost.stats == systolic.estimate(block, array=replace(array, dataflow=name))
    DIGITS.save(tmp_path / "digits.zip")
    of_file = systolic.compare(tmp_path / "digits.zip", array=array, batch=2)
    assert dict(of_file) == dict(systolic.compare(DIGITS, array=array, batch=2))
    (tmp_path / "block.json").write_text(json.dumps(block.to_dict()))
    assert systolic.compare(str(tmp_path / "block.json"), array=array).layers == found.layers


def test_a_layer_of_several_products() -> None:
    # One product for each step of a stack.
    model = Model([Node(MatMulInteger(), ("a", "b"), "y")], inputs={"a": ((3, 2, 4), "int8"), "b": ((3, 4, 5), "int8")})
    ((_, costs),) = systolic.compare(model, machine=ArrayConfig(4, 4)).layers
    for dataflow, cost in costs.items():
        assert cost.stats == systolic.estimate(model, machine=ArrayConfig(4, 4, dataflow=dataflow))


def test_as_data() -> None:
    found = systolic.compare([Gemm(3, 40, 5), Gemm(50, 2, 2)], machine=ArrayConfig(4, 4))
    values = json.loads(json.dumps(found.to_dict()))
    assert values["fastest"] == found.fastest and values["mixed_cycles"] == found.mixed_cycles
    assert [each["dataflow"] for each in values["dataflows"]] == list(DATAFLOWS)
    for each, cost in zip(values["dataflows"], found.values(), strict=True):
        assert each == cost.to_dict() and each["port_bytes"]["west"] == cost.ports.west
    assert [layer["name"] for layer in values["layers"]] == ["3 x 40 x 5", "50 x 2 x 2"]
    frame = found.to_frame()
    assert len(frame) == 6 and list(frame["dataflow"]) == [*DATAFLOWS] * 2
    assert frame.groupby("dataflow")["south_bytes"].sum().to_dict() == {n: c.ports.south for n, c in found.items()}


def test_as_text() -> None:
    found = systolic.compare(Gemm(100, 512, 64), machine=ArrayConfig(64, 64))
    assert repr(found) == (
        "<Comparison of 100 x 512 x 64 on 64 x 64 PEs at 700 MHz: weight stationary 990, output stationary 1,214, "
        "input stationary 1,214 cycles>"
    )
    row = "weight stationary     990  1.41 µs        80.8%  51,200  32,768  204,800  288,768"
    assert str(found).splitlines()[3] == row
    assert found._repr_html_().count("<tr>") == 5
    row = "100 x 512 x 64                       990                     1,214                    1,214  weight stationary"
    assert str(found.layer_table()).splitlines()[-1] == row
    assert "total" in str(systolic.compare(DIGITS).layer_table())


@pytest.mark.parametrize("count", [1, 2, 40, 80])
def test_plots(count: int) -> None:
    pytest.importorskip("matplotlib")
    work = {f"layer{number}": Gemm(number + 1, 5, 6) for number in range(count)}
    figure = systolic.compare(work, machine=ArrayConfig(4, 4)).plot()
    cycles, ports, *layers = figure.axes
    assert len(cycles.patches) == 3 and len(ports.patches) == 9 and len(layers) == (count > 1)
    if layers:
        assert len(layers[0].lines) == 3 and all(len(line.get_xdata()) == count for line in layers[0].lines)


def test_what_is_refused() -> None:
    dense = Dense(np.eye(4, dtype=np.int8), x=QuantParams(0.5), w=QuantParams(0.5), y=QuantParams(0.5))
    model = Model([dense, Relu()], inputs={"x": ((None, 4), "int8")})
    for work, message in (
        (5, "compare takes a Gemm, several in a list or by name, a Workload, a Model or the path of one, not int 5"),
        ([5], "a layer of workload 'products' must be a Gemm, (name, Gemm) or (name, Gemm, count), not int 5"),
        (systolic.compile(model, machine=presets.TPU_V1), "a program is weight stationary; compare takes the Model that it was compiled from"),
    ):
        with raises(TypeError, message):
            systolic.compare(work)  # type: ignore[arg-type]
    with raises(TypeError, "machine must be a MachineConfig or an ArrayConfig, not str"):
        systolic.compare(Gemm(1, 2, 3), machine="tpu")  # type: ignore[arg-type]
    with raises(ValueError, "workload 'products' has no layers; give it at least one"):
        systolic.compare([])
    with raises(ValueError, "shapes are of a model's inputs; products have their sizes: leave shapes out"):
        systolic.compare(Gemm(1, 2, 3), shapes={"x": (1, 2)})
    with pytest.raises(KeyError, match="no dataflow 'row_stationary'; the dataflows are weight_stationary, "):
        systolic.compare(Gemm(1, 2, 3))["row_stationary"]
