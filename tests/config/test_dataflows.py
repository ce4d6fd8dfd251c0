"""Dataflows and formats: every row holds what it must, and a new row needs nothing else."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from systolic import ArrayConfig, Scoreboard, State, SystolicArray, Trace, ports, write_vectors
from systolic.dataflows import DATAFLOWS, WEIGHT_STATIONARY, Dataflow, Port, Register
from systolic.formats import FORMATS, bits

ROOT = Path(__file__).resolve().parents[2]

# Rows


@pytest.mark.parametrize("numbers", FORMATS.values(), ids=lambda f: f"{f.activation} x {f.weight}")
def test_formats(numbers) -> None:
    assert (numbers.sum, numbers.sum_bytes, numbers.ordered) == (
        ("float32", 4, True) if numbers.is_float else ("int32", 4, False)
    )
    assert all(numbers.kernel in dataflow.kernels for dataflow in DATAFLOWS.values())
    assert pickle.loads(pickle.dumps(numbers)) == numbers
    config = ArrayConfig(2, 2, activation_dtype=numbers.activation, weight_dtype=numbers.weight)
    assert config.format is numbers


def test_bits() -> None:
    assert [bits(np.dtype(name)) for name in ("bool", "int8", "uint8", "int32")] == [1, 8, 8, 32]


@pytest.mark.parametrize("dataflow", DATAFLOWS.values(), ids=lambda d: d.name)
def test_dataflows(dataflow: Dataflow) -> None:
    names = [register.name for register in dataflow.registers]
    assert len(set(names)) == len(names) and dataflow.leaves in names
    assert {port.feeds for port in dataflow.ports} <= set(names)
    assert len({port.name for port in dataflow.ports}) == len(dataflow.ports)
    assert len(dataflow.rules) == 5 and DATAFLOWS[dataflow.name] is dataflow
    (leaves,) = (register for register in dataflow.registers if register.name == dataflow.leaves)
    assert leaves.holds == "sum"
    # What leaves the bottom row is what a register that moves down hands on, itself or one edge later.
    (moving,) = (r for r in dataflow.registers if r.holds == "sum" and r.moves == "down")
    assert (moving is leaves) != dataflow.held
    pes = dataflow.reference(2, 3)
    assert list(pes.registers()) == names  # the reference names them again, independently
    pes.step(**{port.name: [1] * (2 if port.side == "west" else 3) for port in dataflow.ports})
    # What moves right or down is what a neighbour reads.
    for register in dataflow.registers:
        if register.holds == "control":
            assert register.moves == "right"


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("`", "")).strip()


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="reads the sources")
@pytest.mark.parametrize(
    ("page", "dataflow"),
    [
        ("docs/microarchitecture.md", "weight_stationary"),
        ("docs/microarchitecture.md", "output_stationary"),
        ("systolic/_core.pyx", "weight_stationary"),
    ],
)
def test_pages_state_the_rules_of_the_record(page: str, dataflow: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    items = re.findall(r"^(\d)\. (.*(?:\n   .*)*)", text, re.MULTILINE)
    stated = [plain(item) for _, item in items]
    rules = [plain(rule) for rule in DATAFLOWS[dataflow].rules]
    start = stated.index(rules[0])
    assert stated[start : start + 5] == rules


# Another row, only here: the products leave through a register of another name, and a tag travels along.

_NAMES = {"activation": "a", "shift": "load", "swap": "take", "weight": "w", "psum": "out"}
_REGISTERS = {"weight": "w", "next_weight": "behind", "weight_pass": "chain", "activation": "a", "psum": "out",
              "shift": "load", "swap": "take"}  # fmt: skip


def _clock(registers: Any, port_values: Any, bottom: np.ndarray, threads: int, numbers: Any) -> None:
    clock = WEIGHT_STATIONARY.kernels[numbers.kernel]
    clock(
        {name: registers[new] for name, new in _REGISTERS.items()},
        {name: port_values[new] for name, new in _NAMES.items()},
        bottom,
        threads,
        numbers,
    )
    for tag in port_values["tag"]:
        registers["tag"][:, 1:] = registers["tag"][:, :-1].copy()
        registers["tag"][:, 0] = tag


def _renamed(beats: Any) -> Any:
    return lambda *arguments: ((_NAMES[name], start, values) for name, start, values in beats(*arguments))


TOY = Dataflow(
    name="toy",
    registers=(
        *(
            Register(_REGISTERS[register.name], register.role, register.holds, register.moves)
            for register in WEIGHT_STATIONARY.registers
        ),
        Register("tag", "control", "control", moves="right"),
    ),
    ports=(
        Port("tag", "west", feeds="tag"),
        *(Port(_NAMES[port.name], port.side, _REGISTERS[port.feeds]) for port in WEIGHT_STATIONARY.ports),
    ),
    leaves="out",
    rules=WEIGHT_STATIONARY.rules,
    held=False,
    exchanged=False,
    starts=WEIGHT_STATIONARY.starts,
    steps=WEIGHT_STATIONARY.steps,
    fold_times=WEIGHT_STATIONARY.fold_times,
    cycles=WEIGHT_STATIONARY.cycles,
    shift_beats=_renamed(WEIGHT_STATIONARY.shift_beats),
    stream_beats=_renamed(WEIGHT_STATIONARY.stream_beats),
    kernels={"8-bit integers": _clock},
    writes=WEIGHT_STATIONARY.writes,
    reference=WEIGHT_STATIONARY.reference,
)


class ToyConfig(ArrayConfig):
    """A configuration whose dataflow is the toy's."""

    @property
    def dataflow_record(self) -> Dataflow:
        return TOY


X = np.array([[1, 2], [3, 4], [-5, 6]], dtype=np.int8)
W = np.array([[7, -8, 9], [10, 11, -12]], dtype=np.int8)
CONFIG = ToyConfig(2, 3)


def test_states_and_arrays_of_another_dataflow() -> None:
    array = SystolicArray(CONFIG).fold(x=X, w=W).run(5)
    plain_array = SystolicArray(ArrayConfig(2, 3)).fold(x=X, w=W).run(5)
    assert list(array.registers) == ["w", "behind", "chain", "a", "out", "load", "take", "tag"]
    for name, new in _REGISTERS.items():
        np.testing.assert_array_equal(array.registers[new], plain_array.registers[name])
    state = pickle.loads(pickle.dumps(array.state()))
    assert state == array.state() and state.out.dtype == np.int32
    assert SystolicArray(CONFIG).restore(state).run().outputs[0].tolist() == plain_array.run().outputs[0].tolist()
    assert State(**dict(state.registers), cycle=5).registers.keys() == state.registers.keys()
    with pytest.raises(TypeError, match="^the registers of a toy array are w, behind, .*, not activation, "):
        array.restore(plain_array.state())
    with pytest.raises(TypeError, match="^the registers of a weight_stationary array are weight, .*, not a, "):
        plain_array.restore(state)
    array.reset().step(tag=[1, 0])
    assert array.registers.tag.tolist() == [[True, False, False], [False, False, False]]
    leaving = array.clock(out=[[5, 6, 7]] * 2)
    assert leaving.shape == (2, 3) and leaving[1].tolist() == [5, 6, 7]
    with pytest.raises(TypeError, match=r"^step\(\) has no port 'psum'; the ports are tag, a, load, take, w, out$"):
        array.step(psum=1)


def test_products_of_another_dataflow() -> None:
    result = systolic.matmul(X, W, array=CONFIG, trace=True)
    assert result.acc.tolist() == (X.astype(int) @ W).tolist()
    assert result.cycles == 8 == systolic.estimate(result.gemm, machine=CONFIG).cycles
    assert result.trace["out"][7].tolist() == [[0, 0, 0], [0, 0, -117]]


def test_traces_of_another_dataflow(tmp_path: Path) -> None:
    pytest.importorskip("vcd")
    trace = Trace()
    SystolicArray(CONFIG, trace=trace).fold(x=X, w=W).run()
    assert trace.registers == tuple(CONFIG.register_dtypes)
    assert trace["out"].shape == (8, 2, 3) and trace.to_text().splitlines()[3].count("out 21 -8 0 / 27 0 0") == 1
    trace.to_vcd(tmp_path / "toy.vcd")
    found = re.findall(r"\$var \w+ (\d+) \S+ (\w+) \$end", (tmp_path / "toy.vcd").read_text())
    assert {name: int(width) for width, name in found} == {
        "clk": 1, "cycle": 64, "w": 8, "behind": 8, "chain": 8, "a": 8, "out": 32, "load": 1, "take": 1, "tag": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="^registers must be one of 'w', 'behind'"):
        SystolicArray(CONFIG, trace=Trace(registers="psum"))


@pytest.mark.slow
def test_drawings_of_another_dataflow() -> None:
    pytest.importorskip("matplotlib")
    array = SystolicArray(CONFIG).fold(x=X, w=W).run(4)
    texts = array.plot().axes[0].texts
    drawn = {text.get_gid() for text in texts if text.get_gid()}
    assert drawn == {"w", "behind", "chain", "a", "out"}
    assert {"a, moves right", "w", "behind (shadow)", "out, moves down", "tag"} <= {t.get_text() for t in texts}
    trace = Trace()
    SystolicArray(CONFIG, trace=trace).run(2)
    assert trace.plot_wave().get_suptitle() == "a after the edge of each cycle"


def test_ports_vectors_and_scoreboards_of_another_dataflow(tmp_path: Path) -> None:
    first = next(ports(X, W, array=CONFIG))
    assert list(first.ports) == ["tag", "a", "load", "take", "w", "out"] and first.w.tolist() == [10, 0, 0]
    manifest = write_vectors(X, W, tmp_path / "toy", array=CONFIG)
    write_vectors(X, W, tmp_path / "plain", array=ArrayConfig(2, 3))
    assert {"west_tag.mem", "west_load.mem", "north_w.mem", "bottom_out.mem"} <= set(manifest["files"])
    assert json.loads((tmp_path / "toy" / "manifest.json").read_text()) == manifest
    for toy, real in [("bottom_out", "bottom_psum"), ("north_w", "north_weight"), ("acc", "acc")]:
        assert (tmp_path / "toy" / f"{toy}.mem").read_text() == (tmp_path / "plain" / f"{real}.mem").read_text()
    board = Scoreboard(CONFIG)
    board.edge(**first.ports)
    board.compare(behind=[[10, 0, 0], [0, 0, 0]], out=0)


def test_registers_are_named_once() -> None:
    """Only the record, the reference and what is compiled name a register that nothing else is called."""
    package = Path(systolic.__file__).parent
    naming = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"^(?!\s*(#|>>>)).*[\"'](next_weight|weight_pass)[\"']", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert naming == {"dataflows/weight_stationary.py", "reference/pe.py"}
