"""What ``import systolic`` brings in: numpy and the package itself, nothing that few calls need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import systolic

# Packages that extras or users bring.
OPTIONAL = {
    "onnx",
    "onnxruntime",
    "google.protobuf",
    "matplotlib",
    "pandas",
    "scipy",
    "torch",
    "vcd",
    "IPython",
    "yaml",
}
# Modules of Python and of the package that are imported where they are used.
HEAVY = {
    "argparse", "csv", "html", "importlib.metadata", "importlib.resources", "json", "shlex", "shutil", "subprocess",
    "tempfile", "zipfile",
}  # fmt: skip
LATER = {
    "systolic.accelerators",
    "systolic.analysis",
    "systolic.cli",
    "systolic.benchmark",
    "systolic._show.draw",
    "systolic._show.waves",
    "systolic.trace.vcd",
}


def modules_after(statements: str) -> set[str]:
    """The modules that a new interpreter has after these statements."""
    code = f"import sys\n{statements}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def brought() -> set[str]:
    """What the package brings beyond numpy: which modules numpy needs is numpy's matter, and changes."""
    return modules_after("import numpy, systolic") - modules_after("import numpy")


@pytest.mark.slow
def test_optional_packages_are_not_imported(brought: set[str]) -> None:
    assert {"systolic", "systolic._core", "systolic.verifier.check"} <= brought
    assert not brought & OPTIONAL


@pytest.mark.slow
def test_what_few_calls_need_is_not_imported(brought: set[str]) -> None:
    assert not brought & (HEAVY | LATER)


def test_a_wrong_instruction_set_is_not_a_broken_installation() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import systolic"],
        capture_output=True,
        text=True,
        env=os.environ | {"SYSTOLIC_ISA": "mmx"},
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: SYSTOLIC_ISA=mmx names no instruction set")
    assert done.returncode == 1 and "reinstall" not in done.stderr


@pytest.mark.parametrize("arguments", (["tool.py"], ["-m", "tool"], ["-m", "package", "systolic"]), ids=" ".join)
def test_programs_that_import_the_package_can_catch_it(arguments: list[str], tmp_path: Path) -> None:
    """Only the shell's command ends with a line and status 2 instead."""
    code = "try:\n    import systolic\nexcept ImportError as error:\n    print(error)\n"
    (tmp_path / "tool.py").write_text(code)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(code)
    (tmp_path / "package" / "__main__.py").write_text("")
    root = str(Path(systolic.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path, env=os.environ | {"SYSTOLIC_ISA": "mmx", "PYTHONPATH": root}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("SYSTOLIC_ISA=mmx names no instruction set")


@pytest.mark.slow
def test_the_modules_named_here_exist_and_would_be_seen() -> None:
    names = sorted(HEAVY | LATER)
    assert modules_after(f"import systolic, {', '.join(names)}") >= set(names)


@pytest.mark.slow
def test_the_allocator_is_left_as_it_is() -> None:
    """glibc learns from the blocks that it sees freed which ones to map: an import must not teach it."""
    code = """
import ctypes, numpy
libc = ctypes.CDLL(None)
class Info(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]
libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]
def mapped():
    before = libc.mallinfo2().field3  # blocks that are mapped
    block = libc.malloc(ctypes.c_size_t(3 << 20))
    after = libc.mallinfo2().field3
    # Freeing it would teach.
    return after - before
print(mapped())
import systolic, systolic.cli
print(mapped())
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if "mallinfo2" in done.stderr:
        pytest.skip("needs glibc 2.33")
    assert done.stdout.split() == ["1", "1"], done.stderr
    package = Path(systolic.__file__).parent
    assert not [path.name for path in package.glob("_*.so") if b"mallopt" in path.read_bytes()]


def test_rooms_are_imported_when_used() -> None:
    code = "import systolic; print(systolic.analysis.explain.__module__, systolic.accelerators.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["systolic.analysis.limits", "systolic.accelerators"]
