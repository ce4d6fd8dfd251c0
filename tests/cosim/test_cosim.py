"""The scoreboard: agrees with a right array, names the register of a wrong one."""

import pickle

import numpy as np
import pytest

from systolic import ArrayConfig, Scoreboard, ScoreboardError, ports
from systolic.cosim import unpack
from systolic.reference import ReferenceArray

REGISTERS = tuple(ArrayConfig().register_dtypes)

CONFIG = ArrayConfig(3, 4, weight_dtype="uint8")


def packed(values, bits):
    """A grid of numbers as a simulator's packed vector: PE (r, c) at bit (r * cols + c) * bits."""
    word = 0
    for value in reversed([int(v) for row in values for v in row]):
        word = word << bits | value % (1 << bits)
    return word


def driven(wrong=None):
    """Step the slow twin, standing for the RTL, beside a scoreboard; `wrong` spoils its registers."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-128, 128, (6, 5), np.int8), rng.integers(0, 256, (5, 4), np.uint8)
    rtl, board = ReferenceArray(3, 4), Scoreboard(CONFIG)
    names = ("activation", "shift", "swap", "weight", "psum")
    for values in ports(x, w, array=CONFIG):
        drive = {name: getattr(values, name) for name in names}
        rtl.step(**{name: value.tolist() for name, value in drive.items()})
        board.edge(**drive)
        if wrong is not None:
            wrong(rtl, values.cycle)
        board.compare(**{name: getattr(rtl, name) for name in REGISTERS})
        board.compare(psum=packed(rtl.psum, 32), weight=packed(rtl.weight, 8), swap=packed(rtl.swap, 1))
        board.compare(activation=packed(rtl.activation, 8))
    return board


def test_agrees():
    board = driven()
    assert board.compared == board.array.cycle * 11 * 12
    board.reset()
    assert board.array.cycle == 0 and not board.expected.psum.any()


def test_names_what_differs():
    def wrong(rtl, cycle):
        if cycle == 9:
            rtl.psum[2][1] += 1

    with pytest.raises(
        ScoreboardError, match=r"^psum of PE \(2, 1\) after the edge of cycle 9 is "
    ) as caught:
        driven(wrong)
    error = caught.value
    assert (error.register, error.row, error.col, error.cycle, error.count) == ("psum", 2, 1, 9, 1)
    assert error.got == error.expected + 1
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_counts_what_differs():
    board = Scoreboard(CONFIG)
    board.edge(activation=[1, 2, 3])
    with pytest.raises(ScoreboardError, match=r"is 0 in the RTL, expected 1 \(3 PEs differ in it\)$"):
        board.compare(activation=np.zeros((3, 4), int))


def test_bad_values():
    board = Scoreboard(CONFIG)
    board.edge()
    with pytest.raises(ValueError, match="register must be one of 'weight'"):
        board.compare(accumulator=[[0]])
    with pytest.raises(ValueError, match=r"psum must be \(3, 4\), not \(4, 3\)"):
        board.compare(psum=np.zeros((4, 3), int))
    with pytest.raises(TypeError, match="psum must hold integers, not float64"):
        board.compare(psum=np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"weight must fit uint8 \(0..255\), but holds -1"):
        board.compare(weight=np.full((3, 4), -1))
    with pytest.raises(ValueError, match="word is wider than 3 x 4 elements of 8 bits"):
        board.compare(weight=1 << 96)
    with pytest.raises(ValueError, match="word must be a non-negative integer, not -1"):
        board.compare(weight=-1)
    with pytest.raises(TypeError, match="config must be an ArrayConfig"):
        Scoreboard("3x4")
    with pytest.raises(ValueError, match=r"activation must be a scalar or have shape \(3,\), not \(4,\)"):
        board.edge(activation=[0, 0, 0, 0])


@pytest.mark.parametrize(("dtype", "bits"), [("int8", 8), ("uint8", 8), ("int32", 32), ("bool", 1)])
def test_unpack(dtype, bits):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 1 << bits, (3, 5), dtype=np.uint64)
    got = unpack(packed(values, bits), 3, 5, dtype=dtype)
    assert got.dtype == np.dtype(dtype) and got.shape == (3, 5)
    np.testing.assert_array_equal(got.astype(np.int64) % (1 << bits), values.astype(np.int64))
