"""The compiled arrays of number formats, on every instruction set, against the plain one, PE by PE.

``tests/array/test_number_formats.py`` holds the plain one against the reference in Python numbers.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import systolic
from support.number_formats import assert_same, drawn_values, fields, formats, name_of, type_of
from support.strategies import BLOCK, LANES, ROW_GROUP, around, examples, seeds
from systolic import ArrayConfig, _kernels, matmul
from systolic.dataflows import DATAFLOWS
from systolic.formats import FORMATS, Format, format_of

DENSITIES = (0.0, 0.003, 0.05, 0.5, 1.0)
BFLOAT16 = format_of("bfloat16", "bfloat16")

class Case(NamedTuple):
    """An array's state and the values on its ports."""

    config: ArrayConfig
    registers: dict[str, np.ndarray]
    ports: dict[str, np.ndarray]


def drawn_case(rng: np.random.Generator, config: ArrayConfig, cycles: int) -> Case:
    """Draw a state and port values; each port has its own share of control bits, in runs or not."""

    def values(holds: str, shape: tuple[int, int]) -> np.ndarray:
        if holds != "control":
            return drawn_values(rng, config.format, holds, shape)
        bits = rng.random(shape) < rng.choice(DENSITIES, (1, shape[1]))
        return np.cumsum(bits, axis=0) % 2 == 1 if rng.random() < 0.5 else bits

    dataflow = config.dataflow_record
    holds = {register.name: register.holds for register in dataflow.registers}
    registers = {name: values(kind, (config.rows, config.cols)) for name, kind in holds.items()}
    sizes = {"west": config.rows, "north": config.cols}
    ports = {port.name: values(holds[port.feeds], (cycles, sizes[port.side])) for port in dataflow.ports}
    return Case(config, registers, {name: arranged(rng, each) for name, each in ports.items()})


def arranged(rng: np.random.Generator, values: np.ndarray, how: str | None = None) -> np.ndarray:
    """Return the same values, otherwise in memory: skewed as the machine lays them out, or by port, or one for all."""
    lines, columns = values.shape
    how = how or str(rng.choice(["rows", "skewed", "columns", "gaps", "one"]))
    if how == "skewed":
        local = np.zeros((lines + columns - 1, columns), values.dtype)
        down, right = local.strides
        view = np.ndarray(values.shape, values.dtype, local, (columns - 1) * down, (down, right - down))
    elif how == "columns":
        view = np.empty((columns, lines), values.dtype).T
    elif how == "gaps":
        view = np.empty((2 * lines, 3 * columns), values.dtype)[::-2, ::-3]
    elif how == "one":
        return np.ndarray(values.shape, values.dtype, values, 0, (0, 0))
    else:
        return values
    view[...] = values
    return view


def clocked(case: Case, threads: int, bottom: np.ndarray) -> dict[str, np.ndarray]:
    """Clock a copy of the registers in the kernel in use; return them and what left the bottom row."""
    registers = {name: values.copy() for name, values in case.registers.items()}
    case.config.dataflow_record.kernels["numbers"](registers, case.ports, bottom, threads, case.config.format)
    return registers | {"bottom": bottom}


def tables() -> list[str]:
    """Return an instruction set for each table of number formats but the reference's."""
    found = {}
    for isa in _kernels.instruction_sets:
        _kernels._use(isa)
        found[_kernels._tables()[3]] = isa
    _kernels._use()
    return list(found.values())


TABLES = tables()


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    _kernels._use()


def check(rng: np.random.Generator, case: Case, threads: tuple[int, ...] = (1, 2)) -> None:
    """Every table, with each number of threads, makes the registers and the bottom's values that the reference does."""
    shape = len(case.ports["activation"]), case.config.cols
    _kernels._use("reference")
    expected = clocked(case, 1, np.zeros(shape, case.config.format.sum))
    for isa in TABLES:
        _kernels._use(isa)
        for count in threads:
            bottom = arranged(rng, np.zeros(shape, case.config.format.sum), str(rng.choice(["rows", "skewed", "gaps"])))
            for name, values in clocked(case, count, bottom).items():
                assert values.dtype == expected[name].dtype
                assert_same(values, expected[name])


def test_an_instruction_set_has_both_tables_of_number_formats() -> None:
    """That of the array and that of products are compiled for the same sets."""
    for isa in _kernels.instruction_sets:
        _kernels._use(isa)
        *_, array, products = _kernels._tables()
        assert array == products, isa


dataflows = st.sampled_from(list(DATAFLOWS))


def config_of(numbers: Format, dataflow: str, rows: int, cols: int) -> ArrayConfig:
    return ArrayConfig(rows, cols, dataflow=dataflow, **fields(numbers))


@examples(60)
@given(formats(), dataflows, around(ROW_GROUP, 34), around(LANES, 50), around(LANES, 70), seeds)
def test_any_state_under_any_ports(
    numbers: Format, dataflow: str, rows: int, cols: int, cycles: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    check(rng, drawn_case(rng, config_of(numbers, dataflow, rows, cols), cycles))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("cycles", [*range(13, 27), *(BLOCK + LANES + d for d in (-17, -16, -15, -1, 0, 1, 8)), 600])
def test_ends_of_blocks(dataflow: str, cycles: int) -> None:
    rng = np.random.default_rng(cycles)
    for numbers in (BFLOAT16, format_of("int16", "int8", 24, "saturate")):
        check(rng, drawn_case(rng, config_of(numbers, dataflow, 11, 19), cycles))


@pytest.mark.slow
@examples(60)
@given(formats(), dataflows, around(ROW_GROUP, 34), around(LANES, 50), around(BLOCK, 600, 200), seeds)
def test_many_blocks(numbers: Format, dataflow: str, rows: int, cols: int, cycles: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    check(rng, drawn_case(rng, config_of(numbers, dataflow, rows, cols), cycles))


@pytest.mark.parametrize("numbers", [f for f in FORMATS.values() if f.kernel == "numbers"], ids=name_of)
def test_every_value_of_an_operand(numbers: Format) -> None:
    """Codes are widened to the numbers that they stand for, in registers and on ports."""
    dtype = type_of(numbers.activation)
    every = np.arange(2 ** (8 * dtype.itemsize)).astype(f"uint{8 * dtype.itemsize}").view(dtype)
    x = every.reshape(-1, 16)
    one = np.eye(16).astype(type_of(numbers.weight))
    with np.errstate(all="ignore"):  # NaN and infinities, times 0, would hide the rest
        clean = np.where(np.isfinite(x.astype(np.float64)), x, dtype.type(0))
    for isa in ("reference", *TABLES):
        _kernels._use(isa)
        for dataflow in DATAFLOWS:
            config = config_of(numbers, dataflow, 16, 16)
            assert_same(matmul(clean, one, array=config).acc.astype(np.float64), clean.astype(np.float64) + 0.0)


def test_zeros_of_a_state_keep_their_sign_until_they_are_added() -> None:
    """Held sums of the state that a swap takes on the first cycle, and those that only move, are not added to +0."""
    rng = np.random.default_rng(0)
    for cycles in (1, 5, 16, 40):
        case = drawn_case(rng, config_of(BFLOAT16, "output_stationary", 9, 18), cycles)
        for values in (*case.registers.values(), *case.ports.values()):
            values.setflags(write=True)
            if values.dtype == np.float32:
                values[...] = -0.0
            elif values.dtype == bool:
                values[...] = True
            else:
                values[...] = 0
        check(rng, case)
        assert np.signbit(clocked(case, 1, np.zeros((cycles, 18), np.float32))["bottom"][0, 0])


_FLUSHING = """
import ctypes
import ml_dtypes
import numpy as np
from systolic import ArrayConfig, SystolicArray, _kernels

def sums(threads):
    found = []
    for isa in ("reference", *_kernels.instruction_sets):
        _kernels._use(isa)
        for dataflow in ("weight_stationary", "output_stationary"):
            config = ArrayConfig(33, 40, dataflow=dataflow, activation_dtype="bfloat16", weight_dtype="bfloat16")
            registers = {name: values.copy() for name, values in SystolicArray(config).registers.items()}
            registers["weight"][...] = 2.0**-40
            sizes = {"west": 33, "north": 40}
            ports = {
                port.name: np.zeros((60, sizes[port.side]), config.port_dtypes[port.name])
                for port in config.dataflow_record.ports
            }
            ports["activation"][...] = 2.0**-100  # products are subnormal in float32
            ports["weight"][...] = 2.0**-40
            bottom = np.zeros((60, 40), np.float32)
            config.dataflow_record.kernels["numbers"](registers, ports, bottom, threads, config.format)
            held = registers["acc" if dataflow == "output_stationary" else "psum"]
            assert held.view(np.uint32).all(), "sums were flushed"
            found.append(held.tobytes() + bottom.tobytes())
    return found

libm = ctypes.CDLL("libm.so.6")
mode = (ctypes.c_uint32 * 8)()  # fenv_t: 28 bytes of the x87, MXCSR
libm.fegetenv(mode)
expected = sums(1)
mode[7] |= 0x8040  # flush results and operands to zero
libm.fesetenv(mode)
assert (np.full(9, 1e-38, np.float32) * np.float32(0.5) == 0).all(), "this thread does not flush"
got = [sums(threads) == expected for threads in (1, 2, 2)]
libm.fegetenv(mode)
print(got, hex(mode[7] & 0x8040))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc", reason="sets the mode through glibc's fenv_t"
)
def test_subnormals_are_kept_in_threads_that_flush_them() -> None:
    """Helper threads, started later, take the mode over; the caller's is as before."""
    environment = {**os.environ, "PYTHONPATH": str(Path(systolic.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", _FLUSHING], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[True, True, True] 0x8040", done.stdout + done.stderr
