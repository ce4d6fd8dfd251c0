"""The emulator's VCD and the RTL simulator's VCD of the same run hold the same, signal by signal.

Icarus Verilog dumps the RTL, ``Trace.to_vcd`` the emulator; pyvcd's parser reads both files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from support.rtl import icarus, twin
from support.rtl.mutants import MUTANTS
from systolic import ArrayConfig, Trace, matmul, write_vectors
from systolic.trace.vcd import PERIOD

REGISTERS = tuple(ArrayConfig().register_dtypes)

icarus.need_icarus()
icarus.need("vcd", 'pip install "systolic[trace]"', allow_module_level=True)


@dataclass
class Product:
    """What both sides run."""

    x: np.ndarray
    w: np.ndarray
    config: ArrayConfig


def _random(m: int, k: int, n: int, x_dtype: str, w_dtype: str, config: ArrayConfig) -> Product:
    rng = np.random.default_rng(3)
    x, w = (
        rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, size, dtype=dtype, endpoint=True)
        for size, dtype in (((m, k), x_dtype), ((k, n), w_dtype))
    )
    return Product(x, w, config)


PRODUCTS = {
    "worked example": Product(
        np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]]), ArrayConfig(2, 3)
    ),
    "12 folds": _random(9, 7, 5, "uint8", "int8", ArrayConfig(4, 3, accumulator_rows=8)),
    "single buffered": _random(5, 4, 6, "int8", "uint8", ArrayConfig(3, 4, double_buffered=False)),
}
LARGE = PRODUCTS["12 folds"]


@dataclass
class Waves:
    """A VCD file: what each signal holds after each rising edge of the clock, and the edges' times."""

    times: list[int]
    bits: dict[str, int]
    values: dict[str, list[int | str]]


def read(path: Path, clk: str) -> Waves:
    """Read a VCD file with pyvcd's own parser; a value that is not all 0 and 1 stays text."""
    from vcd.reader import TokenKind, tokenize

    scopes: list[str] = []
    codes: dict[str, str] = {}
    bits: dict[str, int] = {}
    holds: dict[str, int | str] = {}
    times: list[int] = []
    after: list[dict[str, int | str]] = []
    now, rises = 0, False
    with path.open("rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.SCOPE:
                scopes.append(token.scope.ident)
            elif token.kind is TokenKind.UPSCOPE:
                scopes.pop()
            elif token.kind is TokenKind.VAR:
                name = ".".join([*scopes, token.var.reference])
                codes[name], bits[name] = token.var.id_code, token.var.size
            elif token.kind is TokenKind.CHANGE_TIME:
                if rises:
                    times.append(now)
                    after.append(dict(holds))
                now, rises = token.time_change, False
            elif token.kind in (TokenKind.CHANGE_SCALAR, TokenKind.CHANGE_VECTOR):
                scalar = token.kind is TokenKind.CHANGE_SCALAR
                change = token.scalar_change if scalar else token.vector_change
                value = int(change.value) if str(change.value).isdecimal() else change.value
                rises = rises or (change.id_code == codes[clk] and value == 1 and holds.get(codes[clk]) == 0)
                holds[change.id_code] = value
    if rises:
        times.append(now)
        after.append(dict(holds))
    return Waves(times, bits, {name: [edge[code] for edge in after] for name, code in codes.items()})


def rtl_waves(product: Product, folder: Path, design: Path = twin.SOURCES) -> Waves:
    """Run the RTL on the product's vectors; name its PEs' registers as the emulator does."""
    write_vectors(product.x, product.w, folder / "vectors", array=product.config)
    arguments = ("vectors", folder / "vectors", "--design", design, "--vcd", folder / "rtl.vcd")
    done = icarus.run_example(*arguments, cwd=folder)
    # Of a wrong design the psums at the bottom need not know; 2 says that it did not run.
    assert done.returncode <= (design != twin.SOURCES), done.stdout + done.stderr
    waves = read(folder / "rtl.vcd", clk="replay.clk")
    reset = waves.values["replay.reset"]
    # One edge in reset; the next one is cycle 0.
    assert reset == [1] + [0] * (len(reset) - 1)
    named = {}
    for name in waves.values:
        found = re.fullmatch(r"replay\.array\.row\[(\d+)\]\.col\[(\d+)\]\.pe\.(\w+)", name)
        if found and found[3] in REGISTERS:
            named[name] = f"array.row[{found[1]}].pe[{found[2]}].{found[3]}"
    return Waves(
        waves.times[1:],
        {new: waves.bits[old] for old, new in named.items()},
        {new: waves.values[old][1:] for old, new in named.items()},
    )


def emulator_vcd(product: Product, folder: Path) -> Path:
    """Run the emulator on the product and write its trace."""
    trace = Trace()
    result = matmul(product.x, product.w, array=product.config, trace=trace)
    assert len(trace) == result.cycles
    trace.to_vcd(folder / "emulator.vcd")
    return folder / "emulator.vcd"


def registers(waves: Waves) -> Waves:
    """Leave out the emulator's clock and cycle number."""
    own = ("array.clk", "array.cycle")
    bits, values = ({n: v for n, v in what.items() if n not in own} for what in (waves.bits, waves.values))
    return Waves(waves.times, bits, values)


def differences(rtl: Waves, emulator: Waves) -> list[str]:
    """Return every value that differs, by cycle."""
    assert rtl.bits == emulator.bits
    return [
        f"{name} after the edge of cycle {t}: RTL {rtl.values[name][t]}, emulator {values[t]}"
        for t in range(len(emulator.times))
        for name, values in emulator.values.items()
        if rtl.values[name][t] != values[t]
    ]


@pytest.mark.parametrize("name", PRODUCTS)
def test_signal_by_signal(tmp_path, name):
    product = PRODUCTS[name]
    rtl = rtl_waves(product, tmp_path)
    emulator = read(emulator_vcd(product, tmp_path), clk="array.clk")
    assert emulator.values["array.cycle"] == list(range(len(emulator.times)))
    emulator = registers(emulator)
    rows, cols = product.config.rows, product.config.cols
    assert len(emulator.values) == len(REGISTERS) * rows * cols
    assert differences(rtl, emulator) == []
    # The vectors go on for the last write of the accumulators, on one edge more.
    assert len(rtl.times) == len(emulator.times) + 1
    # In two windows of a wave viewer the RTL runs one clock behind: its reset.
    assert rtl.times[:-1] == [time + PERIOD for time in emulator.times]
    # No register is there that nothing ever happened to.
    for register in REGISTERS:
        held = {v for n, values in emulator.values.items() if n.endswith(f".{register}") for v in values}
        assert len(held) > 1, register


def test_products_are_of_several_kinds():
    folds = matmul(LARGE.x, LARGE.w, array=LARGE.config).folds
    assert len(folds) == 12 and {fold.m for fold in folds} == {1, 4}


# It can fail.


@pytest.mark.parametrize("register", REGISTERS)
def test_one_changed_value_is_found(tmp_path, register):
    rtl = rtl_waves(LARGE, tmp_path)
    path = emulator_vcd(LARGE, tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    name = f"array.row[2].pe[1].{register}"
    before = registers(read(path, clk="array.clk"))
    header = [line.split() for line in lines if line.startswith(("$scope", "$upscope", "$var"))]
    scopes, code = [], ""
    for words in header:
        if words[0] == "$scope":
            scopes.append(words[2])
        elif words[0] == "$upscope":
            scopes.pop()
        elif ".".join([*scopes, words[4]]) == name:
            code = words[3]
    # The last change of the signal, with its lowest bit the other way.
    last = max(i for i, line in enumerate(lines) if re.fullmatch(rf"(b[01]+ |[01]){re.escape(code)}\n", line))
    end = lines[last].rindex(code) - (lines[last][0] == "b")
    flipped = "1" if lines[last][end - 1] == "0" else "0"
    lines[last] = lines[last][: end - 1] + flipped + lines[last][end:]
    path.write_text("".join(lines))
    emulator = registers(read(path, clk="array.clk"))
    values = before.values[name]
    since = max(t for t in range(1, len(values)) if values[t] != values[t - 1])
    assert differences(rtl, emulator) == [
        f"{name} after the edge of cycle {t}: RTL {values[t]}, emulator {values[t] ^ 1}"
        for t in range(since, len(values))
    ]


# Such as ports fed by a product can show, and show in the register that is wrong first.
PLANTED = (
    "weight is not kept after the swap",
    "weight_pass dropped: the chain moves at once",
    "swap one beat late",
    "activation unsigned for signed",
    "weights taken from next_weight above",
)


@pytest.mark.parametrize("name", PLANTED)
def test_one_changed_line_of_rtl_is_found(tmp_path, name):
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    mutant.plant(tmp_path / "design")
    product = PRODUCTS["worked example"]
    rtl = rtl_waves(product, tmp_path, tmp_path / "design")
    emulator = registers(read(emulator_vcd(product, tmp_path), clk="array.clk"))
    found = differences(rtl, emulator)
    assert found, "not found"
    assert re.match(rf"array\.row\[\d\]\.pe\[\d\]\.({'|'.join(mutant.seen)}) after the edge", found[0])
