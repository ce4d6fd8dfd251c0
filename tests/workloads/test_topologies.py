"""SCALE-Sim's topology files: the products they describe, and lines that they may not have."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systolic import ArrayConfig, Gemm, estimate, sweep
from systolic.workloads import read_topology

CONV = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
GEMM = "Layer,        M,       N,        K,\n"


def layers(tmp_path: Path, text: str, form: str | None = None) -> list[tuple[str, Gemm, int]]:
    file = tmp_path / "net.csv"
    file.write_text(text, encoding="utf-8")
    return read_topology(file, form)


def test_the_two_forms(tmp_path: Path) -> None:
    # AlexNet's first layer and a fully connected one, as SCALE-Sim's own files have them.
    text = CONV + "Conv1, 224, 224, 11, 11, 3, 96, 4,\n\nFC6, 6, 6, 6, 6, 256, 4096, 1,\n"
    conv1 = Gemm(55 * 55, 363, 96)  # ceil((224 - 11 + 4) / 4) = 55
    assert layers(tmp_path, text) == [("Conv1", conv1, 1), ("FC6", Gemm(1, 9216, 4096), 1)]
    assert layers(tmp_path, GEMM + "GEMM1, 128, 32, 64,\nlast, 1, 2, 3") == [
        ("GEMM1", Gemm(128, 64, 32), 1), ("last", Gemm(1, 3, 2), 1),
    ]  # fmt: skip


def test_what_else_a_line_may_have(tmp_path: Path) -> None:
    text = CONV + "a, 9, 9, 3, 3, 4, 5, 2, 1,\nb, 9, 9, 3, 3, 4, 5, 2, 1:1,\nDP1, 9, 9, 3, 3, 4, 1, 1,\nc, 9,9,3,3,4,5,2,1, 2:2,\n"
    assert [gemm for _, gemm, _ in layers(tmp_path, "\ufeff" + text)] == [
        Gemm(4 * 7, 36, 5), Gemm(16, 36, 5), Gemm(49, 9, 1, groups=4), Gemm(4 * 7, 36, 5),
    ]  # fmt: skip
    assert [count for *_, count in layers(tmp_path, GEMM + "a,1,2,3,12,\nb,1,2,3,1:1,7\n")] == [12, 7]
    assert layers(tmp_path, "anything\na, 1, 2, 3\n", "gemm") == [("a", Gemm(1, 3, 2), 1)]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5))
def test_places_are_those_of_scale_sim(
    tmp_path_factory: pytest.TempPathFactory, ih: int, iw: int, kh: int, kw: int, sh: int, sw: int
) -> None:
    kh, kw = min(kh, ih), min(kw, iw)
    ((_, gemm, _),) = layers(tmp_path_factory.mktemp("net"), f"{CONV}a,{ih},{iw},{kh},{kw},3,4,{sh},{sw},\n")
    assert gemm == Gemm(ceil((ih - kh + sh) / sh) * ceil((iw - kw + sw) / sw), kh * kw * 3, 4)


def test_files_are_models_of_sweeps(tmp_path: Path) -> None:
    layers(tmp_path, GEMM + "a,10,20,30,3,\nb,1,2,3,\n")
    (row,) = sweep(str(tmp_path / "net.csv"), ArrayConfig(8, 8))
    a, b = (estimate(gemm, machine=ArrayConfig(8, 8)) for gemm in (Gemm(10, 30, 20), Gemm(1, 3, 2)))
    assert row.model == "net" and row.stats == a + a + a + b


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "net.csv: the head must be 'Layer name, IFMAP Height, "),
        ("a,b,c\n", "the head must be 'Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides' or 'Layer, M, N, K', not 'a, b, c'"),
        ("Layer, M, K, N\na,1,2,3\n", "or 'Layer, M, N, K', not 'Layer, M, K, N'"),
        (GEMM, "net.csv has no layers below its head"),
        (GEMM + "a,1,2,\n", "net.csv, line 2: expected a name and M, N, K, found 3 values"),
        (GEMM + "\na,1,0,3,\n", "net.csv, line 3: N must be a positive integer, not '0'"),
        (GEMM + "a,1,x,3,\n", "net.csv, line 2: N must be a positive integer, not 'x'"),
        (GEMM + f"a,1,{'9' * 5000},3,\n", f"N must be a positive integer, not '{'9' * 40}'"),
        (GEMM + "a,1,²,3,\n", "N must be a positive integer, not '²'"),
        (GEMM + "a,1,2,3,0,\n", "the count must be a positive integer, not '0'"),
        (GEMM + "a,1,2,3,2:4,\n", "sparsity '2:4' is not modeled"),
        (GEMM + "a,1,2,3,1:1,2,3,\n", "expected at most 6 values, found 7"),
        (CONV + "a,2,9,3,3,4,5,1,\n", "the filter's height 3 is larger than the image's 2"),
        (CONV + "a,9,2,3,3,4,5,1,\n", "the filter's width 3 is larger than the image's 2"),
        (CONV + "a,9,9,3,3,4,5,\n", "expected a name and IFMAP height, IFMAP width, filter height, filter width, channels, filters, stride, found 7 values"),
        (CONV + "a,9,9,3,3,4,5,1,x,\n", "stride along the width must be a positive integer, not 'x'"),
        (CONV + "a,9,9,3,3,4,5,1,1,1:4,\n", "sparsity '1:4' is not modeled"),
        (CONV + "a,9,9,3,3,4,5,1,1,1:1,8,\n", "expected at most 10 values, found 11"),
    ],
)  # fmt: skip
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError) as failed:
        layers(tmp_path, text)
    assert message in str(failed.value)


def test_what_is_no_file_of_text(tmp_path: Path) -> None:
    (tmp_path / "net.csv").write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match="is no CSV file of text"):
        read_topology(tmp_path / "net.csv")
    with pytest.raises(ValueError, match="a topology is a CSV file"):
        read_topology(tmp_path)
    with pytest.raises(ValueError, match="form must be one of 'conv', 'gemm'"):
        layers(tmp_path, GEMM + "a,1,2,3\n", "mnk")
