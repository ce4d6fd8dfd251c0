"""JSON Schemas of what is printed and written as JSON, and the page that lists them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import systolic
from _reference import written
from _reference.inference import Inference, Record, Schema, rows
from _reference.markdown import cell, page, table
from _reference.meanings import COMMON, MODEL, PROGRAM, TRACE
from systolic import ArrayConfig, Gemm, MachineConfig, MemoryConfig, QuantParams, Stats, cli, presets
from systolic.accelerators import Check, Counters, StandIn
from systolic.analysis import Effect, Explanation
from systolic.benchmark import Measurement
from systolic.energy import ENTRIES, TABLES, EnergyTable
from systolic.isa import Function, HostTensor
from systolic.verifier import Mismatch, VerificationReport

TPU = presets.TPU_V1
IDEAL = MachineConfig(ArrayConfig(8, 8))


def _gemms() -> tuple[dict[str, Any], ...]:
    return Gemm(2, 18, 3).to_dict(), Gemm(2, 18, 3, taps=9).to_dict(), {"m": 1, "k": 1, "n": 1}


RECORDS = {
    "Stats": Record(Stats, (Stats().to_dict(),)),
    "MemoryConfig": Record(MemoryConfig, (TPU.memory.to_dict(),)),
    "ArrayConfig": Record(
        ArrayConfig, (TPU.array.to_dict(), ArrayConfig(8, accumulator_rows=None).to_dict())
    ),
    "MachineConfig": Record(
        MachineConfig, (TPU.to_dict(), IDEAL.to_dict(), MachineConfig(IDEAL.array, clock_mhz=0.5).to_dict())
    ),
    "QuantParams": Record(
        QuantParams, (QuantParams(0.5).to_dict(), QuantParams([0.5, 1], [1, 2], axis=0).to_dict())
    ),
    "Fold": Record(systolic.Fold, (systolic.folds(Gemm(1, 1, 1), array=IDEAL)[0].to_dict(),)),
    "Gemm": Record(Gemm, _gemms()),
}

WRITTEN = {"sweep-file": written.sweep(), "workload-file": written.workload()}

_OPAQUE = frozenset({"attributes", "tables"})


@dataclass(frozen=True, eq=False)
class Document:
    """A document: its file, where it comes from, examples, and what :class:`Inference` needs to know."""

    name: str
    title: str
    examples: tuple[Any, ...]
    kinds: Mapping[str, type] = field(default_factory=dict)
    maps: str = ""
    described: Mapping[str, str] = field(default_factory=lambda: COMMON)
    written: Schema | None = None  # of a file that users write: not made from examples

    @property
    def schema(self) -> Schema:
        if self.written is not None:
            return self.written
        inference = Inference(RECORDS, self.kinds, frozenset(self.maps.split()), self.described, _OPAQUE)
        return inference.document(self.title, self.examples)

    @property
    def text(self) -> str:
        return json.dumps(self.schema, indent=2) + "\n"


def _printed(command: str) -> Any:
    """Return what a command prints with --json."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        status = cli.main([*command.split(), "--json", "--quiet"])
    assert status in (0, 1), command
    return json.loads(out.getvalue())


def _read(file: str) -> Any:
    return json.loads(Path(file).read_text(encoding="utf-8"))


def _entry(file: str, name: str) -> Any:
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read(name))


def _mismatch() -> Mismatch:
    fold = systolic.folds(Gemm(1, 2, 1), array=IDEAL)[0]
    return Mismatch(
        case="matmul (1, 2) x (2, 1)", stage="array", index=(0, 0), got=6, expected=5, count=1, fold=fold,
        register="psum", pe=(1, 0), cycle=3, register_got=6, register_expected=5,
    )  # fmt: skip


FILES = Path(__file__).resolve().parents[2] / "tests" / "data" / "torch"


@cache
def documents() -> tuple[Document, ...]:
    """Return the documents, with examples that are made now."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        example = systolic.load_example()
        example.model.save("digits.zip")
        np.save("digits.npy", example.images[:2])
        np.save("x.npy", rng.integers(-128, 128, (3, 4), dtype=np.int8))
        np.save("w.npy", rng.integers(-128, 128, (4, 3), dtype=np.int8))
        with np.load(FILES / "calibration.npz") as file:
            np.save("samples.npy", file["images"][:4] / np.float32(16))
        floats = FILES / "mlp_dynamo.onnx"
        sweep = {"models": [{"name": "a", "layers": [{"name": "q", "m": 8, "k": 8, "n": 8}]}, "digits.zip"]}
        grid = {"side": [8, 16], "clock_mhz": [700, 0.5]}
        Path("sweep.json").write_text(json.dumps({**sweep, "grid": grid}), encoding="utf-8")
        Path("error.json").write_text(
            json.dumps({"models": ["digits.zip"], "mapping": "best", "machine": {"accumulator_rows": None}}),
            encoding="utf-8",
        )
        run = "run digits.zip --input digits.npy --mode wavefront"
        runs = (
            _printed(f"{run} --report on.json"),
            _printed(f"{run} --ideal --report off.json"),
            _printed("run --mode wavefront --ideal"),
            _printed("run digits.zip --mode wavefront --no-check"),
            _printed(f"run {floats} --report floats.json"),
        )
        compiled = (
            _printed("compile digits.zip -o program.zip --trace trace.json"),
            _printed("compile digits.zip --explain"),
        )
        systolic.save_onnx(example.model, "digits.onnx")
        checks = (
            _printed("verify --cases 5"),
            _printed("verify digits.zip"),
            _printed("verify digits.onnx --against onnxruntime --node-by-node"),
            {**_printed("verify digits.zip"), "mismatches": [_mismatch().to_dict()]},
        )
        found = (
            Document(
                "machine", "A machine: `MachineConfig.to_dict`, `--machine`", (TPU.to_dict(), IDEAL.to_dict())
            ),
            Document(
                "run",
                "A run of a model: `systolic run --json`",
                runs,
                {"": systolic.Run, "layers[]": systolic.LayerRun},
                "outputs causes in_formats",
            ),
            Document(
                "run-program",
                "A run of a program: `systolic run PROGRAM.zip --json`",
                (_printed("run program.zip --mode wavefront"),),
                {"": systolic.Run, "layers[]": systolic.LayerRun},
                "outputs causes",
            ),
            Document(
                "report",
                "The report of a run: `Run.report().to_json`, `--report FILE.json`",
                tuple(map(_read, ("on.json", "off.json", "floats.json"))),
                {"totals": Stats},
            ),
            Document(
                "summary",
                "The summary of a model: `Summary.to_json`, `systolic summary --json`",
                (_printed("summary digits.zip"), _printed(f"summary {floats}")),
            ),
            Document(
                "verify",
                "A verification: `systolic verify --json`",
                checks,
                {"": VerificationReport, "mismatches[]": Mismatch},
                "checked",
            ),
            Document(
                "compile",
                "A compiled program: `systolic compile --json`",
                compiled,
                {"explain": Explanation, "explain.effects[]": Effect},
                "by_kind host_calls inputs outputs peak causes",
            ),
            Document(
                "quantize",
                "A quantization: `systolic quantize --json`",
                (_printed(f"quantize {floats} --calibration samples.npy --out int8.onnx"),),
            ),
            Document(
                "product",
                "A product: `systolic gemm --json`",
                tuple(_printed(f"gemm 8 8 8 {more}") for more in ("--mode wavefront", "--estimate")),
            ),
            Document(
                "product-dataflows",
                "A product on each dataflow: `systolic gemm --dataflow all --json`",
                (_printed("gemm 8 8 8 --array 4x4 --dataflow all"),),
                maps="port_bytes",
            ),
            Document(
                "view",
                "A page of the viewer: `systolic view --json`",
                (
                    _printed("view 4 4 4 --array 4x4 --output a.html"),
                    _printed("view digits.zip --output b.html"),
                ),
            ),
            Document(
                "vectors",
                "Golden vectors: `DIR/manifest.json`, the `manifest` of `systolic vectors --json`",
                (
                    _printed("vectors x.npy w.npy --out a --rows 4 --cols 3")["manifest"],
                    _printed("vectors x.npy w.npy --out b --rows 2 --cols 2 --dataflow output_stationary")[
                        "manifest"
                    ],
                    _printed("vectors digits.zip --layer depthwise_quant --out c --array 16x16")["manifest"],
                    _printed("vectors digits.zip --layer logits_quant --out d --array 16x16")["manifest"],
                ),
                maps="files parameters",
            ),
            Document(
                "validate",
                "A comparison with published tables: `systolic validate --json`",
                (_printed("validate tpu-v1"),),
                {"checks[]": Check, "stand_ins.*": StandIn, "counters.*": Counters},
                "stand_ins counters causes",
            ),
            Document(
                "sweep",
                "Rows of a sweep: `systolic sweep --json`",
                (_printed("sweep sweep.json --out rows.csv"), _printed("sweep error.json")),
                {"rows[]": systolic.sweeps.SweepRow},
            ),
            Document(
                "bench",
                "Rates of the emulator: `systolic bench --json`",
                (_printed("bench --array 8x8 --m 8 --rounds 1"),),
                {"measurements[]": Measurement},
                "notes optional environment",
            ),
            Document(
                "info",
                "Versions and settings: `systolic info --json`",
                (_printed("info"),),
                maps="optional environment",
            ),
            Document(
                "model",
                "`model.json` in a file of `Model.save`",
                (_entry("digits.zip", "model.json"),),
                {"": systolic.Model, "nodes[]": systolic.Node, "inputs.*": systolic.TensorSpec},
                "inputs constants fields",
                described=MODEL,
            ),
            Document(
                "program",
                "`program.json` in a file of `Program.save`",
                (_entry("program.zip", "program.json"),),
                {
                    "": systolic.Program,
                    "functions[]": Function,
                    "inputs.*": HostTensor,
                    "outputs.*": HostTensor,
                },
                "symbols inputs outputs arrays",
                described=PROGRAM,
            ),
            Document(
                "trace",
                "A timeline: `Timeline.save_trace`, `systolic compile --trace`",
                (_read("trace.json"),),
                maps="causes",
                described=TRACE,
            ),
            Document(
                "energy",
                "A table of energies: `EnergyTable.to_dict`, `EnergyTable.read`",
                (*(value.to_dict() for value in TABLES.values()), {"name": "mine", "based_on": "7nm"}),
                {"": EnergyTable},
                "sram_pj_per_byte sources",
                {
                    **{name: f"{text[0].upper()}{text[1:]}." for name, text in ENTRIES.items()},
                    "name": "Name of the table.",
                    "based_on": "A table that has the entries that are missing here.",
                },
            ),
        )
    files = (Document(name, str(schema["title"]), (), written=schema) for name, schema in WRITTEN.items())
    return *found, *files


def text() -> str:
    """Return the page."""
    made = {document: document.schema for document in documents()}
    shared: dict[str, Schema] = {}
    for schema in made.values():
        shared |= schema.get("$defs", {})
    parts = [
        "# JSON",
        "What commands print with `--json`, what `to_dict` returns, and what files hold. For each document "
        "there is a [JSON Schema](https://json-schema.org) (draft 2020-12), made from real documents by "
        "`docs/write_reference.py`; those of files that you write, at the end, have all "
        "fields that are known. Fields may be added to others, so that readers should ignore those they do "
        "not know. A path `layers[].name` is a field of each item of an array, `outputs.*` the value of each "
        "name of a map, whose names are data. Counts are integers of any size; units are in the names.",
        table(
            ("document", "schema"),
            [
                (f"[{cell(d.title)}](#{d.name})", f"[{d.name}.schema.json](schemas/{d.name}.schema.json)")
                for d in made
            ],
        ),
        "## Parts of several documents",
    ]
    for name, schema in sorted(shared.items()):
        parts += [f"### {name}", _fields(schema, shared)]
    parts.append("## Documents")
    for document, schema in made.items():
        parts += [f"### {document.name}", f"{document.title}.", _fields(schema, shared)]
    return page(*parts)


def _fields(schema: Schema, shared: Mapping[str, Schema]) -> str:
    lines = []
    for place, kind, meaning in rows(schema):
        for name in shared:
            kind = re.sub(rf"\b{name}\b", f"[{name}](#{name.lower()})", kind)
        lines.append((f"`{place}`", kind, cell(meaning)))
    return table(("field", "type", "meaning"), lines)
