"""Mappings of convolutions: which layouts a name stands for, and the one that takes the fewest cycles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from systolic import _check
from systolic.config import ArrayConfig
from systolic.gemm import Gemm
from systolic.tiling.estimates import estimate_gemm

MAPPINGS = ("im2col", "taps", "pack", "best")
"""How a convolution's product may be laid out.

============  ===================================================================================
``"im2col"``  K over (channels, taps), tiles of `rows` of it; one group after the other; the default
``"taps"``    K over (taps, channels), each tap tiled by itself; groups share tiles as in ``"pack"``
``"pack"``    as ``"im2col"``, but groups share tiles: block-diagonal weights, zeros between groups
``"best"``    whichever of these takes the fewest cycles, the first if several do
============  ===================================================================================

How many groups share tiles is the divisor of their number that takes the fewest cycles on the array.
"""


@lru_cache(maxsize=1024)
def layouts(gemm: Gemm, taps: int, mapping: str) -> tuple[Gemm, ...]:
    """Return the layouts of a product that a mapping chooses from, in the order it prefers.

    Parameters
    ----------
    gemm : Gemm
        Of a convolution by im2col.
    taps : int
        Of its kernel.
    mapping : str
        One of :data:`MAPPINGS`.

    Examples
    --------
    >>> from systolic import Gemm
    >>> from systolic.tiling.mappings import layouts
    >>> layouts(Gemm(196, 9, 1, groups=2), 9, "pack")
    (Gemm(196, 9, 1, groups=2), Gemm(196, 9, 1, groups=2, pack=2))
    """
    if mapping == "im2col":
        return (gemm,)
    packed = tuple(replace(gemm, pack=pack) for pack in _divisors(gemm.groups))
    by_taps = tuple(replace(each, taps=taps) for each in packed)
    if mapping == "best":
        return tuple(dict.fromkeys((*packed, *by_taps)))
    return by_taps if mapping == "taps" else packed


@lru_cache(maxsize=4096)
def laid_out(gemm: Gemm, taps: int, mapping: str, array: ArrayConfig) -> Gemm:
    """Return a convolution's product in the layout that a mapping chooses on an array.

    The arguments are those of :func:`layouts`.

    Raises
    ------
    ValueError
        If the array's sums depend on the order of additions, which "taps" and "pack" change.
    """
    if array.format.ordered:
        if message := wrong_order(mapping, array):
            raise ValueError(message)
        return gemm
    return cheapest(layouts(gemm, taps, mapping), array)


def wrong_order(mapping: str | None, array: ArrayConfig) -> str:
    """Return why a mapping does not fit an array whose sums depend on their order; empty if it fits."""
    if not array.format.ordered or mapping not in ("taps", "pack"):
        return ""
    return (
        f"mapping {mapping!r} changes the order of additions, and with it the bits of sums of "
        f"{array.activation_dtype} and {array.weight_dtype}; use 'im2col', or integers whose sums wrap"
    )


def cheapest(layouts: Sequence[Gemm], array: ArrayConfig) -> Gemm:
    """Return the layout that takes the fewest cycles, the first if several do."""
    return min(layouts, key=lambda each: estimate_gemm(each, array).cycles)


def check_mapping(mapping: Any, groups: int, where: str = "") -> str:
    """Return the name of a mapping; ValueError if there is none, or not for a convolution of so many groups.

    `where` begins the message of an error.
    """
    _check.choice(mapping, f"{where}mapping", MAPPINGS)
    if mapping == "pack" and groups == 1:
        raise ValueError(
            f"{where}mapping 'pack' puts several groups of a grouped or depthwise convolution into one tile, "
            "and here there is one group; use 'im2col', 'taps' or 'best'"
        )
    return str(mapping)


def _divisors(number: int) -> list[int]:
    # More groups than these never share a tile for less; a number of groups may be of any size.
    most = min(math.isqrt(number), _MOST_PACKED)
    small = [each for each in range(1, most + 1) if number % each == 0]
    return sorted({*small, *(number // each for each in small)})


_MOST_PACKED = 1 << 18
