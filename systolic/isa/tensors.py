"""``HostTensor``: where a tensor lies in host memory, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from systolic import _check


@dataclass(frozen=True)
class HostTensor:
    """A tensor in rows of memory, as its bytes or in blocks of channels.

    Parameters
    ----------
    first : int
        The first row.
    shape : tuple of int
    dtype : str
    width : int or None
        None: the bytes of the tensor in C order. Otherwise the tensor holds 8-bit codes, and lies in blocks
        of so many channels, one after the other. A block has a row for each position of the other axes, in C
        order, whose first bytes are its channels; what the last block lacks is `fill`.
    axis : int
        The axis of the channels, where `width` is given: 1 for images with channels first, -1 for matrices.
    border : (int, int, int, int)
        Rows of `fill` above, to the left, below and to the right of each image, (batch, channels, height,
        width) or (batch, height, width, channels).
    fill : int
        The code of the border: the zero point.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.isa import HostTensor
    >>> tensor = HostTensor(0, (1, 3, 2, 2), "int8", width=2, axis=1)
    >>> tensor.rows(row_bytes=4)
    8
    >>> tensor.pack(np.arange(12, dtype=np.int8).reshape(1, 3, 2, 2), row_bytes=4)[:4].tolist()
    [[0, 4, 0, 0], [1, 5, 0, 0], [2, 6, 0, 0], [3, 7, 0, 0]]
    """

    first: int
    shape: tuple[int, ...]
    dtype: str
    width: int | None = field(default=None, kw_only=True)
    axis: int = field(default=-1, kw_only=True)
    border: tuple[int, int, int, int] = field(default=(0, 0, 0, 0), kw_only=True)
    fill: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "first", _check.integer(self.first, "first", minimum=0))
        put(self, "shape", tuple(_check.integer(size, "shape", minimum=0) for size in self.shape))
        put(self, "dtype", _check.dtype_name(np.dtype(self.dtype)))
        put(self, "border", tuple(_check.integer(size, "border", minimum=0) for size in self.border))
        put(self, "fill", _check.integer(self.fill, "fill"))
        if self.width is None:
            return
        put(self, "width", _check.integer(self.width, "width", minimum=1))
        if self.dtype not in ("int8", "uint8"):
            raise ValueError(f"only tensors of int8 or uint8 lie in blocks of channels, not {self.dtype}")
        if self.axis not in (1, -1) or len(self.shape) < 1 + (self.axis == 1):
            raise ValueError(f"axis must be 1 or -1, an axis of {_check.shape(self.shape)}, not {self.axis}")
        if any(self.border) and len(self.shape) != 4:
            raise ValueError(f"a border needs images, of four axes, not {_check.shape(self.shape)}")

    @property
    def channels(self) -> int:
        """Channels, in all blocks together."""
        return self.shape[self.axis]

    @property
    def stored(self) -> tuple[int, ...]:
        """The axes but the channels', the border counted."""
        axis = self.axis % len(self.shape)
        others = [size for place, size in enumerate(self.shape) if place != axis]
        if any(self.border):
            top, left, bottom, right = self.border
            others[1:] = others[1] + top + bottom, others[2] + left + right
        return tuple(others)

    @property
    def block_rows(self) -> int:
        """Rows of a block of channels."""
        return math.prod(self.stored)

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        assert self.width is not None
        return -(-self.channels // self.width)

    def rows(self, row_bytes: int) -> int:
        """Return the rows that the tensor takes."""
        if self.width is None:
            return -(-math.prod(self.shape) * np.dtype(self.dtype).itemsize // row_bytes)
        return self.blocks * self.block_rows

    def pack(self, array: np.ndarray, row_bytes: int) -> np.ndarray:
        """Return a tensor as rows of bytes, (rows, row_bytes)."""
        out = np.zeros((self.rows(row_bytes), row_bytes), np.uint8)
        array = np.ascontiguousarray(array, self.dtype)
        if self.width is None:
            out.reshape(-1)[: array.nbytes] = array.reshape(-1).view(np.uint8)
            return out
        view = out.view(self.dtype).reshape(self.blocks, *self.stored, row_bytes)
        view[..., : self.width] = self.fill
        inside, moved = self._inside(view), np.moveaxis(array, self.axis, -1)
        for block in range(self.blocks):
            part = moved[..., block * self.width : (block + 1) * self.width]
            inside[block, ..., : part.shape[-1]] = part
        return out

    def unpack(self, rows: np.ndarray) -> np.ndarray:
        """Return the tensor that lies in rows of bytes, (rows, row_bytes)."""
        if self.width is None:
            count = math.prod(self.shape) * np.dtype(self.dtype).itemsize
            return np.ascontiguousarray(rows).reshape(-1)[:count].view(self.dtype).reshape(self.shape).copy()
        view = np.ascontiguousarray(rows).view(self.dtype).reshape(self.blocks, *self.stored, rows.shape[1])
        inside = self._inside(view)[..., : self.width]
        together = (*inside.shape[1:-1], self.blocks * self.width)
        joined = np.moveaxis(inside, 0, -2).reshape(together)[..., : self.channels]
        return np.ascontiguousarray(np.moveaxis(joined, -1, self.axis))

    def _inside(self, view: np.ndarray) -> np.ndarray:
        """Return the images without their borders."""
        if not any(self.border):
            return view
        top, left, bottom, right = self.border
        return view[:, :, top : view.shape[2] - bottom, left : view.shape[3] - right]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "shape": list(self.shape), "border": list(self.border)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HostTensor:
        """Return the tensor that :meth:`to_dict` described."""
        return cls(**{**data, "shape": tuple(data["shape"]), "border": tuple(data["border"])})
