"""Recurrent layers: a product on the array for every time step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from systolic import _check
from systolic.gemm import Gemm
from systolic.layers import parameters
from systolic.layers.base import OptionalInputs, Shape, Steps, at_least, checked, float32, one_of
from systolic.layers.host._functions import logistic, tanh
from systolic.layers.host.quantize import range_parameters
from systolic.layers.record import contrib
from systolic.lowered import Epilogue, Lowered, lower_matmul
from systolic.quant import quantize_linear

DIRECTIONS = ("forward", "reverse", "bidirectional")

Function = Callable[[np.ndarray], np.ndarray]

# Up to so many sequences of more than _WIDE hidden units share a scale.
_FEW, _WIDE = 4, 256


def _affine(x: np.ndarray, alpha: np.float32, beta: np.float32) -> np.ndarray:
    return alpha * x + beta


def _exp(x: np.ndarray) -> np.ndarray:
    return np.exp(x.astype(np.float64)).astype(np.float32)


def _scaled_tanh(x: np.ndarray, alpha: np.float32, beta: np.float32) -> np.ndarray:
    x = beta * x
    power = _exp(np.float32(-2) * np.abs(x))
    return alpha * np.copysign((np.float32(1) - power) / (np.float32(1) + power), x)


def _elu(x: np.ndarray, alpha: np.float32, beta: np.float32) -> np.ndarray:
    return np.where(x >= 0, x, alpha * (_exp(x) - np.float32(1)))


def _softplus(x: np.ndarray, alpha: np.float32, beta: np.float32) -> np.ndarray:
    return np.log((np.float32(1) + _exp(x)).astype(np.float64)).astype(np.float32)


class _Activation(NamedTuple):
    function: Callable[..., np.ndarray]
    alpha: float | None = None
    beta: float | None = None


# With the defaults of the parameters that they take.
_ACTIVATIONS = {
    "affine": _Activation(_affine, 0.0, 0.0),
    "elu": _Activation(_elu, 1.0),
    "hardsigmoid": _Activation(
        lambda x, alpha, beta: np.clip(alpha * x + beta, np.float32(0), np.float32(1)), 0.2, 0.5
    ),
    "leakyrelu": _Activation(lambda x, alpha, beta: np.where(x >= 0, x, alpha * x), 0.01),
    "relu": _Activation(lambda x, alpha, beta: np.maximum(x, np.float32(0))),
    "scaledtanh": _Activation(_scaled_tanh, 0.0, 0.0),
    "sigmoid": _Activation(lambda x, alpha, beta: logistic(x)),
    "softplus": _Activation(_softplus),
    "softsign": _Activation(lambda x, alpha, beta: x / (np.float32(1) + np.abs(x))),
    "tanh": _Activation(lambda x, alpha, beta: tanh(x)),
    "thresholdedrelu": _Activation(lambda x, alpha, beta: np.where(x > alpha, x, np.float32(0)), 0.0),
}


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    if not _check.is_listed(value):
        raise TypeError(f"{name} must be a sequence, not {_check.kind(value)}")
    return tuple(float32(item, name) for item in value)


def _limit(value: Any, name: str) -> float:
    if (limit := float32(value, name)) <= 0:
        raise ValueError(f"{name} must be above 0, not {value}")
    return limit


@dataclass(frozen=True, eq=False, repr=False)
class DynamicQuantizeLSTM(OptionalInputs):
    """A long short-term memory whose products are of integers, as ``quantize_dynamic`` writes it.

    It reads x (time, batch, input), float32; the weights w (directions, input, 4 * hidden) and
    r (directions, hidden, 4 * hidden), int8 or uint8; those of the optional inputs that `given` names; and
    w_scale, w_zero_point, r_scale and r_zero_point, for each direction one number, (directions,), or one per
    column, (directions, 4 * hidden). It writes all hidden states, (time, directions, batch, hidden), the last
    ones, (directions, batch, hidden), and the last cell states.

    Parameters
    ----------
    hidden_size : int
    direction : {"forward", "reverse", "bidirectional"}
    activations : sequence of str
        Three for each direction: of the gates, of the candidate and of the cell's output; default Sigmoid,
        Tanh, Tanh.
    activation_alpha, activation_beta : sequence of float
        Parameters of those activations that take some, in their order.
    clip : float, optional
        Limit on the activations' inputs.
    input_forget : bool
        Whether the forget gate is 1 minus the input gate.
    given : sequence of str
        Which of "b", "sequence_lens", "initial_h", "initial_c" and "p" it reads, in this order: biases
        (directions, 8 * hidden), lengths (batch,), int32, initial states (directions, batch, hidden) and
        peephole weights (directions, 3 * hidden).

    Notes
    -----
    ONNX Runtime's com.microsoft DynamicQuantizeLSTM. x is quantized as a whole, as :class:`DynamicQuantize`
    does, and multiplied by w in one product; then each time step quantizes the hidden states and multiplies
    them by r. A gate is ``f32(f32(xw * f32(xs * ws)) + f32(hr * f32(hs * rs)))``, then peepholes and biases.
    Sigmoid and Tanh are ONNX Runtime's polynomials: see :class:`QLinearSigmoid`.

    ONNX Runtime splits the batch among its threads and gives the hidden states of each part a scale of their
    own, so its results depend on how many threads it has. Here each sequence has its own scale, as there with
    a thread for each; but with more than 256 hidden units and at most 4 sequences all share one.

    The array runs every time step, whatever `sequence_lens` says.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic.layers import DynamicQuantizeLSTM
    >>> lstm = DynamicQuantizeLSTM(8, given=("b",))
    >>> shapes = (10, 1, 4), (1, 4, 32), (1, 8, 32), (1, 64), (1,), (1,), (1,), (1,)
    >>> lstm.output_shape(*shapes)
    ((10, 1, 1, 8), (1, 1, 8), (1, 1, 8))
    >>> lstm.products(*shapes)[:2], len(lstm.products(*shapes))
    ((Gemm(10, 4, 32), Gemm(1, 8, 32)), 11)
    """

    outputs: ClassVar[int] = 3
    may_read: ClassVar[tuple[str, ...]] = (
        "x", "w", "r", "b?", "sequence_lens?", "initial_h?", "initial_c?", "p?", "w_scale", "w_zero_point",
        "r_scale", "r_zero_point",
    )  # fmt: skip

    hidden_size: int = at_least(1)
    direction: str = one_of(DIRECTIONS, "forward", kw_only=True)
    activations: Sequence[str] = field(default=(), kw_only=True)
    activation_alpha: Sequence[float] = checked(_numbers, (), kw_only=True)
    activation_beta: Sequence[float] = checked(_numbers, (), kw_only=True)
    clip: float | None = checked(_limit, None, kw_only=True)
    input_forget: bool = field(default=False, kw_only=True)
    given: Sequence[str] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.activations) not in (0, 3 * self._directions):
            raise ValueError(
                f"activations must name {3 * self._directions} for direction {self.direction!r}, "
                f"not {len(self.activations)}"
            )
        for name in self.activations:
            if name.lower() not in _ACTIVATIONS:
                raise ValueError(f"activations must be some of {', '.join(_ACTIVATIONS)}, not {name!r}")

    @property
    def _directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def _sizes(self, shapes: Sequence[Shape]) -> tuple[int, int, int]:
        """Return the numbers of time steps, sequences and inputs, and check all shapes."""
        found = self._take(shapes)
        if len(found["x"]) != 3:
            raise ValueError(f"{self.kind}: x must be (time, batch, input), not {_check.shape(found['x'])}")
        time, batch, size = found["x"]
        count, hidden = self._directions, self.hidden_size
        columns = (count,), (count, 4 * hidden)
        allowed = {
            "w": ((count, size, 4 * hidden),), "r": ((count, hidden, 4 * hidden),),
            "b": ((count, 8 * hidden),), "sequence_lens": ((batch,),), "initial_h": ((count, batch, hidden),),
            "initial_c": ((count, batch, hidden),), "p": ((count, 3 * hidden),),
            "w_scale": columns, "w_zero_point": columns, "r_scale": columns, "r_zero_point": columns,
        }  # fmt: skip
        for name, shape in found.items():
            if name != "x" and shape not in allowed[name]:
                wanted = " or ".join(map(_check.shape, allowed[name]))
                raise ValueError(f"{self.kind}: {name} must be {wanted}, not {_check.shape(shape)}")
        for name in "wr":
            if count > 1 and len(found[f"{name}_zero_point"]) < len(found[f"{name}_scale"]):
                raise ValueError(
                    f"{self.kind}: {name}_zero_point must be {_check.shape(found[f'{name}_scale'])} like "
                    f"{name}_scale: ONNX Runtime would read beyond its end"
                )
        return time, batch, size

    def output_shape(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Return the shapes of all hidden states, of the last ones and of the last cell states."""
        time, batch, _ = self._sizes(shapes)
        last = (self._directions, batch, self.hidden_size)
        return (time, self._directions, batch, self.hidden_size), last, last

    def output_dtype(self, *dtypes: str) -> tuple[str, ...]:
        """Return "float32" for each output."""
        found = self._take([_check.dtype_name(np.dtype(dtype)) for dtype in dtypes])
        parameters.expect_codes(self.kind, "w", found["w"])
        for name, dtype in found.items():
            wanted = "int32" if name == "sequence_lens" else "float32"
            if name in ("w", "r", "w_zero_point", "r_zero_point"):
                wanted = found["w"]
            if dtype != wanted:
                raise TypeError(f"{self.kind}: {name} must hold {wanted}, not {dtype}")
        return ("float32",) * 3

    def products(self, *shapes: Shape) -> tuple[Gemm, ...]:
        """Return for each direction the product of x, then one for each time step."""
        time, batch, size = self._sizes(shapes)
        columns = 4 * self.hidden_size
        each = (Gemm(time * batch, size, columns), *[Gemm(batch, self.hidden_size, columns)] * time)
        return each * self._directions

    def steps(self, *inputs: np.ndarray) -> Steps:
        """Yield the product of x and one for each time step, of each direction; return the states."""
        self.output_dtype(*(tensor.dtype.name for tensor in inputs))
        time, batch, _ = self._sizes([tensor.shape for tensor in inputs])
        found = self._take(inputs)
        lengths = found.setdefault("sequence_lens", np.full(batch, time, np.int32))
        if batch and not (lengths.min() >= 0 and lengths.max() <= time):
            raise ValueError(f"{self.kind}: sequence_lens must hold 0 to {time}, not {lengths.tolist()}")
        for name in "wr":
            # As in ONNX Runtime: all columns have the first zero point.
            zeros = found[f"{name}_zero_point"]
            if zeros.ndim > 1 and (zeros != (0 if zeros.dtype == np.int8 else zeros.flat[0])).any():
                raise ValueError(f"{self.kind}: {name}_zero_point must hold the same number for all columns, "
                                 "0 for int8")  # fmt: skip
        functions, each = list(self._functions()), []
        for direction in range(self._directions):
            backward = self.direction == "reverse" or direction == 1
            own = {
                name: found[name] if name in ("x", "sequence_lens") else found[name][direction]
                for name in found
            }
            each.append((yield from self._direction(own, backward, functions[direction])))
        return tuple(
            np.stack(states, axis) for states, axis in zip(zip(*each, strict=True), (1, 0, 0), strict=True)
        )

    def _functions(self) -> Iterator[list[Function]]:
        """Yield each direction's three activations."""
        alphas, betas = iter(self.activation_alpha), iter(self.activation_beta)
        made: list[Function] = []
        for name in self.activations or ("sigmoid", "tanh", "tanh") * self._directions:
            known = _ACTIVATIONS[name.lower()]
            alpha, beta = (
                np.float32(0 if default is None else next(given, default))
                for given, default in ((alphas, known.alpha), (betas, known.beta))
            )
            made.append(partial(known.function, alpha=alpha, beta=beta))
        for start in range(0, len(made), 3):
            yield made[start : start + 3]

    def _direction(
        self, own: dict[str, Any], backward: bool, functions: Sequence[Function]
    ) -> Generator[Lowered, Any, tuple[np.ndarray, ...]]:
        """Yield the products of one direction; return the states, all, last and cell."""
        x, lengths, hidden = own["x"], own["sequence_lens"], self.hidden_size
        time, batch, size = x.shape
        steps = np.arange(time)[:, np.newaxis]
        # The order in which a backward pass takes the steps of each sequence.
        order = np.where(steps < lengths, lengths - 1 - steps, steps) if backward else None
        if order is not None:
            x = x[order, np.arange(batch)]
        scale, zero = range_parameters(x[: lengths.max(initial=0)])
        codes = quantize_linear(x, scale, zero).reshape(time * batch, size)
        with np.errstate(all="ignore"):
            scale = np.asarray(scale * own["w_scale"])
        w_zero, r_zero = (_first_zero(own[f"{name}_zero_point"]) for name in "wr")
        epilogue = Epilogue(x_zero=zero.astype(np.int32), w_zero=w_zero, scale=scale, dtype="float32")
        of_x = (yield lower_matmul(codes, own["w"], epilogue)).reshape(time, batch, 4 * hidden)
        shared = hidden > _WIDE and batch <= _FEW
        h, c = (own.get(name, np.zeros((batch, hidden), np.float32)) for name in ("initial_h", "initial_c"))
        all_h, last_h, last_c = (np.zeros((*rows, batch, hidden), np.float32) for rows in ((time,), (), ()))
        for step in range(time):
            scale, zero = range_parameters(h, None if shared else -1)
            codes = quantize_linear(h, scale, zero, axis=None if shared else 0)
            if not shared:
                scale, zero = scale[:, np.newaxis], zero[:, np.newaxis]
            epilogue = Epilogue(x_zero=zero.astype(np.int32), w_zero=r_zero)
            sums = yield lower_matmul(codes, own["r"], epilogue)
            with np.errstate(all="ignore"):
                gates = of_x[step] + sums.astype(np.float32) * (scale * own["r_scale"])
                new_h, new_c = self._states(gates, c, own, functions)
            runs, ends = (lengths > step)[:, np.newaxis], (lengths == step + 1)[:, np.newaxis]
            h, c = np.where(runs, new_h, np.float32(0)), np.where(runs, new_c, c)
            last_h, last_c = np.where(ends, h, last_h), np.where(ends, c, last_c)
            all_h[step] = h
        if order is not None:
            all_h = all_h[order, np.arange(batch)]
        return all_h, last_h, last_c

    def _states(
        self,
        gates: np.ndarray,
        c: np.ndarray,
        own: dict[str, Any],
        functions: Sequence[Function],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the hidden and the cell states that follow from the sums of the gates."""
        f, g, h = functions
        hidden = self.hidden_size
        sums_i, sums_o, sums_f, sums_g = (gates[:, k : k + hidden] for k in range(0, 4 * hidden, hidden))
        b = own.get("b")
        bias_i, bias_o, bias_f, bias_g = (
            (None,) * 4 if b is None else (b[: b.size // 2] + b[b.size // 2 :]).reshape(4, -1)
        )
        p_i, p_o, p_f = own["p"].reshape(3, -1) if "p" in own else (None,) * 3

        def limited(
            sums: np.ndarray, bias: np.ndarray | None, peephole: np.ndarray | None, state: np.ndarray
        ) -> np.ndarray:
            if peephole is not None:
                sums = sums + state * peephole
            clip = np.finfo(np.float32).max if self.clip is None else np.float32(self.clip)
            if bias is None:
                return np.clip(sums, -clip, clip)
            sums = sums + bias
            sums = np.where(sums < clip, sums, clip)  # NaN becomes the limit
            return np.where(sums > -clip, sums, -clip)

        gate_i = f(limited(sums_i, bias_i, p_i, c))
        gate_f = np.float32(1) - gate_i if self.input_forget else f(limited(sums_f, bias_f, p_f, c))
        c = c * gate_f + gate_i * g(limited(sums_g, bias_g, None, c))
        return h(c) * f(limited(sums_o, bias_o, p_o, c)), c


def _first_zero(zeros: np.ndarray) -> np.ndarray | None:
    return parameters.zero_term(np.asarray(zeros.flat[0]))


def _read(op: Any) -> tuple[DynamicQuantizeLSTM, tuple[str, ...]]:
    op.only(*_ATTRIBUTES)
    fields = {name: op.attribute(name, default) for name, default in _ATTRIBUTES.items()}
    fields["activations"] = [name.decode() for name in fields["activations"]]
    fields["input_forget"] = bool(fields["input_forget"])
    return DynamicQuantizeLSTM(**fields, given=_RECORD.optional(op)), op.given


_ATTRIBUTES = {
    "hidden_size": None, "direction": "forward", "activations": (), "activation_alpha": (),
    "activation_beta": (), "clip": None, "input_forget": False,
}  # fmt: skip

_RECORD = contrib(
    DynamicQuantizeLSTM,
    "Long short-term memory; inputs and hidden states are quantized at run time.",
    inputs=DynamicQuantizeLSTM.may_read,
    outputs=("y?", "y_h?", "y_c?"),
    attributes=_ATTRIBUTES,
    terse=tuple(_ATTRIBUTES),
    read=_read,
)

OPERATORS = (_RECORD,)
