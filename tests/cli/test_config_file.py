"""--config and --machine: files of options and of machines, in YAML, JSON and TOML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systolic import ArrayConfig, MachineConfig, cli
from systolic.cli.parser import build_parser
from systolic.cli.parsing import long_name, repeats
from systolic.presets import TPU_V1

Capture = pytest.CaptureFixture[str]
PARSER = build_parser()

YAML = """\
# A comment.
array: [8x8, 4x4]
clock: 350
single-buffered: true
quiet: false
dataflow: output_stationary
"""
FIELDS = {
    "array": ["8x8", "4x4"], "clock": 350, "single-buffered": True, "quiet": False, "dataflow": "output_stationary",
}  # fmt: skip
TOML = """\
array = ["8x8", "4x4"]
clock = 350
single-buffered = true
quiet = false
dataflow = "output_stationary"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: Capture, *arguments: str) -> str:
    try:
        status: Any = cli.main(arguments)
    except SystemExit as end:
        status = end.code
    captured = capsys.readouterr()
    assert status == 2 and captured.out == "" and "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


@pytest.mark.parametrize(("name", "text"), [("o.yaml", YAML), ("o.json", json.dumps(FIELDS)), ("o.toml", TOML)])
def test_options_from_a_file(name: str, text: str, capsys: Capture) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    Path(name).write_text(text)
    for words in (["--config", name], [f"--config={name}"]):
        options = PARSER.parse_args(["gemm", "3", "4", "5", *words])
        assert options.array == [[ArrayConfig(8, 8)], [ArrayConfig(4, 4)]] and options.clock == 350
        assert options.single_buffered and not options.quiet and options.dataflow == "output_stationary"
        assert {"array", "clock", "single_buffered", "dataflow"} < options.given.keys() and "quiet" not in options.given
    # The command line wins: over the same option, and over one that excludes it.
    options = PARSER.parse_args(["gemm", "3", "4", "5", "--config", name, "--array", "2x2", "--clock", "7"])
    assert options.array == [[ArrayConfig(2, 2)]] and options.clock == 7 and options.single_buffered
    options = PARSER.parse_args(["gemm", "3", "4", "5", "--preset", "tpu-v3", "--config", name])
    assert options.preset == ["tpu-v3"] and options.array is None
    assert cli.main(["gemm", "3", "4", "5", "--config", name, "--estimate"]) == 0
    assert "4x4" in capsys.readouterr().out


def test_what_is_required_may_stand_in_the_file() -> None:
    Path("q.json").write_text(json.dumps({"calibration": "x.npy", "out": "q.zip"}))
    options = PARSER.parse_args(["quantize", "m.zip", "--config", "q.json"])
    assert (options.calibration, options.out) == ("x.npy", "q.zip")
    Path("r.json").write_text(json.dumps({"reuse": True}))
    assert PARSER.parse_args(["compile", "m.zip", "--config", "r.json"]).reuse is True
    Path("r.json").write_text(json.dumps({"reuse": 64, "shape": "x=1,2"}))
    options = PARSER.parse_args(["compile", "m.zip", "--config", "r.json"])
    assert options.reuse == 64 and options.shape == [("x", (1, 2))]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"aray": "8x8"}, "o.json: field 'aray': there is no option of this name; did you mean 'array'?"),
        ({"--array": "8x8"}, "o.json: field '--array': there is no option of this name; did you mean 'array'?"),
        ({"m": 3}, "o.json: field 'm': there is no option of this name; known are "),
        ({"config": "b.json"}, "o.json: field 'config': there is no option of this name"),
        ({"help": True}, "o.json: field 'help': there is no option of this name"),
        ({"array": "8y8"}, "o.json: field 'array': must be ROWSxCOLS, such as 256x256, not '8y8'"),
        ({"mode": "wave"}, "o.json: field 'mode': invalid choice: 'wave'"),
        ({"threads": 0}, "o.json: field 'threads': must be at least 1, not 0"),
        ({"threads": 1.5}, "o.json: field 'threads': must be an integer, not '1.5'"),
        ({"threads": [1, 2]}, "o.json: field 'threads': must be a number or a text, not list [1, 2]"),
        ({"threads": None}, "o.json: field 'threads': must be a number or a text, not NoneType None"),
        ({"seed": True}, "o.json: field 'seed': must be a number or a text, not bool True"),
        ({"estimate": "yes"}, "o.json: field 'estimate': must be true or false, not str 'yes'"),
        ({"array": "8x8", "preset": "tpu-v1"}, "o.json: field 'preset': not allowed with the field 'array'"),
        ({"accumulators": "--"}, "o.json: field 'accumulators': must be a value of the option, not '--'"),
        ({"machine": "no.json"}, "o.json: field 'machine': "),
        ([1], "o.json: a file of options must be fields with values, not list [1]"),
        ({"seed": 1, "estimate": True}, "--seed would have no effect"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(fields: Any, words: str, capsys: Capture) -> None:
    Path("o.json").write_text(json.dumps(fields))
    assert words in refused(capsys, "gemm", "3", "4", "5", "--config", "o.json")


def test_files_that_are_none(capsys: Capture, here: Path) -> None:
    gemm = ("gemm", "3", "4", "5", "--config")
    assert "No such file" in refused(capsys, *gemm, "none.json")
    assert "is a folder; --config takes a file of YAML, JSON or TOML" in refused(capsys, *gemm, str(here))
    for name, text, words in (
        ("o.txt", "", "a file of options is a .json, .yaml, .yml or .toml file"),
        ("o.json", "{", "o.json cannot be read: "),
        ("o.json", '{"seed": 1, "seed": 2}', "the field 'seed' is there twice"),
        ("o.toml", "seed = ", "o.toml cannot be read: "),
        ("o.toml", "seed = 1979-05-27", "field 'seed': must be a number or a text, not date"),
    ):
        Path(name).write_text(text)
        assert words in refused(capsys, *gemm, name)
    assert "expected one argument" in refused(capsys, *gemm)


def sample(action: Any) -> Any:
    """Return a value of an option as a file holds it."""
    if action.nargs == 0:
        return True
    known = {"shape": "x=1,2", "clock": 350.5, "cycles": "2:9", "array": "8x8", "tolerance": 0.5, "percentile": 99.5}
    value = action.choices[-1] if action.choices else known.get(action.dest, 3 if action.type else "some file")
    return [value, value] if repeats(action) else value


@pytest.mark.parametrize("command", PARSER.commands)
def test_every_option_may_stand_in_a_file(command: str) -> None:
    """A field has the value that its option has in the command line."""
    parser = PARSER.commands[command]
    positionals = [a for a in parser._actions if not a.option_strings and a.nargs not in ("?", "*")]
    words = [command, *(str(a.choices[0]) if a.choices else "3" for a in positionals)]
    for action in parser._actions:
        option = long_name(action)
        if option in (None, "--help", "--config", "--machine"):
            continue
        value = sample(action)
        needed = [a for a in parser._actions if a.required and a.option_strings and a is not action]
        more = [word for a in needed for word in (long_name(a), "3")]
        Path("one.json").write_text(json.dumps({option.removeprefix("--"): value}))
        typed = [option] if value is True else [
            word for each in (value if isinstance(value, list) else [value]) for word in (option, str(each))
        ]  # fmt: skip
        found = PARSER.parse_args([*words, *more, "--config", "one.json"])
        expected = PARSER.parse_args([*words, *more, *typed])
        assert getattr(found, action.dest) == getattr(expected, action.dest), option
        assert found.given[action.dest] == expected.given[action.dest]


@given(st.dictionaries(st.sampled_from(["seed", "threads", "accumulators", "clock"]), st.integers(2, 99), min_size=1))
def test_numbers_survive(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, int]) -> None:
    path = tmp_path_factory.mktemp("fields") / "o.json"
    path.write_text(json.dumps(fields))
    options = PARSER.parse_args(["gemm", "1", "2", "3", "--config", str(path)])
    assert {name: getattr(options, name) for name in fields} == fields


# Machines

MACHINE_YAML = """\
array: {rows: 16, cols: 8, accumulator_rows: 512}
clock_mhz: 940
memory:
  weight_bytes: 8_589_934_592
  weight_bytes_per_second: 34_000_000_000
  unified_buffer_rows: 4096
  host_rows: 4096
  host_bytes_per_second: 100/3
"""
MACHINE_TOML = """\
clock_mhz = 940

[array]
rows = 16
cols = 8
accumulator_rows = 512

[memory]
weight_bytes = 8_589_934_592
weight_bytes_per_second = 34_000_000_000
unified_buffer_rows = 4096
host_rows = 4096
host_bytes_per_second = "100/3"
"""


def test_machines_in_yaml_and_toml() -> None:
    pytest.importorskip("yaml")
    Path("m.yaml").write_text(MACHINE_YAML)
    Path("m.toml").write_text(MACHINE_TOML)
    found = [PARSER.parse_args(["run", "--machine", name]).machine for name in ("m.yaml", "m.toml")]
    assert found[0] == found[1]
    ((machine,), _) = found
    Path("m.json").write_text(json.dumps(machine.to_dict()))
    assert PARSER.parse_args(["run", "--machine", "m.json"]).machine == [machine]
    assert machine.array == ArrayConfig(16, 8, accumulator_rows=512) and machine.clock_mhz == 940
    assert machine.memory.weight_bytes == 2**33 and str(machine.memory.host_bytes_per_second) == "100/3"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"aray": {}}, "m.json: MachineConfig has no field 'aray'; did you mean 'array'?"),
        ({"array": {"row": 8}}, "m.json: ArrayConfig has no field 'row'; did you mean 'rows'?"),
        ({"array": {"rows": 0}}, "m.json: rows must be a positive integer, not 0"),
        ({"array": 8}, "m.json: ArrayConfig.from_dict takes a dict, not int"),
        ({"clock_mhz": "fast"}, "m.json: clock_mhz must be a number, not str 'fast'"),
        ({"memory": {"host_rows": 4}}, "m.json: MemoryConfig needs the fields 'weight_bytes', "),
        ({"memory": TPU_V1.memory.to_dict() | {"lane": 2}}, "m.json: MemoryConfig has no field 'lane'; did you mean 'lanes'?"),
        ([], "m.json: MachineConfig.from_dict takes a dict, not list"),
    ],
)  # fmt: skip
def test_mistakes_in_a_machine(fields: Any, words: str, capsys: Capture) -> None:
    Path("m.json").write_text(json.dumps(fields))
    assert words in refused(capsys, "gemm", "3", "4", "5", "--machine", "m.json")


# Several machines


def values(capsys: Capture, *arguments: str, status: int = 0) -> dict[str, Any]:
    assert cli.main([*arguments, "--json", "--quiet"]) == status, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_product_on_several_arrays(capsys: Capture) -> None:
    gemm = ("gemm", "20", "9", "7")
    for mode in (["--estimate"], [], ["--mode", "wavefront"]):
        found = values(capsys, *gemm, "--array", "4x4,8x2", "--array", "3x5", "--clock", "100", *mode)
        alone = [values(capsys, *gemm, "--array", size, "--clock", "100", *mode) for size in ("4x4", "8x2", "3x5")]
        assert found["passed"] is (None if mode == ["--estimate"] else True)
        for one, of_several in zip(alone, found["machines"], strict=True):
            assert {name: one[name] for name in of_several} == of_several
    assert cli.main([*gemm, "--preset", "tpu-v1", "--preset", "tpu-v3", "--estimate"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "20 x 9 x 7" and lines[1].split()[:4] == ["preset", "rows", "cols", "MHz"]
    assert [line.split()[:4] for line in lines[3:]] == [["tpu-v1", "256", "256", "700"], ["tpu-v3", "128", "128", "940"]]
    Path("m.json").write_text(json.dumps(MachineConfig(ArrayConfig(4, 4)).to_dict()))
    assert len(values(capsys, *gemm, "--machine", "m.json", "--machine", "m.json")["machines"]) == 2


def test_a_wrong_product_on_one_of_several(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from systolic import engine

    multiply = engine.matmul

    def wrong(*arguments: Any, **options: Any) -> Any:
        result = multiply(*arguments, **options)
        result.acc[0, 0] += options["array"].rows == 8
        return result

    monkeypatch.setattr(engine, "matmul", wrong)
    gemm = ("gemm", "20", "9", "7", "--array", "4x4,8x8,2x2")
    found = values(capsys, *gemm, status=1)
    assert [each["passed"] for each in found["machines"]] == [True, False, True] and found["passed"] is False
    assert cli.main([*gemm, "--quiet"]) == 1
    assert capsys.readouterr().out.count("FAILED") == 1


@pytest.mark.slow
def test_a_model_on_several_machines(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from systolic.cli import model_commands
    from systolic.layers import QLinearAdd

    example = model_commands.load_example()
    few = example._replace(images=example.images[:3], labels=example.labels[:3])
    monkeypatch.setattr(model_commands, "load_example", lambda: few)
    run = ("run", "--mode", "wavefront")
    found = values(capsys, *run, "--array", "8x8,16x16")
    assert found["model"] == "digits" and found["passed"] is True
    measured = ("wall", "seconds")

    def exact(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: exact(each) for name, each in value.items() if not any(word in name for word in measured)}
        return [exact(each) for each in value] if isinstance(value, list) else value

    for size, of_several in zip(("8x8", "16x16"), found["runs"], strict=True):
        one = values(capsys, *run, "--array", size)
        assert exact({name: one[name] for name in of_several}) == exact(of_several)
    assert cli.main([*run, "--array", "8x8,16x16", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits in wavefront mode" and "outputs equal numpy's" in lines[3] and "16x16" in lines[4]
    original = QLinearAdd.apply
    monkeypatch.setattr(QLinearAdd, "apply", lambda self, *inputs: original(self, *inputs) ^ 1)
    assert values(capsys, *run, "--array", "8x8,16x16", status=1)["passed"] is False
    assert cli.main([*run, "--array", "8x8,16x16", "--quiet"]) == 1
    assert capsys.readouterr().out.count("FAILED: outputs differ from numpy's") == 2


def test_a_summary_on_several_machines(capsys: Capture) -> None:
    from systolic.example import DATA

    path = str(DATA / "digits.zip")
    found = values(capsys, "summary", path, "--array", "8x8,16x16")
    for size, of_several in zip(("8x8", "16x16"), found["summaries"], strict=True):
        one = values(capsys, "summary", path, "--array", size)
        assert {name: one[name] for name in of_several} == of_several
    assert cli.main(["summary", path, "--array", "8x8,16x16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{found['summaries'][1]['totals']['cycles']:,}" in lines[-1]


def test_fields_of_one_dest_exclude_each_other(here: Path, capsys: Capture) -> None:
    (here / "o.json").write_text('{"quick": true, "full": true}')
    message = refused(capsys, "bench", "--config", "o.json")
    assert message == "systolic bench: error: o.json: field 'full': not allowed with the field 'quick'"
    (here / "o.json").write_text('{"quick": true, "full": false}')
    assert PARSER.parse_args(["bench", "--config", "o.json"]).extent == "quick"
    assert PARSER.parse_args(["bench", "--full", "--config", "o.json"]).extent == "full"
