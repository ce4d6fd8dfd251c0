"""Lockstep under maps: latencies, other hops, valid signals and held sums, against a toy array."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import toy_rtl
from support.strategies import examples, raises, seeds
from support.toy_rtl import Toy
from systolic import ArrayConfig, Scoreboard, ScoreboardError, ports
from systolic.cosim import Signal, SignalMap

# The toy's names.
NAMES = {
    "weight_stationary": dict.fromkeys(("activation", "shift", "swap", "weight", "psum"))
    | {"next_weight": "next", "weight_pass": "passed"},
    "output_stationary": dict.fromkeys(("activation", "swap", "drain", "weight", "acc", "out"))
    | {"out_pass": "passed"},
}  # fmt: skip


def recorded(config: ArrayConfig, toy: Toy, seed: int = 0, sizes: tuple[int, int, int] = (5, 6, 4)):
    rng = np.random.default_rng(seed)
    m, k, n = sizes
    x, w = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (k, n), np.int8)
    driven = toy_rtl.driven(config, x, w, toy)
    seen, _ = toy_rtl.run(config, x, w, toy)
    valid = driven.pop("valid")
    return driven, seen, valid


def step(board: Scoreboard, driven, seen, signals: dict[str, str]) -> None:
    """Drive and compare edge by edge."""
    for t in range(len(driven["swap"])):
        board.edge(**{name: values[t] for name, values in driven.items()})
        board.sample({name: seen[name][t] for name in signals.values()})
    board.finish()


@given(
    st.sampled_from([*NAMES]), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(-1, 2),
    st.tuples(st.integers(1, 4), st.integers(1, 4)), seeds,
)  # fmt: skip
@examples(6)
def test_right_arrays_pass_edge_by_edge(dataflow, hop, latency, size, seed):
    config = ArrayConfig(*size, dataflow=dataflow, accumulator_rows=6)
    driven, seen, _ = recorded(config, Toy(hop=hop, latency=max(latency, 0)), seed)
    if latency < 0:  # read a cycle early: what stands there one edge later
        seen = {name: np.concatenate([v[1:], v[-1:]]) for name, v in seen.items()}
        driven = {name: values[:-1] for name, values in driven.items()}
    signals = {name: given or name for name, given in NAMES[dataflow].items()}
    board = Scoreboard(config, map=SignalMap(signals=signals, hop=hop, latency=latency))
    step(board, driven, seen, signals)
    assert board.compared == 7 * size[0] * size[1] * len(driven["swap"])
    if size[0] > 1:
        wrong = Scoreboard(config, map=SignalMap(signals=signals, hop=(hop[0] + 1, hop[1]), latency=latency))
        with pytest.raises(ScoreboardError):
            step(wrong, driven, seen, signals)
    # A register that differs is named, with the cycle of the RTL.
    at = len(driven["swap"]) // 2, size[0] - 1, size[1] - 1
    seen = {name: values.copy() for name, values in seen.items()}
    seen["weight"][at] ^= 1
    board.reset()
    with pytest.raises(ScoreboardError) as caught:
        step(board, driven, seen, signals)
    assert (caught.value.register, caught.value.cycle, caught.value.row, caught.value.col) == ("weight", *at)


def test_registers_of_several_latencies() -> None:
    """A pipelined multiplier: the sums come two cycles after their operands."""
    config = ArrayConfig(3, 2)
    driven, seen, _ = recorded(config, Toy())
    late = np.concatenate([np.zeros((2, 3, 2), np.int64), seen["psum"]])
    board = Scoreboard(config, map=SignalMap(signals={"psum": Signal("psum", latency=2), "activation": "activation"}))
    for t in range(len(driven["swap"])):
        board.edge(**{name: values[t] for name, values in driven.items()})
        board.compare(psum=late[t], activation=seen["activation"][t])
    board.finish()
    assert board.compared == 2 * 6 * len(driven["swap"])


def test_held_sums_need_their_valid_signal() -> None:
    config = ArrayConfig(3, 3, accumulator_rows=4)
    driven, seen, valid = recorded(config, Toy(held=True))
    by_row = {f"v{r}": [format(0, "03b")] * len(valid) for r in range(3)}
    for r in range(3):
        bits = np.stack([np.concatenate([np.zeros(c, bool), valid[: len(valid) - c, r]]) for c in range(3)], axis=1)
        by_row[f"v{r}"] = ["".join("01"[int(b)] for b in line[::-1]) for line in bits]
    map = SignalMap(signals={"psum": "psum"}, valid="v{r}", held_psums=True)
    held, gated = Scoreboard(config, map=map), Scoreboard(config, map=SignalMap(signals={"psum": "psum"}, valid="v{r}"))
    plain = Scoreboard(config, map=SignalMap(signals={"psum": "psum"}))
    for t in range(len(valid)):
        sample = {"psum": seen["psum"][t]} | {name: values[t] for name, values in by_row.items()}
        for board in (held, gated):
            board.edge(**{name: values[t] for name, values in driven.items()})
            board.sample(sample)
    assert held.compared == 9 * len(valid) > gated.compared > 0
    with pytest.raises(ScoreboardError, match="^psum of PE"):
        step(plain, driven, seen, {"psum": "psum"})
    # One that does not hold is named.
    held.reset()
    with pytest.raises(ScoreboardError, match="^psum of PE"):
        for t in range(len(valid)):
            held.edge(**{name: values[t] for name, values in driven.items()})
            held.sample({"psum": seen["psum"][t] * (t < 12)} | {name: values[t] for name, values in by_row.items()})
    with pytest.raises(ValueError, match="hand the valid signal over"):
        held.compare(psum=np.zeros((3, 3), int))
    with pytest.raises(ValueError, match="but the map has no valid signal for it"):
        Scoreboard(config, map=SignalMap(signals={"psum": "p"}, held_psums=True)).sample({"p": np.zeros((3, 3), int)})


@pytest.mark.parametrize("dataflow", [*NAMES])
def test_ports_of_the_emulators_own_hops(dataflow: str) -> None:
    config = ArrayConfig(3, 2, dataflow=dataflow, accumulator_rows=4)
    rng = np.random.default_rng(1)
    x, w = rng.integers(-128, 128, (5, 4), np.int8), rng.integers(-128, 128, (4, 3), np.int8)
    for mine, theirs in zip(Scoreboard(config).ports(x, w), ports(x, w, array=config), strict=True):
        assert mine.keys() == theirs.ports.keys()
        for name, values in mine.items():
            np.testing.assert_array_equal(values, theirs.ports[name])


def test_bad_ports() -> None:
    board = Scoreboard(ArrayConfig(2, 3), map=SignalMap(hop=(2, 1)))
    with raises(TypeError, "edge() has no port 'weights'; the ports are activation, shift, swap, weight, psum"):
        board.edge(weights=[1])
    with raises(ValueError, "activation must be a scalar or have shape (2,), not (3,)"):
        board.edge(activation=[1, 2, 3])
    with raises(ValueError, "activation must fit int8 (-128..127), but holds 200"):
        board.edge(activation=[200, 0])
