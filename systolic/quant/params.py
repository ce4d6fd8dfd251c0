"""Quantization parameters: scale and zero point, per tensor or per channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

import numpy as np

from systolic import _check

DTYPES = ("int8", "uint8", "int32")
EIGHT_BITS = _check.OPERAND_DTYPES


@dataclass(frozen=True, repr=False)
class QuantParams:
    """How codes (quantized integer values) represent reals: ``real = scale * (code - zero_point)``.

    A value: hashable, comparable, picklable; it round-trips through ``eval(repr(p))`` and,
    with :meth:`to_dict` and :meth:`from_dict`, through JSON.

    Parameters
    ----------
    scale : float or sequence of float
        Finite and above zero; rounded to float32, the type ONNX stores. A sequence (list,
        tuple, 1-D array) holds one scale per channel. Kept as float or tuple of float.
    zero_point : int or sequence of int
        The code of real 0; it must fit `dtype`, and is 0 for int32. Kept as int or tuple of int.
    dtype : {"int8", "uint8", "int32"}
        Type of the codes; int32 is for biases.
    axis : int or None
        The channels' axis; given exactly when `scale` or `zero_point` is a sequence.

    Raises
    ------
    TypeError
        If a scale is not a number or a zero point not an integer.
    ValueError
        If a scale is NaN, infinite, not positive, or 0 or infinite once rounded to float32; if a
        zero point does not fit; if the sequences differ in length or come without `axis`.

    Notes
    -----
    ONNX operators QuantizeLinear and DequantizeLinear, per tensor and per axis.

    Examples
    --------
    >>> from systolic import QuantParams
    >>> QuantParams(0.1, 3)
    QuantParams(scale=0.1, zero_point=3)
    >>> QuantParams([0.5, 0.25], axis=0).per_channel
    True
    >>> QuantParams.from_dict(QuantParams(0.1, 128, "uint8").to_dict())
    QuantParams(scale=0.1, zero_point=128, dtype='uint8')
    """

    scale: float | Sequence[float] | np.ndarray
    zero_point: int | Sequence[int] | np.ndarray = 0
    dtype: str = "int8"
    axis: int | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("dtype", check_dtype(self.dtype, DTYPES))
        put("scale", _each(self.scale, "scale", _scale))
        put("zero_point", _each(self.zero_point, "zero_point", partial(check_zero_point, dtype=self.dtype)))
        lengths = {
            name: len(value)
            for name, value in (("scale", self.scale), ("zero_point", self.zero_point))
            if isinstance(value, tuple)
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(
                "scale and zero_point must have one length, "
                f"not {lengths['scale']} and {lengths['zero_point']}"
            )
        if self.axis is not None:
            put("axis", _check.integer(self.axis, "axis"))
            if not lengths:
                raise ValueError(
                    f"axis must be None for one scale and one zero point, not {self.axis}; "
                    "pass a sequence with one scale per channel, or leave the axis out"
                )
        elif lengths:
            name, length = next(iter(lengths.items()))
            raise ValueError(
                f"axis must be given for a {name} of {length} channels: the axis along which they run "
                f"(for one {name} for the whole tensor, pass a number)"
            )

    @property
    def per_channel(self) -> bool:
        """Whether there is one scale or zero point per channel."""
        return self.axis is not None

    @cached_property
    def scales(self) -> np.ndarray:
        """The scales, a read-only float32 array: 0-d, or (C,) when per channel."""
        return self._array(self.scale, "float32")

    @cached_property
    def zero_points(self) -> np.ndarray:
        """The zero points, a read-only array of `dtype`: 0-d, or (C,) when per channel."""
        return self._array(self.zero_point, self.dtype)

    def _array(self, value: Any, dtype: str) -> np.ndarray:
        array = np.full(self._shape, value, dtype)
        array.flags.writeable = False
        return array

    def __getstate__(self) -> dict[str, Any]:
        # Values derived from the fields are computed again.
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def qmin(self) -> int:
        """The smallest code."""
        return int(np.iinfo(self.dtype).min)

    @property
    def qmax(self) -> int:
        """The largest code."""
        return int(np.iinfo(self.dtype).max)

    @property
    def _shape(self) -> tuple[int, ...]:
        for value in (self.scale, self.zero_point):
            if isinstance(value, tuple):
                return (len(value),)
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QuantParams:
        """Return the parameters that :meth:`to_dict` described."""
        if not isinstance(data, dict):
            raise TypeError(f"QuantParams.from_dict takes a dict, not {type(data).__name__}")
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(data) - set(known))
        if unknown or "scale" not in data:
            wrong = f"has no field {', '.join(map(repr, unknown))}" if unknown else "needs the field 'scale'"
            raise ValueError(f"QuantParams {wrong}; its fields are {', '.join(known)}")
        return cls(**data)

    def __repr__(self) -> str:
        shown = [f"scale={_short(self.scale)}"]
        for f in fields(self)[1:]:
            value = getattr(self, f.name)
            if value != f.default:
                shown.append(f"{f.name}={value!r}")
        return f"QuantParams({', '.join(shown)})"


def as_params(
    value: Any, name: str, *, per_tensor: bool = False, dtypes: Sequence[str] = EIGHT_BITS
) -> QuantParams:
    """Return `value` if it is a QuantParams of one of the `dtypes`; the check all layers share.

    TypeError if it is none or of another type, ValueError if it is per channel and must be per tensor.

    Examples
    --------
    >>> from systolic import QuantParams
    >>> from systolic.quant import as_params
    >>> as_params(QuantParams(0.5), "x", per_tensor=True)
    QuantParams(scale=0.5)
    """
    if not isinstance(value, QuantParams):
        raise TypeError(f"{name} must be a QuantParams, not {_check.kind(value)}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name} must be a QuantParams of {' or '.join(dtypes)}, not {value.dtype}")
    if per_tensor and value.per_channel:
        raise ValueError(f"{name} must have one scale and one zero point, not one per channel")
    return value


def _each(value: Any, name: str, convert: Callable[[Any, str], Any]) -> Any:
    """Return a converted number, or a tuple of them where `value` is a sequence or 1-D array."""
    if isinstance(value, np.ndarray):
        value = _check.as_array(value, name)
        if value.ndim > 1:
            shape = _check.shape(value.shape)
            raise ValueError(f"{name} must be a number or have one axis (C,), not {shape}")
        value = value.tolist()
    if not _check.is_listed(value):
        return convert(value, name)
    if not value:
        raise ValueError(f"{name} must be a number or one number per channel, not an empty sequence")
    return tuple(convert(item, f"{name}[{index}]") for index, item in enumerate(value))


def _scale(value: Any, name: str) -> float:
    try:
        exact = _check.real(value, name)
    except ValueError:  # an integer beyond any float
        exact = math.inf
    if not math.isfinite(exact) or exact <= 0:
        raise ValueError(f"{name} must be finite and above zero, not {exact}")
    with np.errstate(all="ignore"):
        rounded = float(np.float32(exact))
    if rounded == 0:
        raise ValueError(f"{name} must be above zero in float32, but {exact} underflows (smallest: 1e-45)")
    if math.isinf(rounded):
        raise ValueError(f"{name} must be finite in float32, but {exact} overflows (largest: 3.4028235e+38)")
    return rounded


def check_zero_point(value: Any, name: str, dtype: str) -> int:
    result = _check.integer(value, name)
    if dtype == "int32" and result:
        raise ValueError(f"{name} must be 0 for int32, not {result}; a bias has no zero point")
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if not low <= result <= high:
        raise ValueError(f"{name} must fit {dtype} ({low}..{high}), not {result}")
    return result


def check_dtype(value: Any, names: Sequence[str]) -> str:
    dtype = _check.dtype_or_none(value)
    if dtype is None:
        raise TypeError(f"dtype must be one of {', '.join(map(repr, names))}, not {value!r}")
    return _check.choice(dtype.name, "dtype", names)


def _short(scale: Any) -> str:
    """Return the shortest text that gives the same float32 back."""
    if isinstance(scale, tuple):
        return f"({', '.join(map(_short, scale))}{',' * (len(scale) == 1)})"
    text = str(np.float32(scale))
    # Read as float64 and then rounded, a short decimal could in principle land on a neighbour.
    return text if float(np.float32(float(text))) == scale else repr(scale)
