"""A cocotb test bench of an array in RTL: the same product in RTL and emulator, every register compared.

``python run.py scoreboard`` runs it under Icarus Verilog, ``--dataflow`` on another array.
"""

import os
import re

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from systolic import ArrayConfig, Scoreboard, ScoreboardError
from systolic.cosim import SignalMap

CONFIG = ArrayConfig(
    4,
    3,
    activation_dtype="uint8",
    weight_dtype="int8",
    dataflow=os.environ.get("DATAFLOW", "weight_stationary"),
)

# For another design these change: how its registers are called and when they come, and its ports.

MAP = SignalMap(signals={name: f"row[{{r}}].col[{{c}}].pe.{name}" for name in CONFIG.register_dtypes})


def drive(dut, ports):
    """Put a cycle's values on the ports, the first row or column in the lowest bits."""
    for port in CONFIG.dataflow_record.ports:
        values = ports[port.name]
        if values.dtype == bool:
            values = np.packbits(values, bitorder="little")
        getattr(dut, f"{port.side}_{port.name}").value = int.from_bytes(values.tobytes(), "little")


@cocotb.test()
async def product(dut):
    """Several folds of a product: every register after every edge; if one is wrong, the usual mistake."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (9, 6), np.uint8), rng.integers(-128, 128, (6, 5), np.int8)
    Clock(dut.clk, 10, unit="ns").start()
    dut.reset.value = 1
    await FallingEdge(dut.clk)
    dut.reset.value = 0
    board = Scoreboard(CONFIG, map=MAP)
    handles = {name: handle(dut, name) for name in board.signals}
    samples, wrong = [], None
    for ports in board.ports(x, w):
        drive(dut, ports)
        await FallingEdge(dut.clk)
        samples.append({name: each.value for name, each in handles.items()})
        try:
            if wrong is None:
                board.edge(**ports)
                board.sample(samples[-1])
        except ScoreboardError as error:
            wrong = error  # record the rest, to tell why
    if wrong is not None:
        dut._log.error("the whole product:\n%s", board.diagnose(x, w, samples))
        raise wrong
    dut._log.info("%d register values compared", board.compared)


def handle(dut, name):
    """Return the handle of a signal, such as row[1].col[0].pe.psum."""
    for part in re.findall(r"\w+", name):
        dut = dut[int(part)] if part.isdecimal() else getattr(dut, part)
    return dut
