"""Vectors, scoreboards, traces and drawings of floats and of unusual integers."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from support.strategies import raises
from systolic import ArrayConfig, Scoreboard, ScoreboardError, SystolicArray, matmul, verify, write_vectors
from systolic.cosim import unpack
from systolic.formats import as_bits

BFLOAT16 = ArrayConfig(2, 3, activation_dtype="bfloat16", weight_dtype="bfloat16")
X = np.array([[1, 2], [3.5, -4], [-5, np.nan]]).astype(ml_dtypes.bfloat16)
W = np.array([[7, -8, 9], [10, 11, -12.25]]).astype(ml_dtypes.bfloat16)


def test_vectors_hold_encodings(tmp_path: Path) -> None:
    manifest = write_vectors(X, W, tmp_path / "v", array=BFLOAT16)
    assert manifest["files"]["west_activation.mem"]["bits"] == 16
    assert "added to it: float32, rounded to nearest" in " ".join(manifest["convention"].split())
    lines = (tmp_path / "v" / "west_activation.mem").read_text().split()
    assert lines[3] == f"{0x4000:04x}{0x4060:04x}"  # x[0, 1] is 2, x[1, 0] is 3.5
    acc = np.array([[int(line[8 * c : 8 * c + 8], 16) for c in (2, 1, 0)] for line in
                    (tmp_path / "v" / "acc.mem").read_text().split()], np.uint32)  # fmt: skip
    np.testing.assert_array_equal(acc.view(np.float32), matmul(X, W, array=BFLOAT16).acc)


@pytest.mark.parametrize(("fields", "words"), [
    ({"psum_bits": 20}, "modulo 2^20"), ({"psum_bits": 24, "overflow": "saturate"}, "saturated to 24 bits"),
])  # fmt: skip
def test_vectors_say_how_sums_are_added(tmp_path: Path, fields: dict, words: str) -> None:
    manifest = write_vectors(np.int8([[1]]), np.int8([[2]]), tmp_path / "v", array=ArrayConfig(1, 1, **fields))
    assert f"added to it: {words}. There" in " ".join(manifest["convention"].split())


def test_scoreboards_of_floats() -> None:
    board = Scoreboard(BFLOAT16)
    board.edge(activation=X[2], weight=W[0])
    board.compare(activation=[[-5, 0, 0], [np.nan, 0, 0]], psum=[[0, 0, 0], [np.nan, 0, 0]])
    board.compare(activation=0x7FC0 << 48 | 0xC0A0)
    with raises(ScoreboardError, "activation of PE (0, 0) after the edge of cycle 0 is -4.5 in the RTL, expected -5.0"):
        board.compare(activation=[[-4.5, 0, 0], [np.nan, 0, 0]])


def test_unpack_floats() -> None:
    np.testing.assert_array_equal(unpack(0x3F80_4000, 1, 2, dtype=ml_dtypes.bfloat16).astype(float), [[2, 1]])


def test_states_with_nan_are_equal() -> None:
    array = SystolicArray(BFLOAT16).fold(x=X, w=W).run(7)
    assert np.isnan(array.registers.psum).any()
    again = SystolicArray(BFLOAT16).restore(array.state())
    assert again.state() == array.state() and array.diff(again) == []
    different = array.diff(SystolicArray(BFLOAT16))
    assert ("weight", 1, 2, -12.25, 0.0) in different


def test_traces_of_floats(tmp_path: Path) -> None:
    array = SystolicArray(BFLOAT16, trace=True).fold(x=X, w=W).run()
    assert array.trace is not None
    assert "nan" in array.trace.to_text() and "-12.25" in array.trace.to_text()
    array.trace.to_vcd(tmp_path / "t.vcd")
    assert f"b{as_bits(np.float32([27]))[0]:b} " in (tmp_path / "t.vcd").read_text()
    for figure in (array.plot(), array.trace.plot_wave("psum"), array.trace.plot(limit=60)):
        assert figure.axes
    assert "-12.25" in repr(array.registers) and "-12.25" in array.registers._repr_html_()


@pytest.mark.slow
def test_verify_draws_formats() -> None:
    assert verify(cases=120, seed=5)


@pytest.mark.slow
def test_a_wrong_bit_of_a_float_product_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight register that changes on its own is named with its values."""
    from systolic.dataflows import WEIGHT_STATIONARY

    clock = WEIGHT_STATIONARY.kernels["numbers"]

    def wrong(registers, ports, bottom, threads, numbers) -> None:
        clock(registers, ports, bottom, threads, numbers)
        if numbers.is_float:
            registers["psum"][-1, 0] += 1
            bottom[-1, 0] += 1

    monkeypatch.setitem(WEIGHT_STATIONARY.kernels, "numbers", wrong)  # type: ignore[arg-type]
    found = [m for m in verify(cases=400, seed=1).mismatches if "float" in m.case]
    assert found and any(m.register == "psum" and m.pe is not None for m in found)
