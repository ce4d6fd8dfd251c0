"""How a mapping lays out the product of a convolution: groups that share tiles, and the order of k."""

from __future__ import annotations

from typing import Any

import numpy as np

from systolic.reference.cycles import Layout, expected_cycles
from systolic.reference.operands import Index, Operands


def expected_layout(gemm: Any, array: Any, mapping: str, taps: int) -> Layout:
    """Return the layout that a mapping stands for on an array.

    Parameters
    ----------
    gemm : object
        With the sizes m, k, n and groups of the convolution by im2col.
    array : object
        An ArrayConfig.
    mapping : {"im2col", "taps", "pack", "best"}
    taps : int
        Of the kernel.
    """
    packs = [pack for pack in range(1, gemm.groups + 1) if gemm.groups % pack == 0]
    choices = {
        "im2col": [Layout(1, 1)],
        "pack": [Layout(1, pack) for pack in packs],
        "taps": [Layout(taps, pack) for pack in packs],
    }
    choices["best"] = choices["pack"] + choices["taps"]
    cycles = {layout: expected_cycles(gemm, array, layout) for layout in choices[mapping]}
    return next(layout for layout, count in cycles.items() if count == min(cycles.values()))


def laid_out(operands: Operands, gemm: Any, layout: Layout, taps: int) -> Operands:
    """Return the operands of a product as they lie in a layout.

    Its groups are those that share tiles, each with the k and n of all of them. K runs over (group, channel,
    tap), in parts over (tap, group, channel); N over (group, n). Weights between groups are zeros.
    """
    pack, k_size, n_size = layout.pack, gemm.k, gemm.n

    def source(k: int) -> tuple[int, int]:
        """Return the group among those that share tiles, and k there by im2col."""
        if layout.parts == 1:
            return divmod(k, k_size)
        tap, rest = divmod(k, k_size // taps * pack)
        group, channel = divmod(rest, k_size // taps)
        return group, channel * taps + tap

    def rows(group: int, m: np.ndarray, k: np.ndarray) -> np.ndarray:
        found = operands.rows(group * pack, m, np.zeros(len(k), int)).copy()
        for column, (member, own) in enumerate(map(source, k.tolist())):
            found[:, column] = operands.rows(group * pack + member, m, np.array([own]))[:, 0]
        return found

    def weights(group: int, k: np.ndarray, n: np.ndarray) -> np.ndarray:
        found = np.zeros_like(operands.weights(group, np.zeros(len(k), int), np.zeros(len(n), int)))
        for row, (member, own) in enumerate(map(source, k.tolist())):
            for column, (other, at) in enumerate(map(divmod, n.tolist(), [n_size] * len(n))):
                if member == other:
                    one = operands.weights(group * pack + member, np.array([own]), np.array([at]))
                    found[row, column] = one.item()
        return found

    def place(index: Index) -> tuple[int, int, int]:
        group, m, n = operands.place(index)
        return group // pack, m, group % pack * n_size + n

    return Operands(rows, weights, place)
