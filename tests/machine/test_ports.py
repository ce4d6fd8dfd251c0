"""What ``ports`` says, driven by hand into an array and into accumulators, gives the product."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.number_formats import OPERAND_NAMES
from systolic import ArrayConfig, Gemm, SystolicArray, estimate, folds, ports
from systolic.dataflows import DATAFLOWS
from systolic.reference import ReferenceArray


def random_operands(rng, m, k, n):
    types = [("int8", -128, 128), ("uint8", 0, 256)]
    x_type, w_type = types[rng.integers(2)], types[rng.integers(2)]
    x = rng.integers(*x_type[1:], (m, k)).astype(x_type[0])
    return x, rng.integers(*w_type[1:], (k, n)).astype(w_type[0])


def scoreboard(x, w, config, step, bottom):
    """Drive an array with the ports and software accumulators with the strobes; return the product."""
    gemm = Gemm(x.shape[0], *w.shape)
    dataflow = config.dataflow_record
    half_rows = max(gemm.m, gemm.n, config.rows) if config.chunk_rows is None else config.chunk_rows
    half_rows = max(half_rows, config.rows)
    acc = np.zeros((2, half_rows, config.cols), dtype=np.int64)
    result = np.full((gemm.m, gemm.n), 1 << 40, dtype=np.int64)
    k_tiles = 1 if dataflow.held else -(-gemm.k // config.rows)
    cycles = 0
    # (cycle, col) of each finished sum -> where it belongs, and its row
    done = {}
    for i, fold in enumerate(folds(gemm, array=config)):
        for m, n in np.ndindex(fold.m, fold.n) if fold.k_stop == gemm.k else ():
            row, c = (n, m) if dataflow.exchanged else (m, n)
            line = config.rows - 1 - row if dataflow.held else row
            place = fold.m_start + m, fold.n_start + n, i // k_tiles % 2, row
            done[fold.swap_cycle + line + config.rows + c, c] = place
    for values in ports(x, w, array=config):
        assert values.cycle == cycles
        cycles += 1
        below = bottom()
        for c in np.flatnonzero(values.write):
            place = values.half[c], values.row[c], c
            acc[place] = below[c] + (0 if values.first[c] else acc[place])
            if (values.cycle, int(c)) in done:
                row, col, half, m = done.pop((values.cycle, int(c)))
                assert (half, m) == (values.half[c], values.row[c])
                result[row, col] = acc[half, m, c]
        step(values)
    assert not done
    return result, cycles


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
@pytest.mark.exhaustive
def test_ports_drive_the_array_by_hand(seed):
    rng = np.random.default_rng(seed)
    x, w = random_operands(rng, *(int(rng.integers(1, 25)) for _ in range(3)))
    config = ArrayConfig(
        int(rng.integers(1, 9)),
        int(rng.integers(1, 9)),
        activation_dtype=x.dtype,
        weight_dtype=w.dtype,
        double_buffered=bool(rng.integers(2)),
        accumulator_rows=[None, 2, 7, 4096][rng.integers(4)],
        dataflow=list(DATAFLOWS)[seed % 3],
    )
    array = SystolicArray(config)
    leaves = config.dataflow_record.leaves
    result, cycles = scoreboard(
        x, w, config, lambda values: array.step(**values.ports), lambda: array.registers[leaves][-1]
    )
    np.testing.assert_array_equal(result, x.astype(np.int64) @ w.astype(np.int64))
    assert cycles == estimate(Gemm(x.shape[0], *w.shape), machine=config).cycles + 1


def test_ports_drive_the_reference_too():
    rng = np.random.default_rng(7)
    x, w = random_operands(rng, 7, 6, 5)
    config = ArrayConfig(4, 3)
    array = ReferenceArray(4, 3)

    def step(values):
        names = ("activation", "shift", "swap", "weight", "psum")
        array.step(**{name: getattr(values, name).tolist() for name in names})

    result, _ = scoreboard(x, w, config, step, lambda: array.psum[-1])
    np.testing.assert_array_equal(result, x.astype(np.int64) @ w.astype(np.int64))


@pytest.mark.slow
@given(st.integers(0, 300), st.integers(0, 40), st.integers(0, 40))
def test_one_value_for_each_cycle(m, k, n):
    config = ArrayConfig(5, 4, accumulator_rows=64)
    count = sum(1 for _ in ports(np.zeros((m, k), np.int8), np.zeros((k, n), np.int8), array=config))
    cycles = estimate(Gemm(m, k, n), machine=config).cycles
    assert count == (cycles + 1 if cycles else 0)


def test_values_are_the_callers():
    seen = list(ports(np.ones((2, 2), np.int8), np.ones((2, 2), np.int8), array=ArrayConfig(2, 2)))
    before = [v.activation.copy() for v in seen]
    seen[0].activation[:] = 99
    for values, old in zip(seen[1:], before[1:], strict=True):
        np.testing.assert_array_equal(values.activation, old)


def test_bad_operands_are_refused_on_the_call():
    with pytest.raises(ValueError, match=r"^x and w must share K, but x is \(2, 3\) and w is \(2, 2\); x.T fits$"):
        ports(np.zeros((2, 3), np.int8), np.zeros((2, 2), np.int8))
    with pytest.raises(TypeError, match=f"x must hold {OPERAND_NAMES}, not float64"):
        ports(np.zeros((2, 2)), np.zeros((2, 2), np.int8))
    with pytest.raises(TypeError, match="array must be an ArrayConfig"):
        ports(np.zeros((2, 2), np.int8), np.zeros((2, 2), np.int8), array=4)
