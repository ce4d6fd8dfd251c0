"""``verify``: what it draws, what it reports, how it names what is wrong."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import systolic
from support.strategies import raises
from support.toy_layers import Halves
from systolic import (
    ArrayConfig,
    Gemm,
    Model,
    Node,
    QuantParams,
    VerificationError,
    _isolated,
    cli,
    reference,
    verify,
)
from systolic.example import DATA
from systolic.layers import Dense, QLinearMatMul, Relu
from systolic.lowered import Lowered
from systolic.machine import operands
from systolic.machine.accumulators import Accumulators
from systolic.model import LAYERS
from systolic.reference.oracle import ORACLES
from systolic.tiling import estimate_gemm, folds
from systolic.verifier import VerificationReport, cases
from systolic.verifier.cases import Draw

SMALL = ArrayConfig(8, 8)
Q = QuantParams(0.5, 3)


def dense_model() -> Model:
    weight = np.random.default_rng(0).integers(-128, 128, (20, 13), dtype=np.int8)
    dense = Dense(weight, x=Q, w=QuantParams(0.25, 7), y=None)
    return Model([dense, Relu()], inputs={"x": ((None, 20), "int8")})


def negated(lowered: Lowered) -> Lowered:
    """Real numbers of the other sign."""
    epilogue = lowered.epilogue
    return lowered._replace(epilogue=epilogue._replace(scale=-epilogue.scale))  # type: ignore[operator]


def zero_point_model() -> Model:
    return Model([Relu(5)], inputs={"x": ((None, 4), "int8")})


# Random cases


@pytest.mark.slow
def test_passes() -> None:
    report = verify(cases=60)
    assert report.passed and report.mismatches == () and report.cases == 60
    assert report.checked == {"registers": 15, "matmul": 15, "conv2d": 15, "layer": 15}
    assert (report.against, report.seed, report.notes) == ("reference", 0, ())


def test_seed_decides_the_cases() -> None:
    def drawn(seed: int, number: int) -> list[np.ndarray]:
        x, w, options, config = cases.draw_conv2d(Draw(seed, number))
        return [x, w, np.array([config.rows, config.cols, options["x_zero_point"]])]

    for number in range(8):
        for a, b in zip(drawn(3, number), drawn(3, number), strict=True):
            np.testing.assert_array_equal(a, b)
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(drawn(3, 1), drawn(4, 1), strict=True))


def test_cases_by_number() -> None:
    assert verify(cases=[5, 1, 8]).checked == {"registers": 1, "matmul": 2, "conv2d": 0, "layer": 0}
    assert verify(cases=iter([2])).checked["conv2d"] == 1


def test_every_kind_of_layer_is_drawn_and_has_an_expectation() -> None:
    drawn = {type(cases.draw_layer(Draw(0, number))[0]).__name__ for number in range(3, 300, 4)}
    # OnnxNode is delegated to evaluators.
    assert drawn <= set(ORACLES) == set(LAYERS) - {"OnnxNode"}
    # These are drawn; what came later may be checked in its own tests alone.
    assert drawn >= {
        "DequantizeLinear", "Flatten", "MaxPool", "QLinearAdd", "QLinearAveragePool",
        "QLinearConv", "QLinearGlobalAveragePool", "QLinearMatMul", "QuantizeLinear",
        "Relu", "Reshape",
    }  # fmt: skip


@pytest.mark.slow
def test_host_operators_are_drawn_from_the_table() -> None:
    kinds = {cases._host_operator(Draw(0, number))[0].kind for number in range(1000)}
    assert len(kinds) > 50 and {"Add", "ArgMax", "Concat", "ReduceSum", "QLinearMul", "Transpose", "Where"} <= kinds


def test_layers_without_an_expectation_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ORACLES, "Relu")
    report = verify(dense_model(), np.zeros((2, 20), np.int8))
    assert report.passed and report.checked["layer"] == len(dense_model().nodes) - 1
    assert report.notes == ("nothing to check layers of these kinds against: Relu",)
    assert str(report).splitlines()[0].endswith("every bit and every cycle equal; not checked: Relu")
    (relu,) = report.not_checked
    assert report.to_dict()["not_checked"] == [relu.to_dict()] and relu.node == "t1"


def test_a_check_of_nothing_has_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ORACLES, "Relu")
    report = verify(zero_point_model(), np.int8([[1, 2, 3, 9]]))
    assert not report.passed and not report.mismatches and report.checked == {"layer": 0}
    assert "nothing was checked: 0 layers and outputs against reference" in str(report)
    assert "not checked: Relu" in repr(report)
    with pytest.raises(VerificationError, match="nothing was checked"):
        verify(zero_point_model(), np.int8([[1, 2, 3, 9]]), raises=True)


def test_a_fault_in_a_check_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(layer: Any, x: np.ndarray) -> np.ndarray:
        raise KeyError("oracle")

    monkeypatch.setitem(ORACLES, "Relu", fault)
    told = "not checked: node 't1' (Relu): the check failed: KeyError: 'oracle'"
    report = verify(dense_model(), node_by_node=True)
    assert report.passed and report.checked == {"layer": 1} and told in report.notes
    assert [node.verdict for node in report.nodes] == ["equal", "not compared"]
    assert "; not checked: Relu" in str(report).splitlines()[0]
    dense_model().save(tmp_path / "dense.zip")
    assert cli.main(["run", str(tmp_path / "dense.zip"), "--array", "8x8", "--quiet", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["outputs"] == {"t1": [2, 13]} and told in values["notes"]
    assert values["verdict"]["numpy"] == {"layers": 1, "passed": True}
    assert [node["node"] for node in values["not_checked"]] == ["t1"]
    assert cli.main(["run", str(tmp_path / "dense.zip"), "--array", "8x8", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert told in text and "bit for bit (1 layer); not checked: Relu" in text


def test_each_of_several_outputs_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(layer: Any, x: np.ndarray) -> tuple[np.ndarray, ...]:
        return x[:, :2], x[:, 2:] + np.int8(1)

    monkeypatch.setitem(ORACLES, "Halves", halves)
    inputs: Any = {"x": ((None, 4), "int8")}
    x = np.int8([[1, 2, 3, 4]])
    (mismatch,) = verify(Model([Node(Halves(), "x", ("a", "b"), "s")], inputs=inputs), x).mismatches
    assert (mismatch.case, mismatch.stage) == ("layer 's' (Halves), output 'b'", "host")
    assert (mismatch.index, mismatch.got, mismatch.expected) == ((0, 0), 3, 4)
    assert verify(Model([Node(Halves(), "x", ("a", ""))], inputs=inputs), x).passed


def test_drawn_layers_tell_roundings_apart() -> None:
    """Of 200 cases a good part has sums half way between two codes, not all of them saturated."""
    telling = 0
    for number in range(3, 200, 4):
        layer, inputs, _ = cases.draw_layer(Draw(0, number))
        if type(layer).__name__ not in ("QLinearMatMul", "QLinearConv") or layer.y is None:  # type: ignore[attr-defined]
            continue
        output = reference.expected_output(layer, inputs)
        real = reference.expected_output(copy.copy(layer).__class__(**{**vars_of(layer), "y": None}), inputs)
        steps = real.astype(np.float64) / float(layer.y.scales)  # type: ignore[attr-defined]
        ties = np.abs(steps) % 1 == 0.5
        inside = (output > layer.y.qmin) & (output < layer.y.qmax)  # type: ignore[attr-defined]
        telling += bool((ties & inside).any())
    assert telling >= 5


def vars_of(layer: Any) -> dict[str, Any]:
    return {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}


@pytest.mark.parametrize("double_buffered", (True, False))
def test_expected_cycles_is_a_second_derivation(double_buffered: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        m, k, n = (int(v) for v in rng.integers(0, 40, 3))
        config = ArrayConfig(
            *(int(v) for v in rng.integers(1, 20, 2)), double_buffered=double_buffered,
            accumulator_rows=[None, 2, 7, 64][int(rng.integers(4))],
        )  # fmt: skip
        gemm = Gemm(m, k, n, groups=int(rng.integers(1, 4)))
        cycles = reference.expected_cycles(gemm, config)
        assert cycles == estimate_gemm(gemm, config).cycles
        if len(folds(gemm, array=config)):
            last = folds(gemm, array=config)[-1]
            assert cycles == last.swap_cycle + last.m + config.rows + config.cols - 2


def test_progress() -> None:
    seen: list[tuple[int, int]] = []
    verify(cases=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    "arguments, error, words",
    (
        ({"cases": 0}, ValueError, "cases must be a positive integer, not 0"),
        ({"cases": -3}, ValueError, "cases must be a positive integer, not -3"),
        ({"cases": 2.0}, TypeError, "cases must be an integer"),
        ({"cases": [1, -1]}, ValueError, "case must be a non-negative integer, not -1"),
        ({"cases": ["a"]}, TypeError, "case must be an integer"),
        ({"cases": []}, ValueError, "cases"),
        ({"seed": -1}, ValueError, "seed must be a non-negative integer, not -1"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"against": "torch"}, ValueError, "against must be one of 'reference', 'numpy', 'onnxruntime'"),
        ({"against": "onnxruntime"}, ValueError, "pass the path of an .onnx file"),
        ({"x": np.zeros(3)}, ValueError, "pass the model too"),
        ({"progress": 3}, TypeError, "progress must be"),
    ),
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        verify(**arguments)
    assert words in str(caught.value)


def test_bad_arguments_about_models(tmp_path: Path) -> None:
    with raises(ValueError, "mode must be one of 'cycle', 'wavefront', not 'fast'"):
        verify(dense_model(), mode="fast")
    with pytest.raises(TypeError, match="machine must be a MachineConfig or an ArrayConfig, not int"):
        verify(dense_model(), machine=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass its path instead of a Model"):
        verify(dense_model(), against="onnxruntime")
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "missing.zip")
    with pytest.raises(TypeError):
        verify(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must have shape"):
        verify(dense_model(), np.zeros((2, 3), np.int8))
    dense_model().save(tmp_path / "dense.zip")
    with pytest.raises(ValueError, match=r"an \.onnx file"):
        verify(tmp_path / "dense.zip", against="onnxruntime")


# Models


@pytest.mark.parametrize("mode", ("cycle", "wavefront"))
def test_model(mode: str, tmp_path: Path) -> None:
    model = dense_model()
    assert verify(model, machine=SMALL, mode=mode).checked == {"layer": 2}
    model.save(tmp_path / "dense.zip")
    report = verify(str(tmp_path / "dense.zip"), np.zeros((3, 20), np.int8), machine=SMALL, mode=mode)
    assert report.passed and report.checked == {"layer": 2}


def test_model_against_onnxruntime() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    x = systolic.load_example().images[:2]
    report = verify(str(DATA / "digits.onnx"), x, against="onnxruntime", mode="wavefront")
    assert report.passed and report.checked == {"layer": 14, "output": 1} and report.against == "onnxruntime"


def test_onnxruntime_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")

    class Session(runtime.InferenceSession):
        def run(self, names: Any, feeds: Any) -> list[np.ndarray]:
            (logits,) = super().run(names, feeds)
            logits[1, 2] += 1
            return [logits]

    monkeypatch.setattr(runtime, "InferenceSession", Session)
    monkeypatch.setattr(_isolated._child, "inside", True)  # no other process would know of it
    x = systolic.load_example().images[:2]
    (mismatch,) = verify(str(DATA / "digits.onnx"), x, against="onnxruntime", mode="wavefront").mismatches
    assert (mismatch.case, mismatch.stage, mismatch.index, mismatch.count) == (
        "output 'logits'",
        "output",
        (1, 2),
        1,
    )
    assert mismatch.expected == mismatch.got + 1  # type: ignore[operator]
    assert "--against onnxruntime" in mismatch.reproduce


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r'pip install "systolic\[onnx\]"'):
        verify(
            str(DATA / "digits.onnx"),
            systolic.load_example().images[:1],
            against="onnxruntime",
            mode="wavefront",
        )


def test_model_that_onnxruntime_refuses(tmp_path: Path) -> None:
    """int8 activations with uint8 weights: right here, unknown there."""
    pytest.importorskip("onnxruntime")
    om = pytest.importorskip("support.onnx_models")
    f, s, u = np.float32, np.int8, np.uint8
    arguments = [np.zeros((2, 3), s), f(1), s(0), np.ones((3, 4), u), f(1), u(3), f(1), s(0)]
    path = om.save(om.single("QLinearMatMul", arguments)[0], tmp_path)
    assert verify(path, machine=SMALL).passed
    with pytest.raises(ValueError, match="ONNX Runtime .* cannot run"):
        verify(path, machine=SMALL, against="onnxruntime")
    assert cli.main(["run", str(path), "--array", "8x8", "--quiet"]) == 0


# Stages: errors outside the array (those within it: test_mutants.py)


def spoil(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Any) -> None:
    """Let a method's result go through `change`."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self, *args, **kw: change(original(self, *args, **kw)))


def stages(report: VerificationReport) -> set[str]:
    for mismatch in report.mismatches:
        assert mismatch.pe is mismatch.cycle is mismatch.register is None
    return {mismatch.stage for mismatch in report.mismatches}


def test_stage_host(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Relu, "apply", lambda y: y + np.int8(1))
    report = verify(zero_point_model(), np.int8([[1, 2, 3, 9]]))
    (mismatch,) = report.mismatches
    assert (mismatch.stage, mismatch.index, mismatch.got, mismatch.expected) == ("host", (0, 0), 6, 5)
    assert mismatch.count == 4 and mismatch.case == "layer 't0' (Relu)"


def test_stage_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Relu, "apply", lambda y: y[:, :3])
    (mismatch,) = verify(zero_point_model()).mismatches
    assert mismatch.stage == "shape" and "(2, 3)" in str(mismatch) and "(2, 4)" in str(mismatch)


def test_stage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(y: np.ndarray) -> np.ndarray:
        raise IndexError("out of luck")

    numbers = [n for n in range(3, 200, 4) if isinstance(cases.draw_layer(Draw(0, n))[0], Relu)]
    spoil(monkeypatch, Relu, "apply", fail)
    report = verify(cases=numbers)
    assert len(report.mismatches) == len(numbers) and stages(report) == {"error"}
    assert "IndexError: out of luck" in str(report.mismatches[0])


def test_stage_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, QLinearMatMul, "lower", negated)
    report = verify(dense_model(), machine=SMALL)
    assert stages(report) == {"finish"} and report.mismatches[0].fold is None


def test_stage_accumulators(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Accumulators, "drain", lambda sums: sums + np.int32(1))
    (mismatch,) = verify(dense_model(), machine=SMALL).mismatches
    assert mismatch.stage == "accumulators" and mismatch.fold is not None
    assert mismatch.got == mismatch.expected + 1 and mismatch.index == (0, 0)  # type: ignore[operator]
    assert verify(dense_model(), machine=SMALL, mode="wavefront").passed


def test_stage_im2col(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, operands, "rows", lambda x: x ^ 1)
    report = verify(cases=range(2, 42, 4))
    assert stages(report) == {"im2col"}


def test_stage_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, operands, "tile", lambda w: w ^ 1)
    report = verify(cases=range(2, 42, 4))
    assert stages(report) == {"weights"}


# Reports


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch) -> VerificationReport:
    spoil(monkeypatch, Accumulators, "drain", lambda sums: sums + np.int32(1))
    return verify(cases=[1, 5, 9], seed=4)


@pytest.mark.slow
def test_raises(monkeypatch: pytest.MonkeyPatch, failed: VerificationReport) -> None:
    with pytest.raises(VerificationError) as caught:
        verify(cases=[5], seed=4, raises=True)
    report = caught.value.report
    assert not report.passed and str(report) == str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.report == report and isinstance(again, AssertionError)
    monkeypatch.undo()
    assert verify(cases=[5], seed=4, raises=True).passed


@pytest.mark.slow
def test_report(failed: VerificationReport, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not failed.passed and failed.cases == 3
    text = str(failed)
    assert text.startswith(f"FAILED: {len(failed.mismatches)} mismatches in 3 cases against reference in ")
    for mismatch in failed.mismatches:
        assert str(mismatch) in text
        assert f"element {list(mismatch.index or ())} is {mismatch.got}, expected {mismatch.expected}" in str(
            mismatch
        )
        assert repr(mismatch.fold) in str(mismatch)
        assert mismatch.reproduce.startswith("systolic verify --seed 4 --case ")
        assert f"reproduce: {mismatch.reproduce}" in str(mismatch)
    assert repr(failed).startswith("<VerificationReport FAILED")
    html = failed._repr_html_()
    assert "FAILED" in html and "<script" not in html and html.startswith("<table")
    assert "mismatches" in str(failed.table()) and "matmul" in str(failed.table())
    monkeypatch.undo()
    passed = verify(cases=2)
    assert (
        "every bit and every cycle equal" in str(passed)
        and "passed" in repr(passed)
        and "passed" in passed._repr_html_()
    )


@pytest.mark.slow
def test_report_as_json(failed: VerificationReport) -> None:
    values = json.loads(json.dumps(failed.to_dict(), allow_nan=False))
    assert values["passed"] is False and values["cases"] == 3 and values["seed"] == 4
    assert len(values["mismatches"]) == len(failed.mismatches)
    for read, mismatch in zip(values["mismatches"], failed.mismatches, strict=True):
        assert read["index"] == list(mismatch.index or ()) and read["got"] == mismatch.got
        assert mismatch.fold is not None and read["fold"] == mismatch.fold.to_dict()


def test_mismatch_of_numbers_that_json_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, Relu, "apply", lambda y: y * np.float32("nan"))
    report = verify(Model([Relu()], inputs={"x": ((2,), "float32")}), np.float32([np.inf, 2]))
    (mismatch,) = report.mismatches
    assert np.isnan(mismatch.got) and mismatch.expected == np.inf
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))["mismatches"][0]
    assert (values["got"], values["expected"]) == ("nan", "inf")


@pytest.mark.slow
def test_reports_are_values(failed: VerificationReport) -> None:
    assert pickle.loads(pickle.dumps(failed)) == failed == copy.deepcopy(failed)
    assert verify(cases=2) == verify(cases=2) != verify(cases=3)


@pytest.mark.slow
def test_what_it_says_shows_it_again(failed: VerificationReport, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, where the error still stands."""
    for mismatch in failed.mismatches:
        program, *arguments = shlex.split(mismatch.reproduce)
        assert program == "systolic" and cli.main([*arguments, "--quiet", "--json"]) == 1
        assert mismatch.to_dict() in json.loads(capsys.readouterr().out)["mismatches"]


@pytest.mark.parametrize("mode", ("cycle", "wavefront"))
def test_what_it_says_about_a_model_shows_it_again(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a model's name.zip"
    dense_model().save(path)
    spoil(monkeypatch, QLinearMatMul, "lower", negated)
    (mismatch,) = verify(path, machine=SMALL, mode=mode, seed=3).mismatches
    _, *arguments = shlex.split(mismatch.reproduce)
    assert cli.main([*arguments, "--quiet", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["mismatches"] == [mismatch.to_dict()]
    assert cli.main(["run", str(path), "--array", "8x8", "--mode", mode, "--quiet", "--json"]) == 1
    (of_run,) = json.loads(capsys.readouterr().out)["mismatches"]
    _, *arguments = shlex.split(of_run["reproduce"])
    assert cli.main([*arguments, "--quiet", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["mismatches"] == [of_run]
