"""Number formats as records: types of operands, sums and their additions, and their kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Operand:
    """A type of operands.

    Parameters
    ----------
    name : str
        As numpy and ml_dtypes name it.
    bits : int
        Of a value in hardware.
    kind : {"integer", "float"}
    storage : str
        The type of its registers and ports: integers of 4 bits have a lane of 8.
    """

    name: str
    bits: int
    kind: Literal["integer", "float"]
    storage: str

    @property
    def dtype(self) -> np.dtype:
        """The type of its registers and ports; needs ml_dtypes for floats that numpy does not have."""
        return dtype_of(self.storage)

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest value of an integer type."""
        if self.name.startswith("u"):
            return 0, 2**self.bits - 1
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1


OPERANDS = {
    operand.name: operand
    for operand in (
        Operand("int8", 8, "integer", "int8"),
        Operand("uint8", 8, "integer", "uint8"),
        Operand("int4", 4, "integer", "int8"),
        Operand("uint4", 4, "integer", "uint8"),
        Operand("int16", 16, "integer", "int16"),
        Operand("uint16", 16, "integer", "uint16"),
        Operand("bfloat16", 16, "float", "bfloat16"),
        Operand("float16", 16, "float", "float16"),
        Operand("float8_e4m3fn", 8, "float", "float8_e4m3fn"),
        Operand("float8_e5m2", 8, "float", "float8_e5m2"),
    )
}
"""Every type of operands, by name."""

OVERFLOWS = ("wrap", "saturate")
"""What becomes of an integer sum that does not fit: modulo 2^bits, or the nearest limit."""

Order = Literal["free", "fixed"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """The numbers of one pair of operand types.

    Parameters
    ----------
    activation, weight : str
        Types of the operands: names in :data:`OPERANDS`.
    sum : {"int32", "int64", "float32"}
        Type of the registers and accumulators that hold sums.
    psum_bits : int
        Of a sum in hardware; registers hold integers of fewer bits sign-extended.
    overflow : {"wrap", "saturate"}
        Whether an integer sum that does not fit wraps modulo ``2**psum_bits`` or takes the nearest value that
        fits, at every addition. A float sum is rounded to nearest, ties to even.
    ordered : bool
        Whether the order of additions changes a sum. If so, every mode adds as the array does: within a
        fold row 0 first, from +0; then the accumulators add the k tiles in order.
    kernel : str
        The kernel that computes it: a key of ``Dataflow.kernels``.

    Examples
    --------
    >>> from systolic.formats import format_of
    >>> format_of("uint8", "int8").sum, format_of("uint8", "int8").ordered
    ('int32', False)
    >>> format_of("bfloat16", "bfloat16").sum, format_of("bfloat16", "bfloat16").ordered
    ('float32', True)
    """

    activation: str
    weight: str
    sum: str
    psum_bits: int
    overflow: str
    ordered: bool
    kernel: str

    @property
    def activation_bits(self) -> int:
        """Bits of an activation."""
        return OPERANDS[self.activation].bits

    @property
    def weight_bits(self) -> int:
        """Bits of a weight."""
        return OPERANDS[self.weight].bits

    @property
    def activation_bytes(self) -> int:
        """Bytes that an activation takes in a memory that is not packed."""
        return packed_bytes(1, self.activation_bits)

    @property
    def weight_bytes(self) -> int:
        """Bytes that a weight takes in a memory that is not packed."""
        return packed_bytes(1, self.weight_bits)

    @property
    def sum_bytes(self) -> int:
        """Bytes of a sum in hardware."""
        return -(-self.psum_bits // 8)

    @property
    def is_float(self) -> bool:
        """Whether operands and sums are floats."""
        return self.sum == "float32"

    @property
    def saturates(self) -> bool:
        """Whether sums take the nearest value that fits, instead of wrapping or being rounded."""
        return self.overflow == "saturate"

    @property
    def is_plain(self) -> bool:
        """Whether these are 8-bit integers with sums modulo 2^32."""
        bits = self.activation_bits, self.weight_bits, self.psum_bits
        return self.kernel == "8-bit integers" and bits == (8, 8, 32)

    @property
    def text(self) -> str:
        """The format in a few words, for messages and tables."""
        if self.is_float:
            return f"{self.activation} x {self.weight}, float32 sums"
        verb = "saturate" if self.saturates else "wrap"
        return f"{self.activation} x {self.weight}, sums of {self.psum_bits} bits that {verb}"

    @property
    def sum_limits(self) -> tuple[int, int]:
        """The lowest and the highest integer sum."""
        return -(2 ** (self.psum_bits - 1)), 2 ** (self.psum_bits - 1) - 1

    def narrow(self, sums: np.ndarray) -> None:
        """Wrap sums that were computed modulo the size of their type to `psum_bits`, in place."""
        spare = 8 * sums.itemsize - self.psum_bits
        if spare and not self.saturates:
            np.left_shift(sums, spare, out=sums)
            np.right_shift(sums, spare, out=sums)

    def accumulate(self, sums: np.ndarray, more: np.ndarray) -> None:
        """Add to sums as the accumulators do, in place: wrapped, saturated or rounded once."""
        if self.is_float:
            with np.errstate(all="ignore"):
                sums += more
                sums += np.float32(0)  # a sum that is zero is +0
        elif not self.saturates:
            sums += more
            self.narrow(sums)
        elif self.psum_bits < 64:
            np.clip(sums.astype(np.int64) + more, *self.sum_limits, out=sums, casting="unsafe")
        else:
            total = sums + more
            # Both have the sign that the sum has not: it wrapped.
            wrapped = ((sums ^ total) & (more ^ total)) < 0
            sums[...] = np.where(wrapped, np.where(sums < 0, *self.sum_limits), total)


def format_of(activation: str, weight: str, psum_bits: int = 32, overflow: str = "wrap") -> Format:
    """Return the format of two types of operands.

    Parameters
    ----------
    activation, weight : str
        Names in :data:`OPERANDS`.
    psum_bits : int
        16 to 32, or 64; of floats 32.
    overflow : {"wrap", "saturate"}
        Of floats "wrap", which is then not used.

    Raises
    ------
    ValueError
        If there is no such format; the message says what there is.
    """
    return _formats(activation, weight, psum_bits, overflow)


@cache
def _formats(activation: str, weight: str, psum_bits: int, overflow: str) -> Format:
    pair = OPERANDS[activation], OPERANDS[weight]
    is_float = pair[0].kind == "float"
    partners = partners_of(activation)
    if weight not in partners:
        raise ValueError(
            f"activations of {activation} cannot be multiplied with weights of {weight}: with {activation} "
            f"go weights of {', '.join(partners)}"
        )
    if is_float and (psum_bits, overflow) != (32, "wrap"):
        raise ValueError(
            f"psum_bits and overflow are for integers: sums of {activation} are float32, rounded each time"
        )
    if not (16 <= psum_bits <= 32 or psum_bits == 64):
        raise ValueError(f"psum_bits must be 16 to 32, or 64, not {psum_bits}")
    eight = overflow == "wrap" and psum_bits <= 32 and max(operand.bits for operand in pair) <= 8
    return Format(
        activation=activation,
        weight=weight,
        sum="float32" if is_float else "int64" if psum_bits == 64 else "int32",
        psum_bits=psum_bits,
        overflow=overflow,
        ordered=is_float or overflow == "saturate",
        kernel="8-bit integers" if eight and not is_float else "numbers",
    )


def partners_of(activation: str) -> tuple[str, ...]:
    """Return the types of weights that activations of a type can be multiplied with.

    Examples
    --------
    >>> from systolic.formats import partners_of
    >>> partners_of("bfloat16"), partners_of("float8_e5m2")
    (('bfloat16',), ('float8_e4m3fn', 'float8_e5m2'))
    """
    mine = OPERANDS[activation]
    if mine.kind == "float":
        return tuple(
            name for name in OPERANDS if name == activation or (mine.bits == 8 and name.startswith("float8"))
        )
    integers = (other for other in OPERANDS.values() if other.kind == "integer")
    return tuple(other.name for other in integers if {mine.bits, other.bits} != {4, 16})


FORMATS = {(a, w): format_of(a, w) for a in OPERANDS for w in partners_of(a)}
"""Every pair of operand types (activation, weight), and its format with sums of 32 bits that wrap."""


@cache
def dtype_of(name: str) -> np.dtype:
    """Return a type by its name; those that numpy does not have come from ml_dtypes."""
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            f'arrays of {name} need ml_dtypes: pip install "systolic[formats]", or pip install ml_dtypes'
        ) from None
    return np.dtype(getattr(ml_dtypes, name))


@cache
def _name(dtype: np.dtype) -> str:
    return dtype.name


def operand_name(values: Any) -> str:
    """Return the name of an operand's type; faster than ``dtype.name``, which takes microseconds."""
    return _name(values.dtype)


def stored(values: np.ndarray) -> np.ndarray:
    """Return operands as registers hold them: integers of 4 bits in lanes of 8.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.formats import stored
    >>> stored(np.int8([3])).dtype
    dtype('int8')
    """
    operand = OPERANDS[operand_name(values)]
    return values if operand.storage == operand.name else values.astype(operand.dtype)


def as_numbers(values: np.ndarray) -> np.ndarray:
    """Return values of a register or port as int64, or as float64, which holds floats exactly."""
    with np.errstate(invalid="ignore"):  # signaling NaN
        return values.astype(np.int64 if values.dtype.kind in "iub" else np.float64)


def differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return where values differ; NaN equals NaN."""
    return (a != b) & ~((a != a) & (b != b))


def as_bits(values: np.ndarray) -> np.ndarray:
    """Return values of a register or port as integers of the same bits: floats by their encoding.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.formats import as_bits
    >>> as_bits(np.float16([1, -2])).tolist(), as_bits(np.int8([-1])).tolist()
    ([15360, 49152], [-1])
    """
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    return values.view(f"u{values.dtype.itemsize}").astype(np.int64)


def packed_bytes(count: Any, bits: int) -> Any:
    """Return the bytes of so many operands, two of 4 bits in a byte; integers or arrays of them.

    Examples
    --------
    >>> from systolic.formats import packed_bytes
    >>> packed_bytes(5, 16), packed_bytes(5, 4)
    (10, 3)
    """
    return (count + 1) // 2 if bits == 4 else count * (bits // 8)


@cache
def bits(dtype: np.dtype) -> int:
    """Return how many bits a value of this type takes in hardware: 1 for a bool."""
    return 1 if dtype.kind == "b" else 8 * dtype.itemsize
