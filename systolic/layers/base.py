"""What every layer is: frozen data with a shape rule, that compares and describes itself."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import MISSING, field, fields
from functools import cached_property, wraps
from typing import Any, ClassVar

import numpy as np

from systolic import _check
from systolic.formats import OPERANDS
from systolic.gemm import Gemm
from systolic.lowered import Lowered

Shape = tuple[int, ...]


class UnknownShape(Exception):
    """An output's shape depends on runtime values."""


def _checked(method: Callable[..., Any], check: Callable[[Any, str], Any]) -> Callable[..., Any]:
    """Return a layer's method with a check of each argument."""

    @wraps(method)
    def call(self: Layer, *args: Any) -> Any:
        return method(self, *[check(value, type(self).__name__) for value in args])

    return call


def _shape(value: Any, layer: str) -> Any:
    if type(value) is tuple:
        for size in value:
            if type(size) is not int or size < 0:
                break
        else:
            return value  # the usual case
    if not _check.is_listed(value):
        raise TypeError(f"{layer} takes shapes, such as (1, 4), not {_check.kind(value)}")
    return tuple(_check.integer(size, f"{layer}: a size", minimum=0) for size in value)


def _dtype(value: Any, layer: str) -> Any:
    if type(value) is str and value in _USUAL:
        return value
    if _check.dtype_or_none(value) is None:
        raise TypeError(f"{layer} takes types, such as 'int8', not {_check.kind(value)}")
    return value


def _array(value: Any, layer: str) -> np.ndarray:
    array = value if type(value) is np.ndarray else _check.as_array(value, f"{layer}: an input")
    if array.dtype.kind in "OSUMm":
        raise TypeError(f"{layer} takes arrays of numbers or bools, not of {array.dtype}")
    return array


_USUAL = frozenset(("int8", "uint8", "int32", "int64", "float32", "bool"))


def integers(value: Any, name: str, minimum: int | None = None) -> tuple[int, ...]:
    """Return a field that is a list of integers in its stored form, a tuple."""
    if not _check.is_listed(value, arrays=True):
        raise TypeError(f"{name} must be a sequence of integers, not {_check.kind(value)}")
    return tuple(_check.integer(v, f"{name}[{i}]", minimum=minimum) for i, v in enumerate(value))


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not _check.is_listed(value) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a sequence of str, not {_check.kind(value)}")
    return tuple(value)


_FORMS: dict[str, Callable[[Any, str], Any]] = {
    "int": _check.integer,
    "bool": _check.flag,
    "float": _check.real,
    "Sequence[int]": integers,
    "Sequence[str]": _texts,
}


def checked(check: Callable[[Any, str], Any], default: Any = MISSING, *, kw_only: bool = False) -> Any:
    """Return a field of a layer whose stored form is ``check(value, name)``."""
    return field(default=default, kw_only=kw_only, metadata={"check": check})


def one_of(options: Sequence[str], default: Any = MISSING, *, kw_only: bool = False) -> Any:
    """Return a field of a layer that is one of some words."""
    return checked(lambda value, name: _check.choice(value, name, options), default, kw_only=kw_only)


def at_least(minimum: int, default: Any = MISSING, *, kw_only: bool = False) -> Any:
    """Return a field of a layer that is an integer not below a minimum."""
    return checked(lambda value, name: _check.integer(value, name, minimum=minimum), default, kw_only=kw_only)


def float32(value: Any, name: str) -> float:
    """Return a field that is a number in its stored form, rounded to float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(_check.real(value, name)))


def expect_dtype(layer: Layer, dtype: str, expected: Sequence[str], hint: str = "") -> str:
    """Return the name of `dtype` if it is one of the expected; TypeError otherwise."""
    name = dtype if isinstance(dtype, str) and dtype in expected else _check.dtype_name(np.dtype(dtype))
    if name not in expected:
        raise TypeError(f"{type(layer).__name__} takes {' or '.join(expected)}, not {name}{hint}")
    return name


def expect_list(layer: Layer, dtype: str | None, name: str) -> None:
    """Raise TypeError unless an input can hold a list of integers."""
    if dtype not in ("int64", "int32"):
        raise TypeError(f"{type(layer).__name__} takes {name} of int64 or int32, not {dtype}")


def integer_list(layer: Layer, value: np.ndarray, name: str) -> tuple[int, ...]:
    """Return the values of an input that holds a list of integers, such as a shape."""
    if value.dtype.kind not in "iu":
        raise TypeError(f"{type(layer).__name__} takes {name} of int64 or int32, not {value.dtype}")
    if value.ndim > 1:
        raise ValueError(f"{type(layer).__name__} takes {name} as a list, not {_check.shape(value.shape)}")
    return tuple(value.reshape(-1).tolist())


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "output_shape": _shape,
    "products": _shape,
    "output_dtype": _dtype,
    "apply": _array,
    "lower": _array,
    "steps": _array,
}


def _is_default(value: Any, default: Any) -> bool:
    """Whether a field has its default, perhaps for each axis."""
    if _check.same_values(value, default):
        return True
    return isinstance(value, tuple) and value != () and all(_is_default(item, default) for item in value)


class Layer:
    """One operator of a model, with its constants and quantization parameters.

    Subclasses are frozen dataclasses whose fields hold None, bool, int, float, str, tuples of
    these, :class:`~systolic.QuantParams` or ndarrays: so a model can be saved, compared and
    copied without knowing its layers.

    A field that is an int, a bool, a float or a sequence of int or str is checked and put into its stored
    form, as are those made by :func:`checked`, :func:`one_of` and :func:`at_least`.

    A layer whose `outputs` is 1 returns one shape, type and array; any other returns a tuple of
    them from :meth:`output_shape`, :meth:`output_dtype` and ``apply``, one per output.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, check in _CHECKS.items():
            if name in vars(cls):
                setattr(cls, name, _checked(vars(cls)[name], check))

    inputs: ClassVar[int | None] = 1
    """How many tensors the layer reads; None: any number from 1."""

    outputs: ClassVar[int | None] = 1
    """How many tensors it writes; None: as many as its fields say, in a tuple even if there is one."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            kind = str(f.type).removesuffix(" | None")
            check, value = f.metadata.get("check", _FORMS.get(kind)), getattr(self, f.name)
            if check is not None and (value is not None or kind == f.type):
                object.__setattr__(self, f.name, check(value, f.name))

    @property
    def kind(self) -> str:
        """What tables call the layer: its class's name, unless one class does several operators' work."""
        return type(self).__name__

    @property
    def delegate(self) -> str | None:
        """Who computes the layer, if not this package: "ONNX Runtime" or "onnx"; None for our own code."""
        return None

    @cached_property
    def held(self) -> tuple[int, int]:
        """Elements and bytes of the arrays among the fields."""
        values = [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        return sum(array.size for array in arrays), sum(array.nbytes for array in arrays)

    def output_shape(self, *shapes: Shape) -> Shape | tuple[Shape, ...]:
        """Return the output's shape for inputs of these shapes.

        Raises
        ------
        ValueError
            If the shapes do not fit.
        UnknownShape
            If the shape depends on the inputs' values.
        """
        raise TypeError(f"{type(self).__name__} does not define output_shape")

    def output_shape_from(
        self, values: Sequence[np.ndarray | None], *shapes: Shape
    ) -> Shape | tuple[Shape, ...]:
        """Return the output's shape where some inputs' values are known, None standing for the others.

        A layer that overrides this raises UnknownShape from :meth:`output_shape`.
        """
        return self.output_shape(*shapes)

    def output_dtype(self, *dtypes: str) -> str | tuple[str, ...]:
        """Return the output's type name for inputs of these types; TypeError if they do not fit."""
        raise TypeError(f"{type(self).__name__} does not define output_dtype")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_check.same_values(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        # The fields alone: what is cached follows from them, and a session cannot be copied or pickled.
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies and unpickled layers keep their arrays read-only; numpy drops the flag.
        for value in state.values():
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, np.ndarray):
                    item.flags.writeable = False
        self.__dict__.update(state)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = []
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                shown.append(f"{f.name}=<{value.dtype} {value.shape}>")
            elif not _is_default(value, f.default):
                shown.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class HostLayer(Layer):
    """A host layer; it costs no array cycles.

    A layer is its fields, its rules ``_shape`` and ``_dtype``, and a kernel: ``_kernel(shape, *inputs)``
    returns the output, which is of that shape, and may ignore floating-point warnings. What they get is
    checked: the number of inputs, their types, and that they are shapes, types or arrays.
    """

    some: ClassVar[tuple[int, int] | None] = None
    """The least and the largest number of inputs where `inputs` is None."""

    types: ClassVar[Sequence[str]] = ()
    """The types that the first input may have; any if empty."""

    lists: ClassVar[Sequence[str]] = ()
    """Names of the inputs that are lists of integers, at their places; "" for others.

    Rules of shape and the kernel get their values, as a tuple.
    """

    @property
    def may_loop(self) -> bool:
        """Whether applying it may take any time, whatever the sizes."""
        return False

    def output_shape(self, *shapes: Shape) -> Any:
        """Return the output's shape for inputs of these shapes, of several outputs a tuple: see Layer's."""
        return self._shape_from([None] * len(shapes), self._counted(shapes))

    def output_shape_from(self, values: Sequence[np.ndarray | None], *shapes: Shape) -> Any:
        """Return the output's shape where some inputs' values are known, None standing for the others."""
        if type(self).output_shape is not HostLayer.output_shape:
            return self.output_shape(*shapes)
        return self._shape_from(values, self._counted(shapes))

    def output_dtype(self, *dtypes: str) -> Any:
        """Return the output's type name for inputs of these types; TypeError if they do not fit."""
        return self._named([None if name is None else np.dtype(name) for name in self._counted(dtypes)])

    def apply(self, *inputs: np.ndarray) -> Any:
        """Return the layer's output, a new array; a tuple of them if it has several."""
        # The public rules check what is sound here, which costs microseconds.
        given = self._counted(inputs)
        shape = self._shape_from(inputs, [array if array is None else array.shape for array in given])
        self._named([array if array is None else array.dtype for array in given])
        with np.errstate(all="ignore"):
            return self._kernel(shape, *(self._values(inputs, given) if self.lists else given))

    def evaluate_constants(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Return :meth:`apply` of constants while a model is loaded.

        A layer that runs foreign code overrides this to limit its time and memory.
        """
        return self.apply(*inputs)

    def value_of(self, *shapes: Shape) -> np.ndarray | None:
        """Return the output where the inputs' shapes alone decide it, as for ONNX Shape; None elsewhere."""
        return None

    def _counted(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return what is given for each input, if there are as many as the layer reads."""
        least, most = self.some or (self.inputs or 1, self.inputs)
        if len(values) < least or (most is not None and len(values) > most):
            count = f"{least} to {most}" if least != most else str(most) if most != 1 else "one"
            expected = "one input or more" if most is None else f"{count} input{'s' * (most > 1)}"
            raise TypeError(f"{type(self).__name__} takes {expected}, not {len(values) or 'none'}")
        return values

    def _values(self, values: Sequence[np.ndarray | None], others: Sequence[Any]) -> list[Any]:
        """Return the values of the inputs that are lists, and what stands for the others."""
        found = list(others)
        for place, (value, name) in enumerate(zip(values, self.lists, strict=False)):
            if name:
                if value is None:
                    raise UnknownShape
                found[place] = integer_list(self, value, name)
        return found

    def _shape_from(self, values: Sequence[np.ndarray | None], shapes: Sequence[Any]) -> Any:
        """Return the shape for what :meth:`_counted` returned of shapes."""
        return self._shape(*(self._values(values, shapes) if self.lists else shapes))

    def _named(self, dtypes: Sequence[np.dtype | None]) -> Any:
        """Return the type for what :meth:`_counted` returned of dtypes."""
        given = [None if dtype is None else _check.dtype_name(dtype) for dtype in dtypes]
        for dtype, name in zip(given, self.lists, strict=False):
            if name:
                expect_list(self, dtype, name)
        return self._dtype(*given)

    def _shape(self, *args: Any, **kwargs: Any) -> Any:
        """Return the shape of the first input."""
        return args[0]

    def _dtype(self, *args: Any, **kwargs: Any) -> Any:
        """Return the type of the first input."""
        return expect_dtype(self, args[0], self.types) if self.types else args[0]

    def _kernel(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} does not define _kernel")


Steps = Generator[Lowered, Any, Any]
"""Yields the work of one product after the other, receives the output of each, returns the layer's output."""


class ArrayLayer(Layer):
    """A layer whose products run on the array.

    A layer of one product defines :meth:`lower`. A layer of several defines :meth:`steps` instead, and
    returns a tuple from :meth:`products`.

    They get every tensor that the layer reads: either operand may be computed at run time.
    """

    def products(self, *shapes: Shape) -> Gemm | tuple[Gemm, ...]:
        """Return the sizes of the product, or of all in a tuple, for inputs of these shapes, without data."""
        raise TypeError(f"{type(self).__name__} does not define products")

    def operand_types(self, *dtypes: str) -> tuple[str, str]:
        """Return the types of activations and weights of the products, for inputs of these types.

        By default the first two that are types of integer operands, a weight that is held behind the inputs.
        """
        held = getattr(self, "weight", None)
        types = [*dtypes, *([] if held is None else [held.dtype.name])]
        codes = [name for name in types if name in OPERANDS and OPERANDS[name].kind == "integer"]
        x, w = [*codes, "int8", "int8"][:2]
        return x, w

    def steps(self, *inputs: np.ndarray) -> Steps:
        """Yield the work of each product in turn, receive its output, and return the layer's output.

        A product may depend on the outputs of those before it, as in a recurrent layer.
        """
        return (yield self.lower(*inputs))

    def lower(self, *inputs: np.ndarray) -> Lowered:
        """Return the work to run, checked against the layer: the product and its epilogue."""
        raise TypeError(f"{type(self).__name__} does not define lower")


class OptionalInputs(ArrayLayer):
    """An array layer with inputs that may be absent: the field `given` names those that are there."""

    inputs: ClassVar[None] = None

    may_read: ClassVar[tuple[str, ...]]
    """The names of all inputs in order; "name?" may be absent."""

    given: Sequence[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        optional = [name[:-1] for name in self.may_read if name[-1] == "?"]
        if self.given != tuple(name for name in optional if name in self.given):
            raise ValueError(f"given must be some of {', '.join(optional)}, in this order, not {self.given}")

    @property
    def names(self) -> tuple[str, ...]:
        """What it reads, in order."""
        return tuple(name.rstrip("?") for name in self.may_read if name[-1] != "?" or name[:-1] in self.given)

    def _take(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return what the inputs are, by name."""
        names = self.names
        if len(values) != len(names):
            raise TypeError(f"{self.kind} takes {len(names)} inputs ({', '.join(names)}), not {len(values)}")
        return dict(zip(names, values, strict=True))
