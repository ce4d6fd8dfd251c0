"""Layers that quantize and dequantize, by given parameters or by the range of the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from systolic import _check, _hints, _host, quant
from systolic.layers.base import HostLayer, Shape, at_least, expect_dtype, one_of
from systolic.layers.host._parts import MOVED
from systolic.layers.host.arithmetic import Binary, Cast
from systolic.layers.record import MICROSOFT, OperatorRecord
from systolic.quant import QuantParams
from systolic.threads import thread_count

CODES = ("int8", "uint8", "int16", "uint16", "int32")
"""Types of codes that ONNX dequantizes; it quantizes to all but the last."""


class _Scaled(HostLayer):
    """Base of both layers: their parameters are held, or their scales and zero points are inputs."""

    inputs: ClassVar[int | None] = None

    axis: int
    block_size: int
    dtype: str | None

    _held: ClassVar[tuple[str, Sequence[str]]]
    """The field of the parameters that are held, and the types of their codes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        held, codes = self._held
        if self._params is not None:
            quant.as_params(self._params, held, dtypes=codes)
            if (self.axis, self.block_size, self.dtype) != (1, 0, None):
                name = type(self).__name__
                raise ValueError(f"{name} takes no axis, block_size and dtype beside {held}, which says them")

    @property
    def _params(self) -> QuantParams | None:
        params: QuantParams | None = getattr(self, self._held[0])
        return params

    def _counted(self, values: Sequence[Any]) -> Sequence[Any]:
        if self._params is None and len(values) not in (2, 3):
            raise TypeError(f"{type(self).__name__} takes 2 inputs or 3, not {len(values)}")
        return super()._counted(values)

    @property
    def some(self) -> tuple[int, int]:  # type: ignore[override]
        """The least and the largest number of inputs."""
        return (2, 3) if self._params is None else (1, 1)

    def _shape(self, shape: Shape, *rest: Shape) -> Shape:
        if self._params is None:
            self._expect_scale(shape, *rest)
            return shape
        axis, channels = self._params.axis, self._params.scales.size
        if axis is not None and (not -len(shape) <= axis < len(shape) or shape[axis] != channels):
            raise ValueError(
                f"{type(self).__name__} takes {channels} channels along axis {axis}, one per scale, "
                f"not {_check.shape(shape)}{_hints.other_axis(shape, channels)}"
            )
        return shape

    def _expect_scale(self, shape: Shape, scale: Shape, *zeros: Shape) -> None:
        name = type(self).__name__
        expected: tuple[int, ...] = ()
        if scale not in ((), (1,)) or self.block_size:
            if not -len(shape) <= self.axis < len(shape):
                raise ValueError(
                    f"{name} takes an input that has an axis {self.axis}, not {_check.shape(shape)}"
                )
            axis = self.axis % len(shape)
            expected = shape[axis : axis + 1]
            if self.block_size:
                expected = (*shape[:axis], -(-shape[axis] // self.block_size), *shape[axis + 1 :])
            if scale != expected:
                raise ValueError(
                    f"{name} takes a scale {_check.shape(expected)} for an input {_check.shape(shape)}, axis "
                    f"{self.axis} and block_size {self.block_size}, not {_check.shape(scale)}"
                    f"{'' if self.block_size or len(scale) != 1 else _hints.other_axis(shape, scale[0])}"
                )
        for zero in zeros:
            if zero != scale and (expected or zero not in ((), (1,))):
                raise ValueError(
                    f"{name} takes a zero point of the scale's shape {_check.shape(scale)}, "
                    f"not {_check.shape(zero)}"
                )

    def _options(self, dtype: Any, scale: np.ndarray, zero: np.ndarray | None = None) -> dict[str, Any]:
        """Return the arguments that scales mean: 0-d and without an axis where there is one for all."""
        zero = np.zeros(scale.shape, dtype) if zero is None else zero
        if scale.ndim < 2 and scale.size == 1 and not self.block_size:
            return {"scale": scale.reshape(()), "zero_point": zero.reshape(())}
        return {"scale": scale, "zero_point": zero, "axis": self.axis, "block_size": self.block_size}

    def _converted(
        self,
        x: np.ndarray,
        dtype: str,
        compiled: Callable[..., None] | None,
        function: Callable[..., np.ndarray],
    ) -> np.ndarray:
        """Return what `function` makes of x; `compiled` is the same for one scale of 8-bit codes."""
        params = self._params
        assert params is not None
        plain = not params.per_channel and params.dtype in _check.OPERAND_DTYPES and x.flags.c_contiguous
        if compiled is None or not plain:
            return function(x, params)
        out = np.empty(x.shape, dtype)
        scale, zero_point, threads = float(params.scales), int(params.zero_points), thread_count()
        if x.size <= MOVED:
            compiled(x, out, scale, zero_point, threads=threads)
            return out
        source, target = x.reshape(-1), out.reshape(-1)
        # In parts, so that Ctrl-C need not wait.
        for start in range(0, x.size, MOVED):
            part = slice(start, start + MOVED)
            compiled(source[part], target[part], scale, zero_point, threads=threads)
        return out


@dataclass(frozen=True, eq=False, repr=False)
class QuantizeLinear(_Scaled):
    """Quantize real numbers: ``sat(rne(f32(x / scale)) + zero_point)``.

    Reads x and, where `y` is None, the scale and, optionally, the zero point (else 0): for scales computed
    at run time, blocks, 16-bit codes, float16. A scale of one element holds for all of x, one of shape (C,)
    along `axis`; with `block_size` it has x's axes, and one element along `axis` for so many of x.

    Parameters
    ----------
    y : QuantParams or None
        Of the output, int8 or uint8, per tensor or per channel. It stands for the other fields, too.
    dtype : {"int8", "uint8", "int16", "uint16"}
        Type of the codes.
    axis : int
        The axis of the channels or blocks; without meaning for a scale of one element.
    block_size : int
        How many elements along `axis` share a scale, the last block may be short; 0 without blocks.

    Notes
    -----
    ONNX operator QuantizeLinear, by :func:`systolic.quant.quantize_linear`, which says what infinities
    become; NaN becomes the smallest code.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import QuantizeLinear
    >>> QuantizeLinear(QuantParams(0.5, 128, "uint8")).apply(np.float32([-1, 0, 0.75]))
    array([126, 128, 130], dtype=uint8)
    >>> scale = np.float32([[1.0, 0.5]])
    >>> QuantizeLinear(dtype="int16", block_size=2).apply(np.float32([[1, 2, 3, 4]]), scale)
    array([[1, 2, 6, 8]], dtype=int16)
    """

    y: QuantParams | None = None
    dtype: str | None = one_of(CODES[:-1], None, kw_only=True)
    axis: int = field(default=1, kw_only=True)
    block_size: int = at_least(0, 0, kw_only=True)

    _held: ClassVar[tuple[str, Sequence[str]]] = "y", quant.EIGHT_BITS

    def __post_init__(self) -> None:
        if self.y is None and self.dtype is None:
            raise TypeError("QuantizeLinear takes y, or the dtype of codes whose scale is an input")
        super().__post_init__()

    def _dtype(self, x: str, *rest: str) -> str:
        expect_dtype(self, x, ("float32", "float64", "float16"))
        if self.y is not None:
            return self.y.dtype
        assert self.dtype is not None
        expect_dtype(self, rest[0], ("float32", "float16"), ", as a scale")
        for dtype in rest[1:]:
            expect_dtype(self, dtype, (self.dtype,), ", as a zero point")
        return self.dtype

    def _kernel(self, shape: Shape, x: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        if self.y is not None:
            compiled = _host.quantize if x.dtype == np.float32 else None
            return self._converted(x, self.y.dtype, compiled, quant.quantize)
        if rest[0].dtype == np.float32 and x.dtype == np.float16:
            x = x.astype(np.float32)
        return quant.quantize_linear(x, **self._options(self.dtype, *rest))


@dataclass(frozen=True, eq=False, repr=False)
class DequantizeLinear(_Scaled):
    """Dequantize codes: ``f32(f32(q - zero_point) * scale)``.

    Reads q and, where `x` is None, a scale and a zero point as those of :class:`QuantizeLinear`.

    Parameters
    ----------
    x : QuantParams or None
        Of the input: int8, uint8 or int32, per tensor or per channel. It stands for the other fields, too.
    axis, block_size : int
        As for :class:`QuantizeLinear`.
    dtype : {"float32", "float16"} or None
        Type of the numbers, to which float32 products are rounded; None is the scale's.

    Notes
    -----
    ONNX operator DequantizeLinear, by :func:`systolic.quant.dequantize_linear`.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import QuantParams
    >>> from systolic.layers import DequantizeLinear
    >>> DequantizeLinear(QuantParams(0.5, 128, "uint8")).apply(np.uint8([126, 128, 130]))
    array([-1.,  0.,  1.], dtype=float32)
    >>> scale, zero = np.float32([1.0, 0.5]), np.uint16([0, 7])
    >>> DequantizeLinear().apply(np.uint16([[1, 9], [2, 5]]), scale, zero)
    array([[ 1.,  1.],
           [ 2., -1.]], dtype=float32)
    """

    x: QuantParams | None = None
    axis: int = field(default=1, kw_only=True)
    block_size: int = at_least(0, 0, kw_only=True)
    dtype: str | None = one_of(("float32", "float16"), None, kw_only=True)

    _held: ClassVar[tuple[str, Sequence[str]]] = "x", quant.DTYPES

    def _dtype(self, q: str, *rest: str) -> str:
        if self.x is not None:
            expect_dtype(self, q, (self.x.dtype,), ", as its parameters say")
            return "float32"
        codes = expect_dtype(self, q, CODES)
        scales = expect_dtype(self, rest[0], ("float32", "float16"), ", as a scale")
        for dtype in rest[1:]:
            expect_dtype(self, dtype, (codes,), ", as a zero point of such codes")
        return self.dtype or scales

    def _kernel(self, shape: Shape, q: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        if self.x is not None:
            return self._converted(q, "float32", _host.dequantize, quant.dequantize)
        dtype = self.dtype or rest[0].dtype.name
        return quant.dequantize_linear(q, **self._options(q.dtype, *rest), dtype=dtype)


@dataclass(frozen=True, eq=False, repr=False)
class DynamicQuantize(HostLayer):
    """Quantize to uint8 with the scale and zero point that fit the range of the values.

    It writes three tensors: the codes, in x's shape, the scale, float32, and the zero point, uint8.

    Notes
    -----
    ONNX operator DynamicQuantizeLinear, in float32 as ONNX Runtime computes it::

        lo, hi = min(0, min x), max(0, max x)           # of the numbers that are not NaN
        s = f32(f32(hi - lo) / 255), or 1 if hi == lo
        z = rne(min(max(f32(0 - f32(lo / s)), 0), 255))
        y = sat(rne(f32(x / s)) + z)                    # NaN becomes 0

    Where infinities or a scale of 0 make ``lo / s`` NaN, z is 255.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import DynamicQuantize
    >>> codes, scale, zero_point = DynamicQuantize().apply(np.float32([-1, 0, 4.1]))
    >>> codes, scale, zero_point
    (array([  0,  50, 255], dtype=uint8), array(0.02, dtype=float32), array(50, dtype=uint8))
    """

    outputs: ClassVar[int] = 3

    types: ClassVar[tuple[str, ...]] = ("float32",)

    def _shape(self, shape: Shape) -> tuple[Shape, ...]:
        return shape, (), ()

    def _dtype(self, dtype: str) -> tuple[str, ...]:
        super()._dtype(dtype)
        return "uint8", "float32", "uint8"

    def _kernel(self, shapes: tuple[Shape, ...], x: np.ndarray) -> tuple[np.ndarray, ...]:
        params = range_parameters(x)
        return quant.quantize_linear(x, *params), *params


def range_parameters(x: np.ndarray, axis: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and zero point of :class:`DynamicQuantize`, of all numbers or of those along an axis."""
    zero = np.float32(0)
    low, high = (np.asarray(edge.reduce(x, axis=axis, initial=zero)) for edge in (np.fmin, np.fmax))
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        scale = np.where(low == high, np.float32(1), (high - low) / np.float32(255))
        start = zero - low / scale
        start = np.where(np.isnan(start), np.float32(255), np.rint(np.clip(start, 0, 255)))
    return scale, start.astype(np.uint8)


# From this operator set on, QuantizeLinear divides in the scale's type unless `precision` says otherwise.
_PRECISION = 23

# TensorProto.DataType
_FLOAT, _FLOAT16 = 1, 10
_CODES = {3: "int8", 2: "uint8", 5: "int16", 4: "uint16"}
_NAMES = {21: "uint4", 22: "int4"}


def _read_quantize(op: Any) -> Any:
    op.only("axis", "block_size", "output_dtype", "precision", "saturate")
    wanted = op.attribute("output_dtype", 0)
    if wanted and wanted not in _CODES:
        name = f" ({_NAMES[wanted]})" if wanted in _NAMES else ""
        raise op.refuse(f"output_dtype {wanted}{name}; supported are {', '.join(_CODES.values())}")
    precision = op.attribute("precision", 0)
    if precision not in (0, _FLOAT, _FLOAT16):
        raise op.refuse(f"precision {precision}; supported are float32 and float16")
    given = op.graph.narrow.get(op.inputs[2], op.dtypes.get(op.inputs[2])) if op.has(2) else None
    if wanted and given not in (None, _CODES[wanted]):
        raise ValueError(f"output_dtype {_CODES[wanted]}, but a zero point of {given}")
    dtype = given or _CODES.get(wanted, "uint8")
    if dtype not in CODES[:-1]:
        raise op.refuse(f"codes of {dtype}; supported are {', '.join(CODES[:-1])}")
    axis, block_size = op.attribute("axis", 1), op.attribute("block_size", 0)
    layer = QuantizeLinear(dtype=dtype, axis=axis, block_size=block_size)
    if not precision and op.opset >= _PRECISION and op.has(1) and op.dtypes.get(op.inputs[1]) == "float16":
        precision = _FLOAT16
    if precision == _FLOAT16:
        return _quantize_in_float16(op, layer)
    if dtype in ("int8", "uint8") and _fixed(op, block_size):
        return QuantizeLinear(op.params(1, 2, axis=axis, dtype=dtype)), op.inputs[:1]
    return layer, _tensors(op)


def _quantize_in_float16(op: Any, layer: QuantizeLinear) -> Any:
    """Divide in float16, then quantize the quotients with a scale of 1."""
    x, scale, *zero = _tensors(op)
    shape, scales = op.shape(0), op.shape(1)
    if scales is None or (scales not in ((), (1,)) and scale not in op.constants):
        raise op.refuse("several scales in float16 that are computed; give them as a constant")
    length = shape[layer.axis] if layer.block_size and shape is not None else None
    if layer.block_size and length is None:
        raise op.refuse(f"blocks in float16 of an axis {layer.axis} of any size; give the input's sizes")
    halves, quotient, steps = (op.fresh(f".{what}") for what in ("float16", "quotient", "steps"))
    nodes = [op.node(Cast("float16"), (x,), halves)]
    if scale in op.constants:
        value = op.constants[scale].astype(np.float16)
        if length is not None:
            value = value.repeat(layer.block_size, axis=layer.axis).take(np.arange(length), axis=layer.axis)
        elif scales not in ((), (1,)) and shape is not None:
            value = value.reshape(-1, *[1] * (len(shape) - 1 - layer.axis % len(shape)))
        else:
            value = value.reshape(())
        divisor = op.add_constant(".divisor", value)
    else:
        divisor = op.fresh(".divisor")
        nodes.append(op.node(Cast("float16"), (scale,), divisor))
    one = op.add_constant(".one", np.ones(tuple(size or 1 for size in scales), np.float32))
    return [
        *nodes,
        op.node(Binary("Div"), (halves, divisor), quotient),
        op.node(Cast("float32"), (quotient,), steps),
        op.node(layer, (steps, one, *zero), op.outputs[0]),
    ]


def _read_dequantize(op: Any) -> Any:
    op.only("axis", "block_size", "output_dtype")
    wanted = op.attribute("output_dtype", 0)
    if wanted not in (0, _FLOAT, _FLOAT16):
        raise op.refuse(f"output_dtype {wanted}; supported are float32 and float16")
    # Without a zero point the input says which type the codes are of.
    dtype = op.dtypes.get(op.inputs[0], "uint8") if op.inputs else "uint8"
    if dtype not in CODES:
        raise op.refuse(f"codes of {dtype}; supported are {', '.join(CODES)}")
    axis, block_size = op.attribute("axis", 1), op.attribute("block_size", 0)
    # An int32 zero point other than 0 is in no QuantParams.
    zeros = op.value(2)
    plain = dtype in ("int8", "uint8") or (dtype == "int32" and (zeros is None or not zeros.any()))
    if plain and wanted in (0, _FLOAT) and _fixed(op, block_size):
        return DequantizeLinear(op.params(1, 2, axis=axis, dtype=dtype)), op.inputs[:1]
    to = {0: None, _FLOAT: "float32", _FLOAT16: "float16"}[wanted]
    return DequantizeLinear(axis=axis, block_size=block_size, dtype=to), _tensors(op)


def _fixed(op: Any, block_size: int) -> bool:
    """Whether a QuantParams can hold the scale and zero point: float32 constants, without blocks."""
    scale = op.value(1)
    return not block_size and not op.computed(1, 2) and (scale is None or scale.dtype == np.float32)


def _tensors(op: Any) -> tuple[str, ...]:
    if not op.has(1):
        raise ValueError("input 1, the scale, is missing")
    scale = op.constants.get(op.inputs[1])
    if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError("scales must be finite and above zero")
    return tuple(filter(None, op.inputs[:3]))


def _write(out: Any, node: Any, layer: Any) -> None:
    from onnx import helper

    held = "y" if layer.kind == "QuantizeLinear" else "x"
    params = getattr(layer, held)
    if params is not None:
        read = (node.inputs[0], *out.params(node, held, params))
        out.node(node, layer.kind, read, axis=params.axis if params.scales.size > 1 else None)
        return
    # A zero point says the type of the codes; without one they are uint8.
    known = layer.kind == "QuantizeLinear" and (len(node.inputs) > 2 or layer.dtype == "uint8")
    wanted = None if known or layer.dtype is None else helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype))
    block = layer.block_size or None
    out.node(node, layer.kind, node.inputs, axis=layer.axis, block_size=block, output_dtype=wanted)


OPERATORS = (
    OperatorRecord(
        DynamicQuantize,
        "Quantize to uint8 with a scale and zero point computed from the values.",
        name="DynamicQuantizeLinear",
        outputs=("y", "scale", "zero_point"),
        since=11,
    ),
    *(
        OperatorRecord(
            layer,
            help,
            domain=domain,
            inputs=("x", "scale", "zero_point?"),
            attributes={"axis": 1, "block_size": 0, "output_dtype": 0, **more} if not domain else {"axis": 1},
            since=1 if domain else 10,
            history={} if domain else {13: "axis", 21: "block_size, output_dtype; 16-bit codes", **history},
            read=read,
            write=_write,
        )
        for domain in ("", MICROSOFT)
        for layer, help, more, history, read in (
            (
                QuantizeLinear,
                "Quantize floats: divide by a scale, round, add a zero point, saturate.",
                {"precision": 0, "saturate": 1},
                {19: "saturate", 23: "precision"},
                _read_quantize,
            ),
            (
                DequantizeLinear,
                "Dequantize codes: subtract a zero point, multiply by a scale.",
                {},
                {},
                _read_dequantize,
            ),
        )
    ),
)
