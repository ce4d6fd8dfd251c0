"""Oracles of recurrent layers: each sequence by itself, step by step, where it has its own scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from systolic.reference.oracle._numbers import F32, Wide, half_even, wrap_int32
from systolic.reference.oracle.quantized import logistic, quotient, range_of

# MlasTanhConstants, as MlasTanhKernelFma3 uses them, from the highest power on: numerator / x and denominator
# in powers of x^2.
_NUMERATOR = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
              1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03)  # fmt: skip
_DENOMINATOR = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)

# Names of the functions that have an alpha or a beta, with its default.
_ALPHA = {"affine": 0, "elu": 1, "hardsigmoid": 0.2, "leakyrelu": 0.01, "scaledtanh": 0, "thresholdedrelu": 0}
_BETA = {"affine": 0, "hardsigmoid": 0.5, "scaledtanh": 0}


def dynamic_quantize_lstm(
    layer: Any, x: np.ndarray, w: np.ndarray, r: np.ndarray, *others: np.ndarray
) -> tuple[np.ndarray, ...]:
    """com.microsoft DynamicQuantizeLSTM: the states of all steps, the last ones and the last cell states.

    ``gate = f32(f32(f32(sx * ws) * (xq @ w)) + f32(f32(sh * rs) * (hq @ r)))``, then peepholes, biases and
    the clip, each rounded by itself.
    """
    given = dict(zip(layer.given, others, strict=False))
    ws, wz, rs, rz = others[len(layer.given) :]
    (time, batch, _), hidden = x.shape, layer.hidden_size
    lengths = [int(n) for n in given.get("sequence_lens", [time] * batch)]
    numbers = x[: max(lengths, default=0)]
    names = list(layer.activations) or ["Sigmoid", "Tanh", "Tanh"] * len(w)
    functions = list(_functions(names, layer.activation_alpha, layer.activation_beta))
    all_h = np.zeros((time, len(w), batch, hidden), F32)
    last_h, last_c = np.zeros((len(w), batch, hidden), F32), np.zeros((len(w), batch, hidden), F32)
    # Sequences whose hidden states share a scale.
    together = [range(batch)] if hidden > 256 and batch <= 4 else [[i] for i in range(batch)]
    for d, group in ((d, group) for d in range(len(w)) for group in together):
        backward = layer.direction == "reverse" or d == 1
        h, c = (np.array(given[n][d]) if n in given else last_h[d].copy() for n in ("initial_h", "initial_c"))
        biases = given["b"][d][: 4 * hidden] + given["b"][d][4 * hidden :] if "b" in given else None
        p = given["p"][d].reshape(3, hidden) if "p" in given else None
        scale, zero = range_of(numbers)
        for step in range(max((lengths[i] for i in group), default=0)):
            rows = [i for i in group if step < lengths[i]]
            at = [lengths[i] - 1 - step if backward else step for i in rows]
            gates = _product(x[at, rows], scale, zero, w[d], ws[d], wz[d])
            gates = gates + _product(h[rows], *range_of(h[rows]), r[d], rs[d], rz[d])
            i, o, f, g = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
            bi, bo, bf, bg = (None,) * 4 if biases is None else biases.reshape(4, hidden)
            act_f, act_g, act_h = functions[3 * d : 3 * d + 3]
            old = c[rows]
            i = act_f(_limited(i if p is None else i + old * p[0], bi, layer.clip))
            f = act_f(_limited(f if p is None else f + old * p[2], bf, layer.clip))
            f = 1 - i if layer.input_forget else f
            c[rows] = old * f + i * act_g(_limited(g, bg, layer.clip))
            o = act_f(_limited(o if p is None else o + c[rows] * p[1], bo, layer.clip))
            h[rows] = act_h(c[rows]) * o
            all_h[at, d, rows], last_h[d, rows], last_c[d, rows] = h[rows], h[rows], c[rows]
    return all_h, last_h, last_c


def _product(x: np.ndarray, scale: Any, zero: int, w: np.ndarray, ws: np.ndarray, wz: np.ndarray) -> Any:
    """Return the scaled product of quantized numbers and weights."""
    codes = half_even(x / scale, zero, np.uint8).astype(np.int64) - zero
    sums = codes @ (w.astype(np.int64) - int(wz.flat[0]))
    return wrap_int32(sums).astype(F32) * (scale * ws)


def _limited(sums: np.ndarray, bias: np.ndarray | None, clip: float | None) -> np.ndarray:
    most = np.finfo(F32).max if clip is None else F32(clip)
    if bias is None:
        return np.clip(sums, -most, most)
    total = sums + bias
    return np.where(np.isnan(total), most, np.clip(total, -most, most))


def _functions(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Yield activations; each takes the next of the parameters that it has."""
    alphas, betas = list(alphas), list(betas)
    for name in map(str.lower, names):
        alpha, beta = (
            F32((left.pop(0) if left else table[name]) if name in table else 0)
            for left, table in ((alphas, _ALPHA), (betas, _BETA))
        )
        yield partial(_activation, name, alpha, beta)


def _activation(name: str, alpha: Any, beta: Any, x: np.ndarray) -> np.ndarray:
    def exp(value: np.ndarray) -> np.ndarray:
        return np.exp(value.astype(Wide)).astype(F32)

    def scaled_tanh() -> np.ndarray:
        power = exp(-2 * np.abs(beta * x))
        return alpha * np.sign(x * beta) * ((1 - power) / (1 + power))

    known = {
        "affine": lambda: alpha * x + beta,
        "elu": lambda: np.where(x >= 0, x, alpha * (exp(x) - 1)),
        "hardsigmoid": lambda: np.minimum(F32(1), np.maximum(F32(0), alpha * x + beta)),
        "leakyrelu": lambda: np.where(x >= 0, x, alpha * x),
        "relu": lambda: np.maximum(x, F32(0)),
        "scaledtanh": scaled_tanh,
        "sigmoid": lambda: logistic(x),
        "softplus": lambda: np.log((1 + exp(x)).astype(Wide)).astype(F32),
        "softsign": lambda: x / (1 + np.abs(x)),
        "tanh": lambda: quotient(x, 9, _NUMERATOR, _DENOMINATOR),
        "thresholdedrelu": lambda: np.where(x > alpha, x, F32(0)),
    }
    return known[name]()
