"""Every example in a docstring runs, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest

import systolic
from systolic.layers import ArrayLayer, HostLayer, Layer

MODULES = ["systolic", *sorted(found.name for found in pkgutil.walk_packages(systolic.__path__, "systolic."))]
PUBLIC = {
    f"{module.__name__}.{name}": value
    for module in (systolic, systolic.layers)
    for name, value in ((name, getattr(module, name)) for name in module.__all__)
    if (inspect.isclass(value) or inspect.isroutine(value)) and value not in (ArrayLayer, HostLayer, Layer)
}
OLD_NUMPY = np.lib.NumpyVersion(np.__version__) < "2.0.0"


def members(cls: type) -> dict[str, Any]:
    """Return the public methods and properties that a class of ours defines itself."""
    return {
        name: value
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, property | classmethod | staticmethod))
    }


def test_all_modules_are_found():
    # The parametrized test below must not run empty; the compiled module counts.
    assert {"systolic._core", "systolic.engine", "systolic.layers.conv"} <= set(MODULES)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
@pytest.mark.skipif(OLD_NUMPY, reason="numpy 1 prints scalars differently")
@pytest.mark.slow
def test_examples_run(name):
    module = importlib.import_module(name)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=report.append)
    assert not runner.failures, "\n" + "".join(report)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_documented_with_an_example(name):
    doc = inspect.cleandoc(PUBLIC[name].__doc__ or "")
    # A dataclass without a docstring gets its signature for one.
    assert doc and not doc.startswith(f"{name.split('.')[-1]}("), f"{name} has no docstring"
    assert "\nExamples\n--------\n" in doc, f"{name} has no Examples section"
    assert ">>>" in doc, f"{name}'s example does not run (no >>>)"


@pytest.mark.parametrize("name", sorted(name for name, value in PUBLIC.items() if inspect.isclass(value)))
def test_public_members_are_documented(name):
    bare = [member for member, value in members(PUBLIC[name]).items() if not value.__doc__]
    assert not bare, f"{name} has members without a docstring: {', '.join(bare)}"
