"""The layouts that mappings choose from, and which one they choose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.strategies import array_configs, examples, raises
from systolic import ArrayConfig, Gemm
from systolic.formats import Format
from systolic.reference import expected_cycles, expected_layout
from systolic.tiling import estimate_gemm
from systolic.tiling.mappings import MAPPINGS, check_mapping, laid_out, layouts


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Gemm, int]:
    """A convolution's product by im2col, and the taps of its kernel."""
    m, channels, taps, n = (draw(st.sampled_from(sizes)) for sizes in (
        (1, 5, 16, 33), (1, 2, 3, 8), (1, 2, 4, 9), (1, 2, 5)
    ))  # fmt: skip
    return Gemm(m, channels * taps, n, groups=draw(st.sampled_from([1, 2, 3, 4, 6, 12]))), taps


@examples(200)
@given(convolutions(), array_configs(), st.sampled_from(MAPPINGS))
def test_the_layout_and_its_cycles_are_those_of_the_reference(
    work: tuple[Gemm, int], array: ArrayConfig, mapping: str
) -> None:
    gemm, taps = work
    found, layout = laid_out(gemm, taps, mapping, array), expected_layout(gemm, array, mapping, taps)
    assert (found.taps, found.pack) == layout
    assert replace(found, taps=1, pack=1) == gemm
    assert estimate_gemm(found, array).cycles == expected_cycles(gemm, array, layout)


@examples(100)
@given(convolutions(), array_configs())
def test_no_mapping_is_cheaper_than_the_best(work: tuple[Gemm, int], array: ArrayConfig) -> None:
    gemm, taps = work
    cycles = {name: estimate_gemm(laid_out(gemm, taps, name, array), array).cycles for name in MAPPINGS}
    assert cycles["best"] == min(cycles.values()) == cycles["pack"]
    if gemm.groups == 1:  # tiles of one tap hold no more rows
        assert cycles["taps"] >= cycles["im2col"]


def test_layouts_in_their_order() -> None:
    gemm = Gemm(5, 18, 1, groups=4)
    assert layouts(gemm, 9, "im2col") == (gemm,)
    packed = tuple(replace(gemm, pack=pack) for pack in (1, 2, 4))
    by_taps = tuple(replace(gemm, taps=9, pack=pack) for pack in (1, 2, 4))
    assert layouts(gemm, 9, "pack") == packed and layouts(gemm, 9, "taps") == by_taps
    assert layouts(gemm, 9, "best") == packed + by_taps
    assert layouts(gemm, 1, "best") == packed  # each once
    assert layouts(Gemm(1, 1, 1, groups=7), 1, "pack")[1:] == (Gemm(1, 1, 1, groups=7, pack=7),)
    assert [g.mapping for g in (gemm, packed[0], packed[1], by_taps[0], by_taps[1])] == [
        "im2col", "im2col", "pack", "taps", "taps",
    ]  # fmt: skip


def test_any_number_of_groups() -> None:
    gemm = Gemm(1, 9, 1, groups=2**61 - 1)  # a prime
    assert layouts(gemm, 9, "pack") == (gemm, replace(gemm, pack=2**61 - 1))
    assert laid_out(gemm, 9, "best", ArrayConfig()) == gemm


def test_depthwise_layers_fill_the_array() -> None:
    """One channel's 9 taps of 9 x 256 rows take as many tiles as one channel alone does by im2col."""
    gemm, array = Gemm(3136, 9, 1, groups=256), ArrayConfig()
    assert laid_out(gemm, 9, "pack", array) == replace(gemm, pack=256)
    assert laid_out(gemm, 9, "taps", array) == replace(gemm, pack=256, taps=9)
    folds = {name: estimate_gemm(laid_out(gemm, 9, name, array), array).folds for name in MAPPINGS}
    assert folds == {"im2col": 512, "taps": 18, "pack": 18, "best": 18}


def test_formats_whose_sums_have_an_order_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gemm, array = Gemm(5, 18, 1, groups=4), ArrayConfig(7, 8)
    ordered = replace(array.format, ordered=True)
    monkeypatch.setattr(ArrayConfig, "format", property(lambda self: ordered))
    assert isinstance(array.format, Format)
    array = replace(array, rows=9)  # none whose layout is known already
    assert laid_out(gemm, 9, "im2col", array) == laid_out(gemm, 9, "best", array) == gemm
    for name in ("taps", "pack"):
        with raises(
            ValueError,
            f"mapping {name!r} changes the order of additions, and with it the bits of sums of int8 and int8; "
            "use 'im2col', or integers whose sums wrap",
        ):
            laid_out(gemm, 9, name, array)


def test_names_are_checked() -> None:
    assert [check_mapping(name, 2) for name in MAPPINGS] == list(MAPPINGS)
    with raises(ValueError, "mapping must be one of 'im2col', 'taps', 'pack', 'best', not 'tap'"):
        check_mapping("tap", 2)
    with raises(
        ValueError,
        "mapping 'pack' puts several groups of a grouped or depthwise convolution into one tile, and here "
        "there is one group; use 'im2col', 'taps' or 'best'",
    ):
        check_mapping("pack", 1)
