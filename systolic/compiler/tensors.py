"""Where tensors lie: as plain bytes for the host, in blocks of channels for the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from systolic.isa import HostTensor
from systolic.layers.base import Shape

Sides = tuple[int, int, int, int]
"""Rows above, columns to the left, rows below, columns to the right."""

NONE: Sides = (0, 0, 0, 0)
CODES = ("int8", "uint8")


class Border:
    """The border that all tensors of an element-wise operator share, so that their rows match."""

    def __init__(self) -> None:
        self.sides: Sides = NONE
        self.refused = False
        self.by_rows = False  # refused, since rows are cut anywhere
        self._joined: Border | None = None

    def found(self) -> Border:
        """Return the border that this one has become a part of."""
        border = self
        while border._joined is not None:
            border = border._joined
        return border

    def refuse(self, by_rows: bool = False) -> bool:
        """Have no border ever, perhaps since rows are cut anywhere; return False if there is one already."""
        border = self.found()
        if any(border.sides):
            return False
        border.refused = True
        border.by_rows |= by_rows
        return True

    @staticmethod
    def join(borders: Sequence[Border]) -> bool:
        """Make one of several; return False if some must have none and others have one."""
        found = list(dict.fromkeys(border.found() for border in borders))
        if any(border.refused for border in found) and any(any(border.sides) for border in found):
            return False
        for border in found[1:]:
            found[0].sides = _widest(found[0].sides, border.sides)
            found[0].refused |= border.refused
            found[0].by_rows |= border.by_rows
            border._joined = found[0]
        return True


def _widest(one: Sides, other: Sides) -> Sides:
    top, left, bottom, right = map(max, one, other)
    return top, left, bottom, right


@dataclass(eq=False)
class Storage:
    """Rows of memory that hold one tensor, whatever shapes it is read in.

    Attributes
    ----------
    name : str
    dtype : str
    shape : tuple of int
        In which it was written.
    form : {"plain", "blocks", "words"}
        Bytes in C order, only on the host; codes in blocks of channels; results of 4 bytes, a block of the
        array's columns after the other, each result row over `parts` rows.
    axis : int
        Of the channels, in `shape`: 1 or -1.
    width : int
        Channels in a block.
    border : Border
    fill : int or None
        The code that a convolution reads from the border; None if none reads it.
    by_host : bool
        Whether the host writes it.
    """

    name: str
    dtype: str
    shape: Shape
    form: str = "plain"
    axis: int = -1
    width: int = 1
    parts: int = 1
    border: Border = field(default_factory=Border)
    fill: int | None = None
    by_host: bool = True

    @property
    def channels(self) -> int:
        """Channels, or columns of results."""
        return self.shape[self.axis]

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.channels // self.width)

    @property
    def others(self) -> Shape:
        """The axes but the channels'."""
        axis = self.axis % len(self.shape)
        return tuple(size for place, size in enumerate(self.shape) if place != axis)

    @property
    def sides(self) -> Sides:
        """The border in use."""
        return self.border.found().sides if self.form == "blocks" else NONE

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of an image, of three axes beside the channels, without its border."""
        return self.others[1], self.others[2]

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width of an image with its border."""
        top, left, bottom, right = self.sides
        height, width = self.image
        return height + top + bottom, width + left + right

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        others = self.others
        rows = others[0] * math.prod(self.stored) if any(self.sides) else math.prod(others)
        return rows * self.parts

    def rows(self, row_bytes: int) -> int:
        """Return the rows that all of it takes."""
        if self.form == "plain":
            return -(-math.prod(self.shape) * np.dtype(self.dtype).itemsize // row_bytes)
        return self.blocks * self.block_rows

    def take_border(self, sides: Sides, fill: int) -> bool:
        """Make the border at least so wide for a convolution that reads `fill` from it; say if it can be."""
        border = self.border.found()
        if not any(sides):
            return True
        if len(self.shape) != 4 or border.refused or self.fill not in (None, fill):
            return False
        border.sides, self.fill = _widest(border.sides, sides), fill
        return True


@dataclass(frozen=True)
class View:
    """A tensor of the model: rows of memory, and in which shape they are read.

    `moved` is the axis of the channels, if it is not that of the storage.
    """

    storage: Storage
    shape: Shape
    moved: int | None = None

    @property
    def axis(self) -> int:
        """The axis of the channels, where they lie in blocks: 1 or -1."""
        return self.storage.axis if self.moved is None else self.moved

    @property
    def dtype(self) -> str:
        """Type of the elements."""
        return self.storage.dtype

    @property
    def leading(self) -> int:
        """The first axis, along which work is cut; 1 if it is the channels'."""
        return 1 if self.axis % len(self.shape) == 0 else self.shape[0]

    @property
    def elements(self) -> int:
        """How many."""
        return math.prod(self.shape)

    def described(self, first: int) -> HostTensor:
        """Return how the tensor lies in host memory."""
        storage = self.storage
        if storage.form == "plain":
            return HostTensor(first, self.shape, self.dtype)
        return HostTensor(
            first, self.shape, self.dtype, width=storage.width, axis=self.axis, border=storage.sides,
            fill=storage.fill or 0,
        )  # fmt: skip

    def words(self, first: int) -> dict[str, Any]:
        """Return how results of 4 bytes lie in host memory, as a dict that JSON can hold."""
        storage = self.storage
        return {
            "words": storage.dtype, "first": first, "shape": list(self.shape), "axis": self.axis,
            "width": storage.width, "parts": storage.parts,
        }  # fmt: skip


def by_rows(view: View) -> View:
    """Return a tensor in blocks as a matrix, a row for each position of the axes but the channels'."""
    channels = view.shape[view.axis]
    return View(view.storage, (view.elements // channels, channels), -1)


def whole(storage: Storage) -> View:
    """Return all of a storage as it was written."""
    return View(storage, storage.shape)


def image_of(view: View) -> tuple[tuple[int, int], Sides]:
    """Return height and width of an image as it is stored, and its border; a line has height 1."""
    storage = view.storage
    if any(storage.sides):
        return storage.stored, storage.sides
    axis = view.axis % len(view.shape)
    _, *image = (size for place, size in enumerate(view.shape) if place != axis)
    return (1, image[0]) if len(image) == 1 else (image[0], image[1]), NONE


def same_rows(old: View, new: Shape, perm: tuple[int, ...] | None = None) -> int | None:
    """Return the axis of the channels if a tensor in blocks has the same rows in another shape, else None.

    Parameters
    ----------
    old : View
        In blocks of channels.
    new : tuple of int
    perm : tuple of int, optional
        For a transposition: output axis i is input axis perm[i].
    """
    rank = len(old.shape)
    axis = old.axis % rank
    others = [place for place in range(rank) if place != axis]
    if perm is not None:
        place = perm.index(axis)
        if [each for each in perm if each != axis] != others or place not in (1, len(new) - 1):
            return None
        return 1 if place == 1 and place != len(new) - 1 else -1
    channels = old.shape[axis]
    for place in (-1, 1):
        if len(new) <= max(place, 0) or new[place] != channels:
            continue
        # The order of elements is kept: what lies outside and inside of the channels must agree.
        inside = math.prod(old.shape[axis + 1 :])
        if math.prod(new[place:][1:]) == inside and (len(new) > 1 or channels == math.prod(old.shape)):
            return place
    return None
