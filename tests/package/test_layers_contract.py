"""What import-linter cannot see of the rooms' contract in pyproject.toml, read from the sources."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "systolic"

if not (ROOT / "pyproject.toml").exists():
    pytest.skip("reads the sources", allow_module_level=True)

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS = CONTRACTS[0]["layers"]
DECLARED = [room.strip() for line in LAYERS for room in line.split("|")]
OPTIONAL = {room.strip("()") for room in DECLARED if room.startswith("(")}
ROOMS = {room.strip("()") for room in DECLARED}
# And what of ours each may use.
COMPILED = {
    "_kernels": set(),
    "_threads": set(),
    "_core": {"_kernels", "_threads"},
    "_gemm": {"_kernels", "_threads"},
    "_host": {"_kernels", "_threads"},
    "_summary": set(),
    "_timeline": set(),
}


def sources(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (module, name) for each ``from module import name``, (module, None) for ``import module``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports out in full"
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_rooms_declared_are_those_that_exist():
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix in {".py", ".pyx"}} - {"__init__"}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    # kernels/ holds C and its declarations for Cython alone.
    assert not list((PACKAGE / "kernels").rglob("*.py*"))
    assert len(DECLARED) == len(ROOMS), "a room is declared twice"
    assert ROOMS - OPTIONAL <= modules | folders <= ROOMS
    # A room that has come into being loses its parentheses; the compiled ones keep them.
    assert OPTIONAL & (modules | folders) == set(COMPILED)
    assert {path.stem for path in PACKAGE.glob("*.pyx")} == set(COMPILED)


@pytest.mark.slow
def test_rooms_import_only_rooms_from_the_package_itself():
    # The contract ignores imports of the package as a whole (because of the compiled rooms), so
    # that what stands above could come in through systolic/__init__.py.
    strangers = [
        f"{path.relative_to(ROOT)}: {name or module}"
        for path in sources()
        if path != PACKAGE / "__init__.py"
        for module, name in imports(path)
        if module == "systolic" and name not in ROOMS
    ]
    assert not strangers


def test_reference_does_not_use_what_is_compiled():
    users = [
        path.name
        for path in sources(PACKAGE / "reference")
        for module, name in imports(path)
        if set(COMPILED) & set(f"{module}.{name}".split("."))
    ]
    assert not users


def test_the_architecture_page_has_these_rooms_in_this_order():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed: dict[int, set[str]] = {}
    for number, names in re.findall(r"^\| (\d+) \| (`.*?) \|", text, re.MULTILINE):
        listed.setdefault(int(number), set()).update(re.findall(r"`(\w+)`", names))
    there = [{room.strip() for room in line.split("|")} for line in LAYERS]
    there = [rooms - {f"({room})" for room in OPTIONAL - set(COMPILED)} for rooms in there]
    expected = [{room.strip("()") for room in rooms} for rooms in there if rooms]
    assert list(listed) == list(range(1, len(expected) + 1))
    assert list(listed.values()) == expected


def test_only_the_ignored_imports_climb():
    # What is ignored: imports of the package as a whole, which the test above holds to rooms.
    assert [contract.get("ignore_imports", []) for contract in CONTRACTS] == [["systolic.** -> systolic"], []]


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.slow
def test_no_files_import_each_other_in_a_circle():
    files = {module(path): path for path in sources()}
    edges: dict[str, set[str]] = {}
    for name, path in files.items():
        imported = {f"{of}.{what}" if f"{of}.{what}" in files else of for of, what in imports(path)}
        edges[name] = imported & files.keys() - {name, "systolic"}
    # Remove files that import none of those left, until none can be removed.
    while leaves := {name for name, used in edges.items() if not used & edges.keys()}:
        edges = {name: used for name, used in edges.items() if name not in leaves}
    # And those that none of them imports: what remains are circles and the files between them.
    while roots := edges.keys() - set().union(*edges.values()):
        edges = {name: used for name, used in edges.items() if name not in roots}
    assert not edges


def test_no_module_shares_its_name_with_what_its_package_exports():
    # The package's attribute would hide the module.
    hidden = set()
    for path in sources():
        if path.name == "__init__.py":
            inside = {other.stem for other in path.parent.iterdir()} - {"__init__"}
            exported = {name for of, name in imports(path) if of not in ("systolic", module(path))}
            defined = {getattr(node, "name", None) for node in ast.parse(path.read_text(encoding="utf-8")).body}
            hidden |= {f"{module(path)}.{name}" for name in inside & (exported | defined)}
    assert not hidden


def test_lowest_rooms_do_not_use_what_is_compiled():
    lowest = {"_check", "_files", "_hints", "_memory", "_plain", "_show", "_text", "_version"}
    lines = [{room.strip() for room in line.split("|")} for line in LAYERS]
    first = next(i for i, rooms in enumerate(lines) if "_check" in rooms)
    assert lowest == set().union(*lines[first:]) - {f"({room})" for room in COMPILED}
    users = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") in lowest
        and any(module == "systolic" and name in COMPILED for module, name in imports(path))
    ]
    assert not users


def test_lowering_computes_nothing():
    """Layers lower themselves to data: what is compiled is the machine's, and the host layers'."""
    files = [PACKAGE / "gemm.py", PACKAGE / "lowered.py", *(PACKAGE / "layers").glob("*.py")]
    users = [
        path.name
        for path in files
        for module, name in imports(path)
        if set(COMPILED) & set(f"{module}.{name}".split("."))
    ]
    assert not users


@pytest.mark.parametrize("room", sorted(COMPILED))
def test_compiled_rooms_use_those_below(room):
    text = (PACKAGE / f"{room}.pyx").read_text(encoding="utf-8")
    for part in re.findall(r'^include "(\w+\.pxi)"$', text, re.MULTILINE):
        text = text.replace(f'include "{part}"', (PACKAGE / part).read_text(encoding="utf-8"))
    lines = re.findall(r"^[ \t]*(?:from\s+\S+\s+c?import|c?import|include)\b.*$", text, re.MULTILINE)
    ours = [line for line in lines if "systolic" in line or re.match(r"\s*(from\s+\.|include)", line)]
    used = {re.fullmatch(r'from systolic\.(\w+|kernels\.\w+) cimport .+', line)[1] for line in ours}
    assert lines and {name for name in used if "." not in name} == COMPILED[room]


def test_kernels_know_nothing_of_python():
    files = sorted((PACKAGE / "kernels").glob("*.[ch]"))
    included = {name for path in files for name in re.findall(r'#include "([^"]+)"', path.read_text(encoding="utf-8"))}
    assert included <= {path.name for path in files}
    assert files and not any("Python.h" in path.read_text(encoding="utf-8") for path in files)
