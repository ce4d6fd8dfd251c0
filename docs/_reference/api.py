"""Pages of the names in Python. Sphinx fills them from the docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import systolic
from _reference.markdown import page, table

# Modules beside the top level that users import from. A module with __all__ is listed whole; of the others,
# the names that pages and results mention. Names of the top level are described there.
MODULES: dict[str, str] = {
    "layers": "",
    "presets": "TPU_V1 TPU_V2 TPU_V3 TPU_V4I TPU_V4 NEURONCORE_V2 get names",
    "array": "Registers Difference",
    "dataflows": "Dataflow Port Register DATAFLOWS WEIGHT_STATIONARY OUTPUT_STATIONARY INPUT_STATIONARY",
    "formats": "Format Operand OPERANDS OVERFLOWS FORMATS stored as_bits packed_bytes",
    "quant": "quantize_linear dequantize_linear multiplier fixed_point to_codes as_params as_multiplier "
    "ROUNDINGS",
    "quant.roundings": "half_even gemmini tflite tflite_single shift",
    "tiling": "Folds Schedule PortBytes port_bytes",
    "lowered": "Lowered Epilogue Patches lower_matmul taps RAW",
    "trace": "Streams",
    "stats": "CAUSES COUNTS",
    "model": "Summary",
    "frontend": "load_model load_runnable",
    "engine": "RunReport Comparison DataflowCost MODES LayerByLayerWarning RuntimeShapeWarning "
    "WideSumsWarning NotFiniteWarning",
    "isa": "",
    "machine": "run_program time_program read_trace run_cycles run_wavefront ProgramRun Timeline TraceFile "
    "Execution",
    "compiler": "Programs NoProgram RuntimeShape",
    "energy": "EnergyTable Energy Toggles Activity as_table total_pj DEFAULT ENTRIES TABLES COMPONENTS",
    "analysis": "",
    "sweeps": "",
    "workloads": "Workload WorkloadLayer read_topology read_workload",
    "calibrate": "",
    "training": "Pass LayerStep StepCosts costs dense conv2d dense_backward_data dense_backward_weight "
    "conv2d_backward_data conv2d_backward_weight PASSES",
    "accelerators": "",
    "example": "Example DATA",
    "verifier": "VerificationReport ModelCheck NodeVerdict Mismatch NotChecked Rounding",
    "cosim": "SignalMap Signal Report WrongValue Finding Mistake MISTAKES read_vcd unpack",
    "vectors": "write_layer_vectors SCHEMA",
    "rtl": "write_rtl SOURCES DESIGN",
    "viewer": "View",
    "benchmark": "bench suite Measurement Section NumpyStepping OutputStepping FloatStepping",
    "reference": "ReferenceArray OutputStationaryArray expected_output expected_cycles matmul_sums conv_sums",
}


def groups() -> dict[str, list[str]]:
    """Return the names of the top level, by the groups that systolic/__init__.py has them in."""
    source = inspect.getsource(systolic).partition("__all__ = [")[0]
    found: dict[str, list[str]] = {}
    for part in source.split("# isort: split\n# ")[1:]:
        title, _, rest = part.partition("\n")
        names = re.findall(r"\w+", " ".join(re.findall(r"^from \S+ import \(?([^)\n]*)", rest, flags=re.M)))
        found[title] = [name for name in names if name in systolic.__all__]
    return found


def names_of(module: str) -> list[str]:
    """Return the names that the page of a module lists."""
    home = importlib.import_module(f"systolic.{module}")
    if MODULES[module]:
        return MODULES[module].split()
    # What a module only passes on is described on the page of its own module.
    names = (name for name in home.__all__ if name not in systolic.__all__)
    return [name for name in names if not _elsewhere(getattr(home, name), module)]


def _elsewhere(value: object, module: str) -> bool:
    home = getattr(value, "__module__", None) if inspect.isclass(value) or inspect.isfunction(value) else None
    return home is not None and not f"{home}.".startswith(f"systolic.{module}.")


def _table(module: str, names: list[str], *options: str) -> list[str]:
    lines = [f".. currentmodule:: {module}", "", ".. autosummary::"]
    return [*lines, *(f"   {option}" for option in options), "", *(f"   {name}" for name in names)]


def _pages(module: str, names: list[str]) -> str:
    """Return a table of names, each with a page of its own."""
    return "\n".join(["```{eval-rst}", *_table(module, names, ":toctree: generated"), "```"])


def _entries(module: str, names: list[str]) -> str:
    """Return a table of names, and their entries below it; constants have entries alone."""
    values = {name: getattr(importlib.import_module(module), name) for name in names}
    constants = {name for name, value in values.items() if not (_is_code(value) or inspect.ismodule(value))}
    lines = ["```{eval-rst}", f".. currentmodule:: {module}", ""]
    if len(constants) < len(names):
        lines += [".. autosummary::", "", *(f"   {name}" for name in names if name not in constants)]
    for name, value in values.items():
        if name in constants:
            lines += ["", *_constant(module, name, value)]
        elif not inspect.ismodule(value):
            lines += ["", f".. auto{'class' if inspect.isclass(value) else 'function'}:: {name}"]
    # Last: automodule changes the current module.
    for name in filter(lambda name: inspect.ismodule(values[name]), values):
        lines += ["", f".. automodule:: {module}.{name}"]
    return "\n".join([*lines, "```"])


def _is_code(value: object) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def _constant(module: str, name: str, value: object) -> list[str]:
    """Return the entry of a constant: its value if that is short, and the text below it in the sources."""
    shown = repr(value)
    plain = isinstance(value, str | int | float | tuple) and "<" not in shown
    short = plain and len(shown) <= 100
    text = [f"   {line}".rstrip() for line in _text_below(module, name).splitlines()]
    return [f".. py:data:: {name}", *([f"   :value: {shown}"] if short else []), "", *text]


@cache
def _bodies(package: str) -> list[list[ast.stmt]]:
    """Return the statements of each file of a module."""
    file = Path(importlib.import_module(package).__file__ or "")
    files = sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]
    return [ast.parse(path.read_text(encoding="utf-8")).body for path in files]


def _text_below(module: str, name: str) -> str:
    """Return the text below the assignment of a constant in a file of a module."""
    for body in _bodies(module):
        for before, after in pairwise(body):
            targets = before.targets if isinstance(before, ast.Assign) else [getattr(before, "target", None)]
            named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
            if named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return inspect.cleandoc(str(after.value.value))
    raise LookupError(f"{module}.{name} has no text below its assignment")


def _first_line(module: str) -> str:
    return (inspect.getdoc(importlib.import_module(f"systolic.{module}")) or "").splitlines()[0]


def index() -> str:
    """Return the page of the names in Python."""
    parts = [
        "# Python",
        "Names of the top level, `import systolic`, by subject; then those of its modules. Examples in "
        "docstrings run in the tests. Shapes are written as in `x : ndarray of int8, (M, K)`.",
    ]
    for title, names in groups().items():
        parts += [f"## {title}", _pages("systolic", names)]
    rows = [(f"[`systolic.{module}`]({module}.md)", _first_line(module)) for module in MODULES]
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *MODULES, "```"])
    return page(*parts, "## Modules", table(("module", "holds"), rows), toctree)


def module_page(module: str) -> str:
    """Return the page of a module."""
    name = f"systolic.{module}"
    intro = f"```{{eval-rst}}\n.. automodule:: {name}\n   :no-members:\n```"
    listed = _pages if module == "layers" else _entries
    parts = [f"# {name}", intro, listed(name, names_of(module))]
    top = sorted(n for n in vars(importlib.import_module(name)) if _at_the_top(n, name))
    if top:
        parts.append(f"Also at the top level: {', '.join(f'`systolic.{n}`' for n in top)}.")
    return page(*parts)


def _at_the_top(name: str, module: str) -> bool:
    """Whether a public name of the top level has its home in a module."""
    home = getattr(getattr(systolic, name, None), "__module__", None) if name in systolic.__all__ else None
    return home is not None and f"{home}.".startswith(f"{module}.")
