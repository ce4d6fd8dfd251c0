"""Each option of each command has an effect, or is refused before anything is computed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, MachineConfig, Model, QuantParams, benchmark, cli, engine
from systolic.cli import array_commands, model_commands, view_command
from systolic.cli.parser import build_parser
from systolic.cli.parsing import long_name
from systolic.cli.rules import RULES
from systolic.layers import Conv2d, FloatMatMul, Relu
from systolic.presets import TPU_V1
from systolic.verifier import check

pytest.importorskip("onnx")

SMALL = TPU_V1.memory
PARSER = build_parser()

# What a command is given beside the option that is tried. Options in it are not tried.
SCENES = [
    "run --mode wavefront --no-check --array 16x16",
    "run small.zip",
    "run small.zip --input x.npy --array 4x4",
    "run small.onnx --array 4x4 --no-check",
    "run small.zip --array 4x4,8x8 --no-check",
    "run program.zip",
    "verify --cases 2",
    "verify --case 3",
    "verify small.zip --input x.npy --array 4x4",
    "verify small.onnx --array 4x4 --against onnxruntime",
    "summary small.zip --json",
    "summary small.onnx",
    "summary products.json",
    "summary small.zip --preset tpu-v1 --preset tpu-v3",
    "quantize float.zip --calibration data.npy --out q.zip",
    "quantize float.zip --calibration data.npy --out q.zip --method percentile",
    "compile small.zip",
    "compile small.onnx",
    "gemm 20 9 7 --array 4x4",
    "gemm 20 9 7 --estimate",
    "gemm 20 9 7 --array 4x4 --dataflow all",
    "gemm 20 9 7 --array 4x4 --array 8x8 --estimate",
    "view 3 2 4",
    "view small.zip",
    "view program.zip",
    "view small.zip --layer t0 --array 4x4",
    "view small.onnx --layer t0 --input x.npy --array 4x4",
    "vectors a.npy b.npy --out folder --rows 8",
    "vectors x.npy f.npy --out folder --array 4x4 --padding 1",
    "vectors small.zip --layer t0 --out folder --array 4x4",
    "vectors small.onnx --layer t0 --input x.npy --out folder --array 4x4",
    "rtl --rows 3 --cols 2 --out folder",
    "validate tpu-v1",
    "sweep sweep.json",
    "bench",
    "bench --array 4x4 --rounds 1",
    "info",
    "completion bash",
]

VALUES = {
    "accumulators": "8", "activation_dtype": "uint8", "activations": "uint8", "against": "onnxruntime", "array": "5x6", "batch": "3",
    "calibration": "other.npy", "case": "1", "cases": "1", "clock": "350", "cols": "5",
    "compute": "bfloat16", "dilation": "2", "groups": "2", "layout": "NHWC", "padding": "2", "stride": "2",
    "weight_dtype": "uint8", "x_zero_point": "3", "config": "quiet.json", "cycles": "2:9", "dataflow": "output_stationary", "input": "x.npy",
    "layer": "t0", "limit": "1", "m": "5", "machine": "machine.json", "mapping": "taps", "method": "percentile",
    "mode": "wavefront", "out": "out.csv", "output": "new.bin", "percentile": "98", "preset": "tpu-v3",
    "qdq": "float", "report": "report.csv", "rounds": "2", "rows": "5", "seed": "5", "shape": "x=3,2,6,6",
    "threads": "2", "tolerance": "0.5", "top": "1", "trace": "trace.json",
}  # fmt: skip

# Their effect is on a terminal, or on how long something takes.
UNSEEN = {"all", "config", "quiet", "workers"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("effects")
    q, rng = QuantParams(0.5), np.random.default_rng(0)
    conv = Conv2d(rng.integers(-9, 9, (3, 2, 3, 3), dtype=np.int8), x=q, w=q, y=QuantParams(4.0))
    small = Model([conv, Relu()], inputs={"x": ((None, 2, 6, 6), "int8")})
    small.save(folder / "small.zip")
    systolic.save_onnx(small, folder / "small.onnx")
    engine.compile(small, machine=TPU_V1, batch=2).save(folder / "program.zip")
    np.save(folder / "x.npy", rng.integers(-99, 99, (2, 2, 6, 6), dtype=np.int8))
    machine = MachineConfig(ArrayConfig(6, 3), clock_mhz=123, memory=SMALL)
    (folder / "machine.json").write_text(json.dumps(machine.to_dict()))
    layers = [{"name": name, "m": 9, "k": 20, "n": 11} for name in ("up", "down")]
    (folder / "products.json").write_text(json.dumps({"layers": layers}))
    described = {"models": [{"name": "fc", "layers": layers}], "grid": {"side": [4, 8]}}
    (folder / "sweep.json").write_text(json.dumps(described))
    (folder / "quiet.json").write_text('{"quiet": true}')
    floats = [FloatMatMul(rng.normal(size=(6, 5)).astype(np.float32))]
    Model(floats, inputs={"x": ((None, 6), "float32")}).save(folder / "float.zip")
    for name in ("data.npy", "other.npy"):
        np.save(folder / name, rng.normal(size=(50, 6)).astype(np.float32))
    np.save(folder / "a.npy", np.ones((3, 4), np.int8))
    np.save(folder / "b.npy", np.ones((4, 2), np.int8))
    np.save(folder / "f.npy", np.ones((4, 2, 3, 3), np.int8))
    return folder


class Watch:
    """What goes to what the commands call: digests of the arguments, and the seeds of random numbers."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        for module, name in (
            (engine, "run"), (engine, "matmul"), (engine, "compile"), (check, "compare_outputs"),
            (model_commands, "compare_outputs"), (view_command, "time_program"), (np.random, "default_rng"),
        ):  # fmt: skip
            self.watch(patch, module, name)
        for module in [each for name, each in sys.modules.items() if name.startswith("systolic.")]:
            if hasattr(module, "load_model"):
                self.watch(patch, module, "load_model", kept=False)
        patch.setattr(cli, "build_parser", lambda: PARSER)
        # The suite takes minutes.
        patch.setattr(benchmark, "suite", lambda **how: self.calls.append(seen({**how, "report": None})) or [])
        rows = benchmark.bench
        patch.setattr(
            benchmark, "bench", lambda **how: self.calls.append(seen(how)) or rows(**{**how, "m": 4, "rounds": 1})
        )
        example = systolic.load_example()
        few = example._replace(images=example.images[:2], labels=example.labels[:2])
        patch.setattr(model_commands, "load_example", lambda: few)
        patch.setitem(array_commands.VALIDATIONS, "tpu-v1", lambda: VALIDATION)

    def watch(self, patch: pytest.MonkeyPatch, module: Any, name: str, kept: bool = True) -> None:
        call = getattr(module, name)

        def recorded(*arguments: Any, **options: Any) -> Any:
            given = {key: value for key, value in options.items() if key in SEEN}
            self.calls.append((name, [seen(each) for each in arguments], seen(given)))
            return call(*arguments, **options)

        patch.setattr(module, name, recorded)


# Options of calls that are compared; others hold functions.
SEEN = ("machine", "array", "mode", "threads", "mapping", "batch", "shapes", "qdq", "tolerance", "compute", "reuse")
VALIDATION = systolic.accelerators.Validation(TPU_V1, (), {}, {}, {})


def seen(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, dict):
        return str({name: seen(each) for name, each in value.items()})
    return type(value).__name__ if " at 0x" in repr(value) else repr(value)


def without_times(value: Any) -> Any:
    """Return JSON without what was measured."""
    if isinstance(value, dict):
        return {
            name: without_times(each) for name, each in value.items()
            if "wall" not in name and name not in ("measurements", "info")
        }  # fmt: skip
    return [without_times(each) for each in value] if isinstance(value, list) else value


def outcome(arguments: list[str], watch: Watch) -> tuple[Any, ...]:
    """Return everything that can be seen of a command: status, text, errors, files, calls."""
    before = set(Path().iterdir())
    out, err = io.StringIO(), io.StringIO()
    watch.calls.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: Any = cli.main(arguments)
        except SystemExit as end:
            status = end.code
    text = out.getvalue()
    shown = json.dumps(without_times(json.loads(text))) if text.startswith("{") else text
    files = {}
    for path in sorted(set(Path().iterdir()) - before):
        if path.is_dir():
            inside = [each for each in sorted(path.rglob("*")) if each.is_file()]
            files[path.name] = str([(each.name, seen(np.fromfile(each, np.uint8))) for each in inside])
            shutil.rmtree(path)
            continue
        files[path.name] = seen(np.fromfile(path, np.uint8)) if path.suffix == ".zip" else ""
        path.unlink()
    return status, shown, err.getvalue(), files, list(watch.calls)


@pytest.fixture
def watch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.chdir(folder)
    yield Watch(monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_no_option_is_ignored(scene: str, watch: Watch) -> None:
    if "onnxruntime" in scene:
        pytest.importorskip("onnxruntime")
    parser = PARSER
    arguments = scene.split()
    given = parser.parse_args(arguments).given
    # Text where an option is about text.
    common = ["--quiet"] if "--json" in arguments or arguments[0] == "bench" else ["--quiet", "--json"]
    base = outcome([*arguments, *common], watch)
    assert base[0] == 0, base
    tried = 0
    for action in parser.commands[arguments[0]]._actions:
        option = long_name(action)
        if option in (None, "--help") or action.dest in {*given, *UNSEEN}:
            continue
        if action.dest == "json" and "--json" in common:
            continue
        words = [option] if action.nargs == 0 else [option, VALUES[action.dest]] if action.nargs != "?" else [option]
        more = [] if action.dest in ("top", "all", "markdown") else common
        before = base if more == common else outcome([*arguments, "--quiet"], watch)
        found = outcome([*arguments, *words, *(more or ["--quiet"])], watch)
        assert found != before, f"{option} is ignored by {scene}"
        if "no effect" in found[2]:
            assert found[0] == 2 and "would have no effect" in found[2]
            assert all(name == "load_model" for name, *_ in found[4]), "something was computed"
        tried += 1
    assert tried or arguments[0] in ("info", "completion", "validate")


def test_every_rule_is_of_an_option() -> None:
    commands = PARSER.commands
    for command, rules in RULES.items():
        known = {action.dest for action in commands[command]._actions}
        for rule in rules:
            assert set(rule.options.split()) <= known and rule.why, (command, rule)


REFUSED = [
    ("run small.zip --input x.npy --seed 0", "--seed would have no effect: it is of the random input"),
    ("run --seed 0", "--seed would have no effect: it goes with a MODEL"),
    ("run small.zip --qdq integer", "--qdq would have no effect: it is of an .onnx file"),
    ("run small.zip --array 8x8 --ideal", "--ideal would have no effect: this machine has no memories"),
    ("run program.zip --no-check", "--no-check would have no effect"),
    ("run small.zip --array 8x8,4x4 --report r.csv", "--report would have no effect: it is of one machine"),
    ("verify --cases 3 --case 2", "--cases would have no effect: --case is the only one"),
    ("verify small.zip --cases 3", "--cases would have no effect: it is of random cases"),
    ("verify small.zip --input x.npy --seed 1", "--seed would have no effect"),
    ("verify small.zip --tolerance 0", "--tolerance would have no effect: every bit must equal"),
    ("verify --qdq float", "--qdq would have no effect"),
    ("view 3 4 5 --qdq float", "--qdq would have no effect: it is of a model"),
    ("view 3 4 5 --shape x=1", "--shape would have no effect: it is of a model"),
    ("view small.zip --seed 1", "--seed would have no effect: a model's timeline"),
    ("view program.zip --seed 1", "--seed would have no effect"),
    ("quantize float.zip --calibration data.npy --out q.zip --percentile 99", "--percentile would have no effect"),
    ("vectors a.npy b.npy --out v --layer t0", "--layer would have no effect: it is of a model's layer, and there"),
    ("vectors small.zip --layer t0 --out v --stride 2", "--stride would have no effect: it is of a convolution"),
    ("vectors a.npy b.npy --out v --array 4x4 --rows 4", "--rows would have no effect: --array gives both sizes"),
    ("rtl --array 4x4 --cols 4 --out v", "--cols would have no effect: --array gives both sizes"),
    ("gemm 3 4 5 --estimate --threads 2", "--threads would have no effect: it is of a run"),
    ("summary small.zip --json --top 3", "--top would have no effect: --json prints every node"),
    ("bench --array 4x4 --quick", "--quick would have no effect"),
    ("bench --json --markdown", "--markdown would have no effect"),
    ("gemm 3 4 5 --seed 1 --seed 2", "argument --seed: is given twice"),
    ("gemm 3 4 5 --dataflow all --array 4x4,8x8", "--dataflow all takes one machine"),
    ("verify small.zip --array 4x4 --array 8x8", "verify takes one machine, not 2"),
    ("compile small.zip --preset tpu-v1 --preset tpu-v2", "compile takes one machine, not 2"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_is_refused(line: str, words: str, watch: Watch) -> None:
    status, out, err, files, calls = outcome(line.split(), watch)
    assert status == 2 and words in err and out == "" and not files
    assert not calls


def test_a_batch_that_no_input_takes(watch: Watch) -> None:
    Model([Relu()], inputs={"x": ((2, 3), "int8")}).save("fixed.zip")
    for command in ("run", "verify", "summary", "compile"):
        status, _, err, _, _ = outcome([command, "fixed.zip", "--batch", "2"], watch)
        assert status == 2 and "batch=2 would have no effect: no first axis is unknown: x (2, 3)" in err
    status, *_ = outcome(["run", "small.zip", "--batch", "2", "--shape", "x=1,2,6,6"], watch)
    assert status == 2
