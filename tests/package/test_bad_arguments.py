"""Every public call, with every argument made wrong: a TypeError or a ValueError of ours, nothing raw.

And calls, failing ones too, keep no memory.
"""

from __future__ import annotations

import array
import contextlib
import gc
import io
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.ma as ma
import pytest

import systolic
from support.layer_examples import EXAMPLES
from support.zoo import zoo
from systolic import (
    ArrayConfig,
    Gemm,
    MachineConfig,
    MemoryConfig,
    Model,
    Node,
    QuantParams,
    Scoreboard,
    SystolicArray,
    TensorSpec,
    Trace,
)
from systolic.cosim import ScoreboardError, Signal, SignalMap, unpack
from systolic.layers import Dense, Layer
from systolic.layers.base import HostLayer, UnknownShape

CLOSED = io.StringIO()
CLOSED.close()
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
INT8 = ma.masked_array(np.ones((2, 2), np.int8), mask=True)

BYTES: list[Any] = [b"ab", bytearray(b"ab"), memoryview(b"ab"), (b"ab", b"ab"), [b"a", b"b"]]
MASKED: list[Any] = [INT8, INT8.astype(np.float32), INT8.astype(np.int32), [INT8[0], INT8[1]], INT8[0]]
OTHERS: list[Any] = [
    None, "", "ab", "a\0b", "\ud800", ",", "i4,(", True, -1, 1.5, float("nan"), float("inf"), 1j, 10**400, -(10**400), 2**63,
    (), (1,), (1, 2, 3), ("a", "b"), ((1, 2), (3, 4), (5,)), [None, None], [[1, [2]], [3]], ENDLESS,
    {}, {"a": 1}, {1: 2}, {1, 2}, object(), CLOSED, ..., slice(1), np.dtype("int8"), ValueError("x"), Gemm,
    np.int8(1), np.complex64(1), np.array(1, np.int8), np.zeros(0, np.int8), np.ones((9, 9, 9, 9, 9), np.int8),
    np.full((2, 2), np.nan), np.array(["a", "b"]), np.array([None, "a"]), np.array(["2020"], "M8[D]"),
    np.zeros(2, [("a", "i1")]), array.array("i", [1, 2]),
]  # fmt: skip

X = np.int8([[1, 2], [3, 4]])
IMAGES, KERNELS = np.ones((1, 2, 4, 4), np.int8), np.ones((2, 2, 2, 2), np.int8)
ARRAY, Q = ArrayConfig(2, 2), QuantParams(0.5)
DENSE = Dense(X, x=Q, w=Q, y=Q)
SPEC = {"x": ((None, 2), "int8")}
MODEL = Model([DENSE], inputs=SPEC)
MEMORY = MemoryConfig(
    weight_bytes=64, weight_bytes_per_second=9, unified_buffer_rows=8, host_rows=8, host_bytes_per_second=9
)
WHOLE = MachineConfig(ARRAY, memory=MEMORY)
FLOAT = Model([systolic.layers.FloatMatMul(np.ones((2, 2), np.float32))], inputs={"x": ((None, 2), "float32")})
STATE = SystolicArray(ARRAY).state()
SIZES = dict(m=1, k=2, n=3, rows=2, cols=2, groups=1, taps=1, pack=1, double_buffered=True, accumulator_rows=4)
COMMON = dict(array=ARRAY, mode="cycle", threads=1, progress=None, trace=None, probe=None)


def new() -> SystolicArray:
    return SystolicArray(ARRAY)


def restore(**registers: Any) -> None:
    new().restore(systolic.State(**registers))


TRACED = Trace()
SystolicArray(ARRAY, trace=TRACED).fold(x=X, w=X).run()

Call = tuple[Callable[..., Any], dict[str, Any]]

# A call and arguments that it takes; numbers and arrays among them are also refused as bytes or masked.
CALLS: dict[str, Call] = {
    "matmul": (systolic.matmul, dict(x=X, w=X) | COMMON),
    "conv2d": (
        systolic.conv2d,
        dict(x=IMAGES, w=KERNELS, stride=1, padding=0, dilation=1, groups=1, layout="NCHW", x_zero_point=0, mapping="taps")
        | COMMON,
    ),
    "run": (
        systolic.run,
        dict(model=MODEL, x=X, machine=ARRAY, mode="cycle", threads=1, progress=None, trace=None, probe=None, observe=None, mapping="best"),
    ),
    "run of a mapping": (lambda x: systolic.run(MODEL, {"x": x}, machine=ARRAY), dict(x=X)),
    "verify": (
        systolic.verify,
        dict(model=MODEL, x=X, seed=0, against="reference", machine=ARRAY, mode="wavefront", threads=1, qdq="float"),
    ),
    "verify of cases": (systolic.verify, dict(cases=1, seed=0, mode="wavefront")),
    "estimate": (
        systolic.estimate, dict(work=MODEL, machine=ARRAY, batch=1, shapes={"x": (1, 2)}, mapping="pack")
    ),
    "compare": (systolic.compare, dict(work=MODEL, machine=ARRAY, batch=1, shapes={"x": (1, 2)})),
    "compare of products": (systolic.compare, dict(work=[Gemm(1, 2, 3)])),
    "compile": (
        systolic.compile, dict(model=MODEL, machine=WHOLE, batch=1, mapping="taps", shapes={"x": (1, 2)}, reuse=4)
    ),
    "run of a program": (systolic.run, dict(model=systolic.compile(MODEL, machine=WHOLE), x=X[:1], machine=WHOLE)),
    "Program": (systolic.Program, dict(instructions="halt", functions=(), weights=None, symbols=None)),
    "estimate of a shape": (lambda x: systolic.estimate(MODEL, shapes={"x": x}), dict(x=(1, 2))),
    "sweep": (
        systolic.sweep,
        dict(
            models=MODEL, machines=ARRAY, batch=1, mapping=None, executor=None, out="rows.csv", limit=10, progress=None
        ),
    ),
    "sweep of products": (lambda models: systolic.sweep({"m": models}, ARRAY), dict(models=[Gemm(1, 2, 3)])),
    "sweep of programs": (systolic.sweep, dict(models=MODEL, machines=WHOLE, batch=[1], mapping=["taps"])),
    "summary": (systolic.summary, dict(model=MODEL, machine=ARRAY, batch=1, shapes=None, mapping=None)),
    "estimate_cycles": (systolic.estimate_cycles, SIZES),
    "estimate_many": (systolic.estimate_many, SIZES),
    "folds": (systolic.folds, dict(gemm=Gemm(1, 2, 3), array=ARRAY)),
    "ports": (systolic.ports, dict(x=X, w=X, array=ARRAY)),
    "write_vectors": (systolic.write_vectors, dict(x=X, w=X, out="vectors", array=ARRAY)),
    "quantize": (systolic.quantize, dict(x=np.ones(2, np.float32), params=Q)),
    "dequantize": (systolic.dequantize, dict(q=np.ones(2, np.int8), params=Q)),
    "requantize": (
        systolic.requantize,
        dict(acc=X.astype(np.int32), scale=0.5, zero_point=0, dtype="int8", rounding="half_even", axis=-1),
    ),
    "quantize_model": (
        systolic.quantize_model,
        dict(model=FLOAT, calibration=np.ones((4, 2), np.float32), method="minmax", percentile=99, per_channel=True),
    ),
    "calibration of a mapping": (lambda x: systolic.quantize_model(FLOAT, {"x": x}), dict(x=np.ones((4, 2)))),
    "load_onnx": (systolic.load_onnx, dict(path="nowhere", qdq="integer")),
    "save_onnx": (systolic.save_onnx, dict(model=MODEL, path="m.onnx")),
    "set_threads": (systolic.set_threads, dict(threads=1)),
    "Gemm": (Gemm, dict(m=1, k=2, n=3, groups=1)),
    "ArrayConfig": (
        ArrayConfig,
        dict(rows=2, cols=2, accumulator_rows=4, double_buffered=True, activation_dtype="int8", weight_dtype="int8"),
    ),
    "MemoryConfig": (
        MemoryConfig,
        dict(
            weight_bytes=64, weight_bytes_per_second=9, unified_buffer_rows=8, host_rows=8, host_bytes_per_second=9,
            fifo_tiles=4, lanes=2, width_factors=(1, 2, 4),
        ),
    ),
    "MachineConfig": (MachineConfig, dict(array=ARRAY, clock_mhz=700)),
    "MachineConfig.seconds": (MachineConfig(ARRAY).seconds, dict(cycles=1)),
    "QuantParams": (QuantParams, dict(scale=0.5, zero_point=0, dtype="int8", axis=None)),
    "QuantParams.from_dict": (QuantParams.from_dict, dict(data={"scale": 1})),
    "Model": (Model, dict(nodes=[DENSE], inputs=SPEC, outputs=None, constants=None, name="m")),
    "Model of constants": (lambda x: Model([DENSE], inputs=SPEC, constants={"c": x}), dict(x=X)),
    "Model of an input": (lambda spec: Model([DENSE], inputs={"x": spec}), dict(spec=SPEC["x"])),
    "Model of a node": (lambda node: Model([node], inputs=SPEC), dict(node=DENSE)),
    "Model.load": (Model.load, dict(path="nowhere")),
    "Model.save": (MODEL.save, dict(path="m")),
    "Model.infer_shapes": (MODEL.infer_shapes, dict(shapes={"x": (1, 2)})),
    "Model.check_symbols": (MODEL.check_symbols, dict(shapes={"x": (1, 2)})),
    "Model.input_shapes": (MODEL.input_shapes, dict(batch=1, shapes=None)),
    "Node": (Node, dict(layer=DENSE, inputs="x", output="y", name="n")),
    "TensorSpec": (TensorSpec, dict(shape=(None, 2), dtype="int8", symbols=())),
    "SystolicArray": (SystolicArray, dict(config=ARRAY, trace=None, probe=None)),
    "step": (lambda **ports: new().step(**ports), dict(activation=0, shift=0, swap=0, weight=0, psum=0)),
    "clock": (
        lambda threads=None, **ports: new().clock(threads=threads, **ports),
        dict(threads=1, activation=X, shift=X > 2, swap=X > 2, weight=X, psum=X),
    ),
    "fold": (lambda w, x, not_before: new().fold(x=x, w=w, not_before=not_before), dict(w=X, x=X, not_before=(0, 0))),
    "shift": (lambda w, not_before: new().shift(w, not_before=not_before), dict(w=X, not_before=0)),
    "swap": (lambda not_before: new().shift(X).swap(not_before=not_before), dict(not_before=0)),
    "stream": (lambda x, not_before: new().stream(x, not_before=not_before), dict(x=X, not_before=0)),
    "restore": (lambda state: new().restore(state), dict(state=STATE)),
    "State": (restore, dict(STATE.registers) | dict(cycle=STATE.cycle, queues=STATE.queues)),
    "diff": (lambda other: new().diff(other), dict(other=STATE)),
    "Trace": (Trace, dict(registers=None, pes=None, cycles=None, last=None, layer=None, max_bytes=1)),
    "Trace.to_vcd": (TRACED.to_vcd, dict(path="t.vcd")),
    "Scoreboard": (Scoreboard, dict(config=ARRAY, state=None, map=None)),
    "Scoreboard.check": (Scoreboard(ARRAY).check, dict(x=X, w=X, samples={"psum": [X] * 9}, start=0, outputs=None)),
    "Signal": (Signal, dict(name="p", valid=None, latency=None, width=None, first="low")),
    "SignalMap": (SignalMap, dict(signals={"psum": "p"}, valid=None, latency=0, hop=(1, 1), held_psums=False)),
    "Scoreboard.compare": (lambda psum: Scoreboard(ARRAY).compare(psum=psum), dict(psum=0)),
    "unpack": (unpack, dict(word=1, rows=2, cols=2, dtype="int8")),
    "report": (MODEL.summary().save, dict(path="r.csv")),
}

# Public names that no argument of a user reaches, or whose arguments are what a call gave.
RECORDS = {
    "Change", "Fold", "LayerRun", "PortValues", "Probe", "Result", "Run", "ScoreboardError",
    "State", "Stats", "UnsupportedOperator", "VerificationError",
    "load_example", "show_config",
}  # fmt: skip


def test_every_public_call_is_here() -> None:
    public = {name for name in systolic.__all__ if callable(getattr(systolic, name))}
    assert public - RECORDS - {name.split(" ")[0] for name in CALLS} == set()


def raised(call: Callable[[], Any]) -> BaseException | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # numpy's, of names of types
            call()
    except Exception as error:
        return error
    return None


def check(call: Callable[[], Any], value: Any) -> None:
    error = raised(call)
    if error is not None:
        assert isinstance(error, TypeError | ValueError | OSError | UnknownShape | ScoreboardError), repr(error)
        assert not isinstance(error, UnicodeError), repr(error)
        for raw in ("has no attribute", "object is not", "unpack", "unhashable", "is ambiguous", "unsupported operand"):
            assert raw not in str(error), f"{value!r:.40}: {error}"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    systolic.set_threads(None)


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments(name: str) -> None:
    function, arguments = CALLS[name]
    if "onnx" in name:
        pytest.importorskip("onnx")
    if name == "Trace.to_vcd":
        pytest.importorskip("vcd")
    for key in arguments:
        for value in OTHERS + BYTES + MASKED:
            if key in ("progress", "observe") and callable(value):
                continue  # what a user's function raises
            check(lambda key=key, value=value: function(**arguments | {key: value}), value)
        for value in BYTES + MASKED:
            error = raised(lambda key=key, value=value: function(**arguments | {key: value}))
            assert isinstance(error, TypeError | ValueError), f"{key}={value!r:.40} is taken"


LAYERS: dict[str, Layer] = {type(n.layer).__name__: n.layer for n in zoo().nodes}
LAYERS |= {type(layer).__name__: layer for layer in EXAMPLES}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.exhaustive
def test_wrong_arguments_of_layers(kind: str) -> None:
    layer = LAYERS[kind]
    given = {f.name: getattr(layer, f.name) for f in fields(layer)}
    several = layer.inputs or 2
    methods = [layer.output_shape, layer.output_dtype, layer.apply if isinstance(layer, HostLayer) else layer.lower]
    for value in OTHERS + BYTES + MASKED:
        for key in given:
            check(lambda key=key, value=value: type(layer)(**given | {key: value}), value)
        for method in methods:
            check(lambda method=method, value=value: method(*[value] * several), value)
    for value in BYTES + MASKED:
        for method in methods:
            with pytest.raises((TypeError, ValueError)):
                method(*[value] * several)
        for key, before in given.items():
            if isinstance(before, int | float | tuple | np.ndarray) and key != "flatten":
                with pytest.raises((TypeError, ValueError)):
                    type(layer)(**given | {key: value})


def test_real_mistakes_say_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"^stride must be an integer, not bytes b'ab'$"):
        systolic.conv2d(IMAGES, KERNELS, stride=b"ab")
    with pytest.raises(TypeError, match=r"^input 'x' must be a plain array, but is a masked one; fill it: "):
        systolic.run(MODEL, {"x": INT8})
    with pytest.raises(TypeError, match=r"^m must be an array, not bytearray; numpy.frombuffer makes one of bytes$"):
        systolic.estimate_cycles(bytearray(b"ab"), 1, 1, rows=1, cols=1)
    with pytest.raises(TypeError, match=r"^path must be a str or a pathlib.Path, not int 7$"):
        MODEL.save(7)


# Some 100,000 calls in all, failing ones too. Only small ones, so that many take seconds.
LEAKS: dict[str, Callable[[], Any]] = {
    "conv2d fails": lambda: systolic.conv2d(IMAGES, np.ones((2, 2, 9, 9), np.int8)),
    "conv2d": lambda: systolic.conv2d(IMAGES, KERNELS, array=ARRAY, mode="wavefront", threads=1),
    "matmul fails": lambda: systolic.matmul(X, X[:1]),
    "matmul": lambda: systolic.matmul(X, X, array=ARRAY, threads=1),
    "Dense fails": lambda: Dense(X, x=Q, w=Q, y=1),
    "output_shape fails": lambda: DENSE.output_shape((3, 9)),
    "run fails": lambda: systolic.run(MODEL, X[:, :1]),
    "masked fails": lambda: systolic.quantize(INT8, Q),
    "Trace fails": lambda: Trace(pes=[(1, 2, 3)]),
    "fold fails": lambda: new().fold(x=X[:, :1], w=X),
    "Model fails": lambda: Model([DENSE], inputs={}),
    "QuantParams fails": lambda: QuantParams([1.0, -1.0], axis=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.exhaustive
def test_calls_keep_no_memory(name: str) -> None:
    def call(count: int) -> None:
        for _ in range(count):
            with contextlib.suppress(TypeError, ValueError):
                LEAKS[name]()

    assert (raised(LEAKS[name]) is not None) == ("fails" in name)
    call(500)  # caches fill
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call(8_000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # A leak is at least 16 bytes a call.
    assert grown < 8 * 8_000, f"{grown / 8_000:.0f} bytes a call"
