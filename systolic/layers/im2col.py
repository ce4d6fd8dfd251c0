"""Convolutions as products: patches of the image as rows of x, cut out piece by piece.

M runs over (batch, oh, ow) and K over (ic, kh, kw), first index outermost, for every layout. The
im2col matrix never exists as a whole: :class:`ConvProduct` cuts out the rows and columns that the
machine asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np

from systolic import _gemm
from systolic.gemm import Gemm, Piece, cut, operand_name
from systolic.layers.geometry import Window

# About as many MACs take as long as to put one value of a patch, or one output, in its place.
_VALUE_MACS = 512


class ConvProduct:
    """A (grouped) convolution lowered to products, one per group; a :class:`~systolic.gemm.Product`.

    Parameters
    ----------
    x : ndarray of int8 or uint8, (batch, ic, ih, iw) or (batch, ih, iw, ic)
    w : ndarray of int8 or uint8, (oc, ic // groups, kh, kw)
    window : Window
        Stride, dilation, resolved padding and output size.
    groups : int
        Blocks of channels convolved apart.
    layout : {"NCHW", "NHWC"}
        Of x and of the result.
    pad_value : int
        The code of padded pixels: the activations' zero point.

    Attributes
    ----------
    gemm : Gemm
    """

    def __init__(
        self, x: np.ndarray, w: np.ndarray, window: Window, *, groups: int, layout: str, pad_value: int
    ) -> None:
        oc, icg, kh, kw = w.shape
        oh, ow = window.out
        batch = x.shape[0]
        self.gemm = Gemm(batch * oh * ow, icg * kh * kw, oc // groups, groups=groups)
        self.activation_dtype, self.weight_dtype = operand_name(x), operand_name(w)
        self._window, self._channels, self._layout, self._pad_value = window, icg, layout, pad_value
        self._kernels = np.ascontiguousarray(w).reshape(groups, oc // groups, icg * kh * kw)
        self._w = self._kernels.reshape(oc, icg * kh * kw).T
        # (batch, ic, ih, iw) in whichever order the bytes lie.
        self._x = x if layout == "NCHW" else x.transpose(0, 3, 1, 2)
        self._size = (batch, oc, oh, ow) if layout == "NCHW" else (batch, oh, ow, oc)
        self._finish: dict[str, Any] | None = None

    @cached_property
    def acc(self) -> np.ndarray:
        """Where :meth:`store` puts the sums, int32: (batch, oc, oh, ow) or (batch, oh, ow, oc)."""
        if self._finish is not None:
            raise RuntimeError("finish_with() has asked for codes: there are no sums")
        # Every sum is stored, unless there is nothing to add.
        return (np.empty if self.gemm.k else np.zeros)(self._size, dtype=np.int32)

    @cached_property
    def _sums(self) -> np.ndarray:
        """The sums as (batch, pixels, channels), whichever way the channels lie."""
        batch, pixels = self._x.shape[0], self._window.out[0] * self._window.out[1]
        if self._layout == "NCHW":
            return self.acc.reshape(batch, -1, pixels).transpose(0, 2, 1)
        return self.acc.reshape(batch, pixels, -1)

    def finish_with(self, constant: np.ndarray, scale: np.ndarray, zero_point: int, dtype: str) -> None:
        """Have :meth:`compute` put codes into `codes` instead of sums into `acc`.

        Parameters
        ----------
        constant : ndarray of int32, (oc,)
            Added to the sums.
        scale : ndarray of float32, (oc,)
            Multiplier of each channel, for rounding half to even.
        zero_point, dtype
            Of the codes.
        """
        if self.gemm.macs:
            codes = np.empty(self._size, dtype=dtype)
            self._finish = {"codes": codes, "scale": scale, "zero_point": zero_point, "constant": constant}

    @property
    def codes(self) -> np.ndarray | None:
        """The layer's output, where :meth:`finish_with` asked for it."""
        return None if self._finish is None else self._finish["codes"]

    @property
    def work(self) -> int:
        """The MACs, and what patches and outputs cost, in MACs."""
        gemm = self.gemm
        return gemm.macs + _VALUE_MACS * gemm.groups * gemm.m * (gemm.k + gemm.n)

    def compute(self, threads: int) -> None:
        """Convolve: compute all sums, or codes; patches are made in cache."""
        oh, ow = self._window.out
        self._convolve((0, self._x.shape[0]), (0, oh * ow), threads)

    def pieces(self, parts: int) -> Iterator[Piece]:
        """Return convolutions of some images or some of an image's pixels."""
        batch, pixels = self._x.shape[0], self._window.out[0] * self._window.out[1]
        channels = self.gemm.groups * self.gemm.n
        images = list(cut(batch, parts, 1))
        for some in images:
            for part in cut(pixels, -(-parts // len(images)), 64):
                size = (some.stop - some.start) * (part.stop - part.start) * channels
                yield Piece(size, partial(self._convolve, (some.start, some.stop), (part.start, part.stop)))

    def _convolve(self, images: tuple[int, int], pixels: tuple[int, int], threads: int) -> None:
        window, finish = self._window, self._finish
        _gemm.convolve(
            self._x, self._weights, self.acc if finish is None else None, window.kernel, window.stride,
            window.dilation, window.before, window.out, self._pad_value, images=images, pixels=pixels,
            channels_last=self._layout == "NHWC", threads=threads, **(finish or {}),
        )  # fmt: skip

    @cached_property
    def _weights(self) -> np.ndarray:
        """(groups, n, k), or (groups, k, n) where channels lie innermost."""
        if self._layout == "NCHW":
            return self._kernels
        return np.ascontiguousarray(self._kernels.transpose(0, 2, 1))

    def rows(self, group: int, m_start: int, m_stop: int, k_start: int, k_stop: int) -> np.ndarray:
        """Return some rows and columns of a group's im2col matrix."""
        window, k_offset = self._window, group * self.gemm.k
        matrix = np.empty((m_stop - m_start, k_stop - k_start), dtype=self._x.dtype)
        _gemm.im2col(
            self._x, matrix, window.kernel, window.stride, window.dilation, window.before, window.out,
            self._pad_value, k_offset + k_start, m_start,
        )  # fmt: skip
        return matrix

    def row_sums(self) -> np.ndarray:
        """Return the sum of each patch, (batch, oh, ow, groups) int32, without lowering anything."""
        window = self._window
        batch, _, height, width = self._x.shape
        # Sum over each group's channels, minus the padding value; then over the taps inside the image.
        pixels = self._x.reshape(batch, self.gemm.groups, self._channels, height, width)
        padding = np.int32(self._pad_value * self._channels)
        above = pixels.sum(axis=2, dtype=np.int32).transpose(0, 2, 3, 1) - padding
        taps = window.kernel[0] * window.kernel[1]
        total = np.full((batch, *window.out, self.gemm.groups), taps * padding, dtype=np.int32)
        for (rows, from_rows), (cols, from_cols) in product(window.taps(0).values(), window.taps(1).values()):
            total[:, rows, cols] += above[:, from_rows, from_cols]
        return total

    def tile(self, group: int, k_start: int, k_stop: int, n_start: int, n_stop: int) -> np.ndarray:
        """Return part of a group's kernels as a (K, N) matrix."""
        offset = group * self.gemm.n
        return self._w[k_start:k_stop, offset + n_start : offset + n_stop]

    def store(self, group: int, m_start: int, n_start: int, sums: np.ndarray) -> None:
        """Put finished sums into `acc`."""
        m, n = sums.shape
        channel = group * self.gemm.n + n_start
        done = 0
        for images, pixels in _per_image(m_start, m_start + m, self._window.out[0] * self._window.out[1]):
            target = self._sums[images, pixels, channel : channel + n]
            count = target.shape[0] * target.shape[1]
            target[...] = sums[done : done + count].reshape(target.shape)
            done += count


def _per_image(start: int, stop: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Cut start..stop, counted over images of `size`, into blocks (images, within the image).

    At most three blocks: the end of an image, whole images, the beginning of one.
    """
    image, within = divmod(start, size)
    if within or stop < (image + 1) * size:
        end = min(stop, (image + 1) * size)
        yield slice(image, image + 1), slice(within, within + end - start)
        start = end
    whole = stop // size
    if start < whole * size:
        yield slice(start // size, whole), slice(0, size)
        start = whole * size
    if start < stop:
        yield slice(whole, whole + 1), slice(0, stop - start)
