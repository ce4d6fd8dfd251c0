"""The twin against the emulator under Icarus, by cocotb: no monitor, no files, ports driven by hand.

Slower by far than the bench, and on another way: what Verilator's monitor says can be trusted no
further than this agrees with it. Run it by itself: ``python tests/support/rtl/cocotb_check.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from support.rtl.scenarios import by_hand  # noqa: E402
from systolic import ArrayConfig, SystolicArray  # noqa: E402
from systolic.formats import bits  # noqa: E402
from systolic.rtl import SOURCES  # noqa: E402

# cocotb imports this file again, in the simulator's process.
DATAFLOW = os.environ.get("COMPARED_DATAFLOW", "weight_stationary")
FILES = {
    "weight_stationary": ("pe.sv", "systolic_array.sv"),
    "output_stationary": ("output_pe.sv", "output_array.sv"),
}
CLOCKS = 2500


def config_of(dataflow: str) -> ArrayConfig:
    """Return the array that is compared."""
    return ArrayConfig(2, 3, activation_dtype="uint8", dataflow=dataflow)


@cocotb.test()
async def every_register(dut) -> None:
    """Read every register of every PE through its handle after every edge."""
    Clock(dut.clk, 10, unit="ns").start()
    config = config_of(DATAFLOW)
    clocks = seed = 0
    while clocks < CLOCKS:
        ports = by_hand(config, seed).ports
        array = SystolicArray(config)
        dut.reset.value = 1
        await FallingEdge(dut.clk)
        dut.reset.value = 0
        for t in range(len(ports["swap"])):
            edge = {name: values[t] for name, values in ports.items()}
            for port in config.dataflow_record.ports:
                values = edge[port.name]
                getattr(dut, f"{port.side}_{port.name}").value = packed(values, bits(values.dtype))
            await FallingEdge(dut.clk)
            array.step(**edge)
            for name, expected in array.registers.items():
                for r, c in np.ndindex(expected.shape):
                    value = getattr(dut.row[r].col[c].pe, name).value
                    actual = value.to_signed() if expected.dtype.kind == "i" else int(value)
                    assert actual == expected[r, c], (
                        f"{name} of PE ({r}, {c}) at cycle {t + 1}: "
                        f"RTL {actual}, emulator {expected[r, c]} (seed {seed})"
                    )
        clocks += len(ports["swap"])
        seed += 1
    Path(os.environ["CLOCKS_COMPARED"]).write_text(str(clocks))


def packed(values: np.ndarray, bits: int) -> int:
    """Return the ports as one number, port 0 lowest."""
    return sum((int(value) & (1 << bits) - 1) << bits * i for i, value in enumerate(values))


def run(folder: Path, sources: Path, dataflow: str) -> int:
    """Build, run, and return how many clocks were compared; 0 if the test failed."""
    from cocotb_tools.runner import get_runner

    config, files = config_of(dataflow), FILES[dataflow]
    top = Path(files[-1]).stem
    runner = get_runner("icarus")
    runner.build(
        sources=[sources / name for name in files],
        hdl_toplevel=top,
        parameters={
            "ROWS": config.rows,
            "COLS": config.cols,
            "ACTIVATION_SIGNED": int(config.activation_dtype == "int8"),
            "WEIGHT_SIGNED": int(config.weight_dtype == "int8"),
        },
        build_args=["-g2012"],
        build_dir=folder,
        timescale=("1ns", "1ps"),
    )
    compared = folder / "clocks_compared"
    search = os.pathsep.join([str(HERE), *sys.path])
    results = runner.test(
        hdl_toplevel=top,
        test_module="cocotb_check",
        build_dir=folder,
        test_dir=folder,
        extra_env={"PYTHONPATH": search, "CLOCKS_COMPARED": str(compared), "COMPARED_DATAFLOW": dataflow},
    )
    cases = list(ElementTree.parse(results).iter("testcase"))
    failed = not cases or any(case.find("failure") is not None for case in cases)
    return 0 if failed or not compared.exists() else int(compared.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=Path, default=SOURCES, help="where the SystemVerilog files stand")
    parser.add_argument("--dataflow", choices=tuple(FILES), default="weight_stationary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clocks = run(Path(name), options.sources.resolve(), options.dataflow)
    print(f"{clocks} clocks compared" if clocks else "failed")
    sys.exit(not clocks)
