"""What is shipped, what it needs, and what is said when something is missing."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import systolic

PACKAGE = Path(systolic.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = ["onnx", "onnxruntime", "google.protobuf", "matplotlib", "pandas", "IPython", "sklearn", "torch", "tqdm", "shtab"]

COMPILED = ["_core", "_gemm", "_host", "_kernels", "_threads"]

from_sources = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="reads the sources")


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in another folder, on what is installed: the checkout is not on its path."""
    variables = {**os.environ, **environment}
    if not environment.get("PYTHONPATH"):
        variables["PYTHONPATH"] = str(PACKAGE.parent)
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def top_level_imports(tree: ast.AST) -> set[str]:
    """Return the packages that a module imports when it is imported itself."""
    found: set[str] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes.extend(ast.iter_child_nodes(node))
    return found


def test_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", systolic.__version__)
    try:
        installed = importlib.metadata.version("systolic")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("runs on sources that are not installed")
    assert installed == systolic.__version__


@from_sources
def test_version_stands_in_changelog_and_citation():
    assert f"## {systolic.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {systolic.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def stub(name: str) -> list[ast.stmt]:
    return ast.parse((PACKAGE / f"{name}.pyi").read_text(encoding="utf-8")).body


@pytest.mark.parametrize("name", COMPILED)
def test_types_are_shipped(name):
    assert (PACKAGE / "py.typed").is_file()
    declared = {node.name for node in stub(name) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    declared |= {node.target.id for node in stub(name) if isinstance(node, ast.AnnAssign)}
    compiled = vars(importlib.import_module(f"systolic.{name}"))
    # Private ones that the package's own tests ask for are declared as well.
    assert declared <= set(compiled)
    assert {name for name in compiled if not name.startswith("_") and name not in ("np", "os")} <= declared


@pytest.mark.parametrize("name", COMPILED)
def test_stubs_have_the_parameters_of_the_compiled_functions(name):
    compiled = importlib.import_module(f"systolic.{name}")
    checked = 0
    for outer in stub(name):
        for node in outer.body if isinstance(outer, ast.ClassDef) else [outer]:
            if not isinstance(node, ast.FunctionDef):
                continue
            owner = getattr(compiled, outer.name)
            documented = getattr(owner, node.name) if node is not outer and node.name != "__init__" else owner
            names = [argument.arg for argument in node.args.args + node.args.kwonlyargs]
            # embedsignature: "run(uint8_t[:, ::1] weight, ..., *, bool activation_signed, str name=None)"
            signature = re.sub(r"\[[^]]*\]", "", documented.__doc__.split("\n")[0])
            inside = signature[signature.index("(") + 1 : signature.rindex(")")].split(",")
            found = [part.partition("=")[0].split()[-1] for part in inside if part.strip() not in ("*", "")]
            assert found == [name for name in names if name != "self" or "self" in found]
            checked += 1
    assert checked


def test_missing_core_says_how_to_build_it(tmp_path):
    shutil.copytree(
        PACKAGE, tmp_path / "systolic", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "data")
    )
    # Without site: an editable install would find the core for any package of this name.
    done = python("-S", "-c", "import systolic", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "ImportError: systolic's compiled core is missing" in done.stderr
    assert "pip install -e ." in done.stderr
    assert "C compiler" in done.stderr


@pytest.mark.slow
def test_import_needs_no_optional_package(tmp_path):
    code = f"import sys, systolic, systolic.cli; print([name for name in {OPTIONAL} if name in sys.modules])"
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["onnx", "matplotlib", "pandas"])
def test_package_works_where_an_optional_one_is_absent(tmp_path, absent):
    # None in sys.modules makes an import of that name fail, as if it were not installed.
    code = f"""
import sys
sys.modules[{absent!r}] = None
import numpy as np, systolic
x = np.ones((3, 4), dtype=np.int8)
print(systolic.matmul(x, x.T, array=systolic.ArrayConfig(4, 4)).acc[0, 0])
"""
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr


@pytest.mark.slow
@from_sources
def test_dependencies_are_those_imported():
    needed = {re.split(r"[<>=!~\[ ]", entry)[0] for entry in project()["project"]["dependencies"]}
    imported = set().union(
        *(top_level_imports(ast.parse(path.read_text(encoding="utf-8"))) for path in PACKAGE.rglob("*.py"))
    )
    assert imported - set(sys.stdlib_module_names) - {"systolic"} <= needed


@from_sources
def test_supported_versions_agree():
    metadata = project()["project"]
    oldest = metadata["requires-python"].removeprefix(">=")
    named = [entry.rsplit(" ", 1)[1] for entry in metadata["classifiers"] if re.search(r":: 3\.\d+$", entry)]
    assert named == sorted(named, key=lambda version: int(version.split(".")[1]))
    assert named[0] == oldest
    assert project()["tool"]["mypy"]["python_version"] == oldest
    assert project()["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    wheels = project()["tool"]["cibuildwheel"]["build"].split()
    assert wheels == [f"cp{version.replace('.', '')}-*" for version in named]


@pytest.mark.slow
@from_sources
@pytest.mark.exhaustive
def test_build_without_a_compiler_says_what_to_install(tmp_path):
    pytest.importorskip("Cython")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "systolic", tmp_path / "systolic", ignore=shutil.ignore_patterns("*.so", "data"))
    compiler = "no-such-compiler"
    done = python("setup.py", "build_ext", "--inplace", cwd=tmp_path, CC=compiler, LDSHARED=compiler)
    assert done.returncode == 1
    assert "apt-get install gcc python3-dev" in done.stderr
    assert compiler in done.stderr.strip().splitlines()[-1]
    assert not list((tmp_path / "systolic").glob("*.so"))
