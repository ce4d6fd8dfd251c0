"""Properties of this installation: versions, the kernel's instruction set, threads, presets."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from systolic import _core, _kernels, presets
from systolic._show.table import card_text
from systolic._version import __version__
from systolic.threads import thread_count

# Packages of the extras.
OPTIONAL = ("onnx", "onnxruntime", "matplotlib", "pandas", "pyvcd")

# Environment variables that change behavior: SYSTOLIC_ISA names the instruction set to use.
ENVIRONMENT = ("SYSTOLIC_ISA",)


def info() -> dict[str, Any]:
    """Return the values that :func:`show_config` prints, ready for JSON."""
    return {
        "systolic": __version__,
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "threads": thread_count(),
        "kernel": _kernels.instruction_set,
        "instruction_sets": list(_kernels.instruction_sets),
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
        "kernel_lanes": _core.lanes,
        "presets": list(presets.names()),
        "optional": {name: _version(name) for name in OPTIONAL},
    }


def cpu_name() -> str:
    """Return the processor's name as the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def show_config() -> None:
    """Print versions, the kernel's instruction set, threads and presets: for bug reports.

    Examples
    --------
    >>> import systolic
    >>> systolic.show_config()  # doctest: +ELLIPSIS
    systolic...
    """
    print(text(info()))


def text(values: dict[str, Any]) -> str:
    """Return the values of :func:`info` as aligned lines."""
    optional = ", ".join(f"{name} {version or 'absent'}" for name, version in values["optional"].items())
    environment = values["environment"].items()
    replaced = {
        "kernel": f"{values['kernel']} in use, of {', '.join(values['instruction_sets'])}",
        "environment": ", ".join(f"{name}={v}" if v else f"{name} not set" for name, v in environment),
        "presets": ", ".join(values["presets"]),
        "optional": optional,
    }
    left_out = ("systolic", "kernel_lanes", "instruction_sets")
    pairs = [(name, replaced.get(name, str(value))) for name, value in values.items() if name not in left_out]
    return card_text(f"systolic {values['systolic']}", pairs)


def _version(package: str) -> str | None:
    import importlib.metadata  # here because it is slow to import, and few calls need it

    # Asking the metadata does not import the package.
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
