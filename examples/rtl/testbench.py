"""A cocotb test bench of an array in RTL: the same product in RTL and emulator, every register compared.

``python run.py scoreboard`` runs it under Icarus Verilog, ``--dataflow`` on another array.
"""

import os

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from systolic import ArrayConfig, Scoreboard, ports

CONFIG = ArrayConfig(
    4,
    3,
    activation_dtype="uint8",
    weight_dtype="int8",
    dataflow=os.environ.get("DATAFLOW", "weight_stationary"),
)


@cocotb.test()
async def product(dut):
    """Several folds of a product: ports from ``systolic.ports``, registers against a ``Scoreboard``."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (9, 6), np.uint8), rng.integers(-128, 128, (6, 5), np.int8)
    Clock(dut.clk, 10, unit="ns").start()
    dut.reset.value = 1
    await FallingEdge(dut.clk)
    dut.reset.value = 0
    board = Scoreboard(CONFIG)
    for on in ports(x, w, array=CONFIG):
        drive(dut, on)
        await FallingEdge(dut.clk)
        board.edge(**on.ports)
        board.compare(**{name: register(dut, name, like) for name, like in board.expected.items()})
    dut._log.info("%d register values compared", board.compared)


# For another design these two change: how its ports and its registers are called.


def drive(dut, on):
    """Put a cycle's values on the ports, the first row or column in the lowest bits."""
    for port in CONFIG.dataflow_record.ports:
        values = on.ports[port.name]
        if values.dtype == bool:
            values = np.packbits(values, bitorder="little")
        getattr(dut, f"{port.side}_{port.name}").value = packed(values)


def register(dut, name, like):
    """Return one register of all PEs, an array of the shape and type of `like`."""
    values = [int(getattr(dut.row[r].col[c].pe, name).value) for r, c in np.ndindex(like.shape)]
    return np.array(values).astype(like.dtype).reshape(like.shape)


def packed(port):
    """Return the bytes of an array as one number."""
    return int.from_bytes(port.tobytes(), "little")
