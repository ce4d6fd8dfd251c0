"""Small arrays in Python that stand for RTL: with hops, latency, held sums, and one mistake each.

They are written as hardware is, register by register in cycles; nothing here knows of local time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from systolic import ArrayConfig, Gemm, Scoreboard, folds
from systolic.cosim import SignalMap


@dataclass(frozen=True)
class Toy:
    """How a toy differs from the emulator's array.

    Attributes
    ----------
    hop : (int, int)
        Registers from a PE to the one below and on its right.
    latency : int
        Cycles that every register is seen later.
    held : bool
        Whether sums keep their value while not valid.
    mistake : str
        One of those named in :func:`ways`; "": none.
    lane : int
        The row or column that the mistake is about.
    """

    hop: tuple[int, int] = (1, 1)
    latency: int = 0
    held: bool = False
    mistake: str = ""
    lane: int = 0


def moved(values: np.ndarray, late: Sequence[int]) -> np.ndarray:
    """Return port values, (cycles, lanes), with each lane so many cycles late, or early."""
    found = np.zeros_like(values)
    for lane, cycles in enumerate(late):
        cut = len(values) - abs(cycles)
        if cycles >= 0:
            found[cycles:, lane] = values[:cut, lane]
        else:
            found[:cut, lane] = values[-cycles:, lane]
    return found


def driven(config: ArrayConfig, x: np.ndarray, w: np.ndarray, toy: Toy) -> dict[str, np.ndarray]:
    """Return the ports of a product as the bench of a toy drives them, (cycles, lanes), and its valid bits."""
    rows, cols, name = config.rows, config.cols, toy.mistake
    board = Scoreboard(config, map=SignalMap(hop=toy.hop, latency=toy.latency))
    if name in ("rows reversed", "tile transposed"):
        right, w = w, w.copy()
        for fold in folds(Gemm(len(x), *w.shape), array=config):
            at = slice(fold.k_start, fold.k_stop), slice(fold.n_start, fold.n_stop)
            # As memory holds it, read column by column.
            turned = right[at].ravel().reshape(fold.n, fold.k).T
            w[at] = right[at][::-1] if name == "rows reversed" else turned
    cycles = list(board.ports(x, w))
    idle = {port: np.zeros((3, len(values)), values.dtype) for port, values in cycles[0].items()}
    ports = {p: np.concatenate([np.stack([c[p] for c in cycles]), idle[p]]) for p in idle}
    valid = np.zeros((len(cycles) + 3, rows), bool)
    for fold in folds(Gemm(len(x), *w.shape), array=config):
        lines = fold.n if config.dataflow == "input_stationary" else fold.m
        valid[fold.swap_cycle : fold.swap_cycle + lines] = True
    ports["valid"] = moved(valid, [r * toy.hop[0] for r in range(rows)])
    late = {
        "activations late by row": [*range(rows)],
        "activations early by row": [-r for r in range(rows)],
        "activations late from a row": [int(r >= toy.lane) for r in range(rows)],
        "activations early in a row": [-int(r == toy.lane) for r in range(rows)],
    }
    if name in late:
        ports["activation"] = moved(ports["activation"], late[name])
    if name == "weights late from a column":
        ports["weight"] = moved(ports["weight"], [int(c >= toy.lane) for c in range(cols)])
    if name == "weights early by column":
        ports["weight"] = moved(ports["weight"], [-c for c in range(cols)])
    if name == "swap early":
        ports["swap"] = moved(ports["swap"], [-1] * rows)
    if name == "swap late":
        ports["swap"] = moved(ports["swap"], [1] * rows)
    return ports


class _Wires:
    """The values of a register of every PE after each edge."""

    def __init__(self, rows: int, cols: int) -> None:
        self.after: list[list[list[int]]] = []
        self.size = rows, cols

    def edge(self) -> None:
        self.after.append([[0] * self.size[1] for _ in range(self.size[0])])

    def __getitem__(self, at: tuple[int, int, int]) -> int:
        t, r, c = at
        return self.after[t][r][c] if t >= 0 else 0

    def __setitem__(self, at: tuple[int, int, int], value: int) -> None:
        t, r, c = at
        self.after[t][r][c] = value


def run(config: ArrayConfig, x: np.ndarray, w: np.ndarray, toy: Toy) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Run a product; return its registers, (cycles, rows, cols), and the sums in its accumulators."""
    ports = {name: values.tolist() for name, values in driven(config, x, w, toy).items()}
    held = config.dataflow == "output_stationary"
    registers = (_output_stationary if held else _weight_stationary)(config, ports, toy)
    seen = {}
    for name, wires in registers.items():
        values = np.array(wires.after)
        late = [np.zeros_like(values[:1])] * toy.latency
        seen[name] = np.concatenate([*late, values])[: len(values)]
    last = np.array(registers["out" if held else "psum"].after)[:, -1]
    return seen, collected(config, x, w, last, toy)


def collected(config: ArrayConfig, x: np.ndarray, w: np.ndarray, bottom: np.ndarray, toy: Toy) -> np.ndarray:
    """Return the product that the accumulators hold, of what leaves the last row, (cycles, cols)."""
    rows, (down, right) = config.rows, toy.hop
    outputs = np.zeros((len(x), w.shape[1]), np.int64)
    memory: dict[tuple[int, int, int], int] = {}
    for number, fold in enumerate(folds(Gemm(len(x), *w.shape), array=config)):
        half = number // -(-x.shape[1] // rows) % 2
        for m in range(fold.m):
            for n in range(fold.n):
                line, col = (n, m) if config.dataflow == "input_stationary" else (m, n)
                beat = fold.swap_cycle + (rows - 1 - line if config.dataflow == "output_stationary" else line)
                value = int(bottom[beat + (rows - 1) * down + col * right, col])
                if config.dataflow != "output_stationary":
                    clear = fold.k_start == 0 and toy.mistake != "accumulators not cleared"
                    value += 0 if clear else memory.get((half, line, col), 0)
                    memory[half, line, col] = value
                outputs[fold.m_start + m, fold.n_start + n] = (value + 2**31) % 2**32 - 2**31
    return outputs


def _product(a: int, b: int, toy: Toy) -> int:
    if toy.mistake == "activations unsigned":
        a %= 256
    if toy.mistake == "weights unsigned":
        b %= 256
    product = a * b
    if toy.mistake == "product extended with zeros":
        product %= 1 << 16
    if toy.mistake == "product cut":
        product = (product + (1 << 11)) % (1 << 12) - (1 << 11)
    return product


def _sum(total: int, toy: Toy) -> int:
    if toy.mistake == "sum cut":
        return (total + (1 << 13)) % (1 << 14) - (1 << 13)
    if toy.mistake == "sum extended with zeros":
        return total % (1 << 15)
    return (total + 2**31) % 2**32 - 2**31


def _weight_stationary(config: ArrayConfig, ports: dict[str, list], toy: Toy) -> dict[str, _Wires]:
    rows, cols, (down, right) = config.rows, config.cols, toy.hop
    names = ("activation", "shift", "swap", "valid", "weight", "next", "passed", "psum")
    reg = {name: _Wires(rows, cols) for name in names}
    for t in range(len(ports["swap"])):
        for wires in reg.values():
            wires.edge()
        for r in range(rows):
            for c in range(cols):
                extra = toy.mistake == "activations late by column"
                west = {
                    name: reg[name][t - right - (extra and name == "activation"), r, c - 1] if c else ports[name][t][r]
                    for name in ("activation", "shift", "swap", "valid")
                }
                # What stands in a register of this PE before the edge.
                weight, waiting, passed = (reg[name][t - 1, r, c] for name in ("weight", "next", "passed"))
                from_above = reg["passed"][t - down, r - 1, c] if r else ports["weight"][t][c]
                above = reg["psum"][t - down, r - 1, c] if r else ports["psum"][t][c]
                swaps = reg["swap"][t - 1, r, c] if toy.mistake == "swap taken from its register" else west["swap"]
                used = waiting if swaps else weight
                factor = weight if toy.mistake == "multiplies with the weight register" else used
                reg["weight"][t, r, c] = used
                reg["passed"][t, r, c] = waiting if west["shift"] else passed
                reg["next"][t, r, c] = from_above if west["shift"] else waiting
                total = _sum(above + _product(west["activation"], factor, toy), toy)
                if toy.held and not west["valid"]:
                    total = reg["psum"][t - 1, r, c]
                reg["psum"][t, r, c] = total
                for name, value in west.items():
                    reg[name][t, r, c] = value
    return reg


def _output_stationary(config: ArrayConfig, ports: dict[str, list], toy: Toy) -> dict[str, _Wires]:
    rows, cols, (down, right) = config.rows, config.cols, toy.hop
    reg = {name: _Wires(rows, cols) for name in ("activation", "swap", "drain", "weight", "acc", "out", "passed")}
    for t in range(len(ports["swap"])):
        for wires in reg.values():
            wires.edge()
        for r in range(rows):
            for c in range(cols):
                west = {
                    name: reg[name][t - right, r, c - 1] if c else ports[name][t][r]
                    for name in ("activation", "swap", "drain")
                }
                b = reg["weight"][t - down, r - 1, c] if r else ports["weight"][t][c]
                acc, out, passed = (reg[name][t - 1, r, c] for name in ("acc", "out", "passed"))
                from_above = reg["passed"][t - down, r - 1, c] if r else ports["out"][t][c]
                reg["passed"][t, r, c] = out if west["drain"] else passed
                reg["out"][t, r, c] = acc if west["swap"] else from_above if west["drain"] else out
                begun = acc if not west["swap"] or toy.mistake == "accumulators not cleared" else 0
                reg["acc"][t, r, c] = _sum(begun + _product(west["activation"], b, toy), toy)
                reg["weight"][t, r, c] = b
                for name, value in west.items():
                    reg[name][t, r, c] = value
    return reg
