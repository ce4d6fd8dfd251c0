"""The yardsticks of cycle mode: arrays stepped by preallocated numpy, without control bits."""

from __future__ import annotations

import numpy as np


class NumpyStepping:
    """The yardstick of cycle mode: psums of a rows x cols array stepped by preallocated numpy.

    Each cycle slides the activations, multiplies and adds; weights stand still and nothing is
    shifted or swapped, so it does less than the kernel does.
    """

    def __init__(self, x: np.ndarray, w: np.ndarray) -> None:
        self.west, self.w16 = x.astype(np.int16), w.astype(np.int16)
        self.a16, self.t16 = np.zeros((2, *w.shape), dtype=np.int16)
        self.p, self.q = np.zeros((2, *w.shape), dtype=np.int32)

    def run(self) -> None:
        """Step through all rows of x, fed without skew."""
        a16, w16, t16, p, q = self.a16, self.w16, self.t16, self.p, self.q
        for west in self.west:
            a16[:, 1:] = a16[:, :-1]
            a16[:, 0] = west
            np.multiply(a16, w16, out=t16)
            np.add(p[:-1], t16[1:], out=q[1:])
            q[0] = t16[0]
            p, q = q, p
        self.p, self.q = p, q


class OutputStepping:
    """The same for an output-stationary array, x (rows, k) by w (k, cols).

    Each cycle slides both operands, multiplies and adds; nothing is swapped or drained, so it does less
    than the kernel does.
    """

    def __init__(self, x: np.ndarray, w: np.ndarray) -> None:
        self.west, self.north = np.ascontiguousarray(x.T.astype(np.int16)), w.astype(np.int16)
        self.a16, self.w16, self.t16 = np.zeros((3, len(x), w.shape[1]), dtype=np.int16)
        self.acc = np.zeros((len(x), w.shape[1]), dtype=np.int32)

    def run(self) -> None:
        """Step through all of k, fed without skew."""
        a16, w16, t16, acc = self.a16, self.w16, self.t16, self.acc
        for west, north in zip(self.west, self.north, strict=True):
            a16[:, 1:] = a16[:, :-1]
            a16[:, 0] = west
            w16[1:] = w16[:-1]
            w16[0] = north
            np.multiply(a16, w16, out=t16)
            np.add(acc, t16, out=acc)


class FloatStepping:
    """The yardstick of number formats: float32 products added in place to float32 psums that slide down.

    As :class:`NumpyStepping`. Psums are a window of a taller array, which moves instead of them.
    """

    def __init__(self, x: np.ndarray, w: np.ndarray) -> None:
        self.west, self.w = x.astype(np.float32), w.astype(np.float32)
        self.a, self.t = np.zeros((2, *w.shape), dtype=np.float32)
        self.sums = np.zeros((len(x) + len(w), w.shape[1]), dtype=np.float32)

    @property
    def p(self) -> np.ndarray:
        """The psums."""
        return self.sums[: len(self.w)]

    def run(self) -> None:
        """Step through all rows of x, fed without skew."""
        a, w, t, sums, rows = self.a, self.w, self.t, self.sums, len(self.w)
        sums[len(self.west) :] = self.p.copy()
        sums[: len(self.west)] = 0
        for top, west in zip(range(len(self.west) - 1, -1, -1), self.west, strict=True):
            a[:, 1:] = a[:, :-1]
            a[:, 0] = west
            np.multiply(a, w, out=t)
            here = sums[top : top + rows]
            np.add(here, t, out=here)
