"""Layers that show what a layer may do, each no more than its one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from systolic.gemm import Gemm
from systolic.layers import ArrayLayer, HostLayer
from systolic.layers.base import UnknownShape
from systolic.lowered import lower_matmul


@dataclass(frozen=True, eq=False, repr=False)
class Halves(HostLayer):
    """Two outputs: the halves of the last axis."""

    outputs: ClassVar[int] = 2

    def output_shape(self, *shapes):
        half = (*shapes[0][:-1], shapes[0][-1] // 2)
        return half, half

    def output_dtype(self, *dtypes):
        return dtypes[0], dtypes[0]

    def apply(self, *inputs):
        return tuple(np.array(half) for half in np.split(inputs[0], 2, axis=-1))


@dataclass(frozen=True, eq=False, repr=False)
class Join(HostLayer):
    """Any number of inputs, side by side along the last axis."""

    inputs: ClassVar[None] = None

    def output_shape(self, *shapes):
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def output_dtype(self, *dtypes):
        return dtypes[0]

    def apply(self, *inputs):
        return np.concatenate(inputs, axis=-1)


@dataclass(frozen=True, eq=False, repr=False)
class Nonzero(HostLayer):
    """A shape that only values tell: the rows with a number above 0."""

    def output_shape(self, *shapes):
        raise UnknownShape

    def output_dtype(self, *dtypes):
        return dtypes[0]

    def apply(self, *inputs):
        return inputs[0][(inputs[0] > 0).any(axis=1)]


@dataclass(frozen=True, eq=False, repr=False)
class Measure(HostLayer):
    """Values that the shape alone tells: the sizes of x."""

    def output_shape(self, *shapes):
        return (len(shapes[0]),)

    def output_dtype(self, *dtypes):
        return "int32"

    def value_of(self, *shapes):
        return np.int32(shapes[0])

    def apply(self, *inputs):
        return np.int32(inputs[0].shape)


@dataclass(frozen=True, eq=False, repr=False)
class Resized(HostLayer):
    """A shape that the second input's values tell."""

    inputs: ClassVar[int] = 2

    def output_shape(self, *shapes):
        raise UnknownShape

    def output_shape_from(self, values, *shapes):
        return self.output_shape(*shapes) if values[1] is None else tuple(int(size) for size in values[1])

    def output_dtype(self, *dtypes):
        return dtypes[0]

    def apply(self, *inputs):
        return inputs[0].reshape(inputs[1]).copy()


@dataclass(frozen=True, eq=False, repr=False)
class Both(ArrayLayer):
    """A product of two tensors, both computed at run time; int32 sums."""

    inputs: ClassVar[int] = 2

    def output_shape(self, *shapes):
        return shapes[0][0], shapes[1][1]

    def output_dtype(self, *dtypes):
        return "int32"

    def products(self, *shapes):
        return Gemm(*shapes[0], shapes[1][1])

    def lower(self, *inputs):
        assert len(inputs) == 2
        return lower_matmul(*inputs)


@dataclass(frozen=True, eq=False, repr=False)
class Power(ArrayLayer):
    """Several products, each of what the one before gave: x @ w @ w, int32 sums, back to int8 in between."""

    inputs: ClassVar[int] = 2

    def output_shape(self, *shapes):
        return shapes[0]

    def output_dtype(self, *dtypes):
        return "int32"

    def products(self, *shapes):
        return (Gemm(*shapes[0], shapes[1][1]),) * 2

    def steps(self, *inputs):
        x, w = inputs
        first = yield lower_matmul(x, w)
        return (yield lower_matmul(first.astype(np.int8), w))


TOYS = (Halves, Join, Nonzero, Measure, Resized, Both, Power)
